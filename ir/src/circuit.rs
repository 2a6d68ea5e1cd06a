//! Circuits: nodes on a graph, functions, modules.
//!
//! A function is a `StableDiGraph` of nodes; an edge carries the output port it leaves and the operand slot it enters.
//! Inputs, parameters and constants are nodes like the others.

use crate::{Axis, Digest, IndexMap, Op, Shared, Variable};
use petgraph::{
    Direction,
    stable_graph::{EdgeReference, NodeIndex, StableDiGraph},
    visit::{EdgeRef, IntoEdgeReferences, NodeIndexable},
};
use serde::{Deserialize, Serialize};
use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};
use strang_runtime::{ElementType, Size, Tensor};

/// A function of a module, by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FunctionId(pub u32);

/// One output of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value {
    /// The node.
    pub node: NodeIndex,
    /// Which of its outputs.
    pub port: u32,
}

impl From<NodeIndex> for Value {
    fn from(node: NodeIndex) -> Self {
        Value { node, port: 0 }
    }
}

/// From an output of one node to an operand of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Edge {
    /// The output port of the source.
    pub port: u32,
    /// The operand slot of the target.
    pub slot: u32,
}

/// Where a node came from, so that errors and profiles name the user's own layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Source {
    /// Made by a program.
    #[default]
    None,
    /// Bytes of a text file.
    Span {
        /// The first byte.
        start: u32,
        /// One past the last.
        end: u32,
    },
    /// A node of an ONNX file.
    Onnx(Arc<str>),
}

/// One output of a node: its name, its element type and the node's variables that are its axes, outermost first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Output {
    /// The name of the value, without `%`.
    pub name: Arc<str>,
    /// The type of an element.
    pub element: ElementType,
    /// Positions in the node's variables.
    pub variables: Vec<u32>,
}

/// An operation with its variables, how it reads its operands and what it yields.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// What is computed.
    pub op: Op,
    /// The index variables. The order of those that are contracted is the order of summation.
    pub variables: Shared<Vec<Variable>>,
    /// One index map per operand.
    pub maps: Shared<Vec<IndexMap>>,
    /// What it yields.
    pub outputs: Vec<Output>,
    /// Where it came from.
    pub source: Source,
    /// The title of the block it stands in.
    pub block: Option<Arc<str>>,
}

/// A node that copies of a function share until one of them changes it.
pub type SharedNode = Shared<Node>;

impl Node {
    /// The sizes of an output's axes.
    pub fn shape(&self, port: u32) -> Vec<Size> {
        self.axes(port).into_iter().map(|axis| axis.size.clone()).collect()
    }

    /// The axes of an output.
    pub fn axes(&self, port: u32) -> Vec<&Axis> {
        self.outputs[port as usize].variables.iter().map(|v| &self.variables[*v as usize].axis).collect()
    }

    /// The variables that are not axes of the first output, in the node's order.
    pub fn contracted(&self) -> Vec<u32> {
        let kept = &self.outputs[0].variables;
        (0..self.variables.len() as u32).filter(|variable| !kept.contains(variable)).collect()
    }

    /// The number of positions of a variable.
    pub fn size_of(&self, variable: u32) -> Size {
        self.variables[variable as usize].axis.size.clone()
    }
}

impl Node {
    /// Replaces symbols by sizes.
    pub fn substitute(&mut self, sizes: &std::collections::BTreeMap<Arc<str>, Size>) {
        for variable in &mut self.variables {
            variable.axis.size = variable.axis.size.substitute(sizes);
        }
        let in_expr = |expr: &mut crate::IndexExpr| *expr = expr.substitute_sizes(sizes);
        for map in &mut self.maps {
            map.exprs.iter_mut().for_each(in_expr);
            for condition in &mut map.conditions {
                match condition {
                    crate::Condition::Range { expression, low, high } => {
                        in_expr(expression);
                        (*low, *high) = (low.substitute(sizes), high.substitute(sizes));
                    }
                    crate::Condition::Divisible { expression, divisor } => {
                        in_expr(expression);
                        *divisor = divisor.substitute(sizes);
                    }
                }
            }
        }
        match &mut self.op {
            Op::Map(expr) => {
                *expr = expr.replace_leaves(&mut |leaf| match leaf {
                    crate::ScalarExpr::Size(size) => crate::ScalarExpr::Size(size.substitute(sizes)),
                    other => other.clone(),
                });
            }
            Op::Concat { offsets, .. } => offsets.iter_mut().for_each(|offset| *offset = offset.substitute(sizes)),
            Op::Scatter { target, .. } => target.iter_mut().for_each(in_expr),
            _ => {}
        }
    }
}

