//! Sizes: canonical polynomials over symbols and integers, with floor division, remainder, minimum and maximum.
//!
//! Two sizes that are equal as polynomials are equal as values, so dynamic shapes are compared, never guessed. A compiled
//! program keeps its sizes in this form and evaluates them when a session binds shapes.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::{Add, AddAssign, Mul, Neg, Sub},
    str::FromStr,
    sync::Arc,
};

mod parse;

pub use parse::{SizeSyntaxError, quote};

/// Values of symbols.
pub type Bindings = BTreeMap<Arc<str>, i64>;

/// An integer polynomial over symbols, in canonical form. Symbols stand for integers of at least zero.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Size(Form);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Form {
    Constant(i64),
    /// Terms by monomial (a sorted list of factors, the empty one for the constant term); no coefficient is zero, and
    /// at least one monomial is not empty.
    Polynomial(Arc<BTreeMap<Vec<Factor>, i64>>),
}

/// What monomials multiply.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Factor {
    /// A named size known when a session binds shapes.
    Symbol(Arc<str>),
    /// Division rounded down; the divisor is positive.
    FloorDiv(Size, Size),
    /// What floor division leaves; the divisor is positive.
    Remainder(Size, Size),
    /// The smaller of two.
    Min(Size, Size),
    /// The larger of two.
    Max(Size, Size),
}

/// Why a size has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// A symbol has no value.
    #[error("the size `{0}` is not bound")]
    Unbound(Arc<str>),
    /// A division by zero or by a negative size.
    #[error("`{0}` divides by {1}, which is not positive")]
    Divisor(Size, i64),
    /// The value does not fit 64 bits.
    #[error("the value of `{0}` does not fit 64 bits")]
    Overflow(Size),
}

impl Size {
    /// The size 0.
    pub const ZERO: Size = Size(Form::Constant(0));
    /// The size 1.
    pub const ONE: Size = Size(Form::Constant(1));

    /// A symbol.
    pub fn symbol(name: impl Into<Arc<str>>) -> Self {
        Self::factor(Factor::Symbol(name.into()))
    }

    fn factor(factor: Factor) -> Self {
        Size(Form::Polynomial(Arc::new(BTreeMap::from([(vec![factor], 1)]))))
    }

    fn from_terms(mut terms: BTreeMap<Vec<Factor>, i64>) -> Self {
        terms.retain(|_, coefficient| *coefficient != 0);
        match terms.len() {
            0 => Self::ZERO,
            1 if terms.contains_key(&Vec::new()) => Size(Form::Constant(terms[&Vec::new()])),
            _ => Size(Form::Polynomial(Arc::new(terms))),
        }
    }

    /// The terms: monomial and coefficient, in canonical order.
    pub fn terms(&self) -> Vec<(Vec<Factor>, i64)> {
        match &self.0 {
            Form::Constant(0) => vec![],
            Form::Constant(value) => vec![(vec![], *value)],
            Form::Polynomial(terms) => terms.iter().map(|(monomial, c)| (monomial.clone(), *c)).collect(),
        }
    }

    fn term_map(&self) -> BTreeMap<Vec<Factor>, i64> {
        self.terms().into_iter().collect()
    }

    /// The value, when no symbol occurs.
    pub fn as_constant(&self) -> Option<i64> {
        match &self.0 {
            Form::Constant(value) => Some(*value),
            Form::Polynomial(_) => None,
        }
    }

    /// Whether this is the number `value`.
    pub fn is(&self, value: i64) -> bool {
        self.as_constant() == Some(value)
    }

