//! What each level computes products of bytes with.

use super::block::ByteBlock;
use super::filter::FilterFunction;
use super::finish::{self, FinishFunction};
use super::window::{self, ByteWindow, WindowFunction};
use super::{lanes, tile};

/// Computes the sums of a strip: of so many rows from one on, at most the tallest of the family, and so many columns from
/// one on, at most [`STRIP`](super::STRIP). Rows of sums are [`STRIP`](super::STRIP) apart, and whole panels are written.
///
/// # Safety
/// The rows and columns lie in the block, whose arrays are valid; the sums can be written; the CPU is of the level the
/// function was compiled for.
pub(super) type SumFunction = unsafe fn(block: &ByteBlock, rows: [usize; 2], columns: [usize; 2], sums: *mut i32);

/// The functions of a level.
#[derive(Clone, Copy)]
pub(crate) struct Family {
    /// Rows of the tallest tile.
    pub(super) tallest: usize,
    pub(super) sum: SumFunction,
    pub(super) finish: FinishFunction,
    pub(super) window: WindowFunction,
    /// Where minimal filtering pays, and of how many depths the inputs are transformed at a time.
    pub(super) filter: Option<(FilterFunction, usize)>,
}

/// The functions that this machine runs of a level.
pub(crate) trait Tiles {
    fn family() -> Family;

    /// Whether this machine has registers for whole matrices beside the vectors of the level.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn has_tile_registers() -> bool {
        false
    }
}

