//! Bands: a tile computes some channels of the rows of an image that its convolution reads into scratch memory, with zeros
//! around them, and convolves them while they are in cache. Rows that the tile before read too are moved, not computed again.

use super::{
    chunks::{Chunks, even},
    depthwise::Convolution,
    emit::{Emitter, PLAIN},
    gemm::{Blocking, Blocks, MOST_ROWS, ceiling},
    segments::ROW,
};
use crate::plan::kernel::{Bands, Image, Kernel, LoopVariable};
use cranelift_codegen::ir::{InstBuilder, Value, condcodes::IntCC, types};
use strang_ir::{IndexExpr, Size};

/// Where the image of bands lies in scratch memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scratch {
    /// The pointer that stands for it.
    pointer: u32,
    /// The variable that is the row of the image with which the band begins.
    first_row: u32,
    /// The variable that is the channel with which the tile begins.
    first_channel: u32,
    /// Elements from a row to the next.
    row: i64,
}

/// The kernel with the image where a band of it lies in scratch memory: some channels of some rows.
pub(super) fn in_scratch(kernel: &Kernel, bands: &Bands) -> (Kernel, Scratch) {
    let image = &bands.image;
    let mut kernel = kernel.clone();
    let first_row = kernel.variables.len() as u32;
    kernel.variables.extend([image.height, image.channels].map(|size| LoopVariable::Loop(size.into())));
    let stored = bands.producer.stores[0].access;
    let pointer = kernel.accesses[stored as usize].pointer;
    let row = image.pixels() * bands.channels;
    let scratch = Scratch { pointer, first_row, first_channel: first_row + 1, row };
    let in_band = |distance: i64| {
        let (rows, rest) = (distance.div_euclid(image.row), distance.rem_euclid(image.row));
        Size::from(rows * row + rest / image.pixel * bands.channels + rest % image.pixel)
    };
    // Those of the batch outside of the rows lead to other images, one of which is in scratch memory at a time.
    let outer = bands.consumer.batch.split_last().map_or(&[][..], |(_, outer)| outer);
    for access in [stored, bands.consumer.a] {
        let access = &mut kernel.accesses[access as usize];
        let pointed = kernel.pointers[access.pointer as usize].offset.as_constant().unwrap_or(0) / 4;
        let start = pointed + access.address.offset().as_constant().unwrap_or(0);
        let mut address = IndexExpr::constant(in_band(start));
        for (position, _) in kernel.variables.iter().enumerate() {
            let variable = position as u32;
            let distance = access.address.coefficient(variable).as_constant().unwrap_or(0);
            if distance != 0 && !outer.contains(&variable) {
                address = address.plus(&IndexExpr::variable(variable).times(&in_band(distance)));
            }
        }
        let before = IndexExpr::variable(first_row).times(&Size::from(-row));
        let skipped = IndexExpr::variable(scratch.first_channel).times(&Size::from(-1));
        access.address = address.plus(&before).plus(&skipped);
        access.pointer = pointer;
    }
    (kernel, scratch)
}

/// Emits bands; says the number of tiles and the kind of kernel.
pub(super) fn emit(emitter: &mut Emitter<'_>, bands: &Bands, scratch: Scratch) -> (Size, &'static str) {
    let Bands { producer, consumer, image, channels, rows } = bands;
    let most = Size::from(4 * image.band(*rows) * scratch.row);
    let memory = emitter.reserve(&most);
    emitter.place(scratch.pointer, memory);
    let height = ceiling(image.width, ceiling(image.width, MOST_ROWS));
    let blocks = Blocks::new(emitter, producer, Blocking { rows: height, columns: *channels });
    let stride = consumer.weight_stride(emitter.kernel).unwrap_or(Size::ZERO);
    let segment = even(&emitter.extent(consumer.columns), (ROW / channels / image.step.clamp(1, 4)).max(7), 1);
    let convolution = Convolution::new(emitter, consumer, &stride, (&segment, &Size::from(*channels)));
    let Some((row, outer)) = consumer.batch.split_last() else { return (Size::ZERO, KIND) };
    // The bands of some channels come after one another: where two meet, the second finds what the first computed.
    let cuts = outer.iter().map(|variable| (*variable, Size::ONE));
    let cuts = cuts.chain([(consumer.channels, Size::from(*channels)), (*row, Size::from(*rows))]);
    let chunks = Chunks::new(emitter, cuts);
    emitter.each((emitter.lo, emitter.hi, 1), |emitter, tile| {
        let ranges = chunks.ranges(emitter, tile);
        let [.., channel_range, result_rows] = ranges[..] else { return };
        for (variable, (position, _)) in outer.iter().zip(&ranges) {
            emitter.bind(*variable, *position);
        }
        let before = emitter.builder.ins().imul_imm_s(result_rows.0, image.step);
        let first = emitter.builder.ins().iadd_imm_s(before, image.first);
        let count = emitter.builder.ins().isub(result_rows.1, result_rows.0);
        let covered = emitter.builder.ins().imul_imm_s(count, image.step);
        let end = emitter.builder.ins().iadd(first, covered);
        let end = emitter.builder.ins().iadd_imm_s(end, image.span - image.step);
        emitter.bind(scratch.first_row, first);
        emitter.bind(scratch.first_channel, channel_range.0);
        let mut band = Band { image, scratch, channels: *channels, memory, first, fresh: first, end };
        band.keep_rows(emitter, (tile, result_rows.0), *rows);
        let inside = band.zeros_around(emitter);
        let image_row = producer.batch.last().copied().unwrap_or_default();
        emitter.loop_over(
            image_row,
            (inside.0, inside.1, 1),
            &[],
            |_| {},
            |emitter, _| {
                let (low, high) = (emitter.int(0), emitter.int(image.width));
                emitter.each((low, high, height), |emitter, pixel| {
                    let end = emitter.builder.ins().iadd_imm_s(pixel, height);
                    let end = emitter.smaller(end, high);
                    blocks.compute(emitter, (pixel, end), channel_range);
                });
                Vec::new()
            },
        );
        let (low, width) = (emitter.int(0), emitter.extent(consumer.columns));
        let width = emitter.size(&width);
        let step = segment.as_constant().unwrap_or(1);
        emitter.each((low, width, step), |emitter, pixel| {
            let end = emitter.builder.ins().iadd_imm_s(pixel, step);
            let end = emitter.smaller(end, width);
            emitter.loop_over(
                *row,
                (result_rows.0, result_rows.1, 1),
                &[],
                |_| {},
                |emitter, _| {
                    convolution.segment(emitter, (pixel, end), channel_range);
                    Vec::new()
                },
            );
        });
        let own = [scratch.first_row, scratch.first_channel];
        outer.iter().chain(&own).for_each(|variable| emitter.unbind(*variable));
    });
    (chunks.grid(), KIND)
}

