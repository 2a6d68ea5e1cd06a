//! The register tile: `ROWS` rows by `PANELS` panels of C, accumulated in registers over all items and depths.

use super::block::GemmBlock;
use super::epilogue::{self, FinishFunction, Unfinished};
#[cfg(target_arch = "x86_64")]
use super::narrow;
use crate::kernels::lanes::{self, Lanes, WIDTH};

/// Computes the tile whose first row and column are given; columns beyond the block are masked out.
///
/// # Safety
/// The tile's rows and the first column of its last panel lie in the block, whose arrays are valid; the CPU is of the
/// level the function was compiled for.
pub(crate) type TileFunction = unsafe fn(block: &GemmBlock, row: usize, column: usize);

/// The tiles of a level: entry `[r][i]` has `r + 1` rows and `2^i` panels. The largest leave registers for the panels of B
/// at one depth and for broadcast elements of A, and a little room: at 14 x 2 under AVX-512 the compiler spills.
pub(crate) trait Tiles {
    type Panel: Lanes;
    const TILES: &'static [&'static [TileFunction]];
    /// Tiles for what is left of the columns where that is at most half of a panel: entry `[r]` has `2 r + 2` rows. None where a
    /// panel is one register.
    const NARROW: &'static [TileFunction] = &[];
    /// How many of `rows` that are left the next of so many tiles has: they are of nearly the same height.
    #[inline(always)]
    fn height(rows: usize, tiles: usize) -> usize {
        rows.div_ceil(tiles)
    }

    /// Whether the level has registers for masks and loads as fast with one as without: then no tile need be compiled for
    /// whole panels as well.
    const MASKS_ARE_FREE: bool;
    /// Whether B may be [`GemmBlock::b_is_bf16`].
    const WIDENS: bool;
    /// Finishes tiles whose activation is too long for every tile to hold a copy.
    const FINISH: FinishFunction<Self::Panel>;

    /// How many depths a depth of the block stands for: A has one element for each, side by side, and B one for all.
    const STEPS: usize = 1;

    /// What a panel of B holds for one of these.
    #[inline(always)]
    fn part(panel: Self::Panel, _part: usize) -> Self::Panel {
        panel
    }

    /// A sum with the product of an element of A, in every lane, by a panel of B.
    #[inline(always)]
    fn add_product(factor: Self::Panel, panel: Self::Panel, sum: Self::Panel) -> Self::Panel {
        factor.fma(panel, sum)
    }
}

macro_rules! tiles {
    ($function:ident: $($rows:literal => $($panels:literal)*),* $(,)?) => {
        &[$(&[$($function::<$rows, $panels>),*]),*]
    };
}
pub(crate) use tiles;

pub(crate) mod families {
    //! The three levels' sets of tiles.
    use super::*;

