//! Quantised operators: quantising and dequantising are maps, products of integers are integer contractions.

use super::{
    convolution::correlate,
    elementwise::combine,
    matmul::product,
    reduce::reduced,
    scalar::{add, apply, cast, div, max, min, mul, number, operand, sub},
};
use crate::import::onnx::{
    call::{Call, Imported, broadcast_exprs},
    data::element_type,
    draft::Draft,
    error::ImportError,
    values::Item,
};
use strang_ir::{IndexExpr, Op, ScalarExpr, Value, op::Monoid, scalar::Unary};
use strang_runtime::{ElementType, Size};

/// How scales and zero points of an operator's data lie.
struct Granularity {
    axis: i64,
    block: i64,
}

impl Granularity {
    fn of(call: &Call) -> Result<Self, ImportError> {
        let block = if call.version >= 21 { call.attributes.int_or("block_size", 0)? } else { 0 };
        Ok(Granularity { axis: call.attributes.int_or("axis", 1)?, block })
    }

    /// Where a scale of the given shape is read for data of the given sizes; variable `k` runs over axis `k`.
    fn exprs(&self, call: &Call, scale: &[Size], data: &[Size]) -> Result<Vec<IndexExpr>, ImportError> {
        let one = scale.iter().all(|size| size.is(1));
        if one && scale.len() < 2 {
            return Ok(vec![IndexExpr::constant(0); scale.len()]);
        }
        let axis = call.axis(self.axis, data.len())?;
        if self.block == 0 {
            return match scale.len() {
                1 => Ok(vec![IndexExpr::variable(axis as u32)]),
                _ => Err(call.operand_error(1, format!("{scale:?} is neither one scale nor one for each of an axis"))),
            };
        }
        if scale.len() != data.len() || self.block < 0 {
            return Err(call.operand_error(1, format!("{scale:?} are not the scales of blocks of {data:?}")));
        }
        let variables: Vec<u32> = (0..data.len() as u32).collect();
        let mut exprs: Vec<IndexExpr> = variables.iter().map(|variable| IndexExpr::variable(*variable)).collect();
        let size_of = |variable: u32| data[variable as usize].clone();
        exprs[axis] = exprs[axis].floor_div(&Size::from(self.block), &size_of);
        Ok(exprs)
    }
}

/// By how much unsigned bytes exceed the signed ones that stand for the same numbers.
const HALF: i64 = 128;

/// Signed bytes out of the unsigned ones that exceed them by [`HALF`].
///
/// CPUs multiply unsigned bytes by signed weights. So what becomes signed bytes becomes unsigned ones first, with a zero point
/// that is larger by as much, and what reads the signed ones reads those instead.
fn lowered() -> ScalarExpr {
    let (narrow, wide) = (ElementType::I8, ElementType::I32);
    cast(narrow, wide, sub(cast(wide, ElementType::U8, operand(0)), number(wide, HALF as f64)))
}

/// The unsigned bytes that signed ones were made of.
fn raised(call: &Call, value: Value) -> Option<Value> {
    let function = &call.importer.builder().function;
    let node = &function.graph[value.node];
    let is_whole = || node.maps[0].as_variables().is_some_and(|read| read == node.outputs[0].variables[..]);
    let is_lowered = matches!(&node.op, Op::Map(expression) if *expression == lowered()) && is_whole();
    is_lowered.then(|| function.operands(value.node)[0])
}

/// The zero point of unsigned bytes in the place of signed ones: of an operand that is a signed byte, or left out.
fn raised_zero(call: &Call, slot: usize) -> Option<i64> {
    let zero = if call.has(slot) {
        let literal = call.item(slot).literal().filter(|literal| literal.element == ElementType::I8)?;
        literal.to_f64() as i64
    } else {
        0
    };
    Some(zero + HALF)
}

/// A zero point.
enum Zero {
    /// Operand 2 of the operator, if it is given.
    Operand,
    /// One of unsigned bytes.
    Byte(i64),
}

