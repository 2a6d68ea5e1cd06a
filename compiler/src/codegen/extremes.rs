//! The largest and the smallest of bytes: sixteen positions in one register, where other folds have four.

use super::{emit::Emitter, scalar::Lanes, strip::Row};
use crate::plan::kernel::{Fold, Instruction, Nest};
use cranelift_codegen::ir::{
    InstBuilder, Value,
    types::{I8, I8X16},
};
use strang_ir::{ElementType, op::Monoid};

/// Positions that are folded at once.
pub const POSITIONS: i64 = 16;

/// The only fold of a nest, which reads bytes that lie side by side.
pub struct Extremes<'n> {
    nest: &'n Nest,
    access: u32,
    monoid: Monoid,
    element: ElementType,
}

impl<'n> Extremes<'n> {
    /// The fold of a nest with this inner variable; `None` if it is another.
    pub fn new(emitter: &Emitter<'_>, nest: &'n Nest, inner: u32) -> Option<Self> {
        let &[Fold::Monoid { monoid: monoid @ (Monoid::Minimum | Monoid::Maximum), value, when: None }] =
            &nest.folds[..]
        else {
            return None;
        };
        let Instruction::Load(access) = nest.body.instructions[value as usize] else { return None };
        let read = &emitter.kernel.accesses[access as usize];
        let is_of_bytes = matches!(read.element, ElementType::U8 | ElementType::I8);
        (is_of_bytes && read.checked.is_empty() && emitter.is_contiguous(access, inner)).then_some(Extremes {
            nest,
            access,
            monoid,
            element: read.element,
        })
    }

    /// Folds positions from that of the inner variable on, and writes them to a row.
    pub fn emit(&self, emitter: &mut Emitter<'_>, inner: u32, row: Row) {
        let start = self.spread(emitter, self.monoid.neutral(self.element).bits);
        let folded = self.loops(emitter, &self.nest.contracted, start);
        let is_signed = self.element == ElementType::I8;
        let halves = |emitter: &mut Emitter<'_>, value: Value| {
            if is_signed {
                [emitter.builder.ins().swiden_low(value), emitter.builder.ins().swiden_high(value)]
            } else {
                [emitter.builder.ins().uwiden_low(value), emitter.builder.ins().uwiden_high(value)]
            }
        };
        let mut offset = 0;
        for half in halves(emitter, folded) {
            for quarter in halves(emitter, half) {
                emitter.write_row(row, inner, offset, quarter, Lanes::Four);
                offset += 4;
            }
        }
    }

    fn loops(&self, emitter: &mut Emitter<'_>, left: &[u32], state: Value) -> Value {
        let Some((variable, left)) = left.split_first() else { return self.step(emitter, state) };
        let extent = emitter.extent(*variable);
        let (low, high) = (emitter.int(0), emitter.size(&extent));
        let access = self.access;
        let warm = move |emitter: &mut Emitter<'_>| emitter.warm(access);
        emitter.loop_over(*variable, (low, high, 1), &[state], warm, |emitter, state| {
            vec![self.loops(emitter, left, state[0])]
        })[0]
    }

    fn step(&self, emitter: &mut Emitter<'_>, state: Value) -> Value {
        let guard = &emitter.kernel.accesses[self.access as usize].guard;
        let value = match (emitter.guard(self.access), guard) {
            (Some(inside), Some(guard)) => emitter.choose(
                inside,
                |emitter| vec![self.load(emitter)],
                |emitter| vec![self.spread(emitter, guard.fill.bits)],
            )[0],
            _ => self.load(emitter),
        };
        let ins = emitter.builder.ins();
        match (self.monoid == Monoid::Maximum, self.element == ElementType::I8) {
            (true, true) => ins.smax(state, value),
            (true, false) => ins.umax(state, value),
            (false, true) => ins.smin(state, value),
            (false, false) => ins.umin(state, value),
        }
    }

    fn load(&self, emitter: &mut Emitter<'_>) -> Value {
        let flags = emitter.read_flags(self.access);
        let (place, displacement) = emitter.address(self.access);
        emitter.builder.ins().load(I8X16, flags, place, displacement)
    }

    fn spread(&self, emitter: &mut Emitter<'_>, bits: u64) -> Value {
        let byte = emitter.builder.ins().iconst(I8, (bits & 0xff) as i64);
        emitter.builder.ins().splat(I8X16, byte)
    }
}
