//! Softmax and normalisations: operations on the values over some of the output variables at once.

use super::{
    Arithmetic, Array, InterpretError, Number, functions,
    node::{Element, Prepared, advance, for_each, name_of},
    numerics,
    order::{Lanes, Real},
    read::Outside,
    scalar,
};
use crate::{
    Literal, Op,
    op::Norm,
    scalar::{Binary, Unary},
};
use rayon::prelude::*;

/// What is done to a row before gain and bias.
#[derive(Clone, Copy)]
enum Operation {
    Softmax { log: bool },
    Layer { epsilon: f64 },
    Rms { epsilon: f64 },
}

/// The variables of a row and what is done to it, when a node is an operation on rows.
fn operation(op: &Op) -> Option<(Vec<usize>, Operation)> {
    let (over, operation) = match op {
        Op::Softmax { over, log } => (over, Operation::Softmax { log: *log }),
        Op::Norm { kind: Norm::Layer, over, epsilon } => (over, Operation::Layer { epsilon: epsilon.to_f64() }),
        Op::Norm { kind: Norm::Rms, over, epsilon } => (over, Operation::Rms { epsilon: epsilon.to_f64() }),
        _ => return None,
    };
    Some((over.iter().map(|variable| *variable as usize).collect(), operation))
}

/// The whole output of an operation on rows.
pub(super) fn all(node: &Prepared) -> Result<Option<Array>, InterpretError> {
    let Some((over, operation)) = operation(&node.node.op) else { return Ok(None) };
    let mut array = node.zeros(0)?;
    let outputs = &node.node.outputs[0].variables;
    let outer: Vec<usize> = outputs.iter().map(|v| *v as usize).filter(|v| !over.contains(v)).collect();
    let strides = super::array::strides(&array.shape);
    let mut stride_of = vec![0; node.extents.len()];
    outputs.iter().zip(&strides).for_each(|(variable, stride)| stride_of[*variable as usize] = *stride);
    let rows = (0..node.count(&outer)).into_par_iter().map(|number| {
        let mut position = node.unravel(&outer, number);
        let row = row(node, &over, operation, &mut position)?;
        Ok((position, row))
    });
    let rows: Vec<_> = rows.collect::<Result<_, Outside>>().map_err(|outside| outside.at(&name_of(node.node)))?;
    for (mut position, row) in rows {
        for value in row {
            let at = stride_of.iter().zip(&position).map(|(stride, value)| stride * *value as usize).sum();
            array.set(at, value);
            advance(&mut position, &over, &node.extents);
        }
    }
    Ok(Some(array))
}

/// One element of an operation on rows, at a position of all output variables.
pub(super) fn one(node: &Prepared, position: &mut [i64]) -> Option<Result<Number, Outside>> {
    let (over, operation) = operation(&node.node.op)?;
    let number = over.iter().fold(0, |number, axis| number * node.extents[*axis] + position[*axis] as usize);
    over.iter().for_each(|axis| position[*axis] = 0);
    Some(row(node, &over, operation, position).map(|row| row[number]))
}

/// The values of a row of the output; the position is that of its first element, before and after.
fn row(node: &Prepared, over: &[usize], operation: Operation, position: &mut [i64]) -> Result<Vec<Number>, Outside> {
    if scalar::is_single(node.node.outputs[0].element, node.arithmetic) {
        row_in::<f32>(node, over, operation, position)
    } else {
        row_in::<f64>(node, over, operation, position)
    }
}

fn row_in<R: RowReal>(
    node: &Prepared,
    over: &[usize],
    operation: Operation,
    position: &mut [i64],
) -> Result<Vec<Number>, Outside> {
    let mut values: Vec<R> = Vec::with_capacity(node.count(over));
    for_each(position, over, &node.extents, |position| {
        values.push(R::of(node.readers[0].get(position)?.to_f64()));
        Ok(())
    })?;
    match operation {
        Operation::Softmax { log } => softmax(&mut values, log),
        Operation::Layer { epsilon } => layer(&mut values, R::of(epsilon)),
        Operation::Rms { epsilon } => rms(&mut values, R::of(epsilon)),
    }
    let mut results = Vec::with_capacity(values.len());
    for value in values {
        let mut value = value;
        if let Some(gain) = node.readers.get(1) {
            value = value.binary(Binary::Multiply, R::of(gain.get(position)?.to_f64()));
        }
        if let Some(bias) = node.readers.get(2) {
            value = value.add(R::of(bias.get(position)?.to_f64()));
        }
        results.push(node.settle(Number::Float(value.into())));
        advance(position, over, &node.extents);
    }
    Ok(results)
}

