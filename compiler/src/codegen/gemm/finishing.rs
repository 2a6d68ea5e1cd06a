//! What the kernels of bytes do to their sums: told to them in a [`ByteBlock`], and where they do not know all of it, done by
//! generated code on a block in scratch memory.

use super::requantise::{Codes, Reach, Requantisation, recognise};
use crate::{
    codegen::{
        emit::{Emitter, PLAIN},
        epilogue::{TileVariables, is_plain_of_any_type},
        strip::{Job, Sink},
    },
    plan::kernel::{Block, Store},
};
use cranelift_codegen::ir::{InstBuilder, Value};
use std::mem::offset_of;
use strang_ir::{ElementType, Size};
use strang_runtime::kernels::bytes::{ByteBlock, Quantisation};

/// The finish of a kernel of bytes.
pub struct Finishing<'k> {
    block: &'k Block,
    stores: &'k [Store],
    tile: TileVariables,
    /// What the kernel does.
    told: Requantisation,
    /// The value of the finish that the kernel computes; a finish may do without the sum.
    given: Option<u32>,
    /// The store that the kernel makes itself.
    direct: Option<Store>,
}

impl<'k> Finishing<'k> {
    /// Divides a finish between the kernel and generated code.
    pub fn new(emitter: &Emitter<'_>, block: &'k Block, stores: &'k [Store], tile: TileVariables) -> Self {
        let is_stored = |told: &Requantisation, store: Store| {
            store.value == told.result
                && store.combine.is_none()
                && emitter.kernel.accesses[store.access as usize].element == told.element
                && is_plain_of_any_type(emitter, store.access, tile)
        };
        let whole = [Reach::Bytes, Reach::Table, Reach::Entries].into_iter().find_map(|reach| {
            let told = recognise(emitter, block, stores, tile, reach)?;
            let &[store] = stores else { return None };
            is_stored(&told, store).then_some((told, store))
        });
        // Bytes lie in scratch memory as generated code has them in registers, so the kernel stops before them.
        let (part, direct) = match whole {
            Some((told, store)) => (Some(told), Some(store)),
            None => (recognise(emitter, block, stores, tile, Reach::Numbers), None),
        };
        let given = part.as_ref().map(|part| part.result);
        let told = part.unwrap_or_else(|| Requantisation::none(0));
        Finishing { block, stores, tile, told, given, direct }
    }

    /// Whether the kernel does everything.
    pub fn is_whole(&self) -> bool {
        self.direct.is_some()
    }

    /// Whether what the kernel does is the same for all positions of a variable, but that C and the residual move by the same
    /// from one to the next.
    pub fn is_by_line(&self, emitter: &Emitter<'_>, variable: u32) -> bool {
        let columns = [self.told.offset, self.told.summand, self.told.column_scale, self.told.column_bias];
        let arrays = [self.direct.map(|store| store.access), self.told.residual.map(|(access, _)| access)];
        let address = |access: u32| &emitter.kernel.accesses[access as usize].address;
        columns.into_iter().flatten().all(|access| !address(access).mentions(variable))
            && arrays.into_iter().flatten().all(|access| emitter.has_stride(access, variable))
    }

    /// The distances in C and in the residual of two positions of a variable; those of scratch memory are given.
    pub fn steps(&self, emitter: &Emitter<'_>, variable: u32, scratch: &Size) -> [Size; 2] {
        let step = |access: u32| emitter.kernel.accesses[access as usize].address.coefficient(variable);
        let c = self.direct.map_or(scratch.clone(), |store| step(store.access));
        [c, self.told.residual.map_or(Size::ZERO, |(access, _)| step(access))]
    }

