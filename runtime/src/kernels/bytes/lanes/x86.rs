//! The sums of AVX2, AVX-512 and AVX-512 VNNI.

use super::{Fours, Pairs, Sums};
use crate::kernels::bytes::table;
use crate::kernels::lanes::{self, avx2::store_half};
use core::arch::x86_64::*;

/// 16 sums for CPUs of [`Level::Avx2`](crate::kernels::Level::Avx2).
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256i, __m256i);

// SAFETY, for every block here: the instruction exists because these types are used in code of their level alone, and
// pointers are as the caller of the method vouches for.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Avx2 {
    /// All bits of the first lanes of both halves.
    #[inline(always)]
    fn mask(count: usize) -> (__m256i, __m256i) {
        unsafe {
            let count = _mm256_set1_epi32(count as i32);
            let low = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let high = _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15);
            (_mm256_cmpgt_epi32(count, low), _mm256_cmpgt_epi32(count, high))
        }
    }
}

#[allow(clippy::undocumented_unsafe_blocks)]
impl Sums for Avx2 {
    type Floats = lanes::Avx2;

    #[inline(always)]
    fn splat(value: i32) -> Self {
        let value = unsafe { _mm256_set1_epi32(value) };
        Avx2(value, value)
    }
    #[inline(always)]
    fn sub(self, offset: Self) -> Self {
        unsafe { Avx2(_mm256_sub_epi32(self.0, offset.0), _mm256_sub_epi32(self.1, offset.1)) }
    }
    #[inline(always)]
    fn to_floats(self) -> lanes::Avx2 {
        unsafe { lanes::Avx2::of(_mm256_cvtepi32_ps(self.0), _mm256_cvtepi32_ps(self.1)) }
    }
    #[inline(always)]
    fn round(floats: lanes::Avx2) -> lanes::Avx2 {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        let (low, high) = floats.halves();
        unsafe { lanes::Avx2::of(_mm256_round_ps::<NEAREST>(low), _mm256_round_ps::<NEAREST>(high)) }
    }
    #[inline(always)]
    fn nearest(floats: lanes::Avx2) -> Self {
        // As floats are rounded: to the nearest, ties to even.
        let (low, high) = floats.halves();
        unsafe { Avx2(_mm256_cvtps_epi32(low), _mm256_cvtps_epi32(high)) }
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        unsafe { Avx2(_mm256_add_epi32(self.0, b.0), _mm256_add_epi32(self.1, b.1)) }
    }
    #[inline(always)]
    fn quarter(self) -> Self {
        unsafe { Avx2(_mm256_srai_epi32::<2>(self.0), _mm256_srai_epi32::<2>(self.1)) }
    }
    #[inline(always)]
    fn add_products(self, unsigned: Self, signed: Self) -> Self {
        // Of every lane the lower half counts: the upper one of an unsigned byte is zero.
        unsafe {
            let low = _mm256_madd_epi16(unsigned.0, signed.0);
            let high = _mm256_madd_epi16(unsigned.1, signed.1);
            self.add(Avx2(low, high))
        }
    }
    #[inline(always)]
    unsafe fn load(from: *const i32, lanes: usize) -> Self {
        let (low, high) = Self::mask(lanes);
        unsafe { Avx2(_mm256_maskload_epi32(from, low), _mm256_maskload_epi32(from.wrapping_add(8), high)) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut i32, lanes: usize) {
        let (low, high) = Self::mask(lanes);
        unsafe {
            store_half(to.cast(), _mm256_castsi256_ps(low), _mm256_castsi256_ps(self.0));
            store_half(to.wrapping_add(8).cast(), _mm256_castsi256_ps(high), _mm256_castsi256_ps(self.1));
        }
    }
    #[inline(always)]
    unsafe fn load_bytes(from: *const u8, lanes: usize, signed: bool) -> Self {
        unsafe {
            let bytes = if lanes == 16 {
                _mm_loadu_si128(from.cast())
            } else {
                let mut bytes = [0u8; 16];
                std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), lanes);
                _mm_loadu_si128(bytes.as_ptr().cast())
            };
            let high = _mm_unpackhi_epi64(bytes, bytes);
            if signed {
                Avx2(_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(high))
            } else {
                Avx2(_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(high))
            }
        }
    }
    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut u8, lanes: usize) {
        unsafe {
            // Packing goes by 128 bits, so that four bytes of each half follow each other in those.
            let words = _mm256_and_si256(_mm256_packs_epi32(self.0, self.1), _mm256_set1_epi16(0xff));
            let order = _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5);
            let packed = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(words, words), order);
            let bytes = _mm256_castsi256_si128(packed);
            if lanes == 16 {
                _mm_storeu_si128(to.cast(), bytes);
            } else {
                let mut memory = [0u8; 16];
                _mm_storeu_si128(memory.as_mut_ptr().cast(), bytes);
                std::ptr::copy_nonoverlapping(memory.as_ptr(), to, lanes);
            }
        }
    }
}

