//! How a product is cut into blocks, one call of the tile kernel each.
//!
//! A block's part of B stays in the second-level cache while the rows of A pass by; blocks are small enough that workers
//! finish together and large enough that a call costs nothing beside its arithmetic.

use crate::{
    codegen::{emit::Emitter, strip::STRIP, tile::estimate},
    plan::kernel::{Gemm, RightOperand},
};
use strang_ir::Size;
use strang_runtime::kernels::bf16;

/// The rows and columns of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocking {
    /// Rows of a block, at most.
    pub rows: i64,
    /// Columns of a block, at most; a multiple of 16.
    pub columns: i64,
}

/// The sizes of a product, some of them estimates.
#[derive(Clone, Debug)]
pub struct Extents {
    /// Independent products.
    pub batch: i64,
    /// Rows of each.
    pub rows: Size,
    /// Columns of each.
    pub columns: Size,
    /// Products summed in an element.
    pub depth: i64,
    /// Columns of a tile with many rows: what a block must have for the registers to be used.
    pub tile_columns: i64,
    /// Bytes of B that stay in the second-level cache beside the rest.
    pub cached_bytes: i64,
}

/// Bytes of B that stay in the second-level cache beside the rest: half of the smallest that is usual.
pub(super) const CACHED_BYTES: i64 = 256 << 10;
/// The same for products of bf16: CPUs with instructions for them have larger caches, and columns share the rounding of rows.
const CACHED_PAIRS: i64 = 512 << 10;
/// Ten tiles of thirteen rows.
pub(in crate::codegen) const MOST_ROWS: i64 = 130;
/// Columns of a block, at most.
const MOST_COLUMNS: i64 = 256;
/// Floating-point operations of a block: at least some microseconds, at most a small part of a millisecond.
const WORK: std::ops::RangeInclusive<i64> = (1 << 20)..=(16 << 20);
/// Blocks that a product is cut into, when that leaves each enough work.
const PIECES: i64 = 16;

impl Extents {
    /// Those of a product of floats.
    pub fn new(emitter: &Emitter<'_>, gemm: &Gemm) -> Self {
        let is_of_pairs = matches!(gemm.b, RightOperand::Pairs(_));
        let depth = gemm.taps.iter().chain([&gemm.depth]).map(|v| estimate(&emitter.extent(*v))).product();
        Extents {
            batch: gemm.batch.iter().map(|variable| estimate(&emitter.extent(*variable))).product(),
            rows: emitter.extent(gemm.rows),
            columns: emitter.extent(gemm.columns),
            // Of pairs each takes the memory of a float, and hardly more time.
            depth: if is_of_pairs { ceiling(depth, bf16::DEPTHS as i64) } else { depth },
            tile_columns: emitter.target.tile_columns,
            cached_bytes: if is_of_pairs && gemm.taps.is_empty() { CACHED_PAIRS } else { CACHED_BYTES },
        }
    }
}

impl Blocking {
    /// Chooses for a product.
    pub fn choose(extents: &Extents) -> Self {
        let depth = extents.depth.max(1);
        let columns = estimate(&extents.columns);
        let tile_columns = extents.tile_columns;
        let cached = (extents.cached_bytes / 4 / depth / tile_columns * tile_columns).clamp(tile_columns, MOST_COLUMNS);
        let mut row_pieces = ceiling(estimate(&extents.rows), MOST_ROWS);
        let mut column_pieces = ceiling(columns, cached);
        let rows = |pieces: i64| match extents.rows.as_constant() {
            Some(rows) => ceiling(rows.max(1), pieces),
            None => MOST_ROWS,
        };
        let width = |pieces: i64| ceiling(ceiling(columns, pieces), tile_columns) * tile_columns;
        let total = (2 * depth).saturating_mul(columns).saturating_mul(estimate(&extents.rows));
        let total = total.saturating_mul(extents.batch.max(1));
        let target = (total / PIECES).clamp(*WORK.start(), *WORK.end());
        // One row goes by eight panels at a time.
        let narrowest = if estimate(&extents.rows) <= 3 { 128 } else { 64 };
        loop {
            let block = Blocking { rows: rows(row_pieces), columns: width(column_pieces) };
            let work = (2 * depth).saturating_mul(block.rows).saturating_mul(block.columns);
            if work <= target {
                return block;
            }
            if block.columns > narrowest {
                column_pieces += 1;
            } else if block.rows > 39 && extents.rows.as_constant().is_some() {
                row_pieces += 1;
            } else {
                return block;
            }
        }
    }
}

