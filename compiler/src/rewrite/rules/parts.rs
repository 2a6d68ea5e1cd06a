//! What several rules ask and build: how a map reads a product, weights in the frame of their axes, changed weights.

use crate::rewrite::{
    egraph::{
        Graph, Read, Tag, Term,
        build::{self, nameless},
    },
    rule::Match,
};
use egg::Id;
use strang_ir::{Axis, ElementType, IndexMap, Node, Op, Output, Shared, Size, Variable, scalar::Binary};

/// The variable of the operand at every variable of a reader that reads it position by position; `None` for readers that
/// read it otherwise.
pub fn positions(reader: &Node, slot: usize, operand: &Node) -> Option<Vec<u32>> {
    let read = distinct(&reader.maps[slot])?;
    let output = &operand.outputs[0].variables;
    if read.len() != reader.variables.len() || output.len() != read.len() {
        return None;
    }
    let mut places = vec![0; read.len()];
    for (variable, axis) in read.iter().zip(output) {
        if reader.size_of(*variable) != operand.size_of(*axis) {
            return None;
        }
        places[*variable as usize] = *axis;
    }
    Some(places)
}

/// The variables of a map that reads whole axes, each by a variable of its own, without fill.
pub fn distinct(map: &IndexMap) -> Option<Vec<u32>> {
    let variables = map.as_variables().filter(|_| map.fill.is_none())?;
    (1..variables.len()).all(|i| !variables[..i].contains(&variables[i])).then_some(variables)
}

/// The variables of a node at which it reads a value whole.
pub fn whole_axes(graph: &Graph, node: &Node, slot: usize, value: Id) -> Option<Vec<u32>> {
    axes_of_whole(graph, node, slot, value)?.into_iter().collect()
}

/// The variables of a node at which it reads a value whole; `None` for axes of one position that it reads at that.
fn axes_of_whole(graph: &Graph, node: &Node, slot: usize, value: Id) -> Option<Vec<Option<u32>>> {
    let map = &node.maps[slot];
    let shape = graph[value].data.shape();
    let mut axes: Vec<Option<u32>> = Vec::with_capacity(shape.len());
    for (expression, size) in map.exprs.iter().zip(shape) {
        let axis = match expression.as_variable() {
            Some(v) if node.size_of(v) == *size && !axes.contains(&Some(v)) => Some(v),
            None if size.is(1) && expression.as_size().is_some_and(|position| position.is(0)) => None,
            _ => return None,
        };
        axes.push(axis);
    }
    (map.fill.is_none() && map.conditions.is_empty()).then_some(axes)
}

/// Whether a map mentions none but some variables.
pub fn mentions_only(map: &IndexMap, allowed: &[u32]) -> bool {
    let mut only = true;
    map.visit_variables(&mut |variable| only &= allowed.contains(&variable));
    only
}

/// Whether a map mentions none of some variables.
pub fn mentions_none(map: &IndexMap, forbidden: &[u32]) -> bool {
    forbidden.iter().all(|variable| !map.mentions(*variable))
}

/// A weight combined with another value, which is read in the variables of the node that reads the weight. The value may
/// vary along the weight's axes alone.
pub fn combined(
    graph: &mut Graph,
    node: &Node,
    (slot, weight): (usize, Id),
    function: Binary,
    other: &Read,
) -> Option<Id> {
    let axes = axes_of_whole(graph, node, slot, weight)?;
    let moving: Vec<u32> = axes.iter().copied().flatten().collect();
    if !mentions_only(&other.map, &moving) {
        return None;
    }
    let place = |variable: u32| axes.iter().position(|axis| *axis == Some(variable)).unwrap_or_default() as u32;
    let single = |place: usize| Variable::named(format!("single{place}"), &Axis::new("single", Size::ONE));
    let variable = |(place, axis): (usize, &Option<u32>)| match axis {
        Some(variable) => node.variables[*variable as usize].clone(),
        None => single(place),
    };
    let variables = axes.iter().enumerate().map(variable).collect();
    let element = graph[weight].data.element();
    let frame = nameless(Op::View, variables, element, (0..axes.len() as u32).collect());
    let own = build::whole(&frame, weight);
    let other = Read { value: other.value, map: other.map.renumbered(&place) };
    Some(build::binary(graph, &frame, function, own, other))
}

/// The node of a signature with other operands, built.
pub fn with_operands(graph: &mut Graph, node: &Node, values: &[Id]) -> Id {
    let reads = node.maps.iter().zip(values).map(|(map, value)| Read { value: *value, map: map.clone() }).collect();
    build::add(graph, node, reads)
}

/// A read in the variables of a reader, as it is in those of an operand that is read position by position.
pub fn moved(read: &Read, places: &[u32]) -> Read {
    Read { value: read.value, map: read.map.renumbered(&|variable| places[variable as usize]) }
}

