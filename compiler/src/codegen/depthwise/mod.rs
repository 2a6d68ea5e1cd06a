//! Depthwise convolutions: segments of output rows on the kernel of the table.
//!
//! What the kernel does not do to its sums in registers, a job does while they are in the first-level cache.

mod bytes;

use super::{
    argument::ArgumentBlock,
    emit::{Emitter, PLAIN},
    epilogue::{self, Epilogue, Repertoire, TileVariables},
    nest,
    rows::{folded_values, outer_loops},
    segments::{Cut, Output, Walk, segments},
};
use crate::plan::{
    grouped::{fill_lanes, in_groups},
    kernel::Depthwise,
};
use cranelift_codegen::ir::{InstBuilder, Value};
use std::mem::offset_of;
use strang_ir::{ElementType, Size};
use strang_runtime::kernels::{Function, depthwise::DepthwiseBlock};

/// A depthwise convolution that is compiled.
pub(super) struct Convolution<'d> {
    depthwise: &'d Depthwise,
    /// What the kernel does to its sums.
    epilogue: Epilogue,
    /// What becomes of them once it has.
    output: Output<'d>,
    block: ArgumentBlock,
    /// The pointers of the taps.
    taps: Value,
    /// The channels of a group, which are the last taps.
    members: Option<i64>,
}

/// Emits a depthwise convolution; says the number of tiles and the kind of kernel.
pub fn emit(emitter: &mut Emitter<'_>, depthwise: &Depthwise) -> (Size, &'static str) {
    let is_read = members(emitter, depthwise).is_some() || reads_channels(emitter, depthwise);
    let Some(weight_stride) = depthwise.weight_stride(emitter.kernel).filter(|_| is_read) else {
        // Channels that are not contiguous: term by term.
        return (nest::emit(emitter, &depthwise.nest(&emitter.kernel.accesses)).0, "depthwise");
    };
    let tap_count: Size = depthwise.taps.iter().map(|tap| emitter.extent(*tap)).product();
    let walk = walk(depthwise);
    let cut = Cut::new(emitter, walk, &tap_count);
    let sizes = (&cut.columns, &cut.channels);
    if depthwise.sum(&emitter.kernel.accesses) == ElementType::I32 {
        let plan = bytes::Convolution::new(emitter, depthwise, &weight_stride, sizes);
        let segment = |emitter: &mut Emitter<'_>, columns, channels| plan.segment(emitter, columns, channels);
        return (segments(emitter, walk, &cut, &segment), "depthwise i8");
    }
    let plan = Convolution::new(emitter, depthwise, &weight_stride, sizes);
    let segment = |emitter: &mut Emitter<'_>, columns, channels| plan.segment(emitter, columns, channels);
    (segments(emitter, walk, &cut, &segment), "depthwise")
}

impl<'d> Convolution<'d> {
    /// Sets memory aside for segments of so many pixels and channels, and sets what is the same for all of them. The weights
    /// of two taps are `weight_stride` apart.
    pub(super) fn new(
        emitter: &mut Emitter<'_>,
        depthwise: &'d Depthwise,
        weight_stride: &Size,
        sizes: (&Size, &Size),
    ) -> Self {
        let members = members(emitter, depthwise);
        let pointed = pointed(depthwise, members);
        let tap_count: Size = pointed.iter().map(|tap| emitter.extent(*tap)).product();
        let tile = TileVariables { rows: depthwise.columns, columns: depthwise.channels };
        let Depthwise { finish, stores, .. } = depthwise;
        let sum = folded_values(finish);
        let epilogue =
            epilogue::recognise(emitter, finish, stores, tile, Repertoire::Columns).filter(|_| sum.len() == 1);
        let given = epilogue.as_ref().map_or(sum, |epilogue| vec![epilogue.result]);
        let epilogue = epilogue.unwrap_or_else(|| Epilogue::none(0));
        let output = Output::new(emitter, walk(depthwise), (finish, stores), given, sizes);
        let block = emitter.argument_block::<DepthwiseBlock>();
        let taps = emitter.reserve(&(&tap_count * &Size::from(8)));
        let plan = Convolution { depthwise, epilogue, output, block, taps, members };
        plan.set_constants(emitter, &tap_count, weight_stride);
        plan
    }

