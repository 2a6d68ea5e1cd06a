//! Circuits as e-graphs: terms, signatures, what is known of a class, what changed, and the constructor of terms.

pub mod build;
pub mod changes;
pub mod compose;
pub mod facts;
pub mod signature;
pub mod term;

pub use build::Read;
use egg::EGraph;
pub use facts::{Facts, Knowledge};
pub use term::{Tag, Term};

/// An e-graph of circuit terms.
pub type Graph = EGraph<Term, Knowledge>;
