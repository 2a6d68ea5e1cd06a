//! Short names for building scalar expressions.

use strang_ir::{
    Literal, ScalarExpr,
    scalar::{Binary, Unary},
};
use strang_runtime::{ElementType, Size};

/// The value of an operand.
pub fn operand(slot: u32) -> ScalarExpr {
    ScalarExpr::Operand(slot)
}

/// A number of the given type.
pub fn number(element: ElementType, value: f64) -> ScalarExpr {
    ScalarExpr::Literal(Literal::from_f64(element, value))
}

/// A number of the given type from an attribute: the decimal that the f32 was written as, when the type is wider.
pub fn attribute(element: ElementType, value: f32) -> ScalarExpr {
    number(element, value.into())
}

/// A size as a number of the given type.
pub fn size(element: ElementType, size: &Size) -> ScalarExpr {
    match size.as_constant() {
        Some(value) => ScalarExpr::Literal(Literal::from_integer(element, value.into())),
        None => cast(element, ElementType::I64, ScalarExpr::Size(size.clone())),
    }
}

/// A value in another type; a number is converted here and now.
pub fn cast(to: ElementType, from: ElementType, value: ScalarExpr) -> ScalarExpr {
    if to == from {
        return value;
    }
    let ScalarExpr::Literal(literal) = value else { return ScalarExpr::cast(to, value) };
    ScalarExpr::Literal(match literal.to_integer() {
        // Integers keep their low bits.
        Some(integer) if to.is_integer() => {
            let mask = if to.bits() == 64 { u64::MAX } else { (1 << to.bits()) - 1 };
            Literal { element: to, bits: integer as u64 & mask }
        }
        _ => Literal::from_f64(to, literal.to_f64()),
    })
}

/// `a + b`.
pub fn add(a: ScalarExpr, b: ScalarExpr) -> ScalarExpr {
    ScalarExpr::binary(Binary::Add, a, b)
}

/// `a - b`.
pub fn sub(a: ScalarExpr, b: ScalarExpr) -> ScalarExpr {
    ScalarExpr::binary(Binary::Subtract, a, b)
}

/// `a * b`.
pub fn mul(a: ScalarExpr, b: ScalarExpr) -> ScalarExpr {
    ScalarExpr::binary(Binary::Multiply, a, b)
}

/// `a / b`.
pub fn div(a: ScalarExpr, b: ScalarExpr) -> ScalarExpr {
    ScalarExpr::binary(Binary::Divide, a, b)
}

/// The smaller of two.
pub fn min(a: ScalarExpr, b: ScalarExpr) -> ScalarExpr {
    ScalarExpr::binary(Binary::Minimum, a, b)
}

/// The larger of two.
pub fn max(a: ScalarExpr, b: ScalarExpr) -> ScalarExpr {
    ScalarExpr::binary(Binary::Maximum, a, b)
}

/// `a` to the power of `b`.
pub fn pow(a: ScalarExpr, b: ScalarExpr) -> ScalarExpr {
    ScalarExpr::binary(Binary::Power, a, b)
}

/// Whether `a == b`.
pub fn equal(a: ScalarExpr, b: ScalarExpr) -> ScalarExpr {
    ScalarExpr::binary(Binary::Equal, a, b)
}

/// Whether `a < b`.
pub fn less(a: ScalarExpr, b: ScalarExpr) -> ScalarExpr {
    ScalarExpr::binary(Binary::Less, a, b)
}

/// A function of one value.
pub fn apply(function: Unary, value: ScalarExpr) -> ScalarExpr {
    ScalarExpr::unary(function, value)
}
