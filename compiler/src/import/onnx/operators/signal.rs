//! Signals: Fourier transforms as contractions with their matrices, and tables of windows and filters.

use super::scalar::cast;
use crate::import::onnx::{
    call::{Call, Imported},
    data::element_type,
    draft::Draft,
    error::ImportError,
    values::Item,
};
use std::f64::consts::TAU;
use strang_ir::{IndexExpr, Literal, Op, Value};
use strang_runtime::{ElementType, Size, Tensor};

/// Tables may have so many elements.
const TABLE_LIMIT: usize = 1 << 24;

/// A constant of floats that `value` yields by position.
fn table(
    call: &Call,
    element: ElementType,
    shape: &[usize],
    value: impl Fn(usize) -> f64,
) -> Result<Tensor, ImportError> {
    let count = shape.iter().try_fold(1usize, |count, size| count.checked_mul(*size));
    if count.is_none_or(|count| count > TABLE_LIMIT) {
        return Err(call.unsupported(format!("it needs a table {element}{shape:?}, which is too large")));
    }
    let mut tensor = Tensor::zeros(element, shape).map_err(|error| call.error(error.to_string()))?;
    for position in 0..tensor.count() {
        tensor.set_bits(position, Literal::from_f64(element, value(position)).bits);
    }
    Ok(tensor)
}

/// A number of elements that must be known.
fn length(call: &Call, slot: usize) -> Result<usize, ImportError> {
    match call.integers(slot)?.as_slice() {
        [length] => usize::try_from(*length).map_err(|_| call.operand_error(slot, format!("{length} is no length"))),
        _ => Err(call.operand_error(slot, "this must be one number")),
    }
}

fn float_type(call: &Call) -> Result<ElementType, ImportError> {
    let kind = call.attributes.int_or("output_datatype", 1)?;
    let kind = i32::try_from(kind).map_err(|_| call.attributes.error("output_datatype", "this is no data type"))?;
    element_type(kind).map_err(|reason| call.attributes.error("output_datatype", reason))
}

/// `HannWindow`, `HammingWindow` and `BlackmanWindow` (Harris, 1978): sums of cosines.
pub fn window(call: &mut Call) -> Imported {
    let count = length(call, 0)?;
    let periodic = call.attributes.flag("periodic", true)?;
    let element = float_type(call)?;
    let period = if periodic { count } else { count.saturating_sub(1).max(1) } as f64;
    let terms = match call.operator {
        "HannWindow" => [0.5, -0.5, 0.],
        "HammingWindow" => [25. / 46., -21. / 46., 0.],
        _ => [0.42, -0.5, 0.08],
    };
    let tensor = table(call, element, &[count], |position| {
        let angle = TAU * position as f64 / period;
        terms[0] + terms[1] * angle.cos() + terms[2] * (2. * angle).cos()
    })?;
    Ok(vec![Item::constant(&call.importer.origin.base, tensor)])
}

/// The matrix of a Fourier transform, `[bins, samples, parts, 2]`: what real and imaginary parts of every sample add to
/// those of every bin.
struct Fourier {
    /// The length of the transform.
    period: usize,
    /// The positions of the result.
    bins: usize,
    /// The positions of the input that are used.
    samples: usize,
    /// 1 for real input, 2 for complex input.
    parts: usize,
    /// 1 for a real result, 2 for a complex one.
    results: usize,
    inverse: bool,
    /// Whether the input holds only the first half of a spectrum whose other half mirrors it.
    mirrored: bool,
}

