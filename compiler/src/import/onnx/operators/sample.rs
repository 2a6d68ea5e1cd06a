//! Reads at positions between elements: every axis has taps with weights that come from data. `GridSample`, `RoiAlign`
//! and `DeformConv` gather all taps and contract them with their weights.

use super::{
    reduce::{mean, reduced},
    scalar::{add, apply, attribute, cast, div, equal, less, max, min, mul, number, operand, size, sub},
    signal::in_float,
    window::{Window, check_kernel},
};
use crate::import::onnx::{
    call::{Call, Imported},
    draft::Draft,
    error::ImportError,
};
use strang_ir::{
    Atom, IndexExpr, Literal, Op, ScalarExpr, Value,
    op::Monoid,
    scalar::{Binary, Unary},
};
use strang_runtime::{ElementType, Size};

const INT: ElementType = ElementType::I64;

/// How values between elements come about.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Nearest,
    Linear,
    Cubic,
}

/// What lies outside the elements.
#[derive(Clone, Copy, PartialEq)]
enum Outside {
    Zeros,
    Border,
    /// Mirrored at the centres of the outermost elements, or at their outer edges.
    Reflection {
        centres: bool,
    },
}

/// The taps of one axis: positions and weights, shaped like the coordinates with an axis of taps behind them.
struct Taps {
    places: Value,
    weights: Value,
}

impl Mode {
    fn taps(self) -> i64 {
        match self {
            Mode::Nearest => 1,
            Mode::Linear => 2,
            Mode::Cubic => 4,
        }
    }

    /// The distance of the first tap from the coordinate rounded down.
    fn first(self) -> i64 {
        if self == Mode::Cubic { -1 } else { 0 }
    }

    /// The weight of the tap at a signed distance from the coordinate (Keys, 1981, with -3/4).
    fn weight(self, element: ElementType, distance: ScalarExpr) -> ScalarExpr {
        let number = |value| number(element, value);
        let x = apply(Unary::Absolute, distance);
        match self {
            Mode::Nearest => number(1.),
            Mode::Linear => max(sub(number(1.), x), number(0.)),
            Mode::Cubic => {
                let square = mul(x.clone(), x.clone());
                let near = add(mul(sub(mul(number(1.25), x.clone()), number(2.25)), square.clone()), number(1.));
                let cubic = add(mul(number(-0.75), x.clone()), number(3.75));
                let far = add(mul(sub(mul(cubic, x.clone()), number(6.)), x.clone()), number(3.));
                let beyond = ScalarExpr::select(less(x.clone(), number(2.)), far, number(0.));
                ScalarExpr::select(ScalarExpr::binary(Binary::LessOrEqual, x, number(1.)), near, beyond)
            }
        }
    }
}

/// A coordinate moved into the range that its outside rule leaves.
fn inside(outside: Outside, element: ElementType, x: ScalarExpr, extent: &Size) -> ScalarExpr {
    let last = sub(size(element, extent), number(element, 1.));
    match outside {
        Outside::Zeros => x,
        Outside::Border => max(min(x, last), number(element, 0.)),
        Outside::Reflection { centres } => {
            let margin = number(element, if centres { 0. } else { 0.5 });
            let width = if centres { last } else { size(element, extent) };
            let period = mul(number(element, 2.), width.clone());
            let shifted = apply(Unary::Absolute, add(x, margin.clone()));
            // An axis of one element has no period.
            let within = ScalarExpr::select(
                equal(period.clone(), number(element, 0.)),
                number(element, 0.),
                ScalarExpr::binary(Binary::Remainder, shifted, period.clone()),
            );
            let back = sub(period, within.clone());
            sub(ScalarExpr::select(less(width, within.clone()), back, within), margin)
        }
    }
}

