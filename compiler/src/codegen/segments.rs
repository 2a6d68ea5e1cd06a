//! Segments of image rows, channels innermost: what depthwise convolution and pooling walk in.
//!
//! A tile is a slice of channels of a few pixels of some output rows: rows that follow each other read mostly the same
//! input, which then is in the first-level cache.

use super::{
    chunks::{Chunks, even},
    emit::Emitter,
    epilogue::{self, TileVariables},
    strip::{Job, Row, Sink},
    tile::estimate,
};
use crate::plan::kernel::{Block, Store};
use cranelift_codegen::ir::{InstBuilder, Value};
use strang_ir::{ElementType, Size};

/// Multiply-adds of a tile, about.
const TILE: i64 = 1 << 16;

/// Elements of an input row that a tile reads, at most: with the rows around it they fit into the first-level cache.
pub(super) const ROW: i64 = 2048;

/// Channels of a tile, at most.
const CHANNELS: i64 = 256;

/// The variables of an image that is computed from a window of another.
#[derive(Clone, Copy)]
pub(super) struct Walk<'w> {
    /// The access through which the other is read.
    pub read: u32,
    /// Outer variables: images and output rows.
    pub batch: &'w [u32],
    /// The pixels of an output row.
    pub columns: u32,
    /// The channels, contiguous in both images.
    pub channels: u32,
}

/// Emits the segments of a row that a tile has of the pixels and channels given.
pub(super) type Segment<'s> = &'s dyn Fn(&mut Emitter<'_>, (Value, Value), (Value, Value));

/// Emits all segments, in tiles; says how many tiles there are.
pub(super) fn segments(emitter: &mut Emitter<'_>, walk: Walk<'_>, cut: &Cut, segment: Segment<'_>) -> Size {
    let chunks = cut.chunks(emitter, walk);
    emitter.each((emitter.lo, emitter.hi, 1), |emitter, tile| {
        let ranges = chunks.ranges(emitter, tile);
        let (outer, row) = match walk.batch.split_last() {
            Some((row, outer)) => (outer, Some(*row)),
            None => (&[][..], None),
        };
        for (variable, (position, _)) in outer.iter().zip(&ranges) {
            emitter.bind(*variable, *position);
        }
        let [channels, .., columns] = ranges[outer.len()..] else { return };
        match row {
            None => segment(emitter, columns, channels),
            Some(row) => {
                let (low, high) = ranges[outer.len() + 1];
                emitter.loop_over(
                    row,
                    (low, high, 1),
                    &[],
                    |_| {},
                    |emitter, _| {
                        segment(emitter, columns, channels);
                        Vec::new()
                    },
                );
            }
        }
        outer.iter().for_each(|variable| emitter.unbind(*variable));
    });
    chunks.grid()
}

/// The sizes of a tile.
pub(super) struct Cut {
    pub channels: Size,
    pub columns: Size,
    rows: Size,
}

impl Cut {
    pub(super) fn new(emitter: &Emitter<'_>, walk: Walk<'_>, tap_count: &Size) -> Self {
        let step = emitter.kernel.accesses[walk.read as usize].address.coefficient(walk.columns);
        let channels = emitter.extent(walk.channels);
        // How many pixels the input moves by from one output pixel to the next.
        let pixel = step.as_constant().map_or(1, |step| step.abs() / estimate(&channels)).clamp(1, 4);
        let columns = emitter.extent(walk.columns);
        let wanted = (ROW / (estimate(&columns) * pixel) / 64 * 64).clamp(64, CHANNELS);
        let channels = even(&channels, wanted, 16);
        let columns = even(&columns, (ROW / estimate(&channels) / pixel).max(7), 1);
        let work = estimate(&channels) * estimate(&columns) * estimate(tap_count);
        let rows = match walk.batch.last() {
            Some(row) => even(&emitter.extent(*row), (TILE / work.min(TILE)).max(1), 1),
            None => Size::ONE,
        };
        Cut { channels, columns, rows }
    }

    /// Images, then channels, then rows, then pixels: a worker that goes on to the next tile finds its input in cache.
    fn chunks(&self, emitter: &Emitter<'_>, walk: Walk<'_>) -> Chunks {
        let (row, outer) = match walk.batch.split_last() {
            Some((row, outer)) => (Some((*row, self.rows.clone())), outer),
            None => (None, &[][..]),
        };
        let outer = outer.iter().map(|variable| (*variable, Size::ONE));
        let channels = (walk.channels, self.channels.clone());
        let columns = (walk.columns, self.columns.clone());
        Chunks::new(emitter, outer.chain([channels]).chain(row).chain([columns]))
    }
}

/// What becomes of the values that a kernel of the runtime computes of a segment: they are stored, if that is all, or go to scratch
/// memory, from where the rest is computed.
pub(super) struct Output<'o> {
    walk: Walk<'o>,
    block: &'o Block,
    stores: &'o [Store],
    /// The values of the block that the kernel computes.
    given: Vec<u32>,
    place: Place,
}

