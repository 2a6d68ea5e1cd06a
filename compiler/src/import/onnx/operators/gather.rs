//! Reads and writes at positions that come from data: the `Gather` and `Scatter` families.

use super::scalar::{add, cast, less, number, operand, size};
use crate::import::onnx::{
    call::{Call, Imported},
    draft::Draft,
    error::ImportError,
    values::{Item, KNOWN_LIMIT},
};
use std::sync::Arc;
use strang_ir::{Atom, IndexExpr, Op, ScalarExpr, Value, op::Monoid};
use strang_runtime::{ElementType, Size};

/// Indices as i64 in which negative ones, which count from the end, are made positive. Constant indices are changed here.
fn wrapped(call: &mut Call, slot: usize, extent: &Size) -> Result<Value, ImportError> {
    let item = call.item(slot);
    if let Item::Constant(constant) = &item
        && let Some(extent) = extent.as_constant()
        && !constant.tensor.element().is_float()
    {
        let tensor = &constant.tensor;
        let negative = (0..tensor.count())
            .any(|position| strang_runtime::tensor::bits_to_integer(tensor.element(), tensor.bits_at(position)) < 0);
        if !negative && tensor.element() == ElementType::I64 {
            return call.importer.materialise(&item);
        }
        let values: Vec<i64> = (0..tensor.count())
            .map(|position| {
                let value = strang_runtime::tensor::bits_to_integer(tensor.element(), tensor.bits_at(position));
                (if value < 0 { value + i128::from(extent) } else { value }) as i64
            })
            .collect();
        let tensor = strang_runtime::Tensor::from_slice(tensor.shape(), &values);
        let tensor = tensor.map_err(|error| call.operand_error(slot, error.to_string()))?;
        return call.importer.materialise(&Item::constant(&constant.name, tensor));
    }
    let value = call.value(slot)?;
    wrapped_value(call, value, extent)
}

fn wrapped_value(call: &mut Call, value: Value, extent: &Size) -> Result<Value, ImportError> {
    let element = call.element_of(value);
    if element.is_float() || element == ElementType::Bool {
        return Err(call.error(format!("indices are integers, not {element}")));
    }
    let index = cast(ElementType::I64, element, operand(0));
    if !element.is_signed_integer() {
        return if index == operand(0) { Ok(value) } else { call.map(&[value], index) };
    }
    let from_end = add(index.clone(), size(ElementType::I64, extent));
    call.map(&[value], ScalarExpr::select(less(index.clone(), number(ElementType::I64, 0.)), from_end, index))
}

/// `Gather`: rows of an axis. Constant indices make a view.
pub fn gather(call: &mut Call) -> Imported {
    let data = call.value(0)?;
    let from = call.shape_of(data);
    let axis = call.axis(call.attributes.int_or("axis", 0)?, from.len())?;
    let extent = from[axis].clone();
    let indices = call.shape(1)?;
    let mut sizes = from[..axis].to_vec();
    sizes.extend(indices.iter().cloned());
    sizes.extend(from[axis + 1..].iter().cloned());
    let element = call.element_of(data);
    if let Some(known) = call.item(1).known().filter(|known| known.sizes.len() <= KNOWN_LIMIT)
        && let Some(positions) = constant_positions(&known.sizes, &extent)
    {
        let view = call.view(data, &sizes, |variables, _| {
            let mut exprs: Vec<IndexExpr> = variables[..axis].iter().map(|v| IndexExpr::variable(*v)).collect();
            let within = &variables[axis..axis + indices.len()];
            exprs.push(match positions.as_slice() {
                [position] => IndexExpr::constant(position.clone()),
                several => {
                    let table: Vec<i64> = several.iter().filter_map(Size::as_constant).collect();
                    let mut flat = IndexExpr::default();
                    for (variable, size) in within.iter().zip(&indices) {
                        flat = flat.times(size).plus(&IndexExpr::variable(*variable));
                    }
                    IndexExpr::table(Arc::from(table), flat)
                }
            });
            exprs.extend(variables[axis + indices.len()..].iter().map(|v| IndexExpr::variable(*v)));
            exprs
        });
        return Ok(vec![view.into()]);
    }
    let rows = wrapped(call, 1, &extent)?;
    let (mut draft, variables) = Draft::over(&sizes);
    let mut exprs: Vec<IndexExpr> = variables[..axis].iter().map(|v| IndexExpr::variable(*v)).collect();
    exprs.push(IndexExpr::atom(Atom::Read(1)));
    exprs.extend(variables[axis + indices.len()..].iter().map(|v| IndexExpr::variable(*v)));
    draft.read(data, exprs);
    draft.read_at(rows, &variables[axis..axis + indices.len()]);
    Ok(vec![call.emit(draft, Op::Gather, element, &variables).into()])
}

