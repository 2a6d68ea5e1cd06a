//! What code generation relies on in a kernel, checked once before it, so that emitting code cannot fail.

use crate::plan::kernel::{
    Block, Body, Depthwise, Fold, Gemm, Instruction, Kernel, LoopVariable, RightOperand, Rows, Store,
};
use strang_ir::{Atom, ElementType, IndexExpr, op::Monoid};

/// Every store of a body.
pub fn stores(body: &Body) -> Vec<&Store> {
    match body {
        Body::Nest(nest) => nest.stores.iter().collect(),
        Body::Rows(rows) => rows.prologue_stores.iter().chain(&rows.stores).collect(),
        Body::Gemm(gemm) => gemm.stores.iter().collect(),
        Body::Attention(attention) => attention.stores.iter().collect(),
        Body::Depthwise(depthwise) => depthwise.stores.iter().collect(),
        Body::Bands(bands) => bands.producer.stores.iter().chain(&bands.consumer.stores).collect(),
        Body::Builtin { .. } => Vec::new(),
    }
}

/// The types of folded values.
pub fn folded(folds: &[Fold], body: &[ElementType]) -> Vec<ElementType> {
    folds
        .iter()
        .map(|fold| match fold {
            Fold::MultiplyAdd { a, .. } => body[*a as usize],
            Fold::Monoid { value, .. } => body[*value as usize],
            Fold::Arg { .. } => ElementType::I64,
        })
        .collect()
}

/// Checks a kernel.
///
/// # Errors
/// What is wrong with it.
pub fn check(kernel: &Kernel) -> Result<(), String> {
    for position in 0..kernel.accesses.len() {
        check_access(kernel, position as u32, 0)?;
    }
    let f32s = [ElementType::F32];
    match &kernel.body {
        Body::Nest(nest) => {
            check_loops(kernel, nest.space.iter().chain(&nest.contracted))?;
            if let Some(variable) = nest.parallel.iter().find(|variable| !nest.space.contains(variable)) {
                return Err(format!("variable {variable} is parallel but not of the space"));
            }
            let body = check_block(kernel, &nest.body, &[])?;
            for fold in &nest.folds {
                check_fold(fold, &body)?;
            }
            if nest.folds.is_empty() {
                return check_stores(kernel, &nest.stores, &body);
            }
            let finish = check_block(kernel, &nest.finish, &folded(&nest.folds, &body))?;
            check_stores(kernel, &nest.stores, &finish)
        }
        Body::Rows(Rows { space, row, prologue, value, prologue_stores, finish, stores, .. }) => {
            check_loops(kernel, space.iter().chain(row))?;
            let prologue = check_block(kernel, prologue, &[])?;
            if prologue.get(*value as usize) != Some(&ElementType::F32) {
                return Err("the value that a row operation takes is not f32".to_owned());
            }
            check_stores(kernel, prologue_stores, &prologue)?;
            check_stores(kernel, stores, &check_block(kernel, finish, &f32s)?)
        }
        Body::Gemm(gemm) => check_gemm(kernel, gemm),
        Body::Attention(attention) => {
            let (rows, keys) = (&attention.rows, &attention.keys);
            check_loops(kernel, attention.batch.iter().chain([rows, keys, &attention.depth, &attention.columns]))?;
            check_operands(kernel, [attention.q, attention.k, attention.v])?;
            let score = check_block(kernel, &attention.score, &f32s)?;
            if score.get(attention.score_value as usize) != Some(&ElementType::F32) {
                return Err("the score of an attention is not f32".to_owned());
            }
            check_stores(kernel, &attention.stores, &check_block(kernel, &attention.finish, &f32s)?)
        }
        Body::Depthwise(depthwise) => check_depthwise(kernel, depthwise),
        Body::Bands(bands) => {
            check_gemm(kernel, &bands.producer)?;
            check_depthwise(kernel, &bands.consumer)?;
            if bands.channels < 1 || bands.rows < 1 {
                return Err("bands have no rows or no channels".to_owned());
            }
            match bands.consumer.weight_stride(kernel) {
                Some(_) if bands.producer.sum(&kernel.accesses) == ElementType::F32 => Ok(()),
                _ => Err("bands of something other than f32 with packed weights".to_owned()),
            }
        }
        Body::Builtin { .. } => Ok(()),
    }
}

