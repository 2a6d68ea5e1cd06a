//! What can go wrong with a program, with the sizes it is given, and during a run. Every message says whose layer or
//! port it is about.

use crate::{ElementType, Size, code::CodeError, kernels::LevelError, size::SizeError, tensor::TensorError};
use std::{fmt, sync::Arc};

/// Why a program cannot be loaded. But for the last three, the program is malformed: its compiler is at fault.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A part of the program refers to an entry of a list that is not there.
    #[error("malformed program: {place} refers to {what} {index}, but there are {count}")]
    Missing {
        /// Who refers.
        place: String,
        /// The list.
        what: &'static str,
        /// The entry.
        index: u32,
        /// The length of the list.
        count: usize,
    },
    /// A size mentions a symbol that the program does not declare.
    #[error("malformed program: {place} depends on the symbol `{symbol}`, which the program does not declare")]
    Symbol {
        /// Whose size it is.
        place: String,
        /// The symbol.
        symbol: Arc<str>,
    },
    /// Two symbols have one name.
    #[error("malformed program: the symbol `{symbol}` is declared twice")]
    DuplicateSymbol {
        /// The symbol.
        symbol: Arc<str>,
    },
    /// A function is not a part of the code.
    #[error(
        "malformed program: function {function} takes bytes {offset}..{} of {code} bytes of code; functions start at \
         multiples of 64 and are not empty",
        u64::from(*offset) + u64::from(*length)
    )]
    Function {
        /// Which one.
        function: u32,
        /// Where it starts.
        offset: u32,
        /// How long it is.
        length: u32,
        /// The length of the code.
        code: usize,
    },
    /// A step touches a buffer outside the steps that it is live in.
    #[error("malformed program: {place} touches buffer {buffer}, which is live in steps {} to {} alone", live.0, live.1)]
    Live {
        /// The step.
        place: String,
        /// The buffer.
        buffer: u32,
        /// The steps.
        live: (u32, u32),
    },
    /// A step writes an input or a weight.
    #[error("malformed program: {place} writes buffer {buffer}, which is an input or a weight")]
    ReadOnly {
        /// The step.
        place: String,
        /// The buffer.
        buffer: u32,
    },
    /// Steps are nested too deeply.
    #[error("malformed program: {what} are nested more than {limit} deep")]
    Nesting {
        /// Which steps.
        what: &'static str,
        /// How deep they may be.
        limit: usize,
    },
    /// A list is too long for 32-bit positions.
    #[error("malformed program: it has more than 2^32 {what}")]
    TooMany {
        /// The list.
        what: &'static str,
    },
    /// The program calls a kernel that this version of the runtime does not have.
    #[error("the program calls the kernel `{name}`, which this version of Strang does not have: compile it again")]
    Builtin {
        /// The kernel.
        name: Arc<str>,
    },
    /// The program calls a custom operation that is not registered.
    #[error("layer `{label}` calls the custom operation `{name}`, which is not registered; registered are: {known}")]
    Operation {
        /// The layer.
        label: Arc<str>,
        /// The operation.
        name: Arc<str>,
        /// The names that are.
        known: String,
    },
    /// A misaligned weight cannot be copied.
    #[error("a weight cannot be aligned: {0}")]
    Weight(#[from] TensorError),
    /// The code cannot be made executable.
    #[error(transparent)]
    Code(#[from] CodeError),
    /// The CPU level that the environment asks for.
    #[error(transparent)]
    Level(#[from] LevelError),
}

/// What is wrong with a tensor that is given for an input or an output.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// The number of tensors.
    #[error("the program has {expected} {direction}s, not {found}")]
    Count {
        /// Inputs or outputs.
        direction: Direction,
        /// How many the program has.
        expected: usize,
        /// How many were given.
        found: usize,
    },
    /// The element type.
    #[error("{direction} `{name}` has elements of {expected}, not {found}")]
    Element {
        /// Input or output.
        direction: Direction,
        /// The port.
        name: Arc<str>,
        /// The type of the port.
        expected: ElementType,
        /// The type of the tensor.
        found: ElementType,
    },
    /// The number of axes.
    #[error("{direction} `{name}` has {expected} axes, not {found}")]
    Rank {
        /// Input or output.
        direction: Direction,
        /// The port.
        name: Arc<str>,
        /// The number of the port's axes.
        expected: usize,
        /// The number of the tensor's axes.
        found: usize,
    },
    /// The size of an axis.
    #[error(
        "axis {axis} of {direction} `{name}` has {expected}{} elements, not {found}",
        symbolic(size, *expected)
    )]
    Axis {
        /// Input or output.
        direction: Direction,
        /// The port.
        name: Arc<str>,
        /// The axis, from 0.
        axis: usize,
        /// Its size in the program.
        size: Size,
        /// The value of that size.
        expected: i64,
        /// The size of the tensor's axis.
        found: usize,
    },
}

