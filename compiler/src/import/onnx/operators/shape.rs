//! Operators that only move elements: each is a view, or the choice of another shape for the same elements.

use crate::import::onnx::{
    call::{Call, Imported, broadcast_exprs},
    draft::Draft,
    error::ImportError,
    values::Item,
};
use strang_ir::{IndexExpr, Op, Value};
use strang_runtime::Size;

/// Where an array of shape `from` is read at the positions `variables` of an array of shape `to` with the same elements
/// in row-major order. Runs of axes with equal products are matched first, so that a reshape of some axes leaves the
/// others alone.
pub fn reshape_exprs(from: &[Size], to: &[Size], variables: &[u32], size_of: &dyn Fn(u32) -> Size) -> Vec<IndexExpr> {
    let mut exprs = vec![IndexExpr::constant(0); from.len()];
    let from_axes: Vec<usize> = (0..from.len()).filter(|axis| !from[*axis].is(1)).collect();
    let to_axes: Vec<usize> = (0..to.len()).filter(|axis| !to[*axis].is(1)).collect();
    let (mut i, mut j) = (0, 0);
    while i < from_axes.len() {
        let (start_i, start_j) = (i, j);
        let mut left = from[from_axes[i]].clone();
        i += 1;
        let mut right = Size::ONE;
        while left != right {
            let grow_right = match (left.as_constant(), right.as_constant()) {
                (Some(a), Some(b)) => b < a,
                _ => left.divide_exactly(&right).is_some(),
            };
            let grow_left = !grow_right
                && (left.as_constant().is_some() && right.as_constant().is_some()
                    || right.divide_exactly(&left).is_some());
            if grow_right && j < to_axes.len() {
                right = &right * &to[to_axes[j]];
                j += 1;
            } else if grow_left && i < from_axes.len() {
                left = &left * &from[from_axes[i]];
                i += 1;
            } else {
                // Sizes that cannot be matched: all remaining axes are one run.
                (i, j) = (from_axes.len(), to_axes.len());
                break;
            }
        }
        let mut flat = IndexExpr::default();
        let mut stride = Size::ONE;
        for axis in to_axes[start_j..j].iter().rev() {
            flat = flat.plus(&IndexExpr::variable(variables[*axis]).times(&stride));
            stride = &stride * &to[*axis];
        }
        let mut stride = Size::ONE;
        for (position, axis) in from_axes[start_i..i].iter().enumerate().rev() {
            let quotient = flat.floor_div(&stride, size_of);
            exprs[*axis] = if position == 0 { quotient } else { quotient.remainder(&from[*axis], size_of) };
            stride = &stride * &from[*axis];
        }
    }
    exprs
}

/// An item under another shape with the same elements: constants change their shape, others get a view.
///
/// # Errors
/// A shape with another number of elements.
pub fn reshaped(call: &mut Call, item: &Item, sizes: &[Size]) -> Result<Item, ImportError> {
    let from = call.importer.shape_of_item(item);
    let (count, wanted): (Size, Size) = (from.iter().cloned().product(), sizes.iter().cloned().product());
    if count.as_constant().zip(wanted.as_constant()).is_some_and(|(count, wanted)| count != wanted) {
        return Err(call.error(format!("{from:?} has {count} elements and cannot become {sizes:?} with {wanted}")));
    }
    if let Item::Constant(constant) = item
        && let Some(shape) = sizes.iter().map(|s| s.as_constant().and_then(|s| usize::try_from(s).ok())).collect()
    {
        let shape: Vec<usize> = shape;
        if let Ok(tensor) = constant.tensor.reshaped(&shape) {
            return Ok(Item::constant(&constant.name, tensor));
        }
    }
    let value = call.importer.materialise(item)?;
    Ok(call.reshape(value, sizes).into())
}

