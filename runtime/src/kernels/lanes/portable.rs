//! The lanes of any CPU: loops over an array, which LLVM vectorises for what the target has.

use super::{Lanes, WIDTH};
use crate::kernels::fma::fma;

/// 16 lanes for any CPU.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; WIDTH]);

impl Portable {
    #[inline(always)]
    fn map(self, function: impl Fn(f32) -> f32) -> Self {
        Portable(std::array::from_fn(|lane| function(self.0[lane])))
    }
    #[inline(always)]
    fn zip(self, b: Self, combine: impl Fn(f32, f32) -> f32) -> Self {
        Portable(std::array::from_fn(|lane| combine(self.0[lane], b.0[lane])))
    }
    #[inline(always)]
    fn zip_bits(self, b: Self, combine: impl Fn(u32, u32) -> u32) -> Self {
        self.zip(b, |x, y| f32::from_bits(combine(x.to_bits(), y.to_bits())))
    }
    #[inline(always)]
    fn test(self, b: Self, holds: impl Fn(f32, f32) -> bool) -> [u32; WIDTH] {
        std::array::from_fn(|lane| if holds(self.0[lane], b.0[lane]) { u32::MAX } else { 0 })
    }
}

/// `2^exponent` for an exponent in `-126..=127`.
#[inline(always)]
fn power(exponent: i32) -> f32 {
    f32::from_bits((exponent.wrapping_add(127) as u32) << 23)
}

impl Lanes for Portable {
    /// All bits of a lane or none.
    type Mask = [u32; WIDTH];

    const REGISTERS: usize = 4;