/// The position of a tap moved into the axis, and whether it was there.
fn settled(outside: Outside, place: ScalarExpr, extent: &Size) -> (ScalarExpr, ScalarExpr) {
    let (zero, last) = (ScalarExpr::Literal(Literal::i64(0)), size(INT, &(extent - &Size::ONE)));
    let below = less(place.clone(), zero.clone());
    let above = less(last.clone(), place.clone());
    let found = apply(Unary::Not, ScalarExpr::binary(Binary::Or, below, above));
    let place = match outside {
        Outside::Reflection { centres } => {
            // Taps reach over the edge by a few elements at most, but small axes are crossed more than once.
            let width = if centres { last.clone() } else { size(INT, extent) };
            let shift = ScalarExpr::Literal(Literal::i64(i64::from(!centres)));
            let negative = less(place.clone(), zero.clone());
            let turned = sub(sub(zero.clone(), place.clone()), shift.clone());
            let positive = ScalarExpr::select(negative, turned, place);
            let period = max(mul(ScalarExpr::Literal(Literal::i64(2)), width.clone()), size(INT, &Size::ONE));
            let within = ScalarExpr::binary(Binary::Remainder, positive, period.clone());
            let back = sub(sub(period, within.clone()), shift);
            ScalarExpr::select(less(last.clone(), within.clone()), back, within)
        }
        _ => place,
    };
    (max(min(place, last), zero), found)
}

/// The taps of an axis of `extent` elements around coordinates.
fn taps(
    call: &mut Call,
    coordinates: Value,
    extent: &Size,
    mode: Mode,
    outside: Outside,
    weight_element: ElementType,
) -> Result<Taps, ImportError> {
    let element = call.element_of(coordinates);
    let mut x = operand(0);
    if mode == Mode::Nearest {
        x = apply(Unary::Round, x);
    }
    let x = inside(outside, element, x, extent);
    let moved = call.map(&[coordinates], x)?;
    let mut sizes = call.shape_of(moved);
    sizes.push(Size::from(mode.taps()));
    let rank = sizes.len();
    let base = apply(Unary::Floor, operand(0));
    let tap = add(ScalarExpr::Index(rank as u32 - 1), ScalarExpr::Literal(Literal::i64(mode.first())));
    // Far outside, the position stays within the integers.
    let limit = number(element, 1e9);
    let whole = max(min(base.clone(), limit.clone()), sub(number(element, 0.), limit));
    let place = add(cast(INT, element, whole), tap.clone());
    let (settled, found) = settled(outside, place, extent);
    let distance = sub(add(base, cast(element, INT, tap)), operand(0));
    let mut weight = cast(weight_element, element, mode.weight(element, distance));
    if outside == Outside::Zeros {
        weight = ScalarExpr::select(found, weight, number(weight_element, 0.));
    }
    let over_taps = |call: &mut Call, expression, element| {
        let (mut draft, variables) = Draft::over(&sizes);
        draft.read_at(moved, &variables[..rank - 1]);
        call.emit(draft, Op::Map(expression), element, &variables)
    };
    Ok(Taps { places: over_taps(call, settled, INT), weights: over_taps(call, weight, weight_element) })
}

