//! Residual branches: sums of a value and something computed from it.

use petgraph::{Direction, stable_graph::NodeIndex};
use rustc_hash::FxHashSet;
use strang_ir::{Function, IndexMap, Literal, Op, ScalarExpr, Value, scalar::Binary};

/// A sum `s = x + F(x)`, or `s = y + F(x)` of an earlier sum `y = x + A(x)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// The map that adds.
    pub sum: NodeIndex,
    /// The slot in which it reads what the branch is added to.
    pub slot: u32,
    /// What the branch is added to.
    pub skip: Value,
    /// What the branch is computed from: `skip`, or what `skip` is a sum of with another branch.
    pub input: Value,
    /// The nodes between `input` and the sum, which nothing else reads.
    pub region: FxHashSet<NodeIndex>,
}

/// The residual branches of a function, in order of their sums.
pub fn branches(function: &Function) -> Vec<Branch> {
    let mut found: Vec<Branch> = Vec::new();
    for sum in function.order() {
        let branch = skips(function, sum).into_iter().find_map(|slot| {
            let skip = function.operands(sum)[slot as usize];
            let before = found.iter().find(|earlier| Value::from(earlier.sum) == skip).map(|earlier| earlier.input);
            [Some(skip), before].into_iter().flatten().find_map(|input| {
                let region = region(function, sum, slot, input)?;
                Some(Branch { sum, slot, skip, input, region })
            })
        });
        found.extend(branch);
    }
    found
}

/// The slots in which a node adds something of its own shape and type to the rest of what it computes.
fn skips(function: &Function, index: NodeIndex) -> Vec<u32> {
    let node = &function.graph[index];
    let Op::Map(expression) = &node.op else { return Vec::new() };
    if node.outputs.len() != 1 || !node.outputs[0].element.is_float() {
        return Vec::new();
    }
    let operands = function.operands(index);
    let whole = IndexMap::of_variables(node.outputs[0].variables.iter().copied());
    let terms = terms(expression);
    let is_skip = |slot: &u32| {
        let value = operands[*slot as usize];
        let mut reads = 0;
        expression.visit(&mut |part| reads += usize::from(*part == ScalarExpr::Operand(*slot)));
        reads == 1
            && node.maps[*slot as usize] == whole
            && function.element_of(value) == node.outputs[0].element
            && function.shape_of(value) == node.shape(0)
    };
    let slots = terms.iter().filter_map(|term| match term {
        ScalarExpr::Operand(slot) => Some(*slot),
        _ => None,
    });
    if terms.len() > 1 { slots.filter(is_skip).collect() } else { Vec::new() }
}

/// The terms of a sum.
fn terms(expression: &ScalarExpr) -> Vec<&ScalarExpr> {
    match expression {
        ScalarExpr::Binary(Binary::Add, a, b) => [terms(a), terms(b)].concat(),
        other => vec![other],
    }
}

/// The nodes between a value and what a sum adds in the other slots, if there is a contraction or more among them and nothing else reads
/// them.
fn region(function: &Function, sum: NodeIndex, slot: u32, input: Value) -> Option<FxHashSet<NodeIndex>> {
    let operands = function.operands(sum);
    let others = operands.iter().enumerate().filter(|(other, _)| *other != slot as usize).map(|(_, value)| value.node);
    let others: Vec<NodeIndex> = others.collect();
    if others.contains(&input.node) {
        return None;
    }
    let before = reached(function, others, input.node, Direction::Incoming);
    let after = reached(function, vec![input.node], sum, Direction::Outgoing);
    let mut region: FxHashSet<NodeIndex> = before.intersection(&after).copied().collect();
    region.remove(&input.node);
    let computes = |node: &NodeIndex| !matches!(function.graph[*node].op, Op::Map(_) | Op::View);
    let inside = |node: &NodeIndex| {
        let mut readers = function.graph.neighbors_directed(*node, Direction::Outgoing);
        readers.all(|reader| reader == sum || region.contains(&reader))
            && function.outputs.iter().all(|value| value.node != *node)
    };
    (region.iter().any(computes) && region.iter().all(inside)).then_some(region)
}

/// The nodes that are reached from some, these among them; what lies behind `end` is not looked at.
fn reached(function: &Function, from: Vec<NodeIndex>, end: NodeIndex, direction: Direction) -> FxHashSet<NodeIndex> {
    let mut seen = FxHashSet::default();
    let mut pending = from;
    while let Some(node) = pending.pop() {
        if node != end && seen.insert(node) {
            pending.extend(function.graph.neighbors_directed(node, direction));
        }
    }
    seen
}

/// Has nodes read a value in the place of another.
pub fn redirect(function: &mut Function, readers: &FxHashSet<NodeIndex>, from: Value, to: Value) {
    for (reader, slot) in function.readers(from) {
        if readers.contains(&reader) {
            function.set_operand(reader, slot, to);
        }
    }
}

/// A copy of a branch's region that reads `input` in the place of the branch's own; where each node went is in the pairs.
pub fn copied(function: &mut Function, branch: &Branch, input: Value) -> Vec<(NodeIndex, NodeIndex)> {
    let mut copies: Vec<(NodeIndex, NodeIndex)> = Vec::new();
    let order: Vec<NodeIndex> = function.order().into_iter().filter(|node| branch.region.contains(node)).collect();
    for node in order {
        let operands: Vec<Value> =
            function.operands(node).into_iter().map(|value| moved(&copies, branch, input, value)).collect();
        let copy = function.graph[node].clone();
        copies.push((node, function.add(copy, &operands)));
    }
    copies
}

/// Where a copy of a branch reads a value.
pub fn moved(copies: &[(NodeIndex, NodeIndex)], branch: &Branch, input: Value, value: Value) -> Value {
    if value == branch.input {
        return input;
    }
    let copy = copies.iter().find(|(node, _)| *node == value.node);
    copy.map_or(value, |(_, copy)| Value { node: *copy, port: value.port })
}

/// The expression of a branch's sum, with what is added to the skip times a factor.
pub fn scaled(expression: &ScalarExpr, slot: u32, factor: Literal) -> ScalarExpr {
    let skip = ScalarExpr::Operand(slot);
    let others = terms(expression).into_iter().filter(|term| **term != skip).cloned();
    let rest = others.reduce(|sum, term| ScalarExpr::binary(Binary::Add, sum, term));
    let rest = rest.unwrap_or(ScalarExpr::Literal(factor));
    let scaled = ScalarExpr::binary(Binary::Multiply, rest, ScalarExpr::Literal(factor));
    ScalarExpr::binary(Binary::Add, skip, scaled)
}
