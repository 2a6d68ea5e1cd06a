//! Packing of codes into panels of 16 columns, eight depths of four bits in a word, or four of eight.

use super::DEPTHS;
use crate::kernels::{lanes::WIDTH, pack::PackError};

/// The length of packed codes of `bits` bits in words of 32.
pub const fn packed_len(bits: usize, depth: usize, columns: usize) -> usize {
    columns.next_multiple_of(WIDTH) * depth.div_ceil(DEPTHS) * (bits / 4)
}

/// Packs the codes of `bits` bits, four or eight, of a matrix, of which `code` says that at a depth and a column; those beyond the
/// matrix are zero.
///
/// # Errors
/// [`PackError`] when the destination has not the length [`packed_len`] gives.
pub fn pack(
    bits: usize,
    depth: usize,
    columns: usize,
    code: impl Fn(usize, usize) -> u32,
    packed: &mut [u32],
) -> Result<(), PackError> {
    let expected = packed_len(bits, depth, columns);
    if packed.len() != expected {
        return Err(PackError::Destination { expected, found: packed.len() });
    }
    let (of_panel, of_word) = (packed_len(bits, depth, WIDTH), 32 / bits);
    for (place, word) in packed.iter_mut().enumerate() {
        let (panel, place) = (place / of_panel, place % of_panel);
        let (first, column) = (place / WIDTH * of_word, panel * WIDTH + place % WIDTH);
        let depths = if column < columns { first..depth.min(first + of_word) } else { 0..0 };
        *word = depths.fold(0, |word, k| word | ((code(k, column) % (1 << bits)) << (k % of_word * bits)));
    }
    Ok(())
}