/// The functions of a level: its tiles, the sums of a strip, and their finish.
macro_rules! level {
    (
        $family:ident: $kind:ident, $sums:ty, $products:ty, [$($features:literal)?],
        $tallest:literal: $($rows:literal => $($panels:literal)*),* $(,)?
    ) => {
        mod $family {
            use super::*;

            pub(super) const FAMILY: Family = Family { tallest: $tallest, sum, finish, window, filter: FILTER };

            const TILES: [&[$kind::TileFunction]; $tallest] = [$(&[$(tile::<$rows, $panels>),*]),*];

            level!(@$kind $sums, $products, [$($features)?]);

            $(#[target_feature(enable = $features)])?
            unsafe fn finish(block: &ByteBlock, rows: [usize; 2], columns: [usize; 2], sums: (*const i32, usize)) {
                // SAFETY: the caller keeps the contract of `FinishFunction`.
                unsafe { finish::finish::<$sums>(block, rows, columns, sums) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn window(window: &ByteWindow, pixels: [usize; 2], channels: [usize; 2], sums: *mut i32) {
                // SAFETY: the caller keeps the contract of `WindowFunction`.
                unsafe { window::sum::<$sums>(window, pixels, channels, sums) }
            }
        }
    };
    (@tile $sums:ty, $products:ty, [$($features:literal)?]) => {
        // Bytes that are multiplied as they are take less time than 16-bit numbers of fewer products.
        const FILTER: Option<(FilterFunction, usize)> = None;

        $(#[target_feature(enable = $features)])?
        unsafe fn sum(block: &ByteBlock, rows: [usize; 2], columns: [usize; 2], sums: *mut i32) {
            // SAFETY: the caller keeps the contract of `SumFunction`.
            unsafe { tile::sum(&TILES, block, rows, columns, sums) }
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn tile<const ROWS: usize, const PANELS: usize>(
            block: &ByteBlock,
            row: usize,
            column: usize,
            sums: *mut i32,
        ) {
            // SAFETY: the caller keeps the contract of `TileFunction`.
            unsafe { tile::tile::<$products, ROWS, PANELS>(block, row, column, sums) }
        }
    };
    (@widened $sums:ty, $products:ty, [$($features:literal)?]) => {
        const FILTER: Option<(FilterFunction, usize)> = Some((filter, filtered::step::<$products>()));
        const _: () = assert!(TILES.len() <= widened::TALLEST, "widened rows have no room for a taller tile");

        $(#[target_feature(enable = $features)])?
        unsafe fn sum(block: &ByteBlock, rows: [usize; 2], columns: [usize; 2], sums: *mut i32) {
            // SAFETY: the caller keeps the contract of `SumFunction`.
            unsafe { widened::sum::<$products>(&TILES, block, rows, columns, sums) }
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn tile<const ROWS: usize, const WIDE: usize>(chunk: &widened::Chunk<'_>, column: usize, sums: *mut i32) {
            // SAFETY: the caller keeps the contract of `TileFunction`.
            unsafe { widened::tile::<$products, ROWS, WIDE>(chunk, column, sums) }
        }

        const FILTER_TILES: [filtered::TileFunction; widened::TALLEST] =
            [filter_tile::<1>, filter_tile::<2>, filter_tile::<3>, filter_tile::<4>, filter_tile::<5>, filter_tile::<6>];

        $(#[target_feature(enable = $features)])?
        unsafe fn filter(image: &ByteFilter) {
            // SAFETY: the caller keeps the contract of `FilterFunction`.
            unsafe { filtered::filter::<$products, $sums>(&FILTER_TILES, finish, image) }
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn filter_tile<const ROWS: usize>(
            inputs: *const i16,
            row_stride: usize,
            kernel: *const i16,
            groups: usize,
            sums: (*mut i32, bool),
        ) {
            // SAFETY: the caller keeps the contract of `TileFunction`.
            unsafe { filtered::tile::<$products, ROWS>(inputs, row_stride, kernel, groups, sums) }
        }
    };
}

pub(crate) struct Portable;
impl Tiles for Portable {
    #[inline(always)]
    fn family() -> Family {
        portable::FAMILY
    }
}

level! { portable: tile, lanes::Portable, lanes::Portable, [], 4: 1 => 1, 2 => 1, 3 => 1, 4 => 1 }

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::*;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::filter::ByteFilter;
    use super::super::{filtered, widened};
    use super::*;
    use crate::kernels::amx;

    pub(crate) struct Avx2;
    impl Tiles for Avx2 {
        #[inline(always)]
        fn family() -> Family {
            avx2::FAMILY
        }
    }

    pub(crate) struct Avx512;
    impl Tiles for Avx512 {
        #[inline(always)]
        fn family() -> Family {
            if is_x86_feature_detected!("avx512vnni") { vnni::FAMILY } else { avx512::FAMILY }
        }

        #[inline(always)]
        fn has_tile_registers() -> bool {
            amx::is_available()
        }
    }

    /// What CPUs with VNNI but without tile registers run; others, what they run anyway.
    #[cfg(test)]
    pub(crate) struct Vectors;
    #[cfg(test)]
    impl Tiles for Vectors {
        fn family() -> Family {
            Avx512::family()
        }
    }

    /// What CPUs with AVX-512 but without VNNI run.
    #[cfg(test)]
    pub(crate) struct Widening;
    #[cfg(test)]
    impl Tiles for Widening {
        fn family() -> Family {
            avx512::FAMILY
        }
    }

    level! { avx2: widened, lanes::Avx2, lanes::PairsOfAvx2, ["avx2,fma,f16c"],
        6: 1 => 1 2, 2 => 1 2, 3 => 1, 4 => 1, 5 => 1, 6 => 1,
    }
    level! { avx512: widened, lanes::Avx512, lanes::PairsOfAvx512, ["avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"],
        6: 1 => 1 2, 2 => 1 2, 3 => 1 2, 4 => 1 2, 5 => 1 2, 6 => 1 2,
    }
    level! { vnni: tile, lanes::Vnni, lanes::Vnni, ["avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"],
        13: 1 => 1 2 4 8, 2 => 1 2 4 8, 3 => 1 2 4 8, 4 => 1 2 4, 5 => 1 2 4, 6 => 1 2 4, 7 => 1 2,
        8 => 1 2, 9 => 1 2, 10 => 1 2, 11 => 1 2, 12 => 1 2, 13 => 1 2,
    }
}
