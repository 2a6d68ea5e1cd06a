//! Typed numbers: an element type and the exact bits.

use half::{bf16, f16};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use strang_runtime::{
    ElementType,
    tensor::{bits_to_f64, bits_to_integer},
};

/// A number of an element type, by its bits (so that NaN equals itself and -0 differs from +0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Literal {
    /// Its type.
    pub element: ElementType,
    /// Its bits, in the low bits.
    pub bits: u64,
}

impl Literal {
    /// The number nearest to `value`: rounded to even for floats, truncated and saturated for integers (NaN gives 0),
    /// different from zero for `bool`.
    pub fn from_f64(element: ElementType, value: f64) -> Self {
        let bits = match element {
            ElementType::F32 => (value as f32).to_bits().into(),
            ElementType::F64 => value.to_bits(),
            ElementType::F16 => f16::from_f64(value).to_bits().into(),
            ElementType::BF16 => bf16::from_f64(value).to_bits().into(),
            ElementType::Bool => u64::from(value != 0.),
            _ => return Self::from_integer(element, value as i128),
        };
        Literal { element, bits }
    }

    /// The number nearest to `value`: saturated for integer types.
    pub fn from_integer(element: ElementType, value: i128) -> Self {
        match element.integer_range() {
            None => Self::from_f64(element, value as f64),
            Some(_) if element == ElementType::Bool => Literal { element, bits: u64::from(value != 0) },
            Some((low, high)) => {
                let mask = if element.bits() == 64 { u64::MAX } else { (1 << element.bits()) - 1 };
                Literal { element, bits: value.clamp(low, high) as u64 & mask }
            }
        }
    }

    /// The number of a type that a text says, as [`Display`](fmt::Display) writes it; decimals are rounded to nearest.
    /// `None` for other text and for numbers that the type cannot hold.
    pub fn from_text(element: ElementType, text: &str) -> Option<Self> {
        if element == ElementType::Bool {
            return matches!(text, "true" | "false").then(|| Literal { element, bits: u64::from(text == "true") });
        }
        if let Some((low, high)) = element.integer_range() {
            let value = text.parse().ok().filter(|value| (low..=high).contains(value))?;
            return Some(Self::from_integer(element, value));
        }
        if let Some(digits) = text.strip_prefix("nan(0x").and_then(|rest| rest.strip_suffix(')')) {
            let literal = Literal { element, bits: u64::from_str_radix(digits, 16).ok()? };
            let fits = element.bits() == 64 || literal.bits >> element.bits() == 0;
            return (fits && literal.to_f64().is_nan()).then_some(literal);
        }
        match text {
            "nan" => return Some(Self::from_f64(element, f64::NAN)),
            "inf" => return Some(Self::from_f64(element, f64::INFINITY)),
            "-inf" => return Some(Self::from_f64(element, f64::NEG_INFINITY)),
            // Rust reads more words than these as numbers.
            other if other.contains(|c: char| !matches!(c, '0'..='9' | '.' | 'e' | 'E' | '+' | '-')) => return None,
            _ => {}
        }
        let bits = match element {
            ElementType::F32 => text.parse::<f32>().ok()?.to_bits().into(),
            _ => Self::from_f64(element, text.parse().ok()?).bits,
        };
        let literal = Literal { element, bits };
        literal.to_f64().is_finite().then_some(literal)
    }

    /// An f32.
    pub fn f32(value: f32) -> Self {
        Literal { element: ElementType::F32, bits: value.to_bits().into() }
    }

    /// An i64.
    pub fn i64(value: i64) -> Self {
        Literal { element: ElementType::I64, bits: value as u64 }
    }

    /// A bool.
    pub fn bool(value: bool) -> Self {
        Literal { element: ElementType::Bool, bits: value.into() }
    }

    /// Zero (+0, false) of a type.
    pub fn zero(element: ElementType) -> Self {
        Literal { element, bits: 0 }
    }

    /// One (true) of a type.
    pub fn one(element: ElementType) -> Self {
        Self::from_integer(element, 1)
    }

    /// The smallest value of a type, -inf for floats: the neutral element of `max`.
    pub fn lowest(element: ElementType) -> Self {
        match element.integer_range() {
            None => Self::from_f64(element, f64::NEG_INFINITY),
            Some((low, _)) => Self::from_integer(element, low),
        }
    }

    /// The largest value of a type, inf for floats: the neutral element of `min`.
    pub fn highest(element: ElementType) -> Self {
        match element.integer_range() {
            None => Self::from_f64(element, f64::INFINITY),
            Some((_, high)) => Self::from_integer(element, high),
        }
    }

    /// The value as f64 (64-bit integers beyond 2^53 are rounded).
    pub fn to_f64(self) -> f64 {
        bits_to_f64(self.element, self.bits)
    }

    /// The value of an integer or `bool`; `None` for floats.
    pub fn to_integer(self) -> Option<i128> {
        (!self.element.is_float()).then(|| bits_to_integer(self.element, self.bits))
    }

    /// Whether this is exactly `value` (any zero equals 0).
    pub fn is(self, value: f64) -> bool {
        self.to_f64() == value
    }
}

/// The shortest text that reads back as the same value: `0.5`, `-3`, `true`, `inf`, `nan`. A NaN other than the
/// default one prints its bits: `nan(0x7fc00001)`.
impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.element == ElementType::Bool {
            return f.write_str(if self.bits != 0 { "true" } else { "false" });
        }
        if let Some(value) = self.to_integer() {
            return write!(f, "{value}");
        }
        let value = self.to_f64();
        if value.is_nan() {
            return if Self::from_f64(self.element, f64::NAN) == *self {
                f.write_str("nan")
            } else {
                write!(f, "nan({:#x})", self.bits)
            };
        }
        match self.element {
            ElementType::F64 => write!(f, "{value:?}"),
            // The shortest decimal that rounds to an f16 or bf16 is at most that of the f32 of the same value.
            _ => write!(f, "{:?}", value as f32),
        }
    }
}

/// `{"element": "f32", "value": "0.5"}`: JSON's own numbers have neither infinities nor exact bits.
impl Serialize for Literal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Written { element: self.element, value: self.to_string() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Literal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Written { element, value } = Written::deserialize(deserializer)?;
        Literal::from_text(element, &value)
            .ok_or_else(|| serde::de::Error::custom(format!("`{value}` is not a number of {element}")))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    element: ElementType,
    value: String,
}
