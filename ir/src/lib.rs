//! Strang's circuits: neural networks as graphs of contractions, maps, reductions and views over indexed arrays.
//!
//! | module | what |
//! |---|---|
//! | [`axis`] | axes and index variables |
//! | [`index`] | index expressions and index maps: how an operand is read |
//! | [`literal`], [`scalar`] | typed numbers and the scalar expressions of `map` |
//! | [`op`] | the closed set of operations |
//! | [`circuit`], [`canonical`] | nodes, functions, modules; nodes up to the names of variables |
//! | [`shared`] | values that copies share until one changes |
//! | [`digest`] | digests of constant data |
//! | [`mod@diff`] | how two modules differ |
//! | [`mod@text`], [`json`] | the two written forms: parse and print |
//! | [`mod@verify`] | whether a module is sound |
//! | [`define`] | composite operations in terms of others |
//! | [`analysis`] | work and memory of circuits |
//! | [`interpret`] | the reference interpreter |
//! | `random` | random circuits for property tests (feature `testing`) |
//! | [`error`] | what can be wrong with a circuit, and where |

pub mod analysis;
pub mod axis;
pub mod canonical;
pub mod circuit;
pub mod define;
pub mod diff;
pub mod digest;
pub mod error;
pub mod generator;
pub mod index;
pub mod interpret;
pub mod json;
pub mod literal;
pub mod op;
#[cfg(any(test, feature = "testing"))]
pub mod random;
pub mod scalar;
pub mod shared;
pub mod text;
pub mod verify;

pub use axis::{Axis, Variable};
pub use circuit::{Edge, Function, FunctionId, Module, Node, Output, Parameter, SharedNode, Source, Value};
pub use digest::Digest;
pub use error::CircuitError;
pub use index::{Atom, Condition, IndexExpr, IndexMap};
pub use literal::Literal;
pub use op::Op;
pub use scalar::ScalarExpr;
pub use shared::Shared;
pub use strang_runtime::{Bindings, ElementType, Size, Tensor};
