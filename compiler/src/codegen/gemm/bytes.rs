//! Contractions of bytes: tiles of [`ByteBlock`], with the way of sums to floats and back to bytes in the tile.

use super::{
    FINISHED,
    blocking::{Blocking, CACHED_BYTES, Extents},
    filter::Filter,
    finishing::{Finishing, field},
    grid,
};
use crate::{
    codegen::{
        emit::{Emitter, PLAIN},
        epilogue::TileVariables,
        rows::outer_loops,
        tile::estimate,
    },
    plan::kernel::Gemm,
};
use cranelift_codegen::ir::{InstBuilder, Value};
use std::mem::{offset_of, size_of};
use strang_ir::Size;
use strang_runtime::kernels::{
    Function,
    bytes::{ByteBlock, ByteItem, DEPTHS},
};

struct Plan<'g> {
    gemm: &'g Gemm,
    b: u32,
    blocking: Blocking,
    finishing: Finishing<'g>,
    /// Rows of a call.
    call_rows: i64,
}

/// Scratch memory of a worker.
struct Memory {
    /// The [`ByteBlock`].
    block: Value,
    /// The list of [`ByteItem`].
    items: Value,
    /// The result of a call that generated code finishes.
    result: Option<Value>,
}

/// Emits a contraction of bytes; says the number of tiles and the kind of kernel.
pub fn emit(emitter: &mut Emitter<'_>, gemm: &Gemm) -> (Size, &'static str) {
    if let Some(filter) = Filter::new(emitter, gemm) {
        return (filter.emit(emitter), "gemm i8");
    }
    let plan = Plan::new(emitter, gemm);
    let taps: Size = gemm.taps.iter().map(|tap| emitter.extent(*tap)).product();
    let memory = Memory {
        block: emitter.reserve(&Size::from(size_of::<ByteBlock>() as i64)),
        items: emitter.reserve(&(&taps * &Size::from(size_of::<ByteItem>() as i64))),
        result: (!plan.finishing.is_whole())
            .then(|| emitter.reserve(&Size::from(4 * plan.call_rows * plan.blocking.columns))),
    };
    plan.fixed_fields(emitter, &memory, &taps);
    let tiles =
        grid(emitter, gemm, plan.b, plan.blocking, |emitter, rows, columns| plan.tile(emitter, &memory, rows, columns));
    (tiles, "gemm i8")
}

impl<'g> Plan<'g> {
    fn new(emitter: &Emitter<'_>, gemm: &'g Gemm) -> Self {
        // A product of bytes takes a quarter of the time and the memory of one of floats.
        let depth: i64 = gemm.taps.iter().chain([&gemm.depth]).map(|v| estimate(&emitter.extent(*v))).product();
        let extents = Extents {
            batch: gemm.batch.iter().map(|variable| estimate(&emitter.extent(*variable))).product(),
            rows: emitter.extent(gemm.rows),
            columns: emitter.extent(gemm.columns),
            depth: depth.div_euclid(4).max(1),
            tile_columns: 32,
            cached_bytes: CACHED_BYTES,
        };
        let blocking = Blocking::choose(&extents);
        let b = gemm.b.access();
        let tile = TileVariables { rows: gemm.rows, columns: gemm.columns };
        let finishing = Finishing::new(emitter, &gemm.finish, &gemm.stores, tile);
        let call_rows =
            if finishing.is_whole() { blocking.rows } else { (FINISHED / blocking.columns).clamp(1, blocking.rows) };
        Plan { gemm, b, blocking, finishing, call_rows }
    }

    /// Writes the fields that are the same for all calls.
    fn fixed_fields(&self, emitter: &mut Emitter<'_>, memory: &Memory, taps: &Size) {
        self.finishing.fixed_fields(emitter, memory.block, &Size::from(self.blocking.columns));
        let a_row_stride = emitter.kernel.accesses[self.gemm.a as usize].address.coefficient(self.gemm.rows);
        let depth = emitter.extent(self.gemm.depth);
        let padded = depth.ceil_div(&Size::from(DEPTHS as i64)) * Size::from(DEPTHS as i64);
        let sizes = [
            (offset_of!(ByteBlock, item_count), taps.clone()),
            (offset_of!(ByteBlock, a_row_stride), a_row_stride),
            (offset_of!(ByteBlock, depth), depth),
            (offset_of!(ByteBlock, b_panel_stride), Size::from(16) * padded),
        ];
        for (offset, size) in sizes {
            let value = emitter.size(&size);
            field(emitter, memory.block, offset, value);
        }
        field(emitter, memory.block, offset_of!(ByteBlock, items), memory.items);
    }

    /// One block, the batch variables being bound.
    fn tile(&self, emitter: &mut Emitter<'_>, memory: &Memory, rows: (Value, Value), columns: (Value, Value)) {
        let width = emitter.builder.ins().isub(columns.1, columns.0);
        field(emitter, memory.block, offset_of!(ByteBlock, columns), width);
        self.finishing.at_column(emitter, memory.block, columns.0);
        if self.call_rows == self.blocking.rows {
            return self.call(emitter, memory, rows, columns);
        }
        emitter.each((rows.0, rows.1, self.call_rows), |emitter, low| {
            let end = emitter.builder.ins().iadd_imm_s(low, self.call_rows);
            let end = emitter.smaller(end, rows.1);
            self.call(emitter, memory, (low, end), columns);
        });
    }

    /// One call of the tile kernel and what is left to do after it.
    fn call(&self, emitter: &mut Emitter<'_>, memory: &Memory, rows: (Value, Value), columns: (Value, Value)) {
        let height = emitter.builder.ins().isub(rows.1, rows.0);
        field(emitter, memory.block, offset_of!(ByteBlock, rows), height);
        let scratch = memory.result.unwrap_or(memory.block);
        self.finishing.at_corner(emitter, memory.block, (rows.0, columns.0), scratch);
        items(emitter, self.gemm, self.b, memory.items, (rows.0, columns.0));
        emitter.call(Function::GemmBytes, &[memory.block]);
        if let Some(result) = memory.result {
            self.finishing.rest(emitter, (result, &Size::from(self.blocking.columns)), rows, columns);
        }
    }
}

/// Lists the products of a call, a tap each.
pub(super) fn items(emitter: &mut Emitter<'_>, gemm: &Gemm, b: u32, list: Value, (row, column): (Value, Value)) {
    let depth = emitter.extent(gemm.depth);
    let padded = depth.ceil_div(&Size::from(DEPTHS as i64)) * Size::from(DEPTHS as i64);
    // Where the block's columns begin in a packed matrix.
    let ahead = emitter.times(column, &padded);
    outer_loops(emitter, &gemm.taps, list, &mut |emitter, item| {
        let a = emitter.address_of(gemm.a, &[(gemm.rows, row)]);
        let start = emitter.address_of(b, &[]);
        let b = emitter.builder.ins().iadd(start, ahead);
        emitter.builder.ins().store(PLAIN, a, item, offset_of!(ByteItem, a) as i32);
        emitter.builder.ins().store(PLAIN, b, item, offset_of!(ByteItem, b) as i32);
        emitter.builder.ins().iadd_imm_s(item, size_of::<ByteItem>() as i64)
    });
}
