//! Planning: which nodes become one kernel, where arrays lie, and how every kernel reads and writes them.

pub mod kernel;

pub use kernel::{Kernel, Plan};
