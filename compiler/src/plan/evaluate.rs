//! Kernels evaluated straight from their definition, on plain memory: what generated code is tested against.
//!
//! Slow, and obviously right: every position is
//! visited, every expression evaluated, nothing precomputed.

mod attention;
mod table;

pub use table::table;

use super::kernel::{
    Access, Block, Body, CodeScales, Fold, Gemm, Instruction, Kernel, LoopVariable, Nest, RightOperand, RowOperation,
    Rows, Store,
};
use crate::codegen::strip::strip_of;
use half::{bf16, f16};
use strang_ir::{
    Bindings, Condition, ElementType, IndexExpr, Literal, Size,
    op::Monoid,
    scalar::{Binary, Unary},
};
use strang_runtime::{
    kernels::{self, fma::fma, scalar64},
    size::SizeError,
    tensor::{bits_to_f64, bits_to_integer},
};

/// A value: floats of all types as f64, which holds them exactly, the others as integers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A float.
    Float(f64),
    /// An integer or `bool`.
    Integer(i128),
}

/// Why an evaluation ended early.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluateError {
    /// An index read from data lies outside its axis.
    #[error("an index lies outside its axis")]
    Index,
    /// A size has no value.
    #[error(transparent)]
    Size(#[from] SizeError),
}

/// Evaluates a kernel. `memory` has the bytes of every buffer of the plan.
///
/// # Errors
/// An index outside its axis, or a size without a value.
///
/// # Panics
/// When the kernel reads or writes outside its buffers, or is one of the runtime's.
pub fn evaluate(
    kernel: &Kernel,
    memory: &mut [Vec<u8>],
    bindings: &Bindings,
    counters: &[i64],
) -> Result<(), EvaluateError> {
    let variables = kernel.variables.iter().map(|variable| match variable {
        LoopVariable::Loop(_) => 0,
        LoopVariable::Counter(depth) => counters[*depth as usize],
    });
    // Reads whose values nothing needs do not happen, and so cannot fail.
    let kernel = &crate::codegen::collapse::pruned(kernel);
    let mut machine = Machine { kernel, memory, bindings, variables: variables.collect() };
    match &kernel.body {
        Body::Nest(nest) => machine.nest(nest),
        Body::Rows(rows) => machine.rows(rows),
        Body::Gemm(gemm) => machine.gemm(gemm),
        Body::Attention(attention) => machine.attention(attention),
        Body::Depthwise(depthwise) => machine.nest(&depthwise.nest(&kernel.accesses)),
        Body::Bands(bands) => {
            machine.gemm(&bands.producer)?;
            machine.nest(&bands.consumer.nest(&kernel.accesses))
        }
        Body::Builtin { .. } => panic!("kernels of the runtime are not evaluated"),
    }
}

struct Machine<'m> {
    kernel: &'m Kernel,
    memory: &'m mut [Vec<u8>],
    bindings: &'m Bindings,
    variables: Vec<i64>,
}

type Outcome<T = ()> = Result<T, EvaluateError>;

