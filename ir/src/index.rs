//! Index expressions and index maps: where an operation reads each of its operands.
//!
//! An expression is affine in atoms with size coefficients. Most atoms are index variables; the others (quotient,
//! remainder, clamp, table, a value read from an index operand) say what Reshape, Resize, ConvTranspose and gather need.

use crate::Literal;
use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use std::{collections::BTreeMap, sync::Arc};
use strang_runtime::{Bindings, Size, size::SizeError};

/// `constant + sum of coefficient * atom`, canonical: atoms ascend, no coefficient is zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Terms")]
pub struct IndexExpr {
    // Most are one variable, and a circuit has thousands.
    terms: SmallVec<[(Atom, Size); 1]>,
    #[serde(skip_serializing_if = "is_zero")]
    constant: Size,
}

/// An expression as it is read, perhaps not canonical.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Terms {
    terms: Vec<(Atom, Size)>,
    #[serde(default)]
    constant: Size,
}

impl TryFrom<Terms> for IndexExpr {
    type Error = &'static str;

    fn try_from(Terms { mut terms, constant }: Terms) -> Result<Self, Self::Error> {
        terms.sort();
        if terms.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err("two terms of an index expression have the same atom");
        }
        terms.retain(|(_, coefficient)| !coefficient.is(0));
        Ok(IndexExpr { terms: terms.into(), constant })
    }
}

fn is_zero(size: &Size) -> bool {
    size.is(0)
}

/// What index expressions are affine in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Atom {
    /// A variable of the node, by position.
    Variable(u32),
    /// Division rounded down by a positive size.
    FloorDiv(Box<IndexExpr>, Size),
    /// What floor division by a positive size leaves.
    Remainder(Box<IndexExpr>, Size),
    /// The expression, limited to `low..=high`.
    Clamp(Box<IndexExpr>, Size, Size),
    /// An entry of a constant table; the position must lie in it.
    Table(Arc<[i64]>, Box<IndexExpr>),
    /// The value of an integer operand of the node (by slot) at the current position: gather and scatter only.
    Read(u32),
}

/// A condition on the variables, beside the extents of the operand.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// `low <= expression < high`.
    Range {
        /// What is limited.
        expression: IndexExpr,
        /// The smallest value.
        low: Size,
        /// One past the largest value.
        high: Size,
    },
    /// The divisor divides the expression.
    Divisible {
        /// What is divided.
        expression: IndexExpr,
        /// By what; positive.
        divisor: Size,
    },
}

/// How an operation reads one operand: one expression per operand axis.
///
/// With a `fill`, positions outside the operand's extents, or where a condition fails, read the fill. Without one, every
/// position must lie inside, which the verifier proves or a session checks when it binds sizes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IndexMap {
    /// One expression per axis of the operand, outermost first.
    pub exprs: Vec<IndexExpr>,
    /// Further conditions; only with a fill.
    pub conditions: Vec<Condition>,
    /// What a read outside yields.
    pub fill: Option<Literal>,
}

impl IndexExpr {
    /// A size that does not vary.
    pub fn constant(size: impl Into<Size>) -> Self {
        IndexExpr { terms: SmallVec::new(), constant: size.into() }
    }

    /// A variable of the node.
    pub fn variable(position: u32) -> Self {
        Self::atom(Atom::Variable(position))
    }

    /// One atom.
    pub fn atom(atom: Atom) -> Self {
        IndexExpr { terms: smallvec![(atom, Size::ONE)], constant: Size::ZERO }
    }

    /// An expression from terms in any order; equal atoms are added.
    pub fn new(terms: impl IntoIterator<Item = (Atom, Size)>, constant: Size) -> Self {
        let mut sums: SmallVec<[(Atom, Size); 1]> = SmallVec::new();
        for (atom, coefficient) in terms {
            match sums.binary_search_by(|(other, _)| other.cmp(&atom)) {
                Ok(place) => sums[place].1 += coefficient,
                Err(place) => sums.insert(place, (atom, coefficient)),
            }
        }
        sums.retain(|(_, coefficient)| !coefficient.is(0));
        IndexExpr { terms: sums, constant }
    }