/// A map over data, scale and, if it is given, zero point. The expression sees data and scale as operands 0 and 1.
fn scaled(
    call: &mut Call,
    granularity: &Granularity,
    (x, zero): (Value, Zero),
    build: impl FnOnce(Option<ScalarExpr>) -> ScalarExpr,
) -> Result<Value, ImportError> {
    let scale = call.value(1)?;
    let sizes = call.shape_of(x);
    let (mut draft, variables) = Draft::over(&sizes);
    draft.read_at(x, &variables);
    let exprs = granularity.exprs(call, &call.shape_of(scale), &sizes)?;
    draft.read(scale, exprs);
    let mut elements = vec![call.element_of(x), call.element_of(scale)];
    // A constant zero point of zero is none.
    let is_zero = call.item(2).tensor().is_some_and(|tensor| tensor.bytes().iter().all(|byte| *byte == 0));
    let zero_point = match zero {
        Zero::Byte(zero) => (zero != 0).then(|| number(ElementType::U8, zero as f64)),
        Zero::Operand if call.has(2) && !is_zero => {
            let value = call.value(2)?;
            let exprs = granularity.exprs(call, &call.shape_of(value), &sizes)?;
            draft.read(value, exprs);
            elements.push(call.element_of(value));
            Some(operand(2))
        }
        Zero::Operand => None,
    };
    let expression = build(zero_point);
    let element = expression.element(&elements).map_err(|reason| call.error(reason))?;
    Ok(call.emit(draft, Op::Map(expression), element, &variables))
}

fn type_attribute(call: &Call, name: &str) -> Result<Option<ElementType>, ImportError> {
    match call.attributes.int(name)? {
        None | Some(0) => Ok(None),
        Some(number) => {
            let number = i32::try_from(number).map_err(|_| call.attributes.error(name, "this is no data type"))?;
            element_type(number).map(Some).map_err(|reason| call.attributes.error(name, reason))
        }
    }
}

/// `x / scale`, rounded, moved by the zero point and limited to the range of `to`.
fn quantised(to: ElementType, float: ElementType, quotient: ScalarExpr, zero_point: Option<ScalarExpr>) -> ScalarExpr {
    let rounded = apply(Unary::Round, quotient);
    let moved = match zero_point {
        None => rounded,
        Some(zero_point) => add(rounded, cast(float, to, zero_point)),
    };
    cast(to, float, moved)
}

/// `QuantizeLinear`.
pub fn quantise(call: &mut Call) -> Imported {
    // How to convert to the 8-bit floats, which are not supported anyway.
    call.attributes.ignore(&["saturate"]);
    let granularity = Granularity::of(call)?;
    let asked = type_attribute(call, "output_dtype")?;
    let to = if call.has(2) { call.element(2)? } else { asked.unwrap_or(ElementType::U8) };
    if !to.is_integer() {
        return Err(call.unsupported(format!("quantising to {to} is not, quantising to integers is")));
    }
    let (from, scale) = (call.element(0)?, call.element(1)?);
    let float = type_attribute(call, "precision")?.unwrap_or(scale);
    let x = call.value(0)?;
    let quotient = div(cast(float, from, operand(0)), cast(float, scale, operand(1)));
    if to == ElementType::I8
        && let Some(zero) = raised_zero(call, 2)
    {
        let to = ElementType::U8;
        let codes = scaled(call, &granularity, (x, Zero::Byte(zero)), |zero| quantised(to, float, quotient, zero))?;
        return Ok(vec![call.map(&[codes], lowered())?.into()]);
    }
    let codes = scaled(call, &granularity, (x, Zero::Operand), |zero| quantised(to, float, quotient, zero))?;
    Ok(vec![codes.into()])
}

