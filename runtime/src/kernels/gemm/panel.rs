//! A panel: 16 neighbouring columns held in registers, the unit in which tiles are made.
//!
//! One `zmm` register, two `ymm` registers, or an array that LLVM vectorises. Every operation is one instruction or two;
//! all implementations give the same bits (NaN payloads are exempt).

use crate::kernels::fma::fma;

/// The columns of a panel.
pub const WIDTH: usize = 16;

/// 16 f32 lanes. Implementations for x86 levels may only be used in code compiled for that level.
///
/// # Safety
/// An implementer's operations may assume its level; callers of the pointer operations pass valid pointers, which need
/// no alignment.
pub(crate) trait Panel: Copy {
    /// Which lanes of a last, incomplete panel exist.
    type Mask: Copy;

    /// The mask of the first `lanes` lanes, `1..=16`.
    fn mask(lanes: usize) -> Self::Mask;
    fn splat(value: f32) -> Self;
    /// # Safety
    /// 16 elements can be read.
    unsafe fn load(from: *const f32) -> Self;
    /// Lanes outside the mask are zero and not touched in memory.
    /// # Safety
    /// The elements in the mask can be read.
    unsafe fn load_masked(from: *const f32, mask: Self::Mask) -> Self;
    /// # Safety
    /// 16 elements can be written.
    unsafe fn store(self, to: *mut f32);
    /// # Safety
    /// The elements in the mask can be written.
    unsafe fn store_masked(self, to: *mut f32, mask: Self::Mask);
    /// `self * b + c` with one rounding.
    fn fma(self, b: Self, c: Self) -> Self;
    fn add(self, b: Self) -> Self;
    fn mul(self, b: Self) -> Self;
    /// NaN if either is NaN; -0 is less than +0.
    fn max(self, b: Self) -> Self;
    /// NaN if either is NaN; -0 is less than +0.
    fn min(self, b: Self) -> Self;
    /// `self` where it is at least zero or NaN, else `b`.
    fn unless_negative(self, b: Self) -> Self;
}

/// For any CPU.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; WIDTH]);

impl Portable {
    #[inline(always)]
    fn zip(self, b: Self, combine: impl Fn(f32, f32) -> f32) -> Self {
        Portable(std::array::from_fn(|lane| combine(self.0[lane], b.0[lane])))
    }
}

impl Panel for Portable {
    type Mask = usize;

