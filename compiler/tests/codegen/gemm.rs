//! Contractions: any sizes, strides, taps and batches, packed and in place, with finishes that tiles know and others.

use super::harness::{access, check, check_with, f32s, kernel};
use proptest::prelude::*;
use strang_compiler::{
    codegen::{Target, emit_kernel},
    plan::kernel::{Access, Block, Body, CodeScales, Gemm, Instruction, Kernel, LoopVariable, RightOperand, Store},
};
use strang_ir::{
    Atom, Bindings, ElementType, IndexExpr, Literal, Size,
    scalar::{Binary, Unary},
};

const F32: ElementType = ElementType::F32;

/// What happens to the sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finish {
    /// They are stored.
    Plain,
    /// Scale, bias, residual, relu.
    Known,
    /// Bias, clip, residual after it.
    Clip,
    /// Residual, bias, relu, minimum.
    Limited,
    /// Leaky relu.
    Leaky,
    /// Bias, then something a tile does not know, with a strip function in it.
    Strip,
    /// Two stores, one of them with columns that are not contiguous.
    Two,
    /// Rounded to bf16.
    Narrow,
}

const FINISHES: [Finish; 8] = [
    Finish::Plain,
    Finish::Known,
    Finish::Clip,
    Finish::Limited,
    Finish::Leaky,
    Finish::Strip,
    Finish::Two,
    Finish::Narrow,
];

/// How B lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Right {
    Packed,
    /// Packed as bf16.
    Bf16,
    /// Packed as pairs of bf16, beside which A is rounded.
    Pairs,
    InPlace,
    /// With columns far apart.
    Apart,
    /// As codes, and how many numbers each column has if it has its own.
    Coded(u8),
    /// As codes of so many bits with scales, and with zero points or without.
    Scaled(u8, bool),
}

const RIGHTS: [Right; 10] = [
    Right::Packed,
    Right::Bf16,
    Right::Pairs,
    Right::InPlace,
    Right::Apart,
    Right::Coded(0),
    Right::Coded(16),
    Right::Scaled(4, false),
    Right::Scaled(4, true),
    Right::Scaled(8, true),
];

/// Depths that have a scale in common.
const SCALE_DEPTHS: i64 = 8;

/// A product `[batch, rows, columns]` over `[taps, depth]`.
#[derive(Clone, Copy, Debug)]
struct Product {
    batch: i64,
    rows: i64,
    columns: i64,
    taps: i64,
    depth: i64,
    right: Right,
    /// Whether B is one for each batch position.
    batched: bool,
    finish: Finish,
    symbolic: bool,
}

// The variables.
const BATCH: u32 = 0;
const ROWS: u32 = 1;
const COLUMNS: u32 = 2;
const TAPS: u32 = 3;
const DEPTH: u32 = 4;

fn ramp(count: i64, phase: f32) -> Vec<u8> {
    f32s((0..count).map(|position| (position as f32 * 0.73 + phase).sin()))
}

/// Whole numbers, of which some need more bits than bf16 has: their sums of products are exact in any order, as the instructions for
/// pairs take them.
fn integers(count: i64, most: i64) -> Vec<u8> {
    f32s((0..count).map(|position| (position * 389 % (2 * most + 1) - most) as f32))
}

/// Codes, eight in a word.
fn words(count: i64) -> Vec<u8> {
    (0..count as u32).flat_map(|position| position.wrapping_mul(2_654_435_761).to_ne_bytes()).collect()
}

fn literal(value: f32) -> Instruction {
    Instruction::Literal(Literal::f32(value))
}

