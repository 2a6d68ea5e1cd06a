//! Folds: the state that contracted loops carry, one step of it, and the value that comes out.

use super::{
    block::{Typed, Width},
    emit::Emitter,
    scalar::{Lanes, register},
};
use crate::plan::kernel::Fold;
use cranelift_codegen::ir::{
    InstBuilder, Value,
    condcodes::{FloatCC, IntCC},
};
use strang_ir::{ElementType, op::Monoid, scalar::Binary};

/// The type that a monoid combines in: sums and products of the half types stay in f32 until the end.
pub fn accumulator(element: ElementType) -> ElementType {
    match element {
        ElementType::F16 | ElementType::BF16 => ElementType::F32,
        other => other,
    }
}

/// The function by which a monoid combines.
pub fn function(monoid: Monoid) -> Binary {
    match monoid {
        Monoid::Sum => Binary::Add,
        Monoid::Product => Binary::Multiply,
        Monoid::Minimum => Binary::Minimum,
        Monoid::Maximum => Binary::Maximum,
        Monoid::And => Binary::And,
        Monoid::Or => Binary::Or,
    }
}

/// The number of values that a fold carries.
pub fn state_size(fold: &Fold) -> usize {
    match fold {
        Fold::Arg { .. } => 3,
        _ => 1,
    }
}

impl Emitter<'_> {
    /// The state before the first step of all folds, one after the other.
    pub fn fold_starts(&mut self, folds: &[Fold], body: &[ElementType], lanes: Lanes) -> Vec<Value> {
        let mut state = Vec::new();
        for fold in folds {
            match fold {
                Fold::MultiplyAdd { a, .. } => {
                    state.push(self.literal(strang_ir::Literal::zero(body[*a as usize]), lanes));
                }
                Fold::Monoid { monoid, value, .. } => {
                    let element = accumulator(body[*value as usize]);
                    state.push(self.literal(monoid.neutral(element), lanes));
                }
                Fold::Arg { value, .. } => {
                    // Best value, its position (-1: none), and the next position.
                    state.push(self.literal(strang_ir::Literal::zero(body[*value as usize]), Lanes::One));
                    state.push(self.int(-1));
                    state.push(self.int(0));
                }
            }
        }
        state
    }

    /// One step of all folds.
    pub fn fold_step(
        &mut self,
        folds: &[Fold],
        typed: &Typed<'_>,
        values: &[Value],
        state: &[Value],
        lanes: Lanes,
    ) -> Vec<Value> {
        let mut next = Vec::with_capacity(state.len());
        let value_of = |emitter: &mut Self, value: u32| {
            let (scalar, element) = (values[value as usize], typed.elements[value as usize]);
            if lanes == Lanes::Four && !typed.varying[value as usize] {
                emitter.spread(element, scalar, lanes)
            } else {
                scalar
            }
        };
        for fold in folds {
            let old = &state[next.len()..];
            match fold {
                Fold::MultiplyAdd { a, b, when } => {
                    let element = typed.elements[*a as usize];
                    let (x, y) = (value_of(self, *a), value_of(self, *b));
                    let sum = if element.is_float() {
                        self.multiply_add(element, x, y, old[0], lanes)
                    } else {
                        let product = self.builder.ins().imul(x, y);
                        let sum = self.builder.ins().iadd(old[0], product);
                        self.normalise(element, sum, lanes)
                    };
                    let when = when.map(|when| value_of(self, when));
                    next.push(self.keep_unless(when, sum, old[0], lanes));
                }
                Fold::Monoid { monoid, value, when } => {
                    let element = accumulator(typed.elements[*value as usize]);
                    let x = value_of(self, *value);
                    let combined = self.binary(function(*monoid), element, (old[0], x), None, lanes);
                    let when = when.map(|when| value_of(self, when));
                    next.push(self.keep_unless(when, combined, old[0], lanes));
                }
                Fold::Arg { value, largest, last } => {
                    let element = typed.elements[*value as usize];
                    let (best, found, number) = (old[0], old[1], old[2]);
                    let better = self.is_better(element, values[*value as usize], best, *largest, *last);
                    let none = self.builder.ins().icmp_imm_s(IntCC::SignedLessThan, found, 0);
                    let better = self.builder.ins().bor(better, none);
                    next.push(self.builder.ins().select(better, values[*value as usize], best));
                    next.push(self.builder.ins().select(better, number, found));
                    next.push(self.builder.ins().iadd_imm_s(number, 1));
                }
            }
        }
        next
    }

    fn keep_unless(&mut self, when: Option<Value>, new: Value, old: Value, lanes: Lanes) -> Value {
        match when {
            Some(when) => self.select(when, new, old, lanes),
            None => new,
        }
    }

    /// Whether a value beats the best one so far; NaN beats all numbers.
    fn is_better(&mut self, element: ElementType, value: Value, best: Value, largest: bool, last: bool) -> Value {
        let ins = self.builder.ins();
        if element.is_float() {
            let condition = if largest { FloatCC::GreaterThan } else { FloatCC::LessThan };
            let beyond = ins.fcmp(condition, value, best);
            let is_nan = self.builder.ins().fcmp(FloatCC::Unordered, value, value);
            let best_is_number = self.builder.ins().fcmp(FloatCC::Ordered, best, best);
            let first_nan = self.builder.ins().band(is_nan, best_is_number);
            let mut better = self.builder.ins().bor(beyond, first_nan);
            if last {
                let equal = self.builder.ins().fcmp(FloatCC::Equal, value, best);
                better = self.builder.ins().bor(better, equal);
                better = self.builder.ins().bor(better, is_nan);
            }
            return better;
        }
        let signed = element.is_signed_integer();
        let condition = match (largest, last) {
            (true, false) => IntCC::SignedGreaterThan,
            (true, true) => IntCC::SignedGreaterThanOrEqual,
            (false, false) => IntCC::SignedLessThan,
            (false, true) => IntCC::SignedLessThanOrEqual,
        };
        ins.icmp(if signed { condition } else { condition.unsigned() }, value, best)
    }

    /// The folded values.
    pub fn fold_results(&mut self, folds: &[Fold], body: &[ElementType], state: &[Value], lanes: Lanes) -> Vec<Value> {
        let mut results = Vec::with_capacity(folds.len());
        let mut place = 0;
        for fold in folds {
            results.push(match fold {
                Fold::MultiplyAdd { .. } => state[place],
                Fold::Monoid { value, .. } => self.round(body[*value as usize], state[place], lanes),
                Fold::Arg { .. } => {
                    let zero = self.int(0);
                    self.larger(state[place + 1], zero)
                }
            });
            place += state_size(fold);
        }
        results
    }

    /// Combines a value with what is in memory, as a scatter does.
    pub fn combine(&mut self, monoid: Monoid, access: u32, value: Value, width: Width) -> Value {
        let element = self.kernel.accesses[access as usize].element;
        let (old, lanes) = match width {
            Width::One => (self.load(access), Lanes::One),
            Width::Four { variable, offset } => (self.load_lanes(access, variable, offset), Lanes::Four),
        };
        debug_assert_eq!(self.builder.func.dfg.value_type(old), register(element, lanes));
        self.binary(function(monoid), element, (old, value), None, lanes)
    }
}