fn symbolic(size: &Size, value: i64) -> String {
    if size.is(value) { String::new() } else { format!(" (`{size}`)") }
}

/// Which side of a program a port is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Read by a run.
    Input,
    /// Written by a run.
    Output,
}

impl fmt::Display for Direction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Direction::Input => "input",
            Direction::Output => "output",
        })
    }
}

/// Why a program cannot run with some sizes.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A symbol has no value.
    #[error("the size `{symbol}` is not given")]
    Unbound {
        /// The symbol.
        symbol: Arc<str>,
    },
    /// The program has no such symbol.
    #[error("the program has no size `{symbol}`; its sizes are: {known}")]
    UnknownSymbol {
        /// The symbol that was given.
        symbol: Arc<str>,
        /// The symbols there are.
        known: String,
    },
    /// A symbol is negative.
    #[error("the size `{symbol}` is {value}, and sizes are not negative")]
    NegativeSymbol {
        /// The symbol.
        symbol: Arc<str>,
        /// Its value.
        value: i64,
    },
    /// The tensors do not fit the ports.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The shapes of the inputs do not determine a symbol.
    #[error("the shapes of the inputs do not determine the size `{symbol}`: bind it by hand")]
    Undetermined {
        /// The symbol.
        symbol: Arc<str>,
    },
    /// No value of a symbol gives an axis the size it has.
    #[error("axis {axis} of input `{name}` has `{size}` elements, which cannot be {found}")]
    NoSolution {
        /// The input.
        name: Arc<str>,
        /// The axis, from 0.
        axis: usize,
        /// Its size in the program.
        size: Size,
        /// The size of the tensor's axis.
        found: usize,
    },
    /// A condition of the program fails.
    #[error("{message} (with {bindings}, `{size}` is {value}, and must not be negative)")]
    Check {
        /// What the compiler says about it.
        message: String,
        /// What must not be negative.
        size: Size,
        /// Its value.
        value: i64,
        /// The sizes given.
        bindings: String,
    },
    /// A size has no value.
    #[error("with {bindings}: {error}")]
    Size {
        /// Why.
        error: SizeError,
        /// The sizes given.
        bindings: String,
    },
    /// A length is negative.
    #[error("with {bindings}, {place} is `{size}` = {value}, which is negative")]
    Negative {
        /// What it is the length of.
        place: String,
        /// The length.
        size: Size,
        /// Its value.
        value: i64,
        /// The sizes given.
        bindings: String,
    },
    /// Memory that a step touches is not in its buffer, or a buffer is longer than what it is a part of.
    #[error("malformed program: with {bindings}, {place} needs {needed} bytes, and there are {available}")]
    Bounds {
        /// Who needs them.
        place: String,
        /// How many.
        needed: i128,
        /// How many there are.
        available: u64,
        /// The sizes given.
        bindings: String,
    },
    /// A builtin kernel is given wrong arguments.
    #[error("malformed program: layer `{label}` calls kernel `{kernel}`, but {reason}")]
    Arguments {
        /// The layer.
        label: Arc<str>,
        /// The kernel.
        kernel: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The arrays of a custom operation overlap.
    #[error("malformed program: results of the custom operation of layer `{label}` overlap its other arrays")]
    Overlap {
        /// The layer.
        label: Arc<str>,
    },
    /// The sizes do not fit memory.
    #[error("with {bindings}, {what} does not fit 64 bits")]
    TooLarge {
        /// What is too large.
        what: String,
        /// The sizes given.
        bindings: String,
    },
    /// The system has no room.
    #[error("no memory for {bytes} bytes: {reason}")]
    Memory {
        /// How many.
        bytes: u64,
        /// What the system said.
        reason: std::io::Error,
    },
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The sizes of the inputs are refused.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The tensors do not fit the ports.
    #[error(transparent)]
    Port(#[from] PortError),
    /// No memory for the results.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// An index in the data lies outside the axis that it selects from.
    #[error("layer `{label}`: an index in the data lies outside the axis that it selects from")]
    Index {
        /// The layer.
        label: Arc<str>,
    },
    /// A custom operation failed.
    #[error("layer `{label}`: the custom operation `{name}` failed: {message}")]
    Custom {
        /// The layer.
        label: Arc<str>,
        /// The operation.
        name: Arc<str>,
        /// What it said.
        message: String,
    },
    /// A kernel returned a status that the runtime does not know.
    #[error("layer `{label}`: the kernel failed with status {status}")]
    Status {
        /// The layer.
        label: Arc<str>,
        /// The status.
        status: u32,
    },
    /// The run was cancelled.
    #[error("the run was cancelled")]
    Cancelled,
}
