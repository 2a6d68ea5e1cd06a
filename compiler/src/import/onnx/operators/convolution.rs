//! Convolutions and transposed convolutions: contractions over a windowed read of the input, taps first, then channels.

use super::{
    scalar::{add, operand},
    window::{Window, check_kernel, positive},
};
use crate::import::onnx::{
    call::{Call, Imported},
    draft::Draft,
    error::ImportError,
};
use strang_ir::{Condition, IndexExpr, IndexMap, Literal, Op, Value};
use strang_runtime::{ElementType, Size};

/// `Conv`.
pub fn convolution(call: &mut Call) -> Imported {
    let (x, weights) = (call.value(0)?, call.value(1)?);
    let element = call.element_of(x);
    let sum = correlate(call, x, weights, element.accumulator(), element)?;
    let bias = call.optional(2)?;
    Ok(vec![with_bias(call, sum, bias)?.into()])
}

/// A sum over windows with the attributes of the node: `x` is [batch, channels, spatial...], `weights`
/// [outputs, channels / group, taps...].
///
/// # Errors
/// Shapes and attributes that do not go together.
pub fn correlate(
    call: &mut Call,
    x: Value,
    weights: Value,
    accumulator: ElementType,
    element: ElementType,
) -> Result<Value, ImportError> {
    let (input, kernel) = (call.shape_of(x), call.shape_of(weights));
    if input.len() < 3 || input.len() != kernel.len() {
        return Err(call.error(format!(
            "the input and the weights need as many axes, at least 3, but are {input:?} and {kernel:?}"
        )));
    }
    check_kernel(call, &kernel[2..])?;
    let window = Window::new(call, &input[2..], kernel[2..].to_vec(), false)?;
    let groups = Groups::new(call, &input[1], &kernel[0], &kernel[1])?;
    let single = groups.single(&kernel[1]);
    let (mut draft, batch) = Draft::over(&input[..1]);
    let channels_out = groups.output_variables(&mut draft, &kernel[0], single);
    let positions = draft.variables(&window.output);
    let taps = draft.variables(&window.kernel);
    let (channel, weight_channel) = if single {
        // One input channel a group: the output channel alone says which.
        let multiplier = kernel[0].floor_div(&groups.count);
        let channel = IndexExpr::variable(channels_out[0]).floor_div(&multiplier, &draft.sizes());
        (channel, IndexExpr::constant(0))
    } else {
        let within = IndexExpr::variable(draft.variable(&kernel[1]));
        let group = match channels_out[..] {
            [group, _] => IndexExpr::variable(group).times(&kernel[1]),
            _ => IndexExpr::default(),
        };
        (group.plus(&within), within)
    };
    let mut exprs = vec![IndexExpr::variable(batch[0]), channel];
    exprs.extend((0..positions.len()).map(|axis| window.place(axis, positions[axis], taps[axis])));
    let map = IndexMap::new(exprs);
    draft.read_map(x, if window.outside { map.with_fill(Literal::zero(call.element_of(x))) } else { map });
    let mut exprs = vec![groups.output_channel(&channels_out, &kernel[0]), weight_channel];
    exprs.extend(taps.iter().map(|tap| IndexExpr::variable(*tap)));
    draft.read(weights, exprs);
    let output: Vec<u32> = batch.into_iter().chain(channels_out).chain(positions).collect();
    let sum = call.emit(draft, Op::Dot { accumulator }, element, &output);
    let mut sizes = vec![input[0].clone(), kernel[0].clone()];
    sizes.extend(window.output);
    Ok(call.reshape(sum, &sizes))
}

/// The groups of a convolution.
struct Groups {
    count: Size,
}

impl Groups {
    fn new(call: &Call, inputs: &Size, outputs: &Size, inputs_of_group: &Size) -> Result<Self, ImportError> {
        let count = call.attributes.int_or("group", 1)?;
        if count < 1 {
            return Err(call.attributes.error("group", "this must be positive"));
        }
        let count = Size::from(count);
        let constants = (inputs.as_constant(), (inputs_of_group * &count).as_constant());
        if let (Some(inputs), Some(taken)) = constants
            && inputs != taken
        {
            return Err(call.error(format!(
                "the input has {inputs} channels, but the weights are for {taken} ({count} groups of {inputs_of_group})"
            )));
        }
        if !outputs.remainder(&count).is(0) && outputs.as_constant().is_some() {
            return Err(call.error(format!("{outputs} output channels do not divide into {count} groups")));
        }
        Ok(Groups { count })
    }

    /// Whether every group has one input channel (and there are several).
    fn single(&self, inputs_of_group: &Size) -> bool {
        !self.count.is(1) && inputs_of_group.is(1)
    }

    /// The variables of the output channels: one, or group and channel within it.
    fn output_variables(&self, draft: &mut Draft, outputs: &Size, single: bool) -> Vec<u32> {
        if self.count.is(1) || single {
            return vec![draft.variable(outputs)];
        }
        vec![draft.variable(&self.count), draft.variable(&outputs.floor_div(&self.count))]
    }

    fn output_channel(&self, variables: &[u32], outputs: &Size) -> IndexExpr {
        match *variables {
            [group, within] => {
                IndexExpr::variable(group).times(&outputs.floor_div(&self.count)).plus(&IndexExpr::variable(within))
            }
            _ => IndexExpr::variable(variables[0]),
        }
    }
}

