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
        let (cells, _) = target.as_chunks_mut::<DEPTHS>().0.as_chunks_mut::<WIDTH>();
        let live = WIDTH.min(columns - first);
        let matrix = &source[first * strides[1]..];
        if strides[1] == 1 && live == WIDTH {
            pack_rows(matrix, strides[0], depth, cells);
        } else {
            for place in 0..WIDTH {
                let column = if place < live { matrix.get(place * strides[1]..) } else { None };
                pack_column(column, strides[0], depth, place, cells);
            }
        }
    }
    Ok(())
}

/// A panel of a matrix whose rows lie side by side: four of them are interleaved.
fn pack_rows(matrix: &[i8], stride: usize, depth: usize, cells: &mut [[[i8; DEPTHS]; WIDTH]]) {
    for (group, cells) in cells.iter_mut().enumerate() {
        let row = |place: usize| -> [i8; WIDTH] {
            let k = group * DEPTHS + place;
            if k < depth { std::array::from_fn(|column| matrix[k * stride..][..WIDTH][column]) } else { [0; WIDTH] }
        };
        let rows: [[i8; WIDTH]; DEPTHS] = std::array::from_fn(row);
        for (column, cell) in cells.iter_mut().enumerate() {
            *cell = std::array::from_fn(|place| rows[place][column]);
        }
    }
}

/// One column of a panel, or zeros.
fn pack_column(column: Option<&[i8]>, stride: usize, depth: usize, place: usize, cells: &mut [[[i8; DEPTHS]; WIDTH]]) {
    let Some(column) = column else {
        cells.iter_mut().for_each(|cells| cells[place] = [0; DEPTHS]);
        return;
    };
    let (whole, last) = cells.split_at_mut(depth / DEPTHS);
    if stride == 1 {
        // One read of four bytes.
        for (cells, four) in whole.iter_mut().zip(column.as_chunks::<DEPTHS>().0) {
            cells[place] = *four;
        }
    } else {
        for (group, cells) in whole.iter_mut().enumerate() {
            let four = &column[group * DEPTHS * stride..][..(DEPTHS - 1) * stride + 1];
            cells[place] = std::array::from_fn(|depth| four[depth * stride]);
        }
    }
    let rest = depth / DEPTHS * DEPTHS;
    for cells in last {
        cells[place] = std::array::from_fn(|k| if rest + k < depth { column[(rest + k) * stride] } else { 0 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows side by side, columns side by side, and taps of a convolution, with ends that fill no panel and no group of depths.
    #[test]
    fn panels_hold_the_matrix() {
        for (depth, columns) in [(1, 1), (3, 17), (4, 16), (9, 40), (16, 32)] {
            for strides in [[columns, 1], [1, depth], [9, 9 * depth], [columns + 3, 1], [2, 3 * depth]] {
                let length = (depth - 1) * strides[0] + (columns - 1) * strides[1] + 1;
                let source: Vec<i8> = (0..length).map(|place| (place * 7 + 1) as i8).collect();
                let mut packed = vec![99; packed_len(depth, columns)];
                pack(&source, strides, depth, columns, &mut packed).unwrap();
                let groups = depth.div_ceil(DEPTHS);
                for (place, found) in packed.into_iter().enumerate() {
                    let (cell, within) = (place / DEPTHS, place % DEPTHS);
                    let k = cell / WIDTH % groups * DEPTHS + within;
                    let j = cell / WIDTH / groups * WIDTH + cell % WIDTH;
                    let is_inside = k < depth && j < columns;
                    let expected = if is_inside { source[k * strides[0] + j * strides[1]] } else { 0 };
                    assert_eq!(found, expected, "{depth} {columns} {strides:?} at {place}");
                }
            }
        }
    }
}