impl Product {
    fn kernel(&self) -> (Kernel, Vec<Vec<u8>>, Bindings) {
        let Product { batch, rows, columns, taps, depth, .. } = *self;
        // Rows of A overlap as windows do: a tap is one row further on.
        let a_rows = rows + taps;
        let a = access(0, F32, &[(BATCH, a_rows * depth), (ROWS, depth), (TAPS, depth), (DEPTH, 1)], 0);
        let width = (columns + 15) / 16 * 16;
        let each = match self.right {
            Right::Packed | Right::Bf16 => width * depth,
            Right::Pairs => width * ((depth + 1) / 2 * 2),
            Right::InPlace | Right::Apart => columns * depth,
            Right::Coded(_) => width * ((depth + 7) / 8),
            Right::Scaled(bits, _) => width * ((depth + 7) / 8) * i64::from(bits / 4),
        };
        let own = if self.batched { each * taps } else { 0 };
        let mut b = vec![(BATCH, own), (TAPS, each)];
        match self.right {
            Right::Packed | Right::Bf16 | Right::Pairs | Right::Coded(_) | Right::Scaled(..) => {}
            Right::InPlace => b.extend([(DEPTH, columns), (COLUMNS, 1)]),
            Right::Apart => b.extend([(DEPTH, 1), (COLUMNS, depth)]),
        }
        let element = match self.right {
            Right::Coded(_) | Right::Scaled(..) => ElementType::U32,
            Right::Bf16 | Right::Pairs => ElementType::BF16,
            _ => F32,
        };
        let b = access(1, element, &b, 0);
        let places = [(BATCH, rows * columns), (ROWS, columns), (COLUMNS, 1)];
        let turned = [(BATCH, rows * columns), (ROWS, 1), (COLUMNS, rows)];
        let mut accesses =
            vec![a, b, access(2, F32, &places, 0), access(3, F32, &[(COLUMNS, 1)], 0), access(4, F32, &places, 0)];
        let (finish, stores) = self.finish(&mut accesses, &turned, &places);
        let book = accesses.len() as u32;
        let right = match self.right {
            Right::Packed | Right::Bf16 => RightOperand::Packed(1),
            Right::Pairs => RightOperand::Pairs(1),
            Right::InPlace | Right::Apart => RightOperand::Strided(1),
            Right::Coded(by_column) => {
                let pointers = accesses.iter().map(|access| access.pointer + 1).max().unwrap_or(0);
                accesses.push(access(pointers, F32, &[], 0));
                RightOperand::Coded { codes: 1, book, by_column, scales: None }
            }
            Right::Scaled(bits, have_zeros) => {
                let pointers = accesses.iter().map(|access| access.pointer + 1).max().unwrap_or(0);
                accesses.extend([access(pointers, F32, &[], 0), access(pointers + 1, F32, &[], 0)]);
                let scales = CodeScales { rows: book + 1, depths: SCALE_DEPTHS as usize, bits, have_zeros };
                RightOperand::Coded { codes: 1, book, by_column: 0, scales: Some(scales) }
            }
        };
        let body = Body::Gemm(Gemm {
            batch: vec![BATCH],
            rows: ROWS,
            columns: COLUMNS,
            taps: vec![TAPS],
            depth: DEPTH,
            a: 0,
            b: right,
            finish,
            stores,
        });
        let sizes = [batch, rows, columns, taps, depth].map(Size::from);
        let mut kernel = kernel(&sizes, accesses, body);
        let mut bindings = Bindings::new();
        if self.symbolic {
            for (variable, size) in [batch, rows, columns, taps, depth].into_iter().enumerate() {
                let name = format!("s{variable}");
                bindings.insert(name.as_str().into(), size);
                kernel.variables[variable] = LoopVariable::Loop(Size::symbol(name.as_str()));
            }
        }
        let count = batch * rows * columns;
        let copies = if self.batched { batch } else { 1 };
        let mut memory = vec![
            match self.right {
                Right::Pairs => integers(batch * a_rows * depth, 600),
                _ => ramp(batch * a_rows * depth, 0.),
            },
            match self.right {
                Right::Coded(_) | Right::Scaled(..) => words(copies * taps * each),
                Right::Bf16 | Right::Pairs => {
                    let numbers = match self.right {
                        Right::Pairs => integers(copies * taps * each, 15),
                        _ => ramp(copies * taps * each, 1.),
                    };
                    let numbers = bytemuck::pod_collect_to_vec::<u8, [u16; 2]>(&numbers);
                    numbers.iter().flat_map(|[_, upper]| upper.to_ne_bytes()).collect()
                }
                _ => ramp(copies * taps * each, 1.),
            },
            ramp(count, 2.),
            ramp(columns, 3.),
            ramp(count, 4.),
        ];
        if let Finish::Two | Finish::Narrow = self.finish {
            memory.push(vec![0; 4 * count as usize]);
        }
        if let Right::Coded(_) = self.right {
            memory.push(ramp(16 * width, 5.));
        }
        if let Right::Scaled(_, have_zeros) = self.right {
            let rows = (depth + SCALE_DEPTHS - 1) / SCALE_DEPTHS * (1 + i64::from(have_zeros));
            memory.extend([ramp(16, 5.), integers(width * rows, 15)]);
        }
        (kernel, memory, bindings)
    }

