//! Attention: scores of the fused kernel and any others, operands as they lie and copied, on every level.

use super::{
    depthwise::on_all_levels,
    harness::{Aligned, Callable, check_with, kernel},
    random::Maker,
};
use proptest::prelude::*;
use strang_compiler::{
    codegen::Target,
    plan::kernel::{Attention, Block, Body, Instruction, Kernel, Store},
};
use strang_ir::{
    Bindings, ElementType, Literal,
    generator::Random,
    scalar::{Binary, Unary},
};

/// Differences from the definition: the sum of weights divides last, and exponentials are rescaled.
const ULPS: u32 = 100;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Scores {
    Plain,
    Scaled,
    Masked,
    Divided,
    ScaleRead,
    Causal,
    Selected,
    Capped,
    Any,
}

const SCORES: [Scores; 9] = [
    Scores::Plain,
    Scores::Scaled,
    Scores::Masked,
    Scores::Divided,
    Scores::ScaleRead,
    Scores::Causal,
    Scores::Selected,
    Scores::Capped,
    Scores::Any,
];

/// The variables of an attention in a maker of kernels.
struct Variables {
    batch: Vec<u32>,
    rows: u32,
    keys: u32,
    depth: u32,
    columns: u32,
}

impl Variables {
    fn with(&self, others: [u32; 2]) -> Vec<u32> {
        [&self.batch[..], &others].concat()
    }
}

fn score(maker: &mut Maker, kind: Scores, variables: &Variables) -> (Block, u32) {
    let mut block = Block::default();
    let product = block.push(Instruction::Folded(0));
    let scale = block.push(Instruction::Literal(Literal::f32(0.375)));
    let scaled = block.push(Instruction::Binary(Binary::Multiply, product, scale));
    let places = variables.with([variables.rows, variables.keys]);
    let infinity = |block: &mut Block| block.push(Instruction::Literal(Literal::f32(f32::NEG_INFINITY)));
    let value = match kind {
        Scores::Plain => product,
        Scores::Scaled => scaled,
        Scores::Masked | Scores::Divided => {
            let few = [variables.batch.first().copied().unwrap_or(variables.rows), variables.keys];
            let mask = maker.write(ElementType::F32, if kind == Scores::Masked { &places } else { &few });
            let mask = block.push(Instruction::Load(mask));
            let eight = block.push(Instruction::Literal(Literal::f32(8.)));
            let divided = block.push(Instruction::Binary(Binary::Divide, product, eight));
            block.push(Instruction::Binary(Binary::Add, mask, if kind == Scores::Masked { scaled } else { divided }))
        }
        Scores::ScaleRead => {
            let read = maker.write(ElementType::F32, &variables.batch);
            let read = block.push(Instruction::Load(read));
            block.push(Instruction::Binary(Binary::Multiply, read, product))
        }
        Scores::Causal => {
            let (row, key) =
                (block.push(Instruction::Index(variables.rows)), block.push(Instruction::Index(variables.keys)));
            let seen = block.push(Instruction::Binary(Binary::LessOrEqual, key, row));
            let otherwise = infinity(&mut block);
            block.push(Instruction::Select(seen, scaled, otherwise))
        }
        Scores::Selected => {
            let mask = maker.write(ElementType::Bool, &places);
            let mask = block.push(Instruction::Load(mask));
            let otherwise = infinity(&mut block);
            block.push(Instruction::Select(mask, scaled, otherwise))
        }
        Scores::Capped => {
            let capped = block.push(Instruction::Unary(Unary::Tanh, scaled));
            block.push(Instruction::Binary(Binary::Multiply, capped, scale))
        }
        Scores::Any => {
            let read = maker.read(ElementType::F32, &places, true);
            block.push(Instruction::Load(read));
            maker.compute(&mut block, &[ElementType::F32], &places);
            let elements = block.elements(&maker.accesses, &[ElementType::F32]);
            elements.iter().rposition(|element| *element == ElementType::F32).unwrap() as u32
        }
    };
    (block, value)
}

