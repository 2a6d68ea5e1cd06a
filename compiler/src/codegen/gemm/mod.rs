//! Contractions on the batch-reduce tile kernel.
//!
//! The grid has one tile for each block of columns, batch position and block of rows, in an order that keeps a block's
//! part of B in cache as long as possible. A tile lists its products (one for each tap), fills in the variable fields of
//! the kernel's block, and calls it; the fields that never change are written once. Where the tile kernel does not know
//! the whole finish, it leaves the block in scratch memory and generated code goes on from there.

mod blocking;
mod bytes;
mod filter;
pub(super) mod finishing;
mod requantise;

use super::{
    emit::{Emitter, PLAIN},
    epilogue::{self, Epilogue, Repertoire, TileVariables},
    rows::{folded_values, outer_loops},
    strip::{Job, Sink},
    tile::{self, estimate},
};
use crate::plan::kernel::{CodeScales, Gemm, RightOperand, Store};
pub use blocking::Blocking;
use blocking::Extents;
pub(super) use blocking::{MOST_ROWS, ceiling};
use cranelift_codegen::ir::{InstBuilder, Value};
use std::mem::{offset_of, size_of};
use strang_ir::{ElementType, Size};
use strang_runtime::kernels::{
    Function, bf16,
    book::{BookBlock, CODES},
    gemm::{GemmBlock, GemmItem},
};

/// Elements of a block that generated code finishes: small enough for the first-level cache.
const FINISHED: i64 = 8192;
/// The same of products in tile registers, whose strips are tall and whose columns share the rounding of rows.
const FINISHED_IN_REGISTERS: i64 = 4 * FINISHED;

/// How B is read.
#[derive(Clone, Debug, PartialEq)]
enum Right {
    /// Panels that were packed when the model was compiled, with the bytes of an element.
    Packed { bytes: i64 },
    /// Panels of pairs of bf16, beside which A is rounded.
    Pairs,
    /// Panels of codes, and the access to what they stand for.
    Coded { book: u32, by_column: u8, scales: Option<CodeScales> },
    /// Rows with contiguous columns, in place.
    InPlace,
    /// Packed by every tile into scratch memory.
    PackHere {
        /// Elements of one packed block.
        length: Size,
    },
}

/// A product that is compiled, with what is known of it.
struct Plan<'g> {
    gemm: &'g Gemm,
    b: u32,
    right: Right,
    blocking: Blocking,
    epilogue: Epilogue,
    /// Values of the finish that the tile kernel computes.
    given: Vec<u32>,
    /// The store that the tile kernel makes itself.
    direct: Option<Store>,
    /// Rows of a call.
    call_rows: i64,
}

/// Scratch memory of a worker.
struct Memory {
    /// The [`GemmBlock`] or [`BookBlock`].
    block: Value,
    /// The list of [`GemmItem`].
    items: Value,
    /// Packed blocks of B.
    packed: Option<Value>,
    /// The result of a call that generated code finishes.
    result: Option<Value>,
    /// Rounded rows of A, and the words there are for them.
    rounded: Option<(Value, i64)>,
}

/// Emits a contraction; says the number of tiles and the kind of kernel.
pub fn emit(emitter: &mut Emitter<'_>, gemm: &Gemm) -> (Size, &'static str) {
    match gemm.sum(&emitter.kernel.accesses) {
        ElementType::I32 => bytes::emit(emitter, gemm),
        _ => emit_floats(emitter, gemm),
    }
}

fn emit_floats(emitter: &mut Emitter<'_>, gemm: &Gemm) -> (Size, &'static str) {
    let measured = emitter.target.schedules.of(emitter.kernel, gemm);
    let blocking = measured.unwrap_or_else(|| {
        let extents = Extents::new(emitter, gemm);
        if in_tile_registers(emitter, gemm) { Blocking::of_registers(&extents) } else { Blocking::choose(&extents) }
    });
    let blocks = Blocks::new(emitter, gemm, blocking);
    let grid = grid(emitter, gemm, blocks.plan.b, blocking, |emitter, rows, columns| {
        blocks.compute(emitter, rows, columns);
    });
    let kind = match (emitter.extent(gemm.rows).is(1), &blocks.plan.right) {
        (true, Right::Coded { scales: Some(CodeScales { bits: 8, .. }), .. }) => "gemv u8",
        (false, Right::Coded { scales: Some(CodeScales { bits: 8, .. }), .. }) => "gemm u8",
        (true, Right::Coded { .. }) => "gemv u4",
        (true, Right::Pairs) => "gemv bf16",
        (false, Right::Pairs) => "gemm bf16",
        (true, _) => "gemv",
        (false, Right::Coded { .. }) => "gemm u4",
        (false, _) => "gemm",
    };
    (grid, kind)
}