/// The shape that `Reshape` asks for: 0 copies a size, -1 takes what is left.
pub fn requested_shape(call: &Call, from: &[Size], wanted: &[Size], keep_zero: bool) -> Result<Vec<Size>, ImportError> {
    let mut sizes = Vec::with_capacity(wanted.len());
    let mut free = None;
    for (axis, size) in wanted.iter().enumerate() {
        match size.as_constant() {
            Some(0) if !keep_zero => {
                let copied = from.get(axis).cloned();
                sizes.push(copied.ok_or_else(|| {
                    call.error(format!("the new shape copies axis {axis}, but the input has {} axes", from.len()))
                })?);
            }
            Some(-1) => {
                if free.replace(axis).is_some() {
                    return Err(call.error("the new shape has more than one -1"));
                }
                sizes.push(Size::ONE);
            }
            Some(negative) if negative < 0 => {
                return Err(call.error(format!("the new shape has the size {negative}")));
            }
            _ => sizes.push(size.clone()),
        }
    }
    if let Some(axis) = free {
        let count: Size = from.iter().cloned().product();
        let others: Size = sizes.iter().cloned().product();
        if others.is(0) {
            return Err(call.error("the new shape has a 0 beside a -1: what -1 stands for is open"));
        }
        if let (Some(count), Some(others)) = (count.as_constant(), others.as_constant())
            && count % others != 0
        {
            return Err(call.error(format!("{count} elements do not divide into {others}")));
        }
        sizes[axis] = count.floor_div(&others);
    }
    Ok(sizes)
}

/// The shape that `Reshape` is given: an operand, before opset 5 an attribute.
///
/// # Errors
/// A shape that is missing or computed from data.
pub fn shape_argument(call: &Call) -> Result<Vec<Size>, ImportError> {
    if call.version >= 5 {
        return call.sizes(1);
    }
    let sizes = call.attributes.ints("shape")?;
    let sizes = sizes.ok_or_else(|| call.attributes.error("shape", "these integers are missing"))?;
    Ok(sizes.iter().map(|size| Size::from(*size)).collect())
}

/// `Reshape`.
pub fn reshape(call: &mut Call) -> Imported {
    let keep_zero = call.version >= 14 && call.attributes.flag("allowzero", false)?;
    let from = call.shape(0)?;
    let wanted = shape_argument(call)?;
    let sizes = requested_shape(call, &from, &wanted, keep_zero)?;
    Ok(vec![reshaped(call, &call.item(0), &sizes)?])
}

/// `Flatten`.
pub fn flatten(call: &mut Call) -> Imported {
    let from = call.shape(0)?;
    let axis = call.attributes.int_or("axis", 1)?;
    let axis = if axis == from.len() as i64 { from.len() } else { call.axis(axis, from.len())? };
    let sizes = [from[..axis].iter().cloned().product(), from[axis..].iter().cloned().product()];
    Ok(vec![reshaped(call, &call.item(0), &sizes)?])
}

/// Axes from the attribute (`since` and before) or the operand that replaced it.
fn axes_argument(call: &Call, operand_since: i64) -> Result<Option<Vec<i64>>, ImportError> {
    if call.version < operand_since {
        return Ok(call.attributes.ints("axes")?.map(<[i64]>::to_vec));
    }
    if call.has(1) { call.integers(1).map(Some) } else { Ok(None) }
}

/// `Squeeze`.
pub fn squeeze(call: &mut Call) -> Imported {
    let from = call.shape(0)?;
    let dropped = match axes_argument(call, 13)? {
        Some(axes) => call.axes(&axes, from.len())?,
        None => (0..from.len()).filter(|axis| from[*axis].is(1)).collect(),
    };
    if let Some(axis) = dropped.iter().find(|axis| from[**axis].as_constant().is_some_and(|size| size != 1)) {
        return Err(call.error(format!("axis {axis} has size {} and cannot be squeezed", from[*axis])));
    }
    let kept = (0..from.len()).filter(|axis| !dropped.contains(axis));
    let sizes: Vec<Size> = kept.map(|axis| from[axis].clone()).collect();
    Ok(vec![reshaped(call, &call.item(0), &sizes)?])
}