/// Constant indices counted from the beginning: several numbers, or one size. `None` when a table cannot hold them.
fn constant_positions(indices: &[Size], extent: &Size) -> Option<Vec<Size>> {
    let from_start = |index: &Size| {
        if index.lower_bound(1).is_some_and(|low| low >= 0) {
            Some(index.clone())
        } else {
            index.upper_bound(1).filter(|high| *high < 0).map(|_| index + extent)
        }
    };
    let positions: Vec<Size> = indices.iter().map(from_start).collect::<Option<_>>()?;
    let fits = |position: &Size| match (position.as_constant(), extent.as_constant()) {
        (Some(position), Some(extent)) => (0..extent).contains(&position),
        _ => true,
    };
    let constant = positions.len() == 1 || positions.iter().all(|position| position.as_constant().is_some());
    (!positions.is_empty() && constant && positions.iter().all(fits)).then_some(positions)
}

/// `GatherElements`: along one axis, every element says where it comes from.
pub fn gather_elements(call: &mut Call) -> Imported {
    let data = call.value(0)?;
    let from = call.shape_of(data);
    let axis = call.axis(call.attributes.int_or("axis", 0)?, from.len())?;
    let sizes = call.shape(1)?;
    if sizes.len() != from.len() {
        return Err(call.error(format!("the indices have {} axes, the data {}", sizes.len(), from.len())));
    }
    let indices = wrapped(call, 1, &from[axis])?;
    let (mut draft, variables) = Draft::over(&sizes);
    let mut exprs: Vec<IndexExpr> = variables.iter().map(|variable| IndexExpr::variable(*variable)).collect();
    exprs[axis] = IndexExpr::atom(Atom::Read(1));
    draft.read(data, exprs);
    draft.read_at(indices, &variables);
    let element = call.element_of(data);
    Ok(vec![call.emit(draft, Op::Gather, element, &variables).into()])
}

/// The components of index vectors along the last axis, each wrapped for the axis of the data that it indexes.
fn components(call: &mut Call, slot: usize, extents: &[Size]) -> Result<Vec<Value>, ImportError> {
    let indices = call.value(slot)?;
    let shape = call.shape_of(indices);
    let outer = shape[..shape.len() - 1].to_vec();
    let mut values = Vec::with_capacity(extents.len());
    for (position, extent) in extents.iter().enumerate() {
        let component = call.view(indices, &outer, |variables, _| {
            let mut exprs: Vec<IndexExpr> = variables.iter().map(|variable| IndexExpr::variable(*variable)).collect();
            exprs.push(IndexExpr::constant(position as i64));
            exprs
        });
        values.push(wrapped_value(call, component, extent)?);
    }
    Ok(values)
}

/// The length of the index vectors along the last axis of an operand.
fn vector_length(call: &Call, slot: usize, most: usize) -> Result<usize, ImportError> {
    let shape = call.shape(slot)?;
    let length = shape.last().and_then(Size::as_constant).and_then(|length| usize::try_from(length).ok());
    length.filter(|length| (1..=most).contains(length)).ok_or_else(|| {
        call.operand_error(
            slot,
            format!("the last axis of the indices must have 1 to {most} elements, but they are {shape:?}"),
        )
    })
}

/// `GatherND`: index vectors choose elements or slices.
pub fn gather_nd(call: &mut Call) -> Imported {
    let data = call.value(0)?;
    let from = call.shape_of(data);
    let shared = call.attributes.int_or("batch_dims", 0)?;
    let indices = call.shape(1)?;
    let most = from.len().min(indices.len().saturating_sub(1));
    let shared = usize::try_from(shared).ok().filter(|shared| *shared <= most && *shared < from.len());
    let shared = shared.ok_or_else(|| call.attributes.error("batch_dims", "there are not so many shared axes"))?;
    let length = vector_length(call, 1, from.len() - shared)?;
    let parts = components(call, 1, &from[shared..shared + length])?;
    let mut sizes = indices[..indices.len() - 1].to_vec();
    let outer = sizes.len();
    sizes.extend(from[shared + length..].iter().cloned());
    let (mut draft, variables) = Draft::over(&sizes);
    let mut exprs: Vec<IndexExpr> = variables[..shared].iter().map(|v| IndexExpr::variable(*v)).collect();
    exprs.extend((0..length).map(|position| IndexExpr::atom(Atom::Read(position as u32 + 1))));
    exprs.extend(variables[outer..].iter().map(|v| IndexExpr::variable(*v)));
    draft.read(data, exprs);
    for part in parts {
        draft.read_at(part, &variables[..outer]);
    }
    let element = call.element_of(data);
    Ok(vec![call.emit(draft, Op::Gather, element, &variables).into()])
}

