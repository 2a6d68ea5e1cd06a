//! What planning refuses.

use strang_ir::{Node, Source};

/// Why a circuit cannot be planned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The compiler has no kernel for this.
    #[error("{layer}: {reason}")]
    Unsupported {
        /// The user's layer.
        layer: String,
        /// What is missing, and what would work.
        reason: String,
    },
    /// A node computes more than any machine can.
    #[error("{layer}: {sizes}: these are more than 2^56 positions together, which nothing can compute")]
    TooLarge {
        /// The user's layer.
        layer: String,
        /// The axes of the computation with their sizes.
        sizes: String,
    },
    /// A parameter has no data.
    #[error("the parameter `@{0}` has no data; give its values in a .safetensors file")]
    MissingParameter(String),
    /// Compile-time evaluation of constant nodes failed.
    #[error("{layer}: {reason}")]
    Constant {
        /// The user's layer.
        layer: String,
        /// What went wrong.
        reason: String,
    },
}

/// The user's name for a node: the node of the ONNX file, else the value's name.
pub fn layer_of(node: &Node) -> String {
    match &node.source {
        Source::Onnx(name) if !name.is_empty() => name.to_string(),
        _ => format!("%{}", node.outputs.first().map_or("", |output| &output.name)),
    }
}
