//! What composite operations and functions mean in terms of others. A composite is never handled twice: whatever does not
//! treat it by itself expands it.
//!
//! An expansion is equal over the reals; in floating point it may round elsewhere than the composite does.

use crate::{
    ElementType, Function, IndexMap, Literal, Node, Op, Output, ScalarExpr, SharedNode, Size, Value,
    op::{Monoid, Norm},
    scalar::{Binary, Unary},
};
use petgraph::{Direction, stable_graph::NodeIndex, visit::EdgeRef};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI};

/// A composite function of one value as an expression of `Operand(0)`, for a float type; `None` for primitive functions.
pub fn definition(function: Unary, element: ElementType) -> Option<ScalarExpr> {
    let x = || ScalarExpr::Operand(0);
    let number = |value: f64| ScalarExpr::Literal(Literal::from_f64(element, value));
    let of = |function, operand| ScalarExpr::unary(function, operand);
    let add = |a, b| ScalarExpr::binary(Binary::Add, a, b);
    let multiply = |a, b| ScalarExpr::binary(Binary::Multiply, a, b);
    let divide = |a, b| ScalarExpr::binary(Binary::Divide, a, b);
    // x/2 * (1 + inner)
    let half_gate = |inner| multiply(multiply(x(), number(0.5)), add(number(1.), inner));
    Some(match function {
        Unary::ReciprocalSquareRoot => divide(number(1.), of(Unary::SquareRoot, x())),
        Unary::Reciprocal => divide(number(1.), x()),
        Unary::Sigmoid => divide(number(1.), add(number(1.), of(Unary::Exp, of(Unary::Negate, x())))),
        Unary::Relu => ScalarExpr::binary(Binary::Maximum, x(), number(0.)),
        Unary::Gelu => half_gate(of(Unary::Erf, multiply(x(), number(FRAC_1_SQRT_2)))),
        Unary::GeluTanh => {
            let cube = multiply(multiply(x(), x()), x());
            let inner = add(x(), multiply(number(0.044715), cube));
            half_gate(of(Unary::Tanh, multiply(number(FRAC_2_PI.sqrt()), inner)))
        }
        Unary::Silu => multiply(x(), of(Unary::Sigmoid, x())),
        // Written so that the exponential does not overflow.
        Unary::Softplus => {
            let small = of(Unary::Exp, of(Unary::Negate, of(Unary::Absolute, x())));
            add(ScalarExpr::binary(Binary::Maximum, x(), number(0.)), of(Unary::LogOnePlus, small))
        }
        Unary::Mish => multiply(x(), of(Unary::Tanh, of(Unary::Softplus, x()))),
        Unary::HardSigmoid6 => {
            let line = add(divide(x(), number(6.)), number(0.5));
            let below = ScalarExpr::binary(Binary::Minimum, number(1.), line);
            ScalarExpr::binary(Binary::Maximum, number(0.), below)
        }
        Unary::HardSwish => multiply(x(), of(Unary::HardSigmoid6, x())),
        _ => return None,
    })
}

/// An expression with its composite functions of floats replaced by their definitions, all the way down. Where types do
/// not fit, the expression stays as it is.
pub fn expand_scalar(expression: &ScalarExpr, operands: &[ElementType]) -> ScalarExpr {
    let expand = |part: &ScalarExpr| expand_scalar(part, operands);
    match expression {
        ScalarExpr::Unary(function, operand) => {
            let operand = expand(operand);
            let element = operand.element(operands).ok().filter(|element| element.is_float());
            match element.and_then(|element| definition(*function, element)) {
                None => ScalarExpr::unary(*function, operand),
                Some(definition) => {
                    let whole = definition.replace_leaves(&mut |leaf| match leaf {
                        ScalarExpr::Operand(_) => operand.clone(),
                        other => other.clone(),
                    });
                    expand(&whole)
                }
            }
        }
        ScalarExpr::Binary(function, a, b) => ScalarExpr::binary(*function, expand(a), expand(b)),
        ScalarExpr::Select(a, b, c) => ScalarExpr::select(expand(a), expand(b), expand(c)),
        ScalarExpr::Cast(element, a) => ScalarExpr::cast(*element, expand(a)),
        leaf => leaf.clone(),
    }
}

/// Replaces a composite node of a verified function by its definition: `softmax` and `norm` by reductions, contractions and
/// maps, a `map` by one of primitive functions. The node keeps its place and becomes the last of them. Says whether
/// anything changed.
pub fn expand(function: &mut Function, node: NodeIndex) -> bool {
    let Some(found) = function.graph.node_weight(node).cloned() else { return false };
    let composite = Composite { operands: function.operands(node), index: node, node: found };
    match composite.node.op.clone() {
        Op::Softmax { over, log } => composite.softmax(function, &over, log),
        Op::Norm { kind: Norm::Batch, epsilon, .. } => composite.batch(function, epsilon.to_f64()),
        Op::Norm { kind, over, epsilon } => composite.norm(function, kind == Norm::Layer, &over, epsilon.to_f64()),
        Op::Map(expression) => {
            let elements: Vec<ElementType> = composite.operands.iter().map(|v| function.element_of(*v)).collect();
            let expanded = expand_scalar(&expression, &elements);
            let changed = expanded != expression;
            function.graph[node].op = Op::Map(expanded);
            return changed;
        }
        _ => return false,
    }
    true
}

