//! Scalar expressions of `map`: `$0 * 0.5 + sin($1)`, `select($0 < $1, 0, index(s))`, and the short headers that name
//! one function of all operands: `map add`, `map cast(f32)`, `map scale(|k|^-1/2)`.

use super::{Parser, Result};
use crate::{
    scalar::{Binary, Unary},
    text::{
        ast::{Power, Scalar, ScalarKind},
        error::{Complaint, Span, suggest},
        lexer::Token,
    },
};

/// Expressions nested deeper than this are refused; long sums nest to the left.
const DEEPEST: u16 = 256;

const COMPARISONS: [(&str, Binary); 6] = [
    ("==", Binary::Equal),
    ("!=", Binary::NotEqual),
    ("<=", Binary::LessOrEqual),
    (">=", Binary::GreaterOrEqual),
    ("<", Binary::Less),
    (">", Binary::Greater),
];
const SUMS: [(&str, Binary); 2] = [("+", Binary::Add), ("-", Binary::Subtract)];
const PRODUCTS: [(&str, Binary); 2] = [("*", Binary::Multiply), ("/", Binary::Divide)];

impl Parser<'_> {
    /// What stands between `map` and its operands.
    pub(super) fn map_header(&mut self) -> Result<Scalar> {
        let start = self.span();
        if let Token::Word(word) = *self.peek() {
            if *self.peek_after() != Token::Mark("(")
                && let Some(kind) = self.function_of_operands(word, start)
            {
                self.advance();
                return self.make_scalar(kind, start);
            }
            if word == "cast" && self.cast_ends_here() {
                self.advance();
                self.expect("(")?;
                let element = self.element_type()?;
                self.expect(")")?;
                let operand = self.make_scalar(ScalarKind::Operand(0), start)?;
                return self.make_scalar(ScalarKind::Cast(element, Box::new(operand)), start);
            }
            if word == "scale" {
                return self.scale();
            }
        }
        self.scalar()
    }

    /// `add` for `add($0, $1)`.
    fn function_of_operands(&self, word: &str, span: Span) -> Option<ScalarKind> {
        let operand = |slot| Scalar::new(ScalarKind::Operand(slot), span);
        if let Some(function) = Unary::from_name(word) {
            return Some(ScalarKind::Unary(function, Box::new(operand(0))));
        }
        if let Some(function) = Binary::from_name(word) {
            return Some(ScalarKind::Binary(function, Box::new([operand(0), operand(1)])));
        }
        (word == "select").then(|| ScalarKind::Select(Box::new([operand(0), operand(1), operand(2)])))
    }

    /// Whether `cast(f32)` stands here, not `cast(f32, ...)`.
    fn cast_ends_here(&self) -> bool {
        matches!(self.tokens.get(self.position + 3), Some((Token::Mark(")"), _)))
    }

    /// `scale(|k|^-1/2)` or `scale(0.5)`.
    fn scale(&mut self) -> Result<Scalar> {
        let start = self.advance();
        self.expect("(")?;
        let kind = if self.at("|") {
            let size = self.size_in_bars()?;
            let power = if self.eat("^") { self.power()? } else { Power::One };
            ScalarKind::Scale(size, power)
        } else {
            let number_start = self.span();
            let number = self.number()?;
            let number = self.make_scalar(ScalarKind::Number(number), number_start)?;
            let operand = Scalar::new(ScalarKind::Operand(0), start);
            ScalarKind::Binary(Binary::Multiply, Box::new([operand, number]))
        };
        self.expect(")")?;
        self.make_scalar(kind, start)
    }

    fn power(&mut self) -> Result<Power> {
        let start = self.span();
        let negative = self.eat("-");
        let numerator = self.whole()?;
        let denominator = if self.eat("/") { self.whole()? } else { 1 };
        match (negative, numerator, denominator) {
            (false, 1, 1) => Ok(Power::One),
            (true, 1, 1) => Ok(Power::MinusOne),
            (false, 1, 2) => Ok(Power::Half),
            (true, 1, 2) => Ok(Power::MinusHalf),
            _ => Err(Complaint::new("powers of sizes are 1, -1, 1/2 and -1/2", start.to(self.previous_span()))),
        }
    }

    fn make_scalar(&self, kind: ScalarKind, start: Span) -> Result<Scalar> {
        let scalar = Scalar::new(kind, start.to(self.previous_span()));
        if scalar.height > DEEPEST { Err(Complaint::new("this is too deeply nested", scalar.span)) } else { Ok(scalar) }
    }

    fn scalar(&mut self) -> Result<Scalar> {
        self.nested(|parser| {
            let start = parser.span();
            let left = parser.scalar_sum()?;
            let Some(function) = parser.eat_operator(&COMPARISONS) else { return Ok(left) };
            let right = parser.scalar_sum()?;
            parser.make_scalar(ScalarKind::Binary(function, Box::new([left, right])), start)
        })
    }

    fn eat_operator(&mut self, operators: &[(&str, Binary)]) -> Option<Binary> {
        let (_, function) = operators.iter().find(|(mark, _)| self.at(mark))?;
        self.advance();
        Some(*function)
    }

    fn scalar_sum(&mut self) -> Result<Scalar> {
        let start = self.span();
        let mut sum = self.scalar_product()?;
        while let Some(function) = self.eat_operator(&SUMS) {
            let right = self.scalar_product()?;
            sum = self.make_scalar(ScalarKind::Binary(function, Box::new([sum, right])), start)?;
        }
        Ok(sum)
    }

    fn scalar_product(&mut self) -> Result<Scalar> {
        let start = self.span();
        let mut product = self.scalar_sign()?;
        while let Some(function) = self.eat_operator(&PRODUCTS) {
            let right = self.scalar_sign()?;
            product = self.make_scalar(ScalarKind::Binary(function, Box::new([product, right])), start)?;
        }
        Ok(product)
    }

    /// `-2` is a number, `-$0` a negation.
    fn scalar_sign(&mut self) -> Result<Scalar> {
        let start = self.span();
        if !self.at("-") {
            return self.scalar_atom();
        }
        if let Token::Number(_) | Token::Word("inf") = self.peek_after() {
            let number = self.number()?;
            return self.make_scalar(ScalarKind::Number(number), start);
        }
        if let Token::Word(word) = *self.peek_after()
            && word.starts_with("inf_")
        {
            let number = self.number()?;
            return self.make_scalar(ScalarKind::Number(number), start);
        }
        self.advance();
        let operand = self.nested(Self::scalar_sign)?;
        self.make_scalar(ScalarKind::Unary(Unary::Negate, Box::new(operand)), start)
    }

    fn scalar_atom(&mut self) -> Result<Scalar> {
        let start = self.span();
        let kind = match *self.peek() {
            Token::Mark("(") => {
                self.advance();
                let inner = self.scalar()?;
                self.expect(")")?;
                return Ok(inner);
            }
            Token::Mark("|") => ScalarKind::Size(self.size_in_bars()?),
            Token::Slot(slot) => {
                self.advance();
                ScalarKind::Operand(slot)
            }
            _ if self.at_number() => ScalarKind::Number(self.number()?),
            Token::Word(word) if *self.peek_after() == Token::Mark("(") => return self.function_call(word),
            _ => return Err(self.unexpected("an operand, as `$0`, a number or a function")),
        };
        self.make_scalar(kind, start)
    }

    fn function_call(&mut self, word: &str) -> Result<Scalar> {
        let start = self.advance();
        self.expect("(")?;
        let kind = if word == "index" {
            ScalarKind::Index(self.word("a variable")?)
        } else if word == "cast" {
            let element = self.element_type()?;
            self.expect(",")?;
            ScalarKind::Cast(element, Box::new(self.scalar()?))
        } else if word == "select" {
            let condition = self.scalar()?;
            self.expect(",")?;
            let yes = self.scalar()?;
            self.expect(",")?;
            ScalarKind::Select(Box::new([condition, yes, self.scalar()?]))
        } else if let Some(function) = Unary::from_name(word) {
            ScalarKind::Unary(function, Box::new(self.scalar()?))
        } else if let Some(function) = Binary::from_name(word) {
            let left = self.scalar()?;
            self.expect(",")?;
            ScalarKind::Binary(function, Box::new([left, self.scalar()?]))
        } else {
            return Err(unknown_function(word, start));
        };
        self.expect(")")?;
        self.make_scalar(kind, start)
    }
}

fn unknown_function(word: &str, span: Span) -> Complaint {
    let names = Unary::ALL.iter().map(|f| f.name()).chain(Binary::ALL.iter().map(|f| f.name()));
    let complaint = Complaint::new(format!("`{word}` is not a function of `map`"), span);
    match suggest(word, names.chain(["select", "cast", "index"])) {
        Some(help) => complaint.help(help),
        None => complaint,
    }
}
