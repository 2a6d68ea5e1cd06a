//! Operators that make values out of nothing, or out of shapes.

use super::scalar::{add, cast, mul, operand, size};
use crate::import::onnx::{
    call::{Call, Imported},
    data::element_type,
    draft::Draft,
    error::ImportError,
    values::{Item, Known},
};
use strang_ir::{Literal, Op, ScalarExpr, scalar::Binary};
use strang_runtime::{ElementType, Size, Tensor};

/// `Constant`.
pub fn constant(call: &mut Call) -> Imported {
    let attributes = &call.attributes;
    let name = call.importer.origin.base.clone();
    let made = |tensor: Result<Tensor, strang_runtime::tensor::TensorError>| {
        tensor.map_err(|error| call.error(error.to_string()))
    };
    let tensor = if let Some(proto) = attributes.tensor("value")? {
        call.importer.loader.tensor(proto)?
    } else if let Some(value) = attributes.float("value_float")? {
        Tensor::scalar(value)
    } else if let Some(value) = attributes.int("value_int")? {
        Tensor::scalar(value)
    } else if let Some(values) = attributes.floats("value_floats")? {
        made(Tensor::from_slice(&[values.len()], values))?
    } else if let Some(values) = attributes.ints("value_ints")? {
        made(Tensor::from_slice(&[values.len()], values))?
    } else {
        for name in ["value_string", "value_strings", "sparse_value"] {
            if attributes.has(name) {
                return Err(attributes.error(name, "constants of this kind are not supported; dense numbers are"));
            }
        }
        return Err(call.error("the constant has no value"));
    };
    Ok(vec![Item::constant(name, tensor)])
}

/// `ConstantOfShape`.
pub fn constant_of_shape(call: &mut Call) -> Imported {
    let value = match call.attributes.tensor("value")? {
        None => Literal::f32(0.),
        Some(proto) => {
            let tensor = call.importer.loader.tensor(proto)?;
            if tensor.count() != 1 {
                return Err(call.attributes.error("value", "this must be one number"));
            }
            Literal { element: tensor.element(), bits: tensor.bits_at(0) }
        }
    };
    let sizes = call.sizes(0)?;
    if sizes.iter().any(|size| size.as_constant().is_some_and(|size| size < 0)) {
        return Err(call.error(format!("the shape {sizes:?} has a negative size")));
    }
    // A small vector of integers may be part of shape arithmetic.
    let shape: Option<Vec<usize>> =
        sizes.iter().map(|size| size.as_constant().and_then(|size| usize::try_from(size).ok())).collect();
    if let (Some(shape), Some(integer)) = (shape, value.to_integer().and_then(|value| i64::try_from(value).ok()))
        && let Some(count) = shape.iter().try_fold(1usize, |count, size| count.checked_mul(*size))
        && count <= SHAPE_LIMIT
    {
        return Ok(vec![Known { element: value.element, shape, sizes: vec![Size::from(integer); count] }.into()]);
    }
    Ok(vec![call.filled(value, &sizes).into()])
}

/// Constant integers of up to this many elements are taken for parts of a shape; larger ones become views of one number.
const SHAPE_LIMIT: usize = 64;

/// `Shape`: the sizes of axes `start..end`.
pub fn shape(call: &mut Call) -> Imported {
    let sizes = call.shape(0)?;
    let rank = sizes.len() as i64;
    let (start, end) = match call.version >= 15 {
        true => (call.attributes.int_or("start", 0)?, call.attributes.int_or("end", rank)?),
        false => (0, rank),
    };
    let clamp = |bound: i64| if bound < 0 { bound.saturating_add(rank).max(0) } else { bound.min(rank) } as usize;
    let (start, end) = (clamp(start), clamp(end));
    Ok(vec![Known::vector(sizes[start..end.max(start)].to_vec()).into()])
}

/// `Size`: the number of elements.
pub fn count(call: &mut Call) -> Imported {
    Ok(vec![Known::scalar(call.shape(0)?.into_iter().product()).into()])
}

