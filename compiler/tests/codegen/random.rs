//! Random nests: any types, strides, guards, divisions, tables, gathers and folds, as maps or reductions.

use super::harness::{check, kernel};
use proptest::prelude::*;
use std::collections::BTreeMap;
use strang_compiler::plan::kernel::{Access, Block, Body, Fold, Guard, Instruction, Kernel, LoopVariable, Nest, Store};
use strang_ir::{
    Atom, Bindings, Condition, ElementType, IndexExpr, Literal, Size,
    generator::Random,
    op::Monoid,
    scalar::{Binary, Unary},
};

const SIZES: &[i64] = &[1, 2, 3, 4, 5, 7, 8, 13, 16, 17, 19, 32, 33, 64, 100];
const FOLDED: &[i64] = &[1, 2, 3, 5, 9, 16, 19, 37, 48];

/// A nest in the making.
pub struct Maker {
    pub choices: Random,
    pub extents: Vec<i64>,
    pub sizes: Vec<Size>,
    pub bindings: Bindings,
    pub accesses: Vec<Access>,
    pub memory: Vec<Vec<u8>>,
}

impl Maker {
    /// For variables of these sizes, some of which are symbols.
    pub fn new(mut choices: Random, extents: Vec<i64>) -> Self {
        let mut bindings = BTreeMap::new();
        let sizes = extents
            .iter()
            .enumerate()
            .map(|(place, extent)| {
                if !choices.one_in(3) {
                    return Size::from(*extent);
                }
                let name = format!("s{place}");
                bindings.insert(name.as_str().into(), *extent);
                Size::symbol(name)
            })
            .collect();
        Maker { choices, extents, sizes, bindings, accesses: Vec::new(), memory: Vec::new() }
    }

    pub fn element(&mut self) -> ElementType {
        if self.choices.one_in(2) { ElementType::F32 } else { self.choices.pick(&ElementType::ALL) }
    }

    /// An expression over some variables, of small values.
    fn expression(&mut self, variables: &[u32]) -> IndexExpr {
        let mut sum = IndexExpr::constant(self.choices.below(5) as i64 - 2);
        let mut stride = 1;
        let mut order: Vec<u32> = variables.to_vec();
        for place in (1..order.len()).rev() {
            let other = self.choices.below(place + 1);
            if self.choices.one_in(3) {
                order.swap(place, other);
            }
        }
        for variable in order.into_iter().rev() {
            if self.choices.one_in(5) {
                continue;
            }
            let extent = self.extents[variable as usize];
            let coefficient = match self.choices.below(12) {
                0 => -stride,
                1 => stride * 2,
                2 => self.choices.below(4) as i64,
                _ => stride,
            };
            let plain = IndexExpr::variable(variable);
            let term = match self.choices.below(14) {
                0 => IndexExpr::atom(Atom::FloorDiv(Box::new(plain.plus_size(&Size::from(-3))), Size::from(3))),
                1 => IndexExpr::atom(Atom::Remainder(Box::new(plain.plus_size(&Size::from(-2))), Size::from(4))),
                2 => IndexExpr::atom(Atom::Clamp(Box::new(plain), Size::from(1), Size::from(extent / 2 + 1))),
                3 => {
                    let table: Vec<i64> = (0..extent).map(|_| self.choices.below(9) as i64).collect();
                    IndexExpr::table(table.into(), plain)
                }
                _ => plain,
            };
            sum = sum.plus(&term.times(&Size::from(coefficient)));
            stride *= extent;
        }
        sum
    }

    fn each_position(&self, variables: &[u32], visit: &mut dyn FnMut(&[i64])) {
        let mut position = vec![0; self.extents.len()];
        loop {
            visit(&position);
            let mut place = variables.len();
            loop {
                if place == 0 {
                    return;
                }
                place -= 1;
                let variable = variables[place] as usize;
                position[variable] += 1;
                if position[variable] < self.extents[variable] {
                    break;
                }
                position[variable] = 0;
            }
        }
    }

