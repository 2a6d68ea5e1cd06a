//! Arithmetic on sizes that are known while importing: the `Shape`-`Gather`-`Concat` chains with which exporters say
//! shapes. What is folded here never becomes a node.

use super::{
    call::Call,
    error::ImportError,
    operators,
    values::{Item, KNOWN_LIMIT, Known},
};
use std::rc::Rc;
use strang_runtime::{ElementType, Size};

/// The results of a node whose operands are all known, when it is an operator that folds and the values allow it.
///
/// # Errors
/// Attributes or operands that are wrong.
pub fn fold(call: &mut Call) -> Result<Option<Vec<Item>>, ImportError> {
    if !FOLDED.contains(&call.operator) {
        return Ok(None);
    }
    let mut known = Vec::with_capacity(call.operands.len());
    for item in &call.operands {
        match item {
            Item::Absent => known.push(None),
            item => match item.known() {
                Some(value) => known.push(Some(value)),
                None => return Ok(None),
            },
        }
    }
    let Some(Some(first)) = known.first().cloned() else { return Ok(None) };
    // Narrow integers wrap, which sizes do not.
    let narrow = |known: &Rc<Known>| known.element.bits() < 32 && known.element != ElementType::Bool;
    if known.iter().flatten().any(narrow) {
        return Ok(None);
    }
    let folded = match call.operator {
        "Cast" => cast(call, &first)?,
        "Gather" => gather(call, &known)?,
        "Concat" => concat(call, &known)?,
        "Slice" => slice(call, &known)?,
        "Split" => return split(call, &first),
        "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" => reshape(call, &first)?,
        "Expand" => expand(call, &first)?,
        "Where" => choose(&known),
        "Neg" => map(&first, |a| Some(-a)),
        "Abs" => map(&first, |a| {
            if a.lower_bound(1)? >= 0 {
                Some(a.clone())
            } else {
                a.as_constant().map(|a| Size::from(a.saturating_abs()))
            }
        }),
        "Not" => map(&first, |a| Some(Size::ONE - a)),
        "ReduceProd" | "ReduceSum" | "ReduceMax" | "ReduceMin" => reduce(call, &first)?,
        "Min" | "Max" | "Sum" => variadic(call.operator, &known),
        // Broadcasting by attributes, up to opset 6, is left to the operator.
        operator if call.version >= 7 => {
            let c_remainder = operator == "Mod" && call.attributes.flag("fmod", false)?;
            binary(operator, &known, c_remainder)
        }
        _ => None,
    };
    let fits = |known: &Known| {
        let (low, high) = known.element.integer_range().unwrap_or((0, 0));
        let inside = |size: &Size| size.as_constant().is_none_or(|value| (low..=high).contains(&i128::from(value)));
        known.sizes.len() <= KNOWN_LIMIT && known.sizes.iter().all(inside)
    };
    Ok(folded.filter(fits).map(|known| vec![known.into()]))
}

/// The operators that fold.
const FOLDED: &[&str] = &[
    "Abs",
    "Add",
    "And",
    "Cast",
    "Concat",
    "Div",
    "Equal",
    "Expand",
    "Flatten",
    "Gather",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Min",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Sub",
    "Sum",
    "Unsqueeze",
    "Where",
];

type Folded = Result<Option<Known>, ImportError>;

fn map(known: &Known, function: impl Fn(&Size) -> Option<Size>) -> Option<Known> {
    let sizes = known.sizes.iter().map(function).collect::<Option<_>>()?;
    Some(Known { element: known.element, shape: known.shape.clone(), sizes })
}

fn cast(call: &Call, known: &Known) -> Folded {
    let to = operators::elementwise::cast_target(&call.attributes, call.version)?;
    if to.is_float() {
        return Ok(None);
    }
    call.attributes.ignore(&["saturate", "round_mode"]);
    let (low, high) = to.integer_range().unwrap_or((0, 0));
    let converted = map(known, |size| match size.as_constant() {
        Some(value) if to == ElementType::Bool => Some(Size::from(i64::from(value != 0))),
        Some(value) => (low..=high).contains(&i128::from(value)).then(|| size.clone()),
        // A symbol is a size: it fits 32 bits in every model that asks for them.
        None => (to.bits() >= 32).then(|| size.clone()),
    });
    Ok(converted.map(|converted| Known { element: to, ..converted }))
}

