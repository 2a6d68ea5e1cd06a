//! The closed set of operations. A node is an operation together with its variables and one index map per operand; the
//! operation itself says only what the maps and variables do not.

use crate::{Axis, FunctionId, IndexExpr, Literal, ScalarExpr};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};
use strang_runtime::ElementType;

/// What a node computes.
///
/// The *output variables* of a node are those of its first output. Unless an operation says otherwise, every operand
/// is read through its index map at every position of the node's variables, and the variables that are not output
/// variables are *contracted*: combined in the order in which the node lists them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// An input of the function, by position. No operands.
    Input(u32),
    /// A parameter of the module, by position. No operands.
    Param(u32),
    /// One number, rank 0. No operands.
    Const(Literal),
    /// The product of all operands, summed over the contracted variables: one fused-multiply-add chain from +0 in the
    /// node's order, skipping positions where an operand reads a zero fill. Operands share one type, or are integers of any
    /// types, or f32 beside one type of 16 bits, to which f32 is rounded then ([`factor`]); the result has the output's type, rounded once from the accumulator.
    Dot {
        /// The type in which products are summed.
        accumulator: ElementType,
    },
    /// A scalar expression of the operands' values at each position. Nothing is contracted.
    Map(ScalarExpr),
    /// One operand, combined over the contracted variables.
    Reduce(Monoid),
    /// The position, along one contracted variable, of the largest or smallest value (i64).
    #[serde(rename = "argreduce")]
    ArgReduce {
        /// The largest, else the smallest.
        largest: bool,
        /// Of equal values the last, else the first.
        last: bool,
    },
    /// Softmax over some of the output variables. One operand; nothing contracted.
    /// `exp(x - max) / sum(exp(x - max))`, or its logarithm `x - max - log(sum(exp(x - max)))`.
    Softmax {
        /// The variables that are normalised over, ascending.
        over: Vec<u32>,
        /// Whether the logarithm is the result.
        log: bool,
    },
    /// A normalisation over some of the output variables. Operand 0 is normalised; nothing contracted.
    Norm {
        /// Which one, and so what the other operands are.
        kind: Norm,
        /// The variables that statistics are taken over, ascending (empty for batch normalisation at inference).
        over: Vec<u32>,
        /// Added to the variance or mean square (f64 bits, so that nodes can be compared).
        epsilon: Literal,
    },
    /// The operand, read through its map. Nothing is contracted.
    View,
    /// The operands, one after the other along an output variable `v`. Operand `k` covers positions
    /// `offset_k..offset_k + size_k` of `v`; its map reads `v - offset_k` there, without fill.
    Concat {
        /// The variable.
        along: u32,
        /// Where each operand starts, and one past the end of the last.
        offsets: Vec<strang_runtime::Size>,
    },
    /// Operand 0, read where its map says with `Atom::Read(k)` being the value of operand `k` at this position. Nothing
    /// is contracted. An index outside the operand is an error of the run, unless the map has a fill.
    Gather,
    /// A copy of operand 0 into which the updates (operand 1) are combined. Operand 0 and the output are indexed by the
    /// output variables alone. For every position of the variables that the updates and index operands mention (in the
    /// node's order), the update goes to the element of the output whose axes have the values of `target`.
    /// An index outside the output is an error of the run.
    Scatter {
        /// How an update meets what is there; `None` replaces it (later updates win).
        reduction: Option<Monoid>,
        /// One expression per output axis over those variables, with `Atom::Read(k)` for index operand `k >= 2`.
        target: Vec<IndexExpr>,
    },
    /// A function applied along a variable, with state. Maps have plain variables only. The first `states` operands
    /// are initial states (without `along`), the others are inputs: those that mention `along` are sliced, those that do
    /// not are given whole to every iteration. The body takes the states and the inputs and returns the states and the
    /// results of an iteration; the node's outputs are the last states, then every result stacked along `along`.
    Scan {
        /// The body.
        body: FunctionId,
        /// The variable iterated over.
        along: u32,
        /// From the last position to the first.
        reverse: bool,
        /// The number of states.
        states: u32,
    },
    /// The values of operand 0 along a variable in order, and their positions (i64): two outputs. With fewer positions
    /// in `kept` than in `along`, the first ones (top-k). Stable: of equal values the lower position comes first; NaN
    /// counts as the largest.
    Sort {
        /// The variable that is sorted along (contracted).
        along: u32,
        /// The output variable that takes its place.
        kept: u32,
        /// From the largest down.
        descending: bool,
    },
    /// One of two functions of the operands after the first, chosen by the `bool` operand 0 (rank 0). All maps are
    /// identities; the outputs are those of the functions.
    If {
        /// Called when it is true.
        then: FunctionId,
        /// Called when it is false.
        otherwise: FunctionId,
    },
    /// Operand 0: the largest number of iterations (i64, rank 0); operand 1: whether to begin (`bool`, rank 0); then the
    /// states. The body takes the iteration (i64, rank 0) and the states, and returns whether to go on and the states.
    Loop {
        /// The body.
        body: FunctionId,
    },
    /// A function of the operands.
    Call(FunctionId),
    /// An operation registered by the program that embeds Strang.
    Custom {
        /// The name it is registered under.
        name: Arc<str>,
        /// What it is given beside its operands.
        attributes: BTreeMap<String, String>,
    },
}

/// How values combine in a reduction or a scatter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Monoid {
    /// Sum from +0, in the node's order (f16 and bf16 in f32; integers wrap).
    Sum,
    /// Product from 1.
    Product,
    /// The smallest, from the type's highest value.
    #[serde(rename = "min")]
    Minimum,
    /// The largest, from the type's lowest value.
    #[serde(rename = "max")]
    Maximum,
    /// Logical or bitwise and.
    And,
    /// Logical or bitwise or.
    Or,
}

