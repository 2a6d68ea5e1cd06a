//! Reductions along axes: sums, means, norms, extremes and their positions, softmax, and prefix folds.

use super::scalar::{add, apply, cast, div, equal, mul, number, operand, size, sub};
use crate::import::onnx::{
    call::{Call, Imported},
    draft::Draft,
    error::ImportError,
    values::Item,
};
use strang_ir::{
    IndexExpr, Literal, Op, ScalarExpr, Value,
    op::Monoid,
    scalar::{Binary, Unary},
};
use strang_runtime::{ElementType, Size};

/// A reduction over axes; a reduced axis stays with size 1 if `keep`.
pub fn reduced(call: &mut Call, value: Value, axes: &[usize], monoid: Monoid, keep: bool) -> Value {
    let element = call.element_of(value);
    contract(call, value, axes, Op::Reduce(monoid), element, keep)
}

fn contract(call: &mut Call, value: Value, axes: &[usize], op: Op, element: ElementType, keep: bool) -> Value {
    let from = call.shape_of(value);
    let (mut draft, variables) = Draft::over(&from);
    draft.read_at(value, &variables);
    let mut output = Vec::with_capacity(from.len());
    for (axis, variable) in variables.iter().enumerate() {
        if !axes.contains(&axis) {
            output.push(*variable);
        } else if keep {
            output.push(draft.variable(&Size::ONE));
        }
    }
    call.emit(draft, op, element, &output)
}

/// The mean over axes. Half-precision sums are kept in f32.
///
/// # Errors
/// Element types without a mean.
pub fn mean(call: &mut Call, value: Value, axes: &[usize], keep: bool) -> Result<Value, ImportError> {
    let element = call.element_of(value);
    let wide = if matches!(element, ElementType::F16 | ElementType::BF16) { ElementType::F32 } else { element };
    let value = if wide == element { value } else { call.map(&[value], cast(wide, element, operand(0)))? };
    let count: Size = axes.iter().map(|axis| call.shape_of(value)[*axis].clone()).product();
    let sum = reduced(call, value, axes, Monoid::Sum, keep);
    call.map(&[sum], cast(element, wide, div(operand(0), size(wide, &count))))
}

/// The axes of a reduction: from the attribute, or from operand 1 since `operand_since`. `None`: there is nothing to do.
fn axes_of(call: &Call, rank: usize, operand_since: i64) -> Result<Option<Vec<usize>>, ImportError> {
    let given = if call.version >= operand_since {
        if call.has(1) { Some(call.integers(1)?) } else { None }
    } else {
        call.attributes.ints("axes")?.map(<[i64]>::to_vec)
    };
    let nothing = call.version >= operand_since && call.attributes.flag("noop_with_empty_axes", false)?;
    match given {
        Some(axes) if !axes.is_empty() => call.axes(&axes, rank).map(Some),
        _ if nothing => Ok(None),
        _ => Ok(Some((0..rank).collect())),
    }
}

