//! The lanes of AVX-512: one register.

use super::{Lanes, WIDTH};
use core::arch::x86_64::*;

/// 16 lanes for CPUs of [`Level::Avx512`](crate::kernels::Level::Avx512).
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

#[inline(always)]
fn bits(lanes: Avx512) -> __m512i {
    // SAFETY: see the implementation below.
    unsafe { _mm512_castps_si512(lanes.0) }
}

#[inline(always)]
fn from_bits(bits: __m512i) -> Avx512 {
    // SAFETY: see the implementation below.
    Avx512(unsafe { _mm512_castsi512_ps(bits) })
}

impl Avx512 {
    /// The sum with the products of two pairs of bf16 in every lane, for CPUs with AVX-512 BF16.
    #[inline(always)]
    pub(crate) fn dot_bf16(self, b: Self, sum: Self) -> Self {
        // SAFETY: only tiles that are compiled for CPUs with the instruction multiply so.
        unsafe {
            let pairs = |lanes: Self| core::mem::transmute::<__m512, __m512bh>(lanes.0);
            Avx512(_mm512_dpbf16_ps(sum.0, pairs(self), pairs(b)))
        }
    }
}

// SAFETY, for every block here: the instruction exists because this type is used in code of its level alone, and
// pointers are as the caller of the method vouches for.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Lanes for Avx512 {
    type Mask = __mmask16;

    const REGISTERS: usize = 32;

    #[inline(always)]
    fn mask(lanes: usize) -> __mmask16 {
        ((1u32 << lanes) - 1) as u16
    }
    #[inline(always)]
    fn either(a: __mmask16, b: __mmask16) -> __mmask16 {
        a | b
    }
    #[inline(always)]
    fn both(a: __mmask16, b: __mmask16) -> __mmask16 {
        a & b
    }
    #[inline(always)]
    fn any(mask: __mmask16) -> bool {
        mask != 0
    }
    #[inline(always)]
    fn select(mask: __mmask16, yes: Self, no: Self) -> Self {
        Avx512(unsafe { _mm512_mask_mov_ps(no.0, mask, yes.0) })
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
    unsafe fn load_bf16(from: *const u16) -> Self {
        unsafe {
            let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            Avx512(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves)))
        }
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
    fn add(self, b: Self) -> Self {
        Avx512(unsafe { _mm512_add_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        Avx512(unsafe { _mm512_sub_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        Avx512(unsafe { _mm512_mul_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn div(self, b: Self) -> Self {
        Avx512(unsafe { _mm512_div_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        Avx512(unsafe { _mm512_sqrt_ps(self.0) })
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        Avx512(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
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
            let lesser = _mm512_range_ps::<0b0100>(self.0, b.0);
            Avx512(_mm512_mask_add_ps(lesser, _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, b.0), self.0, b.0))
        }
    }
    #[inline(always)]
    fn spread<const MEMBERS: usize>(self, member: usize) -> Self {
        let mut places = [0i32; WIDTH];
        for (lane, place) in places.iter_mut().enumerate() {
            *place = (lane / MEMBERS * MEMBERS + member) as i32;
        }
        Avx512(unsafe { _mm512_permutexvar_ps(_mm512_loadu_si512(places.as_ptr().cast()), self.0) })
    }
    #[inline(always)]
    fn greater(self, b: Self) -> Self {
        Avx512(unsafe { _mm512_max_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn lesser(self, b: Self) -> Self {
        Avx512(unsafe { _mm512_min_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn is_less(self, b: Self) -> __mmask16 {
        unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, b.0) }
    }
    #[inline(always)]
    fn is_equal(self, b: Self) -> __mmask16 {
        unsafe { _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(self.0, b.0) }
    }
    #[inline(always)]
    fn is_nan(self) -> __mmask16 {
        unsafe { _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0) }
    }
    #[inline(always)]
    fn has_sign(self) -> __mmask16 {
        unsafe { _mm512_movepi32_mask(bits(self)) }
    }
    #[inline(always)]
    fn and(self, b: Self) -> Self {
        Avx512(unsafe { _mm512_and_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn or(self, b: Self) -> Self {
        Avx512(unsafe { _mm512_or_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn xor(self, b: Self) -> Self {
        Avx512(unsafe { _mm512_xor_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn shift_left<const BITS: u32>(self) -> Self {
        from_bits(unsafe { _mm512_slli_epi32::<BITS>(bits(self)) })
    }
    #[inline(always)]
    fn shift_right<const BITS: u32>(self) -> Self {
        from_bits(unsafe { _mm512_srli_epi32::<BITS>(bits(self)) })
    }
    #[inline(always)]
    fn keep_upper_half(self) -> Self {
        from_bits(unsafe { _mm512_and_epi32(bits(self), _mm512_set1_epi32(!0xffff)) })
    }
    #[inline(always)]
    fn look_up(self, table: Self) -> Self {
        Avx512(unsafe { _mm512_permutexvar_ps(bits(self), table.0) })
    }
    #[inline(always)]
    fn scale(self, exponent: Self) -> Self {
        Avx512(unsafe { _mm512_scalef_ps(self.0, exponent.0) })
    }
    #[inline(always)]
    fn split(self) -> (Self, Self) {
        unsafe {
            let mantissa = _mm512_getmant_ps::<_MM_MANT_NORM_P75_1P5, _MM_MANT_SIGN_SRC>(self.0);
            let exponent = _mm512_sub_ps(_mm512_getexp_ps(self.0), _mm512_getexp_ps(mantissa));
            (Avx512(mantissa), Avx512(exponent))
        }
    }
    #[inline(always)]
    fn exchange<const DISTANCE: usize>(self) -> Self {
        Avx512(unsafe {
            match DISTANCE {
                8 => _mm512_shuffle_f32x4::<0b01_00_11_10>(self.0, self.0),
                4 => _mm512_shuffle_f32x4::<0b10_11_00_01>(self.0, self.0),
                2 => _mm512_permute_ps::<0b01_00_11_10>(self.0),
                _ => _mm512_permute_ps::<0b10_11_00_01>(self.0),
            }
        })
    }
}

impl Avx512 {
    /// The lanes in a register.
    #[inline(always)]
    pub(crate) fn of(register: __m512) -> Self {
        Avx512(register)
    }

    /// The register.
    #[inline(always)]
    pub(crate) fn register(self) -> __m512 {
        self.0
    }
}
