//! Matrix products: `MatMul`, `Gemm` and `Einsum`, each one contraction.

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
use strang_runtime::{ElementType, Size};

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

fn same_type(call: &Call, a: Value, b: Value) -> Result<(), ImportError> {
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

/// `Einsum`: one contraction over all operands.
pub fn einsum(call: &mut Call) -> Imported {
    let equation: String = call.attributes.string_or("equation", "")?.chars().filter(|c| !c.is_whitespace()).collect();
    let (inputs, output) = match equation.split_once("->") {
        Some((inputs, output)) => (inputs, Some(output)),
        None => (equation.as_str(), None),
    };
    let terms: Vec<&str> = inputs.split(',').collect();
    if terms.len() != call.operands.len() {
        let reason = format!("it has {} terms for {} inputs", terms.len(), call.operands.len());
        return Err(call.attributes.error("equation", reason));
    }
    let mut values = Vec::new();
    for slot in 0..terms.len() {
        values.push(call.value(slot)?);
    }
    // Axes under an ellipsis are called by their distance from its end, so that they broadcast like shapes do.
    let mut labels: Vec<Vec<Label>> = Vec::new();
    for (term, value) in terms.iter().zip(&values) {
        let rank = call.shape_of(*value).len();
        labels.push(term_labels(call, term, Some(rank), 0)?);
    }
    let hidden = labels.iter().flatten().filter_map(|label| match label {
        Label::Hidden(distance) => Some(*distance),
        Label::Letter(_) => None,
    });
    let hidden = hidden.max().map_or(0, |distance| distance + 1);
    let kept = match output {
        Some(output) => term_labels(call, output, None, hidden)?,
        None => {
            let mut letters: Vec<Label> = labels.iter().flatten().copied().collect();
            letters.retain(|label| matches!(label, Label::Letter(_)));
            let mut once: Vec<Label> = letters.clone();
            once.retain(|label| letters.iter().filter(|other| *other == label).count() == 1);
            once.sort_unstable();
            (0..hidden).rev().map(Label::Hidden).chain(once).collect()
        }
    };
    let mut sizes: Vec<(Label, Size)> = Vec::new();
    for (term, value) in labels.iter().zip(&values) {
        for (label, size) in term.iter().zip(call.shape_of(*value)) {
            match sizes.iter_mut().find(|(other, _)| other == label) {
                None => sizes.push((*label, size)),
                Some((_, known)) => match (known.as_constant(), size.as_constant()) {
                    (Some(1), _) | (None, Some(2..)) => *known = size,
                    (Some(a), Some(b)) if a != b && b != 1 => {
                        let reason = format!("one letter stands for the sizes {a} and {b}");
                        return Err(call.attributes.error("equation", reason));
                    }
                    _ => {}
                },
            }
        }
    }
    let mut draft = Draft::default();
    let mut variables: Vec<(Label, u32, Size)> = Vec::new();
    let contracted = sizes.iter().map(|(label, _)| *label).filter(|label| !kept.contains(label));
    for label in kept.iter().copied().chain(contracted) {
        let Some((_, size)) = sizes.iter().find(|(other, _)| *other == label) else {
            return Err(call.attributes.error("equation", "the output has a letter that no input has"));
        };
        if variables.iter().any(|(other, ..)| *other == label) {
            return Err(call.attributes.error("equation", "the output has a letter twice"));
        }
        variables.push((label, draft.variable(size), size.clone()));
    }
    for (term, value) in labels.iter().zip(&values) {
        let shape = call.shape_of(*value);
        let place = |(label, size): (&Label, &Size)| {
            let found = variables.iter().find(|(other, ..)| other == label);
            match found {
                Some((_, variable, full)) if !size.is(1) || full.is(1) => IndexExpr::variable(*variable),
                _ => IndexExpr::constant(0),
            }
        };
        draft.read(*value, term.iter().zip(&shape).map(place).collect());
    }
    let element = call.element_of(values[0]);
    for value in &values[1..] {
        same_type(call, values[0], *value)?;
    }
    let output: Vec<u32> = variables[..kept.len()].iter().map(|(_, variable, _)| *variable).collect();
    let op = match values.len() == 1 && variables.len() == kept.len() {
        true => Op::View,
        false => Op::Dot { accumulator: element.accumulator() },
    };
    Ok(vec![call.emit(draft, op, element, &output).into()])
}

/// What stands for an axis in an equation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    /// An axis under the ellipsis, by its distance from the ellipsis' end.
    Hidden(usize),
    /// A letter.
    Letter(char),
}

/// The labels of a term; `rank` is that of an input, `hidden` the axes that an ellipsis of the output stands for.
fn term_labels(call: &Call, term: &str, rank: Option<usize>, hidden: usize) -> Result<Vec<Label>, ImportError> {
    let error = |reason: String| call.attributes.error("equation", reason);
    let letters = term.replace("...", "");
    if let Some(bad) = letters.chars().find(|c| !c.is_ascii_alphabetic()) {
        return Err(error(format!("`{bad}` is not a letter")));
    }
    let count = letters.chars().count();
    let hidden = match (term.find("..."), rank) {
        (None, Some(rank)) if rank != count => {
            return Err(error(format!("the term `{term}` is for {count} axes, the input has {rank}")));
        }
        (None, _) => 0,
        (Some(_), Some(rank)) => {
            rank.checked_sub(count).ok_or_else(|| error(format!("the term `{term}` is for more than {rank} axes")))?
        }
        (Some(_), None) => hidden,
    };
    let Some((before, after)) = term.split_once("...") else {
        return Ok(letters.chars().map(Label::Letter).collect());
    };
    let middle = (0..hidden).rev().map(Label::Hidden);
    Ok(before.chars().map(Label::Letter).chain(middle).chain(after.chars().map(Label::Letter)).collect())
}
