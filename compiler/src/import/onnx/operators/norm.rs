//! Normalisations.

use super::{
    reduce::mean,
    scalar::{add, apply, attribute, cast, div, mul, number, operand, pow, sub},
};
use crate::import::onnx::{
    call::{Call, Imported},
    draft::Draft,
    error::ImportError,
    values::Item,
};
use strang_ir::{
    IndexExpr, IndexMap, Literal, Op, Value,
    op::{Monoid, Norm},
    scalar::Unary,
};
use strang_runtime::{ElementType, Size};

/// `BatchNormalization` at inference.
pub fn batch(call: &mut Call) -> Imported {
    call.attributes.ignore(&["momentum"]);
    // Up to opset 6 an attribute says that a model is for inference; until 13 further outputs say that it is not.
    let training = match call.version {
        ..7 => !call.attributes.flag("is_test", false)?,
        7..14 => (1..5).any(|output| call.wants(output)),
        _ => call.attributes.flag("training_mode", false)?,
    };
    if training {
        return trained(call);
    }
    if !call.attributes.flag("spatial", true)? {
        return Err(call.attributes.error("spatial", "statistics for every position are not supported; use 1"));
    }
    let epsilon = call.attributes.float_or("epsilon", 1e-5)?;
    let x = call.value(0)?;
    let element = call.element_of(x);
    let sizes = call.shape_of(x);
    if sizes.len() < 2 {
        return Err(call.error(format!("the input needs at least 2 axes, but is {sizes:?}")));
    }
    let mut statistics = Vec::new();
    for slot in 1..5 {
        let value = call.value(slot)?;
        if call.shape_of(value).len() != 1 {
            return Err(call.operand_error(slot, "one number a channel is needed"));
        }
        statistics.push(in_type(call, value, element)?);
    }
    let (mut draft, variables) = Draft::over(&sizes);
    draft.read_at(x, &variables);
    for value in statistics {
        draft.read_at(value, &variables[1..2]);
    }
    let epsilon = Literal::from_f64(ElementType::F64, epsilon.into());
    let op = Op::Norm { kind: Norm::Batch, over: vec![], epsilon };
    Ok(vec![call.emit(draft, op, element, &variables).into()])
}

/// `BatchNormalization` by the statistics of the input itself, with the running averages that training keeps.
fn trained(call: &mut Call) -> Imported {
    if call.version < 14 {
        return Err(call.unsupported("batch normalisation in training mode is, from opset 14 on; convert the model"));
    }
    let epsilon = call.attributes.float_or("epsilon", 1e-5)?;
    let momentum = call.attributes.float_or("momentum", 0.9)?;
    let x = call.value(0)?;
    let element = call.element_of(x);
    let sizes = call.shape_of(x);
    if sizes.len() < 2 {
        return Err(call.error(format!("the input needs at least 2 axes, but is {sizes:?}")));
    }
    let wide = if element == ElementType::F64 { element } else { ElementType::F32 };
    let axes: Vec<usize> = (0..sizes.len()).filter(|axis| *axis != 1).collect();
    let channels = [sizes[1].clone()];
    let values = in_type(call, x, wide)?;
    let average = mean(call, values, &axes, true)?;
    let centred = call.map(&[values, average], sub(operand(0), operand(1)))?;
    let squares = call.map(&[centred], mul(operand(0), operand(0)))?;
    let variance = mean(call, squares, &axes, true)?;
    let statistics = [call.reshape(average, &channels), call.reshape(variance, &channels)];
    let mut items: Vec<Item> = Vec::new();
    let (mut draft, variables) = Draft::over(&sizes);
    draft.read_at(x, &variables);
    for slot in 1..3 {
        let value = call.value(slot)?;
        let value = in_type(call, value, element)?;
        draft.read_at(value, &variables[1..2]);
    }
    for value in statistics {
        let value = in_type(call, value, element)?;
        draft.read_at(value, &variables[1..2]);
    }
    let op = Op::Norm { kind: Norm::Batch, over: vec![], epsilon: Literal::from_f64(ElementType::F64, epsilon.into()) };
    items.push(call.emit(draft, op, element, &variables).into());
    for (slot, value) in (3..5).zip(statistics) {
        let old = call.value(slot)?;
        let running = call.element_of(old);
        let kept = mul(cast(wide, running, operand(0)), attribute(wide, momentum));
        let new = mul(operand(1), sub(number(wide, 1.), attribute(wide, momentum)));
        items.push(call.map(&[old, value], cast(running, wide, add(kept, new)))?.into());
    }
    Ok(items)
}