/// What rows need beside sums.
trait RowReal: Real {
    fn unary(self, function: Unary) -> Self;
    fn binary(self, function: Binary, other: Self) -> Self;
}

impl RowReal for f32 {
    fn unary(self, function: Unary) -> f32 {
        functions::single(function, self)
    }
    fn binary(self, function: Binary, other: f32) -> f32 {
        functions::single_binary(function, self, other)
    }
}

impl RowReal for f64 {
    fn unary(self, function: Unary) -> f64 {
        functions::double(function, self)
    }
    fn binary(self, function: Binary, other: f64) -> f64 {
        functions::double_binary(function, self, other)
    }
}

fn lanes<R: Real>(values: &[R]) -> R {
    let mut lanes = Lanes::new();
    values.iter().for_each(|value| lanes.push(*value));
    lanes.sum()
}

/// `exp(x - max) * (1 / sum(exp(x - max)))`, or `x - max - log(sum(exp(x - max)))`.
fn softmax<R: RowReal>(values: &mut [R], log: bool) {
    let lowest = R::of(f64::NEG_INFINITY);
    let largest = values.iter().fold(lowest, |largest, value| largest.binary(Binary::Maximum, *value));
    let exponentials: Vec<R> = values
        .iter_mut()
        .map(|value| {
            *value = value.binary(Binary::Subtract, largest);
            value.unary(Unary::Exp)
        })
        .collect();
    let sum = lanes(&exponentials);
    let (logarithm, factor) = (sum.unary(Unary::Log), sum.unary(Unary::Reciprocal));
    for (value, exponential) in values.iter_mut().zip(exponentials) {
        *value =
            if log { value.binary(Binary::Subtract, logarithm) } else { exponential.binary(Binary::Multiply, factor) };
    }
}

/// `(x - mean) / sqrt(variance + epsilon)`, the variance from the centred values.
fn layer<R: RowReal>(values: &mut [R], epsilon: R) {
    let count = R::of(values.len() as f64);
    let mean = lanes(values).binary(Binary::Divide, count);
    values.iter_mut().for_each(|value| *value = value.binary(Binary::Subtract, mean));
    rms(values, epsilon);
}

/// `x / sqrt(mean(x^2) + epsilon)`, as a multiplication by the reciprocal root.
fn rms<R: RowReal>(values: &mut [R], epsilon: R) {
    let count = R::of(values.len() as f64);
    let mut lanes = Lanes::new();
    values.iter().for_each(|value| lanes.push_square(*value));
    let scale = lanes.sum().binary(Binary::Divide, count).add(epsilon).unary(Unary::ReciprocalSquareRoot);
    values.iter_mut().for_each(|value| *value = value.binary(Binary::Multiply, scale));
}

/// `(x - mean) / sqrt(variance + epsilon) * gain + bias` with given statistics, operation by operation.
pub(super) fn batch_norm<'a>(node: &'a Prepared<'a>, epsilon: Literal) -> Element<'a> {
    let element = node.node.outputs[0].element;
    let inner = match element {
        strang_runtime::ElementType::F64 => element,
        _ => strang_runtime::ElementType::F32,
    };
    let epsilon = match node.arithmetic {
        Arithmetic::Wide => epsilon.to_f64(),
        Arithmetic::Typed => numerics::round(inner, epsilon.to_f64()),
    };
    Box::new(move |position| {
        let operand = |slot: usize, position: &[i64]| node.readers[slot].get(position);
        let apply = |function, a, b| scalar::binary(function, inner, a, b, node.arithmetic);
        let centred = apply(Binary::Subtract, operand(0, position)?, operand(3, position)?);
        let variance = apply(Binary::Add, operand(4, position)?, Number::Float(epsilon));
        let scale = scalar::unary(Unary::ReciprocalSquareRoot, inner, variance, node.arithmetic);
        let scaled = apply(Binary::Multiply, apply(Binary::Multiply, centred, scale), operand(1, position)?);
        Ok(node.settle(apply(Binary::Add, scaled, operand(2, position)?)))
    })
}