impl Machine<'_> {
    /// Calls `visit` at every position of some variables, in order.
    fn for_each(&mut self, variables: &[u32], visit: &mut dyn FnMut(&mut Self) -> Outcome) -> Outcome {
        let Some((first, rest)) = variables.split_first() else { return visit(self) };
        let LoopVariable::Loop(size) = &self.kernel.variables[*first as usize] else { return Ok(()) };
        for position in 0..size.eval(self.bindings)? {
            self.variables[*first as usize] = position;
            self.for_each(rest, visit)?;
        }
        Ok(())
    }

    fn index(&self, expression: &IndexExpr) -> Outcome<i64> {
        let mut failed = None;
        let value = expression.eval(
            &self.variables,
            &mut |access| match self.load(access) {
                Ok(Number::Integer(value)) => value as i64,
                Ok(Number::Float(_)) => 0,
                Err(error) => {
                    failed = Some(error);
                    0
                }
            },
            self.bindings,
        )?;
        failed.map_or(Ok(value), Err)
    }

    fn size(&self, size: &Size) -> Outcome<i64> {
        Ok(size.eval(self.bindings)?)
    }

    fn inside(&self, access: &Access) -> Outcome<bool> {
        for condition in access.guard.iter().flat_map(|guard| &guard.conditions) {
            let value = self.index(condition.expression())?;
            let holds = match condition {
                Condition::Range { low, high, .. } => self.size(low)? <= value && value < self.size(high)?,
                Condition::Divisible { divisor, .. } => value.rem_euclid(self.size(divisor)?) == 0,
            };
            if !holds {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The buffer and the first bit of an element.
    fn place(&self, access: &Access) -> Outcome<(usize, usize)> {
        for (expression, size) in &access.checked {
            if !(0..self.size(size)?).contains(&self.index(expression)?) {
                return Err(EvaluateError::Index);
            }
        }
        let pointer = &self.kernel.pointers[access.pointer as usize];
        let bits = self.size(&pointer.offset)? * 8 + self.index(&access.address)? * i64::from(access.element.bits());
        Ok((pointer.buffer as usize, usize::try_from(bits).expect("an access before its buffer")))
    }

    fn load(&self, access: u32) -> Outcome<Number> {
        let access = &self.kernel.accesses[access as usize];
        if let Some(guard) = &access.guard
            && !self.inside(access)?
        {
            return Ok(number(access.element, guard.fill.bits));
        }
        let (buffer, bit) = self.place(access)?;
        Ok(number(access.element, read_bits(&self.memory[buffer], access.element, bit)))
    }

    fn store(&mut self, stores: &[Store], values: &[Number]) -> Outcome {
        for store in stores {
            let access = &self.kernel.accesses[store.access as usize];
            let mut value = values[store.value as usize];
            if let Some(monoid) = store.combine {
                value = binary(combining(monoid), access.element, self.load(store.access)?, value);
            }
            let (buffer, bit) = self.place(access)?;
            write_bits(&mut self.memory[buffer], access.element, bit, bits(access.element, value));
        }
        Ok(())
    }

    fn block(&self, block: &Block, elements: &[ElementType], folded: &[Number]) -> Outcome<Vec<Number>> {
        let mut values: Vec<Number> = Vec::with_capacity(elements.len());
        for instruction in &block.instructions {
            let of = |value: &u32| values[*value as usize];
            let value = match instruction {
                Instruction::Load(access) => self.load(*access)?,
                Instruction::Inside(access) => {
                    Number::Integer(self.inside(&self.kernel.accesses[*access as usize])?.into())
                }
                Instruction::Index(variable) => Number::Integer(self.variables[*variable as usize].into()),
                Instruction::Size(size) => Number::Integer(self.size(size)?.into()),
                Instruction::Literal(literal) => number(literal.element, literal.bits),
                Instruction::Unary(function, a) => unary(*function, elements[*a as usize], of(a)),
                Instruction::Binary(function, a, b) => binary(*function, elements[*a as usize], of(a), of(b)),
                Instruction::Select(condition, a, b) => {
                    if of(condition) == Number::Integer(0) {
                        of(b)
                    } else {
                        of(a)
                    }
                }
                Instruction::Cast(element, a) => cast(*element, of(a)),
                Instruction::Folded(fold) => folded[*fold as usize],
            };
            values.push(value);
        }
        Ok(values)
    }

    fn nest(&mut self, nest: &Nest) -> Outcome {
        let elements = nest.body.elements(&self.kernel.accesses, &[]);
        let folded: Vec<ElementType> = nest.folds.iter().map(|fold| fold_element(fold, &elements)).collect();
        let finish_elements = nest.finish.elements(&self.kernel.accesses, &folded);
        self.for_each(&nest.space, &mut |machine| {
            if nest.folds.is_empty() {
                let values = machine.block(&nest.body, &elements, &[])?;
                return machine.store(&nest.stores, &values);
            }
            let mut results = Vec::new();
            for fold in &nest.folds {
                results.push(machine.fold(nest, fold, &elements)?);
            }
            let values = machine.block(&nest.finish, &finish_elements, &results)?;
            machine.store(&nest.stores, &values)
        })
    }

    fn fold(&mut self, nest: &Nest, fold: &Fold, elements: &[ElementType]) -> Outcome<Number> {
        let holds =
            |when: &Option<u32>, values: &[Number]| when.is_none_or(|when| values[when as usize] != Number::Integer(0));
        match fold {
            Fold::MultiplyAdd { a, b, when } => {
                let element = elements[*a as usize];
                let mut sum = number(element, 0);
                self.for_each(&nest.contracted, &mut |machine| {
                    let values = machine.block(&nest.body, elements, &[])?;
                    if holds(when, &values) {
                        sum = multiply_add(element, values[*a as usize], values[*b as usize], sum);
                    }
                    Ok(())
                })?;
                Ok(sum)
            }
            Fold::Monoid { monoid, value, when } => {
                let element = elements[*value as usize];
                let inner = match element {
                    ElementType::F16 | ElementType::BF16 => ElementType::F32,
                    other => other,
                };
                let lanes = super::kernel::lane_sum(self.kernel, nest, fold);
                let mut total = number(inner, monoid.neutral(inner).bits);
                let (outer, row) = match nest.contracted.split_last() {
                    Some((last, outer)) if lanes => (outer, std::slice::from_ref(last)),
                    _ => (nest.contracted.as_slice(), &[][..]),
                };
                self.for_each(outer, &mut |machine| {
                    let mut sums = [number(inner, 0); 16];
                    let mut next = 0;
                    machine.for_each(row, &mut |machine| {
                        let values = machine.block(&nest.body, elements, &[])?;
                        if !lanes {
                            if holds(when, &values) {
                                total = binary(combining(*monoid), inner, total, values[*value as usize]);
                            }
                        } else {
                            let zero = number(inner, 0);
                            let term = if holds(when, &values) { values[*value as usize] } else { zero };
                            sums[next % 16] = binary(Binary::Add, inner, sums[next % 16], term);
                            next += 1;
                        }
                        Ok(())
                    })?;
                    if lanes {
                        total = binary(Binary::Add, inner, total, tree(inner, sums));
                    }
                    Ok(())
                })?;
                Ok(cast(element, total))
            }
            Fold::Arg { value, largest, last } => {
                let (mut best, mut found, mut position) = (None, 0, 0);
                self.for_each(&nest.contracted, &mut |machine| {
                    let value = machine.block(&nest.body, elements, &[])?[*value as usize];
                    if best.is_none_or(|best| beats(value, best, *largest, *last)) {
                        (best, found) = (Some(value), position);
                    }
                    position += 1;
                    Ok(())
                })?;
                Ok(Number::Integer(found))
            }
        }
    }

    fn gemm(&mut self, gemm: &Gemm) -> Outcome {
        let element = gemm.sum(&self.kernel.accesses);
        let elements = gemm.finish.elements(&self.kernel.accesses, &[element]);
        let space: Vec<u32> = gemm.batch.iter().copied().chain([gemm.rows, gemm.columns]).collect();
        let contracted: Vec<u32> = gemm.taps.iter().copied().chain([gemm.depth]).collect();
        let is_rounded = matches!(gemm.b, RightOperand::Pairs(_));
        self.for_each(&space, &mut |machine| {
            let mut sum = number(element, 0);
            machine.for_each(&contracted, &mut |machine| {
                let (a, b) = (machine.load(gemm.a)?, machine.right(gemm)?);
                let a = if is_rounded { cast(ElementType::BF16, a) } else { a };
                sum = multiply_add(element, a, b, sum);
                Ok(())
            })?;
            let values = machine.block(&gemm.finish, &elements, &[sum])?;
            machine.store(&gemm.stores, &values)
        })
    }

    /// The element of the right operand of a product.
    fn right(&self, gemm: &Gemm) -> Outcome<Number> {
        if let RightOperand::Strided(access) = gemm.b {
            return self.load(access);
        }
        let access = &self.kernel.accesses[gemm.b.access() as usize];
        let LoopVariable::Loop(depth) = &self.kernel.variables[gemm.depth as usize] else {
            return Ok(Number::Float(0.));
        };
        let (k, column) = (self.variables[gemm.depth as usize], self.variables[gemm.columns as usize]);
        let (depth, element) = (self.size(depth)?, access.element);
        if let RightOperand::Coded { book, by_column, scales, .. } = gemm.b {
            let bits = i64::from(gemm.b.code_bits());
            let of_word = 32 / bits;
            let words = (depth + 7) / 8 * 8 / of_word;
            let word = (column / 16 * words + k / of_word) * 16 + column % 16;
            let (buffer, bit) = self.place(access)?;
            let code = if bits == 8 { ElementType::U8 } else { ElementType::U4 };
            let bit = bit + word as usize * 32 + (k % of_word * bits) as usize;
            let code = read_bits(&self.memory[buffer], code, bit);
            let float = |access: u32, entry: i64| -> Outcome<f32> {
                let (buffer, bit) = self.place(&self.kernel.accesses[access as usize])?;
                let bits = read_bits(&self.memory[buffer], ElementType::F32, bit + entry as usize * 32);
                Ok(f32::from_bits(bits as u32))
            };
            let entry = if by_column > 0 { (column / 16 * 16 + code as i64) * 16 + column % 16 } else { code as i64 };
            let mut value = if bits == 8 { code as f32 } else { float(book, entry)? };
            if let Some(CodeScales { rows, depths, have_zeros, .. }) = scales {
                let (depths, of_group) = (depths as i64, 1 + i64::from(have_zeros));
                let row = (column / 16 * ((depth + depths - 1) / depths) + k / depths) * of_group;
                if have_zeros {
                    value -= float(rows, (row + 1) * 16 + column % 16)?;
                }
                value *= float(rows, row * 16 + column % 16)?;
            }
            return Ok(Number::Float(value.into()));
        }
        let within = match element {
            ElementType::BF16 if matches!(gemm.b, RightOperand::Pairs(_)) => {
                column / 16 * 16 * ((depth + 1) / 2 * 2) + k / 2 * 32 + column % 16 * 2 + k % 2
            }
            ElementType::F32 | ElementType::BF16 => column / 16 * 16 * depth + 16 * k + column % 16,
            _ => column / 16 * 16 * ((depth + 3) / 4 * 4) + k / 4 * 64 + column % 16 * 4 + k % 4,
        };
        let (buffer, bit) = self.place(access)?;
        let bit = bit + within as usize * element.bits() as usize;
        Ok(number(element, read_bits(&self.memory[buffer], element, bit)))
    }

    fn rows(&mut self, rows: &Rows) -> Outcome {
        let elements = rows.prologue.elements(&self.kernel.accesses, &[]);
        let finish_elements = rows.finish.elements(&self.kernel.accesses, &[ElementType::F32]);
        self.for_each(&rows.space, &mut |machine| {
            let mut row: Vec<f32> = Vec::new();
            machine.for_each(&rows.row, &mut |machine| {
                let values = machine.block(&rows.prologue, &elements, &[])?;
                machine.store(&rows.prologue_stores, &values)?;
                if let Number::Float(value) = values[rows.value as usize] {
                    row.push(value as f32);
                }
                Ok(())
            })?;
            row_operation(rows.operation, &mut row);
            let mut results = row.into_iter();
            machine.for_each(&rows.row, &mut |machine| {
                let folded = Number::Float(results.next().unwrap_or(f32::NAN).into());
                let values = machine.block(&rows.finish, &finish_elements, &[folded])?;
                machine.store(&rows.stores, &values)
            })
        })
    }
}

/// The row operation in f32, sums in sixteen lanes; it agrees with the row primitives to a few units in the last place.
fn row_operation(operation: RowOperation, row: &mut [f32]) {
    let count = row.len() as f32;
    let sum = |values: &[f32]| {
        let mut lanes = [Number::Float(0.); 16];
        for (position, value) in values.iter().enumerate() {
            let value = Number::Float((*value).into());
            lanes[position % 16] = binary(Binary::Add, ElementType::F32, lanes[position % 16], value);
        }
        match tree(ElementType::F32, lanes) {
            Number::Float(sum) => sum as f32,
            Number::Integer(_) => 0.,
        }
    };
    let of = |function, x| match unary(function, ElementType::F32, Number::Float(f64::from(x))) {
        Number::Float(value) => value as f32,
        Number::Integer(_) => 0.,
    };
    match operation {
        RowOperation::Softmax | RowOperation::LogSoftmax => {
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, |a, b| if a > b || a.is_nan() { a } else { b });
            let exponentials: Vec<f32> = row.iter().map(|x| of(Unary::Exp, x - largest)).collect();
            let total = sum(&exponentials);
            let logarithm = of(Unary::Log, total);
            for (value, exponential) in row.iter_mut().zip(exponentials) {
                *value = match operation {
                    RowOperation::Softmax => exponential / total,
                    _ => *value - largest - logarithm,
                };
            }
        }
        RowOperation::LayerNorm { epsilon } | RowOperation::RmsNorm { epsilon } => {
            if matches!(operation, RowOperation::LayerNorm { .. }) {
                let mean = sum(row) / count;
                row.iter_mut().for_each(|value| *value -= mean);
            }
            let squares: Vec<f32> = row.iter().map(|value| value * value).collect();
            let factor = 1. / (sum(&squares) / count + epsilon).sqrt();
            row.iter_mut().for_each(|value| *value *= factor);
        }
    }
}

fn tree(element: ElementType, mut lanes: [Number; 16]) -> Number {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] = binary(Binary::Add, element, lanes[lane], lanes[lane + half]);
        }
    }
    lanes[0]
}

