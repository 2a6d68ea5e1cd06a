//! `Slice` and `Pad`: parts of an array, and an array with something around it.

use crate::import::onnx::{
    call::{Call, Imported},
    draft::Draft,
    error::ImportError,
};
use strang_ir::{Atom, IndexExpr, IndexMap, Literal, Op};
use strang_runtime::Size;

/// `Slice`: bounds are attributes up to opset 9, then operands.
pub fn slice(call: &mut Call) -> Imported {
    let mut value = call.value(0)?;
    let from = call.shape_of(value);
    let (starts, ends, axes, steps) = if call.version < 10 {
        let sizes = |name: &str| -> Result<Vec<Size>, ImportError> {
            let values = call.attributes.ints(name)?;
            let values = values.ok_or_else(|| call.attributes.error(name, "these integers are missing"))?;
            Ok(values.iter().map(|value| Size::from(*value)).collect())
        };
        (sizes("starts")?, sizes("ends")?, call.attributes.ints("axes")?.map(<[i64]>::to_vec), None)
    } else {
        let optional = |slot| if call.has(slot) { call.integers(slot).map(Some) } else { Ok(None) };
        (call.sizes(1)?, call.sizes(2)?, optional(3)?, optional(4)?)
    };
    let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let axes = call.axes(&axes, from.len())?;
    let steps = steps.unwrap_or_else(|| vec![1; axes.len()]);
    if starts.len() != axes.len() || ends.len() != axes.len() || steps.len() != axes.len() {
        return Err(call.error("starts, ends, axes and steps have different lengths"));
    }
    for (position, axis) in axes.into_iter().enumerate() {
        let step = steps[position];
        if step == 0 || step == i64::MIN {
            return Err(call.error(format!("a slice cannot have the step {step}")));
        }
        let (start, size) = bounds(&starts[position], &ends[position], step, &from[axis]);
        value = super::shape::cut(call, value, axis, &start, &size, step);
    }
    Ok(vec![value.into()])
}

/// Where a slice of an axis begins and how many positions it has, by the rules of Python. A bound that depends on other
/// symbols than the extent is taken to lie within it; a session checks that it does.
pub fn bounds(start: &Size, end: &Size, step: i64, extent: &Size) -> (Size, Size) {
    let least = if step > 0 { Size::ZERO } else { Size::from(-1) };
    let most = if step > 0 { extent.clone() } else { extent - &Size::ONE };
    let clamp = |bound: &Size, least: &Size| -> Size {
        let constant = bound.as_constant();
        // The far ends of the integers stand for the ends of the axis.
        if constant.is_some_and(|value| value >= i64::from(i32::MAX)) {
            return most.clone();
        }
        if constant.is_some_and(|value| value <= i64::from(i32::MIN)) {
            return least.clone();
        }
        let bound = if bound.upper_bound(1).is_some_and(|high| high < 0) { bound + extent } else { bound.clone() };
        if unrelated(&bound, extent) {
            return bound;
        }
        let bound = if bound.is_at_least(least, 1) { bound } else { bound.larger(least) };
        if most.is_at_least(&bound, 1) { bound } else { bound.smaller(&most) }
    };
    let start = clamp(start, &Size::ZERO);
    let end = clamp(end, &least);
    let length = if step > 0 { &end - &start } else { &start - &end };
    let size = length.ceil_div(&Size::from(step.abs()));
    // From the first position, or to the last, there is never less than nothing; nor are bounds of other symbols reversed.
    let whole = step > 0 && (start.is(0) || end == most) || step < 0 && (start == most || end == least);
    let free = size.as_constant().is_none() && (unrelated(&start, extent) || unrelated(&end, extent));
    let size =
        if whole || free || size.lower_bound(1).is_some_and(|low| low >= 0) { size } else { size.larger(&Size::ZERO) };
    (start, size)
}

/// Whether a bound depends on symbols, none of which the extent depends on.
fn unrelated(bound: &Size, extent: &Size) -> bool {
    bound.as_constant().is_none() && bound.symbols().is_disjoint(&extent.symbols())
}

