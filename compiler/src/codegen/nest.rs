//! Loop nests: maps, reductions, pooling, gathers, scatters and whatever else is no contraction on the tile kernel.
//!
//! The innermost space variable is computed over ranges. A map is one job over the range; a fold goes by strips: folded
//! values of a strip are written to scratch memory, from where the finish, a job like a map, reads them. Folded values come
//! from vectors over the space variable, from rows in lanes, or one by one.

use super::{
    block::{Typed, Width},
    check,
    emit::Emitter,
    extremes::{self, Extremes},
    fold,
    interior::Interior,
    pooling::Pooling,
    reduce::RowFold,
    scalar::{self, Lanes},
    strip::{Job, Row, STRIP, Sink, row_bytes},
    tile::{self, Tiling},
    transpose::Transposed,
};
use crate::plan::kernel::{Fold, Instruction, Nest, Store};
use cranelift_codegen::ir::{InstBuilder, Value};
use strang_ir::{ElementType, Size};

/// Positions of the space in a tile when each costs one element.
const TILE: i64 = 8192;

/// Positions of the inner variable in a tile of a long fold, at least.
const LONG_CHUNK: i64 = 128;

/// Positions of the inner variable in a tile of a loop with sequential loops inside, at least: a scatter reads its indices
/// again in every tile.
const REPEATED_CHUNK: i64 = 64;

/// Positions of a vector.
const LANES: i64 = 4;

/// Positions of a variable that is worth a loop of vectors.
const LONG: i64 = 16;

/// A nest that is compiled, with what is known of it.
struct Plan<'n> {
    nest: &'n Nest,
    /// The body as a loop over the inner variable sees it.
    body: Typed<'n>,
    /// The types of folded values.
    folded: Vec<ElementType>,
    /// Folds in lanes along the last contracted variable.
    row: Option<RowFold<'n>>,
    /// Space variables that are not parallel, but for the inner one.
    sequential: Vec<u32>,
    /// The variable of the innermost space loop.
    inner: Option<u32>,
    /// Whether the inner variable is parallel, so that tiles give its range.
    inner_is_parallel: bool,
}

/// Emits a nest; says the number of tiles and the kind of kernel.
pub fn emit(emitter: &mut Emitter<'_>, nest: &Nest) -> (Size, &'static str) {
    if let Some(transposed) = Transposed::new(emitter, nest) {
        return (transposed.emit(emitter), "map");
    }
    if let Some(pooling) = Pooling::new(emitter, nest) {
        return (pooling.emit(emitter), "reduce");
    }
    let mut sequential: Vec<u32> = nest.space.iter().copied().filter(|v| !nest.parallel.contains(v)).collect();
    let parallel = nest.space.iter().copied().filter(|v| nest.parallel.contains(v)).collect();
    let parallel = in_order(emitter, nest, parallel);
    let inner_is_parallel = !parallel.is_empty();
    let inner = parallel.last().copied().or_else(|| sequential.pop());
    let body = Typed::new(emitter, &nest.body, &[], inner);
    let folded = check::folded(&nest.folds, &body.elements);
    let row = RowFold::new(emitter, nest);
    let plan = Plan { nest, body, folded, row, sequential, inner, inner_is_parallel };
    let repeated: i64 =
        nest.contracted.iter().chain(&plan.sequential).map(|v| tile::estimate(&emitter.extent(*v))).product();
    emitter.loads_may_move =
        nest.contracted.iter().all(|v| emitter.extent(*v).lower_bound(0).is_some_and(|least| least > 0));
    // Long folds walk memory by whole cache lines, several at a time; so do loops that visit a line again and again.
    let least = match inner {
        Some(inner) if is_long(emitter, &plan, inner) => LONG_CHUNK,
        Some(_) if !plan.sequential.is_empty() => REPEATED_CHUNK,
        _ => 1,
    };
    let tiling = Tiling::new(emitter, &parallel, (TILE / repeated.min(TILE)).max(least), false);
    tiling.each(emitter, |emitter, low, high| {
        let range = match plan.inner {
            Some(inner) if !plan.inner_is_parallel => {
                let extent = emitter.extent(inner);
                (emitter.int(0), emitter.size(&extent))
            }
            _ => (low, high),
        };
        sequential_loops(emitter, &plan, &plan.sequential, range);
    });
    let kind = match (nest.folds.is_empty(), nest.stores.iter().any(|store| store.combine.is_some())) {
        (_, true) => "scatter",
        (true, _) => "map",
        (false, _) => "reduce",
    };
    (tiling.grid(), kind)
}

