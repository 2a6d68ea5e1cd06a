//! Folds along a row: the last contracted variable, in sixteen lanes where the order of DESIGN §7 or an order-free monoid
//! allows.
//!
//! Lane `j` takes the elements `j`, `j + 16`, ...; whole blocks of 16 are four vectors, the rest goes to lanes in memory one
//! by one; then one fixed tree adds the lanes, and its result is combined with what the outer contracted loops carry.

use super::{
    block::{Typed, Width},
    emit::{Emitter, PLAIN},
    fold::{accumulator, function, state_size},
    scalar::{Lanes, has_lanes, register},
};
use crate::plan::kernel::{Fold, LANES, Nest, lane_sum};
use cranelift_codegen::ir::{InstBuilder, Value};
use strang_ir::{ElementType, IndexExpr, Size, op::Monoid};

/// How the folds of a nest run along the last contracted variable.
pub struct RowFold<'n> {
    nest: &'n Nest,
    /// The body as the loop over that variable sees it.
    pub body: Typed<'n>,
    variable: u32,
    /// For each fold: whether it uses lanes.
    laned: Vec<bool>,
    /// Whether whole blocks of sixteen are vectors.
    vector: bool,
}

impl<'n> RowFold<'n> {
    /// The plan for a nest; `None` when no fold uses lanes.
    pub fn new(emitter: &Emitter<'_>, nest: &'n Nest) -> Option<Self> {
        let variable = *nest.contracted.last()?;
        let body = Typed::new(emitter, &nest.body, &[], Some(variable));
        let in_lanes = |fold: &Fold| match fold {
            Fold::Monoid { monoid, value, .. } => {
                let element = body.elements[*value as usize];
                let any_order = !element.is_float() || matches!(monoid, Monoid::Minimum | Monoid::Maximum);
                lane_sum(emitter.kernel, nest, fold) || any_order && has_lanes(element)
            }
            _ => false,
        };
        let is_short = emitter.extent(variable).as_constant().is_some_and(|extent| extent < LANES);
        // What lies apart along the row is folded along another variable, where elements lie side by side.
        let in_order = |fold: &Fold| lane_sum(emitter.kernel, nest, fold);
        let is_row = body.accesses().any(|access| emitter.is_contiguous(access, variable));
        let vector = !is_short
            && (is_row || nest.folds.iter().any(in_order))
            && body.has_lanes(emitter, variable)
            && nest.folds.iter().all(|fold| match fold {
                Fold::Monoid { value, .. } => in_lanes(fold) && has_lanes(accumulator(body.elements[*value as usize])),
                _ => false,
            });
        let laned: Vec<bool> = nest
            .folds
            .iter()
            .map(|fold| if vector { in_lanes(fold) } else { lane_sum(emitter.kernel, nest, fold) })
            .collect();
        laned.contains(&true).then_some(RowFold { nest, body, variable, laned, vector })
    }

