//! Random ways to read an array: everything that an index map can say.

use super::{draft::Draft, tape::Tape};
use crate::{Atom, Condition, IndexExpr, IndexMap, Literal, Size, Value};

/// A value and how a node reads it: the sizes of the node's first variables, and the map over them.
#[derive(Clone, Debug)]
pub(super) struct Read {
    pub(super) value: Value,
    pub(super) sizes: Vec<Size>,
    pub(super) map: IndexMap,
}

impl Read {
    /// The value as it is.
    pub(super) fn plain(draft: &Draft, value: Value) -> Self {
        let sizes = draft.shape(value);
        let map = IndexMap::of_variables(0..sizes.len() as u32);
        Read { value, sizes, map }
    }

    /// The value through up to two random views; `fill` is what may lie outside.
    pub(super) fn random(draft: &Draft, tape: &mut Tape, value: Value, fill: Option<Literal>) -> Self {
        let mut read = Read::plain(draft, value);
        for _ in 0..tape.choose(&[0, 0, 1, 1, 2]) {
            let before = read.clone();
            read.inside(draft, tape);
            if draft.count(&read.sizes) > draft.config.elements || read.sizes.len() > 6 {
                read = before;
            }
        }
        let has_tables = read.map.exprs.iter().any(has_table);
        if let Some(fill) = fill.filter(|_| !has_tables && tape.once_in(3)) {
            let before = read.clone();
            read.outside(draft, tape, fill);
            if draft.count(&read.sizes) > draft.config.elements {
                read = before;
            }
        }
        read
    }

    /// Every variable replaced by an expression over the new ones.
    fn substitute(&mut self, sizes: Vec<Size>, variable: impl Fn(u32) -> IndexExpr) {
        let size_of = |variable: u32| sizes[variable as usize].clone();
        for expression in &mut self.map.exprs {
            *expression = expression.substitute(&variable, &|slot| slot, &size_of);
        }
        self.sizes = sizes;
    }

    /// A view all of whose reads lie inside.
    fn inside(&mut self, draft: &Draft, tape: &mut Tape) {
        let rank = self.sizes.len();
        if rank == 0 {
            return self.repeat(tape);
        }
        let axis = tape.pick(rank);
        let size = self.sizes[axis].clone();
        let number = draft.number(&size);
        let v = IndexExpr::variable(axis as u32);
        let of = |sizes: &[Size], size: Size| {
            let mut sizes = sizes.to_vec();
            sizes[axis] = size;
            sizes
        };
        // The axis is replaced by one of another size, which is read at an expression.
        let mut replace = |size: Size, expression: IndexExpr| {
            let sizes = of(&self.sizes, size);
            self.substitute(sizes, |variable| {
                if variable as usize == axis { expression.clone() } else { IndexExpr::variable(variable) }
            });
        };
        match tape.pick(13) {
            0 | 1 => {
                let mut order: Vec<usize> = (0..rank).collect();
                order.rotate_left(axis.max(1) % rank);
                let sizes = order.iter().map(|from| self.sizes[*from].clone()).collect();
                let place = |variable: u32| order.iter().position(|from| *from == variable as usize).unwrap_or(0);
                self.substitute(sizes, |variable| IndexExpr::variable(place(variable) as u32));
            }
            2 => {
                let start = Size::from(tape.pick(number) as i64);
                replace(&size - &start, v.plus_size(&start));
            }
            3 => {
                let step = Size::from(tape.choose(&[2, 3]));
                replace(size.ceil_div(&step), v.times(&step));
            }
            4 => replace(size.clone(), v.times(&Size::from(-1)).plus_size(&(&size - &Size::ONE))),
            5 => self.repeat(tape),
            6 => {
                let times = Size::from(tape.choose(&[2, 3]));
                let repeated = &size * &times;
                replace(repeated.clone(), v.remainder(&size, &|_| repeated.clone()));
            }
            7 => {
                let times = Size::from(tape.choose(&[2, 3]));
                let larger = &size * &times;
                replace(larger.clone(), v.floor_div(&times, &|_| larger.clone()));
            }
            8 => {
                let shifted = Box::new(v.plus_size(&Size::from(-1)));
                let clamped = Atom::Clamp(shifted, Size::ZERO, &size - &Size::ONE);
                replace(&size + &Size::from(2), IndexExpr::atom(clamped));
            }
            9 if size.as_constant().is_some() => {
                let entries = 1 + tape.pick(7);
                let table: Vec<i64> = (0..entries).map(|_| tape.pick(number) as i64).collect();
                replace(Size::from(entries as i64), IndexExpr::table(table.into(), v));
            }
            10 => self.split(tape, axis, number),
            11 if axis + 1 < rank => self.merge(axis),
            12 => self.diagonal(axis),
            _ => {}
        }
    }

    /// A new variable that the array does not depend on.
    fn repeat(&mut self, tape: &mut Tape) {
        let place = tape.pick(self.sizes.len() + 1);
        let mut sizes = self.sizes.clone();
        sizes.insert(place, Size::from(tape.choose(&[2, 3, 1, 5])));
        self.substitute(sizes, |variable| IndexExpr::variable(variable + u32::from(variable as usize >= place)));
    }

