//! Row operations, with and without what is fused into them; and what scatters and counters do.

use super::harness::{access, check, check_with, f32s, kernel};
use strang_compiler::{
    codegen::Target,
    plan::kernel::{Block, Body, Instruction, Kernel, LoopVariable, Nest, RowOperation, Rows, Store},
};
use strang_ir::{
    Atom, Bindings, ElementType, IndexExpr, Size,
    op::Monoid,
    scalar::{Binary, Unary},
};

fn store(access: u32, value: u32) -> Store {
    Store { access, value, combine: None }
}

fn ramp(count: i64, phase: f32) -> Vec<u8> {
    f32s((0..count).map(|position| (position as f32 * 0.73 + phase).sin() * 3.))
}

const OPERATIONS: [RowOperation; 4] = [
    RowOperation::Softmax,
    RowOperation::LogSoftmax,
    RowOperation::LayerNorm { epsilon: 1e-5 },
    RowOperation::RmsNorm { epsilon: 1e-5 },
];

/// `[rows, columns]` f32, or `[columns, rows]` where rows lie `beside` each other: what is fused decides the blocks.
fn rows(
    shape: (i64, i64),
    beside: bool,
    operation: RowOperation,
    residual: bool,
    affine: bool,
    gelu: bool,
    symbolic: bool,
) -> (Kernel, Vec<Vec<u8>>, Bindings) {
    let (count, columns) = shape;
    let places = if beside { [(0, 1), (1, count)] } else { [(0, columns), (1, 1)] };
    let accesses = vec![
        access(0, ElementType::F32, &places, 0),
        access(1, ElementType::F32, &places, 0),
        access(2, ElementType::F32, &places, 0),
        access(3, ElementType::F32, &[(1, 1)], 0),
        access(4, ElementType::F32, &[(1, 1)], 0),
        access(5, ElementType::F32, &places, 0),
    ];
    let mut prologue = Block::default();
    let mut value = prologue.push(Instruction::Load(0));
    let mut prologue_stores = Vec::new();
    if residual {
        let other = prologue.push(Instruction::Load(1));
        value = prologue.push(Instruction::Binary(Binary::Add, value, other));
        prologue_stores.push(store(2, value));
    }
    let mut finish = Block::default();
    let mut result = finish.push(Instruction::Folded(0));
    if affine {
        let gain = finish.push(Instruction::Load(3));
        result = finish.push(Instruction::Binary(Binary::Multiply, gain, result));
        let bias = finish.push(Instruction::Load(4));
        result = finish.push(Instruction::Binary(Binary::Add, result, bias));
    }
    if gelu {
        result = finish.push(Instruction::Unary(Unary::Gelu, result));
        let other = finish.push(Instruction::Load(1));
        result = finish.push(Instruction::Binary(Binary::Multiply, result, other));
    }
    let body = Body::Rows(Rows {
        space: vec![0],
        row: vec![1],
        prologue,
        value,
        prologue_stores,
        operation,
        finish,
        stores: vec![store(5, result)],
    });
    let (mut sizes, mut bindings) = (vec![Size::from(count), Size::from(columns)], Bindings::new());
    if symbolic {
        sizes = vec![if beside { Size::from(count) } else { Size::symbol("r") }, Size::symbol("c")];
        bindings.extend([("r".into(), count), ("c".into(), columns)]);
    }
    let all = count * columns;
    let memory = vec![
        ramp(all, 0.),
        ramp(all, 1.),
        ramp(all, 9.),
        ramp(columns, 2.),
        ramp(columns, 3.),
        vec![0; 4 * all as usize],
    ];
    (kernel(&sizes, accesses, body), memory, bindings)
}

#[test]
fn row_operations() {
    for operation in OPERATIONS {
        for shape in [(3, 40), (50, 384), (2, 1500), (7, 1), (1, 17), (9, 33), (16, 5)] {
            for fused in 0..32 {
                let [residual, affine, gelu, symbolic, beside] = [1, 2, 4, 8, 16].map(|bit| fused & bit != 0);
                let (kernel, memory, bindings) = rows(shape, beside, operation, residual, affine, gelu, symbolic);
                check_with(&kernel, &memory, &bindings, &[], &Target::host().unwrap(), 64)
                    .unwrap_or_else(|text| panic!("{operation:?} {shape:?} {fused:05b}: {text}"));
            }
        }
    }
}

