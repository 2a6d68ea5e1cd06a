//! Functions and control flow: nodes in order, bodies called with values.

use super::{
    Arithmetic, Array, InterpretError, Number, Trace,
    node::{Prepared, extent, name_of},
    rows, whole,
};
use crate::{Function, FunctionId, Module, Node, Op, Value};
use rustc_hash::FxHashMap;
use std::sync::Arc;
use strang_runtime::{Bindings, ElementType};

/// Values while functions run. The module is verified.
pub(super) struct Machine<'a> {
    module: &'a Module,
    bindings: &'a Bindings,
    arithmetic: Arithmetic,
    parameters: FxHashMap<u32, Arc<Array>>,
    /// Every value, when they are asked for.
    pub(super) trace: Option<Trace>,
}

type Values = Vec<Arc<Array>>;

impl<'a> Machine<'a> {
    pub(super) fn new(module: &'a Module, bindings: &'a Bindings, arithmetic: Arithmetic) -> Self {
        Machine { module, bindings, arithmetic, parameters: FxHashMap::default(), trace: None }
    }

    fn function(&self, id: FunctionId) -> Result<&'a Function, InterpretError> {
        self.module.function(id).ok_or_else(|| InterpretError::Missing(format!("the module has no function {}", id.0)))
    }

    /// The results of a function.
    pub(super) fn call(&mut self, id: FunctionId, inputs: Values) -> Result<Values, InterpretError> {
        let function = self.function(id)?;
        // A value is dropped after its last reader, unless it is a result.
        let mut uses: FxHashMap<Value, usize> = FxHashMap::default();
        for edge in function.graph.edge_indices() {
            let ((source, _), edge) = (function.graph.edge_endpoints(edge).unwrap_or_default(), function.graph[edge]);
            *uses.entry(Value { node: source, port: edge.port }).or_default() += 1;
        }
        for output in &function.outputs {
            *uses.entry(*output).or_default() += 1;
        }
        let mut values: FxHashMap<Value, Arc<Array>> = FxHashMap::default();
        for index in function.order() {
            let sources = function.operands(index);
            let operands: Values = sources.iter().map(|value| values[value].clone()).collect();
            for value in sources {
                if let Some(count) = uses.get_mut(&value) {
                    *count -= 1;
                    if *count == 0 {
                        values.remove(&value);
                    }
                }
            }
            let results = match function.graph[index].op {
                Op::Input(position) => vec![inputs[position as usize].clone()],
                _ => self.node(&function.graph[index], operands)?,
            };
            for (port, result) in results.into_iter().enumerate() {
                let value = Value { node: index, port: port as u32 };
                if let Some(trace) = &mut self.trace {
                    trace.insert((id, index, port as u32), result.clone());
                }
                if uses.contains_key(&value) {
                    values.insert(value, result);
                }
            }
        }
        Ok(function.outputs.iter().map(|value| values[value].clone()).collect())
    }

    /// The outputs of a node of which the operands are known.
    pub(super) fn node(&mut self, node: &'a Node, operands: Values) -> Result<Values, InterpretError> {
        match &node.op {
            Op::Input(_) => Err(InterpretError::Missing(format!("{} is an input", name_of(node)))),
            Op::Param(position) => Ok(vec![self.parameter(*position)?]),
            Op::Const(literal) => {
                let mut array = Array::zeros(literal.element, &[])?;
                array.set(0, Number::of(*literal));
                Ok(vec![Arc::new(array)])
            }
            Op::Call(id) => self.call(*id, operands),
            Op::If { then, otherwise } => {
                let id = if operands[0].at(0).holds() { then } else { otherwise };
                self.call(*id, operands[1..].to_vec())
            }
            Op::Loop { body } => self.repeat(*body, operands),
            Op::Scan { body, along, reverse, states } => {
                let scan = Scan { body: *body, along: *along, reverse: *reverse, states: *states as usize };
                self.scan(node, scan, operands)
            }
            Op::Custom { name, .. } => Err(InterpretError::Custom { at: name_of(node), name: name.to_string() }),
            _ => {
                let arrays: Vec<&Array> = operands.iter().map(Arc::as_ref).collect();
                let results = array_operation(node, &arrays, self.bindings, self.arithmetic)?;
                Ok(results.into_iter().map(Arc::new).collect())
            }
        }
    }

    fn parameter(&mut self, position: u32) -> Result<Arc<Array>, InterpretError> {
        if let Some(array) = self.parameters.get(&position) {
            return Ok(array.clone());
        }
        let parameter = self
            .module
            .parameters
            .get(position as usize)
            .ok_or_else(|| InterpretError::Missing(format!("the module has no parameter {position}")))?;
        let wrong = |reason| InterpretError::Parameter { name: parameter.name.to_string(), reason };
        let data = parameter.data.as_ref().ok_or_else(|| wrong("has no data".into()))?;
        let at = format!("@{}", parameter.name);
        let shape = parameter.axes.iter().map(|axis| extent(&axis.size, self.bindings, &at));
        let shape = shape.collect::<Result<Vec<_>, _>>()?;
        if data.shape() != shape || data.element() != parameter.element {
            return Err(wrong(format!("has data {data:?}, not {}{shape:?}", parameter.element)));
        }
        let array = Arc::new(Array::from_tensor(data));
        self.parameters.insert(position, array.clone());
        Ok(array)
    }

    fn repeat(&mut self, body: FunctionId, operands: Values) -> Result<Values, InterpretError> {
        let limit = operands[0].at(0).to_i128();
        let mut go_on = operands[1].at(0).holds();
        let mut states = operands[2..].to_vec();
        let mut iteration = 0;
        while go_on && iteration < limit {
            let mut counter = Array::zeros(ElementType::I64, &[])?;
            counter.set(0, Number::Integer(iteration));
            let mut results = self.call(body, [vec![Arc::new(counter)], states].concat())?;
            go_on = results.remove(0).at(0).holds();
            states = results;
            iteration += 1;
        }
        Ok(states)
    }

    fn scan(&mut self, node: &Node, scan: Scan, operands: Values) -> Result<Values, InterpretError> {
        let at = name_of(node);
        let count = extent(node.variables[scan.along as usize].size(), self.bindings, &at)?;
        let mut states = operands[..scan.states].to_vec();
        let mut stacked = Vec::new();
        for output in &node.outputs[scan.states..] {
            let shape = output.variables.iter().map(|v| extent(node.variables[*v as usize].size(), self.bindings, &at));
            let axis = output.variables.iter().position(|variable| *variable == scan.along).unwrap_or(0);
            stacked.push((Array::zeros(output.element, &shape.collect::<Result<Vec<_>, _>>()?)?, axis));
        }
        for iteration in 0..count {
            let iteration = if scan.reverse { count - 1 - iteration } else { iteration };
            let mut inputs = states.clone();
            for (map, operand) in node.maps.iter().zip(&operands).skip(scan.states) {
                let axis = map.exprs.iter().position(|expression| expression.as_variable() == Some(scan.along));
                inputs.push(match axis {
                    Some(axis) => Arc::new(slice(operand, axis, iteration)?),
                    None => operand.clone(),
                });
            }
            let mut results = self.call(scan.body, inputs)?;
            for ((array, axis), result) in stacked.iter_mut().zip(results.split_off(scan.states)) {
                write_slice(array, *axis, iteration, &result);
            }
            states = results;
        }
        states.extend(stacked.into_iter().map(|(array, _)| Arc::new(array)));
        Ok(states)
    }
}

