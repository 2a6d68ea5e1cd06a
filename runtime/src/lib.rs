//! What a compiled Strang program needs to run, and nothing else: element types, tensors, sizes, the program itself,
//! the kernels it calls, the thread team and the sessions that execute it. This crate knows no compiler: a program
//! that only executes models links this crate alone.

mod code;
pub mod custom;
pub mod element;
mod execute;
pub mod kernels;
pub mod mapping;
mod memory;
pub mod profile;
pub mod program;
pub mod session;
pub mod size;
pub mod team;
pub mod tensor;

pub use code::{Code, CodeError};
pub use custom::{CustomKernel, Operands, Operations, Results};
pub use element::ElementType;
pub use profile::Profile;
pub use session::{BindError, Executable, LoadError, RunError, Session, SessionOptions};
pub use size::{Bindings, Size};
pub use tensor::Tensor;