fn reduction(call: &Call) -> Result<Option<Monoid>, ImportError> {
    Ok(match call.attributes.string_or("reduction", "none")? {
        "none" => None,
        "add" => Some(Monoid::Sum),
        "mul" => Some(Monoid::Product),
        "max" => Some(Monoid::Maximum),
        "min" => Some(Monoid::Minimum),
        other => return Err(call.attributes.error("reduction", format!("`{other}` is not a reduction"))),
    })
}

/// `ScatterElements`, and `Scatter`, its first name.
pub fn scatter_elements(call: &mut Call) -> Imported {
    let (data, updates) = (call.value(0)?, call.value(2)?);
    let from = call.shape_of(data);
    let axis = call.axis(call.attributes.int_or("axis", 0)?, from.len())?;
    let reduction = reduction(call)?;
    let sizes = call.shape_of(updates);
    if sizes.len() != from.len() || call.shape(1)?.len() != from.len() {
        return Err(call.error("data, indices and updates need as many axes"));
    }
    let indices = wrapped(call, 1, &from[axis])?;
    let (mut draft, output) = Draft::over(&from);
    let places = draft.variables(&sizes);
    draft.read_at(data, &output);
    draft.read_at(updates, &places);
    draft.read_at(indices, &places);
    let mut target: Vec<IndexExpr> = places.iter().map(|variable| IndexExpr::variable(*variable)).collect();
    target[axis] = IndexExpr::atom(Atom::Read(2));
    let element = call.element_of(data);
    Ok(vec![call.emit(draft, Op::Scatter { reduction, target }, element, &output).into()])
}

/// `ScatterND`: index vectors choose the elements or slices that are written.
pub fn scatter_nd(call: &mut Call) -> Imported {
    let (data, updates) = (call.value(0)?, call.value(2)?);
    let from = call.shape_of(data);
    let reduction = reduction(call)?;
    let indices = call.shape(1)?;
    let length = vector_length(call, 1, from.len())?;
    let parts = components(call, 1, &from[..length])?;
    let mut sizes = indices[..indices.len() - 1].to_vec();
    let outer = sizes.len();
    sizes.extend(from[length..].iter().cloned());
    if call.shape_of(updates).len() != sizes.len() {
        let found = call.shape_of(updates);
        return Err(call.operand_error(2, format!("the updates must be {sizes:?}, but are {found:?}")));
    }
    let (mut draft, output) = Draft::over(&from);
    let places = draft.variables(&sizes);
    draft.read_at(data, &output);
    draft.read_at(updates, &places);
    for part in parts {
        draft.read_at(part, &places[..outer]);
    }
    let mut target: Vec<IndexExpr> =
        (0..length).map(|position| IndexExpr::atom(Atom::Read(position as u32 + 2))).collect();
    target.extend(places[outer..].iter().map(|variable| IndexExpr::variable(*variable)));
    let element = call.element_of(data);
    Ok(vec![call.emit(draft, Op::Scatter { reduction, target }, element, &output).into()])
}

/// `ReverseSequence`: the first elements of each sequence in the opposite order, as many as its length says.
pub fn reverse_sequence(call: &mut Call) -> Imported {
    let (value, lengths) = (call.value(0)?, call.value(1)?);
    let sizes = call.shape_of(value);
    let batch = call.axis(call.attributes.int_or("batch_axis", 1)?, sizes.len())?;
    let time = call.axis(call.attributes.int_or("time_axis", 0)?, sizes.len())?;
    if batch == time {
        return Err(call.error("the axes of batch and time are the same"));
    }
    let (mut draft, variables) = Draft::over(&[sizes[batch].clone(), sizes[time].clone()]);
    draft.read_at(lengths, &variables[..1]);
    let int = ElementType::I64;
    let length = cast(int, call.element_of(lengths), operand(0));
    let position = ScalarExpr::Index(variables[1]);
    let last = add(length.clone(), number(int, -1.));
    let mirrored = super::scalar::sub(last, position.clone());
    let place = ScalarExpr::select(less(position.clone(), length), mirrored, position);
    let places = call.emit(draft, Op::Map(place), int, &variables);
    let (mut draft, variables) = Draft::over(&sizes);
    let mut exprs: Vec<IndexExpr> = variables.iter().map(|variable| IndexExpr::variable(*variable)).collect();
    exprs[time] = IndexExpr::atom(Atom::Read(1));
    draft.read(value, exprs);
    draft.read_at(places, &[variables[batch], variables[time]]);
    let element = call.element_of(value);
    Ok(vec![call.emit(draft, Op::Gather, element, &variables).into()])
}
