//! Products of whole matrices in tile registers: what x86-64 CPUs with AMX have beside their vectors, with eight times the
//! arithmetic of these.
//!
//! A tile register holds 16 rows of 64 bytes. Four depths of bytes, or two of bf16, side by side are 32 bits, which is how panels
//! of B are packed for vectors too ([`super::bytes`], [`super::bf16`]): a tile of B is 16 groups of such depths of one panel, one of A as
//! many groups of 16 rows, and one of C 16 rows by 16 columns.
//!
//! The registers are the kernel's to give: a process asks for them once ([`is_available`]), and code configures them before it uses them
//! ([`Shapes`]) and gives them back after ([`release`]), so that nobody saves them who need not.

mod product;
mod registers;

pub(super) use product::{Item, Product, TALLEST, Tall, multiply};
pub(super) use registers::{Bytes, Pairs, release};

use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::sync::LazyLock;

/// Whether this machine has tile registers with products of bytes and of bf16, and lets this process use them.
pub(super) fn is_available() -> bool {
    static IS_AVAILABLE: LazyLock<bool> = LazyLock::new(|| has_instructions() && is_permitted());
    *IS_AVAILABLE
}

/// Whether the CPU says that it has the instructions: Intel's manual, volume 2, CPUID leaf 7.
fn has_instructions() -> bool {
    const BF16: u32 = 1 << 22;
    const TILES: u32 = 1 << 24;
    const BYTES: u32 = 1 << 25;
    const ALL: u32 = BF16 | TILES | BYTES;
    let leaves = __cpuid(0).eax;
    leaves >= 7 && __cpuid_count(7, 0).edx & ALL == ALL
}

/// Asks Linux for the registers, which it keeps room for once asked; threads that begin later have the permission too, as do those
/// there are. It says no when it does not know the registers, or when a signal handler's stack is too small for them.
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_int = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    // SAFETY: the call takes two numbers, and changes what later instructions may do, not what memory holds.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}