/// `Unsqueeze`.
pub fn unsqueeze(call: &mut Call) -> Imported {
    let from = call.shape(0)?;
    let axes = axes_argument(call, 13)?.ok_or_else(|| call.error("the axes are missing"))?;
    let rank = from.len() + axes.len();
    let added = call.axes(&axes, rank)?;
    let mut rest = from.into_iter();
    let sizes: Vec<Size> =
        (0..rank).map(|axis| if added.contains(&axis) { None } else { rest.next() }.unwrap_or(Size::ONE)).collect();
    Ok(vec![reshaped(call, &call.item(0), &sizes)?])
}

/// `Transpose`.
pub fn transpose(call: &mut Call) -> Imported {
    let from = call.shape(0)?;
    let order = match call.attributes.ints("perm")? {
        Some(order) => call.axes(order, from.len())?,
        None => (0..from.len()).rev().collect(),
    };
    if order.len() != from.len() {
        return Err(call.error(format!("the permutation {order:?} does not name the {} axes", from.len())));
    }
    let value = call.value(0)?;
    if order.iter().enumerate().all(|(position, axis)| position == *axis) {
        return Ok(vec![call.item(0)]);
    }
    Ok(vec![transposed(call, value, &order).into()])
}

/// A view with the axes in another order: axis `k` of the result is axis `order[k]`.
pub fn transposed(call: &mut Call, value: Value, order: &[usize]) -> Value {
    let from = call.shape_of(value);
    let sizes: Vec<Size> = order.iter().map(|axis| from[*axis].clone()).collect();
    call.view(value, &sizes, |variables, _| {
        let mut exprs = vec![IndexExpr::default(); order.len()];
        for (variable, axis) in variables.iter().zip(order) {
            exprs[*axis] = IndexExpr::variable(*variable);
        }
        exprs
    })
}

/// `Expand`.
pub fn expand(call: &mut Call) -> Imported {
    let (from, wanted) = (call.shape(0)?, call.sizes(1)?);
    let sizes = call.broadcast(&[wanted, from.clone()])?;
    if sizes == from {
        return Ok(vec![call.item(0)]);
    }
    let value = call.value(0)?;
    Ok(vec![call.view(value, &sizes, |variables, _| broadcast_exprs(&from, &sizes, variables)).into()])
}

/// `Tile`.
pub fn tile(call: &mut Call) -> Imported {
    let from = call.shape(0)?;
    let mut repeats = call.sizes(1)?;
    if call.version < 6 {
        // One number of tiles along one axis.
        let axes = call.integers(2)?;
        let ([tiles], [axis]) = (repeats.as_slice(), axes.as_slice()) else {
            return Err(call.error("the number of tiles and the axis must be one number each"));
        };
        let mut each = vec![Size::ONE; from.len()];
        each[call.axis(*axis, from.len())?] = tiles.clone();
        repeats = each;
    }
    if repeats.len() != from.len() {
        return Err(call.error(format!("{} repeats are given for {} axes", repeats.len(), from.len())));
    }
    let sizes: Vec<Size> = from.iter().zip(&repeats).map(|(size, repeat)| size * repeat).collect();
    let value = call.value(0)?;
    let view = call.view(value, &sizes, |variables, size_of| {
        let place = |(variable, size): (&u32, &Size)| IndexExpr::variable(*variable).remainder(size, size_of);
        variables.iter().zip(&from).map(place).collect()
    });
    Ok(vec![view.into()])
}

/// `Concat`.
pub fn concat(call: &mut Call) -> Imported {
    let rank = call.shape(0)?.len();
    let axis = concat_axis(call, rank)?;
    let mut values = Vec::new();
    for slot in 0..call.operands.len() {
        let shape = call.shape(slot)?;
        if shape.len() != rank {
            return Err(call.operand_error(slot, format!("it has {} axes, the first input has {rank}", shape.len())));
        }
        values.push(call.value(slot)?);
    }
    Ok(vec![concatenated(call, &values, axis)?.into()])
}