/// A circuit with inputs and outputs.
#[derive(Clone, Debug, Default)]
pub struct Function {
    /// Its name, without `@`.
    pub name: Arc<str>,
    /// The nodes and how values flow.
    pub graph: StableDiGraph<SharedNode, Edge>,
    /// The input nodes, in order.
    pub inputs: Vec<NodeIndex>,
    /// The results, in order.
    pub outputs: Vec<Value>,
    /// The names of the results as an interface (an ONNX graph's output names); as many as `outputs`.
    pub output_names: Vec<Arc<str>>,
    /// State: positions of an input and an output that share memory from run to run.
    pub states: Vec<(u32, u32)>,
}

impl Function {
    /// An empty function.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Function { name: name.into(), ..Default::default() }
    }

    /// Adds a node that reads `operands`, one per map.
    pub fn add(&mut self, node: impl Into<SharedNode>, operands: &[Value]) -> NodeIndex {
        let node = node.into();
        let input = matches!(node.op, Op::Input(_));
        let index = self.graph.add_node(node);
        for (slot, operand) in operands.iter().enumerate() {
            self.graph.add_edge(operand.node, index, Edge { port: operand.port, slot: slot as u32 });
        }
        if input {
            self.inputs.push(index);
        }
        index
    }

    /// Adds an input with the given axes.
    pub fn add_input(&mut self, name: impl Into<Arc<str>>, element: ElementType, axes: &[Axis]) -> NodeIndex {
        let op = Op::Input(self.inputs.len() as u32);
        self.add(source_node(op, name, element, axes), &[])
    }

    /// Adds a node that yields parameter `position` of the module.
    pub fn add_param(&mut self, position: u32, parameter: &Parameter) -> NodeIndex {
        self.add(source_node(Op::Param(position), parameter.name.clone(), parameter.element, &parameter.axes), &[])
    }

    /// The operands of a node, by slot.
    pub fn operands(&self, node: NodeIndex) -> Vec<Value> {
        let edges = || self.graph.edges_directed(node, Direction::Incoming);
        let value = |edge: EdgeReference<Edge>| Value { node: edge.source(), port: edge.weight().port };
        // The last edge that was added comes first.
        if edges().is_sorted_by(|left, right| left.weight().slot > right.weight().slot) {
            let mut operands: Vec<Value> = edges().map(value).collect();
            operands.reverse();
            return operands;
        }
        let mut operands: Vec<_> = edges().map(|edge| (edge.weight().slot, value(edge))).collect();
        operands.sort_unstable();
        operands.into_iter().map(|(_, value)| value).collect()
    }

    /// The nodes that read a value, with the slot, ascending.
    pub fn readers(&self, value: Value) -> Vec<(NodeIndex, u32)> {
        let mut readers: Vec<_> = self
            .graph
            .edges_directed(value.node, Direction::Outgoing)
            .filter(|edge| edge.weight().port == value.port)
            .map(|edge| (edge.target(), edge.weight().slot))
            .collect();
        readers.sort_unstable();
        readers
    }

    /// The output that a value is.
    pub fn output_of(&self, value: Value) -> &Output {
        &self.graph[value.node].outputs[value.port as usize]
    }

    /// Has a node read a value in a slot, instead of what it read there.
    pub fn set_operand(&mut self, reader: NodeIndex, slot: u32, value: Value) {
        let edges = self.graph.edges_directed(reader, Direction::Incoming);
        let old = edges.filter(|edge| edge.weight().slot == slot).map(|edge| edge.id()).next();
        if let Some(old) = old {
            self.graph.remove_edge(old);
        }
        self.graph.add_edge(value.node, reader, Edge { port: value.port, slot });
    }

    /// Has everything read a value in the place of another, results too.
    pub fn replace(&mut self, old: Value, new: Value) {
        for (reader, slot) in self.readers(old) {
            self.set_operand(reader, slot, new);
        }
        self.outputs.iter_mut().filter(|value| **value == old).for_each(|value| *value = new);
    }

    /// The element type of a value.
    pub fn element_of(&self, value: Value) -> ElementType {
        self.output_of(value).element
    }

    /// The sizes of a value's axes.
    pub fn shape_of(&self, value: Value) -> Vec<Size> {
        self.graph[value.node].shape(value.port)
    }

    /// All nodes, operands before their readers, otherwise by index: the canonical order. A cycle leaves its nodes out
    /// (the verifier refuses it).
    pub fn order(&self) -> Vec<NodeIndex> {
        // Most functions are made in order.
        if self.graph.edge_references().all(|edge| edge.source() < edge.target()) {
            return self.graph.node_indices().collect();
        }
        let mut waiting = vec![0usize; self.graph.node_bound()];
        self.graph.edge_references().for_each(|edge| waiting[edge.target().index()] += 1);
        let is_ready = |node: &NodeIndex| waiting[node.index()] == 0;
        let mut ready: BinaryHeap<_> = self.graph.node_indices().filter(is_ready).map(Reverse).collect();
        let mut order = Vec::with_capacity(self.graph.node_count());
        while let Some(Reverse(node)) = ready.pop() {
            order.push(node);
            for edge in self.graph.edges_directed(node, Direction::Outgoing) {
                let count = &mut waiting[edge.target().index()];
                *count -= 1;
                if *count == 0 {
                    ready.push(Reverse(edge.target()));
                }
            }
        }
        order
    }

    /// Removes nodes that no output depends on; inputs stay.
    pub fn remove_dead(&mut self) {
        let mut live = vec![false; self.graph.node_bound()];
        let mut pending = self.inputs.clone();
        pending.extend(self.outputs.iter().map(|value| value.node));
        while let Some(node) = pending.pop() {
            if live.get_mut(node.index()).is_some_and(|live| !std::mem::replace(live, true)) {
                pending.extend(self.graph.neighbors_directed(node, Direction::Incoming));
            }
        }
        self.graph.retain_nodes(|_, node| live[node.index()]);
    }
}