    /// Division rounded down. Exact divisions cancel: `(4*d) / 4` is `d`. A divisor that is not positive is an error of
    /// evaluation, not of construction.
    pub fn floor_div(&self, divisor: &Size) -> Size {
        if divisor.is(1) {
            return self.clone();
        }
        if let (Some(a), Some(b)) = (self.as_constant(), divisor.as_constant())
            && b > 0
        {
            return a.div_euclid(b).into();
        }
        if let Some(quotient) = self.divide_exactly(divisor) {
            return quotient;
        }
        // Terms that the divisor divides leave the floor: (4*d + 3) / 4 = d + 0.
        if let Some(divisor_value) = divisor.as_constant().filter(|value| *value > 0) {
            let (mut outside, mut inside) = (BTreeMap::new(), BTreeMap::new());
            for (monomial, coefficient) in self.terms() {
                let quotient = coefficient.div_euclid(divisor_value);
                let remainder = coefficient.rem_euclid(divisor_value);
                outside.insert(monomial.clone(), quotient);
                inside.insert(monomial, remainder);
            }
            let inside = Size::from_terms(inside);
            let outside = Size::from_terms(outside);
            if let Some(rest) = inside.as_constant() {
                return outside + Size::from(rest.div_euclid(divisor_value));
            }
            return outside + Self::factor(Factor::FloorDiv(inside, divisor.clone()));
        }
        Self::factor(Factor::FloorDiv(self.clone(), divisor.clone()))
    }

    /// Division rounded up.
    pub fn ceil_div(&self, divisor: &Size) -> Size {
        (self + divisor + Size::from(-1)).floor_div(divisor)
    }

    /// What floor division leaves.
    pub fn remainder(&self, divisor: &Size) -> Size {
        if divisor.is(1) || self.divide_exactly(divisor).is_some() {
            return Size::ZERO;
        }
        if let (Some(a), Some(b)) = (self.as_constant(), divisor.as_constant())
            && b > 0
        {
            return a.rem_euclid(b).into();
        }
        if let Some(divisor_value) = divisor.as_constant().filter(|value| *value > 0) {
            let inside: BTreeMap<_, _> =
                self.terms().into_iter().map(|(monomial, c)| (monomial, c.rem_euclid(divisor_value))).collect();
            let inside = Size::from_terms(inside);
            if let Some(rest) = inside.as_constant() {
                return rest.rem_euclid(divisor_value).into();
            }
            return Self::factor(Factor::Remainder(inside, divisor.clone()));
        }
        Self::factor(Factor::Remainder(self.clone(), divisor.clone()))
    }

    /// The quotient when the division is exact as polynomials: the divisor has one term that divides every term of
    /// `self`, or `self` is a constant multiple of the divisor.
    pub fn divide_exactly(&self, divisor: &Size) -> Option<Size> {
        let divisor_terms = divisor.terms();
        if divisor_terms.is_empty() {
            return None;
        }
        if self.is(0) {
            return Some(Size::ZERO);
        }
        if let [(factors, coefficient)] = divisor_terms.as_slice() {
            let mut quotient = BTreeMap::new();
            for (mut monomial, c) in self.terms() {
                // The smallest number by -1 has no quotient either.
                let ratio = c.checked_div(*coefficient)?;
                if c != ratio * coefficient {
                    return None;
                }
                for factor in factors {
                    let position = monomial.iter().position(|other| other == factor)?;
                    monomial.remove(position);
                }
                quotient.insert(monomial, ratio);
            }
            return Some(Size::from_terms(quotient));
        }
        let terms = self.terms();
        let ratio = terms[0].1.checked_div(divisor_terms[0].1).filter(|ratio| *ratio != 0)?;
        (divisor * &Size::from(ratio) == *self).then(|| Size::from(ratio))
    }

    /// The smaller of two.
    pub fn smaller(&self, other: &Size) -> Size {
        self.choose(other, |difference| difference <= 0, Factor::Min)
    }

    /// The larger of two.
    pub fn larger(&self, other: &Size) -> Size {
        self.choose(other, |difference| difference >= 0, Factor::Max)
    }

    fn choose(&self, other: &Size, prefer_self: impl Fn(i64) -> bool, make: fn(Size, Size) -> Factor) -> Size {
        match (self - other).as_constant() {
            Some(difference) if prefer_self(difference) => self.clone(),
            Some(_) => other.clone(),
            None if self <= other => Self::factor(make(self.clone(), other.clone())),
            None => Self::factor(make(other.clone(), self.clone())),
        }
    }

