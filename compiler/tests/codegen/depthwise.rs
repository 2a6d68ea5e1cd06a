//! Depthwise convolutions: bits equal to those of the definition, on every level, whatever the finish.

use super::{
    harness::{Aligned, Callable, access, check, f32s, kernel},
    random::Maker,
};
use proptest::prelude::*;
use strang_compiler::plan::{
    grouped::in_groups,
    kernel::{Block, Body, Depthwise, Instruction, Kernel, LoopVariable, Store},
};
use strang_ir::{
    Bindings, ElementType, IndexExpr, Literal, Size,
    generator::Random,
    scalar::{Binary, Unary},
};
use strang_runtime::kernels::Level;

/// What follows a convolution in networks, and what does not.
const FINISHES: usize = 9;

pub fn finish(kind: usize, scale: u32, bias: u32, residual: u32) -> (Block, u32) {
    let mut block = Block::default();
    let sum = block.push(Instruction::Folded(0));
    let (scale, bias) = (block.push(Instruction::Load(scale)), block.push(Instruction::Load(bias)));
    let scaled = block.push(Instruction::Binary(Binary::Multiply, sum, scale));
    let shifted = block.push(Instruction::Binary(Binary::Add, bias, if kind == 3 { sum } else { scaled }));
    let literal = |block: &mut Block, value| block.push(Instruction::Literal(Literal::f32(value)));
    let result = match kind {
        0 => sum,
        1 => scaled,
        2 | 3 => shifted,
        4 => {
            let (low, high) = (literal(&mut block, 0.), literal(&mut block, 6.));
            let above = block.push(Instruction::Binary(Binary::Maximum, shifted, low));
            block.push(Instruction::Binary(Binary::Minimum, above, high))
        }
        5 => block.push(Instruction::Unary(Unary::Relu, shifted)),
        6 => block.push(Instruction::Unary(Unary::Gelu, shifted)),
        7 => {
            let gate = block.push(Instruction::Unary(Unary::Sigmoid, shifted));
            block.push(Instruction::Binary(Binary::Multiply, shifted, gate))
        }
        _ => {
            let read = block.push(Instruction::Load(residual));
            let sum = block.push(Instruction::Binary(Binary::Add, shifted, read));
            let low = literal(&mut block, 0.);
            block.push(Instruction::Binary(Binary::Maximum, sum, low))
        }
    };
    (block, result)
}

/// A convolution of images of `[batch, rows, columns, channels]` with square kernels over images with halos.
fn convolution(
    [batch, rows, columns, channels]: [i64; 4],
    [size, step]: [i64; 2],
    kind: usize,
    symbolic: bool,
) -> (Kernel, Vec<Vec<u8>>, Bindings) {
    let ramp = |count: i64, phase: f32| f32s((0..count).map(|place| (place as f32 * 0.73 + phase).sin() * 3.));
    let (height, width) = ((rows - 1) * step + size, (columns - 1) * step + size);
    let padded = (channels + 15) / 16 * 16;
    let dense = [(0, rows * columns * channels), (1, columns * channels), (2, channels), (3, 1)];
    let line = width * channels;
    let image = [(0, height * line), (1, line * step), (2, channels * step), (3, 1), (4, line), (5, channels)];
    let accesses = vec![
        access(0, ElementType::F32, &image, 0),
        access(1, ElementType::F32, &[(3, 1), (4, size * padded), (5, padded)], 0),
        access(2, ElementType::F32, &[(3, 1)], 0),
        access(3, ElementType::F32, &[(3, 1)], 0),
        access(4, ElementType::F32, &dense, 0),
        access(5, ElementType::F32, &dense, 0),
    ];
    let (finish, value) = finish(kind, 2, 3, 4);
    let stores = vec![Store { access: 5, value, combine: None }];
    let body =
        Depthwise { batch: vec![0, 1], columns: 2, channels: 3, taps: vec![4, 5], a: 0, weights: 1, finish, stores };
    let extents = [batch, rows, columns, channels, size, size];
    let mut bindings = Bindings::new();
    let sizes: Vec<Size> = ["b", "h", "w", "c"]
        .iter()
        .zip(extents)
        .map(|(name, extent)| {
            if !symbolic {
                return extent.into();
            }
            bindings.insert((*name).into(), extent);
            Size::symbol(*name)
        })
        .chain([size, size].map(Size::from))
        .collect();
    let all = batch * rows * columns * channels;
    let memory = vec![
        ramp(batch * height * line, 0.),
        ramp(size * size * padded, 1.),
        ramp(channels, 2.),
        ramp(channels, 3.),
        ramp(all, 4.),
        vec![0; 4 * all as usize],
    ];
    (kernel(&sizes, accesses, Body::Depthwise(body)), memory, bindings)
}

