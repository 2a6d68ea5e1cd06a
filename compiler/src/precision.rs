//! Weights of products rounded to bf16: half the memory, and less time for products of a few rows, which are as fast as their
//! weights are read.
//!
//! The circuit says what is computed: parameters hold the rounded numbers, in f32. Planning finds that they need 16 bits and
//! packs them so ([`crate::plan`]), and kernels widen them as they read them; sums and all else stay in f32.

use half::bf16;
use rayon::prelude::*;
use rustc_hash::FxHashSet;
use strang_ir::{ElementType, Function, Module, Op, Tensor, Value};

/// Numbers that one task rounds.
const TASK: usize = 1 << 16;

/// Rounds every parameter that a product of f32 multiplies, seen through views, to the nearest bf16; says how many. A
/// parameter that is read otherwise too (an embedding table that is also the last layer) is rounded for all.
pub fn round_weights(module: &mut Module) -> usize {
    let mut rounded: FxHashSet<usize> = FxHashSet::default();
    for function in &module.functions {
        for node in function.graph.node_indices() {
            if matches!(function.graph[node].op, Op::Dot { accumulator: ElementType::F32 }) {
                rounded.extend(function.operands(node).into_iter().filter_map(|value| parameter(function, value)));
            }
        }
    }
    let parameters = module.parameters.iter_mut().enumerate().filter(|(position, _)| rounded.contains(position));
    let mut count = 0;
    for (_, parameter) in parameters {
        if let Some(data) = parameter.data.as_ref().filter(|data| data.element() == ElementType::F32)
            && let Some(result) = nearest(data)
        {
            data.release();
            parameter.data = Some(result);
            count += 1;
        }
    }
    count
}

/// The parameter that a value is, seen through views.
fn parameter(function: &Function, value: Value) -> Option<usize> {
    match &function.graph[value.node].op {
        Op::Param(position) => Some(*position as usize),
        Op::View => parameter(function, function.operands(value.node)[0]),
        _ => None,
    }
}

/// The nearest bf16 of every number, ties to even, as f32.
fn nearest(data: &Tensor) -> Option<Tensor> {
    let mut result = Tensor::zeros(ElementType::F32, data.shape()).ok()?;
    let values: &[[u8; 4]] = data.bytes().as_chunks().0;
    let target: &mut [f32] = result.as_mut_slice().ok()?;
    target.par_chunks_mut(TASK).zip(values.par_chunks(TASK)).for_each(|(target, values)| {
        for (target, value) in target.iter_mut().zip(values) {
            *target = bf16::from_f32(f32::from_ne_bytes(*value)).to_f32();
        }
    });
    Some(result)
}
