//! The register tile: `ROWS` rows by `PANELS` panels of sums, kept in registers over all items and depths.

use super::block::ByteBlock;
use super::finish::{self, FinishFunction};
use super::lanes::{self, Sums};
use super::{DEPTHS, STRIP};
use crate::kernels::lanes::WIDTH;

/// Computes the sums of the tile whose first row and column are given; rows of sums are [`STRIP`] apart.
///
/// # Safety
/// The tile's rows and the first column of its last panel lie in the block, whose arrays are valid; whole panels of sums
/// can be written; the CPU is of the level the function was compiled for.
pub(crate) type TileFunction = unsafe fn(block: &ByteBlock, row: usize, column: usize, sums: *mut i32);

/// The functions of a level.
#[derive(Clone, Copy)]
pub(crate) struct Family {
    /// Entry `[r][i]` has `r + 1` rows and `2^i` panels.
    pub(super) tiles: &'static [&'static [TileFunction]],
    pub(super) finish: FinishFunction,
}

/// The functions that this machine runs of a level.
pub(crate) trait Tiles {
    fn family() -> Family;
}

/// The functions of a level: its tiles and their finish.
macro_rules! level {
    ($tile:ident, $finish:ident, $sums:ty $(, $features:literal)?) => {
        $(#[target_feature(enable = $features)])?
        unsafe fn $finish(block: &ByteBlock, rows: [usize; 2], columns: [usize; 2], sums: *const i32) {
            // SAFETY: the caller keeps the contract of `FinishFunction`.
            unsafe { finish::finish::<$sums>(block, rows, columns, sums) }
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn $tile<const ROWS: usize, const PANELS: usize>(
            block: &ByteBlock,
            row: usize,
            column: usize,
            sums: *mut i32,
        ) {
            // SAFETY: the caller keeps the contract of `TileFunction`.
            unsafe { tile::<$sums, ROWS, PANELS>(block, row, column, sums) }
        }
    };
}

macro_rules! tiles {
    ($function:ident: $($rows:literal => $($panels:literal)*),* $(,)?) => {
        &[$(&[$($function::<$rows, $panels>),*]),*]
    };
}

pub(crate) mod families {
    //! The sets of tiles of the three levels.
    use super::*;

    pub(crate) struct Portable;
    impl Tiles for Portable {
        #[inline(always)]
        fn family() -> Family {
            const TILES: &[&[TileFunction]] = tiles! { portable: 1 => 1, 2 => 1, 3 => 1, 4 => 1 };
            Family { tiles: TILES, finish: portable_finish }
        }
    }

    #[cfg(target_arch = "x86_64")]
    pub(crate) struct Avx2;
    #[cfg(target_arch = "x86_64")]
    impl Tiles for Avx2 {
        #[inline(always)]
        fn family() -> Family {
            const TILES: &[&[TileFunction]] = tiles! { avx2: 1 => 1 2, 2 => 1, 3 => 1, 4 => 1 };
            Family { tiles: TILES, finish: avx2_finish }
        }
    }

    /// Without VNNI.
    #[cfg(target_arch = "x86_64")]
    const WIDENING: Family = Family {
        tiles: tiles! { avx512: 1 => 1 2, 2 => 1 2, 3 => 1 2, 4 => 1 2, 5 => 1 2, 6 => 1 2 },
        finish: avx512_finish,
    };

    #[cfg(target_arch = "x86_64")]
    pub(crate) struct Avx512;
    #[cfg(target_arch = "x86_64")]
    impl Tiles for Avx512 {
        #[inline(always)]
        fn family() -> Family {
            const TILES: &[&[TileFunction]] = tiles! { vnni:
                1 => 1 2 4 8, 2 => 1 2 4 8, 3 => 1 2 4 8, 4 => 1 2 4, 5 => 1 2 4, 6 => 1 2 4, 7 => 1 2,
                8 => 1 2, 9 => 1 2, 10 => 1 2, 11 => 1 2, 12 => 1 2, 13 => 1 2,
            };
            if is_x86_feature_detected!("avx512vnni") { Family { tiles: TILES, finish: vnni_finish } } else { WIDENING }
        }
    }

    /// What CPUs with AVX-512 but without VNNI run.
    #[cfg(all(test, target_arch = "x86_64"))]
    pub(crate) struct Widening;
    #[cfg(all(test, target_arch = "x86_64"))]
    impl Tiles for Widening {
        fn family() -> Family {
            WIDENING
        }
    }

    level!(portable, portable_finish, lanes::Portable);
    #[cfg(target_arch = "x86_64")]
    level!(avx2, avx2_finish, lanes::Avx2, "avx2,fma,f16c");
    #[cfg(target_arch = "x86_64")]
    level!(avx512, avx512_finish, lanes::Avx512, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c");
    #[cfg(target_arch = "x86_64")]
    level!(vnni, vnni_finish, lanes::Vnni, "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c");
}

/// # Safety
/// As for [`TileFunction`].
#[inline(always)]
unsafe fn tile<S: Sums, const ROWS: usize, const PANELS: usize>(
    block: &ByteBlock,
    row: usize,
    column: usize,
    to: *mut i32,
) {
    let mut sums = [[S::splat(0); PANELS]; ROWS];
    let (a_row, b_panel) = (block.a_row_stride as isize, block.b_panel_stride as isize);
    let (groups, rest) = (block.depth as usize / DEPTHS, block.depth as usize % DEPTHS);
    for item in 0..block.item_count as usize {
        // SAFETY: items, A and B are valid for the sizes and strides of the block; pointers beyond the last depth are
        // computed with wrapping arithmetic and not read.
        unsafe {
            let item = *block.items.add(item);
            let mut a = item.a.wrapping_offset(row as isize * a_row);
            let mut b = item.b.wrapping_offset((column / WIDTH) as isize * b_panel);
            for _ in 0..groups {
                let factor = |r: usize| a.wrapping_offset(r as isize * a_row).cast::<u32>().read_unaligned();
                add(&mut sums, b, b_panel, factor);
                a = a.wrapping_add(DEPTHS);
                b = b.wrapping_add(DEPTHS * WIDTH);
            }
            if rest > 0 {
                // What comes after the last depth is not A's.
                let factor = |r: usize| {
                    let mut bytes = [0; DEPTHS];
                    std::ptr::copy_nonoverlapping(a.wrapping_offset(r as isize * a_row), bytes.as_mut_ptr(), rest);
                    u32::from_ne_bytes(bytes)
                };
                add(&mut sums, b, b_panel, factor);
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (p, sum) in sums.iter().enumerate() {
            // SAFETY: whole panels can be written.
            unsafe { sum.store(to.add(r * STRIP + p * WIDTH), WIDTH) };
        }
    }
}

/// Adds the products of four depths.
///
/// # Safety
/// The panels can be read.
#[inline(always)]
unsafe fn add<S: Sums, const ROWS: usize, const PANELS: usize>(
    sums: &mut [[S; PANELS]; ROWS],
    b: *const i8,
    b_panel: isize,
    factor: impl Fn(usize) -> u32,
) {
    // SAFETY: the caller vouches for the panels.
    let panel = |p: usize| unsafe { S::panel(b.wrapping_offset(p as isize * b_panel)) };
    // What there is less of stays in registers while the other passes by.
    if ROWS <= 3 {
        let factors: [S::Factor; ROWS] = std::array::from_fn(|r| S::factor(factor(r)));
        for p in 0..PANELS {
            let panel = panel(p);
            for (sums, factor) in sums.iter_mut().zip(factors) {
                sums[p] = sums[p].dot(factor, panel);
            }
        }
    } else {
        let panels: [S::Panel; PANELS] = std::array::from_fn(panel);
        for (r, sums) in sums.iter_mut().enumerate() {
            let factor = S::factor(factor(r));
            for (sum, panel) in sums.iter_mut().zip(panels) {
                *sum = sum.dot(factor, panel);
            }
        }
    }
}
