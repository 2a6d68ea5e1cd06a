//! A loaded program: checked, its sizes in one table, its addresses in one list of words, its steps with their kernels
//! found. Everything that does not depend on the values of symbols is done here once, for all sessions.

use super::{
    late::Late,
    sizes::{SizeId, SizeTable},
};
use crate::{
    ElementType, Tensor,
    code::Code,
    custom::CustomKernel,
    kernels::{KernelTable, builtin::Builtin},
    program::{Base, KernelFunction, Port, Symbol},
};
use std::{fmt, ops::Range, sync::Arc};

/// A loaded program.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(super) sizes: SizeTable,
    pub(super) symbols: Vec<Symbol>,
    pub(super) inputs: Vec<PlanPort>,
    pub(super) outputs: Vec<PlanPort>,
    pub(super) states: Vec<PlanPort>,
    pub(super) checks: Vec<(SizeId, String)>,
    pub(super) weights: Vec<Tensor>,
    /// Those of them that are not there yet.
    pub(crate) late: Late,
    pub(super) buffers: Vec<PlanBuffer>,
    /// The words of all steps: the arguments of kernels, and the places of conditions, arrays and fills.
    pub(super) words: Vec<WordSource>,
    pub(crate) kernels: Vec<PlanKernel>,
    pub(crate) customs: Vec<PlanCustom>,
    pub(super) fills: Vec<PlanFill>,
    pub(crate) body: Vec<Node>,
    /// The number of nodes: their identities lie below it.
    pub(super) nodes: u32,
    /// The number of kernel and host steps.
    pub(crate) steps: u32,
    /// The micro-kernels that kernels call.
    pub(crate) table: &'static KernelTable,
    /// Keeps the generated functions in memory.
    pub(super) _code: Box<dyn Code>,
    /// Bytes of machine code.
    pub(super) code_bytes: usize,
}

/// An input, an output or a state.
#[derive(Debug)]
pub(crate) struct PlanPort {
    pub(super) port: Port,
    pub(super) axes: Vec<SizeId>,
    /// For each axis, the symbol that its size is, if it is one: a position in [`Plan::symbols`].
    pub(super) symbols: Vec<Option<u32>>,
}

/// A buffer.
#[derive(Debug)]
pub(crate) struct PlanBuffer {
    pub(super) base: Base,
    pub(super) bytes: SizeId,
    pub(super) live: (u32, u32),
}

/// What a word is computed from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WordSource {
    Size(SizeId),
    Address { buffer: u32, offset: SizeId },
}

/// A kernel step.
pub(crate) struct PlanKernel {
    pub(crate) function: KernelFunction,
    pub(super) builtin: Option<&'static Builtin>,
    pub(crate) words: Range<u32>,
    pub(super) grid: SizeId,
    pub(super) scratch: SizeId,
    pub(super) flops: SizeId,
    pub(super) bytes: SizeId,
    pub(crate) label: Arc<str>,
    pub(crate) kind: Arc<str>,
    /// The position among all kernel and host steps.
    pub(crate) step: u32,
}

impl fmt::Debug for PlanKernel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} ({})", self.step, self.label, self.kind)
    }
}

/// A step that calls a custom operation.
pub(crate) struct PlanCustom {
    pub(crate) operation: Arc<dyn CustomKernel>,
    pub(crate) name: Arc<str>,
    pub(super) operands: Vec<PlanArray>,
    pub(super) results: Vec<PlanArray>,
    pub(crate) label: Arc<str>,
    pub(crate) step: u32,
}

impl fmt::Debug for PlanCustom {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} ({})", self.step, self.label, self.name)
    }
}

/// An array of a custom operation.
#[derive(Debug)]
pub(crate) struct PlanArray {
    pub(super) word: u32,
    pub(super) element: ElementType,
    pub(super) axes: Vec<SizeId>,
}

/// Pieces of a buffer that are filled with one byte; `word` is the address of the first.
#[derive(Debug)]
pub(crate) struct PlanFill {
    pub(super) word: u32,
    pub(super) bytes: SizeId,
    pub(super) count: SizeId,
    pub(super) stride: SizeId,
    pub(super) byte: u8,
}

/// A step with an identity.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: u32,
    pub(crate) action: Action,
}

/// What a node does. Numbers are positions in the lists of the plan; conditions are words.
#[derive(Debug)]
pub(crate) enum Action {
    Kernel(u32),
    Custom(u32),
    /// Fills from the first number to before the second.
    Fill(u32, u32),
    Repeat {
        count: SizeId,
        condition: Option<u32>,
        body: Vec<Node>,
    },
    If {
        condition: u32,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
}
