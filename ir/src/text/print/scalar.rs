//! Scalar expressions and literals as text. A literal shows its type only where the parser could not tell it.

use super::write_to;
use crate::{
    Literal, ScalarExpr,
    scalar::{Binary, Unary},
};
use strang_runtime::ElementType;

/// A literal of an expected type.
pub(super) fn literal(literal: Literal, expected: Option<ElementType>) -> String {
    let text = literal.to_string();
    if literal.element == ElementType::Bool || Some(literal.element) == expected {
        return text;
    }
    let element = literal.element;
    for word in ["-inf", "inf", "nan"] {
        if let Some(bits) = text.strip_prefix(word) {
            return format!("{word}_{element}{bits}");
        }
    }
    format!("{text}{element}")
}

/// How tightly an expression must bind to stand without parentheses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Comparison,
    Sum,
    Product,
    Atom,
}

fn operator(function: Binary) -> Option<(&'static str, Level)> {
    Some(match function {
        Binary::Add => ("+", Level::Sum),
        Binary::Subtract => ("-", Level::Sum),
        Binary::Multiply => ("*", Level::Product),
        Binary::Divide => ("/", Level::Product),
        Binary::Equal => ("==", Level::Comparison),
        Binary::NotEqual => ("!=", Level::Comparison),
        Binary::Less => ("<", Level::Comparison),
        Binary::LessOrEqual => ("<=", Level::Comparison),
        Binary::Greater => (">", Level::Comparison),
        Binary::GreaterOrEqual => (">=", Level::Comparison),
        _ => return None,
    })
}

/// What an expression is printed with.
pub(super) struct Scalars<'a> {
    /// The types of the operands.
    pub operands: &'a [ElementType],
    /// The names of the node's variables.
    pub variables: &'a [String],
}

impl Scalars<'_> {
    /// The header of a `map`: one function's name where all operands are its arguments, else the expression.
    pub fn header(&self, expression: &ScalarExpr, expected: Option<ElementType>) -> String {
        let is_operands = |parts: &[&ScalarExpr]| {
            parts.len() == self.operands.len()
                && parts.iter().enumerate().all(|(slot, part)| **part == ScalarExpr::Operand(slot as u32))
        };
        match expression {
            ScalarExpr::Unary(function, a) if is_operands(&[a]) => function.name().to_owned(),
            ScalarExpr::Binary(function, a, b) if is_operands(&[a, b]) => function.name().to_owned(),
            ScalarExpr::Select(a, b, c) if is_operands(&[a, b, c]) => "select".to_owned(),
            ScalarExpr::Cast(element, a) if is_operands(&[a]) => format!("cast({element})"),
            _ => {
                let mut out = String::new();
                self.write(&mut out, expression, expected, Level::Comparison);
                out
            }
        }
    }

    fn write(&self, out: &mut String, expression: &ScalarExpr, expected: Option<ElementType>, level: Level) {
        match expression {
            ScalarExpr::Operand(slot) => write_to(out, format_args!("${slot}")),
            ScalarExpr::Index(variable) => {
                let name = self.variables.get(*variable as usize).map_or("_", String::as_str);
                write_to(out, format_args!("index({name})"));
            }
            ScalarExpr::Size(size) => write_to(out, format_args!("|{}|", size)),
            ScalarExpr::Literal(number) => *out += &literal(*number, expected),
            ScalarExpr::Unary(function, a) => {
                let expected = if function.is_predicate() { None } else { expected };
                let expected = self.known(a).or(expected);
                if *function == Unary::Negate && !matches!(**a, ScalarExpr::Literal(_)) {
                    out.push('-');
                    return self.write(out, a, expected, Level::Atom);
                }
                self.call(out, function.name(), &[(a, expected)]);
            }
            ScalarExpr::Binary(function, a, b) => {
                let expected = if function.is_comparison() { None } else { expected };
                let element = self.known(a).or_else(|| self.known(b)).or(expected);
                let Some((mark, own)) = operator(*function) else {
                    return self.call(out, function.name(), &[(a, element), (b, element)]);
                };
                // Operators group to the left; comparisons do not group.
                let (left, right) = match own {
                    Level::Comparison => (Level::Sum, Level::Sum),
                    Level::Sum => (Level::Sum, Level::Product),
                    _ => (own, Level::Atom),
                };
                if own < level {
                    out.push('(');
                }
                self.write(out, a, element, left);
                write_to(out, format_args!(" {mark} "));
                self.write(out, b, element, right);
                if own < level {
                    out.push(')');
                }
            }
            ScalarExpr::Select(condition, yes, no) => {
                let element = self.known(yes).or_else(|| self.known(no)).or(expected);
                self.call(out, "select", &[(condition, Some(ElementType::Bool)), (yes, element), (no, element)]);
            }
            ScalarExpr::Cast(element, a) => {
                write_to(out, format_args!("cast({element}, "));
                self.write(out, a, self.known(a), Level::Comparison);
                out.push(')');
            }
        }
    }

    fn call(&self, out: &mut String, function: &str, arguments: &[(&ScalarExpr, Option<ElementType>)]) {
        write_to(out, format_args!("{function}("));
        for (position, (argument, expected)) in arguments.iter().enumerate() {
            if position > 0 {
                *out += ", ";
            }
            self.write(out, argument, *expected, Level::Comparison);
        }
        out.push(')');
    }

    /// The type of an expression as far as it does not depend on literals, which print without type where they can.
    fn known(&self, expression: &ScalarExpr) -> Option<ElementType> {
        match expression {
            ScalarExpr::Operand(slot) => self.operands.get(*slot as usize).copied(),
            ScalarExpr::Index(_) | ScalarExpr::Size(_) => Some(ElementType::I64),
            ScalarExpr::Literal(literal) => (literal.element == ElementType::Bool).then_some(ElementType::Bool),
            ScalarExpr::Unary(function, a) => {
                if function.is_predicate() {
                    Some(ElementType::Bool)
                } else {
                    self.known(a)
                }
            }
            ScalarExpr::Binary(function, _, _) if function.is_comparison() => Some(ElementType::Bool),
            ScalarExpr::Binary(_, a, b) => self.known(a).or_else(|| self.known(b)),
            ScalarExpr::Select(_, yes, no) => self.known(yes).or_else(|| self.known(no)),
            ScalarExpr::Cast(element, _) => Some(*element),
        }
    }
}
