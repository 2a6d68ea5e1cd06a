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
use strang_ir::{IndexExpr, IndexMap, Literal, Op, ScalarExpr, Value, op::Monoid, scalar::Unary};
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
            call.attributes.ignore(&["storage_order"]);
            if call.wants(1) {
                return Err(
                    call.unsupported("its second output, the positions of the largest values, is not supported")
                );
            }
            Ok(vec![windowed(call, value, &window, Monoid::Maximum).into()])
        }
        "AveragePool" => {
            let padded = call.attributes.flag("count_include_pad", false)?;
            let sum = windowed(call, value, &window, Monoid::Sum);
            let count = tap_count(&window, &input[2..], padded);
            let (mut draft, variables) = Draft::over(&call.shape_of(sum));
            draft.read_at(sum, &variables);
            let average = Op::Map(div(operand(0), cast_count(element, count)));
            Ok(vec![call.emit(draft, average, element, &variables).into()])
        }
        _ => {
            let power = call.attributes.int_or("p", 2)?;
            lp(call, value, power as f32, |call, value| windowed(call, value, &window, Monoid::Sum))
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

/// How many taps of a window count, as an i64 expression of the output position: those that lie in the input, or in the
/// padded input.
fn tap_count(window: &Window, spatial: &[Size], padded: bool) -> ScalarExpr {
    let int = |value: &Size| size(ElementType::I64, value);
    let mut product: Option<ScalarExpr> = None;
    for (axis, extent) in spatial.iter().enumerate() {
        let kernel = &window.kernel[axis];
        let (stride, dilation) = (Size::from(window.strides[axis]), Size::from(window.dilations[axis]));
        // Positions are counted from the beginning of the padding; the counting range is low..high.
        let (low, high) = match padded {
            true => (Size::ZERO, extent + &window.begin[axis] + &window.end[axis]),
            false => (window.begin[axis].clone(), extent + &window.begin[axis]),
        };
        let reach = (&window.output[axis] - &Size::ONE) * &stride + (kernel - &Size::ONE) * &dilation + Size::ONE;
        let count = if low.is(0) && high.is_at_least(&reach, 1) {
            int(kernel)
        } else {
            // Output variables follow batch and channels.
            let start = mul(ScalarExpr::Index(axis as u32 + 2), int(&stride));
            let first = div(sub(int(&(&low + &dilation - Size::ONE)), start.clone()), int(&dilation));
            let last = div(sub(int(&(high - Size::ONE)), start), int(&dilation));
            let first = max(first, int(&Size::ZERO));
            let last = min(last, int(&(kernel - &Size::ONE)));
            add(sub(last, first), int(&Size::ONE))
        };
        product = Some(match (product, count) {
            (None, count) => count,
            (Some(ScalarExpr::Literal(a)), ScalarExpr::Literal(b)) => {
                let value = a.to_integer().unwrap_or(1) * b.to_integer().unwrap_or(1);
                ScalarExpr::Literal(Literal::from_integer(ElementType::I64, value))
            }
            (Some(product), count) => mul(product, count),
        });
    }
    product.unwrap_or_else(|| int(&Size::ONE))
}

fn cast_count(element: ElementType, count: ScalarExpr) -> ScalarExpr {
    cast(element, ElementType::I64, count)
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
            let power = call.attributes.int_or("p", 2)?;
            lp(call, value, power as f32, |call, value| super::reduce::reduced(call, value, &axes, Monoid::Sum, true))
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
