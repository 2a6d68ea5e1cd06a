//! The reference interpreter, straight from the definition of a node: loop over the variables, read through the maps,
//! combine. It is the oracle that compiled programs and rewriting rules are tested against, so it is kept obviously right:
//! strides are precomputed and output elements are computed in parallel, nothing else.
//!
//! | arithmetic | floats | integers |
//! |---|---|---|
//! | [`Arithmetic::Wide`] | f64, rounded to the element type only when a result leaves the interpreter | exact |
//! | [`Arithmetic::Typed`] | each element type as it is, sums in the order of [`order`] | exact |
//!
//! "Exact" integers wrap where [`crate::op`] and [`crate::scalar`] say so: wrapping is their meaning, not an error of
//! representation, so both arithmetics agree on it. In typed arithmetic f16 and bf16 are computed in f32 and rounded once
//! per function of a scalar expression, or once per output element of every other operation.

mod array;
mod bind;
mod concat;
mod contract;
mod error;
mod functions;
mod machine;
mod map;
mod node;
mod numerics;
pub mod order;
mod read;
mod rows;
mod scalar;
#[cfg(test)]
pub(crate) mod tests;
mod whole;

pub use array::{Array, Data, Number};
pub use bind::{bind, check};
pub use error::InterpretError;

use crate::{FunctionId, Module, verify::verify};
use machine::Machine;
use petgraph::stable_graph::NodeIndex;
use std::{collections::BTreeMap, sync::Arc};
use strang_runtime::{Bindings, Tensor};

pub(crate) use bind::plain_symbol;

/// How numbers are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// Floats in f64 throughout: the oracle of values.
    Wide,
    /// Each element type as it is, sums in the order of [`order`]: the oracle of bits.
    Typed,
}

/// Every value of a run, by function, node and output port. A node of a body has the value of its last call.
pub type Trace = BTreeMap<(FunctionId, NodeIndex, u32), Arc<Array>>;

/// The results of a module's entry. States are inputs and outputs like the others.
///
/// # Errors
/// A circuit that the verifier refuses, inputs that do not fit, sizes that fail a check, an index read from data that
/// lies outside, or a custom operation.
pub fn interpret(module: &Module, inputs: &[Tensor], arithmetic: Arithmetic) -> Result<Vec<Tensor>, InterpretError> {
    run(module, inputs, arithmetic, false).map(|(results, _)| results)
}

/// The results of a module's entry, and every value on the way, in wide form (floats not rounded in wide arithmetic).
///
/// # Errors
/// As [`interpret`].
pub fn interpret_all(
    module: &Module,
    inputs: &[Tensor],
    arithmetic: Arithmetic,
) -> Result<(Vec<Tensor>, Trace), InterpretError> {
    run(module, inputs, arithmetic, true)
}

fn run(
    module: &Module,
    inputs: &[Tensor],
    arithmetic: Arithmetic,
    trace: bool,
) -> Result<(Vec<Tensor>, Trace), InterpretError> {
    let verified = verify(module)?;
    let bindings = bind(module, inputs)?;
    check(&verified.checks, &bindings)?;
    let mut machine = Machine::new(module, &bindings, arithmetic);
    machine.trace = trace.then(Trace::new);
    let inputs = inputs.iter().map(|tensor| Arc::new(Array::from_tensor(tensor))).collect();
    let results = machine.call(FunctionId(0), inputs)?;
    let results = results.iter().map(|array| array.to_tensor()).collect::<Result<_, _>>()?;
    Ok((results, machine.trace.unwrap_or_default()))
}

/// The outputs of one node of a verified module for given operands.
///
/// # Errors
/// A node that does not exist or is an input, operands that do not fit, or as [`interpret`].
pub fn interpret_node(
    module: &Module,
    function: FunctionId,
    node: NodeIndex,
    operands: &[Tensor],
    bindings: &Bindings,
    arithmetic: Arithmetic,
) -> Result<Vec<Tensor>, InterpretError> {
    let found = checked_node(module, function, node, operands, bindings)?;
    let operands = operands.iter().map(|tensor| Arc::new(Array::from_tensor(tensor))).collect();
    let results = Machine::new(module, bindings, arithmetic).node(found, operands)?;
    results.iter().map(|array| array.to_tensor()).collect()
}

/// Elements of the first output of a node of a verified module at given positions of its axes, without computing the
/// others where the operation allows it.
///
/// # Errors
/// As [`interpret_node`], and a position outside the output.
pub fn interpret_elements(
    module: &Module,
    function: FunctionId,
    node: NodeIndex,
    operands: &[Tensor],
    bindings: &Bindings,
    arithmetic: Arithmetic,
    positions: &[Vec<usize>],
) -> Result<Vec<Number>, InterpretError> {
    let found = checked_node(module, function, node, operands, bindings)?;
    let arrays: Vec<Array> = operands.iter().map(Array::from_tensor).collect();
    let references: Vec<&Array> = arrays.iter().collect();
    let prepared = node::Prepared::new(found, &references, bindings, arithmetic)?;
    let (shape, at) = (prepared.shape(0), node::name_of(found));
    let element = prepared.element()?;
    let mut whole: Option<Arc<Array>> = None;
    let mut numbers = Vec::with_capacity(positions.len());
    for position in positions {
        if position.len() != shape.len() || position.iter().zip(&shape).any(|(value, size)| value >= size) {
            return Err(InterpretError::Missing(format!("{at} has shape {shape:?}, and no element at {position:?}")));
        }
        let mut full = vec![0; prepared.extents.len()];
        for (variable, value) in found.outputs[0].variables.iter().zip(position) {
            full[*variable as usize] = *value as i64;
        }
        let single = match &element {
            Some(element) => Some(element(&mut full)),
            None => rows::one(&prepared, &mut full),
        };
        numbers.push(match single {
            Some(value) => value.map_err(|outside| outside.at(&at))?,
            None => {
                if whole.is_none() {
                    let operands = arrays.iter().map(|array| Arc::new(array.clone())).collect();
                    whole = Machine::new(module, bindings, arithmetic).node(found, operands)?.into_iter().next();
                }
                let flat = position.iter().zip(&shape).fold(0, |flat, (value, size)| flat * size + value);
                whole.as_ref().map_or(Number::Integer(0), |array| array.at(flat))
            }
        });
    }
    Ok(numbers)
}

/// The node, when it exists and the operands are what it reads.
fn checked_node<'a>(
    module: &'a Module,
    function: FunctionId,
    node: NodeIndex,
    operands: &[Tensor],
    bindings: &Bindings,
) -> Result<&'a crate::Node, InterpretError> {
    let missing = || InterpretError::Missing(format!("function {} has no node {}", function.0, node.index()));
    let circuit = module.function(function).ok_or_else(missing)?;
    let found = circuit.graph.node_weight(node).ok_or_else(missing)?;
    let (at, sources) = (node::name_of(found), circuit.operands(node));
    if sources.len() != operands.len() {
        let (expected, found) = (sources.len(), operands.len());
        return Err(InterpretError::Missing(format!("{at} takes {expected} operands, not {found}")));
    }
    for (slot, (source, tensor)) in sources.iter().zip(operands).enumerate() {
        let shape = circuit.shape_of(*source);
        let shape = shape.iter().map(|size| node::extent(size, bindings, &at)).collect::<Result<Vec<_>, _>>()?;
        let element = circuit.element_of(*source);
        if tensor.shape() != shape || tensor.element() != element {
            return Err(InterpretError::Missing(format!(
                "operand {slot} of {at} is {element}{shape:?}, not {tensor:?}"
            )));
        }
    }
    Ok(found)
}
