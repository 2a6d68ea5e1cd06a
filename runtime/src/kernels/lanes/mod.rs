//! 16 f32 lanes: the vector type that all vector kernels are written over.
//!
//! Every level has the same 16 lanes: one `zmm` register, two `ymm` registers, or an array that LLVM vectorises. So a
//! kernel's blocking, its tails and the order of its sums cannot differ between levels, and all implementations of an
//! operation give the same bits (NaN payloads are exempt).
//!
//! Everything here is `#[inline(always)]`: the instruction set holds for what `per_level!` instantiates and for what is
//! inlined there, and for nothing else.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod group;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use group::{Group, Part, Whole};
pub(crate) use portable::Portable;

/// The number of lanes.
pub(crate) const WIDTH: usize = 16;

/// Starts bringing a line near that will be read. Any address will do, valid or not.
#[inline(always)]
pub(crate) fn prefetch(from: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 CPU has the instruction, which ignores addresses that are not valid.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(from.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = from;
}

/// Starts bringing a line near that will be written. Any address will do, valid or not.
#[inline(always)]
pub(crate) fn prefetch_to_write(to: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 CPU has the instruction, or takes it for one that does nothing, and it ignores addresses that are not
    // valid.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_ET0 }>(to.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = to;
}

/// 16 f32 lanes. Implementations for x86 levels may only be used in code compiled for that level, which is what makes
/// their safe methods sound: only `per_level!` names them.
pub(crate) trait Lanes: Copy {
    /// A truth value per lane.
    type Mask: Copy;

    /// How many values of this type the registers hold.
    const REGISTERS: usize;

    /// True in the first `lanes` lanes, `0..=16`.
    fn mask(lanes: usize) -> Self::Mask;
    /// True where either is.
    fn either(a: Self::Mask, b: Self::Mask) -> Self::Mask;
    /// True where both are.
    fn both(a: Self::Mask, b: Self::Mask) -> Self::Mask;
    /// Whether any lane is true.
    fn any(mask: Self::Mask) -> bool;
    /// `yes` where the mask is true, else `no`.
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self;

    fn splat(value: f32) -> Self;
    /// # Safety
    /// 16 elements can be read.
    unsafe fn load(from: *const f32) -> Self;
    /// 16 numbers of which memory has the upper halves: bf16.
    /// # Safety
    /// 16 elements can be read.
    unsafe fn load_bf16(from: *const u16) -> Self;
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

    fn add(self, b: Self) -> Self;
    fn sub(self, b: Self) -> Self;
    fn mul(self, b: Self) -> Self;
    fn div(self, b: Self) -> Self;
    fn sqrt(self) -> Self;
    /// `self * b + c` with one rounding.
    fn fma(self, b: Self, c: Self) -> Self;
    /// NaN if either is NaN; -0 is less than +0.
    fn max(self, b: Self) -> Self;
    /// NaN if either is NaN; -0 is less than +0.
    fn min(self, b: Self) -> Self;
    /// `self > b ? self : b`: one instruction, for where the cases [`Lanes::max`] settles do not matter.
    fn greater(self, b: Self) -> Self;
    /// `self < b ? self : b`: one instruction, for where the cases [`Lanes::min`] settles do not matter.
    fn lesser(self, b: Self) -> Self;

    /// Every lane gets what lane `member` of its group of `MEMBERS` has, two, four or eight of them.
    fn spread<const MEMBERS: usize>(self, member: usize) -> Self;

    /// False where either is NaN.
    fn is_less(self, b: Self) -> Self::Mask;
    /// False where either is NaN.
    fn is_equal(self, b: Self) -> Self::Mask;
    fn is_nan(self) -> Self::Mask;
    /// Whether the uppermost bit is set, zeros and NaNs included.
    fn has_sign(self) -> Self::Mask;

    /// The bits of both.
    fn and(self, b: Self) -> Self;
    /// The bits of either.
    fn or(self, b: Self) -> Self;
    /// The bits of one only.
    fn xor(self, b: Self) -> Self;
    /// The bits of every lane, moved up by `BITS`.
    fn shift_left<const BITS: u32>(self) -> Self;
    /// The bits of every lane, moved down by `BITS`, zeros following.
    fn shift_right<const BITS: u32>(self) -> Self;
    /// The upper 16 bits of every lane, zeros following.
    fn keep_upper_half(self) -> Self;
    /// Every lane gets that lane of the table whose number is in its lowest four bits.
    fn look_up(self, table: Self) -> Self;

    /// `self * 2^exponent` with one rounding, for an integral exponent in `-252..=252`; where `self` is NaN the exponent
    /// may be too. `self * 2^(exponent / 2)` must be a normal number, or zero, or not finite.
    fn scale(self, exponent: Self) -> Self;
    /// [`Lanes::scale`], where neither `2^exponent` nor the result is less than normal, zero or infinite.
    #[inline(always)]
    fn scale_normal(self, exponent: Self) -> Self {
        self.scale(exponent)
    }
    /// [`Lanes::scale`] for a term of a sum that does not notice what is less than normal: it may be off, or zero.
    #[inline(always)]
    fn scale_term(self, exponent: Self) -> Self {
        self.scale(exponent)
    }
    /// `(m, e)` with `self = m * 2^e` and `m` in `[0.75, 1.5)`, for positive finite lanes; anything in the others.
    fn split(self) -> (Self, Self);
    /// Lane `i` gets lane `i ^ DISTANCE`; the distance is 8, 4, 2 or 1.
    fn exchange<const DISTANCE: usize>(self) -> Self;

    /// `self` where it is at least zero or NaN, else `b`.
    #[inline(always)]
    fn unless_negative(self, b: Self) -> Self {
        Self::select(self.is_less(Self::splat(0.0)), b, self)
    }
    #[inline(always)]
    fn sign(self) -> Self {
        self.and(Self::splat(-0.0))
    }
    #[inline(always)]
    fn abs(self) -> Self {
        self.and(Self::splat(f32::from_bits(0x7fff_ffff)))
    }
    #[inline(always)]
    fn neg(self) -> Self {
        self.xor(Self::splat(-0.0))
    }
    /// The sum of all lanes, in every lane: `i` and `i + 8` first, then 4, 2 and 1 apart.
    #[inline(always)]
    fn total(self) -> Self {
        let halves = self.add(self.exchange::<8>());
        let quarters = halves.add(halves.exchange::<4>());
        let pairs = quarters.add(quarters.exchange::<2>());
        pairs.add(pairs.exchange::<1>())
    }
    /// The product of all lanes, in every lane, in the order of [`Lanes::total`].
    #[inline(always)]
    fn total_product(self) -> Self {
        let halves = self.mul(self.exchange::<8>());
        let quarters = halves.mul(halves.exchange::<4>());
        let pairs = quarters.mul(quarters.exchange::<2>());
        pairs.mul(pairs.exchange::<1>())
    }
    /// The [`Lanes::max`] of all lanes, in every lane.
    #[inline(always)]
    fn greatest(self) -> Self {
        let halves = self.max(self.exchange::<8>());
        let quarters = halves.max(halves.exchange::<4>());
        let pairs = quarters.max(quarters.exchange::<2>());
        pairs.max(pairs.exchange::<1>())
    }
    /// The [`Lanes::min`] of all lanes, in every lane.
    #[inline(always)]
    fn least(self) -> Self {
        let halves = self.min(self.exchange::<8>());
        let quarters = halves.min(halves.exchange::<4>());
        let pairs = quarters.min(quarters.exchange::<2>());
        pairs.min(pairs.exchange::<1>())
    }
    /// The first lane.
    #[inline(always)]
    fn first(self) -> f32 {
        let mut lanes = [0.0; WIDTH];
        // SAFETY: the array has 16 elements.
        unsafe { self.store(lanes.as_mut_ptr()) };
        lanes[0]
    }
}