/// The `Reduce...` operators.
pub fn reduce(call: &mut Call) -> Imported {
    let mut value = call.value(0)?;
    let rank = call.shape_of(value).len();
    let operand_since = if call.operator == "ReduceSum" { 13 } else { 18 };
    let axes = axes_of(call, rank, operand_since)?;
    let keep = call.attributes.flag("keepdims", true)?;
    // With no axes to reduce, only what happens to single elements is left.
    let axes = axes.unwrap_or_default();
    let element = call.element_of(value);
    let wide = if matches!(element, ElementType::F16 | ElementType::BF16) { ElementType::F32 } else { element };
    let fold = |call: &mut Call, value, monoid| match axes.is_empty() {
        true => value,
        false => reduced(call, value, &axes, monoid, keep),
    };
    let widened = |x| cast(wide, element, x);
    let result = match call.operator {
        "ReduceSum" => fold(call, value, Monoid::Sum),
        "ReduceProd" => fold(call, value, Monoid::Product),
        "ReduceMax" | "ReduceMin" => {
            let monoid = match (call.operator, element) {
                ("ReduceMax", ElementType::Bool) => Monoid::Or,
                (_, ElementType::Bool) => Monoid::And,
                ("ReduceMax", _) => Monoid::Maximum,
                _ => Monoid::Minimum,
            };
            fold(call, value, monoid)
        }
        "ReduceMean" if axes.is_empty() => value,
        "ReduceMean" => mean(call, value, &axes, keep)?,
        "ReduceL1" => {
            if element.is_float() || element.is_signed_integer() {
                value = call.map(&[value], apply(Unary::Absolute, operand(0)))?;
            }
            fold(call, value, Monoid::Sum)
        }
        "ReduceL2" | "ReduceSumSquare" => {
            // Squares of half-precision numbers overflow early.
            let wide_value = widened(operand(0));
            value = call.map(&[value], mul(wide_value.clone(), wide_value))?;
            let sum = fold(call, value, Monoid::Sum);
            let root = call.operator == "ReduceL2";
            let finish = match (root, element.is_float()) {
                (true, true) => cast(element, wide, apply(Unary::SquareRoot, operand(0))),
                (true, false) => {
                    let float = ElementType::F64;
                    cast(element, float, apply(Unary::SquareRoot, cast(float, element, operand(0))))
                }
                (false, _) => cast(element, wide, operand(0)),
            };
            if finish == operand(0) { sum } else { call.map(&[sum], finish)? }
        }
        "ReduceLogSum" => {
            let sum = fold(call, value, Monoid::Sum);
            of_float(call, sum, Unary::Log)?
        }
        "ReduceLogSumExp" => log_sum_exp(call, value, &axes, keep)?,
        other => return Err(call.unsupported(format!("`{other}` is not a reduction"))),
    };
    Ok(vec![result.into()])
}

/// A function of floats, through f64 for integers.
fn of_float(call: &mut Call, value: Value, function: Unary) -> Result<Value, ImportError> {
    let element = call.element_of(value);
    if element.is_float() {
        return call.map(&[value], apply(function, operand(0)));
    }
    let float = ElementType::F64;
    call.map(&[value], cast(element, float, apply(function, cast(float, element, operand(0)))))
}

/// `log(sum(exp(x)))`, with the largest x taken out so that nothing overflows.
fn log_sum_exp(call: &mut Call, value: Value, axes: &[usize], keep: bool) -> Result<Value, ImportError> {
    let element = call.element_of(value);
    if axes.is_empty() {
        return Ok(value);
    }
    if !element.is_float() {
        let exp = of_float(call, value, Unary::Exp)?;
        let sum = reduced(call, exp, axes, Monoid::Sum, keep);
        return of_float(call, sum, Unary::Log);
    }
    let largest = reduced(call, value, axes, Monoid::Maximum, true);
    // An infinite largest element must not be taken from itself.
    let infinite = apply(Unary::IsInfinite, operand(0));
    let shift = ScalarExpr::select(infinite, number(element, 0.), operand(0));
    let shift = call.map(&[largest], shift)?;
    let exp = call.map(&[value, shift], apply(Unary::Exp, sub(operand(0), operand(1))))?;
    let sum = reduced(call, exp, axes, Monoid::Sum, true);
    let result = call.map(&[sum, shift], add(apply(Unary::Log, operand(0)), operand(1)))?;
    if keep {
        return Ok(result);
    }
    let sizes = call.shape_of(result);
    let kept: Vec<Size> =
        (0..sizes.len()).filter(|axis| !axes.contains(axis)).map(|axis| sizes[axis].clone()).collect();
    Ok(call.reshape(result, &kept))
}

/// `ArgMax` and `ArgMin`.
pub fn arg_reduce(call: &mut Call) -> Imported {
    let value = call.value(0)?;
    let rank = call.shape_of(value).len();
    let axis = call.axis(call.attributes.int_or("axis", 0)?, rank)?;
    let keep = call.attributes.flag("keepdims", true)?;
    let last = call.version >= 12 && call.attributes.flag("select_last_index", false)?;
    let op = Op::ArgReduce { largest: call.operator == "ArgMax", last };
    Ok(vec![contract(call, value, &[axis], op, ElementType::I64, keep).into()])
}