struct Composite {
    index: NodeIndex,
    node: SharedNode,
    operands: Vec<Value>,
}

impl Composite {
    fn element(&self) -> ElementType {
        self.node.outputs[0].element
    }

    /// The axes of the result.
    fn axes(&self) -> &[u32] {
        &self.node.outputs[0].variables
    }

    fn number(&self, value: f64) -> ScalarExpr {
        ScalarExpr::Literal(Literal::from_f64(self.element(), value))
    }

    /// Adds a step over the same variables.
    fn add(
        &self,
        function: &mut Function,
        (op, suffix): (Op, &str),
        kept: &[u32],
        operands: &[(Value, IndexMap)],
    ) -> (Value, IndexMap) {
        let name = format!("{}_{suffix}", self.node.outputs[0].name).into();
        let node = Node {
            op,
            maps: operands.iter().map(|(_, map)| map.clone()).collect(),
            outputs: vec![Output { name, element: self.element(), variables: kept.to_vec() }],
            ..Node::clone(&self.node)
        };
        let values: Vec<Value> = operands.iter().map(|(value, _)| *value).collect();
        (function.add(node, &values).into(), IndexMap::of_variables(kept.iter().copied()))
    }

    /// Makes the node itself the last step.
    fn finish(&self, function: &mut Function, expression: ScalarExpr, operands: &[(Value, IndexMap)]) {
        let edges: Vec<_> =
            function.graph.edges_directed(self.index, Direction::Incoming).map(|edge| edge.id()).collect();
        function.graph.retain_edges(|_, edge| !edges.contains(&edge));
        for (slot, (value, _)) in operands.iter().enumerate() {
            let edge = crate::Edge { port: value.port, slot: slot as u32 };
            function.graph.add_edge(value.node, self.index, edge);
        }
        let node = &mut function.graph[self.index];
        node.op = Op::Map(expression);
        node.maps = operands.iter().map(|(_, map)| map.clone()).collect();
    }

    fn operand(&self, slot: usize) -> (Value, IndexMap) {
        (self.operands[slot], self.node.maps[slot].clone())
    }

    /// The axes of the result that are not normalised over.
    fn outer(&self, over: &[u32]) -> Vec<u32> {
        self.axes().iter().copied().filter(|variable| !over.contains(variable)).collect()
    }

    fn softmax(&self, function: &mut Function, over: &[u32], log: bool) {
        let (outer, x) = (self.outer(over), self.operand(0));
        let binary = ScalarExpr::binary;
        let operand = ScalarExpr::Operand;
        let largest = self.add(function, (Op::Reduce(Monoid::Maximum), "max"), &outer, std::slice::from_ref(&x));
        let shifted = || binary(Binary::Subtract, operand(0), operand(1));
        let exponential = Op::Map(ScalarExpr::unary(Unary::Exp, shifted()));
        let exponentials = self.add(function, (exponential, "exp"), self.axes(), &[x.clone(), largest.clone()]);
        let sum = (Op::Reduce(Monoid::Sum), "sum");
        let sum = self.add(function, sum, &outer, std::slice::from_ref(&exponentials));
        if log {
            let result = binary(Binary::Subtract, shifted(), ScalarExpr::unary(Unary::Log, operand(2)));
            self.finish(function, result, &[x, largest, sum]);
        } else {
            self.finish(function, binary(Binary::Divide, operand(0), operand(1)), &[exponentials, sum]);
        }
    }

    fn norm(&self, function: &mut Function, centred: bool, over: &[u32], epsilon: f64) {
        let (outer, element) = (self.outer(over), self.element());
        let binary = ScalarExpr::binary;
        let operand = ScalarExpr::Operand;
        let count: Size = over.iter().map(|variable| self.node.size_of(*variable)).product();
        let count = || ScalarExpr::cast(element, ScalarExpr::Size(count.clone()));
        let mut x = self.operand(0);
        if centred {
            let sum = self.add(function, (Op::Reduce(Monoid::Sum), "sum"), &outer, std::slice::from_ref(&x));
            let mean = binary(Binary::Divide, operand(1), count());
            let centre = Op::Map(binary(Binary::Subtract, operand(0), mean));
            x = self.add(function, (centre, "centred"), self.axes(), &[x, sum]);
        }
        let square = Op::Dot { accumulator: element.accumulator() };
        let squares = self.add(function, (square, "squares"), &outer, &[x.clone(), x.clone()]);
        let variance = binary(Binary::Add, binary(Binary::Divide, operand(1), count()), self.number(epsilon));
        let scale = ScalarExpr::unary(Unary::ReciprocalSquareRoot, variance);
        let scaled = binary(Binary::Multiply, operand(0), scale);
        let mut result = binary(Binary::Multiply, scaled, operand(2));
        let mut operands = vec![x, squares, self.operand(1)];
        if self.operands.len() > 2 {
            result = binary(Binary::Add, result, operand(3));
            operands.push(self.operand(2));
        }
        self.finish(function, result, &operands);
    }

