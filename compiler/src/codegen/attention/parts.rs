//! Blocks of rows in steps, for scores that the fused kernel does not know: the products of the matrix kernel, the score
//! as a job on rows of scratch memory, and the softmax of those rows.

use super::Plan;
use crate::codegen::{argument::ArgumentBlock, emit::Emitter, strip::Sink};
use cranelift_codegen::ir::{InstBuilder, Value};
use std::mem::offset_of;
use strang_ir::Size;
use strang_runtime::kernels::{
    Function,
    gemm::{GemmBlock, GemmItem},
};

/// Rows of a block, at most: a few of the highest register tiles, whose scores against all keys stay in cache.
pub(super) const ROWS: i64 = 26;

/// Calls of the matrix kernel, and the scores between them.
pub(super) struct Parts {
    scores: Value,
    /// Elements from one row of scores to the next.
    stride: Size,
    block: ArgumentBlock,
    item: ArgumentBlock,
}

impl Parts {
    /// Sets all fields that are the same for all calls.
    pub(super) fn new(emitter: &mut Emitter<'_>, plan: &Plan<'_>) -> Self {
        // Whole panels, and a cache line more so that rows do not fall into one cache set.
        let stride = (emitter.extent(plan.attention.keys).ceil_div(&Size::from(16)) + Size::ONE) * Size::from(16);
        let scores = emitter.reserve(&(&stride * &plan.chunk * Size::from(4)));
        let (block, item) = (emitter.argument_block::<GemmBlock>(), emitter.argument_block::<GemmItem>());
        let zero = emitter.int(0);
        for offset in (0..size_of::<GemmBlock>()).step_by(8) {
            emitter.set(block, offset, zero);
        }
        let (one, panel, scale) = (emitter.int(1), emitter.int(16), emitter.builder.ins().f32const(1.));
        let items = emitter.block_address(item);
        emitter.set_all(
            block,
            [
                (offset_of!(GemmBlock, items), items),
                (offset_of!(GemmBlock, item_count), one),
                (offset_of!(GemmBlock, b_depth_stride), panel),
                (offset_of!(GemmBlock, scale), scale),
            ],
        );
        Parts { scores, stride, block, item }
    }

    /// One block; the variables of the batch are bound, keys and values packed.
    pub(super) fn run(&self, emitter: &mut Emitter<'_>, plan: &Plan<'_>, (low, high): (Value, Value)) {
        let Some(packed) = plan.packed else { return };
        let attention = plan.attention;
        let rows = emitter.builder.ins().isub(high, low);
        emitter.set(self.block, offset_of!(GemmBlock, rows), rows);
        let [keys, depth, columns] = plan.counts(emitter);
        let (q, q_strides) = (plan.q.start(emitter, low), plan.q.strides(emitter));
        let stride = emitter.size(&self.stride);
        self.product(emitter, (q, q_strides), (packed.keys, depth), (self.scores, stride, keys));
        let sinks = |row| vec![Sink::Row { row, value: attention.score_value }];
        let (scores, score) = ((self.scores, &self.stride), (&attention.score, attention.keys));
        plan.each_row(emitter, (low, high), scores, score, sinks, |emitter, row| {
            emitter.call(Function::SoftmaxRowF32, &[row.base, row.base, keys]);
        });
        let (output, output_stride, one) = (plan.output(emitter, low), plan.output_stride(emitter), emitter.int(1));
        let weights = (self.scores, [stride, one]);
        self.product(emitter, weights, (packed.values, keys), (output, output_stride, columns));
    }

    /// The product of a matrix, with its strides, and panels, with their depth, as a matrix with a stride and columns.
    fn product(
        &self,
        emitter: &mut Emitter<'_>,
        (a, [a_row_stride, a_depth_stride]): (Value, [Value; 2]),
        (b, depth): (Value, Value),
        (c, c_row_stride, columns): (Value, Value, Value),
    ) {
        let b_panel_stride = emitter.builder.ins().imul_imm_s(depth, 16);
        emitter.set_all(self.item, [(offset_of!(GemmItem, a), a), (offset_of!(GemmItem, b), b)]);
        emitter.set_all(
            self.block,
            [
                (offset_of!(GemmBlock, c), c),
                (offset_of!(GemmBlock, c_row_stride), c_row_stride),
                (offset_of!(GemmBlock, columns), columns),
                (offset_of!(GemmBlock, a_row_stride), a_row_stride),
                (offset_of!(GemmBlock, a_depth_stride), a_depth_stride),
                (offset_of!(GemmBlock, depth), depth),
                (offset_of!(GemmBlock, b_panel_stride), b_panel_stride),
            ],
        );
        let block = emitter.block_address(self.block);
        emitter.call(Function::GemmF32, &[block]);
    }
}
