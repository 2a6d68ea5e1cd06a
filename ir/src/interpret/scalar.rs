//! Scalar expressions at one position.

use super::{Arithmetic, Number, functions, numerics};
use crate::{
    ScalarExpr,
    scalar::{Binary, Unary},
};
use strang_runtime::{Bindings, ElementType, size::SizeError};

/// A scalar expression whose types and sizes are known.
#[derive(Debug)]
pub(super) enum Scalar {
    Operand(usize),
    Index(usize),
    Value(Number),
    Unary(Unary, ElementType, Box<Scalar>),
    Binary(Binary, ElementType, Box<(Scalar, Scalar)>),
    Select(Box<(Scalar, Scalar, Scalar)>),
    Cast(ElementType, Box<Scalar>),
}

impl Scalar {
    /// Prepares a verified expression; also says the type of its value.
    pub(super) fn new(
        expression: &ScalarExpr,
        operands: &[ElementType],
        bindings: &Bindings,
    ) -> Result<(Self, ElementType), SizeError> {
        let prepare = |part: &ScalarExpr| Self::new(part, operands, bindings);
        Ok(match expression {
            ScalarExpr::Operand(slot) => (Scalar::Operand(*slot as usize), operands[*slot as usize]),
            ScalarExpr::Index(variable) => (Scalar::Index(*variable as usize), ElementType::I64),
            ScalarExpr::Size(size) => (Scalar::Value(Number::Integer(size.eval(bindings)?.into())), ElementType::I64),
            ScalarExpr::Literal(literal) => (Scalar::Value(Number::of(*literal)), literal.element),
            ScalarExpr::Unary(function, operand) => {
                let (operand, element) = prepare(operand)?;
                let result = if function.is_predicate() { ElementType::Bool } else { element };
                (Scalar::Unary(*function, element, Box::new(operand)), result)
            }
            ScalarExpr::Binary(function, left, right) => {
                let ((left, element), (right, _)) = (prepare(left)?, prepare(right)?);
                let result = if function.is_comparison() { ElementType::Bool } else { element };
                (Scalar::Binary(*function, element, Box::new((left, right))), result)
            }
            ScalarExpr::Select(condition, yes, no) => {
                let ((condition, _), (yes, element), (no, _)) = (prepare(condition)?, prepare(yes)?, prepare(no)?);
                (Scalar::Select(Box::new((condition, yes, no))), element)
            }
            ScalarExpr::Cast(element, value) => (Scalar::Cast(*element, Box::new(prepare(value)?.0)), *element),
        })
    }

    /// The value at a position.
    pub(super) fn eval(&self, operands: &[Number], position: &[i64], arithmetic: Arithmetic) -> Number {
        let value = |part: &Scalar| part.eval(operands, position, arithmetic);
        match self {
            Scalar::Operand(slot) => operands[*slot],
            Scalar::Index(variable) => Number::Integer(position[*variable].into()),
            Scalar::Value(number) => *number,
            Scalar::Unary(function, element, operand) => unary(*function, *element, value(operand), arithmetic),
            Scalar::Binary(function, element, sides) => {
                binary(*function, *element, value(&sides.0), value(&sides.1), arithmetic)
            }
            Scalar::Select(parts) if value(&parts.0).holds() => value(&parts.1),
            Scalar::Select(parts) => value(&parts.2),
            Scalar::Cast(element, operand) => numerics::cast(*element, value(operand), arithmetic),
        }
    }
}

/// Whether floats of a type are computed in f32 under an arithmetic.
pub(super) fn is_single(element: ElementType, arithmetic: Arithmetic) -> bool {
    arithmetic == Arithmetic::Typed && element != ElementType::F64
}

/// A function of one value of an element type.
pub(super) fn unary(function: Unary, element: ElementType, value: Number, arithmetic: Arithmetic) -> Number {
    match value {
        Number::Integer(value) => Number::Integer(numerics::wrap(element, integer_unary(function, element, value))),
        Number::Float(value) => match function {
            Unary::IsNan => Number::Integer(value.is_nan().into()),
            Unary::IsInfinite => Number::Integer(value.is_infinite().into()),
            _ if is_single(element, arithmetic) => {
                let result = functions::single(function, value as f32);
                numerics::settle(element, Number::Float(result.into()), arithmetic)
            }
            _ => Number::Float(functions::double(function, value)),
        },
    }
}