/// [`Op::Scan`], whose fields they are.
#[derive(Clone, Copy)]
struct Scan {
    body: FunctionId,
    along: u32,
    reverse: bool,
    states: usize,
}

/// The part of an array at one position of an axis.
fn slice(array: &Array, axis: usize, position: usize) -> Result<Array, InterpretError> {
    let mut shape = array.shape.clone();
    let size = shape.remove(axis);
    let inner: usize = shape[axis..].iter().product();
    let mut part = Array::zeros(array.element, &shape)?;
    for index in 0..part.count() {
        part.set(index, array.at((index / inner * size + position) * inner + index % inner));
    }
    Ok(part)
}

fn write_slice(array: &mut Array, axis: usize, position: usize, part: &Array) {
    let (size, inner) = (array.shape[axis], array.shape[axis + 1..].iter().product::<usize>());
    for index in 0..part.count() {
        array.set((index / inner * size + position) * inner + index % inner, part.at(index));
    }
}

/// The outputs of an operation that calls no function.
pub(super) fn array_operation(
    node: &Node,
    operands: &[&Array],
    bindings: &Bindings,
    arithmetic: Arithmetic,
) -> Result<Vec<Array>, InterpretError> {
    let prepared = Prepared::new(node, operands, bindings, arithmetic)?;
    if let Some(element) = prepared.element()? {
        return Ok(vec![prepared.each(&element)?]);
    }
    if let Some(array) = rows::all(&prepared)? {
        return Ok(vec![array]);
    }
    whole::all(&prepared)?.ok_or_else(|| {
        InterpretError::Missing(format!("{}: `{}` has no operands to read", name_of(node), node.op.name()))
    })
}
