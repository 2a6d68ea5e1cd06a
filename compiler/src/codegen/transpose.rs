//! Maps that read along one variable and write along another: blocks of 8 by 4 positions, transposed in registers.
//!
//! A copy that changes the order of axes reads four vectors along the source's contiguous variable and turns them into
//! vectors along the destination's. Every cache line is then used whole while it is at hand, which one-dimensional loops
//! over long strides are far from.

use super::{
    block::{Typed, Width},
    emit::Emitter,
    scalar::{Lanes, register},
    strip::{Job, Sink},
    tile::{self, Tiling},
};
use crate::plan::kernel::{Instruction, Nest};
use cranelift_codegen::ir::{Endianness, InstBuilder, MemFlagsData, Value, types::I8X16};
use rustc_hash::FxHashMap;
use strang_ir::Size;

/// Positions of the outer variable in a block.
const ROWS: i64 = 8;
/// Positions of the space in a tile.
const TILE: i64 = 16_384;

/// A map that is computed in blocks.
pub struct Transposed<'n> {
    nest: &'n Nest,
    /// The variable that writes move along.
    inner: u32,
    /// The variable that the transposed reads move along.
    outer: u32,
    /// Accesses that are transposed.
    reads: Vec<u32>,
    typed: Typed<'n>,
}

impl<'n> Transposed<'n> {
    /// The plan for a nest; `None` when it has no such reads, or something that blocks cannot do.
    pub fn new(emitter: &Emitter<'_>, nest: &'n Nest) -> Option<Self> {
        let inner = *nest.space.last()?;
        let all_parallel = nest.space.iter().all(|variable| nest.parallel.contains(variable));
        if !nest.folds.is_empty() || !all_parallel {
            return None;
        }
        let sinks = nest.stores.iter().copied().map(Sink::Memory).collect();
        let job = Job { block: &nest.body, variable: inner, given: FxHashMap::default(), sinks };
        let typed = Typed::new(emitter, &nest.body, &[], Some(inner));
        if job.needs_strips(emitter, &[]) || !typed.has_lanes(emitter, inner) {
            return None;
        }
        let stores_fit = nest.stores.iter().all(|store| {
            store.combine.is_none()
                && emitter.is_contiguous(store.access, inner)
                && emitter.kernel.accesses[store.access as usize].element.bits() == 32
        });
        let crossed = |access: u32, outer: u32| {
            let read = &emitter.kernel.accesses[access as usize];
            let along = read.address.coefficient(inner);
            read.element.bits() == 32
                && !along.is(0)
                && !along.is(1)
                && emitter.guard_is_known(access)
                && read.checked.is_empty()
                && emitter.has_stride(access, inner)
                && emitter.is_contiguous(access, outer)
                && !emitter.written[read.pointer as usize]
        };
        let first = typed.accesses().find_map(|access| {
            let others = nest.space.iter().copied().filter(|outer| *outer != inner);
            others.into_iter().find(|outer| crossed(access, *outer))
        })?;
        let long =
            |variable: u32, least: i64| emitter.extent(variable).as_constant().is_none_or(|extent| extent >= least);
        let reads = typed.accesses().filter(|access| crossed(*access, first)).collect();
        (stores_fit && long(inner, 4) && long(first, ROWS)).then_some(Transposed {
            nest,
            inner,
            outer: first,
            reads,
            typed,
        })
    }

    /// Emits the nest; says the number of tiles.
    pub fn emit(&self, emitter: &mut Emitter<'_>) -> Size {
        let parallel: Vec<u32> = self.nest.space.iter().copied().filter(|v| *v != self.outer).collect();
        let extent = emitter.extent(self.outer);
        let tiling = Tiling::new(emitter, &parallel, (TILE / tile::estimate(&extent)).max(64), false);
        tiling.each(emitter, |emitter, low, high| self.tile(emitter, (low, high)));
        tiling.grid()
    }

