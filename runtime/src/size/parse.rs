//! The text of sizes: `4*d + 1`, `(h + 1)//2`, `s%8`, `min(a, b)`. Symbols that are not words stand in quotes. The same
//! grammar serves text circuits, JSON and symbol values.

use super::{Factor, Size};
use std::{fmt::Write, str::FromStr};

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

/// What words consist of.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.')
}

/// Whether a symbol can stand without quotes.
fn is_plain(symbol: &str) -> bool {
    symbol.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && symbol.chars().all(is_word)
        && !matches!(symbol, "min" | "max")
}

/// A symbol as it is written: a word, or text in quotes.
pub(super) fn write_symbol(out: &mut impl Write, symbol: &str) -> std::fmt::Result {
    if is_plain(symbol) { out.write_str(symbol) } else { out.write_str(&quote(symbol)) }
}

/// A text in quotes, with escapes.
pub fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out += "\\\"",
            '\\' => out += "\\\\",
            '\n' => out += "\\n",
            '\r' => out += "\\r",
            '\t' => out += "\\t",
            c if c.is_control() => out += &format!("\\u{{{:x}}}", u32::from(c)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// How complicated a size that is read may be: products of sums grow without bound.
impl Size {
    /// The most factors.
    pub const MOST_FACTORS: usize = 256;
    /// The deepest nesting of quotients, remainders, minima and maxima.
    pub const DEEPEST: usize = 32;

    /// Whether the size is within these limits.
    pub fn is_simple(&self) -> bool {
        let (factors, depth) = self.extent();
        factors <= Self::MOST_FACTORS && depth <= Self::DEEPEST
    }

    /// How many factors there are, and how deep they nest; counting stops beyond the limits.
    fn extent(&self) -> (usize, usize) {
        let (mut factors, mut depth) = (0, 0);
        for (monomial, _) in self.terms() {
            factors += 1;
            for factor in &monomial {
                factors += 1;
                if let Factor::FloorDiv(a, b) | Factor::Remainder(a, b) | Factor::Min(a, b) | Factor::Max(a, b) = factor
                {
                    let ((a, deep_a), (b, deep_b)) = (a.extent(), b.extent());
                    factors += a + b;
                    depth = depth.max(1 + deep_a.max(deep_b));
                }
            }
            if factors > Self::MOST_FACTORS {
                return (factors, depth);
            }
        }
        (factors, depth)
    }
}

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
        let mut sum = if self.eat("-") { self.negated_product()? } else { self.product(None)? };
        loop {
            if self.eat("+") {
                sum += self.product(None)?;
            } else if self.eat("-") {
                sum += self.negated_product()?;
            } else {
                self.depth -= 1;
                return Ok(sum);
            }
            sum = self.simple(sum)?;
        }
    }

    fn simple(&self, size: Size) -> Result<Size, SizeSyntaxError> {
        if size.is_simple() { Ok(size) } else { Err(self.error("too complicated")) }
    }

    /// What follows a minus. The smallest 64-bit number has no positive counterpart.
    fn negated_product(&mut self) -> Result<Size, SizeSyntaxError> {
        const SMALLEST: &str = "9223372036854775808";
        self.skip_spaces();
        if self.rest().strip_prefix(SMALLEST).is_some_and(|rest| !rest.starts_with(is_word)) {
            self.position += SMALLEST.len();
            return self.product(Some(i64::MIN.into()));
        }
        Ok(-self.product(None)?)
    }

    fn product(&mut self, first: Option<Size>) -> Result<Size, SizeSyntaxError> {
        let mut product = match first {
            Some(first) => first,
            None => self.atom()?,
        };
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
            product = self.simple(product)?;
        }
    }

    fn atom(&mut self) -> Result<Size, SizeSyntaxError> {
        if self.eat("(") {
            let size = self.sum()?;
            self.expect(")", "expected `)`")?;
            return self.simple(size);
        }
        if self.eat("\"") {
            return Ok(Size::symbol(self.quoted()?));
        }
        let rest = self.rest();
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
        if !is_plain(&word) && !matches!(&*word, "min" | "max") {
            return Err(self.error("expected a number or a symbol"));
        }
        self.position += length;
        if (word == "min" || word == "max") && self.eat("(") {
            let left = self.sum()?;
            self.expect(",", "expected `,`")?;
            let right = self.sum()?;
            self.expect(")", "expected `)`")?;
            return self.simple(if word == "min" { left.smaller(&right) } else { left.larger(&right) });
        }
        Ok(Size::symbol(word))
    }

    /// The rest of a text in quotes, after the first.
    fn quoted(&mut self) -> Result<String, SizeSyntaxError> {
        let mut out = String::new();
        let mut chars = self.rest().char_indices();
        while let Some((at, c)) = chars.next() {
            let escaped = match c {
                '"' => {
                    self.position += at + 1;
                    return Ok(out);
                }
                '\\' => chars.next().map(|(_, c)| c),
                c => {
                    out.push(c);
                    continue;
                }
            };
            out.push(match escaped {
                Some(c @ ('"' | '\\')) => c,
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('u') => {
                    let code = chars.as_str().strip_prefix('{').and_then(|rest| rest.split_once('}'));
                    let code = code.filter(|(digits, _)| digits.len() <= 6);
                    let found = code.and_then(|(digits, _)| u32::from_str_radix(digits, 16).ok());
                    let found = found.and_then(char::from_u32).ok_or_else(|| self.error("expected `\\u{41}`"))?;
                    chars.by_ref().find(|(_, c)| *c == '}');
                    found
                }
                _ => return Err(self.error("expected an escape: \\\", \\\\, \\n, \\r, \\t or \\u{41}")),
            });
        }
        Err(self.error("expected the end of a quoted symbol"))
    }
}
