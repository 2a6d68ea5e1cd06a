//! Chains of operations as networks have them, so that whatever fuses chains is tested on them.

use super::{
    draft::{Draft, axes},
    reads::Read,
    steps::{all, beside, map},
    tape::Tape,
};
use crate::{
    ElementType, Function, FunctionId, IndexMap, Literal, Op, ScalarExpr, Size, Value,
    op::Monoid,
    scalar::{Binary, Unary},
};

/// Some of bias, activation and residual after a value.
fn finish(draft: &mut Draft, tape: &mut Tape, value: Value) -> Option<Value> {
    let element = draft.element_of(value);
    let mut value = value;
    if !tape.once_in(3) {
        let read = Read::plain(draft, value);
        let bias = beside(draft, tape, &read.sizes, element);
        value = map(draft, ScalarExpr::binary_map(Binary::Add), element, &[read, bias])?;
    }
    use Unary::*;
    if let Some(function) = tape.choose(&[Some(Relu), Some(Gelu), None, Some(Silu), Some(HardSwish), Some(Tanh)]) {
        let read = Read::plain(draft, value);
        value = map(draft, ScalarExpr::unary_map(function), element, &[read])?;
    }
    if tape.once_in(2) {
        let read = Read::plain(draft, value);
        let residual = beside(draft, tape, &read.sizes, element);
        value = map(draft, ScalarExpr::binary_map(Binary::Add), element, &[read, residual])?;
    }
    Some(value)
}

/// A product with weights over the last axis.
fn linear(draft: &mut Draft, tape: &mut Tape, value: Value, width: Size) -> Option<Value> {
    let (mut sizes, element) = (draft.shape(value), draft.element_of(value));
    let last = sizes.len().checked_sub(1)? as u32;
    let shape = [sizes[last as usize].clone(), width.clone()];
    if draft.count(&shape) > draft.config.elements {
        return None;
    }
    let weights = draft.source(tape, element, &shape);
    sizes.push(width);
    let maps = vec![IndexMap::of_variables(0..=last), IndexMap::of_variables([last, last + 1])];
    let kept: Vec<u32> = (0..last).chain([last + 1]).collect();
    let op = Op::Dot { accumulator: element.accumulator() };
    draft.add(op, &sizes, maps, (element, &kept), &[value, weights])
}

/// Linear, bias, activation, residual; sometimes a second linear layer back to the first width.
pub(super) fn feed_forward(draft: &mut Draft, tape: &mut Tape, value: Value) -> Option<Value> {
    let back = draft.shape(value).last()?.clone();
    let width = draft.size(tape);
    let hidden = linear(draft, tape, value, width)?;
    let mut result = finish(draft, tape, hidden)?;
    if tape.once_in(2) {
        draft.values.push(value);
        result = linear(draft, tape, result, back)?;
        result = finish(draft, tape, result)?;
    }
    Some(result)
}

/// A convolution along one or two axes with padding, stride and dilation; channels are the other axes' last, or none.
pub(super) fn convolution(draft: &mut Draft, tape: &mut Tape, value: Value) -> Option<Value> {
    let element = draft.element_of(value);
    let mut read = Read::plain(draft, value);
    let rank = read.sizes.len();
    let spatial = (1 + tape.pick(2)).min(rank);
    // Channels first or last; a depthwise one keeps them.
    let channels = if tape.once_in(2) { Some(0) } else { rank.checked_sub(1) }.filter(|_| rank > spatial);
    let depthwise = tape.once_in(3);
    let along: Vec<usize> = (0..rank).filter(|axis| Some(*axis) != channels).rev().take(spatial).collect();
    for axis in along {
        read.window(draft, tape, axis);
    }
    read.map.fill = Some(Literal::zero(element));
    let mut sizes = read.sizes.clone();
    let taps: Vec<u32> = (rank as u32..sizes.len() as u32).collect();
    let mut contracted = taps.clone();
    let mut kept: Vec<u32> = (0..rank as u32).collect();
    let mut weight_axes = taps;
    if let Some(channels) = channels {
        weight_axes.push(channels as u32);
        if !depthwise {
            contracted.push(channels as u32);
            kept.retain(|variable| *variable as usize != channels);
        }
    }
    if !(depthwise && channels.is_some()) {
        let filters = sizes.len() as u32;
        sizes.push(draft.size(tape));
        weight_axes.push(filters);
        kept.insert(if channels == Some(0) { 0 } else { kept.len() }, filters);
    }
    if tape.once_in(3) {
        weight_axes.rotate_left(1);
    }
    // Variables in the order of the sum: taps, then channels.
    let order: Vec<u32> = kept.iter().chain(&contracted).copied().collect();
    let place = |variable: u32| order.iter().position(|other| *other == variable).unwrap_or(0) as u32;
    let ordered: Vec<Size> = order.iter().map(|variable| sizes[*variable as usize].clone()).collect();
    let shape: Vec<Size> = weight_axes.iter().map(|variable| sizes[*variable as usize].clone()).collect();
    if draft.count(&shape) > draft.config.elements || draft.count(&ordered) > draft.config.work {
        return None;
    }
    let weights = draft.source(tape, element, &shape);
    let size_of = |variable: u32| ordered[variable as usize].clone();
    let mut image = read.map.clone();
    for expression in &mut image.exprs {
        let renamed = |v| crate::IndexExpr::variable(place(v));
        *expression = expression.substitute(&renamed, &|slot| slot, &size_of);
    }
    let maps = vec![image, IndexMap::of_variables(weight_axes.into_iter().map(place))];
    let kept: Vec<u32> = (0..kept.len() as u32).collect();
    let op = Op::Dot { accumulator: element.accumulator() };
    let product = draft.add(op, &ordered, maps, (element, &kept), &[value, weights])?;
    finish(draft, tape, product)
}

