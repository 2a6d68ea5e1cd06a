//! Packing of weights of bytes into panels of 16 columns, four depths side by side.

use super::DEPTHS;
use crate::kernels::{
    lanes::WIDTH,
    pack::{PackError, check},
};

/// The length of a packed matrix in bytes.
pub const fn packed_len(depth: usize, columns: usize) -> usize {
    columns.next_multiple_of(WIDTH) * depth.next_multiple_of(DEPTHS)
}

/// Packs the matrix whose element `(k, j)` is `source[k * strides[0] + j * strides[1]]`.
///
/// # Errors
/// [`PackError`] when a slice is too short for the sizes.
pub fn pack(
    source: &[i8],
    strides: [usize; 2],
    depth: usize,
    columns: usize,
    packed: &mut [i8],
) -> Result<(), PackError> {
    check(source.len(), strides, [depth, columns], packed.len(), packed_len)?;
    if packed.is_empty() {
        return Ok(());
    }
    let groups = depth.div_ceil(DEPTHS);
    for (panel, target) in packed.chunks_mut(groups * DEPTHS * WIDTH).enumerate() {
        let first = panel * WIDTH;
        let live = WIDTH.min(columns - first);
        for (group, target) in target.as_chunks_mut::<{ DEPTHS * WIDTH }>().0.iter_mut().enumerate() {
            let k = group * DEPTHS;
            let depths = DEPTHS.min(depth - k);
            let (cells, _) = target.as_chunks_mut::<DEPTHS>();
            cells[live..].fill([0; DEPTHS]);
            for (j, cell) in cells[..live].iter_mut().enumerate() {
                let start = k * strides[0] + (first + j) * strides[1];
                *cell = match depths {
                    // One read of four bytes where they lie together.
                    DEPTHS if strides[0] == 1 => std::array::from_fn(|place| source[start..start + DEPTHS][place]),
                    DEPTHS => std::array::from_fn(|place| source[start + place * strides[0]]),
                    _ => {
                        std::array::from_fn(|place| if place < depths { source[start + place * strides[0]] } else { 0 })
                    }
                };
            }
        }
    }
    Ok(())
}
