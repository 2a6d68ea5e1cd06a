//! Losses: `NegativeLogLikelihoodLoss` and `SoftmaxCrossEntropyLoss`.

use super::{
    reduce::{mean, reduced, softmax_over},
    scalar::{apply, cast, div, equal, mul, number, operand},
};
use crate::import::onnx::{
    call::{Call, Imported},
    draft::Draft,
    error::ImportError,
};
use strang_ir::{Atom, IndexExpr, Literal, Op, ScalarExpr, Value, op::Monoid, scalar::Unary};
use strang_runtime::ElementType;

/// `NegativeLogLikelihoodLoss`.
pub fn negative_log_likelihood(call: &mut Call) -> Imported {
    let x = call.value(0)?;
    Ok(vec![loss(call, x)?.into()])
}

/// `SoftmaxCrossEntropyLoss`: the same of the logarithm of a softmax over the classes.
pub fn cross_entropy(call: &mut Call) -> Imported {
    let scores = call.value(0)?;
    if call.shape_of(scores).len() < 2 {
        return Err(call.operand_error(0, "at least 2 axes are needed, the second of classes"));
    }
    let x = softmax_over(call, scores, vec![1], true)?;
    Ok(vec![loss(call, x)?.into(), x.into()])
}

/// The loss of log-probabilities [batch, classes, ...] for the targets of operand 1, weighted by operand 2.
fn loss(call: &mut Call, x: Value) -> Result<Value, ImportError> {
    let target = call.value(1)?;
    let sizes = call.shape_of(target);
    let element = call.element_of(x);
    if call.shape_of(x).len() != sizes.len() + 1 {
        return Err(call.error(format!("the targets {sizes:?} do not fit {:?}", call.shape_of(x))));
    }
    let target_element = call.element_of(target);
    let class = cast(ElementType::I64, target_element, operand(0));
    let ignored = call.attributes.int("ignore_index")?;
    let is_ignored =
        |class: ScalarExpr| ignored.map(|ignored| equal(class, ScalarExpr::Literal(Literal::i64(ignored))));
    // What is ignored reads the first class, and counts nothing.
    let safe = match is_ignored(class.clone()) {
        Some(condition) => ScalarExpr::select(condition, ScalarExpr::Literal(Literal::i64(0)), class.clone()),
        None => class.clone(),
    };
    let classes = if safe == operand(0) { target } else { call.map(&[target], safe)? };
    let (mut draft, variables) = Draft::over(&sizes);
    let mut exprs: Vec<IndexExpr> = variables.iter().map(|variable| IndexExpr::variable(*variable)).collect();
    exprs.insert(1, IndexExpr::atom(Atom::Read(1)));
    draft.read(x, exprs);
    draft.read_at(classes, &variables);
    let chosen = call.emit(draft, Op::Gather, element, &variables);
    let mut weights = None;
    if let Some(table) = call.optional(2)? {
        let (mut draft, variables) = Draft::over(&sizes);
        draft.read(table, vec![IndexExpr::atom(Atom::Read(1))]);
        draft.read_at(classes, &variables);
        weights = Some(call.emit(draft, Op::Gather, element, &variables));
    }
    if let Some(condition) = is_ignored(class) {
        let (zero, one) = (number(element, 0.), number(element, 1.));
        weights = Some(match weights {
            Some(weights) => call.map(&[target, weights], ScalarExpr::select(condition, zero, operand(1)))?,
            None => call.map(&[target], ScalarExpr::select(condition, zero, one))?,
        });
    }
    let losses = match weights {
        Some(weights) => call.map(&[chosen, weights], apply(Unary::Negate, mul(operand(0), operand(1))))?,
        None => call.map(&[chosen], apply(Unary::Negate, operand(0)))?,
    };
    let axes: Vec<usize> = (0..sizes.len()).collect();
    match call.attributes.string_or("reduction", "mean")? {
        "none" => Ok(losses),
        "sum" => Ok(reduced(call, losses, &axes, Monoid::Sum, false)),
        "mean" => match weights {
            None => mean(call, losses, &axes, false),
            Some(weights) => {
                let (sum, all) = (
                    reduced(call, losses, &axes, Monoid::Sum, false),
                    reduced(call, weights, &axes, Monoid::Sum, false),
                );
                call.map(&[sum, all], div(operand(0), operand(1)))
            }
        },
        other => Err(call.attributes.error("reduction", format!("`{other}` is not a reduction"))),
    }
}
