//! Kernels of whole steps, which programs call by name where generated code would gain nothing.
//!
//! They have the calling convention of generated kernels. Beside the function, each entry says how far from its addresses
//! it reads and writes, so that a session refuses a program that passes too little memory.

use super::sort;
use crate::program::KernelFunction;

/// A kernel that programs call by name.
#[derive(Clone, Copy, Debug)]
pub struct Builtin {
    /// The name in [`crate::program::Function::Builtin`].
    pub name: &'static str,
    /// The code.
    pub function: KernelFunction,
    /// What is wrong with the arguments, the number of tiles and the bytes of scratch of a step, if anything.
    pub check: fn(&[Word], u64, u64) -> Result<(), String>,
}

/// An argument, as far as a check needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// An address: from there to the end of its buffer there are that many bytes.
    Bytes(u64),
    /// A size.
    Size(i64),
}

static BUILTINS: [Builtin; 1] = [sort::BUILTIN];

/// The kernel of a name.
pub fn find(name: &str) -> Option<&'static Builtin> {
    let found = BUILTINS.iter().find(|builtin| builtin.name == name);
    #[cfg(test)]
    let found = found.or_else(|| crate::session::tests::kernels::find(name));
    found
}