/// The elements of axis positions: rows of a row-major array.
fn take(known: &Known, axis: usize, positions: &[usize]) -> Vec<Size> {
    if known.sizes.is_empty() {
        // The other axes may have any size then.
        return Vec::new();
    }
    let inner: usize = known.shape[axis + 1..].iter().product();
    let outer: usize = known.shape[..axis].iter().product();
    let extent = known.shape[axis];
    let mut sizes = Vec::with_capacity(outer * positions.len() * inner);
    for row in 0..outer {
        for position in positions {
            let start = (row * extent + position) * inner;
            sizes.extend_from_slice(&known.sizes[start..start + inner]);
        }
    }
    sizes
}

fn gather(call: &Call, known: &[Option<Rc<Known>>]) -> Folded {
    let [Some(data), Some(indices)] = known else { return Ok(None) };
    let Some(indices_values) = indices.integers() else { return Ok(None) };
    let axis = call.axis(call.attributes.int_or("axis", 0)?, data.shape.len())?;
    let extent = data.shape[axis] as i64;
    let place = |index: i64| usize::try_from(if index < 0 { index + extent } else { index }).ok();
    let positions: Option<Vec<usize>> =
        indices_values.iter().map(|index| place(*index).filter(|place| *place < extent as usize)).collect();
    let Some(positions) = positions else {
        return Err(call.operand_error(1, format!("an index lies outside the {extent} elements of axis {axis}")));
    };
    if data.sizes.len() / data.shape[axis].max(1) * positions.len() > KNOWN_LIMIT {
        return Ok(None);
    }
    let mut shape = data.shape[..axis].to_vec();
    shape.extend(&indices.shape);
    shape.extend(&data.shape[axis + 1..]);
    Ok(Some(Known { element: data.element, shape, sizes: take(data, axis, &positions) }))
}

fn concat(call: &Call, known: &[Option<Rc<Known>>]) -> Folded {
    let Some(parts) = known.iter().cloned().collect::<Option<Vec<_>>>() else { return Ok(None) };
    let axis = operators::shape::concat_axis(call, parts[0].shape.len())?;
    let mut shape = parts[0].shape.clone();
    let agrees = |part: &Rc<Known>| {
        part.element == parts[0].element
            && part.shape.len() == shape.len()
            && (0..shape.len()).all(|other| other == axis || part.shape[other] == shape[other])
    };
    if !parts.iter().all(agrees) {
        return Err(call.error("the inputs have shapes or types that do not concatenate"));
    }
    if shape.len() > 1 && parts.iter().any(|part| part.sizes.is_empty()) {
        return Ok(None);
    }
    shape[axis] = parts.iter().map(|part| part.shape[axis]).sum();
    let outer: usize = shape[..axis].iter().product();
    let mut sizes = Vec::new();
    for row in 0..outer {
        for part in &parts {
            let length: usize = part.shape[axis..].iter().product();
            sizes.extend_from_slice(&part.sizes[row * length..(row + 1) * length]);
        }
    }
    Ok(Some(Known { element: parts[0].element, shape, sizes }))
}