fn fold_element(fold: &Fold, elements: &[ElementType]) -> ElementType {
    match fold {
        Fold::MultiplyAdd { a, .. } => elements[*a as usize],
        Fold::Monoid { value, .. } => elements[*value as usize],
        Fold::Arg { .. } => ElementType::I64,
    }
}

fn number(element: ElementType, bits: u64) -> Number {
    if element.is_float() {
        Number::Float(bits_to_f64(element, bits))
    } else {
        Number::Integer(bits_to_integer(element, bits))
    }
}

fn bits(element: ElementType, value: Number) -> u64 {
    match (value, element) {
        (Number::Integer(value), _) => value as u64,
        (Number::Float(value), ElementType::F64) => value.to_bits(),
        (Number::Float(value), ElementType::F16) => f16::from_f32(to_odd(value)).to_bits().into(),
        (Number::Float(value), ElementType::BF16) => bf16::from_f32(to_odd(value)).to_bits().into(),
        (Number::Float(value), _) => (value as f32).to_bits().into(),
    }
}

fn read_bits(memory: &[u8], element: ElementType, bit: usize) -> u64 {
    match element.bytes() {
        Some(bytes) => {
            let mut word = [0; 8];
            word[..bytes].copy_from_slice(&memory[bit / 8..bit / 8 + bytes]);
            u64::from_le_bytes(word)
        }
        None => u64::from(memory[bit / 8] >> (bit % 8)) & ((1 << element.bits()) - 1),
    }
}