    fn fresh_memory(&mut self, element: ElementType, count: i64) -> u32 {
        let bytes = element.bytes_of(count as usize).unwrap();
        let kind = self.choices.below(3);
        let memory: Vec<u8> = match element {
            ElementType::Bool => (0..bytes).map(|_| (self.choices.bits() & 1) as u8).collect(),
            _ if element.is_float() => (0..count)
                .flat_map(|_| {
                    let value = match (kind, self.choices.below(20)) {
                        (0, 0) => self.choices.pick(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0., 0., 1e-42, 7e4]),
                        (0, 1) => self.choices.below(100) as f64 - 50.,
                        _ => self.choices.bits() as i32 as f64 / f64::from(1 << 29),
                    };
                    Literal::from_f64(element, value).bits.to_le_bytes()[..element.bytes().unwrap()].to_vec()
                })
                .collect(),
            _ => {
                // Small numbers, mostly, so that divisions and comparisons are interesting.
                (0..count as usize)
                    .map(|_| {
                        let value =
                            if kind == 0 { self.choices.bits() as i64 } else { self.choices.below(9) as i64 - 3 };
                        value as u64
                    })
                    .fold((vec![0u8; bytes], 0usize), |(mut memory, bit), value| {
                        match element.bytes() {
                            Some(size) => memory[bit / 8..bit / 8 + size].copy_from_slice(&value.to_le_bytes()[..size]),
                            None => {
                                let mask = (1u64 << element.bits()) - 1;
                                memory[bit / 8] |= ((value & mask) as u8) << (bit % 8);
                            }
                        }
                        (memory, bit + element.bits() as usize)
                    })
                    .0
            }
        };
        self.memory.push(memory);
        self.memory.len() as u32 - 1
    }

    /// A read somewhere in fresh memory that is long enough.
    pub fn read(&mut self, element: ElementType, variables: &[u32], may_gather: bool) -> u32 {
        let mut address = self.expression(variables);
        let mut guard = None;
        if self.choices.one_in(4) {
            let mut conditions = Vec::new();
            for _ in 0..=self.choices.below(2) {
                let few: Vec<u32> = variables.iter().copied().filter(|_| self.choices.one_in(2)).collect();
                let expression = self.expression(&few);
                conditions.push(if self.choices.one_in(4) {
                    Condition::Divisible { expression, divisor: Size::from(2) }
                } else {
                    let high = self.choices.below(30) as i64;
                    Condition::Range {
                        expression,
                        low: Size::from(self.choices.below(4) as i64 - 1),
                        high: high.into(),
                    }
                });
            }
            let fill = match self.choices.below(3) {
                0 => Literal::zero(element),
                1 => Literal::lowest(element),
                _ => Literal::from_f64(element, 2.),
            };
            guard = Some(Guard { conditions, fill });
        }
        let mut checked = Vec::new();
        let mut read_most = 0;
        if may_gather && guard.is_none() && self.choices.one_in(5) {
            let index_type = self.choices.pick(&[ElementType::I64, ElementType::I32, ElementType::U8]);
            let few: Vec<u32> = variables.iter().copied().filter(|_| self.choices.one_in(2)).collect();
            let index = self.read(index_type, &few, false);
            let limit = if self.choices.one_in(6) { 4 } else { 300 };
            // Memory holds small numbers of either sign: the sum with 3 lies in the axis but for wild ones.
            let read = IndexExpr::atom(Atom::Read(index)).plus_size(&Size::from(3));
            checked.push((read.clone(), Size::from(limit)));
            address = address.plus(&read);
            read_most = limit;
        }
        let (mut least, mut most) = (0, 0);
        let bindings = self.bindings.clone();
        self.each_position(variables, &mut |position| {
            let eval = |e: &IndexExpr| e.eval(position, &mut |_| -3, &bindings).unwrap();
            let inside = guard.iter().flat_map(|guard: &Guard| &guard.conditions).all(|condition| match condition {
                Condition::Range { expression, low, high } => {
                    (low.as_constant().unwrap()..high.as_constant().unwrap()).contains(&eval(expression))
                }
                Condition::Divisible { expression, divisor } => {
                    eval(expression).rem_euclid(divisor.as_constant().unwrap()) == 0
                }
            });
            if inside {
                let value = eval(&address);
                least = least.min(value);
                most = most.max(value);
            }
        });
        let address = address.plus_size(&Size::from(-least));
        let pointer = self.fresh_memory(element, most - least + 1 + read_most);
        self.accesses.push(Access { pointer, element, address, guard, checked });
        self.accesses.len() as u32 - 1
    }

    /// A dense write over variables in any order, at times with gaps.
    pub fn write(&mut self, element: ElementType, variables: &[u32]) -> u32 {
        let mut order = variables.to_vec();
        if self.choices.one_in(3) {
            order.reverse();
        }
        let mut stride = if self.choices.one_in(6) { 2 } else { 1 };
        let mut address = IndexExpr::default();
        for variable in order.into_iter().rev() {
            address = address.plus(&IndexExpr::variable(variable).times(&Size::from(stride)));
            stride *= self.extents[variable as usize];
        }
        // Neighbouring workers must not share a byte.
        let pointer = self.fresh_memory(element, stride);
        self.accesses.push(Access { pointer, element, address, guard: None, checked: Vec::new() });
        self.accesses.len() as u32 - 1
    }

    /// Instructions on top of some values.
    pub fn compute(&mut self, block: &mut Block, folded: &[ElementType], variables: &[u32]) {
        for _ in 0..self.choices.below(7) {
            let elements = block.elements(&self.accesses, folded);
            let a = self.choices.below(elements.len()) as u32;
            let element = elements[a as usize];
            let others: Vec<u32> =
                (0..elements.len() as u32).filter(|other| elements[*other as usize] == element).collect();
            let b = self.choices.pick(&others);
            let instruction = match self.choices.below(10) {
                0..3 => Instruction::Unary(self.choices.pick(Unary::ALL), a),
                3..7 => Instruction::Binary(self.choices.pick(Binary::ALL), a, b),
                7 => {
                    let Some(condition) = elements.iter().position(|element| *element == ElementType::Bool) else {
                        continue;
                    };
                    Instruction::Select(condition as u32, a, b)
                }
                8 => Instruction::Cast(self.element(), a),
                _ => match self.choices.below(3) {
                    0 if !variables.is_empty() => Instruction::Index(self.choices.pick(variables)),
                    1 => Instruction::Literal(Literal::from_f64(element, self.choices.below(5) as f64 - 1.5)),
                    _ => Instruction::Size(self.choices.pick(&[3i64, 0]).into()),
                },
            };
            let accepted = match instruction {
                Instruction::Unary(function, _) => function.accepts(element),
                Instruction::Binary(function, ..) => match function {
                    Binary::And | Binary::Or | Binary::Xor => !element.is_float(),
                    Binary::ShiftLeft | Binary::ShiftRight => element.is_integer(),
                    Binary::Equal | Binary::NotEqual | Binary::Minimum | Binary::Maximum => true,
                    _ => element != ElementType::Bool,
                },
                _ => true,
            };
            if accepted {
                block.push(instruction);
            }
        }
    }

    fn fold(&mut self, block: &mut Block) -> Fold {
        let elements = block.elements(&self.accesses, &[]);
        let value = if self.choices.one_in(3) { self.choices.below(elements.len()) } else { elements.len() - 1 } as u32;
        let element = elements[value as usize];
        let when = elements.iter().position(|element| *element == ElementType::Bool).map(|when| when as u32);
        let when = when.filter(|_| self.choices.one_in(2));
        let factor =
            (0..elements.len() as u32).rev().find(|other| elements[*other as usize] == element).unwrap_or(value);
        let halves = matches!(element, ElementType::F16 | ElementType::BF16);
        match self.choices.below(6) {
            0 | 1 if !halves && element != ElementType::Bool => Fold::MultiplyAdd { a: value, b: factor, when },
            2 => Fold::Arg { value, largest: self.choices.one_in(2), last: self.choices.one_in(2) },
            _ => {
                let monoids: &[Monoid] = match element {
                    ElementType::Bool => &[Monoid::And, Monoid::Or],
                    _ if element.is_float() => &[Monoid::Sum, Monoid::Product, Monoid::Minimum, Monoid::Maximum],
                    _ => &Monoid::ALL,
                };
                Fold::Monoid { monoid: self.choices.pick(monoids), value, when }
            }
        }
    }
}

