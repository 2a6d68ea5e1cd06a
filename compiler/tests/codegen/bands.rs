//! Products and the depthwise convolutions that read them, by bands: bits equal to those of one after the other.

use super::{
    depthwise::{finish, on_all_levels},
    harness::{access, check, f32s, kernel},
};
use strang_compiler::plan::kernel::{
    Bands, Block, Body, Depthwise, Gemm, Image, Instruction, Kernel, RightOperand, Store,
};
use strang_ir::{
    Bindings, ElementType, Literal, Size,
    generator::Random,
    scalar::{Binary, Unary},
};

/// What a case is made of; all sizes are at least 1.
#[derive(Clone, Copy, Debug)]
struct Case {
    images: i64,
    /// Rows and columns of the result.
    rows: i64,
    columns: i64,
    channels: i64,
    depth: i64,
    /// The sizes of the product's kernel and of the convolution's.
    sizes: [i64; 2],
    step: i64,
    /// Zeros above and before the image, and the zeros that are not read after it.
    padding: i64,
    unread: i64,
    /// Rows and channels of a tile.
    cut: [i64; 2],
    /// The finishes.
    activation: i64,
    kind: usize,
}

/// The right operand in panels of sixteen columns.
fn panels(taps: i64, depth: i64, columns: i64) -> Vec<u8> {
    let panels = (columns + 15) / 16;
    f32s((0..taps * panels * depth * 16).map(|place| {
        let column = place / (depth * 16) % panels * 16 + place % 16;
        if column < columns { (place as f32 * 0.37).sin() } else { 0. }
    }))
}

fn bands(case: Case) -> (Kernel, Vec<Vec<u8>>, Bindings) {
    let Case { images, rows, columns, channels, depth, sizes: [inner, outer], step, padding, unread, .. } = case;
    let span = |count: i64| (count - 1) * step + outer;
    // The image, and all of it that has a place in its buffer.
    let (height, width) = ((span(rows) - padding).max(1), (span(columns) - padding).max(1));
    let (tall, wide) = (height + padding + unread, width + padding + unread);
    let (pixel, row) = (channels, wide * channels);
    let input = (width + inner - 1) * depth;
    let padded = (channels + 15) / 16 * 16;
    let f32 = ElementType::F32;
    let dense = [(0, rows * columns * channels), (1, columns * channels), (2, channels), (3, 1)];
    let product = [(0, (height + inner - 1) * input), (6, input), (7, depth), (9, input), (10, depth), (8, 1)];
    let accesses = vec![
        access(0, f32, &[(0, tall * row), (1, step * row), (2, step * pixel), (3, 1), (4, row), (5, pixel)], 0),
        access(1, f32, &[(3, 1), (4, outer * padded), (5, padded)], 0),
        access(2, f32, &[(3, 1)], 0),
        access(3, f32, &[(3, 1)], 0),
        access(4, f32, &dense, 0),
        access(5, f32, &dense, 0),
        access(6, f32, &product, 0),
        access(7, f32, &[(9, inner * padded * depth), (10, padded * depth)], 0),
        access(8, f32, &[(3, 1)], 0),
        access(0, f32, &[(0, tall * row), (6, row), (7, pixel), (3, 1)], padding * (row + pixel)),
    ];
    let (after, value) = finish(case.kind, 2, 3, 4);
    let consumer = Depthwise {
        batch: vec![0, 1],
        columns: 2,
        channels: 3,
        taps: vec![4, 5],
        a: 0,
        weights: 1,
        finish: after,
        stores: vec![Store { access: 5, value, combine: None }],
    };
    let mut between = Block::default();
    let (sum, bias) = (between.push(Instruction::Folded(0)), between.push(Instruction::Load(8)));
    let shifted = between.push(Instruction::Binary(Binary::Add, sum, bias));
    let value = match case.activation {
        0 => sum,
        1 => between.push(Instruction::Unary(Unary::Relu, shifted)),
        2 => between.push(Instruction::Unary(Unary::Silu, shifted)),
        _ => {
            // Nothing that the tile knows.
            let factor = between.push(Instruction::Literal(Literal::f32(1.5)));
            let scaled = between.push(Instruction::Binary(Binary::Multiply, shifted, factor));
            between.push(Instruction::Binary(Binary::Subtract, scaled, sum))
        }
    };
    let producer = Gemm {
        batch: vec![0, 6],
        rows: 7,
        columns: 3,
        taps: vec![9, 10],
        depth: 8,
        a: 6,
        b: RightOperand::Packed(7),
        finish: between,
        stores: vec![Store { access: 9, value, combine: None }],
    };
    let image = Image {
        buffer: 0,
        channels,
        height,
        width,
        pixel,
        row,
        top: padding,
        left: padding,
        first: 0,
        step,
        span: outer,
        rows,
    };
    let body = Body::Bands(Box::new(Bands { producer, consumer, image, rows: case.cut[0], channels: case.cut[1] }));
    let extents = [images, rows, columns, channels, outer, outer, height, width, depth, inner, inner].map(Size::from);
    let ramp = |count: i64, phase: f32| f32s((0..count).map(|place| (place as f32 * 0.73 + phase).sin()));
    let memory = vec![
        vec![0; 4 * (images * tall * row) as usize],
        ramp(outer * outer * padded, 1.),
        ramp(channels, 2.),
        ramp(channels, 3.),
        ramp(images * rows * columns * channels, 4.),
        vec![0; 4 * (images * rows * columns * channels) as usize],
        ramp(images * (height + inner - 1) * input, 5.),
        panels(inner * inner, depth, channels),
        ramp(channels, 6.),
    ];
    (kernel(&extents, accesses, body), memory, Bindings::new())
}

#[test]
fn bands_compute_what_their_parts_do() {
    let mut draw = Random::new(7);
    let mut number = |low: i64, high: i64| low + draw.below((high - low + 1) as usize) as i64;
    for _ in 0..60 {
        let outer = [1, 3, 5][number(0, 2) as usize];
        let case = Case {
            images: number(1, 3),
            rows: number(1, 9),
            columns: number(1, 20),
            channels: number(1, 70),
            depth: number(1, 20),
            sizes: [number(0, 1) * 2 + 1, outer],
            step: number(1, 2),
            padding: number(0, outer / 2),
            unread: number(0, 3),
            cut: [number(1, 6), 16 * number(1, 5)],
            activation: number(0, 3),
            kind: number(0, 8) as usize,
        };
        let (kernel, memory, bindings) = bands(case);
        check(&kernel, &memory, &bindings, &[]).unwrap_or_else(|text| panic!("{case:?}: {text}"));
    }
}

#[test]
fn levels_agree_on_bands() {
    let case = Case {
        images: 1,
        rows: 5,
        columns: 140,
        channels: 40,
        depth: 12,
        sizes: [1, 3],
        step: 1,
        padding: 1,
        unread: 1,
        cut: [2, 32],
        activation: 1,
        kind: 4,
    };
    let (kernel, memory, bindings) = bands(case);
    on_all_levels(&kernel, &memory, &bindings);
}
