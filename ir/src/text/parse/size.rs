//! Sizes, computed while they are read: `m / h`, `4*s + 1`, `(s + 1)//2`, `s % 8`, `min(s, 512)`.

use super::{Parser, Result};
use crate::text::{
    error::{Complaint, Span, suggest},
    lexer::Token,
};
use strang_runtime::{Size, size::Factor};

/// Sizes with more factors than this, or nested deeper, are refused: products of sums grow without bound.
const MOST_FACTORS: usize = 256;
const DEEPEST_SIZE: usize = 32;

impl Parser<'_> {
    /// A size as it stands in declarations, in bars and after `clamp`.
    pub(super) fn size(&mut self) -> Result<Size> {
        let start = self.span();
        let size = self.nested(Self::size_sum)?;
        self.bounded(size, start)
    }

    fn bounded(&self, size: Size, start: Span) -> Result<Size> {
        bounded(size, start.to(self.previous_span()))
    }

    fn size_sum(&mut self) -> Result<Size> {
        let start = self.span();
        let mut sum = if self.eat("-") { self.negated_product()? } else { self.size_product(None)? };
        loop {
            if self.eat("+") {
                sum += self.size_product(None)?;
            } else if self.eat("-") {
                sum += self.negated_product()?;
            } else {
                return Ok(sum);
            }
            sum = self.bounded(sum, start)?;
        }
    }

    /// What follows a minus. The smallest 64-bit number has no positive counterpart.
    fn negated_product(&mut self) -> Result<Size> {
        if let Token::Number(number) = self.peek()
            && number.text == "9223372036854775808"
            && number.suffix.is_none()
        {
            self.advance();
            return self.size_product(Some(i64::MIN.into()));
        }
        Ok(-self.size_product(None)?)
    }

    fn size_product(&mut self, first: Option<Size>) -> Result<Size> {
        let start = self.span();
        let mut product = match first {
            Some(first) => first,
            None => self.size_atom()?,
        };
        loop {
            if self.eat("*") {
                product = product * self.size_atom()?;
            } else if self.eat("//") || self.eat("/") {
                product = product.floor_div(&self.size_atom()?);
            } else if self.eat("%") {
                product = product.remainder(&self.size_atom()?);
            } else {
                return Ok(product);
            }
            product = self.bounded(product, start)?;
        }
    }

    fn size_atom(&mut self) -> Result<Size> {
        if self.eat("(") {
            let size = self.size()?;
            self.expect(")")?;
            return Ok(size);
        }
        if let Token::Number(_) = self.peek() {
            return Ok(self.signed()?.into());
        }
        if let Token::String(_) = self.peek() {
            let span = self.span();
            let name = self.string("a symbol")?;
            return self.named_size(&name, span);
        }
        let name = self.word("a number, an axis or a symbol")?;
        if matches!(name.text.as_str(), "min" | "max") && self.eat("(") {
            let left = self.size()?;
            self.expect(",")?;
            let right = self.size()?;
            self.expect(")")?;
            return Ok(if name.text == "min" { left.smaller(&right) } else { left.larger(&right) });
        }
        self.named_size(&name.text, name.span)
    }

    /// An axis stands for its size. A symbol is hidden by an axis of its name.
    fn named_size(&self, name: &str, span: Span) -> Result<Size> {
        if let Some(size) = self.scope.axes.get(name).or_else(|| self.scope.symbols.get(name)) {
            return Ok(size.clone());
        }
        let complaint = Complaint::new(format!("`{name}` is neither an axis nor a symbol declared above"), span);
        Err(match suggest(name, self.scope.axes.keys().chain(self.scope.symbols.keys()).map(String::as_str)) {
            Some(help) => complaint.help(help),
            None => complaint.help(format!("declare it: symbol {name}")),
        })
    }
}

/// The size, unless it is too complicated to compute with.
pub(crate) fn bounded(size: Size, span: Span) -> Result<Size> {
    let (factors, depth) = extent(&size);
    if factors <= MOST_FACTORS && depth <= DEEPEST_SIZE {
        return Ok(size);
    }
    Err(Complaint::new("this size is too complicated", span)
        .help(format!("sizes have up to {MOST_FACTORS} factors, nested up to {DEEPEST_SIZE} deep")))
}

/// How many factors a size has, and how deep they nest; counting stops beyond the limits.
fn extent(size: &Size) -> (usize, usize) {
    let (mut factors, mut depth) = (0, 0);
    for (monomial, _) in size.terms() {
        factors += 1;
        for factor in &monomial {
            factors += 1;
            if let Factor::FloorDiv(a, b) | Factor::Remainder(a, b) | Factor::Min(a, b) | Factor::Max(a, b) = factor {
                let ((a, deep_a), (b, deep_b)) = (extent(a), extent(b));
                factors += a + b;
                depth = depth.max(1 + deep_a.max(deep_b));
            }
        }
        if factors > MOST_FACTORS {
            return (factors, depth);
        }
    }
    (factors, depth)
}