/// Parallel variables in the order of loops. Where a map has an innermost one with fewer positions than a vector, as the
/// channels of photographs, another takes its place along which all that is read lies side by side.
fn in_order(emitter: &Emitter<'_>, nest: &Nest, mut parallel: Vec<u32>) -> Vec<u32> {
    let has = |variable: u32, positions: std::ops::Range<i64>| {
        emitter.extent(variable).as_constant().is_some_and(|extent| positions.contains(&extent))
    };
    if !nest.folds.is_empty() || !parallel.last().is_some_and(|last| has(*last, 0..LANES)) {
        return parallel;
    }
    let fits = |variable: &u32| {
        let body = Typed::new(emitter, &nest.body, &[], Some(*variable));
        let is_beside = |access| !emitter.mentions(access, *variable) || emitter.is_contiguous(access, *variable);
        has(*variable, LONG..i64::MAX)
            && body.has_lanes(emitter, *variable)
            && body.accesses().all(is_beside)
            && nest.stores.iter().all(|store| store.combine.is_none() && emitter.has_stride(store.access, *variable))
    };
    if let Some(place) = parallel.iter().rposition(fits) {
        let variable = parallel.remove(place);
        parallel.push(variable);
    }
    parallel
}

fn sequential_loops(emitter: &mut Emitter<'_>, plan: &Plan<'_>, left: &[u32], range: (Value, Value)) {
    let Some((variable, left)) = left.split_first() else {
        return match plan.inner {
            Some(inner) => span(emitter, plan, inner, range),
            None => point(emitter, plan),
        };
    };
    let extent = emitter.extent(*variable);
    let (low, high) = (emitter.int(0), emitter.size(&extent));
    emitter.loop_over(
        *variable,
        (low, high, 1),
        &[],
        |_| {},
        |emitter, _| {
            sequential_loops(emitter, plan, left, range);
            Vec::new()
        },
    );
}

/// A range of the inner variable, everything outside being bound.
fn span(emitter: &mut Emitter<'_>, plan: &Plan<'_>, inner: u32, range: (Value, Value)) {
    let nest = plan.nest;
    let sinks = nest.stores.iter().copied().map(Sink::Memory).collect();
    let extent = emitter.extent(inner);
    if nest.folds.is_empty() {
        let job = Job { block: &nest.body, variable: inner, given: Default::default(), sinks };
        if !job.needs_strips(emitter, &[]) {
            return emitter.run_job(&job, &[], range);
        }
        return emitter.strips(&extent, range, |emitter, low, high| emitter.run_job(&job, &[], (low, high)));
    }
    let memory: Vec<Value> =
        plan.folded.iter().map(|element| emitter.reserve(&Size::from(STRIP * row_bytes(*element)))).collect();
    emitter.strips(&extent, range, |emitter, low, high| {
        let rows: Vec<Row> = plan
            .folded
            .iter()
            .zip(&memory)
            .map(|(element, memory)| emitter.strip_row(*element, low, *memory))
            .collect();
        fold_strip(emitter, plan, inner, &rows, (low, high));
        let mut job = Job { block: &nest.finish, variable: inner, given: Default::default(), sinks };
        for (position, instruction) in nest.finish.instructions.iter().enumerate() {
            if let Instruction::Folded(fold) = instruction {
                job.given.insert(position as u32, rows[*fold as usize]);
            }
        }
        emitter.run_job(&job, &plan.folded, (low, high));
    });
}