/// `Pad`.
pub fn pad(call: &mut Call) -> Imported {
    let value = call.value(0)?;
    let from = call.shape_of(value);
    let element = call.element_of(value);
    let (pads, fill, axes) = if call.version < 11 {
        let name = if call.version < 2 { "paddings" } else { "pads" };
        let pads = call.attributes.ints(name)?;
        let pads = pads.ok_or_else(|| call.attributes.error(name, "these integers are missing"))?;
        let fill = Literal::from_f64(element, call.attributes.float_or("value", 0.)?.into());
        (pads.iter().map(|pad| Size::from(*pad)).collect(), fill, None)
    } else {
        let fill = match call.has(2) {
            true => call.given(2).literal().ok_or_else(|| call.operand_error(2, "this must be a constant number"))?,
            false => Literal::zero(element),
        };
        (call.sizes(1)?, fill, if call.has(3) { Some(call.integers(3)?) } else { None })
    };
    let axes = match axes {
        Some(axes) => call.axes(&axes, from.len())?,
        None => (0..from.len()).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(call.error(format!("{} paddings are given for {} axes", pads.len(), axes.len())));
    }
    let mut begin = vec![Size::ZERO; from.len()];
    let mut sizes = from.clone();
    for (position, axis) in axes.iter().enumerate() {
        begin[*axis] = pads[position].clone();
        sizes[*axis] = &from[*axis] + &pads[position] + &pads[axes.len() + position];
        if sizes[*axis].as_constant().is_some_and(|size| size < 0) {
            return Err(call.error(format!("axis {axis} would get the size {}", sizes[*axis])));
        }
    }
    let mode = call.attributes.string_or("mode", "constant")?;
    if sizes == from && begin.iter().all(|pad| pad.is(0)) {
        return Ok(vec![call.item(0)]);
    }
    let (mut draft, variables) = Draft::over(&sizes);
    let mut exprs = Vec::with_capacity(from.len());
    for axis in 0..from.len() {
        let place = IndexExpr::variable(variables[axis]).plus_size(&-&begin[axis]);
        let last = &from[axis] - &Size::ONE;
        let moved = sizes[axis] != from[axis] || !begin[axis].is(0);
        exprs.push(match mode {
            "constant" => place,
            _ if !moved => place,
            "edge" => IndexExpr::atom(Atom::Clamp(Box::new(place), Size::ZERO, last)),
            "wrap" => place.remainder(&from[axis], &draft.sizes()),
            "reflect" if from[axis].is(1) => IndexExpr::constant(0),
            "reflect" => {
                // Within a period of twice the last position, what lies beyond the last position is turned back.
                let period = place.remainder(&(&last * &Size::from(2)), &draft.sizes());
                let beyond = period.plus_size(&-&last);
                let back = IndexExpr::atom(Atom::Clamp(Box::new(beyond), Size::ZERO, last.clone()));
                let place = period.plus(&back.times(&Size::from(-2)));
                // It lies within the axis; the bounds say so to those who look at the ends of each part alone.
                IndexExpr::atom(Atom::Clamp(Box::new(place), Size::ZERO, last))
            }
            other => return Err(call.attributes.error("mode", format!("`{other}` is not a padding"))),
        });
    }
    let map = IndexMap::new(exprs);
    let fill = Literal { element, ..fill };
    draft.read_map(value, if mode == "constant" { map.with_fill(fill) } else { map });
    Ok(vec![call.emit(draft, Op::View, element, &variables).into()])
}

/// `CenterCropPad`: the middle of an axis that is too long, zeros on both sides of one that is too short.
pub fn center_crop_pad(call: &mut Call) -> Imported {
    let value = call.value(0)?;
    let from = call.shape_of(value);
    let wanted = call.sizes(1)?;
    let axes = match call.attributes.ints("axes")? {
        Some(axes) => call.axes(axes, from.len())?,
        None => (0..from.len()).collect(),
    };
    if wanted.len() != axes.len() {
        return Err(call.error(format!("{} sizes are given for {} axes", wanted.len(), axes.len())));
    }
    let mut sizes = from.clone();
    let mut starts = vec![Size::ZERO; from.len()];
    let mut outside = false;
    for (axis, size) in axes.into_iter().zip(wanted) {
        let surplus = &from[axis] - &size;
        // Half of what is too much or too little, rounded towards zero.
        starts[axis] = match surplus.as_constant() {
            Some(surplus) => Size::from(surplus / 2),
            None => surplus.floor_div(&Size::from(2)),
        };
        outside |= surplus.lower_bound(1).is_none_or(|surplus| surplus < 0);
        sizes[axis] = size;
    }
    let (mut draft, variables) = Draft::over(&sizes);
    let place = |(variable, start): (&u32, &Size)| IndexExpr::variable(*variable).plus_size(start);
    let map = IndexMap::new(variables.iter().zip(&starts).map(place).collect());
    let element = call.element_of(value);
    draft.read_map(value, if outside { map.with_fill(Literal::zero(element)) } else { map });
    Ok(vec![call.emit(draft, Op::View, element, &variables).into()])
}
