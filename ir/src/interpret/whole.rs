//! Operations that yield whole arrays: scatter and sort.

use super::{
    Array, InterpretError, contract, map,
    node::{Prepared, advance, for_each, name_of},
    read::{Expression, Outside},
};
use crate::{IndexExpr, Op, op::Monoid};
use strang_runtime::ElementType;

/// The outputs of a scatter or a sort; `None` for other operations.
pub(super) fn all(node: &Prepared) -> Result<Option<Vec<Array>>, InterpretError> {
    Ok(Some(match &node.node.op {
        Op::Scatter { reduction, target } => vec![scatter(node, *reduction, target)?],
        Op::Sort { along, kept, descending } => sort(node, *along as usize, *kept as usize, *descending)?,
        _ => return Ok(None),
    }))
}

fn scatter(node: &Prepared, reduction: Option<Monoid>, target: &[IndexExpr]) -> Result<Array, InterpretError> {
    let at = name_of(node.node);
    let mut array = node.each(&(Box::new(|position: &mut [i64]| node.readers[0].get(position)) as _))?;
    let targets = target.iter().map(|expression| Expression::new(expression, node.bindings));
    let targets =
        targets.collect::<Result<Vec<_>, _>>().map_err(|error| InterpretError::Size { at: at.clone(), error })?;
    let strides = super::array::strides(&array.shape);
    let mut indices = vec![i64::MIN; node.readers.len()];
    let mut position = vec![0; node.extents.len()];
    let outcome = for_each(&mut position, &scatter_variables(node), &node.extents, |position| {
        for (slot, reader) in node.readers.iter().enumerate().skip(2) {
            indices[slot] = map::index(reader.get(position)?);
        }
        let mut element = 0;
        for (axis, (expression, stride)) in targets.iter().zip(&strides).enumerate() {
            let value = expression.eval(position, &|slot| indices[slot as usize]);
            let size = array.shape[axis];
            match value.and_then(|value| usize::try_from(value).ok()).filter(|value| *value < size) {
                Some(value) => element += value * stride,
                None => return Err(Outside { slot: 0, axis, index: value.unwrap_or(i64::MIN), size }),
            }
        }
        let update = node.readers[1].get(position)?;
        let value = match reduction {
            None => update,
            Some(monoid) => contract::combine(monoid, array.element, array.at(element), update, node.arithmetic),
        };
        array.set(element, value);
        Ok(())
    });
    outcome.map_err(|outside| outside.at(&at))?;
    Ok(array)
}

/// The variables that the updates and the index operands of a scatter mention, in the node's order.
fn scatter_variables(node: &Prepared) -> Vec<usize> {
    let mentioned = |variable: u32| node.node.maps.iter().skip(1).any(|map| map.mentions(variable));
    (0..node.extents.len()).filter(|variable| mentioned(*variable as u32)).collect()
}

fn sort(node: &Prepared, along: usize, kept: usize, descending: bool) -> Result<Vec<Array>, InterpretError> {
    let (mut values, mut places) = (node.zeros(0)?, Array::zeros(ElementType::I64, &node.shape(0))?);
    let outputs: Vec<usize> = node.node.outputs[0].variables.iter().map(|variable| *variable as usize).collect();
    let strides = super::array::strides(&values.shape);
    let outer: Vec<usize> = outputs.iter().copied().filter(|variable| *variable != kept).collect();
    let mut position = vec![0; node.extents.len()];
    let mut more = values.count() > 0;
    while more {
        let mut row = Vec::with_capacity(node.extents[along]);
        for_each(&mut position, &[along], &node.extents, |position| {
            row.push((node.readers[0].get(position)?, position[along]));
            Ok(())
        })
        .map_err(|outside: Outside| outside.at(&name_of(node.node)))?;
        row.sort_by(|(a, _), (b, _)| {
            let order = contract::compare(*a, *b);
            if descending { order.reverse() } else { order }
        });
        for (rank, (value, place)) in row.into_iter().take(node.extents[kept]).enumerate() {
            position[kept] = rank as i64;
            let at = outputs.iter().zip(&strides).map(|(v, stride)| position[*v] as usize * stride).sum();
            values.set(at, value);
            places.set(at, super::Number::Integer(place.into()));
        }
        position[kept] = 0;
        more = advance(&mut position, &outer, &node.extents);
    }
    Ok(vec![values, places])
}