/// What profiles call it.
const KIND: &str = "gemm+depthwise";

/// Bytes that are moved at a time: channels come in sixteens, so that every pixel is a multiple of it. In words, not vectors: a
/// function that computes with integers alone is compiled quickly.
const LINE: i64 = 64;

/// A band of an image in scratch memory.
struct Band<'b> {
    image: &'b Image,
    scratch: Scratch,
    channels: i64,
    memory: Value,
    /// Its first row, those of zeros above the image counted.
    first: Value,
    /// The first row that is not there yet.
    fresh: Value,
    /// One past its last row.
    end: Value,
}

impl Band<'_> {
    /// Moves what the band needs of the one before to its beginning, if a band of the same channels was computed before: the tile is not
    /// the first, nor are its rows.
    fn keep_rows(&mut self, emitter: &mut Emitter<'_>, (tile, result_row): (Value, Value), rows: i64) {
        let shared = self.image.span - self.image.step;
        if shared <= 0 {
            return;
        }
        let goes_on = emitter.builder.ins().icmp(IntCC::UnsignedGreaterThan, tile, emitter.lo);
        let is_below = emitter.builder.ins().icmp_imm_s(IntCC::SignedGreaterThan, result_row, 0);
        let keeps = emitter.builder.ins().band(goes_on, is_below);
        let [none, bytes] = [0, 4 * shared * self.scratch.row].map(|bytes| emitter.int(bytes));
        let bytes = emitter.builder.ins().select(keeps, bytes, none);
        let from = emitter.builder.ins().iadd_imm_s(self.memory, 4 * rows * self.image.step * self.scratch.row);
        emitter.each((none, bytes, LINE), |emitter, offset| {
            let [from, to] = [from, self.memory].map(|memory| emitter.builder.ins().iadd(memory, offset));
            for word in 0..LINE as i32 / 8 {
                let value = emitter.builder.ins().load(types::I64, PLAIN, from, 8 * word);
                emitter.builder.ins().store(PLAIN, value, to, 8 * word);
            }
        });
        let fresh = emitter.builder.ins().iadd_imm_s(self.first, shared);
        self.fresh = emitter.builder.ins().select(keeps, fresh, self.first);
    }

    /// Writes the zeros of the rows that are not there yet; says which rows of the image are among them.
    fn zeros_around(&self, emitter: &mut Emitter<'_>) -> (Value, Value) {
        let Image { top, left, height, width, .. } = *self.image;
        let (above, below) = (emitter.int(top), emitter.int(top + height));
        let start = emitter.larger(self.fresh, above);
        let start = emitter.smaller(start, self.end);
        let stop = emitter.smaller(self.end, below);
        let stop = emitter.larger(stop, start);
        for range in [(self.fresh, start, 1), (stop, self.end, 1)] {
            emitter.each(range, |emitter, row| self.zero(emitter, row, (0, self.image.pixels())));
        }
        let right = (left + width, self.image.pixels());
        let sides: Vec<(i64, i64)> = [(0, left), right].into_iter().filter(|(low, high)| low < high).collect();
        if !sides.is_empty() {
            emitter.each((start, stop, 1), |emitter, row| {
                sides.iter().for_each(|side| self.zero(emitter, row, *side));
            });
        }
        let low = emitter.builder.ins().iadd_imm_s(start, -top);
        (low, emitter.builder.ins().iadd_imm_s(stop, -top))
    }

    /// Zeros for pixels of a row.
    fn zero(&self, emitter: &mut Emitter<'_>, row: Value, (low, high): (i64, i64)) {
        let before = emitter.builder.ins().isub(row, self.first);
        let bytes = emitter.builder.ins().imul_imm_s(before, 4 * self.scratch.row);
        let place = emitter.builder.ins().iadd(self.memory, bytes);
        let bytes = 4 * self.channels;
        let (low, high) = (emitter.int(bytes * low), emitter.int(bytes * high));
        emitter.each((low, high, LINE), |emitter, offset| {
            let place = emitter.builder.ins().iadd(place, offset);
            let zero = emitter.int(0);
            for word in 0..LINE as i32 / 8 {
                emitter.builder.ins().store(PLAIN, zero, place, 8 * word);
            }
        });
    }
}