    /// The value under `bindings`.
    ///
    /// # Errors
    /// An unbound symbol, a divisor that is not positive, or a value outside 64 bits.
    pub fn eval(&self, bindings: &Bindings) -> Result<i64, SizeError> {
        let Form::Polynomial(terms) = &self.0 else {
            return Ok(self.as_constant().unwrap_or(0));
        };
        let overflow = || SizeError::Overflow(self.clone());
        let mut sum: i64 = 0;
        for (monomial, coefficient) in terms.iter() {
            let mut product = *coefficient;
            for factor in monomial {
                product = product.checked_mul(factor.eval(bindings)?).ok_or_else(overflow)?;
            }
            sum = sum.checked_add(product).ok_or_else(overflow)?;
        }
        Ok(sum)
    }

    /// This size with symbols replaced by sizes; other symbols stay.
    pub fn substitute(&self, replacements: &BTreeMap<Arc<str>, Size>) -> Size {
        let Form::Polynomial(terms) = &self.0 else { return self.clone() };
        terms.iter().fold(Size::ZERO, |sum, (monomial, coefficient)| {
            sum + monomial
                .iter()
                .fold(Size::from(*coefficient), |product, factor| product * factor.substitute(replacements))
        })
    }

    /// The symbols that occur.
    pub fn symbols(&self) -> BTreeSet<Arc<str>> {
        let mut found = BTreeSet::new();
        self.visit_symbols(&mut found);
        found
    }

    fn visit_symbols(&self, found: &mut BTreeSet<Arc<str>>) {
        let Form::Polynomial(terms) = &self.0 else { return };
        for factor in terms.keys().flatten() {
            match factor {
                Factor::Symbol(name) => {
                    found.insert(name.clone());
                }
                Factor::FloorDiv(a, b) | Factor::Remainder(a, b) | Factor::Min(a, b) | Factor::Max(a, b) => {
                    a.visit_symbols(found);
                    b.visit_symbols(found);
                }
            }
        }
    }

    /// A lower bound that holds whenever every symbol is at least `symbol_least`; `None` when none is known.
    pub fn lower_bound(&self, symbol_least: i64) -> Option<i64> {
        self.bounds(symbol_least).0
    }

    /// An upper bound under the same condition.
    pub fn upper_bound(&self, symbol_least: i64) -> Option<i64> {
        self.bounds(symbol_least).1
    }

    /// Whether `self >= other` for all symbols of at least `symbol_least`, as far as interval arithmetic sees.
    pub fn is_at_least(&self, other: &Size, symbol_least: i64) -> bool {
        (self - other).lower_bound(symbol_least).is_some_and(|bound| bound >= 0)
    }

    fn bounds(&self, least: i64) -> (Option<i64>, Option<i64>) {
        let (mut low, mut high) = (Some(0i64), Some(0i64));
        for (monomial, coefficient) in self.terms() {
            let (mut a, mut b) = (Some(1i64), Some(1i64));
            for factor in &monomial {
                let (c, d) = factor.bounds(least);
                // Only products of non-negative factors keep known bounds; others are unknown.
                if a.is_none_or(|x| x < 0) || c.is_none_or(|x| x < 0) {
                    (a, b) = (None, None);
                    continue;
                }
                a = a.zip(c).and_then(|(x, y)| x.checked_mul(y));
                b = b.zip(d).and_then(|(x, y)| x.checked_mul(y));
            }
            let (c, d) = if coefficient > 0 { (a, b) } else { (b, a) };
            let scale = |x: Option<i64>| x.and_then(|x| x.checked_mul(coefficient));
            low = low.zip(scale(c)).and_then(|(x, y)| x.checked_add(y));
            high = high.zip(scale(d)).and_then(|(x, y)| x.checked_add(y));
        }
        (low, high)
    }
}

