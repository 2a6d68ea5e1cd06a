//! Poolings: reductions over a windowed read of the input.

use super::{
    scalar::{add, apply, attribute, cast, div, max, min, mul, number, operand, pow, size, sub},
    window::Window,
};
use crate::import::onnx::{
    call::{Call, Imported},
    draft::Draft,
    error::ImportError,
};
use strang_ir::{
    Atom, IndexExpr, IndexMap, Literal, Op, ScalarExpr, Value,
    op::Monoid,
    scalar::{Binary, Unary},
};
use strang_runtime::{ElementType, Size};

/// `MaxPool`, `AveragePool` and `LpPool`.
pub fn pool(call: &mut Call) -> Imported {
    let value = call.value(0)?;
    let input = call.shape_of(value);
    let element = call.element_of(value);
    if input.len() < 3 {
        return Err(call.error(format!("the input needs at least 3 axes, but is {input:?}")));
    }
    let Some(kernel) = call.attributes.ints("kernel_shape")? else {
        return Err(call.attributes.error("kernel_shape", "these integers are missing"));
    };
    if kernel.len() != input.len() - 2 || kernel.iter().any(|size| *size < 1) {
        let reason = format!("{kernel:?} is no window over {} axes", input.len() - 2);
        return Err(call.attributes.error("kernel_shape", reason));
    }
    let kernel: Vec<Size> = kernel.iter().map(|size| Size::from(*size)).collect();
    let ceil = call.attributes.flag("ceil_mode", false)?;
    let window = Window::new(call, &input[2..], kernel, ceil)?;
    match call.operator {
        "MaxPool" => {
            let columns_first = call.attributes.flag("storage_order", false)?;
            let mut items = vec![windowed(call, value, &window, Monoid::Maximum).into()];
            if call.wants(1) {
                items.push(positions_of_largest(call, value, &window, columns_first).into());
            }
            Ok(items)
        }
        "AveragePool" => {
            let padded = call.attributes.flag("count_include_pad", false)?;
            let sum = windowed(call, value, &window, Monoid::Sum);
            let (constant, counts) = tap_counts(call, &window, &input[2..], padded, element);
            let (mut draft, variables) = Draft::over(&call.shape_of(sum));
            draft.read_at(sum, &variables);
            let mut count = number(element, constant);
            for (slot, (axis, value)) in counts.into_iter().enumerate() {
                draft.read_at(value, &variables[axis + 2..axis + 3]);
                count = mul(count, operand(slot as u32 + 1));
            }
            let average = Op::Map(div(operand(0), count));
            Ok(vec![call.emit(draft, average, element, &variables).into()])
        }
        _ => {
            let power = power_of(call)?;
            lp(call, value, power, |call, value| windowed(call, value, &window, Monoid::Sum))
        }
    }
}

fn windowed(call: &mut Call, value: Value, window: &Window, monoid: Monoid) -> Value {
    let element = call.element_of(value);
    let input = call.shape_of(value);
    let (mut draft, outer) = Draft::over(&input[..2]);
    let positions = draft.variables(&window.output);
    let taps = draft.variables(&window.kernel);
    let mut exprs: Vec<IndexExpr> = outer.iter().map(|variable| IndexExpr::variable(*variable)).collect();
    exprs.extend((0..positions.len()).map(|axis| window.place(axis, positions[axis], taps[axis])));
    let map = IndexMap::new(exprs);
    draft.read_map(value, if window.outside { map.with_fill(monoid.neutral(element)) } else { map });
    let output: Vec<u32> = outer.into_iter().chain(positions).collect();
    call.emit(draft, Op::Reduce(monoid), element, &output)
}

