//! Element types of results, where the text does not say them: also what the printer leaves out.

use crate::{Op, op};
use strang_runtime::ElementType;

/// The element type of each of `count` results; `None` where it must be written. `returned` gives the types that a
/// called function returns.
pub(crate) fn results(
    op: &Op,
    operands: &[ElementType],
    count: usize,
    returned: &dyn Fn(crate::FunctionId) -> Vec<ElementType>,
) -> Vec<Option<ElementType>> {
    let first = operands.first().copied();
    let mut results = match op {
        Op::Const(literal) => vec![Some(literal.element)],
        Op::Dot { accumulator } => vec![first.map(|_| op::product(operands, *accumulator))],
        Op::Map(expression) => vec![expression.element(operands).ok()],
        Op::ArgReduce { .. } => vec![Some(ElementType::I64)],
        Op::Sort { .. } => vec![first, Some(ElementType::I64)],
        Op::Reduce(_)
        | Op::Softmax { .. }
        | Op::Norm { .. }
        | Op::View
        | Op::Concat { .. }
        | Op::Gather
        | Op::Scatter { .. } => vec![first],
        Op::Scan { body, states, .. } => {
            let stacked = returned(*body).into_iter().skip(*states as usize);
            operands.iter().take(*states as usize).copied().chain(stacked).map(Some).collect()
        }
        Op::If { then, .. } => returned(*then).into_iter().map(Some).collect(),
        Op::Loop { .. } => operands.iter().skip(2).copied().map(Some).collect(),
        Op::Call(function) => returned(*function).into_iter().map(Some).collect(),
        Op::Custom { .. } | Op::Input(_) | Op::Param(_) => vec![],
    };
    results.resize(count, None);
    results
}