/// A random nest with memory for it.
fn nest(seed: u64) -> (Kernel, Vec<Vec<u8>>, Bindings) {
    let mut choices = Random::new(seed);
    let space_count = choices.below(4);
    let contracted_count = choices.below(3);
    let (mut extents, mut total) = (Vec::new(), 1);
    for place in 0..space_count + contracted_count {
        let from = if place < space_count { SIZES } else { FOLDED };
        let mut extent = choices.pick(from);
        while total * extent > 12_000 {
            extent = extent / 2 + extent % 2;
            if extent == 1 {
                break;
            }
        }
        total *= extent;
        extents.push(extent);
    }
    let mut maker = Maker::new(choices, extents);
    let space: Vec<u32> = (0..space_count as u32).collect();
    let contracted: Vec<u32> = (space_count as u32..(space_count + contracted_count) as u32).collect();
    let all = [space.clone(), contracted.clone()].concat();
    let mut body = Block::default();
    for _ in 0..=maker.choices.below(2) {
        let element = maker.element();
        let access = maker.read(element, &all, true);
        body.push(Instruction::Load(access));
        if maker.accesses[access as usize].guard.is_some() && maker.choices.one_in(3) {
            body.push(Instruction::Inside(access));
        }
    }
    maker.compute(&mut body, &[], &all);
    let (mut folds, mut finish) = (Vec::new(), Block::default());
    let is_fold = !contracted.is_empty();
    let mut folded = Vec::new();
    if is_fold {
        for _ in 0..=maker.choices.below(4) / 3 {
            let fold = maker.fold(&mut body);
            let elements = body.elements(&maker.accesses, &[]);
            folded.push(match &fold {
                Fold::MultiplyAdd { a: value, .. } | Fold::Monoid { value, .. } => elements[*value as usize],
                Fold::Arg { .. } => ElementType::I64,
            });
            folds.push(fold);
        }
        for fold in 0..folds.len() {
            finish.push(Instruction::Folded(fold as u32));
        }
        if maker.choices.one_in(2) {
            let element = maker.element();
            let access = maker.read(element, &space, true);
            finish.push(Instruction::Load(access));
        }
        maker.compute(&mut finish, &folded, &space);
    }
    let last = if is_fold { &finish } else { &body };
    let elements = last.elements(&maker.accesses, &folded);
    let mut stores = Vec::new();
    for value in [elements.len() - 1, maker.choices.below(elements.len())] {
        if stores.is_empty() || maker.choices.one_in(3) {
            let access = maker.write(elements[value], &space);
            stores.push(Store { access, value: value as u32, combine: None });
        }
    }
    // Workers must not share the bytes of types of less than one.
    let packed = stores.iter().any(|store| maker.accesses[store.access as usize].element.bits() < 8);
    let parallel = if packed { Vec::new() } else { space.clone() };
    let nest = Nest { space, parallel, contracted, body, folds, finish, stores };
    let mut kernel = kernel(&maker.sizes, maker.accesses, Body::Nest(nest));
    for (variable, size) in kernel.variables.iter_mut().zip(&maker.sizes) {
        *variable = LoopVariable::Loop(size.clone());
    }
    (kernel, maker.memory, maker.bindings)
}

