//! `Resize` and `Upsample`: along every axis a sum over a few taps, whose positions and weights are tables made here.
//! Nearest neighbours are a view.

use super::scalar::{cast, number, operand};
use crate::import::onnx::{
    call::{Call, Imported},
    draft::Draft,
    error::ImportError,
    values::Item,
};
use std::{cmp::Ordering, sync::Arc};
use strang_ir::{IndexExpr, Op, ScalarExpr, Value, scalar::Binary};
use strang_runtime::{ElementType, Size, Tensor};

/// Tables of more entries than this are refused: no image is so large.
const TABLE_LIMIT: usize = 1 << 22;

/// How an axis is resized.
struct Resizing {
    axis: usize,
    from: i64,
    to: i64,
    scale: f64,
    /// The region of interest, where one is used.
    region: (f64, f64),
}

/// The attributes that all axes share.
struct Method {
    mode: Mode,
    coordinates: String,
    nearest: String,
    cubic: f64,
    exclude_outside: bool,
    antialias: bool,
    extrapolation: f32,
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Nearest,
    Linear,
    Cubic,
}

/// `Upsample`: scales are an attribute up to opset 8, then an operand.
pub fn upsample(call: &mut Call) -> Imported {
    let scales: Vec<f64> = if call.version < 7 {
        let scale = |name| -> Result<f64, ImportError> {
            let scale = call.attributes.float(name)?;
            Ok(scale.ok_or_else(|| call.attributes.error(name, "this number is missing"))?.into())
        };
        vec![1., 1., scale("height_scale")?, scale("width_scale")?]
    } else if call.version < 9 {
        let scales = call.attributes.floats("scales")?;
        let scales = scales.ok_or_else(|| call.attributes.error("scales", "these numbers are missing"))?;
        scales.iter().map(|scale| f64::from(*scale)).collect()
    } else {
        call.tensor(1)?.to_f64()
    };
    let mode = mode(call)?;
    resized_by(call, &scales, old_method(mode))
}

fn mode(call: &Call) -> Result<Mode, ImportError> {
    Ok(match call.attributes.string_or("mode", "nearest")? {
        "nearest" => Mode::Nearest,
        "linear" | "bilinear" => Mode::Linear,
        "cubic" => Mode::Cubic,
        other => return Err(call.attributes.error("mode", format!("`{other}` is not a mode"))),
    })
}

/// What `Upsample` and the first `Resize` mean.
fn old_method(mode: Mode) -> Method {
    Method {
        mode,
        coordinates: "asymmetric".into(),
        nearest: "floor".into(),
        cubic: -0.75,
        exclude_outside: false,
        antialias: false,
        extrapolation: 0.,
    }
}

/// The order in which axes, each with its scale, are resized: what shrinks first, so that the others have less to do; then from
/// the innermost, whose elements are read one by one, while those of the others are read in rows.
fn cheapest_first((a, a_scale): (usize, f64), (b, b_scale): (usize, f64)) -> Ordering {
    a_scale.min(1.).total_cmp(&b_scale.min(1.)).then(b.cmp(&a))
}

fn resized_by(call: &mut Call, scales: &[f64], method: Method) -> Imported {
    let value = call.value(0)?;
    let sizes = call.shape_of(value);
    if scales.len() != sizes.len() {
        return Err(call.error(format!("{} scales are given for {} axes", scales.len(), sizes.len())));
    }
    let mut value = value;
    let mut axes: Vec<usize> = (0..scales.len()).filter(|axis| scales[*axis] != 1.).collect();
    axes.sort_by(|a, b| cheapest_first((*a, scales[*a]), (*b, scales[*b])));
    for axis in axes {
        value = scaled(call, value, axis, scales[axis], &method)?;
    }
    Ok(vec![value.into()])
}

/// An axis resized by a scale; one whose size is a symbol can be repeated a whole number of times.
fn scaled(call: &mut Call, value: Value, axis: usize, scale: f64, method: &Method) -> Result<Value, ImportError> {
    let size = call.shape_of(value)[axis].clone();
    match size.as_constant() {
        Some(from) => {
            let to = (from as f64 * scale).floor();
            let resizing = Resizing { axis, from, to: to as i64, scale, region: (0., 1.) };
            resized(call, value, &resizing, method)
        }
        None => repeated(call, value, axis, scale, method),
    }
}

