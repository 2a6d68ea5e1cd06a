//! Kernels with less: values that nothing needs go, variables of one position go, and neighbours that every access walks as one become one.
//!
//! A contiguous map over `[b, h, w, c]` is one long loop, whatever the sizes are.

use super::strip::operands;
use crate::plan::kernel::{Block, Body, Fold, Instruction, Kernel, LoopVariable, lane_sum};
use strang_ir::{Condition, IndexExpr, Literal, Size};

/// The kernel without values that nothing needs.
pub fn pruned(kernel: &Kernel) -> Kernel {
    let mut kernel = kernel.clone();
    prune(&mut kernel.body);
    kernel
}

/// The kernel with as few loops as possible; it computes the same bits.
pub fn collapse(kernel: &Kernel) -> Kernel {
    let kernel = pruned(kernel);
    let all = merged(&kernel, true);
    // A row that is longer, or another, would add in another order.
    if adds_in_lanes(&all) == adds_in_lanes(&kernel) { all } else { merged(&kernel, false) }
}

/// Whether some sum of a nest adds in lanes.
fn adds_in_lanes(kernel: &Kernel) -> bool {
    match &kernel.body {
        Body::Nest(nest) => nest.folds.iter().any(|fold: &Fold| lane_sum(kernel, nest, fold)),
        _ => false,
    }
}

/// The kernel with fewer loops; those of a nest over contracted variables only where `folds`.
fn merged(kernel: &Kernel, folds: bool) -> Kernel {
    let mut kernel = kernel.clone();
    if folds {
        drop_single(&mut kernel);
    }
    match &kernel.body {
        Body::Nest(nest) => {
            let parallel = nest.parallel.clone();
            merge_all(
                &mut kernel,
                &|body| match body {
                    Body::Nest(nest) => &nest.space,
                    _ => &[],
                },
                &|u, v| parallel.contains(&u) == parallel.contains(&v),
            );
            if folds && !adds_in_lanes(&kernel) {
                merge_all(
                    &mut kernel,
                    &|body| match body {
                        Body::Nest(nest) => &nest.contracted,
                        _ => &[],
                    },
                    &|_, _| true,
                );
            }
        }
        Body::Rows(_) => {
            merge_all(
                &mut kernel,
                &|body| match body {
                    Body::Rows(rows) => &rows.space,
                    _ => &[],
                },
                &|_, _| true,
            );
            merge_all(
                &mut kernel,
                &|body| match body {
                    Body::Rows(rows) => &rows.row,
                    _ => &[],
                },
                &|_, _| true,
            );
        }
        _ => {}
    }
    kernel
}

/// Drops instructions whose values nothing needs.
fn prune(body: &mut Body) {
    match body {
        Body::Nest(nest) => {
            let stored: Vec<&mut u32> = nest.stores.iter_mut().map(|store| &mut store.value).collect();
            let mut folded: Vec<&mut u32> = Vec::new();
            for fold in &mut nest.folds {
                match fold {
                    Fold::MultiplyAdd { a, b, when } => folded.extend([a, b].into_iter().chain(when)),
                    Fold::Monoid { value, when, .. } => folded.extend([value].into_iter().chain(when)),
                    Fold::Arg { value, .. } => folded.push(value),
                }
            }
            if folded.is_empty() {
                return keep(&mut nest.body, stored);
            }
            keep(&mut nest.body, folded);
            keep(&mut nest.finish, stored);
        }
        Body::Rows(rows) => {
            let stored = rows.prologue_stores.iter_mut().map(|store| &mut store.value);
            keep(&mut rows.prologue, stored.chain([&mut rows.value]).collect());
            keep(&mut rows.finish, rows.stores.iter_mut().map(|store| &mut store.value).collect());
        }
        Body::Attention(attention) => {
            keep(&mut attention.score, vec![&mut attention.score_value]);
            keep(&mut attention.finish, attention.stores.iter_mut().map(|store| &mut store.value).collect());
        }
        Body::Depthwise(depthwise) => {
            keep(&mut depthwise.finish, depthwise.stores.iter_mut().map(|store| &mut store.value).collect());
        }
        Body::Bands(bands) => {
            let consumer = &mut bands.consumer;
            keep(&mut consumer.finish, consumer.stores.iter_mut().map(|store| &mut store.value).collect());
        }
        _ => {}
    }
}

/// Keeps what some values of a block need, and renumbers them.
fn keep(block: &mut Block, roots: Vec<&mut u32>) {
    let mut needed = vec![false; block.instructions.len()];
    roots.iter().for_each(|root| needed[**root as usize] = true);
    for position in (0..needed.len()).rev() {
        if needed[position] {
            operands(&block.instructions[position]).iter().for_each(|operand| needed[*operand as usize] = true);
        }
    }
    let mut numbers = vec![0; needed.len()];
    let mut kept = Vec::new();
    for (position, mut instruction) in std::mem::take(&mut block.instructions).into_iter().enumerate() {
        if !needed[position] {
            continue;
        }
        match &mut instruction {
            Instruction::Unary(_, a) | Instruction::Cast(_, a) => *a = numbers[*a as usize],
            Instruction::Binary(_, a, b) => (*a, *b) = (numbers[*a as usize], numbers[*b as usize]),
            Instruction::Select(a, b, c) => {
                (*a, *b, *c) = (numbers[*a as usize], numbers[*b as usize], numbers[*c as usize]);
            }
            _ => {}
        }
        numbers[position] = kept.len() as u32;
        kept.push(instruction);
    }
    block.instructions = kept;
    roots.into_iter().for_each(|root| *root = numbers[*root as usize]);
}