fn write_bits(memory: &mut [u8], element: ElementType, bit: usize, value: u64) {
    match element.bytes() {
        Some(bytes) => memory[bit / 8..bit / 8 + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]),
        None => {
            let mask = ((1u64 << element.bits()) - 1) as u8;
            let byte = &mut memory[bit / 8];
            *byte = *byte & !(mask << (bit % 8)) | (value as u8 & mask) << (bit % 8);
        }
    }
}

fn round(element: ElementType, value: f64) -> f64 {
    match element {
        ElementType::F32 => f64::from(value as f32),
        ElementType::F16 => f16::from_f32(to_odd(value)).to_f64(),
        ElementType::BF16 => bf16::from_f32(to_odd(value)).to_f64(),
        _ => value,
    }
}

/// The f32 next to a value, the one with an odd last bit unless it is exact, so that rounding it once more to a half type
/// rounds the value correctly. (Conversions of the `half` crate from f64 ignore the low half of the bits.)
fn to_odd(value: f64) -> f32 {
    let near = value as f32;
    let error = value - f64::from(near);
    if !near.is_finite() || error == 0. {
        return near;
    }
    let towards_zero = if (error > 0.) == (near > 0.) || near == 0. { near.to_bits() } else { near.to_bits() - 1 };
    f32::from_bits(towards_zero | 1)
}

