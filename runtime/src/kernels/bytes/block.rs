//! What generated code tells the kernel: one block of C.

use crate::kernels::gemm::{Activation, FloatSlot};

/// One product that goes into a block.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ByteItem {
    /// Row 0, depth 0 of A.
    pub a: *const u8,
    /// The first panel of B.
    pub b: *const i8,
}

/// How floats stand for numbers of eight bits: `x = (q - zero) * step`, `q = round(x * scale) + zero`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Quantisation {
    /// A [`Stored`] as its number: the type of `q`; for [`Stored::F32`] nothing is quantised.
    pub stored: u64,
    /// What a number is multiplied with before it is rounded.
    pub scale: FloatSlot,
    /// What stands for zero.
    pub zero: FloatSlot,
    /// What a whole number is multiplied with when it is read.
    pub step: FloatSlot,
}

impl Default for Quantisation {
    fn default() -> Self {
        Quantisation { stored: Stored::F32 as u64, scale: FloatSlot(1.0), zero: FloatSlot(0.0), step: FloatSlot(1.0) }
    }
}

impl Quantisation {
    /// Bytes of a number that is stored.
    #[inline(always)]
    pub(super) fn size(&self) -> isize {
        if self.stored == Stored::U8 as u64 || self.stored == Stored::I8 as u64 { 1 } else { 4 }
    }
}

/// A type that the kernel reads or writes.
#[repr(u64)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stored {
    /// Floats.
    F32 = 0,
    /// Unsigned bytes.
    U8 = 1,
    /// Signed bytes.
    I8 = 2,
    /// The sums as they are; nothing but the offset applies to them.
    I32 = 3,
}

/// One block of C and all that goes into it. Every field has 8 bytes and starts at a multiple of 8; strides are in elements.
///
/// For row `i < rows` and column `j < columns`, with every operation rounded on its own:
///
/// ```text
/// s = sum over items and k < depth of a[i, k] * b[k, j]        modulo 2^32
/// s = s - offset[j]                                            unless null
/// s = s + summand[j]                                           unless null
/// c[i, j] = s, and no more                                     if output.stored is I32
/// x = f32(s) * scale
/// x = x * column_scale[j]                                      unless null
/// x = x + column_bias[j]                                       unless null
/// x = (q(x) - snap.zero) * snap.step                           unless snap.stored is F32
/// x = (table[q(x)] - entries.zero) * entries.step              instead, unless entries.stored is F32
/// x = x + (residual[i, j] - zero) * step                       unless null
/// x = activation(x)                                            if entries.stored is F32
/// c[i, j] = output.stored is F32 ? x : q(x)
/// c[i, j] = table[c[i, j]], the byte being unsigned            unless null, or c is F32, or entries.stored is not
/// ```
///
/// where `q` rounds `x * scale` to the nearest integer, ties to even, adds the zero and saturates, NaN giving 0; `a[i, k]` is
/// at `a + i * a_row_stride + k` and `b[k, j]` at `b + (j / 16) * b_panel_stride + (k / 4) * 64 + j % 16 * 4 + k % 4`.
/// Panels are padded with zeros to whole groups of four depths and 16 columns; nothing else beyond these elements is read.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ByteBlock {
    /// Row 0, column 0 of C, whose columns are contiguous.
    pub c: *mut u8,
    /// Distance of two rows of C.
    pub c_row_stride: i64,
    /// Rows of the block.
    pub rows: u64,
    /// Columns of the block.
    pub columns: u64,
    /// The products that are summed.
    pub items: *const ByteItem,
    /// How many items there are; may be 0.
    pub item_count: u64,
    /// Distance of two rows of A.
    pub a_row_stride: i64,
    /// Depth of every item; may be 0.
    pub depth: u64,
    /// Distance of two panels of 16 columns of B.
    pub b_panel_stride: i64,
    /// What is taken from each column, or null.
    pub offset: *const i32,
    /// What is added to each column then, or null.
    pub summand: *const i32,
    /// A factor for all sums.
    pub scale: FloatSlot,
    /// A factor for each column, or null.
    pub column_scale: *const f32,
    /// A summand for each column, or null.
    pub column_bias: *const f32,
    /// The result goes through eight bits before the residual is added.
    pub snap: Quantisation,
    /// An array of the shape of C, or null.
    pub residual: *const u8,
    /// Distance of two rows of the residual.
    pub residual_row_stride: i64,
    /// What the residual stands for.
    pub residual_type: Quantisation,
    /// An [`Activation`] as its number; unknown numbers are [`Activation::None`].
    pub activation: u64,
    /// The parameters of the activation, each in the first four bytes of its slot.
    pub activation_parameters: [FloatSlot; 2],
    /// How C is stored.
    pub output: Quantisation,
    /// What is stored in the place of each byte: 256 of them, or null. Only bytes are looked up.
    pub table: *const u8,
    /// What the entries of the table stand for, if they are looked up before the residual is added. Then snap and output are of
    /// bytes, and neither the table nor the residual is null.
    pub entries: Quantisation,
}

impl Default for ByteBlock {
    /// Nothing: no rows, no columns, null pointers, sums as floats.
    fn default() -> Self {
        ByteBlock {
            c: std::ptr::null_mut(),
            c_row_stride: 0,
            rows: 0,
            columns: 0,
            items: std::ptr::null(),
            item_count: 0,
            a_row_stride: 0,
            depth: 0,
            b_panel_stride: 0,
            offset: std::ptr::null(),
            summand: std::ptr::null(),
            scale: FloatSlot(1.0),
            column_scale: std::ptr::null(),
            column_bias: std::ptr::null(),
            snap: Quantisation::default(),
            residual: std::ptr::null(),
            residual_row_stride: 0,
            residual_type: Quantisation::default(),
            activation: Activation::None as u64,
            activation_parameters: Default::default(),
            output: Quantisation::default(),
            table: std::ptr::null(),
            entries: Quantisation::default(),
        }
    }
}
