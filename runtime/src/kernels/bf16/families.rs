//! What each level computes products of bf16 with.

use super::{DEPTHS, round, strips};
use crate::kernels::gemm::{FinishFunction, GemmBlock, TileFunction, Tiles, families as floats, tile};
use crate::kernels::lanes::Lanes;

/// How a level computes a block.
pub(crate) trait Family {
    /// # Safety
    /// As for [`gemm_bf16`](super::gemm_bf16); the CPU is of the level.
    unsafe fn run(block: &GemmBlock);
}

macro_rules! family {
    (
        $family:ident, $tile:ident: $floats:ident, [$($features:literal)?], $round:path, { $($product:tt)* }, $($tiles:tt)*
    ) => {
        pub(crate) struct $family;

        impl Tiles for $family {
            type Panel = <floats::$floats as Tiles>::Panel;
            const MASKS_ARE_FREE: bool = floats::$floats::MASKS_ARE_FREE;
            const WIDENS: bool = false;
            const FINISH: FinishFunction<Self::Panel> = floats::$floats::FINISH;
            const TILES: &'static [&'static [TileFunction]] = tile::tiles! { $tile: $($tiles)* };

            $($product)*
        }

        mod $tile {
            use super::*;

            $(#[target_feature(enable = $features)])?
            pub(super) unsafe fn round_rows(rows: &round::Rows, to: *mut u32) {
                // SAFETY: the caller keeps the contract of `RoundFunction`.
                unsafe { $round(rows, to) }
            }
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn $tile<const ROWS: usize, const PANELS: usize>(block: &GemmBlock, row: usize, column: usize) {
            // SAFETY: the caller keeps the contract of `TileFunction`.
            unsafe { tile::tile::<$family, ROWS, PANELS>(block, row, column) }
        }
    };
    // Where no instruction multiplies bf16: rounded numbers of A are floats, and those of B become floats in the tile.
    ($family:ident, $tile:ident: $floats:ident, [$($features:literal)?], $($tiles:tt)*) => {
        family! { $family, $tile: $floats, [$($features)?], round::as_floats, {
            const STEPS: usize = DEPTHS;

            #[inline(always)]
            fn part(panel: Self::Panel, part: usize) -> Self::Panel {
                if part == 0 { panel.shift_left::<16>() } else { panel.keep_upper_half() }
            }
        }, $($tiles)* }
    };
}

pub(crate) struct Portable;
impl Family for Portable {
    #[inline(always)]
    unsafe fn run(block: &GemmBlock) {
        // SAFETY: the caller vouches for the block.
        unsafe { strips::<PortablePairs>(block, portable::round_rows) }
    }
}

family! { PortablePairs, portable: Portable, [], 1 => 1, 2 => 1, 3 => 1, 4 => 1 }

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::*;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::matrix;
    use super::*;
    use crate::kernels::amx;

    pub(crate) struct Avx2;
    impl Family for Avx2 {
        #[inline(always)]
        unsafe fn run(block: &GemmBlock) {
            // SAFETY: the caller vouches for the block and the CPU.
            unsafe { strips::<Avx2Pairs>(block, avx2::round_rows) }
        }
    }

    pub(crate) struct Avx512;
    impl Family for Avx512 {
        #[inline(always)]
        unsafe fn run(block: &GemmBlock) {
            // SAFETY: the caller vouches for the block and the CPU, which was asked.
            unsafe {
                if !is_x86_feature_detected!("avx512bf16") {
                    strips::<Avx512Pairs>(block, avx512::round_rows);
                } else if amx::is_available() && matrix::suits(block) {
                    matrix::run::<Bf16Pairs>(block, bf16::round_rows);
                } else {
                    strips::<Bf16Pairs>(block, bf16::round_rows);
                }
            }
        }
    }

    /// What CPUs with AVX-512 and its products of bf16 run that have no tile registers; others, what they run anyway.
    #[cfg(test)]
    pub(crate) struct Vectors;
    #[cfg(test)]
    impl Family for Vectors {
        unsafe fn run(block: &GemmBlock) {
            // SAFETY: the caller vouches for the block and the CPU, which was asked.
            unsafe {
                if is_x86_feature_detected!("avx512bf16") {
                    strips::<Bf16Pairs>(block, bf16::round_rows);
                } else {
                    Avx512::run(block);
                }
            }
        }
    }

    /// What CPUs with AVX-512 but without its products of bf16 run.
    #[cfg(test)]
    pub(crate) struct Emulated;
    #[cfg(test)]
    impl Family for Emulated {
        unsafe fn run(block: &GemmBlock) {
            // SAFETY: the caller vouches for the block and the CPU.
            unsafe { strips::<Avx512Pairs>(block, avx512::round_rows) }
        }
    }

    family! { Avx2Pairs, avx2: Avx2, ["avx2,fma,f16c"], 1 => 1 2 4, 2 => 1 2, 3 => 1, 4 => 1, 5 => 1, 6 => 1 }
    family! { Avx512Pairs, avx512: Avx512, ["avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"],
        1 => 1 2 4 8, 2 => 1 2 4 8, 3 => 1 2 4 8, 4 => 1 2 4, 5 => 1 2 4, 6 => 1 2 4, 7 => 1 2,
        8 => 1 2, 9 => 1 2, 10 => 1 2, 11 => 1 2, 12 => 1 2, 13 => 1 2,
    }
    family! { Bf16Pairs, bf16: Avx512, ["avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"],
        round::in_pairs,
        {
            #[inline(always)]
            fn add_product(factor: Self::Panel, panel: Self::Panel, sum: Self::Panel) -> Self::Panel {
                factor.dot_bf16(panel, sum)
            }
        },
        1 => 1 2 4 8, 2 => 1 2 4 8, 3 => 1 2 4 8, 4 => 1 2 4, 5 => 1 2 4, 6 => 1 2 4, 7 => 1 2,
        8 => 1 2, 9 => 1 2, 10 => 1 2, 11 => 1 2, 12 => 1 2, 13 => 1 2,
    }
}
