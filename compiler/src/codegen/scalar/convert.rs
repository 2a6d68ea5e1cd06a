//! From one element type to another, and rounding to the half types.

use super::{Lanes, register};
use crate::codegen::emit::Emitter;
use cranelift_codegen::ir::{
    InstBuilder, Value,
    condcodes::{FloatCC, IntCC},
    types::{F32, F32X4, F64, I8, I32, I32X4, I64},
};
use strang_ir::ElementType;

impl Emitter<'_> {
    /// A value in another type.
    pub fn cast(&mut self, from: ElementType, to: ElementType, value: Value, lanes: Lanes) -> Value {
        if from == to {
            return value;
        }
        if lanes == Lanes::Four {
            return self.cast_lanes(from, to, value);
        }
        match (from.is_float(), to) {
            (true, ElementType::Bool) => {
                let zero = self.float(from, 0., lanes);
                self.builder.ins().fcmp(FloatCC::NotEqual, value, zero)
            }
            (false, ElementType::Bool) => self.builder.ins().icmp_imm_s(IntCC::NotEqual, value, 0),
            (true, _) if to.is_float() => self.float_to_float(from, to, value),
            (true, _) => self.float_to_integer(to, value, lanes),
            (false, _) if to.is_float() => {
                let wide = match from {
                    ElementType::Bool => self.builder.ins().uextend(I32, value),
                    _ => value,
                };
                // The half types are computed in f32.
                let kind = if to == ElementType::F64 { F64 } else { F32 };
                let float = match from {
                    ElementType::U32 | ElementType::U64 => self.builder.ins().fcvt_from_uint(kind, wide),
                    _ => self.builder.ins().fcvt_from_sint(kind, wide),
                };
                self.round(to, float, lanes)
            }
            _ => {
                let wide = match (register(from, lanes), register(to, lanes)) {
                    (I8, kind) => self.builder.ins().uextend(kind, value),
                    (I32, I64) if from.is_signed_integer() => self.builder.ins().sextend(I64, value),
                    (I32, I64) => self.builder.ins().uextend(I64, value),
                    (I64, I32) => self.builder.ins().ireduce(I32, value),
                    _ => value,
                };
                self.normalise(to, wide, lanes)
            }
        }
    }

    fn cast_lanes(&mut self, from: ElementType, to: ElementType, value: Value) -> Value {
        let lanes = Lanes::Four;
        match (from.is_float(), to) {
            (true, ElementType::Bool) => {
                let zero = self.float(from, 0., lanes);
                self.builder.ins().fcmp(FloatCC::NotEqual, value, zero)
            }
            (false, ElementType::Bool) => {
                let zero = self.bits32(0, lanes);
                self.builder.ins().icmp(IntCC::NotEqual, value, zero)
            }
            (true, _) if to.is_float() => self.round(to, value, lanes),
            (true, _) => self.float_to_integer(to, value, lanes),
            (false, _) => {
                let wide = match from {
                    ElementType::Bool => {
                        let one = self.bits32(1, lanes);
                        self.builder.ins().band(value, one)
                    }
                    _ => value,
                };
                if !to.is_float() {
                    return self.normalise(to, wide, lanes);
                }
                let float = match from {
                    ElementType::U32 => self.builder.ins().fcvt_from_uint(F32X4, wide),
                    _ => self.builder.ins().fcvt_from_sint(F32X4, wide),
                };
                self.round(to, float, lanes)
            }
        }
    }

    fn float_to_integer(&mut self, to: ElementType, value: Value, lanes: Lanes) -> Value {
        let kind = register(to, lanes);
        match to {
            ElementType::U32 | ElementType::U64 => self.builder.ins().fcvt_to_uint_sat(kind, value),
            ElementType::I32 | ElementType::I64 => self.builder.ins().fcvt_to_sint_sat(kind, value),
            _ if lanes == Lanes::Four => self.clamped_to_integers(to, value),
            _ => {
                let whole = self.builder.ins().fcvt_to_sint_sat(kind, value);
                let (low, high) = to.integer_range().unwrap_or((0, 0));
                let (low, high) = (self.bits32(low as i32 as u32, lanes), self.bits32(high as u32, lanes));
                let below = self.builder.ins().icmp(IntCC::SignedLessThan, whole, low);
                let whole = self.select(below, low, whole, lanes);
                let above = self.builder.ins().icmp(IntCC::SignedGreaterThan, whole, high);
                self.select(above, high, whole, lanes)
            }
        }
    }

    /// Vectors of f32 to integers of 8 or 16 bits, 0 for NaN. Where floats are in range before they are converted, x86 converts
    /// them by one instruction.
    fn clamped_to_integers(&mut self, to: ElementType, mut value: Value) -> Value {
        let lanes = Lanes::Four;
        let (low, high) = to.integer_range().unwrap_or((0, 0));
        if low < 0 {
            let ordered = self.builder.ins().fcmp(FloatCC::Ordered, value, value);
            let zero = self.float(ElementType::F32, 0., lanes);
            value = self.select(ordered, value, zero, lanes);
        }
        let (low, high) =
            (self.float(ElementType::F32, low as f64, lanes), self.float(ElementType::F32, high as f64, lanes));
        // In this order both are one instruction, and NaN becomes the least.
        let is_above = self.builder.ins().fcmp(FloatCC::LessThan, low, value);
        let value = self.select(is_above, value, low, lanes);
        let is_below = self.builder.ins().fcmp(FloatCC::LessThan, value, high);
        let value = self.select(is_below, value, high, lanes);
        if self.target.isa.name() == "x64" {
            return self.builder.ins().x86_cvtt2dq(I32X4, value);
        }
        self.builder.ins().fcvt_to_sint_sat(I32X4, value)
    }

    fn float_to_float(&mut self, from: ElementType, to: ElementType, value: Value) -> Value {
        match (from, to) {
            (ElementType::F64, ElementType::F32) => self.builder.ins().fdemote(F32, value),
            (_, ElementType::F64) => self.builder.ins().fpromote(F64, value),
            (ElementType::F64, _) => {
                let odd = self.demote_to_odd(value);
                self.round(to, odd, Lanes::One)
            }
            _ => self.round(to, value, Lanes::One),
        }
    }

    /// f64 to f32 rounded to odd, so that rounding once more to a shorter type rounds correctly.
    fn demote_to_odd(&mut self, value: Value) -> Value {
        let near = self.builder.ins().fdemote(F32, value);
        let back = self.builder.ins().fpromote(F64, near);
        let (size, back_size) = (self.builder.ins().fabs(value), self.builder.ins().fabs(back));
        let beyond = self.builder.ins().fcmp(FloatCC::GreaterThan, back_size, size);
        let beyond = self.builder.ins().uextend(I32, beyond);
        let inexact = self.builder.ins().fcmp(FloatCC::OrderedNotEqual, back_size, size);
        let bits = self.as_bits(near, Lanes::One);
        let towards_zero = self.builder.ins().isub(bits, beyond);
        let odd = self.builder.ins().bor_imm_s(towards_zero, 1);
        let bits = self.builder.ins().select(inexact, odd, bits);
        self.as_float(bits, Lanes::One)
    }

    /// An f32 rounded to the nearest value of f16 or bf16; other types stay.
    pub fn round(&mut self, element: ElementType, value: Value, lanes: Lanes) -> Value {
        match element {
            ElementType::BF16 => {
                let bits = self.as_bits(value, lanes);
                let rounded = self.round_bits(bits, 16, lanes);
                let rounded = self.as_float(rounded, lanes);
                let nan = self.builder.ins().fcmp(FloatCC::Unordered, value, value);
                let quiet = self.float(ElementType::F32, f64::NAN, lanes);
                self.select(nan, quiet, rounded, lanes)
            }
            ElementType::F16 => {
                let size = self.builder.ins().fabs(value);
                let bits = self.as_bits(size, lanes);
                let normal = self.round_bits(bits, 13, lanes);
                let normal = self.as_float(normal, lanes);
                let (half, least) =
                    (self.float(ElementType::F32, 0.5, lanes), self.float(ElementType::F32, 2f64.powi(-14), lanes));
                // Adding 1/2 leaves 24 bits after the point, which are those of f16 subnormals.
                let up = self.builder.ins().fadd(size, half);
                let subnormal = self.builder.ins().fsub(up, half);
                let tiny = self.builder.ins().fcmp(FloatCC::LessThan, size, least);
                let rounded = self.select(tiny, subnormal, normal, lanes);
                let (limit, infinity) =
                    (self.float(ElementType::F32, 65520., lanes), self.float(ElementType::F32, f64::INFINITY, lanes));
                let over = self.builder.ins().fcmp(FloatCC::GreaterThanOrEqual, size, limit);
                let rounded = self.select(over, infinity, rounded, lanes);
                let nan = self.builder.ins().fcmp(FloatCC::Unordered, value, value);
                let quiet = self.float(ElementType::F32, f64::NAN, lanes);
                let rounded = self.select(nan, quiet, rounded, lanes);
                self.copysign(rounded, value, lanes)
            }
            _ => value,
        }
    }

    /// Bits of an f32 rounded to nearest even with the low `dropped` bits zero.
    fn round_bits(&mut self, bits: Value, dropped: u32, lanes: Lanes) -> Value {
        let last = self.shift_right(bits, dropped);
        let one = self.bits32(1, lanes);
        let odd = self.builder.ins().band(last, one);
        let below_half = self.bits32((1 << (dropped - 1)) - 1, lanes);
        let up = self.builder.ins().iadd(bits, below_half);
        let up = self.builder.ins().iadd(up, odd);
        let mask = self.bits32(!((1 << dropped) - 1), lanes);
        self.builder.ins().band(up, mask)
    }

    /// The f32 of the bits of an f16 or bf16.
    pub(super) fn decode_half(&mut self, element: ElementType, bits: Value, lanes: Lanes) -> Value {
        if element == ElementType::BF16 {
            let bits = self.shift_left(bits, 16);
            return self.as_float(bits, lanes);
        }
        let (mask, top) = (self.bits32(0x7fff, lanes), self.bits32(0x8000, lanes));
        let (size, sign) = (self.builder.ins().band(bits, mask), self.builder.ins().band(bits, top));
        let shifted = self.shift_left(size, 13);
        let rebias = self.bits32(112 << 23, lanes);
        let normal = self.builder.ins().iadd(shifted, rebias);
        let special = self.builder.ins().iadd(normal, rebias);
        let (least, first_special) = (self.bits32(0x400, lanes), self.bits32(0x7c00, lanes));
        let is_special = self.builder.ins().icmp(IntCC::SignedGreaterThanOrEqual, size, first_special);
        let value = self.select(is_special, special, normal, lanes);
        // A subnormal is a count of 2^-24: put it after the point of 1/2 and take 1/2 away.
        let half_bits = self.bits32(0.5f32.to_bits(), lanes);
        let counted = self.builder.ins().iadd(size, half_bits);
        let counted = self.as_float(counted, lanes);
        let half = self.float(ElementType::F32, 0.5, lanes);
        let subnormal = self.builder.ins().fsub(counted, half);
        let subnormal = self.as_bits(subnormal, lanes);
        let is_tiny = self.builder.ins().icmp(IntCC::SignedLessThan, size, least);
        let value = self.select(is_tiny, subnormal, value, lanes);
        let sign = self.shift_left(sign, 16);
        let value = self.builder.ins().bor(value, sign);
        self.as_float(value, lanes)
    }

    /// The bits, in an i32, of an f32 that holds a value of f16 or bf16.
    pub(super) fn encode_half(&mut self, element: ElementType, value: Value, lanes: Lanes) -> Value {
        let bits = self.as_bits(value, lanes);
        let high = self.shift_right(bits, 16);
        if element == ElementType::BF16 {
            return high;
        }
        let sign_mask = self.bits32(0x8000, lanes);
        let sign = self.builder.ins().band(high, sign_mask);
        let size = self.builder.ins().fabs(value);
        let size_bits = self.as_bits(size, lanes);
        let shifted = self.shift_right(size_bits, 13);
        let rebias = self.bits32(112 << 10, lanes);
        let normal = self.builder.ins().isub(shifted, rebias);
        let half = self.float(ElementType::F32, 0.5, lanes);
        let counted = self.builder.ins().fadd(size, half);
        let counted = self.as_bits(counted, lanes);
        let half_bits = self.bits32(0.5f32.to_bits(), lanes);
        let subnormal = self.builder.ins().isub(counted, half_bits);
        let least = self.float(ElementType::F32, 2f64.powi(-14), lanes);
        let tiny = self.builder.ins().fcmp(FloatCC::LessThan, size, least);
        let half_value = self.select(tiny, subnormal, normal, lanes);
        let infinity = self.float(ElementType::F32, f64::INFINITY, lanes);
        let infinite = self.builder.ins().fcmp(FloatCC::Equal, size, infinity);
        let infinity_bits = self.bits32(0x7c00, lanes);
        let half_value = self.select(infinite, infinity_bits, half_value, lanes);
        let nan = self.builder.ins().fcmp(FloatCC::Unordered, value, value);
        let nan_bits = self.bits32(0x7e00, lanes);
        let half_value = self.select(nan, nan_bits, half_value, lanes);
        self.builder.ins().bor(half_value, sign)
    }
}