    #[inline(always)]
    fn mask(lanes: usize) -> [u32; WIDTH] {
        std::array::from_fn(|lane| if lane < lanes { u32::MAX } else { 0 })
    }
    #[inline(always)]
    fn either(a: [u32; WIDTH], b: [u32; WIDTH]) -> [u32; WIDTH] {
        std::array::from_fn(|lane| a[lane] | b[lane])
    }
    #[inline(always)]
    fn both(a: [u32; WIDTH], b: [u32; WIDTH]) -> [u32; WIDTH] {
        std::array::from_fn(|lane| a[lane] & b[lane])
    }
    #[inline(always)]
    fn any(mask: [u32; WIDTH]) -> bool {
        mask.iter().fold(0, |all, lane| all | lane) != 0
    }
    #[inline(always)]
    fn select(mask: [u32; WIDTH], yes: Self, no: Self) -> Self {
        Portable(std::array::from_fn(|lane| {
            f32::from_bits((mask[lane] & yes.0[lane].to_bits()) | (!mask[lane] & no.0[lane].to_bits()))
        }))
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
    unsafe fn load_bf16(from: *const u16) -> Self {
        // SAFETY: the caller vouches for 16 readable elements.
        let halves = unsafe { from.cast::<[u16; WIDTH]>().read_unaligned() };
        Portable(halves.map(|half| f32::from_bits(u32::from(half) << 16)))
    }
    #[inline(always)]
    unsafe fn load_masked(from: *const f32, mask: [u32; WIDTH]) -> Self {
        Portable(std::array::from_fn(|lane| {
            if mask[lane] == 0 {
                return 0.0;
            }
            // SAFETY: only lanes in the mask are read.
            unsafe { from.add(lane).read_unaligned() }
        }))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for 16 writable elements.
        unsafe { to.cast::<[f32; WIDTH]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn store_masked(self, to: *mut f32, mask: [u32; WIDTH]) {
        for (lane, value) in self.0.into_iter().enumerate() {
            if mask[lane] != 0 {
                // SAFETY: only lanes in the mask are written.
                unsafe { to.add(lane).write_unaligned(value) }
            }
        }
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        self.zip(b, |x, y| x + y)
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        self.zip(b, |x, y| x - y)
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        self.zip(b, |x, y| x * y)
    }
    #[inline(always)]
    fn div(self, b: Self) -> Self {
        self.zip(b, |x, y| x / y)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        self.map(f32::sqrt)
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        Portable(std::array::from_fn(|lane| fma(self.0[lane], b.0[lane], c.0[lane])))
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        let greater = self.greater(b).and(b.greater(self));
        Self::select(Self::either(self.is_nan(), b.is_nan()), self.add(b), greater)
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        let lesser = self.lesser(b).or(b.lesser(self));
        Self::select(Self::either(self.is_nan(), b.is_nan()), self.add(b), lesser)
    }
    #[inline(always)]
    fn spread<const MEMBERS: usize>(self, member: usize) -> Self {
        Portable(std::array::from_fn(|lane| self.0[lane / MEMBERS * MEMBERS + member]))
    }
    #[inline(always)]
    fn greater(self, b: Self) -> Self {
        self.zip(b, |x, y| if x > y { x } else { y })
    }
    #[inline(always)]
    fn lesser(self, b: Self) -> Self {
        self.zip(b, |x, y| if x < y { x } else { y })
    }
    #[inline(always)]
    fn is_less(self, b: Self) -> [u32; WIDTH] {
        self.test(b, |x, y| x < y)
    }
    #[inline(always)]
    fn is_equal(self, b: Self) -> [u32; WIDTH] {
        self.test(b, |x, y| x == y)
    }
    #[inline(always)]
    fn is_nan(self) -> [u32; WIDTH] {
        self.test(self, |x, _| x.is_nan())
    }
    #[inline(always)]
    fn has_sign(self) -> [u32; WIDTH] {
        std::array::from_fn(|lane| ((self.0[lane].to_bits() as i32) >> 31) as u32)
    }
    #[inline(always)]
    fn and(self, b: Self) -> Self {
        self.zip_bits(b, |x, y| x & y)
    }
    #[inline(always)]
    fn or(self, b: Self) -> Self {
        self.zip_bits(b, |x, y| x | y)
    }
    #[inline(always)]
    fn xor(self, b: Self) -> Self {
        self.zip_bits(b, |x, y| x ^ y)
    }
    #[inline(always)]
    fn shift_left<const BITS: u32>(self) -> Self {
        self.map(|x| f32::from_bits(x.to_bits() << BITS))
    }
    #[inline(always)]
    fn shift_right<const BITS: u32>(self) -> Self {
        self.map(|x| f32::from_bits(x.to_bits() >> BITS))
    }
    #[inline(always)]
    fn keep_upper_half(self) -> Self {
        self.map(|x| f32::from_bits(x.to_bits() & !0xffff))
    }
    #[inline(always)]
    fn look_up(self, table: Self) -> Self {
        self.map(|x| table.0[x.to_bits() as usize % WIDTH])
    }
    #[inline(always)]
    fn scale(self, exponent: Self) -> Self {
        // Adding this constant leaves a small integer in the low bits, which a saturating conversion takes longer for.
        const SHIFT: f32 = 12_582_912.0;
        self.zip(exponent, |x, exponent| {
            let whole = (exponent + SHIFT).to_bits().wrapping_sub(SHIFT.to_bits()) as i32;
            let half = whole >> 1;
            x * power(half) * power(whole.wrapping_sub(half))
        })
    }
    #[inline(always)]
    fn split(self) -> (Self, Self) {
        const LEAST: u32 = 0x3f40_0000;
        let subnormal = self.is_less(Self::splat(f32::MIN_POSITIVE));
        let normal = Self::select(subnormal, self.mul(Self::splat(16_777_216.0)), self);
        let offset = Self::select(subnormal, Self::splat(24.0), Self::splat(0.0));
        let mantissa = normal.map(|x| f32::from_bits((x.to_bits().wrapping_sub(LEAST) & 0x007f_ffff) + LEAST));
        let exponent = normal.map(|x| ((x.to_bits().wrapping_sub(LEAST) as i32) >> 23) as f32);
        (mantissa, exponent.sub(offset))
    }
    #[inline(always)]
    fn exchange<const DISTANCE: usize>(self) -> Self {
        Portable(std::array::from_fn(|lane| self.0[lane ^ DISTANCE]))
    }
}
