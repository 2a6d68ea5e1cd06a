//! Functions of one, two and three values.

use super::{Lanes, register, scalar64};
use crate::codegen::{
    emit::{Emitter, PLAIN},
    strip::strip_of,
};
use cranelift_codegen::ir::{
    InstBuilder, Value,
    condcodes::{FloatCC, IntCC},
    types::{F32, F32X4, F64, I32, I64},
};
use strang_ir::{
    ElementType, Literal,
    scalar::{Binary, Unary},
};
use strang_runtime::kernels::Function;

impl Emitter<'_> {
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
}
