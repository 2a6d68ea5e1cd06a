//! The language of the e-graph. A term is positional and of fixed arity: an operation, its interned signature (a leaf)
//! and its operands. The tag of an operation is what patterns name; everything else is in the signature.

use egg::{FromOp, FromOpError, Id, Language};
use std::fmt;
use strang_ir::{
    Literal, Op, ScalarExpr,
    op::{Monoid, Norm},
    scalar::{Binary, Unary},
};

/// A node of the e-graph.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Term {
    /// An interned signature, by number.
    Signature(u32),
    /// A value that comes from outside the window, by number.
    External(u32),
    /// A weight, by its number in the window.
    Parameter(u32),
    /// A number, rank 0.
    Constant(Literal),
    /// One of several results of an operation.
    Project(u32, [Id; 1]),
    /// An operation: its signature, then its operands. The number of children stands before them so that terms that
    /// match one pattern lie together.
    Apply(Tag, usize, Box<[Id]>),
}

/// What an operation is, as far as patterns tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tag {
    /// A contraction.
    Dot,
    /// A map of one function of one value.
    Unary(Unary),
    /// A map of one function of two values.
    Binary(Binary),
    /// A map that chooses between two values.
    Select,
    /// A map that converts.
    Cast,
    /// A map without operands: a position or a size.
    Position,
    /// A reduction.
    Reduce(Monoid),
    /// The position of the largest or smallest value.
    ArgReduce,
    /// Softmax or its logarithm.
    Softmax,
    /// A normalisation.
    Norm(Norm),
    /// A view.
    View,
    /// A concatenation.
    Concat,
    /// A gather.
    Gather,
    /// What no rule looks into.
    Opaque,
}

impl Tag {
    /// The tag of an operation; maps of more than one function have none.
    pub fn of(op: &Op) -> Option<Tag> {
        let is_operand = |expression: &ScalarExpr, slot| *expression == ScalarExpr::Operand(slot);
        Some(match op {
            Op::Dot { .. } => Tag::Dot,
            Op::Map(ScalarExpr::Unary(function, a)) if is_operand(a, 0) => Tag::Unary(*function),
            Op::Map(ScalarExpr::Binary(function, a, b)) if is_operand(a, 0) && is_operand(b, 1) => {
                Tag::Binary(*function)
            }
            Op::Map(ScalarExpr::Select(a, b, c)) if is_operand(a, 0) && is_operand(b, 1) && is_operand(c, 2) => {
                Tag::Select
            }
            Op::Map(ScalarExpr::Cast(_, a)) if is_operand(a, 0) => Tag::Cast,
            Op::Map(ScalarExpr::Index(_) | ScalarExpr::Size(_)) => Tag::Position,
            Op::Map(_) => return None,
            Op::Reduce(monoid) => Tag::Reduce(*monoid),
            Op::ArgReduce { .. } => Tag::ArgReduce,
            Op::Softmax { .. } => Tag::Softmax,
            Op::Norm { kind, .. } => Tag::Norm(*kind),
            Op::View => Tag::View,
            Op::Concat { .. } => Tag::Concat,
            Op::Gather => Tag::Gather,
            _ => Tag::Opaque,
        })
    }

    /// Whether the operation is a map.
    pub fn is_map(self) -> bool {
        matches!(self, Tag::Unary(_) | Tag::Binary(_) | Tag::Select | Tag::Cast | Tag::Position)
    }

    /// The name in patterns.
    pub fn name(self) -> &'static str {
        match self {
            Tag::Dot => "dot",
            Tag::Unary(function) => function.name(),
            Tag::Binary(function) => function.name(),
            Tag::Select => "select",
            Tag::Cast => "cast",
            Tag::Position => "position",
            Tag::Reduce(Monoid::Sum) => "reduce-sum",
            Tag::Reduce(Monoid::Product) => "reduce-product",
            Tag::Reduce(Monoid::Minimum) => "reduce-min",
            Tag::Reduce(Monoid::Maximum) => "reduce-max",
            Tag::Reduce(Monoid::And) => "reduce-and",
            Tag::Reduce(Monoid::Or) => "reduce-or",
            Tag::ArgReduce => "argreduce",
            Tag::Softmax => "softmax",
            Tag::Norm(Norm::Layer) => "norm-layer",
            Tag::Norm(Norm::Rms) => "norm-rms",
            Tag::Norm(Norm::Batch) => "norm-batch",
            Tag::View => "view",
            Tag::Concat => "concat",
            Tag::Gather => "gather",
            Tag::Opaque => "opaque",
        }
    }

    /// The operation of a name in patterns.
    pub fn from_name(name: &str) -> Option<Tag> {
        let others = [Tag::Dot, Tag::Select, Tag::Cast, Tag::Position, Tag::ArgReduce, Tag::Softmax];
        let structural = [Tag::View, Tag::Concat, Tag::Gather, Tag::Opaque];
        let norms = [Norm::Layer, Norm::Rms, Norm::Batch].map(Tag::Norm);
        let plain = others.into_iter().chain(structural).chain(norms).chain(Monoid::ALL.map(Tag::Reduce));
        let unary = Unary::from_name(name).map(Tag::Unary);
        let binary = Binary::from_name(name).map(Tag::Binary);
        unary.or(binary).or_else(|| plain.into_iter().find(|tag| tag.name() == name))
    }
}

/// The kinds of terms that patterns tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A signature.
    Signature,
    /// A value from outside.
    External,
    /// A weight.
    Parameter,
    /// A number.
    Constant,
    /// A result by its port.
    Project(u32),
    /// An operation of so many children.
    Apply(Tag, usize),
}

impl Language for Term {
    type Discriminant = Kind;

    fn discriminant(&self) -> Kind {
        match self {
            Term::Signature(_) => Kind::Signature,
            Term::External(_) => Kind::External,
            Term::Parameter(_) => Kind::Parameter,
            Term::Constant(_) => Kind::Constant,
            Term::Project(port, _) => Kind::Project(*port),
            Term::Apply(tag, count, _) => Kind::Apply(*tag, *count),
        }
    }

    fn matches(&self, other: &Self) -> bool {
        match (self, other) {
            (Term::Project(..), _) | (Term::Apply(..), _) => self.discriminant() == other.discriminant(),
            _ => self == other,
        }
    }

    fn children(&self) -> &[Id] {
        match self {
            Term::Project(_, children) => children,
            Term::Apply(_, _, children) => children,
            _ => &[],
        }
    }

    fn children_mut(&mut self) -> &mut [Id] {
        match self {
            Term::Project(_, children) => children,
            Term::Apply(_, _, children) => children,
            _ => &mut [],
        }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Term::Signature(number) => write!(f, "signature-{number}"),
            Term::External(number) => write!(f, "external-{number}"),
            Term::Parameter(number) => write!(f, "parameter-{number}"),
            Term::Constant(literal) => write!(f, "{literal}"),
            Term::Project(port, _) => write!(f, "project-{port}"),
            Term::Apply(tag, ..) => f.write_str(tag.name()),
        }
    }
}

/// Patterns name operations only; everything else is a variable.
impl FromOp for Term {
    type Error = FromOpError;

    fn from_op(name: &str, children: Vec<Id>) -> Result<Self, FromOpError> {
        match Tag::from_name(name) {
            Some(tag) if !children.is_empty() => Ok(Term::Apply(tag, children.len(), children.into())),
            _ => Err(FromOpError::new(name, children)),
        }
    }
}