fn wrap(element: ElementType, value: i128) -> Number {
    if element == ElementType::Bool {
        return Number::Integer((value != 0).into());
    }
    let unused = 128 - element.bits();
    Number::Integer(if element.is_signed_integer() {
        value << unused >> unused
    } else {
        ((value as u128) << unused >> unused) as i128
    })
}

fn cast(element: ElementType, value: Number) -> Number {
    match value {
        Number::Float(value) if element.is_float() => Number::Float(round(element, value)),
        Number::Float(value) => number(element, Literal::from_f64(element, value).bits),
        Number::Integer(value) if element == ElementType::F64 => Number::Float(value as f64),
        Number::Integer(value) if element.is_float() => Number::Float(round(element, f64::from(value as f32))),
        Number::Integer(value) => wrap(element, value),
    }
}

fn combining(monoid: Monoid) -> Binary {
    match monoid {
        Monoid::Sum => Binary::Add,
        Monoid::Product => Binary::Multiply,
        Monoid::Minimum => Binary::Minimum,
        Monoid::Maximum => Binary::Maximum,
        Monoid::And => Binary::And,
        Monoid::Or => Binary::Or,
    }
}

fn beats(value: Number, best: Number, largest: bool, last: bool) -> bool {
    match (value, best) {
        (Number::Integer(value), Number::Integer(best)) => {
            if value == best {
                last
            } else {
                (value > best) == largest
            }
        }
        (Number::Float(value), Number::Float(best)) => match (value.is_nan(), best.is_nan()) {
            (true, true) => last,
            (true, false) => true,
            (false, true) => false,
            (false, false) if value == best => last,
            (false, false) => (value > best) == largest,
        },
        _ => false,
    }
}

