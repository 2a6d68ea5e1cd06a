//! Scalar instructions for every element type, one element or four at a time.
//!
//! In registers, f16 and bf16 are f32 that hold a value of their type; integers of up to 16 bits are i32 with the value of
//! their type; `bool` is an i8 of 0 or 1. Four lanes are a 128-bit vector of 32-bit lanes, `bool` a lane mask; the 64-bit
//! types have no vector form. Semantics are those of `strang_ir::scalar`, which say what happens where hardware differs.

use super::{
    emit::{Emitter, PLAIN},
    strip::strip_of,
};
use cranelift_codegen::ir::{
    Endianness, InstBuilder, MemFlagsData, Type, Value,
    condcodes::{FloatCC, IntCC},
    types::{F32, F32X4, F64, I8, I8X16, I16X8, I32, I32X4, I64, I64X2},
};
use strang_ir::{
    ElementType, Literal,
    scalar::{Binary, Unary},
};
use strang_runtime::kernels::{Function, scalar64::Scalar64};

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
    /// without AVX faults where memory is not aligned; a read of integers it leaves alone.
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

    /// A function computed one lane after the other.
    fn by_lane(
        &mut self,
        operands: &[(ElementType, Value)],
        result: ElementType,
        compute: &mut dyn FnMut(&mut Self, &[Value]) -> Value,
    ) -> Value {
        let mut whole = match register(result, Lanes::Four) {
            F32X4 => self.float(ElementType::F32, 0., Lanes::Four),
            _ => self.bits32(0, Lanes::Four),
        };
        for lane in 0..4u8 {
            let mut scalars = Vec::with_capacity(operands.len());
            for (element, value) in operands {
                let scalar = self.builder.ins().extractlane(*value, lane);
                scalars.push(match element {
                    ElementType::Bool => self.builder.ins().icmp_imm_s(IntCC::NotEqual, scalar, 0),
                    _ => scalar,
                });
            }
            let mut scalar = compute(self, &scalars);
            if result == ElementType::Bool {
                scalar = self.builder.ins().bmask(I32, scalar);
            }
            whole = self.builder.ins().insertlane(whole, scalar, lane);
        }
        whole
    }

    /// A function of one value.
    pub fn unary(&mut self, function: Unary, element: ElementType, value: Value, lanes: Lanes) -> Value {
        if element.is_float() {
            let result = self.float_unary(function, element, value, lanes);
            return if function.is_predicate() { result } else { self.round(element, result, lanes) };
        }
        if element == ElementType::Bool {
            return match lanes {
                Lanes::One => self.builder.ins().bxor_imm_s(value, 1),
                Lanes::Four => self.builder.ins().bnot(value),
            };
        }
        let wide = register(element, lanes) == I64;
        let zero = if wide { self.int(0) } else { self.bits32(0, lanes) };
        let result = match function {
            Unary::Negate => self.builder.ins().ineg(value),
            Unary::Not => self.builder.ins().bnot(value),
            Unary::Absolute if element.is_signed_integer() => self.builder.ins().iabs(value),
            Unary::Relu if element.is_signed_integer() => {
                let positive = self.builder.ins().icmp(IntCC::SignedGreaterThan, value, zero);
                self.select(positive, value, zero, lanes)
            }
            Unary::Sign => {
                let one = if wide { self.int(1) } else { self.bits32(1, lanes) };
                let not_zero = self.builder.ins().icmp(IntCC::NotEqual, value, zero);
                let magnitude = self.select(not_zero, one, zero, lanes);
                if element.is_signed_integer() {
                    let sign = self.shift_right_signed(value, if wide { 63 } else { 31 });
                    self.builder.ins().bor(magnitude, sign)
                } else {
                    magnitude
                }
            }
            _ => value,
        };
        self.normalise(element, result, lanes)
    }

    fn float_unary(&mut self, function: Unary, element: ElementType, x: Value, lanes: Lanes) -> Value {
        let zero = self.float(element, 0., lanes);
        match function {
            Unary::Negate => self.builder.ins().fneg(x),
            Unary::Absolute => self.builder.ins().fabs(x),
            Unary::Sign => {
                let one = self.float(element, 1., lanes);
                let signed = self.copysign(one, x, lanes);
                let below = self.builder.ins().fcmp(FloatCC::LessThan, x, zero);
                let above = self.builder.ins().fcmp(FloatCC::GreaterThan, x, zero);
                let changes = self.builder.ins().bor(below, above);
                self.select(changes, signed, x, lanes)
            }
            Unary::Floor => self.builder.ins().floor(x),
            Unary::Ceil => self.builder.ins().ceil(x),
            Unary::Round => self.builder.ins().nearest(x),
            Unary::Truncate => self.builder.ins().trunc(x),
            Unary::SquareRoot => self.builder.ins().sqrt(x),
            Unary::ReciprocalSquareRoot => {
                let (one, root) = (self.float(element, 1., lanes), self.builder.ins().sqrt(x));
                self.builder.ins().fdiv(one, root)
            }
            Unary::Reciprocal => {
                let one = self.float(element, 1., lanes);
                self.builder.ins().fdiv(one, x)
            }
            Unary::Relu => self.limit(Binary::Maximum, element, x, 0., lanes),
            Unary::HardSigmoid6 => self.hard_sigmoid(element, x, lanes),
            Unary::HardSwish => {
                let gate = self.hard_sigmoid(element, x, lanes);
                self.builder.ins().fmul(x, gate)
            }
            Unary::IsNan => self.builder.ins().fcmp(FloatCC::Unordered, x, x),
            Unary::IsInfinite => {
                let (size, infinity) = (self.builder.ins().fabs(x), self.float(element, f64::INFINITY, lanes));
                self.builder.ins().fcmp(FloatCC::Equal, size, infinity)
            }
            _ if lanes == Lanes::Four => self.by_lane(&[(element, x)], element, &mut |emitter, values| {
                emitter.transcendental(function, element, values[0])
            }),
            _ => self.transcendental(function, element, x),
        }
    }

    fn hard_sigmoid(&mut self, element: ElementType, x: Value, lanes: Lanes) -> Value {
        let (six, half) = (self.float(element, 6., lanes), self.float(element, 0.5, lanes));
        let scaled = self.builder.ins().fdiv(x, six);
        let shifted = self.builder.ins().fadd(scaled, half);
        let limited = self.limit(Binary::Minimum, element, shifted, 1., lanes);
        self.limit(Binary::Maximum, element, limited, 0., lanes)
    }

    /// A function without an instruction: a strip of one f32, or the runtime's f64 function.
    fn transcendental(&mut self, function: Unary, element: ElementType, x: Value) -> Value {
        if element != ElementType::F64
            && let Some(strip) = strip_of(function)
        {
            let (cell, one) = (self.cell(), self.int(1));
            self.builder.ins().store(PLAIN, x, cell, 0);
            self.call(strip, &[cell, cell, one]);
            return self.builder.ins().load(F32, PLAIN, cell, 0);
        }
        let Some(id) = scalar64(function) else { return x };
        let id = self.int(id as i64);
        if element == ElementType::F64 {
            return self.call(Function::Unary64, &[id, x]).unwrap_or(x);
        }
        let wide = self.builder.ins().fpromote(F64, x);
        match self.call(Function::Unary64, &[id, wide]) {
            Some(result) => self.builder.ins().fdemote(F32, result),
            None => x,
        }
    }

    /// Minimum or maximum with a number that is not NaN: one comparison.
    fn limit(&mut self, function: Binary, element: ElementType, x: Value, bound: f64, lanes: Lanes) -> Value {
        let limit = self.float(element, bound, lanes);
        // Of equal zeros the maximum is +0 and the minimum -0, so a bound of that zero takes part in equality.
        let negative = bound.is_sign_negative();
        let condition = match function {
            Binary::Maximum if bound == 0. && !negative => FloatCC::LessThanOrEqual,
            Binary::Maximum => FloatCC::LessThan,
            _ if bound == 0. && negative => FloatCC::GreaterThanOrEqual,
            _ => FloatCC::GreaterThan,
        };
        let beyond = self.builder.ins().fcmp(condition, x, limit);
        self.select(beyond, limit, x, lanes)
    }

    /// A function of two values of one type. `bound` is the second when it is a literal.
    pub fn binary(
        &mut self,
        function: Binary,
        element: ElementType,
        (a, b): (Value, Value),
        bound: Option<Literal>,
        lanes: Lanes,
    ) -> Value {
        if function.is_comparison() {
            return self.compare(function, element, a, b);
        }
        if element.is_float() {
            let result = self.float_binary(function, element, (a, b), bound, lanes);
            return self.round(element, result, lanes);
        }
        if element == ElementType::Bool {
            return match function {
                Binary::And | Binary::Minimum => self.builder.ins().band(a, b),
                Binary::Xor => self.builder.ins().bxor(a, b),
                _ => self.builder.ins().bor(a, b),
            };
        }
        let result = match function {
            Binary::Add => self.builder.ins().iadd(a, b),
            Binary::Subtract => self.builder.ins().isub(a, b),
            Binary::Multiply => self.builder.ins().imul(a, b),
            Binary::And => self.builder.ins().band(a, b),
            Binary::Or => self.builder.ins().bor(a, b),
            Binary::Xor => self.builder.ins().bxor(a, b),
            Binary::Minimum | Binary::Maximum => {
                let condition = match (function, element.is_signed_integer()) {
                    (Binary::Minimum, true) => IntCC::SignedLessThan,
                    (Binary::Minimum, false) => IntCC::UnsignedLessThan,
                    (_, true) => IntCC::SignedGreaterThan,
                    (_, false) => IntCC::UnsignedGreaterThan,
                };
                let first = self.builder.ins().icmp(condition, a, b);
                self.select(first, a, b, lanes)
            }
            _ if lanes == Lanes::Four => {
                self.by_lane(&[(element, a), (element, b)], element, &mut |emitter, values| {
                    emitter.integer_binary(function, element, values[0], values[1])
                })
            }
            _ => self.integer_binary(function, element, a, b),
        };
        self.normalise(element, result, lanes)
    }

    /// Divisions, powers and shifts of scalars, before normalisation.
    fn integer_binary(&mut self, function: Binary, element: ElementType, a: Value, b: Value) -> Value {
        let signed = element.is_signed_integer();
        let kind = register(element, Lanes::One);
        let (zero, one) = (self.builder.ins().iconst(kind, 0), self.builder.ins().iconst(kind, 1));
        let width = i64::from(kind.bits());
        match function {
            Binary::ShiftLeft => {
                let shifted = self.builder.ins().ishl(a, b);
                let fits = self.builder.ins().icmp_imm_s(IntCC::UnsignedLessThan, b, width);
                self.builder.ins().select(fits, shifted, zero)
            }
            Binary::ShiftRight => {
                let fits = self.builder.ins().icmp_imm_s(IntCC::UnsignedLessThan, b, width);
                if signed {
                    let most = self.builder.ins().iconst(kind, width - 1);
                    let amount = self.builder.ins().select(fits, b, most);
                    return self.builder.ins().sshr(a, amount);
                }
                let shifted = self.builder.ins().ushr(a, b);
                self.builder.ins().select(fits, shifted, zero)
            }
            Binary::Power => {
                let (wide_a, wide_b) = if kind == I64 {
                    (a, b)
                } else if signed {
                    (self.builder.ins().sextend(I64, a), self.builder.ins().sextend(I64, b))
                } else {
                    (self.builder.ins().uextend(I64, a), self.builder.ins().uextend(I64, b))
                };
                let signed = self.int(i64::from(signed));
                let power = self.call(Function::PowerInteger, &[wide_a, wide_b, signed]).unwrap_or(wide_a);
                if kind == I64 { power } else { self.builder.ins().ireduce(I32, power) }
            }
            _ => {
                let by_zero = self.builder.ins().icmp(IntCC::Equal, b, zero);
                let unsafe_divisor = if signed {
                    let by_minus_one = self.builder.ins().icmp_imm_s(IntCC::Equal, b, -1);
                    self.builder.ins().bor(by_zero, by_minus_one)
                } else {
                    by_zero
                };
                let divisor = self.builder.ins().select(unsafe_divisor, one, b);
                if function == Binary::Divide {
                    let quotient = if signed {
                        let quotient = self.builder.ins().sdiv(a, divisor);
                        let negated = self.builder.ins().ineg(a);
                        self.builder.ins().select(unsafe_divisor, negated, quotient)
                    } else {
                        self.builder.ins().udiv(a, divisor)
                    };
                    return self.builder.ins().select(by_zero, zero, quotient);
                }
                // By 1 nothing is left, which is right for -1 and for 0 as well.
                if !signed {
                    return self.builder.ins().urem(a, divisor);
                }
                let remainder = self.builder.ins().srem(a, divisor);
                if function == Binary::Remainder {
                    return remainder;
                }
                let signs = self.builder.ins().bxor(remainder, b);
                let differ = self.builder.ins().icmp(IntCC::SignedLessThan, signs, zero);
                let left = self.builder.ins().icmp(IntCC::NotEqual, remainder, zero);
                let correct = self.builder.ins().band(differ, left);
                let corrected = self.builder.ins().iadd(remainder, b);
                self.builder.ins().select(correct, corrected, remainder)
            }
        }
    }

    fn float_binary(
        &mut self,
        function: Binary,
        element: ElementType,
        (a, b): (Value, Value),
        bound: Option<Literal>,
        lanes: Lanes,
    ) -> Value {
        match function {
            Binary::Add => self.builder.ins().fadd(a, b),
            Binary::Subtract => self.builder.ins().fsub(a, b),
            Binary::Multiply => self.builder.ins().fmul(a, b),
            Binary::Divide => self.builder.ins().fdiv(a, b),
            Binary::Minimum | Binary::Maximum => match bound.map(Literal::to_f64).filter(|bound| !bound.is_nan()) {
                Some(bound) => self.limit(function, element, a, bound, lanes),
                None if function == Binary::Minimum => self.builder.ins().fmin(a, b),
                None => self.builder.ins().fmax(a, b),
            },
            _ if lanes == Lanes::Four => {
                self.by_lane(&[(element, a), (element, b)], element, &mut |emitter, values| {
                    emitter.float_binary_call(function, element, values[0], values[1])
                })
            }
            _ => self.float_binary_call(function, element, a, b),
        }
    }

    /// Powers and remainders of scalars.
    fn float_binary_call(&mut self, function: Binary, element: ElementType, a: Value, b: Value) -> Value {
        if function == Binary::Power && element != ElementType::F64 {
            let (cell, one) = (self.cell(), self.int(1));
            let second = self.builder.ins().iadd_imm_s(cell, 4);
            self.builder.ins().store(PLAIN, a, cell, 0);
            self.builder.ins().store(PLAIN, b, cell, 4);
            self.call(Function::PowF32, &[cell, cell, second, one, one, one]);
            return self.builder.ins().load(F32, PLAIN, cell, 0);
        }
        let wide = |emitter: &mut Self, value: Value| match element {
            ElementType::F64 => value,
            _ => emitter.builder.ins().fpromote(F64, value),
        };
        let (x, y) = (wide(self, a), wide(self, b));
        let called = if function == Binary::Power { Function::Power64 } else { Function::Remainder64 };
        let result = self.call(called, &[x, y]).unwrap_or(x);
        let result = if element == ElementType::F64 { result } else { self.builder.ins().fdemote(F32, result) };
        if function != Binary::Modulo {
            return result;
        }
        let zero = self.float(element, 0., Lanes::One);
        let negative = self.builder.ins().fcmp(FloatCC::LessThan, result, zero);
        let by_negative = self.builder.ins().fcmp(FloatCC::LessThan, b, zero);
        let differ = self.builder.ins().bxor(negative, by_negative);
        let left = self.builder.ins().fcmp(FloatCC::OrderedNotEqual, result, zero);
        let correct = self.builder.ins().band(differ, left);
        let corrected = self.builder.ins().fadd(result, b);
        let result = self.builder.ins().select(correct, corrected, result);
        // A zero has the sign of the divisor, too.
        let signed_zero = self.copysign(zero, b, Lanes::One);
        let is_zero = self.builder.ins().fcmp(FloatCC::Equal, result, zero);
        self.builder.ins().select(is_zero, signed_zero, result)
    }

    fn compare(&mut self, function: Binary, element: ElementType, a: Value, b: Value) -> Value {
        if element.is_float() {
            let condition = match function {
                Binary::Equal => FloatCC::Equal,
                Binary::NotEqual => FloatCC::NotEqual,
                Binary::Less => FloatCC::LessThan,
                Binary::LessOrEqual => FloatCC::LessThanOrEqual,
                Binary::Greater => FloatCC::GreaterThan,
                _ => FloatCC::GreaterThanOrEqual,
            };
            return self.builder.ins().fcmp(condition, a, b);
        }
        // As a mask `true` is -1, which unsigned comparison orders like 1.
        let condition = match (function, element.is_signed_integer()) {
            (Binary::Equal, _) => IntCC::Equal,
            (Binary::NotEqual, _) => IntCC::NotEqual,
            (Binary::Less, true) => IntCC::SignedLessThan,
            (Binary::LessOrEqual, true) => IntCC::SignedLessThanOrEqual,
            (Binary::Greater, true) => IntCC::SignedGreaterThan,
            (_, true) => IntCC::SignedGreaterThanOrEqual,
            (Binary::Less, false) => IntCC::UnsignedLessThan,
            (Binary::LessOrEqual, false) => IntCC::UnsignedLessThanOrEqual,
            (Binary::Greater, false) => IntCC::UnsignedGreaterThan,
            (_, false) => IntCC::UnsignedGreaterThanOrEqual,
        };
        self.builder.ins().icmp(condition, a, b)
    }

    /// `a * b + c` with one rounding (f32 or f64), in hardware or by the kernel table; f16 and bf16 round after each step.
    pub fn multiply_add(&mut self, element: ElementType, a: Value, b: Value, c: Value, lanes: Lanes) -> Value {
        match element {
            ElementType::F32 | ElementType::F64 if self.target.fma => self.builder.ins().fma(a, b, c),
            ElementType::F64 => self.call(Function::FmaF64, &[a, b, c]).unwrap_or(c),
            ElementType::F32 if lanes == Lanes::Four => {
                let operands = [(element, a), (element, b), (element, c)];
                self.by_lane(&operands, element, &mut |emitter, values| {
                    emitter.call(Function::FmaF32, values).unwrap_or(values[2])
                })
            }
            ElementType::F32 => self.call(Function::FmaF32, &[a, b, c]).unwrap_or(c),
            _ => {
                let product = self.binary(Binary::Multiply, element, (a, b), None, lanes);
                self.binary(Binary::Add, element, (c, product), None, lanes)
            }
        }
    }

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
    fn decode_half(&mut self, element: ElementType, bits: Value, lanes: Lanes) -> Value {
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
    fn encode_half(&mut self, element: ElementType, value: Value, lanes: Lanes) -> Value {
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

fn little_endian() -> MemFlagsData {
    MemFlagsData::new().with_endianness(Endianness::Little)
}