    pub(crate) struct Portable;
    impl Tiles for Portable {
        type Panel = lanes::Portable;
        const MASKS_ARE_FREE: bool = false;
        const WIDENS: bool = true;
        const FINISH: FinishFunction<lanes::Portable> = portable_finish;
        const TILES: &'static [&'static [TileFunction]] = tiles! { portable: 1 => 1, 2 => 1, 3 => 1, 4 => 1 };
    }

    #[cfg(target_arch = "x86_64")]
    pub(crate) struct Avx2;
    #[cfg(target_arch = "x86_64")]
    impl Tiles for Avx2 {
        type Panel = lanes::Avx2;
        const MASKS_ARE_FREE: bool = false;
        const WIDENS: bool = true;
        const FINISH: FinishFunction<lanes::Avx2> = avx2_finish;
        const TILES: &'static [&'static [TileFunction]] = tiles! { avx2:
            1 => 1 2 4, 2 => 1 2, 3 => 1, 4 => 1, 5 => 1, 6 => 1,
        };
        const NARROW: &'static [TileFunction] =
            &[narrow::<1>, narrow::<2>, narrow::<3>, narrow::<4>, narrow::<5>, narrow::<6>];

        /// Three rows of a panel are six chains, fewer than multipliers have in flight: seven rows, as images of 7 x 7 pixels have,
        /// are better five and two than four and three.
        #[inline(always)]
        fn height(rows: usize, tiles: usize) -> usize {
            if rows == 7 { 5 } else { rows.div_ceil(tiles) }
        }
    }

    #[cfg(target_arch = "x86_64")]
    pub(crate) struct Avx512;
    #[cfg(target_arch = "x86_64")]
    impl Tiles for Avx512 {
        type Panel = lanes::Avx512;
        const MASKS_ARE_FREE: bool = true;
        const WIDENS: bool = true;
        const FINISH: FinishFunction<lanes::Avx512> = avx512_finish;
        const TILES: &'static [&'static [TileFunction]] = tiles! { avx512:
            1 => 1 2 4 8, 2 => 1 2 4 8, 3 => 1 2 4 8, 4 => 1 2 4, 5 => 1 2 4, 6 => 1 2 4, 7 => 1 2,
            8 => 1 2, 9 => 1 2, 10 => 1 2, 11 => 1 2, 12 => 1 2, 13 => 1 2,
        };
    }

    unsafe fn portable_finish(tile: &Unfinished<lanes::Portable>) {
        // SAFETY: the caller keeps the contract of `FinishFunction`.
        unsafe { epilogue::finish::<lanes::Portable>(tile) }
    }

    unsafe fn portable<const ROWS: usize, const PANELS: usize>(block: &GemmBlock, row: usize, column: usize) {
        // SAFETY: the caller keeps the contract of `TileFunction`.
        unsafe { tile::<Portable, ROWS, PANELS>(block, row, column) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn avx2_finish(tile: &Unfinished<lanes::Avx2>) {
        // SAFETY: the caller keeps the contract of `FinishFunction`.
        unsafe { epilogue::finish::<lanes::Avx2>(tile) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn avx2<const ROWS: usize, const PANELS: usize>(block: &GemmBlock, row: usize, column: usize) {
        // SAFETY: the caller keeps the contract of `TileFunction`.
        unsafe { tile::<Avx2, ROWS, PANELS>(block, row, column) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn narrow<const PAIRS: usize>(block: &GemmBlock, row: usize, column: usize) {
        // SAFETY: the caller keeps the contract of `TileFunction`.
        unsafe { narrow::tile::<PAIRS>(block, row, column) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn avx512_finish(tile: &Unfinished<lanes::Avx512>) {
        // SAFETY: the caller keeps the contract of `FinishFunction`.
        unsafe { epilogue::finish::<lanes::Avx512>(tile) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn avx512<const ROWS: usize, const PANELS: usize>(block: &GemmBlock, row: usize, column: usize) {
        // SAFETY: the caller keeps the contract of `TileFunction`.
        unsafe { tile::<Avx512, ROWS, PANELS>(block, row, column) }
    }
}

/// # Safety
/// As for [`TileFunction`].
#[inline(always)]
pub(crate) unsafe fn tile<T: Tiles, const ROWS: usize, const PANELS: usize>(
    block: &GemmBlock,
    row: usize,
    column: usize,
) {
    let lanes = (block.columns as usize - column - (PANELS - 1) * WIDTH).min(WIDTH);
    let edge = Edge::<T::Panel, PANELS> { row, column, last: T::Panel::mask(lanes) };
    // SAFETY: the caller says that the tile lies in the block and the block's arrays are valid.
    unsafe {
        let mut sums = [[T::Panel::splat(0.0); PANELS]; ROWS];
        prefetch::<ROWS, PANELS>(block, row, column);
        if !block.start.is_null() {
            for (r, sums) in sums.iter_mut().enumerate() {
                *sums = edge.row(block.start, block.start_row_stride, r);
            }
        }
        // Packed panels are padded, so that all of them can be loaded whole.
        let whole = lanes == WIDTH || is_packed(block);
        if T::WIDENS && block.b_is_bf16 != 0 {
            accumulate::<T, Widened, ROWS, PANELS>(block, row, column, &edge, &mut sums);
        } else if whole && !T::MASKS_ARE_FREE {
            accumulate::<T, Whole, ROWS, PANELS>(block, row, column, &edge, &mut sums);
        } else {
            accumulate::<T, Masked, ROWS, PANELS>(block, row, column, &edge, &mut sums);
        }
        epilogue::begin(block, &edge, &mut sums);
        if epilogue::ends_in_registers(block) {
            epilogue::end(block, &edge, &mut sums);
            let c = block.c.offset(row as isize * block.c_row_stride as isize + column as isize);
            let to = |r: usize| c.wrapping_offset(r as isize * block.c_row_stride as isize);
            if lanes == WIDTH && !T::MASKS_ARE_FREE {
                for (r, sums) in sums.iter().enumerate() {
                    for (p, panel) in sums.iter().enumerate() {
                        panel.store(to(r).wrapping_add(p * WIDTH));
                    }
                }
            } else {
                for (r, sums) in sums.iter().enumerate() {
                    edge.store_row(sums, to(r));
                }
            }
        } else {
            // A copy: with its address taken, the original would live in memory from the start.
            let stored: [[T::Panel; PANELS]; ROWS] = std::array::from_fn(|r| std::array::from_fn(|p| sums[r][p]));
            T::FINISH(&Unfinished { block, row, column, sums: stored.as_flattened(), panels: PANELS });
        }
    }
}

/// Asks for the lines that the epilogue reads and writes: rows lie too far apart for the CPU to foresee them, and the sums hide
/// the wait.
#[inline(always)]
fn prefetch<const ROWS: usize, const PANELS: usize>(block: &GemmBlock, row: usize, column: usize) {
    for row in row..row + ROWS {
        for column in (column..column + PANELS * WIDTH).step_by(WIDTH) {
            let offset = |stride: i64| row as isize * stride as isize + column as isize;
            lanes::prefetch_to_write(block.c.wrapping_offset(offset(block.c_row_stride)));
            if !block.residual.is_null() && !std::ptr::eq(block.residual, block.c) {
                lanes::prefetch(block.residual.wrapping_offset(offset(block.residual_row_stride)));
            }
        }
    }
}

/// Whether B is packed as floats: then its panels can be loaded whole. Panels in place lie side by side; part of a row-major B whose
/// rows have 16 elements may end before its panel does.
#[inline(always)]
pub(super) fn is_packed(block: &GemmBlock) -> bool {
    let width = WIDTH as i64;
    block.b_depth_stride == width && block.b_panel_stride != width && block.b_is_bf16 == 0
}

/// How panels of B are loaded. Types, since a closure may be compiled apart from its caller, without its instruction set.
trait Source {
    /// Bytes of an element of B.
    const BYTES: isize;

    /// # Safety
    /// The columns of the panel can be read.
    unsafe fn load<V: Lanes, const PANELS: usize>(from: *const u8, is_last: bool, edge: &Edge<V, PANELS>) -> V;
}

/// Panels that have all of their columns.
struct Whole;
/// The last panel may have fewer.
struct Masked;
/// Whole panels of bf16.
struct Widened;

impl Source for Whole {
    const BYTES: isize = 4;

    #[inline(always)]
    unsafe fn load<V: Lanes, const PANELS: usize>(from: *const u8, _: bool, _: &Edge<V, PANELS>) -> V {
        // SAFETY: the caller vouches for the panel.
        unsafe { V::load(from.cast()) }
    }
}

impl Source for Masked {
    const BYTES: isize = 4;

    #[inline(always)]
    unsafe fn load<V: Lanes, const PANELS: usize>(from: *const u8, is_last: bool, edge: &Edge<V, PANELS>) -> V {
        // SAFETY: the caller vouches for the panel, and the mask keeps to its columns.
        unsafe { if is_last { V::load_masked(from.cast(), edge.last) } else { V::load(from.cast()) } }
    }
}

impl Source for Widened {
    const BYTES: isize = 2;

    #[inline(always)]
    unsafe fn load<V: Lanes, const PANELS: usize>(from: *const u8, _: bool, _: &Edge<V, PANELS>) -> V {
        // SAFETY: the caller vouches for the panel.
        unsafe { V::load_bf16(from.cast()) }
    }
}

/// Up to so many rows a product is bound by reading B, which the CPU foresees; asking for every line of it would only cost time.
pub(super) const FEW_ROWS: usize = 3;
/// Depths from a product to the panels of B that are asked for meanwhile: those of a block come from memory the first time.
const AHEAD: isize = 48;

/// The chains of fused multiply-adds.
///
/// # Safety
/// As for [`TileFunction`].
#[inline(always)]
unsafe fn accumulate<T: Tiles, S: Source, const ROWS: usize, const PANELS: usize>(
    block: &GemmBlock,
    row: usize,
    column: usize,
    edge: &Edge<T::Panel, PANELS>,
    sums: &mut [[T::Panel; PANELS]; ROWS],
) {
    let (a_row, a_depth) = (block.a_row_stride as isize, block.a_depth_stride as isize);
    let (b_panel, b_depth) = (S::BYTES * block.b_panel_stride as isize, S::BYTES * block.b_depth_stride as isize);
    for item in 0..block.item_count as usize {
        // SAFETY: items, A and B are valid for the sizes and strides of the block; pointers beyond the last depth are
        // computed with wrapping arithmetic and only prefetched, which any
        // address allows.
        unsafe {
            let item = *block.items.add(item);
            let mut rows = [item.a; ROWS];
            for (r, start) in rows.iter_mut().enumerate() {
                *start = start.wrapping_offset((row + r) as isize * a_row);
            }
            let mut a = rows[0];
            let mut ahead = 0isize;
            let mut b = item.b.cast::<u8>().wrapping_offset((column / WIDTH) as isize * b_panel);
            for _ in 0..block.depth {
                if ROWS > FEW_ROWS {
                    for p in 0..PANELS as isize {
                        lanes::prefetch(b.wrapping_offset(p * b_panel + AHEAD * b_depth).cast());
                    }
                }
                let mut factors = [a; ROWS];
                for (r, factor) in factors.iter_mut().enumerate() {
                    // Where tiles have few rows, places of several of them stay in registers: else each takes an instruction at
                    // every depth, for which a core that two threads share has no room.
                    *factor = match const { T::Panel::REGISTERS == 8 } {
                        true => rows[r].wrapping_offset(ahead),
                        false => a.wrapping_offset(r as isize * a_row),
                    };
                }
                for part in 0..T::STEPS {
                    add_products::<T, S, ROWS, PANELS>(&factors, (b, b_panel), part, edge, sums);
                }
                a = a.wrapping_offset(a_depth);
                ahead = ahead.wrapping_add(a_depth);
                b = b.wrapping_offset(b_depth);
            }
        }
    }
}

/// Adds the products of one depth: A is given by where each row is, B by where the first panel is and how far apart they are.
///
/// # Safety
/// The rows and the panels can be read.
#[inline(always)]
unsafe fn add_products<T: Tiles, S: Source, const ROWS: usize, const PANELS: usize>(
    a: &[*const f32; ROWS],
    (b, b_panel): (*const u8, isize),
    part: usize,
    edge: &Edge<T::Panel, PANELS>,
    sums: &mut [[T::Panel; PANELS]; ROWS],
) {
    // SAFETY: the caller vouches for rows and panels.
    unsafe {
        // What there is less of stays in registers while the other passes by.
        if ROWS <= FEW_ROWS {
            let mut factors = [T::Panel::splat(0.); ROWS];
            for (factor, a) in factors.iter_mut().zip(a) {
                *factor = T::Panel::splat(*a.wrapping_add(part));
            }
            for p in 0..PANELS {
                let panel = S::load(b.wrapping_offset(p as isize * b_panel), p + 1 == PANELS, edge);
                let panel = T::part(panel, part);
                for (sums, factor) in sums.iter_mut().zip(factors) {
                    sums[p] = T::add_product(factor, panel, sums[p]);
                }
            }
        } else {
            let mut panels = [T::Panel::splat(0.); PANELS];
            for (p, panel) in panels.iter_mut().enumerate() {
                let loaded = S::load(b.wrapping_offset(p as isize * b_panel), p + 1 == PANELS, edge);
                *panel = T::part(loaded, part);
            }
            for (sums, a) in sums.iter_mut().zip(a) {
                let factor = T::Panel::splat(*a.wrapping_add(part));
                for (sum, panel) in sums.iter_mut().zip(panels) {
                    *sum = T::add_product(factor, panel, *sum);
                }
            }
        }
    }
}

/// What of the block's arrays belongs to a tile.
pub(super) trait Place<V: Lanes, const PANELS: usize> {
    /// The columns of the tile in a vector of all.
    ///
    /// # Safety
    /// They can be read.
    unsafe fn columns(&self, vector: *const f32) -> [V; PANELS];

    /// What the tile's sums at an index, one for each of its rows of registers, have in an array of all rows and columns.
    ///
    /// # Safety
    /// It can be read.
    unsafe fn row(&self, array: *const f32, stride: i64, index: usize) -> [V; PANELS];
}

/// Where a tile is and where its columns end. Outside the inner loop the last panel is masked always, full or not.
pub(super) struct Edge<V: Lanes, const PANELS: usize> {
    row: usize,
    column: usize,
    last: V::Mask,
}

impl<V: Lanes, const PANELS: usize> Place<V, PANELS> for Edge<V, PANELS> {
    #[inline(always)]
    unsafe fn columns(&self, vector: *const f32) -> [V; PANELS] {
        // SAFETY: the caller vouches for the columns.
        unsafe { self.load_row(vector.wrapping_add(self.column)) }
    }

    #[inline(always)]
    unsafe fn row(&self, array: *const f32, stride: i64, index: usize) -> [V; PANELS] {
        let offset = (self.row + index) as isize * stride as isize + self.column as isize;
        // SAFETY: the caller vouches for the row.
        unsafe { self.load_row(array.wrapping_offset(offset)) }
    }
}

impl<V: Lanes, const PANELS: usize> Edge<V, PANELS> {
    /// # Safety
    /// The columns of the tile can be read.
    #[inline(always)]
    unsafe fn load_row(&self, from: *const f32) -> [V; PANELS] {
        std::array::from_fn(|p| {
            let from = from.wrapping_add(p * WIDTH);
            // SAFETY: the caller vouches for the columns, and the mask keeps to them.
            unsafe { if p + 1 == PANELS { V::load_masked(from, self.last) } else { V::load(from) } }
        })
    }

    /// # Safety
    /// The columns of the tile can be written.
    #[inline(always)]
    unsafe fn store_row(&self, row: &[V; PANELS], to: *mut f32) {
        for (p, panel) in row.iter().enumerate() {
            let to = to.wrapping_add(p * WIDTH);
            // SAFETY: the caller vouches for the columns, and the mask keeps to them.
            unsafe { if p + 1 == PANELS { panel.store_masked(to, self.last) } else { panel.store(to) } }
        }
    }
}
