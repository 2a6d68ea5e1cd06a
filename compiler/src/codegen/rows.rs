//! Operations on whole rows: softmax and normalisation.
//!
//! A row goes to scratch memory through its prologue, unless it lies in memory as it is; the runtime's row primitive
//! computes it; the finish reads it from scratch memory, unless the primitive can write the result itself. Gain and bias of
//! a normalisation are recognised in the finish and handed to the primitive.
//!
//! Rows that lie side by side (statistics of every channel of an image whose channels come last) are taken sixteen at a time.

use super::{
    emit::Emitter,
    strip::{Job, Row, Sink, operands},
    tile::{self, Tiling},
};
use crate::plan::kernel::{Block, Instruction, RowOperation, Rows};
use cranelift_codegen::ir::{InstBuilder, Value};
use strang_ir::{ElementType, Size, scalar::Binary};
use strang_runtime::kernels::Function;

/// Elements of rows in a tile.
const TILE: i64 = 8192;
/// Rows that lie side by side and are taken together, and the fewest for which that pays.
const BESIDE: i64 = 16;
const FEWEST_BESIDE: i64 = 8;

/// What a normalisation takes beside the row, and the value of the finish that it then gives.
#[derive(Clone, Copy, Debug, Default)]
struct Affine {
    gain: Option<u32>,
    bias: Option<u32>,
    /// The value of the finish that the primitive computes, if not the folded one.
    result: Option<u32>,
}

/// Emits a row operation; says the number of tiles and the kind of kernel.
pub fn emit(emitter: &mut Emitter<'_>, rows: &Rows) -> (Size, &'static str) {
    let count: Size = rows.row.iter().map(|variable| emitter.extent(*variable)).product();
    if let Some(beside) = side_by_side(emitter, rows) {
        return (columns(emitter, rows, beside, &count), kind(rows.operation));
    }
    let tiling = Tiling::rows(emitter, &rows.space, TILE / tile::estimate(&count).min(TILE));
    let bytes = &count * &Size::from(4);
    let memory = emitter.reserve(&bytes);
    tiling.each(emitter, |emitter, _, _| row(emitter, rows, &count, memory));
    (tiling.grid(), kind(rows.operation))
}

fn kind(operation: RowOperation) -> &'static str {
    match operation {
        RowOperation::Softmax | RowOperation::LogSoftmax => "softmax",
        RowOperation::LayerNorm { .. } | RowOperation::RmsNorm { .. } => "norm",
    }
}

/// The variable along which rows lie side by side, if there are enough of them and their elements lie apart.
fn side_by_side(emitter: &Emitter<'_>, rows: &Rows) -> Option<u32> {
    let inner = *rows.row.last()?;
    let of_block = |block: &Block| block.instructions.iter().filter_map(loaded).collect::<Vec<u32>>();
    let mut accesses = [of_block(&rows.prologue), of_block(&rows.finish)].concat();
    accesses.extend(rows.prologue_stores.iter().chain(&rows.stores).map(|store| store.access));
    let is_of_rows = |access: &u32| {
        let address = &emitter.kernel.accesses[*access as usize].address;
        rows.row.iter().any(|variable| address.mentions(*variable))
    };
    accesses.retain(is_of_rows);
    let contiguous = |variable: u32| accesses.iter().filter(|access| emitter.is_contiguous(**access, variable)).count();
    let many = |variable: &u32| emitter.extent(*variable).as_constant().is_some_and(|rows| rows >= FEWEST_BESIDE);
    let beside = rows.space.iter().copied().filter(many).max_by_key(|variable| contiguous(*variable))?;
    (contiguous(beside) > contiguous(inner)).then_some(beside)
}

fn loaded(instruction: &Instruction) -> Option<u32> {
    match instruction {
        Instruction::Load(access) => Some(*access),
        _ => None,
    }
}

/// Takes rows that lie side by side along a variable sixteen at a time; says the number of tiles.
fn columns(emitter: &mut Emitter<'_>, rows: &Rows, beside: u32, count: &Size) -> Size {
    let mut space: Vec<u32> = rows.space.iter().copied().filter(|variable| *variable != beside).collect();
    space.push(beside);
    let tiling = Tiling::new(emitter, &space, BESIDE, false);
    let memory = emitter.reserve(&(count * &Size::from(4 * BESIDE)));
    tiling.each(emitter, |emitter, low, high| {
        emitter.each((low, high, BESIDE), |emitter, start| {
            let most = emitter.int(BESIDE);
            let end = emitter.builder.ins().iadd(start, most);
            let range = (start, emitter.smaller(end, high));
            let run = Run { outer: &rows.row, variable: beside, range, bytes: emitter.int(4 * BESIDE) };
            // Where the first of all rows would lie.
            let skipped = emitter.times(start, &Size::from(4));
            let base = emitter.builder.ins().isub(memory, skipped);
            positions(emitter, &rows.prologue, &run, &[], prologue_sinks(rows, base), base);
            let count = emitter.size(count);
            match rows.operation {
                RowOperation::LayerNorm { epsilon } | RowOperation::RmsNorm { epsilon } => {
                    let is_centred = emitter.int(i64::from(matches!(rows.operation, RowOperation::LayerNorm { .. })));
                    let epsilon = emitter.builder.ins().f32const(epsilon);
                    emitter.call(Function::NormaliseColumnsF32, &[memory, count, epsilon, is_centred]);
                }
                RowOperation::Softmax | RowOperation::LogSoftmax => {
                    let is_logarithm = emitter.int(i64::from(rows.operation == RowOperation::LogSoftmax));
                    emitter.call(Function::SoftmaxColumnsF32, &[memory, count, is_logarithm]);
                }
            }
            let sinks = rows.stores.iter().copied().map(Sink::Memory).collect();
            positions(emitter, &rows.finish, &run, &folded_values(&rows.finish), sinks, base);
        });
    });
    tiling.grid()
}

