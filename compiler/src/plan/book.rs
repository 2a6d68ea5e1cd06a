//! Weights in which few numbers occur: packed as codes of four bits, with a book that says which number a code stands for.
//!
//! Nothing is rounded: what was quantised before, by whichever method, is found by its numbers. So layers that were split and
//! then joined by rewriting are one product again, at four bits a weight.

use super::pack::{FEWEST, Matrices};
use rayon::prelude::*;
use strang_ir::{ElementType, Tensor};
use strang_runtime::kernels::book::{CODES, pack, packed_len};

/// Columns of a panel.
const PANEL: usize = 16;
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
}

/// Numbers that occur, as bits, ascending.
type Numbers = Vec<u32>;

impl Matrices<'_> {
    /// Matrices of f32 as codes, if no more than sixteen numbers occur in all of them or in each column.
    pub(super) fn codes(&self) -> Option<Codes> {
        if self.starts.len() * self.depth * self.columns < FEWEST {
            return None;
        }
        let of_columns = self.numbers()?;
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
        let words = packed_len(self.depth, self.columns);
        let mut codes = Tensor::lasting(ElementType::U32, &[self.starts.len(), words]).ok()?;
        let target = codes.as_mut_slice::<u32>().ok()?;
        let part = TASK * packed_len(self.depth, PANEL);
        target.par_chunks_mut(words).zip(&self.starts).try_for_each(|(target, start)| {
            target.par_chunks_mut(part).enumerate().try_for_each(|(task, target)| {
                let first = task * TASK * PANEL;
                let code = |k: usize, column: usize| {
                    let bits = self.bits(*start, k, first + column);
                    numbers(first + column).partition_point(|number| *number < bits) as u32
                };
                pack(self.depth, (self.columns - first).min(TASK * PANEL), code, target).ok()
            })
        })?;
        Some(Codes { codes, book: Tensor::from_slice(&[book.len()], &book).ok()?, by_column })
    }

    fn bits(&self, start: usize, k: usize, column: usize) -> u32 {
        let values: &[[u8; 4]] = self.bytes.as_chunks().0;
        u32::from_ne_bytes(values[start + k * self.strides[0] + column * self.strides[1]])
    }

    /// What occurs in each column; `None` as soon as that is too much.
    fn numbers(&self) -> Option<Vec<Numbers>> {
        let last =
            self.starts.iter().max()? + (self.depth - 1) * self.strides[0] + (self.columns - 1) * self.strides[1];
        if last >= self.bytes.len() / 4 {
            return None;
        }
        let panels: Option<Vec<Vec<Numbers>>> = (0..self.columns)
            .into_par_iter()
            .step_by(PANEL)
            .map(|first| {
                // A panel at a time, since columns often lie side by side.
                let mut found = vec![Numbers::new(); PANEL.min(self.columns - first)];
                for start in &self.starts {
                    for k in 0..self.depth {
                        for (column, numbers) in found.iter_mut().enumerate() {
                            insert(numbers, self.bits(*start, k, first + column))?;
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
