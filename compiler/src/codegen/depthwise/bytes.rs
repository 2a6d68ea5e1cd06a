//! Depthwise convolutions of bytes, with the way of sums to floats and back to bytes in the kernel.

use crate::{
    codegen::{
        emit::{Emitter, PLAIN},
        epilogue::TileVariables,
        gemm::finishing::{Finishing, field},
        rows::outer_loops,
    },
    plan::kernel::Depthwise,
};
use cranelift_codegen::ir::{InstBuilder, Value};
use std::mem::{offset_of, size_of};
use strang_ir::Size;
use strang_runtime::kernels::{
    Function,
    bytes::{ByteBlock, ByteWindow},
};

/// A depthwise convolution of bytes that is compiled.
pub(super) struct Convolution<'d> {
    depthwise: &'d Depthwise,
    finishing: Finishing<'d>,
    /// The [`ByteWindow`].
    window: Value,
    /// The pointers of the taps.
    taps: Value,
    /// What generated code finishes, and the channels of a row of it.
    scratch: Option<(Value, Size)>,
}

impl<'d> Convolution<'d> {
    /// Sets memory aside for segments of so many pixels and channels, and sets what is the same for all of them. The weights
    /// of two taps are `weight_stride` apart.
    pub fn new(
        emitter: &mut Emitter<'_>,
        depthwise: &'d Depthwise,
        weight_stride: &Size,
        (columns, channels): (&Size, &Size),
    ) -> Self {
        let tap_count: Size = depthwise.taps.iter().map(|tap| emitter.extent(*tap)).product();
        let tile = TileVariables { rows: depthwise.columns, columns: depthwise.channels };
        let finishing = Finishing::new(emitter, &depthwise.finish, &depthwise.stores, tile);
        let window = emitter.reserve(&Size::from(size_of::<ByteWindow>() as i64));
        let taps = emitter.reserve(&(&tap_count * &Size::from(8)));
        let scratch =
            (!finishing.is_whole()).then(|| (emitter.reserve(&(columns * channels * Size::from(4))), channels.clone()));
        finishing.fixed_fields(emitter, window, channels);
        let input_stride = emitter.kernel.accesses[depthwise.a as usize].address.coefficient(depthwise.columns);
        for (offset, size) in [
            (offset_of!(ByteWindow, tap_count), &tap_count),
            (offset_of!(ByteWindow, input_stride), &input_stride),
            (offset_of!(ByteWindow, weight_stride), weight_stride),
        ] {
            let value = emitter.size(size);
            field(emitter, window, offset, value);
        }
        field(emitter, window, offset_of!(ByteWindow, taps), taps);
        Convolution { depthwise, finishing, window, taps, scratch }
    }

    /// Some pixels and channels of an output row; the variables of the batch are bound.
    pub fn segment(&self, emitter: &mut Emitter<'_>, columns: (Value, Value), channels: (Value, Value)) {
        let (depthwise, window) = (self.depthwise, self.window);
        let first = [(depthwise.columns, columns.0), (depthwise.channels, channels.0)];
        outer_loops(emitter, &depthwise.taps, self.taps, &mut |emitter, place| {
            let input = emitter.address_of(depthwise.a, &first);
            emitter.builder.ins().store(PLAIN, input, place, 0);
            emitter.builder.ins().iadd_imm_s(place, 8)
        });
        let weights = emitter.address_of(depthwise.weights, &first);
        let pixels = emitter.builder.ins().isub(columns.1, columns.0);
        let width = emitter.builder.ins().isub(channels.1, channels.0);
        for (offset, value) in [
            (offset_of!(ByteWindow, weights), weights),
            (offset_of!(ByteWindow, block) + offset_of!(ByteBlock, rows), pixels),
            (offset_of!(ByteWindow, block) + offset_of!(ByteBlock, columns), width),
        ] {
            field(emitter, window, offset, value);
        }
        let scratch = self.scratch.as_ref().map_or(window, |(memory, _)| *memory);
        self.finishing.at_column(emitter, window, channels.0);
        self.finishing.at_corner(emitter, window, (columns.0, channels.0), scratch);
        emitter.call(Function::DepthwiseBytes, &[window]);
        if let Some((memory, width)) = &self.scratch {
            self.finishing.rest(emitter, (*memory, width), columns, channels);
        }
    }
}

// The block comes first, so that what writes its fields need not know what it is in.
const _: () = assert!(offset_of!(ByteWindow, block) == 0);
