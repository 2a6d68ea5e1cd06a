//! Arithmetic and traffic of kernels, for profiles and estimates.

use super::{
    build::KernelBuilder,
    kernel::{Access, Block, Body, CodeScales, Fold, Instruction, LoopVariable, RightOperand},
};
use rustc_hash::FxHashSet;
use strang_ir::Size;
use strang_runtime::program::Cost;

/// Floating-point operations (a fused multiply-add counts two, a function of one value one) and bytes (every distinct
/// element of an access once).
pub fn cost(kernel: &KernelBuilder, body: &Body) -> Cost {
    let extent = |variables: &[u32]| -> Size { variables.iter().map(|v| kernel.size_of(*v)).product() };
    let operations = |block: &Block| {
        let counted = block.instructions.iter().filter(|instruction| {
            matches!(instruction, Instruction::Unary(..) | Instruction::Binary(..) | Instruction::Select(..))
        });
        Size::from(counted.count() as i64)
    };
    let flops = match body {
        Body::Nest(nest) => {
            let space = extent(&nest.space);
            let folds: i64 =
                nest.folds.iter().map(|fold| i64::from(matches!(fold, Fold::MultiplyAdd { .. })) + 1).sum();
            let inner = (operations(&nest.body) + Size::from(folds)) * extent(&nest.contracted);
            space * (inner + operations(&nest.finish))
        }
        Body::Rows(rows) => {
            let each = operations(&rows.prologue) + operations(&rows.finish) + Size::from(5);
            extent(&rows.space) * extent(&rows.row) * each
        }
        Body::Gemm(gemm) => {
            let outputs = extent(&gemm.batch) * extent(&[gemm.rows, gemm.columns]);
            let products = Size::from(2) * extent(&gemm.taps) * extent(&[gemm.depth]);
            outputs * (products + operations(&gemm.finish))
        }
        Body::Attention(attention) => {
            let scores = extent(&attention.batch) * extent(&[attention.rows, attention.keys]);
            let products = Size::from(2) * (extent(&[attention.depth]) + extent(&[attention.columns]));
            scores * (products + operations(&attention.score) + Size::from(4))
        }
        Body::Depthwise(depthwise) => {
            let outputs = extent(&depthwise.batch) * extent(&[depthwise.columns, depthwise.channels]);
            outputs * (Size::from(2) * extent(&depthwise.taps) + operations(&depthwise.finish))
        }
        // Bands are made of kernels that have a cost.
        Body::Bands(_) | Body::Builtin { .. } => Size::ZERO,
    };
    let bytes = kernel.accesses.iter().map(|access| touched(kernel, access)).sum();
    Cost { flops, bytes: bytes_of_right(body, kernel).map_or(bytes, |extra: Size| extra) }
}

/// A packed right operand is an access without its depth and columns; its bytes are counted here with all others.
fn bytes_of_right(body: &Body, kernel: &KernelBuilder) -> Option<Size> {
    let Body::Gemm(gemm) = body else { return None };
    let packed = match gemm.b {
        RightOperand::Packed(packed) | RightOperand::Pairs(packed) | RightOperand::Coded { codes: packed, .. } => {
            packed
        }
        RightOperand::Strided(_) => return None,
    };
    let others: Size = kernel
        .accesses
        .iter()
        .enumerate()
        .filter(|(position, _)| *position as u32 != packed)
        .map(|(_, access)| touched(kernel, access))
        .sum();
    let own = touched(kernel, &kernel.accesses[packed as usize]);
    let depth = match gemm.b {
        RightOperand::Coded { .. } => gemm.b.words_deep(&kernel.size_of(gemm.depth)),
        _ => kernel.size_of(gemm.depth),
    };
    let scales = match gemm.b {
        RightOperand::Coded { scales: Some(CodeScales { depths, have_zeros, .. }), .. } => {
            let rows = kernel.size_of(gemm.depth).ceil_div(&Size::from(depths as i64));
            rows * Size::from(4 * (1 + i64::from(have_zeros)))
        }
        _ => Size::ZERO,
    };
    Some(others + (own * depth + scales) * kernel.size_of(gemm.columns))
}

/// Bytes of the elements that an access touches, each once: the variables that move it, windows counted as overlapping.
fn touched(kernel: &KernelBuilder, access: &Access) -> Size {
    let mut variables = FxHashSet::default();
    access.address.visit_variables(&mut |variable| {
        variables.insert(variable);
    });
    let mut by_stride: Vec<(Size, Size)> = Vec::new();
    let mut variables: Vec<u32> = variables.into_iter().collect();
    variables.sort_unstable();
    for variable in variables {
        if !matches!(kernel.variables.get(variable as usize), Some(LoopVariable::Loop(_))) {
            continue;
        }
        let (stride, size) = (access.address.coefficient(variable), kernel.size_of(variable));
        match by_stride.iter_mut().find(|(other, _)| *other == stride && !stride.is(0)) {
            Some((_, extent)) => *extent = &*extent + &(size - Size::ONE),
            None => by_stride.push((stride, size)),
        }
    }
    let elements: Size = by_stride.into_iter().map(|(_, size)| size).product();
    (elements * Size::from(i64::from(access.element.bits()))).ceil_div(&Size::from(8))
}