    /// An axis as two, where a small number divides its size.
    fn split(&mut self, tape: &mut Tape, axis: usize, number: usize) {
        let inner = tape.choose(&[2, 3, 4]);
        let divides = self.sizes[axis].as_constant().is_some() && number.is_multiple_of(inner);
        if !divides {
            return;
        }
        let mut sizes = self.sizes.clone();
        sizes[axis] = Size::from((number / inner) as i64);
        sizes.insert(axis + 1, Size::from(inner as i64));
        let later = |variable: u32| IndexExpr::variable(variable + u32::from(variable as usize > axis));
        self.substitute(sizes, |variable| match variable as usize == axis {
            true => later(variable).times(&Size::from(inner as i64)).plus(&IndexExpr::variable(variable + 1)),
            false => later(variable),
        });
    }

    /// An axis and the next as one.
    fn merge(&mut self, axis: usize) {
        let inner = self.sizes[axis + 1].clone();
        let mut sizes = self.sizes.clone();
        sizes[axis] = &sizes[axis] * &inner;
        sizes.remove(axis + 1);
        let merged = IndexExpr::variable(axis as u32);
        let size_of = sizes.clone();
        let size_of = |variable: u32| size_of[variable as usize].clone();
        self.substitute(sizes, |variable| match variable as usize {
            v if v == axis => merged.floor_div(&inner, &size_of),
            v if v == axis + 1 => merged.remainder(&inner, &size_of),
            v => IndexExpr::variable(variable - u32::from(v > axis + 1)),
        });
    }

    /// Two axes of one size read by one variable.
    fn diagonal(&mut self, axis: usize) {
        let Some(other) = (axis + 1..self.sizes.len()).find(|other| self.sizes[*other] == self.sizes[axis]) else {
            return;
        };
        let mut sizes = self.sizes.clone();
        sizes.remove(other);
        self.substitute(sizes, |variable| match variable as usize {
            v if v == other => IndexExpr::variable(axis as u32),
            v => IndexExpr::variable(variable - u32::from(v > other)),
        });
    }

    /// A view some of whose reads lie outside: padding, a window, or gaps.
    fn outside(&mut self, draft: &Draft, tape: &mut Tape, fill: Literal) {
        if self.sizes.is_empty() {
            return;
        }
        let axis = tape.pick(self.sizes.len());
        let size = self.sizes[axis].clone();
        let v = IndexExpr::variable(axis as u32);
        match tape.pick(3) {
            0 => {
                let (before, after) = (tape.pick(3) as i64, tape.pick(3) as i64);
                let mut sizes = self.sizes.clone();
                sizes[axis] = &size + &Size::from(before + after);
                let shifted = v.plus_size(&Size::from(-before));
                self.substitute(sizes, |variable| match variable as usize == axis {
                    true => shifted.clone(),
                    false => IndexExpr::variable(variable),
                });
            }
            1 => self.window(draft, tape, axis),
            _ => {
                let step = Size::from(tape.choose(&[2, 3]));
                let mut sizes = self.sizes.clone();
                sizes[axis] = (&size - &Size::ONE) * &step + Size::ONE;
                // A map over these variables alone says where the gaps are; earlier views stay underneath.
                let larger = sizes[axis].clone();
                let quotient = v.floor_div(&step, &|_| larger.clone());
                self.substitute(sizes, |variable| match variable as usize == axis {
                    true => quotient.clone(),
                    false => IndexExpr::variable(variable),
                });
                self.map.conditions.push(Condition::Divisible { expression: v, divisor: step });
            }
        }
        self.map.fill = Some(fill);
    }

    /// An axis as positions of a window and taps in it, the taps last: stride, dilation and padding vary.
    pub(super) fn window(&mut self, draft: &Draft, tape: &mut Tape, axis: usize) {
        let (taps, stride) = (tape.choose(&[3, 2, 1, 5]), tape.choose(&[1, 1, 2]));
        let (dilation, padding) = (tape.choose(&[1, 1, 2]), tape.pick(taps as usize) as i64);
        let reach = Size::from((taps - 1) * dilation + 1 - 2 * padding);
        if draft.number(&self.sizes[axis]) < draft.number(&reach) {
            return;
        }
        let mut sizes = self.sizes.clone();
        sizes[axis] = (&sizes[axis] - &reach).floor_div(&Size::from(stride)) + Size::ONE;
        sizes.push(Size::from(taps));
        let tap = IndexExpr::variable(self.sizes.len() as u32).times(&Size::from(dilation));
        let at = IndexExpr::variable(axis as u32).times(&Size::from(stride));
        let place = at.plus(&tap).plus_size(&Size::from(-padding));
        self.substitute(sizes, |variable| match variable as usize == axis {
            true => place.clone(),
            false => IndexExpr::variable(variable),
        });
    }
}

/// Whether a table is read anywhere in an expression; it must not be read outside, whatever a fill says.
fn has_table(expression: &IndexExpr) -> bool {
    expression.terms().iter().any(|(atom, _)| match atom {
        Atom::Table(..) => true,
        Atom::FloorDiv(inner, _) | Atom::Remainder(inner, _) | Atom::Clamp(inner, ..) => has_table(inner),
        Atom::Variable(_) | Atom::Read(_) => false,
    })
}
