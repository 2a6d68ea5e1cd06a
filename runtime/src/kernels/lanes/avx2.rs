//! The lanes of AVX2 and FMA: two registers.

use super::{Lanes, WIDTH};
use core::arch::x86_64::*;

/// 16 lanes for CPUs of [`Level::Avx2`](crate::kernels::Level::Avx2).
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256, __m256);

/// `2^exponent` for exponents in `-126..=127`.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn power(exponent: __m256i) -> __m256 {
    // SAFETY: the caller vouches for the instructions.
    unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(exponent, _mm256_set1_epi32(127)))) }
}

/// Two normal numbers whose product is `2^exponent`, for exponents in `-252..=252`.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn powers(exponent: __m256) -> (__m256, __m256) {
    // SAFETY: the caller vouches for the instructions.
    unsafe {
        let whole = _mm256_cvtps_epi32(exponent);
        let half = _mm256_srai_epi32::<1>(whole);
        (power(half), power(_mm256_sub_epi32(whole, half)))
    }
}

/// [`Lanes::scale`] of half of the lanes.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn scale(x: __m256, exponent: __m256) -> __m256 {
    // SAFETY: the caller vouches for the instructions.
    unsafe {
        let (a, b) = powers(exponent);
        _mm256_mul_ps(_mm256_mul_ps(x, a), b)
    }
}

/// [`Lanes::scale_normal`] of half of the lanes.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn scale_normal(x: __m256, exponent: __m256) -> __m256 {
    // SAFETY: the caller vouches for the instructions.
    unsafe { _mm256_mul_ps(x, power(_mm256_cvtps_epi32(exponent))) }
}

/// [`Lanes::scale_term`] of half of the lanes: the powers are multiplied before what is scaled is there.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn scale_term(x: __m256, exponent: __m256) -> __m256 {
    // SAFETY: the caller vouches for the instructions.
    unsafe {
        let (a, b) = powers(exponent);
        _mm256_mul_ps(x, _mm256_mul_ps(a, b))
    }
}

/// [`Lanes::split`] of half of the lanes.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn split(x: __m256) -> (__m256, __m256) {
    // SAFETY: the caller vouches for the instructions.
    unsafe {
        let least = _mm256_set1_epi32(0x3f40_0000);
        let subnormal = _mm256_cmp_ps::<_CMP_LT_OQ>(x, _mm256_set1_ps(f32::MIN_POSITIVE));
        let normal = _mm256_blendv_ps(x, _mm256_mul_ps(x, _mm256_set1_ps(16_777_216.0)), subnormal);
        let above = _mm256_sub_epi32(_mm256_castps_si256(normal), least);
        let mantissa = _mm256_add_epi32(_mm256_and_si256(above, _mm256_set1_epi32(0x007f_ffff)), least);
        let exponent = _mm256_cvtepi32_ps(_mm256_srai_epi32::<23>(above));
        let offset = _mm256_and_ps(subnormal, _mm256_set1_ps(24.0));
        (_mm256_castsi256_ps(mantissa), _mm256_sub_ps(exponent, offset))
    }
}

/// [`Lanes::store_masked`] of half of the lanes. A masked store is tens of instructions on some CPUs (Zen 1 to 3), so it is kept for
/// halves that need it.
///
/// # Safety
/// The CPU has AVX2, and the elements in the mask can be written.
#[inline(always)]
pub(crate) unsafe fn store_half(to: *mut f32, mask: __m256, value: __m256) {
    // SAFETY: the caller vouches for the instructions and the elements.
    unsafe {
        match _mm256_movemask_ps(mask) {
            0xff => _mm256_storeu_ps(to, value),
            0 => {}
            _ => _mm256_maskstore_ps(to, _mm256_castps_si256(mask), value),
        }
    }
}

/// One instruction on both halves.
macro_rules! halves {
    ($function:ident $(::<$constant:ident>)?($x:ident $(, $y:ident $(, $z:ident)?)?)) => {
        unsafe { Avx2(
            $function $(::<$constant>)?($x.0 $(, $y.0 $(, $z.0)?)?),
            $function $(::<$constant>)?($x.1 $(, $y.1 $(, $z.1)?)?),
        ) }
    };
}