#[test]
fn convolutions() {
    for (place, shape) in
        [[1, 1, 1, 1], [2, 3, 5, 7], [1, 7, 7, 96], [1, 14, 14, 33], [2, 2, 112, 16], [1, 3, 17, 300], [1, 2, 600, 3]]
            .into_iter()
            .enumerate()
    {
        for (size, step) in [(3, 1), (3, 2), (5, 1), (1, 1)] {
            for kind in 0..FINISHES {
                let symbolic = (place + kind) % 3 == 0;
                let (kernel, memory, bindings) = convolution(shape, [size, step], kind, symbolic);
                check(&kernel, &memory, &bindings, &[])
                    .unwrap_or_else(|text| panic!("{shape:?} {size} {step} {kind}: {text}"));
            }
        }
    }
}

/// A convolution in groups of `members` channels: one of single channels but for the last taps, which are those of a group, and
/// their weights.
fn in_groups_of(
    members: i64,
    shape: [i64; 4],
    window: [i64; 2],
    kind: usize,
    symbolic: bool,
) -> (Kernel, Vec<Vec<u8>>, Bindings) {
    let (mut kernel, mut memory, bindings) = convolution(shape, window, kind, symbolic);
    let (channels, size) = (shape[3], window[0]);
    let padded = (channels + 15) / 16 * 16;
    let member = kernel.variables.len() as u32;
    kernel.variables.push(LoopVariable::Loop(members.into()));
    let image = &mut kernel.accesses[0].address;
    *image = image.plus(&IndexExpr::variable(3).times(&Size::from(-1))).plus(&in_groups(3, member, members));
    kernel.accesses[1].address = [(3, 1), (4, size * members * padded), (5, members * padded), (member, padded)]
        .into_iter()
        .map(|(variable, stride)| IndexExpr::variable(variable).times(&Size::from(stride)))
        .reduce(|sum, term| sum.plus(&term))
        .expect("there are terms");
    memory[1] = f32s((0..size * size * members * padded).map(|place| (place as f32 * 0.37 + 1.).sin()));
    let Body::Depthwise(depthwise) = &mut kernel.body else { panic!("it is a depthwise convolution") };
    depthwise.taps.push(member);
    (kernel, memory, bindings)
}

#[test]
fn convolutions_in_groups() {
    for members in [2, 4, 8] {
        for (place, shape) in
            [[1, 1, 2, 8], [2, 3, 5, 24], [1, 7, 7, 96], [1, 14, 14, 40], [1, 3, 17, 304], [1, 2, 60, 8]]
                .into_iter()
                .enumerate()
        {
            for (size, step) in [(3, 1), (3, 2), (1, 1)] {
                for kind in [0, 3, 5, 7, 8] {
                    let symbolic = (place + kind) % 3 == 0;
                    let (kernel, memory, bindings) = in_groups_of(members, shape, [size, step], kind, symbolic);
                    check(&kernel, &memory, &bindings, &[])
                        .unwrap_or_else(|text| panic!("{members} {shape:?} {size} {step} {kind}: {text}"));
                }
            }
        }
    }
}

/// What becomes of sums of bytes: nothing, bytes at once, bytes after a residual, floats after what the kernel does not do, and
/// a function of bytes, which is a table.
pub const BYTE_FINISHES: usize = 5;