    /// The terms, atoms ascending.
    pub fn terms(&self) -> &[(Atom, Size)] {
        &self.terms
    }

    /// The part that does not vary.
    pub fn offset(&self) -> &Size {
        &self.constant
    }

    /// The sum of two expressions.
    pub fn plus(&self, other: &IndexExpr) -> Self {
        Self::new(self.terms.iter().chain(&other.terms).cloned(), &self.constant + &other.constant)
    }

    /// This expression and a size.
    pub fn plus_size(&self, size: &Size) -> Self {
        IndexExpr { terms: self.terms.clone(), constant: &self.constant + size }
    }

    /// This expression times a size.
    pub fn times(&self, size: &Size) -> Self {
        Self::new(self.terms.iter().map(|(atom, c)| (atom.clone(), c * size)), &self.constant * size)
    }

    /// The quotient rounded down. Terms whose coefficients the divisor divides leave the floor when the rest is known to
    /// lie in `0..divisor` for variables of the given sizes.
    pub fn floor_div(&self, divisor: &Size, variable_size: &dyn Fn(u32) -> Size) -> Self {
        if divisor.is(1) {
            return self.clone();
        }
        let (quotient, rest) = self.split_by(divisor);
        if rest.lies_in(divisor, variable_size) {
            return quotient;
        }
        quotient.plus(&Self::atom(Atom::FloorDiv(Box::new(rest), divisor.clone())))
    }

    /// What floor division leaves, with the same simplification.
    pub fn remainder(&self, divisor: &Size, variable_size: &dyn Fn(u32) -> Size) -> Self {
        if divisor.is(1) {
            return Self::default();
        }
        let (_, rest) = self.split_by(divisor);
        if rest.lies_in(divisor, variable_size) {
            return rest;
        }
        Self::atom(Atom::Remainder(Box::new(rest), divisor.clone()))
    }

    /// `self = divisor * first + second`, with every term that divides exactly in the first.
    fn split_by(&self, divisor: &Size) -> (Self, Self) {
        let (mut quotient, mut rest) = (Vec::new(), Vec::new());
        for (atom, coefficient) in &self.terms {
            match coefficient.divide_exactly(divisor) {
                Some(whole) => quotient.push((atom.clone(), whole)),
                None => rest.push((atom.clone(), coefficient.clone())),
            }
        }
        let whole = self.constant.floor_div(divisor);
        let left = &self.constant - &(&whole * divisor);
        (Self::new(quotient, whole), Self::new(rest, left))
    }

    /// Whether all values lie in `0..bound`, as far as interval arithmetic over variables sees.
    fn lies_in(&self, bound: &Size, variable_size: &dyn Fn(u32) -> Size) -> bool {
        self.bounds(variable_size).is_some_and(|(low, high)| {
            low.lower_bound(1).is_some_and(|low| low >= 0) && bound.is_at_least(&(high + Size::ONE), 1)
        })
    }

    /// The smallest and largest value as sizes, for variables over `0..variable_size(v)`; `None` when a coefficient's
    /// sign is unknown or a value is read from data.
    pub fn bounds(&self, variable_size: &dyn Fn(u32) -> Size) -> Option<(Size, Size)> {
        let (mut low, mut high) = (self.constant.clone(), self.constant.clone());
        for (atom, coefficient) in &self.terms {
            let (a, b) = atom.bounds(variable_size)?;
            let (a, b) = if coefficient.lower_bound(0).is_some_and(|c| c >= 0) {
                (a, b)
            } else if coefficient.upper_bound(0).is_some_and(|c| c <= 0) {
                (b, a)
            } else {
                return None;
            };
            low += coefficient * a;
            high += coefficient * b;
        }
        Some((low, high))
    }

    /// The single variable, when the expression is one variable and nothing else.
    pub fn as_variable(&self) -> Option<u32> {
        match self.terms.as_slice() {
            [(Atom::Variable(position), coefficient)] if coefficient.is(1) && self.constant.is(0) => Some(*position),
            _ => None,
        }
    }