/// `GridSample` (Jaderberg et al., 2015): the input at normalised positions.
pub fn grid_sample(call: &mut Call) -> Imported {
    let mode = match call.attributes.string_or("mode", "linear")? {
        "nearest" => Mode::Nearest,
        "linear" | "bilinear" => Mode::Linear,
        "cubic" | "bicubic" => Mode::Cubic,
        other => return Err(call.attributes.error("mode", format!("`{other}` is not a mode"))),
    };
    let corners = call.attributes.flag("align_corners", false)?;
    let outside = match call.attributes.string_or("padding_mode", "zeros")? {
        "zeros" => Outside::Zeros,
        "border" => Outside::Border,
        "reflection" => Outside::Reflection { centres: corners },
        other => return Err(call.attributes.error("padding_mode", format!("`{other}` is not a padding"))),
    };
    let (x, grid) = (call.value(0)?, call.value(1)?);
    let (input, places) = (call.shape_of(x), call.shape_of(grid));
    let spatial = input.len().saturating_sub(2);
    if spatial == 0 || places.len() != input.len() || !places[spatial + 1].is(spatial as i64) {
        return Err(call.error(format!("a grid {places:?} does not go with an input {input:?}")));
    }
    let element = call.element_of(x);
    let wide = if element == ElementType::F64 { element } else { ElementType::F32 };
    let outer = places[..=spatial].to_vec();
    let mut all = Vec::new();
    for axis in 0..spatial {
        let component = call.view(grid, &outer, |variables, _| {
            let mut exprs: Vec<IndexExpr> = variables.iter().map(|variable| IndexExpr::variable(*variable)).collect();
            // Positions name the last axis first.
            exprs.push(IndexExpr::constant((spatial - 1 - axis) as i64));
            exprs
        });
        let component = in_float(call, component, wide)?;
        let (extent, one, half) = (size(wide, &input[axis + 2]), number(wide, 1.), number(wide, 0.5));
        let unit = add(operand(0), one.clone());
        let coordinate = match corners {
            true => mul(mul(unit, half), sub(extent, one)),
            false => mul(sub(mul(unit, extent), one), half),
        };
        let coordinates = call.map(&[component], coordinate)?;
        all.push(taps(call, coordinates, &input[axis + 2], mode, outside, wide)?);
    }
    let values = in_float(call, x, wide)?;
    let mut sizes = vec![input[0].clone(), input[1].clone()];
    sizes.extend(outer[1..].iter().cloned());
    let (mut draft, variables) = Draft::over(&sizes);
    let at = |tap: u32| [&variables[..1], &variables[2..], &[tap]].concat();
    let counts: Vec<u32> = (0..spatial).map(|_| draft.variable(&Size::from(mode.taps()))).collect();
    let mut exprs: Vec<IndexExpr> = variables[..2].iter().map(|variable| IndexExpr::variable(*variable)).collect();
    exprs.extend((0..spatial).map(|axis| IndexExpr::atom(Atom::Read(axis as u32 + 1))));
    draft.read(values, exprs);
    for (taps, tap) in all.iter().zip(&counts) {
        draft.read_at(taps.places, &at(*tap));
    }
    let everything = [variables.as_slice(), &counts].concat();
    let gathered = call.emit(draft, Op::Gather, wide, &everything);
    let (mut draft, variables) = Draft::over(&sizes);
    let at = |tap: u32| [&variables[..1], &variables[2..], &[tap]].concat();
    let counts: Vec<u32> = (0..spatial).map(|_| draft.variable(&Size::from(mode.taps()))).collect();
    draft.read_at(gathered, &[variables.as_slice(), &counts].concat());
    for (taps, tap) in all.iter().zip(&counts) {
        draft.read_at(taps.weights, &at(*tap));
    }
    let sum = call.emit(draft, Op::Dot { accumulator: wide }, wide, &variables);
    Ok(vec![in_float(call, sum, element)?.into()])
}

/// `AffineGrid`: positions of an evenly spaced grid under affine maps.
pub fn affine_grid(call: &mut Call) -> Imported {
    let corners = call.attributes.flag("align_corners", false)?;
    let theta = call.value(0)?;
    let (matrix, wanted) = (call.shape_of(theta), call.sizes(1)?);
    let spatial = wanted.len().saturating_sub(2);
    let fits = matrix.len() == 3 && matrix[1].is(spatial as i64) && matrix[2].is(spatial as i64 + 1);
    if spatial == 0 || !fits {
        return Err(call.error(format!("matrices {matrix:?} do not go with an image {wanted:?}")));
    }
    let element = call.element_of(theta);
    let mut sizes = vec![matrix[0].clone()];
    sizes.extend(wanted[2..].iter().cloned());
    sizes.push(Size::from(spatial as i64));
    let (mut draft, variables) = Draft::over(&sizes);
    for column in 0..=spatial {
        let row = IndexExpr::variable(variables[spatial + 1]);
        draft.read(theta, vec![IndexExpr::variable(variables[0]), row, IndexExpr::constant(column as i64)]);
    }
    let (one, two) = (number(element, 1.), number(element, 2.));
    let mut sum = operand(spatial as u32);
    for column in 0..spatial {
        // The first component belongs to the last axis.
        let axis = spatial - column;
        let extent = &sizes[axis];
        let position = cast(element, INT, ScalarExpr::Index(variables[axis]));
        let count = size(element, extent);
        let place = match corners {
            true if extent.is(1) => number(element, 0.),
            true => sub(div(mul(two.clone(), position), sub(count, one.clone())), one.clone()),
            false => sub(div(add(mul(two.clone(), position), one.clone()), count), one.clone()),
        };
        sum = add(sum, mul(operand(column as u32), place));
    }
    Ok(vec![call.emit(draft, Op::Map(sum), element, &variables).into()])
}