fn slice(call: &Call, known: &[Option<Rc<Known>>]) -> Folded {
    let Some(data) = known[0].clone() else { return Ok(None) };
    let operand = |slot: usize| known.get(slot).cloned().flatten().map(|known| known.integers());
    let attribute = |name| call.attributes.ints(name).map(|values| values.map(|values| Some(values.to_vec())));
    let (starts, ends, axes, steps) = match call.version < 10 {
        true => (attribute("starts")?, attribute("ends")?, attribute("axes")?, None),
        false => (operand(1), operand(2), operand(3), operand(4)),
    };
    let (Some(Some(starts)), Some(Some(ends))) = (starts, ends) else { return Ok(None) };
    let axes = match axes {
        Some(Some(axes)) => axes,
        Some(None) => return Ok(None),
        None => (0..starts.len() as i64).collect(),
    };
    let steps = match steps {
        Some(Some(steps)) => steps,
        Some(None) => return Ok(None),
        None => vec![1; axes.len()],
    };
    let axes = call.axes(&axes, data.shape.len())?;
    if [starts.len(), ends.len(), steps.len()] != [axes.len(); 3] || steps.contains(&0) || steps.contains(&i64::MIN) {
        return Err(call.error("starts, ends, axes and steps have different lengths, or a step is 0"));
    }
    let mut result = (*data).clone();
    for (position, axis) in axes.into_iter().enumerate() {
        let extent = Size::from(result.shape[axis] as i64);
        let (start, end, step) = (starts[position], ends[position], steps[position]);
        let (start, size) = operators::slice::bounds(&start.into(), &end.into(), step, &extent);
        let (Some(start), Some(size)) = (start.as_constant(), size.as_constant()) else { return Ok(None) };
        let positions: Option<Vec<usize>> = (0..size)
            .map(|index| usize::try_from(start + index * step).ok().filter(|place| *place < result.shape[axis]))
            .collect();
        let Some(positions) = positions else { return Ok(None) };
        result.sizes = take(&result, axis, &positions);
        result.shape[axis] = positions.len();
    }
    Ok(Some(result))
}

fn split(call: &Call, data: &Known) -> Result<Option<Vec<Item>>, ImportError> {
    let axis = call.axis(call.attributes.int_or("axis", 0)?, data.shape.len())?;
    let count = call.wanted.len();
    let given = match call.version < 13 {
        true if !call.has(1) => call.attributes.ints("split")?.map(<[i64]>::to_vec),
        _ if call.has(1) => Some(call.integers(1)?),
        _ => None,
    };
    call.attributes.ignore(&["num_outputs"]);
    let extent = data.shape[axis];
    let parts: Vec<usize> = match given {
        Some(parts) => parts.iter().map(|part| usize::try_from(*part).unwrap_or(usize::MAX)).collect(),
        None => {
            let part = extent.div_ceil(count.max(1));
            (0..count).map(|index| part.min(extent.saturating_sub(index * part))).collect()
        }
    };
    let total = parts.iter().try_fold(0usize, |sum, part| sum.checked_add(*part));
    if total != Some(extent) || parts.len() < count {
        return Err(call.error(format!("the parts {parts:?} do not split {extent} into {count}")));
    }
    let mut start = 0;
    let mut items = Vec::new();
    for part in parts {
        let positions: Vec<usize> = (start..start + part).collect();
        let mut shape = data.shape.clone();
        shape[axis] = part;
        items.push(Known { element: data.element, shape, sizes: take(data, axis, &positions) }.into());
        start += part;
    }
    Ok(Some(items))
}

/// The operators that change the shape alone: their importers change constants, so only sizes are done here.
fn reshape(call: &mut Call, data: &Known) -> Folded {
    let from: Vec<Size> = data.shape.iter().map(|size| Size::from(*size as i64)).collect();
    let sizes: Option<Vec<Size>> = match call.operator {
        "Reshape" => {
            let keep_zero = call.version >= 14 && call.attributes.flag("allowzero", false)?;
            let wanted = operators::shape::shape_argument(call)?;
            Some(operators::shape::requested_shape(call, &from, &wanted, keep_zero)?)
        }
        _ => None,
    };
    let shape: Option<Vec<usize>> = match (call.operator, sizes) {
        (_, Some(sizes)) => {
            sizes.iter().map(|size| size.as_constant().and_then(|size| usize::try_from(size).ok())).collect()
        }
        ("Squeeze" | "Unsqueeze", None) => {
            let axes = match call.version < 13 {
                true => call.attributes.ints("axes")?.map(<[i64]>::to_vec),
                false if call.has(1) => Some(call.integers(1)?),
                false => None,
            };
            let rank = data.shape.len();
            if call.operator == "Squeeze" {
                let dropped = match axes {
                    Some(axes) => call.axes(&axes, rank)?,
                    None => (0..rank).filter(|axis| data.shape[*axis] == 1).collect(),
                };
                Some((0..rank).filter(|axis| !dropped.contains(axis)).map(|axis| data.shape[axis]).collect())
            } else {
                let axes = axes.ok_or_else(|| call.error("the axes are missing"))?;
                let added = call.axes(&axes, rank + axes.len())?;
                let mut rest = data.shape.iter().copied();
                let next = |axis| if added.contains(&axis) { 1 } else { rest.next().unwrap_or(1) };
                Some((0..rank + axes.len()).map(next).collect())
            }
        }
        _ => return Ok(None),
    };
    let Some(shape) = shape else { return Ok(None) };
    let count = shape.iter().try_fold(1usize, |count, size| count.checked_mul(*size));
    if count != Some(data.sizes.len()) {
        return Err(call.error(format!("{} elements cannot have the shape {shape:?}", data.sizes.len())));
    }
    Ok(Some(Known { element: data.element, shape, sizes: data.sizes.clone() }))
}

