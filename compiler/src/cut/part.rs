//! The two modules of a cut.

use super::is_leaf;
use petgraph::stable_graph::NodeIndex;
use rustc_hash::{FxHashMap, FxHashSet};
use std::{collections::BTreeSet, sync::Arc};
use strang_ir::{Axis, Function, FunctionId, Module, Op, Value};

/// The values of the head that others read or that are results, in order.
pub fn crossing(function: &Function, computing: &[NodeIndex], head: &FxHashSet<NodeIndex>) -> Vec<Value> {
    let mut wires = Vec::new();
    for node in computing.iter().filter(|node| head.contains(node)) {
        for port in 0..function.graph[*node].outputs.len() as u32 {
            let value = Value { node: *node, port };
            let is_read = function.readers(value).iter().any(|(reader, _)| !head.contains(reader));
            if is_read || function.outputs.contains(&value) {
                wires.push(value);
            }
        }
    }
    wires
}

/// The head and the tail.
pub fn parts(module: &Module, head: &FxHashSet<NodeIndex>, wires: &[Value]) -> [Module; 2] {
    let function = module.entry();
    let mut names: Vec<Arc<str>> = Vec::new();
    let taken: BTreeSet<Arc<str>> =
        function.inputs.iter().map(|input| function.graph[*input].outputs[0].name.clone()).collect();
    for wire in wires {
        let base = function.output_of(*wire).name.clone();
        let base = if base.is_empty() { "wire".into() } else { base };
        let mut name = base.clone();
        let mut number = 2;
        while names.contains(&name) || taken.contains(&name) {
            name = format!("{base}_{number}").into();
            number += 1;
        }
        names.push(name);
    }
    let mut first = Builder::new(function);
    first.copy(function, &|node| head.contains(&node));
    first.new.outputs = wires.iter().map(|wire| first.values[wire]).collect();
    first.new.output_names.clone_from(&names);
    let mut second = Builder::new(function);
    for (wire, name) in wires.iter().zip(&names) {
        let input = second.input(function, *wire, name.clone());
        second.values.insert(*wire, input);
    }
    second.copy(function, &|node| !head.contains(&node));
    let results: Vec<Value> = function.outputs.clone();
    second.new.outputs = results.iter().map(|value| second.operand(function, *value)).collect();
    second.new.output_names.clone_from(&function.output_names);
    [("head", first.new), ("tail", second.new)].map(|(side, entry)| {
        let mut functions = module.functions.clone();
        functions[0] = entry;
        let title = format!("{} ({side})", module.title).into();
        pruned(Module { title, functions, parameters: module.parameters.clone() })
    })
}

struct Builder {
    new: Function,
    values: FxHashMap<Value, Value>,
}

impl Builder {
    fn new(function: &Function) -> Self {
        Builder { new: Function::new(function.name.clone()), values: FxHashMap::default() }
    }

    fn input(&mut self, function: &Function, value: Value, name: Arc<str>) -> Value {
        let axes: Vec<Axis> = function.graph[value.node].axes(value.port).into_iter().cloned().collect();
        self.new.add_input(name, function.element_of(value), &axes).into()
    }

    /// Copies nodes with the leaves that they read.
    fn copy(&mut self, function: &Function, wanted: &dyn Fn(NodeIndex) -> bool) {
        for node in function.order() {
            let old = &function.graph[node];
            if is_leaf(&old.op) || !wanted(node) {
                continue;
            }
            let operands: Vec<Value> =
                function.operands(node).into_iter().map(|value| self.operand(function, value)).collect();
            let copy = self.new.add(old.clone(), &operands);
            for port in 0..old.outputs.len() as u32 {
                self.values.insert(Value { node, port }, Value { node: copy, port });
            }
        }
    }

    fn operand(&mut self, function: &Function, value: Value) -> Value {
        if let Some(known) = self.values.get(&value) {
            return *known;
        }
        let node = &function.graph[value.node];
        let new = match node.op {
            Op::Input(_) => self.input(function, value, node.outputs[0].name.clone()),
            _ => self.new.add(node.clone(), &[]).into(),
        };
        self.values.insert(value, new);
        new
    }
}

/// The module without functions and parameters that its entry does not need.
fn pruned(mut module: Module) -> Module {
    let mut functions: Vec<FunctionId> = vec![FunctionId(0)];
    let mut next = 0;
    while let Some(id) = functions.get(next).copied() {
        next += 1;
        let called = module.functions[id.0 as usize].graph.node_weights().flat_map(|node| node.op.functions());
        let new: BTreeSet<FunctionId> = called.filter(|called| !functions.contains(called)).collect();
        functions.extend(new);
    }
    functions.sort_unstable();
    let mut kept: Vec<Function> =
        functions.iter().map(|id| std::mem::take(&mut module.functions[id.0 as usize])).collect();
    let place = |id: FunctionId| FunctionId(functions.iter().position(|other| *other == id).unwrap_or_default() as u32);
    for node in kept.iter_mut().flat_map(|function| function.graph.node_weights_mut()) {
        match &mut node.op {
            Op::Scan { body, .. } | Op::Loop { body } | Op::Call(body) => *body = place(*body),
            Op::If { then, otherwise } => (*then, *otherwise) = (place(*then), place(*otherwise)),
            _ => {}
        }
    }
    module.functions = kept;
    module.remove_unused_parameters();
    module
}
