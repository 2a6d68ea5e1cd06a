//! What a compiled program is: buffers, functions and a tree of steps, with every size still a polynomial over symbols.
//!
//! The compiler writes it; a session binds symbols to numbers, places the buffers of the arena, turns the arguments of
//! every step into one array of 64-bit words and runs the steps. Nothing is compiled when sizes change.

use crate::{ElementType, Size, Tensor};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A compiled program.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// The symbols that inputs bind, with the size that costs were estimated with.
    pub symbols: Vec<Symbol>,
    /// What a run reads, in order.
    pub inputs: Vec<Port>,
    /// What a run writes, in order.
    pub outputs: Vec<Port>,
    /// Memory that lives from run to run, zero at first.
    pub states: Vec<Port>,
    /// Conditions on the symbols that a session checks when it binds them.
    pub checks: Vec<Check>,
    /// Constant data: packed weights, tables, and weights left mapped from their file.
    pub weights: Vec<Tensor>,
    /// The numbers of weights whose elements need not be aligned, because nothing but machine code reads them.
    pub unaligned: Vec<u32>,
    /// Pieces of memory that kernels read and write.
    pub buffers: Vec<Buffer>,
    /// What kernels call.
    pub functions: Vec<Function>,
    /// Machine code of the generated functions: position-independent, without relocations.
    pub code: Vec<u8>,
    /// What a run does.
    pub body: Vec<Step>,
}

/// A symbol and a representative value for estimates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Symbol {
    /// Its name in sizes.
    pub name: Arc<str>,
    /// The value that the compiler estimated costs with.
    pub representative: i64,
}

/// An input, an output or a state. Its bytes are dense and row-major.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The user's name for it.
    pub name: Arc<str>,
    /// The type of an element.
    pub element: ElementType,
    /// The sizes of its axes, outermost first.
    pub shape: Vec<Size>,
}

/// A condition on sizes: `size >= 0` must hold when they are bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What must not be negative.
    pub size: Size,
    /// What is wrong when it is, naming the layer and the axes.
    pub message: String,
}

/// A piece of memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buffer {
    /// Where it lies.
    pub base: Base,
    /// How long it is.
    pub bytes: Size,
    /// The first and last step that touch it, in the depth-first numbering of all kernel and host steps (steps inside
    /// a `Repeat` or an `If` count once). A buffer that must survive a `Repeat` covers all of its steps.
    pub live: (u32, u32),
    /// What of it must be filled before the first step that touches it (halos of padded images).
    pub zeroed: Vec<Zeroed>,
}

/// Pieces of a buffer that are one byte everywhere at first, all of one length and at one distance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zeroed {
    /// Bytes from the start of the buffer to the first piece.
    pub offset: Size,
    /// The length of a piece in bytes.
    pub bytes: Size,
    /// The number of pieces.
    pub count: Size,
    /// Bytes from the start of one to the start of the next.
    pub stride: Size,
    /// What every byte is: zero, but for images of bytes in which another stands for zero.
    pub byte: u8,
}

impl Zeroed {
    /// One piece from the start of the buffer.
    pub fn start(bytes: Size) -> Self {
        Zeroed { offset: Size::ZERO, bytes, count: Size::ONE, stride: Size::ZERO, byte: 0 }
    }
}

/// What a buffer is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Base {
    /// The session's scratch memory: placed by live range when sizes are bound, 64-byte aligned.
    Arena,
    /// An input of the program.
    Input(u32),
    /// An output of the program.
    Output(u32),
    /// A state of the session.
    State(u32),
    /// A tensor of [`Program::weights`].
    Weights(u32),
}

/// A kernel's code, called as [`KernelFunction`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Function {
    /// Bytes of [`Program::code`], from `offset` (a multiple of 64).
    Generated {
        /// Where the code starts.
        offset: u32,
        /// How long it is.
        length: u32,
    },
    /// A kernel of this crate with the same calling convention, by its name in `kernels::builtin`.
    Builtin(Arc<str>),
}

/// The calling convention of kernels: runs tiles `lo..hi` of the grid of `step` (its arguments, one 64-bit word each),
/// with `scratch` (64-byte aligned, private to the worker), and returns a [`status`].
///
/// # Safety
/// The arguments are what the compiler planned for this function, every address valid for what it touches.
pub type KernelFunction =
    unsafe extern "C" fn(context: *const Context, step: *const u64, scratch: *mut u8, lo: u64, hi: u64) -> u32;

/// What every kernel may ask of the worker that runs it. Generated code reads it by field offset.
#[derive(Debug)]
#[repr(C)]
pub struct Context {
    /// The table of micro-kernels for this CPU (`kernels::table::KernelTable`).
    pub kernels: *const core::ffi::c_void,
    /// The iteration of each enclosing `Repeat`, outermost first.
    pub counters: [u64; 4],
    /// Which worker of the team this is.
    pub worker: u64,
}

/// Results of a kernel.
pub mod status {
    /// All went well.
    pub const OK: u32 = 0;
    /// An index read from data lies outside the axis it selects from.
    pub const INDEX_OUT_OF_RANGE: u32 = 1;
    /// A custom operation failed.
    pub const CUSTOM_FAILED: u32 = 2;
}

/// One step of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Runs a function over a grid, shared among the workers.
    Kernel(KernelStep),
    /// Runs steps a number of times, one after the other.
    Repeat {
        /// How often, at most.
        count: Size,
        /// When given: the `bool` there is read before each iteration, and false ends the loop.
        condition: Option<Address>,
        /// What is repeated.
        body: Vec<Step>,
    },
    /// Runs one of two lists of steps.
    If {
        /// Where the `bool` lies that chooses.
        condition: Address,
        /// Run when it is true.
        then: Vec<Step>,
        /// Run when it is false.
        otherwise: Vec<Step>,
    },
    /// Calls a custom operation of the embedder on worker 0.
    Host {
        /// The name it was registered under.
        name: Arc<str>,
        /// What it reads: where, and the shape there.
        operands: Vec<(Address, Port)>,
        /// What it writes.
        results: Vec<(Address, Port)>,
        /// The layer, for errors and profiles.
        label: Arc<str>,
    },
}

/// A kernel over a grid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelStep {
    /// The position in [`Program::functions`].
    pub function: u32,
    /// The words the function reads, in order.
    pub arguments: Vec<Argument>,
    /// The number of tiles.
    pub grid: Size,
    /// Bytes of private scratch that a worker needs.
    pub scratch: Size,
    /// Work, for profiles.
    pub cost: Cost,
    /// The user's layer, for errors and profiles.
    pub label: Arc<str>,
    /// What kind of kernel this is (`gemm`, `loop`, ...), for profiles.
    pub kind: Arc<str>,
}

/// Arithmetic and traffic of a kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Floating-point operations, a fused multiply-add counting two.
    pub flops: Size,
    /// Bytes of operands read and results written, each once.
    pub bytes: Size,
}

/// One word of a step.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Argument {
    /// An address.
    Address(Address),
    /// A size, as a signed 64-bit integer.
    Size(Size),
}

/// A place in a buffer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Address {
    /// The position in [`Program::buffers`].
    pub buffer: u32,
    /// Bytes from its start.
    pub offset: Size,
}