/// Runs the nests of some seeds and prints what fails: `SEEDS=0..500 cargo test -- --ignored --nocapture seeds`, or one
/// seed with its kernel.
#[test]
#[ignore = "a tool for looking into failures"]
fn seeds() {
    let seeds = std::env::var("SEEDS").unwrap_or_default();
    let (first, last) = match seeds.split_once("..") {
        Some((first, last)) => (first.parse().unwrap_or(0), last.parse().unwrap_or(0)),
        None => seeds.parse().map_or((0, 0), |seed: u64| (seed, seed + 1)),
    };
    for seed in first..last {
        let (kernel, memory, bindings) = nest(seed);
        let result = std::panic::catch_unwind(|| check(&kernel, &memory, &bindings, &[]));
        match result.unwrap_or_else(|_| Err("panic".to_owned())) {
            Ok(()) => {}
            Err(text) => println!("{seed}: {text}"),
        }
        if last - first == 1 {
            println!("{kernel:?}\n{bindings:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn random_nests(seed: u64) {
        let (kernel, memory, bindings) = nest(seed);
        if let Err(text) = check(&kernel, &memory, &bindings, &[]) {
            return Err(TestCaseError::fail(format!("seed {seed}: {text}\n{kernel:?}\n{bindings:?}")));
        }
    }
}