/// Writes the folded values of a strip to rows.
fn fold_strip(emitter: &mut Emitter<'_>, plan: &Plan<'_>, inner: u32, rows: &[Row], (low, high): (Value, Value)) {
    let may_have_lanes = plan.row.is_none()
        && plan.nest.folds.iter().all(|fold| !matches!(fold, Fold::Arg { .. }))
        && plan.folded.iter().all(|element| scalar::has_lanes(*element))
        && emitter.extent(inner).as_constant().is_none_or(|extent| extent >= 4);
    if !may_have_lanes {
        return fold_points(emitter, plan, inner, rows, (low, high));
    }
    let extent = emitter.extent(inner).as_constant();
    if plan.body.has_lanes(emitter, inner) {
        if is_long(emitter, plan, inner) {
            return accumulate(emitter, plan, inner, rows, (low, high));
        }
        return fold_vectors(emitter, plan, inner, rows, (low, high), extent);
    }
    let interior = Interior::new(emitter, &plan.nest.body, inner, &plan.nest.contracted, &|_| true)
        .filter(|interior| !interior.is_everywhere())
        .filter(|interior| interior.assumed(emitter, |emitter| plan.body.has_lanes(emitter, inner)));
    let Some(interior) = interior else { return fold_points(emitter, plan, inner, rows, (low, high)) };
    let (start, end) = interior.range(emitter, (low, high));
    fold_points(emitter, plan, inner, rows, (low, start));
    interior.assumed(emitter, |emitter| fold_vectors(emitter, plan, inner, rows, (start, end), None));
    fold_points(emitter, plan, inner, rows, (end, high));
}

/// Folds in vectors along the inner variable while they fit, then at single positions. `whole` is the number of positions
/// of which the range is all or whole strips, where it is known.
fn fold_vectors(
    emitter: &mut Emitter<'_>,
    plan: &Plan<'_>,
    inner: u32,
    rows: &[Row],
    (low, high): (Value, Value),
    whole: Option<i64>,
) {
    let extremes = Extremes::new(emitter, plan.nest, inner);
    let copies = if plan.nest.folds.len() == 1 { extremes::POSITIONS / 4 } else { 2 };
    let mut from = low;
    for copies in [copies, 1] {
        let step = 4 * copies;
        if whole.is_some_and(|extent| extent < step) {
            continue;
        }
        let count = emitter.builder.ins().isub(high, from);
        let fitting = emitter.builder.ins().band_imm_s(count, -step);
        let end = emitter.builder.ins().iadd(from, fitting);
        emitter.loop_over(
            inner,
            (from, end, step),
            &[],
            |_| {},
            |emitter, _| {
                match &extremes {
                    Some(extremes) if step == extremes::POSITIONS => extremes.emit(emitter, inner, rows[0]),
                    _ => fold_lanes(emitter, plan, inner, rows, copies as u32),
                }
                Vec::new()
            },
        );
        from = end;
        if whole.is_some_and(|extent| extent % step == 0) {
            return;
        }
    }
    fold_points(emitter, plan, inner, rows, (from, high));
}

/// Folds at single positions of the inner variable.
fn fold_points(emitter: &mut Emitter<'_>, plan: &Plan<'_>, inner: u32, rows: &[Row], (low, high): (Value, Value)) {
    emitter.loop_over(
        inner,
        (low, high, 1),
        &[],
        |_| {},
        |emitter, _| {
            let results = fold_point(emitter, plan);
            for (row, value) in rows.iter().zip(results) {
                emitter.write_row(*row, inner, 0, value, Lanes::One);
            }
            Vec::new()
        },
    );
}