/// A finish of sums of bytes, the value that is stored, and its type: access 2 is taken from each column, 3 is its factor, 4 the
/// residual.
pub fn finish_of_bytes(kind: usize) -> (Block, u32, ElementType) {
    let mut block = Block::default();
    let sum = block.push(Instruction::Folded(0));
    let (offset, scale) = (block.push(Instruction::Load(2)), block.push(Instruction::Load(3)));
    let moved = block.push(Instruction::Binary(Binary::Subtract, sum, offset));
    let float = block.push(Instruction::Cast(ElementType::F32, moved));
    let scaled = block.push(Instruction::Binary(Binary::Multiply, float, scale));
    let code = |block: &mut Block, value| {
        let rounded = block.push(Instruction::Unary(Unary::Round, value));
        let zero = block.push(Instruction::Literal(Literal::f32(7.)));
        let moved = block.push(Instruction::Binary(Binary::Add, rounded, zero));
        block.push(Instruction::Cast(ElementType::U8, moved))
    };
    let value = match kind {
        0 => sum,
        1 => code(&mut block, scaled),
        2 => {
            let read = block.push(Instruction::Load(4));
            let number = block.push(Instruction::Cast(ElementType::F32, read));
            let added = block.push(Instruction::Binary(Binary::Add, scaled, number));
            code(&mut block, added)
        }
        3 => block.push(Instruction::Unary(Unary::Sin, scaled)),
        _ => {
            let before = code(&mut block, scaled);
            let number = block.push(Instruction::Cast(ElementType::F32, before));
            let gate = block.push(Instruction::Unary(Unary::Sigmoid, number));
            let gated = block.push(Instruction::Binary(Binary::Multiply, number, gate));
            code(&mut block, gated)
        }
    };
    let result = [ElementType::I32, ElementType::U8, ElementType::U8, ElementType::F32, ElementType::U8][kind];
    (block, value, result)
}

/// A convolution of bytes, which is one of floats but for the types of image, weights, residual and result, and the finish.
fn of_bytes(shape: [i64; 4], window: [i64; 2], kind: usize, symbolic: bool) -> (Kernel, Vec<Vec<u8>>, Bindings) {
    let (mut kernel, mut memory, bindings) = convolution(shape, window, 0, symbolic);
    let (block, value, result) = finish_of_bytes(kind);
    let Body::Depthwise(depthwise) = &mut kernel.body else { panic!("it is a depthwise convolution") };
    depthwise.finish = block;
    depthwise.stores[0].value = value;
    for (access, element) in
        [(0, ElementType::U8), (1, ElementType::I8), (2, ElementType::I32), (4, ElementType::U8), (5, result)]
    {
        kernel.accesses[access].element = element;
    }
    // A byte for every float of image, weights and residual, of all values there are.
    for (place, stride) in [(0, 37), (1, 91), (4, 53)] {
        let count = memory[place].len() / 4;
        memory[place] = (0..count).map(|index| (index * stride + 120) as u8).collect();
    }
    let channels = memory[2].len() / 4;
    memory[2] = (0..channels as i32).flat_map(|channel| (channel * 31 - 400).to_ne_bytes()).collect();
    memory[3] = f32s((0..channels).map(|channel| 0.001 + channel as f32 * 1e-5));
    (kernel, memory, bindings)
}

#[test]
fn convolutions_of_bytes() {
    for (place, shape) in [[1, 1, 1, 1], [2, 3, 5, 7], [1, 7, 7, 96], [1, 14, 14, 33], [1, 3, 17, 300], [1, 2, 600, 3]]
        .into_iter()
        .enumerate()
    {
        for (size, step) in [(3, 1), (3, 2), (5, 1)] {
            for kind in 0..BYTE_FINISHES {
                let (kernel, memory, bindings) = of_bytes(shape, [size, step], kind, (place + kind) % 3 == 0);
                check(&kernel, &memory, &bindings, &[])
                    .unwrap_or_else(|text| panic!("{shape:?} {size} {step} {kind}: {text}"));
            }
        }
    }
}