/// The axes that `Softmax`, `LogSoftmax` and `Hardmax` work on: one since opset 13, all from one on before.
fn softmax_axes(call: &Call, rank: usize) -> Result<std::ops::Range<usize>, ImportError> {
    if call.version >= 13 {
        let axis = call.axis(call.attributes.int_or("axis", -1)?, rank)?;
        return Ok(axis..axis + 1);
    }
    let axis = call.attributes.int_or("axis", 1)?;
    if axis == rank as i64 {
        return Ok(rank..rank);
    }
    Ok(call.axis(axis, rank)?..rank)
}

/// `Softmax` and `LogSoftmax`.
pub fn softmax(call: &mut Call) -> Imported {
    let value = call.value(0)?;
    let sizes = call.shape_of(value);
    let axes = softmax_axes(call, sizes.len())?;
    let log = call.operator == "LogSoftmax";
    let over = axes.map(|axis| axis as u32).collect();
    Ok(vec![softmax_over(call, value, over, log)?.into()])
}

/// Softmax over axes.
///
/// # Errors
/// Does not fail for floats.
pub fn softmax_over(call: &mut Call, value: Value, over: Vec<u32>, log: bool) -> Result<Value, ImportError> {
    let element = call.element_of(value);
    if element.is_float() && element.bits() < 32 && !log {
        // The operator is defined by these steps, between which half-precision numbers are rounded.
        let axes: Vec<usize> = over.iter().map(|axis| *axis as usize).collect();
        let largest = reduced(call, value, &axes, Monoid::Maximum, true);
        let powers = call.map(&[value, largest], apply(Unary::Exp, sub(operand(0), operand(1))))?;
        let sum = reduced(call, powers, &axes, Monoid::Sum, true);
        return call.map(&[powers, sum], div(operand(0), operand(1)));
    }
    let (mut draft, variables) = Draft::over(&call.shape_of(value));
    draft.read_at(value, &variables);
    Ok(call.emit(draft, Op::Softmax { over, log }, element, &variables))
}

/// `Hardmax`: one at the first largest element, zero elsewhere.
pub fn hardmax(call: &mut Call) -> Imported {
    let value = call.value(0)?;
    let sizes = call.shape_of(value);
    let element = call.element_of(value);
    let axes = softmax_axes(call, sizes.len())?;
    // Several axes count as one.
    let merged: Vec<Size> = match axes.len() {
        1 => sizes.clone(),
        _ => vec![sizes[..axes.start].iter().cloned().product(), sizes[axes.clone()].iter().cloned().product()],
    };
    let axis = if axes.len() == 1 { axes.start } else { 1 };
    let flat = call.reshape(value, &merged);
    let op = Op::ArgReduce { largest: true, last: false };
    let best = contract(call, flat, &[axis], op, ElementType::I64, true);
    let (one, zero) = (number(element, 1.), number(element, 0.));
    let hit = equal(operand(0), ScalarExpr::Index(axis as u32));
    let result = call.map_over(&[best], ScalarExpr::select(hit, one, zero), &merged)?;
    Ok(vec![call.reshape(result, &sizes).into()])
}