/// Where the largest element of each window lies in the whole input, counted row by row, or along the spatial axes column
/// by column.
fn positions_of_largest(call: &mut Call, value: Value, window: &Window, columns_first: bool) -> Value {
    let int = ElementType::I64;
    let element = call.element_of(value);
    let input = call.shape_of(value);
    let taps: Size = window.kernel.iter().cloned().product();
    let (mut draft, outer) = Draft::over(&input[..2]);
    let positions = draft.variables(&window.output);
    let tap = draft.variable(&taps);
    let mut exprs: Vec<IndexExpr> = outer.iter().map(|variable| IndexExpr::variable(*variable)).collect();
    let mut rest = taps.clone();
    for (axis, position) in positions.iter().enumerate() {
        rest = rest.floor_div(&window.kernel[axis]);
        let flat = IndexExpr::variable(tap).floor_div(&rest, &draft.sizes());
        let within = flat.remainder(&window.kernel[axis], &draft.sizes());
        let start = IndexExpr::variable(*position).times(&Size::from(window.strides[axis]));
        exprs.push(start.plus(&within.times(&Size::from(window.dilations[axis]))).plus_size(&-&window.begin[axis]));
    }
    let map = IndexMap::new(exprs);
    draft.read_map(value, if window.outside { map.with_fill(Monoid::Maximum.neutral(element)) } else { map });
    let output: Vec<u32> = outer.into_iter().chain(positions).collect();
    let chosen = call.emit(draft, Op::ArgReduce { largest: true, last: false }, int, &output);
    let sizes: Vec<Size> = input[..2].iter().chain(&window.output).cloned().collect();
    let (mut draft, variables) = Draft::over(&sizes);
    draft.read_at(chosen, &variables);
    let whole = |value: &Size| size(int, value);
    let index = |axis: usize| ScalarExpr::Index(variables[axis]);
    let mut place = add(mul(index(0), whole(&input[1])), index(1));
    let spatial = window.output.len();
    let order: Vec<usize> = if columns_first { (0..spatial).rev().collect() } else { (0..spatial).collect() };
    for axis in order {
        let behind: Size = window.kernel[axis + 1..].iter().cloned().product();
        let within =
            ScalarExpr::binary(Binary::Remainder, div(operand(0), whole(&behind)), whole(&window.kernel[axis]));
        let start = mul(index(axis + 2), ScalarExpr::Literal(Literal::i64(window.strides[axis])));
        let within = mul(within, ScalarExpr::Literal(Literal::i64(window.dilations[axis])));
        let coordinate = sub(add(start, within), whole(&window.begin[axis]));
        place = add(mul(place, whole(&input[axis + 2])), coordinate);
    }
    call.emit(draft, Op::Map(place), int, &variables)
}

/// `MaxUnpool`: every element goes where its position says, zeros elsewhere.
pub fn unpool(call: &mut Call) -> Imported {
    let (value, places) = (call.value(0)?, call.value(1)?);
    let input = call.shape_of(value);
    let rank = input.len().saturating_sub(2);
    let kernel = call.attributes.ints_or("kernel_shape", rank, 1)?;
    let strides = super::window::positive(call, "strides", rank)?;
    let pads = call.attributes.ints_or("pads", 2 * rank, 0)?;
    if rank == 0 || call.shape_of(places).len() != input.len() {
        return Err(call.error(format!("the input needs at least 3 axes and as many positions, but is {input:?}")));
    }
    // Positions count in the output that pooling would have had; a larger one gets zeros behind it.
    let mut sizes = input[..2].to_vec();
    for axis in 0..rank {
        let full = (&input[axis + 2] - &Size::ONE) * Size::from(strides[axis]) + Size::from(kernel[axis]);
        sizes.push(if call.has(2) { full } else { full - Size::from(pads[axis]) - Size::from(pads[rank + axis]) });
    }
    if sizes.iter().any(|size| size.as_constant().is_some_and(|size| size < 0)) {
        return Err(call.error(format!("the output would be {sizes:?}")));
    }
    let element = call.element_of(value);
    let flat: Size = sizes.iter().cloned().product();
    let zeros = call.filled(Literal::zero(element), std::slice::from_ref(&flat));
    let (mut draft, output) = Draft::over(std::slice::from_ref(&flat));
    let from = draft.variables(&input);
    draft.read_at(zeros, &output);
    draft.read_at(value, &from);
    draft.read_at(places, &from);
    let target = vec![IndexExpr::atom(Atom::Read(2))];
    let scattered = call.emit(draft, Op::Scatter { reduction: None, target }, element, &output);
    let result = call.reshape(scattered, &sizes);
    if !call.has(2) {
        return Ok(vec![result.into()]);
    }
    let wanted = call.sizes(2)?;
    if wanted.len() != sizes.len() {
        return Err(call.operand_error(2, format!("this must be {} sizes", sizes.len())));
    }
    let (mut draft, variables) = Draft::over(&wanted);
    let map = IndexMap::of_variables(variables.iter().copied()).with_fill(Literal::zero(element));
    draft.read_map(result, map);
    Ok(vec![call.emit(draft, Op::View, element, &variables).into()])
}

