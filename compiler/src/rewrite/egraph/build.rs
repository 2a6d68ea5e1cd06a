//! The constructor of terms. It absorbs views into the reads of what is built, drops identities, and puts the operands of
//! commutative functions in one order, so that no rule has to.

use super::{
    Graph,
    compose::{compose, through_view},
    facts::Facts,
    term::{Tag, Term},
};
use egg::Id;
use std::sync::Arc;
use strang_ir::{
    ElementType, IndexExpr, IndexMap, Literal, Node, Op, Output, ScalarExpr, Shared, Source, Variable,
    scalar::{Binary, Unary},
};

/// A read of a class: through a map in the variables of whatever reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// What is read.
    pub value: Id,
    /// Where.
    pub map: IndexMap,
}

impl Read {
    /// A read of a number, which has no axes.
    pub fn number(value: Id) -> Self {
        Read { value, map: IndexMap::new(Vec::new()) }
    }
}

/// A node without names: what signatures are interned from.
pub fn nameless(op: Op, variables: Shared<Vec<Variable>>, element: ElementType, output: Vec<u32>) -> Node {
    let outputs = vec![Output { name: Arc::from(""), element, variables: output }];
    Node { op, variables, maps: Shared::default(), outputs, source: Source::None, block: None }
}

/// Adds a number.
pub fn number(graph: &mut Graph, literal: Literal) -> Id {
    graph.add(Term::Constant(literal))
}

/// Adds a node that reads `reads`; its own maps are replaced by theirs.
pub fn add(graph: &mut Graph, node: &Node, reads: Vec<Read>) -> Id {
    if let Some((node, reads)) = without_single_positions(node, &reads) {
        return add(graph, &node, reads);
    }
    let mut reads: Vec<Read> = reads
        .into_iter()
        .map(|read| {
            let read = absorbed(graph, node, read);
            if matches!(node.op, Op::Map(_)) && is_padded_number(graph, &read) {
                padded(graph, node, read)
            } else {
                read
            }
        })
        .collect();
    if let (Op::View, [read]) = (&node.op, reads.as_slice())
        && reads_whole(graph, node, read)
    {
        return read.value;
    }
    let commutes = match &node.op {
        Op::Map(ScalarExpr::Binary(function, ..)) => function.is_commutative(),
        // A fused multiply-add takes its factors in either order; the order of summation stays.
        Op::Dot { .. } => reads.len() == 2,
        _ => false,
    };
    if commutes && rank(graph, &reads[0]) > rank(graph, &reads[1]) {
        reads.swap(0, 1);
    }
    let Some(tag) = Tag::of(&node.op) else { unreachable!("maps are built of single functions") };
    let (maps, values): (Vec<IndexMap>, Vec<Id>) = reads.into_iter().map(|read| (read.map, read.value)).unzip();
    let signature = graph.analysis.signatures.intern(Node {
        op: node.op.clone(),
        variables: node.variables.clone(),
        maps: maps.into(),
        outputs: node.outputs.clone(),
        source: Source::None,
        block: None,
    });
    let signature = graph.add(Term::Signature(signature));
    let children: Box<[Id]> = [signature].into_iter().chain(values).collect();
    graph.add(Term::Apply(tag, children.len(), children))
}

/// A product that sums over one position, as one that sums over none: 1x1 convolutions are matrix products.
fn without_single_positions(node: &Node, reads: &[Read]) -> Option<(Node, Vec<Read>)> {
    if !matches!(node.op, Op::Dot { .. }) {
        return None;
    }
    let output = &node.outputs[0].variables;
    let is_single = |v: &u32| !output.contains(v) && node.size_of(*v).is(1);
    let kept: Vec<u32> = (0..node.variables.len() as u32).filter(|v| !is_single(v)).collect();
    // Something must be left to sum: a product of nothing but its factors is a map.
    if kept.len() == node.variables.len() || kept.len() == output.len() {
        return None;
    }
    let place = |variable: u32| kept.iter().position(|v| *v == variable).map(|place| place as u32);
    let position = |variable: u32| place(variable).map_or_else(IndexExpr::default, IndexExpr::variable);
    let positions: Vec<IndexExpr> = (0..node.variables.len() as u32).map(position).collect();
    let variables: Vec<_> = kept.iter().map(|v| node.variables[*v as usize].clone()).collect();
    let output = output.iter().filter_map(|v| place(*v)).collect();
    let single = nameless(node.op.clone(), variables.into(), node.outputs[0].element, output);
    let size = |v: u32| single.size_of(v);
    let reads = reads.iter().map(|read| Read { value: read.value, map: compose(&read.map, &positions, &size) });
    let reads = reads.collect();
    Some((single, reads))
}

/// Whether a read is of one number inside and of another outside: its class would pass for the number.
fn is_padded_number(graph: &Graph, read: &Read) -> bool {
    graph[read.value].data.literal.is_some_and(|literal| read.map.fill.is_some_and(|fill| fill != literal))
}

