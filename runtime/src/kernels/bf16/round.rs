//! Rows of f32 rounded to bf16.

use super::DEPTHS;

/// Some depths of some rows.
pub(super) struct Rows {
    /// The first depth of the first row.
    pub(super) from: *const f32,
    /// Distance of two rows and of two depths.
    pub(super) strides: [isize; 2],
    pub(super) rows: usize,
    pub(super) depths: usize,
    /// Distance of two rounded rows in words.
    pub(super) rounded_stride: usize,
}

/// Rounds rows to the nearest bf16, ties to even; what fills up the last pair of
/// depths is zero.
///
/// # Safety
/// The rows can be read and their results written; the CPU is of the level the function was compiled for.
pub(super) type RoundFunction = unsafe fn(rows: &Rows, to: *mut u32);

/// The bits of an f32, rounded to those of a bf16, zeros following.
#[inline(always)]
fn nearest(number: f32) -> u32 {
    let bits = number.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    // Rounding must not make an infinity of what is no number.
    (if number.is_nan() { bits | 0x0040_0000 } else { rounded }) & !0xffff
}

/// To f32, one for each depth.
///
/// # Safety
/// As for [`RoundFunction`].
#[inline(always)]
pub(super) unsafe fn as_floats(rows: &Rows, to: *mut u32) {
    let [row_stride, depth_stride] = rows.strides;
    for row in 0..rows.rows {
        let from = rows.from.wrapping_offset(row as isize * row_stride);
        let to = to.wrapping_add(row * rows.rounded_stride);
        // SAFETY: so many depths of the row can be read, and whole pairs of them written.
        unsafe {
            // The same loop with a stride that is known becomes one of vectors.
            if depth_stride == 1 {
                for depth in 0..rows.depths {
                    *to.add(depth) = nearest(*from.add(depth));
                }
            } else {
                for depth in 0..rows.depths {
                    *to.add(depth) = nearest(*from.wrapping_offset(depth as isize * depth_stride));
                }
            }
            if !rows.depths.is_multiple_of(DEPTHS) {
                *to.add(rows.depths) = 0;
            }
        }
    }
}

/// To pairs of bf16, one by one.
///
/// # Safety
/// As for [`RoundFunction`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn in_pairs_apart(rows: &Rows, to: *mut u32) {
    let [row_stride, depth_stride] = rows.strides;
    for row in 0..rows.rows {
        let from = rows.from.wrapping_offset(row as isize * row_stride);
        // SAFETY: these depths of the row can be read, and their pairs written.
        unsafe {
            let number = |depth: usize| nearest(*from.wrapping_offset(depth as isize * depth_stride));
            for depth in (0..rows.depths).step_by(DEPTHS) {
                let upper = if depth + 1 < rows.depths { number(depth + 1) } else { 0 };
                *to.add(row * rows.rounded_stride + depth / DEPTHS) = number(depth) >> 16 | upper;
            }
        }
    }
}

/// To pairs of bf16, by the instruction for it where depths lie side by side.
///
/// # Safety
/// As for [`RoundFunction`]; the CPU has AVX-512 BF16, BW and VL.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) unsafe fn in_pairs(rows: &Rows, to: *mut u32) {
    use core::arch::x86_64::*;
    /// Numbers that are rounded at a time.
    const STEP: usize = 32;
    if rows.strides[1] != 1 {
        // SAFETY: the caller vouches for the rows.
        return unsafe { in_pairs_apart(rows, to) };
    }
    let whole = rows.depths / STEP * STEP;
    let rest = rows.depths - whole;
    let masks = [rest.min(16), rest.saturating_sub(16)].map(|lanes| ((1u32 << lanes) - 1) as __mmask16);
    let pairs = ((1u32 << rest.div_ceil(DEPTHS)) - 1) as __mmask16;
    for row in 0..rows.rows {
        let from = rows.from.wrapping_offset(row as isize * rows.strides[0]);
        let to = to.wrapping_add(row * rows.rounded_stride);
        // SAFETY: these depths of the row can be read, their halves written; masks keep to the last.
        unsafe {
            let store = |low: __m512, high: __m512| -> __m512i { core::mem::transmute(_mm512_cvtne2ps_pbh(high, low)) };
            for depth in (0..whole).step_by(STEP) {
                let (low, high) = (_mm512_loadu_ps(from.add(depth)), _mm512_loadu_ps(from.add(depth + 16)));
                _mm512_storeu_si512(to.add(depth / DEPTHS).cast(), store(low, high));
            }
            if rest > 0 {
                let from = from.wrapping_add(whole);
                let low = _mm512_maskz_loadu_ps(masks[0], from);
                let high = _mm512_maskz_loadu_ps(masks[1], from.wrapping_add(16));
                _mm512_mask_storeu_epi32(to.wrapping_add(whole / DEPTHS).cast(), pairs, store(low, high));
            }
        }
    }
}
