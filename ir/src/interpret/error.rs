//! Why a circuit has no value for given inputs.

use crate::CircuitError;
use strang_runtime::{ElementType, size::SizeError, tensor::TensorError};

/// Why interpretation fails.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InterpretError {
    /// The circuit is wrong whatever its inputs are.
    #[error(transparent)]
    Circuit(#[from] CircuitError),
    /// The number of inputs is not that of the function.
    #[error("the function takes {expected} inputs ({names}), not {found}")]
    InputCount {
        /// What it takes.
        expected: usize,
        /// Their names.
        names: String,
        /// What was given.
        found: usize,
    },
    /// An input has another element type.
    #[error("input `{input}` is of {expected}, not of {found}")]
    InputElement {
        /// Its name.
        input: String,
        /// What the circuit says.
        expected: ElementType,
        /// What was given.
        found: ElementType,
    },
    /// An input has another number of axes.
    #[error("input `{input}` has {expected} axes, not {found}")]
    InputRank {
        /// Its name.
        input: String,
        /// What the circuit says.
        expected: usize,
        /// What was given.
        found: usize,
    },
    /// An axis of an input has another size.
    #[error("axis {axis} of input `{input}` is {size} = {expected}, not {found}")]
    InputSize {
        /// The name of the input.
        input: String,
        /// The axis, as position and name.
        axis: String,
        /// Its size in the circuit.
        size: String,
        /// The value of that size, with what bound it.
        expected: String,
        /// What was given.
        found: usize,
    },
    /// A condition that the sizes must meet is not met.
    #[error("{0}")]
    Check(String),
    /// A size has no value.
    #[error("{at}: {error}")]
    Size {
        /// Where.
        at: String,
        /// Why.
        error: SizeError,
    },
    /// A size is negative.
    #[error("{at}: the size `{size}` is {value}")]
    NegativeSize {
        /// Where.
        at: String,
        /// The size.
        size: String,
        /// Its value.
        value: i64,
    },
    /// A parameter has no data, or data of another shape.
    #[error("parameter `{name}` {reason}")]
    Parameter {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An index read from data lies outside the axis it selects from.
    #[error("{at}: index {index} lies outside axis {axis} of operand {slot}, which has {size} positions")]
    Index {
        /// The node.
        at: String,
        /// Which operand.
        slot: usize,
        /// Which axis of it.
        axis: usize,
        /// The position that was asked for.
        index: i64,
        /// How many there are.
        size: usize,
    },
    /// A custom operation: the interpreter does not know it.
    #[error("{at}: the interpreter does not know the custom operation `{name}`")]
    Custom {
        /// The node.
        at: String,
        /// The operation.
        name: String,
    },
    /// An array has more elements than memory holds.
    #[error("an array {element}{shape:?} is too large for memory")]
    TooLarge {
        /// Its element type.
        element: ElementType,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// A tensor cannot be made.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// Something is asked for that the circuit does not have.
    #[error("{0}")]
    Missing(String),
}
