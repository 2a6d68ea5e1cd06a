//! What can be wrong with a circuit: one enum, every variant naming the layer, the axes and the sizes.

use crate::Source;
use std::fmt;

/// A mistake in a circuit, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CircuitError {
    /// What is wrong (boxed: results stay small where nothing is).
    pub kind: Box<Mistake>,
    /// The name of the value or function where it is, as printed: `%x`, `@weight`.
    pub at: String,
    /// Where that came from: a span of text or a node of an ONNX file.
    pub source: Source,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mistake {
    /// An operation has a number of operands that it does not take.
    #[error("`{op}` takes {expected} operands, not {found}")]
    OperandCount {
        /// Its name.
        op: &'static str,
        /// What it takes.
        expected: String,
        /// What it has.
        found: usize,
    },
    /// A map has a number of expressions other than the operand's rank.
    #[error("operand {slot} has {rank} axes, but {found} index expressions are given")]
    Rank {
        /// Which operand.
        slot: usize,
        /// Its rank.
        rank: usize,
        /// The number of expressions.
        found: usize,
    },
    /// An operand is read outside its extents.
    #[error(
        "operand {slot} is read at `{expression}` on axis {axis}, which reaches {reaches}, but the axis has {size}; a fill would say what lies outside"
    )]
    OutOfRange {
        /// Which operand.
        slot: usize,
        /// Which axis of it, as position and name.
        axis: String,
        /// The expression.
        expression: String,
        /// The smallest or largest position read.
        reaches: String,
        /// The size of the axis.
        size: String,
    },
    /// Element types that do not go together.
    #[error("{0}")]
    Types(String),
    /// Sizes that do not go together.
    #[error("{0}")]
    Sizes(String),
    /// A reference to something that does not exist, a cycle, or another broken structure.
    #[error("{0}")]
    Structure(String),
}

impl CircuitError {
    /// A mistake at a named place.
    pub fn new(kind: Mistake, at: impl Into<String>, source: &Source) -> Self {
        CircuitError { kind: Box::new(kind), at: at.into(), source: source.clone() }
    }
}

impl fmt::Display for CircuitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.kind)?;
        if let Source::Onnx(name) = &self.source {
            write!(f, " (node `{name}`)")?;
        }
        Ok(())
    }
}

impl std::error::Error for CircuitError {}