/// `Range`: bounds of integers must be known; bounds of floats must be constants.
pub fn range(call: &mut Call) -> Imported {
    let element = call.element(0)?;
    if element.is_float() {
        let number = |slot: usize| {
            let literal = call.given(slot).literal();
            literal
                .map(Literal::to_f64)
                .ok_or_else(|| call.operand_error(slot, "this must be a constant number, because a size depends on it"))
        };
        let (start, limit, delta) = (number(0)?, number(1)?, number(2)?);
        let count = ((limit - start) / delta).ceil();
        if !(count.is_finite() && count < 1e15) {
            return Err(call.error(format!("a range from {start} to {limit} by {delta} has no end")));
        }
        let first = super::scalar::number(element, start);
        let step = super::scalar::number(element, delta);
        return ramp(call, element, Size::from(count.max(0.) as i64), first, step);
    }
    let one = |slot: usize| match call.sizes(slot)?.as_slice() {
        [size] => Ok(size.clone()),
        _ => Err(call.operand_error(slot, "this must be one number")),
    };
    let (start, limit, delta) = (one(0)?, one(1)?, one(2)?);
    let (length, step) = match delta.as_constant() {
        Some(0) => return Err(call.operand_error(2, "the step is 0")),
        Some(step) if step < 0 => (&start - &limit, -&delta),
        Some(_) => (&limit - &start, delta.clone()),
        None => return Err(call.operand_error(2, "the step must be a constant")),
    };
    let count = length.ceil_div(&step);
    let count = if count.as_constant().is_some() { count.larger(&Size::ZERO) } else { count };
    if let (Some(start), Some(step), Some(count)) = (start.as_constant(), delta.as_constant(), count.as_constant())
        && count <= crate::import::onnx::values::KNOWN_LIMIT as i64
    {
        let sizes: Vec<Size> =
            (0..count).map(|position| Size::from(start.saturating_add(step.saturating_mul(position)))).collect();
        return Ok(vec![Known { element, shape: vec![sizes.len()], sizes }.into()]);
    }
    ramp(call, element, count, size(element, &start), size(element, &delta))
}

/// `first + step * position`.
fn ramp(call: &mut Call, element: ElementType, count: Size, first: ScalarExpr, step: ScalarExpr) -> Imported {
    let (draft, variables) = Draft::over(&[count]);
    let position = cast(element, ElementType::I64, ScalarExpr::Index(variables[0]));
    Ok(vec![call.emit(draft, Op::Map(add(first, mul(position, step))), element, &variables).into()])
}

/// `EyeLike`: ones on a diagonal.
pub fn eye_like(call: &mut Call) -> Imported {
    let sizes = call.shape(0)?;
    if sizes.len() != 2 {
        return Err(call.error(format!("the input must have 2 axes, but is {sizes:?}")));
    }
    let element = match call.attributes.int("dtype")? {
        Some(to) => {
            let to = i32::try_from(to).map_err(|_| call.attributes.error("dtype", "this is no data type"))?;
            element_type(to).map_err(|reason| call.attributes.error("dtype", reason))?
        }
        None => call.element(0)?,
    };
    let diagonal = call.attributes.int_or("k", 0)?;
    let (draft, variables) = Draft::over(&sizes);
    let row = add(ScalarExpr::Index(variables[0]), ScalarExpr::Literal(Literal::i64(diagonal)));
    let hit = super::scalar::equal(row, ScalarExpr::Index(variables[1]));
    let (one, zero) = (ScalarExpr::Literal(Literal::one(element)), ScalarExpr::Literal(Literal::zero(element)));
    Ok(vec![call.emit(draft, Op::Map(ScalarExpr::select(hit, one, zero)), element, &variables).into()])
}

/// `Trilu`: the triangle above or below a diagonal, zero elsewhere.
pub fn triangle(call: &mut Call) -> Imported {
    let upper = call.attributes.flag("upper", true)?;
    let value = call.value(0)?;
    let sizes = call.shape_of(value);
    let element = call.element_of(value);
    if sizes.len() < 2 {
        return Err(call.error(format!("the input needs at least 2 axes, but is {sizes:?}")));
    }
    let (mut draft, variables) = Draft::over(&sizes);
    draft.read_at(value, &variables);
    let diagonal = match (call.has(1), call.item(1).literal()) {
        (false, _) => ScalarExpr::Literal(Literal::i64(0)),
        (true, Some(literal)) => cast(ElementType::I64, literal.element, ScalarExpr::Literal(literal)),
        (true, None) => {
            let offset = call.value(1)?;
            let place = vec![strang_ir::IndexExpr::constant(0); call.shape_of(offset).len()];
            draft.read(offset, place);
            cast(ElementType::I64, call.element_of(offset), operand(1))
        }
    };
    let rank = sizes.len();
    let (row, column) = (ScalarExpr::Index(variables[rank - 2]), ScalarExpr::Index(variables[rank - 1]));
    let comparison = if upper { Binary::GreaterOrEqual } else { Binary::LessOrEqual };
    let kept = ScalarExpr::binary(comparison, column, add(row, diagonal));
    let zero = ScalarExpr::Literal(Literal::zero(element));
    let expression = ScalarExpr::select(kept, operand(0), zero);
    Ok(vec![call.emit(draft, Op::Map(expression), element, &variables).into()])
}

/// Operators whose results are random.
pub fn refused(call: &mut Call) -> Result<Vec<Item>, ImportError> {
    let reason = match call.operator {
        "Bernoulli" | "Multinomial" | "RandomNormal" | "RandomNormalLike" | "RandomUniform" | "RandomUniformLike" => {
            "it is random; give its result to the model as an input"
        }
        _ => "there is no circuit for it",
    };
    Err(call.unsupported(reason))
}