/// `DequantizeLinear`.
pub fn dequantise(call: &mut Call) -> Imported {
    let granularity = Granularity::of(call)?;
    let (from, scale) = (call.element(0)?, call.element(1)?);
    let to = type_attribute(call, "output_dtype")?.unwrap_or(scale);
    let x = call.value(0)?;
    let (x, zero, from) = match (raised(call, x), raised_zero(call, 2)) {
        (Some(codes), Some(zero)) => (codes, Zero::Byte(zero), ElementType::U8),
        _ => (x, Zero::Operand, from),
    };
    let numbers = scaled(call, &granularity, (x, zero), |zero_point| {
        let x = cast(scale, from, operand(0));
        let moved = match zero_point {
            None => x,
            Some(zero_point) => sub(x, cast(scale, from, zero_point)),
        };
        cast(to, scale, mul(moved, operand(1)))
    })?;
    Ok(vec![numbers.into()])
}

/// `DynamicQuantizeLinear`: to u8 over the range of the data, which is made to include zero.
pub fn quantise_dynamically(call: &mut Call) -> Imported {
    let (float, to) = (ElementType::F32, ElementType::U8);
    let x = call.value(0)?;
    let axes: Vec<usize> = (0..call.shape_of(x).len()).collect();
    let largest = reduced(call, x, &axes, Monoid::Maximum, false);
    let smallest = reduced(call, x, &axes, Monoid::Minimum, false);
    let zero = number(float, 0.);
    let high = max(operand(0), zero.clone());
    let low = min(operand(1), zero.clone());
    let scale = call.map(&[largest, smallest], div(sub(high, low), number(float, 255.)))?;
    let low = min(operand(0), zero.clone());
    let zero_point = cast(to, float, apply(Unary::Round, div(sub(zero, low), operand(1))));
    let zero_point = call.map(&[smallest, scale], zero_point)?;
    let y = quantised(to, float, div(operand(0), operand(1)), Some(operand(2)));
    let y = call.map(&[x, scale, zero_point], y)?;
    Ok(vec![y.into(), scale.into(), zero_point.into()])
}

/// An operand in i32 with its zero point taken off; a vector of zero points lies along `axis`.
///
/// # Errors
/// Operands that are missing, or a zero point that does not lie along the axis.
pub fn centred(call: &mut Call, slot: usize, zero_slot: usize, axis: Axis) -> Result<Value, ImportError> {
    let value = call.value(slot)?;
    let (from, wide) = (call.element_of(value), ElementType::I32);
    if let (Some(codes), Some(zero)) = (raised(call, value), raised_zero(call, zero_slot)) {
        return call.map(&[codes], sub(cast(wide, ElementType::U8, operand(0)), number(wide, zero as f64)));
    }
    let zero = call.item(zero_slot).tensor().is_some_and(|tensor| tensor.bytes().iter().all(|byte| *byte == 0));
    if !call.has(zero_slot) || zero {
        return call.map(&[value], cast(wide, from, operand(0)));
    }
    let zero_point = call.value(zero_slot)?;
    let sizes = call.shape_of(value);
    let (mut draft, variables) = Draft::over(&sizes);
    draft.read_at(value, &variables);
    let exprs = axis.exprs(call, zero_slot, &call.shape_of(zero_point), &sizes, &variables)?;
    draft.read(zero_point, exprs);
    let zero_element = call.element_of(zero_point);
    let difference = sub(cast(wide, from, operand(0)), cast(wide, zero_element, operand(1)));
    Ok(call.emit(draft, Op::Map(difference), wide, &variables))
}

