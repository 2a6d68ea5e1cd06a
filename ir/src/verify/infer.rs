//! Element types of results from those of operands.

use crate::{
    ElementType, FunctionId, Module, Op,
    op::{self, Monoid},
};

/// The element type of the first output of an operation, as it is unless a circuit says otherwise. A `dot` of integers
/// yields its accumulator type, one of floats the operands' type.
///
/// # Errors
/// Types that do not go together, too few operands, or an operation whose results a module must say (`param`, `scan`,
/// `if`, `loop`, `call`: see [`infer_elements`]) or only the circuit itself (`input`, `custom`).
pub fn infer_element(op: &Op, operands: &[ElementType]) -> Result<ElementType, String> {
    let name = op.name();
    let first = || operands.first().copied().ok_or_else(|| format!("`{name}` takes operands"));
    let all_alike = |operands: &[ElementType]| match operands.iter().find(|other| **other != operands[0]) {
        Some(other) => Err(format!("`{name}` takes operands of one type, not {} and {other}", operands[0])),
        None => Ok(operands[0]),
    };
    let float = |element: ElementType| {
        if element.is_float() { Ok(element) } else { Err(format!("`{name}` takes floats, not {element}")) }
    };
    let indices = |operands: &[ElementType]| match operands.iter().find(|element| !element.is_integer()) {
        Some(element) => Err(format!("`{name}` takes integers as indices, not {element}")),
        None => Ok(()),
    };
    match op {
        Op::Const(literal) => Ok(literal.element),
        Op::Dot { accumulator } => {
            first()?;
            if !operands.iter().all(|element| element.is_integer()) && op::factor(operands).is_none() {
                all_alike(operands)?;
            }
            operands.iter().try_for_each(|element| accumulates(*element, *accumulator))?;
            Ok(op::product(operands, *accumulator))
        }
        Op::Map(expression) => expression.element(operands),
        Op::Reduce(monoid) => combines(*monoid, first()?).map(|()| operands[0]),
        Op::ArgReduce { .. } => first().map(|_| ElementType::I64),
        Op::Softmax { .. } => float(first()?),
        Op::Norm { .. } => {
            first()?;
            float(all_alike(operands)?)
        }
        Op::View | Op::Sort { .. } => first(),
        Op::Concat { .. } => {
            first()?;
            all_alike(operands)
        }
        Op::Gather => {
            first()?;
            indices(&operands[1..])?;
            Ok(operands[0])
        }
        Op::Scatter { reduction, .. } => {
            if operands.len() < 2 {
                return Err(format!("`{name}` takes a base and updates"));
            }
            all_alike(&operands[..2])?;
            indices(&operands[2..])?;
            reduction.map_or(Ok(()), |monoid| combines(monoid, operands[0]))?;
            Ok(operands[0])
        }
        Op::Input(_)
        | Op::Param(_)
        | Op::Custom { .. }
        | Op::Scan { .. }
        | Op::If { .. }
        | Op::Loop { .. }
        | Op::Call(_) => Err(format!("the type of `{name}` does not follow from its operands")),
    }
}

/// The element types of all outputs of an operation in a module.
///
/// # Errors
/// As [`infer_element`], but for `input` and `custom` alone, and a function or parameter that does not exist.
pub fn infer_elements(module: &Module, op: &Op, operands: &[ElementType]) -> Result<Vec<ElementType>, String> {
    let results = |id: FunctionId| -> Result<Vec<ElementType>, String> {
        let function = module.function(id).ok_or_else(|| format!("there is no function {}", id.0))?;
        let found = function.outputs.iter().map(|value| {
            let output = function.graph.node_weight(value.node)?.outputs.get(value.port as usize)?;
            Some(output.element)
        });
        found.collect::<Option<_>>().ok_or_else(|| format!("@{} has a result that does not exist", function.name))
    };
    match op {
        Op::Param(position) => match module.parameters.get(*position as usize) {
            Some(parameter) => Ok(vec![parameter.element]),
            None => Err(format!("there is no parameter {position}")),
        },
        Op::Sort { .. } => infer_element(op, operands).map(|element| vec![element, ElementType::I64]),
        Op::Scan { body, .. } | Op::Call(body) => results(*body),
        Op::If { then, .. } => results(*then),
        Op::Loop { body } => results(*body).map(|elements| elements.into_iter().skip(1).collect()),
        _ => infer_element(op, operands).map(|element| vec![element]),
    }
}

/// Whether products of a type can be summed in another.
pub(super) fn accumulates(element: ElementType, accumulator: ElementType) -> Result<(), String> {
    let fits = accumulator != ElementType::Bool
        && element.is_float() == accumulator.is_float()
        && accumulator.bits() >= element.bits().max(32);
    if fits { Ok(()) } else { Err(format!("`dot` cannot sum products of {element} in {accumulator}")) }
}

/// Whether a monoid is defined on a type.
pub(super) fn combines(monoid: Monoid, element: ElementType) -> Result<(), String> {
    let defined = match monoid {
        Monoid::Sum | Monoid::Product => element != ElementType::Bool,
        Monoid::Minimum | Monoid::Maximum => true,
        Monoid::And | Monoid::Or => !element.is_float(),
    };
    if defined { Ok(()) } else { Err(format!("`{}` does not combine {element}", monoid.name())) }
}
