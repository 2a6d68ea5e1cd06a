//! What text says, before names are looked up: statements with their operands, index expressions and results. The parser
//! makes these from tokens, the builder from calls; both are lowered to nodes in the same way.

use super::error::Span;
use crate::op::{Monoid, Norm};
use crate::scalar::{Binary, Unary};
use std::{collections::BTreeMap, sync::Arc};
use strang_runtime::{ElementType, Size};

/// A name and where it stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Name {
    pub text: String,
    pub span: Span,
}

/// A number as written: sign and all, with its type if one is written.
#[derive(Clone, Debug)]
pub(crate) struct Number {
    /// `-0.5`, `inf`, `true`, `nan`.
    pub text: String,
    /// The bits of `nan(0x7fc00001)`.
    pub bits: Option<u64>,
    pub element: Option<ElementType>,
    pub span: Span,
}

/// `f32[b, s]`.
#[derive(Clone, Debug)]
pub(crate) struct ArrayType {
    pub element: ElementType,
    pub axes: Vec<Name>,
    pub span: Span,
}

/// The elements of a parameter.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Digest(Name),
    Values(Vec<Number>, Span),
}

#[derive(Clone, Debug)]
pub(crate) struct ParameterTree {
    pub name: Name,
    pub array: ArrayType,
    pub content: Option<Content>,
}

#[derive(Clone, Debug)]
pub(crate) struct FunctionTree {
    pub name: Name,
    pub inputs: Vec<(Name, ArrayType)>,
    pub outputs: Vec<(Option<Name>, ArrayType)>,
    pub statements: Vec<Statement>,
    pub states: Vec<(Name, StateOutput)>,
    pub results: Vec<Reference>,
    /// Where the results stand, or where they are missing.
    pub returns: Span,
}

/// The output of a state pair.
#[derive(Clone, Debug)]
pub(crate) enum StateOutput {
    /// The first output that is this value.
    Value(Name),
    /// An output by position.
    Position(u32, Span),
}

/// `%value` or `@parameter`.
#[derive(Clone, Debug)]
pub(crate) struct Reference {
    pub name: Name,
    pub global: bool,
}

/// `%a, %b = op header : operands -> results`.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    pub names: Vec<Name>,
    pub op: OpTree,
    /// The word that names the operation.
    pub op_span: Span,
    /// The variables of `order=(...)`.
    pub order: Option<(Vec<Name>, Span)>,
    /// `fill=0`, for all operands.
    pub fill: Option<Number>,
    pub operands: Vec<Operand>,
    /// The target of a scatter.
    pub target: Option<Vec<Index>>,
    pub results: Vec<ResultTree>,
    pub span: Span,
    pub block: Option<Arc<str>>,
}

/// `%a[i, {j}] where 0 <= i < 4 else 0`.
#[derive(Clone, Debug)]
pub(crate) struct Operand {
    pub reference: Reference,
    pub places: Vec<Index>,
    pub conditions: Vec<ConditionTree>,
    pub fill: Option<Number>,
    pub span: Span,
}

/// `f16[b, {s}]`.
#[derive(Clone, Debug)]
pub(crate) struct ResultTree {
    pub element: Option<ElementType>,
    /// The variables, with whether they stand in braces.
    pub variables: Vec<(Name, bool)>,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub(crate) enum ConditionTree {
    Range { expression: Index, low: Index, high: Index },
    Divisible { expression: Index, divisor: Index },
}

/// An index expression.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    pub kind: IndexKind,
    pub span: Span,
    /// How deep it nests: 1 for a variable.
    pub height: u16,
}

impl Index {
    pub fn new(kind: IndexKind, span: Span) -> Self {
        let inner = match &kind {
            IndexKind::Variable(..) | IndexKind::Size(_) | IndexKind::Read(_) => 0,
            IndexKind::Sum(parts) => parts.iter().map(|(part, _)| part.height).max().unwrap_or(0),
            IndexKind::Product(factors) => factors.iter().map(|factor| factor.height).max().unwrap_or(0),
            IndexKind::FloorDiv(a, b) | IndexKind::Remainder(a, b) => a.height.max(b.height),
            IndexKind::Clamp(parts) => parts.iter().map(|part| part.height).max().unwrap_or(0),
            IndexKind::Table(_, position) => position.height,
        };
        Index { kind, span, height: inner.saturating_add(1) }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum IndexKind {
    /// A variable, and whether it stands in braces.
    Variable(String, bool),
    /// A number, or a size in bars.
    Size(Size),
    /// `$1`: the value of an index operand.
    Read(u32),
    /// The parts, each with whether it is subtracted.
    Sum(Vec<(Index, bool)>),
    Product(Vec<Index>),
    FloorDiv(Box<Index>, Box<Index>),
    Remainder(Box<Index>, Box<Index>),
    Clamp(Box<[Index; 3]>),
    Table(Arc<[i64]>, Box<Index>),
}

/// A scalar expression whose literals may have no type yet.
#[derive(Clone, Debug)]
pub(crate) struct Scalar {
    pub kind: ScalarKind,
    pub span: Span,
    /// How deep it nests: 1 for an operand.
    pub height: u16,
}

impl Scalar {
    pub fn new(kind: ScalarKind, span: Span) -> Self {
        let inner = match &kind {
            ScalarKind::Unary(_, a) | ScalarKind::Cast(_, a) => a.height,
            ScalarKind::Binary(_, parts) => parts.iter().map(|part| part.height).max().unwrap_or(0),
            ScalarKind::Select(parts) => parts.iter().map(|part| part.height).max().unwrap_or(0),
            _ => 0,
        };
        Scalar { kind, span, height: inner.saturating_add(1) }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum ScalarKind {
    Operand(u32),
    Index(Name),
    Size(Size),
    Number(Number),
    Unary(Unary, Box<Scalar>),
    Binary(Binary, Box<[Scalar; 2]>),
    Select(Box<[Scalar; 3]>),
    Cast(ElementType, Box<Scalar>),
    /// The operand times a power of a size: `scale(|k|^-1/2)`.
    Scale(Size, Power),
}

/// The powers that `scale` knows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Power {
    One,
    Half,
    MinusHalf,
    MinusOne,
}

/// An operation with what stands in its header.
#[derive(Clone, Debug)]
pub(crate) enum OpTree {
    Const(ElementType, Number),
    Dot(Option<ElementType>),
    Map(Scalar),
    Reduce(Monoid),
    ArgReduce { largest: bool, last: bool },
    Softmax { log: bool },
    Norm(Norm, Option<Number>),
    View,
    Concat(Name, Option<(Vec<Size>, Span)>),
    Gather,
    Scatter(Option<Monoid>),
    Scan { body: Name, along: Name, reverse: bool, states: u32 },
    Sort { descending: bool },
    If { then: Name, otherwise: Name },
    Loop(Name),
    Call(Name),
    Custom(String, BTreeMap<String, String>),
}
