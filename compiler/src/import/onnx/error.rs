//! What can be wrong with a model file. Every variant names the node and the operator, or the tensor, and says what
//! would work where that is known.

use std::{fmt, path::PathBuf};

/// A node of the model, as errors name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The node's name, or its operator and position where it has none.
    pub node: String,
    /// The operator.
    pub operator: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node `{}` ({})", self.node, self.operator)
    }
}

/// Why a model cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The bytes are not an ONNX model.
    #[error("this is not an ONNX model, or it is cut short: {reason}")]
    Malformed {
        /// What the decoder met.
        reason: String,
    },
    /// The model as a whole is broken or beyond what is supported.
    #[error("{reason}")]
    Model {
        /// What is wrong, and what would work.
        reason: String,
    },
    /// A constant tensor cannot be used.
    #[error("tensor `{name}`: {reason}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// An input or output of the graph cannot be used.
    #[error("graph {what} `{name}`: {reason}")]
    Port {
        /// `input` or `output`.
        what: &'static str,
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// An operator that is not supported.
    #[error("{place}: the operator {domain}{} of opset {version} is not supported: {reason}", place.operator)]
    Operator {
        /// Where.
        place: Place,
        /// Its domain with a dot behind it, or nothing for the default domain.
        domain: String,
        /// The version of the domain that the model imports.
        version: i64,
        /// Why, and what would work.
        reason: String,
    },
    /// An attribute that is wrong or not supported.
    #[error("{place}: attribute `{attribute}`: {reason}")]
    Attribute {
        /// Where.
        place: Place,
        /// Its name.
        attribute: String,
        /// What is wrong, and what would work.
        reason: String,
    },
    /// An operand that is wrong or not supported.
    #[error("{place}: input {slot}: {reason}")]
    Operand {
        /// Where.
        place: Place,
        /// Which, with its name: `1 ("weight")`.
        slot: String,
        /// What is wrong, and what would work.
        reason: String,
    },
    /// Operands that do not go together, or a use that is not supported.
    #[error("{place}: {reason}")]
    Node {
        /// Where.
        place: Place,
        /// What is wrong, and what would work.
        reason: String,
    },
    /// A parameter file that does not fit the module.
    #[error("{}: {reason}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What does not fit, naming both sides.
        reason: String,
    },
}
