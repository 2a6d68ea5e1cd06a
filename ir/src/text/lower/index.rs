//! Index expressions of a statement, as affine expressions over its numbered variables. What is written stays as it is
//! written: nothing is simplified beyond adding up equal terms.

use crate::{
    Atom, Condition, IndexExpr,
    text::{
        ast::{ConditionTree, Index, IndexKind},
        error::Complaint,
        parse::{Result, size::bounded},
    },
};
use strang_runtime::Size;

/// Calls `visit` with the variables of an expression as they are written: name, and whether in braces.
pub(super) fn visit<'a>(index: &'a Index, visit_variable: &mut dyn FnMut(&'a str, bool, &'a Index)) {
    match &index.kind {
        IndexKind::Variable(name, braced) => visit_variable(name, *braced, index),
        IndexKind::Size(_) | IndexKind::Read(_) => {}
        IndexKind::Sum(parts) => parts.iter().for_each(|(part, _)| visit(part, visit_variable)),
        IndexKind::Product(parts) => parts.iter().for_each(|part| visit(part, visit_variable)),
        IndexKind::FloorDiv(a, b) | IndexKind::Remainder(a, b) => {
            visit(a, visit_variable);
            visit(b, visit_variable);
        }
        IndexKind::Clamp(parts) => parts.iter().for_each(|part| visit(part, visit_variable)),
        IndexKind::Table(_, position) => visit(position, visit_variable),
    }
}

/// Lowers an expression; `position` numbers the variables.
pub(super) fn lower(index: &Index, position: &dyn Fn(&str) -> u32) -> Result<IndexExpr> {
    let inner = |index: &Index| lower(index, position);
    Ok(match &index.kind {
        IndexKind::Variable(name, _) => IndexExpr::variable(position(name)),
        IndexKind::Size(size) => IndexExpr::constant(size.clone()),
        IndexKind::Read(slot) => IndexExpr::atom(Atom::Read(*slot)),
        IndexKind::Sum(parts) => {
            let (mut terms, mut constant) = (Vec::new(), Size::ZERO);
            for (part, negative) in parts {
                let part = inner(part)?;
                let part = if *negative { part.times(&Size::from(-1)) } else { part };
                terms.extend_from_slice(part.terms());
                constant = bounded(constant + part.offset(), index.span)?;
            }
            IndexExpr::new(terms, constant)
        }
        IndexKind::Product(factors) => {
            let (mut coefficient, mut varying) = (Size::ONE, None);
            for factor in factors {
                let factor_value = inner(factor)?;
                if let Some(size) = factor_value.as_size() {
                    coefficient = bounded(coefficient * size, index.span)?;
                } else if varying.replace(factor_value).is_some() {
                    return Err(Complaint::new("two positions are multiplied", index.span)
                        .help("positions are multiplied by numbers, `2*u`, and sizes, `|s|*u`"));
                }
            }
            match varying {
                Some(varying) => varying.times(&coefficient),
                None => IndexExpr::constant(coefficient),
            }
        }
        IndexKind::FloorDiv(a, b) => {
            IndexExpr::atom(Atom::FloorDiv(Box::new(inner(a)?), size(b, position, "divide by")?))
        }
        IndexKind::Remainder(a, b) => {
            IndexExpr::atom(Atom::Remainder(Box::new(inner(a)?), size(b, position, "divide by")?))
        }
        IndexKind::Clamp(parts) => {
            let [value, low, high] = &**parts;
            let (low, high) = (size(low, position, "are limited by")?, size(high, position, "are limited by")?);
            IndexExpr::atom(Atom::Clamp(Box::new(inner(value)?), low, high))
        }
        IndexKind::Table(table, at) => IndexExpr::atom(Atom::Table(table.clone(), Box::new(inner(at)?))),
    })
}

fn size(index: &Index, position: &dyn Fn(&str) -> u32, role: &str) -> Result<Size> {
    lower(index, position)?.as_size().cloned().ok_or_else(|| {
        Complaint::new(format!("index expressions {role} sizes, not positions"), index.span)
            .help("the size of the axis `s` is written `|s|`")
    })
}

/// Lowers a condition.
pub(super) fn lower_condition(condition: &ConditionTree, position: &dyn Fn(&str) -> u32) -> Result<Condition> {
    Ok(match condition {
        ConditionTree::Range { expression, low, high } => Condition::Range {
            expression: lower(expression, position)?,
            low: size(low, position, "are compared with")?,
            high: size(high, position, "are compared with")?,
        },
        ConditionTree::Divisible { expression, divisor } => Condition::Divisible {
            expression: lower(expression, position)?,
            divisor: size(divisor, position, "divide by")?,
        },
    })
}

/// The expressions of a condition, as they are written.
pub(super) fn condition_parts(condition: &ConditionTree) -> [&Index; 3] {
    match condition {
        ConditionTree::Range { expression, low, high } => [low, expression, high],
        ConditionTree::Divisible { expression, divisor } => [expression, divisor, divisor],
    }
}
