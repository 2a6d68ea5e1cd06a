//! Windows: a circuit is cut into runs of nodes that little crosses, and windows that are equal but for their weights,
//! inputs and names are found, so that each is saturated once. Compile time then grows with distinct layers.
//!
//! Where a cut falls depends only on what follows the one before, so repeated layers are cut alike.

use crate::rewrite::egraph::{
    Facts,
    facts::{Port, Range},
    signature::{hash_shape, same_shape},
};
use petgraph::stable_graph::NodeIndex;
use rustc_hash::{FxHashMap, FxHashSet, FxHasher};
use std::hash::Hasher;
use strang_ir::{Function, Literal, Module, Node, Op, Value, op::Norm};

/// The fewest and most nodes of a window.
const FEWEST: usize = 32;
const MOST: usize = 128;
/// The most nodes of what is left after other windows and is not cut again: searching takes longer than in proportion.
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
    let mut constant: FxHashSet<NodeIndex> = FxHashSet::default();
    for node in &all {
        let operands = function.operands(*node);
        let is_constant = |value: &Value| match function.graph[value.node].op {
            Op::Param(_) | Op::Const(_) => true,
            _ => constant.contains(&value.node),
        };
        if !is_leaf(&function.graph[*node]) && !operands.is_empty() && operands.iter().all(is_constant) {
            constant.insert(*node);
        }
    }
    let (mut order, mut placed) = (Vec::with_capacity(all.len()), FxHashSet::default());
    let later = all.iter().filter(|node| constant.contains(node));
    for node in all.iter().filter(|node| !constant.contains(node)).chain(later) {
        place(function, *node, &constant, &mut placed, &mut order);
    }
    order
}

/// Places a node after the constant ones that it reads.
fn place(
    function: &Function,
    node: NodeIndex,
    constant: &FxHashSet<NodeIndex>,
    placed: &mut FxHashSet<NodeIndex>,
    order: &mut Vec<NodeIndex>,
) {
    if is_leaf(&function.graph[node]) || !placed.insert(node) {
        return;
    }
    for operand in function.operands(node) {
        if constant.contains(&operand.node) {
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
    let is_map = matches!(function.graph[node].op, Op::Map(_));
    let first = function.operands(node).first().map(|value| function.element_of(*value));
    is_map
        && function.graph[node].outputs[0].element.is_float()
        && first.is_some_and(|element| element.is_integer() && element.bits() <= 8)
}

/// How many values are alive before each position.
fn crossing(function: &Function, order: &[NodeIndex]) -> Vec<usize> {
    let places: FxHashMap<NodeIndex, usize> = order.iter().enumerate().map(|(place, node)| (*node, place)).collect();
    let mut last: Vec<usize> = (0..order.len()).collect();
    for (place, node) in order.iter().enumerate() {
        for operand in function.operands(*node) {
            if let Some(definition) = places.get(&operand.node) {
                last[*definition] = last[*definition].max(place);
            }
        }
    }
    let mut change = vec![0i64; order.len() + 1];
    for (definition, last) in last.into_iter().enumerate() {
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
    /// What is known of each of them.
    pub facts: Vec<Facts>,
    /// Values of the window that are read outside, in order.
    pub results: Vec<Value>,
}

/// Tells windows apart. Two have one key if they are equal but for the data of weights, where values come from, and names.
#[derive(Debug, Default)]
pub struct Keys<'a> {
    shapes: FxHashMap<u64, Vec<(&'a Node, u32)>>,
    shape_count: u32,
    ports: FxHashMap<Port, u32>,
    literals: FxHashMap<Literal, u32>,
    facts: FxHashMap<u32, (Facts, u32)>,
    known: Vec<Facts>,
}

impl<'a> Keys<'a> {
    /// The key of a window and its interface.
    pub fn key(&mut self, module: &'a Module, function: &'a Function, nodes: &[NodeIndex]) -> (Vec<u32>, Interface) {
        let places: FxHashMap<NodeIndex, u32> =
            nodes.iter().enumerate().map(|(place, node)| (*node, place as u32)).collect();
        let mut interface = Interface::default();
        let mut external_places: FxHashMap<Value, u32> = FxHashMap::default();
        let mut parameter_places: FxHashMap<u32, u32> = FxHashMap::default();
        let mut key = Vec::with_capacity(nodes.len() * 4);
        for index in nodes {
            let node = &function.graph[*index];
            key.push(self.shape(node));
            for operand in function.operands(*index) {
                let source = &function.graph[operand.node];
                if let Some(place) = places.get(&operand.node) {
                    key.extend([0, *place, operand.port]);
                } else if let Op::Param(number) = source.op {
                    let next = interface.parameters.len() as u32;
                    let place = *parameter_places.entry(number).or_insert_with(|| {
                        interface.parameters.push(number);
                        next
                    });
                    key.extend([1, place, self.parameter(module, number)]);
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
                let is_read = function.readers(value).iter().any(|(reader, _)| !places.contains_key(reader));
                if is_read || function.outputs.contains(&value) {
                    key.extend([4, places[index], port]);
                    interface.results.push(value);
                }
            }
        }
        interface.facts = interface.parameters.iter().map(|number| self.facts[number].0.clone()).collect();
        (key, interface)
    }

    fn shape(&mut self, node: &'a Node) -> u32 {
        let mut hasher = FxHasher::default();
        hash_shape(node, &mut hasher);
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
    fn parameter(&mut self, module: &Module, number: u32) -> u32 {
        if let Some((_, place)) = self.facts.get(&number) {
            return *place;
        }
        let facts = parameter_facts(module, number);
        let place = self.known.iter().position(|known| *known == facts).unwrap_or_else(|| {
            self.known.push(facts.clone());
            self.known.len() - 1
        });
        self.facts.insert(number, (facts, place as u32));
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
