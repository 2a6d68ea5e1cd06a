//! 16 lanes of 32-bit integers that sum products of bytes, and their way to floats and back.

#[cfg(target_arch = "x86_64")]
mod x86;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512, PairsOfAvx2, PairsOfAvx512, Vnni};

use super::table;
use crate::kernels::lanes::{self, Lanes, WIDTH};

/// 16 sums. Implementations for x86 levels may only be used in code compiled for that level.
pub(crate) trait Sums: Copy {
    /// The floats of the level.
    type Floats: Lanes;
    /// Whether four of these, with as many of floats and what is done to them, stay in registers.
    const HAS_MANY_REGISTERS: bool = false;

    fn splat(value: i32) -> Self;
    fn sub(self, offset: Self) -> Self;
    fn to_floats(self) -> Self::Floats;
    /// The nearest integer, ties to even.
    fn round(floats: Self::Floats) -> Self::Floats;
    /// The nearest integer, ties to even, of floats below `2^31`.
    fn nearest(floats: Self::Floats) -> Self;
    fn add(self, b: Self) -> Self;
    /// A fourth of sums that are multiples of four.
    #[cfg(target_arch = "x86_64")]
    fn quarter(self) -> Self;
    /// The sums plus the products of unsigned and signed bytes.
    fn add_products(self, unsigned: Self, signed: Self) -> Self;
    /// # Safety
    /// `lanes` elements can be read.
    unsafe fn load(from: *const i32, lanes: usize) -> Self;
    /// # Safety
    /// `lanes` elements can be written.
    unsafe fn store(self, to: *mut i32, lanes: usize);
    /// Signed or unsigned bytes.
    /// # Safety
    /// `lanes` bytes can be read.
    unsafe fn load_bytes(from: *const u8, lanes: usize, signed: bool) -> Self;
    /// Numbers that signed or unsigned bytes can hold, as such.
    /// # Safety
    /// `lanes` bytes can be written.
    unsafe fn store_bytes(self, to: *mut u8, lanes: usize);
    /// Numbers that signed or unsigned bytes can hold, as such, side by side.
    /// # Safety
    /// `lanes` bytes can be written for each, 16 of all but the last.
    #[inline(always)]
    unsafe fn store_codes<const COUNT: usize>(codes: [Self; COUNT], to: *mut u8, lanes: usize, _signed: bool) {
        for (index, codes) in codes.iter().enumerate() {
            // SAFETY: the caller vouches for the bytes.
            unsafe { codes.store_bytes(to.add(index * WIDTH), lanes) };
        }
    }
    /// Replaces bytes by their entries of a table.
    /// # Safety
    /// The table has 256 entries, and so many bytes can be read and written.
    #[inline(always)]
    unsafe fn look_up(table: *const u8, bytes: *mut u8, count: usize) {
        // SAFETY: the caller vouches for table and bytes.
        unsafe { table::one_by_one(table, bytes, count) }
    }
}

/// Sums of CPUs that multiply bytes as they are.
pub(crate) trait Fours: Sums {
    /// 16 columns of four depths of B.
    type Panel: Copy;
    /// Four depths of a row of A, for all columns.
    type Factor: Copy;

    /// # Safety
    /// 64 bytes can be read.
    unsafe fn panel(from: *const i8) -> Self::Panel;
    fn factor(bytes: u32) -> Self::Factor;
    /// The sums plus the products of four depths.
    fn dot(self, factor: Self::Factor, panel: Self::Panel) -> Self;
}

/// Products of CPUs that multiply pairs of 16-bit numbers: for each of [`COLUMNS`](Self::COLUMNS) columns the sums of two
/// of four depths.
#[cfg(target_arch = "x86_64")]
pub(crate) trait Pairs: Copy {
    /// Columns of a register.
    const COLUMNS: usize;
    /// As many columns of four depths of B, or four depths of a row of A for all columns.
    type Numbers: Copy;

    fn zero() -> Self;
    fn zeros() -> Self::Numbers;
    /// # Safety
    /// Four bytes a column can be read.
    unsafe fn panel(from: *const i8) -> Self::Numbers;
    /// Unsigned bytes.
    /// # Safety
    /// Four a column can be read.
    unsafe fn unsigned(from: *const u8) -> Self::Numbers;
    /// # Safety
    /// Four numbers a column can be read.
    unsafe fn numbers(from: *const i16) -> Self::Numbers;
    /// # Safety
    /// Four numbers a column can be written.
    unsafe fn store(numbers: Self::Numbers, to: *mut i16);
    fn plus(a: Self::Numbers, b: Self::Numbers) -> Self::Numbers;
    fn minus(a: Self::Numbers, b: Self::Numbers) -> Self::Numbers;
    /// # Safety
    /// Four numbers can be read.
    unsafe fn factor(from: *const i16) -> Self::Numbers;
    /// The sums plus the products of four depths.
    fn dot(self, factor: Self::Numbers, panel: Self::Numbers) -> Self;
    /// Adds the sums of twice as many columns to those in memory, or puts them there if they are the first.
    /// # Safety
    /// They can be read and written.
    unsafe fn add_to(sums: *mut i32, pairs: [Self; 2], are_first: bool);
}