/// Statistics over two variables that are not adjacent in memory.
#[test]
fn rows_of_two_variables() {
    let (b, c, h, w) = (2, 3, 4, 5);
    let places = [(0, c * h * w), (1, h * w), (2, 1), (3, h)];
    let mut block = Block::default();
    let value = block.push(Instruction::Load(0));
    let mut finish = Block::default();
    let result = finish.push(Instruction::Folded(0));
    let body = Body::Rows(Rows {
        space: vec![0, 1],
        row: vec![2, 3],
        prologue: block,
        value,
        prologue_stores: Vec::new(),
        operation: RowOperation::LayerNorm { epsilon: 1e-3 },
        finish,
        stores: vec![store(1, result)],
    });
    let accesses = vec![access(0, ElementType::F32, &places, 0), access(1, ElementType::F32, &places, 0)];
    let kernel = kernel(&[b, c, h, w].map(Size::from), accesses, body);
    let all = b * c * h * w;
    let memory = [ramp(all, 0.), vec![0; 4 * all as usize]];
    check_with(&kernel, &memory, &Bindings::new(), &[], &Target::host().unwrap(), 64).unwrap();
}

/// `base[ids[e], m] += updates[e, m]`: the features are parallel, the edges run in order.
#[test]
fn scatters_run_in_order() {
    for (edges, features, rows) in [(40, 33, 7), (5, 20_000, 3), (9, 1, 2)] {
        let index = IndexExpr::atom(Atom::Read(1));
        let mut write = access(2, ElementType::F32, &[(1, 1)], 0);
        write.address = write.address.plus(&index.times(&Size::from(features)));
        write.checked = vec![(index, Size::from(rows))];
        let accesses = vec![
            access(0, ElementType::F32, &[(0, features), (1, 1)], 0),
            access(1, ElementType::I64, &[(0, 1)], 0),
            write,
        ];
        let mut body = Block::default();
        let value = body.push(Instruction::Load(0));
        let nest = Nest {
            space: vec![0, 1],
            parallel: vec![1],
            contracted: Vec::new(),
            body,
            folds: Vec::new(),
            finish: Block::default(),
            stores: vec![Store { access: 2, value, combine: Some(Monoid::Sum) }],
        };
        let kernel = kernel(&[edges, features].map(Size::from), accesses, Body::Nest(nest));
        for bad in [0, rows] {
            let ids = (0..edges).flat_map(|edge| (edge * 5 % rows + if edge == 3 { bad } else { 0 }).to_le_bytes());
            let memory = [ramp(edges * features, 0.), ids.collect(), ramp(rows * features, 1.)];
            check(&kernel, &memory, &Bindings::new(), &[]).unwrap();
        }
    }
}

/// An access that moves with the iteration of an enclosing `Repeat`.
#[test]
fn counters_are_read() {
    let mut body = Block::default();
    let value = body.push(Instruction::Load(0));
    let count = body.push(Instruction::Index(1));
    let count = body.push(Instruction::Cast(ElementType::F32, count));
    let sum = body.push(Instruction::Binary(Binary::Add, value, count));
    let accesses = vec![access(0, ElementType::F32, &[(0, 1), (1, 20)], 0), access(1, ElementType::F32, &[(0, 1)], 0)];
    let nest = super::harness::map(&[0], body, vec![store(1, sum)]);
    let mut kernel = kernel(&[20, 1].map(Size::from), accesses, nest);
    kernel.variables[1] = LoopVariable::Counter(2);
    check(&kernel, &[ramp(80, 0.), vec![0; 80]], &Bindings::new(), &[9, 9, 3, 9]).unwrap();
}

/// Functions that are computed in strips: alone, in chains, and of several operands.
#[test]
fn strips() {
    for (rows, columns) in [(1, 3), (2, 5000), (30, 100), (700, 13)] {
        let places = [(0, columns), (1, 1)];
        let accesses: Vec<_> = (0..3).map(|pointer| access(pointer, ElementType::F32, &places, 0)).collect();
        let mut alone = Block::default();
        let a = alone.push(Instruction::Load(0));
        let result = alone.push(Instruction::Unary(Unary::Gelu, a));
        let mut chain = Block::default();
        let (a, b) = (chain.push(Instruction::Load(0)), chain.push(Instruction::Load(1)));
        let sum = chain.push(Instruction::Binary(Binary::Add, a, b));
        let gate = chain.push(Instruction::Unary(Unary::Sigmoid, sum));
        let product = chain.push(Instruction::Binary(Binary::Multiply, gate, sum));
        let size = chain.push(Instruction::Unary(Unary::Absolute, product));
        let power = chain.push(Instruction::Binary(Binary::Power, size, b));
        let log = chain.push(Instruction::Unary(Unary::LogOnePlus, power));
        let end = chain.push(Instruction::Binary(Binary::Subtract, log, gate));
        for (block, value) in [(alone, result), (chain, end)] {
            let body = super::harness::map(&[0, 1], block, vec![store(2, value)]);
            let kernel = kernel(&[rows, columns].map(Size::from), accesses.clone(), body);
            let all = rows * columns;
            let memory = [ramp(all, 0.), ramp(all, 1.), vec![0; 4 * all as usize]];
            check(&kernel, &memory, &Bindings::new(), &[]).unwrap();
        }
    }
}