fn extent(kernel: &Kernel, variable: u32) -> Option<&Size> {
    match &kernel.variables[variable as usize] {
        LoopVariable::Loop(size) => Some(size),
        LoopVariable::Counter(_) => None,
    }
}

/// Loops of one position.
fn drop_single(kernel: &mut Kernel) {
    let loops: Vec<u32> = match &kernel.body {
        // Whether the last contracted variable is contiguous decides the order of sums, however short it is.
        Body::Nest(nest) => {
            let outer = nest.contracted.split_last().map_or(&[][..], |(_, outer)| outer);
            nest.space.iter().chain(outer).copied().collect()
        }
        // A row keeps at least one variable.
        Body::Rows(rows) => rows.space.iter().chain(rows.row.iter().skip(1)).copied().collect(),
        _ => return,
    };
    for variable in loops {
        if extent(kernel, variable).is_some_and(|size| size.is(1)) {
            remove(kernel, variable);
        }
    }
}

/// Takes a variable that is always 0 out of a kernel.
fn remove(kernel: &mut Kernel, variable: u32) {
    let zero = |other: u32| if other == variable { IndexExpr::default() } else { IndexExpr::variable(other) };
    let sizes: Vec<Size> = kernel.variables.iter().map(LoopVariable::extent).collect();
    let size_of = |variable: u32| sizes[variable as usize].clone();
    let renamed = |expression: &mut IndexExpr| {
        if expression.mentions(variable) {
            *expression = expression.substitute(&zero, &|read| read, &size_of);
        }
    };
    for access in &mut kernel.accesses {
        renamed(&mut access.address);
        access.checked.iter_mut().for_each(|(expression, _)| renamed(expression));
        for condition in access.guard.iter_mut().flat_map(|guard| &mut guard.conditions) {
            match condition {
                Condition::Range { expression, .. } | Condition::Divisible { expression, .. } => renamed(expression),
            }
        }
    }
    for block in blocks_mut(&mut kernel.body) {
        for instruction in &mut block.instructions {
            if *instruction == Instruction::Index(variable) {
                *instruction = Instruction::Literal(Literal::i64(0));
            }
        }
    }
    let others = |list: &mut Vec<u32>| list.retain(|other| *other != variable);
    match &mut kernel.body {
        Body::Nest(nest) => [&mut nest.space, &mut nest.parallel, &mut nest.contracted].into_iter().for_each(others),
        Body::Rows(rows) => [&mut rows.space, &mut rows.row].into_iter().for_each(others),
        _ => {}
    }
}

fn blocks_mut(body: &mut Body) -> Vec<&mut Block> {
    match body {
        Body::Nest(nest) => vec![&mut nest.body, &mut nest.finish],
        Body::Rows(rows) => vec![&mut rows.prologue, &mut rows.finish],
        _ => Vec::new(),
    }
}

/// Merges neighbours of a list of variables while two of them can be one.
fn merge_all(kernel: &mut Kernel, list: &dyn Fn(&Body) -> &[u32], alike: &dyn Fn(u32, u32) -> bool) {
    let mut place = 0;
    while let Some([outer, inner]) =
        list(&kernel.body).get(place..place + 2).and_then(|pair| <[u32; 2]>::try_from(pair).ok())
    {
        if alike(outer, inner) && can_merge(kernel, outer, inner) {
            let size = match (extent(kernel, outer), extent(kernel, inner)) {
                (Some(outer), Some(inner)) => outer * inner,
                _ => return,
            };
            remove(kernel, outer);
            kernel.variables[inner as usize] = LoopVariable::Loop(size);
        } else {
            place += 1;
        }
    }
}

/// Whether every access moves with `outer` as with a whole run of `inner`.
fn can_merge(kernel: &Kernel, outer: u32, inner: u32) -> bool {
    let Some(length) = extent(kernel, inner) else { return false };
    if extent(kernel, outer).is_none() {
        return false;
    }
    let walks_as_one = |expression: &IndexExpr| {
        let (a, b) = (expression.coefficient(outer), expression.coefficient(inner));
        let taken = [(outer, &a), (inner, &b)];
        let rest = taken.iter().fold(expression.clone(), |rest, (variable, coefficient)| {
            rest.plus(&IndexExpr::variable(*variable).times(&-(*coefficient)))
        });
        a == &b * length && !rest.mentions(outer) && !rest.mentions(inner)
    };
    let uses_index = |block: &Block| {
        block
            .instructions
            .iter()
            .any(|instruction| *instruction == Instruction::Index(outer) || *instruction == Instruction::Index(inner))
    };
    let blocks_agree = match &kernel.body {
        Body::Nest(nest) => !uses_index(&nest.body) && !uses_index(&nest.finish),
        Body::Rows(rows) => !uses_index(&rows.prologue) && !uses_index(&rows.finish),
        _ => false,
    };
    blocks_agree
        && kernel.accesses.iter().all(|access| {
            let conditions = access.guard.iter().flat_map(|guard| &guard.conditions).map(Condition::expression);
            let checked = access.checked.iter().map(|(expression, _)| expression);
            conditions.chain(checked).chain([&access.address]).all(walks_as_one)
        })
}