    #[inline(always)]
    fn mask(lanes: usize) -> usize {
        lanes
    }
    #[inline(always)]
    fn splat(value: f32) -> Self {
        Portable([value; WIDTH])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for 16 readable elements.
        Portable(unsafe { from.cast::<[f32; WIDTH]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_masked(from: *const f32, lanes: usize) -> Self {
        if lanes == WIDTH {
            // SAFETY: the mask is full.
            return unsafe { Self::load(from) };
        }
        let mut panel = [0.0; WIDTH];
        for (lane, value) in panel.iter_mut().enumerate().take(lanes) {
            // SAFETY: only lanes in the mask are read.
            *value = unsafe { from.add(lane).read_unaligned() };
        }
        Portable(panel)
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for 16 writable elements.
        unsafe { to.cast::<[f32; WIDTH]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn store_masked(self, to: *mut f32, lanes: usize) {
        if lanes == WIDTH {
            // SAFETY: the mask is full.
            return unsafe { self.store(to) };
        }
        for (lane, value) in self.0.into_iter().enumerate().take(lanes) {
            // SAFETY: only lanes in the mask are written.
            unsafe { to.add(lane).write_unaligned(value) }
        }
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        Portable(std::array::from_fn(|lane| fma(self.0[lane], b.0[lane], c.0[lane])))
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        self.zip(b, |x, y| x + y)
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        self.zip(b, |x, y| x * y)
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        self.zip(b, |x, y| {
            if x > y {
                x
            } else if x < y {
                y
            } else if x == y {
                f32::from_bits(x.to_bits() & y.to_bits())
            } else {
                x + y
            }
        })
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        self.zip(b, |x, y| {
            if x < y {
                x
            } else if x > y {
                y
            } else if x == y {
                f32::from_bits(x.to_bits() | y.to_bits())
            } else {
                x + y
            }
        })
    }
    #[inline(always)]
    fn unless_negative(self, b: Self) -> Self {
        self.zip(b, |x, y| if x < 0.0 { y } else { x })
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Panel;
    use core::arch::x86_64::*;

    /// For CPUs with AVX-512: one register.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(__m512);

    // SAFETY, for every block here: the instruction exists because the trait's contract says so, and pointers are as the
    // caller of the method vouches for.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Panel for Avx512 {
        type Mask = __mmask16;

        #[inline(always)]
        fn mask(lanes: usize) -> __mmask16 {
            ((1u32 << lanes) - 1) as u16
        }
        #[inline(always)]
        fn splat(value: f32) -> Self {
            Avx512(unsafe { _mm512_set1_ps(value) })
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            Avx512(unsafe { _mm512_loadu_ps(from) })
        }
        #[inline(always)]
        unsafe fn load_masked(from: *const f32, mask: __mmask16) -> Self {
            Avx512(unsafe { _mm512_maskz_loadu_ps(mask, from) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm512_storeu_ps(to, self.0) }
        }
        #[inline(always)]
        unsafe fn store_masked(self, to: *mut f32, mask: __mmask16) {
            unsafe { _mm512_mask_storeu_ps(to, mask, self.0) }
        }
        #[inline(always)]
        fn fma(self, b: Self, c: Self) -> Self {
            Avx512(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
        }
        #[inline(always)]
        fn add(self, b: Self) -> Self {
            Avx512(unsafe { _mm512_add_ps(self.0, b.0) })
        }
        #[inline(always)]
        fn mul(self, b: Self) -> Self {
            Avx512(unsafe { _mm512_mul_ps(self.0, b.0) })
        }
        #[inline(always)]
        fn max(self, b: Self) -> Self {
            // RANGE orders signed zeros but prefers numbers to NaNs: lanes with a NaN take the sum instead.
            unsafe {
                let greater = _mm512_range_ps::<0b0101>(self.0, b.0);
                Avx512(_mm512_mask_add_ps(greater, _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, b.0), self.0, b.0))
            }
        }
        #[inline(always)]
        fn min(self, b: Self) -> Self {
            unsafe {
                let less = _mm512_range_ps::<0b0100>(self.0, b.0);
                Avx512(_mm512_mask_add_ps(less, _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, b.0), self.0, b.0))
            }
        }
        #[inline(always)]
        fn unless_negative(self, b: Self) -> Self {
            unsafe {
                let negative = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, _mm512_setzero_ps());
                Avx512(_mm512_mask_mov_ps(self.0, negative, b.0))
            }
        }
    }

    /// For CPUs with AVX2 and FMA: two registers.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(__m256, __m256);

    impl Avx2 {
        #[inline(always)]
        fn zip(self, b: Self, combine: impl Fn(__m256, __m256) -> __m256) -> Self {
            Avx2(combine(self.0, b.0), combine(self.1, b.1))
        }
    }

    // SAFETY, for every block here: the instruction exists because the trait's contract says so, and pointers are as the
    // caller of the method vouches for.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Panel for Avx2 {
        type Mask = (__m256i, __m256i);

        #[inline(always)]
        fn mask(lanes: usize) -> Self::Mask {
            unsafe {
                let lanes = _mm256_set1_epi32(lanes as i32);
                let low = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
                let high = _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15);
                (_mm256_cmpgt_epi32(lanes, low), _mm256_cmpgt_epi32(lanes, high))
            }
        }
        #[inline(always)]
        fn splat(value: f32) -> Self {
            let value = unsafe { _mm256_set1_ps(value) };
            Avx2(value, value)
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { Avx2(_mm256_loadu_ps(from), _mm256_loadu_ps(from.wrapping_add(8))) }
        }
        #[inline(always)]
        unsafe fn load_masked(from: *const f32, mask: Self::Mask) -> Self {
            unsafe { Avx2(_mm256_maskload_ps(from, mask.0), _mm256_maskload_ps(from.wrapping_add(8), mask.1)) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe {
                _mm256_storeu_ps(to, self.0);
                _mm256_storeu_ps(to.wrapping_add(8), self.1);
            }
        }
        #[inline(always)]
        unsafe fn store_masked(self, to: *mut f32, mask: Self::Mask) {
            unsafe {
                _mm256_maskstore_ps(to, mask.0, self.0);
                _mm256_maskstore_ps(to.wrapping_add(8), mask.1, self.1);
            }
        }
        #[inline(always)]
        fn fma(self, b: Self, c: Self) -> Self {
            unsafe { Avx2(_mm256_fmadd_ps(self.0, b.0, c.0), _mm256_fmadd_ps(self.1, b.1, c.1)) }
        }
        #[inline(always)]
        fn add(self, b: Self) -> Self {
            self.zip(b, |x, y| unsafe { _mm256_add_ps(x, y) })
        }
        #[inline(always)]
        fn mul(self, b: Self) -> Self {
            self.zip(b, |x, y| unsafe { _mm256_mul_ps(x, y) })
        }
        #[inline(always)]
        fn max(self, b: Self) -> Self {
            // Of equal or unordered operands the instruction returns the second: both orders differ only in zeros' signs
            // and in NaNs.
            self.zip(b, |x, y| unsafe {
                let greater = _mm256_and_ps(_mm256_max_ps(x, y), _mm256_max_ps(y, x));
                _mm256_blendv_ps(greater, _mm256_add_ps(x, y), _mm256_cmp_ps::<_CMP_UNORD_Q>(x, y))
            })
        }
        #[inline(always)]
        fn min(self, b: Self) -> Self {
            self.zip(b, |x, y| unsafe {
                let less = _mm256_or_ps(_mm256_min_ps(x, y), _mm256_min_ps(y, x));
                _mm256_blendv_ps(less, _mm256_add_ps(x, y), _mm256_cmp_ps::<_CMP_UNORD_Q>(x, y))
            })
        }
        #[inline(always)]
        fn unless_negative(self, b: Self) -> Self {
            self.zip(b, |x, y| unsafe { _mm256_blendv_ps(x, y, _mm256_cmp_ps::<_CMP_LT_OQ>(x, _mm256_setzero_ps())) })
        }
    }
}
