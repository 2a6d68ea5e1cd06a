//! Loop nests: maps, reductions, pooling, gathers, scatters and whatever else is no contraction on the tile kernel.

use super::{
    block::{Typed, Width},
    check,
    emit::Emitter,
    reduce::RowFold,
    scalar::Lanes,
    tile::{self, Tiling},
};
use crate::plan::kernel::{Nest, Store};
use cranelift_codegen::ir::Value;
use strang_ir::Size;

/// Positions of the space in a tile when each costs one element.
const TILE: i64 = 8192;

/// A nest that is compiled, with what is known of it.
struct Plan<'n> {
    nest: &'n Nest,
    body: Typed<'n>,
    finish: Typed<'n>,
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
    let mut sequential: Vec<u32> = nest.space.iter().copied().filter(|v| !nest.parallel.contains(v)).collect();
    let parallel: Vec<u32> = nest.space.iter().copied().filter(|v| nest.parallel.contains(v)).collect();
    let inner_is_parallel = !parallel.is_empty();
    let inner = parallel.last().copied().or_else(|| sequential.pop());
    let body = Typed::new(emitter, &nest.body, &[], inner);
    let finish = Typed::new(emitter, &nest.finish, &check::folded(&nest.folds, &body.elements), inner);
    let row = RowFold::new(emitter, nest);
    let plan = Plan { nest, body, finish, row, sequential, inner, inner_is_parallel };
    let contracted: i64 =
        nest.contracted.iter().chain(&plan.sequential).map(|v| tile::estimate(&emitter.extent(*v))).product();
    emitter.loads_may_move =
        nest.contracted.iter().all(|v| emitter.extent(*v).lower_bound(0).is_some_and(|least| least > 0));
    let tiling = Tiling::new(emitter, &parallel, TILE / contracted.min(TILE), false);
    let mut sequential = plan.sequential.as_slice();
    tiling.each(emitter, |emitter, low, high| {
        let range = match plan.inner {
            Some(inner) if !plan.inner_is_parallel => {
                let extent = emitter.extent(inner);
                (emitter.int(0), emitter.size(&extent))
            }
            _ => (low, high),
        };
        sequential_loops(emitter, &plan, std::mem::take(&mut sequential), range);
    });
    let kind = match (nest.folds.is_empty(), nest.stores.iter().any(|store| store.combine.is_some())) {
        (_, true) => "scatter",
        (true, _) => "map",
        (false, _) => "reduce",
    };
    (tiling.grid(), kind)
}

fn sequential_loops(emitter: &mut Emitter<'_>, plan: &Plan<'_>, left: &[u32], range: (Value, Value)) {
    let Some((variable, left)) = left.split_first() else {
        return span(emitter, plan, range);
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
fn span(emitter: &mut Emitter<'_>, plan: &Plan<'_>, (low, high): (Value, Value)) {
    let warm = |emitter: &mut Emitter<'_>| warm(emitter, plan);
    match plan.inner {
        None => point(emitter, plan),
        Some(inner) => {
            emitter.loop_over(inner, (low, high, 1), &[], warm, |emitter, _| {
                point(emitter, plan);
                Vec::new()
            });
        }
    }
}

/// Computes before a loop what the loop would compute again and again.
fn warm(emitter: &mut Emitter<'_>, plan: &Plan<'_>) {
    if plan.nest.contracted.is_empty() {
        let accesses: Vec<u32> = plan.body.accesses().collect();
        accesses.into_iter().for_each(|access| emitter.warm(access));
    }
    let accesses: Vec<u32> = plan.finish.accesses().chain(plan.nest.stores.iter().map(|store| store.access)).collect();
    accesses.into_iter().for_each(|access| emitter.warm_address(access));
}

/// One position of the space.
fn point(emitter: &mut Emitter<'_>, plan: &Plan<'_>) {
    let nest = plan.nest;
    if nest.folds.is_empty() {
        let values = emitter.block(&plan.body, &[], Width::One);
        return store(emitter, &nest.stores, &values);
    }
    let state = emitter.fold_starts(&nest.folds, &plan.body.elements, Lanes::One);
    let state = contracted_loops(emitter, plan, &nest.contracted, &state);
    let results = emitter.fold_results(&nest.folds, &plan.body.elements, &state, Lanes::One);
    let values = emitter.block(&plan.finish, &results, Width::One);
    store(emitter, &nest.stores, &values);
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
    let accesses: Vec<u32> = plan.body.accesses().collect();
    let warm = |emitter: &mut Emitter<'_>| accesses.iter().for_each(|access| emitter.warm(*access));
    emitter.loop_over(*variable, (low, high, 1), state, warm, |emitter, state| {
        contracted_loops(emitter, plan, left, state)
    })
}

/// Writes values at the current position.
pub fn store(emitter: &mut Emitter<'_>, stores: &[Store], values: &[Value]) {
    for store in stores {
        let mut value = values[store.value as usize];
        if let Some(monoid) = store.combine {
            value = emitter.combine(monoid, store.access, value);
        }
        emitter.store(store.access, value);
    }
}
