//! A product with one row: what a code stands for goes from the lookup into the sum, and is never stored.

use super::{
    Aligned, BookBlock, DEPTHS,
    decode::{BYTES, Rows, Scales},
};
use crate::kernels::{
    gemm::{self, GemmBlock, Tiles},
    lanes::{Lanes, WIDTH},
};
use std::mem::MaybeUninit;

/// Panels that are summed side by side, at most: the widest tile of a row.
const MOST: usize = 8;

/// How codes become numbers. Constants, so that each has a loop of its own.
trait Form {
    /// Whether codes have eight bits and stand for themselves.
    const BYTES: bool;
    /// Whether numbers are scaled.
    const SCALED: bool;
    /// Whether something is taken off before.
    const ZEROS: bool;
}

macro_rules! forms {
    ($($name:ident: $bytes:literal $scaled:literal $zeros:literal)*) => {$(
        struct $name;
        impl Form for $name {
            const BYTES: bool = $bytes;
            const SCALED: bool = $scaled;
            const ZEROS: bool = $zeros;
        }
    )*};
}
forms! {
    Plain: false false false
    Scaled: false true false
    Moved: false true true
    ScaledBytes: true true false
    MovedBytes: true true true
}

/// The product of one row with codes that have no book for each column.
///
/// # Safety
/// As for [`gemm_book`](super::gemm_book), with one row.
#[inline(always)]
pub(super) unsafe fn run<T: Tiles>(block: &BookBlock) {
    let panels = (block.product.columns as usize).div_ceil(WIDTH);
    let most = T::TILES[0].len();
    let mut panel = 0;
    while panel < panels {
        let width = 1 << (most.min((panels - panel).ilog2() as usize + 1) - 1);
        // SAFETY: the panels lie in the block.
        unsafe {
            match (block.scales.is_null(), block.bits, block.has_zeros > 0) {
                (true, ..) => some_panels::<T, Plain>(block, panel, width),
                (false, 8, false) => some_panels::<T, ScaledBytes>(block, panel, width),
                (false, 8, true) => some_panels::<T, MovedBytes>(block, panel, width),
                (false, _, false) => some_panels::<T, Scaled>(block, panel, width),
                (false, _, true) => some_panels::<T, Moved>(block, panel, width),
            }
        }
        panel += width;
    }
}

/// # Safety
/// As for [`run`]; the panels lie in the block.
#[inline(always)]
unsafe fn some_panels<T: Tiles, F: Form>(block: &BookBlock, panel: usize, width: usize) {
    let mut sums = MaybeUninit::<Aligned<[f32; MOST * WIDTH]>>::uninit();
    let sums = sums.as_mut_ptr().cast::<f32>();
    // SAFETY: the caller vouches for the panels; there is room for the sums of the widest, and what the epilogue reads of them was
    // written.
    unsafe {
        let whole = block.product.within(0, panel * WIDTH);
        match width {
            1 => accumulate::<T::Panel, F, 1>(block, panel, &whole, sums),
            2 => accumulate::<T::Panel, F, 2>(block, panel, &whole, sums),
            4 => accumulate::<T::Panel, F, 4>(block, panel, &whole, sums),
            _ => accumulate::<T::Panel, F, MOST>(block, panel, &whole, sums),
        }
        let columns = whole.columns.min((width * WIDTH) as u64);
        gemm::run::<T>(&GemmBlock { columns, item_count: 0, start: sums, start_row_stride: 0, ..whole });
    }
}

/// The chains of fused multiply-adds of `N` panels, `whole` being the product from the first on.
///
/// # Safety
/// As for [`run`]; the panels lie in the block, and `N * 16` sums can be written.
#[inline(always)]
unsafe fn accumulate<V: Lanes, F: Form, const N: usize>(
    block: &BookBlock,
    panel: usize,
    whole: &GemmBlock,
    sums: *mut f32,
) {
    let product = &block.product;
    let (depth, of_group) = (product.depth as usize, if F::BYTES { 2 } else { 1 });
    // SAFETY: the caller vouches for the block; the last panel is masked to its columns.
    unsafe {
        let table = if F::BYTES { V::splat(0.) } else { V::load(block.book) };
        let (lowest, upper) = (V::splat(f32::from_bits(0xff)), V::splat(BYTES));
        let mut chains = [V::splat(0.); N];
        if !whole.start.is_null() {
            for (p, chain) in chains.iter_mut().enumerate() {
                let lanes = WIDTH.min((whole.columns as usize).saturating_sub(p * WIDTH));
                *chain = V::load_masked(whole.start.add(p * WIDTH), V::mask(lanes));
            }
        }
        for number in 0..product.item_count as usize {
            let item = *product.items.add(number);
            let mut a = item.a;
            let words = item.b.offset(panel as isize * product.b_panel_stride as isize);
            let mut rows = [Rows::of(Scales::of(block, panel), 0); N];
            for (p, rows) in rows.iter_mut().enumerate() {
                *rows = Rows::of(Scales::of(block, panel + p), 0);
            }
            for group in 0..depth.div_ceil(DEPTHS) {
                let (mut scales, mut zeros) = ([table; N], [upper; N]);
                if F::SCALED {
                    for p in 0..N {
                        let (scale, zero) =
                            if F::ZEROS { rows[p].next::<V, true>() } else { rows[p].next::<V, false>() };
                        scales[p] = scale;
                        zeros[p] = match (F::BYTES, F::ZEROS) {
                            (true, true) => upper.add(zero),
                            (true, false) => upper,
                            _ => zero,
                        };
                    }
                }
                for part in 0..of_group {
                    let mut codes = [table; N];
                    for (p, codes) in codes.iter_mut().enumerate() {
                        let words = words.offset(p as isize * product.b_panel_stride as isize);
                        *codes = V::load(words.add((group * of_group + part) * WIDTH));
                    }
                    let of_part = DEPTHS / of_group;
                    let first = group * DEPTHS + part * of_part;
                    for _ in first..depth.min(first + of_part) {
                        let factor = V::splat(*a);
                        for p in 0..N {
                            let mut number = match F::BYTES {
                                true => codes[p].and(lowest).or(upper).sub(zeros[p]),
                                false => codes[p].look_up(table),
                            };
                            if F::ZEROS && !F::BYTES {
                                number = number.sub(zeros[p]);
                            }
                            if F::SCALED {
                                number = number.mul(scales[p]);
                            }
                            chains[p] = factor.fma(number, chains[p]);
                            codes[p] = if F::BYTES { codes[p].shift_right::<8>() } else { codes[p].shift_right::<4>() };
                        }
                        a = a.wrapping_offset(product.a_depth_stride as isize);
                    }
                }
            }
        }
        for (p, chain) in chains.into_iter().enumerate() {
            chain.store(sums.add(p * WIDTH));
        }
    }
}