fn check_gemm(kernel: &Kernel, gemm: &Gemm) -> Result<(), String> {
    let variables = gemm.batch.iter().chain(&gemm.taps).chain([&gemm.rows, &gemm.columns, &gemm.depth]);
    check_loops(kernel, variables)?;
    check_factors(kernel, gemm)?;
    let sum = [gemm.sum(&kernel.accesses)];
    check_stores(kernel, &gemm.stores, &check_block(kernel, &gemm.finish, &sum)?)
}

fn check_depthwise(kernel: &Kernel, depthwise: &Depthwise) -> Result<(), String> {
    let variables = depthwise.batch.iter().chain(&depthwise.taps);
    check_loops(kernel, variables.chain([&depthwise.columns, &depthwise.channels]))?;
    let element = |access: u32| kernel.accesses.get(access as usize).map(|access| access.element);
    match (element(depthwise.a), element(depthwise.weights)) {
        (Some(ElementType::U8), Some(ElementType::I8)) => {}
        (Some(ElementType::U8), _) => return Err("bytes are multiplied with something other than signed bytes".into()),
        _ => check_operands(kernel, [depthwise.a, depthwise.weights])?,
    }
    let sum = [depthwise.sum(&kernel.accesses)];
    check_stores(kernel, &depthwise.stores, &check_block(kernel, &depthwise.finish, &sum)?)
}

fn check_loops<'a>(kernel: &Kernel, variables: impl Iterator<Item = &'a u32>) -> Result<(), String> {
    let mut seen = vec![false; kernel.variables.len()];
    for variable in variables {
        match kernel.variables.get(*variable as usize) {
            Some(LoopVariable::Loop(_)) => {}
            _ => return Err(format!("variable {variable} is not a loop variable of the kernel")),
        }
        if std::mem::replace(&mut seen[*variable as usize], true) {
            return Err(format!("variable {variable} is looped over twice"));
        }
    }
    Ok(())
}

/// The factors of a product with two types of kernel.
fn check_factors(kernel: &Kernel, gemm: &Gemm) -> Result<(), String> {
    match (kernel.accesses.get(gemm.a as usize).map(|access| access.element), &gemm.b) {
        (Some(ElementType::U8), RightOperand::Packed(b)) => match kernel.accesses.get(*b as usize) {
            Some(access) if access.element == ElementType::I8 => Ok(()),
            _ => Err("bytes are multiplied with something other than packed signed bytes".to_owned()),
        },
        (Some(ElementType::U8), _) => Err("weights of bytes are not packed".to_owned()),
        (_, RightOperand::Coded { codes, book, scales, .. }) => {
            check_operands(kernel, [gemm.a, *book])?;
            if let Some(scales) = scales {
                check_operands(kernel, [scales.rows])?;
            }
            match kernel.accesses.get(*codes as usize) {
                Some(access) if access.element == ElementType::U32 => Ok(()),
                _ => Err("codes are not words of 32 bits".to_owned()),
            }
        }
        (_, RightOperand::Packed(b))
            if kernel.accesses.get(*b as usize).is_some_and(|access| access.element == ElementType::BF16) =>
        {
            check_operands(kernel, [gemm.a])
        }
        (_, RightOperand::Pairs(b)) => {
            check_operands(kernel, [gemm.a])?;
            match kernel.accesses.get(*b as usize) {
                Some(access) if access.element == ElementType::BF16 => Ok(()),
                _ => Err("pairs of bf16 are something else".to_owned()),
            }
        }
        (_, RightOperand::Packed(b) | RightOperand::Strided(b)) => check_operands(kernel, [gemm.a, *b]),
    }
}