/// How many taps of a window count, which lie in the input or in the padded input: their number along the axes where it is
/// the same everywhere, and an array of their numbers for each other axis. Arrays are computed once, where sizes are known when
/// the model is compiled.
fn tap_counts(
    call: &mut Call,
    window: &Window,
    spatial: &[Size],
    padded: bool,
    element: ElementType,
) -> (f64, Vec<(usize, Value)>) {
    let int = |value: &Size| size(ElementType::I64, value);
    let (mut constant, mut arrays) = (1f64, Vec::new());
    for (axis, extent) in spatial.iter().enumerate() {
        let kernel = &window.kernel[axis];
        let (stride, dilation) = (Size::from(window.strides[axis]), Size::from(window.dilations[axis]));
        // Positions are counted from the beginning of the padding; the counting range is low..high.
        let (low, high) = match padded {
            true => (Size::ZERO, extent + &window.begin[axis] + &window.end[axis]),
            false => (window.begin[axis].clone(), extent + &window.begin[axis]),
        };
        let reach = (&window.output[axis] - &Size::ONE) * &stride + (kernel - &Size::ONE) * &dilation + Size::ONE;
        match kernel.as_constant() {
            Some(kernel) if low.is(0) && high.is_at_least(&reach, 1) => constant *= kernel as f64,
            _ => {
                let start = mul(ScalarExpr::Index(0), int(&stride));
                let first = div(sub(int(&(&low + &dilation - Size::ONE)), start.clone()), int(&dilation));
                let last = div(sub(int(&(high - Size::ONE)), start), int(&dilation));
                let first = max(first, int(&Size::ZERO));
                let last = min(last, int(&(kernel - &Size::ONE)));
                let count = cast(element, ElementType::I64, add(sub(last, first), int(&Size::ONE)));
                let (draft, variables) = Draft::over(std::slice::from_ref(&window.output[axis]));
                arrays.push((axis, call.emit(draft, Op::Map(count), element, &variables)));
            }
        }
    }
    (constant, arrays)
}

/// The p-norm around a sum: `sum(|x|^p)^(1/p)`.
fn lp(call: &mut Call, value: Value, power: f32, sum: impl FnOnce(&mut Call, Value) -> Value) -> Imported {
    let element = call.element_of(value);
    let positive = apply(Unary::Absolute, operand(0));
    let (before, after) = if power == 1. {
        (positive, operand(0))
    } else if power == 2. {
        (mul(operand(0), operand(0)), apply(Unary::SquareRoot, operand(0)))
    } else {
        (pow(positive, attribute(element, power)), pow(operand(0), number(element, 1. / f64::from(power))))
    };
    let powers = call.map(&[value], before)?;
    let total = sum(call, powers);
    Ok(vec![call.map(&[total], after)?.into()])
}

/// The power of `LpPool` and `GlobalLpPool`: an integer, in the first versions a float.
fn power_of(call: &Call) -> Result<f32, ImportError> {
    if call.version < 2 { call.attributes.float_or("p", 2.) } else { Ok(call.attributes.int_or("p", 2)? as f32) }
}

/// `GlobalMaxPool`, `GlobalAveragePool` and `GlobalLpPool`.
pub fn global(call: &mut Call) -> Imported {
    let value = call.value(0)?;
    let input = call.shape_of(value);
    if input.len() < 3 {
        return Err(call.error(format!("the input needs at least 3 axes, but is {input:?}")));
    }
    let axes: Vec<usize> = (2..input.len()).collect();
    match call.operator {
        "GlobalMaxPool" => Ok(vec![super::reduce::reduced(call, value, &axes, Monoid::Maximum, true).into()]),
        "GlobalAveragePool" => Ok(vec![super::reduce::mean(call, value, &axes, true)?.into()]),
        _ => {
            let power = power_of(call)?;
            lp(call, value, power, |call, value| super::reduce::reduced(call, value, &axes, Monoid::Sum, true))
        }
    }
}

/// `LpNormalization`: division by the p-norm along an axis; zeros stay zeros.
pub fn lp_normalization(call: &mut Call) -> Result<Vec<crate::import::onnx::values::Item>, ImportError> {
    let value = call.value(0)?;
    let rank = call.shape_of(value).len();
    let axis = call.axis(call.attributes.int_or("axis", -1)?, rank)?;
    let power = call.attributes.int_or("p", 2)?;
    let element = call.element_of(value);
    let norm =
        lp(call, value, power as f32, |call, value| super::reduce::reduced(call, value, &[axis], Monoid::Sum, true))?;
    let norm = call.importer.materialise(&norm[0])?;
    let zero = number(element, 0.);
    let quotient =
        ScalarExpr::select(super::scalar::equal(operand(1), zero.clone()), zero, div(operand(0), operand(1)));
    Ok(vec![call.map(&[value, norm], quotient)?.into()])
}
