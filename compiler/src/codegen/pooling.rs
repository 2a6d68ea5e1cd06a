//! Pooling of floats: the largest or the sum of every channel over a window, on the kernels of the table, which have wider vectors
//! than generated code.
//!
//! Pixels whose windows lie inside of the image are one call a row. Windows at the border have taps outside, which are left
//! out: what is read there is neutral.

use super::{
    argument::ArgumentBlock,
    emit::{Emitter, PLAIN},
    interior::Interior,
    rows::{folded_values, outer_loops},
    segments::{Cut, Output, Walk, segments},
};
use crate::plan::kernel::{Fold, Instruction, Nest, lane_sum};
use cranelift_codegen::ir::{InstBuilder, Value};
use rustc_hash::FxHashMap;
use std::mem::offset_of;
use strang_ir::{ElementType, Size, op::Monoid};
use strang_runtime::kernels::{Function, window::Window};

/// The fewest channels that are worth a call for each pixel at the border.
const FEWEST_CHANNELS: i64 = 8;
/// The most taps of a window: the pointers of a call.
const MOST_TAPS: i64 = 64;

/// A nest that is a pooling.
pub struct Pooling<'n> {
    nest: &'n Nest,
    walk: Walk<'n>,
    function: Function,
    taps: i64,
    /// The pixels of a row whose windows lie inside, if others do not.
    interior: Option<Interior>,
}

impl<'n> Pooling<'n> {
    /// The pooling that a nest is, if it is one.
    pub fn new(emitter: &Emitter<'_>, nest: &'n Nest) -> Option<Self> {
        let &[ref fold @ Fold::Monoid { monoid, value: 0, when: None }] = &nest.folds[..] else { return None };
        let &[Instruction::Load(access)] = &nest.body.instructions[..] else { return None };
        let function = match monoid {
            Monoid::Maximum => Function::MaxPoolF32,
            Monoid::Sum if !lane_sum(emitter.kernel, nest, fold) => Function::SumPoolF32,
            _ => return None,
        };
        let [batch @ .., columns, channels] = &nest.space[..] else { return None };
        let walk = Walk { read: access, batch, columns: *columns, channels: *channels };
        let read = &emitter.kernel.accesses[access as usize];
        let is_neutral = read.guard.as_ref().is_none_or(|guard| guard.fill == monoid.neutral(ElementType::F32));
        let taps = nest.contracted.iter().map(|tap| emitter.extent(*tap).as_constant()).product::<Option<i64>>()?;
        let extent = |variable: u32| emitter.extent(variable).as_constant();
        let is_window = (2..=MOST_TAPS).contains(&taps)
            && extent(*channels).is_some_and(|channels| channels >= FEWEST_CHANNELS)
            && extent(*columns).is_some_and(|columns| columns > 1);
        let is_image = read.element == ElementType::F32
            && read.checked.is_empty()
            && emitter.is_contiguous(access, *channels)
            && !emitter.guard_mentions(access, *channels)
            && emitter.is_linear(&read.address, *columns);
        let is_parallel = nest.space.iter().all(|variable| nest.parallel.contains(variable));
        let is_stored = nest.stores.iter().all(|store| store.combine.is_none());
        if !(is_neutral && is_window && is_image && is_parallel && is_stored) {
            return None;
        }
        let interior = Interior::new(emitter, &nest.body, *columns, &nest.contracted, &|_| true)?;
        let interior = (!interior.is_everywhere()).then_some(interior);
        Some(Pooling { nest, walk, function, taps, interior })
    }

    /// Emits it; says the number of tiles.
    pub fn emit(&self, emitter: &mut Emitter<'_>) -> Size {
        let cut = Cut::new(emitter, self.walk, &Size::from(self.taps));
        let call = Call::new(emitter, self, &cut);
        segments(emitter, self.walk, &cut, &|emitter, columns, channels| call.segment(emitter, columns, channels))
    }
}