/// An attention of that size: `[rows, keys, depth, columns]`.
fn attention(seed: u64, shape: [i64; 4], kind: Scores, strange: bool) -> (Kernel, Vec<Vec<u8>>, Bindings) {
    let mut choices = Random::new(seed);
    let mut extents: Vec<i64> = (0..choices.below(3)).map(|_| choices.pick(&[1, 2, 3])).collect();
    let batch: Vec<u32> = (0..extents.len() as u32).collect();
    let [rows, keys, depth, columns] = [0, 1, 2, 3].map(|place| (extents.len() + place) as u32);
    extents.extend(shape);
    let variables = Variables { batch, rows, keys, depth, columns };
    let mut maker = Maker::new(choices, extents);
    let operand = |maker: &mut Maker, others: [u32; 2]| {
        let places = variables.with(others);
        match maker.choices.below(6) {
            0 if strange => maker.read(ElementType::F32, &places, true),
            // Heads that share keys.
            1 => maker.write(ElementType::F32, &others),
            _ => maker.write(ElementType::F32, &places),
        }
    };
    let q = operand(&mut maker, [rows, depth]);
    let k = operand(&mut maker, [keys, depth]);
    let v = operand(&mut maker, [keys, columns]);
    // Whether a weight far below the others is 0 depends on rounding, and an infinity times it is then something or not.
    let pointer = maker.accesses[v as usize].pointer;
    for value in maker.memory[pointer as usize].as_chunks_mut::<4>().0 {
        if f32::from_ne_bytes(*value).is_infinite() {
            *value = 1f32.to_ne_bytes();
        }
    }
    let (score, score_value) = score(&mut maker, kind, &variables);
    let places = variables.with([rows, columns]);
    let mut finish = Block::default();
    let mut result = finish.push(Instruction::Folded(0));
    let finish_kind = maker.choices.below(4);
    let mut stores = Vec::new();
    let mut store = |maker: &mut Maker, element, value| {
        let access = maker.write(element, &places);
        stores.push(Store { access, value, combine: None });
    };
    if finish_kind == 1 {
        let read = maker.read(ElementType::F32, &places, false);
        let read = finish.push(Instruction::Load(read));
        store(&mut maker, ElementType::F32, result);
        result = finish.push(Instruction::Binary(Binary::Add, result, read));
    }
    if finish_kind == 2 {
        result = finish.push(Instruction::Unary(Unary::Silu, result));
    }
    store(&mut maker, ElementType::F32, result);
    let Variables { batch, .. } = variables;
    let body = Attention { batch, rows, keys, depth, columns, q, k, v, score, score_value, finish, stores };
    (kernel(&maker.sizes, maker.accesses, Body::Attention(body)), maker.memory, maker.bindings)
}

fn check(kernel: &Kernel, memory: &[Vec<u8>], bindings: &Bindings) -> Result<(), String> {
    check_with(kernel, memory, bindings, &[], &Target::host().unwrap(), ULPS)
}

/// Several blocks of rows, more keys than the fused kernel takes at a time, no keys.
#[test]
fn shapes() {
    for shape in [[1, 1, 1, 1], [66, 20, 5, 9], [131, 33, 16, 16], [3, 530, 4, 17], [27, 40, 8, 1], [4, 0, 3, 5]] {
        for (place, kind) in SCORES.into_iter().enumerate() {
            for seed in 0..4 {
                let (kernel, memory, bindings) = attention(seed * 10 + place as u64, shape, kind, false);
                check(&kernel, &memory, &bindings).unwrap_or_else(|text| panic!("{shape:?} {kind:?} {seed}: {text}"));
            }
        }
    }
}

#[test]
fn levels_agree() {
    for (place, kind) in SCORES.into_iter().enumerate() {
        let (kernel, memory, bindings) = attention(place as u64, [70, 37, 9, 19], kind, false);
        on_all_levels(&kernel, &memory, &bindings);
    }
}

/// Positions of the batch with equal operands give equal bits.
#[test]
fn batch_positions_agree() {
    let [batch, rows, keys, depth, columns] = [3, 70, 29, 7, 18];
    let shared = |maker: &mut Maker, others: [u32; 2]| maker.write(ElementType::F32, &others);
    for kind in [Scores::Scaled, Scores::Causal] {
        let mut maker = Maker::new(Random::new(7), vec![batch, rows, keys, depth, columns]);
        let variables = Variables { batch: vec![0], rows: 1, keys: 2, depth: 3, columns: 4 };
        let (q, k) = (shared(&mut maker, [1, 3]), shared(&mut maker, [2, 3]));
        let v = shared(&mut maker, [2, 4]);
        let (score, score_value) = score(&mut maker, kind, &variables);
        let mut finish = Block::default();
        let value = finish.push(Instruction::Folded(0));
        let access = maker.accesses.len() as u32;
        let pointer = maker.memory.len() as u32;
        let dense = [(0, rows * columns), (1, columns), (4, 1)];
        maker.accesses.push(super::harness::access(pointer, ElementType::F32, &dense, 0));
        maker.memory.push(vec![0; 4 * (batch * rows * columns) as usize]);
        let stores = vec![Store { access, value, combine: None }];
        let Variables { batch, rows, keys, depth, columns } = variables;
        let body = Attention { batch, rows, keys, depth, columns, q, k, v, score, score_value, finish, stores };
        let kernel = kernel(&maker.sizes, maker.accesses, Body::Attention(body));
        let callable = Callable::new(&kernel, &Target::host().unwrap()).unwrap();
        assert!(callable.tiles(&maker.bindings) > 3, "rows are cut");
        let mut memory: Vec<Aligned> = maker.memory.iter().map(|bytes| Aligned::new(bytes)).collect();
        assert_eq!(callable.run(&mut memory, &maker.bindings, &[], false), 0);
        let output = memory[pointer as usize].content();
        let each = output.len() / 3;
        assert!(output[..each] == output[each..2 * each] && output[..each] == output[2 * each..], "{kind:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn random_attentions(seed: u64, kind in 0..SCORES.len(), sizes in [0usize..24, 0..24, 0..24, 0..24]) {
        const SIZES: [i64; 24] =
            [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 19, 23, 29, 31, 37, 53, 71];
        let (kernel, memory, bindings) = attention(seed, sizes.map(|size| SIZES[size]), SCORES[kind], true);
        if let Err(text) = check(&kernel, &memory, &bindings) {
            return Err(TestCaseError::fail(format!("seed {seed}: {text}\n{kernel:?}\n{bindings:?}")));
        }
    }
}
