//! Packing of bf16 into panels of 16 columns, two depths side by side.

use super::DEPTHS;
use crate::kernels::{
    lanes::WIDTH,
    pack::{PackError, check},
};

/// The length of a packed matrix in numbers.
pub const fn packed_len(depth: usize, columns: usize) -> usize {
    columns.next_multiple_of(WIDTH) * depth.next_multiple_of(DEPTHS)
}

/// Packs the matrix whose element `(k, j)` is `source[k * strides[0] + j * strides[1]]`: a panel holds, for every two depths in
/// order, those of its 16 columns. What is beyond the matrix is zero.
///
/// # Errors
/// [`PackError`] when a slice is too short for the sizes.
pub fn pack(
    source: &[[u8; 2]],
    strides: [usize; 2],
    depth: usize,
    columns: usize,
    packed: &mut [u16],
) -> Result<(), PackError> {
    check(source.len(), strides, [depth, columns], packed.len(), packed_len)?;
    let panel_length = depth.next_multiple_of(DEPTHS) * WIDTH;
    for (panel, target) in packed.chunks_mut(panel_length.max(1)).enumerate() {
        let first = panel * WIDTH;
        for (pair, target) in target.chunks_exact_mut(DEPTHS * WIDTH).enumerate() {
            for (place, target) in target.iter_mut().enumerate() {
                let (k, j) = (pair * DEPTHS + place % DEPTHS, first + place / DEPTHS);
                let inside = k < depth && j < columns;
                *target = if inside { u16::from_ne_bytes(source[k * strides[0] + j * strides[1]]) } else { 0 };
            }
        }
    }
    Ok(())
}
