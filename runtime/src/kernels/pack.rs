//! Packing the right operand of a product into panels of 16 columns, the form the GEMM kernel reads fastest.
//!
//! A packed matrix of `depth` by `columns` is a row of panels; a panel holds, for every depth in order, its 16 columns.
//! Columns beyond the last are zero. Weights are packed once, by the compiler; a right operand that is computed
//! (the keys of attention) is packed by the program.

use super::lanes::{self, Lanes, WIDTH};
use super::level::per_level;
use std::ops::Range;

/// The length of a packed matrix in elements.
pub const fn packed_len(depth: usize, columns: usize) -> usize {
    columns.next_multiple_of(WIDTH) * depth
}

/// Why a matrix could not be packed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// The strides reach beyond the source.
    #[error(
        "a matrix of depth {depth} and {columns} columns with strides {strides:?} reaches beyond {found} source elements"
    )]
    Source {
        /// Rows of the matrix.
        depth: usize,
        /// Columns of the matrix.
        columns: usize,
        /// Distance of two depths and of two columns.
        strides: [usize; 2],
        /// Length of the source.
        found: usize,
    },
    /// The destination has not the length [`packed_len`] gives.
    #[error("a packed matrix takes {expected} elements, but the destination has {found}")]
    Destination {
        /// The length it should have.
        expected: usize,
        /// The length it has.
        found: usize,
    },
}

/// Whether a matrix of some depth and columns lies in its source, and a packed one, of the length that `packed_len` gives, fits its
/// destination; an empty matrix takes nothing.
pub(super) fn check(
    source: usize,
    strides: [usize; 2],
    [depth, columns]: [usize; 2],
    packed: usize,
    packed_len: fn(usize, usize) -> usize,
) -> Result<(), PackError> {
    let last = |extent: usize, stride: usize| (extent as u128 - 1) * stride as u128;
    let empty = depth == 0 || columns == 0;
    if !empty && last(depth, strides[0]) + last(columns, strides[1]) >= source as u128 {
        return Err(PackError::Source { depth, columns, strides, found: source });
    }
    let expected = if empty { 0 } else { packed_len(depth, columns) };
    if packed == expected { Ok(()) } else { Err(PackError::Destination { expected, found: packed }) }
}

/// Packs the matrix whose element `(k, j)` is `source[k * strides[0] + j * strides[1]]`. The source is `f32` as bytes in the
/// order of this machine, at any place: weights need not be aligned in the files that they are mapped from.
///
/// # Errors
/// [`PackError`] when a slice is too short for the sizes.
pub fn pack(
    source: &[[u8; 4]],
    strides: [usize; 2],
    depth: usize,
    columns: usize,
    packed: &mut [f32],
) -> Result<(), PackError> {
    check(source.len(), strides, [depth, columns], packed.len(), packed_len)?;
    let [k_stride, n_stride] = strides.map(|stride| stride as i64);
    // SAFETY: both slices were checked to have room for the sizes and strides.
    unsafe {
        pack_b::portable(source.as_ptr().cast(), k_stride, n_stride, depth as u64, columns as u64, packed.as_mut_ptr());
    }
    Ok(())
}

/// Packs a matrix like [`pack`] as bf16, if that is what all of its elements are: what was rounded before, or is a small
/// integer. False when an element needs more bits, and is cut.
///
/// # Errors
/// As for [`pack`].
pub fn pack_bf16(
    source: &[[u8; 4]],
    strides: [usize; 2],
    depth: usize,
    columns: usize,
    packed: &mut [u16],
) -> Result<bool, PackError> {
    let mut whole = vec![0.; packed.len()];
    pack(source, strides, depth, columns, &mut whole)?;
    let mut lost = 0;
    for (packed, number) in packed.iter_mut().zip(&whole) {
        lost |= number.to_bits() & 0xffff;
        *packed = (number.to_bits() >> 16) as u16;
    }
    Ok(lost == 0)
}

/// Packs some depths of a matrix whose rows are contiguous, `k_stride` apart, and leaves the others as they are: so a large
/// source can go back to the system row by row.
///
/// # Errors
/// As for [`pack`].
pub fn pack_depths(
    source: &[[u8; 4]],
    k_stride: usize,
    depth: usize,
    columns: usize,
    depths: Range<usize>,
    packed: &mut [f32],
) -> Result<(), PackError> {
    check(source.len(), [k_stride, 1], [depth, columns], packed.len(), packed_len)?;
    let depths = depths.start..depths.end.min(depth);
    // SAFETY: both slices were checked to have room for all depths; every CPU has these lanes.
    unsafe {
        let source = source.as_ptr().cast();
        copy_rows::<lanes::Portable>(source, k_stride as isize, depth, depths, columns, packed.as_mut_ptr());
    }
    Ok(())
}

