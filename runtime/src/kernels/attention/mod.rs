//! The fused attention kernel: `softmax(scale * Q K^T + mask) V` for some query rows of one head, without the matrix of
//! scores ever leaving the cache.
//!
//! Keys are taken a chunk at a time and rows a group at a time: their scores are one product, the softmax runs over them in
//! place, and a second product with V adds to the output, which is divided by the rows' sums last. From chunk to chunk a
//! row is rescaled when a greater score turns up (M. Milakov, N. Gimelshein, "Online normalizer calculation for softmax",
//! 2018; T. Dao et al., "FlashAttention", 2022).
//!
//! Bits do not depend on the level, nor on how queries are cut into blocks, nor on who packed the keys.

mod block;
mod row;

pub use block::{AttentionBlock, attention_packed_len, attention_scratch};

use super::gemm::{self, GemmBlock, GemmItem, Tiles, families};
use super::lanes::{Lanes, WIDTH};
use super::level::per_level;
use super::pack;
use block::{CHUNK_KEYS, GROUP_ROWS, score_stride, scores_len};
use row::{Mask, divide, exponentials, greatest, rescale};
use std::ops::Range;

per_level! {
    /// [`AttentionBlock`] says what it computes.
    ///
    /// # Safety
    /// The block, and the arrays it points at with the strides and sizes it gives, can be read, the output and scratch
    /// written; neither overlaps another array.
    pub(crate) mod attention_f32 = run::<families>(block: *const AttentionBlock);

    /// `(block, packed)`: packs the keys and values of a block, [`attention_packed_len`] elements, for
    /// [`AttentionBlock::packed`] of any block with the same keys and values. Uses no other field.
    ///
    /// # Safety
    /// Keys and values can be read, the packed elements written; they do not overlap.
    pub(crate) mod attention_pack = pack_block::<families>(block: *const AttentionBlock, packed: *mut f32);
}

/// # Safety
/// As for [`attention_pack`].
#[inline(always)]
unsafe fn pack_block<T: Tiles>(block: *const AttentionBlock, packed: *mut f32) {
    // SAFETY: the caller vouches for keys, values and the room for them.
    unsafe {
        let block = &*block;
        let values = packed.add(pack::packed_len(block.depth as usize, block.keys as usize));
        pack::run::<T::Panel>(block.k, block.k_depth_stride, block.k_row_stride, block.depth, block.keys, packed);
        pack::run::<T::Panel>(block.v, block.v_row_stride, 1, block.keys, block.columns, values);
    }
}

/// The memory that holds what is between scores and output.
struct Scratch {
    /// The sum of every row's weights so far.
    sums: *mut f32,
    /// The greatest score of every row so far.
    maxima: *mut f32,
    /// The scores of a group of rows against a chunk of keys.
    scores: *mut f32,
    /// The panels of the keys of a chunk, where they are neither packed nor in place.
    keys: *mut f32,
}

impl Scratch {
    /// Divides the memory as `attention_scratch` counts it.
    fn new(block: &AttentionBlock) -> Scratch {
        let rows = block.rows as usize;
        let maxima = block.scratch.wrapping_add(rows);
        let scores = maxima.wrapping_add(rows);
        let keys = scores.wrapping_add(scores_len(rows, block.keys as usize));
        Scratch { sums: block.scratch, maxima, scores, keys }
    }
}

/// The right operands of a chunk.
struct Operands {
    keys: *const f32,
    keys_depth_stride: i64,
    keys_panel_stride: i64,
    values: *const f32,
    values_depth_stride: i64,
    values_panel_stride: i64,
}

impl Operands {
    /// Of the chunk of that many keys from `start`; packs the keys where it must.
    ///
    /// # Safety
    /// As for [`attention_f32`]; the keys are in the block.
    #[inline(always)]
    unsafe fn new<V: Lanes>(block: &AttentionBlock, scratch: &Scratch, start: usize, keys: usize) -> Operands {
        let depth = block.depth as usize;
        let (panel, packed_panel) = (WIDTH as i64, WIDTH as i64 * block.depth as i64);
        // SAFETY: the caller vouches for keys, values and scratch.
        unsafe {
            if !block.packed.is_null() {
                let values = block.packed.add(pack::packed_len(depth, block.keys as usize));
                return Operands {
                    keys: block.packed.add(start * depth),
                    keys_depth_stride: panel,
                    keys_panel_stride: packed_panel,
                    values: values.add(start * WIDTH),
                    values_depth_stride: panel,
                    values_panel_stride: panel * block.keys as i64,
                };
            }
            let first = block.k.offset(start as isize * block.k_row_stride as isize);
            let in_place = block.k_row_stride == 1;
            if !in_place {
                let strides = (block.k_depth_stride, block.k_row_stride);
                pack::run::<V>(first, strides.0, strides.1, block.depth, keys as u64, scratch.keys);
            }
            Operands {
                keys: if in_place { first } else { scratch.keys },
                keys_depth_stride: if in_place { block.k_depth_stride } else { panel },
                keys_panel_stride: if in_place { panel } else { packed_panel },
                values: block.v.offset(start as isize * block.v_row_stride as isize),
                values_depth_stride: block.v_row_stride,
                values_panel_stride: panel,
            }
        }
    }
}

