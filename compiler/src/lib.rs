//! From circuits to programs: import of model files, rewriting with egg, planning of kernels and memory, code generation
//! with Cranelift.

pub mod approximate;
pub mod codegen;
pub mod cut;
pub mod import;
mod pieces;
pub mod plan;
pub mod precision;
pub mod quantise;
pub mod rewrite;