    fn finish(&self, accesses: &mut Vec<Access>, turned: &[(u32, i64)], places: &[(u32, i64)]) -> (Block, Vec<Store>) {
        let mut block = Block::default();
        let sum = block.push(Instruction::Folded(0));
        let store = |access, value| Store { access, value, combine: None };
        let bias = |block: &mut Block, value| {
            let bias = block.push(Instruction::Load(3));
            block.push(Instruction::Binary(Binary::Add, bias, value))
        };
        let residual = |block: &mut Block, value| {
            let residual = block.push(Instruction::Load(4));
            block.push(Instruction::Binary(Binary::Add, value, residual))
        };
        let with = |block: &mut Block, function, value, number| {
            let number = block.push(literal(number));
            block.push(Instruction::Binary(function, value, number))
        };
        let result = match self.finish {
            Finish::Plain => sum,
            Finish::Known => {
                let scaled = with(&mut block, Binary::Multiply, sum, 0.5);
                let biased = bias(&mut block, scaled);
                let summed = residual(&mut block, biased);
                block.push(Instruction::Unary(Unary::Relu, summed))
            }
            Finish::Clip => {
                let biased = bias(&mut block, sum);
                let low = with(&mut block, Binary::Maximum, biased, -0.5);
                let high = with(&mut block, Binary::Minimum, low, 0.75);
                residual(&mut block, high)
            }
            Finish::Limited => {
                let summed = residual(&mut block, sum);
                let biased = bias(&mut block, summed);
                let positive = block.push(Instruction::Unary(Unary::Relu, biased));
                with(&mut block, Binary::Minimum, positive, 0.75)
            }
            Finish::Leaky => {
                let zero = block.push(literal(0.));
                let less = block.push(Instruction::Binary(Binary::Less, sum, zero));
                let product = with(&mut block, Binary::Multiply, sum, 0.1);
                block.push(Instruction::Select(less, product, sum))
            }
            Finish::Strip => {
                let biased = bias(&mut block, sum);
                let squared = block.push(Instruction::Binary(Binary::Multiply, biased, biased));
                let tanh = block.push(Instruction::Unary(Unary::Tanh, squared));
                block.push(Instruction::Binary(Binary::Subtract, tanh, biased))
            }
            Finish::Two => {
                accesses.push(access(5, F32, turned, 0));
                let biased = bias(&mut block, sum);
                return (block, vec![store(2, biased), store(5, sum)]);
            }
            Finish::Narrow => {
                accesses.push(access(5, ElementType::BF16, places, 0));
                let narrow = block.push(Instruction::Cast(ElementType::BF16, sum));
                return (block, vec![store(5, narrow)]);
            }
        };
        (block, vec![store(2, result)])
    }

    fn check(&self, target: &Target) -> Result<(), String> {
        let (kernel, memory, bindings) = self.kernel();
        check_with(&kernel, &memory, &bindings, &[], target, 0).map_err(|reason| format!("{self:?}: {reason}"))
    }
}

fn product() -> impl Strategy<Value = Product> {
    let size = || prop_oneof![1i64..20, Just(33), Just(64), Just(67)];
    let choices = (0..RIGHTS.len(), any::<bool>(), 0..FINISHES.len(), any::<bool>());
    (1i64..4, size(), size(), 1i64..4, size(), choices).prop_map(
        |(batch, rows, columns, taps, depth, (right, batched, finish, symbolic))| Product {
            batch,
            rows,
            columns,
            taps,
            depth,
            right: RIGHTS[right],
            batched,
            finish: FINISHES[finish],
            symbolic,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn products_are_their_definition(product in product()) {
        product.check(&Target::host().unwrap()).map_err(TestCaseError::fail)?;
    }
}

#[test]
fn products_of_several_blocks() {
    for (rows, columns, depth) in [(300, 40, 20), (5, 700, 30), (140, 300, 9)] {
        for right in RIGHTS {
            for finish in [Finish::Known, Finish::Strip] {
                for symbolic in [false, true] {
                    let product =
                        Product { batch: 2, rows, columns, taps: 2, depth, right, batched: false, finish, symbolic };
                    product.check(&Target::host().unwrap()).unwrap();
                }
            }
        }
    }
}

/// What tiles know is done in registers: nothing else keeps sums in scratch memory.
#[test]
fn known_finishes_need_no_memory_for_sums() {
    let target = Target::host().unwrap();
    let scratch = |finish| {
        let (batched, symbolic, right) = (false, false, Right::Packed);
        let product =
            Product { batch: 2, rows: 64, columns: 128, taps: 1, depth: 32, right, batched, finish, symbolic };
        emit_kernel(&product.kernel().0, &target).unwrap().unwrap().scratch
    };
    for finish in [Finish::Known, Finish::Clip, Finish::Limited, Finish::Leaky] {
        assert_eq!(scratch(finish), scratch(Finish::Plain), "{finish:?}");
    }
    assert_ne!(scratch(Finish::Strip), scratch(Finish::Plain));
}

/// The parity of a counter is not its number, though other variables have one position.
#[test]
fn counters_keep_their_parity() {
    let parity = IndexExpr::variable(1).remainder(&Size::from(2), &|_| Size::symbol("iterations"));
    let address = IndexExpr::new([(Atom::Variable(2), Size::ONE)], Size::ZERO).plus(&parity.times(&Size::from(8)));
    let state = Access { address, ..access(0, F32, &[], 0) };
    let mut block = Block::default();
    let value = block.push(Instruction::Load(1));
    let body = super::harness::map(&[0, 2], block, vec![Store { access: 0, value, combine: None }]);
    let mut kernel = kernel(&[1, 1, 8].map(Size::from), vec![state, access(1, F32, &[(2, 1)], 0)], body);
    kernel.variables[1] = LoopVariable::Counter(0);
    for iteration in 0..4 {
        check(&kernel, &[ramp(16, 0.), ramp(8, 1.)], &Bindings::new(), &[iteration]).unwrap();
    }
}
