//! The kernel table: how generated code reaches the kernels.
//!
//! Generated code holds no addresses. It gets a pointer to a [`KernelTable`] in its context argument, loads the function
//! pointer at [`Function::offset`] and calls it with the platform's C ABI and the signature [`Function::parameters`] and
//! [`Function::result`] give. One list below declares the table, its three instances and what code generators know of it.

use std::fmt;

use super::attention::{self, AttentionBlock};
use super::bf16;
use super::book::{self, BookBlock};
use super::bytes::{self, ByteBlock, ByteFilter, ByteWindow};
use super::depthwise::{self, DepthwiseBlock};
use super::fma;
use super::gemm::{self, GemmBlock};
use super::grouped;
use super::level::Level;
use super::pack;
use super::pooling;
use super::rows;
use super::scalar64;
use super::strips;
use super::window::Window;

/// How a parameter or result of a kernel is passed by the C ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Parameter {
    /// A pointer or a 64-bit integer.
    Word,
    /// A 32-bit float.
    F32,
    /// A 64-bit float.
    F64,
}

/// The parameter class of a Rust type, so that the list below states each signature once.
trait Passed {
    const CLASS: Parameter;
}

impl<T> Passed for *const T {
    const CLASS: Parameter = Parameter::Word;
}
impl<T> Passed for *mut T {
    const CLASS: Parameter = Parameter::Word;
}
impl Passed for u64 {
    const CLASS: Parameter = Parameter::Word;
}
impl Passed for i64 {
    const CLASS: Parameter = Parameter::Word;
}
impl Passed for f32 {
    const CLASS: Parameter = Parameter::F32;
}
impl Passed for f64 {
    const CLASS: Parameter = Parameter::F64;
}

macro_rules! result_class {
    () => {
        None
    };
    ($result:ty) => {
        Some(<$result as Passed>::CLASS)
    };
}