/// One row; the space variables are bound.
fn row(emitter: &mut Emitter<'_>, rows: &Rows, count: &Size, memory: Value) {
    let zero = emitter.int(0);
    let source = match plain_source(emitter, rows) {
        Some(access) => emitter.address_of(access, &first(rows, zero)),
        None => {
            if let Some(run) = along(emitter, rows) {
                positions(emitter, &rows.prologue, &run, &[], prologue_sinks(rows, memory), memory);
            }
            memory
        }
    };
    let affine = affine(emitter, rows);
    let destination = match plain_destination(emitter, rows, &affine) {
        Some(access) => emitter.address_of(access, &first(rows, zero)),
        None => memory,
    };
    call(emitter, rows, &affine, count, (source, destination));
    if destination != memory {
        return;
    }
    let sinks = rows.stores.iter().copied().map(Sink::Memory).collect();
    let given: Vec<u32> = match affine.result {
        Some(result) => vec![result],
        None => folded_values(&rows.finish),
    };
    if let Some(run) = along(emitter, rows) {
        positions(emitter, &rows.finish, &run, &given, sinks, memory);
    }
}

/// The first position of a row.
fn first(rows: &Rows, zero: Value) -> Vec<(u32, Value)> {
    rows.row.iter().map(|variable| (*variable, zero)).collect()
}

/// What a block runs over: loops, and inside of them a range of one variable, whose positions lie side by side in scratch memory.
struct Run<'r> {
    outer: &'r [u32],
    variable: u32,
    range: (Value, Value),
    /// How far it is from one run of the variable to the next.
    bytes: Value,
}

/// The positions of a row that lies by itself.
fn along<'r>(emitter: &mut Emitter<'_>, rows: &'r Rows) -> Option<Run<'r>> {
    let (variable, outer) = rows.row.split_last()?;
    let extent = emitter.extent(*variable);
    let (low, high) = (emitter.int(0), emitter.size(&extent));
    Some(Run { outer, variable: *variable, range: (low, high), bytes: emitter.times(high, &Size::from(4)) })
}

/// Where values of the prologue go: to memory, and the one that is normalised to scratch memory.
fn prologue_sinks(rows: &Rows, base: Value) -> Vec<Sink> {
    let row = Row { base, element: ElementType::F32 };
    let stores = rows.prologue_stores.iter().copied().map(Sink::Memory);
    stores.chain([Sink::Row { row, value: rows.value }]).collect()
}

/// Runs a block. `given` values, and row sinks, lie at consecutive f32 from `memory`.
fn positions(emitter: &mut Emitter<'_>, block: &Block, run: &Run<'_>, given: &[u32], sinks: Vec<Sink>, memory: Value) {
    outer_loops(emitter, run.outer, memory, &mut |emitter, memory| {
        let row = Row { base: memory, element: ElementType::F32 };
        let given = given.iter().map(|value| (*value, row)).collect();
        let sinks = sinks
            .iter()
            .map(|sink| match sink {
                Sink::Row { value, .. } => Sink::Row { row, value: *value },
                memory => memory.clone(),
            })
            .collect();
        let job = Job { block, variable: run.variable, given, sinks };
        emitter.run_in_strips(&job, &[ElementType::F32], run.range);
        emitter.builder.ins().iadd(memory, run.bytes)
    });
}

