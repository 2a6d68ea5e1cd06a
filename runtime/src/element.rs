//! Element types of arrays: what one number in memory is.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The type of one element of an array.
///
/// The sub-byte integers are stored packed, the first element in the low bits of a byte (ONNX's convention).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each variant is named by its type")]
pub enum ElementType {
    F32,
    F64,
    F16,
    BF16,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    Bool,
    I4,
    U4,
    I2,
    U2,
}

use ElementType::*;

impl ElementType {
    /// Every element type.
    pub const ALL: [ElementType; 17] =
        [F32, F64, F16, BF16, I8, I16, I32, I64, U8, U16, U32, U64, Bool, I4, U4, I2, U2];

    /// Bits of one element in memory.
    pub const fn bits(self) -> u32 {
        match self {
            F64 | I64 | U64 => 64,
            F32 | I32 | U32 => 32,
            F16 | BF16 | I16 | U16 => 16,
            I8 | U8 | Bool => 8,
            I4 | U4 => 4,
            I2 | U2 => 2,
        }
    }

    /// Bytes of one element; `None` for the sub-byte types.
    pub const fn bytes(self) -> Option<usize> {
        if self.bits() >= 8 { Some(self.bits() as usize / 8) } else { None }
    }

    /// Bytes of `count` packed elements, or `None` on overflow.
    pub fn bytes_of(self, count: usize) -> Option<usize> {
        count.checked_mul(self.bits() as usize).map(|bits| bits.div_ceil(8))
    }

    /// Whether this is a floating-point type.
    pub const fn is_float(self) -> bool {
        matches!(self, F32 | F64 | F16 | BF16)
    }

    /// Whether this is an integer type (`bool` is not).
    pub const fn is_integer(self) -> bool {
        !self.is_float() && !matches!(self, Bool)
    }

    /// Whether this is a signed integer type.
    pub const fn is_signed_integer(self) -> bool {
        matches!(self, I8 | I16 | I32 | I64 | I4 | I2)
    }

    /// Smallest and largest value of an integer type or `bool`; `None` for floats.
    pub const fn integer_range(self) -> Option<(i128, i128)> {
        if self.is_float() {
            return None;
        }
        if matches!(self, Bool) {
            return Some((0, 1));
        }
        let bits = self.bits();
        Some(if self.is_signed_integer() { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) })
    }

    /// The type a `dot` of this type accumulates in unless it says otherwise: f16 and bf16 in f32, integers of up to 16
    /// bits in i32, the others in themselves.
    pub const fn accumulator(self) -> ElementType {
        match self {
            F16 | BF16 => F32,
            I8 | I16 | U8 | U16 | I4 | U4 | I2 | U2 | Bool => I32,
            other => other,
        }
    }

    /// The name in the text format: `f32`, `bool`, ...
    pub const fn name(self) -> &'static str {
        match self {
            F32 => "f32",
            F64 => "f64",
            F16 => "f16",
            BF16 => "bf16",
            I8 => "i8",
            I16 => "i16",
            I32 => "i32",
            I64 => "i64",
            U8 => "u8",
            U16 => "u16",
            U32 => "u32",
            U64 => "u64",
            Bool => "bool",
            I4 => "i4",
            U4 => "u4",
            I2 => "i2",
            U2 => "u2",
        }
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The text is not the name of an element type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown element type `{0}`; the element types are f32, f64, f16, bf16, i2 to i64, u2 to u64 and bool")]
pub struct UnknownElementType(pub String);

impl FromStr for ElementType {
    type Err = UnknownElementType;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|element| element.name() == text).ok_or_else(|| UnknownElementType(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for element in ElementType::ALL {
            assert_eq!(element.name().parse(), Ok(element));
        }
        assert!("float".parse::<ElementType>().is_err());
    }

    #[test]
    fn ranges() {
        assert_eq!(I8.integer_range(), Some((-128, 127)));
        assert_eq!(U64.integer_range(), Some((0, u64::MAX as i128)));
        assert_eq!(I2.integer_range(), Some((-2, 1)));
        assert_eq!(I4.bytes_of(3), Some(2));
    }
}
