//! How the parallel part of an iteration space is cut into tiles, the unit that workers take.
//!
//! The last parallel variable is the *inner* one; positions of the others are *rows*, numbered row-major. A tile is a
//! chunk of the inner variable of one row, or several whole rows when rows are short. Sizes may be symbols, so the number
//! of tiles is a size and the code divides by arguments.

use super::emit::Emitter;
use cranelift_codegen::ir::{InstBuilder, Value, condcodes::IntCC};
use strang_ir::Size;

/// What a size counts as when it is not a number and work is estimated.
const USUAL: i64 = 64;

/// A size as a number, for estimates.
pub fn estimate(size: &Size) -> i64 {
    size.as_constant().unwrap_or(USUAL).max(1)
}

/// A cut of an iteration space.
#[derive(Clone, Debug, PartialEq)]
pub struct Tiling {
    /// Variables whose positions are rows, outermost first.
    rows: Vec<u32>,
    /// The innermost variable, when there is a parallel one.
    inner: Option<u32>,
    row_count: Size,
    rows_per_tile: Size,
    chunk: Size,
    chunks: Size,
}

impl Tiling {
    /// Cuts the space of `parallel` variables into tiles of about `elements` positions. Chunks of the inner variable are
    /// multiples of 16 positions; `whole` keeps the inner variable in one piece.
    pub fn new(emitter: &Emitter<'_>, parallel: &[u32], elements: i64, whole: bool) -> Self {
        let elements = elements.max(1);
        let Some((inner, rows)) = parallel.split_last() else {
            let one = Size::ONE;
            return Tiling {
                rows: Vec::new(),
                inner: None,
                row_count: one.clone(),
                rows_per_tile: one.clone(),
                chunk: one.clone(),
                chunks: one,
            };
        };
        let row_count: Size = rows.iter().map(|row| emitter.extent(*row)).product();
        let extent = emitter.extent(*inner);
        let chunk = match extent.as_constant() {
            _ if whole => extent.clone(),
            Some(extent) if extent <= elements + elements / 2 => extent.into(),
            Some(extent) => {
                let pieces = (extent + elements - 1) / elements;
                (((extent + pieces - 1) / pieces + 15) / 16 * 16).into()
            }
            None => ((elements + 15) / 16 * 16).into(),
        };
        let chunks = if chunk == extent { Size::ONE } else { extent.ceil_div(&chunk) };
        let rows_per_tile = Size::from(elements).floor_div(&extent.larger(&Size::ONE)).larger(&Size::ONE);
        let rows_per_tile = match (row_count.as_constant(), rows_per_tile.as_constant()) {
            (Some(rows), Some(most)) => rows.min(most).max(1).into(),
            _ => rows_per_tile,
        };
        Tiling { rows: rows.to_vec(), inner: Some(*inner), row_count, rows_per_tile, chunk, chunks }
    }

    /// Tiles of whole positions of all variables: about `positions` of them a tile.
    pub fn rows(emitter: &Emitter<'_>, variables: &[u32], positions: i64) -> Self {
        let row_count: Size = variables.iter().map(|variable| emitter.extent(*variable)).product();
        let rows_per_tile = match row_count.as_constant() {
            Some(rows) => rows.clamp(1, positions.max(1)),
            None => positions.max(1),
        };
        Tiling {
            rows: variables.to_vec(),
            inner: None,
            row_count,
            rows_per_tile: rows_per_tile.into(),
            chunk: Size::ONE,
            chunks: Size::ONE,
        }
    }

    /// The number of tiles.
    pub fn grid(&self) -> Size {
        self.row_count.ceil_div(&self.rows_per_tile) * &self.chunks
    }