/// The factors of a product.
fn check_operands<const COUNT: usize>(kernel: &Kernel, operands: [u32; COUNT]) -> Result<(), String> {
    for operand in operands {
        match kernel.accesses.get(operand as usize) {
            None => return Err(format!("access {operand} does not exist")),
            Some(access) if access.element != ElementType::F32 => {
                return Err(format!("access {operand} is a factor of f32 but reads {}", access.element));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Index operands are read by accesses that are read by others: chains of them end.
const MOST_READS: usize = 8;

fn check_access(kernel: &Kernel, access: u32, depth: usize) -> Result<(), String> {
    let Some(found) = kernel.accesses.get(access as usize) else {
        return Err(format!("access {access} does not exist"));
    };
    if found.pointer as usize >= kernel.pointers.len() {
        return Err(format!("access {access} starts from pointer {}, which does not exist", found.pointer));
    }
    if depth > MOST_READS {
        return Err(format!("access {access} reads itself"));
    }
    let guard = found.guard.iter().flat_map(|guard| guard.conditions.iter().map(|condition| condition.expression()));
    for expression in guard.chain(found.checked.iter().map(|(expression, _)| expression)).chain([&found.address]) {
        check_expression(kernel, expression, depth)?;
    }
    match &found.guard {
        Some(guard) if guard.fill.element != found.element => {
            Err(format!("access {access} reads {} but its fill is {}", found.element, guard.fill.element))
        }
        _ => Ok(()),
    }
}

fn check_expression(kernel: &Kernel, expression: &IndexExpr, depth: usize) -> Result<(), String> {
    for (atom, _) in expression.terms() {
        match atom {
            Atom::Variable(variable) if *variable as usize >= kernel.variables.len() => {
                return Err(format!("variable {variable} does not exist"));
            }
            Atom::Variable(_) => {}
            Atom::FloorDiv(inner, _) | Atom::Remainder(inner, _) | Atom::Clamp(inner, ..) | Atom::Table(_, inner) => {
                check_expression(kernel, inner, depth)?;
            }
            Atom::Read(access) => {
                check_access(kernel, *access, depth + 1)?;
                if kernel.accesses[*access as usize].element.is_float() {
                    return Err(format!("access {access} is an index but its elements are floats"));
                }
            }
        }
    }
    Ok(())
}

fn check_block(kernel: &Kernel, block: &Block, folded: &[ElementType]) -> Result<Vec<ElementType>, String> {
    for (position, instruction) in block.instructions.iter().enumerate() {
        let operands: &[u32] = match instruction {
            Instruction::Load(access) | Instruction::Inside(access) => {
                if *access as usize >= kernel.accesses.len() {
                    return Err(format!("access {access} does not exist"));
                }
                &[]
            }
            Instruction::Index(variable) if *variable as usize >= kernel.variables.len() => {
                return Err(format!("variable {variable} does not exist"));
            }
            Instruction::Folded(fold) if *fold as usize >= folded.len() => {
                return Err(format!("folded value {fold} does not exist here"));
            }
            Instruction::Unary(_, a) | Instruction::Cast(_, a) => &[*a],
            Instruction::Binary(_, a, b) => &[*a, *b],
            Instruction::Select(a, b, c) => &[*a, *b, *c],
            _ => &[],
        };
        if operands.iter().any(|operand| *operand as usize >= position) {
            return Err(format!("instruction {position} reads a value that comes after it"));
        }
    }
    let elements = block.elements(&kernel.accesses, folded);
    for (position, instruction) in block.instructions.iter().enumerate() {
        let of = |value: &u32| elements[*value as usize];
        let agrees = match instruction {
            Instruction::Unary(function, a) => function.accepts(of(a)),
            Instruction::Binary(_, a, b) => of(a) == of(b),
            Instruction::Select(a, b, c) => of(a) == ElementType::Bool && of(b) == of(c),
            _ => true,
        };
        if !agrees {
            return Err(format!("instruction {position}, {instruction:?}, has operands of other types"));
        }
    }
    Ok(elements)
}

fn check_fold(fold: &Fold, body: &[ElementType]) -> Result<(), String> {
    let element = |value: u32| body.get(value as usize).copied().ok_or("a fold takes a value that does not exist");
    let when = match fold {
        Fold::MultiplyAdd { a, b, when } => {
            if element(*a)? != element(*b)? {
                return Err("a multiply-add has factors of two types".to_owned());
            }
            when
        }
        Fold::Monoid { monoid, value, when } => {
            if element(*value)?.is_float() && matches!(monoid, Monoid::And | Monoid::Or) {
                return Err("floats have no logical folds".to_owned());
            }
            when
        }
        Fold::Arg { value, .. } => {
            element(*value)?;
            &None
        }
    };
    match when {
        Some(when) if element(*when)? != ElementType::Bool => Err("a fold's condition is not a bool".to_owned()),
        _ => Ok(()),
    }
}

fn check_stores(kernel: &Kernel, stores: &[Store], elements: &[ElementType]) -> Result<(), String> {
    for store in stores {
        let Some(access) = kernel.accesses.get(store.access as usize) else {
            return Err(format!("access {} does not exist", store.access));
        };
        match elements.get(store.value as usize) {
            None => return Err(format!("value {} is stored but does not exist", store.value)),
            Some(element) if *element != access.element => {
                return Err(format!("a value of {element} is stored as {}", access.element));
            }
            Some(_) if access.guard.is_some() => return Err("a write has a guard".to_owned()),
            Some(_) => {}
        }
    }
    Ok(())
}
