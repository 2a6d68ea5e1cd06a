//! Elementwise rules: identities, cheaper functions, and monotone functions beside minima and maxima.

use super::parts::is_float;
use crate::rewrite::{
    egraph::{Read, build, facts::fold},
    rule::{Class, Conjunct, Find, Match, Rule},
};
use strang_ir::{
    ElementType, Literal, ScalarExpr,
    scalar::{Binary, Unary},
};

/// A read of the first operand of the outermost node, as the result.
fn first(m: &mut Match) -> Option<egg::Id> {
    let read = m.read("s", 0, "x");
    Some(m.view("s", read))
}

/// A read of the operand of the operand of the outermost node, as the result.
fn innermost(m: &mut Match) -> Option<egg::Id> {
    let read = m.through(&[("s", 0), ("t", 0)], "x")?;
    Some(m.view("s", read))
}

/// One function fewer around the operand of the operand.
fn outer_of_innermost(m: &mut Match, function: Unary) -> Option<egg::Id> {
    let read = m.through(&[("s", 0), ("t", 0)], "x")?;
    Some(m.unary("s", function, read))
}

/// Two numbers on one side become one.
fn numbers_together(m: &mut Match, outer: Binary, inner: Binary) -> Option<egg::Id> {
    let x = m.through(&[("s", 0), ("t", 0)], "x")?;
    let (c, d) = (m.literal("c")?, m.literal("d")?);
    let both = fold(inner, c, d)?;
    let both = Read::number(build::number(m.graph, both));
    Some(m.binary("s", outer, x, both))
}

fn power_of_two(m: &Match) -> bool {
    m.literal("c").is_some_and(|literal| {
        let reciprocal = Literal::from_f64(literal.element, 1. / literal.to_f64());
        let exact = |literal: Literal| {
            let value = literal.to_f64();
            value.is_normal() && value.abs().log2().fract() == 0.
        };
        // The reciprocal must not be subnormal in the element's type either.
        let smallest = match literal.element {
            ElementType::F16 => 6.2e-5,
            _ => 1.2e-38,
        };
        exact(literal) && exact(reciprocal) && reciprocal.to_f64().abs() >= smallest
    })
}

