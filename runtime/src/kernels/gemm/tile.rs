//! The register tile: `ROWS` rows by `PANELS` panels of C, accumulated in registers over all items and depths.

use super::block::{Activation, GemmBlock};
use super::panel::{self, Panel, WIDTH};

/// Computes the tile whose first row and column are given; columns beyond the block are masked out.
///
/// # Safety
/// The tile's rows and the first column of its last panel lie in the block, whose arrays are valid; the CPU is of the
/// level the function was compiled for.
pub(super) type TileFunction = unsafe fn(block: &GemmBlock, row: usize, column: usize);

/// The tiles of a level: entry `[r][i]` has `r + 1` rows and `2^i` panels. The largest leave registers for the panels of B
/// at one depth and for broadcast elements of A, and a little room: at 14 x 2 under AVX-512 the compiler spills.
pub(super) trait Tiles {
    const TILES: &'static [&'static [TileFunction]];
}

macro_rules! tiles {
    ($function:ident: $($rows:literal => $($panels:literal)*),* $(,)?) => {
        &[$(&[$($function::<$rows, $panels>),*]),*]
    };
}

pub(super) mod families {
    //! The three levels' sets of tiles.
    use super::*;

    pub(crate) struct Portable;
    impl Tiles for Portable {
        const TILES: &'static [&'static [TileFunction]] = tiles! { portable: 1 => 1, 2 => 1, 3 => 1, 4 => 1 };
    }

    #[cfg(target_arch = "x86_64")]
    pub(crate) struct Avx2;
    #[cfg(target_arch = "x86_64")]
    impl Tiles for Avx2 {
        const TILES: &'static [&'static [TileFunction]] = tiles! { avx2:
            1 => 1 2 4, 2 => 1 2, 3 => 1 2, 4 => 1, 5 => 1, 6 => 1,
        };
    }

    #[cfg(target_arch = "x86_64")]
    pub(crate) struct Avx512;
    #[cfg(target_arch = "x86_64")]
    impl Tiles for Avx512 {
        const TILES: &'static [&'static [TileFunction]] = tiles! { avx512:
            1 => 1 2 4 8, 2 => 1 2 4 8, 3 => 1 2 4 8, 4 => 1 2 4, 5 => 1 2 4, 6 => 1 2 4, 7 => 1 2,
            8 => 1 2, 9 => 1 2, 10 => 1 2, 11 => 1 2, 12 => 1 2, 13 => 1 2,
        };
    }

    unsafe fn portable<const ROWS: usize, const PANELS: usize>(block: &GemmBlock, row: usize, column: usize) {
        // SAFETY: the caller keeps the contract of `TileFunction`.
        unsafe { tile::<panel::Portable, ROWS, PANELS>(block, row, column) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn avx2<const ROWS: usize, const PANELS: usize>(block: &GemmBlock, row: usize, column: usize) {
        // SAFETY: the caller keeps the contract of `TileFunction`.
        unsafe { tile::<panel::Avx2, ROWS, PANELS>(block, row, column) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    unsafe fn avx512<const ROWS: usize, const PANELS: usize>(block: &GemmBlock, row: usize, column: usize) {
        // SAFETY: the caller keeps the contract of `TileFunction`.
        unsafe { tile::<panel::Avx512, ROWS, PANELS>(block, row, column) }
    }
}

/// # Safety
/// As for [`TileFunction`].
#[inline(always)]
unsafe fn tile<V: Panel, const ROWS: usize, const PANELS: usize>(block: &GemmBlock, row: usize, column: usize) {
    let lanes = (block.columns as usize - column - (PANELS - 1) * WIDTH).min(WIDTH);
    let edge = Edge::<V, PANELS> { last: V::mask(lanes) };
    // SAFETY: the caller says that the tile lies in the block and the block's arrays are valid.
    unsafe {
        let mut sums = [[V::splat(0.0); PANELS]; ROWS];
        let c = block.c.offset(row as isize * block.c_row_stride as isize + column as isize);
        if block.accumulate != 0 {
            for (r, sums) in sums.iter_mut().enumerate() {
                *sums = edge.load_row(c.offset(r as isize * block.c_row_stride as isize));
            }
        }
        accumulate(block, row, column, &edge, &mut sums);
        finish(block, row, column, &edge, &mut sums);
        for (r, sums) in sums.iter().enumerate() {
            edge.store_row(sums, c.offset(r as isize * block.c_row_stride as isize));
        }
    }
}

/// The chains of fused multiply-adds.
///
/// # Safety
/// As for [`TileFunction`].
#[inline(always)]
unsafe fn accumulate<V: Panel, const ROWS: usize, const PANELS: usize>(
    block: &GemmBlock,
    row: usize,
    column: usize,
    edge: &Edge<V, PANELS>,
    sums: &mut [[V; PANELS]; ROWS],
) {
    let (a_row, a_depth) = (block.a_row_stride as isize, block.a_depth_stride as isize);
    let (b_panel, b_depth) = (block.b_panel_stride as isize, block.b_depth_stride as isize);
    for item in 0..block.item_count as usize {
        // SAFETY: items, A and B are valid for the sizes and strides of the block; pointers beyond the last depth are
        // computed with wrapping arithmetic and not read.
        unsafe {
            let item = *block.items.add(item);
            let mut a = item.a.wrapping_offset(row as isize * a_row);
            let mut b = item.b.wrapping_offset((column / WIDTH) as isize * b_panel);
            for _ in 0..block.depth {
                let panels: [V; PANELS] = edge.load_panels(b, b_panel);
                for (r, sums) in sums.iter_mut().enumerate() {
                    let factor = V::splat(*a.wrapping_offset(r as isize * a_row));
                    for (sum, panel) in sums.iter_mut().zip(panels) {
                        *sum = factor.fma(panel, *sum);
                    }
                }
                a = a.wrapping_offset(a_depth);
                b = b.wrapping_offset(b_depth);
            }
        }
    }
}

/// The epilogue, in registers.
///
/// # Safety
/// As for [`TileFunction`].
#[inline(always)]
unsafe fn finish<V: Panel, const ROWS: usize, const PANELS: usize>(
    block: &GemmBlock,
    row: usize,
    column: usize,
    edge: &Edge<V, PANELS>,
    sums: &mut [[V; PANELS]; ROWS],
) {
    // SAFETY: column vectors and residual are valid for the sizes and strides of the block.
    unsafe {
        if !block.column_scale.is_null() {
            let scale = edge.load_row(block.column_scale.add(column));
            each(sums, |_, p, x| x.mul(scale[p]));
        }
        if !block.column_bias.is_null() {
            let bias = edge.load_row(block.column_bias.add(column));
            each(sums, |_, p, x| x.add(bias[p]));
        }
        let has_residual = !block.residual.is_null();
        if has_residual && block.residual_before_activation != 0 {
            add_residual(block, row, column, edge, sums);
        }
        activate(block, sums);
        if has_residual && block.residual_before_activation == 0 {
            add_residual(block, row, column, edge, sums);
        }
    }
}

#[inline(always)]
fn activate<V: Panel, const ROWS: usize, const PANELS: usize>(block: &GemmBlock, sums: &mut [[V; PANELS]; ROWS]) {
    const RELU: u64 = Activation::Relu as u64;
    const CLIP: u64 = Activation::Clip as u64;
    const LEAKY_RELU: u64 = Activation::LeakyRelu as u64;
    let [p0, p1] = block.activation_parameters.map(|parameter| parameter.0);
    match block.activation {
        RELU => each(sums, |_, _, x| x.max(V::splat(0.0))),
        CLIP => each(sums, |_, _, x| x.max(V::splat(p0)).min(V::splat(p1))),
        LEAKY_RELU => each(sums, |_, _, x| x.unless_negative(x.mul(V::splat(p0)))),
        _ => {}
    }
}

/// # Safety
/// As for [`TileFunction`], and there is a residual.
#[inline(always)]
unsafe fn add_residual<V: Panel, const ROWS: usize, const PANELS: usize>(
    block: &GemmBlock,
    row: usize,
    column: usize,
    edge: &Edge<V, PANELS>,
    sums: &mut [[V; PANELS]; ROWS],
) {
    for (r, sums) in sums.iter_mut().enumerate() {
        let offset = (row + r) as isize * block.residual_row_stride as isize + column as isize;
        // SAFETY: the residual has the rows and columns of the block.
        let residual = unsafe { edge.load_row(block.residual.offset(offset)) };
        for (sum, residual) in sums.iter_mut().zip(residual) {
            *sum = sum.add(residual);
        }
    }
}

/// Replaces every panel of the tile by a function of its row, its panel and itself.
#[inline(always)]
fn each<V: Panel, const ROWS: usize, const PANELS: usize>(
    sums: &mut [[V; PANELS]; ROWS],
    replace: impl Fn(usize, usize, V) -> V,
) {
    for (r, sums) in sums.iter_mut().enumerate() {
        for (p, sum) in sums.iter_mut().enumerate() {
            *sum = replace(r, p, *sum);
        }
    }
}

/// Where the columns of the tile end: the last panel is masked, always. On a full panel that costs AVX-512 nothing and
/// AVX2 next to nothing, and it saves half of the instantiations.
struct Edge<V: Panel, const PANELS: usize> {
    last: V::Mask,
}

impl<V: Panel, const PANELS: usize> Edge<V, PANELS> {
    /// # Safety
    /// The columns of the tile can be read.
    #[inline(always)]
    unsafe fn load_row(&self, from: *const f32) -> [V; PANELS] {
        // SAFETY: the caller vouches for the columns.
        unsafe { self.load_panels(from, WIDTH as isize) }
    }

    /// # Safety
    /// The columns of the tile can be read, each panel a stride beyond the one before.
    #[inline(always)]
    unsafe fn load_panels(&self, from: *const f32, stride: isize) -> [V; PANELS] {
        std::array::from_fn(|p| {
            let from = from.wrapping_offset(p as isize * stride);
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
