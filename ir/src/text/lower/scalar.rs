//! Scalar expressions with their literals typed: a literal has the type of what stands beside it.

use crate::{
    Literal, ScalarExpr,
    scalar::{Binary, Unary},
    text::{
        ast::{Power, Scalar, ScalarKind},
        error::Complaint,
        parse::Result,
    },
};
use strang_runtime::{ElementType, Size};

/// What the leaves of an expression mean in its statement.
pub(super) struct Leaves<'a> {
    /// The types of the operands.
    pub operands: &'a [ElementType],
    /// The number of a variable.
    pub position: &'a dyn Fn(&str) -> u32,
}

/// Calls `visit` with the names of the variables whose positions an expression reads.
pub(super) fn visit<'a>(scalar: &'a Scalar, visit_variable: &mut dyn FnMut(&'a super::Name)) {
    match &scalar.kind {
        ScalarKind::Index(name) => visit_variable(name),
        ScalarKind::Unary(_, a) | ScalarKind::Cast(_, a) => visit(a, visit_variable),
        ScalarKind::Binary(_, parts) => parts.iter().for_each(|part| visit(part, visit_variable)),
        ScalarKind::Select(parts) => parts.iter().for_each(|part| visit(part, visit_variable)),
        ScalarKind::Operand(_) | ScalarKind::Size(_) | ScalarKind::Number(_) | ScalarKind::Scale(..) => {}
    }
}

impl Leaves<'_> {
    /// The expression; untyped literals that nothing else types have the type `expected`.
    pub fn lower(&self, scalar: &Scalar, expected: Option<ElementType>) -> Result<ScalarExpr> {
        Ok(match &scalar.kind {
            ScalarKind::Operand(slot) => {
                self.operand(*slot, scalar)?;
                ScalarExpr::Operand(*slot)
            }
            ScalarKind::Index(name) => ScalarExpr::Index((self.position)(&name.text)),
            ScalarKind::Size(size) => ScalarExpr::Size(size.clone()),
            ScalarKind::Number(number) => ScalarExpr::Literal(super::literal::lower(number, expected)?),
            ScalarKind::Unary(function, a) => {
                let expected = if function.is_predicate() { None } else { expected };
                ScalarExpr::unary(*function, self.lower(a, self.known(a).or(expected))?)
            }
            ScalarKind::Binary(function, parts) => {
                let [left, right] = &**parts;
                let expected = if function.is_comparison() { None } else { expected };
                let element = self.known(left).or_else(|| self.known(right)).or(expected);
                ScalarExpr::binary(*function, self.lower(left, element)?, self.lower(right, element)?)
            }
            ScalarKind::Select(parts) => {
                let [condition, yes, no] = &**parts;
                let element = self.known(yes).or_else(|| self.known(no)).or(expected);
                ScalarExpr::select(
                    self.lower(condition, Some(ElementType::Bool))?,
                    self.lower(yes, element)?,
                    self.lower(no, element)?,
                )
            }
            ScalarKind::Cast(element, a) => ScalarExpr::cast(*element, self.lower(a, self.known(a))?),
            ScalarKind::Scale(size, power) => {
                let element = self.operand(0, scalar)?;
                ScalarExpr::binary(Binary::Multiply, ScalarExpr::Operand(0), scale(element, size, *power))
            }
        })
    }

    fn operand(&self, slot: u32, scalar: &Scalar) -> Result<ElementType> {
        self.operands.get(slot as usize).copied().ok_or_else(|| {
            let message = format!("this reads operand {slot}, but there are {} operands", self.operands.len());
            Complaint::new(message, scalar.span).help("operands are counted from `$0`")
        })
    }

    /// The type of an expression, as far as it does not depend on untyped literals.
    fn known(&self, scalar: &Scalar) -> Option<ElementType> {
        match &scalar.kind {
            ScalarKind::Operand(slot) => self.operands.get(*slot as usize).copied(),
            ScalarKind::Index(_) | ScalarKind::Size(_) => Some(ElementType::I64),
            ScalarKind::Number(number) => {
                let bool = matches!(number.text.as_str(), "true" | "false").then_some(ElementType::Bool);
                number.element.or(bool)
            }
            ScalarKind::Unary(function, a) => {
                if function.is_predicate() {
                    Some(ElementType::Bool)
                } else {
                    self.known(a)
                }
            }
            ScalarKind::Binary(function, _) if function.is_comparison() => Some(ElementType::Bool),
            ScalarKind::Binary(_, parts) => self.known(&parts[0]).or_else(|| self.known(&parts[1])),
            ScalarKind::Select(parts) => self.known(&parts[1]).or_else(|| self.known(&parts[2])),
            ScalarKind::Cast(element, _) => Some(*element),
            ScalarKind::Scale(..) => self.operands.first().copied(),
        }
    }
}

/// A power of a size: a number where the size is one.
fn scale(element: ElementType, size: &Size, power: Power) -> ScalarExpr {
    if let Some(value) = size.as_constant() {
        let value = value as f64;
        let value = match power {
            Power::One => value,
            Power::Half => value.sqrt(),
            Power::MinusHalf => 1. / value.sqrt(),
            Power::MinusOne => 1. / value,
        };
        return ScalarExpr::Literal(Literal::from_f64(element, value));
    }
    let value = ScalarExpr::cast(element, ScalarExpr::Size(size.clone()));
    match power {
        Power::One => value,
        Power::Half => ScalarExpr::unary(Unary::SquareRoot, value),
        Power::MinusHalf => ScalarExpr::unary(Unary::ReciprocalSquareRoot, value),
        Power::MinusOne => ScalarExpr::unary(Unary::Reciprocal, value),
    }
}
