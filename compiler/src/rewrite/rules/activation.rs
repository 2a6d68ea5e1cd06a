//! Activation functions that an exporter wrote in pieces, put together again.
//!
//! Numbers such as the square root of 2 count as recognised when they are as near as their type tells.

use crate::rewrite::rule::{Class, Conjunct, Find, Match, Rule};
use egg::Id;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI};
use strang_ir::scalar::{Binary, Unary};

/// Whether several paths from the outermost node read a variable at one position.
fn same_place(m: &Match, value: &str, paths: &[&[(&str, usize)]]) -> bool {
    let mut reads = paths.iter().map(|path| m.through(path, value));
    let Some(Some(first)) = reads.next() else { return false };
    reads.all(|read| read.as_ref() == Some(&first))
}

/// The function of `x`, which the first operand of the outermost product leads to.
fn function_at(m: &mut Match, path: &[(&str, usize)], function: Unary) -> Option<Id> {
    let x = m.through(path, "x")?;
    Some(m.unary("s", function, x))
}

/// Where x stands in `(mul ?s (mul ?p x gate) half)`, and where the gate.
fn gate_slots(m: &Match) -> (usize, usize) {
    if m.pattern.is_multiple_of(2) { (0, 1) } else { (1, 0) }
}

fn gelu_places(m: &Match) -> bool {
    let (x, gate) = gate_slots(m);
    same_place(m, "x", &[&[("s", 0), ("p", x)], &[("s", 0), ("p", gate), ("a", 0), ("e", 0), ("r", 0)]])
}