pub const RULES: &[Rule] = &[
    Rule {
        name: "multiply-by-one",
        class: Class::Bit,
        law: "x * 1 = x",
        source: "identity of products",
        find: Find::Patterns(&["(mul ?s ?x ?c)"], first),
        guard: &[Conjunct { text: "c is 1", holds: |m| m.is("c", 1.), counterexample: "$0 * 2.0" }],
        examples: &["$0 * 1.0"],
    },
    Rule {
        name: "divide-by-one",
        class: Class::Bit,
        law: "x / 1 = x",
        source: "identity of quotients",
        find: Find::Patterns(&["(div ?s ?x ?c)"], first),
        guard: &[Conjunct { text: "c is 1", holds: |m| m.is("c", 1.), counterexample: "$0 / 2.0" }],
        examples: &["$0 / 1.0"],
    },
    Rule {
        name: "subtract-zero",
        class: Class::Bit,
        law: "x - 0 = x",
        source: "identity of differences",
        find: Find::Patterns(&["(sub ?s ?x ?c)"], first),
        guard: &[Conjunct {
            text: "c is +0: -0 - (-0) is +0",
            holds: |m| m.literal("c").is_some_and(|literal| literal.bits == 0),
            counterexample: "$0 - 1.0",
        }],
        examples: &["$0 - 0.0"],
    },
    Rule {
        name: "add-zero",
        class: Class::Real,
        law: "x + 0 = x (a result of +0 may become -0)",
        source: "identity of sums",
        find: Find::Patterns(&["(add ?s ?x ?c)"], first),
        guard: &[Conjunct { text: "c is 0", holds: |m| m.is("c", 0.), counterexample: "$0 + 1.0" }],
        examples: &["$0 + 0.0"],
    },
    Rule {
        name: "multiply-by-minus-one",
        class: Class::Bit,
        law: "x * -1 = -x",
        source: "IEEE 754: both change the sign alone",
        find: Find::Patterns(&["(mul ?s ?x ?c)"], |m| {
            let read = m.read("s", 0, "x");
            Some(m.unary("s", Unary::Negate, read))
        }),
        guard: &[Conjunct { text: "c is -1", holds: |m| m.is("c", -1.), counterexample: "$0 * -2.0" }],
        examples: &["$0 * -1.0"],
    },
    Rule {
        name: "multiply-by-zero",
        class: Class::Real,
        law: "x * 0 = 0 (a NaN or an infinity in x is dropped)",
        source: "absorbing element of products",
        find: Find::Patterns(&["(mul ?s ?x ?c)"], |m| {
            let zero = m.number("c", 0.);
            Some(m.view("s", zero))
        }),
        guard: &[Conjunct { text: "c is 0", holds: |m| m.is("c", 0.), counterexample: "$0 * 0.5" }],
        examples: &["$0 * 0.0"],
    },
    Rule {
        name: "double-negation",
        class: Class::Bit,
        law: "-(-x) = x",
        source: "involution",
        find: Find::Patterns(&["(neg ?s (neg ?t ?x))"], innermost),
        guard: &[],
        examples: &["neg(neg($0))"],
    },
    Rule {
        name: "add-negated",
        class: Class::Bit,
        law: "x + (-y) = x - y",
        source: "IEEE 754: a difference is that sum",
        find: Find::Patterns(&["(add ?s ?x (neg ?t ?y))", "(add ?s (neg ?t ?y) ?x)"], |m| {
            let (own, other) = if m.pattern == 0 { (1, 0) } else { (0, 1) };
            let y = m.through(&[("s", own), ("t", 0)], "y")?;
            let x = m.read("s", other, "x");
            Some(m.binary("s", Binary::Subtract, x, y))
        }),
        guard: &[],
        examples: &["$0 + neg($1)"],
    },
    Rule {
        name: "subtract-negated",
        class: Class::Bit,
        law: "x - (-y) = x + y",
        source: "IEEE 754: a difference is that sum",
        find: Find::Patterns(&["(sub ?s ?x (neg ?t ?y))"], |m| {
            let (x, y) = (m.read("s", 0, "x"), m.through(&[("s", 1), ("t", 0)], "y")?);
            Some(m.binary("s", Binary::Add, x, y))
        }),
        guard: &[],
        examples: &["$0 - neg($1)"],
    },
    Rule {
        name: "absolute-of-negation",
        class: Class::Bit,
        law: "|-x| = |x|",
        source: "even function",
        find: Find::Patterns(&["(abs ?s (neg ?t ?x))", "(abs ?s (abs ?t ?x))"], |m| {
            outer_of_innermost(m, Unary::Absolute)
        }),
        guard: &[],
        examples: &["abs(neg($0))", "abs(abs($0))"],
    },
    Rule {
        name: "relu-twice",
        class: Class::Bit,
        law: "relu(relu x) = relu x",
        source: "idempotence",
        find: Find::Patterns(&["(relu ?s (relu ?t ?x))"], |m| outer_of_innermost(m, Unary::Relu)),
        guard: &[],
        examples: &["relu(relu($0))"],
    },
    Rule {
        name: "relu-of-nonnegative",
        class: Class::Real,
        law: "relu x = x if x >= 0 (a result of +0 may become -0)",
        source: "definition of relu",
        find: Find::Patterns(&["(relu ?s ?x)", "(abs ?s ?x)"], first),
        guard: &[Conjunct {
            text: "x is never negative, nor is the fill around it",
            holds: |m| {
                let fill = m.node("s").maps[0].fill;
                m.facts("x").range.low >= 0. && fill.is_none_or(|fill| fill.to_f64() >= 0.)
            },
            counterexample: "relu($0)",
        }],
        examples: &["relu(exp($0))", "abs($0 * $0)"],
    },
    Rule {
        name: "maximum-with-zero",
        class: Class::Bit,
        law: "max(x, 0) = relu x",
        source: "definition of relu",
        find: Find::Patterns(&["(max ?s ?x ?c)"], |m| {
            let read = m.read("s", 0, "x");
            Some(m.unary("s", Unary::Relu, read))
        }),
        guard: &[Conjunct {
            text: "c is +0: max(-0, -0) is -0",
            holds: |m| m.literal("c").is_some_and(|literal| literal.bits == 0),
            counterexample: "max($0, 0.5)",
        }],
        examples: &["max($0, 0.0)"],
    },
    Rule {
        name: "extremum-of-equals",
        class: Class::Bit,
        law: "max(x, x) = x, min(x, x) = x",
        source: "idempotence",
        find: Find::Patterns(&["(max ?s ?x ?x)", "(min ?s ?x ?x)"], first),
        guard: &[Conjunct {
            text: "both are read at one position",
            holds: |m| {
                let node = m.node("s");
                node.maps[0] == node.maps[1]
            },
            counterexample: "fn @f(%x: f32[a, a]) -> f32[a, a] {
  %r = map max : %x[a, a'], %x[a', a] -> [a, a']
  return %r
}",
        }],
        examples: &["max($0, $0)", "min($0, $0)"],
    },
    Rule {
        name: "maximum-of-maximum",
        class: Class::Bit,
        law: "max(max(x, c), d) = max(x, max(c, d))",
        source: "associativity",
        find: Find::Patterns(&["(max ?s (max ?t ?x ?c) ?d)"], |m| {
            let x = m.through(&[("s", 0), ("t", 0)], "x")?;
            let (c, d) = (m.literal("c")?, m.literal("d")?);
            let larger = if c.to_f64() > d.to_f64() { c } else { d };
            let both = Read::number(build::number(m.graph, larger));
            Some(m.binary("s", Binary::Maximum, x, both))
        }),
        guard: &[Conjunct {
            text: "c and d are numbers, and not zeros of two signs",
            holds: |m| {
                let (Some(c), Some(d)) = (m.literal("c"), m.literal("d")) else { return false };
                c == d || c.to_f64() != d.to_f64()
            },
            counterexample: "max(max($0, 0.0), -0.0)",
        }],
        examples: &["max(max($0, 0.5), -1.0)"],
    },
    Rule {
        name: "multiply-by-two-numbers",
        class: Class::Real,
        law: "(x * c) * d = x * (c * d) (an overflow of x * c may go away)",
        source: "associativity",
        find: Find::Patterns(&["(mul ?s (mul ?t ?x ?c) ?d)"], |m| {
            numbers_together(m, Binary::Multiply, Binary::Multiply)
        }),
        guard: &[Conjunct {
            text: "c * d neither overflows nor becomes 0",
            holds: |m| {
                let (Some(c), Some(d)) = (m.literal("c"), m.literal("d")) else { return false };
                let both = fold(Binary::Multiply, c, d);
                both.is_some_and(|both| both.to_f64().is_normal())
            },
            counterexample: "$0 * 1e200 * 1e200",
        }],
        examples: &["$0 * 3.0 * 0.1", "$0 * 0.5 * 2.0"],
    },
    Rule {
        name: "add-two-numbers",
        class: Class::Real,
        law: "(x + c) + d = x + (c + d)",
        source: "associativity",
        find: Find::Patterns(&["(add ?s (add ?t ?x ?c) ?d)"], |m| numbers_together(m, Binary::Add, Binary::Add)),
        guard: &[Conjunct {
            text: "c + d is a finite number",
            holds: |m| {
                let (Some(c), Some(d)) = (m.literal("c"), m.literal("d")) else { return false };
                fold(Binary::Add, c, d).is_some_and(|sum| sum.to_f64().is_finite())
            },
            counterexample: "$0 * 0.0 - 1e308 + 1e308 + 1e308",
        }],
        examples: &["$0 + 1.0 + 0.5"],
    },
    Rule {
        name: "divide-by-power-of-two",
        class: Class::Bit,
        law: "x / c = x * (1/c) for a power of two c",
        source: "IEEE 754: both scale the exponent alone",
        find: Find::Patterns(&["(div ?s ?x ?c)"], |m| {
            let x = m.read("s", 0, "x");
            let reciprocal = 1. / m.literal("c")?.to_f64();
            let reciprocal = m.number("c", reciprocal);
            Some(m.binary("s", Binary::Multiply, x, reciprocal))
        }),
        guard: &[Conjunct {
            text: "c and 1/c are normal powers of two",
            holds: power_of_two,
            counterexample: "$0 / 3.0",
        }],
        examples: &["$0 / 4.0", "$0 / 0.125"],
    },
    Rule {
        name: "divide-by-number",
        class: Class::Real,
        law: "x / c = x * (1/c)",
        source: "definition of quotients",
        find: Find::Patterns(&["(div ?s ?x ?c)"], |m| {
            let x = m.read("s", 0, "x");
            let reciprocal = 1. / m.literal("c")?.to_f64();
            let reciprocal = m.number("c", reciprocal);
            Some(m.binary("s", Binary::Multiply, x, reciprocal))
        }),
        guard: &[Conjunct {
            text: "c is a number whose reciprocal is normal",
            holds: |m| {
                m.facts("c").element().is_float()
                    && m.literal("c").is_some_and(|c| {
                        c.to_f64().is_normal() && Literal::from_f64(c.element, 1. / c.to_f64()).to_f64().is_normal()
                    })
            },
            counterexample: "$0 * 1e-300 / 1e-310",
        }],
        examples: &["$0 / 1.4142135", "$0 / 3.0"],
    },
    Rule {
        name: "reciprocal-of-root",
        class: Class::Bit,
        law: "1 / sqrt x = rsqrt x",
        source: "definition of rsqrt",
        find: Find::Patterns(&["(reciprocal ?s (sqrt ?t ?x))"], |m| outer_of_innermost(m, Unary::ReciprocalSquareRoot)),
        guard: &[Conjunct {
            text: "the type is f32 or f64: shorter floats are rounded between the two functions",
            holds: |m| matches!(m.facts("x").element(), ElementType::F32 | ElementType::F64),
            counterexample: "fn @f(%x: bf16[a, b]) -> bf16[a, b] {
  %r = map reciprocal(sqrt($0)) : %x[a, b] -> [a, b]
  return %r
}",
        }],
        examples: &["reciprocal(sqrt($0))"],
    },
    Rule {
        name: "divide-one",
        class: Class::Bit,
        law: "1 / x = reciprocal x",
        source: "definition of reciprocal",
        find: Find::Patterns(&["(div ?s ?c ?x)"], |m| {
            let read = m.read("s", 1, "x");
            Some(m.unary("s", Unary::Reciprocal, read))
        }),
        guard: &[
            Conjunct { text: "c is 1", holds: |m| m.is("c", 1.), counterexample: "2.0 / $0" },
            Conjunct {
                text: "x is a float",
                holds: |m| is_float(m, "x"),
                counterexample: "fn @f(%x: i64[b]) -> i64[b] {
  %r = map 1 / $0 : %x[b] -> [b]
  return %r
}",
            },
        ],
        examples: &["1.0 / $0"],
    },
    Rule {
        name: "power-two",
        class: Class::Real,
        law: "x ^ 2 = x * x",
        source: "definition of powers",
        find: Find::Patterns(&["(pow ?s ?x ?c)"], |m| {
            let x = m.read("s", 0, "x");
            Some(m.binary("s", Binary::Multiply, x.clone(), x))
        }),
        guard: &[Conjunct { text: "c is 2", holds: |m| m.is("c", 2.), counterexample: "pow($0, 3.0)" }],
        examples: &["pow($0, 2.0)"],
    },
    Rule {
        name: "power-three",
        class: Class::Real,
        law: "x ^ 3 = x * x * x",
        source: "definition of powers",
        find: Find::Patterns(&["(pow ?s ?x ?c)"], |m| {
            let x = m.read("s", 0, "x");
            let square = m.binary("s", Binary::Multiply, x.clone(), x.clone());
            let square = m.whole("s", square);
            Some(m.binary("s", Binary::Multiply, square, x))
        }),
        guard: &[Conjunct { text: "c is 3", holds: |m| m.is("c", 3.), counterexample: "pow($0, 2.0)" }],
        examples: &["pow($0, 3.0)"],
    },
    Rule {
        name: "power-half",
        class: Class::Real,
        law: "x ^ (1/2) = sqrt x (for x = -inf the power is inf, the root NaN)",
        source: "definition of roots",
        find: Find::Patterns(&["(pow ?s ?x ?c)"], |m| {
            let x = m.read("s", 0, "x");
            Some(m.unary("s", Unary::SquareRoot, x))
        }),
        guard: &[Conjunct { text: "c is 1/2", holds: |m| m.is("c", 0.5), counterexample: "pow($0, 0.25)" }],
        examples: &["pow($0, 0.5)"],
    },
    Rule {
        name: "power-minus-one",
        class: Class::Real,
        law: "x ^ -1 = 1 / x",
        source: "definition of powers",
        find: Find::Patterns(&["(pow ?s ?x ?c)"], |m| {
            let x = m.read("s", 0, "x");
            Some(m.unary("s", Unary::Reciprocal, x))
        }),
        guard: &[
            Conjunct { text: "c is -1", holds: |m| m.is("c", -1.), counterexample: "pow($0, -2.0)" },
            Conjunct {
                text: "x is a float",
                holds: |m| is_float(m, "x"),
                counterexample: "fn @f(%x: i64[b]) -> i64[b] {
  %r = map pow($0, -1) : %x[b] -> [b]
  return %r
}",
            },
        ],
        examples: &["pow($0, -1.0)"],
    },
    Rule {
        name: "select-of-equals",
        class: Class::Bit,
        law: "select(p, x, x) = x",
        source: "definition of select",
        find: Find::Patterns(&["(select ?s ?p ?x ?x)"], |m| {
            let read = m.read("s", 1, "x");
            Some(m.view("s", read))
        }),
        guard: &[Conjunct {
            text: "both are read at one position",
            holds: |m| {
                let node = m.node("s");
                node.maps[1] == node.maps[2]
            },
            counterexample: "fn @f(%p: bool[a, a], %x: f32[a, a]) -> f32[a, a] {
  %r = map select : %p[a, a'], %x[a, a'], %x[a', a] -> [a, a']
  return %r
}",
        }],
        examples: &["select($0 < $1, $1, $1)"],
    },
    Rule {
        name: "select-by-negation",
        class: Class::Bit,
        law: "select(not p, x, y) = select(p, y, x)",
        source: "definition of select",
        find: Find::Patterns(&["(select ?s (not ?t ?p) ?x ?y)"], |m| {
            let p = m.through(&[("s", 0), ("t", 0)], "p")?;
            let (x, y) = (m.read("s", 1, "x"), m.read("s", 2, "y"));
            let (frame, element) = (m.node("s"), m.facts("x").element());
            let operand = ScalarExpr::Operand;
            let select = ScalarExpr::select(operand(0), operand(1), operand(2));
            Some(build::map(m.graph, &frame, select, element, vec![p, y, x]))
        }),
        guard: &[],
        examples: &["select(not($0 < $1), $0, $1)"],
    },
    Rule {
        name: "convert-to-own-type",
        class: Class::Bit,
        law: "cast(T, x) = x for x of type T",
        source: "definition of cast",
        find: Find::Patterns(&["(cast ?s ?x)"], first),
        guard: &[Conjunct {
            text: "x has that type",
            holds: |m| m.facts("x").element() == m.node("s").outputs[0].element,
            counterexample: "cast(bool, $0)",
        }],
        examples: &["cast(f32, $0)"],
    },
];