/// Pooling over a window: the largest value, or the average.
pub(super) fn pooling(draft: &mut Draft, tape: &mut Tape, value: Value) -> Option<Value> {
    let element = draft.element_of(value);
    let mut read = Read::plain(draft, value);
    let rank = read.sizes.len();
    let axis = tape.pick(rank.max(1));
    let average = tape.once_in(2);
    if rank == 0 {
        return None;
    }
    read.window(draft, tape, axis);
    let monoid = if average { Monoid::Sum } else { Monoid::Maximum };
    read.map.fill = Some(monoid.neutral(element));
    let kept = all(&read.sizes[..rank]);
    let pooled = draft.add(Op::Reduce(monoid), &read.sizes, vec![read.map.clone()], (element, &kept), &[value])?;
    if !average || read.sizes.len() == rank {
        return Some(pooled);
    }
    let taps = ScalarExpr::cast(element, ScalarExpr::Size(read.sizes[rank].clone()));
    let quotient = ScalarExpr::binary(Binary::Divide, ScalarExpr::Operand(0), taps);
    let pooled = Read::plain(draft, pooled);
    map(draft, quotient, element, &[pooled])
}

/// `softmax(q k^T * scale + mask) v` with the value as queries, keys and values, in heads where they divide.
pub(super) fn attention(draft: &mut Draft, tape: &mut Tape, value: Value) -> Option<Value> {
    let (shape, element) = (draft.shape(value), draft.element_of(value));
    let rank = shape.len();
    if rank < 2 {
        return None;
    }
    let (rows, depth) = (shape[rank - 2].clone(), shape[rank - 1].clone());
    let batch = &shape[..rank - 2];
    let b = batch.len() as u32;
    let width = if tape.once_in(2) { depth.clone() } else { draft.size(tape) };
    let (keys, values) = match tape.pick(3) {
        0 => (value, value),
        1 => (linear(draft, tape, value, depth.clone())?, value),
        _ => (value, linear(draft, tape, value, width)?),
    };
    let columns = draft.shape(values).last()?.clone();
    // Scores: batch, queries, keys, depth.
    let sizes = [batch, &[rows.clone(), rows.clone(), depth.clone()]].concat();
    let of = |variables: &[u32]| IndexMap::of_variables((0..b).chain(variables.iter().copied()));
    let op = || Op::Dot { accumulator: element.accumulator() };
    let kept: Vec<u32> = (0..b + 2).collect();
    let maps = vec![of(&[b, b + 2]), of(&[b + 1, b + 2])];
    let mut scores = draft.add(op(), &sizes, maps, (element, &kept), &[value, keys])?;
    if tape.once_in(2) {
        let root = ScalarExpr::unary(Unary::ReciprocalSquareRoot, ScalarExpr::cast(element, ScalarExpr::Size(depth)));
        let scaled = ScalarExpr::binary(Binary::Multiply, ScalarExpr::Operand(0), root);
        let read = Read::plain(draft, scores);
        scores = map(draft, scaled, element, &[read])?;
    }
    if tape.once_in(3) {
        let visible = ScalarExpr::binary(Binary::LessOrEqual, ScalarExpr::Index(b + 1), ScalarExpr::Index(b));
        let lowest = ScalarExpr::Literal(Literal::lowest(element));
        let read = Read::plain(draft, scores);
        scores = map(draft, ScalarExpr::select(visible, ScalarExpr::Operand(0), lowest), element, &[read])?;
    }
    let sizes = draft.shape(scores);
    let softmax = Op::Softmax { over: vec![b + 1], log: false };
    let weights =
        draft.add(softmax, &sizes, vec![IndexMap::of_variables(0..b + 2)], (element, &all(&sizes)), &[scores])?;
    // Sums: batch, queries, keys, columns.
    let sizes = [batch, &[rows.clone(), rows, columns]].concat();
    let kept: Vec<u32> = (0..=b).chain([b + 2]).collect();
    draft.add(op(), &sizes, vec![of(&[b, b + 1]), of(&[b + 1, b + 2])], (element, &kept), &[weights, values])
}