/// The axis of `Concat`, which had a default before opset 4.
///
/// # Errors
/// No such attribute, or an axis that does not exist.
pub fn concat_axis(call: &Call, rank: usize) -> Result<usize, ImportError> {
    let axis =
        if call.version < 4 { call.attributes.int_or("axis", 1)? } else { call.attributes.required_int("axis")? };
    call.axis(axis, rank)
}

/// Values one after the other along an axis.
///
/// # Errors
/// Sizes that differ on another axis.
pub fn concatenated(call: &mut Call, values: &[Value], axis: usize) -> Result<Value, ImportError> {
    let shapes: Vec<Vec<Size>> = values.iter().map(|value| call.shape_of(*value)).collect();
    let mut sizes = shapes[0].clone();
    for shape in &shapes {
        for other in (0..sizes.len()).filter(|other| *other != axis) {
            match (sizes[other].as_constant(), shape[other].as_constant()) {
                (Some(a), Some(b)) if a != b => {
                    let text = crate::import::onnx::call::shapes_text(&shapes);
                    return Err(call.error(format!("sizes differ on axis {other}: {text}")));
                }
                (None, Some(_)) => sizes[other] = shape[other].clone(),
                _ => {}
            }
        }
    }
    let parts: Vec<(Value, Size)> =
        values.iter().zip(&shapes).map(|(value, shape)| (*value, shape[axis].clone())).collect();
    let parts: Vec<(Value, Size)> = parts.iter().filter(|(_, size)| !size.is(0)).cloned().collect();
    match parts.as_slice() {
        [] => return Ok(values[0]),
        [(only, _)] => return Ok(*only),
        _ => {}
    }
    sizes[axis] = parts.iter().map(|(_, size)| size.clone()).sum();
    let (mut draft, variables) = Draft::over(&sizes);
    let mut offsets = vec![Size::ZERO];
    for (value, size) in &parts {
        let offset = offsets[offsets.len() - 1].clone();
        let mut exprs: Vec<IndexExpr> = variables.iter().map(|variable| IndexExpr::variable(*variable)).collect();
        exprs[axis] = exprs[axis].plus_size(&-&offset);
        draft.read(*value, exprs);
        offsets.push(offset + size);
    }
    let element = call.element_of(values[0]);
    if values.iter().any(|value| call.element_of(*value) != element) {
        return Err(call.error("the inputs have different element types"));
    }
    Ok(call.emit(draft, Op::Concat { along: variables[axis], offsets }, element, &variables))
}

/// `Split`.
pub fn split(call: &mut Call) -> Imported {
    let from = call.shape(0)?;
    let axis = call.axis(call.attributes.int_or("axis", 0)?, from.len())?;
    let total = from[axis].clone();
    let given = if call.has(1) {
        Some(call.sizes(1)?)
    } else if call.version < 13 {
        call.attributes.ints("split")?.map(|sizes| sizes.iter().map(|size| Size::from(*size)).collect())
    } else {
        None
    };
    let parts: Vec<Size> = match given {
        Some(parts) => parts,
        None => {
            let count = match call.version >= 18 {
                true => call.attributes.int_or("num_outputs", call.wanted.len() as i64)?,
                false => call.wanted.len() as i64,
            };
            if count < 1 || count > call.wanted.len() as i64 {
                return Err(call.error(format!("{} outputs are named, but {count} parts asked for", call.wanted.len())));
            }
            let part = total.ceil_div(&Size::from(count));
            let mut parts = vec![part.clone(); count as usize - 1];
            parts.push(&total - &(&part * &Size::from(count - 1)));
            parts
        }
    };
    let sum: Size = parts.iter().cloned().sum();
    if parts.len() < call.wanted.len()
        || sum.as_constant().zip(total.as_constant()).is_some_and(|(sum, total)| sum != total)
        || parts.iter().any(|part| part.as_constant().is_some_and(|size| size < 0))
    {
        return Err(call.error(format!("the parts {parts:?} do not split {total} into {}", call.wanted.len())));
    }
    let value = call.value(0)?;
    let mut offset = Size::ZERO;
    let mut items = Vec::new();
    for part in parts {
        items.push(cut(call, value, axis, &offset, &part, 1).into());
        offset += part;
    }
    Ok(items)
}