impl Monoid {
    /// Every monoid.
    pub const ALL: [Monoid; 6] =
        [Monoid::Sum, Monoid::Product, Monoid::Minimum, Monoid::Maximum, Monoid::And, Monoid::Or];

    /// The name in the text format.
    pub const fn name(self) -> &'static str {
        match self {
            Monoid::Sum => "sum",
            Monoid::Product => "product",
            Monoid::Minimum => "min",
            Monoid::Maximum => "max",
            Monoid::And => "and",
            Monoid::Or => "or",
        }
    }

    /// What combines with any value to that value.
    pub fn neutral(self, element: ElementType) -> Literal {
        match self {
            Monoid::Sum | Monoid::Or => Literal::zero(element),
            Monoid::Product => Literal::one(element),
            Monoid::Minimum => Literal::highest(element),
            Monoid::Maximum => Literal::lowest(element),
            Monoid::And => match element.integer_range() {
                Some((low, high)) => Literal::from_integer(element, if low < 0 { -1 } else { high }),
                None => Literal::one(element),
            },
        }
    }
}

/// Normalisations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Norm {
    /// `(x - mean) / sqrt(variance + epsilon) * gain + bias`; operands x, gain and optionally bias (Ba et al., 2016).
    Layer,
    /// `x / sqrt(mean(x^2) + epsilon) * gain`; operands x and gain (Zhang and Sennrich, 2019).
    Rms,
    /// `(x - mean) / sqrt(variance + epsilon) * gain + bias`; operands x, gain, bias, mean, variance (Ioffe and Szegedy,
    /// 2015, at inference).
    Batch,
}

impl Norm {
    /// The name in the text format.
    pub const fn name(self) -> &'static str {
        match self {
            Norm::Layer => "layer",
            Norm::Rms => "rms",
            Norm::Batch => "batch",
        }
    }
}

impl Op {
    /// The name in the text format.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input(_) => "input",
            Op::Param(_) => "param",
            Op::Const(_) => "const",
            Op::Dot { .. } => "dot",
            Op::Map(_) => "map",
            Op::Reduce(_) => "reduce",
            Op::ArgReduce { .. } => "argreduce",
            Op::Softmax { .. } => "softmax",
            Op::Norm { .. } => "norm",
            Op::View => "view",
            Op::Concat { .. } => "concat",
            Op::Gather => "gather",
            Op::Scatter { .. } => "scatter",
            Op::Scan { .. } => "scan",
            Op::Sort { .. } => "sort",
            Op::If { .. } => "if",
            Op::Loop { .. } => "loop",
            Op::Call(_) => "call",
            Op::Custom { .. } => "custom",
        }
    }

    /// The functions that the operation calls.
    pub fn functions(&self) -> Vec<FunctionId> {
        match self {
            Op::Scan { body, .. } | Op::Loop { body } | Op::Call(body) => vec![*body],
            Op::If { then, otherwise } => vec![*then, *otherwise],
            _ => vec![],
        }
    }

    /// Whether each output element depends on one element of each operand only, at a position that the maps fix.
    pub fn is_elementwise(&self) -> bool {
        matches!(self, Op::Map(_) | Op::View | Op::Norm { kind: Norm::Batch, .. })
    }

    /// Whether the result is linear in the operand of this slot (the others fixed).
    pub fn is_linear_in(&self, slot: usize) -> bool {
        match self {
            Op::Dot { .. } | Op::View | Op::Concat { .. } | Op::Reduce(Monoid::Sum) => true,
            Op::Gather => slot == 0,
            Op::Scatter { reduction: Some(Monoid::Sum), .. } => slot < 2,
            _ => false,
        }
    }

    /// How the result over an axis can be put together from results over parts of it.
    pub fn streaming(&self) -> Streaming {
        match self {
            Op::Map(_) | Op::View | Op::Concat { .. } | Op::Gather => Streaming::Concatenation,
            Op::Dot { .. } => Streaming::Monoid(Monoid::Sum),
            Op::Reduce(monoid) => Streaming::Monoid(*monoid),
            Op::Softmax { .. } => Streaming::Rescaling,
            _ => Streaming::None,
        }
    }
}

/// The type in which a `dot` takes its float operands: their own, or, where f32 stands beside one type of 16 bits, that one, to
/// which numbers are rounded before they are multiplied, as instructions for such products do. `None` for other types.
pub fn factor(operands: &[ElementType]) -> Option<ElementType> {
    let first = *operands.first()?;
    let narrow = operands.iter().copied().find(|element| *element != ElementType::F32).unwrap_or(first);
    let fits = |element: &ElementType| *element == narrow || (*element == ElementType::F32 && narrow.bits() == 16);
    (narrow.is_float() && operands.iter().all(fits)).then_some(narrow)
}

/// The type of a `dot` where nothing else is said: that of floats that are all alike, else that of the sum.
pub fn product(operands: &[ElementType], accumulator: ElementType) -> ElementType {
    match operands.first() {
        Some(first) if first.is_float() && operands.iter().all(|element| element == first) => *first,
        _ => accumulator,
    }
}

/// How an operation streams along a contracted or normalised axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streaming {
    /// Parts are independent.
    Concatenation,
    /// Parts combine by a monoid.
    Monoid(Monoid),
    /// Parts combine by a monoid after rescaling (softmax; Milakov and Gimelshein, 2018).
    Rescaling,
    /// The whole axis is needed at once.
    None,
}

/// The shape of something as axes.
pub type Shape = Vec<Axis>;