/// `RoiAlign` (He et al., 2017): averages or maxima of evenly spaced samples in every part of a region.
pub fn roi_align(call: &mut Call) -> Imported {
    let default = if call.version < 16 { "output_half_pixel" } else { "half_pixel" };
    let half_pixel = match call.attributes.string_or("coordinate_transformation_mode", default)? {
        "half_pixel" => true,
        "output_half_pixel" => false,
        other => {
            let reason = format!("`{other}` is no transformation");
            return Err(call.attributes.error("coordinate_transformation_mode", reason));
        }
    };
    let largest = match call.attributes.string_or("mode", "avg")? {
        "avg" => false,
        "max" => true,
        other => return Err(call.attributes.error("mode", format!("`{other}` is neither avg nor max"))),
    };
    let parts = [call.attributes.int_or("output_height", 1)?, call.attributes.int_or("output_width", 1)?];
    let samples = call.attributes.int_or("sampling_ratio", 0)?;
    if samples < 1 {
        let reason = "a number of samples that depends on the regions is not supported; give a positive one";
        return Err(call.attributes.error("sampling_ratio", reason));
    }
    let scale = call.attributes.float_or("spatial_scale", 1.)?;
    let (x, regions, images) = (call.value(0)?, call.value(1)?, call.value(2)?);
    let (input, shape) = (call.shape_of(x), call.shape_of(regions));
    if input.len() != 4 || shape.len() != 2 || !shape[1].is(4) || parts.iter().any(|part| *part < 1) {
        return Err(call.error(format!("regions {shape:?} in parts {parts:?} do not go with an input {input:?}")));
    }
    let element = call.element_of(x);
    let mut all = Vec::new();
    let mut present = Vec::new();
    for (axis, count) in parts.iter().enumerate() {
        // Coordinates of samples: [regions, parts, samples].
        let sizes = [shape[0].clone(), Size::from(*count), Size::from(samples)];
        let (mut draft, variables) = Draft::over(&sizes);
        // A region is x, y of one corner, then of the other.
        for corner in [1 - axis as i64, 3 - axis as i64] {
            draft.read(regions, vec![IndexExpr::variable(variables[0]), IndexExpr::constant(corner)]);
        }
        let shift = number(element, if half_pixel { 0.5 } else { 0. });
        let edge = |corner| sub(mul(operand(corner), attribute(element, scale)), shift.clone());
        let extent = sub(edge(1), edge(0));
        let extent = if half_pixel { extent } else { max(extent, number(element, 1.)) };
        let part = div(extent, number(element, *count as f64));
        let index = |variable| cast(element, INT, ScalarExpr::Index(variable));
        let within = div(add(index(variables[2]), number(element, 0.5)), number(element, samples as f64));
        let coordinate = add(edge(0), mul(part, add(index(variables[1]), within)));
        let coordinates = call.emit(draft, Op::Map(coordinate), element, &variables);
        let size = size(element, &input[axis + 2]);
        let outside = ScalarExpr::binary(Binary::Or, less(operand(0), number(element, -1.)), less(size, operand(0)));
        let weight = ScalarExpr::select(outside, number(element, 0.), number(element, 1.));
        present.push(call.map(&[coordinates], weight)?);
        all.push(taps(call, coordinates, &input[axis + 2], Mode::Linear, Outside::Border, element)?);
    }
    let mut sizes = vec![shape[0].clone(), input[1].clone()];
    sizes.extend(parts.iter().chain(&[samples, samples]).map(|size| Size::from(*size)));
    let grid = |variables: &[u32], axis: usize| [variables[0], variables[2 + axis], variables[4 + axis]];
    let (mut draft, variables) = Draft::over(&sizes);
    let counts = [draft.variable(&Size::from(2)), draft.variable(&Size::from(2))];
    let image = IndexExpr::atom(Atom::Read(1));
    let read = |slot| IndexExpr::atom(Atom::Read(slot));
    draft.read(x, vec![image, IndexExpr::variable(variables[1]), read(2), read(3)]);
    draft.read_at(images, &variables[..1]);
    for axis in 0..2 {
        draft.read_at(all[axis].places, &[&grid(&variables, axis)[..], &counts[axis..=axis]].concat());
    }
    let gathered = call.emit(draft, Op::Gather, element, &[variables.as_slice(), &counts].concat());
    let (mut draft, variables) = Draft::over(&sizes);
    let counts = [draft.variable(&Size::from(2)), draft.variable(&Size::from(2))];
    draft.read_at(gathered, &[variables.as_slice(), &counts].concat());
    for axis in 0..2 {
        draft.read_at(all[axis].weights, &[&grid(&variables, axis)[..], &counts[axis..=axis]].concat());
        draft.read_at(present[axis], &grid(&variables, axis));
    }
    let sampled = call.emit(draft, Op::Dot { accumulator: element.accumulator() }, element, &variables);
    let result = match largest {
        true => reduced(call, sampled, &[4, 5], Monoid::Maximum, false),
        false => mean(call, sampled, &[4, 5], false)?,
    };
    Ok(vec![result.into()])
}

