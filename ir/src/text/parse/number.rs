//! Numbers with their signs and types: `-0.5`, `0.5f32`, `inf`, `nan(0x7fc00001)`, `true`.

use super::{Parser, Result};
use crate::text::{ast::Number, error::Complaint, lexer::Token};
use strang_runtime::ElementType;

impl Parser<'_> {
    /// A number, `true` or `false`.
    pub(super) fn number(&mut self) -> Result<Number> {
        let start = self.span();
        let sign = if self.eat("-") { "-" } else { "" };
        let mut number = Number { text: String::new(), bits: None, element: None, span: start };
        match *self.peek() {
            Token::Number(ref found) => {
                number.text = format!("{sign}{}", found.text);
                number.element = found.suffix;
                self.advance();
            }
            Token::Word(word) if number_word(word).is_some() => {
                self.advance();
                let (text, element) = number_word(word).unwrap_or((word, None));
                if !sign.is_empty() && text != "inf" {
                    return Err(Complaint::new(format!("`{text}` takes no sign"), start.to(self.previous_span())));
                }
                number.text = format!("{sign}{text}");
                number.element = element;
                if text == "nan" && self.at("(") {
                    self.advance();
                    let Token::Hexadecimal(digits) = *self.peek() else {
                        return Err(self.unexpected("the bits of a NaN, as `0x7fc00001`"));
                    };
                    let span = self.advance();
                    let bits = u64::from_str_radix(digits, 16);
                    number.bits = Some(bits.map_err(|_| Complaint::new("these are more than 64 bits", span))?);
                    self.expect(")")?;
                }
            }
            _ => return Err(self.unexpected("a number")),
        }
        number.span = start.to(self.previous_span());
        Ok(number)
    }

    /// Whether a number without a sign stands here.
    pub(super) fn at_number(&self) -> bool {
        match *self.peek() {
            Token::Number(_) => true,
            Token::Word(word) => number_word(word).is_some(),
            _ => false,
        }
    }

    /// A whole number of at most 64 bits, without sign or type.
    pub(super) fn whole(&mut self) -> Result<u64> {
        if let Token::Number(number) = self.peek()
            && number.suffix.is_none()
            && let Ok(value) = number.text.parse()
        {
            self.advance();
            return Ok(value);
        }
        Err(self.unexpected("a whole number"))
    }

    /// A whole number that counts something.
    pub(super) fn count(&mut self, what: &str) -> Result<u32> {
        let span = self.span();
        let value = self.whole().map_err(|_| self.unexpected(what))?;
        u32::try_from(value).map_err(|_| Complaint::new(format!("{value} is too large for {what}"), span))
    }

    /// A whole number with a sign.
    pub(super) fn signed(&mut self) -> Result<i64> {
        let start = self.span();
        let negative = self.eat("-");
        let value = i128::from(self.whole()?);
        i64::try_from(if negative { -value } else { value })
            .map_err(|_| Complaint::new("this number does not fit 64 bits", start.to(self.previous_span())))
    }
}

/// `inf`, `nan`, `true`, `false`, and the first two with a type: `inf_f16`.
fn number_word(word: &str) -> Option<(&str, Option<ElementType>)> {
    if matches!(word, "inf" | "nan" | "true" | "false") {
        return Some((word, None));
    }
    let (text, element) = word.split_once('_')?;
    if !matches!(text, "inf" | "nan") {
        return None;
    }
    element.parse().ok().map(|element| (text, Some(element)))
}