per_level! {
    /// `(source, k_stride, n_stride, depth, columns, packed)`: packs the matrix whose element `(k, j)` is at
    /// `source + k * k_stride + j * n_stride`, strides in elements, into [`packed_len`] elements at `packed`.
    ///
    /// # Safety
    /// The elements of the matrix can be read, aligned or not, the packed ones written; they do not overlap.
    pub(crate) mod pack_b = run::<lanes>(
        source: *const f32,
        k_stride: i64,
        n_stride: i64,
        depth: u64,
        columns: u64,
        packed: *mut f32,
    );
}

/// # Safety
/// As for [`pack_b`].
#[inline(always)]
pub(super) unsafe fn run<V: Lanes>(
    source: *const f32,
    k_stride: i64,
    n_stride: i64,
    depth: u64,
    columns: u64,
    packed: *mut f32,
) {
    let (k_stride, n_stride, depth, columns) = (k_stride as isize, n_stride as isize, depth as usize, columns as usize);
    if n_stride == 1 {
        // SAFETY: the caller vouches for the elements.
        return unsafe { copy_rows::<V>(source, k_stride, depth, 0..depth, columns, packed) };
    }
    for first in (0..columns).step_by(WIDTH) {
        let lanes = (columns - first).min(WIDTH);
        let source = source.wrapping_offset(first as isize * n_stride);
        let packed = packed.wrapping_add(first * depth);
        // SAFETY: each panel's elements are among those the caller vouches for.
        unsafe {
            if k_stride == 1 && lanes == WIDTH {
                let done = transpose(source, n_stride, depth, packed);
                gather(source, k_stride, n_stride, done..depth, lanes, packed);
            } else {
                gather(source, k_stride, n_stride, 0..depth, lanes, packed);
            }
        }
    }
}

/// Some depths of a matrix whose rows are contiguous: a few rows after the other, so that what is read is read in order, and a
/// page of the source is looked up once.
///
/// # Safety
/// As for [`pack_b`].
#[inline(always)]
unsafe fn copy_rows<V: Lanes>(
    source: *const f32,
    k_stride: isize,
    depth: usize,
    depths: Range<usize>,
    columns: usize,
    packed: *mut f32,
) {
    const ROWS: usize = 16;
    for rows in depths.clone().step_by(ROWS).map(|start| start..(start + ROWS).min(depths.end)) {
        for first in (0..columns).step_by(WIDTH) {
            let lanes = (columns - first).min(WIDTH);
            let mask = V::mask(lanes);
            for k in rows.clone() {
                let source = source.wrapping_offset(k as isize * k_stride).wrapping_add(first);
                // SAFETY: the row has so many columns, of which the mask keeps to those that exist; masked lanes come as
                // zeros. The packed matrix has room for every panel.
                unsafe {
                    let row = if lanes == WIDTH { V::load(source) } else { V::load_masked(source, mask) };
                    row.store(packed.add(first * depth + k * WIDTH));
                }
            }
        }
    }
}

/// One whole panel of a matrix whose columns are contiguous, as far as blocks of four depths go: returns how many depths
/// are done.
///
/// # Safety
/// The elements of the panel can be read and written.
#[inline(always)]
#[cfg(target_arch = "x86_64")]
unsafe fn transpose(source: *const f32, n_stride: isize, depth: usize, packed: *mut f32) -> usize {
    // Four by four with SSE, which every x86-64 has: packing is bound by memory, not by the width of shuffles.
    use core::arch::x86_64::{_MM_TRANSPOSE4_PS, _mm_loadu_ps, _mm_storeu_ps};
    let blocks = depth / 4;
    for k in (0..blocks).map(|block| block * 4) {
        for j in (0..WIDTH).step_by(4) {
            let column = source.wrapping_offset(j as isize * n_stride).wrapping_add(k);
            // SAFETY: four depths from `k` of the four columns from `j` are in the panel.
            unsafe {
                let mut a = _mm_loadu_ps(column);
                let mut b = _mm_loadu_ps(column.wrapping_offset(n_stride));
                let mut c = _mm_loadu_ps(column.wrapping_offset(2 * n_stride));
                let mut d = _mm_loadu_ps(column.wrapping_offset(3 * n_stride));
                _MM_TRANSPOSE4_PS(&mut a, &mut b, &mut c, &mut d);
                let packed = packed.add(k * WIDTH + j);
                for (row, values) in [a, b, c, d].into_iter().enumerate() {
                    _mm_storeu_ps(packed.add(row * WIDTH), values);
                }
            }
        }
    }
    blocks * 4
}

/// Nothing: other CPUs gather.
///
/// # Safety
/// None is needed.
#[inline(always)]
#[cfg(not(target_arch = "x86_64"))]
unsafe fn transpose(_source: *const f32, _n_stride: isize, _depth: usize, _packed: *mut f32) -> usize {
    0
}