fn gelu_tanh_places(m: &Match) -> bool {
    let (x, gate) = gate_slots(m);
    let inner = [("s", 0), ("p", gate), ("a", 0), ("h", 0), ("k", 0)];
    let through = |rest: &[(&'static str, usize)]| [&inner[..], rest].concat();
    let (sum, cube) = (through(&[("q", 0)]), through(&[("q", 1), ("u", 0)]));
    let (single, square) = if m.pattern < 2 { (0, 1) } else { (1, 0) };
    let first = [&cube[..], &[("v", single)]].concat();
    let second = [&cube[..], &[("v", square), ("w", 0)]].concat();
    let third = [&cube[..], &[("v", square), ("w", 1)]].concat();
    same_place(m, "x", &[&[("s", 0), ("p", x)], &sum, &first, &second, &third])
}

pub const RULES: &[Rule] = &[
    Rule {
        name: "sigmoid-in-pieces",
        class: Class::Real,
        law: "1 / (1 + exp(-x)) = sigmoid x",
        source: "definition of sigmoid",
        find: Find::Patterns(&["(reciprocal ?s (add ?a (exp ?e (neg ?n ?x)) ?one))"], |m| {
            function_at(m, &[("s", 0), ("a", 0), ("e", 0), ("n", 0)], Unary::Sigmoid)
        }),
        guard: &[Conjunct {
            text: "one is 1",
            holds: |m| m.is("one", 1.),
            counterexample: "reciprocal(exp(neg($0)) + 2.0)",
        }],
        examples: &["reciprocal(exp(neg($0)) + 1.0)"],
    },
    Rule {
        name: "silu-in-pieces",
        class: Class::Real,
        law: "x * sigmoid x = silu x",
        source: "definition of silu (Elfwing et al., 2018)",
        find: Find::Patterns(&["(mul ?s ?x (sigmoid ?g ?x))", "(mul ?s (sigmoid ?g ?x) ?x)"], |m| {
            let (x, _) = gate_slots(m);
            let read = m.read("s", x, "x");
            Some(m.unary("s", Unary::Silu, read))
        }),
        guard: &[Conjunct {
            text: "both read x at one position",
            holds: |m| {
                let (x, gate) = gate_slots(m);
                same_place(m, "x", &[&[("s", x)], &[("s", gate), ("g", 0)]])
            },
            counterexample: "fn @f(%x: f32[a, a]) -> f32[a, a] {
  %g = map sigmoid : %x[a', a] -> [a, a']
  %r = map mul : %x[a, a'], %g[a, a'] -> [a, a']
  return %r
}",
        }],
        examples: &["$0 * sigmoid($0)", "sigmoid($0) * $0"],
    },
    Rule {
        name: "gelu-in-pieces",
        class: Class::Real,
        law: "x * (1 + erf(x / sqrt 2)) / 2 = gelu x",
        source: "definition of GELU (Hendrycks and Gimpel, 2016)",
        find: Find::Patterns(
            &[
                "(mul ?s (mul ?p ?x (add ?a (erf ?e (mul ?r ?x ?root)) ?one)) ?half)",
                "(mul ?s (mul ?p (add ?a (erf ?e (mul ?r ?x ?root)) ?one) ?x) ?half)",
            ],
            |m| {
                let (x, _) = gate_slots(m);
                function_at(m, &[("s", 0), ("p", x)], Unary::Gelu)
            },
        ),
        guard: &[
            Conjunct {
                text: "the factor is 1/2",
                holds: |m| m.is("half", 0.5),
                counterexample: "$0 * (erf($0 * 0.7071067811865476) + 1.0) * 0.25",
            },
            Conjunct {
                text: "1 is added",
                holds: |m| m.is("one", 1.),
                counterexample: "$0 * (erf($0 * 0.7071067811865476) + 2.0) * 0.5",
            },
            Conjunct {
                text: "x is divided by the root of 2",
                holds: |m| m.is_about("root", FRAC_1_SQRT_2),
                counterexample: "$0 * (erf($0 * 0.7) + 1.0) * 0.5",
            },
            Conjunct {
                text: "x is read at one position",
                holds: gelu_places,
                counterexample: "fn @f(%x: f32[a, a]) -> f32[a, a] {
  %e = map erf($0 * 0.7071067811865476) + 1.0 : %x[a', a] -> [a, a']
  %r = map $0 * $1 * 0.5 : %x[a, a'], %e[a, a'] -> [a, a']
  return %r
}",
            },
        ],
        examples: &[
            "$0 * (erf($0 * 0.7071067811865476) + 1.0) * 0.5",
            "(erf($0 * 0.7071067811865476) + 1.0) * $0 * 0.5",
        ],
    },
    Rule {
        name: "gelu-tanh-in-pieces",
        class: Class::Real,
        law: "x * (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2 = gelu_tanh x",
        source: "definition of GELU's approximation (Hendrycks and Gimpel, 2016)",
        find: Find::Patterns(
            &[
                "(mul ?s (mul ?p ?x (add ?a (tanh ?h (mul ?k (add ?q ?x (mul ?u (mul ?v ?x (mul ?w ?x ?x)) ?c)) ?d)) ?one)) ?half)",
                "(mul ?s (mul ?p (add ?a (tanh ?h (mul ?k (add ?q ?x (mul ?u (mul ?v ?x (mul ?w ?x ?x)) ?c)) ?d)) ?one) ?x) ?half)",
                "(mul ?s (mul ?p ?x (add ?a (tanh ?h (mul ?k (add ?q ?x (mul ?u (mul ?v (mul ?w ?x ?x) ?x) ?c)) ?d)) ?one)) ?half)",
                "(mul ?s (mul ?p (add ?a (tanh ?h (mul ?k (add ?q ?x (mul ?u (mul ?v (mul ?w ?x ?x) ?x) ?c)) ?d)) ?one) ?x) ?half)",
            ],
            |m| {
                let (x, _) = gate_slots(m);
                function_at(m, &[("s", 0), ("p", x)], Unary::GeluTanh)
            },
        ),
        guard: &[
            Conjunct {
                text: "the factor is 1/2",
                holds: |m| m.is("half", 0.5),
                counterexample: "$0 * (tanh(($0 + $0 * ($0 * $0) * 0.044715) * 0.7978845608028654) + 1.0) * 0.25",
            },
            Conjunct {
                text: "1 is added",
                holds: |m| m.is("one", 1.),
                counterexample: "$0 * (tanh(($0 + $0 * ($0 * $0) * 0.044715) * 0.7978845608028654) + 2.0) * 0.5",
            },
            Conjunct {
                text: "the cube counts 0.044715",
                holds: |m| m.is_about("c", 0.044715),
                counterexample: "$0 * (tanh(($0 + $0 * ($0 * $0) * 0.05) * 0.7978845608028654) + 1.0) * 0.5",
            },
            Conjunct {
                text: "the root of 2/pi is a factor",
                holds: |m| m.is_about("d", FRAC_2_PI.sqrt()),
                counterexample: "$0 * (tanh(($0 + $0 * ($0 * $0) * 0.044715) * 0.75) + 1.0) * 0.5",
            },
            Conjunct {
                text: "x is read at one position",
                holds: gelu_tanh_places,
                counterexample: "fn @f(%x: f32[a, a]) -> f32[a, a] {
  %e = map tanh(($0 + $0 * ($0 * $0) * 0.044715) * 0.7978845608028654) + 1.0 : %x[a', a] -> [a, a']
  %r = map $0 * $1 * 0.5 : %x[a, a'], %e[a, a'] -> [a, a']
  return %r
}",
            },
        ],
        examples: &[
            "$0 * (tanh(($0 + $0 * ($0 * $0) * 0.044715) * 0.7978845608028654) + 1.0) * 0.5",
            "(tanh(($0 + $0 * $0 * $0 * 0.044715) * 0.7978845608028654) + 1.0) * $0 * 0.5",
        ],
    },
    Rule {
        name: "tanh-of-sigmoid",
        class: Class::Real,
        law: "2 sigmoid(2 x) - 1 = tanh x",
        source: "addition theorem of tanh",
        find: Find::Patterns(&["(sub ?s (mul ?m (sigmoid ?g (mul ?t ?x ?two)) ?factor) ?one)"], |m| {
            function_at(m, &[("s", 0), ("m", 0), ("g", 0), ("t", 0)], Unary::Tanh)
        }),
        guard: &[
            Conjunct {
                text: "x is doubled",
                holds: |m| m.is("two", 2.),
                counterexample: "sigmoid($0 * 3.0) * 2.0 - 1.0",
            },
            Conjunct {
                text: "the sigmoid is doubled",
                holds: |m| m.is("factor", 2.),
                counterexample: "sigmoid($0 * 2.0) * 3.0 - 1.0",
            },
            Conjunct {
                text: "1 is subtracted",
                holds: |m| m.is("one", 1.),
                counterexample: "sigmoid($0 * 2.0) * 2.0 - 2.0",
            },
        ],
        examples: &["sigmoid($0 * 2.0) * 2.0 - 1.0"],
    },
    Rule {
        name: "softplus-in-pieces",
        class: Class::Real,
        law: "log(1 + exp x) = softplus x (an overflow of exp goes away)",
        source: "definition of softplus",
        find: Find::Patterns(&["(log ?s (add ?a (exp ?e ?x) ?one))"], |m| {
            function_at(m, &[("s", 0), ("a", 0), ("e", 0)], Unary::Softplus)
        }),
        guard: &[Conjunct { text: "1 is added", holds: |m| m.is("one", 1.), counterexample: "log(exp($0) + 2.0)" }],
        examples: &["log(exp($0) + 1.0)"],
    },
    Rule {
        name: "hard-swish-in-pieces",
        class: Class::Real,
        law: "x * hard_sigmoid x = hard_swish x",
        source: "definition of hard swish (Howard et al., 2019)",
        find: Find::Patterns(&["(mul ?s ?x (hard_sigmoid ?g ?x))", "(mul ?s (hard_sigmoid ?g ?x) ?x)"], |m| {
            let (x, _) = gate_slots(m);
            let read = m.read("s", x, "x");
            Some(m.unary("s", Unary::HardSwish, read))
        }),
        guard: &[Conjunct {
            text: "both read x at one position",
            holds: |m| {
                let (x, gate) = gate_slots(m);
                same_place(m, "x", &[&[("s", x)], &[("s", gate), ("g", 0)]])
            },
            counterexample: "fn @f(%x: f32[a, a]) -> f32[a, a] {
  %g = map hard_sigmoid : %x[a', a] -> [a, a']
  %r = map mul : %x[a, a'], %g[a, a'] -> [a, a']
  return %r
}",
        }],
        examples: &["$0 * hard_sigmoid($0)"],
    },
    Rule {
        name: "relu-of-scaled",
        class: Class::Bit,
        law: "relu(x * c) = relu x * c for c > 0",
        source: "relu is positively homogeneous",
        find: Find::Patterns(&["(relu ?s (mul ?t ?x ?c))"], |m| {
            let x = m.through(&[("s", 0), ("t", 0)], "x")?;
            let c = m.through(&[("s", 0), ("t", 1)], "c")?;
            let relu = m.unary("s", Unary::Relu, x);
            let relu = m.whole("s", relu);
            Some(m.binary("s", Binary::Multiply, relu, c))
        }),
        guard: &[Conjunct {
            text: "c is a finite number above 0",
            holds: |m| m.literal("c").is_some_and(|c| c.to_f64() > 0. && c.to_f64().is_finite()),
            counterexample: "relu($0 * -0.5)",
        }],
        examples: &["relu($0 * 0.3)", "relu($0 * 2.0)"],
    },
];
