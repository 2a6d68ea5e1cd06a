//! Pooling of floats: the largest and the sum of windows, at every level, with borders and without, whatever follows.

use super::harness::{access, check, f32s, kernel};
use proptest::prelude::*;
use strang_compiler::plan::kernel::{Block, Body, Fold, Guard, Instruction, Nest, Store};
use strang_ir::{
    Bindings, Condition, ElementType, IndexExpr, Literal, Size,
    op::Monoid,
    scalar::{Binary, Unary},
};

/// A window along an axis.
#[derive(Clone, Copy, Debug)]
struct Window {
    taps: i64,
    step: i64,
    apart: i64,
    padding: i64,
}

impl Window {
    /// The positions of an image that is computed from one of so many.
    fn outputs(&self, extent: i64) -> i64 {
        (extent + 2 * self.padding - self.apart * (self.taps - 1) - 1).div_euclid(self.step) + 1
    }
}

/// Pooling of an image of `[batch, rows, columns, channels]`.
#[derive(Clone, Debug)]
struct Case {
    image: [i64; 4],
    windows: [Window; 2],
    monoid: Monoid,
    /// What follows: nothing, a factor, or a function that takes strips.
    finish: usize,
    /// Whether images and rows have sizes that are not known.
    symbolic: bool,
}

fn pooling(case: &Case) -> Result<(), String> {
    let Case { image: [batch, height, width, channels], windows, .. } = *case;
    let [rows, columns] = [windows[0].outputs(height), windows[1].outputs(width)];
    if rows < 1 || columns < 1 {
        return Ok(());
    }
    let line = width * channels;
    let [of_rows, of_columns] = windows;
    let place = [
        (0, height * line),
        (1, line * of_rows.step),
        (2, channels * of_columns.step),
        (3, 1),
        (4, line * of_rows.apart),
        (5, channels * of_columns.apart),
    ];
    let mut read = access(0, ElementType::F32, &place, -line * of_rows.padding - channels * of_columns.padding);
    let conditions = [(1, 4, of_rows, height), (2, 5, of_columns, width)].map(|(variable, tap, window, extent)| {
        let position = IndexExpr::variable(variable)
            .times(&window.step.into())
            .plus(&IndexExpr::variable(tap).times(&window.apart.into()))
            .plus(&IndexExpr::constant(-window.padding));
        Condition::Range { expression: position, low: Size::ZERO, high: extent.into() }
    });
    let fill = case.monoid.neutral(ElementType::F32);
    read.guard = Some(Guard { conditions: conditions.into(), fill });
    let dense = [(0, rows * columns * channels), (1, columns * channels), (2, channels), (3, 1)];
    let accesses = vec![read, access(1, ElementType::F32, &dense, 0)];
    let (mut body, mut finish) = (Block::default(), Block::default());
    let value = body.push(Instruction::Load(0));
    let mut result = finish.push(Instruction::Folded(0));
    if case.finish > 0 {
        let factor = finish.push(Instruction::Literal(Literal::f32(1. / 9.)));
        result = finish.push(Instruction::Binary(Binary::Multiply, result, factor));
    }
    if case.finish > 1 {
        result = finish.push(Instruction::Unary(Unary::Sigmoid, result));
    }
    let nest = Nest {
        space: vec![0, 1, 2, 3],
        parallel: vec![0, 1, 2, 3],
        contracted: vec![4, 5],
        body,
        folds: vec![Fold::Monoid { monoid: case.monoid, value, when: None }],
        finish,
        stores: vec![Store { access: 1, value: result, combine: None }],
    };
    let special = [f32::NAN, -0., 0., f32::NEG_INFINITY, f32::INFINITY];
    let number = |place: i64| match place % 97 {
        0 => special[(place / 97 % 5) as usize],
        _ => (place as f32 * 0.73).sin() * 3.,
    };
    let memory =
        vec![f32s((0..batch * height * line).map(number)), vec![0; (4 * batch * rows * columns * channels) as usize]];
    let mut bindings = Bindings::new();
    let mut sizes = [batch, rows, columns, channels, of_rows.taps, of_columns.taps].map(Size::from);
    if case.symbolic {
        for (place, name, extent) in [(0, "b", batch), (1, "h", rows)] {
            bindings.insert(name.into(), extent);
            sizes[place] = Size::symbol(name);
        }
    }
    check(&kernel(&sizes, accesses, Body::Nest(nest)), &memory, &bindings, &[])
}

fn window() -> impl Strategy<Value = Window> {
    (1i64..5, 1i64..4, 1i64..3, 0i64..4).prop_map(|(taps, step, apart, padding)| Window { taps, step, apart, padding })
}

fn case() -> impl Strategy<Value = Case> {
    let image = [1i64..3, 1..9, 1..20, 6..70];
    let monoid = prop_oneof![Just(Monoid::Maximum), Just(Monoid::Sum), Just(Monoid::Minimum)];
    (image, [window(), window()], monoid, 0usize..3, any::<bool>())
        .prop_map(|(image, windows, monoid, finish, symbolic)| Case { image, windows, monoid, finish, symbolic })
}

proptest! {
    #[test]
    fn poolings(case in case()) {
        if let Err(text) = pooling(&case) {
            panic!("{case:?}: {text}");
        }
    }
}

#[test]
fn poolings_of_networks() {
    let window = |taps, step, padding| [Window { taps, step, apart: 1, padding }; 2];
    for monoid in [Monoid::Maximum, Monoid::Sum] {
        for (image, windows) in [
            ([1, 112, 112, 64], window(3, 2, 1)),
            ([1, 28, 28, 192], window(3, 1, 1)),
            ([2, 14, 14, 300], window(2, 2, 0)),
            ([1, 7, 7, 512], window(7, 1, 0)),
        ] {
            let case = Case { image, windows, monoid, finish: 0, symbolic: false };
            pooling(&case).unwrap_or_else(|text| panic!("{case:?}: {text}"));
        }
    }
}