/// A pooling with the memory of its calls.
struct Call<'p> {
    pooling: &'p Pooling<'p>,
    block: ArgumentBlock,
    /// The pointers of the taps.
    taps: Value,
    output: Output<'p>,
}

impl<'p> Call<'p> {
    fn new(emitter: &mut Emitter<'_>, pooling: &'p Pooling<'p>, cut: &Cut) -> Self {
        let Pooling { nest, walk, .. } = pooling;
        let sizes = (&cut.columns, &cut.channels);
        let output = Output::new(emitter, *walk, (&nest.finish, &nest.stores), folded_values(&nest.finish), sizes);
        let block = emitter.argument_block::<Window>();
        let taps = emitter.reserve(&Size::from(8 * pooling.taps));
        let input_stride = emitter.kernel.accesses[walk.read as usize].address.coefficient(walk.columns);
        let output_stride = output.stride(emitter);
        let [input_stride, output_stride] = [&input_stride, &output_stride].map(|size| emitter.size(size));
        let tap_count = emitter.int(pooling.taps);
        emitter.set_all(
            block,
            [
                (offset_of!(Window, taps), taps),
                (offset_of!(Window, tap_count), tap_count),
                (offset_of!(Window, input_stride), input_stride),
                (offset_of!(Window, output_stride), output_stride),
            ],
        );
        Call { pooling, block, taps, output }
    }

    /// Some pixels and channels of an output row; the variables of the batch are bound.
    fn segment(&self, emitter: &mut Emitter<'_>, columns: (Value, Value), channels: (Value, Value)) {
        match &self.pooling.interior {
            None => self.call(emitter, columns, columns.0, channels),
            Some(interior) => {
                let (start, end) = interior.range(emitter, columns);
                self.pixels(emitter, (columns.0, start), columns.0, channels);
                interior.assumed(emitter, |emitter| self.call(emitter, (start, end), columns.0, channels));
                self.pixels(emitter, (end, columns.1), columns.0, channels);
            }
        }
        self.output.rest(emitter, columns, channels);
    }

    /// Pixels one by one.
    fn pixels(&self, emitter: &mut Emitter<'_>, (low, high): (Value, Value), first: Value, channels: (Value, Value)) {
        emitter.fold(
            (low, high, 1),
            &[],
            |_| {},
            |emitter, pixel, _| {
                let next = emitter.builder.ins().iadd_imm_s(pixel, 1);
                self.call(emitter, (pixel, next), first, channels);
                Vec::new()
            },
        );
    }

    /// Pixels of a segment that begins with pixel `first`: the same taps are inside for all of them.
    fn call(&self, emitter: &mut Emitter<'_>, (low, high): (Value, Value), first: Value, channels: (Value, Value)) {
        let Pooling { nest, walk, function, .. } = self.pooling;
        emitter.scopes.push(FxHashMap::default());
        emitter.bind(walk.columns, low);
        outer_loops(emitter, &nest.contracted, self.taps, &mut |emitter, place| {
            let mut input = emitter.address_at(walk.read, walk.channels, channels.0);
            if let Some(inside) = emitter.guard(walk.read) {
                let none = emitter.int(0);
                input = emitter.builder.ins().select(inside, input, none);
            }
            emitter.builder.ins().store(PLAIN, input, place, 0);
            emitter.builder.ins().iadd_imm_s(place, 8)
        });
        emitter.unbind(walk.columns);
        emitter.scopes.pop();
        let output = self.output.address(emitter, (low, first), channels.0);
        let column_count = emitter.builder.ins().isub(high, low);
        let channel_count = emitter.builder.ins().isub(channels.1, channels.0);
        emitter.set_all(
            self.block,
            [
                (offset_of!(Window, output), output),
                (offset_of!(Window, columns), column_count),
                (offset_of!(Window, channels), channel_count),
            ],
        );
        let block = emitter.block_address(self.block);
        emitter.call(*function, &[block]);
    }
}