// SAFETY, for every block here: the instruction exists because this type is used in code of its level alone, and
// pointers are as the caller of the method vouches for.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Lanes for Avx2 {
    /// The uppermost bit of a lane, which is all that its users look at.
    type Mask = (__m256, __m256);

    const REGISTERS: usize = 8;

    #[inline(always)]
    fn mask(lanes: usize) -> Self::Mask {
        unsafe {
            let lanes = _mm256_set1_epi32(lanes as i32);
            let low = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let high = _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15);
            (_mm256_castsi256_ps(_mm256_cmpgt_epi32(lanes, low)), _mm256_castsi256_ps(_mm256_cmpgt_epi32(lanes, high)))
        }
    }
    #[inline(always)]
    fn either(a: Self::Mask, b: Self::Mask) -> Self::Mask {
        unsafe { (_mm256_or_ps(a.0, b.0), _mm256_or_ps(a.1, b.1)) }
    }
    #[inline(always)]
    fn both(a: Self::Mask, b: Self::Mask) -> Self::Mask {
        unsafe { (_mm256_and_ps(a.0, b.0), _mm256_and_ps(a.1, b.1)) }
    }
    #[inline(always)]
    fn any(mask: Self::Mask) -> bool {
        unsafe { _mm256_movemask_ps(_mm256_or_ps(mask.0, mask.1)) != 0 }
    }
    #[inline(always)]
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self {
        unsafe { Avx2(_mm256_blendv_ps(no.0, yes.0, mask.0), _mm256_blendv_ps(no.1, yes.1, mask.1)) }
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
    unsafe fn load_bf16(from: *const u16) -> Self {
        unsafe {
            let half = |from: *const u16| {
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()))))
            };
            Avx2(half(from), half(from.wrapping_add(8)))
        }
    }
    #[inline(always)]
    unsafe fn load_masked(from: *const f32, mask: Self::Mask) -> Self {
        unsafe {
            Avx2(
                _mm256_maskload_ps(from, _mm256_castps_si256(mask.0)),
                _mm256_maskload_ps(from.wrapping_add(8), _mm256_castps_si256(mask.1)),
            )
        }
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
            store_half(to, mask.0, self.0);
            store_half(to.wrapping_add(8), mask.1, self.1);
        }
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        halves!(_mm256_add_ps(self, b))
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        halves!(_mm256_sub_ps(self, b))
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        halves!(_mm256_mul_ps(self, b))
    }
    #[inline(always)]
    fn div(self, b: Self) -> Self {
        halves!(_mm256_div_ps(self, b))
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        halves!(_mm256_sqrt_ps(self))
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        halves!(_mm256_fmadd_ps(self, b, c))
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        // Of equal or unordered operands the instruction returns the second: both orders differ only in zeros' signs
        // and in NaNs.
        let greater = self.greater(b).and(b.greater(self));
        Self::select(unordered(self, b), self.add(b), greater)
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        let lesser = self.lesser(b).or(b.lesser(self));
        Self::select(unordered(self, b), self.add(b), lesser)
    }
    #[inline(always)]
    fn spread<const MEMBERS: usize>(self, member: usize) -> Self {
        let mut places = [0i32; WIDTH / 2];
        for (lane, place) in places.iter_mut().enumerate() {
            *place = (lane / MEMBERS * MEMBERS + member) as i32;
        }
        unsafe {
            let places = _mm256_loadu_si256(places.as_ptr().cast());
            Avx2(_mm256_permutevar8x32_ps(self.0, places), _mm256_permutevar8x32_ps(self.1, places))
        }
    }
    #[inline(always)]
    fn greater(self, b: Self) -> Self {
        halves!(_mm256_max_ps(self, b))
    }
    #[inline(always)]
    fn lesser(self, b: Self) -> Self {
        halves!(_mm256_min_ps(self, b))
    }
    #[inline(always)]
    fn is_less(self, b: Self) -> Self::Mask {
        unsafe { (_mm256_cmp_ps::<_CMP_LT_OQ>(self.0, b.0), _mm256_cmp_ps::<_CMP_LT_OQ>(self.1, b.1)) }
    }
    #[inline(always)]
    fn is_equal(self, b: Self) -> Self::Mask {
        unsafe { (_mm256_cmp_ps::<_CMP_EQ_OQ>(self.0, b.0), _mm256_cmp_ps::<_CMP_EQ_OQ>(self.1, b.1)) }
    }
    #[inline(always)]
    fn is_nan(self) -> Self::Mask {
        unordered(self, self)
    }
    #[inline(always)]
    fn has_sign(self) -> Self::Mask {
        (self.0, self.1)
    }
    #[inline(always)]
    fn and(self, b: Self) -> Self {
        halves!(_mm256_and_ps(self, b))
    }
    #[inline(always)]
    fn or(self, b: Self) -> Self {
        halves!(_mm256_or_ps(self, b))
    }
    #[inline(always)]
    fn xor(self, b: Self) -> Self {
        halves!(_mm256_xor_ps(self, b))
    }
    #[inline(always)]
    fn shift_left<const BITS: u32>(self) -> Self {
        unsafe {
            let count = _mm_cvtsi32_si128(BITS as i32);
            Avx2(
                _mm256_castsi256_ps(_mm256_sll_epi32(_mm256_castps_si256(self.0), count)),
                _mm256_castsi256_ps(_mm256_sll_epi32(_mm256_castps_si256(self.1), count)),
            )
        }
    }
    #[inline(always)]
    fn shift_right<const BITS: u32>(self) -> Self {
        unsafe {
            let count = _mm_cvtsi32_si128(BITS as i32);
            Avx2(
                _mm256_castsi256_ps(_mm256_srl_epi32(_mm256_castps_si256(self.0), count)),
                _mm256_castsi256_ps(_mm256_srl_epi32(_mm256_castps_si256(self.1), count)),
            )
        }
    }
    #[inline(always)]
    fn keep_upper_half(self) -> Self {
        unsafe {
            let upper = _mm256_castsi256_ps(_mm256_set1_epi32(!0xffff));
            Avx2(_mm256_and_ps(self.0, upper), _mm256_and_ps(self.1, upper))
        }
    }
    #[inline(always)]
    fn look_up(self, table: Self) -> Self {
        // A permutation looks at three bits; the fourth, moved to the top, says which half of the table is meant.
        let fourth = self.shift_left::<28>();
        let half = |numbers: __m256, fourth: __m256| unsafe {
            let numbers = _mm256_castps_si256(numbers);
            let (low, high) = (_mm256_permutevar8x32_ps(table.0, numbers), _mm256_permutevar8x32_ps(table.1, numbers));
            _mm256_blendv_ps(low, high, fourth)
        };
        Avx2(half(self.0, fourth.0), half(self.1, fourth.1))
    }
    #[inline(always)]
    fn scale(self, exponent: Self) -> Self {
        halves!(scale(self, exponent))
    }
    #[inline(always)]
    fn scale_normal(self, exponent: Self) -> Self {
        halves!(scale_normal(self, exponent))
    }
    #[inline(always)]
    fn scale_term(self, exponent: Self) -> Self {
        halves!(scale_term(self, exponent))
    }
    #[inline(always)]
    fn split(self) -> (Self, Self) {
        let (low, high) = unsafe { (split(self.0), split(self.1)) };
        (Avx2(low.0, high.0), Avx2(low.1, high.1))
    }
    #[inline(always)]
    fn exchange<const DISTANCE: usize>(self) -> Self {
        unsafe {
            match DISTANCE {
                8 => Avx2(self.1, self.0),
                4 => Avx2(_mm256_permute2f128_ps::<1>(self.0, self.0), _mm256_permute2f128_ps::<1>(self.1, self.1)),
                2 => Avx2(_mm256_permute_ps::<0b01_00_11_10>(self.0), _mm256_permute_ps::<0b01_00_11_10>(self.1)),
                _ => Avx2(_mm256_permute_ps::<0b10_11_00_01>(self.0), _mm256_permute_ps::<0b10_11_00_01>(self.1)),
            }
        }
    }
}

/// Where either is NaN.
#[inline(always)]
fn unordered(a: Avx2, b: Avx2) -> (__m256, __m256) {
    // SAFETY: as for the implementation above.
    unsafe { (_mm256_cmp_ps::<_CMP_UNORD_Q>(a.0, b.0), _mm256_cmp_ps::<_CMP_UNORD_Q>(a.1, b.1)) }
}

impl Avx2 {
    /// The lanes in two registers.
    #[inline(always)]
    pub(crate) fn of(low: __m256, high: __m256) -> Self {
        Avx2(low, high)
    }

    /// Both registers.
    #[inline(always)]
    pub(crate) fn halves(self) -> (__m256, __m256) {
        (self.0, self.1)
    }
}