/// Sums of four columns for CPUs of [`Level::Avx2`](crate::kernels::Level::Avx2).
#[derive(Clone, Copy)]
pub(crate) struct PairsOfAvx2(__m256i);

#[allow(clippy::undocumented_unsafe_blocks)]
impl Pairs for PairsOfAvx2 {
    const COLUMNS: usize = 4;
    type Numbers = __m256i;

    #[inline(always)]
    fn zero() -> Self {
        PairsOfAvx2(unsafe { _mm256_setzero_si256() })
    }
    #[inline(always)]
    fn zeros() -> __m256i {
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    unsafe fn panel(from: *const i8) -> __m256i {
        unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(from.cast())) }
    }
    #[inline(always)]
    unsafe fn unsigned(from: *const u8) -> __m256i {
        unsafe { _mm256_cvtepu8_epi16(_mm_loadu_si128(from.cast())) }
    }
    #[inline(always)]
    unsafe fn numbers(from: *const i16) -> __m256i {
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store(numbers: __m256i, to: *mut i16) {
        unsafe { _mm256_storeu_si256(to.cast(), numbers) }
    }
    #[inline(always)]
    fn plus(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_add_epi16(a, b) }
    }
    #[inline(always)]
    fn minus(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_sub_epi16(a, b) }
    }
    #[inline(always)]
    unsafe fn factor(from: *const i16) -> __m256i {
        unsafe { _mm256_set1_epi64x(from.cast::<i64>().read_unaligned()) }
    }
    #[inline(always)]
    fn dot(self, factor: __m256i, panel: __m256i) -> Self {
        PairsOfAvx2(unsafe { _mm256_add_epi32(self.0, _mm256_madd_epi16(factor, panel)) })
    }
    #[inline(always)]
    unsafe fn add_to(sums: *mut i32, [low, high]: [Self; 2], are_first: bool) {
        unsafe {
            // Of every 128 bits, two columns of the first and two of the second.
            let mut added = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(low.0, high.0));
            if !are_first {
                added = _mm256_add_epi32(_mm256_loadu_si256(sums.cast()), added);
            }
            _mm256_storeu_si256(sums.cast(), added);
        }
    }
}

/// What both AVX-512 types do alike.
macro_rules! avx512 {
    ($name:ident, $add_products:expr) => {
        // SAFETY, for every block here: as above.
        #[allow(clippy::undocumented_unsafe_blocks)]
        impl Sums for $name {
            type Floats = lanes::Avx512;
            const HAS_MANY_REGISTERS: bool = true;

            #[inline(always)]
            fn splat(value: i32) -> Self {
                $name(unsafe { _mm512_set1_epi32(value) })
            }
            #[inline(always)]
            fn sub(self, offset: Self) -> Self {
                $name(unsafe { _mm512_sub_epi32(self.0, offset.0) })
            }
            #[inline(always)]
            fn to_floats(self) -> lanes::Avx512 {
                lanes::Avx512::of(unsafe { _mm512_cvtepi32_ps(self.0) })
            }
            #[inline(always)]
            fn round(floats: lanes::Avx512) -> lanes::Avx512 {
                // Nearest, ties to even, no exception.
                lanes::Avx512::of(unsafe { _mm512_roundscale_ps::<0x08>(floats.register()) })
            }
            #[inline(always)]
            fn nearest(floats: lanes::Avx512) -> Self {
                const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
                $name(unsafe { _mm512_cvt_roundps_epi32::<NEAREST>(floats.register()) })
            }
            #[inline(always)]
            fn add(self, b: Self) -> Self {
                $name(unsafe { _mm512_add_epi32(self.0, b.0) })
            }
            #[inline(always)]
            fn quarter(self) -> Self {
                $name(unsafe { _mm512_srai_epi32::<2>(self.0) })
            }
            #[inline(always)]
            fn add_products(self, unsigned: Self, signed: Self) -> Self {
                // Of every lane the lower half counts: the upper one of an unsigned byte is zero.
                $name(unsafe { $add_products(self.0, unsigned.0, signed.0) })
            }
            #[inline(always)]
            unsafe fn load(from: *const i32, lanes: usize) -> Self {
                $name(unsafe { _mm512_maskz_loadu_epi32(mask(lanes), from) })
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut i32, lanes: usize) {
                unsafe { _mm512_mask_storeu_epi32(to, mask(lanes), self.0) }
            }
            #[inline(always)]
            unsafe fn load_bytes(from: *const u8, lanes: usize, signed: bool) -> Self {
                unsafe {
                    let bytes = _mm_maskz_loadu_epi8(mask(lanes), from.cast());
                    $name(if signed { _mm512_cvtepi8_epi32(bytes) } else { _mm512_cvtepu8_epi32(bytes) })
                }
            }
            #[inline(always)]
            unsafe fn store_bytes(self, to: *mut u8, lanes: usize) {
                unsafe {
                    let bytes = _mm512_cvtepi32_epi8(self.0);
                    if lanes == 16 {
                        _mm_storeu_si128(to.cast(), bytes);
                    } else {
                        _mm_mask_storeu_epi8(to.cast(), mask(lanes), bytes);
                    }
                }
            }
            #[inline(always)]
            unsafe fn store_codes<const COUNT: usize>(codes: [Self; COUNT], to: *mut u8, lanes: usize, signed: bool) {
                if COUNT == 4 && lanes == 16 {
                    unsafe {
                        let low = _mm512_packs_epi32(codes[0].0, codes[1].0);
                        let high = _mm512_packs_epi32(codes[2].0, codes[3].0);
                        let together =
                            if signed { _mm512_packs_epi16(low, high) } else { _mm512_packus_epi16(low, high) };
                        // Packing goes by 128 bits, so that four bytes of each of the four follow each other in those.
                        let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
                        _mm512_storeu_si512(to.cast(), _mm512_permutexvar_epi32(order, together));
                    }
                    return;
                }
                for (index, codes) in codes.iter().enumerate() {
                    unsafe { codes.store_bytes(to.add(index * 16), lanes) };
                }
            }
            #[inline(always)]
            unsafe fn look_up(table: *const u8, bytes: *mut u8, count: usize) {
                unsafe { table::together(table, bytes, count) }
            }
        }
    };
}