/// Where a position of `shape` reads an operand that broadcasts to it.
fn broadcast_position(mut position: usize, shape: &[usize], operand: &[usize]) -> usize {
    let (mut place, mut stride) = (0, 1);
    for (axis, size) in shape.iter().enumerate().rev() {
        let index = position % size;
        position /= size;
        let skipped = shape.len() - operand.len();
        if axis >= skipped {
            let extent = operand[axis - skipped];
            place += if extent == 1 { 0 } else { index } * stride;
            stride *= extent;
        }
    }
    place
}

fn broadcast_shape(shapes: &[&[usize]]) -> Option<Vec<usize>> {
    let rank = shapes.iter().map(|shape| shape.len()).max()?;
    let mut result = vec![1usize; rank];
    for shape in shapes {
        for (target, size) in result[rank - shape.len()..].iter_mut().zip(*shape) {
            match (*target, *size) {
                (1, size) => *target = size,
                (target, size) if target == size || size == 1 => {}
                _ => return None,
            }
        }
    }
    let count = result.iter().try_fold(1usize, |count, size| count.checked_mul(*size))?;
    (count <= KNOWN_LIMIT).then_some(result)
}

fn expand(call: &Call, data: &Known) -> Folded {
    let Some(wanted) = call.sizes(1)?.iter().map(|size| usize::try_from(size.as_constant()?).ok()).collect() else {
        return Ok(None);
    };
    let wanted: Vec<usize> = wanted;
    let Some(shape) = broadcast_shape(&[&data.shape, &wanted]) else { return Ok(None) };
    let count: usize = shape.iter().product();
    let place = |position| data.sizes[broadcast_position(position, &shape, &data.shape)].clone();
    let sizes = (0..count).map(place).collect();
    Ok(Some(Known { element: data.element, shape, sizes }))
}

fn zip(
    known: &[Option<Rc<Known>>],
    element: ElementType,
    function: impl Fn(&[&Size]) -> Option<Size>,
) -> Option<Known> {
    let known: Vec<&Rc<Known>> = known.iter().map(Option::as_ref).collect::<Option<_>>()?;
    let shapes: Vec<&[usize]> = known.iter().map(|known| known.shape.as_slice()).collect();
    let shape = broadcast_shape(&shapes)?;
    let count: usize = shape.iter().product();
    let at = |position: usize| -> Option<Size> {
        let values: Vec<&Size> =
            known.iter().map(|known| &known.sizes[broadcast_position(position, &shape, &known.shape)]).collect();
        function(&values)
    };
    let sizes = (0..count).map(at).collect::<Option<_>>()?;
    Some(Known { element, shape, sizes })
}

fn choose(known: &[Option<Rc<Known>>]) -> Option<Known> {
    let element = known.get(1)?.as_ref()?.element;
    zip(known, element, |values| match values {
        [condition, yes, no] => match condition.as_constant()? {
            0 => Some((*no).clone()),
            _ => Some((*yes).clone()),
        },
        _ => None,
    })
}