fn repeated(call: &mut Call, value: Value, axis: usize, scale: f64, method: &Method) -> Result<Value, ImportError> {
    let whole = scale.fract() == 0. && (1. ..1e6).contains(&scale);
    let plain = method.mode == Mode::Nearest
        && ((method.coordinates == "asymmetric" && method.nearest == "floor")
            || (method.coordinates == "half_pixel" && method.nearest.starts_with("round")));
    if !whole || !plain {
        return Err(call.unsupported(
            "an axis whose size is not fixed can only be resized to nearest neighbours by a whole factor; fix the size",
        ));
    }
    let factor = Size::from(scale as i64);
    let mut sizes = call.shape_of(value);
    sizes[axis] = &sizes[axis] * &factor;
    Ok(call.view(value, &sizes, |variables, size_of| {
        let mut exprs: Vec<IndexExpr> = variables.iter().map(|variable| IndexExpr::variable(*variable)).collect();
        exprs[axis] = exprs[axis].floor_div(&factor, size_of);
        exprs
    }))
}

/// `Resize`.
pub fn resize(call: &mut Call) -> Imported {
    let mode = mode(call)?;
    if call.version < 11 {
        let scales = call.tensor(1)?.to_f64();
        return resized_by(call, &scales, old_method(mode));
    }
    let attributes = &call.attributes;
    let method = Method {
        mode,
        coordinates: attributes.string_or("coordinate_transformation_mode", "half_pixel")?.to_owned(),
        nearest: attributes.string_or("nearest_mode", "round_prefer_floor")?.to_owned(),
        cubic: attributes.float_or("cubic_coeff_a", -0.75)?.into(),
        exclude_outside: attributes.flag("exclude_outside", false)?,
        antialias: attributes.flag("antialias", false)?,
        extrapolation: attributes.float_or("extrapolation_value", 0.)?,
    };
    if !["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"].contains(&method.nearest.as_str()) {
        return Err(call.attributes.error("nearest_mode", format!("`{}` is not a rounding", method.nearest)));
    }
    let mut value = call.value(0)?;
    let sizes = call.shape_of(value);
    let axes = match call.attributes.ints("axes")? {
        Some(axes) => call.axes(axes, sizes.len())?,
        None => (0..sizes.len()).collect(),
    };
    let count = axes.len();
    // A region counts for cropping alone.
    call.ignore_operand(1);
    let region = match method.coordinates == "tf_crop_and_resize" {
        true => call.tensor(1)?.to_f64(),
        false => [vec![0.; count], vec![1.; count]].concat(),
    };
    let numbers = |slot: usize| -> Result<Option<Vec<f64>>, ImportError> {
        if !call.has(slot) {
            return Ok(None);
        }
        Ok(Some(call.tensor(slot)?.to_f64()).filter(|numbers| !numbers.is_empty()))
    };
    let scales = numbers(2)?;
    let mut resizings = Vec::new();
    if let Some(scales) = scales {
        if call.has(3) && !call.shape(3)?.contains(&Size::ZERO) {
            return Err(call.error("scales and sizes cannot both be given"));
        }
        call.attributes.ignore(&["keep_aspect_ratio_policy"]);
        if scales.len() != count || region.len() != 2 * count {
            return Err(call.error(format!("{} scales are given for {count} axes", scales.len())));
        }
        for (position, axis) in axes.iter().enumerate().filter(|(position, _)| scales[*position] != 1.) {
            let region = (region[position], region[count + position]);
            let scale = scales[position];
            let Some(from) = sizes[*axis].as_constant() else {
                value = repeated(call, value, *axis, scale, &method)?;
                continue;
            };
            let to = (from as f64 * (region.1 - region.0) * scale).floor() as i64;
            resizings.push(Resizing { axis: *axis, from, to, scale, region });
        }
    } else {
        let mut wanted = call.sizes(3)?;
        if wanted.len() != count || region.len() != 2 * count {
            return Err(call.error(format!("{} sizes are given for {count} axes", wanted.len())));
        }
        let policy = call.attributes.string_or("keep_aspect_ratio_policy", "stretch")?.to_owned();
        let mut shared = None;
        if policy != "stretch" {
            let ratio = |position: usize| {
                Some(wanted[position].as_constant()? as f64 / sizes[axes[position]].as_constant()? as f64)
            };
            let ratios: Option<Vec<f64>> = (0..count).map(ratio).collect();
            let ratios = ratios.ok_or_else(|| call.unsupported("keeping the aspect ratio of open sizes is not"))?;
            let scale = match policy.as_str() {
                "not_larger" => ratios.into_iter().fold(f64::INFINITY, f64::min),
                "not_smaller" => ratios.into_iter().fold(0., f64::max),
                other => {
                    return Err(call.attributes.error("keep_aspect_ratio_policy", format!("`{other}` is no policy")));
                }
            };
            for (position, wanted) in wanted.iter_mut().enumerate() {
                let from = sizes[axes[position]].as_constant().unwrap_or(0) as f64;
                *wanted = Size::from((scale * from + 0.5).floor() as i64);
            }
            shared = Some(scale);
        }
        for (position, axis) in axes.iter().enumerate().filter(|(position, axis)| wanted[*position] != sizes[**axis]) {
            let region = (region[position], region[count + position]);
            let (from, to) = (sizes[*axis].as_constant(), wanted[position].as_constant());
            let (Some(from), Some(to)) = (from, to) else {
                let factor = wanted[position].divide_exactly(&sizes[*axis]).and_then(|factor| factor.as_constant());
                let factor = factor.ok_or_else(|| call.unsupported("resizing between open sizes is not; fix them"))?;
                value = repeated(call, value, *axis, factor as f64, &method)?;
                continue;
            };
            let scale = shared.unwrap_or(to as f64 / from as f64);
            resizings.push(Resizing { axis: *axis, from, to, scale, region });
        }
    }
    let element = call.element_of(value);
    // Weights are fractions: integers are resized as floats.
    let float = if element.is_float() || method.mode == Mode::Nearest { element } else { ElementType::F32 };
    if float != element {
        value = call.map(&[value], cast(float, element, operand(0)))?;
    }
    let mut in_order: Vec<&Resizing> = resizings.iter().collect();
    in_order.sort_by(|a, b| cheapest_first((a.axis, a.scale), (b.axis, b.scale)));
    for resizing in in_order {
        value = resized(call, value, resizing, &method)?;
    }
    if method.coordinates == "tf_crop_and_resize" {
        value = extrapolated(call, value, &resizings, &method)?;
    }
    if float != element {
        value = call.map(&[value], cast(element, float, operand(0)))?;
    }
    Ok(vec![value.into()])
}