/// Whether so much is folded that walking memory by short blocks of the inner variable costs more than keeping a strip of
/// sums in scratch memory.
fn is_long(emitter: &Emitter<'_>, plan: &Plan<'_>, inner: u32) -> bool {
    let folded: i64 = plan.nest.contracted.iter().map(|v| tile::estimate(&emitter.extent(*v))).product();
    let contiguous = plan.body.accesses().any(|access| emitter.is_contiguous(access, inner));
    contiguous && folded >= 64 && tile::estimate(&emitter.extent(inner)) >= 32
}

/// Folds a strip with the contracted loops outside: every step reads and writes the sums in scratch memory.
fn accumulate(emitter: &mut Emitter<'_>, plan: &Plan<'_>, inner: u32, rows: &[Row], (low, high): (Value, Value)) {
    let folds = &plan.nest.folds;
    // Sums of the half types stay f32; reading the row rounds them.
    let sums: Vec<Row> = rows.iter().map(|row| Row { element: fold::accumulator(row.element), ..*row }).collect();
    let count = emitter.builder.ins().isub(high, low);
    let whole = emitter.builder.ins().band_imm_s(count, -16);
    let whole = emitter.builder.ins().iadd(low, whole);
    let range = (low, whole, high);
    along(emitter, plan, inner, range, &mut |emitter, lanes, offset| {
        let starts = emitter.fold_starts(folds, &plan.body.elements, lanes);
        for (sum, start) in sums.iter().zip(starts) {
            emitter.write_row(*sum, inner, offset, start, lanes);
        }
    });
    contracted_outside(emitter, &plan.nest.contracted, &mut |emitter| {
        along(emitter, plan, inner, range, &mut |emitter, lanes, offset| {
            let old: Vec<Value> = sums.iter().map(|sum| emitter.read_row(*sum, inner, offset, lanes)).collect();
            let width = match lanes {
                Lanes::One => Width::One,
                Lanes::Four => Width::Four { variable: inner, offset },
            };
            let values = emitter.block(&plan.body, &[], width);
            let new = emitter.fold_step(folds, &plan.body, &values, &old, lanes);
            for (sum, value) in sums.iter().zip(new) {
                emitter.write_row(*sum, inner, offset, value, lanes);
            }
        });
    });
}

/// Loops over a strip of the inner variable: sixteen positions at a time up to `whole`, then one by one. `step` gets the
/// lanes and the offset of each vector from the bound position.
fn along(
    emitter: &mut Emitter<'_>,
    plan: &Plan<'_>,
    inner: u32,
    (low, whole, high): (Value, Value, Value),
    step: &mut dyn FnMut(&mut Emitter<'_>, Lanes, u32),
) {
    emitter.loop_over(inner, (low, whole, 16), &[], warm_body(plan), |emitter, _| {
        (0..4).for_each(|quarter| step(emitter, Lanes::Four, 4 * quarter));
        Vec::new()
    });
    emitter.loop_over(inner, (whole, high, 1), &[], warm_body(plan), |emitter, _| {
        step(emitter, Lanes::One, 0);
        Vec::new()
    });
}

/// Loops over all contracted variables.
fn contracted_outside(emitter: &mut Emitter<'_>, left: &[u32], body: &mut dyn FnMut(&mut Emitter<'_>)) {
    let Some((variable, left)) = left.split_first() else { return body(emitter) };
    let extent = emitter.extent(*variable);
    let (low, high) = (emitter.int(0), emitter.size(&extent));
    emitter.loop_over(
        *variable,
        (low, high, 1),
        &[],
        |_| {},
        |emitter, _| {
            contracted_outside(emitter, left, body);
            Vec::new()
        },
    );
}