impl Factor {
    fn eval(&self, bindings: &Bindings) -> Result<i64, SizeError> {
        let divisor = |a: &Size, b: &Size| {
            let value = b.eval(bindings)?;
            if value > 0 { Ok((a.eval(bindings)?, value)) } else { Err(SizeError::Divisor(b.clone(), value)) }
        };
        match self {
            Factor::Symbol(name) => bindings.get(name).copied().ok_or_else(|| SizeError::Unbound(name.clone())),
            Factor::FloorDiv(a, b) => divisor(a, b).map(|(a, b)| a.div_euclid(b)),
            Factor::Remainder(a, b) => divisor(a, b).map(|(a, b)| a.rem_euclid(b)),
            Factor::Min(a, b) => Ok(a.eval(bindings)?.min(b.eval(bindings)?)),
            Factor::Max(a, b) => Ok(a.eval(bindings)?.max(b.eval(bindings)?)),
        }
    }

    fn substitute(&self, replacements: &BTreeMap<Arc<str>, Size>) -> Size {
        match self {
            Factor::Symbol(name) => replacements.get(name).cloned().unwrap_or_else(|| Size::symbol(name.clone())),
            Factor::FloorDiv(a, b) => a.substitute(replacements).floor_div(&b.substitute(replacements)),
            Factor::Remainder(a, b) => a.substitute(replacements).remainder(&b.substitute(replacements)),
            Factor::Min(a, b) => a.substitute(replacements).smaller(&b.substitute(replacements)),
            Factor::Max(a, b) => a.substitute(replacements).larger(&b.substitute(replacements)),
        }
    }

    fn bounds(&self, least: i64) -> (Option<i64>, Option<i64>) {
        match self {
            Factor::Symbol(_) => (Some(least), None),
            Factor::FloorDiv(a, b) => {
                let ((low, high), divisor) = (a.bounds(least), b.as_constant().filter(|value| *value > 0));
                match divisor {
                    Some(divisor) => (low.map(|x| x.div_euclid(divisor)), high.map(|x| x.div_euclid(divisor))),
                    None => (low.filter(|x| *x >= 0).map(|_| 0), high),
                }
            }
            Factor::Remainder(_, b) => (Some(0), b.upper_bound(least).map(|x| x.saturating_sub(1))),
            Factor::Min(a, b) => {
                let ((a, c), (b, d)) = (a.bounds(least), b.bounds(least));
                (a.zip(b).map(|(x, y)| x.min(y)), c.into_iter().chain(d).min())
            }
            Factor::Max(a, b) => {
                let ((a, c), (b, d)) = (a.bounds(least), b.bounds(least));
                (a.into_iter().chain(b).max(), c.zip(d).map(|(x, y)| x.max(y)))
            }
        }
    }
}

impl From<i64> for Size {
    fn from(value: i64) -> Self {
        Size(Form::Constant(value))
    }
}

impl From<i32> for Size {
    fn from(value: i32) -> Self {
        Size(Form::Constant(value.into()))
    }
}

impl Default for Size {
    fn default() -> Self {
        Size::ZERO
    }
}

// Coefficients saturate instead of wrapping: a size near the 64-bit limit is refused when it is evaluated or allocated,
// and no arithmetic on the way may panic.
impl Add<&Size> for &Size {
    type Output = Size;
    fn add(self, other: &Size) -> Size {
        if let (Some(a), Some(b)) = (self.as_constant(), other.as_constant()) {
            return a.saturating_add(b).into();
        }
        let mut terms = self.term_map();
        for (monomial, coefficient) in other.terms() {
            let sum = terms.entry(monomial).or_insert(0);
            *sum = sum.saturating_add(coefficient);
        }
        Size::from_terms(terms)
    }
}

impl Mul<&Size> for &Size {
    type Output = Size;
    fn mul(self, other: &Size) -> Size {
        if let (Some(a), Some(b)) = (self.as_constant(), other.as_constant()) {
            return a.saturating_mul(b).into();
        }
        let mut terms: BTreeMap<Vec<Factor>, i64> = BTreeMap::new();
        for (left, a) in self.terms() {
            for (right, b) in other.terms() {
                let mut monomial = [left.as_slice(), right.as_slice()].concat();
                monomial.sort();
                let sum = terms.entry(monomial).or_insert(0);
                *sum = sum.saturating_add(a.saturating_mul(b));
            }
        }
        Size::from_terms(terms)
    }
}

