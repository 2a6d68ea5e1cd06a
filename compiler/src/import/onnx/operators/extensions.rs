//! Quantised operators of ONNX Runtime, which its quantiser writes between those of the standard: each dequantises its operands,
//! computes, and quantises the result.

use super::{
    Operator, few_bits,
    matmul::of_matrices,
    quantise::{Axis, centred, codes, dequantise, numbers, quantise, requantised},
    reduce::mean,
    scalar::{add, apply, attribute, cast, less, mul, operand},
    shape::concatenated,
};
use crate::import::onnx::call::{Call, Imported};
use strang_ir::{ElementType, ScalarExpr, scalar::Unary};

/// The operators, by name.
pub const OPERATORS: &[Operator] = &[
    Operator { name: "DequantizeLinear", versions: &[1], import: dequantise },
    Operator { name: "MatMulNBits", versions: &[1], import: few_bits::matmul },
    Operator { name: "QGemm", versions: &[1], import: gemm },
    Operator { name: "QLinearAdd", versions: &[1], import: binary },
    Operator { name: "QLinearConcat", versions: &[1], import: concat },
    Operator { name: "QLinearGlobalAveragePool", versions: &[1], import: global_average },
    Operator { name: "QLinearLeakyRelu", versions: &[1], import: leaky_relu },
    Operator { name: "QLinearMul", versions: &[1], import: binary },
    Operator { name: "QLinearSigmoid", versions: &[1], import: sigmoid },
    Operator { name: "QuantizeLinear", versions: &[1], import: quantise },
];

/// `QLinearAdd` and `QLinearMul`.
fn binary(call: &mut Call) -> Imported {
    let element = call.element(0)?;
    let (a, b) = (numbers(call, 0, [1, 2])?, numbers(call, 3, [4, 5])?);
    let function = if call.operator == "QLinearAdd" { add } else { mul };
    let result = call.map(&[a, b], function(operand(0), operand(1)))?;
    Ok(vec![codes(call, result, [6, 7], element)?.into()])
}

/// A function of one operand.
fn of_one(call: &mut Call, function: ScalarExpr) -> Imported {
    let element = call.element(0)?;
    let x = numbers(call, 0, [1, 2])?;
    let result = call.map(&[x], function)?;
    Ok(vec![codes(call, result, [3, 4], element)?.into()])
}

/// `QLinearSigmoid`.
fn sigmoid(call: &mut Call) -> Imported {
    of_one(call, apply(Unary::Sigmoid, operand(0)))
}

/// `QLinearLeakyRelu`.
fn leaky_relu(call: &mut Call) -> Imported {
    let slope = attribute(ElementType::F32, call.attributes.float_or("alpha", 0.01)?);
    let is_negative = less(operand(0), attribute(ElementType::F32, 0.));
    of_one(call, ScalarExpr::select(is_negative, mul(operand(0), slope), operand(0)))
}

/// `QLinearGlobalAveragePool`.
fn global_average(call: &mut Call) -> Imported {
    let element = call.element(0)?;
    let x = numbers(call, 0, [1, 2])?;
    let rank = call.shape_of(x).len();
    if rank < 3 {
        return Err(call.error("an image with channels is needed"));
    }
    let axes = if call.attributes.flag("channels_last", false)? { 1..rank - 1 } else { 2..rank };
    let result = mean(call, x, &axes.collect::<Vec<_>>(), true)?;
    Ok(vec![codes(call, result, [3, 4], element)?.into()])
}

/// `QLinearConcat`.
fn concat(call: &mut Call) -> Imported {
    let count = call.operands.len().saturating_sub(2);
    if count == 0 || !count.is_multiple_of(3) {
        return Err(call.error("each array comes with a scale and a zero point"));
    }
    let element = call.element(2)?;
    let mut parts = Vec::new();
    for slot in (2..2 + count).step_by(3) {
        parts.push(numbers(call, slot, [slot + 1, slot + 2])?);
    }
    let axis = call.axis(call.attributes.required_int("axis")?, call.shape_of(parts[0]).len())?;
    let joined = concatenated(call, &parts, axis)?;
    Ok(vec![codes(call, joined, [0, 1], element)?.into()])
}

/// `QGemm`: quantised, or as floats where the scale of the result is left out.
fn gemm(call: &mut Call) -> Imported {
    if call.attributes.float_or("alpha", 1.)? != 1. {
        return Err(call.attributes.error("alpha", "a factor other than 1 is not supported"));
    }
    let transposed = [call.attributes.flag("transA", false)?, call.attributes.flag("transB", false)?];
    let a = centred(call, 0, 2, Axis::Rows)?;
    let b = centred(call, 3, 5, if transposed[1] { Axis::First } else { Axis::Columns })?;
    let wide = ElementType::I32;
    let mut sums = of_matrices(call, [(a, transposed[0]), (b, transposed[1])], wide, wide)?;
    if let Some(bias) = call.optional(6)? {
        sums = call.map(&[sums, bias], add(operand(0), operand(1)))?;
    }
    if call.has(7) {
        return requantised(call, sums, [(1, Axis::Rows), (4, Axis::Columns), (7, Axis::Rows)], 8);
    }
    let (a_scale, b_scale) = (call.value(1)?, call.value(4)?);
    let scaled = mul(mul(cast(ElementType::F32, wide, operand(0)), operand(1)), operand(2));
    Ok(vec![call.map(&[sums, a_scale, b_scale], scaled)?.into()])
}
