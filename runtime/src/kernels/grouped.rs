//! Convolution in groups of two, four or eight channels, channels innermost: as many channels come out of a group as go in, and
//! whole groups lie in the lanes.

use super::depthwise::DepthwiseBlock;
use super::lanes::{self, Group, Lanes};
use super::level::per_level;
use super::window::{self, Operation};

/// A [`DepthwiseBlock`] with a weight for each channel of a group: the channels that come out have them by tap, then by the channel
/// of their group that goes in. Every output is one chain of fused multiply-adds in that order.
struct Grouped<'b, const MEMBERS: usize>(&'b DepthwiseBlock);

impl<V: Lanes, const MEMBERS: usize> Operation<V> for Grouped<'_, MEMBERS> {
    const PANELS: usize = 1;
    type Factor = [V; MEMBERS];
    type Ending = (V, V);

    #[inline(always)]
    fn start(&self) -> V {
        V::splat(0.0)
    }
    #[inline(always)]
    unsafe fn factor(&self, tap: usize, group: impl Group<V>) -> [V; MEMBERS] {
        let mut factors = [V::splat(0.0); MEMBERS];
        for (member, factor) in factors.iter_mut().enumerate() {
            let place = (tap * MEMBERS + member) as isize * self.0.weight_stride as isize;
            // SAFETY: every tap has weights of all members for each channel.
            *factor = unsafe { group.load(self.0.weights.offset(place)) };
        }
        factors
    }
    #[inline(always)]
    fn step(mut sum: V, x: V, factors: [V; MEMBERS]) -> V {
        for (member, factor) in factors.into_iter().enumerate() {
            sum = x.spread::<MEMBERS>(member).fma(factor, sum);
        }
        sum
    }
    #[inline(always)]
    unsafe fn ending(&self, group: impl Group<V>) -> (V, V) {
        // SAFETY: the caller vouches for the group.
        unsafe { self.0.ending(group) }
    }
    #[inline(always)]
    fn finish<const PIXELS: usize>(&self, sums: [V; PIXELS], ending: (V, V)) -> [V; PIXELS] {
        self.0.finish(sums, ending)
    }
    #[inline(always)]
    unsafe fn revise(&self, output: *mut f32, count: usize) {
        // SAFETY: the caller vouches for the outputs.
        unsafe { Operation::<V>::revise(self.0, output, count) }
    }
    #[inline(always)]
    fn revises(&self) -> bool {
        Operation::<V>::revises(self.0)
    }
}

/// # Safety
/// As for [`grouped_f32`].
#[inline(always)]
unsafe fn grouped<V: Lanes>(block: *const DepthwiseBlock, members: u64) {
    // SAFETY: the caller vouches for the block and its arrays.
    unsafe {
        let block = &*block;
        match members {
            2 => window::run::<V, _>(&block.window, &Grouped::<2>(block)),
            4 => window::run::<V, _>(&block.window, &Grouped::<4>(block)),
            _ => window::run::<V, _>(&block.window, &Grouped::<8>(block)),
        }
    }
}

per_level! {
    /// `(block, members)`: a convolution in groups of two, four or eight `members`; the channels are whole groups.
    ///
    /// # Safety
    /// The block and the arrays it points at can be read for the sizes and strides it gives, with weights for every member of every
    /// tap; the output can be written and overlaps none of them.
    pub(crate) mod grouped_f32 = grouped::<lanes>(block: *const DepthwiseBlock, members: u64);
}
