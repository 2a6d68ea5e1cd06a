//! Nodes that read parameters and constants alone become parameters: they are computed once, when the model is compiled.
//!
//! Views stay, because reading through them costs nothing; so do nodes whose result is much larger than what they read. Products of
//! weights wait for the search, which multiplies by one after the other where the rank between them is low, and counts on
//! those that it leaves being computed.

use super::{Receipt, RewriteError};
use crate::plan::error::layer_of;
use petgraph::stable_graph::NodeIndex;
use strang_ir::{
    Bindings, FunctionId, Module, Node, Op, Parameter, Tensor, Value,
    interpret::{Arithmetic, InterpretError, interpret_node},
};
use strang_runtime::size::SizeError;

/// Results up to this size are stored however small their operands are; before rewriting not what is made of bytes.
const SMALL: usize = 1 << 14;
/// How many times larger than its operands a result may be before rewriting: what is narrow tells rules where values lie.
pub const NARROW: usize = 2;
/// How many times larger it may be afterwards: weights of four bits as floats.
pub const WIDE: usize = 8;
/// The bytes up to which products that the search leaves are stored.
const PRODUCT: usize = 1 << 28;

/// Replaces constant nodes by parameters, as long as there is fuel, if they are at most `larger` times what they read; products
/// are limited otherwise.
///
/// # Errors
/// A constant that the interpreter cannot compute.
pub fn fold_constants(
    module: &mut Module,
    larger: usize,
    fuel: usize,
    receipt: &mut Receipt,
) -> Result<(), RewriteError> {
    for position in 0..module.functions.len() {
        for node in module.functions[position].order() {
            if receipt.spent >= fuel {
                break;
            }
            if let Some(operands) = constant_operands(module, position, node, larger) {
                fold(module, position, node, &operands, receipt)?;
            }
        }
        module.functions[position].remove_dead();
    }
    Ok(())
}

/// The operands of a node, when all of them are constant and folding pays.
fn constant_operands(module: &Module, position: usize, index: NodeIndex, larger: usize) -> Option<Vec<Tensor>> {
    let function = &module.functions[position];
    let node = &function.graph[index];
    let foldable = matches!(
        node.op,
        Op::Map(_)
            | Op::Dot { .. }
            | Op::Reduce(_)
            | Op::Gather
            | Op::Concat { .. }
            | Op::Norm { .. }
            | Op::Softmax { .. }
    );
    if !foldable || node.outputs.len() != 1 {
        return None;
    }
    let mut operands = Vec::new();
    for operand in function.operands(index) {
        operands.push(constant(module, position, operand)?);
    }
    let bytes = bytes_of(node)?;
    let read: usize = operands.iter().map(|operand| operand.bytes().len()).sum();
    let narrow = |operand: &Tensor| operand.element().bits() <= 8 && !operand.shape().is_empty();
    let small = if larger == NARROW && operands.iter().any(narrow) { 0 } else { SMALL };
    let most = match node.op {
        Op::Dot { .. } if larger == NARROW => read.max(small),
        Op::Dot { .. } => PRODUCT,
        // Codes and their book: no rule looks into them, but many do into weights.
        Op::Gather => read.saturating_mul(WIDE).max(SMALL),
        _ => read.saturating_mul(larger).max(small),
    };
    (!operands.is_empty() && bytes <= most).then_some(operands)
}

/// The bytes of a node's first output, when its sizes are fixed and memory can hold it.
fn bytes_of(node: &Node) -> Option<usize> {
    let sizes = node.shape(0);
    let mut counts = sizes.iter().map(|size| usize::try_from(size.as_constant()?).ok());
    let count = counts.try_fold(1usize, |product, count| product.checked_mul(count?))?;
    node.outputs[0].element.bytes_of(count)
}

/// The value of a parameter or constant; of a small view of one too.
fn constant(module: &Module, position: usize, value: Value) -> Option<Tensor> {
    let function = &module.functions[position];
    let node = &function.graph[value.node];
    match &node.op {
        Op::Param(parameter) => module.parameters.get(*parameter as usize)?.data.clone(),
        Op::Const(literal) => {
            let mut tensor = Tensor::zeros(literal.element, &[]).ok()?;
            tensor.set_bits(0, literal.bits);
            Some(tensor)
        }
        Op::View => {
            let inner = constant(module, position, function.operands(value.node)[0])?;
            if bytes_of(node)? > inner.bytes().len().max(SMALL) {
                return None;
            }
            evaluate(module, position, value.node, &[inner]).ok()?
        }
        _ => None,
    }
}

/// The value of a node; `None` when it depends on a symbol (a sum over an axis of any length) after all.
fn evaluate(module: &Module, position: usize, node: NodeIndex, operands: &[Tensor]) -> Result<Option<Tensor>, String> {
    if let Some(result) = super::evaluate::evaluate(&module.functions[position].graph[node], operands) {
        return Ok(Some(result));
    }
    let function = FunctionId(position as u32);
    match interpret_node(module, function, node, operands, &Bindings::new(), Arithmetic::Typed) {
        Err(InterpretError::Size { error: SizeError::Unbound(_), .. }) => Ok(None),
        Err(error) => Err(error.to_string()),
        Ok(results) => results.into_iter().next().map(Some).ok_or_else(|| "it has no result".into()),
    }
}

fn fold(
    module: &mut Module,
    position: usize,
    index: NodeIndex,
    operands: &[Tensor],
    receipt: &mut Receipt,
) -> Result<(), RewriteError> {
    let node = module.functions[position].graph[index].clone();
    let layer = layer_of(&node);
    let data = evaluate(module, position, index, operands)
        .map_err(|reason| RewriteError::Constant { layer: layer.clone(), reason })?;
    let Some(data) = data else { return Ok(()) };
    let axes = node.axes(0).into_iter().cloned().collect();
    let parameter = Parameter::new(node.outputs[0].name.clone(), node.outputs[0].element, axes).with_data(data);
    let (number, parameter) = module.add_fresh_parameter(parameter);
    let function = &mut module.functions[position];
    let replacement = function.add_param(number, &parameter);
    function.graph[replacement].source = node.source.clone();
    function.replace(index.into(), replacement.into());
    receipt.apply("fold-constants", layer);
    Ok(())
}