    /// Sets the fields that are the same for all calls.
    fn set_constants(&self, emitter: &mut Emitter<'_>, tap_count: &Size, weight_stride: &Size) {
        let (depthwise, taps) = (self.depthwise, self.taps);
        let input_stride = emitter.kernel.accesses[depthwise.a as usize].address.coefficient(depthwise.columns);
        let output_stride = self.output.stride(emitter);
        let [tap_count, weight_stride, input_stride, output_stride] =
            [tap_count, weight_stride, &input_stride, &output_stride].map(|size| emitter.size(size));
        let activation = emitter.int(self.epilogue.activation as i64);
        let [p0, p1] = self.epilogue.parameters.map(|parameter| emitter.builder.ins().f32const(parameter));
        let second = offset_of!(DepthwiseBlock, activation_parameters) + 8;
        emitter.set_all(
            self.block,
            [
                (offset_of!(DepthwiseBlock, window.taps), taps),
                (offset_of!(DepthwiseBlock, window.tap_count), tap_count),
                (offset_of!(DepthwiseBlock, window.input_stride), input_stride),
                (offset_of!(DepthwiseBlock, window.output_stride), output_stride),
                (offset_of!(DepthwiseBlock, weight_stride), weight_stride),
                (offset_of!(DepthwiseBlock, activation), activation),
                (offset_of!(DepthwiseBlock, activation_parameters), p0),
                (second, p1),
            ],
        );
    }

    /// Some pixels and channels of an output row; the variables of the batch are bound.
    pub(super) fn segment(&self, emitter: &mut Emitter<'_>, columns: (Value, Value), channels: (Value, Value)) {
        let depthwise = self.depthwise;
        let first = [(depthwise.columns, columns.0), (depthwise.channels, channels.0)];
        outer_loops(emitter, pointed(depthwise, self.members), self.taps, &mut |emitter, place| {
            let input = emitter.address_of(depthwise.a, &first);
            emitter.builder.ins().store(PLAIN, input, place, 0);
            emitter.builder.ins().iadd_imm_s(place, 8)
        });
        let Epilogue { column_scale, column_bias, .. } = self.epilogue;
        let [weights, scale, bias] = [Some(depthwise.weights), column_scale, column_bias].map(|access| match access {
            Some(access) => emitter.address_of(access, &first),
            None => emitter.int(0),
        });
        let output = self.output.address(emitter, (columns.0, columns.0), channels.0);
        let column_count = emitter.builder.ins().isub(columns.1, columns.0);
        let channel_count = emitter.builder.ins().isub(channels.1, channels.0);
        emitter.set_all(
            self.block,
            [
                (offset_of!(DepthwiseBlock, window.output), output),
                (offset_of!(DepthwiseBlock, window.columns), column_count),
                (offset_of!(DepthwiseBlock, window.channels), channel_count),
                (offset_of!(DepthwiseBlock, weights), weights),
                (offset_of!(DepthwiseBlock, scale), scale),
                (offset_of!(DepthwiseBlock, bias), bias),
            ],
        );
        let block = emitter.block_address(self.block);
        match self.members {
            Some(members) => {
                let members = emitter.int(members);
                emitter.call(Function::GroupedF32, &[block, members]);
            }
            None => {
                emitter.call(Function::DepthwiseF32, &[block]);
            }
        }
        self.output.rest(emitter, columns, channels);
    }
}

fn walk(depthwise: &Depthwise) -> Walk<'_> {
    let Depthwise { a, batch, columns, channels, .. } = depthwise;
    Walk { read: *a, batch, columns: *columns, channels: *channels }
}

/// The channels of a group, where the last taps are those: output channels of a group read all input channels of it.
fn members(emitter: &Emitter<'_>, depthwise: &Depthwise) -> Option<i64> {
    let member = *depthwise.taps.last()?;
    let members = emitter.extent(member).as_constant().filter(|members| fill_lanes(*members))?;
    let whole = emitter.extent(depthwise.channels).as_constant().is_some_and(|channels| channels % members == 0);
    let read = &emitter.kernel.accesses[depthwise.a as usize];
    let rest = read.address.plus(&in_groups(depthwise.channels, member, members).times(&Size::from(-1)));
    let is_rest = !rest.mentions(depthwise.channels) && !rest.mentions(member);
    let is_image = read.element == ElementType::F32 && read.checked.is_empty() && emitter.guard_is_known(depthwise.a);
    (whole && is_rest && is_image && emitter.has_stride(depthwise.a, depthwise.columns)).then_some(members)
}

/// The taps that the kernel is given pointers for: it has those of a group from one.
fn pointed(depthwise: &Depthwise, members: Option<i64>) -> &[u32] {
    match (members, depthwise.taps.split_last()) {
        (Some(_), Some((_, taps))) => taps,
        _ => &depthwise.taps,
    }
}

/// Whether the kernel can read the image as it lies: channels contiguous, pixels at one distance.
fn reads_channels(emitter: &Emitter<'_>, depthwise: &Depthwise) -> bool {
    let tile = TileVariables { rows: depthwise.columns, columns: depthwise.channels };
    epilogue::is_plain_of_any_type(emitter, depthwise.a, tile)
}
