//! Windows: a circuit is cut into runs of nodes that little crosses, and windows that are equal but for their weights,
//! inputs and names are found, so that each is saturated once. Compile time then grows with distinct layers.
//!
//! Where a cut falls depends only on what follows the one before, so repeated layers are cut alike.

use crate::rewrite::egraph::{
    Facts,
    facts::{Port, Range},
    signature::same_shape,
};
use petgraph::{
    Direction,
    stable_graph::NodeIndex,
    visit::{EdgeRef, NodeIndexable},
};
use rustc_hash::{FxHashMap, FxHasher};
use std::hash::{Hash, Hasher};
use strang_ir::{Function, Literal, Module, Node, Op, Value, op::Norm};

/// The fewest and most nodes of a window; searching takes longer than in proportion.
const FEWEST: usize = 32;
const MOST: usize = 128;
/// The most nodes of what is left after other windows and is not cut again.
const LAST: usize = 64;

/// The windows of a function, in order; inputs, parameters and constants stand in none.
pub fn windows(function: &Function) -> Vec<Vec<NodeIndex>> {
    let order = order(function);
    let crossing = crossing(function, &order);
    let ends_badly: Vec<bool> = order.iter().map(|node| belongs_to_what_follows(function, *node)).collect();
    let begins_badly: Vec<bool> = order.iter().map(|node| belongs_to_others(function, *node)).collect();
    let mut windows = Vec::new();
    let mut start = 0;
    while start < order.len() {
        let most = if start == 0 { MOST } else { LAST };
        let end = if order.len() - start <= most {
            order.len()
        } else {
            let badness =
                |end: &usize| 2 * crossing[*end] + usize::from(ends_badly[*end - 1]) + usize::from(begins_badly[*end]);
            let ends = start + FEWEST..(start + MOST).min(order.len());
            ends.min_by_key(badness).unwrap_or(order.len())
        };
        windows.push(order[start..end].to_vec());
        start = end;
    }
    windows
}

/// The nodes but leaves, operands before readers; what is made of weights alone comes right before what reads it first, so
/// that rules see both.
fn order(function: &Function) -> Vec<NodeIndex> {
    let all = function.order();
    let mut constant = vec![false; function.graph.node_bound()];
    for node in &all {
        let is_constant = |operand: NodeIndex| match function.graph[operand].op {
            Op::Param(_) | Op::Const(_) => true,
            _ => constant[operand.index()],
        };
        let mut operands = function.graph.neighbors_directed(*node, Direction::Incoming).peekable();
        constant[node.index()] = operands.peek().is_some() && operands.all(is_constant);
    }
    let (mut order, mut placed) = (Vec::with_capacity(all.len()), vec![false; constant.len()]);
    let later = all.iter().filter(|node| constant[node.index()]);
    for node in all.iter().filter(|node| !constant[node.index()]).chain(later) {
        place(function, *node, &constant, &mut placed, &mut order);
    }
    order
}

/// Places a node after the constant ones that it reads.
fn place(function: &Function, node: NodeIndex, constant: &[bool], placed: &mut [bool], order: &mut Vec<NodeIndex>) {
    if is_leaf(&function.graph[node]) || std::mem::replace(&mut placed[node.index()], true) {
        return;
    }
    if function.graph.neighbors_directed(node, Direction::Incoming).any(|operand| constant[operand.index()]) {
        for operand in function.operands(node).into_iter().filter(|operand| constant[operand.node.index()]) {
            place(function, operand.node, constant, placed, order);
        }
    }
    order.push(node);
}

fn is_leaf(node: &Node) -> bool {
    matches!(node.op, Op::Input(_) | Op::Param(_) | Op::Const(_))
}

/// Operations that rules join to what reads them.
fn belongs_to_what_follows(function: &Function, node: NodeIndex) -> bool {
    matches!(function.graph[node].op, Op::Norm { .. } | Op::View | Op::Reduce(_) | Op::Dot { .. } | Op::Softmax { .. })
        || is_widening(function, node)
}

/// Operations that rules join to what they read.
fn belongs_to_others(function: &Function, node: NodeIndex) -> bool {
    match function.graph[node].op {
        Op::Map(_) => !is_widening(function, node),
        Op::View | Op::Softmax { .. } | Op::Norm { kind: Norm::Batch, .. } => true,
        _ => false,
    }
}

/// Whether a map makes floats of bytes: products read it as bytes.
fn is_widening(function: &Function, node: NodeIndex) -> bool {
    let first = || function.operands(node).first().map(|value| function.element_of(*value));
    matches!(function.graph[node].op, Op::Map(_))
        && function.graph[node].outputs[0].element.is_float()
        && first().is_some_and(|element| element.is_integer() && element.bits() <= 8)
}

/// How many values are alive before each position.
fn crossing(function: &Function, order: &[NodeIndex]) -> Vec<usize> {
    let mut places = vec![usize::MAX; function.graph.node_bound()];
    order.iter().enumerate().for_each(|(place, node)| places[node.index()] = place);
    let last = order.iter().enumerate().map(|(place, node)| {
        let readers = function.graph.neighbors_directed(*node, Direction::Outgoing);
        readers.map(|reader| places[reader.index()]).fold(place, usize::max)
    });
    let mut change = vec![0i64; order.len() + 1];
    for (definition, last) in last.enumerate() {
        change[definition + 1] += 1;
        change[last + 1] -= 1;
    }
    let alive = change.into_iter().scan(0i64, |sum, change| {
        *sum += change;
        Some(*sum as usize)
    });
    alive.collect()
}

/// What a window reads from outside, and what others read of it.
#[derive(Clone, Debug, Default)]
pub struct Interface {
    /// Values of earlier windows and inputs, in order of first use.
    pub externals: Vec<Value>,
    /// Parameters of the module, in order of first use.
    pub parameters: Vec<u32>,
    /// Values of the window that are read outside, in order.
    pub results: Vec<Value>,
}

