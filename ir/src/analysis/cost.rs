//! Arithmetic and traffic of nodes.
//!
//! Flops count every addition, multiplication, comparison and function of a value once, a multiply-add twice, whatever the
//! element type; indices and conversions are free. Bytes count every operand and result once, an operand at most as often
//! as it is read: what a kernel must move when nothing stays in a cache.

use crate::{ElementType, Function, FunctionId, Module, Node, Op, ScalarExpr, Size, Value, op::Norm};
use petgraph::stable_graph::NodeIndex;
use strang_runtime::program::Cost;

/// Bytes of an array.
pub fn bytes_of(element: ElementType, count: &Size) -> Size {
    (count * &Size::from(i64::from(element.bits()))).ceil_div(&Size::from(8))
}

/// The cost of a node of a verified module. A scan costs its body once for every position, an `if` its dearer branch (where
/// sizes leave that open, their maximum), a `loop` one iteration.
pub fn cost(module: &Module, function: &Function, index: NodeIndex) -> Cost {
    let node = &function.graph[index];
    if matches!(node.op, Op::Input(_) | Op::Param(_) | Op::Const(_)) {
        return Cost::default();
    }
    let called = |id: FunctionId| module.function(id).map(|callee| function_cost(module, callee)).unwrap_or_default();
    match &node.op {
        Op::Call(id) => return called(*id),
        Op::Loop { body } => return called(*body),
        Op::If { then, otherwise } => {
            let (a, b) = (called(*then), called(*otherwise));
            return Cost { flops: a.flops.larger(&b.flops), bytes: a.bytes.larger(&b.bytes) };
        }
        Op::Scan { body, along, .. } => {
            let (each, times) = (called(*body), node.size_of(*along));
            return Cost { flops: &each.flops * &times, bytes: &each.bytes * &times };
        }
        _ => {}
    }
    let mut bytes = Size::ZERO;
    for (slot, value) in function.operands(index).into_iter().enumerate() {
        let reads = reads(node, slot);
        bytes += bytes_of(function.element_of(value), &count_of(function, value).smaller(&reads));
    }
    for (port, output) in node.outputs.iter().enumerate() {
        bytes += bytes_of(output.element, &node.shape(port as u32).into_iter().product());
    }
    Cost { flops: flops(node), bytes }
}

/// The cost of all nodes of a function.
pub fn function_cost(module: &Module, function: &Function) -> Cost {
    let mut sum = Cost::default();
    for index in function.order() {
        let Cost { flops, bytes } = cost(module, function, index);
        sum.flops += flops;
        sum.bytes += bytes;
    }
    sum
}

fn count_of(function: &Function, value: Value) -> Size {
    function.shape_of(value).into_iter().product()
}

fn positions(node: &Node) -> Size {
    node.variables.iter().map(|variable| variable.size().clone()).product()
}

/// How often an operand is read at most: the positions of the variables that its map mentions (all of them where it is
/// read at the values of index operands).
fn reads(node: &Node, slot: usize) -> Size {
    if matches!(node.op, Op::Gather) && slot == 0 {
        return positions(node);
    }
    let mentioned = |variable: &u32| node.maps[slot].mentions(*variable);
    (0..node.variables.len() as u32).filter(mentioned).map(|variable| node.size_of(variable)).product()
}

fn flops(node: &Node) -> Size {
    let each: i64 = match &node.op {
        Op::Dot { .. } => 2 * (node.maps.len() as i64 - 1).max(1) - i64::from(node.maps.len() == 1),
        Op::Map(expression) => functions(expression),
        Op::Reduce(_) | Op::ArgReduce { .. } => 1,
        // Maximum, difference, exponential, sum, quotient.
        Op::Softmax { .. } => 5,
        // Sum, difference, square and sum, scale, gain, and perhaps bias.
        Op::Norm { kind: Norm::Layer, .. } => 4 + node.maps.len() as i64,
        Op::Norm { kind: Norm::Rms, .. } => 4,
        Op::Norm { kind: Norm::Batch, .. } => 6,
        Op::Scatter { reduction, .. } => {
            let mentioned = |variable: &u32| node.maps.iter().skip(1).any(|map| map.mentions(*variable));
            let updates: Size =
                (0..node.variables.len() as u32).filter(mentioned).map(|variable| node.size_of(variable)).product();
            return if reduction.is_some() { updates } else { Size::ZERO };
        }
        _ => 0,
    };
    positions(node) * Size::from(each)
}

/// The number of functions that an expression applies.
fn functions(expression: &ScalarExpr) -> i64 {
    let mut count = 0;
    expression.visit(&mut |part| {
        count += i64::from(matches!(part, ScalarExpr::Unary(..) | ScalarExpr::Binary(..) | ScalarExpr::Select(..)));
    });
    count
}