/// A scan along the first axis: `state = tanh(state * decay + slice)`, every state stacked.
pub(super) fn scan(draft: &mut Draft, tape: &mut Tape, value: Value) -> Option<Value> {
    let (shape, element) = (draft.shape(value), draft.element_of(value));
    let (_, rest) = shape.split_first()?;
    let state_axes = axes(rest);
    let mut body = Draft::new(draft.config, 0);
    body.function = Function::new(format!("step{}", draft.bodies.len()));
    let state = body.function.add_input("state", element, &state_axes);
    let slice = body.function.add_input("slice", element, &state_axes);
    let decay = ScalarExpr::Literal(Literal::from_f64(element, 0.5));
    let decayed = ScalarExpr::binary(Binary::Multiply, ScalarExpr::Operand(0), decay);
    let sum = ScalarExpr::binary(Binary::Add, decayed, ScalarExpr::Operand(1));
    let whole = IndexMap::of_variables(all(rest));
    let next = body.add(
        Op::Map(ScalarExpr::unary(Unary::Tanh, sum)),
        rest,
        vec![whole.clone(), whole],
        (element, &all(rest)),
        &[state.into(), slice.into()],
    )?;
    body.function.outputs = vec![next, next];
    body.function.output_names = vec!["state".into(), "all".into()];
    let id = FunctionId(1 + draft.bodies.len() as u32);
    let initial = draft.source(tape, element, rest);
    let op = Op::Scan { body: id, along: 0, reverse: tape.once_in(3), states: 1 };
    let rank = shape.len() as u32;
    let maps = vec![IndexMap::of_variables(1..rank), IndexMap::of_variables(0..rank)];
    let kept: Vec<u32> = (1..rank).collect();
    let last = draft.add(op, &shape, maps, (element, &kept), &[initial, value])?;
    draft.bodies.push(body.function);
    let stacked = draft.add_output(last, element, &all(&shape));
    Some(if tape.once_in(3) { last } else { stacked })
}

/// Quantised to bytes, perhaps with a zero point, multiplied by i8 weights in i32, dequantised.
pub(super) fn quantised(draft: &mut Draft, tape: &mut Tape, value: Value) -> Option<Value> {
    let mut sizes = draft.shape(value);
    let last = sizes.len().checked_sub(1)? as u32;
    let element = draft.element_of(value);
    if !draft.config.all_elements {
        return None;
    }
    let scale = ScalarExpr::Literal(Literal::from_f64(element, 32.));
    let scaled = ScalarExpr::binary(Binary::Multiply, ScalarExpr::Operand(0), scale);
    let rounded = ScalarExpr::unary(Unary::Round, scaled);
    let read = Read::plain(draft, value);
    let unsigned = tape.once_in(2);
    let byte = if unsigned { ElementType::U8 } else { ElementType::I8 };
    let mut codes = map(draft, ScalarExpr::cast(byte, rounded), byte, &[read])?;
    if unsigned && tape.once_in(2) {
        let wide = ScalarExpr::cast(ElementType::I32, ScalarExpr::Operand(0));
        let zero = ScalarExpr::Literal(Literal::from_f64(ElementType::I32, 5.));
        let read = Read::plain(draft, codes);
        codes = map(draft, ScalarExpr::binary(Binary::Subtract, wide, zero), ElementType::I32, &[read])?;
    }
    let width = draft.size(tape);
    let shape = [sizes[last as usize].clone(), width.clone()];
    if draft.count(&shape) > draft.config.elements {
        return None;
    }
    let weights = draft.source(tape, ElementType::I8, &shape);
    sizes.push(width);
    let maps = vec![IndexMap::of_variables(0..=last), IndexMap::of_variables([last, last + 1])];
    let kept: Vec<u32> = (0..last).chain([last + 1]).collect();
    let op = Op::Dot { accumulator: ElementType::I32 };
    let sums = draft.add(op, &sizes, maps, (ElementType::I32, &kept), &[codes, weights])?;
    let scale = ScalarExpr::Literal(Literal::f32(0.03125));
    let back = ScalarExpr::cast(ElementType::F32, ScalarExpr::Operand(0));
    let sums = Read::plain(draft, sums);
    map(draft, ScalarExpr::binary(Binary::Multiply, back, scale), ElementType::F32, &[sums])
}
