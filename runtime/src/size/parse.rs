//! The text of sizes: `4*d + 1`, `(h + 1)//2`, `s%8`, `min(a, b)`. The same grammar serves JSON and symbol values.

use super::Size;
use std::str::FromStr;

/// The text is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a size: {reason} at character {position}")]
pub struct SizeSyntaxError {
    text: String,
    reason: &'static str,
    position: usize,
}

impl FromStr for Size {
    type Err = SizeSyntaxError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut reader = Reader { text, position: 0, depth: 0 };
        let size = reader.sum()?;
        reader.skip_spaces();
        if reader.position == text.len() { Ok(size) } else { Err(reader.error("unexpected text")) }
    }
}

/// Nesting beyond this is refused: recursion must not overflow the stack on hostile input.
const DEEPEST: usize = 64;

struct Reader<'a> {
    text: &'a str,
    position: usize,
    depth: usize,
}

impl Reader<'_> {
    fn error(&self, reason: &'static str) -> SizeSyntaxError {
        SizeSyntaxError { text: self.text.to_owned(), reason, position: self.position }
    }

    fn rest(&self) -> &str {
        &self.text[self.position..]
    }

    fn skip_spaces(&mut self) {
        self.position += self.rest().len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.skip_spaces();
        let found = self.rest().starts_with(token);
        if found {
            self.position += token.len();
        }
        found
    }

    fn expect(&mut self, token: &str, reason: &'static str) -> Result<(), SizeSyntaxError> {
        if self.eat(token) { Ok(()) } else { Err(self.error(reason)) }
    }

    fn sum(&mut self) -> Result<Size, SizeSyntaxError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.error("too deeply nested"));
        }
        let mut sum = if self.eat("-") { -self.product()? } else { self.product()? };
        loop {
            if self.eat("+") {
                sum += self.product()?;
            } else if self.eat("-") {
                sum = sum - self.product()?;
            } else {
                self.depth -= 1;
                return Ok(sum);
            }
        }
    }

    fn product(&mut self) -> Result<Size, SizeSyntaxError> {
        let mut product = self.atom()?;
        loop {
            if self.eat("*") {
                product = product * self.atom()?;
            } else if self.eat("//") || self.eat("/") {
                product = product.floor_div(&self.atom()?);
            } else if self.eat("%") {
                product = product.remainder(&self.atom()?);
            } else {
                return Ok(product);
            }
        }
    }

    fn atom(&mut self) -> Result<Size, SizeSyntaxError> {
        if self.eat("(") {
            let size = self.sum()?;
            self.expect(")", "expected `)`")?;
            return Ok(size);
        }
        self.skip_spaces();
        let rest = self.rest();
        let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '.' || c == '\'';
        let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let word = rest[..length].to_owned();
        if word.is_empty() {
            return Err(self.error("expected a number or a symbol"));
        }
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            let value: i64 = word.parse().map_err(|_| self.error("expected a number that fits 64 bits"))?;
            self.position += length;
            return Ok(value.into());
        }
        self.position += length;
        if (word == "min" || word == "max") && self.eat("(") {
            let left = self.sum()?;
            self.expect(",", "expected `,`")?;
            let right = self.sum()?;
            self.expect(")", "expected `)`")?;
            return Ok(if word == "min" { left.smaller(&right) } else { left.larger(&right) });
        }
        Ok(Size::symbol(word))
    }
}