impl Blocking {
    /// Chooses for a product of bf16 in tile registers: wide, since rounding the rows of A takes a good part of the time, and as tall as
    /// columns of B should be read from memory once. Blocks are as many as workers want.
    pub fn of_registers(extents: &Extents) -> Self {
        let depth = extents.depth.max(1);
        let [rows, columns] = [&extents.rows, &extents.columns].map(estimate);
        let total = (4 * depth).saturating_mul(columns).saturating_mul(rows).saturating_mul(extents.batch.max(1));
        let target = (total / REGISTER_PIECES).clamp(*REGISTER_WORK.start(), *REGISTER_WORK.end());
        let width = |pieces: i64| ceiling(ceiling(columns, pieces), 32) * 32;
        let height = |pieces: i64| match extents.rows.as_constant() {
            Some(rows) => ceiling(rows.max(1), pieces),
            None => TALL,
        };
        let (mut row_pieces, mut column_pieces) = (ceiling(rows, TALL), ceiling(columns, MOST_REGISTER_COLUMNS));
        loop {
            let block = Blocking { rows: height(row_pieces), columns: width(column_pieces) };
            let work = (4 * depth).saturating_mul(block.rows).saturating_mul(block.columns);
            if work <= target {
                return block;
            }
            // A few rows pass by often: those of a line of a small image.
            let share = if block.rows <= 16 { 2 } else { 1 };
            let is_cached = 4 * depth * block.columns <= REGISTER_BYTES / share;
            if block.columns > if is_cached { 256 } else { 64 } {
                column_pieces += 1;
            } else if block.rows > 64 && extents.rows.as_constant().is_some() {
                row_pieces += 1;
            } else if block.columns > 128 {
                column_pieces += 1;
            } else {
                return block;
            }
        }
    }
}

/// Rows of a block in tile registers, at most: four strips.
const TALL: i64 = 128;
/// Columns of such a block, at most: as many as generated code finishes at a time.
const MOST_REGISTER_COLUMNS: i64 = STRIP;
/// Bytes of B that are cached beside rounded rows: half of the second-level cache of CPUs with tile registers.
const REGISTER_BYTES: i64 = 1 << 20;
/// Floating-point operations of such a block.
const REGISTER_WORK: std::ops::RangeInclusive<i64> = (2 << 20)..=(128 << 20);
/// Blocks that such a product is cut into, when that leaves each enough work.
const REGISTER_PIECES: i64 = 8;

/// The quotient of positive numbers, rounded up.
pub(in crate::codegen) fn ceiling(value: i64, divisor: i64) -> i64 {
    (value + divisor - 1) / divisor
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(batch: i64, rows: i64, columns: i64, depth: i64) -> (i64, i64) {
        let (rows, columns) = (rows.into(), columns.into());
        let blocking =
            Blocking::choose(&Extents { batch, rows, columns, depth, tile_columns: 32, cached_bytes: CACHED_BYTES });
        (blocking.rows, blocking.columns)
    }

    #[test]
    fn blocks_fit_the_cache_and_share_the_work() {
        for (batch, rows, columns, depth) in
            [(1, 128, 768, 768), (1, 128, 3072, 768), (1, 128, 768, 3072), (1, 3136, 256, 64), (14, 14, 256, 2304)]
        {
            let (height, width) = choose(batch, rows, columns, depth);
            assert!(width * depth * 4 <= CACHED_BYTES || width == 32, "{width}");
            let blocks = batch * ceiling(rows, height) * ceiling(columns, width);
            assert!(blocks >= 6, "{rows} x {columns} x {depth}: {blocks} blocks of {height} x {width}");
        }
        assert_eq!(choose(1, 1, 10, 512), (1, 32), "little work stays together");
    }

    #[test]
    fn blocks_of_registers_are_wide_and_share_the_work() {
        for (batch, rows, columns, depth) in
            [(1, 128, 768, 768), (1, 128, 3072, 768), (1, 128, 768, 3072), (1, 3136, 256, 64), (7, 7, 512, 4608)]
        {
            let (size, words) = ((rows.into(), columns.into()), depth / 2);
            let (tile_columns, cached_bytes) = (32, CACHED_PAIRS);
            let extents = Extents { batch, rows: size.0, columns: size.1, depth: words, tile_columns, cached_bytes };
            let block = Blocking::of_registers(&extents);
            assert!((64..=STRIP).contains(&block.columns) && block.rows <= TALL, "{block:?}");
            let blocks = batch * ceiling(rows, block.rows) * ceiling(columns, block.columns);
            assert!(blocks >= 6, "{rows} x {columns} x {depth}: {blocks} blocks of {block:?}");
        }
    }
}