/// Loops over some variables, `memory` moving on with what `body` returns.
pub(super) fn outer_loops(
    emitter: &mut Emitter<'_>,
    variables: &[u32],
    memory: Value,
    body: &mut dyn FnMut(&mut Emitter<'_>, Value) -> Value,
) -> Value {
    let Some((variable, inner)) = variables.split_first() else { return body(emitter, memory) };
    let extent = emitter.extent(*variable);
    let (low, high) = (emitter.int(0), emitter.size(&extent));
    emitter.loop_over(
        *variable,
        (low, high, 1),
        &[memory],
        |_| {},
        |emitter, memory| vec![outer_loops(emitter, inner, memory[0], body)],
    )[0]
}

/// The access that the row can be read through as it lies in memory.
fn plain_source(emitter: &Emitter<'_>, rows: &Rows) -> Option<u32> {
    let Instruction::Load(access) = rows.prologue.instructions[rows.value as usize] else { return None };
    (rows.prologue_stores.is_empty() && is_plain(emitter, access, &rows.row)).then_some(access)
}

/// Whether an access is contiguous f32 along a row, without a guard or checks.
fn is_plain(emitter: &Emitter<'_>, access: u32, row: &[u32]) -> bool {
    let address = &emitter.kernel.accesses[access as usize].address;
    let follows = |pair: &[u32]| address.coefficient(pair[0]) == emitter.extent(pair[1]) * address.coefficient(pair[1]);
    let is_contiguous = row.last().is_some_and(|inner| emitter.is_contiguous(access, *inner));
    emitter.is_plain(access) && is_contiguous && row.windows(2).all(follows)
}

/// The access that the primitive can write through: the only store is its result.
fn plain_destination(emitter: &Emitter<'_>, rows: &Rows, affine: &Affine) -> Option<u32> {
    let [store] = rows.stores.as_slice() else { return None };
    let is_result = match affine.result {
        Some(result) => store.value == result,
        None => matches!(rows.finish.instructions[store.value as usize], Instruction::Folded(_)),
    };
    let write = &emitter.kernel.accesses[store.access as usize];
    // The row may lie in the memory it is written to only if it is overwritten in place.
    let blocks = rows.prologue.instructions.iter().chain(&rows.finish.instructions);
    let apart = blocks.into_iter().all(|instruction| match instruction {
        Instruction::Load(access) => {
            let read = &emitter.kernel.accesses[*access as usize];
            read.pointer != write.pointer || read.address == write.address
        }
        _ => true,
    });
    (is_result && store.combine.is_none() && apart && is_plain(emitter, store.access, &rows.row))
        .then_some(store.access)
}

/// Where a block reads the folded value.
pub(super) fn folded_values(block: &Block) -> Vec<u32> {
    let values = block.instructions.iter().enumerate();
    values
        .filter(|(_, instruction)| matches!(instruction, Instruction::Folded(_)))
        .map(|(place, _)| place as u32)
        .collect()
}

/// Gain and bias in the finish of a normalisation: `folded * gain (+ bias)`, each read from contiguous memory.
fn affine(emitter: &Emitter<'_>, rows: &Rows) -> Affine {
    let found = Affine::default();
    let folded = folded_values(&rows.finish);
    let [folded] = folded.as_slice() else { return found };
    if matches!(rows.operation, RowOperation::Softmax | RowOperation::LogSoftmax) {
        return found;
    }
    let finish = &rows.finish.instructions;
    // The only user of a value, when it is one operation with a plain load.
    let only_user = |value: u32, function: Binary| {
        let mut users = finish.iter().enumerate().filter(|(_, instruction)| operands(instruction).contains(&value));
        let (Some((place, user)), None) = (users.next(), users.next()) else { return None };
        if rows.stores.iter().any(|store| store.value == value) {
            return None;
        }
        let Instruction::Binary(found, a, b) = user else { return None };
        let other = if *a == value { *b } else { *a };
        let Instruction::Load(access) = finish[other as usize] else { return None };
        (*found == function && a != b && is_plain(emitter, access, &rows.row)).then_some((place as u32, access))
    };
    let Some((product, gain)) = only_user(*folded, Binary::Multiply) else { return found };
    let mut found = Affine { gain: Some(gain), bias: None, result: Some(product) };
    if matches!(rows.operation, RowOperation::LayerNorm { .. })
        && let Some((sum, bias)) = only_user(product, Binary::Add)
    {
        found = Affine { bias: Some(bias), result: Some(sum), ..found };
    }
    found
}

/// Calls the row primitive.
fn call(emitter: &mut Emitter<'_>, rows: &Rows, affine: &Affine, count: &Size, (source, destination): (Value, Value)) {
    let count = emitter.size(count);
    let zero = emitter.int(0);
    let mut pointer = |access: Option<u32>| match access {
        Some(access) => emitter.address_of(access, &first(rows, zero)),
        None => zero,
    };
    let (gain, bias) = (pointer(affine.gain), pointer(affine.bias));
    let (function, arguments) = match rows.operation {
        RowOperation::Softmax => (Function::SoftmaxRowF32, vec![destination, source, count]),
        RowOperation::LogSoftmax => (Function::LogSoftmaxRowF32, vec![destination, source, count]),
        RowOperation::LayerNorm { epsilon } => {
            let epsilon = emitter.builder.ins().f32const(epsilon);
            (Function::LayerNormRowF32, vec![destination, source, gain, bias, count, epsilon])
        }
        RowOperation::RmsNorm { epsilon } => {
            let epsilon = emitter.builder.ins().f32const(epsilon);
            (Function::RmsNormRowF32, vec![destination, source, gain, count, epsilon])
        }
    };
    emitter.call(function, &arguments);
}
