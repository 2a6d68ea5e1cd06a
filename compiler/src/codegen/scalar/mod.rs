//! Scalar instructions for every element type, one element or four at a time.
//!
//! In registers, f16 and bf16 are f32 that hold a value of their type; integers of up to 16 bits are i32 with the value of
//! their type; `bool` is an i8 of 0 or 1. Four lanes are a 128-bit vector of 32-bit lanes, `bool` a lane mask; the 64-bit
//! types have no vector form. Semantics are those of `strang_ir::scalar`, which say what happens where hardware differs.

mod convert;
mod functions;
mod memory;

use super::emit::Emitter;
use cranelift_codegen::ir::{
    Endianness, InstBuilder, MemFlagsData, Type, Value,
    types::{F32, F32X4, F64, I8, I32, I32X4, I64},
};
use strang_ir::{ElementType, Literal, scalar::Unary};
use strang_runtime::kernels::scalar64::Scalar64;

/// How many elements a value holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lanes {
    /// A scalar.
    One,
    /// A vector of four 32-bit lanes.
    Four,
}

/// The register type of elements of a type.
pub fn register(element: ElementType, lanes: Lanes) -> Type {
    match (element, lanes) {
        (ElementType::F64, _) => F64,
        (ElementType::I64 | ElementType::U64, _) => I64,
        (ElementType::F32 | ElementType::F16 | ElementType::BF16, Lanes::One) => F32,
        (ElementType::F32 | ElementType::F16 | ElementType::BF16, Lanes::Four) => F32X4,
        (ElementType::Bool, Lanes::One) => I8,
        (_, Lanes::One) => I32,
        (_, Lanes::Four) => I32X4,
    }
}

/// Whether values of a type fit a 32-bit lane.
pub fn has_lanes(element: ElementType) -> bool {
    element.bits() <= 32
}

fn scalar64(function: Unary) -> Option<Scalar64> {
    Scalar64::from_name(function.name())
}

impl Emitter<'_> {
    /// A number in its register type.
    pub fn literal(&mut self, literal: Literal, lanes: Lanes) -> Value {
        let scalar = match literal.element {
            ElementType::F64 => self.builder.ins().f64const(f64::from_bits(literal.bits)),
            ElementType::F32 => self.builder.ins().f32const(f32::from_bits(literal.bits as u32)),
            ElementType::F16 | ElementType::BF16 => self.builder.ins().f32const(literal.to_f64() as f32),
            ElementType::I64 | ElementType::U64 => self.builder.ins().iconst(I64, literal.bits as i64),
            ElementType::Bool => self.builder.ins().iconst(I8, i64::from(literal.bits & 1 != 0)),
            _ => {
                let value = literal.to_integer().unwrap_or(0) as i32;
                self.builder.ins().iconst(I32, i64::from(value as u32))
            }
        };
        self.spread(literal.element, scalar, lanes)
    }

    /// A scalar in every lane.
    pub fn spread(&mut self, element: ElementType, scalar: Value, lanes: Lanes) -> Value {
        match lanes {
            Lanes::One => scalar,
            Lanes::Four if element == ElementType::Bool => {
                let mask = self.builder.ins().bmask(I32, scalar);
                self.builder.ins().splat(I32X4, mask)
            }
            Lanes::Four => self.builder.ins().splat(register(element, lanes), scalar),
        }
    }

    fn float(&mut self, element: ElementType, value: f64, lanes: Lanes) -> Value {
        match element {
            ElementType::F64 => self.builder.ins().f64const(value),
            _ => {
                let scalar = self.builder.ins().f32const(value as f32);
                self.spread(ElementType::F32, scalar, lanes)
            }
        }
    }

    fn bits32(&mut self, value: u32, lanes: Lanes) -> Value {
        let scalar = self.builder.ins().iconst(I32, i64::from(value));
        self.spread(ElementType::U32, scalar, lanes)
    }

    fn shift_left(&mut self, value: Value, bits: u32) -> Value {
        let bits = self.builder.ins().iconst(I32, i64::from(bits));
        self.builder.ins().ishl(value, bits)
    }

    fn shift_right(&mut self, value: Value, bits: u32) -> Value {
        let bits = self.builder.ins().iconst(I32, i64::from(bits));
        self.builder.ins().ushr(value, bits)
    }

    fn shift_right_signed(&mut self, value: Value, bits: u32) -> Value {
        let bits = self.builder.ins().iconst(I32, i64::from(bits));
        self.builder.ins().sshr(value, bits)
    }

    /// The size of one float with the sign of another; Cranelift has no such instruction on vectors.
    fn copysign(&mut self, size: Value, sign: Value, lanes: Lanes) -> Value {
        if lanes == Lanes::One {
            return self.builder.ins().fcopysign(size, sign);
        }
        let (size, sign, top) = (self.as_bits(size, lanes), self.as_bits(sign, lanes), self.bits32(1 << 31, lanes));
        let bits = self.builder.ins().bitselect(top, sign, size);
        self.as_float(bits, lanes)
    }

    fn as_bits(&mut self, value: Value, lanes: Lanes) -> Value {
        self.builder.ins().bitcast(register(ElementType::I32, lanes), little_endian(), value)
    }

    fn as_float(&mut self, value: Value, lanes: Lanes) -> Value {
        self.builder.ins().bitcast(register(ElementType::F32, lanes), little_endian(), value)
    }

    /// `a` where the condition (a `bool`) holds, else `b`.
    pub fn select(&mut self, condition: Value, a: Value, b: Value, lanes: Lanes) -> Value {
        match lanes {
            Lanes::One => self.builder.ins().select(condition, a, b),
            Lanes::Four => {
                let kind = self.builder.func.dfg.value_type(a);
                let mask = match kind {
                    I32X4 => condition,
                    _ => self.builder.ins().bitcast(kind, little_endian(), condition),
                };
                self.builder.ins().bitselect(mask, a, b)
            }
        }
    }

    /// An i32 with the value that its low bits have in a narrow integer type.
    pub fn normalise(&mut self, element: ElementType, value: Value, lanes: Lanes) -> Value {
        let bits = element.bits();
        if bits >= 32 || element.is_float() || element == ElementType::Bool {
            return value;
        }
        if element.is_signed_integer() {
            let up = self.shift_left(value, 32 - bits);
            return self.shift_right_signed(up, 32 - bits);
        }
        let mask = self.bits32((1 << bits) - 1, lanes);
        self.builder.ins().band(value, mask)
    }
}

fn little_endian() -> MemFlagsData {
    MemFlagsData::new().with_endianness(Endianness::Little)
}
