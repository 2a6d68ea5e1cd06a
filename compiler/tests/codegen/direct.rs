//! Kernels written by hand, one for each thing that code generation treats specially.

use super::harness::{access, check, f32s, kernel, map};
use strang_compiler::{
    codegen::{Form, Target, generate, print},
    plan::{
        Plan,
        kernel::{Block, Body, Fold, Guard, Instruction, Kernel, Nest, PlanStep, Store},
    },
};
use strang_ir::{
    Bindings, Condition, ElementType, IndexExpr, Literal, Size,
    op::Monoid,
    scalar::{Binary, Unary},
};

fn sizes(values: &[i64]) -> Vec<Size> {
    values.iter().map(|value| Size::from(*value)).collect()
}

fn store(access: u32, value: u32) -> Store {
    Store { access, value, combine: None }
}

fn ramp(count: usize) -> Vec<u8> {
    f32s((0..count).map(|position| (position as f32 * 0.37).sin() * 3.))
}

fn add(rows: i64, columns: i64) -> (Kernel, Vec<Vec<u8>>) {
    let mut block = Block::default();
    let (a, b) = (block.push(Instruction::Load(0)), block.push(Instruction::Load(1)));
    let sum = block.push(Instruction::Binary(Binary::Add, a, b));
    let places = [(0, columns), (1, 1)];
    let accesses = (0..3).map(|pointer| access(pointer, ElementType::F32, &places, 0)).collect();
    let kernel = kernel(&sizes(&[rows, columns]), accesses, map(&[0, 1], block, vec![store(2, sum)]));
    let count = (rows * columns) as usize;
    (kernel, vec![ramp(count), ramp(count), vec![0; count * 4]])
}

#[test]
fn adds() {
    for (rows, columns) in [(1, 1), (3, 5), (7, 64), (2, 20_000), (300, 33), (0, 4), (4, 0)] {
        let (kernel, memory) = add(rows, columns);
        check(&kernel, &memory, &Bindings::new(), &[]).unwrap();
    }
}

#[test]
fn relu_of_broadcast_bias() {
    let mut block = Block::default();
    let (a, b) = (block.push(Instruction::Load(0)), block.push(Instruction::Load(1)));
    let sum = block.push(Instruction::Binary(Binary::Add, a, b));
    let relu = block.push(Instruction::Unary(Unary::Relu, sum));
    let accesses = vec![
        access(0, ElementType::F32, &[(0, 40), (1, 1)], 0),
        access(1, ElementType::F32, &[(1, 1)], 0),
        access(0, ElementType::F32, &[(0, 40), (1, 1)], 0),
    ];
    let kernel = kernel(&sizes(&[13, 40]), accesses, map(&[0, 1], block, vec![store(2, relu)]));
    check(&kernel, &[ramp(13 * 40), ramp(40)], &Bindings::new(), &[]).unwrap();
}

#[test]
fn padded_copy() {
    let mut block = Block::default();
    let a = block.push(Instruction::Load(0));
    let mut read = access(0, ElementType::F32, &[(0, 9), (1, 1)], -10);
    let inside = |variable: u32, size: i64| Condition::Range {
        expression: IndexExpr::variable(variable).plus_size(&Size::from(-1)),
        low: Size::ZERO,
        high: size.into(),
    };
    read.guard = Some(Guard { conditions: vec![inside(0, 6), inside(1, 9)], fill: Literal::f32(-7.) });
    let accesses = vec![read, access(1, ElementType::F32, &[(0, 11), (1, 1)], 0)];
    let kernel = kernel(&sizes(&[8, 11]), accesses, map(&[0, 1], block, vec![store(1, a)]));
    check(&kernel, &[ramp(54), vec![0; 8 * 11 * 4]], &Bindings::new(), &[]).unwrap();
}

fn reduction(space: &[i64], contracted: &[i64], strides: &[i64], monoid: Monoid) -> (Kernel, Vec<Vec<u8>>) {
    let variables = [space, contracted].concat();
    let mut block = Block::default();
    let a = block.push(Instruction::Load(0));
    let mut finish = Block::default();
    let sum = finish.push(Instruction::Folded(0));
    let read: Vec<(u32, i64)> = strides.iter().enumerate().map(|(place, stride)| (place as u32, *stride)).collect();
    let mut stride = 1;
    let mut written = Vec::new();
    for (place, extent) in space.iter().enumerate().rev() {
        written.push((place as u32, stride));
        stride *= extent;
    }
    let accesses = vec![access(0, ElementType::F32, &read, 0), access(1, ElementType::F32, &written, 0)];
    let space_variables: Vec<u32> = (0..space.len() as u32).collect();
    let nest = Nest {
        space: space_variables.clone(),
        parallel: space_variables,
        contracted: (space.len() as u32..variables.len() as u32).collect(),
        body: block,
        folds: vec![Fold::Monoid { monoid, value: a, when: None }],
        finish,
        stores: vec![store(1, sum)],
    };
    let count: i64 =
        1 + strides.iter().zip(&variables).map(|(stride, extent)| stride * (extent - 1).max(0)).sum::<i64>();
    let kernel = kernel(&sizes(&variables), accesses, Body::Nest(nest));
    (kernel, vec![ramp(count as usize), vec![0; stride as usize * 4]])
}