impl Fourier {
    fn matrix(&self, call: &mut Call, element: ElementType) -> Result<Value, ImportError> {
        let shape = [self.bins, self.samples, self.parts, self.results];
        let tensor = table(call, element, &shape, |position| {
            let (result, rest) = (position % self.results, position / self.results);
            let (part, rest) = (rest % self.parts, rest / self.parts);
            let (sample, bin) = (rest % self.samples, rest / self.samples);
            // The product is reduced first, so that large angles stay exact.
            let turns = (sample as u128 * bin as u128 % self.period as u128) as f64 / self.period as f64;
            let angle = if self.inverse { TAU * turns } else { -TAU * turns };
            let value = match (part, result) {
                (0, 0) | (1, 1) => angle.cos(),
                (0, _) => angle.sin(),
                _ => -angle.sin(),
            };
            let alone = sample == 0 || 2 * sample == self.period;
            let scale = if self.mirrored && !alone { 2. } else { 1. };
            value * if self.inverse { scale / self.period as f64 } else { scale }
        })?;
        let name = format!("{}_fourier", call.importer.origin.base);
        call.importer.materialise(&Item::constant(name, tensor))
    }
}

fn fixed(call: &Call, size: &Size, what: &str) -> Result<usize, ImportError> {
    let size = size.as_constant().and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0);
    size.ok_or_else(|| call.unsupported(format!("{what} must be fixed and positive")))
}

/// `DFT`: the discrete Fourier transform along an axis.
pub fn dft(call: &mut Call) -> Imported {
    let x = call.value(0)?;
    let sizes = call.shape_of(x);
    let rank = sizes.len();
    if rank < 2 {
        return Err(call.error(format!("the input needs at least 2 axes, but is {sizes:?}")));
    }
    let axis = match call.version >= 20 {
        false => call.attributes.int_or("axis", 1)?,
        true if call.has(2) => length_or_axis(call, 2)?,
        true => -2,
    };
    let axis = call.axis(axis, rank)?;
    if axis == rank - 1 {
        return Err(call.error("the last axis holds real and imaginary parts and cannot be transformed"));
    }
    let (inverse, onesided) = (call.attributes.flag("inverse", false)?, call.attributes.flag("onesided", false)?);
    let parts = fixed(call, &sizes[rank - 1], "the number of parts")?;
    let given = fixed(call, &sizes[axis], "the transformed axis")?;
    let mirrored = onesided && inverse;
    let period = match call.has(1) {
        true => length(call, 1)?.max(1),
        false if mirrored => (2 * (given - 1)).max(1),
        false => given,
    };
    if parts > 2 || onesided && (parts == 1) == inverse {
        return Err(call.error(format!("{parts} parts do not go with this transform")));
    }
    let half = period / 2 + 1;
    let fourier = Fourier {
        period,
        bins: if onesided && !inverse { half } else { period },
        samples: given.min(if mirrored { half } else { period }),
        parts,
        results: if mirrored { 1 } else { 2 },
        inverse,
        mirrored,
    };
    let element = call.element_of(x);
    let matrix = fourier.matrix(call, element)?;
    let mut output = sizes;
    output[axis] = Size::from(fourier.bins as i64);
    output[rank - 1] = Size::from(fourier.results as i64);
    let (mut draft, variables) = Draft::over(&output);
    let sample = draft.variable(&Size::from(fourier.samples as i64));
    let part = draft.variable(&Size::from(parts as i64));
    let mut read = variables.clone();
    (read[axis], read[rank - 1]) = (sample, part);
    draft.read_at(x, &read);
    draft.read_at(matrix, &[variables[axis], sample, part, variables[rank - 1]]);
    let op = Op::Dot { accumulator: element.accumulator() };
    Ok(vec![call.emit(draft, op, element, &variables).into()])
}

fn length_or_axis(call: &Call, slot: usize) -> Result<i64, ImportError> {
    match call.integers(slot)?.as_slice() {
        [axis] => Ok(*axis),
        _ => Err(call.operand_error(slot, "this must be one number")),
    }
}