impl Resizing {
    /// Where a position of the result lies in the input.
    fn place(&self, call: &Call, coordinates: &str, position: i64) -> Result<f64, ImportError> {
        let (x, from, to) = (position as f64, self.from as f64, self.to as f64);
        Ok(match coordinates {
            "half_pixel" => (x + 0.5) / self.scale - 0.5,
            "half_pixel_symmetric" => {
                let adjustment = to / (self.scale * from);
                from / 2. * (1. - adjustment) + (x + 0.5) / self.scale - 0.5
            }
            "pytorch_half_pixel" if self.to <= 1 => 0.,
            "pytorch_half_pixel" => (x + 0.5) / self.scale - 0.5,
            // The length that the scale asks for, before it is rounded down.
            "align_corners" if self.scale * from == 1. => 0.,
            "align_corners" => x * (from - 1.) / (self.scale * from - 1.),
            "asymmetric" => x / self.scale,
            "tf_half_pixel_for_nn" => (x + 0.5) / self.scale,
            "tf_crop_and_resize" if self.to <= 1 => 0.5 * (self.region.0 + self.region.1) * (from - 1.),
            "tf_crop_and_resize" => {
                let (start, end) = self.region;
                start * (from - 1.) + x * (end - start) * (from - 1.) / (to - 1.)
            }
            other => {
                let reason = format!("`{other}` is no transformation");
                return Err(call.attributes.error("coordinate_transformation_mode", reason));
            }
        })
    }

    /// The position nearest to a place.
    fn nearest(&self, method: &Method, place: f64) -> i64 {
        let position = match method.nearest.as_str() {
            "floor" => place.floor(),
            "ceil" => place.ceil(),
            "round_prefer_ceil" => (place + 0.5).floor(),
            // The default; `resize` refuses what is none of these.
            _ => (place - 0.5).ceil(),
        };
        (position as i64).clamp(0, self.from - 1)
    }

    /// Positions and weights of the taps for a place.
    fn taps(&self, method: &Method, place: f64) -> Vec<(i64, f64)> {
        let stretch = if method.antialias { self.scale.min(1.) } else { 1. };
        let reach = if method.mode == Mode::Linear { 1. } else { 2. };
        let base = place.floor();
        let first = (-reach / stretch).floor() as i64 + 1;
        let last = 2 - first;
        let fraction = place - base;
        let kernel = |x: f64| -> f64 {
            let (x, a) = (x.abs(), method.cubic);
            match method.mode {
                Mode::Linear => (1. - x).max(0.),
                _ if x <= 1. => ((a + 2.) * x - (a + 3.)) * x * x + 1.,
                _ if x < 2. => ((a * x - 5. * a) * x + 8. * a) * x - 4. * a,
                _ => 0.,
            }
        };
        let mut taps: Vec<(i64, f64)> =
            (first..last).map(|tap| (base as i64 + tap, kernel(stretch * (tap as f64 - fraction)))).collect();
        if method.exclude_outside {
            for (position, weight) in &mut taps {
                if !(0..self.from).contains(position) {
                    *weight = 0.;
                }
            }
        }
        let sum: f64 = taps.iter().map(|(_, weight)| weight).sum();
        let normalised = (method.exclude_outside || method.antialias) && sum != 0.;
        let divisor = if normalised { sum } else { 1. };
        taps.into_iter().map(|(position, weight)| (position.clamp(0, self.from - 1), weight / divisor)).collect()
    }
}