/// # Safety
/// As for [`attention_f32`].
#[inline(always)]
unsafe fn run<T: Tiles>(block: *const AttentionBlock) {
    // SAFETY: the caller vouches for the block and its arrays.
    unsafe {
        let block = &*block;
        let rows = block.rows as usize;
        let (scratch, visible) = (Scratch::new(block), block.visible(rows));
        // Even without a key there is one chunk: it writes the NaN of rows that see nothing, or the sums of no terms.
        for start in (0..visible.max(1)).step_by(CHUNK_KEYS) {
            let operands =
                Operands::new::<T::Panel>(block, &scratch, start, visible.saturating_sub(start).min(CHUNK_KEYS));
            for row in (0..rows).step_by(GROUP_ROWS) {
                let group = row..rows.min(row + GROUP_ROWS);
                let visible = block.visible(group.end);
                if start == 0 || start < visible {
                    let end = visible.min(start + CHUNK_KEYS);
                    add_chunk::<T>(block, &scratch, &operands, group.clone(), start..end);
                    if end == visible && block.keys > 0 {
                        divide_rows::<T>(block, &scratch, group);
                    }
                }
            }
        }
    }
}

/// Adds a chunk of keys to what the output of some rows holds; the first chunk starts it.
///
/// # Safety
/// As for [`attention_f32`]; rows and keys are in the block.
#[inline(always)]
unsafe fn add_chunk<T: Tiles>(
    block: &AttentionBlock,
    scratch: &Scratch,
    operands: &Operands,
    rows: Range<usize>,
    keys: Range<usize>,
) {
    let stride = score_stride(block.keys as usize);
    let continues = keys.start > 0;
    // SAFETY: the caller vouches for the arrays; scores have room for the rows of a group and the keys of a chunk.
    unsafe {
        let queries = block.q.offset(rows.start as isize * block.q_row_stride as isize);
        gemm::run::<T>(&GemmBlock {
            c: scratch.scores,
            c_row_stride: stride as i64,
            rows: rows.len() as u64,
            columns: keys.len() as u64,
            items: &GemmItem { a: queries, b: operands.keys },
            item_count: 1,
            a_row_stride: block.q_row_stride,
            a_depth_stride: block.q_depth_stride,
            depth: block.depth,
            b_depth_stride: operands.keys_depth_stride,
            b_panel_stride: operands.keys_panel_stride,
            scale: block.scale,
            ..GemmBlock::default()
        });
        for (index, row) in rows.clone().enumerate() {
            let scores = scratch.scores.add(index * stride);
            weigh_row::<T::Panel>(block, scratch, scores, row, &keys);
        }
        let c = block.out.offset(rows.start as isize * block.out_row_stride as isize);
        gemm::run::<T>(&GemmBlock {
            c,
            c_row_stride: block.out_row_stride,
            rows: rows.len() as u64,
            columns: block.columns,
            items: &GemmItem { a: scratch.scores, b: operands.values },
            item_count: 1,
            a_row_stride: stride as i64,
            a_depth_stride: 1,
            depth: keys.len() as u64,
            b_depth_stride: operands.values_depth_stride,
            b_panel_stride: operands.values_panel_stride,
            start: if continues { c } else { std::ptr::null() },
            start_row_stride: block.out_row_stride,
            ..GemmBlock::default()
        });
    }
}

/// Turns a row's scores against a chunk of keys into weights relative to its greatest score so far, and rescales what it
/// has from chunks before.
///
/// # Safety
/// As for [`attention_f32`]; row and keys are in the block, and the scores are there.
#[inline(always)]
unsafe fn weigh_row<V: Lanes>(
    block: &AttentionBlock,
    scratch: &Scratch,
    scores: *mut f32,
    row: usize,
    keys: &Range<usize>,
) {
    let visible = block.visible(row + 1).clamp(keys.start, keys.end) - keys.start;
    let mask = Mask::new(block, row, keys.start);
    // SAFETY: the caller vouches for the scores; every row has its sum, maximum and output.
    unsafe {
        let (sum, maximum) = (scratch.sums.add(row), scratch.maxima.add(row));
        let (before, sum_before) = if keys.start > 0 { (*maximum, *sum) } else { (f32::NEG_INFINITY, 0.0) };
        let now = greatest::<V>(scores, visible, &mask, before);
        // A row that has seen nothing but minus infinity has no maximum to subtract; its weights are all zero.
        let shift = if now == f32::NEG_INFINITY { 0.0 } else { now };
        let added = exponentials::<V>(scores, visible, keys.len(), shift);
        maximum.write(now);
        sum.write(if keys.start > 0 {
            let out = block.out.offset(row as isize * block.out_row_stride as isize);
            added + sum_before * rescale::<V>(out, block.columns as usize, before - shift)
        } else {
            added
        });
    }
}

/// Divides the output of some rows by the sums of their weights.
///
/// # Safety
/// As for [`attention_f32`]; the rows are in the block and all their keys are in.
#[inline(always)]
unsafe fn divide_rows<T: Tiles>(block: &AttentionBlock, scratch: &Scratch, rows: Range<usize>) {
    for row in rows {
        // SAFETY: the row is in the block.
        unsafe {
            let out = block.out.offset(row as isize * block.out_row_stride as isize);
            divide::<T::Panel>(out, block.columns as usize, *scratch.sums.add(row));
        }
    }
}

#[cfg(test)]
mod tests;