    /// Writes the fields that are the same for all calls. Rows of scratch memory have so many columns.
    pub fn fixed_fields(&self, emitter: &mut Emitter<'_>, block: Value, columns: &Size) {
        let kernel = emitter.kernel;
        let stride = |access: u32| kernel.accesses[access as usize].address.coefficient(self.tile.rows);
        let number = |value: i64| Size::from(value);
        let sizes = [
            (offset_of!(ByteBlock, c_row_stride), self.direct.map_or(columns.clone(), |store| stride(store.access))),
            (offset_of!(ByteBlock, offset), Size::ZERO),
            (offset_of!(ByteBlock, summand), Size::ZERO),
            (offset_of!(ByteBlock, column_scale), Size::ZERO),
            (offset_of!(ByteBlock, column_bias), Size::ZERO),
            (offset_of!(ByteBlock, residual), Size::ZERO),
            (
                offset_of!(ByteBlock, residual_row_stride),
                self.told.residual.map_or(Size::ZERO, |(access, _)| stride(access)),
            ),
            (offset_of!(ByteBlock, activation), number(self.told.activation as i64)),
        ];
        for (offset, size) in sizes {
            let value = emitter.size(&size);
            field(emitter, block, offset, value);
        }
        let table = self.told.table.map(|table| {
            let place = emitter.reserve(&number(table.len() as i64));
            for (index, entries) in table.as_chunks().0.iter().enumerate() {
                let entries = emitter.int(i64::from_le_bytes(*entries));
                field(emitter, place, 8 * index, entries);
            }
            place
        });
        let table = table.unwrap_or_else(|| emitter.int(0));
        field(emitter, block, offset_of!(ByteBlock, table), table);
        let [first, second] = self.told.parameters;
        let parameters = offset_of!(ByteBlock, activation_parameters);
        for (offset, value) in
            [(offset_of!(ByteBlock, scale), self.told.scale), (parameters, first), (parameters + 8, second)]
        {
            float(emitter, block, offset, value);
        }
        let residual = self.told.residual.map_or(Codes::FLOATS, |(_, codes)| codes);
        for (offset, codes) in [
            (offset_of!(ByteBlock, snap), self.told.snap),
            (offset_of!(ByteBlock, residual_type), residual),
            (offset_of!(ByteBlock, output), self.told.output),
            (offset_of!(ByteBlock, entries), self.told.entries),
        ] {
            let stored = emitter.size(&number(codes.stored as i64));
            field(emitter, block, offset + offset_of!(Quantisation, stored), stored);
            float(emitter, block, offset + offset_of!(Quantisation, scale), codes.scale);
            float(emitter, block, offset + offset_of!(Quantisation, zero), codes.zero);
            float(emitter, block, offset + offset_of!(Quantisation, step), codes.step);
        }
    }

    /// Writes the fields of calls whose columns begin here.
    pub fn at_column(&self, emitter: &mut Emitter<'_>, block: Value, column: Value) {
        for (access, offset) in [
            (self.told.offset, offset_of!(ByteBlock, offset)),
            (self.told.summand, offset_of!(ByteBlock, summand)),
            (self.told.column_scale, offset_of!(ByteBlock, column_scale)),
            (self.told.column_bias, offset_of!(ByteBlock, column_bias)),
        ] {
            if let Some(access) = access {
                let place = emitter.address_at(access, self.tile.columns, column);
                field(emitter, block, offset, place);
            }
        }
    }

    /// Writes the fields of a call whose rows and columns begin here; `scratch` is where it writes what it does not store.
    pub fn at_corner(&self, emitter: &mut Emitter<'_>, block: Value, (row, column): (Value, Value), scratch: Value) {
        let corner = [(self.tile.rows, row), (self.tile.columns, column)];
        let c = self.direct.map_or(scratch, |store| emitter.address_of(store.access, &corner));
        field(emitter, block, offset_of!(ByteBlock, c), c);
        if let Some((residual, _)) = self.told.residual {
            let place = emitter.address_of(residual, &corner);
            field(emitter, block, offset_of!(ByteBlock, residual), place);
        }
    }

    /// Goes on from the block in scratch memory, whose rows have so many columns, row by row.
    pub fn rest(
        &self,
        emitter: &mut Emitter<'_>,
        (scratch, width): (Value, &Size),
        rows: (Value, Value),
        columns: (Value, Value),
    ) {
        emitter.loop_over(
            self.tile.rows,
            (rows.0, rows.1, 1),
            &[scratch],
            |_| {},
            |emitter, memory| {
                let row = emitter.strip_row(self.told.element, columns.0, memory[0]);
                let job = Job {
                    block: self.block,
                    variable: self.tile.columns,
                    given: self.given.map(|value| (value, row)).into_iter().collect(),
                    sinks: self.stores.iter().copied().map(Sink::Memory).collect(),
                };
                emitter.run_job(&job, &[ElementType::I32], columns);
                let bytes = emitter.size(&(width * &Size::from(4)));
                vec![emitter.builder.ins().iadd(memory[0], bytes)]
            },
        );
    }
}

/// Writes a field of a block.
pub fn field(emitter: &mut Emitter<'_>, block: Value, offset: usize, value: Value) {
    emitter.builder.ins().store(PLAIN, value, block, offset as i32);
}

fn float(emitter: &mut Emitter<'_>, block: Value, offset: usize, value: f32) {
    let value = emitter.builder.ins().f32const(value);
    field(emitter, block, offset, value);
}