    fn tile(&self, emitter: &mut Emitter<'_>, (low, high): (Value, Value)) {
        let extent = emitter.extent(self.outer);
        let (zero, end) = (emitter.int(0), emitter.size(&extent));
        let whole_rows = emitter.builder.ins().band_imm_s(end, -ROWS);
        let count = emitter.builder.ins().isub(high, low);
        let whole = emitter.builder.ins().band_imm_s(count, -4);
        let whole = emitter.builder.ins().iadd(low, whole);
        emitter.each((zero, whole_rows, ROWS), |emitter, row| {
            emitter.each((low, whole, 4), |emitter, column| self.block(emitter, row, column));
        });
        let rest = |emitter: &mut Emitter<'_>, rows: (Value, Value), range: (Value, Value)| {
            emitter.loop_over(
                self.outer,
                (rows.0, rows.1, 1),
                &[],
                |_| {},
                |emitter, _| {
                    let sinks = self.nest.stores.iter().copied().map(Sink::Memory).collect();
                    let given = FxHashMap::default();
                    let job = Job { block: &self.nest.body, variable: self.inner, given, sinks };
                    emitter.run_job(&job, &[], range);
                    Vec::new()
                },
            );
        };
        if emitter.extent(self.inner).as_constant().is_none_or(|extent| extent % 4 != 0) {
            rest(emitter, (zero, whole_rows), (whole, high));
        }
        if extent.as_constant().is_none_or(|extent| extent % ROWS != 0) {
            rest(emitter, (whole_rows, end), (low, high));
        }
    }

    /// One block: `ROWS` positions of the outer variable from `row`, four of the inner one from `column`.
    fn block(&self, emitter: &mut Emitter<'_>, row: Value, column: Value) {
        let mut transposed: FxHashMap<u32, Vec<Value>> = FxHashMap::default();
        emitter.scopes.push(FxHashMap::default());
        emitter.bind(self.outer, row);
        emitter.bind(self.inner, column);
        for access in &self.reads {
            let halves = (0..ROWS as i32 / 4).flat_map(|half| self.read(emitter, *access, 4 * half));
            transposed.insert(*access, halves.collect());
        }
        emitter.scopes.pop();
        for place in 0..ROWS {
            let at = emitter.builder.ins().iadd_imm_s(row, place);
            emitter.scopes.push(FxHashMap::default());
            emitter.bind(self.outer, at);
            emitter.bind(self.inner, column);
            let width = Width::Four { variable: self.inner, offset: 0 };
            let mut values: Vec<Value> = Vec::new();
            for (position, instruction) in self.nest.body.instructions.iter().enumerate() {
                let given = match instruction {
                    Instruction::Load(access) => transposed.get(access).map(|rows| rows[place as usize]),
                    _ => None,
                };
                let value = match given {
                    Some(value) => value,
                    None => emitter.instruction(&self.typed, position, instruction, &values, &[], width),
                };
                values.push(value);
            }
            for store in &self.nest.stores {
                let at = store.value as usize;
                let value = if self.typed.varying[at] {
                    values[at]
                } else {
                    emitter.spread(self.typed.elements[at], values[at], Lanes::Four)
                };
                emitter.store_lanes(store.access, self.inner, 0, value);
            }
            emitter.scopes.pop();
        }
        emitter.unbind(self.outer);
        emitter.unbind(self.inner);
    }

    /// Four vectors along the inner variable, one for each of four positions of the outer one from an offset.
    fn read(&self, emitter: &mut Emitter<'_>, access: u32, offset: i32) -> Vec<Value> {
        let kernel = emitter.kernel;
        let read = &kernel.accesses[access as usize];
        let kind = register(read.element, Lanes::Four);
        let flags = emitter.read_flags(access);
        let stride = read.address.coefficient(self.inner) * Size::from(4);
        let (place, displacement) = emitter.address(access);
        let columns: Vec<Value> = (0..4)
            .map(|lane| {
                let ahead = emitter.size(&(&stride * &Size::from(lane)));
                let at = emitter.builder.ins().iadd(place, ahead);
                let vector = emitter.builder.ins().load(kind, flags, at, displacement + 4 * offset);
                emitter.builder.ins().bitcast(I8X16, little_endian(), vector)
            })
            .collect();
        let mut shuffle = |a: Value, b: Value, words: [u8; 4]| {
            let mask: Vec<u8> = words.iter().flat_map(|word| (0..4).map(move |byte| 4 * word + byte)).collect();
            let mask = emitter.builder.func.dfg.immediates.push(mask.into());
            emitter.builder.ins().shuffle(a, b, mask)
        };
        let (low, high) = ([0, 4, 1, 5], [2, 6, 3, 7]);
        let (a, b) = (shuffle(columns[0], columns[1], low), shuffle(columns[2], columns[3], low));
        let (c, d) = (shuffle(columns[0], columns[1], high), shuffle(columns[2], columns[3], high));
        let (first, second) = ([0, 1, 4, 5], [2, 3, 6, 7]);
        let rows = [shuffle(a, b, first), shuffle(a, b, second), shuffle(c, d, first), shuffle(c, d, second)];
        rows.map(|row| emitter.builder.ins().bitcast(kind, little_endian(), row)).to_vec()
    }
}

fn little_endian() -> MemFlagsData {
    MemFlagsData::new().with_endianness(Endianness::Little)
}
