//! Reading an operand through its index map: the expressions with all sizes known, and where they lead.

use super::{Array, InterpretError, Number, array};
use crate::{Atom, Condition, IndexExpr, IndexMap};
use std::{ops::Range, sync::Arc};
use strang_runtime::{Bindings, size::SizeError};

/// An index expression with numbers for sizes. Arithmetic wraps, as in generated code; the verifier keeps proven
/// expressions far from there.
#[derive(Debug)]
pub(super) struct Expression {
    constant: i64,
    /// Variables and their coefficients.
    variables: Vec<(usize, i64)>,
    others: Vec<(Other, i64)>,
}

#[derive(Debug)]
enum Other {
    FloorDiv(Expression, i64),
    Remainder(Expression, i64),
    Clamp(Expression, i64, i64),
    Table(Arc<[i64]>, Expression),
    Read(u32),
}

/// The value of an index operand at the current position, by slot.
pub(super) type ReadIndex<'a> = &'a dyn Fn(u32) -> i64;

impl Expression {
    pub(super) fn new(expression: &IndexExpr, bindings: &Bindings) -> Result<Self, SizeError> {
        let positive = |size: &crate::Size| match size.eval(bindings)? {
            value if value > 0 => Ok(value),
            value => Err(SizeError::Divisor(size.clone(), value)),
        };
        let (mut variables, mut others) = (Vec::new(), Vec::new());
        for (atom, coefficient) in expression.terms() {
            let coefficient = coefficient.eval(bindings)?;
            let inner = |inner: &IndexExpr| Self::new(inner, bindings);
            let other = match atom {
                Atom::Variable(position) => {
                    variables.push((*position as usize, coefficient));
                    continue;
                }
                Atom::FloorDiv(e, divisor) => Other::FloorDiv(inner(e)?, positive(divisor)?),
                Atom::Remainder(e, divisor) => Other::Remainder(inner(e)?, positive(divisor)?),
                Atom::Clamp(e, low, high) => Other::Clamp(inner(e)?, low.eval(bindings)?, high.eval(bindings)?),
                Atom::Table(table, e) => Other::Table(table.clone(), inner(e)?),
                Atom::Read(slot) => Other::Read(*slot),
            };
            others.push((other, coefficient));
        }
        Ok(Expression { constant: expression.offset().eval(bindings)?, variables, others })
    }

    /// The value at a position; `None` where a table has no entry.
    pub(super) fn eval(&self, position: &[i64], read: ReadIndex) -> Option<i64> {
        let mut sum = self.constant;
        for (variable, coefficient) in &self.variables {
            sum = sum.wrapping_add(position[*variable].wrapping_mul(*coefficient));
        }
        for (other, coefficient) in &self.others {
            let value = match other {
                Other::FloorDiv(e, divisor) => e.eval(position, read)?.div_euclid(*divisor),
                Other::Remainder(e, divisor) => e.eval(position, read)?.rem_euclid(*divisor),
                Other::Clamp(e, low, high) => e.eval(position, read)?.min(*high).max(*low),
                Other::Table(table, e) => *table.get(usize::try_from(e.eval(position, read)?).ok()?)?,
                Other::Read(slot) => read(*slot),
            };
            sum = sum.wrapping_add(value.wrapping_mul(*coefficient));
        }
        Some(sum)
    }

    /// The smallest and largest value when only variables occur, over ranges that are not empty.
    fn affine_range(&self, ranges: &[Range<i64>]) -> Option<(i128, i128)> {
        if !self.others.is_empty() {
            return None;
        }
        let (mut low, mut high) = (i128::from(self.constant), i128::from(self.constant));
        for (variable, coefficient) in &self.variables {
            let Range { start, end } = ranges[*variable];
            let first = i128::from(*coefficient) * i128::from(start);
            let last = i128::from(*coefficient) * (i128::from(end) - 1);
            low += first.min(last);
            high += first.max(last);
        }
        Some((low, high))
    }
}

#[derive(Debug)]
enum Limit {
    Range(Expression, i64, i64),
    Divisible(Expression, i64),
}

/// Where a read leads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Place {
    /// To an element, by row-major position.
    At(usize),
    /// To the fill.
    Fill,
}

/// An operand and how it is read.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    /// The operand.
    pub(super) array: &'a Array,
    /// What a read outside yields.
    pub(super) fill: Option<Number>,
    /// The position as an affine function of the variables, when every read is known to lie inside.
    pub(super) linear: Option<Linear>,
    slot: usize,
    axes: Vec<(Expression, usize)>,
    limits: Vec<Limit>,
}

/// `offset + sum of stride * variable`.
#[derive(Debug)]
pub(super) struct Linear {
    pub(super) offset: i64,
    /// One stride per variable of the node.
    pub(super) strides: Vec<i64>,
}