    fn batch(&self, function: &mut Function, epsilon: f64) {
        let binary = ScalarExpr::binary;
        let operand = ScalarExpr::Operand;
        let centred = binary(Binary::Subtract, operand(0), operand(3));
        let variance = binary(Binary::Add, operand(4), self.number(epsilon));
        let scaled = binary(Binary::Multiply, centred, ScalarExpr::unary(Unary::ReciprocalSquareRoot, variance));
        let result = binary(Binary::Add, binary(Binary::Multiply, scaled, operand(1)), operand(2));
        function.graph[self.index].op = Op::Map(result);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        interpret::{Arithmetic, interpret},
        random::{Config, random_module},
        verify::verify,
    };
    use proptest::prelude::*;

    /// Equal to a few units of f32, which is what results are rounded to; the definitions cancel near zero.
    fn close(a: f64, b: f64) -> bool {
        a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-5 * (1. + a.abs().max(b.abs()))
    }

    fn config() -> Config {
        // Steps behind a composite may tell small differences apart by a jump (floor, sort), so there are few of them.
        Config { steps: 1..=2, all_elements: false, irregular: false, symbolic: true, ..Config::default() }
    }

    /// Whether a small difference of a value can become a large one.
    fn jumps(expression: &ScalarExpr) -> bool {
        let mut found = false;
        expression.visit(&mut |part| {
            found |= match part {
                ScalarExpr::Unary(function, _) => matches!(
                    function,
                    Unary::Floor
                        | Unary::Ceil
                        | Unary::Round
                        | Unary::Truncate
                        | Unary::Sign
                        | Unary::Log
                        | Unary::LogOnePlus
                        | Unary::SquareRoot
                        | Unary::Reciprocal
                        | Unary::ReciprocalSquareRoot
                        | Unary::Exp
                        | Unary::ExpMinusOne
                ),
                ScalarExpr::Binary(function, ..) => {
                    matches!(function, Binary::Divide | Binary::Remainder | Binary::Modulo | Binary::Power)
                }
                ScalarExpr::Select(..) => true,
                _ => false,
            }
        });
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn definitions_have_the_same_value(sample in random_module(config())) {
            let nodes = || sample.module.functions[0].graph.node_weights();
            prop_assume!(!nodes().any(|node| matches!(&node.op, Op::Map(expression) if jumps(expression))));
            let mut expanded = sample.module.clone();
            let function = &mut expanded.functions[0];
            for index in function.graph.node_indices().collect::<Vec<_>>() {
                expand(function, index);
            }
            let left = |node: &Node| matches!(node.op, Op::Softmax { .. } | Op::Norm { .. });
            prop_assert!(!function.graph.node_weights().any(|node| left(node)));
            verify(&expanded).unwrap();
            let direct = interpret(&sample.module, &sample.inputs, Arithmetic::Wide).unwrap();
            let defined = interpret(&expanded, &sample.inputs, Arithmetic::Wide).unwrap();
            for (direct, defined) in direct.iter().zip(&defined) {
                for (a, b) in direct.to_f64().into_iter().zip(defined.to_f64()) {
                    prop_assert!(close(a, b), "{a}, defined as {b}");
                }
            }
        }
    }

    #[test]
    fn functions_equal_their_definitions() {
        for function in Unary::ALL {
            let Some(definition) = definition(*function, ElementType::F64) else { continue };
            let module = |expression| {
                let at = || IndexMap::of_variables([0]);
                let sizes = [Size::from(81)];
                let node =
                    crate::interpret::tests::node(Op::Map(expression), &sizes, vec![at()], ElementType::F64, &[0]);
                crate::interpret::tests::module_of(&[(ElementType::F64, sizes.to_vec())], node)
            };
            let values: Vec<f64> = (-40..=40).map(|step| f64::from(step) * 0.25).collect();
            let input = [crate::Tensor::from_slice(&[81], &values).unwrap()];
            let run = |expression| interpret(&module(expression), &input, Arithmetic::Wide).unwrap()[0].to_f64();
            for (a, b) in run(ScalarExpr::unary_map(*function)).into_iter().zip(run(definition)) {
                let same = a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() < 1e-13 * (1. + a.abs());
                assert!(same, "{}: {a}, defined as {b}", function.name());
            }
        }
    }
}