    /// The size, when nothing varies.
    pub fn as_size(&self) -> Option<&Size> {
        self.terms.is_empty().then_some(&self.constant)
    }

    /// The coefficient of a variable as a plain term (not inside another atom); zero when it does not occur.
    pub fn coefficient(&self, variable: u32) -> Size {
        let found = self.terms.iter().find(|(atom, _)| *atom == Atom::Variable(variable));
        found.map(|(_, coefficient)| coefficient.clone()).unwrap_or_default()
    }

    /// Whether a variable occurs anywhere.
    pub fn mentions(&self, variable: u32) -> bool {
        let mut found = false;
        self.visit_variables(&mut |position| found |= position == variable);
        found
    }

    /// Calls `visit` with every variable that occurs, inside other atoms too.
    pub fn visit_variables(&self, visit: &mut dyn FnMut(u32)) {
        for (atom, _) in &self.terms {
            match atom {
                Atom::Variable(position) => visit(*position),
                Atom::FloorDiv(inner, _)
                | Atom::Remainder(inner, _)
                | Atom::Clamp(inner, ..)
                | Atom::Table(_, inner) => inner.visit_variables(visit),
                Atom::Read(_) => {}
            }
        }
    }

    /// Whether only variables occur as atoms.
    pub fn is_affine(&self) -> bool {
        self.terms.iter().all(|(atom, _)| matches!(atom, Atom::Variable(_)))
    }

    /// Every variable replaced by an expression (composition of maps); `read` renumbers read slots.
    pub fn substitute(
        &self,
        variable: &dyn Fn(u32) -> IndexExpr,
        read: &dyn Fn(u32) -> u32,
        variable_size: &dyn Fn(u32) -> Size,
    ) -> Self {
        if let Some(position) = self.as_variable() {
            return variable(position);
        }
        let mut sum = IndexExpr::constant(self.constant.clone());
        for (atom, coefficient) in &self.terms {
            let inner = |inner: &IndexExpr| inner.substitute(variable, read, variable_size);
            let value = match atom {
                Atom::Variable(position) => variable(*position),
                Atom::FloorDiv(e, divisor) => inner(e).floor_div(divisor, variable_size),
                Atom::Remainder(e, divisor) => inner(e).remainder(divisor, variable_size),
                Atom::Clamp(e, low, high) => Self::atom(Atom::Clamp(Box::new(inner(e)), low.clone(), high.clone())),
                Atom::Table(table, e) => Self::table(table.clone(), inner(e)),
                Atom::Read(slot) => Self::atom(Atom::Read(read(*slot))),
            };
            sum = sum.plus(&value.times(coefficient));
        }
        sum
    }

    /// Symbols replaced by sizes, everywhere in the expression.
    pub fn substitute_sizes(&self, sizes: &BTreeMap<Arc<str>, Size>) -> Self {
        let terms = self.terms.iter().map(|(atom, coefficient)| {
            let inner = |e: &IndexExpr| Box::new(e.substitute_sizes(sizes));
            let atom = match atom {
                Atom::FloorDiv(e, divisor) => Atom::FloorDiv(inner(e), divisor.substitute(sizes)),
                Atom::Remainder(e, divisor) => Atom::Remainder(inner(e), divisor.substitute(sizes)),
                Atom::Clamp(e, low, high) => Atom::Clamp(inner(e), low.substitute(sizes), high.substitute(sizes)),
                Atom::Table(table, e) => Atom::Table(table.clone(), inner(e)),
                Atom::Variable(_) | Atom::Read(_) => atom.clone(),
            };
            (atom, coefficient.substitute(sizes))
        });
        Self::new(terms, self.constant.substitute(sizes))
    }

    /// A table entry; a table that is an arithmetic progression becomes affine, a constant position its entry.
    pub fn table(table: Arc<[i64]>, position: IndexExpr) -> Self {
        if let Some(index) = position.as_size().and_then(Size::as_constant)
            && let Some(entry) = usize::try_from(index).ok().and_then(|index| table.get(index))
        {
            return Self::constant(*entry);
        }
        match *table {
            [only] => Self::constant(only),
            [first, second, ..] if table.windows(2).all(|pair| pair[1] - pair[0] == second - first) => {
                position.times(&Size::from(second - first)).plus_size(&Size::from(first))
            }
            _ => Self::atom(Atom::Table(table, Box::new(position))),
        }
    }