impl Linear {
    pub(super) fn position(&self, position: &[i64]) -> i64 {
        self.offset + self.strides.iter().zip(position).map(|(stride, value)| stride * value).sum::<i64>()
    }
}

impl<'a> Reader<'a> {
    /// Prepares a verified map of operand `slot`; `ranges` are where the node's variables run.
    pub(super) fn new(
        slot: usize,
        map: &IndexMap,
        array: &'a Array,
        ranges: &[Range<i64>],
        bindings: &Bindings,
    ) -> Result<Self, SizeError> {
        let strides = array::strides(&array.shape);
        let axes = map.exprs.iter().map(|e| Expression::new(e, bindings)).zip(&strides);
        let axes = axes.map(|(e, stride)| Ok((e?, *stride))).collect::<Result<Vec<_>, SizeError>>()?;
        let limits = map.conditions.iter().map(|condition| {
            let expression = Expression::new(condition.expression(), bindings)?;
            Ok(match condition {
                Condition::Range { low, high, .. } => {
                    Limit::Range(expression, low.eval(bindings)?, high.eval(bindings)?)
                }
                Condition::Divisible { divisor, .. } => match divisor.eval(bindings)? {
                    value if value > 0 => Limit::Divisible(expression, value),
                    value => return Err(SizeError::Divisor(divisor.clone(), value)),
                },
            })
        });
        let limits = limits.collect::<Result<Vec<_>, SizeError>>()?;
        let linear = if limits.is_empty() { Self::linear(&axes, &array.shape, ranges) } else { None };
        Ok(Reader { array, fill: map.fill.map(Number::of), linear, slot, axes, limits })
    }

    fn linear(axes: &[(Expression, usize)], shape: &[usize], ranges: &[Range<i64>]) -> Option<Linear> {
        let mut linear = Linear { offset: 0, strides: vec![0; ranges.len()] };
        for ((expression, stride), size) in axes.iter().zip(shape) {
            let (low, high) = expression.affine_range(ranges)?;
            if low < 0 || high >= *size as i128 {
                return None;
            }
            let stride = *stride as i64;
            linear.offset = linear.offset.checked_add(expression.constant.checked_mul(stride)?)?;
            for (variable, coefficient) in &expression.variables {
                let sum = &mut linear.strides[*variable];
                *sum = sum.checked_add(coefficient.checked_mul(stride)?)?;
            }
        }
        Some(linear)
    }

    /// Where the read at a position leads.
    ///
    /// # Errors
    /// A read outside an operand without a fill.
    pub(super) fn place(&self, position: &[i64], read: ReadIndex) -> Result<Place, Outside> {
        if let Some(linear) = &self.linear {
            return Ok(Place::At(linear.position(position) as usize));
        }
        for limit in &self.limits {
            let holds = match limit {
                Limit::Range(e, low, high) => e.eval(position, read).is_some_and(|v| *low <= v && v < *high),
                Limit::Divisible(e, divisor) => e.eval(position, read).is_some_and(|v| v.rem_euclid(*divisor) == 0),
            };
            if !holds {
                return Ok(Place::Fill);
            }
        }
        let mut at = 0;
        for (axis, ((expression, stride), size)) in self.axes.iter().zip(&self.array.shape).enumerate() {
            let value = expression.eval(position, read);
            match value.and_then(|value| usize::try_from(value).ok()).filter(|value| value < size) {
                Some(value) => at += value * stride,
                None if self.fill.is_some() => return Ok(Place::Fill),
                None => {
                    return Err(Outside { slot: self.slot, axis, index: value.unwrap_or(i64::MIN), size: *size });
                }
            }
        }
        Ok(Place::At(at))
    }

    /// The element at a place of the operand.
    pub(super) fn value(&self, place: Place) -> Number {
        match (place, self.fill) {
            (Place::At(at), _) => self.array.at(at),
            (Place::Fill, Some(fill)) => fill,
            (Place::Fill, None) => Number::Integer(0),
        }
    }

    /// The value read at a position, for maps without `Atom::Read`.
    pub(super) fn get(&self, position: &[i64]) -> Result<Number, Outside> {
        Ok(self.value(self.place(position, &no_reads)?))
    }
}

/// For maps of operands that no index is read from; the verifier refuses `Atom::Read` in them.
pub(super) fn no_reads(_: u32) -> i64 {
    i64::MIN
}

/// A read outside an operand without a fill.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outside {
    pub(super) slot: usize,
    pub(super) axis: usize,
    pub(super) index: i64,
    pub(super) size: usize,
}

impl Outside {
    pub(super) fn at(self, at: &str) -> InterpretError {
        let Outside { slot, axis, index, size } = self;
        InterpretError::Index { at: at.to_owned(), slot, axis, index, size }
    }
}