fn multiply_add(element: ElementType, a: Number, b: Number, sum: Number) -> Number {
    match (a, b, sum, element) {
        (Number::Float(a), Number::Float(b), Number::Float(sum), ElementType::F64) => Number::Float(a.mul_add(b, sum)),
        (Number::Float(a), Number::Float(b), Number::Float(sum), ElementType::F32) => {
            Number::Float(fma(a as f32, b as f32, sum as f32).into())
        }
        _ => binary(Binary::Add, element, sum, binary(Binary::Multiply, element, a, b)),
    }
}

/// A function of one value.
pub fn unary(function: Unary, element: ElementType, value: Number) -> Number {
    let x = match value {
        Number::Float(x) => x,
        Number::Integer(x) => {
            return wrap(
                element,
                match function {
                    Unary::Negate => -x,
                    Unary::Absolute => x.abs(),
                    Unary::Sign => x.signum(),
                    Unary::Relu => x.max(0),
                    Unary::Not if element == ElementType::Bool => 1 - x,
                    Unary::Not => !x,
                    _ => x,
                },
            );
        }
    };
    let single = element != ElementType::F64;
    let result = match function {
        Unary::Negate => -x,
        Unary::Absolute => x.abs(),
        Unary::Sign if x == 0. || x.is_nan() => x,
        Unary::Sign => 1f64.copysign(x),
        Unary::Floor => x.floor(),
        Unary::Ceil => x.ceil(),
        Unary::Round => x.round_ties_even(),
        Unary::Truncate => x.trunc(),
        Unary::SquareRoot if single => f64::from((x as f32).sqrt()),
        Unary::SquareRoot => x.sqrt(),
        Unary::ReciprocalSquareRoot if single => f64::from(1. / (x as f32).sqrt()),
        Unary::ReciprocalSquareRoot => 1. / x.sqrt(),
        Unary::Reciprocal if single => f64::from(1. / x as f32),
        Unary::Reciprocal => 1. / x,
        Unary::Relu => maximum(x, 0.),
        Unary::HardSigmoid6 => hard_sigmoid(single, x),
        Unary::HardSwish if single => f64::from(x as f32 * hard_sigmoid(single, x) as f32),
        Unary::HardSwish => x * hard_sigmoid(single, x),
        Unary::IsNan => return Number::Integer(x.is_nan().into()),
        Unary::IsInfinite => return Number::Integer(x.is_infinite().into()),
        _ => match strip_of(function).filter(|_| single) {
            Some(strip) => kernels::single::single(strip, x as f32).unwrap_or(f32::NAN).into(),
            None => scalar64::Scalar64::from_name(function.name()).map_or(x, |function| function.eval(x)),
        },
    };
    // Other types are computed in f32, then rounded.
    Number::Float(round(element, if single { f64::from(result as f32) } else { result }))
}