fn source_node(op: Op, name: impl Into<Arc<str>>, element: ElementType, axes: &[Axis]) -> Node {
    let variables: Vec<Variable> = distinct_variables(axes);
    let positions = (0..variables.len() as u32).collect();
    Node {
        op,
        variables: variables.into(),
        maps: Shared::default(),
        outputs: vec![Output { name: name.into(), element, variables: positions }],
        source: Source::None,
        block: None,
    }
}

/// One variable per axis, with primes where an axis name occurs again.
pub fn distinct_variables(axes: &[Axis]) -> Vec<Variable> {
    let mut variables: Vec<Variable> = Vec::with_capacity(axes.len());
    for axis in axes {
        let mut name = axis.name.to_string();
        while variables.iter().any(|variable| *variable.name == *name) {
            name.push('\'');
        }
        variables.push(Variable::named(name, axis));
    }
    variables
}

/// Equality of structure: the operations in canonical order, each in its canonical form, with axes compared by size and
/// operands by what they are. Names, sources and block titles do not count, nor does where, how often or whether in vain
/// a parameter is brought in.
impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        let (left, right) = (self.operations(), other.operations());
        let (left_at, right_at) = (Self::positions(&left), Self::positions(&right));
        let same_values = |a: &[Value], b: &[Value]| {
            a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| self.identity(&left_at, *a) == other.identity(&right_at, *b))
        };
        left.len() == right.len()
            && self.states == other.states
            && self.inputs.len() == other.inputs.len()
            && self.inputs.iter().zip(&other.inputs).all(|(a, b)| same_node(&self.graph[*a], &other.graph[*b]))
            && same_values(&self.outputs, &other.outputs)
            && left.iter().zip(&right).all(|(a, b)| {
                same_node(&self.graph[*a], &other.graph[*b]) && same_values(&self.operands(*a), &other.operands(*b))
            })
    }
}

/// What an operand is, whatever its node's index.
#[derive(PartialEq)]
enum Identity {
    Input(u32),
    Param(u32),
    Operation(Option<usize>, u32),
}

impl Function {
    /// The nodes other than inputs and parameters, in canonical order.
    fn operations(&self) -> Vec<NodeIndex> {
        let mut order = self.order();
        order.retain(|node| !matches!(self.graph[*node].op, Op::Input(_) | Op::Param(_)));
        order
    }

    fn positions(order: &[NodeIndex]) -> rustc_hash::FxHashMap<NodeIndex, usize> {
        order.iter().enumerate().map(|(position, node)| (*node, position)).collect()
    }

    fn identity(&self, positions: &rustc_hash::FxHashMap<NodeIndex, usize>, value: Value) -> Identity {
        match self.graph[value.node].op {
            Op::Input(position) => Identity::Input(position),
            Op::Param(position) => Identity::Param(position),
            _ => Identity::Operation(positions.get(&value.node).copied(), value.port),
        }
    }
}