/// `levels` entries name a module with functions `portable`, `avx2` and `avx512` (see `per_level!`); `shared` entries
/// name one function that serves every level.
macro_rules! kernel_table {
    (
        shared { $(
            $(#[$shared_doc:meta])*
            $shared:ident, $Shared:ident: fn($($shared_type:ty),*) $(-> $shared_result:ty)? = $($shared_path:ident)::+;
        )* }
        levels { $(
            $(#[$doc:meta])*
            $name:ident, $Name:ident: fn($($type:ty),*) $(-> $result:ty)? = $($path:ident)::+;
        )* }
    ) => {
        /// The kernels of one level. Every function documents what its pointers must satisfy in its own module.
        #[repr(C)]
        #[derive(Debug)]
        pub struct KernelTable {
            $( $(#[$shared_doc])* pub $shared: unsafe extern "C" fn($($shared_type),*) $(-> $shared_result)?, )*
            $( $(#[$doc])* pub $name: unsafe extern "C" fn($($type),*) $(-> $result)?, )*
        }

        /// An entry of the table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Function {
            $( $(#[$shared_doc])* $Shared, )*
            $( $(#[$doc])* $Name, )*
        }

        impl Function {
            /// Every entry, in table order.
            pub const ALL: &'static [Function] = &[$(Function::$Shared,)* $(Function::$Name,)*];

            /// The offset of the function pointer in a [`KernelTable`], in bytes.
            pub const fn offset(self) -> usize {
                match self {
                    $( Function::$Shared => core::mem::offset_of!(KernelTable, $shared), )*
                    $( Function::$Name => core::mem::offset_of!(KernelTable, $name), )*
                }
            }

            /// The name of the entry.
            pub const fn name(self) -> &'static str {
                match self {
                    $( Function::$Shared => stringify!($shared), )*
                    $( Function::$Name => stringify!($name), )*
                }
            }

            /// How the arguments are passed, in order.
            pub const fn parameters(self) -> &'static [Parameter] {
                match self {
                    $( Function::$Shared => &[$(<$shared_type as Passed>::CLASS),*], )*
                    $( Function::$Name => &[$(<$type as Passed>::CLASS),*], )*
                }
            }

            /// How the result is passed, if there is one.
            pub const fn result(self) -> Option<Parameter> {
                match self {
                    $( Function::$Shared => result_class!($($shared_result)?), )*
                    $( Function::$Name => result_class!($($result)?), )*
                }
            }
        }

        impl KernelTable {
            const PORTABLE: KernelTable =
                KernelTable { $( $shared: $($shared_path)::+, )* $( $name: $($path)::+::portable, )* };
            #[cfg(target_arch = "x86_64")]
            const AVX2: KernelTable =
                KernelTable { $( $shared: $($shared_path)::+, )* $( $name: $($path)::+::avx2, )* };
            #[cfg(target_arch = "x86_64")]
            const AVX512: KernelTable =
                KernelTable { $( $shared: $($shared_path)::+, )* $( $name: $($path)::+::avx512, )* };
        }
    };
}

kernel_table! {
    shared {
        /// `a * b + c` with one rounding, f32.
        fma_f32, FmaF32: fn(f32, f32, f32) -> f32 = fma::fma_f32;
        /// `a * b + c` with one rounding, f64.
        fma_f64, FmaF64: fn(f64, f64, f64) -> f64 = fma::fma_f64;
        /// A function of one f64, by the number of its [`scalar64::Scalar64`].
        unary64, Unary64: fn(u64, f64) -> f64 = scalar64::unary64;
        /// The power of two f64.
        power64, Power64: fn(f64, f64) -> f64 = scalar64::power64;
        /// What truncating division of two f64 leaves.
        remainder64, Remainder64: fn(f64, f64) -> f64 = scalar64::remainder64;
        /// An integer power.
        power_integer, PowerInteger: fn(i64, i64, u64) -> i64 = scalar64::power_integer;
    }
    levels {
        /// One block of a matrix product, [`GemmBlock`].
        gemm_f32, GemmF32: fn(*const GemmBlock) = gemm::gemm_f32;
        /// One block of a matrix product in bf16, [`bf16`].
        gemm_bf16, GemmBf16: fn(*const GemmBlock) = bf16::gemm_bf16;
        /// One block of a matrix product with weights of four bits, [`BookBlock`].
        gemm_book, GemmBook: fn(*const BookBlock) = book::gemm_book;
        /// One block of a matrix product of bytes, [`ByteBlock`].
        gemm_bytes, GemmBytes: fn(*const ByteBlock) = bytes::gemm_bytes;
        /// `(source, k_stride, n_stride, depth, columns, packed)`: the panels of a matrix, [`pack`].
        pack_b, PackB: fn(*const f32, i64, i64, u64, u64, *mut f32) = pack::pack_b;
        /// Some query rows of one attention head, [`AttentionBlock`].
        attention_f32, AttentionF32: fn(*const AttentionBlock) = attention::attention_f32;
        /// `(block, packed)`: the keys and values of a head, for several blocks to share; [`AttentionBlock::packed`].
        attention_pack, AttentionPack: fn(*const AttentionBlock, *mut f32) = attention::attention_pack;
        /// Strip `(dst, src, count)`: `e^x`
        exp_f32, ExpF32: fn(*mut f32, *const f32, u64) = strips::exp_f32;
        /// Strip `(dst, src, count)`: `e^x - 1`
        expm1_f32, Expm1F32: fn(*mut f32, *const f32, u64) = strips::expm1_f32;
        /// Strip `(dst, src, count)`: The natural logarithm.
        log_f32, LogF32: fn(*mut f32, *const f32, u64) = strips::log_f32;
        /// Strip `(dst, src, count)`: `ln(1 + x)`
        log1p_f32, Log1pF32: fn(*mut f32, *const f32, u64) = strips::log1p_f32;
        /// Strip `(dst, src, count)`: The hyperbolic tangent.
        tanh_f32, TanhF32: fn(*mut f32, *const f32, u64) = strips::tanh_f32;
        /// Strip `(dst, src, count)`: The error function.
        erf_f32, ErfF32: fn(*mut f32, *const f32, u64) = strips::erf_f32;
        /// Strip `(dst, src, count)`: `1 / (1 + e^-x)`
        sigmoid_f32, SigmoidF32: fn(*mut f32, *const f32, u64) = strips::sigmoid_f32;
        /// Strip `(dst, src, count)`: `x` times the normal distribution function.
        gelu_f32, GeluF32: fn(*mut f32, *const f32, u64) = strips::gelu_f32;
        /// Strip `(dst, src, count)`: The approximation of GELU by `tanh`.
        gelu_tanh_f32, GeluTanhF32: fn(*mut f32, *const f32, u64) = strips::gelu_tanh_f32;
        /// Strip `(dst, src, count)`: `x sigmoid(x)`
        silu_f32, SiluF32: fn(*mut f32, *const f32, u64) = strips::silu_f32;
        /// Strip `(dst, src, count)`: `ln(1 + e^x)`
        softplus_f32, SoftplusF32: fn(*mut f32, *const f32, u64) = strips::softplus_f32;
        /// Strip `(dst, src, count)`: `x tanh(softplus(x))`
        mish_f32, MishF32: fn(*mut f32, *const f32, u64) = strips::mish_f32;
        /// Strip `(dst, src, count, slope)`: `x < 0 ? slope (e^x - 1) : x`
        elu_f32, EluF32: fn(*mut f32, *const f32, u64, f32) = strips::elu_f32;
        /// Strip `(dst, src, count)`: The sine.
        sin_f32, SinF32: fn(*mut f32, *const f32, u64) = strips::sin_f32;
        /// Strip `(dst, src, count)`: The cosine.
        cos_f32, CosF32: fn(*mut f32, *const f32, u64) = strips::cos_f32;
        /// Strip `(dst, src, count)`: `max(x, 0)`
        relu_f32, ReluF32: fn(*mut f32, *const f32, u64) = strips::relu_f32;
        /// Strip `(dst, src, count, slope)`: `x < 0 ? slope x : x`
        leaky_relu_f32, LeakyReluF32: fn(*mut f32, *const f32, u64, f32) = strips::leaky_relu_f32;
        /// Strip `(dst, src, count, low, high)`: `min(max(x, low), high)`
        clip_f32, ClipF32: fn(*mut f32, *const f32, u64, f32, f32) = strips::clip_f32;
        /// Strip `(dst, src, count, slope, offset)`: `max(0, min(1, slope x + offset))`
        hard_sigmoid_f32, HardSigmoidF32: fn(*mut f32, *const f32, u64, f32, f32) = strips::hard_sigmoid_f32;
        /// Strip `(dst, src, count)`: `x max(0, min(1, x / 6 + 1/2))`, with the product by the rounded 1/6.
        hard_swish_f32, HardSwishF32: fn(*mut f32, *const f32, u64) = strips::hard_swish_f32;
        /// Strip `(dst, src, count, scale, shift)`: `scale x + shift`, rounded twice.
        scale_shift_f32, ScaleShiftF32: fn(*mut f32, *const f32, u64, f32, f32) = strips::scale_shift_f32;
        /// Strip `(dst, src, count)`: `-x`
        neg_f32, NegF32: fn(*mut f32, *const f32, u64) = strips::neg_f32;
        /// Strip `(dst, src, count)`: `|x|`
        abs_f32, AbsF32: fn(*mut f32, *const f32, u64) = strips::abs_f32;
        /// Strip `(dst, src, count)`: The square root.
        sqrt_f32, SqrtF32: fn(*mut f32, *const f32, u64) = strips::sqrt_f32;
        /// Strip `(dst, a, b, count, a_step, b_step)`: `a + b`.
        add_f32, AddF32: fn(*mut f32, *const f32, *const f32, u64, u64, u64) = strips::add_f32;
        /// Strip `(dst, a, b, count, a_step, b_step)`: `a - b`.
        sub_f32, SubF32: fn(*mut f32, *const f32, *const f32, u64, u64, u64) = strips::sub_f32;
        /// Strip `(dst, a, b, count, a_step, b_step)`: `a b`.
        mul_f32, MulF32: fn(*mut f32, *const f32, *const f32, u64, u64, u64) = strips::mul_f32;
        /// Strip `(dst, a, b, count, a_step, b_step)`: `a / b`.
        div_f32, DivF32: fn(*mut f32, *const f32, *const f32, u64, u64, u64) = strips::div_f32;
        /// Strip `(dst, a, b, count, a_step, b_step)`: The greater of both, NaN if either is NaN; -0 is less than +0.
        max_f32, MaxF32: fn(*mut f32, *const f32, *const f32, u64, u64, u64) = strips::max_f32;
        /// Strip `(dst, a, b, count, a_step, b_step)`: The lesser of both, NaN if either is NaN; -0 is less than +0.
        min_f32, MinF32: fn(*mut f32, *const f32, *const f32, u64, u64, u64) = strips::min_f32;
        /// Strip `(dst, a, b, count, a_step, b_step)`: `a^b`.
        pow_f32, PowF32: fn(*mut f32, *const f32, *const f32, u64, u64, u64) = strips::pow_f32;
        /// The sum of a row `(src, count)`.
        sum_row_f32, SumRowF32: fn(*const f32, u64) -> f32 = rows::sum_row_f32;
        /// The product of a row `(src, count)`.
        product_row_f32, ProductRowF32: fn(*const f32, u64) -> f32 = rows::product_row_f32;
        /// The greatest element of a row `(src, count)`.
        max_row_f32, MaxRowF32: fn(*const f32, u64) -> f32 = rows::max_row_f32;
        /// The least element of a row `(src, count)`.
        min_row_f32, MinRowF32: fn(*const f32, u64) -> f32 = rows::min_row_f32;
        /// The sum of squares of a row `(src, count)`.
        squares_row_f32, SquaresRowF32: fn(*const f32, u64) -> f32 = rows::squares_row_f32;
        /// The sum of squares of distances from the mean `(src, count, mean)`.
        centred_squares_row_f32, CentredSquaresRowF32: fn(*const f32, u64, f32) -> f32 = rows::centred_squares_row_f32;
        /// Softmax of a row `(dst, src, count)`.
        softmax_row_f32, SoftmaxRowF32: fn(*mut f32, *const f32, u64) = rows::softmax_row_f32;
        /// The logarithm of softmax of a row `(dst, src, count)`.
        log_softmax_row_f32, LogSoftmaxRowF32: fn(*mut f32, *const f32, u64) = rows::log_softmax_row_f32;
        /// Layer normalisation of a row `(dst, src, gain or null, bias or null, count, epsilon)`.
        layer_norm_row_f32, LayerNormRowF32: fn(*mut f32, *const f32, *const f32, *const f32, u64, f32) =
            rows::layer_norm_row_f32;
        /// Layer normalisation of a sum `(dst, sum or null, a, b, gain or null, bias or null, count, epsilon)`.
        layer_norm_row_residual_f32, LayerNormRowResidualF32:
            fn(*mut f32, *mut f32, *const f32, *const f32, *const f32, *const f32, u64, f32) =
            rows::layer_norm_row_residual_f32;
        /// Root-mean-square normalisation of a row `(dst, src, gain or null, count, epsilon)`.
        rms_norm_row_f32, RmsNormRowF32: fn(*mut f32, *const f32, *const f32, u64, f32) = rows::rms_norm_row_f32;
        /// Root-mean-square normalisation of a sum `(dst, sum or null, a, b, gain or null, count, epsilon)`.
        rms_norm_row_residual_f32, RmsNormRowResidualF32:
            fn(*mut f32, *mut f32, *const f32, *const f32, *const f32, u64, f32) = rows::rms_norm_row_residual_f32;
        /// A segment of a row of a depthwise convolution, [`DepthwiseBlock`].
        depthwise_f32, DepthwiseF32: fn(*const DepthwiseBlock) = depthwise::depthwise_f32;
        /// The maximum over windows, [`Window`].
        max_pool_f32, MaxPoolF32: fn(*const Window) = pooling::max_pool_f32;
        /// The sum over windows, [`Window`].
        sum_pool_f32, SumPoolF32: fn(*const Window) = pooling::sum_pool_f32;
        /// Normalisation of sixteen rows side by side, in place `(block, count, epsilon, whether the mean is subtracted)`.
        normalise_columns_f32, NormaliseColumnsF32: fn(*mut f32, u64, f32, u64) = rows::normalise_columns_f32;
        /// Softmax of sixteen rows side by side, in place `(block, count, whether its logarithm)`.
        softmax_columns_f32, SoftmaxColumnsF32: fn(*mut f32, u64, u64) = rows::softmax_columns_f32;
        /// A segment of a depthwise convolution of bytes, [`ByteWindow`].
        depthwise_bytes, DepthwiseBytes: fn(*const ByteWindow) = bytes::depthwise_bytes;
        /// A segment of a row of a convolution in groups of few channels, [`DepthwiseBlock`] `(block, members of a group)`.
        grouped_f32, GroupedF32: fn(*const DepthwiseBlock, u64) = grouped::grouped_f32;
        /// Lines of a convolution of bytes with three by three taps, [`ByteFilter`].
        filter_bytes, FilterBytes: fn(*const ByteFilter) = bytes::filter_bytes;
    }
}

impl KernelTable {
    /// The table of a level. Calling its functions on a machine without that level is undefined behaviour:
    /// see [`Level::is_available`]. Where a level cannot exist (not x86-64) it is the portable table, whose bits are equal.
    pub fn for_level(level: Level) -> &'static KernelTable {
        match level {
            Level::Portable => &KernelTable::PORTABLE,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => &KernelTable::AVX2,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => &KernelTable::AVX512,
            #[cfg(not(target_arch = "x86_64"))]
            Level::Avx2 | Level::Avx512 => &KernelTable::PORTABLE,
        }
    }
}

impl fmt::Display for Function {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_one_pointer_apart_in_order() {
        for (index, function) in Function::ALL.iter().enumerate() {
            assert_eq!(function.offset(), index * size_of::<usize>(), "{function}");
        }
        assert_eq!(size_of::<KernelTable>(), Function::ALL.len() * size_of::<usize>());
    }

    #[test]
    fn signatures_are_what_the_list_says() {
        assert_eq!(Function::FmaF32.parameters(), [Parameter::F32; 3]);
        assert_eq!(Function::FmaF64.result(), Some(Parameter::F64));
    }
}