fn variadic(operator: &str, known: &[Option<Rc<Known>>]) -> Option<Known> {
    let element = known.first()?.as_ref()?.element;
    zip(known, element, |values| {
        let mut values = values.iter();
        let first = (*values.next()?).clone();
        Some(values.fold(first, |sum, next| match operator {
            "Min" => sum.smaller(next),
            "Max" => sum.larger(next),
            _ => &sum + *next,
        }))
    })
}

fn reduce(call: &Call, data: &Known) -> Folded {
    let operand_since = if call.operator == "ReduceSum" { 13 } else { 18 };
    let given = match call.version >= operand_since {
        true if call.has(1) => Some(call.integers(1)?),
        true => None,
        false => call.attributes.ints("axes")?.map(<[i64]>::to_vec),
    };
    // Shape arithmetic reduces vectors; other shapes are left to the circuit.
    if data.shape.len() != 1 || given.is_some_and(|axes| axes != [0] && axes != [-1]) {
        return Ok(None);
    }
    if call.attributes.flag("noop_with_empty_axes", false)? {
        return Ok(None);
    }
    let keep = call.attributes.flag("keepdims", true)?;
    let mut sizes = data.sizes.iter().cloned();
    let Some(first) = sizes.next() else { return Ok(None) };
    let total = sizes.fold(first, |total, next| match call.operator {
        "ReduceProd" => total * next,
        "ReduceMax" => total.larger(&next),
        "ReduceMin" => total.smaller(&next),
        _ => total + next,
    });
    let shape = if keep { vec![1] } else { vec![] };
    Ok(Some(Known { element: data.element, shape, sizes: vec![total] }))
}

/// Arithmetic and comparisons. Comparisons of sizes with symbols hold when they hold for all positive symbols.
fn binary(operator: &str, known: &[Option<Rc<Known>>], c_remainder: bool) -> Option<Known> {
    let element = known.first()?.as_ref()?.element;
    let comparison = matches!(operator, "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual");
    let result = if comparison { ElementType::Bool } else { element };
    let truth = |value: Option<bool>| value.map(|value| Size::from(i64::from(value)));
    let less = |a: &Size, b: &Size| -> Option<bool> {
        let difference = b - a;
        if difference.lower_bound(1).is_some_and(|low| low > 0) {
            Some(true)
        } else {
            difference.upper_bound(1).filter(|high| *high <= 0).map(|_| false)
        }
    };
    zip(known, result, |values| {
        let [a, b] = *values else { return None };
        let (x, y) = (a.as_constant(), b.as_constant());
        match operator {
            "Add" => Some(a + b),
            "Sub" => Some(a - b),
            "Mul" => Some(a * b),
            "Div" => match (x, y) {
                (Some(x), Some(y)) => x.checked_div(y).map(Size::from),
                // Quotients of sizes that are not negative round down, as those of sizes do.
                _ => (a.lower_bound(1)? >= 0 && b.lower_bound(1)? > 0).then(|| a.floor_div(b)),
            },
            "Mod" => match (x, y) {
                (Some(x), Some(y)) if c_remainder => x.checked_rem(y).map(Size::from),
                (Some(x), Some(y)) if y > 0 => Some(Size::from(x.rem_euclid(y))),
                (Some(_), Some(_)) => None,
                _ => (a.lower_bound(1)? >= 0 && b.lower_bound(1)? > 0).then(|| a.remainder(b)),
            },
            "And" => Some(a * b).filter(|_| element == ElementType::Bool),
            "Or" => Some(a.larger(b)).filter(|_| element == ElementType::Bool),
            "Equal" => truth(if a == b {
                Some(true)
            } else {
                (less(a, b) == Some(true) || less(b, a) == Some(true)).then_some(false)
            }),
            "Less" => truth(less(a, b)),
            "Greater" => truth(less(b, a)),
            "LessOrEqual" => truth(less(b, a).map(|less| !less)),
            "GreaterOrEqual" => truth(less(a, b).map(|less| !less)),
            _ => None,
        }
    })
}
