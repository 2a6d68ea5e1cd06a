//! Weights in which few numbers occur: packed as codes of four bits, with a book that says which number a code stands for.
//!
//! Nothing is rounded: what was quantised before, by whichever method, is found by its numbers. So layers that were split and
//! then joined by rewriting are one product again, at four bits a weight.

use super::{
    pack::{FEWEST, Matrices, PANEL},
    scaled::Scales,
};
use rayon::prelude::*;
use strang_ir::{ElementType, Tensor};
use strang_runtime::{
    kernels::book::{CODES, pack, packed_len},
    tensor::{Cut, Spare},
};

/// Bits of a code.
const BITS: usize = 4;
/// Known numbers of a column that are looked at.
const KNOWN: usize = 64;
/// Panels that one task packs.
const TASK: usize = 4;

/// Matrices as codes.
pub struct Codes {
    /// The codes of every matrix.
    pub codes: Tensor,
    /// The numbers.
    pub book: Tensor,
    /// When each column has numbers of its own, how many at most are used; 0 otherwise.
    pub by_column: u8,
    /// What the numbers are scaled by.
    pub scales: Option<Scales>,
}

/// Numbers that occur, as bits, ascending.
type Numbers = Vec<u32>;

impl Matrices {
    /// Whether some column has more numbers than there are codes, and numbers that are no bf16, as a part of matrices tells that
    /// are still to be computed.
    pub(super) fn is_of_many_numbers(&self) -> bool {
        let Some(Cut { axis, .. }) = self.source.cut() else { return false };
        if self.starts.len() * self.depth * self.columns < FEWEST {
            return false;
        }
        let shape = self.source.shape();
        let Some(part) = self.source.part(0..shape[axis].min(CODES + 1), &mut Spare::default()) else { return false };
        let inner: usize = shape[axis + 1..].iter().product();
        let (extent, known) = (shape[axis], part.shape()[axis]);
        let bits = |place: usize| {
            let (outer, index) = (place / inner / extent, place / inner % extent);
            (index < known).then(|| part.bits_at((outer * known + index) * inner + place % inner) as u32)
        };
        let has_many = |start: usize| {
            let mut numbers = Numbers::new();
            let of_column = (0..self.depth).filter_map(|k| bits(start + k * self.strides[0]));
            of_column.take(KNOWN).any(|bits| insert(&mut numbers, bits).is_none())
                && numbers.iter().any(|bits| bits & 0xffff != 0)
        };
        (0..PANEL.min(self.columns)).any(|column| has_many(self.starts[0] + column * self.strides[1]))
    }

    /// Matrices of f32 as codes, if no more than sixteen numbers occur in all of them or in each column.
    pub(super) fn codes(&self, bytes: &[u8]) -> Option<Codes> {
        if self.starts.len() * self.depth * self.columns < FEWEST {
            return None;
        }
        let values: &[[u8; 4]] = bytes.as_chunks().0;
        let of_columns = self.occurring(values)?;
        let shared = union(&of_columns);
        let by_column = match shared {
            Some(_) => 0,
            None => of_columns.iter().map(Vec::len).max()? as u8,
        };
        let numbers = |column: usize| shared.as_ref().unwrap_or(&of_columns[column]);
        let book: Vec<f32> = match by_column {
            0 => (0..CODES).map(|code| number(numbers(0), code)).collect(),
            _ => (0..self.columns.next_multiple_of(PANEL) * CODES)
                .map(|place| (place / (CODES * PANEL) * PANEL + place % PANEL, place / PANEL % CODES))
                .map(|(column, code)| if column < self.columns { number(numbers(column), code) } else { 0. })
                .collect(),
        };
        let words = packed_len(BITS, self.depth, self.columns);
        let mut codes = Tensor::lasting(ElementType::U32, &[self.starts.len(), words]).ok()?;
        let target = codes.as_mut_slice::<u32>().ok()?;
        let part = TASK * packed_len(BITS, self.depth, PANEL);
        target.par_chunks_mut(words).zip(&self.starts).try_for_each(|(target, start)| {
            target.par_chunks_mut(part).enumerate().try_for_each(|(task, target)| {
                let first = task * TASK * PANEL;
                let code = |k: usize, column: usize| {
                    let bits = self.bits(values, *start, k, first + column);
                    numbers(first + column).partition_point(|number| *number < bits) as u32
                };
                pack(BITS, self.depth, (self.columns - first).min(TASK * PANEL), code, target).ok()
            })
        })?;
        Some(Codes { codes, book: Tensor::from_slice(&[book.len()], &book).ok()?, by_column, scales: None })
    }

    fn bits(&self, values: &[[u8; 4]], start: usize, k: usize, column: usize) -> u32 {
        u32::from_ne_bytes(values[start + k * self.strides[0] + column * self.strides[1]])
    }

    /// What occurs in each column; `None` as soon as that is too much.
    fn occurring(&self, values: &[[u8; 4]]) -> Option<Vec<Numbers>> {
        let panels: Option<Vec<Vec<Numbers>>> = (0..self.columns)
            .into_par_iter()
            .step_by(PANEL)
            .map(|first| {
                // A panel at a time, since columns often lie side by side.
                let mut found = vec![Numbers::new(); PANEL.min(self.columns - first)];
                for start in &self.starts {
                    for k in 0..self.depth {
                        for (column, numbers) in found.iter_mut().enumerate() {
                            insert(numbers, self.bits(values, *start, k, first + column))?;
                        }
                    }
                }
                Some(found)
            })
            .collect();
        Some(panels?.into_iter().flatten().collect())
    }
}

/// Adds a number if it is new; `None` when there are too many then.
fn insert(numbers: &mut Numbers, bits: u32) -> Option<()> {
    if let Err(place) = numbers.binary_search(&bits) {
        if numbers.len() == CODES {
            return None;
        }
        numbers.insert(place, bits);
    }
    Some(())
}

fn union(of_columns: &[Numbers]) -> Option<Numbers> {
    let mut all = Numbers::new();
    of_columns.iter().flatten().try_for_each(|bits| insert(&mut all, *bits))?;
    Some(all)
}

fn number(numbers: &Numbers, code: usize) -> f32 {
    numbers.get(code).map_or(0., |bits| f32::from_bits(*bits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::pack::tests::Computed;

    /// Matrices that are still to be computed, by rows of their source.
    fn is_of_many(number: fn(usize) -> f32, strides: [usize; 2], [depth, columns]: [usize; 2]) -> bool {
        let values: Vec<f32> = (0..depth * columns).map(number).collect();
        let shape = if strides[1] == 1 { [depth, columns] } else { [columns, depth] };
        let computed = Computed { whole: Tensor::from_slice(&shape, &values).unwrap(), axis: 0, length: 1 };
        let matrices = Matrices { source: computed.tensor(), starts: vec![0], strides, depth, columns };
        let is_of_many = matrices.is_of_many_numbers();
        assert!(matrices.source.is_deferred());
        is_of_many
    }

    #[test]
    fn a_part_tells_of_many_numbers() {
        let many = |place: usize| place as f32 + 0.1;
        assert!(is_of_many(many, [1, 128], [128, 64]));
        assert!(is_of_many(many, [64, 1], [128, 64]));
        // Too few to tell, in a column or in all.
        assert!(!is_of_many(many, [512, 1], [16, 512]));
        assert!(!is_of_many(many, [1, 32], [32, 64]));
        assert!(!is_of_many(|place| (place % 16) as f32 + 0.1, [1, 128], [128, 64]));
        // bf16 holds them all.
        assert!(!is_of_many(|place| (place % 128) as f32, [1, 128], [128, 64]));
    }
}