/// Adds a bias an output channel, if there is one.
///
/// # Errors
/// Element types that differ.
pub fn with_bias(call: &mut Call, value: Value, bias: Option<Value>) -> Result<Value, ImportError> {
    let Some(bias) = bias else { return Ok(value) };
    let sizes = call.shape_of(value);
    let (mut draft, variables) = Draft::over(&sizes);
    draft.read_at(value, &variables);
    draft.read_at(bias, &variables[1..2]);
    let elements = [call.element_of(value), call.element_of(bias)];
    let sum = add(operand(0), operand(1));
    let element = sum.element(&elements).map_err(|reason| call.error(reason))?;
    if call.shape_of(bias).len() != 1 {
        return Err(call.operand_error(2, "a bias has one axis"));
    }
    Ok(call.emit(draft, Op::Map(sum), element, &variables))
}

/// `ConvTranspose`: every output gathers the inputs whose windows cover it.
pub fn transposed(call: &mut Call) -> Imported {
    let (x, weights) = (call.value(0)?, call.value(1)?);
    let (input, kernel) = (call.shape_of(x), call.shape_of(weights));
    if input.len() < 3 || input.len() != kernel.len() {
        return Err(call.error(format!(
            "the input and the weights need as many axes, at least 3, but are {input:?} and {kernel:?}"
        )));
    }
    check_kernel(call, &kernel[2..])?;
    let rank = input.len() - 2;
    let (strides, dilations) = (positive(call, "strides", rank)?, positive(call, "dilations", rank)?);
    let extra = call.attributes.ints_or("output_padding", rank, 0)?;
    let (begin, output) = transposed_extents(call, &input[2..], &kernel[2..], &strides, &dilations, &extra)?;
    let groups_count = Size::from(call.attributes.int_or("group", 1)?.max(1));
    let outputs = &kernel[1] * &groups_count;
    let within_group = kernel[0].floor_div(&groups_count);
    let groups = Groups::new(call, &input[1], &outputs, &within_group)?;
    let (mut draft, batch) = Draft::over(&input[..1]);
    let channels_out = groups.output_variables(&mut draft, &outputs, false);
    let positions = draft.variables(&output);
    let taps = draft.variables(&kernel[2..]);
    let within = IndexExpr::variable(draft.variable(&within_group));
    let channel = match channels_out[..] {
        [group, _] => IndexExpr::variable(group).times(&within_group).plus(&within),
        _ => within,
    };
    let mut map = IndexMap::new(vec![IndexExpr::variable(batch[0]), channel.clone()]);
    for axis in 0..rank {
        let stride = Size::from(strides[axis]);
        let reach = IndexExpr::variable(positions[axis])
            .plus(&IndexExpr::variable(taps[axis]).times(&Size::from(-dilations[axis])))
            .plus_size(&begin[axis]);
        map.exprs.push(reach.floor_div(&stride, &draft.sizes()));
        if !stride.is(1) {
            map.conditions.push(Condition::Divisible { expression: reach, divisor: stride });
        }
    }
    let element = call.element_of(x);
    draft.read_map(x, map.with_fill(Literal::zero(element)));
    let mut exprs = vec![channel, IndexExpr::variable(channels_out[channels_out.len() - 1])];
    exprs.extend(taps.iter().map(|tap| IndexExpr::variable(*tap)));
    draft.read(weights, exprs);
    let variables: Vec<u32> = batch.into_iter().chain(channels_out).chain(positions).collect();
    let sum = call.emit(draft, Op::Dot { accumulator: element.accumulator() }, element, &variables);
    let mut sizes = vec![input[0].clone(), outputs];
    sizes.extend(output);
    let sum = call.reshape(sum, &sizes);
    let bias = call.optional(2)?;
    Ok(vec![with_bias(call, sum, bias)?.into()])
}

/// The padding that is cut off before each axis, and the sizes of the output.
fn transposed_extents(
    call: &Call,
    spatial: &[Size],
    kernel: &[Size],
    strides: &[i64],
    dilations: &[i64],
    extra: &[i64],
) -> Result<(Vec<Size>, Vec<Size>), ImportError> {
    let rank = spatial.len();
    let kind = call.attributes.string_or("auto_pad", "NOTSET")?;
    let pads = call.attributes.ints_or("pads", 2 * rank, 0)?;
    let asked = call.attributes.ints("output_shape")?;
    if asked.is_some_and(|asked| asked.len() != rank) {
        return Err(call.attributes.error("output_shape", format!("{rank} sizes are needed")));
    }
    let (mut begin, mut output) = (Vec::new(), Vec::new());
    for axis in 0..rank {
        let stride = Size::from(strides[axis]);
        let extent = (&kernel[axis] - &Size::ONE) * Size::from(dilations[axis]) + Size::ONE;
        let full = (&spatial[axis] - &Size::ONE) * &stride + Size::from(extra[axis]) + extent;
        let wanted = match (asked, kind) {
            (Some(asked), _) => Some(Size::from(asked[axis])),
            (None, "SAME_UPPER" | "SAME_LOWER") => Some(&spatial[axis] * &stride),
            (None, "NOTSET" | "VALID") => None,
            (None, other) => return Err(call.attributes.error("auto_pad", format!("`{other}` is not a padding"))),
        };
        match wanted {
            Some(wanted) => {
                let total = (&full - &wanted).larger(&Size::ZERO);
                let half = total.floor_div(&Size::from(2));
                begin.push(if kind == "SAME_UPPER" { half } else { &total - &half });
                output.push(wanted);
            }
            None => {
                let pads = if kind == "VALID" { (0, 0) } else { (pads[axis], pads[rank + axis]) };
                begin.push(Size::from(pads.0));
                output.push(full - Size::from(pads.0) - Size::from(pads.1));
            }
        }
        if output[axis].as_constant().is_some_and(|size| size < 0) {
            return Err(call.error(format!("axis {axis} of the output would have the size {}", output[axis])));
        }
    }
    Ok((begin, output))
}