    fn folds(&self) -> impl Iterator<Item = (usize, &'n Fold)> + '_ {
        self.nest.folds.iter().enumerate()
    }

    /// Emits the loop along the row; takes and gives the carried state.
    pub fn emit(&self, emitter: &mut Emitter<'_>, state: &[Value]) -> Vec<Value> {
        let extent = emitter.extent(self.variable);
        let (zero, end) = (emitter.int(0), emitter.size(&extent));
        // Lanes that are not used have no memory.
        let cells: Vec<Option<Value>> =
            self.folds().map(|(place, _)| self.laned[place].then(|| emitter.reserve(&Size::from(128)))).collect();
        let starts: Vec<Option<Value>> = self.folds().map(|(_, fold)| self.start(emitter, fold)).collect();
        let whole = if self.vector {
            let whole = match extent.as_constant() {
                Some(extent) => emitter.int(extent / 16 * 16),
                None => emitter.builder.ins().band_imm_s(end, -16),
            };
            self.blocks(emitter, &starts, &cells, (zero, whole));
            whole
        } else {
            for ((place, fold), start) in self.folds().zip(&starts) {
                let (Some(cell), Some(start)) = (cells[place], start) else { continue };
                let element = self.element(fold);
                for lane in 0..16 {
                    emitter.store_at(element, *start, cell, lane * size(element), Lanes::One);
                }
            }
            zero
        };
        let state = self.rest(emitter, &cells, state, (whole, end));
        self.combine(emitter, &cells, &state)
    }

    fn element(&self, fold: &Fold) -> ElementType {
        match fold {
            Fold::Monoid { value, .. } => accumulator(self.body.elements[*value as usize]),
            _ => ElementType::I64,
        }
    }

    /// The neutral element of a fold, as a scalar.
    fn start(&self, emitter: &mut Emitter<'_>, fold: &Fold) -> Option<Value> {
        let Fold::Monoid { monoid, .. } = fold else { return None };
        Some(emitter.literal(monoid.neutral(self.element(fold)), Lanes::One))
    }

    /// Whole blocks of sixteen in four vectors a fold, which end in the cells.
    fn blocks(
        &self,
        emitter: &mut Emitter<'_>,
        starts: &[Option<Value>],
        cells: &[Option<Value>],
        (low, high): (Value, Value),
    ) {
        let mut carried = Vec::new();
        for ((_, fold), start) in self.folds().zip(starts) {
            if let Some(start) = start {
                let vector = emitter.spread(self.element(fold), *start, Lanes::Four);
                carried.extend([vector; 4]);
            }
        }
        let accesses: Vec<u32> = self.body.accesses().collect();
        let warm = |emitter: &mut Emitter<'_>| accesses.iter().for_each(|access| emitter.warm(*access));
        let sums = emitter.loop_over(self.variable, (low, high, 16), &carried, warm, |emitter, sums| {
            let mut next = sums.to_vec();
            for quarter in 0..4 {
                let width = Width::Four { variable: self.variable, offset: 4 * quarter };
                let values = emitter.block(&self.body, &[], width);
                let old: Vec<Value> = next.iter().skip(quarter as usize).step_by(4).copied().collect();
                let new = emitter.fold_step(&self.nest.folds, &self.body, &values, &old, Lanes::Four);
                for (fold, new) in new.into_iter().enumerate() {
                    next[4 * fold + quarter as usize] = new;
                }
            }
            next
        });
        for (cell, sums) in cells.iter().zip(sums.chunks(4)) {
            for (quarter, sum) in sums.iter().enumerate() {
                if let Some(cell) = cell {
                    emitter.builder.ins().store(PLAIN, *sum, *cell, 16 * quarter as i32);
                }
            }
        }
    }

    /// What is left of the row, one element after the other.
    fn rest(
        &self,
        emitter: &mut Emitter<'_>,
        cells: &[Option<Value>],
        state: &[Value],
        (low, high): (Value, Value),
    ) -> Vec<Value> {
        let accesses: Vec<u32> = self.body.accesses().collect();
        let warm = |emitter: &mut Emitter<'_>| accesses.iter().for_each(|access| emitter.warm(*access));
        emitter.loop_over(self.variable, (low, high, 1), state, warm, |emitter, state| {
            let values = emitter.block(&self.body, &[], Width::One);
            let mut next = Vec::new();
            for (place, fold) in self.folds() {
                let old = &state[next.len()..next.len() + state_size(fold)];
                let one = std::slice::from_ref(fold);
                let Some(cell) = cells[place] else {
                    next.extend(emitter.fold_step(one, &self.body, &values, old, Lanes::One));
                    continue;
                };
                let element = self.element(fold);
                let index = emitter.index(&IndexExpr::variable(self.variable));
                let lane = emitter.builder.ins().band_imm_s(index, 15);
                let offset = emitter.builder.ins().imul_imm_s(lane, i64::from(size(element)));
                let at = emitter.builder.ins().iadd(cell, offset);
                // Lanes hold register values: a bool is a mask there, and so is 32 bits wide.
                let sum = self.read_lane(emitter, element, at, 0);
                let sum = emitter.fold_step(one, &self.body, &values, &[sum], Lanes::One);
                self.write_lane(emitter, element, sum[0], at);
                next.push(old[0]);
            }
            next
        })
    }

    fn read_lane(&self, emitter: &mut Emitter<'_>, element: ElementType, at: Value, offset: i32) -> Value {
        if element == ElementType::Bool {
            let mask = emitter.builder.ins().load(register(ElementType::I32, Lanes::One), PLAIN, at, offset);
            return emitter.cast(ElementType::I32, ElementType::Bool, mask, Lanes::One);
        }
        emitter.builder.ins().load(register(element, Lanes::One), PLAIN, at, offset)
    }

    fn write_lane(&self, emitter: &mut Emitter<'_>, element: ElementType, value: Value, at: Value) {
        let value = match element {
            ElementType::Bool => emitter.builder.ins().bmask(register(ElementType::I32, Lanes::One), value),
            _ => value,
        };
        emitter.builder.ins().store(PLAIN, value, at, 0);
    }

    /// Adds the lanes by the fixed tree, and the carried state with them.
    fn combine(&self, emitter: &mut Emitter<'_>, cells: &[Option<Value>], state: &[Value]) -> Vec<Value> {
        let mut next = state.to_vec();
        let mut at = 0;
        for (place, fold) in self.folds() {
            if let (Some(cell), Fold::Monoid { monoid, .. }) = (cells[place], fold) {
                let element = self.element(fold);
                let tree = |emitter: &mut Emitter<'_>, mut parts: Vec<Value>, width: Lanes| {
                    while parts.len() > 1 {
                        let half = parts.len() / 2;
                        for part in 0..half {
                            let pair = (parts[part], parts[part + half]);
                            parts[part] = emitter.binary(function(*monoid), element, pair, None, width);
                        }
                        parts.truncate(half);
                    }
                    parts[0]
                };
                // Four vectors become one, whose lanes are the last four of the tree.
                let lanes = if self.vector {
                    let kind = register(element, Lanes::Four);
                    let vectors =
                        (0..4).map(|quarter| emitter.builder.ins().load(kind, PLAIN, cell, 16 * quarter)).collect();
                    let sums = tree(emitter, vectors, Lanes::Four);
                    emitter.builder.ins().store(PLAIN, sums, cell, 0);
                    4
                } else {
                    16
                };
                let lanes =
                    (0..lanes).map(|lane| self.read_lane(emitter, element, cell, lane * size(element))).collect();
                let sum = tree(emitter, lanes, Lanes::One);
                next[at] = emitter.binary(function(*monoid), element, (state[at], sum), None, Lanes::One);
            }
            at += state_size(fold);
        }
        next
    }
}

/// Bytes of a lane in memory: that of its register, 4 for a mask.
fn size(element: ElementType) -> i32 {
    (register(element, Lanes::One).bytes() as i32).max(4)
}
