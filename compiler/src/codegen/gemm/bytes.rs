//! Contractions of bytes: tiles of [`ByteBlock`], with the way of sums to floats and back to bytes in the tile.

use super::{
    FINISHED,
    blocking::{Blocking, CACHED_BYTES, Extents},
    grid,
    requantise::{Codes, Requantisation, recognise},
};
use crate::{
    codegen::{
        emit::{Emitter, PLAIN},
        epilogue::{TileVariables, is_plain_of_any_type},
        rows::outer_loops,
        strip::{Job, Sink},
        tile::estimate,
    },
    plan::kernel::{Gemm, Store},
};
use cranelift_codegen::ir::{InstBuilder, Value};
use std::mem::{offset_of, size_of};
use strang_ir::{ElementType, Size};
use strang_runtime::kernels::{
    Function,
    bytes::{ByteBlock, ByteItem, DEPTHS, Quantisation},
};

struct Plan<'g> {
    gemm: &'g Gemm,
    b: u32,
    blocking: Blocking,
    finish: Requantisation,
    /// The value of the finish that the tile computes; a finish may do without the sum.
    given: Option<u32>,
    /// The store that the tile kernel makes itself.
    direct: Option<Store>,
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
    let plan = Plan::new(emitter, gemm);
    let taps: Size = gemm.taps.iter().map(|tap| emitter.extent(*tap)).product();
    let memory = Memory {
        block: emitter.reserve(&Size::from(size_of::<ByteBlock>() as i64)),
        items: emitter.reserve(&(&taps * &Size::from(size_of::<ByteItem>() as i64))),
        result: match plan.direct {
            Some(_) => None,
            None => Some(emitter.reserve(&Size::from(4 * plan.call_rows * plan.blocking.columns))),
        },
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
        let whole = recognise(emitter, gemm, true);
        let direct = match (&whole, &gemm.stores[..]) {
            (Some(finish), &[store]) => (store.value == finish.result
                && store.combine.is_none()
                && emitter.kernel.accesses[store.access as usize].element == finish.element
                && is_plain_of_any_type(emitter, store.access, tile))
            .then_some(store),
            _ => None,
        };
        // Bytes lie in scratch memory as generated code has them in registers, so the tile stops before them.
        let part = if direct.is_some() { whole } else { recognise(emitter, gemm, false) };
        let given = part.as_ref().map(|part| part.result);
        let finish = part.unwrap_or_else(|| Requantisation::none(0));
        let call_rows = match direct {
            Some(_) => blocking.rows,
            None => (FINISHED / blocking.columns).clamp(1, blocking.rows),
        };
        Plan { gemm, b, blocking, finish, given, direct, call_rows }
    }

    /// Writes the fields that are the same for all calls.
    fn fixed_fields(&self, emitter: &mut Emitter<'_>, memory: &Memory, taps: &Size) {
        let kernel = emitter.kernel;
        let stride = |access: u32| kernel.accesses[access as usize].address.coefficient(self.gemm.rows);
        let depth = emitter.extent(self.gemm.depth);
        let padded = depth.ceil_div(&Size::from(DEPTHS as i64)) * Size::from(DEPTHS as i64);
        let c_rows = match self.direct {
            Some(store) => stride(store.access),
            None => Size::from(self.blocking.columns),
        };
        let number = |value: i64| Size::from(value);
        let sizes = [
            (offset_of!(ByteBlock, c_row_stride), c_rows),
            (offset_of!(ByteBlock, item_count), taps.clone()),
            (offset_of!(ByteBlock, a_row_stride), stride(self.gemm.a)),
            (offset_of!(ByteBlock, depth), depth),
            (offset_of!(ByteBlock, b_panel_stride), Size::from(16) * padded),
            (offset_of!(ByteBlock, offset), Size::ZERO),
            (offset_of!(ByteBlock, column_scale), Size::ZERO),
            (offset_of!(ByteBlock, column_bias), Size::ZERO),
            (offset_of!(ByteBlock, residual), Size::ZERO),
            (
                offset_of!(ByteBlock, residual_row_stride),
                self.finish.residual.map_or(Size::ZERO, |(access, _)| stride(access)),
            ),
            (offset_of!(ByteBlock, activation), number(self.finish.activation as i64)),
        ];
        for (offset, size) in sizes {
            let value = emitter.size(&size);
            self.field(emitter, memory, offset, value);
        }
        let [first, second] = self.finish.parameters;
        let parameters = offset_of!(ByteBlock, activation_parameters);
        for (offset, value) in
            [(offset_of!(ByteBlock, scale), self.finish.scale), (parameters, first), (parameters + 8, second)]
        {
            self.float(emitter, memory, offset, value);
        }
        let residual = self.finish.residual.map_or(Codes::FLOATS, |(_, codes)| codes);
        for (offset, codes) in [
            (offset_of!(ByteBlock, snap), self.finish.snap),
            (offset_of!(ByteBlock, residual_type), residual),
            (offset_of!(ByteBlock, output), self.finish.output),
        ] {
            let stored = emitter.size(&number(codes.stored as i64));
            self.field(emitter, memory, offset + offset_of!(Quantisation, stored), stored);
            self.float(emitter, memory, offset + offset_of!(Quantisation, scale), codes.scale);
            self.float(emitter, memory, offset + offset_of!(Quantisation, zero), codes.zero);
            self.float(emitter, memory, offset + offset_of!(Quantisation, step), codes.step);
        }
        self.field(emitter, memory, offset_of!(ByteBlock, items), memory.items);
    }

    fn field(&self, emitter: &mut Emitter<'_>, memory: &Memory, offset: usize, value: Value) {
        emitter.builder.ins().store(PLAIN, value, memory.block, offset as i32);
    }

    fn float(&self, emitter: &mut Emitter<'_>, memory: &Memory, offset: usize, value: f32) {
        let value = emitter.builder.ins().f32const(value);
        emitter.builder.ins().store(PLAIN, value, memory.block, offset as i32);
    }

    /// One block, the batch variables being bound.
    fn tile(&self, emitter: &mut Emitter<'_>, memory: &Memory, rows: (Value, Value), columns: (Value, Value)) {
        let width = emitter.builder.ins().isub(columns.1, columns.0);
        self.field(emitter, memory, offset_of!(ByteBlock, columns), width);
        for (access, offset) in [
            (self.finish.offset, offset_of!(ByteBlock, offset)),
            (self.finish.column_scale, offset_of!(ByteBlock, column_scale)),
            (self.finish.column_bias, offset_of!(ByteBlock, column_bias)),
        ] {
            if let Some(access) = access {
                let place = emitter.address_at(access, self.gemm.columns, columns.0);
                self.field(emitter, memory, offset, place);
            }
        }
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
        self.field(emitter, memory, offset_of!(ByteBlock, rows), height);
        let corner = [(self.gemm.rows, rows.0), (self.gemm.columns, columns.0)];
        let c = match (self.direct, memory.result) {
            (Some(store), _) => emitter.address_of(store.access, &corner),
            (None, result) => result.unwrap_or(memory.block),
        };
        self.field(emitter, memory, offset_of!(ByteBlock, c), c);
        if let Some((residual, _)) = self.finish.residual {
            let place = emitter.address_of(residual, &corner);
            self.field(emitter, memory, offset_of!(ByteBlock, residual), place);
        }
        self.items(emitter, memory, rows.0, columns.0);
        emitter.call(Function::GemmBytes, &[memory.block]);
        if let Some(result) = memory.result {
            self.finish(emitter, result, rows, columns);
        }
    }

    /// Lists the products of a call, a tap each.
    fn items(&self, emitter: &mut Emitter<'_>, memory: &Memory, row: Value, column: Value) {
        let depth = emitter.extent(self.gemm.depth);
        let padded = depth.ceil_div(&Size::from(DEPTHS as i64)) * Size::from(DEPTHS as i64);
        // Where the block's columns begin in a packed matrix.
        let ahead = emitter.times(column, &padded);
        outer_loops(emitter, &self.gemm.taps, memory.items, &mut |emitter, item| {
            let a = emitter.address_of(self.gemm.a, &[(self.gemm.rows, row)]);
            let start = emitter.address_of(self.b, &[]);
            let b = emitter.builder.ins().iadd(start, ahead);
            emitter.builder.ins().store(PLAIN, a, item, offset_of!(ByteItem, a) as i32);
            emitter.builder.ins().store(PLAIN, b, item, offset_of!(ByteItem, b) as i32);
            emitter.builder.ins().iadd_imm_s(item, size_of::<ByteItem>() as i64)
        });
    }

    /// Goes on from the block in scratch memory, row by row.
    fn finish(&self, emitter: &mut Emitter<'_>, result: Value, rows: (Value, Value), columns: (Value, Value)) {
        let bytes = 4 * self.blocking.columns;
        emitter.loop_over(
            self.gemm.rows,
            (rows.0, rows.1, 1),
            &[result],
            |_| {},
            |emitter, memory| {
                let row = emitter.strip_row(self.finish.element, columns.0, memory[0]);
                let job = Job {
                    block: &self.gemm.finish,
                    variable: self.gemm.columns,
                    given: self.given.map(|value| (value, row)).into_iter().collect(),
                    sinks: self.gemm.stores.iter().copied().map(Sink::Memory).collect(),
                };
                emitter.run_job(&job, &[ElementType::I32], columns);
                vec![emitter.builder.ins().iadd_imm_s(memory[0], bytes)]
            },
        );
    }
}