impl Neg for &Size {
    type Output = Size;
    fn neg(self) -> Size {
        self * &Size::from(-1)
    }
}

impl Sub<&Size> for &Size {
    type Output = Size;
    fn sub(self, other: &Size) -> Size {
        self + &-other
    }
}

macro_rules! by_value {
    ($($operation:ident $method:ident),*) => {$(
        impl $operation<Size> for Size {
            type Output = Size;
            fn $method(self, other: Size) -> Size {
                (&self).$method(&other)
            }
        }
        impl $operation<&Size> for Size {
            type Output = Size;
            fn $method(self, other: &Size) -> Size {
                (&self).$method(other)
            }
        }
        impl $operation<Size> for &Size {
            type Output = Size;
            fn $method(self, other: Size) -> Size {
                self.$method(&other)
            }
        }
    )*};
}
by_value!(Add add, Sub sub, Mul mul);

impl Neg for Size {
    type Output = Size;
    fn neg(self) -> Size {
        -&self
    }
}

impl AddAssign<Size> for Size {
    fn add_assign(&mut self, other: Size) {
        *self = &*self + &other;
    }
}

impl std::iter::Sum for Size {
    fn sum<I: Iterator<Item = Size>>(sizes: I) -> Size {
        sizes.fold(Size::ZERO, |sum, size| sum + size)
    }
}

impl std::iter::Product for Size {
    fn product<I: Iterator<Item = Size>>(sizes: I) -> Size {
        sizes.fold(Size::ONE, |product, size| product * size)
    }
}

impl fmt::Debug for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Canonical text, which [`FromStr`] reads back: `4*d + 1`, `(h + 1)//2`, `s%8`, `min(a, b)`.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut terms = self.terms();
        // The constant comes last, as people write it.
        terms.sort_by_key(|(monomial, _)| monomial.is_empty());
        if terms.is_empty() {
            return f.write_str("0");
        }
        for (position, (monomial, coefficient)) in terms.iter().enumerate() {
            match (position, *coefficient < 0) {
                (0, true) => f.write_str("-")?,
                (0, false) => {}
                (_, true) => f.write_str(" - ")?,
                (_, false) => f.write_str(" + ")?,
            }
            let magnitude = coefficient.unsigned_abs();
            if monomial.is_empty() || magnitude != 1 {
                write!(f, "{magnitude}")?;
            }
            for (index, factor) in monomial.iter().enumerate() {
                if index > 0 || magnitude != 1 {
                    f.write_str("*")?;
                }
                // A quotient or remainder after another factor would bind to the product before it.
                match factor {
                    Factor::FloorDiv(..) | Factor::Remainder(..) if monomial.len() > 1 || magnitude != 1 => {
                        write!(f, "({factor})")?
                    }
                    _ => write!(f, "{factor}")?,
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grouped = |size: &Size| match size.terms().as_slice() {
            [] => size.to_string(),
            [(monomial, c)]
                if *c >= 0
                    && (monomial.is_empty() || (*c == 1 && matches!(monomial.as_slice(), [Factor::Symbol(_)]))) =>
            {
                size.to_string()
            }
            _ => format!("({size})"),
        };
        match self {
            Factor::Symbol(name) => parse::write_symbol(f, name),
            Factor::FloorDiv(a, b) => write!(f, "{}//{}", grouped(a), grouped(b)),
            Factor::Remainder(a, b) => write!(f, "{}%{}", grouped(a), grouped(b)),
            Factor::Min(a, b) => write!(f, "min({a}, {b})"),
            Factor::Max(a, b) => write!(f, "max({a}, {b})"),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.as_constant() {
            Some(value) => serializer.serialize_i64(value),
            None => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Text {
            Number(i64),
            Expression(String),
        }
        match Text::deserialize(deserializer)? {
            Text::Number(value) => Ok(value.into()),
            Text::Expression(text) => Size::from_str(&text).map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests;