/// For any CPU.
#[derive(Clone, Copy)]
pub(crate) struct Portable([i32; WIDTH]);

impl Fours for Portable {
    type Panel = [i8; 4 * WIDTH];
    type Factor = [u8; 4];

    #[inline(always)]
    unsafe fn panel(from: *const i8) -> Self::Panel {
        // SAFETY: the caller vouches for 64 bytes.
        unsafe { from.cast::<Self::Panel>().read() }
    }
    #[inline(always)]
    fn factor(bytes: u32) -> [u8; 4] {
        bytes.to_le_bytes()
    }
    #[inline(always)]
    fn dot(self, factor: [u8; 4], panel: Self::Panel) -> Self {
        Portable(std::array::from_fn(|lane| {
            let products = (0..4).map(|k| i32::from(factor[k]) * i32::from(panel[4 * lane + k]));
            products.fold(self.0[lane], i32::wrapping_add)
        }))
    }
}

impl Sums for Portable {
    type Floats = lanes::Portable;

    #[inline(always)]
    fn splat(value: i32) -> Self {
        Portable([value; WIDTH])
    }
    #[inline(always)]
    fn sub(self, offset: Self) -> Self {
        Portable(std::array::from_fn(|lane| self.0[lane].wrapping_sub(offset.0[lane])))
    }
    #[inline(always)]
    fn to_floats(self) -> lanes::Portable {
        let floats = self.0.map(|value| value as f32);
        // SAFETY: the array has 16 elements.
        unsafe { lanes::Portable::load(floats.as_ptr()) }
    }
    #[inline(always)]
    fn round(floats: lanes::Portable) -> lanes::Portable {
        let rounded = values(floats).map(f32::round_ties_even);
        // SAFETY: the array has 16 elements.
        unsafe { lanes::Portable::load(rounded.as_ptr()) }
    }
    #[inline(always)]
    fn nearest(floats: lanes::Portable) -> Self {
        Portable(values(floats).map(|value| value.round_ties_even() as i32))
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        Portable(std::array::from_fn(|lane| self.0[lane].wrapping_add(b.0[lane])))
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn quarter(self) -> Self {
        Portable(self.0.map(|sum| sum >> 2))
    }
    #[inline(always)]
    fn add_products(self, unsigned: Self, signed: Self) -> Self {
        Portable(std::array::from_fn(|lane| self.0[lane].wrapping_add(unsigned.0[lane] * signed.0[lane])))
    }
    #[inline(always)]
    unsafe fn load(from: *const i32, lanes: usize) -> Self {
        // SAFETY: only lanes that the caller vouches for are read.
        let read = |lane: usize| if lane < lanes { unsafe { from.add(lane).read() } } else { 0 };
        Portable(std::array::from_fn(read))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut i32, lanes: usize) {
        // SAFETY: only lanes that the caller vouches for are written.
        self.0.iter().take(lanes).enumerate().for_each(|(lane, value)| unsafe { to.add(lane).write(*value) });
    }
    #[inline(always)]
    unsafe fn load_bytes(from: *const u8, lanes: usize, signed: bool) -> Self {
        Portable(std::array::from_fn(|lane| {
            // SAFETY: only lanes that the caller vouches for are read.
            let byte = if lane < lanes { unsafe { from.add(lane).read() } } else { 0 };
            if signed { i32::from(byte as i8) } else { i32::from(byte) }
        }))
    }
    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut u8, lanes: usize) {
        // SAFETY: only lanes that the caller vouches for are written.
        self.0.iter().take(lanes).enumerate().for_each(|(lane, value)| unsafe { to.add(lane).write(*value as u8) });
    }
}

/// The elements of portable lanes.
#[inline(always)]
fn values(floats: lanes::Portable) -> [f32; WIDTH] {
    let mut values = [0.; WIDTH];
    // SAFETY: the array has 16 elements.
    unsafe { floats.store(values.as_mut_ptr()) };
    values
}
