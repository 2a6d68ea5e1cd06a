//! Grids over several variables, each cut into chunks: a tile is one chunk of every variable.

use super::{emit::Emitter, tile::decode};
use cranelift_codegen::ir::{InstBuilder, Value};
use strang_ir::Size;

/// A cut of several variables into chunks.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Chunks {
    axes: Vec<Axis>,
}

#[derive(Clone, Debug, PartialEq)]
struct Axis {
    variable: u32,
    chunk: Size,
    count: Size,
}

impl Chunks {
    /// Cuts variables, outermost first, into chunks of the given sizes.
    pub(super) fn new(emitter: &Emitter<'_>, cuts: impl IntoIterator<Item = (u32, Size)>) -> Self {
        let axis = |(variable, chunk): (u32, Size)| {
            let count = emitter.extent(variable).ceil_div(&chunk);
            Axis { variable, chunk, count }
        };
        Chunks { axes: cuts.into_iter().map(axis).collect() }
    }

    /// The number of tiles.
    pub(super) fn grid(&self) -> Size {
        self.axes.iter().map(|axis| axis.count.clone()).product()
    }

    /// The range of every variable in a tile, in order.
    pub(super) fn ranges(&self, emitter: &mut Emitter<'_>, tile: Value) -> Vec<(Value, Value)> {
        let counts: Vec<Size> = self.axes.iter().map(|axis| axis.count.clone()).collect();
        let positions = decode(emitter, &counts, tile);
        let range = |(axis, position): (&Axis, Value)| {
            let low = emitter.times(position, &axis.chunk);
            let length = emitter.size(&axis.chunk);
            let end = emitter.builder.ins().iadd(low, length);
            let extent = emitter.extent(axis.variable);
            let whole = extent.as_constant().zip(axis.chunk.as_constant()).is_some_and(|(e, c)| e % c == 0);
            let extent = emitter.size(&extent);
            (low, if whole { end } else { emitter.smaller(end, extent) })
        };
        self.axes.iter().zip(positions).map(range).collect()
    }
}

/// The size of chunks that cut an extent into equal parts of at most `most` (at least 1), rounded up to a multiple.
pub(super) fn even(extent: &Size, most: i64, multiple: i64) -> Size {
    let parts = extent.ceil_div(&Size::from(most)).larger(&Size::ONE);
    let part = extent.ceil_div(&parts).larger(&Size::ONE);
    part.ceil_div(&Size::from(multiple)) * Size::from(multiple)
}
