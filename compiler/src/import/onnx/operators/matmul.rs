//! Matrix products: `MatMul` and `Gemm`, each one contraction.

use super::{
    elementwise::combine,
    scalar::{add, attribute, cast, mul},
};
use crate::import::onnx::{
    call::{Call, Imported, broadcast_exprs, shapes_text},
    draft::Draft,
    error::ImportError,
    values::Item,
};
use strang_ir::{IndexExpr, Op, Value};
use strang_runtime::ElementType;

/// `MatMul`.
pub fn matmul(call: &mut Call) -> Imported {
    let (a, b) = (call.value(0)?, call.value(1)?);
    let element = call.element_of(a);
    Ok(vec![product(call, a, b, element.accumulator(), element)?.into()])
}

/// The matrix product over the last axis of `a` and the last but one of `b`; the axes before them broadcast.
///
/// # Errors
/// Shapes that do not multiply.
pub fn product(
    call: &mut Call,
    a: Value,
    b: Value,
    accumulator: ElementType,
    element: ElementType,
) -> Result<Value, ImportError> {
    let (left, right) = (call.shape_of(a), call.shape_of(b));
    let mismatch = |call: &Call| {
        call.error(format!("the shapes do not multiply: {}", shapes_text(&[left.clone(), right.clone()])))
    };
    if left.is_empty() || right.is_empty() {
        return Err(mismatch(call));
    }
    let inner = &left[left.len() - 1];
    let inner_right = &right[right.len().saturating_sub(2)];
    if inner.as_constant().zip(inner_right.as_constant()).is_some_and(|(a, b)| a != b) {
        return Err(mismatch(call));
    }
    let inner = if inner.as_constant().is_some() { inner.clone() } else { inner_right.clone() };
    let batch_left = &left[..left.len().saturating_sub(2)];
    let batch_right = &right[..right.len().saturating_sub(2)];
    let batch = call.broadcast(&[batch_left.to_vec(), batch_right.to_vec()])?;
    let (mut draft, outer) = Draft::over(&batch);
    let row = (left.len() > 1).then(|| draft.variable(&left[left.len() - 2]));
    let column = (right.len() > 1).then(|| draft.variable(&right[right.len() - 1]));
    let contracted = draft.variable(&inner);
    let mut exprs = broadcast_exprs(batch_left, &batch, &outer);
    exprs.extend(row.into_iter().chain([contracted]).map(IndexExpr::variable));
    draft.read(a, exprs);
    let mut exprs = broadcast_exprs(batch_right, &batch, &outer);
    exprs.extend([contracted].into_iter().chain(column).map(IndexExpr::variable));
    draft.read(b, exprs);
    let output: Vec<u32> = outer.into_iter().chain(row).chain(column).collect();
    same_type(call, a, b)?;
    Ok(call.emit(draft, Op::Dot { accumulator }, element, &output))
}

/// Refuses operands of two types.
///
/// # Errors
/// Two types.
pub fn same_type(call: &Call, a: Value, b: Value) -> Result<(), ImportError> {
    let (left, right) = (call.element_of(a), call.element_of(b));
    if left == right {
        return Ok(());
    }
    Err(call.error(format!("the operands of a product have one element type, not {left} and {right}")))
}

/// `Gemm`: `alpha * A B + beta * C`.
pub fn gemm(call: &mut Call) -> Imported {
    let (alpha, beta) = (call.attributes.float_or("alpha", 1.)?, call.attributes.float_or("beta", 1.)?);
    let (transposed_a, transposed_b) = (call.attributes.flag("transA", false)?, call.attributes.flag("transB", false)?);
    call.attributes.ignore(&["broadcast"]);
    let (a, b) = (call.value(0)?, call.value(1)?);
    same_type(call, a, b)?;
    let element = call.element_of(a);
    let product = of_matrices(call, [(a, transposed_a), (b, transposed_b)], element.accumulator(), element)?;
    let scaled = |x, factor| if factor == 1. { x } else { mul(x, attribute(element, factor)) };
    if !call.has(2) || beta == 0. {
        call.ignore_operand(2);
        return match alpha == 1. {
            true => Ok(vec![product.into()]),
            false => Ok(vec![call.map(&[product], scaled(super::scalar::operand(0), alpha))?.into()]),
        };
    }
    let bias_element = call.element(2)?;
    let items = [Item::Value(product), call.item(2)];
    let sum = combine(call, &items, |leaves| {
        add(scaled(leaves[0].clone(), alpha), scaled(cast(element, bias_element, leaves[1].clone()), beta))
    })?;
    Ok(vec![sum.into()])
}

/// The product of two matrices, each transposed or not.
///
/// # Errors
/// Operands that are no matrices, or do not multiply.
pub fn of_matrices(
    call: &mut Call,
    [(a, transposed_a), (b, transposed_b)]: [(Value, bool); 2],
    accumulator: ElementType,
    element: ElementType,
) -> Result<Value, ImportError> {
    let (left, right) = (call.shape_of(a), call.shape_of(b));
    if left.len() != 2 || right.len() != 2 {
        return Err(call.error(format!("two matrices are needed, not {}", shapes_text(&[left, right]))));
    }
    let (rows, inner) = if transposed_a { (&left[1], &left[0]) } else { (&left[0], &left[1]) };
    let (inner_b, columns) = if transposed_b { (&right[1], &right[0]) } else { (&right[0], &right[1]) };
    if inner.as_constant().zip(inner_b.as_constant()).is_some_and(|(a, b)| a != b) {
        return Err(call.error(format!("the shapes do not multiply: {}", shapes_text(&[left, right]))));
    }
    let (mut draft, output) = Draft::over(&[rows.clone(), columns.clone()]);
    let contracted = draft.variable(inner);
    let (row, column) = (output[0], output[1]);
    draft.read_at(a, &if transposed_a { [contracted, row] } else { [row, contracted] });
    draft.read_at(b, &if transposed_b { [column, contracted] } else { [contracted, column] });
    Ok(call.emit(draft, Op::Dot { accumulator }, element, &output))
}
