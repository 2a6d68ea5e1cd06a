//! What a compiled Strang program needs to run, and nothing else: element types, tensors, sizes, the program itself,
//! the kernels it calls, the thread team and the sessions that execute it. This crate knows no compiler: a program
//! that only executes models links this crate alone.

pub mod element;
pub mod kernels;
pub mod program;
pub mod size;
pub mod team;
pub mod tensor;

pub use element::ElementType;
pub use size::{Bindings, Size};
pub use tensor::Tensor;
