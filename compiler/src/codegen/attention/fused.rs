//! Blocks of rows on the fused kernel, which keeps scores in cache, and softmax with them.

use super::{Plan, score::Score};
use crate::codegen::{argument::ArgumentBlock, emit::Emitter};
use cranelift_codegen::ir::{InstBuilder, Value};
use std::mem::offset_of;
use strang_ir::Size;
use strang_runtime::kernels::{
    Function,
    attention::{AttentionBlock, attention_scratch},
};

/// Rows of a block, at most: those whose scores the kernel holds at a time.
pub(super) const ROWS: i64 = 65;

/// A call of the fused kernel.
pub(super) struct Fused {
    score: Score,
    block: ArgumentBlock,
}

impl Fused {
    /// Sets all fields that are the same for all blocks.
    pub(super) fn new(emitter: &mut Emitter<'_>, plan: &Plan<'_>, score: Score) -> Self {
        let scratch = emitter.reserve(&scratch_bytes(emitter, plan));
        let block = emitter.argument_block::<AttentionBlock>();
        let [keys, depth, columns] = plan.counts(emitter);
        let [q_row, q_depth] = plan.q.strides(emitter);
        let [k_row, k_depth] = plan.k.strides(emitter);
        let [v_row, _] = plan.v.strides(emitter);
        let [mask_row, mask_column] = score.mask_strides(emitter, plan.attention);
        let out_row_stride = plan.output_stride(emitter);
        let (nothing, everything) = (emitter.int(0), emitter.int(i64::MAX));
        emitter.set_all(
            block,
            [
                (offset_of!(AttentionBlock, q_row_stride), q_row),
                (offset_of!(AttentionBlock, q_depth_stride), q_depth),
                (offset_of!(AttentionBlock, k_row_stride), k_row),
                (offset_of!(AttentionBlock, k_depth_stride), k_depth),
                (offset_of!(AttentionBlock, v_row_stride), v_row),
                (offset_of!(AttentionBlock, packed), plan.packed.map_or(nothing, |packed| packed.keys)),
                (offset_of!(AttentionBlock, keys), keys),
                (offset_of!(AttentionBlock, depth), depth),
                (offset_of!(AttentionBlock, columns), columns),
                (offset_of!(AttentionBlock, mask_row_stride), mask_row),
                (offset_of!(AttentionBlock, mask_column_stride), mask_column),
                (offset_of!(AttentionBlock, causal_offset), everything),
                (offset_of!(AttentionBlock, out_row_stride), out_row_stride),
                (offset_of!(AttentionBlock, scratch), scratch),
            ],
        );
        Fused { score, block }
    }

    /// One block; the variables of the batch are bound.
    pub(super) fn run(&self, emitter: &mut Emitter<'_>, plan: &Plan<'_>, (low, high): (Value, Value)) {
        let zero = emitter.int(0);
        let (q, k, v) = (plan.q.start(emitter, low), plan.k.start(emitter, zero), plan.v.start(emitter, zero));
        let (mask, scale) = (self.score.mask_start(emitter, plan.attention, low), self.score.scale(emitter));
        let (output, rows) = (plan.output(emitter, low), emitter.builder.ins().isub(high, low));
        emitter.set_all(
            self.block,
            [
                (offset_of!(AttentionBlock, q), q),
                (offset_of!(AttentionBlock, k), k),
                (offset_of!(AttentionBlock, v), v),
                (offset_of!(AttentionBlock, rows), rows),
                (offset_of!(AttentionBlock, mask), mask),
                (offset_of!(AttentionBlock, scale), scale),
                (offset_of!(AttentionBlock, out), output),
            ],
        );
        let block = emitter.block_address(self.block);
        emitter.call(Function::AttentionF32, &[block]);
    }
}

/// Bytes of scratch memory that the kernel needs. They grow with the depth, and with rows and keys only up to what the
/// kernel holds at a time, so that unknown numbers of them count as many.
fn scratch_bytes(emitter: &Emitter<'_>, plan: &Plan<'_>) -> Size {
    let number = |size: &Size| size.as_constant().and_then(|size| usize::try_from(size).ok());
    let rows = number(&plan.chunk).unwrap_or(ROWS as usize);
    let keys = number(&emitter.extent(plan.attention.keys)).unwrap_or(i32::MAX as usize);
    let bytes = |depth: usize| attention_scratch(rows, keys, depth, 0) as i64;
    let depth = if plan.packed.is_some() { Size::ZERO } else { emitter.extent(plan.attention.depth) };
    depth * Size::from(bytes(1) - bytes(0)) + Size::from(bytes(0))
}