    /// Emits the loops over tiles and rows; `body` gets the range of the inner variable, which it binds itself.
    pub fn each(&self, emitter: &mut Emitter<'_>, body: impl FnOnce(&mut Emitter<'_>, Value, Value)) {
        let range = (emitter.lo, emitter.hi, 1);
        emitter.each(range, |emitter, tile| {
            let (row_block, low, high) = self.chunk_of(emitter, tile);
            if self.rows.is_empty() {
                return body(emitter, low, high);
            }
            let first = emitter.times(row_block, &self.rows_per_tile);
            let extents: Vec<Size> = self.rows.iter().map(|row| emitter.extent(*row)).collect();
            let starts = decode(emitter, &extents, first);
            if self.rows_per_tile.is(1) {
                self.bind(emitter, &starts);
                body(emitter, low, high);
                self.unbind(emitter);
                return;
            }
            let last = {
                let count = emitter.size(&self.rows_per_tile);
                let end = emitter.builder.ins().iadd(first, count);
                let rows = emitter.size(&self.row_count);
                emitter.smaller(end, rows)
            };
            emitter.fold(
                (first, last, 1),
                &starts,
                |_| {},
                |emitter, _, position| {
                    self.bind(emitter, position);
                    body(emitter, low, high);
                    self.unbind(emitter);
                    self.advance(emitter, position)
                },
            );
        });
    }

    /// The block of rows of a tile, and the range of its inner variable.
    fn chunk_of(&self, emitter: &mut Emitter<'_>, tile: Value) -> (Value, Value, Value) {
        let extent = self.inner.map_or(Size::ONE, |inner| emitter.extent(inner));
        let zero = emitter.int(0);
        if self.chunks.is(1) {
            return (tile, zero, emitter.size(&extent));
        }
        let (row_block, chunk) = if self.row_count.is(1) {
            (zero, tile)
        } else {
            let chunks = emitter.size(&self.chunks);
            // A grid with tiles has chunks, but an argument is not trusted with a division.
            let one = emitter.int(1);
            let chunks = if self.chunks.as_constant().is_some() { chunks } else { emitter.larger(chunks, one) };
            let row_block = emitter.builder.ins().udiv(tile, chunks);
            let before = emitter.builder.ins().imul(row_block, chunks);
            (row_block, emitter.builder.ins().isub(tile, before))
        };
        let low = emitter.times(chunk, &self.chunk);
        let length = emitter.size(&self.chunk);
        let end = emitter.builder.ins().iadd(low, length);
        let extent = emitter.size(&extent);
        (row_block, low, emitter.smaller(end, extent))
    }

    /// The positions of the row variables at the next row.
    fn advance(&self, emitter: &mut Emitter<'_>, position: &[Value]) -> Vec<Value> {
        let mut next = position.to_vec();
        let mut carry: Option<Value> = None;
        for (place, variable) in self.rows.iter().enumerate().rev() {
            let up = match carry {
                None => emitter.builder.ins().iadd_imm_s(position[place], 1),
                Some(carry) => emitter.builder.ins().iadd(position[place], carry),
            };
            if place == 0 {
                next[place] = up;
                break;
            }
            let extent = emitter.extent(*variable);
            let extent = emitter.size(&extent);
            let (zero, one) = (emitter.int(0), emitter.int(1));
            let wraps = emitter.builder.ins().icmp(IntCC::SignedGreaterThanOrEqual, up, extent);
            next[place] = emitter.builder.ins().select(wraps, zero, up);
            carry = Some(emitter.builder.ins().select(wraps, one, zero));
        }
        next
    }

    fn bind(&self, emitter: &mut Emitter<'_>, position: &[Value]) {
        for (variable, value) in self.rows.iter().zip(position) {
            emitter.bind(*variable, *value);
        }
    }

    fn unbind(&self, emitter: &mut Emitter<'_>) {
        self.rows.iter().for_each(|variable| emitter.unbind(*variable));
    }
}

/// The position along every extent of a number in row-major order; the first extent bounds nothing.
pub fn decode(emitter: &mut Emitter<'_>, extents: &[Size], number: Value) -> Vec<Value> {
    let mut left = number;
    let mut positions = Vec::new();
    for extent in extents.iter().skip(1).rev() {
        if extent.is(1) {
            positions.push(emitter.int(0));
            continue;
        }
        let by = match extent.as_constant() {
            Some(extent) => emitter.int(extent.max(1)),
            None => {
                let (extent, one) = (emitter.size(extent), emitter.int(1));
                emitter.larger(extent, one)
            }
        };
        let quotient = emitter.builder.ins().udiv(left, by);
        let before = emitter.builder.ins().imul(quotient, by);
        positions.push(emitter.builder.ins().isub(left, before));
        left = quotient;
    }
    positions.push(left);
    positions.reverse();
    positions
}
