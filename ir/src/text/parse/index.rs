//! Index expressions and conditions: `2*u + {p} - 1`, `(e + 1) // 4`, `clamp(e, 0, 9)`, `table([3, 1, 2], e)`, `$1`,
//! `where 0 <= e < |n| and e % 2 == 0`. Names are variables here; sizes stand in bars.

use super::{DEEPEST, Parser, Result};
use crate::text::{
    ast::{ConditionTree, Index, IndexKind},
    error::{Complaint, Span},
    lexer::Token,
};
use strang_runtime::Size;

impl Parser<'_> {
    /// `[e, e, ...]`.
    pub(super) fn places(&mut self) -> Result<Vec<Index>> {
        let start = self.expect("[")?;
        let places = self.list("]", Self::index)?;
        super::check_rank(places.len(), start.to(self.previous_span()))?;
        Ok(places)
    }

    pub(super) fn index(&mut self) -> Result<Index> {
        self.nested(Self::index_sum)
    }

    fn make_index(&self, kind: IndexKind, start: Span) -> Result<Index> {
        let index = Index::new(kind, start.to(self.previous_span()));
        if index.height > DEEPEST { Err(Complaint::new("this is too deeply nested", index.span)) } else { Ok(index) }
    }

    fn index_sum(&mut self) -> Result<Index> {
        let start = self.span();
        let mut negative = self.eat("-");
        let mut parts = Vec::new();
        loop {
            // The smallest 64-bit number has no positive counterpart.
            let smallest = negative && matches!(self.peek(), Token::Number(n) if n.text == "9223372036854775808");
            if smallest {
                let at = self.advance();
                parts.push((self.index_product(Some(Size::from(i64::MIN)), at)?, false));
            } else {
                let at = self.span();
                parts.push((self.index_product(None, at)?, negative));
            }
            if self.eat("+") {
                negative = false;
            } else if self.eat("-") {
                negative = true;
            } else {
                break;
            }
        }
        if let [(_, false)] = parts.as_slice()
            && let Some((only, _)) = parts.pop()
        {
            return Ok(only);
        }
        self.make_index(IndexKind::Sum(parts), start)
    }

    fn index_product(&mut self, first: Option<Size>, start: Span) -> Result<Index> {
        let mut product = match first {
            Some(first) => self.make_index(IndexKind::Size(first), start)?,
            None => self.index_atom()?,
        };
        loop {
            if self.eat("*") {
                let mut factors = vec![product, self.index_atom()?];
                while self.eat("*") {
                    factors.push(self.index_atom()?);
                }
                product = self.make_index(IndexKind::Product(factors), start)?;
            } else if self.eat("//") {
                let divisor = self.index_atom()?;
                product = self.make_index(IndexKind::FloorDiv(Box::new(product), Box::new(divisor)), start)?;
            } else if self.eat("%") {
                let divisor = self.index_atom()?;
                product = self.make_index(IndexKind::Remainder(Box::new(product), Box::new(divisor)), start)?;
            } else {
                return Ok(product);
            }
        }
    }

    fn index_atom(&mut self) -> Result<Index> {
        let start = self.span();
        let kind = match *self.peek() {
            Token::Mark("(") => {
                self.advance();
                let inner = self.index()?;
                self.expect(")")?;
                return Ok(inner);
            }
            Token::Mark("{") => {
                self.advance();
                let name = self.word("a variable")?;
                self.expect("}")?;
                IndexKind::Variable(name.text, true)
            }
            Token::Mark("|") => IndexKind::Size(self.size_in_bars()?),
            Token::Number(_) => IndexKind::Size(self.signed()?.into()),
            Token::Slot(slot) => {
                self.advance();
                IndexKind::Read(slot)
            }
            Token::Word("clamp") if *self.peek_after() == Token::Mark("(") => {
                self.advance();
                self.advance();
                let value = self.index()?;
                self.expect(",")?;
                let low = self.index()?;
                self.expect(",")?;
                let high = self.index()?;
                self.expect(")")?;
                IndexKind::Clamp(Box::new([value, low, high]))
            }
            Token::Word("table") if *self.peek_after() == Token::Mark("(") => {
                self.advance();
                self.advance();
                self.expect("[")?;
                let entries = self.list("]", Self::signed)?;
                self.expect(",")?;
                let position = self.index()?;
                self.expect(")")?;
                IndexKind::Table(entries.into(), Box::new(position))
            }
            Token::Word(name) => {
                self.advance();
                IndexKind::Variable(name.to_owned(), false)
            }
            _ => return Err(self.unexpected("a variable, a number or a size in bars")),
        };
        self.make_index(kind, start)
    }

    /// `|4*s|`.
    pub(super) fn size_in_bars(&mut self) -> Result<Size> {
        self.expect("|")?;
        let size = self.size()?;
        self.expect("|")?;
        Ok(size)
    }

    /// What follows `where`.
    pub(super) fn conditions(&mut self) -> Result<Vec<ConditionTree>> {
        let mut conditions = vec![self.condition()?];
        while self.eat_word("and") {
            conditions.push(self.condition()?);
        }
        Ok(conditions)
    }

    fn condition(&mut self) -> Result<ConditionTree> {
        let first = self.index()?;
        if self.eat("<=") {
            let expression = self.index()?;
            self.expect("<")?;
            return Ok(ConditionTree::Range { low: first, expression, high: self.index()? });
        }
        let span = first.span;
        let IndexKind::Remainder(expression, divisor) = first.kind else {
            return Err(Complaint::new("this is not a condition", span)
                .help("conditions are `low <= e < high` and `e % d == 0`"));
        };
        self.expect("==")?;
        let zero = self.span();
        if self.whole()? != 0 {
            return Err(Complaint::new("only `== 0` can be asked for", zero));
        }
        Ok(ConditionTree::Divisible { expression: *expression, divisor: *divisor })
    }
}
