//! Pooling of bytes: the largest and the smallest of windows, at every level, with borders and without.

use super::harness::{access, check, kernel};
use strang_compiler::plan::kernel::{Block, Body, Fold, Guard, Instruction, Nest, Store};
use strang_ir::{Bindings, Condition, ElementType, IndexExpr, Literal, Size, op::Monoid};

/// Windows of three rows of an image of `[rows, channels]`, with a border of one.
fn pooling([rows, channels]: [i64; 2], element: ElementType, monoid: Monoid, guarded: bool) {
    let image = [(0, channels), (1, 1), (2, channels)];
    let mut read = access(0, element, &image, if guarded { -channels } else { 0 });
    if guarded {
        let row = IndexExpr::variable(0).plus(&IndexExpr::variable(2)).plus(&IndexExpr::constant(-1));
        let condition = Condition::Range { expression: row, low: Size::ZERO, high: Size::from(rows) };
        read.guard = Some(Guard { conditions: vec![condition], fill: Literal::from_f64(element, 3.) });
    }
    let accesses = vec![read, access(1, element, &[(0, channels), (1, 1)], 0)];
    let (mut body, mut finish) = (Block::default(), Block::default());
    let value = body.push(Instruction::Load(0));
    let result = finish.push(Instruction::Folded(0));
    let nest = Nest {
        space: vec![0, 1],
        parallel: vec![0, 1],
        contracted: vec![2],
        body,
        folds: vec![Fold::Monoid { monoid, value, when: None }],
        finish,
        stores: vec![Store { access: 1, value: result, combine: None }],
    };
    let count = (rows + if guarded { 0 } else { 2 }) * channels;
    let bytes = (0..count).map(|place| (place * 89 + place / 7) as u8).collect();
    let memory = vec![bytes, vec![0; (rows * channels) as usize]];
    let kernel = kernel(&[rows, channels, 3].map(Size::from), accesses, Body::Nest(nest));
    check(&kernel, &memory, &Bindings::new(), &[])
        .unwrap_or_else(|text| panic!("{rows} {channels} {element} {monoid:?} {guarded}: {text}"));
}

#[test]
fn extremes_of_bytes() {
    for shape in [[1, 16], [5, 3], [4, 64], [7, 37], [3, 300]] {
        for element in [ElementType::U8, ElementType::I8] {
            for monoid in [Monoid::Maximum, Monoid::Minimum] {
                for guarded in [false, true] {
                    pooling(shape, element, monoid, guarded);
                }
            }
        }
    }
}