/// The positions `start + step * v` of one axis, for `v` below `size`.
pub fn cut(call: &mut Call, value: Value, axis: usize, start: &Size, size: &Size, step: i64) -> Value {
    let from = call.shape_of(value);
    if start.is(0) && step == 1 && *size == from[axis] {
        return value;
    }
    let mut sizes = from;
    sizes[axis] = size.clone();
    call.view(value, &sizes, |variables, _| {
        let mut exprs: Vec<IndexExpr> = variables.iter().map(|variable| IndexExpr::variable(*variable)).collect();
        exprs[axis] = exprs[axis].times(&Size::from(step)).plus_size(start);
        exprs
    })
}

/// `DepthToSpace`: blocks of channels become blocks of pixels.
pub fn depth_to_space(call: &mut Call) -> Imported {
    let from = call.shape(0)?;
    let block = block_size(call, &from)?;
    let columns_first = match call.attributes.string_or("mode", "DCR")? {
        "DCR" => false,
        "CRD" => true,
        other => return Err(call.attributes.error("mode", format!("`{other}` is neither DCR nor CRD"))),
    };
    let area = &block * &block;
    let channels = from[1].floor_div(&area);
    if from[1].as_constant().zip(area.as_constant()).is_some_and(|(channels, area)| channels % area != 0) {
        return Err(call.error(format!("{} channels do not divide into blocks of {area}", from[1])));
    }
    let sizes = [from[0].clone(), channels.clone(), &from[2] * &block, &from[3] * &block];
    let value = call.value(0)?;
    let view = call.view(value, &sizes, |v, size_of| {
        let (c, h, w) = (IndexExpr::variable(v[1]), IndexExpr::variable(v[2]), IndexExpr::variable(v[3]));
        let within = h.remainder(&block, size_of).times(&block).plus(&w.remainder(&block, size_of));
        let channel = if columns_first { c.times(&area).plus(&within) } else { within.times(&channels).plus(&c) };
        vec![IndexExpr::variable(v[0]), channel, h.floor_div(&block, size_of), w.floor_div(&block, size_of)]
    });
    Ok(vec![view.into()])
}

/// `SpaceToDepth`: blocks of pixels become blocks of channels.
pub fn space_to_depth(call: &mut Call) -> Imported {
    let from = call.shape(0)?;
    let block = block_size(call, &from)?;
    let columns_first = match call.attributes.string_or("mode", "DCR")? {
        "DCR" => false,
        "CRD" => true,
        other => return Err(call.attributes.error("mode", format!("`{other}` is neither DCR nor CRD"))),
    };
    let area = &block * &block;
    let channels = from[1].clone();
    let sizes = [from[0].clone(), &channels * &area, from[2].floor_div(&block), from[3].floor_div(&block)];
    let value = call.value(0)?;
    let view = call.view(value, &sizes, |v, size_of| {
        let channel = IndexExpr::variable(v[1]);
        let (c, within) = match columns_first {
            true => (channel.floor_div(&area, size_of), channel.remainder(&area, size_of)),
            false => (channel.remainder(&channels, size_of), channel.floor_div(&channels, size_of)),
        };
        let h = IndexExpr::variable(v[2]).times(&block).plus(&within.floor_div(&block, size_of));
        let w = IndexExpr::variable(v[3]).times(&block).plus(&within.remainder(&block, size_of));
        vec![IndexExpr::variable(v[0]), c, h, w]
    });
    Ok(vec![view.into()])
}

fn block_size(call: &Call, from: &[Size]) -> Result<Size, ImportError> {
    let block = call.attributes.required_int("blocksize")?;
    if block < 1 {
        return Err(call.attributes.error("blocksize", "this must be positive"));
    }
    if from.len() != 4 {
        return Err(call.error(format!("the input must have 4 axes, not {}", from.len())));
    }
    Ok(block.into())
}