/// The read of something that stands in the place of the operand in a slot of a node.
pub fn instead(m: &Match, node: &str, slot: usize, value: Id) -> Read {
    Read { value, map: m.node(node).maps[slot].clone() }
}

/// Whether a class holds floats.
pub fn is_float(m: &Match, name: &str) -> bool {
    m.facts(name).element().is_float()
}

/// The frame of a node's output: its output variables alone, numbered as they come there.
pub fn output_frame(node: &Node) -> Node {
    let output = &node.outputs[0].variables;
    frame(output.iter().map(|v| node.variables[*v as usize].clone()).collect(), node.outputs[0].element)
}

/// A read in the variables of a node that mentions output variables alone, in those of its output frame.
pub fn in_output_frame(node: &Node, read: &Read) -> Option<Read> {
    let output = &node.outputs[0].variables;
    let place = |variable: u32| output.iter().position(|v| *v == variable).unwrap_or_default() as u32;
    mentions_only(&read.map, output).then(|| Read { value: read.value, map: read.map.renumbered(&place) })
}

/// A product like `d` over some of a list of variables, with some of those for its output, of reads in that list.
pub fn product_over(m: &mut Match, (all, own): (&[Variable], &[u32]), output: &[u32], reads: [Read; 2]) -> Id {
    let d = m.node("d");
    let place = |variable: u32| own.iter().position(|u| *u == variable).unwrap_or_default() as u32;
    let outputs = vec![Output { variables: output.iter().map(|u| place(*u)).collect(), ..d.outputs[0].clone() }];
    let variables = own.iter().map(|u| all[*u as usize].clone()).collect();
    let node = Node { variables, outputs, ..Node::clone(&d) };
    let reads = reads.map(|read| Read { value: read.value, map: read.map.renumbered(&place) });
    build::add(m.graph, &node, reads.into())
}

/// The variables of a product with those that a product in one of its operands sums over after them, and where each variable of
/// that inner product stands among these. `None` where it is not read position by position.
pub fn joined(outer: &Node, slot: usize, inner: &Node) -> Option<(Shared<Vec<Variable>>, Vec<u32>)> {
    let read = distinct(&outer.maps[slot])?;
    let mut variables = outer.variables.clone();
    let mut places = vec![0; inner.variables.len()];
    for (variable, axis) in read.iter().zip(&inner.outputs[0].variables) {
        if outer.size_of(*variable) != inner.size_of(*axis) {
            return None;
        }
        places[*axis as usize] = *variable;
    }
    for variable in inner.contracted() {
        places[variable as usize] = variables.len() as u32;
        variables.push(inner.variables[variable as usize].clone());
    }
    Some((variables, places))
}

/// Whether the inner product `e` of two wraps no earlier than the outer one, `d`.
pub fn inner_wraps_alike(m: &Match) -> bool {
    let inner = m.node("e").outputs[0].element;
    inner.is_float() || m.node("d").op == Op::Dot { accumulator: inner }
}

/// Whether a product is one of integers that were converted to floats, and perhaps scaled: scales belong after it then, not into
/// the weights.
pub fn is_product_of_integers(m: &Match, x: &str, w: &str) -> bool {
    let is_converted = |value: Id| {
        let mut terms = m.graph[value].nodes.iter();
        terms.any(|term| matches!(term, Term::Apply(Tag::Cast, _, c) if m.graph[c[1]].data.element().is_integer()))
    };
    let is_scaled = |value: Id| {
        let mut terms = m.graph[value].nodes.iter();
        terms.any(|term| matches!(term, Term::Apply(Tag::Binary(Binary::Multiply), _, c) if is_converted(c[1])))
    };
    [w, x].into_iter().all(|name| is_converted(m.id(name)) || is_scaled(m.id(name)))
}

/// A frame of variables, all of them its output.
pub fn frame(variables: Shared<Vec<Variable>>, element: ElementType) -> Node {
    let output = (0..variables.len() as u32).collect();
    nameless(Op::View, variables, element, output)
}

/// Values over a frame, side by side along a new axis that stands at a place among theirs.
pub fn stacked(graph: &mut Graph, over: &Node, values: &[Id], place: u32) -> Id {
    let count = values.len() as i64;
    let mut variables = over.variables.clone();
    variables.insert(place as usize, Variable::over(&Axis::new("part", Size::from(count))));
    let offsets = (0..=count).map(Size::from).collect();
    let op = Op::Concat { along: place, offsets };
    let own = (0..variables.len() as u32).filter(|variable| *variable != place);
    let map = IndexMap::of_variables(own);
    let node = Node { op, ..frame(variables, over.outputs[0].element) };
    let reads = values.iter().map(|value| Read { value: *value, map: map.clone() }).collect();
    build::add(graph, &node, reads)
}
