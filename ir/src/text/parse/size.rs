//! Sizes, computed while they are read: `m / h`, `4*s + 1`, `(s + 1)//2`, `s % 8`, `min(s, 512)`.

use super::{Parser, Result};
use crate::text::{
    error::{Complaint, Span, suggest},
    lexer::Token,
};
use strang_runtime::Size;

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
    if size.is_simple() {
        return Ok(size);
    }
    let (factors, depth) = (Size::MOST_FACTORS, Size::DEEPEST);
    Err(Complaint::new("this size is too complicated", span)
        .help(format!("sizes have up to {factors} factors, nested up to {depth} deep")))
}