/// `STFT`: Fourier transforms of frames of a signal, each under a window.
pub fn stft(call: &mut Call) -> Imported {
    let signal = call.value(0)?;
    let sizes = call.shape_of(signal);
    if sizes.len() != 3 {
        return Err(call.error(format!("the signal has the axes batch, samples and parts, but is {sizes:?}")));
    }
    let step = length(call, 1)?;
    let window = call.optional(2)?;
    let frame = match (call.has(3), window) {
        (true, _) => length(call, 3)?,
        (false, Some(window)) => fixed(call, &call.shape_of(window)[0].clone(), "the window")?,
        (false, None) => fixed(call, &sizes[1], "the signal")?,
    };
    let parts = fixed(call, &sizes[2], "the number of parts")?;
    let onesided = call.attributes.flag("onesided", true)?;
    if step == 0 || frame == 0 || parts > 2 || onesided && parts == 2 {
        return Err(call.error(format!("frames of {frame} by {step} with {parts} parts cannot be transformed so")));
    }
    let bins = if onesided { frame / 2 + 1 } else { frame };
    let (samples, results) = (frame, 2);
    let fourier = Fourier { period: frame, bins, samples, parts, results, inverse: false, mirrored: false };
    let element = call.element_of(signal);
    let matrix = fourier.matrix(call, element)?;
    let step = Size::from(step as i64);
    let frames = (&sizes[1] - &Size::from(frame as i64)).floor_div(&step) + Size::ONE;
    if frames.as_constant().is_some_and(|frames| frames < 0) {
        return Err(call.error(format!("a signal of {} has no frame of {frame}", sizes[1])));
    }
    let output = [sizes[0].clone(), frames, Size::from(bins as i64), Size::from(results as i64)];
    let (mut draft, variables) = Draft::over(&output);
    let sample = draft.variable(&Size::from(frame as i64));
    let part = draft.variable(&sizes[2]);
    let place = IndexExpr::variable(variables[1]).times(&step).plus(&IndexExpr::variable(sample));
    draft.read(signal, vec![IndexExpr::variable(variables[0]), place, IndexExpr::variable(part)]);
    if let Some(window) = window {
        if call.element_of(window) != element || call.shape_of(window) != [Size::from(frame as i64)] {
            return Err(call.operand_error(2, format!("the window must be {element}[{frame}]")));
        }
        draft.read_at(window, &[sample]);
    }
    draft.read_at(matrix, &[variables[2], sample, part, variables[3]]);
    let op = Op::Dot { accumulator: element.accumulator() };
    Ok(vec![call.emit(draft, op, element, &variables).into()])
}

/// `MelWeightMatrix`: triangular filters, evenly spaced on the mel scale (Stevens, Volkmann and Newman, 1937).
pub fn mel_weights(call: &mut Call) -> Imported {
    let (bands, period, rate) = (length(call, 0)?, length(call, 1)?, length(call, 2)?);
    let edge = |slot: usize| -> Result<f64, ImportError> {
        let literal = call.given(slot).literal();
        literal.map(Literal::to_f64).ok_or_else(|| call.operand_error(slot, "this must be a constant number"))
    };
    let (low, high) = (edge(3)?, edge(4)?);
    let element = float_type(call)?;
    let bins = period / 2 + 1;
    let mel = |hertz: f64| 2595. * (1. + hertz / 700.).log10();
    let step = (mel(high) - mel(low)) / (bands + 2) as f64;
    let bin = |point: usize| -> f64 {
        let hertz = 700. * (10f64.powf((mel(low) + step * point as f64) / 2595.) - 1.);
        ((period + 1) as f64 * hertz / rate as f64).floor()
    };
    let tensor = table(call, element, &[bins, bands], |position| {
        let (row, band) = ((position / bands) as f64, position % bands);
        let (left, centre, right) = (bin(band), bin(band + 1), bin(band + 2));
        if row == centre {
            1.
        } else if row > left && row < centre {
            (row - left) / (centre - left)
        } else if row > centre && row < right {
            (right - row) / (right - centre)
        } else {
            0.
        }
    })?;
    Ok(vec![Item::constant(&call.importer.origin.base, tensor)])
}

/// A value in another float type.
///
/// # Errors
/// Does not fail for numbers.
pub fn in_float(call: &mut Call, value: Value, to: ElementType) -> Result<Value, ImportError> {
    let from = call.element_of(value);
    if from == to { Ok(value) } else { call.map(&[value], cast(to, from, super::scalar::operand(0))) }
}
