//! The innermost loops: what generated code calls because Cranelift has 128-bit vectors only.
//!
//! Every kernel is written once, generically over a vector type, instantiated for each [`Level`] and reached through a
//! [`KernelTable`]. All levels give the same bits, but for products in bf16. Kernels allocate nothing, never panic on what generated code passes,
//! and know nothing of programs, tensors or threads: they see pointers, strides and counts.
//!
//! Adding a kernel: write `unsafe fn body<V: ...>(...)` marked `#[inline(always)]`, instantiate it with `per_level!`,
//! and add a line to the list in `table.rs`.

#[cfg(target_arch = "x86_64")]
mod amx;
pub mod attention;
pub mod bf16;
pub mod book;
pub mod builtin;
pub mod bytes;
pub mod depthwise;
pub mod fma;
pub mod gemm;
mod grouped;
pub(crate) mod lanes;
pub mod level;
pub(crate) mod math;
pub mod pack;
pub mod pooling;
pub mod rows;
pub mod scalar32;
pub mod scalar64;
pub mod single;
pub mod sort;
pub mod strips;
pub mod table;
pub mod window;

pub use level::{Level, LevelError};
pub use table::{Function, KernelTable, Parameter};