/// A read with a fill as a view of its own, over the variables that it mentions.
fn padded(graph: &mut Graph, node: &Node, read: Read) -> Read {
    let kept: Vec<u32> = (0..node.variables.len() as u32).filter(|v| read.map.mentions(*v)).collect();
    let place = |variable: u32| kept.iter().position(|v| *v == variable).unwrap_or_default() as u32;
    let variables = kept.iter().map(|v| node.variables[*v as usize].clone()).collect();
    let element = graph[read.value].data.element();
    let frame = nameless(Op::View, variables, element, (0..kept.len() as u32).collect());
    let value = add(graph, &frame, vec![Read { value: read.value, map: read.map.renumbered(&place) }]);
    Read { value, map: IndexMap::of_variables(kept) }
}

/// Numbers stand last, weights before them.
fn rank(graph: &Graph, read: &Read) -> u8 {
    let facts: &Facts = &graph[read.value].data;
    u8::from(facts.constant) + u8::from(facts.literal.is_some())
}

/// Whether operations of a kind may read their operands through any map.
fn absorbs(op: &Op, view: &Node) -> bool {
    match op {
        // A product skips what lies outside; a view makes it a zero that is multiplied, which is not the same beside
        // infinities. The rule `absorb-padding` says so.
        Op::Dot { .. } | Op::Concat { .. } => view.maps[0].fill.is_none(),
        Op::Map(_) | Op::Reduce(_) | Op::ArgReduce { .. } | Op::Softmax { .. } | Op::Norm { .. } | Op::View => true,
        _ => false,
    }
}

/// The read that `node` does when views in the way are absorbed.
pub fn absorbed(graph: &Graph, node: &Node, mut read: Read) -> Read {
    read.value = graph.find(read.value);
    // What can also be computed directly is not forced to be read elsewhere.
    while graph[read.value].nodes.iter().all(|term| matches!(term, Term::Apply(Tag::View, ..))) {
        let Some(inner) = through(graph, node, &read) else { break };
        read = inner;
    }
    read
}

/// The read of what a class is a view of, if it is one and `node` may read through it.
pub fn through(graph: &Graph, node: &Node, read: &Read) -> Option<Read> {
    let (signature, operand) = graph[read.value].data.view?;
    let view = graph.analysis.signatures.node(signature).clone();
    if !absorbs(&node.op, &view) {
        return None;
    }
    let operand = graph.find(operand);
    if matches!(node.op, Op::Map(_)) && view.maps[0].fill.is_some() && graph[operand].data.literal.is_some() {
        return None;
    }
    let shape = graph[operand].data.shape();
    let map = through_view(&read.map, &view, shape, &|v| node.size_of(v))?;
    // A product reads zeros around an array; within one, as around a slice or an axis made one with others, they would be copied.
    if matches!(node.op, Op::Dot { .. }) && map.conditions.len() > read.map.conditions.len() {
        return None;
    }
    Some(Read { value: operand, map })
}

/// Whether a view reads every axis of its operand whole and in order.
fn is_identity(node: &Node, map: &IndexMap) -> bool {
    let output = &node.outputs[0].variables;
    map.conditions.is_empty()
        && map.exprs.len() == output.len()
        && map.exprs.iter().zip(output).all(|(expression, variable)| expression.as_variable() == Some(*variable))
}

/// Whether a read is the whole value in order, for a node of that output.
fn reads_whole(graph: &Graph, node: &Node, read: &Read) -> bool {
    is_identity(node, &read.map) && *graph[read.value].data.shape() == *node.shape(0)
}

/// A view of a read, over the output variables of `frame`: a class of its own for what needs one.
pub fn view(graph: &mut Graph, frame: &Node, read: Read) -> Id {
    let element = graph[read.value].data.element();
    let node = nameless(Op::View, frame.variables.clone(), element, frame.outputs[0].variables.clone());
    add(graph, &node, vec![read])
}

/// A map of one function over the output variables of `frame`.
pub fn map(graph: &mut Graph, frame: &Node, function: ScalarExpr, element: ElementType, reads: Vec<Read>) -> Id {
    let node = nameless(Op::Map(function), frame.variables.clone(), element, frame.outputs[0].variables.clone());
    add(graph, &node, reads)
}

/// A map of a function of one value.
pub fn unary(graph: &mut Graph, frame: &Node, function: Unary, read: Read) -> Id {
    let element = graph[read.value].data.element();
    let element = if function.is_predicate() { ElementType::Bool } else { element };
    map(graph, frame, ScalarExpr::unary_map(function), element, vec![read])
}

/// A map of a function of two values.
pub fn binary(graph: &mut Graph, frame: &Node, function: Binary, a: Read, b: Read) -> Id {
    let element = graph[a.value].data.element();
    let element = if function.is_comparison() { ElementType::Bool } else { element };
    map(graph, frame, ScalarExpr::binary_map(function), element, vec![a, b])
}

/// The read of a result over the output variables of a node, at those variables.
pub fn whole(frame: &Node, value: Id) -> Read {
    Read { value, map: IndexMap::of_variables(frame.outputs[0].variables.iter().copied()) }
}