fn hard_sigmoid(single: bool, x: f64) -> f64 {
    let line = if single { f64::from(x as f32 / 6. + 0.5) } else { x / 6. + 0.5 };
    maximum(0., minimum(1., line))
}

fn maximum(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == b {
        if a.is_sign_negative() { b } else { a }
    } else {
        a.max(b)
    }
}

fn minimum(a: f64, b: f64) -> f64 {
    -maximum(-a, -b)
}

/// A function of two values of one type.
pub fn binary(function: Binary, element: ElementType, a: Number, b: Number) -> Number {
    use Binary::*;
    let truth = |value: bool| Number::Integer(value.into());
    let (x, y) = match (a, b) {
        (Number::Float(x), Number::Float(y)) => (x, y),
        (Number::Integer(x), Number::Integer(y)) => return integer_binary(function, element, x, y),
        _ => return a,
    };
    let f32s = (x as f32, y as f32);
    let single = element != ElementType::F64;
    let result = match function {
        Add if single => f64::from(f32s.0 + f32s.1),
        Subtract if single => f64::from(f32s.0 - f32s.1),
        Multiply if single => f64::from(f32s.0 * f32s.1),
        Divide if single => f64::from(f32s.0 / f32s.1),
        Add => x + y,
        Subtract => x - y,
        Multiply => x * y,
        Divide => x / y,
        Remainder => x % y,
        Modulo => match x % y {
            0. => 0f64.copysign(y),
            left if (left < 0.) != (y < 0.) && single => f64::from(left as f32 + f32s.1),
            left if (left < 0.) != (y < 0.) => left + y,
            left => left,
        },
        Power if single => kernels::single::power32(f32s.0, f32s.1).into(),
        Power => scalar64::power64(x, y),
        Minimum => minimum(x, y),
        Maximum => maximum(x, y),
        Equal => return truth(x == y),
        NotEqual => return truth(x != y),
        Less => return truth(x < y),
        LessOrEqual => return truth(x <= y),
        Greater => return truth(x > y),
        GreaterOrEqual => return truth(x >= y),
        And | Or | Xor | ShiftLeft | ShiftRight => x,
    };
    Number::Float(round(element, if single { f64::from(result as f32) } else { result }))
}

fn integer_binary(function: Binary, element: ElementType, a: i128, b: i128) -> Number {
    use Binary::*;
    let truth = |value: bool| Number::Integer(value.into());
    let shift = u32::try_from(b).ok().filter(|amount| *amount < element.bits());
    wrap(
        element,
        match function {
            Add => a + b,
            Subtract => a - b,
            Multiply => a.wrapping_mul(b),
            Divide => a.checked_div(b).unwrap_or(0),
            Remainder => a.checked_rem(b).unwrap_or(0),
            Modulo => match a.checked_rem(b) {
                Some(left) if left != 0 && (left < 0) != (b < 0) => left + b,
                left => left.unwrap_or(0),
            },
            Power => scalar64::power_integer(a as i64, b as i64, element.is_signed_integer().into()).into(),
            Minimum => a.min(b),
            Maximum => a.max(b),
            And => a & b,
            Or => a | b,
            Xor => a ^ b,
            ShiftLeft => shift.map_or(0, |amount| a << amount),
            ShiftRight => shift.map_or(if a < 0 { -1 } else { 0 }, |amount| a >> amount),
            Equal => return truth(a == b),
            NotEqual => return truth(a != b),
            Less => return truth(a < b),
            LessOrEqual => return truth(a <= b),
            Greater => return truth(a > b),
            GreaterOrEqual => return truth(a >= b),
        },
    )
}
