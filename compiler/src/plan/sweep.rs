//! Removal of accesses and pointers that a finished kernel does not use (weights before they were packed, mostly), so that
//! no kernel keeps a buffer alive that it does not touch.

use super::{
    build::KernelBuilder,
    kernel::{Access, Block, Body, Depthwise, Gemm, Instruction, RightOperand, Store},
};
use rustc_hash::{FxHashMap, FxHashSet};
use strang_ir::{Atom, Condition, IndexExpr};

/// Drops what `body` does not name, and renumbers the rest.
pub fn sweep(kernel: &mut KernelBuilder, body: &mut Body) {
    let mut used: FxHashSet<u32> = FxHashSet::default();
    visit_accesses(body, &mut |access| {
        used.insert(*access);
    });
    let mut pending: Vec<u32> = used.iter().copied().collect();
    while let Some(access) = pending.pop() {
        let mut inner = Vec::new();
        reads_of(&kernel.accesses[access as usize], &mut inner);
        pending.extend(inner.into_iter().filter(|read| used.insert(*read)));
    }
    let mut places: FxHashMap<u32, u32> = FxHashMap::default();
    let mut accesses = Vec::with_capacity(used.len());
    for (position, access) in kernel.accesses.iter().enumerate() {
        if used.contains(&(position as u32)) {
            places.insert(position as u32, accesses.len() as u32);
            accesses.push(access.clone());
        }
    }
    visit_accesses(body, &mut |access| *access = places[access]);
    let mut pointers = Vec::new();
    for access in &mut accesses {
        let pointer = kernel.pointers[access.pointer as usize].clone();
        let found = pointers.iter().position(|other| *other == pointer).unwrap_or_else(|| {
            pointers.push(pointer);
            pointers.len() - 1
        });
        access.pointer = found as u32;
        rename_reads(access, &|slot| places[&slot]);
    }
    kernel.accesses = accesses;
    kernel.pointers = pointers;
}

/// Calls `visit` with every access that a body names.
pub(super) fn visit_accesses(body: &mut Body, visit: &mut dyn FnMut(&mut u32)) {
    fn block(block: &mut Block, visit: &mut dyn FnMut(&mut u32)) {
        for instruction in &mut block.instructions {
            if let Instruction::Load(access) | Instruction::Inside(access) = instruction {
                visit(access);
            }
        }
    }
    fn stores(stores: &mut [Store], visit: &mut dyn FnMut(&mut u32)) {
        stores.iter_mut().for_each(|store| visit(&mut store.access));
    }
    fn gemm(gemm: &mut Gemm, visit: &mut dyn FnMut(&mut u32)) {
        visit(&mut gemm.a);
        match &mut gemm.b {
            RightOperand::Packed(b) | RightOperand::Pairs(b) | RightOperand::Strided(b) => visit(b),
            RightOperand::Coded { codes, book, scales, .. } => {
                visit(codes);
                visit(book);
                scales.iter_mut().for_each(|scales| visit(&mut scales.rows));
            }
        }
        block(&mut gemm.finish, visit);
        stores(&mut gemm.stores, visit);
    }
    fn depthwise(depthwise: &mut Depthwise, visit: &mut dyn FnMut(&mut u32)) {
        visit(&mut depthwise.a);
        visit(&mut depthwise.weights);
        block(&mut depthwise.finish, visit);
        stores(&mut depthwise.stores, visit);
    }
    match body {
        Body::Nest(nest) => {
            block(&mut nest.body, visit);
            block(&mut nest.finish, visit);
            stores(&mut nest.stores, visit);
        }
        Body::Rows(rows) => {
            block(&mut rows.prologue, visit);
            stores(&mut rows.prologue_stores, visit);
            block(&mut rows.finish, visit);
            stores(&mut rows.stores, visit);
        }
        Body::Gemm(product) => gemm(product, visit),
        Body::Attention(attention) => {
            visit(&mut attention.q);
            visit(&mut attention.k);
            visit(&mut attention.v);
            block(&mut attention.score, visit);
            block(&mut attention.finish, visit);
            stores(&mut attention.stores, visit);
        }
        Body::Depthwise(convolution) => depthwise(convolution, visit),
        Body::Bands(bands) => {
            gemm(&mut bands.producer, visit);
            depthwise(&mut bands.consumer, visit);
        }
        Body::Builtin { .. } => {}
    }
}

fn expressions(access: &Access) -> impl Iterator<Item = &IndexExpr> {
    let conditions = access.guard.iter().flat_map(|guard| &guard.conditions).map(Condition::expression);
    [&access.address].into_iter().chain(conditions).chain(access.checked.iter().map(|(expr, _)| expr))
}

fn reads_of(access: &Access, found: &mut Vec<u32>) {
    fn walk(expr: &IndexExpr, found: &mut Vec<u32>) {
        for (atom, _) in expr.terms() {
            match atom {
                Atom::Read(slot) => found.push(*slot),
                Atom::FloorDiv(e, _) | Atom::Remainder(e, _) | Atom::Clamp(e, ..) | Atom::Table(_, e) => walk(e, found),
                Atom::Variable(_) => {}
            }
        }
    }
    expressions(access).for_each(|expr| walk(expr, found));
}

fn rename_reads(access: &mut Access, place: &dyn Fn(u32) -> u32) {
    let mut found = Vec::new();
    reads_of(access, &mut found);
    if found.is_empty() {
        return;
    }
    // Sizes only simplify quotients; here nothing but slots changes.
    let unknown = |_| strang_ir::Size::symbol("unknown");
    let rename = |expr: &IndexExpr| expr.substitute(&IndexExpr::variable, place, &unknown);
    access.address = rename(&access.address);
    for condition in access.guard.iter_mut().flat_map(|guard| &mut guard.conditions) {
        let (Condition::Range { expression, .. } | Condition::Divisible { expression, .. }) = condition;
        *expression = rename(expression);
    }
    for (expr, _) in &mut access.checked {
        *expr = rename(expr);
    }
}