#[inline(always)]
fn mask(lanes: usize) -> __mmask16 {
    ((1u32 << lanes) - 1) as u16
}

/// 16 sums for CPUs of [`Level::Avx512`](crate::kernels::Level::Avx512).
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512i);

avx512!(Avx512, add_pairs);

/// The sums plus the products of pairs of 16-bit numbers.
///
/// # Safety
/// The CPU has AVX-512 BW.
#[inline(always)]
unsafe fn add_pairs(sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: the caller vouches for the CPU.
    unsafe { _mm512_add_epi32(sums, _mm512_madd_epi16(a, b)) }
}

/// Sums of eight columns for CPUs of [`Level::Avx512`](crate::kernels::Level::Avx512).
#[derive(Clone, Copy)]
pub(crate) struct PairsOfAvx512(__m512i);

#[allow(clippy::undocumented_unsafe_blocks)]
impl Pairs for PairsOfAvx512 {
    const COLUMNS: usize = 8;
    type Numbers = __m512i;

    #[inline(always)]
    fn zero() -> Self {
        PairsOfAvx512(unsafe { _mm512_setzero_si512() })
    }
    #[inline(always)]
    fn zeros() -> __m512i {
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    unsafe fn panel(from: *const i8) -> __m512i {
        unsafe { _mm512_cvtepi8_epi16(_mm256_loadu_si256(from.cast())) }
    }
    #[inline(always)]
    unsafe fn unsigned(from: *const u8) -> __m512i {
        unsafe { _mm512_cvtepu8_epi16(_mm256_loadu_si256(from.cast())) }
    }
    #[inline(always)]
    unsafe fn numbers(from: *const i16) -> __m512i {
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store(numbers: __m512i, to: *mut i16) {
        unsafe { _mm512_storeu_si512(to.cast(), numbers) }
    }
    #[inline(always)]
    fn plus(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_add_epi16(a, b) }
    }
    #[inline(always)]
    fn minus(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_sub_epi16(a, b) }
    }
    #[inline(always)]
    unsafe fn factor(from: *const i16) -> __m512i {
        unsafe { _mm512_set1_epi64(from.cast::<i64>().read_unaligned()) }
    }
    #[inline(always)]
    fn dot(self, factor: __m512i, panel: __m512i) -> Self {
        PairsOfAvx512(unsafe { _mm512_add_epi32(self.0, _mm512_madd_epi16(factor, panel)) })
    }
    #[inline(always)]
    unsafe fn add_to(sums: *mut i32, [low, high]: [Self; 2], are_first: bool) {
        unsafe {
            let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
            let first = _mm512_permutex2var_epi32(low.0, even, high.0);
            let mut added = _mm512_add_epi32(first, _mm512_permutex2var_epi32(low.0, odd, high.0));
            if !are_first {
                added = _mm512_add_epi32(_mm512_loadu_si512(sums.cast()), added);
            }
            _mm512_storeu_si512(sums.cast(), added);
        }
    }
}

/// 16 sums for CPUs of [`Level::Avx512`](crate::kernels::Level::Avx512) with dot products of bytes (VNNI).
#[derive(Clone, Copy)]
pub(crate) struct Vnni(__m512i);

avx512!(Vnni, _mm512_dpwssd_epi32);

#[allow(clippy::undocumented_unsafe_blocks)]
impl Fours for Vnni {
    type Panel = __m512i;
    type Factor = __m512i;

    #[inline(always)]
    unsafe fn panel(from: *const i8) -> __m512i {
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    fn factor(bytes: u32) -> __m512i {
        unsafe { _mm512_set1_epi32(bytes as i32) }
    }
    #[inline(always)]
    fn dot(self, factor: __m512i, panel: __m512i) -> Self {
        Vnni(unsafe { _mm512_dpbusd_epi32(self.0, factor, panel) })
    }
}
