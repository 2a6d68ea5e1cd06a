//! Rounding, wrapping and conversion: how a number of one type becomes one of another.

use super::{Arithmetic, Number};
use half::{bf16, f16};
use strang_runtime::ElementType;

/// A float rounded once to an element type, to nearest and ties to even.
pub(super) fn round(element: ElementType, value: f64) -> f64 {
    match element {
        ElementType::F32 => f64::from(value as f32),
        ElementType::F16 => f16::from_f32(to_odd(value)).to_f64(),
        ElementType::BF16 => bf16::from_f32(to_odd(value)).to_f64(),
        _ => value,
    }
}

/// The f32 next to a value, to the one with an odd last bit unless it is exact. A second rounding to at least two bits
/// fewer is then as good as rounding the value itself (S. Boldo and G. Melquiond, "When double rounding is odd", 2005).
fn to_odd(value: f64) -> f32 {
    let near = value as f32;
    let error = value - f64::from(near);
    if !near.is_finite() && value.is_finite() {
        return f32::MAX.copysign(near);
    }
    if error == 0. || error.is_nan() || near.to_bits() & 1 == 1 {
        return near;
    }
    if near == 0. {
        return f32::from_bits(1).copysign(value as f32);
    }
    let outwards = (error > 0.) == (near > 0.);
    f32::from_bits(if outwards { near.to_bits() + 1 } else { near.to_bits() - 1 })
}

/// The low bits of an integer as a value of an element type; `bool` is whether any bit is set.
pub(super) fn wrap(element: ElementType, value: i128) -> i128 {
    if element == ElementType::Bool {
        return i128::from(value != 0);
    }
    let unused = 128 - element.bits();
    if element.is_signed_integer() { value << unused >> unused } else { ((value as u128) << unused >> unused) as i128 }
}

/// A value that was computed in the type in which an element type is computed, as the arithmetic stores it.
pub(super) fn settle(element: ElementType, value: Number, arithmetic: Arithmetic) -> Number {
    match value {
        Number::Integer(value) => Number::Integer(wrap(element, value)),
        Number::Float(value) if arithmetic == Arithmetic::Wide => Number::Float(value),
        Number::Float(value) => Number::Float(round(element, value)),
    }
}

/// The value in another type, as [`crate::ScalarExpr::Cast`] says.
pub(super) fn cast(element: ElementType, value: Number, arithmetic: Arithmetic) -> Number {
    match (value, element.integer_range()) {
        (_, Some(_)) if element == ElementType::Bool => Number::Integer(i128::from(match value {
            Number::Float(value) => value != 0.,
            Number::Integer(value) => value != 0,
        })),
        (Number::Float(value), Some((low, high))) => Number::Integer((value as i128).clamp(low, high)),
        (Number::Float(_), None) => settle(element, value, arithmetic),
        (Number::Integer(value), Some(_)) => Number::Integer(wrap(element, value)),
        (Number::Integer(value), None) if arithmetic == Arithmetic::Wide || element == ElementType::F64 => {
            Number::Float(value as f64)
        }
        // The half types are computed in f32.
        (Number::Integer(value), None) => Number::Float(round(element, f64::from(value as f32))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_rounded_once() {
        // One half of the last place of 1 in f16, and a little that an f32 does not hold.
        let tie = 1. + 2f64.powi(-11);
        assert_eq!(round(ElementType::F16, tie), 1.);
        assert_eq!(round(ElementType::F16, tie + 2f64.powi(-40)), 1. + 2f64.powi(-10));
        assert_eq!(round(ElementType::F16, -tie - 2f64.powi(-40)), -1. - 2f64.powi(-10));
        assert_eq!(round(ElementType::F16, tie - 2f64.powi(-40)), 1.);
        assert_eq!(round(ElementType::F16, 65519.999), 65504.);
        assert_eq!(round(ElementType::F16, 1e300), f64::INFINITY);
        assert_eq!(round(ElementType::BF16, f64::from(f32::MAX)), f64::INFINITY);
        assert_eq!(round(ElementType::F16, 1e-300), 0.);
        assert!(round(ElementType::F16, -1e-300).is_sign_negative());
    }

    #[test]
    fn integers_wrap() {
        assert_eq!(wrap(ElementType::I8, 200), -56);
        assert_eq!(wrap(ElementType::U8, -1), 255);
        assert_eq!(wrap(ElementType::I4, 7 + 1), -8);
        assert_eq!(wrap(ElementType::U64, -1), u64::MAX.into());
        assert_eq!(cast(ElementType::I8, Number::Float(1e9), Arithmetic::Typed), Number::Integer(127));
        assert_eq!(cast(ElementType::U8, Number::Float(f64::NAN), Arithmetic::Typed), Number::Integer(0));
        assert_eq!(cast(ElementType::Bool, Number::Float(f64::NAN), Arithmetic::Typed), Number::Integer(1));
    }
}