/// A value with one axis resized.
fn resized(call: &mut Call, value: Value, resizing: &Resizing, method: &Method) -> Result<Value, ImportError> {
    let (axis, to) = (resizing.axis, resizing.to);
    if to < 0 || resizing.from < 1 || to as usize > TABLE_LIMIT {
        return Err(call.error(format!("axis {axis} cannot be resized from {} to {to}", resizing.from)));
    }
    let mut places = Vec::with_capacity(to as usize);
    for position in 0..to {
        places.push(resizing.place(call, &method.coordinates, position)?);
    }
    let mut sizes = call.shape_of(value);
    sizes[axis] = Size::from(to);
    if method.mode == Mode::Nearest {
        let table: Arc<[i64]> = places.iter().map(|place| resizing.nearest(method, *place)).collect();
        return Ok(call.view(value, &sizes, |variables, _| {
            let mut exprs: Vec<IndexExpr> = variables.iter().map(|variable| IndexExpr::variable(*variable)).collect();
            exprs[axis] = IndexExpr::table(table, exprs[axis].clone());
            exprs
        }));
    }
    // Smoothing by a strong reduction takes many taps.
    let stretch = if method.antialias { resizing.scale.min(1.) } else { 1. };
    let count = 4. / stretch * to as f64;
    if to == 0 || count.is_nan() || count > TABLE_LIMIT as f64 {
        return Err(call.error(format!("axis {axis} cannot be resized from {} to {to}", resizing.from)));
    }
    let taps: Vec<(i64, f64)> = places.iter().flat_map(|place| resizing.taps(method, *place)).collect();
    let each = taps.len() / to as usize;
    let element = call.element_of(value);
    let mut weights = Tensor::zeros(element, &[to as usize, each]).map_err(|error| call.error(error.to_string()))?;
    for (position, (_, weight)) in taps.iter().enumerate() {
        weights.set_bits(position, strang_ir::Literal::from_f64(element, *weight).bits);
    }
    let name = format!("{}_weights_{axis}", call.importer.origin.base);
    let weights = call.importer.materialise(&Item::constant(name, weights))?;
    let (mut draft, variables) = Draft::over(&sizes);
    let tap = draft.variable(&Size::from(each as i64));
    let entry = IndexExpr::variable(variables[axis]).times(&Size::from(each as i64)).plus(&IndexExpr::variable(tap));
    let table: Arc<[i64]> = taps.iter().map(|(position, _)| *position).collect();
    let mut exprs: Vec<IndexExpr> = variables.iter().map(|variable| IndexExpr::variable(*variable)).collect();
    exprs[axis] = IndexExpr::table(table, entry);
    draft.read(value, exprs);
    draft.read_at(weights, &[variables[axis], tap]);
    Ok(call.emit(draft, Op::Dot { accumulator: element.accumulator() }, element, &variables))
}

/// What lies outside the input in a cropped region has one fixed value.
fn extrapolated(call: &mut Call, value: Value, resizings: &[Resizing], method: &Method) -> Result<Value, ImportError> {
    let sizes = call.shape_of(value);
    let (mut draft, variables) = Draft::over(&sizes);
    draft.read_at(value, &variables);
    let mut outside: Option<ScalarExpr> = None;
    for (position, resizing) in resizings.iter().enumerate() {
        let mut flags = Vec::new();
        for place in 0..resizing.to {
            let place = resizing.place(call, &method.coordinates, place)?;
            flags.push(!(0. ..=(resizing.from - 1) as f64).contains(&place));
        }
        let tensor = Tensor::from_bools(&[flags.len()], &flags).map_err(|error| call.error(error.to_string()))?;
        let name = format!("{}_outside_{}", call.importer.origin.base, resizing.axis);
        let flags = call.importer.materialise(&Item::constant(name, tensor))?;
        draft.read_at(flags, &[variables[resizing.axis]]);
        let flag = operand(position as u32 + 1);
        outside = Some(match outside {
            None => flag,
            Some(others) => ScalarExpr::binary(Binary::Or, others, flag),
        });
    }
    let Some(outside) = outside else { return Ok(value) };
    let element = call.element_of(value);
    let expression = ScalarExpr::select(outside, number(element, method.extrapolation.into()), operand(0));
    Ok(call.emit(draft, Op::Map(expression), element, &variables))
}
