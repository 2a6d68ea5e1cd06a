//! Convolutions of bytes with three by three taps: bands of lines at a time, which [`ByteFilter`] computes with fewer products,
//! or as one matrix in tile registers, and to the same bits.

use super::{
    blocking::ceiling,
    bytes::items,
    finishing::{Finishing, field},
    range,
};
use crate::{
    codegen::{
        emit::Emitter,
        epilogue::TileVariables,
        tile::{self, estimate},
    },
    plan::kernel::Gemm,
};
use cranelift_codegen::ir::{InstBuilder, Value};
use std::mem::{offset_of, size_of};
use strang_ir::{IndexExpr, Size};
use strang_runtime::kernels::{
    Function,
    bytes::{ByteBlock, ByteFilter, ByteItem, DEEPEST, FILTER_DEPTHS, filter_memory},
};

/// Taps along an axis.
const TAPS: i64 = 3;
/// The fewest columns that the transform of inputs pays for.
const FEWEST_COLUMNS: i64 = 32;
/// The fewest tiles of four results that the transform of the kernel pays for, for each block of them.
const FEWEST_TILES: i64 = 12;
/// Depths of the tiles of a block, in all: sixteen transformed inputs of 16 bits each stay in the second-level cache.
const DEPTHS_OF_TILES: i64 = 8192;
/// Columns of a block: fewer transform inputs more often.
const COLUMNS: i64 = 128;
/// The same where there are few blocks, or where generated code goes on from what waits in the second-level cache.
const FEW_COLUMNS: i64 = 64;
/// Blocks that a convolution is cut into, when that leaves each enough tiles: more cost one worker more transforms than they
/// save several of waiting.
const BLOCKS: i64 = 8;
/// Tiles that a block keeps when more blocks are made of a band.
const TILES_TO_KEEP: i64 = 24;

/// A convolution that is computed with fewer products.
pub(super) struct Filter<'g> {
    gemm: &'g Gemm,
    b: u32,
    finishing: Finishing<'g>,
    /// The variable of the batch that lines are of.
    lines: u32,
    /// Lines, pixels and columns of a block.
    band: i64,
    pixels: i64,
    columns: i64,
}

/// Scratch memory of a worker.
struct Memory {
    /// The [`ByteFilter`].
    filter: Value,
    /// The list of [`ByteItem`].
    list: Value,
    /// The result of a call that generated code finishes.
    result: Option<Value>,
}

impl<'g> Filter<'g> {
    /// One of a product that is such a convolution, where the machine takes less time for it.
    pub fn new(emitter: &Emitter<'_>, gemm: &'g Gemm) -> Option<Self> {
        if !emitter.target.filters_bytes && !emitter.target.has_tile_registers {
            return None;
        }
        let &[down, along] = &gemm.taps[..] else { return None };
        let address = |access: u32| -> &IndexExpr { &emitter.kernel.accesses[access as usize].address };
        let extent = |variable: u32| emitter.extent(variable).as_constant();
        let (a, b) = (address(gemm.a), gemm.b.access());
        let step = |variable: u32| a.coefficient(variable);
        let lines = gemm.batch.iter().copied().find(|line| step(*line) == step(down) && !address(b).mentions(*line))?;
        let is_one_by_one = step(along) == step(gemm.rows) && a.is_affine();
        let taps = [down, along].map(extent) == [Some(TAPS); 2];
        let (depth, columns) = (extent(gemm.depth)?, extent(gemm.columns)?);
        let (line_count, pixel_count) = (extent(lines)?, extent(gemm.rows)?);
        let is_deep = depth % FILTER_DEPTHS as i64 == 0 && (1..=DEEPEST as i64).contains(&depth);
        if !is_one_by_one || !taps || !is_deep || columns < FEWEST_COLUMNS {
            return None;
        }
        let tile = TileVariables { rows: gemm.rows, columns: gemm.columns };
        let finishing = Finishing::new(emitter, &gemm.finish, &gemm.stores, tile);
        if !finishing.is_by_line(emitter, lines) {
            return None;
        }
        // Bands of about as many lines, and parts of lines of about as many pixels where one has too many.
        let tiles = [line_count, pixel_count].map(|count| ceiling(count, 2));
        let most = (DEPTHS_OF_TILES / depth).max(FEWEST_TILES);
        let share = |count: i64, most: i64| ceiling(count, ceiling(count, most.max(1)));
        let across = share(tiles[1], most);
        let mut down = share(tiles[0], most / across);
        if across * down < FEWEST_TILES {
            return None;
        }
        // As many blocks as keep all workers busy to the end.
        let batch: i64 = gemm.batch.iter().filter(|v| **v != lines).map(|v| estimate(&emitter.extent(*v))).product();
        let bands = |down: i64| batch * ceiling(tiles[1], across) * ceiling(tiles[0], down);
        let is_few = bands(down) * ceiling(columns, COLUMNS) < BLOCKS;
        let width = if is_few || !finishing.is_whole() { FEW_COLUMNS } else { COLUMNS };
        while down > 1 && bands(down) * ceiling(columns, width) < BLOCKS && across * (down - 1) >= TILES_TO_KEEP {
            down -= 1;
        }
        Some(Filter {
            gemm,
            b,
            finishing,
            lines,
            band: 2 * down,
            pixels: 2 * across,
            columns: share(ceiling(columns, 16), width / 16) * 16,
        })
    }