/// The numbers that the codes of an operand stand for; the operands of its scale and of its zero point, which may be left out,
/// broadcast.
///
/// # Errors
/// Operands that are missing, or do not broadcast.
pub fn numbers(call: &mut Call, slot: usize, [scale, zero]: [usize; 2]) -> Result<Value, ImportError> {
    let (value, scale) = (call.value(slot)?, call.value(scale)?);
    let float = call.element_of(scale);
    let (values, from, zero) = match (raised(call, value), raised_zero(call, zero)) {
        (Some(codes), Some(zero)) => (vec![codes, scale], ElementType::U8, number(ElementType::U8, zero as f64)),
        _ => {
            let from = call.element_of(value);
            let zero_point = call.optional(zero)?;
            let zero = if zero_point.is_some() { operand(2) } else { number(from, 0.) };
            ([value, scale].into_iter().chain(zero_point).collect(), from, zero)
        }
    };
    let centred = sub(cast(float, from, operand(0)), cast(float, from, zero));
    call.map(&values, mul(centred, operand(1)))
}

/// The codes of numbers, of the type of the zero point, or of `element` where that is left out; its operand and that of the
/// scale broadcast.
///
/// # Errors
/// As for [`numbers`].
pub fn codes(
    call: &mut Call,
    value: Value,
    [scale, zero]: [usize; 2],
    element: ElementType,
) -> Result<Value, ImportError> {
    let scale = call.value(scale)?;
    let float = call.element_of(scale);
    let to = if call.has(zero) { call.element(zero)? } else { element };
    let quotient = div(operand(0), operand(1));
    if to == ElementType::I8
        && let Some(zero) = raised_zero(call, zero)
    {
        let to = ElementType::U8;
        let codes = quantised(to, float, quotient, Some(number(to, zero as f64)));
        let codes = call.map(&[value, scale], codes)?;
        return call.map(&[codes], lowered());
    }
    let zero_point = call.optional(zero)?;
    let codes = quantised(to, float, quotient, zero_point.map(|_| operand(2)));
    call.map(&[value, scale].into_iter().chain(zero_point).collect::<Vec<_>>(), codes)
}

/// Along which axis of the data a vector of scales or zero points lies.
#[derive(Clone, Copy)]
pub enum Axis {
    /// The last but one: the rows of a matrix.
    Rows,
    /// The last: the columns of a matrix.
    Columns,
    /// The first: the output channels of weights.
    First,
    /// The second: the channels of a convolution's result.
    Second,
}

impl Axis {
    fn exprs(
        self,
        call: &Call,
        slot: usize,
        shape: &[Size],
        sizes: &[Size],
        variables: &[u32],
    ) -> Result<Vec<IndexExpr>, ImportError> {
        if shape.iter().all(|size| size.is(1)) {
            return Ok(vec![IndexExpr::constant(0); shape.len()]);
        }
        if shape.len() > 1 {
            let fits = shape.len() <= sizes.len();
            let error = || call.operand_error(slot, format!("{shape:?} does not broadcast to {sizes:?}"));
            return fits.then(|| broadcast_exprs(shape, sizes, variables)).ok_or_else(error);
        }
        let axis = match self {
            Axis::Rows => sizes.len().checked_sub(2),
            Axis::Columns => sizes.len().checked_sub(1),
            Axis::First => Some(0),
            Axis::Second => Some(1),
        };
        let axis = axis.filter(|axis| *axis < sizes.len());
        let axis = axis.ok_or_else(|| call.operand_error(slot, format!("{shape:?} is too long for {sizes:?}")))?;
        Ok(vec![IndexExpr::variable(variables[axis])])
    }
}

/// `MatMulInteger`.
pub fn matmul_integer(call: &mut Call) -> Imported {
    let a = centred(call, 0, 2, Axis::Rows)?;
    let b = centred(call, 1, 3, Axis::Columns)?;
    Ok(vec![product(call, a, b, ElementType::I32, ElementType::I32)?.into()])
}

/// `ConvInteger`.
pub fn convolution_integer(call: &mut Call) -> Imported {
    let x = centred(call, 0, 2, Axis::First)?;
    let weights = centred(call, 1, 3, Axis::First)?;
    Ok(vec![correlate(call, x, weights, ElementType::I32, ElementType::I32)?.into()])
}

