//! Tile registers and their instructions.
//!
//! The compiler does not know that these registers hold anything between two instructions, and nothing it generates touches them:
//! that takes a target feature no code of this crate is compiled with. So what one function here leaves in a register, the next
//! finds there, on the same thread, from [`Shapes::configure`] to [`release`].

use std::arch::asm;

/// Rows of a register, and columns of 32 bits.
pub(super) const SIDE: usize = 16;

/// The shapes of all registers, as the instruction takes them.
#[repr(C, align(64))]
pub(super) struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Shapes {
    /// No register holds anything.
    pub(super) fn none() -> Self {
        Shapes { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] }
    }

    /// Gives a register rows of so many groups of 32 bits; both are at most [`SIDE`].
    pub(super) fn set(&mut self, register: usize, rows: usize, groups: usize) {
        debug_assert!(rows <= SIDE && groups <= SIDE);
        self.rows[register] = rows as u8;
        self.row_bytes[register] = 4 * groups as u16;
    }

    /// Makes them those of this thread's registers, which are zero then.
    ///
    /// # Safety
    /// [`is_available`](super::is_available) said yes, and the thread calls [`release`] when it is done.
    #[inline(always)]
    pub(super) unsafe fn configure(&self) {
        // SAFETY: the caller vouches for the instruction; the shapes are valid, being at most those of a register.
        unsafe { asm!("ldtilecfg [{}]", in(reg) self, options(readonly, nostack, preserves_flags)) }
    }
}

/// Gives the registers back.
///
/// # Safety
/// [`is_available`](super::is_available) said yes.
#[inline(always)]
pub(in super::super) unsafe fn release() {
    // SAFETY: the caller vouches for the instruction.
    unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) }
}

/// Fills a register with zeros.
///
/// # Safety
/// The registers are configured, and this one has a shape.
#[inline(always)]
pub(super) unsafe fn zero<const REGISTER: usize>() {
    // SAFETY: the caller vouches for the register.
    unsafe { asm!("tilezero tmm{}", const REGISTER, options(nomem, nostack, preserves_flags)) }
}

/// Fills a register with rows that lie so many bytes apart.
///
/// # Safety
/// As for [`zero`], and the rows can be read.
#[inline(always)]
pub(super) unsafe fn load<const REGISTER: usize>(from: *const u8, stride: isize) {
    // SAFETY: the caller vouches for the register and the memory.
    unsafe {
        asm!("tileloadd tmm{}, [{} + {}*1]", const REGISTER, in(reg) from, in(reg) stride,
            options(readonly, nostack, preserves_flags))
    }
}

/// Stores the rows of a register so many bytes apart.
///
/// # Safety
/// As for [`zero`], and the rows can be written.
#[inline(always)]
pub(super) unsafe fn store<const REGISTER: usize>(to: *mut u8, stride: isize) {
    // SAFETY: the caller vouches for the register and the memory.
    unsafe {
        asm!("tilestored [{} + {}*1], tmm{}", in(reg) to, in(reg) stride, const REGISTER,
            options(nostack, preserves_flags))
    }
}

/// What the groups of 32 bits are.
pub(in super::super) trait Multiply {
    /// Adds the product of two registers to a third.
    ///
    /// # Safety
    /// The registers are configured; `SUMS` has the rows of `A` and the columns of `B`, which has a row for each group of `A`.
    unsafe fn add_product<const SUMS: usize, const A: usize, const B: usize>();
}

/// Four depths: unsigned bytes of A, signed ones of B, sums of 32 bits that wrap.
pub(in super::super) struct Bytes;
impl Multiply for Bytes {
    #[inline(always)]
    unsafe fn add_product<const SUMS: usize, const A: usize, const B: usize>() {
        // SAFETY: the caller vouches for the registers.
        unsafe {
            asm!("tdpbusd tmm{}, tmm{}, tmm{}", const SUMS, const A, const B, options(nomem, nostack, preserves_flags))
        }
    }
}

/// Two depths of bf16, and sums of f32.
pub(in super::super) struct Pairs;
impl Multiply for Pairs {
    #[inline(always)]
    unsafe fn add_product<const SUMS: usize, const A: usize, const B: usize>() {
        // SAFETY: the caller vouches for the registers.
        unsafe {
            asm!("tdpbf16ps tmm{}, tmm{}, tmm{}", const SUMS, const A, const B, options(nomem, nostack, preserves_flags))
        }
    }
}
