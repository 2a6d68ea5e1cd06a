//! What a call of the GEMM kernel computes, as generated code fills it in.

/// One product of a batch-reduce list.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct GemmItem {
    /// Row 0, depth 0 of A.
    pub a: *const f32,
    /// Depth 0, column 0 of B.
    pub b: *const f32,
}

/// One block of C and all that goes into it. Every field has 8 bytes and starts at a multiple of 8 (take offsets with
/// `core::mem::offset_of!`); strides are in elements.
///
/// For row `i < rows` and column `j < columns`, with `fma` rounding once and every other operation on its own:
///
/// ```text
/// x = start[i, j]                            +0 if null
/// for item in items: for k in 0..depth: x = fma(a[i, k], b[k, j], x)
/// x = x * scale                              unless 1
/// x = x * column_scale[j]                    unless null
/// x = x + residual[i, j]                     unless null, if residual_place is BeforeBias
/// x = x + column_bias[j]                     unless null
/// x = x + residual[i, j]                     unless null, if residual_place is BeforeActivation
/// x = activation(x)
/// x = x + residual[i, j]                     unless null, if residual_place is AfterActivation
/// c[i, j] = x
/// ```
///
/// where `a[i, k]` is at `a + i * a_row_stride + k * a_depth_stride` and `b[k, j]` at
/// `b + (j / 16) * b_panel_stride + k * b_depth_stride + j % 16`, where elements of B are bf16 if `b_is_bf16`, which wants whole
/// panels. Packed panels have a depth stride of 16 and a panel
/// stride of `16 * depth`; a row-major B in place has its row stride and 16. Nothing beyond these elements is read.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct GemmBlock {
    /// Row 0, column 0 of C, whose columns are contiguous.
    pub c: *mut f32,
    /// Distance of two rows of C.
    pub c_row_stride: i64,
    /// Rows of the block.
    pub rows: u64,
    /// Columns of the block.
    pub columns: u64,
    /// The products that are summed, in order.
    pub items: *const GemmItem,
    /// How many items there are; may be 0.
    pub item_count: u64,
    /// Distance of two rows of A.
    pub a_row_stride: i64,
    /// Distance of two depths of A.
    pub a_depth_stride: i64,
    /// Depth of every item; may be 0.
    pub depth: u64,
    /// Distance of two depths of B.
    pub b_depth_stride: i64,
    /// Distance of two panels of 16 columns of B.
    pub b_panel_stride: i64,
    /// An array of the shape of C whose chains are continued, or null; may be C itself.
    pub start: *const f32,
    /// Distance of two rows of what is continued.
    pub start_row_stride: i64,
    /// A factor for all sums.
    pub scale: FloatSlot,
    /// A factor for each column, or null.
    pub column_scale: *const f32,
    /// A summand for each column, or null.
    pub column_bias: *const f32,
    /// An array of the shape of C, or null; may be C itself.
    pub residual: *const f32,
    /// Distance of two rows of the residual.
    pub residual_row_stride: i64,
    /// A [`ResidualPlace`] as its number.
    pub residual_place: u64,
    /// An [`Activation`] as its number; unknown numbers are [`Activation::None`].
    pub activation: u64,
    /// The parameters of the activation, each in the first four bytes of its slot.
    pub activation_parameters: [FloatSlot; 2],
    /// Not 0: elements of B are bf16, in whole panels.
    pub b_is_bf16: u64,
    /// Memory for rows of A as products of bf16 round them, or null: with it they are rounded once for all columns. It begins where a
    /// cache line does.
    pub memory: *mut u32,
    /// How many words of 32 bits it has.
    pub memory_words: u64,
}

impl Default for GemmBlock {
    /// Nothing: no rows, no columns, null pointers, no epilogue (a scale of 1).
    fn default() -> Self {
        GemmBlock {
            c: std::ptr::null_mut(),
            c_row_stride: 0,
            rows: 0,
            columns: 0,
            items: std::ptr::null(),
            item_count: 0,
            a_row_stride: 0,
            a_depth_stride: 0,
            depth: 0,
            b_depth_stride: 0,
            b_panel_stride: 0,
            start: std::ptr::null(),
            start_row_stride: 0,
            scale: FloatSlot(1.0),
            column_scale: std::ptr::null(),
            column_bias: std::ptr::null(),
            residual: std::ptr::null(),
            residual_row_stride: 0,
            residual_place: 0,
            activation: Activation::None as u64,
            activation_parameters: Default::default(),
            b_is_bf16: 0,
            memory: std::ptr::null_mut(),
            memory_words: 0,
        }
    }
}

impl GemmBlock {
    /// The part of the block from a row and a column on, whose items and number of rows are still those of the whole.
    #[inline(always)]
    pub(crate) fn within(&self, row: usize, column: usize) -> GemmBlock {
        let place = |stride: i64| row as isize * stride as isize + column as isize;
        let vector = |vector: *const f32| if vector.is_null() { vector } else { vector.wrapping_add(column) };
        let array =
            |array: *const f32, stride: i64| if array.is_null() { array } else { array.wrapping_offset(place(stride)) };
        GemmBlock {
            c: self.c.wrapping_offset(place(self.c_row_stride)),
            columns: self.columns - column as u64,
            start: array(self.start, self.start_row_stride),
            column_scale: vector(self.column_scale),
            column_bias: vector(self.column_bias),
            residual: array(self.residual, self.residual_row_stride),
            ..*self
        }
    }

    /// The block with its sums left elsewhere, for a later part of the depths to continue.
    #[inline(always)]
    pub(crate) fn without_epilogue(&self, sums: *mut f32, stride: i64) -> GemmBlock {
        GemmBlock {
            c: sums,
            c_row_stride: stride,
            scale: FloatSlot(1.0),
            column_scale: std::ptr::null(),
            column_bias: std::ptr::null(),
            residual: std::ptr::null(),
            residual_place: 0,
            activation: Activation::None as u64,
            ..*self
        }
    }
}

/// An f32 in an 8-byte slot.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default)]
pub struct FloatSlot(pub f32);

/// Where in the epilogue the residual is added.
#[repr(u64)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResidualPlace {
    /// Last.
    AfterActivation = 0,
    /// After the bias.
    BeforeActivation = 1,
    /// After the scales.
    BeforeBias = 2,
}

/// The closed set of activations a tile applies; parameters are `p0` and `p1`.
#[repr(u64)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x`
    None = 0,
    /// `max(x, 0)`
    Relu = 1,
    /// `min(max(x, p0), p1)`
    Clip = 2,
    /// `x < 0 ? p0 * x : x`
    LeakyRelu = 3,
    /// `x * max(0, min(1, x / 6 + 1/2))`
    HardSwish = 4,
    /// `1 / (1 + exp(-x))`
    Sigmoid = 5,
    /// The hyperbolic tangent.
    Tanh = 6,
    /// `x / (1 + exp(-x))`
    Silu = 7,
    /// `x` times the normal distribution function of `x`: the GELU with `erf`.
    Gelu = 8,
    /// The GELU approximated with `tanh`.
    GeluTanh = 9,
}

impl Activation {
    /// Activations up to this one are a few instructions long.
    pub(super) const LAST_SHORT: Activation = Activation::HardSwish;

    /// Every activation.
    pub const ALL: [Activation; 10] = [
        Activation::None,
        Activation::Relu,
        Activation::Clip,
        Activation::LeakyRelu,
        Activation::HardSwish,
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Silu,
        Activation::Gelu,
        Activation::GeluTanh,
    ];
}