/// Whether a product is one of bf16 in tile registers.
fn in_tile_registers(emitter: &Emitter<'_>, gemm: &Gemm) -> bool {
    matches!(gemm.b, RightOperand::Pairs(_)) && emitter.target.has_tile_registers
}

/// Blocks of a product of floats, one at a time.
pub(super) struct Blocks<'g> {
    plan: Plan<'g>,
    memory: Memory,
}

impl<'g> Blocks<'g> {
    /// Sets memory aside for blocks of at most this size, and writes what is the same for all of them.
    pub(super) fn new(emitter: &mut Emitter<'_>, gemm: &'g Gemm, blocking: Blocking) -> Self {
        let plan = Plan::new(emitter, gemm, blocking);
        let taps: Size = gemm.taps.iter().map(|tap| emitter.extent(*tap)).product();
        let memory = Memory {
            // A product is the first field of one with codes.
            block: emitter.reserve(&Size::from(size_of::<BookBlock>() as i64)),
            items: emitter.reserve(&(&taps * &Size::from(size_of::<GemmItem>() as i64))),
            packed: match &plan.right {
                Right::PackHere { length } => Some(emitter.reserve(&(length * &taps * Size::from(4)))),
                _ => None,
            },
            result: match plan.direct {
                Some(_) => None,
                None => Some(emitter.reserve(&Size::from(4 * plan.call_rows * plan.blocking.columns))),
            },
            rounded: plan.memory_bytes(emitter, &taps).map(|bytes| (emitter.reserve(&Size::from(bytes)), bytes / 4)),
        };
        plan.fixed_fields(emitter, &memory, &taps);
        Blocks { plan, memory }
    }

    /// Computes a block, the variables of the batch being bound.
    pub(super) fn compute(&self, emitter: &mut Emitter<'_>, rows: (Value, Value), columns: (Value, Value)) {
        self.plan.tile(emitter, &self.memory, rows, columns);
    }
}