fn in_type(call: &mut Call, value: Value, element: ElementType) -> Result<Value, ImportError> {
    let from = call.element_of(value);
    if from == element { Ok(value) } else { call.map(&[value], cast(element, from, operand(0))) }
}

/// A normalisation over axes of `x`; gain and bias are read through maps that `maps` yields from the variables.
fn normalised(
    call: &mut Call,
    x: Value,
    kind: Norm,
    axes: &[usize],
    epsilon: f64,
    scales: &[(Value, Vec<IndexExpr>)],
) -> Value {
    let sizes = call.shape_of(x);
    let element = call.element_of(x);
    let (mut draft, variables) = Draft::over(&sizes);
    draft.read_at(x, &variables);
    for (value, exprs) in scales {
        draft.read_map(*value, IndexMap::new(exprs.clone()));
    }
    let over = axes.iter().map(|axis| *axis as u32).collect();
    let epsilon = Literal::from_f64(ElementType::F64, epsilon);
    call.emit(draft, Op::Norm { kind, over, epsilon }, element, &variables)
}

/// Where a gain or bias that broadcasts to the shape of `x` is read; variable `k` runs over axis `k` of x.
fn trailing(scale: &[Size], x: &[Size]) -> Vec<IndexExpr> {
    let variables: Vec<u32> = (0..x.len() as u32).collect();
    crate::import::onnx::call::broadcast_exprs(scale, x, &variables)
}

/// `LayerNormalization`.
pub fn layer(call: &mut Call) -> Imported {
    // Statistics are kept in f32 or wider whatever the type of the input is.
    call.attributes.ignore(&["stash_type"]);
    let epsilon = call.attributes.float_or("epsilon", 1e-5)?;
    let x = call.value(0)?;
    let element = call.element_of(x);
    let sizes = call.shape_of(x);
    let first = call.axis(call.attributes.int_or("axis", -1)?, sizes.len())?;
    let axes: Vec<usize> = (first..sizes.len()).collect();
    let mut scales = Vec::new();
    for slot in 1..3 {
        if slot == 2 && !call.has(2) {
            break;
        }
        let value = call.value(slot)?;
        let shape = call.shape_of(value);
        if shape.len() > sizes.len() {
            return Err(call.operand_error(slot, format!("{shape:?} does not broadcast to {sizes:?}")));
        }
        let value = in_type(call, value, element)?;
        scales.push((value, trailing(&shape, &sizes)));
    }
    let result = normalised(call, x, Norm::Layer, &axes, epsilon.into(), &scales);
    let mut items: Vec<Item> = vec![result.into()];
    if call.wants(1) || call.wants(2) {
        let wide = in_type(call, x, ElementType::F32)?;
        let average = mean(call, wide, &axes, true)?;
        let centred = call.map(&[wide, average], sub(operand(0), operand(1)))?;
        let squares = call.map(&[centred], mul(operand(0), operand(0)))?;
        let variance = mean(call, squares, &axes, true)?;
        let shifted = add(operand(0), attribute(ElementType::F32, epsilon));
        let deviation = call.map(&[variance], apply(Unary::ReciprocalSquareRoot, shifted))?;
        items.extend([average.into(), deviation.into()]);
    }
    Ok(items)
}

/// `RMSNormalization`.
pub fn rms(call: &mut Call) -> Imported {
    call.attributes.ignore(&["stash_type"]);
    let epsilon = call.attributes.float_or("epsilon", 1e-5)?;
    let x = call.value(0)?;
    let element = call.element_of(x);
    let sizes = call.shape_of(x);
    let first = call.axis(call.attributes.int_or("axis", -1)?, sizes.len())?;
    let axes: Vec<usize> = (first..sizes.len()).collect();
    let gain = call.value(1)?;
    let shape = call.shape_of(gain);
    if shape.len() > sizes.len() {
        return Err(call.operand_error(1, format!("{shape:?} does not broadcast to {sizes:?}")));
    }
    let gain = in_type(call, gain, element)?;
    let scales = [(gain, trailing(&shape, &sizes))];
    Ok(vec![normalised(call, x, Norm::Rms, &axes, epsilon.into(), &scales).into()])
}

