//! Optimisers of the training preview: one update of parameters, each a few maps.

use super::{
    Operator,
    scalar::{add, apply, attribute, cast, div, mul, number, operand, pow, sub},
};
use crate::import::onnx::call::{Call, Imported};
use strang_ir::{
    ScalarExpr,
    scalar::{Binary, Unary},
};
use strang_runtime::ElementType;

/// The operators of the domain `ai.onnx.preview.training`.
pub const OPERATORS: &[Operator] = &[
    Operator { name: "Adagrad", versions: &[1], import: optimise },
    Operator { name: "Adam", versions: &[1], import: optimise },
    Operator { name: "Momentum", versions: &[1], import: optimise },
];

/// The state of an update as expressions over the operands of a map: rate, count of updates, parameter, gradient, and
/// what the optimiser remembers.
struct Update {
    rate: ScalarExpr,
    count: ScalarExpr,
    parameter: ScalarExpr,
    gradient: ScalarExpr,
    memory: Vec<ScalarExpr>,
}

/// `Adagrad` (Duchi et al., 2011), `Adam` (Kingma and Ba, 2015) and `Momentum`: any number of parameters, then as many
/// gradients, then what is remembered of each.
pub fn optimise(call: &mut Call) -> Imported {
    let remembered = if call.operator == "Adam" { 2 } else { 1 };
    let groups = 2 + remembered;
    let count = call.operands.len().saturating_sub(2) / groups;
    if count == 0 || call.operands.len() != 2 + groups * count {
        return Err(call.error(format!("the inputs are a rate, a count and {groups} for every parameter")));
    }
    let (rate, updates) = (call.value(0)?, call.value(1)?);
    let (rate_element, count_element) = (call.element_of(rate), call.element_of(updates));
    let mut results = vec![Vec::new(); 1 + remembered];
    for position in 0..count {
        let mut values = vec![rate, updates];
        for group in 0..groups {
            values.push(call.value(2 + group * count + position)?);
        }
        let element = call.element_of(values[2]);
        let update = Update {
            rate: cast(element, rate_element, operand(0)),
            count: cast(element, count_element, operand(1)),
            parameter: operand(2),
            gradient: operand(3),
            memory: (0..remembered as u32).map(|slot| operand(4 + slot)).collect(),
        };
        let expressions = match call.operator {
            "Adagrad" => adagrad(call, element, update)?,
            "Adam" => adam(call, element, update)?,
            _ => momentum(call, element, update)?,
        };
        for (results, expression) in results.iter_mut().zip(expressions) {
            results.push(call.map(&values, expression)?.into());
        }
    }
    Ok(results.concat())
}

type Expressions = Result<Vec<ScalarExpr>, crate::import::onnx::error::ImportError>;

/// The gradient with that of the penalty on large parameters.
fn regularised(
    call: &Call,
    element: ElementType,
    update: &Update,
) -> Result<ScalarExpr, crate::import::onnx::ImportError> {
    let coefficient = attribute(element, call.attributes.float_or("norm_coefficient", 0.)?);
    Ok(add(mul(coefficient, update.parameter.clone()), update.gradient.clone()))
}

fn adagrad(call: &Call, element: ElementType, update: Update) -> Expressions {
    let decay = attribute(element, call.attributes.float_or("decay_factor", 0.)?);
    let epsilon = attribute(element, call.attributes.float_or("epsilon", 1e-6)?);
    let gradient = regularised(call, element, &update)?;
    let rate = div(update.rate, add(number(element, 1.), mul(update.count, decay)));
    let squares = add(update.memory[0].clone(), mul(gradient.clone(), gradient.clone()));
    let scale = add(apply(Unary::SquareRoot, squares.clone()), epsilon);
    Ok(vec![sub(update.parameter, div(mul(rate, gradient), scale)), squares])
}

fn adam(call: &Call, element: ElementType, update: Update) -> Expressions {
    let parameter = |name, default| -> Result<ScalarExpr, crate::import::onnx::ImportError> {
        Ok(attribute(element, call.attributes.float_or(name, default)?))
    };
    let (alpha, beta) = (parameter("alpha", 0.9)?, parameter("beta", 0.999)?);
    let (epsilon, shrink) = (parameter("epsilon", 1e-6)?, parameter("norm_coefficient_post", 0.)?);
    let gradient = regularised(call, element, &update)?;
    let one = || number(element, 1.);
    let average = |decay: &ScalarExpr, old: &ScalarExpr, new| {
        add(mul(decay.clone(), old.clone()), mul(sub(one(), decay.clone()), new))
    };
    let mean = average(&alpha, &update.memory[0], gradient.clone());
    let square = average(&beta, &update.memory[1], mul(gradient.clone(), gradient));
    let corrected = div(
        mul(update.rate.clone(), apply(Unary::SquareRoot, sub(one(), pow(beta, update.count.clone())))),
        sub(one(), pow(alpha, update.count.clone())),
    );
    let begun = ScalarExpr::binary(Binary::Greater, update.count, number(element, 0.));
    let rate = ScalarExpr::select(begun, corrected, update.rate);
    let scale = add(apply(Unary::SquareRoot, square.clone()), epsilon);
    let moved = sub(update.parameter, div(mul(rate, mean.clone()), scale));
    Ok(vec![mul(sub(one(), shrink), moved), mean, square])
}

fn momentum(call: &Call, element: ElementType, update: Update) -> Expressions {
    let parameter = |name| -> Result<ScalarExpr, crate::import::onnx::ImportError> {
        let value = call.attributes.float(name)?;
        let value = value.ok_or_else(|| call.attributes.error(name, "this number is missing"))?;
        Ok(attribute(element, value))
    };
    let (alpha, beta) = (parameter("alpha")?, parameter("beta")?);
    let nesterov = match call.attributes.string_or("mode", "")? {
        "standard" => false,
        "nesterov" => true,
        other => return Err(call.attributes.error("mode", format!("`{other}` is neither standard nor nesterov"))),
    };
    let gradient = regularised(call, element, &update)?;
    let begun = ScalarExpr::binary(Binary::Greater, update.count, number(element, 0.));
    let beta = ScalarExpr::select(begun, beta, number(element, 1.));
    let speed = add(mul(alpha.clone(), update.memory[0].clone()), mul(beta, gradient.clone()));
    let step = if nesterov { add(gradient, mul(alpha, speed.clone())) } else { speed.clone() };
    Ok(vec![sub(update.parameter, mul(update.rate, step)), speed])
}
