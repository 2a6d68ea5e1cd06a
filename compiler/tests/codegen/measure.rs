//! Figures for people, not tests: `cargo test -p strang-compiler --test codegen -- --ignored --nocapture figures`.

use super::harness::{Aligned, Callable, access, f32s, kernel, map};
use std::time::{Duration, Instant};
use strang_compiler::{
    codegen::{Target, compile, emit_kernel},
    plan::kernel::{Block, Body, Fold, Instruction, Kernel, Nest, RowOperation, Rows, Store},
};
use strang_ir::{
    Bindings, ElementType, Size,
    op::Monoid,
    scalar::{Binary, Unary},
};

fn fastest(repeats: usize, mut run: impl FnMut()) -> Duration {
    (0..repeats)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .min()
        .unwrap_or_default()
}

/// A map over `[rows, columns]` with operands of the given strides.
fn plain(rows: i64, columns: i64, reads: &[[i64; 2]], write: [i64; 2], block: Block, value: u32) -> Kernel {
    let mut accesses: Vec<_> = reads
        .iter()
        .enumerate()
        .map(|(pointer, strides)| access(pointer as u32, ElementType::F32, &[(0, strides[0]), (1, strides[1])], 0))
        .collect();
    accesses.push(access(reads.len() as u32, ElementType::F32, &[(0, write[0]), (1, write[1])], 0));
    let stores = vec![Store { access: reads.len() as u32, value, combine: None }];
    kernel(&[rows, columns].map(Size::from), accesses, map(&[0, 1], block, stores))
}

fn figure(name: &str, kernel: &Kernel, elements: i64, bytes_each: i64) {
    let target = Target::host().unwrap();
    let memory = f32s((0..elements).map(|position| (position % 1000) as f32 * 0.01 - 3.));
    let buffers = kernel.pointers.len();
    let mut buffers: Vec<Aligned> = (0..buffers).map(|_| Aligned::new(&memory)).collect();
    let callable = Callable::new(kernel, &target).unwrap();
    let bindings = Bindings::new();
    let time = fastest(60, || {
        callable.run(&mut buffers, &bindings, &[], false);
    });
    let emit = fastest(20, || {
        emit_kernel(kernel, &target).unwrap();
    });
    let emitted = emit_kernel(kernel, &target).unwrap().unwrap();
    let compiled = fastest(20, || {
        compile::compile(&emitted.code, &kernel.label, &target).unwrap();
    });
    let nanoseconds = time.as_secs_f64() * 1e9;
    println!(
        "{name:36} {:8.2} us {:6.2} elements/ns {:6.1} GB/s  emit {emit:?} compile {compiled:?} {} bytes",
        nanoseconds / 1e3,
        elements as f64 / nanoseconds,
        (elements * bytes_each) as f64 / nanoseconds,
        compile::compile(&emitted.code, &kernel.label, &target).unwrap().len(),
    );
}

#[test]
#[ignore = "prints figures"]
fn figures() {
    for (rows, columns) in [(64, 384), (256, 1024), (4096, 1024)] {
        let elements = rows * columns;
        let dense = [columns, 1];
        println!("[{rows}, {columns}]");
        let mut add = Block::default();
        let (a, b) = (add.push(Instruction::Load(0)), add.push(Instruction::Load(1)));
        let sum = add.push(Instruction::Binary(Binary::Add, a, b));
        let mut bias = add.clone();
        figure("add", &plain(rows, columns, &[dense, dense], dense, add, sum), elements, 12);
        let relu = bias.push(Instruction::Unary(Unary::Relu, sum));
        figure("bias + relu", &plain(rows, columns, &[dense, [0, 1]], dense, bias, relu), elements, 8);
        let mut gelu = Block::default();
        let a = gelu.push(Instruction::Load(0));
        let result = gelu.push(Instruction::Unary(Unary::Gelu, a));
        figure("gelu", &plain(rows, columns, &[dense], dense, gelu, result), elements, 8);
        let mut swish = Block::default();
        let (a, b) = (swish.push(Instruction::Load(0)), swish.push(Instruction::Load(1)));
        let sum = swish.push(Instruction::Binary(Binary::Add, a, b));
        let gate = swish.push(Instruction::Unary(Unary::Sigmoid, sum));
        let product = swish.push(Instruction::Binary(Binary::Multiply, sum, gate));
        figure("bias + silu by sigmoid", &plain(rows, columns, &[dense, [0, 1]], dense, swish, product), elements, 8);
        let mut copy = Block::default();
        let a = copy.push(Instruction::Load(0));
        let transposed = plain(columns, rows, &[[1, columns]], [rows, 1], copy, a);
        figure("transposed copy", &transposed, elements, 8);
        for (name, strides, space) in [("sum of rows", [columns, 1], rows), ("sum of columns", [1, columns], columns)] {
            let mut body = Block::default();
            let value = body.push(Instruction::Load(0));
            let mut finish = Block::default();
            let sum = finish.push(Instruction::Folded(0));
            let nest = Nest {
                space: vec![0],
                parallel: vec![0],
                contracted: vec![1],
                body,
                folds: vec![Fold::Monoid { monoid: Monoid::Sum, value, when: None }],
                finish,
                stores: vec![Store { access: 1, value: sum, combine: None }],
            };
            let accesses = vec![
                access(0, ElementType::F32, &[(0, strides[0]), (1, strides[1])], 0),
                access(1, ElementType::F32, &[(0, 1)], 0),
            ];
            let sizes = [space, elements / space].map(Size::from);
            figure(name, &kernel(&sizes, accesses, Body::Nest(nest)), elements, 4);
        }
        for operation in [RowOperation::Softmax, RowOperation::LayerNorm { epsilon: 1e-5 }] {
            let mut prologue = Block::default();
            let value = prologue.push(Instruction::Load(0));
            let mut finish = Block::default();
            let mut result = finish.push(Instruction::Folded(0));
            for (access, function) in [(1, Binary::Multiply), (2, Binary::Add)] {
                if operation != RowOperation::Softmax {
                    let read = finish.push(Instruction::Load(access));
                    result = finish.push(Instruction::Binary(function, result, read));
                }
            }
            let accesses = vec![
                access(0, ElementType::F32, &[(0, columns), (1, 1)], 0),
                access(1, ElementType::F32, &[(1, 1)], 0),
                access(2, ElementType::F32, &[(1, 1)], 0),
                access(3, ElementType::F32, &[(0, columns), (1, 1)], 0),
            ];
            let body = Body::Rows(Rows {
                space: vec![0],
                row: vec![1],
                prologue,
                value,
                prologue_stores: Vec::new(),
                operation,
                finish,
                stores: vec![Store { access: 3, value: result, combine: None }],
            });
            let sizes = [rows, columns].map(Size::from);
            figure(&format!("{operation:?}"), &kernel(&sizes, accesses, body), elements, 8);
        }
    }
}