/// `DeformConv` (Dai et al., 2017; Zhu et al., 2019): a convolution whose taps are moved by offsets from data.
pub fn deformable(call: &mut Call) -> Imported {
    let (x, weights, offsets) = (call.value(0)?, call.value(1)?, call.value(2)?);
    let (input, kernel, moved) = (call.shape_of(x), call.shape_of(weights), call.shape_of(offsets));
    let spatial = input.len().saturating_sub(2);
    if spatial == 0 || kernel.len() != input.len() || moved.len() != input.len() {
        return Err(call.error(format!("an input {input:?}, weights {kernel:?} and offsets {moved:?} do not fit")));
    }
    check_kernel(call, &kernel[2..])?;
    let window = Window::new(call, &input[2..], kernel[2..].to_vec(), false)?;
    let count = |name| -> Result<Size, ImportError> {
        match call.attributes.int_or(name, 1)? {
            count if count > 0 => Ok(Size::from(count)),
            _ => Err(call.attributes.error(name, "this must be positive")),
        }
    };
    let (groups, shifts) = (count("group")?, count("offset_group")?);
    let element = call.element_of(x);
    let shifted = input[1].floor_div(&shifts);
    let agree = |a: &Size, b: &Size| a.as_constant().zip(b.as_constant()).is_none_or(|(a, b)| a == b);
    if !agree(&(&kernel[1] * &groups), &input[1]) || !agree(&(&shifted * &shifts), &input[1]) {
        return Err(call.error(format!("{} channels do not divide into {groups} or {shifts} groups", input[1])));
    }
    let taps_count: Size = kernel[2..].iter().cloned().product();
    // Coordinates of taps: [batch, groups of offsets, taps..., positions...].
    let mut sizes = vec![input[0].clone(), shifts.clone()];
    sizes.extend(kernel[2..].iter().chain(&window.output).cloned());
    let flat_tap = |variables: &[u32]| {
        (0..spatial).fold(IndexExpr::variable(variables[1]), |flat, axis| {
            flat.times(&kernel[axis + 2]).plus(&IndexExpr::variable(variables[axis + 2]))
        })
    };
    let positions = |variables: &[u32]| -> Vec<IndexExpr> {
        variables[2 + spatial..2 + 2 * spatial].iter().map(|variable| IndexExpr::variable(*variable)).collect()
    };
    let mut all = Vec::new();
    for axis in 0..spatial {
        let (mut draft, variables) = Draft::over(&sizes);
        let channel = flat_tap(&variables).times(&Size::from(spatial as i64)).plus_size(&Size::from(axis as i64));
        let exprs = [vec![IndexExpr::variable(variables[0]), channel], positions(&variables)].concat();
        draft.read(offsets, exprs);
        let number = |value: i64| ScalarExpr::Literal(Literal::i64(value));
        let tap = mul(ScalarExpr::Index(variables[2 + axis]), number(window.dilations[axis]));
        let start = mul(ScalarExpr::Index(variables[2 + spatial + axis]), number(window.strides[axis]));
        let place = sub(add(start, tap), size(INT, &window.begin[axis]));
        let coordinate = add(cast(element, INT, place), operand(0));
        let coordinates = call.emit(draft, Op::Map(coordinate), element, &variables);
        all.push(taps(call, coordinates, &input[axis + 2], Mode::Linear, Outside::Zeros, element)?);
    }
    // Samples: [batch, groups of offsets, taps..., positions..., channels within the group].
    let mut sampled_sizes = sizes.clone();
    sampled_sizes.push(shifted.clone());
    let place = 2 + 2 * spatial;
    let (mut draft, variables) = Draft::over(&sampled_sizes);
    let counts: Vec<u32> = (0..spatial).map(|_| draft.variable(&Size::from(2))).collect();
    let within = IndexExpr::variable(variables[place]);
    let channel = IndexExpr::variable(variables[1]).times(&shifted).plus(&within);
    let mut exprs = vec![IndexExpr::variable(variables[0]), channel];
    exprs.extend((0..spatial).map(|axis| IndexExpr::atom(Atom::Read(axis as u32 + 1))));
    draft.read(x, exprs);
    for (taps, tap) in all.iter().zip(&counts) {
        draft.read_at(taps.places, &[&variables[..place], &[*tap]].concat());
    }
    let gathered = call.emit(draft, Op::Gather, element, &[variables.as_slice(), &counts].concat());
    let (mut draft, variables) = Draft::over(&sampled_sizes);
    let counts: Vec<u32> = (0..spatial).map(|_| draft.variable(&Size::from(2))).collect();
    draft.read_at(gathered, &[variables.as_slice(), &counts].concat());
    for (taps, tap) in all.iter().zip(&counts) {
        draft.read_at(taps.weights, &[&variables[..place], &[*tap]].concat());
    }
    if let Some(mask) = call.optional(4)? {
        if call.shape_of(mask).len() != input.len() {
            return Err(call.operand_error(4, "the mask needs as many axes as the input"));
        }
        let exprs = [vec![IndexExpr::variable(variables[0]), flat_tap(&variables)], positions(&variables)].concat();
        draft.read(mask, exprs);
    }
    let sampled = call.emit(draft, Op::Dot { accumulator: element.accumulator() }, element, &variables);
    let outputs = kernel[0].floor_div(&groups);
    let mut result_sizes = vec![input[0].clone(), groups.clone(), outputs.clone()];
    result_sizes.extend(window.output.iter().cloned());
    let (mut draft, variables) = Draft::over(&result_sizes);
    let taps: Vec<u32> = draft.variables(&kernel[2..]);
    let within = draft.variable(&kernel[1]);
    let channel = IndexExpr::variable(variables[1]).times(&kernel[1]).plus(&IndexExpr::variable(within));
    let (group, rest) = (channel.floor_div(&shifted, &draft.sizes()), channel.remainder(&shifted, &draft.sizes()));
    let read = |variables: &[u32]| -> Vec<IndexExpr> { variables.iter().map(|v| IndexExpr::variable(*v)).collect() };
    let exprs = [vec![IndexExpr::variable(variables[0]), group], read(&taps), read(&variables[3..]), vec![rest]];
    draft.read(sampled, exprs.concat());
    let output = IndexExpr::variable(variables[1]).times(&outputs).plus(&IndexExpr::variable(variables[2]));
    draft.read(weights, [vec![output, IndexExpr::variable(within)], read(&taps)].concat());
    let sum = call.emit(draft, Op::Dot { accumulator: element.accumulator() }, element, &variables);
    let mut flat = vec![input[0].clone(), kernel[0].clone()];
    flat.extend(window.output.iter().cloned());
    let wanted = &taps_count * &shifts * Size::from(spatial as i64);
    if !agree(&moved[1], &wanted) {
        return Err(call.operand_error(2, format!("the offsets need {wanted} channels, but are {moved:?}")));
    }
    let sum = call.reshape(sum, &flat);
    let bias = call.optional(3)?;
    Ok(vec![super::convolution::with_bias(call, sum, bias)?.into()])
}