/// `CumSum` and `CumProd`: a scan that carries what has been seen so far.
pub fn cumulative(call: &mut Call) -> Imported {
    let exclusive = call.attributes.flag("exclusive", false)?;
    let reverse = call.attributes.flag("reverse", false)?;
    let value = call.value(0)?;
    let sizes = call.shape_of(value);
    let axis = match call.integers(1)?.as_slice() {
        [axis] => call.axis(*axis, sizes.len())?,
        _ => return Err(call.operand_error(1, "this must be one axis")),
    };
    let element = call.element_of(value);
    let (function, neutral) = match call.operator {
        "CumProd" => (Binary::Multiply, Literal::one(element)),
        _ => (Binary::Add, Literal::zero(element)),
    };
    let rest: Vec<Size> = (0..sizes.len()).filter(|other| *other != axis).map(|other| sizes[other].clone()).collect();
    let name = format!("{}_step", call.importer.origin.base);
    call.importer.open_made_body(&name);
    let past = call.importer.builder_mut().input("past", element, &rest);
    let next = call.importer.builder_mut().input("next", element, &rest);
    let sum = call.map(&[past, next], ScalarExpr::binary_map(function))?;
    let results = [sum, if exclusive { past } else { sum }];
    let body = call.importer.close_made_body(&results);
    let start = call.filled(neutral, &rest);
    let (mut draft, variables) = Draft::over(&sizes);
    let others: Vec<u32> = variables.iter().copied().filter(|variable| *variable != variables[axis]).collect();
    draft.read_at(start, &others);
    draft.read_at(value, &variables);
    let op = Op::Scan { body, along: variables[axis], reverse, states: 1 };
    let outputs = call.emit_many(draft, op, vec![(element, others), (element, variables)]);
    Ok(vec![outputs[1].into()])
}

/// `TopK`: the first positions of a sort.
pub fn top_k(call: &mut Call) -> Imported {
    let value = call.value(0)?;
    let sizes = call.shape_of(value);
    let axis = call.axis(call.attributes.int_or("axis", -1)?, sizes.len())?;
    // Sorted results are one of the allowed orders where no order is asked for.
    call.attributes.ignore(&["sorted"]);
    let descending = call.attributes.flag("largest", true)?;
    let count = if call.version < 10 {
        Size::from(call.attributes.required_int("k")?)
    } else {
        match call.sizes(1)?.as_slice() {
            [count] => count.clone(),
            _ => return Err(call.operand_error(1, "this must be one number")),
        }
    };
    if count.as_constant().zip(sizes[axis].as_constant()).is_some_and(|(count, size)| count > size || count < 0) {
        return Err(call.error(format!("{count} elements are asked for of an axis of {}", sizes[axis])));
    }
    let element = call.element_of(value);
    let mut kept = sizes.clone();
    kept[axis] = count;
    let (mut draft, output) = Draft::over(&kept);
    let along = draft.variable(&sizes[axis]);
    let mut read = output.clone();
    read[axis] = along;
    draft.read_at(value, &read);
    let op = Op::Sort { along, kept: output[axis], descending };
    let outputs = call.emit_many(draft, op, vec![(element, output.clone()), (ElementType::I64, output)]);
    Ok(outputs.into_iter().map(Item::from).collect())
}

/// `OneHot`: `on` where the position along the new axis is the index, `off` elsewhere.
pub fn one_hot(call: &mut Call) -> Imported {
    let indices = call.value(0)?;
    let from = call.shape_of(indices);
    let index_element = call.element_of(indices);
    let depth = match call.given(1).known().as_deref() {
        Some(known) if known.sizes.len() == 1 => known.sizes[0].clone(),
        _ => match call.given(1).literal() {
            Some(literal) => Size::from(literal.to_f64() as i64),
            None => return Err(call.operand_error(1, "the depth must be a constant, because a size depends on it")),
        },
    };
    let values = call.value(2)?;
    let axis = call.axis(call.attributes.int_or("axis", -1)?, from.len() + 1)?;
    let mut sizes = from.clone();
    sizes.insert(axis, depth.clone());
    let element = call.element_of(values);
    let (mut draft, variables) = Draft::over(&sizes);
    let others: Vec<u32> = variables.iter().copied().filter(|variable| *variable != variables[axis]).collect();
    draft.read_at(indices, &others);
    draft.read(values, vec![IndexExpr::constant(0)]);
    draft.read(values, vec![IndexExpr::constant(1)]);
    let int = ElementType::I64;
    let index = cast(int, index_element, operand(0));
    let position = ScalarExpr::Index(variables[axis]);
    let wrapped = equal(index.clone(), sub(position.clone(), size(int, &depth)));
    let hit = ScalarExpr::binary(Binary::Or, equal(index, position), wrapped);
    let expression = ScalarExpr::select(hit, operand(2), operand(1));
    Ok(vec![call.emit(draft, Op::Map(expression), element, &variables).into()])
}
