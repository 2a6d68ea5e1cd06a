//! Rows of A of a block, rounded once for all its columns.

use super::{DEPTHS, ITEMS, round};
use crate::kernels::gemm::{GemmBlock, GemmItem};
use crate::kernels::lanes::WIDTH;
use std::mem::MaybeUninit;

/// Rows that items may lie apart in to be parts of the same rows: those of taps beside each other in a convolution.
const FURTHEST: isize = 8;

/// Words between two rounded rows of so many pairs: whole lines, and an odd number of them, since rows a power of two apart would share
/// few sets of the cache.
#[inline(always)]
pub(super) const fn stride(pairs: usize) -> usize {
    (pairs.div_ceil(WIDTH) | 1) * WIDTH
}

/// Which items' rows are parts of the same rows of A: items whose rows begin a few rows after those of another.
pub(super) struct Sources {
    /// For each item, its source and by how many rows it begins later.
    of_items: [MaybeUninit<(u8, u8)>; ITEMS],
    /// The first rows of a source, and how many rows it has more than the block.
    sources: [MaybeUninit<(*const f32, usize)>; ITEMS],
    count: usize,
    /// Rows of all sources that come after those of the block.
    more: usize,
    stride: usize,
}

impl Sources {
    /// Those of a block, which has at most [`ITEMS`] items.
    ///
    /// # Safety
    /// The items can be read.
    #[inline(always)]
    pub(super) unsafe fn new(block: &GemmBlock) -> Self {
        let pairs = (block.depth as usize).div_ceil(DEPTHS);
        let mut all = Sources {
            of_items: [const { MaybeUninit::uninit() }; ITEMS],
            sources: [const { MaybeUninit::uninit() }; ITEMS],
            count: 0,
            more: 0,
            stride: stride(pairs),
        };
        let row = block.a_row_stride as isize * size_of::<f32>() as isize;
        // An image has few lines more than taps in a line: looking back at the last source is enough.
        let mut last: Option<(*const f32, usize)> = None;
        for index in 0..block.item_count as usize {
            // SAFETY: the caller vouches for the items.
            let a = unsafe { (*block.items.add(index)).a };
            let ahead = last.map(|(first, _)| (a as isize).wrapping_sub(first as isize));
            let later = match (ahead, row) {
                (Some(ahead), 1..) if ahead % row == 0 && (0..=FURTHEST).contains(&(ahead / row)) => {
                    Some((ahead / row) as usize)
                }
                _ => None,
            };
            match (&mut last, later) {
                // Rows between the two are read too, and lie within the rows of either.
                (Some((_, more)), Some(later)) if later <= *more + block.rows as usize => {
                    all.more += later.saturating_sub(*more);
                    *more = (*more).max(later);
                }
                _ => {
                    all.count += 1;
                    last = Some((a, 0));
                }
            }
            let Some(source) = last else { continue };
            all.sources[all.count - 1].write(source);
            all.of_items[index].write(((all.count - 1) as u8, later.unwrap_or(0) as u8));
        }
        all
    }

    /// How many rows of the block can be rounded at a time in so many words.
    #[inline(always)]
    pub(super) fn rows_in(&self, words: usize) -> usize {
        (words / self.stride).saturating_sub(self.more) / self.count
    }

    /// Words between two rows.
    #[inline(always)]
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// Rounds some rows of the block and says where they are, with the panels they are multiplied by.
    ///
    /// # Safety
    /// The rows lie in the block, whose arrays are valid, and are as many as [`rows_in`](Self::rows_in) says at most of the memory.
    #[inline(always)]
    pub(super) unsafe fn round(
        &self,
        block: &GemmBlock,
        [row, rows]: [usize; 2],
        round: round::RoundFunction,
        memory: *mut u32,
        items: &mut [MaybeUninit<GemmItem>; ITEMS],
    ) {
        let mut begins = [const { MaybeUninit::<*mut u32>::uninit() }; ITEMS];
        let mut to = memory;
        // SAFETY: the caller vouches for the rows and the memory; sources and items were written when they were counted.
        unsafe {
            for (begin, source) in begins.iter_mut().zip(&self.sources[..self.count]) {
                let (first, more) = source.assume_init();
                let source = round::Rows {
                    from: first.wrapping_offset(row as isize * block.a_row_stride as isize),
                    strides: [block.a_row_stride as isize, block.a_depth_stride as isize],
                    rows: rows + more,
                    depths: block.depth as usize,
                    rounded_stride: self.stride,
                };
                round(&source, to);
                begin.write(to);
                to = to.add((rows + more) * self.stride);
            }
            for (index, item) in items[..block.item_count as usize].iter_mut().enumerate() {
                let (source, later) = self.of_items[index].assume_init();
                let a = begins[source as usize].assume_init().add(later as usize * self.stride);
                item.write(GemmItem { a: a.cast_const().cast(), b: (*block.items.add(index)).b });
            }
        }
    }
}