    /// The value at given positions of the variables; `read` yields the value of an index operand.
    ///
    /// # Errors
    /// A size without a value. A table position outside the table reads as `i64::MIN`, which lies in no operand.
    pub fn eval(
        &self,
        variables: &[i64],
        read: &mut dyn FnMut(u32) -> i64,
        bindings: &Bindings,
    ) -> Result<i64, SizeError> {
        let mut sum = self.constant.eval(bindings)?;
        for (atom, coefficient) in &self.terms {
            let value = match atom {
                Atom::Variable(position) => variables[*position as usize],
                Atom::FloorDiv(e, divisor) => {
                    e.eval(variables, read, bindings)?.div_euclid(positive(divisor, bindings)?)
                }
                Atom::Remainder(e, divisor) => {
                    e.eval(variables, read, bindings)?.rem_euclid(positive(divisor, bindings)?)
                }
                Atom::Clamp(e, low, high) => {
                    let value = e.eval(variables, read, bindings)?;
                    value.min(high.eval(bindings)?).max(low.eval(bindings)?)
                }
                Atom::Table(table, e) => {
                    let position = e.eval(variables, read, bindings)?;
                    usize::try_from(position).ok().and_then(|p| table.get(p)).copied().unwrap_or(i64::MIN)
                }
                Atom::Read(slot) => read(*slot),
            };
            sum = sum.wrapping_add(value.wrapping_mul(coefficient.eval(bindings)?));
        }
        Ok(sum)
    }
}

fn positive(divisor: &Size, bindings: &Bindings) -> Result<i64, SizeError> {
    let value = divisor.eval(bindings)?;
    if value > 0 { Ok(value) } else { Err(SizeError::Divisor(divisor.clone(), value)) }
}

impl Atom {
    fn bounds(&self, variable_size: &dyn Fn(u32) -> Size) -> Option<(Size, Size)> {
        match self {
            Atom::Variable(position) => Some((Size::ZERO, variable_size(*position) - Size::ONE)),
            Atom::FloorDiv(e, divisor) => {
                let (low, high) = e.bounds(variable_size)?;
                Some((low.floor_div(divisor), high.floor_div(divisor)))
            }
            Atom::Remainder(_, divisor) => Some((Size::ZERO, divisor - Size::ONE)),
            Atom::Clamp(_, low, high) => Some((low.clone(), high.clone())),
            Atom::Table(table, _) => Some(((*table.iter().min()?).into(), (*table.iter().max()?).into())),
            Atom::Read(_) => None,
        }
    }
}

impl IndexMap {
    /// A map of plain expressions, without fill.
    pub fn new(exprs: Vec<IndexExpr>) -> Self {
        IndexMap { exprs, conditions: Vec::new(), fill: None }
    }

    /// One variable per operand axis.
    pub fn of_variables(positions: impl IntoIterator<Item = u32>) -> Self {
        Self::new(positions.into_iter().map(IndexExpr::variable).collect())
    }

    /// The same map with reads outside yielding `fill`.
    pub fn with_fill(mut self, fill: Literal) -> Self {
        self.fill = Some(fill);
        self
    }

    /// The variables, when every expression is one plain variable.
    pub fn as_variables(&self) -> Option<Vec<u32>> {
        self.exprs.iter().map(IndexExpr::as_variable).collect()
    }

    /// Whether a variable occurs anywhere, conditions included.
    pub fn mentions(&self, variable: u32) -> bool {
        self.exprs.iter().any(|e| e.mentions(variable))
            || self.conditions.iter().any(|condition| condition.expression().mentions(variable))
    }
}

impl Condition {
    /// What is limited or divided.
    pub fn expression(&self) -> &IndexExpr {
        match self {
            Condition::Range { expression, .. } | Condition::Divisible { expression, .. } => expression,
        }
    }
}
