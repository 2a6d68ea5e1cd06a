//! What a call of the attention kernel computes, as generated code fills it in, and the memory it needs.

use crate::kernels::gemm::FloatSlot;
use crate::kernels::lanes::WIDTH;
use crate::kernels::pack::packed_len;

/// Query rows whose scores are held at a time: a few of the highest register tiles.
pub(super) const GROUP_ROWS: usize = 65;

/// Keys whose scores are held at a time: these keys, their values and the scores share the second-level cache.
pub(super) const CHUNK_KEYS: usize = 512;

/// The smaller of two sizes; `usize::min` is no constant function.
const fn smaller(a: usize, b: usize) -> usize {
    if a < b { a } else { b }
}

/// Distance of two rows of scores: whole panels, and a cache line more so that rows do not fall into one cache set.
pub(super) const fn score_stride(keys: usize) -> usize {
    smaller(keys, CHUNK_KEYS).next_multiple_of(WIDTH) + WIDTH
}

/// Length of the scores of a group of rows against a chunk of keys.
pub(super) const fn scores_len(rows: usize, keys: usize) -> usize {
    smaller(rows, GROUP_ROWS) * score_stride(keys)
}

/// Some query rows of one head. Every field has 8 bytes and starts at a multiple of 8 (take offsets with
/// `core::mem::offset_of!`); strides are in elements, and the last axis of V and the output is contiguous.
///
/// For row `i < rows`, column `c < columns`, over the keys `j < keys` with `j <= i + causal_offset`:
///
/// ```text
/// score[i, j] = (sum over d < depth of q[i, d] * k[j, d]) * scale + mask[i, j]
/// weight[i, j] = exp(score[i, j] - max over j of score[i, j])
/// out[i, c] = (sum over j of weight[i, j] * v[j, c]) / (sum over j of weight[i, j])
/// ```
///
/// A row whose scores are all minus infinity, or that sees none of the keys, is NaN, as ONNX has it; where there are no
/// keys at all, the output is zero. Values of keys that a row does
/// not see may meet a weight of zero: they must be finite, and keys likewise.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct AttentionBlock {
    /// The first query row.
    pub q: *const f32,
    /// Distance of two queries.
    pub q_row_stride: i64,
    /// Distance of two elements of a query.
    pub q_depth_stride: i64,
    /// The first key; not read where `packed` is given.
    pub k: *const f32,
    /// Distance of two keys. Keys that are contiguous (stored transposed) are read in place.
    pub k_row_stride: i64,
    /// Distance of two elements of a key.
    pub k_depth_stride: i64,
    /// The first value; not read where `packed` is given.
    pub v: *const f32,
    /// Distance of two values.
    pub v_row_stride: i64,
    /// What `attention_pack` made of all keys and values, or null: then the keys are packed into scratch, chunk by chunk
    /// (unless they are stored transposed), and the values read in place. Worth it when several blocks share keys.
    pub packed: *const f32,
    /// Query rows.
    pub rows: u64,
    /// Keys, and values.
    pub keys: u64,
    /// Length of a query and of a key.
    pub depth: u64,
    /// Length of a value and of an output row.
    pub columns: u64,
    /// The factor of the scores.
    pub scale: FloatSlot,
    /// What is added to the scaled scores, or null.
    pub mask: *const f32,
    /// Distance of two rows of the mask; may be 0.
    pub mask_row_stride: i64,
    /// Distance of two columns of the mask; may be 0.
    pub mask_column_stride: i64,
    /// Row `i` sees the keys up to `i + causal_offset`; `i64::MAX` when rows see all keys.
    pub causal_offset: i64,
    /// The first output row.
    pub out: *mut f32,
    /// Distance of two output rows.
    pub out_row_stride: i64,
    /// [`attention_scratch`] bytes, aligned to 4.
    pub scratch: *mut f32,
}

impl AttentionBlock {
    /// How many keys the first `rows` rows see together: what the last of them sees.
    pub(super) fn visible(&self, rows: usize) -> usize {
        let visible = (rows as i64).saturating_add(self.causal_offset);
        (visible.max(0) as u64).min(self.keys) as usize
    }
}

/// The scratch memory, in bytes, of a block of that many rows, keys, depth and columns (or fewer).
pub const fn attention_scratch(rows: usize, keys: usize, depth: usize, columns: usize) -> usize {
    // The output itself holds the running sums of values, whatever their number of columns.
    let _ = columns;
    (2 * rows + scores_len(rows, keys) + packed_len(depth, smaller(keys, CHUNK_KEYS))) * size_of::<f32>()
}

/// The length, in elements, of packed keys and values.
pub const fn attention_packed_len(keys: usize, depth: usize, columns: usize) -> usize {
    packed_len(depth, keys) + packed_len(keys, columns)
}