/// Where a kernel writes.
enum Place {
    /// Through an access.
    Stored(u32),
    /// To scratch memory, in which a pixel has `width` channels.
    Scratch { memory: Value, width: Size },
}

impl<'o> Output<'o> {
    /// Of a kernel that computes values `given` of a block; sets memory aside for segments of so many pixels and channels if it is
    /// needed.
    pub(super) fn new(
        emitter: &mut Emitter<'_>,
        walk: Walk<'o>,
        (block, stores): (&'o Block, &'o [Store]),
        given: Vec<u32>,
        (columns, channels): (&Size, &Size),
    ) -> Self {
        let tile = TileVariables { rows: walk.columns, columns: walk.channels };
        let place = match (stores, &given[..]) {
            ([Store { access, value, combine: None }], [given])
                if value == given && epilogue::is_plain(emitter, *access, tile) =>
            {
                Place::Stored(*access)
            }
            _ => Place::Scratch {
                memory: emitter.reserve(&(columns * channels * Size::from(4))),
                width: channels.clone(),
            },
        };
        Output { walk, block, stores, given, place }
    }

    /// The distance of two pixels.
    pub(super) fn stride(&self, emitter: &Emitter<'_>) -> Size {
        match &self.place {
            Place::Stored(access) => emitter.kernel.accesses[*access as usize].address.coefficient(self.walk.columns),
            Place::Scratch { width, .. } => width.clone(),
        }
    }

    /// Where a pixel goes of a segment that begins with pixel `first`.
    pub(super) fn address(&self, emitter: &mut Emitter<'_>, (pixel, first): (Value, Value), channel: Value) -> Value {
        match &self.place {
            Place::Stored(access) => {
                emitter.address_of(*access, &[(self.walk.columns, pixel), (self.walk.channels, channel)])
            }
            Place::Scratch { memory, .. } if pixel == first => *memory,
            Place::Scratch { memory, width } => {
                let ahead = emitter.builder.ins().isub(pixel, first);
                let ahead = emitter.times(ahead, &(width * &Size::from(4)));
                emitter.builder.ins().iadd(*memory, ahead)
            }
        }
    }

    /// Emits what the kernel leaves to do in a segment, pixel by pixel.
    pub(super) fn rest(&self, emitter: &mut Emitter<'_>, columns: (Value, Value), channels: (Value, Value)) {
        let Place::Scratch { memory, width } = &self.place else { return };
        let start = emitter.strip_row(ElementType::F32, channels.0, *memory).base;
        let range = (columns.0, columns.1, 1);
        emitter.loop_over(
            self.walk.columns,
            range,
            &[start],
            |_| {},
            |emitter, base| {
                let row = Row { base: base[0], element: ElementType::F32 };
                let job = Job {
                    block: self.block,
                    variable: self.walk.channels,
                    given: self.given.iter().map(|value| (*value, row)).collect(),
                    sinks: self.stores.iter().copied().map(Sink::Memory).collect(),
                };
                emitter.run_in_strips(&job, &[ElementType::F32], channels);
                let bytes = emitter.size(&(width * &Size::from(4)));
                vec![emitter.builder.ins().iadd(base[0], bytes)]
            },
        );
    }
}
