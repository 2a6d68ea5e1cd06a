//! Elements between memory and registers.

use super::{Lanes, little_endian, register};
use crate::codegen::emit::{Emitter, PLAIN};
use cranelift_codegen::ir::{
    InstBuilder, MemFlagsData, Type, Value,
    condcodes::IntCC,
    types::{F32X4, I8, I8X16, I16X8, I32, I32X4, I64, I64X2},
};
use strang_ir::ElementType;

impl Emitter<'_> {
    /// Reads one or four adjacent elements of at least a byte.
    pub fn load_at(
        &mut self,
        element: ElementType,
        flags: MemFlagsData,
        place: Value,
        offset: i32,
        lanes: Lanes,
    ) -> Value {
        let ins = self.builder.ins();
        match (element, lanes) {
            (ElementType::I8, Lanes::One) => ins.sload8(I32, flags, place, offset),
            (ElementType::U8, Lanes::One) => ins.uload8(I32, flags, place, offset),
            (ElementType::I16, Lanes::One) => ins.sload16(I32, flags, place, offset),
            (ElementType::U16, Lanes::One) => ins.uload16(I32, flags, place, offset),
            (ElementType::Bool, Lanes::One) => {
                let byte = ins.load(I8, flags, place, offset);
                self.builder.ins().icmp_imm_s(IntCC::NotEqual, byte, 0)
            }
            (ElementType::F16 | ElementType::BF16, Lanes::One) => {
                let bits = ins.uload16(I32, flags, place, offset);
                self.decode_half(element, bits, lanes)
            }
            (ElementType::I8 | ElementType::U8 | ElementType::Bool, Lanes::Four) => {
                let bytes = ins.load(I32, flags, place, offset);
                let vector = self.builder.ins().scalar_to_vector(I32X4, bytes);
                let vector = self.builder.ins().bitcast(I8X16, little_endian(), vector);
                if element == ElementType::I8 {
                    let vector = self.builder.ins().swiden_low(vector);
                    return self.builder.ins().swiden_low(vector);
                }
                let vector = self.builder.ins().uwiden_low(vector);
                let vector = self.builder.ins().uwiden_low(vector);
                if element == ElementType::U8 {
                    return vector;
                }
                let zero = self.bits32(0, lanes);
                self.builder.ins().icmp(IntCC::NotEqual, vector, zero)
            }
            (ElementType::I16 | ElementType::U16 | ElementType::F16 | ElementType::BF16, Lanes::Four) => {
                let halves = ins.load(I64, flags, place, offset);
                let vector = self.builder.ins().scalar_to_vector(I64X2, halves);
                let vector = self.builder.ins().bitcast(I16X8, little_endian(), vector);
                if element == ElementType::I16 {
                    return self.builder.ins().swiden_low(vector);
                }
                let vector = self.builder.ins().uwiden_low(vector);
                if element == ElementType::U16 { vector } else { self.decode_half(element, vector, lanes) }
            }
            _ => self.load_register(register(element, lanes), flags, place, offset),
        }
    }

    /// Reads a register at any place. Cranelift would move the read of a vector into the comparison that uses it, which
    /// without AVX (and so without fused multiply-add) faults where memory is not aligned; a read of integers it leaves alone.
    pub fn load_register(&mut self, kind: Type, flags: MemFlagsData, place: Value, offset: i32) -> Value {
        if kind == F32X4 && !self.target.fma {
            let words = self.builder.ins().load(I32X4, flags, place, offset);
            return self.builder.ins().bitcast(F32X4, little_endian(), words);
        }
        self.builder.ins().load(kind, flags, place, offset)
    }

    /// Writes one or four adjacent elements of at least a byte.
    pub fn store_at(&mut self, element: ElementType, value: Value, place: Value, offset: i32, lanes: Lanes) {
        match (element, lanes) {
            (ElementType::I8 | ElementType::U8, Lanes::One) => {
                self.builder.ins().istore8(PLAIN, value, place, offset);
            }
            (ElementType::I16 | ElementType::U16, Lanes::One) => {
                self.builder.ins().istore16(PLAIN, value, place, offset);
            }
            (ElementType::F16 | ElementType::BF16, Lanes::One) => {
                let bits = self.encode_half(element, value, lanes);
                self.builder.ins().istore16(PLAIN, bits, place, offset);
            }
            (ElementType::I8 | ElementType::U8 | ElementType::Bool, Lanes::Four) => {
                let mask = self.bits32(if element == ElementType::Bool { 1 } else { 0xff }, lanes);
                let low = self.builder.ins().band(value, mask);
                let halves = self.builder.ins().unarrow(low, low);
                let bytes = self.builder.ins().unarrow(halves, halves);
                let vector = self.builder.ins().bitcast(I32X4, little_endian(), bytes);
                let word = self.builder.ins().extractlane(vector, 0);
                self.builder.ins().store(PLAIN, word, place, offset);
            }
            (ElementType::I16 | ElementType::U16 | ElementType::F16 | ElementType::BF16, Lanes::Four) => {
                let bits = if element.is_float() {
                    self.encode_half(element, value, lanes)
                } else {
                    let mask = self.bits32(0xffff, lanes);
                    self.builder.ins().band(value, mask)
                };
                let halves = self.builder.ins().unarrow(bits, bits);
                let vector = self.builder.ins().bitcast(I64X2, little_endian(), halves);
                let word = self.builder.ins().extractlane(vector, 0);
                self.builder.ins().store(PLAIN, word, place, offset);
            }
            _ => {
                self.builder.ins().store(PLAIN, value, place, offset);
            }
        }
    }
}
