//! Packing of codes into panels of 16 columns, eight depths in a word.

use super::DEPTHS;
use crate::kernels::{lanes::WIDTH, pack::PackError};

/// The length of packed codes in words of 32 bits.
pub const fn packed_len(depth: usize, columns: usize) -> usize {
    columns.next_multiple_of(WIDTH) * depth.div_ceil(DEPTHS)
}

/// Packs the codes of a matrix, of which `code` says that at a depth and a column: below 16.
///
/// # Errors
/// [`PackError`] when the destination has not the length [`packed_len`] gives.
pub fn pack(
    depth: usize,
    columns: usize,
    code: impl Fn(usize, usize) -> u32,
    packed: &mut [u32],
) -> Result<(), PackError> {
    let expected = packed_len(depth, columns);
    if packed.len() != expected {
        return Err(PackError::Destination { expected, found: packed.len() });
    }
    for (place, word) in packed.iter_mut().enumerate() {
        let (panel, place) = (place / (depth.div_ceil(DEPTHS) * WIDTH), place % (depth.div_ceil(DEPTHS) * WIDTH));
        let (first, column) = (place / WIDTH * DEPTHS, panel * WIDTH + place % WIDTH);
        let depths = if column < columns { first..depth.min(first + DEPTHS) } else { 0..0 };
        *word = depths.fold(0, |word, k| word | ((code(k, column) % 16) << (k % DEPTHS * 4)));
    }
    Ok(())
}
