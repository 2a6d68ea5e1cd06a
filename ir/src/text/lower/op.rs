//! Headers of statements to operations.

use super::{Result, index, literal, scalar::Leaves, statement::Context};
use crate::{
    Literal, Op,
    op::Norm,
    text::{
        ast::{Name, OpTree, Statement},
        error::Complaint,
        parse::size::bounded,
    },
};
use strang_runtime::{ElementType, Size};

/// Added to variances where the text does not say otherwise.
const DEFAULT_EPSILON: f64 = 1e-5;

pub(super) fn lower(context: &Context<'_>) -> Result<Op> {
    let Statement { op, operands, results, span, op_span, .. } = context.statement;
    if context.statement.target.is_some() && !matches!(op, OpTree::Scatter(_)) {
        return Err(Complaint::new("only `scatter` takes a target after `at`", *span));
    }
    let function = |name: &Name| context.declarations.function(name).map(|signature| signature.id);
    Ok(match op {
        OpTree::Const(element, number) => Op::Const(literal::lower(number, Some(*element))?),
        OpTree::Dot(accumulator) => {
            let Some(first) = context.elements.first() else {
                return Err(Complaint::new("`dot` has no operands", *span));
            };
            Op::Dot { accumulator: accumulator.unwrap_or(first.accumulator()) }
        }
        OpTree::Map(expression) => {
            let position = |name: &str| context.position(name);
            let leaves = Leaves { operands: context.elements, position: &position };
            let expected = results.first().and_then(|result| result.element);
            let lowered = leaves.lower(expression, expected)?;
            if let Err(message) = lowered.element(context.elements) {
                let types: Vec<String> = context.elements.iter().map(|element| element.to_string()).collect();
                return Err(Complaint::new(message, expression.span)
                    .help(format!("the operands have the types {}; `cast(f32, $0)` converts", types.join(", "))));
            }
            Op::Map(lowered)
        }
        OpTree::Reduce(monoid) => Op::Reduce(*monoid),
        OpTree::ArgReduce { largest, last } => Op::ArgReduce { largest: *largest, last: *last },
        OpTree::Softmax { log } => Op::Softmax { over: over(context)?, log: *log },
        OpTree::Norm(kind, epsilon) => {
            let epsilon = match epsilon {
                Some(number) => literal::lower(number, Some(ElementType::F64))?,
                None => Literal::from_f64(ElementType::F64, DEFAULT_EPSILON),
            };
            let over = if *kind == Norm::Batch { context.braced_results() } else { over(context)? };
            Op::Norm { kind: *kind, over, epsilon }
        }
        OpTree::View => Op::View,
        OpTree::Concat(along, offsets) => {
            let offsets = match offsets {
                Some((offsets, _)) => offsets.clone(),
                None => follow_each_other(context, along)?,
            };
            Op::Concat { along: context.position(&along.text), offsets }
        }
        OpTree::Gather => Op::Gather,
        OpTree::Scatter(reduction) => {
            let Some(target) = &context.statement.target else {
                return Err(Complaint::new("`scatter` does not say where the updates go", *span)
                    .help("`at [...]` follows the operands: one index expression per axis of the result"));
            };
            let position = |name: &str| context.position(name);
            let target = target.iter().map(|place| index::lower(place, &position)).collect::<Result<_>>()?;
            Op::Scatter { reduction: *reduction, target }
        }
        OpTree::Scan { body, along, reverse, states } => {
            if *states as usize > operands.len() {
                let message = format!("{states} states are asked for, but there are {} operands", operands.len());
                return Err(Complaint::new(message, *op_span));
            }
            Op::Scan { body: function(body)?, along: context.position(&along.text), reverse: *reverse, states: *states }
        }
        OpTree::Sort { descending } => {
            let (contracted, kept) = (context.variables.contracted(context.statement), context.braced_results());
            let ([along], [kept]) = (contracted.as_slice(), kept.as_slice()) else {
                return Err(Complaint::new("`sort` orders along one variable", *span)
                    .help("`%values, %positions = sort descending : %x[b, {v}] -> [b, {k}], [b, {k}]`"));
            };
            Op::Sort { along: *along, kept: *kept, descending: *descending }
        }
        OpTree::If { then, otherwise } => Op::If { then: function(then)?, otherwise: function(otherwise)? },
        OpTree::Loop(body) => Op::Loop { body: function(body)? },
        OpTree::Call(name) => Op::Call(function(name)?),
        OpTree::Custom(name, attributes) => Op::Custom { name: name.as_str().into(), attributes: attributes.clone() },
    })
}

/// The variables that softmax and norm work over: those in braces in the result.
fn over(context: &Context<'_>) -> Result<Vec<u32>> {
    let over = context.braced_results();
    if over.is_empty() {
        return Err(Complaint::new("nothing is in braces in the result", context.statement.span)
            .help("braces mark what is normalised over: `softmax %s[b, {x}] -> [b, {x}]`"));
    }
    Ok(over)
}

/// Offsets of operands that follow each other along a variable: sums of the sizes of the axes that it reads.
fn follow_each_other(context: &Context<'_>, along: &Name) -> Result<Vec<Size>> {
    let mut offsets = vec![Size::ZERO];
    let mut end = Size::ZERO;
    for (operand, axes) in context.statement.operands.iter().zip(context.axes) {
        let axis = operand.places.iter().position(|place| {
            let mut found = false;
            index::visit(place, &mut |name, _, _| found |= name == along.text);
            found
        });
        let Some(axis) = axis else {
            let message = format!("this operand is not read along `{}`", along.text);
            return Err(Complaint::new(message, operand.span).and(along.span, "concatenated along this"));
        };
        end = bounded(end + &axes[axis].size, operand.span)?;
        offsets.push(end.clone());
    }
    Ok(offsets)
}

impl OpTree {
    /// The functions that the operation names.
    pub(super) fn functions(&self) -> impl Iterator<Item = &Name> {
        let functions: [Option<&Name>; 2] = match self {
            OpTree::Scan { body, .. } | OpTree::Loop(body) | OpTree::Call(body) => [Some(body), None],
            OpTree::If { then, otherwise } => [Some(then), Some(otherwise)],
            _ => [None, None],
        };
        functions.into_iter().flatten()
    }
}