/// Tells windows apart. Two have one key if they are equal but for the data of weights, where values come from, and names.
#[derive(Debug)]
pub struct Keys<'a> {
    module: &'a Module,
    function: &'a Function,
    /// The place of every node in the window that is looked at; [`OUTSIDE`] if it is not of it.
    places: Vec<u32>,
    shapes: FxHashMap<u64, Vec<(&'a Node, u32)>>,
    shape_count: u32,
    ports: FxHashMap<Port, u32>,
    literals: FxHashMap<Literal, u32>,
    /// What is known of every parameter, by its place in `known`.
    parameters: FxHashMap<u32, u32>,
    known: Vec<Facts>,
}

const OUTSIDE: u32 = u32::MAX;

impl<'a> Keys<'a> {
    /// Keys of the windows of a function.
    pub fn new(module: &'a Module, function: &'a Function) -> Self {
        Keys {
            module,
            function,
            places: vec![OUTSIDE; function.graph.node_bound()],
            shapes: FxHashMap::default(),
            shape_count: 0,
            ports: FxHashMap::default(),
            literals: FxHashMap::default(),
            parameters: FxHashMap::default(),
            known: Vec::new(),
        }
    }

    /// The interface of a window, and its key in the place of what `key` was.
    pub fn interface(&mut self, nodes: &[NodeIndex], key: &mut Vec<u32>) -> Interface {
        key.clear();
        let function = self.function;
        nodes.iter().enumerate().for_each(|(place, node)| self.places[node.index()] = place as u32);
        let mut interface = Interface::default();
        let mut external_places: FxHashMap<Value, u32> = FxHashMap::default();
        let mut parameter_places: FxHashMap<u32, u32> = FxHashMap::default();
        for index in nodes {
            let node = &function.graph[*index];
            key.push(self.shape(node));
            for operand in function.operands(*index) {
                let source = &function.graph[operand.node];
                let place = self.places[operand.node.index()];
                if place != OUTSIDE {
                    key.extend([0, place, operand.port]);
                } else if let Op::Param(number) = source.op {
                    let next = interface.parameters.len() as u32;
                    let place = *parameter_places.entry(number).or_insert_with(|| {
                        interface.parameters.push(number);
                        next
                    });
                    key.extend([1, place, self.parameter(number)]);
                } else if let Op::Const(literal) = source.op {
                    let next = self.literals.len() as u32;
                    key.extend([2, *self.literals.entry(literal).or_insert(next), 0]);
                } else {
                    let next = interface.externals.len() as u32;
                    let place = *external_places.entry(operand).or_insert_with(|| {
                        interface.externals.push(operand);
                        next
                    });
                    let port = Port { element: function.element_of(operand), shape: function.shape_of(operand) };
                    let next = self.ports.len() as u32;
                    key.extend([3, place, *self.ports.entry(port).or_insert(next)]);
                }
            }
        }
        for index in nodes {
            for port in 0..function.graph[*index].outputs.len() as u32 {
                let value = Value { node: *index, port };
                let mut readers = function.graph.edges_directed(*index, Direction::Outgoing);
                let is_read =
                    readers.any(|edge| edge.weight().port == port && self.places[edge.target().index()] == OUTSIDE);
                if is_read || function.outputs.contains(&value) {
                    key.extend([4, self.places[index.index()], port]);
                    interface.results.push(value);
                }
            }
        }
        nodes.iter().for_each(|node| self.places[node.index()] = OUTSIDE);
        interface
    }

    /// What is known of the parameters of a window that has a key.
    pub fn facts(&self, interface: &Interface) -> Vec<Facts> {
        interface.parameters.iter().map(|number| self.known[self.parameters[number] as usize].clone()).collect()
    }

    fn shape(&mut self, node: &'a Node) -> u32 {
        // Not of how it reads its operands: in one model few differ in that alone, and that is most of a node.
        let mut hasher = FxHasher::default();
        node.op.hash(&mut hasher);
        node.variables.iter().for_each(|variable| variable.axis.size.hash(&mut hasher));
        let alike = self.shapes.entry(hasher.finish()).or_default();
        if let Some((_, number)) = alike.iter().find(|(other, _)| same_shape(node, other)) {
            return *number;
        }
        let number = self.shape_count;
        alike.push((node, number));
        self.shape_count += 1;
        number
    }

    /// What is known of a parameter, as a number.
    fn parameter(&mut self, number: u32) -> u32 {
        if let Some(place) = self.parameters.get(&number) {
            return *place;
        }
        let facts = parameter_facts(self.module, number);
        let place = self.known.iter().position(|known| *known == facts).unwrap_or_else(|| {
            self.known.push(facts);
            self.known.len() - 1
        });
        self.parameters.insert(number, place as u32);
        place as u32
    }
}

/// What is known of a parameter of the module.
fn parameter_facts(module: &Module, number: u32) -> Facts {
    let parameter = &module.parameters[number as usize];
    let shape = parameter.axes.iter().map(|axis| axis.size.clone()).collect();
    let mut facts = Facts::parameter(parameter.element, shape, parameter.data.as_ref());
    // Only what a rule may ask for tells windows apart: whether a weight is finite or never negative, not how large it is.
    let range = &mut facts.range;
    if !parameter.element.is_float() {
        *range = Range::of_type(parameter.element);
    } else if facts.literal.is_none() {
        let finite = range.is_finite();
        range.low = if range.low >= 0. { 0. } else { f64::NEG_INFINITY };
        range.high = f64::INFINITY;
        if finite {
            (range.low, range.high) = (range.low.max(f64::MIN), f64::MAX);
        }
    }
    facts
}