    /// Emits it; says the number of blocks.
    pub fn emit(&self, emitter: &mut Emitter<'_>) -> Size {
        let gemm = self.gemm;
        let depth = estimate(&emitter.extent(gemm.depth));
        let filter = emitter.reserve(&Size::from(size_of::<ByteFilter>() as i64));
        let list = emitter.reserve(&Size::from(TAPS * TAPS * size_of::<ByteItem>() as i64));
        let [band, pixels, deep] = [self.band, self.pixels, depth].map(|size| size as usize);
        let memory = emitter.reserve(&Size::from(filter_memory(band, pixels, deep) as i64));
        // A line of what generated code goes on from.
        let line = self.pixels * self.columns;
        let result = (!self.finishing.is_whole()).then(|| emitter.reserve(&Size::from(4 * self.band * line)));
        self.finishing.fixed_fields(emitter, filter, &Size::from(self.columns));
        let [c, residual] = self.finishing.steps(emitter, self.lines, &Size::from(line));
        let a = &emitter.kernel.accesses[gemm.a as usize].address;
        for (offset, size) in [
            (offset_of!(ByteBlock, item_count), Size::from(TAPS * TAPS)),
            (offset_of!(ByteBlock, a_row_stride), a.coefficient(gemm.rows)),
            (offset_of!(ByteBlock, depth), Size::from(depth)),
            (offset_of!(ByteBlock, b_panel_stride), Size::from(16 * depth)),
            (offset_of!(ByteFilter, a_line_stride), a.coefficient(self.lines)),
            (offset_of!(ByteFilter, c_line_stride), c),
            (offset_of!(ByteFilter, residual_line_stride), residual),
        ] {
            let value = emitter.size(&size);
            field(emitter, filter, offset, value);
        }
        field(emitter, filter, offset_of!(ByteBlock, items), list);
        field(emitter, filter, offset_of!(ByteFilter, memory), memory);
        let others: Vec<u32> = gemm.batch.iter().copied().filter(|variable| *variable != self.lines).collect();
        let cuts = [(gemm.columns, self.columns), (self.lines, self.band), (gemm.rows, self.pixels)];
        let blocks = cuts.map(|(variable, length)| emitter.extent(variable).ceil_div(&Size::from(length)));
        let extents: Vec<Size> = others.iter().map(|variable| emitter.extent(*variable)).chain(blocks).collect();
        emitter.each((emitter.lo, emitter.hi, 1), |emitter, block| {
            let position = tile::decode(emitter, &extents, block);
            let (batch, blocks) = position.split_at(others.len());
            others.iter().zip(batch).for_each(|(variable, value)| emitter.bind(*variable, *value));
            let ranges = [0, 1, 2].map(|cut| range(emitter, cuts[cut].0, blocks[cut], cuts[cut].1));
            self.block(emitter, &Memory { filter, list, result }, ranges);
            others.iter().for_each(|variable| emitter.unbind(*variable));
        });
        extents.iter().cloned().product()
    }

    /// One call of the kernel, and what is left to do after it.
    fn block(&self, emitter: &mut Emitter<'_>, memory: &Memory, ranges: [(Value, Value); 3]) {
        let &Memory { filter, list, result } = memory;
        let offsets = [offset_of!(ByteBlock, columns), offset_of!(ByteFilter, lines), offset_of!(ByteBlock, rows)];
        for (offset, (low, high)) in offsets.into_iter().zip(ranges) {
            let count = emitter.builder.ins().isub(high, low);
            field(emitter, filter, offset, count);
        }
        let [column, line, pixel] = ranges.map(|(low, _)| low);
        emitter.bind(self.lines, line);
        self.finishing.at_column(emitter, filter, column);
        self.finishing.at_corner(emitter, filter, (pixel, column), result.unwrap_or(filter));
        items(emitter, self.gemm, self.b, list, (pixel, column));
        emitter.unbind(self.lines);
        emitter.call(Function::FilterBytes, &[filter]);
        let Some(result) = result else { return };
        let [columns, lines, pixels] = ranges;
        let width = Size::from(self.columns);
        emitter.loop_over(
            self.lines,
            (lines.0, lines.1, 1),
            &[result],
            |_| {},
            |emitter, memory| {
                self.finishing.rest(emitter, (memory[0], &width), pixels, columns);
                vec![emitter.builder.ins().iadd_imm_s(memory[0], 4 * self.pixels * self.columns)]
            },
        );
    }
}

// The block comes first, so that what writes its fields need not know what it is in.
const _: () = assert!(offset_of!(ByteFilter, block) == 0);
