//! What convolutions and poolings share: kernel shapes, strides, dilations and paddings.

use crate::import::onnx::{call::Call, error::ImportError};
use strang_ir::IndexExpr;
use strang_runtime::Size;

/// A window that slides over the spatial axes.
pub struct Window {
    /// The sizes of the kernel.
    pub kernel: Vec<Size>,
    /// Steps between windows.
    pub strides: Vec<i64>,
    /// Steps between taps.
    pub dilations: Vec<i64>,
    /// Padding before each axis.
    pub begin: Vec<Size>,
    /// Padding behind each axis.
    pub end: Vec<Size>,
    /// The number of windows.
    pub output: Vec<Size>,
    /// Whether some window may reach outside the input.
    pub outside: bool,
}

impl Window {
    /// The window that a node's attributes describe, over spatial axes of the given sizes.
    ///
    /// # Errors
    /// Attributes of wrong lengths or values, and windows larger than the padded input.
    pub fn new(call: &Call, spatial: &[Size], kernel: Vec<Size>, ceil: bool) -> Result<Self, ImportError> {
        let rank = spatial.len();
        let strides = positive(call, "strides", rank)?;
        let dilations = positive(call, "dilations", rank)?;
        let kind = call.attributes.string_or("auto_pad", "NOTSET")?;
        let pads = call.attributes.ints_or("pads", 2 * rank, 0)?;
        let extents: Vec<Size> = kernel
            .iter()
            .zip(&dilations)
            .map(|(size, dilation)| (size - &Size::ONE) * Size::from(*dilation) + Size::ONE)
            .collect();
        let (mut begin, mut end) = (Vec::with_capacity(rank), Vec::with_capacity(rank));
        for axis in 0..rank {
            let (before, behind) = match kind {
                "NOTSET" => (Size::from(pads[axis]), Size::from(pads[rank + axis])),
                "VALID" => (Size::ZERO, Size::ZERO),
                "SAME_UPPER" | "SAME_LOWER" => {
                    let stride = Size::from(strides[axis]);
                    let windows = spatial[axis].ceil_div(&stride);
                    let reach = (&windows - &Size::ONE) * &stride + &extents[axis];
                    let total = (&reach - &spatial[axis]).larger(&Size::ZERO);
                    let half = total.floor_div(&Size::from(2));
                    let rest = &total - &half;
                    if kind == "SAME_UPPER" { (half, rest) } else { (rest, half) }
                }
                other => return Err(call.attributes.error("auto_pad", format!("`{other}` is not a padding"))),
            };
            begin.push(before);
            end.push(behind);
        }
        let mut output = Vec::with_capacity(rank);
        let mut outside = begin.iter().chain(&end).any(|pad| !pad.is(0));
        for axis in 0..rank {
            let stride = Size::from(strides[axis]);
            let room = &spatial[axis] + &begin[axis] + &end[axis] - &extents[axis];
            if room.as_constant().is_some_and(|room| room < 0) {
                return Err(call.error(format!(
                    "the window of {} does not fit axis {axis} of {} with its padding",
                    extents[axis], spatial[axis]
                )));
            }
            let mut windows = room.floor_div(&stride) + Size::ONE;
            if ceil && !room.remainder(&stride).is(0) {
                outside = true;
                windows = room.ceil_div(&stride) + Size::ONE;
                // A window that begins behind the input and its left padding is left out.
                let last = (&windows - &Size::ONE) * &stride;
                let limit = &spatial[axis] + &begin[axis];
                match (last.as_constant(), limit.as_constant()) {
                    (Some(last), Some(limit)) if last >= limit => windows = windows - Size::ONE,
                    (Some(_), Some(_)) => {}
                    _ => windows = windows.smaller(&((limit - Size::ONE).floor_div(&stride) + Size::ONE)),
                }
            }
            output.push(windows);
        }
        Ok(Window { kernel, strides, dilations, begin, end, output, outside })
    }

    /// Where tap `tap` of window `position` lies on a spatial axis.
    pub fn place(&self, axis: usize, position: u32, tap: u32) -> IndexExpr {
        IndexExpr::variable(position)
            .times(&Size::from(self.strides[axis]))
            .plus(&IndexExpr::variable(tap).times(&Size::from(self.dilations[axis])))
            .plus_size(&-&self.begin[axis])
    }
}

/// Positive integers, one an axis, 1 where the attribute is absent.
///
/// # Errors
/// A wrong number of them, or one that is not positive.
pub fn positive(call: &Call, name: &str, rank: usize) -> Result<Vec<i64>, ImportError> {
    let values = call.attributes.ints_or(name, rank, 1)?;
    match values.iter().find(|value| **value < 1) {
        None => Ok(values),
        Some(value) => Err(call.attributes.error(name, format!("{value} is not positive"))),
    }
}

/// Checks that the attribute `kernel_shape`, where it is given, is the shape that the weights have.
///
/// # Errors
/// Another shape.
pub fn check_kernel(call: &Call, kernel: &[Size]) -> Result<(), ImportError> {
    let Some(given) = call.attributes.ints("kernel_shape")? else { return Ok(()) };
    let agrees = given.len() == kernel.len()
        && given.iter().zip(kernel).all(|(given, size)| size.as_constant().is_none_or(|size| size == *given));
    if agrees {
        Ok(())
    } else {
        Err(call.attributes.error("kernel_shape", format!("{given:?} is not that of the weights, {kernel:?}")))
    }
}
