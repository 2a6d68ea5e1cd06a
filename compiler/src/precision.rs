//! Products in bf16: weights take half the memory, and instructions for such products do twice the arithmetic.
//!
//! The circuit says what is computed: matrix products read weights of bf16, beside which a `dot` rounds the other operand, and
//! sum in f32. All else stays as it is: activations are f32 in memory, products of two activations are not rounded, nor are
//! depthwise convolutions, which wait for memory. Rounding comes after rewriting, so that weights that are made of others are
//! rounded once.

use half::bf16;
use petgraph::stable_graph::NodeIndex;
use rayon::prelude::*;
use rustc_hash::FxHashMap;
use strang_ir::{ElementType, Function, IndexExpr, IndexMap, Module, Op, Parameter, Size, Tensor, Value};

/// Numbers that one task rounds.
const TASK: usize = 1 << 16;

/// Gives every matrix product of f32 and weights, seen through views, the nearest bf16 of these weights; says how many were
/// rounded. Whatever else reads a parameter reads the numbers that it has.
pub fn round_weights(module: &mut Module) -> usize {
    let mut rounded: FxHashMap<u32, Option<u32>> = FxHashMap::default();
    for position in 0..module.functions.len() {
        for node in module.functions[position].order() {
            let Some(slot) = weights(&module.functions[position], node) else { continue };
            let value = module.functions[position].operands(node)[slot];
            if let Some(narrow) = narrowed(module, position, value, &mut rounded) {
                module.functions[position].set_operand(node, slot as u32, narrow);
            }
        }
        module.functions[position].remove_dead();
    }
    module.remove_unused_parameters();
    rounded.values().flatten().count()
}

/// The operand of a matrix product that is weights: it alone has columns.
fn weights(function: &Function, index: NodeIndex) -> Option<usize> {
    let node = &function.graph[index];
    let [output] = &node.outputs[..] else { return None };
    let is_float = node.op == Op::Dot { accumulator: ElementType::F32 } && output.element == ElementType::F32;
    if !is_float || node.maps.len() != 2 || node.contracted().is_empty() {
        return None;
    }
    let operands = function.operands(index);
    let is_f32 = operands.iter().all(|value| function.element_of(*value) == ElementType::F32);
    let slot = match [0, 1].map(|slot| is_parameter(function, operands[slot])) {
        [false, true] => 1,
        [true, false] => 0,
        _ => return None,
    };
    let has_columns =
        output.variables.iter().any(|v| node.maps[slot].mentions(*v) && !node.maps[1 - slot].mentions(*v));
    let skips = node.maps[1 - slot].fill.is_none_or(|fill| fill.is(0.));
    (is_f32 && has_columns && skips && can_be_packed(&node.maps[slot])).then_some(slot)
}

/// Whether weights that are read so lie at strides: others would be packed when the model runs, which products of bf16 are not.
fn can_be_packed(map: &IndexMap) -> bool {
    let is_stride = |size: &Size| size.as_constant().is_some_and(|stride| stride >= 0);
    let is_strided = |expr: &IndexExpr| expr.is_affine() && expr.terms().iter().all(|(_, stride)| is_stride(stride));
    map.fill.is_none() && map.conditions.is_empty() && map.exprs.iter().all(is_strided)
}

/// Whether a value is a parameter, seen through views.
fn is_parameter(function: &Function, value: Value) -> bool {
    let node = &function.graph[value.node];
    match &node.op {
        Op::Param(_) => true,
        Op::View if can_be_packed(&node.maps[0]) => is_parameter(function, function.operands(value.node)[0]),
        _ => false,
    }
}

/// A parameter in bf16, through the views through which it is read. `None` where its numbers are not known.
fn narrowed(
    module: &mut Module,
    position: usize,
    value: Value,
    rounded: &mut FxHashMap<u32, Option<u32>>,
) -> Option<Value> {
    let function = &module.functions[position];
    let mut node = function.graph[value.node].clone();
    if let Op::Param(number) = node.op {
        let known = rounded.get(&number).copied();
        let narrow =
            known.unwrap_or_else(|| nearest(&module.parameters[number as usize]).map(|p| module.add_parameter(p)));
        rounded.insert(number, narrow);
        let narrow = narrow?;
        let parameter = module.parameters[narrow as usize].clone();
        return Some(module.functions[position].add_param(narrow, &parameter).into());
    }
    let operand = function.operands(value.node)[0];
    let operand = narrowed(module, position, operand, rounded)?;
    node.outputs[0].element = ElementType::BF16;
    Some(module.functions[position].add(node, &[operand]).into())
}

/// A parameter with the nearest bf16 of every number, ties to even, computed when it is packed.
fn nearest(parameter: &Parameter) -> Option<Parameter> {
    let data = parameter.data.clone()?;
    let shape = data.shape().to_vec();
    let round = move |target: &mut [u8], room: &mut Tensor| {
        let values: &[[u8; 4]] = data.bytes_in(room).as_chunks().0;
        let target: &mut [[u8; 2]] = target.as_chunks_mut().0;
        target.par_chunks_mut(TASK).zip(values.par_chunks(TASK)).for_each(|(target, values)| {
            for (target, value) in target.iter_mut().zip(values) {
                *target = bf16::from_f32(f32::from_ne_bytes(*value)).to_ne_bytes();
            }
        });
        data.release();
    };
    let result = Tensor::deferred(ElementType::BF16, &shape, round).ok()?;
    let name = format!("{}.bf16", parameter.name);
    Some(Parameter::new(name, ElementType::BF16, parameter.axes.clone()).with_data(result))
}