/// The sums of a quantised product in the scale of the result: `round(sum * a_scale * b_scale / y_scale) + y_zero`.
/// The scales are operands `scales`, each with the axis along which a vector of them lies.
///
/// # Errors
/// Operands that are missing, or do not lie along the axes.
pub fn requantised(call: &mut Call, sums: Value, scales: [(usize, Axis); 3], zero_slot: usize) -> Imported {
    let float = ElementType::F32;
    let to = call.element(zero_slot)?;
    let raised = raised_zero(call, zero_slot).filter(|_| to == ElementType::I8);
    let sizes = call.shape_of(sums);
    let (mut draft, variables) = Draft::over(&sizes);
    draft.read_at(sums, &variables);
    let mut elements = vec![call.element_of(sums)];
    let zero = raised.is_none().then_some((zero_slot, scales[2].1));
    for (slot, axis) in scales.into_iter().chain(zero) {
        let value = call.value(slot)?;
        let exprs = axis.exprs(call, slot, &call.shape_of(value), &sizes, &variables)?;
        draft.read(value, exprs);
        elements.push(call.element_of(value));
    }
    let factor = |slot: usize| cast(float, elements[slot], operand(slot as u32));
    let scale = div(mul(factor(1), factor(2)), factor(3));
    let (to, zero) = match raised {
        Some(zero) => (ElementType::U8, number(ElementType::U8, zero as f64)),
        None => (to, operand(4)),
    };
    let expression = quantised(to, float, mul(factor(0), scale), Some(zero));
    let element = expression.element(&elements).map_err(|reason| call.error(reason))?;
    let codes = call.emit(draft, Op::Map(expression), element, &variables);
    Ok(vec![if raised.is_some() { call.map(&[codes], lowered())? } else { codes }.into()])
}

/// `QLinearMatMul`.
pub fn quantised_matmul(call: &mut Call) -> Imported {
    let a = centred(call, 0, 2, Axis::Rows)?;
    let b = centred(call, 3, 5, Axis::Columns)?;
    let sums = product(call, a, b, ElementType::I32, ElementType::I32)?;
    requantised(call, sums, [(1, Axis::Rows), (4, Axis::Columns), (6, Axis::Rows)], 7)
}

/// `QLinearConv`.
pub fn quantised_convolution(call: &mut Call) -> Imported {
    let x = centred(call, 0, 2, Axis::First)?;
    let weights = centred(call, 3, 5, Axis::First)?;
    let sums = correlate(call, x, weights, ElementType::I32, ElementType::I32)?;
    let bias = call.optional(8)?;
    let sums = super::convolution::with_bias(call, sums, bias)?;
    requantised(call, sums, [(1, Axis::First), (4, Axis::Second), (6, Axis::First)], 7)
}

/// `Cast` between types of one width that keeps the bits: only between integers of one width, where it is a cast.
pub fn reinterpret(call: &mut Call) -> Imported {
    let to = type_attribute(call, "to")?.ok_or_else(|| call.attributes.error("to", "this data type is missing"))?;
    let from = call.element(0)?;
    if from.bits() != to.bits() {
        return Err(call.attributes.error("to", format!("{to} has not as many bits as {from}")));
    }
    if let Some(tensor) = call.item(0).tensor() {
        let changed = strang_runtime::Tensor::from_bytes(to, tensor.shape(), tensor.bytes());
        let name = call.importer.origin.base.clone();
        return changed.map(|tensor| vec![Item::constant(name, tensor)]).map_err(|error| call.error(error.to_string()));
    }
    if from == to {
        return Ok(vec![call.item(0)]);
    }
    if !(from.is_integer() && to.is_integer()) {
        return Err(call.unsupported(format!("the bits of {from} as {to} are not; those of integers as integers are")));
    }
    let item = call.item(0);
    Ok(vec![combine(call, &[item], |leaves| cast(to, from, leaves[0].clone()))?.into()])
}
