//! Values that are computed from constants and given inputs alone, where their elements must be known: the reference
//! interpreter computes them while the model is imported. So a shape may come out of any operator, not only out of those
//! that [`super::fold`] understands symbolically.

use super::{model::Importer, values::Item};
use petgraph::{Direction, stable_graph::NodeIndex};
use rustc_hash::FxHashMap;
use std::{collections::BTreeMap, sync::Arc};
use strang_ir::{
    Function, Module, Op, Value,
    interpret::{Arithmetic, interpret},
};
use strang_runtime::{Size, Tensor};

/// So many nodes may lead to a value.
const NODE_LIMIT: usize = 1 << 12;

/// So many elements may be computed on the way, each operand of a sum counting.
const WORK_LIMIT: i64 = 1 << 24;

impl Importer<'_> {
    /// The value of an item that depends on constants and given inputs alone. Inside bodies only constants count.
    pub fn evaluated(&self, value: Value) -> Option<Tensor> {
        let outermost = self.builders.len() == 1;
        if outermost && let Some(known) = self.evaluated.borrow().get(&value) {
            return known.clone();
        }
        let tensor = self.evaluate(value);
        if outermost {
            self.evaluated.borrow_mut().insert(value, tensor.clone());
        }
        tensor
    }

    fn evaluate(&self, value: Value) -> Option<Tensor> {
        let mut inputs = Vec::new();
        let function = self.leading_to(value, &mut inputs)?;
        let mut module = Module { parameters: self.module.parameters.clone(), ..Module::default() };
        module.functions.push(function);
        module.functions.extend(self.module.functions.iter().skip(1).cloned());
        module.substitute(&self.given_sizes());
        let mut left = WORK_LIMIT;
        spend(&module, &module.functions[0], 1, &mut left)?;
        interpret(&module, &inputs, Arithmetic::Typed).ok()?.into_iter().next()
    }

    /// The nodes that a value depends on as a function of the given inputs, whose values go into `inputs`.
    fn leading_to(&self, value: Value, inputs: &mut Vec<Tensor>) -> Option<Function> {
        let whole = &self.builder().function;
        let mut found: BTreeMap<NodeIndex, NodeIndex> = BTreeMap::new();
        let mut pending = vec![value.node];
        while let Some(node) = pending.pop() {
            let known = match whole.graph.node_weight(node)?.op {
                Op::Input(_) => self.given_input(node.into()).is_some(),
                _ => true,
            };
            if !known || found.len() > NODE_LIMIT {
                return None;
            }
            if found.insert(node, node).is_none() {
                pending.extend(whole.graph.neighbors_directed(node, Direction::Incoming));
            }
        }
        // Nodes are added after those they read, so that their numbers are in order.
        let mut function = Function::new("evaluated");
        let old: Vec<NodeIndex> = found.keys().copied().collect();
        let mut moved: FxHashMap<NodeIndex, NodeIndex> = FxHashMap::default();
        for index in old {
            let mut node = whole.graph[index].clone();
            if let Op::Input(position) = &mut node.op {
                *position = inputs.len() as u32;
                inputs.push(self.given_input(index.into())?.tensor()?);
            }
            let operands: Option<Vec<Value>> = (whole.operands(index).into_iter())
                .map(|operand| Some(Value { node: *moved.get(&operand.node)?, port: operand.port }))
                .collect();
            moved.insert(index, function.add(node, &operands?));
        }
        function.outputs = vec![Value { node: *moved.get(&value.node)?, port: value.port }];
        function.output_names = vec![Arc::from("value")];
        Some(function)
    }

    fn given_input(&self, value: Value) -> Option<&Item> {
        if self.builders.len() == 1 { self.given.get(&value) } else { None }
    }

    /// The sizes that the given inputs fix.
    fn given_sizes(&self) -> BTreeMap<Arc<str>, Size> {
        let mut sizes = BTreeMap::new();
        for (value, item) in &self.given {
            let Some(tensor) = item.tensor() else { continue };
            for (size, extent) in self.builders[0].function.shape_of(*value).iter().zip(tensor.shape()) {
                if let Some(symbol) = size.symbols().into_iter().find(|symbol| Size::symbol(symbol.clone()) == *size) {
                    sizes.insert(symbol, Size::from(*extent as i64));
                }
            }
        }
        sizes
    }
}

/// Takes the work of a function, done `times` over, from what is left; `None` when it is more, unknown or without end.
fn spend(module: &Module, function: &Function, times: i64, left: &mut i64) -> Option<()> {
    for node in function.graph.node_weights() {
        let mut sizes = node.variables.iter().map(|variable| variable.axis.size.as_constant());
        let work = sizes.try_fold(times, |work, size| work.checked_mul(size?.max(1)))?;
        *left = left.checked_sub(work).filter(|left| *left >= 0)?;
        let rounds = match &node.op {
            Op::Loop { .. } | Op::Custom { .. } => return None,
            Op::Scan { along, .. } => node.size_of(*along).as_constant()?.max(1).checked_mul(times)?,
            _ => times,
        };
        for body in node.op.functions() {
            spend(module, module.function(body)?, rounds, left)?;
        }
    }
    Some(())
}
