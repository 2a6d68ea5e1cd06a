//! Keys of windows: those that are equal but for their weights, inputs and names have one, and are saturated once.

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
use strang_ir::{Function, Literal, Module, Node, Op, Value};

/// A number for every node, by its index: the same for two that are equal but for names and where their operands come from.
pub fn kinds(function: &Function) -> Vec<u32> {
    let mut kinds = vec![u32::MAX; function.graph.node_bound()];
    let mut known: FxHashMap<u64, Vec<(&Node, u32)>> = FxHashMap::default();
    let mut count = 0;
    for index in function.graph.node_indices() {
        let node: &Node = &function.graph[index];
        // Not of how it reads its operands: in one model few differ in that alone, and that is most of a node.
        let mut hasher = FxHasher::default();
        node.op.hash(&mut hasher);
        node.variables.iter().for_each(|variable| variable.axis.size.hash(&mut hasher));
        let alike = known.entry(hasher.finish()).or_default();
        let same = alike.iter().find(|(other, _)| same_shape(node, other)).map(|(_, number)| *number);
        kinds[index.index()] = same.unwrap_or_else(|| {
            alike.push((node, count));
            count += 1;
            count - 1
        });
    }
    kinds
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
    kinds: &'a [u32],
    /// The place of every node in the window that is looked at; [`OUTSIDE`] if it is not of it.
    places: Vec<u32>,
    ports: FxHashMap<Port, u32>,
    literals: FxHashMap<Literal, u32>,
    /// What is known of every parameter, by its place in `known`.
    parameters: FxHashMap<u32, u32>,
    known: Vec<Facts>,
}

const OUTSIDE: u32 = u32::MAX;
/// Fewer weights than these may have one sign by chance alone, and would tell layers apart that are equal.
const FEWEST_SIGNS: usize = 12;

impl<'a> Keys<'a> {
    /// Keys of the windows of a function whose nodes are of these kinds.
    pub fn new(module: &'a Module, function: &'a Function, kinds: &'a [u32]) -> Self {
        Keys {
            module,
            function,
            kinds,
            places: vec![OUTSIDE; function.graph.node_bound()],
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
            key.push(self.kinds[index.index()]);
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
        let is_chance = parameter.data.as_ref().is_some_and(|data| data.count() < FEWEST_SIGNS);
        range.low = if range.low >= 0. && !is_chance { 0. } else { f64::NEG_INFINITY };
        range.high = f64::INFINITY;
        if finite {
            (range.low, range.high) = (range.low.max(f64::MIN), f64::MAX);
        }
    }
    facts
}