#[test]
fn transposed_copies() {
    for (batch, rows, columns, symbolic) in
        [(1, 8, 4, false), (2, 64, 48, false), (3, 13, 9, true), (1, 200, 130, true), (2, 33, 1030, false)]
    {
        let mut block = Block::default();
        let (a, b) = (block.push(Instruction::Load(0)), block.push(Instruction::Load(1)));
        let sum = block.push(Instruction::Binary(Binary::Add, a, b));
        let all = rows * columns;
        let accesses = vec![
            access(0, ElementType::F32, &[(0, all), (1, 1), (2, columns)], 0),
            access(1, ElementType::F32, &[(1, 1)], 0),
            access(2, ElementType::F32, &[(0, all), (1, rows), (2, 1)], 0),
        ];
        let mut bindings = Bindings::new();
        let mut extents = sizes(&[batch, columns, rows]);
        if symbolic {
            extents = ["b", "c", "r"].map(Size::symbol).to_vec();
            bindings.extend([("b".into(), batch), ("c".into(), columns), ("r".into(), rows)]);
        }
        let kernel = kernel(&extents, accesses, map(&[0, 1, 2], block, vec![store(2, sum)]));
        let count = (batch * all) as usize;
        check(&kernel, &[ramp(count), ramp(columns as usize), vec![0; 4 * count]], &bindings, &[]).unwrap();
    }
}

#[test]
fn reductions() {
    for monoid in [Monoid::Sum, Monoid::Product, Monoid::Minimum, Monoid::Maximum] {
        for (space, contracted, strides) in [
            (vec![5], vec![37], vec![37, 1]),
            (vec![5], vec![37], vec![1, 5]),
            (vec![3, 50], vec![2, 7], vec![700, 1, 350, 50]),
            (vec![], vec![100], vec![1]),
            (vec![2, 3], vec![4, 19], vec![300, 19, 60, 1]),
            (vec![600], vec![3], vec![1, 600]),
            (vec![1100], vec![70], vec![1, 1100]),
            (vec![3, 45], vec![9, 11], vec![5000, 1, 500, 45]),
        ] {
            let (kernel, memory) = reduction(&space, &contracted, &strides, monoid);
            check(&kernel, &memory, &Bindings::new(), &[])
                .unwrap_or_else(|e| panic!("{monoid:?} {space:?} {contracted:?}: {e}"));
        }
    }
}

#[test]
fn gathers_report_bad_indices() {
    let mut block = Block::default();
    let a = block.push(Instruction::Load(0));
    let mut read = access(0, ElementType::F32, &[(1, 1)], 0);
    let index = IndexExpr::atom(strang_ir::Atom::Read(1));
    read.address = read.address.plus(&index.times(&Size::from(20)));
    read.checked = vec![(index, Size::from(6))];
    let accesses =
        vec![read, access(1, ElementType::I32, &[(0, 1)], 0), access(2, ElementType::F32, &[(0, 20), (1, 1)], 0)];
    let kernel = kernel(&sizes(&[4, 20]), accesses, map(&[0, 1], block, vec![store(2, a)]));
    for indices in [[5, 0, 3, 3], [1, 2, 6, 0], [0, -1, 0, 0]] {
        let indices = indices.iter().flat_map(|index: &i32| index.to_le_bytes()).collect();
        check(&kernel, &[ramp(120), indices, vec![0; 320]], &Bindings::new(), &[]).unwrap();
    }
}

#[test]
fn code_is_shared_and_prints() {
    let (first, _) = add(8, 100);
    let mut second = first.clone();
    second.pointers.iter_mut().for_each(|pointer| pointer.buffer += 3);
    second.label = "another".into();
    let (third, _) = add(9, 101);
    let steps = [first, second, third].map(|kernel| PlanStep::Kernel(Box::new(kernel)));
    let plan = Plan { body: steps.to_vec(), ..Plan::default() };
    let program = generate(&plan, &Target::host().unwrap()).unwrap();
    assert_eq!(program.functions.len(), 2);
    for target in Target::NAMES.iter().filter_map(|name| Target::named(name).ok()) {
        for form in [Form::Clif, Form::Assembly] {
            let text = print(&plan, &target, form).unwrap();
            assert!(text.contains("another"), "{text}");
            assert_eq!(text, print(&plan, &target, form).unwrap());
        }
    }
}