/// Folds `4 * copies` adjacent positions of the inner variable in vectors.
fn fold_lanes(emitter: &mut Emitter<'_>, plan: &Plan<'_>, inner: u32, rows: &[Row], copies: u32) {
    let starts = emitter.fold_starts(&plan.nest.folds, &plan.body.elements, Lanes::Four);
    let state: Vec<Value> = (0..copies).flat_map(|_| starts.iter().copied()).collect();
    let state = lane_loops(emitter, plan, inner, &plan.nest.contracted, &state);
    for (copy, state) in state.chunks(starts.len().max(1)).enumerate() {
        let results = emitter.fold_results(&plan.nest.folds, &plan.body.elements, state, Lanes::Four);
        for (row, value) in rows.iter().zip(results) {
            emitter.write_row(*row, inner, 4 * copy as u32, value, Lanes::Four);
        }
    }
}

fn lane_loops(emitter: &mut Emitter<'_>, plan: &Plan<'_>, inner: u32, left: &[u32], state: &[Value]) -> Vec<Value> {
    let Some((variable, left)) = left.split_first() else {
        let folds = &plan.nest.folds;
        let mut next = Vec::with_capacity(state.len());
        for (copy, state) in state.chunks(folds.len().max(1)).enumerate() {
            let values = emitter.block(&plan.body, &[], Width::Four { variable: inner, offset: 4 * copy as u32 });
            next.extend(emitter.fold_step(folds, &plan.body, &values, state, Lanes::Four));
        }
        return next;
    };
    let extent = emitter.extent(*variable);
    let (low, high) = (emitter.int(0), emitter.size(&extent));
    let warm = warm_body(plan);
    emitter.loop_over(*variable, (low, high, 1), state, warm, |emitter, state| {
        lane_loops(emitter, plan, inner, left, state)
    })
}

/// Computes before a loop what the body would compute again and again.
fn warm_body(plan: &Plan<'_>) -> impl FnOnce(&mut Emitter<'_>) + use<> {
    let accesses: Vec<u32> = plan.body.accesses().collect();
    move |emitter| accesses.iter().for_each(|access| emitter.warm(*access))
}

/// One position of a space without variables.
fn point(emitter: &mut Emitter<'_>, plan: &Plan<'_>) {
    let nest = plan.nest;
    if nest.folds.is_empty() {
        let values = emitter.block(&plan.body, &[], Width::One);
        return store(emitter, &nest.stores, &values);
    }
    let results = fold_point(emitter, plan);
    let finish = Typed::new(emitter, &nest.finish, &plan.folded, None);
    let values = emitter.block(&finish, &results, Width::One);
    store(emitter, &nest.stores, &values);
}

/// The folded values at one position of the space.
fn fold_point(emitter: &mut Emitter<'_>, plan: &Plan<'_>) -> Vec<Value> {
    let folds = &plan.nest.folds;
    let state = emitter.fold_starts(folds, &plan.body.elements, Lanes::One);
    let state = contracted_loops(emitter, plan, &plan.nest.contracted, &state);
    emitter.fold_results(folds, &plan.body.elements, &state, Lanes::One)
}

fn contracted_loops(emitter: &mut Emitter<'_>, plan: &Plan<'_>, left: &[u32], state: &[Value]) -> Vec<Value> {
    let Some((variable, left)) = left.split_first() else {
        let values = emitter.block(&plan.body, &[], Width::One);
        return emitter.fold_step(&plan.nest.folds, &plan.body, &values, state, Lanes::One);
    };
    if let (Some(row), true) = (&plan.row, left.is_empty()) {
        return row.emit(emitter, state);
    }
    let extent = emitter.extent(*variable);
    let (low, high) = (emitter.int(0), emitter.size(&extent));
    emitter.loop_over(*variable, (low, high, 1), state, warm_body(plan), |emitter, state| {
        contracted_loops(emitter, plan, left, state)
    })
}

/// Writes values at the current position.
fn store(emitter: &mut Emitter<'_>, stores: &[Store], values: &[Value]) {
    for store in stores {
        let mut value = values[store.value as usize];
        if let Some(monoid) = store.combine {
            value = emitter.combine(monoid, store.access, value, Width::One);
        }
        emitter.store(store.access, value);
    }
}