/// `InstanceNormalization`: layer normalisation over the spatial axes with one gain and bias a channel.
pub fn instance(call: &mut Call) -> Imported {
    let epsilon = call.attributes.float_or("epsilon", 1e-5)?;
    let (x, gain, bias) = (call.value(0)?, call.value(1)?, call.value(2)?);
    let sizes = call.shape_of(x);
    if sizes.len() < 3 {
        return Err(call.error(format!("the input needs at least 3 axes, but is {sizes:?}")));
    }
    let axes: Vec<usize> = (2..sizes.len()).collect();
    let channel = || vec![IndexExpr::variable(1)];
    let scales = [(gain, channel()), (bias, channel())];
    Ok(vec![normalised(call, x, Norm::Layer, &axes, epsilon.into(), &scales).into()])
}

/// `GroupNormalization`: channels in groups; gain and bias a channel since opset 21, a group before.
pub fn group(call: &mut Call) -> Imported {
    call.attributes.ignore(&["stash_type"]);
    let epsilon = call.attributes.float_or("epsilon", 1e-5)?;
    let groups = Size::from(call.attributes.required_int("num_groups")?);
    let (x, gain, bias) = (call.value(0)?, call.value(1)?, call.value(2)?);
    let sizes = call.shape_of(x);
    if sizes.len() < 2 || groups.lower_bound(1).is_none_or(|groups| groups < 1) {
        return Err(call.error(format!("the input {sizes:?} does not divide into {groups} groups of channels")));
    }
    if sizes[1].as_constant().is_some() && !sizes[1].remainder(&groups).is(0) {
        return Err(call.error(format!("{} channels do not divide into {groups} groups", sizes[1])));
    }
    let within = sizes[1].floor_div(&groups);
    let mut split = vec![sizes[0].clone(), groups, within.clone()];
    split.extend(sizes[2..].iter().cloned());
    let view = call.reshape(x, &split);
    let axes: Vec<usize> = (2..split.len()).collect();
    let place = || match call.version >= 21 {
        true => vec![IndexExpr::variable(1).times(&within).plus(&IndexExpr::variable(2))],
        false => vec![IndexExpr::variable(1)],
    };
    let scales = [(gain, place()), (bias, place())];
    let result = normalised(call, view, Norm::Layer, &axes, epsilon.into(), &scales);
    Ok(vec![call.reshape(result, &sizes).into()])
}

/// `MeanVarianceNormalization`: layer normalisation without gain over the given axes.
pub fn mean_variance(call: &mut Call) -> Imported {
    let x = call.value(0)?;
    let rank = call.shape_of(x).len();
    let axes = match call.attributes.ints("axes")? {
        Some(axes) => call.axes(axes, rank)?,
        None => call.axes(&[0, 2, 3], rank)?,
    };
    let mut axes = axes;
    axes.sort_unstable();
    let one = call.constant(Literal::one(call.element_of(x)));
    // The operator adds 1e-9 to the deviation; the square of that to the variance does the same to a deviation of zero.
    Ok(vec![normalised(call, x, Norm::Layer, &axes, 1e-18, &[(one, vec![])]).into()])
}

/// `LRN`: division by a power of the squares of neighbouring channels (Krizhevsky et al., 2012).
pub fn local_response(call: &mut Call) -> Imported {
    let (alpha, beta, bias) = (
        call.attributes.float_or("alpha", 1e-4)?,
        call.attributes.float_or("beta", 0.75)?,
        call.attributes.float_or("bias", 1.)?,
    );
    let count = call.attributes.required_int("size")?;
    if count < 1 {
        return Err(call.attributes.error("size", "this must be positive"));
    }
    let x = call.value(0)?;
    let sizes = call.shape_of(x);
    let element = call.element_of(x);
    if sizes.len() < 2 {
        return Err(call.error(format!("the input needs at least 2 axes, but is {sizes:?}")));
    }
    let squares = call.map(&[x], mul(operand(0), operand(0)))?;
    let (mut draft, variables) = Draft::over(&sizes);
    let tap = draft.variable(&Size::from(count));
    let mut exprs: Vec<IndexExpr> = variables.iter().map(|variable| IndexExpr::variable(*variable)).collect();
    exprs[1] = exprs[1].plus(&IndexExpr::variable(tap)).plus_size(&Size::from(-((count - 1) / 2)));
    draft.read_map(squares, IndexMap::new(exprs).with_fill(Literal::zero(element)));
    let sum = call.emit(draft, Op::Reduce(Monoid::Sum), element, &variables);
    let scaled = add(attribute(element, bias), mul(number(element, f64::from(alpha) / count as f64), operand(1)));
    let quotient = div(operand(0), pow(scaled, attribute(element, beta)));
    Ok(vec![call.map(&[x, sum], quotient)?.into()])
}