/// Some depths of one panel, element by element.
///
/// # Safety
/// The elements of the panel can be read and written.
#[inline(always)]
unsafe fn gather(
    source: *const f32,
    k_stride: isize,
    n_stride: isize,
    depths: Range<usize>,
    lanes: usize,
    packed: *mut f32,
) {
    for k in depths {
        let row = source.wrapping_offset(k as isize * k_stride);
        for j in 0..WIDTH {
            // SAFETY: the depth is in the panel, and only columns that exist are read.
            unsafe {
                let value = if j < lanes { row.wrapping_offset(j as isize * n_stride).read_unaligned() } else { 0.0 };
                packed.add(k * WIDTH + j).write(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{KernelTable, Level};
    use proptest::prelude::*;

    fn check(depth: usize, columns: usize, strides: [usize; 2]) {
        let reach = depth.saturating_sub(1) * strides[0] + columns.saturating_sub(1) * strides[1] + 1;
        let source: Vec<f32> = (0..reach).map(|index| index as f32 + 1.0).collect();
        let expected: Vec<f32> = (0..packed_len(depth, columns))
            .map(|index| {
                let (panel, k, lane) = (index / (WIDTH * depth), index / WIDTH % depth, index % WIDTH);
                let j = panel * WIDTH + lane;
                if j < columns { source[k * strides[0] + j * strides[1]] } else { 0.0 }
            })
            .collect();
        let mut packed = vec![-1.0; expected.len()];
        let mut bytes = vec![0; 1 + 4 * reach];
        let odd = usize::from(bytes.as_ptr().addr().is_multiple_of(4));
        bytes[odd..][..4 * reach].copy_from_slice(bytemuck::cast_slice(&source));
        pack(bytes[odd..].as_chunks().0, strides, depth, columns, &mut packed).unwrap();
        assert_eq!(packed, expected);
        // Integers up to 256 have eight significant bits; the first that has more is in the way.
        let mut halves = vec![1; expected.len()];
        let exact = pack_bf16(bytes[odd..].as_chunks().0, strides, depth, columns, &mut halves).unwrap();
        let fits = expected.iter().all(|number| number.to_bits() & 0xffff == 0);
        assert_eq!(exact, fits, "{depth} {columns} {strides:?}");
        if fits {
            assert!(
                halves.iter().map(|half| u32::from(*half) << 16).eq(expected.iter().map(|number| number.to_bits()))
            );
        }
        for level in Level::available() {
            let mut packed = vec![-1.0; expected.len() + 20];
            let [k_stride, n_stride] = strides.map(|stride| stride as i64);
            // SAFETY: source and destination have the sizes that the strides reach.
            unsafe {
                let pack_b = KernelTable::for_level(level).pack_b;
                pack_b(source.as_ptr(), k_stride, n_stride, depth as u64, columns as u64, packed.as_mut_ptr());
            }
            assert_eq!(packed[..expected.len()], expected, "{level}");
            assert!(packed[expected.len()..].iter().all(|&value| value == -1.0), "{level} wrote beyond the end");
        }
    }

    proptest! {
        #[test]
        fn any_strides(depth in 0usize..40, columns in 0usize..70, spread in 0usize..5, layout in 0..3) {
            check(depth, columns, match layout {
                0 => [columns + spread, 1],
                1 => [1, depth + spread],
                _ => [2 + spread, 2 * depth.max(1) * (2 + spread)],
            });
        }
    }

    #[test]
    fn depths_are_packed_apart() {
        let (depth, columns) = (37, 21);
        let source: Vec<[u8; 4]> = (0..depth * 24).map(|place| (place as f32).to_ne_bytes()).collect();
        let mut whole = vec![0.; packed_len(depth, columns)];
        pack(&source, [24, 1], depth, columns, &mut whole).unwrap();
        let mut parts = vec![-1.; whole.len()];
        for depths in [0..5, 5..30, 30..99] {
            pack_depths(&source, 24, depth, columns, depths, &mut parts).unwrap();
        }
        assert_eq!(parts, whole);
        assert!(pack_depths(&source, 25, depth, columns, 0..1, &mut parts).is_err());
    }

    #[test]
    fn slices_that_are_too_short_are_refused() {
        let (source, mut packed) = ([[0; 4]; 12], [0.0; 48]);
        let beyond = PackError::Source { depth: 3, columns: 5, strides: [5, 1], found: 12 };
        assert_eq!(pack(&source, [5, 1], 3, 5, &mut packed), Err(beyond));
        assert_eq!(
            pack(&source, [4, 1], 3, 4, &mut packed[..47]),
            Err(PackError::Destination { expected: 48, found: 47 })
        );
        assert_eq!(pack(&source, [4, 1], 3, 4, &mut packed), Ok(()));
    }
}