/// The tiles of a product, each with its range of rows and of columns; says how many there are.
fn grid(
    emitter: &mut Emitter<'_>,
    gemm: &Gemm,
    b: u32,
    blocking: Blocking,
    block: impl FnOnce(&mut Emitter<'_>, (Value, Value), (Value, Value)),
) -> Size {
    // B is the same for the batch positions that it does not depend on: they come after the blocks of columns.
    let b = &emitter.kernel.accesses[b as usize].address;
    let (own, others): (Vec<u32>, Vec<u32>) = gemm.batch.iter().partition(|variable| b.mentions(**variable));
    let column_blocks = emitter.extent(gemm.columns).ceil_div(&Size::from(blocking.columns));
    let row_blocks = emitter.extent(gemm.rows).ceil_div(&Size::from(blocking.rows));
    let mut extents: Vec<Size> = own.iter().map(|variable| emitter.extent(*variable)).collect();
    extents.push(column_blocks);
    extents.extend(others.iter().map(|variable| emitter.extent(*variable)));
    extents.push(row_blocks);
    let grid: Size = extents.iter().cloned().product();
    emitter.each((emitter.lo, emitter.hi, 1), |emitter, tile| {
        let position = tile::decode(emitter, &extents, tile);
        let (own_positions, rest) = position.split_at(own.len());
        let (column_block, rest) = (rest[0], &rest[1..]);
        let (other_positions, row_block) = (&rest[..others.len()], rest[others.len()]);
        let batch = own.iter().zip(own_positions).chain(others.iter().zip(other_positions));
        for (variable, value) in batch {
            emitter.bind(*variable, *value);
        }
        let columns = range(emitter, gemm.columns, column_block, blocking.columns);
        let rows = range(emitter, gemm.rows, row_block, blocking.rows);
        block(emitter, rows, columns);
        gemm.batch.iter().for_each(|variable| emitter.unbind(*variable));
    });
    grid
}

/// Pairs of depths, one below the other.
fn pairs_deep(depth: &Size) -> Size {
    depth.ceil_div(&Size::from(bf16::DEPTHS as i64))
}

/// The part of a variable that a block covers.
fn range(emitter: &mut Emitter<'_>, variable: u32, block: Value, length: i64) -> (Value, Value) {
    let low = emitter.builder.ins().imul_imm_s(block, length);
    let end = emitter.builder.ins().iadd_imm_s(low, length);
    let extent = emitter.extent(variable);
    let extent = emitter.size(&extent);
    (low, emitter.smaller(end, extent))
}

impl<'g> Plan<'g> {
    fn new(emitter: &Emitter<'_>, gemm: &'g Gemm, blocking: Blocking) -> Self {
        let (b, right) = match gemm.b {
            RightOperand::Packed(access) => {
                let bits = emitter.kernel.accesses[access as usize].element.bits();
                (access, Right::Packed { bytes: i64::from(bits / 8) })
            }
            RightOperand::Pairs(access) => (access, Right::Pairs),
            RightOperand::Coded { codes, book, by_column, scales } => (codes, Right::Coded { book, by_column, scales }),
            RightOperand::Strided(access) => {
                let contiguous = emitter.is_contiguous(access, gemm.columns) || emitter.extent(gemm.columns).is(1);
                let length = emitter.extent(gemm.depth) * Size::from(blocking.columns);
                (access, if contiguous { Right::InPlace } else { Right::PackHere { length } })
            }
        };
        let tile = TileVariables { rows: gemm.rows, columns: gemm.columns };
        let sum = folded_values(&gemm.finish);
        let epilogue =
            epilogue::recognise(emitter, &gemm.finish, &gemm.stores, tile, Repertoire::All).filter(|_| sum.len() == 1);
        let given = epilogue.as_ref().map_or(sum, |epilogue| vec![epilogue.result]);
        let direct = match (&gemm.stores[..], &epilogue) {
            ([store], Some(epilogue)) => (store.value == epilogue.result
                && store.combine.is_none()
                && epilogue::is_plain(emitter, store.access, tile))
            .then_some(*store),
            _ => None,
        };
        let call_rows = match direct {
            Some(_) => blocking.rows,
            None => {
                let finished = if in_tile_registers(emitter, gemm) { FINISHED_IN_REGISTERS } else { FINISHED };
                (finished / blocking.columns).clamp(1, blocking.rows)
            }
        };
        let epilogue = epilogue.unwrap_or_else(|| Epilogue::none(0));
        Plan { gemm, b, right, blocking, epilogue, given, direct, call_rows }
    }

    /// Bytes for rows of A that are rounded once for all columns of a block.
    fn memory_bytes(&self, emitter: &Emitter<'_>, taps: &Size) -> Option<i64> {
        let [rows, depth, taps] = [&Size::from(self.call_rows), &emitter.extent(self.gemm.depth), taps].map(estimate);
        let sizes = [rows, depth, taps].map(|size| usize::try_from(size).unwrap_or(0));
        in_tile_registers(emitter, self.gemm).then(|| bf16::memory_for(sizes[0], sizes[1], sizes[2]) as i64)
    }

    /// Writes the fields that are the same for all calls.
    fn fixed_fields(&self, emitter: &mut Emitter<'_>, memory: &Memory, taps: &Size) {
        let kernel = emitter.kernel;
        let stride = |access: u32, variable: u32| kernel.accesses[access as usize].address.coefficient(variable);
        let (rows, depth) = (self.gemm.rows, self.gemm.depth);
        let depth_size = emitter.extent(depth);
        let panel = Size::from(16);
        let (b_depth, b_panel) = match &self.right {
            Right::Pairs => (panel.clone(), &panel * &pairs_deep(&depth_size)),
            Right::Coded { .. } => (Size::ZERO, &panel * &self.gemm.b.words_deep(&depth_size)),
            Right::InPlace => (stride(self.b, depth), panel),
            Right::Packed { .. } | Right::PackHere { .. } => (panel.clone(), &panel * &depth_size),
        };
        let c_rows = match self.direct {
            Some(store) => stride(store.access, rows),
            None => Size::from(self.blocking.columns),
        };
        let residual_rows = self.epilogue.residual.map_or(Size::ZERO, |access| stride(access, rows));
        let sizes = [
            (offset_of!(GemmBlock, c_row_stride), c_rows),
            (offset_of!(GemmBlock, item_count), taps.clone()),
            (offset_of!(GemmBlock, a_row_stride), stride(self.gemm.a, rows)),
            (offset_of!(GemmBlock, a_depth_stride), stride(self.gemm.a, depth)),
            (offset_of!(GemmBlock, depth), depth_size),
            (offset_of!(GemmBlock, b_depth_stride), b_depth),
            (offset_of!(GemmBlock, b_panel_stride), b_panel),
            (offset_of!(GemmBlock, start), Size::ZERO),
            (offset_of!(GemmBlock, start_row_stride), Size::ZERO),
            (offset_of!(GemmBlock, residual_row_stride), residual_rows),
            (offset_of!(GemmBlock, residual_place), Size::from(self.epilogue.residual_place as i64)),
            (offset_of!(GemmBlock, activation), Size::from(self.epilogue.activation as i64)),
            (offset_of!(GemmBlock, column_scale), Size::ZERO),
            (offset_of!(GemmBlock, column_bias), Size::ZERO),
            (offset_of!(GemmBlock, residual), Size::ZERO),
            (offset_of!(GemmBlock, b_is_bf16), Size::from(i64::from(self.right == Right::Packed { bytes: 2 }))),
        ];
        for (offset, size) in sizes {
            let value = emitter.size(&size);
            emitter.builder.ins().store(PLAIN, value, memory.block, offset as i32);
        }
        let [first, second] = self.epilogue.parameters;
        let parameters = offset_of!(GemmBlock, activation_parameters);
        for (offset, value) in
            [(offset_of!(GemmBlock, scale), self.epilogue.scale), (parameters, first), (parameters + 8, second)]
        {
            let value = emitter.builder.ins().f32const(value);
            emitter.builder.ins().store(PLAIN, value, memory.block, offset as i32);
        }
        emitter.builder.ins().store(PLAIN, memory.items, memory.block, offset_of!(GemmBlock, items) as i32);
        let none = emitter.size(&Size::ZERO);
        let (rounded, words) = memory.rounded.unwrap_or((none, 0));
        let words = emitter.size(&Size::from(words));
        for (offset, value) in [(offset_of!(GemmBlock, memory), rounded), (offset_of!(GemmBlock, memory_words), words)]
        {
            self.field(emitter, memory, offset, value);
        }
        if let Right::Coded { by_column, scales, .. } = self.right {
            let (depths, have_zeros) = scales.map_or((0, false), |scales| (scales.depths as i64, scales.have_zeros));
            for (offset, number) in [
                (offset_of!(BookBlock, by_column), i64::from(by_column)),
                (offset_of!(BookBlock, bits), i64::from(self.gemm.b.code_bits())),
                (offset_of!(BookBlock, scales), 0),
                (offset_of!(BookBlock, scale_depths), depths),
                (offset_of!(BookBlock, has_zeros), i64::from(have_zeros)),
            ] {
                let number = emitter.size(&Size::from(number));
                self.field(emitter, memory, offset, number);
            }
        }
    }

    /// One block, the batch variables being bound.
    fn tile(&self, emitter: &mut Emitter<'_>, memory: &Memory, rows: (Value, Value), columns: (Value, Value)) {
        let width = emitter.builder.ins().isub(columns.1, columns.0);
        self.field(emitter, memory, offset_of!(GemmBlock, columns), width);
        for (access, offset) in [
            (self.epilogue.column_scale, offset_of!(GemmBlock, column_scale)),
            (self.epilogue.column_bias, offset_of!(GemmBlock, column_bias)),
        ] {
            if let Some(access) = access {
                let place = emitter.address_at(access, self.gemm.columns, columns.0);
                self.field(emitter, memory, offset, place);
            }
        }
        if let Right::Coded { book, by_column, scales } = self.right {
            let start = emitter.address_of(book, &[]);
            // Sixteen numbers a column.
            let bytes = if by_column > 0 { 4 * CODES as i64 } else { 0 };
            let ahead = emitter.builder.ins().imul_imm_s(columns.0, bytes);
            let place = emitter.builder.ins().iadd(start, ahead);
            self.field(emitter, memory, offset_of!(BookBlock, book), place);
            if let Some(CodeScales { rows, depths, have_zeros, .. }) = scales {
                let groups = emitter.extent(self.gemm.depth).ceil_div(&Size::from(depths as i64));
                let start = emitter.address_of(rows, &[]);
                let bytes = emitter.builder.ins().imul_imm_s(columns.0, 4 * (1 + i64::from(have_zeros)));
                let ahead = emitter.times(bytes, &groups);
                let place = emitter.builder.ins().iadd(start, ahead);
                self.field(emitter, memory, offset_of!(BookBlock, scales), place);
            }
        }
        if let Some(packed) = memory.packed {
            self.pack(emitter, packed, columns.0, width);
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
        self.field(emitter, memory, offset_of!(GemmBlock, rows), height);
        let corner = [(self.gemm.rows, rows.0), (self.gemm.columns, columns.0)];
        let c = match (self.direct, memory.result) {
            (Some(store), _) => emitter.address_of(store.access, &corner),
            (None, result) => result.unwrap_or(memory.block),
        };
        self.field(emitter, memory, offset_of!(GemmBlock, c), c);
        if let Some(residual) = self.epilogue.residual {
            let place = emitter.address_of(residual, &corner);
            self.field(emitter, memory, offset_of!(GemmBlock, residual), place);
        }
        self.items(emitter, memory, rows.0, columns.0);
        let function = match self.right {
            Right::Coded { .. } => Function::GemmBook,
            Right::Pairs => Function::GemmBf16,
            _ => Function::GemmF32,
        };
        emitter.call(function, &[memory.block]);
        if let Some(result) = memory.result {
            self.finish(emitter, result, rows, columns);
        }
    }

    fn field(&self, emitter: &mut Emitter<'_>, memory: &Memory, offset: usize, value: Value) {
        emitter.builder.ins().store(PLAIN, value, memory.block, offset as i32);
    }

    /// Packs the block's columns of B for every tap.
    fn pack(&self, emitter: &mut Emitter<'_>, packed: Value, column: Value, width: Value) {
        let Right::PackHere { length } = &self.right else { return };
        let address = &emitter.kernel.accesses[self.b as usize].address;
        let (k_stride, n_stride) = (address.coefficient(self.gemm.depth), address.coefficient(self.gemm.columns));
        let depth = emitter.extent(self.gemm.depth);
        let bytes = length * &Size::from(4);
        let taps: Vec<u32> = self.gemm.taps.clone();
        outer_loops(emitter, &taps, packed, &mut |emitter, packed| {
            let source = emitter.address_of(self.b, &[(self.gemm.columns, column)]);
            let (k_stride, n_stride, depth) = (emitter.size(&k_stride), emitter.size(&n_stride), emitter.size(&depth));
            emitter.call(Function::PackB, &[source, k_stride, n_stride, depth, width, packed]);
            let ahead = emitter.size(&bytes);
            emitter.builder.ins().iadd(packed, ahead)
        });
    }

    /// Lists the products of a call, a tap each.
    fn items(&self, emitter: &mut Emitter<'_>, memory: &Memory, row: Value, column: Value) {
        let taps = &self.gemm.taps;
        let depth = emitter.extent(self.gemm.depth);
        // Where the block's columns begin in a packed matrix: elements or words of 32 bits, `column` times as deep.
        let deep = match self.right {
            Right::Packed { bytes } => Some((depth, bytes)),
            Right::Pairs => Some((pairs_deep(&depth), 4)),
            Right::Coded { .. } => Some((self.gemm.b.words_deep(&depth), 4)),
            _ => None,
        };
        let ahead = deep.map(|(deep, bytes)| {
            let bytes = emitter.builder.ins().imul_imm_s(column, bytes);
            emitter.times(bytes, &deep)
        });
        let size = size_of::<GemmItem>() as i64;
        let packed_bytes = match &self.right {
            Right::PackHere { length } => length * &Size::from(4),
            _ => Size::ZERO,
        };
        outer_loops(emitter, taps, memory.items, &mut |emitter, item| {
            let a = emitter.address_of(self.gemm.a, &[(self.gemm.rows, row)]);
            let b = match (&self.right, memory.packed) {
                (Right::PackHere { .. }, Some(packed)) => {
                    // The position in the list says which block it is.
                    let before = emitter.builder.ins().isub(item, memory.items);
                    let number = emitter.builder.ins().ushr_imm_s(before, i64::from(size.trailing_zeros()));
                    let before = emitter.times(number, &packed_bytes);
                    emitter.builder.ins().iadd(packed, before)
                }
                (Right::InPlace, _) => emitter.address_of(self.b, &[(self.gemm.columns, column)]),
                _ => {
                    let start = emitter.address_of(self.b, &[]);
                    match ahead {
                        Some(ahead) => emitter.builder.ins().iadd(start, ahead),
                        None => start,
                    }
                }
            };
            emitter.builder.ins().store(PLAIN, a, item, offset_of!(GemmItem, a) as i32);
            emitter.builder.ins().store(PLAIN, b, item, offset_of!(GemmItem, b) as i32);
            emitter.builder.ins().iadd_imm_s(item, size)
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
                let row = emitter.strip_row(ElementType::F32, columns.0, memory[0]);
                let job = Job {
                    block: &self.gemm.finish,
                    variable: self.gemm.columns,
                    given: self.given.iter().map(|value| (*value, row)).collect(),
                    sinks: self.gemm.stores.iter().copied().map(Sink::Memory).collect(),
                };
                emitter.run_job(&job, &[ElementType::F32], columns);
                vec![emitter.builder.ins().iadd_imm_s(memory[0], bytes)]
            },
        );
    }
}
