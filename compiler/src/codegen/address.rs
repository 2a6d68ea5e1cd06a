//! Index expressions and accesses: from loop variables to addresses.
//!
//! Sums are built from the outermost loop inwards and every partial sum is remembered where it was computed, so that an
//! inner loop adds one term. Cranelift hoists pure arithmetic by itself; what it may not move (divisions, loads, checks)
//! [`Emitter::warm`] computes before the loop.

use super::{
    emit::{Emitter, Memo, PLAIN, Slot},
    scalar::Lanes,
};
use cranelift_codegen::ir::{
    InstBuilder, Value,
    condcodes::IntCC,
    types::{I8, I32, I64},
};
use std::collections::BTreeMap;
use strang_ir::{Atom, Condition, ElementType, IndexExpr, Size};

impl Emitter<'_> {
    /// The value of an index expression whose variables are all bound, as i64.
    pub fn index(&mut self, expression: &IndexExpr) -> Value {
        let constant = self.size(expression.offset());
        match self.sum(None, 1, expression) {
            None => constant,
            Some(sum) if expression.offset().is(0) => sum,
            Some(sum) => self.builder.ins().iadd(sum, constant),
        }
    }

    /// The address of an access: a pointer and a displacement in bytes. Not for types of less than a byte.
    pub fn address(&mut self, access: u32) -> (Value, i32) {
        let access = &self.kernel.accesses[access as usize];
        let bytes = i64::from(access.element.bits() / 8);
        let mut sum = self.sum(Some(access.pointer), bytes, &access.address);
        let offset = access.address.offset() * &Size::from(bytes);
        match offset.as_constant().and_then(|offset| i32::try_from(offset).ok()) {
            // Room is left for the displacements of unrolled loops.
            Some(offset) if offset.abs() < 1 << 30 => (sum.unwrap_or(self.context), offset),
            _ => {
                // What is remembered is a sum of the terms that are bound now; inside a loop there are more.
                let bound = access.address.terms().iter().filter(|(atom, _)| self.depth_of_atom(atom).is_some());
                let bound = IndexExpr::new(bound.cloned(), access.address.offset().clone());
                let memo = Memo::Sum(Some(access.pointer), bytes, bound);
                let value = match self.remembered(&memo) {
                    Some(value) => value,
                    None => {
                        let offset = self.size(&offset);
                        let start = sum.take().unwrap_or(self.context);
                        let value = self.builder.ins().iadd(start, offset);
                        self.remember(memo, value);
                        value
                    }
                };
                (value, 0)
            }
        }
    }

    /// `pointer + bytes * (the terms of the expression whose variables are bound)`, without the constant. `None` when
    /// there is nothing to add up.
    fn sum(&mut self, pointer: Option<u32>, bytes: i64, expression: &IndexExpr) -> Option<Value> {
        let mut by_depth: BTreeMap<usize, Vec<(Atom, Size)>> = BTreeMap::new();
        for (atom, coefficient) in expression.terms() {
            if let Some(depth) = self.depth_of_atom(atom) {
                by_depth.entry(depth).or_default().push((atom.clone(), coefficient.clone()));
            }
        }
        let mut sum = pointer.map(|pointer| self.base(pointer));
        let mut terms: Vec<(Atom, Size)> = Vec::new();
        for (_, group) in by_depth {
            terms.extend(group.iter().cloned());
            let memo = Memo::Sum(pointer, bytes, IndexExpr::new(terms.iter().cloned(), Size::ZERO));
            if let Some(value) = self.remembered(&memo) {
                sum = Some(value);
                continue;
            }
            for (atom, coefficient) in &group {
                let value = self.atom(atom);
                let term = self.times(value, &(coefficient * &Size::from(bytes)));
                sum = Some(match sum {
                    Some(sum) => self.builder.ins().iadd(sum, term),
                    None => term,
                });
            }
            if let Some(sum) = sum {
                self.remember(memo, sum);
            }
        }
        sum
    }

    fn atom(&mut self, atom: &Atom) -> Value {
        if let Atom::Variable(variable) = atom {
            return match self.bindings[*variable as usize] {
                Some(binding) => binding.value,
                None => self.int(0),
            };
        }
        let memo = Memo::Atom(atom.clone());
        if let Some(value) = self.remembered(&memo) {
            return value;
        }
        let value = match atom {
            Atom::Variable(_) => self.int(0),
            Atom::FloorDiv(expression, divisor) => self.divide(expression, divisor).0,
            Atom::Remainder(expression, divisor) => self.divide(expression, divisor).1,
            Atom::Clamp(expression, low, high) => {
                let value = self.index(expression);
                let (low, high) = (self.size(low), self.size(high));
                let value = self.smaller(value, high);
                self.larger(value, low)
            }
            Atom::Table(table, expression) => {
                let value = self.index(expression);
                let start = self.slot(Slot::Table(table.clone()));
                let length = self.int(table.len() as i64);
                let inside = self.builder.ins().icmp(IntCC::UnsignedLessThan, value, length);
                let zero = self.int(0);
                let position = self.builder.ins().select(inside, value, zero);
                let offset = self.builder.ins().ishl_imm_s(position, 3);
                let place = self.builder.ins().iadd(start, offset);
                let entry = self.builder.ins().load(I64, PLAIN.with_readonly().with_can_move(), place, 0);
                let outside = self.int(i64::MIN);
                self.builder.ins().select(inside, entry, outside)
            }
            Atom::Read(access) => {
                let element = self.kernel.accesses[*access as usize].element;
                let value = self.load(*access);
                self.cast(element, ElementType::I64, value, Lanes::One)
            }
        };
        self.remember(memo, value);
        value
    }

    /// Division by a positive number, rounded up.
    pub fn ceil_div(&mut self, value: Value, divisor: i64) -> Value {
        if divisor == 1 {
            return value;
        }
        let up = self.builder.ins().iadd_imm_s(value, divisor - 1);
        let by = self.int(divisor);
        let quotient = self.builder.ins().sdiv(up, by);
        let product = self.builder.ins().imul(quotient, by);
        let remainder = self.builder.ins().isub(up, product);
        let negative = self.builder.ins().sshr_imm_s(remainder, 63);
        self.builder.ins().iadd(quotient, negative)
    }

    /// Quotient rounded down and remainder by a positive size; a divisor that is not positive counts as 1.
    fn divide(&mut self, expression: &IndexExpr, divisor: &Size) -> (Value, Value) {
        let value = self.index(expression);
        if let Some(number) = divisor.as_constant().filter(|number| *number > 0 && (*number & (*number - 1)) == 0) {
            let quotient = self.builder.ins().sshr_imm_s(value, i64::from(number.trailing_zeros()));
            let remainder = self.builder.ins().band_imm_s(value, number - 1);
            return (quotient, remainder);
        }
        let by = match divisor.as_constant() {
            Some(number) => self.int(number.max(1)),
            None => {
                let (by, one) = (self.size(divisor), self.int(1));
                self.larger(by, one)
            }
        };
        let not_negative = expression
            .bounds(&|variable| self.extent(variable))
            .is_some_and(|(low, _)| low.lower_bound(0).is_some_and(|low| low >= 0));
        if not_negative {
            let quotient = self.builder.ins().udiv(value, by);
            let product = self.builder.ins().imul(quotient, by);
            return (quotient, self.builder.ins().isub(value, product));
        }
        let quotient = self.builder.ins().sdiv(value, by);
        let product = self.builder.ins().imul(quotient, by);
        let remainder = self.builder.ins().isub(value, product);
        // -1 where the remainder is negative.
        let negative = self.builder.ins().sshr_imm_s(remainder, 63);
        let correction = self.builder.ins().band(negative, by);
        (self.builder.ins().iadd(quotient, negative), self.builder.ins().iadd(remainder, correction))
    }

    /// Whether all conditions of an access hold, as a `bool`; `None` when it has none or they are known to hold.
    pub fn guard(&mut self, access: u32) -> Option<Value> {
        let kernel = self.kernel;
        let guard = kernel.accesses[access as usize].guard.as_ref()?;
        let mut all: Option<Value> = None;
        for condition in &guard.conditions {
            if self.always(condition) {
                continue;
            }
            let holds = self.holds(condition);
            all = Some(match all {
                Some(all) => self.builder.ins().band(all, holds),
                None => holds,
            });
        }
        all
    }

    /// Whether a condition is known to hold for all values of the loop variables.
    pub(super) fn always(&self, condition: &Condition) -> bool {
        if self.assumed.iter().any(|conditions| conditions.contains(condition)) {
            return true;
        }
        match condition {
            Condition::Range { expression, low, high } => expression
                .bounds(&|variable| self.extent(variable))
                .is_some_and(|(least, most)| least.is_at_least(low, 0) && high.is_at_least(&(most + Size::ONE), 0)),
            Condition::Divisible { divisor, .. } => divisor.is(1),
        }
    }

    /// Whether a condition holds, as a `bool`.
    pub fn holds(&mut self, condition: &Condition) -> Value {
        let memo = Memo::Condition(condition.clone());
        if let Some(value) = self.remembered(&memo) {
            return value;
        }
        let holds = match condition {
            Condition::Range { expression, low, high } => {
                let value = self.index(expression);
                if low.is(0) && high.lower_bound(0).is_some_and(|bound| bound >= 0) {
                    let high = self.size(high);
                    self.builder.ins().icmp(IntCC::UnsignedLessThan, value, high)
                } else {
                    let (low, high) = (self.size(low), self.size(high));
                    let above = self.builder.ins().icmp(IntCC::SignedGreaterThanOrEqual, value, low);
                    let below = self.builder.ins().icmp(IntCC::SignedLessThan, value, high);
                    self.builder.ins().band(above, below)
                }
            }
            Condition::Divisible { expression, divisor } => {
                let remainder = self.divide(expression, divisor).1;
                self.builder.ins().icmp_imm_s(IntCC::Equal, remainder, 0)
            }
        };
        self.remember(memo, holds);
        holds
    }

    /// Leaves the kernel when an index that was read from data lies outside its axis.
    pub(super) fn check(&mut self, access: u32, inside: Option<Value>) {
        let kernel = self.kernel;
        let checked = &kernel.accesses[access as usize].checked;
        if checked.is_empty() || self.remembered(&Memo::Checked(access)).is_some() {
            return;
        }
        let mut bad: Option<Value> = None;
        for (expression, size) in checked {
            let (value, size) = (self.index(expression), self.size(size));
            let outside = self.builder.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, value, size);
            bad = Some(match bad {
                Some(bad) => self.builder.ins().bor(bad, outside),
                None => outside,
            });
        }
        if let Some(mut bad) = bad {
            if let Some(inside) = inside {
                bad = self.builder.ins().band(bad, inside);
            }
            self.fail_if(bad);
            self.remember(Memo::Checked(access), bad);
        }
    }

    /// The memory flags of reads through an access.
    pub(super) fn read_flags(&self, access: u32) -> cranelift_codegen::ir::MemFlagsData {
        let access = &self.kernel.accesses[access as usize];
        if self.written[access.pointer as usize] {
            PLAIN
        } else if self.loads_may_move && access.guard.is_none() && access.checked.is_empty() {
            PLAIN.with_readonly().with_can_move()
        } else {
            PLAIN.with_readonly()
        }
    }

    /// The element at an access at the current position, in its register type: the fill where the guard does not hold.
    pub fn load(&mut self, access: u32) -> Value {
        if let Some(value) = self.remembered(&Memo::Load(access)) {
            return value;
        }
        let kernel = self.kernel;
        let inside = self.guard(access);
        self.check(access, inside);
        let read = &kernel.accesses[access as usize];
        let flags = self.read_flags(access);
        // Reads outside go to the context, which is always there, and are not used: a branch would cost more.
        let context = self.context;
        let redirect = |emitter: &mut Self, place: Value| match inside {
            Some(inside) => emitter.builder.ins().select(inside, place, context),
            None => place,
        };
        let value = if read.element.bits() < 8 {
            let (place, shift) = self.packed_place(access);
            let place = redirect(self, place);
            let byte = self.builder.ins().load(I8, flags, place, 0);
            let byte = self.builder.ins().uextend(I32, byte);
            let low = self.builder.ins().ushr(byte, shift);
            self.normalise(read.element, low, Lanes::One)
        } else {
            let (place, offset) = self.address(access);
            match inside {
                None => self.load_at(read.element, flags, place, offset, Lanes::One),
                Some(_) => {
                    let place = self.builder.ins().iadd_imm_s(place, i64::from(offset));
                    let place = redirect(self, place);
                    self.load_at(read.element, flags, place, 0, Lanes::One)
                }
            }
        };
        match (inside, &read.guard) {
            (Some(inside), Some(guard)) => {
                let fill = self.literal(guard.fill, Lanes::One);
                self.builder.ins().select(inside, value, fill)
            }
            _ => value,
        }
    }

    /// Writes a value in its register type at the current position.
    pub fn store(&mut self, access: u32, value: Value) {
        let kernel = self.kernel;
        let write = &kernel.accesses[access as usize];
        self.check(access, None);
        if write.element.bits() >= 8 {
            let (place, offset) = self.address(access);
            self.store_at(write.element, value, place, offset, Lanes::One);
            return;
        }
        let (place, shift) = self.packed_place(access);
        let byte = self.builder.ins().load(I8, PLAIN, place, 0);
        let byte = self.builder.ins().uextend(I32, byte);
        let mask = self.builder.ins().iconst(I32, (1i64 << write.element.bits()) - 1);
        let bits = self.builder.ins().band(value, mask);
        let bits = self.builder.ins().ishl(bits, shift);
        let mask = self.builder.ins().ishl(mask, shift);
        let others = self.builder.ins().band_not(byte, mask);
        let byte = self.builder.ins().bor(others, bits);
        self.builder.ins().istore8(PLAIN, byte, place, 0);
    }

    /// Where an element of less than a byte lies: its byte, and by how many bits it is shifted there.
    fn packed_place(&mut self, access: u32) -> (Value, Value) {
        let kernel = self.kernel;
        let access = &kernel.accesses[access as usize];
        let bits = i64::from(access.element.bits());
        let position = self.index(&access.address);
        let per_byte = 8 / bits;
        let byte = self.builder.ins().sshr_imm_s(position, i64::from(per_byte.trailing_zeros()));
        let within = self.builder.ins().band_imm_s(position, per_byte - 1);
        let shift = self.builder.ins().imul_imm_s(within, bits);
        let shift = self.builder.ins().ireduce(I32, shift);
        let start = self.base(access.pointer);
        (self.builder.ins().iadd(start, byte), shift)
    }

    /// Computes here whatever an access needs and the bound variables suffice for, so that loops inside find it.
    pub fn warm(&mut self, access: u32) {
        let kernel = self.kernel;
        let read = &kernel.accesses[access as usize];
        for (expression, _) in &read.checked {
            self.warm_expression(expression);
        }
        if let Some(guard) = &read.guard {
            for condition in &guard.conditions {
                self.warm_expression(condition.expression());
                if self.depth_of(condition.expression()).is_some() && !self.always(condition) {
                    self.holds(condition);
                }
            }
        }
        let guard_is_bound = read
            .guard
            .as_ref()
            .is_none_or(|guard| guard.conditions.iter().all(|c| self.depth_of(c.expression()).is_some()));
        let checks_are_bound = read.checked.iter().all(|(expression, _)| self.depth_of(expression).is_some());
        if guard_is_bound && checks_are_bound {
            let inside = self.guard(access);
            self.check(access, inside);
        }
        self.warm_address(access);
        if self.depth_of_access(access).is_some() && !self.written[read.pointer as usize] {
            let value = self.load(access);
            self.remember(Memo::Load(access), value);
        }
    }

    /// Computes here what the address of an access needs and the bound variables suffice for.
    pub fn warm_address(&mut self, access: u32) {
        let kernel = self.kernel;
        let read = &kernel.accesses[access as usize];
        self.warm_expression(&read.address);
        if read.element.bits() >= 8 {
            self.address(access);
        }
    }

    fn warm_expression(&mut self, expression: &IndexExpr) {
        for (atom, _) in expression.terms() {
            match atom {
                Atom::Variable(_) => {}
                Atom::FloorDiv(inner, _)
                | Atom::Remainder(inner, _)
                | Atom::Clamp(inner, ..)
                | Atom::Table(_, inner) => self.warm_expression(inner),
                Atom::Read(access) => self.warm(*access),
            }
            if self.depth_of_atom(atom).is_some() {
                self.atom(atom);
            }
        }
        self.sum(None, 1, expression);
    }

    /// How deep in the loops the value of an expression is known; `None` when a variable is not bound.
    pub(super) fn depth_of(&self, expression: &IndexExpr) -> Option<usize> {
        expression.terms().iter().try_fold(0, |depth, (atom, _)| Some(depth.max(self.depth_of_atom(atom)?)))
    }

    fn depth_of_atom(&self, atom: &Atom) -> Option<usize> {
        match atom {
            Atom::Variable(variable) => self.bindings[*variable as usize].map(|binding| binding.depth),
            Atom::FloorDiv(inner, _) | Atom::Remainder(inner, _) | Atom::Clamp(inner, ..) | Atom::Table(_, inner) => {
                self.depth_of(inner)
            }
            Atom::Read(access) => self.depth_of_access(*access),
        }
    }

    /// How deep in the loops everything about an access is known.
    pub(super) fn depth_of_access(&self, access: u32) -> Option<usize> {
        let access = &self.kernel.accesses[access as usize];
        let conditions = access.guard.iter().flat_map(|guard| guard.conditions.iter().map(Condition::expression));
        let checked = access.checked.iter().map(|(expression, _)| expression);
        conditions
            .chain(checked)
            .chain([&access.address])
            .try_fold(0, |depth, expression| Some(depth.max(self.depth_of(expression)?)))
    }
}