fn integer_unary(function: Unary, element: ElementType, value: i128) -> i128 {
    match function {
        Unary::Negate => -value,
        Unary::Absolute => value.abs(),
        Unary::Sign => value.signum(),
        Unary::Relu => value.max(0),
        Unary::Not if element == ElementType::Bool => 1 - value,
        Unary::Not => !value,
        _ => value,
    }
}

/// A function of two values of an element type.
pub(super) fn binary(
    function: Binary,
    element: ElementType,
    left: Number,
    right: Number,
    arithmetic: Arithmetic,
) -> Number {
    use Binary::*;
    if function.is_comparison() {
        let order = match (left, right) {
            (Number::Float(a), Number::Float(b)) => a.partial_cmp(&b),
            _ => Some(left.to_i128().cmp(&right.to_i128())),
        };
        let holds = match function {
            Equal => order.is_some_and(|order| order.is_eq()),
            NotEqual => order.is_none_or(|order| order.is_ne()),
            Less => order.is_some_and(|order| order.is_lt()),
            LessOrEqual => order.is_some_and(|order| order.is_le()),
            Greater => order.is_some_and(|order| order.is_gt()),
            _ => order.is_some_and(|order| order.is_ge()),
        };
        return Number::Integer(holds.into());
    }
    let (Number::Float(a), Number::Float(b)) = (left, right) else {
        return Number::Integer(integer_binary(function, element, left.to_i128(), right.to_i128()));
    };
    let result = match function {
        Minimum => minimum(a, b),
        Maximum => maximum(a, b),
        _ if is_single(element, arithmetic) => functions::single_binary(function, a as f32, b as f32).into(),
        _ => functions::double_binary(function, a, b),
    };
    numerics::settle(element, Number::Float(result), arithmetic)
}

/// The smaller of two; NaN if one is NaN, -0 before +0.
pub(super) fn minimum(a: f64, b: f64) -> f64 {
    match (a.is_nan() || b.is_nan(), a.total_cmp(&b).is_le()) {
        (true, _) => f64::NAN,
        (false, true) => a,
        (false, false) => b,
    }
}

/// The larger of two; NaN if one is NaN, +0 after -0.
pub(super) fn maximum(a: f64, b: f64) -> f64 {
    match (a.is_nan() || b.is_nan(), a.total_cmp(&b).is_ge()) {
        (true, _) => f64::NAN,
        (false, true) => a,
        (false, false) => b,
    }
}

fn integer_binary(function: Binary, element: ElementType, a: i128, b: i128) -> i128 {
    use Binary::*;
    let width = i128::from(element.bits());
    // A shift by a negative amount is one by its unsigned bits, so by at least the width.
    let shift = u32::try_from(b).ok().filter(|amount| i128::from(*amount) < width);
    let result = match function {
        Add => a + b,
        Subtract => a - b,
        // Only the low 64 bits are kept.
        Multiply => a.wrapping_mul(b),
        Divide => a.checked_div(b).unwrap_or(0),
        Remainder => a.checked_rem(b).unwrap_or(0),
        Modulo => match a.checked_rem(b) {
            Some(left) if left != 0 && (left < 0) != (b < 0) => left + b,
            left => left.unwrap_or(0),
        },
        Power => integer_power(element, a, b),
        Minimum => a.min(b),
        Maximum => a.max(b),
        And => a & b,
        Or => a | b,
        Xor => a ^ b,
        ShiftLeft => shift.map_or(0, |amount| a << amount),
        ShiftRight => shift.map_or(if a < 0 { -1 } else { 0 }, |amount| a >> amount),
        Equal | NotEqual | Less | LessOrEqual | Greater | GreaterOrEqual => 0,
    };
    numerics::wrap(element, result)
}

fn integer_power(element: ElementType, base: i128, exponent: i128) -> i128 {
    if exponent < 0 {
        return match base {
            1 => 1,
            -1 if exponent % 2 == 0 => 1,
            -1 => -1,
            _ => 0,
        };
    }
    let (mut result, mut square, mut rest) = (1i128, base, exponent);
    while rest > 0 {
        if rest & 1 == 1 {
            result = numerics::wrap(element, result.wrapping_mul(square));
        }
        square = numerics::wrap(element, square.wrapping_mul(square));
        rest >>= 1;
    }
    result
}