fn bits(bytes: &[u8]) -> Vec<u32> {
    let values = bytemuck::pod_collect_to_vec::<u8, u32>(&bytes[..bytes.len() / 4 * 4]).into_iter();
    values.map(|bits| if f32::from_bits(bits).is_nan() { f32::NAN.to_bits() } else { bits }).collect()
}

/// Checks that all levels write the same bits; payloads of NaN are exempt.
pub fn on_all_levels(kernel: &Kernel, memory: &[Vec<u8>], bindings: &Bindings) {
    let outputs = Level::available().into_iter().map(|level| {
        let callable = Callable::at_level(kernel, level).unwrap();
        let mut memory: Vec<Aligned> = memory.iter().map(|bytes| Aligned::new(bytes)).collect();
        assert_eq!(callable.run(&mut memory, bindings, &[], false), 0);
        (level, memory.iter().map(|memory| bits(memory.content())).collect::<Vec<_>>())
    });
    let outputs: Vec<_> = outputs.collect();
    for (level, output) in &outputs {
        assert!(*output == outputs[0].1, "{level} gives other bits than {}", outputs[0].0);
    }
}

#[test]
fn levels_agree() {
    for kind in 0..FINISHES {
        let (kernel, memory, bindings) = convolution([2, 5, 9, 37], [3, 1], kind, kind % 2 == 0);
        on_all_levels(&kernel, &memory, &bindings);
    }
}

/// Any accesses: those the kernel of the table cannot read go term by term.
fn random(seed: u64) -> (Kernel, Vec<Vec<u8>>, Bindings) {
    let mut choices = Random::new(seed);
    let batch_count = choices.below(3);
    let tap_count = choices.below(3);
    let mut extents: Vec<i64> = (0..batch_count).map(|_| choices.pick(&[1, 2, 3, 5])).collect();
    extents.push(choices.pick(&[1, 2, 3, 5, 7, 8, 13, 17, 29]));
    extents.push(choices.pick(&[1, 2, 3, 7, 15, 16, 17, 31, 64, 67]));
    extents.extend((0..tap_count).map(|_| choices.pick(&[1, 2, 3, 5])));
    let mut maker = Maker::new(choices, extents);
    let count = batch_count as u32;
    let batch: Vec<u32> = (0..count).collect();
    let (columns, channels) = (count, count + 1);
    let taps: Vec<u32> = (count + 2..count + 2 + tap_count as u32).collect();
    let space = [&batch[..], &[columns, channels]].concat();
    let image = [&batch[..], &taps, &[columns, channels]].concat();
    let factors = [&taps[..], &[channels]].concat();
    let operand = |maker: &mut Maker, variables: &[u32]| match maker.choices.below(4) {
        0 => maker.read(ElementType::F32, variables, true),
        _ => maker.write(ElementType::F32, variables),
    };
    let (a, weights) = (operand(&mut maker, &image), operand(&mut maker, &factors));
    let mut finish = Block::default();
    finish.push(Instruction::Folded(0));
    if maker.choices.one_in(2) {
        let element = maker.element();
        let access = maker.read(element, &space, true);
        finish.push(Instruction::Load(access));
    }
    maker.compute(&mut finish, &[ElementType::F32], &space);
    let elements = finish.elements(&maker.accesses, &[ElementType::F32]);
    let mut stores = Vec::new();
    for value in [elements.len() - 1, 0] {
        // Workers must not share the bytes of types of less than one.
        if elements[value].bits() >= 8 && (stores.is_empty() || maker.choices.one_in(3)) {
            let access = maker.write(elements[value], &space);
            stores.push(Store { access, value: value as u32, combine: None });
        }
    }
    let body = Depthwise { batch, columns, channels, taps, a, weights, finish, stores };
    (kernel(&maker.sizes, maker.accesses, Body::Depthwise(body)), maker.memory, maker.bindings)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn random_convolutions(seed: u64) {
        let (kernel, memory, bindings) = random(seed);
        if let Err(text) = check(&kernel, &memory, &bindings, &[]) {
            return Err(TestCaseError::fail(format!("seed {seed}: {text}\n{kernel:?}\n{bindings:?}")));
        }
    }
}