fn same_node(a: &Node, b: &Node) -> bool {
    let (a, b) = (a.canonical(), b.canonical());
    a.op == b.op
        && a.maps == b.maps
        && a.variables.len() == b.variables.len()
        && a.variables.iter().zip(&b.variables).all(|(a, b)| a.axis.size == b.axis.size)
        && a.outputs.len() == b.outputs.len()
        && a.outputs.iter().zip(&b.outputs).all(|(a, b)| a.element == b.element && a.variables == b.variables)
}

/// A constant array of a module: a weight, by name.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Its name, without `@`.
    pub name: Arc<str>,
    /// The type of an element.
    pub element: ElementType,
    /// Its axes, outermost first.
    pub axes: Vec<Axis>,
    /// Its elements; absent in a circuit that is looked at without its weights.
    pub data: Option<Tensor>,
    /// The digest of its elements, where they were left out: see [`Parameter::digest`].
    pub digest: Option<Digest>,
}

impl Parameter {
    /// A parameter whose elements are not known.
    pub fn new(name: impl Into<Arc<str>>, element: ElementType, axes: Vec<Axis>) -> Self {
        Parameter { name: name.into(), element, axes, data: None, digest: None }
    }

    /// The same parameter with its elements.
    pub fn with_data(mut self, data: Tensor) -> Self {
        self.data = Some(data);
        self.digest = None;
        self
    }

    /// The digest of the elements, computed from them when they are here (which takes time in proportion).
    pub fn digest(&self) -> Option<Digest> {
        self.data.as_ref().map(Digest::of).or(self.digest)
    }

    fn same_elements(&self, other: &Self) -> bool {
        match (&self.data, &other.data) {
            (Some(left), Some(right)) => left == right,
            _ => self.digest() == other.digest(),
        }
    }
}

/// Equality of name, type, sizes and elements, which are compared by digest where one side has no data.
impl PartialEq for Parameter {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.element == other.element
            && self.axes.len() == other.axes.len()
            && self.axes.iter().zip(&other.axes).all(|(a, b)| a.size == b.size)
            && self.same_elements(other)
    }
}

/// A model: functions and parameters. The first function is the entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Module {
    /// A title for people.
    pub title: Arc<str>,
    /// Constant arrays.
    pub parameters: Vec<Parameter>,
    /// The entry, then the bodies of control flow.
    pub functions: Vec<Function>,
}

impl Module {
    /// The function that a run executes.
    ///
    /// # Panics
    /// When the module has no function (the verifier refuses it).
    pub fn entry(&self) -> &Function {
        &self.functions[0]
    }

    /// A function by id.
    pub fn function(&self, id: FunctionId) -> Option<&Function> {
        self.functions.get(id.0 as usize)
    }

    /// Replaces symbols by sizes, everywhere.
    pub fn substitute(&mut self, sizes: &std::collections::BTreeMap<Arc<str>, Size>) {
        for parameter in &mut self.parameters {
            parameter.axes.iter_mut().for_each(|axis| axis.size = axis.size.substitute(sizes));
        }
        for function in &mut self.functions {
            for node in function.graph.node_weights_mut() {
                node.substitute(sizes);
            }
        }
    }

    /// Adds a parameter and says its position.
    pub fn add_parameter(&mut self, parameter: Parameter) -> u32 {
        self.parameters.push(parameter);
        self.parameters.len() as u32 - 1
    }

    /// Adds a parameter, underscores after its name if another has that name; says its position, and how it was added.
    pub fn add_fresh_parameter(&mut self, mut parameter: Parameter) -> (u32, Parameter) {
        while self.parameters.iter().any(|other| other.name == parameter.name) {
            parameter.name = format!("{}_", parameter.name).into();
        }
        (self.add_parameter(parameter.clone()), parameter)
    }

    /// Removes the parameters that no function reads; the others are in the order in which they are read.
    pub fn remove_unused_parameters(&mut self) {
        let mut read: Vec<u32> = Vec::new();
        for node in self.functions.iter_mut().flat_map(|function| function.graph.node_weights_mut()) {
            if let Op::Param(number) = &mut node.op {
                let new = read.iter().position(|other| other == number).unwrap_or_else(|| {
                    read.push(*number);
                    read.len() - 1
                });
                *number = new as u32;
            }
        }
        self.parameters = read.iter().map(|number| self.parameters[*number as usize].clone()).collect();
    }
}
