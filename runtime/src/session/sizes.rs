//! All sizes of a program in one flat table, each different size once, so that binding shapes is one pass over it.
//!
//! [`Size::eval`] walks trees and looks symbols up by name; a program of five hundred kernels has tens of thousands of
//! sizes, most of them equal. The table gives the same values and fails where `Size::eval` fails.

use crate::size::{Factor, Size, SizeError};
use rustc_hash::FxHashMap;
use std::{ops::Range, sync::Arc};

/// A size of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SizeId(u32);

/// How one size is computed from those before it.
#[derive(Clone, Debug)]
enum Entry {
    Constant(i64),
    /// The value of a symbol, by its position in the program.
    Symbol(u32),
    /// A sum of products: positions in [`SizeTable::terms`].
    Sum(Range<u32>),
    FloorDiv(SizeId, SizeId),
    Remainder(SizeId, SizeId),
    Min(SizeId, SizeId),
    Max(SizeId, SizeId),
}

/// A coefficient times sizes: positions in [`SizeTable::factors`].
#[derive(Clone, Debug)]
struct Term {
    coefficient: i64,
    factors: Range<u32>,
}

/// The sizes of a program.
#[derive(Debug, Default)]
pub(crate) struct SizeTable {
    entries: Vec<Entry>,
    terms: Vec<Term>,
    factors: Vec<SizeId>,
    /// The size of each entry, for errors.
    sources: Vec<Size>,
}

/// Fills a [`SizeTable`].
#[derive(Debug, Default)]
pub(super) struct SizeTableBuilder {
    table: SizeTable,
    known: FxHashMap<Size, SizeId>,
    symbols: FxHashMap<Arc<str>, u32>,
}

/// The values of the sizes of a [`SizeTable`] under some bindings.
#[derive(Clone, Debug)]
pub(crate) struct SizeValues(Box<[i64]>);

impl SizeTableBuilder {
    /// A table of sizes over these symbols.
    pub(super) fn new<'name>(symbols: impl Iterator<Item = &'name Arc<str>>) -> SizeTableBuilder {
        let symbols = symbols.enumerate().map(|(position, name)| (name.clone(), position as u32)).collect();
        SizeTableBuilder { symbols, ..Self::default() }
    }

    /// Enters a size; equal sizes get the same place.
    ///
    /// # Errors
    /// The symbol that is not one of the program's.
    pub(super) fn add(&mut self, size: &Size) -> Result<SizeId, Arc<str>> {
        if let Some(id) = self.known.get(size) {
            return Ok(*id);
        }
        let id = match size.as_constant() {
            Some(value) => self.push(Entry::Constant(value), size),
            None => self.add_polynomial(size)?,
        };
        self.known.insert(size.clone(), id);
        Ok(id)
    }

    fn add_polynomial(&mut self, size: &Size) -> Result<SizeId, Arc<str>> {
        let terms = size.terms();
        // The one factor of a monomial without coefficient is the size itself.
        if let [(monomial, 1)] = terms.as_slice()
            && let [factor] = monomial.as_slice()
        {
            let entry = self.entry(factor)?;
            return Ok(self.push(entry, size));
        }
        let mut sum = Vec::with_capacity(terms.len());
        for (monomial, coefficient) in &terms {
            let factors = monomial.iter().map(|factor| self.add_factor(factor)).collect::<Result<Vec<_>, _>>()?;
            let start = self.table.factors.len() as u32;
            self.table.factors.extend(factors);
            sum.push(Term { coefficient: *coefficient, factors: start..self.table.factors.len() as u32 });
        }
        let start = self.table.terms.len() as u32;
        self.table.terms.extend(sum);
        Ok(self.push(Entry::Sum(start..self.table.terms.len() as u32), size))
    }

    fn add_factor(&mut self, factor: &Factor) -> Result<SizeId, Arc<str>> {
        // Symbols come as sizes too, and each is entered once. The others are entered where they stand, under a size that
        // no error asks for: only sums overflow, and divisors are sizes of their own.
        if let Factor::Symbol(name) = factor {
            return self.add(&Size::symbol(name.clone()));
        }
        let source = match factor {
            Factor::FloorDiv(a, _) | Factor::Remainder(a, _) | Factor::Min(a, _) | Factor::Max(a, _) => a.clone(),
            Factor::Symbol(_) => unreachable!("handled above"),
        };
        let entry = self.entry(factor)?;
        Ok(self.push(entry, &source))
    }

    fn entry(&mut self, factor: &Factor) -> Result<Entry, Arc<str>> {
        Ok(match factor {
            Factor::Symbol(name) => Entry::Symbol(*self.symbols.get(name).ok_or_else(|| name.clone())?),
            Factor::FloorDiv(a, b) => Entry::FloorDiv(self.add(a)?, self.add(b)?),
            Factor::Remainder(a, b) => Entry::Remainder(self.add(a)?, self.add(b)?),
            Factor::Min(a, b) => Entry::Min(self.add(a)?, self.add(b)?),
            Factor::Max(a, b) => Entry::Max(self.add(a)?, self.add(b)?),
        })
    }

    fn push(&mut self, entry: Entry, source: &Size) -> SizeId {
        self.table.entries.push(entry);
        self.table.sources.push(source.clone());
        SizeId(self.table.entries.len() as u32 - 1)
    }

    /// The symbol that a size is, if it is one.
    pub(super) fn symbol(&self, id: SizeId) -> Option<u32> {
        match self.table.entries[id.0 as usize] {
            Entry::Symbol(position) => Some(position),
            _ => None,
        }
    }

    /// The table.
    pub(super) fn finish(self) -> SizeTable {
        self.table
    }
}

impl SizeTable {
    /// The values of all sizes, for values of the program's symbols in order.
    ///
    /// # Errors
    /// A divisor that is not positive, or a value outside 64 bits.
    pub(super) fn evaluate(&self, symbols: &[i64]) -> Result<SizeValues, SizeError> {
        let mut values: Vec<i64> = Vec::with_capacity(self.entries.len());
        for (entry, source) in self.entries.iter().zip(&self.sources) {
            let value = |id: &SizeId| values[id.0 as usize];
            let divisor = |id: &SizeId| match value(id) {
                positive if positive > 0 => Ok(positive),
                other => Err(SizeError::Divisor(self.source(*id).clone(), other)),
            };
            values.push(match entry {
                Entry::Constant(value) => *value,
                Entry::Symbol(position) => symbols[*position as usize],
                Entry::Sum(terms) => self.sum(terms, &values).ok_or_else(|| SizeError::Overflow(source.clone()))?,
                Entry::FloorDiv(a, b) => value(a).div_euclid(divisor(b)?),
                Entry::Remainder(a, b) => value(a).rem_euclid(divisor(b)?),
                Entry::Min(a, b) => value(a).min(value(b)),
                Entry::Max(a, b) => value(a).max(value(b)),
            });
        }
        Ok(SizeValues(values.into()))
    }

    fn sum(&self, terms: &Range<u32>, values: &[i64]) -> Option<i64> {
        let terms = &self.terms[terms.start as usize..terms.end as usize];
        terms.iter().try_fold(0i64, |sum, term| {
            let factors = &self.factors[term.factors.start as usize..term.factors.end as usize];
            let product =
                factors.iter().try_fold(term.coefficient, |product, id| product.checked_mul(values[id.0 as usize]))?;
            sum.checked_add(product)
        })
    }

    /// The size that was entered.
    pub(super) fn source(&self, id: SizeId) -> &Size {
        &self.sources[id.0 as usize]
    }

    /// The number of different sizes.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl SizeValues {
    /// The value of a size.
    pub(crate) fn get(&self, id: SizeId) -> i64 {
        self.0[id.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Bindings;
    use proptest::prelude::*;

    fn sizes() -> impl Strategy<Value = Size> {
        let leaf = prop_oneof![
            (-9i64..100).prop_map(Size::from),
            prop::sample::select(vec!["a", "b", "c"]).prop_map(Size::symbol),
        ];
        leaf.prop_recursive(4, 24, 2, |inner| {
            (0..6, inner.clone(), inner).prop_map(|(operation, a, b)| match operation {
                0 => a + b,
                1 => a * b,
                2 => a.floor_div(&b),
                3 => a.remainder(&b),
                4 => a.smaller(&b),
                _ => a.larger(&b),
            })
        })
    }

    proptest! {
        #[test]
        fn the_table_gives_what_evaluation_gives(
            sizes in prop::collection::vec(sizes(), 1..8),
            symbols in prop::collection::vec(0i64..1000, 3),
        ) {
            let names: Vec<Arc<str>> = ["a", "b", "c"].map(Arc::from).into();
            let bindings: Bindings = names.iter().cloned().zip(symbols.iter().copied()).collect();
            let mut builder = SizeTableBuilder::new(names.iter());
            let ids: Vec<SizeId> = sizes.iter().map(|size| builder.add(size).unwrap()).collect();
            let table = builder.finish();
            let expected: Result<Vec<i64>, SizeError> = sizes.iter().map(|size| size.eval(&bindings)).collect();
            match (table.evaluate(&symbols), expected) {
                (Ok(values), Ok(expected)) => {
                    for (id, expected) in ids.iter().zip(expected) {
                        prop_assert_eq!(values.get(*id), expected);
                    }
                }
                (Err(_), Err(_)) => {}
                (found, expected) => prop_assert!(false, "{:?} against {:?}", found, expected),
            }
        }
    }

    #[test]
    fn equal_sizes_are_entered_once() {
        let names = [Arc::from("s")];
        let mut builder = SizeTableBuilder::new(names.iter());
        let size = Size::symbol("s") * Size::from(4);
        let first = builder.add(&size).unwrap();
        assert_eq!(builder.add(&size).unwrap(), first);
        assert_eq!(builder.finish().len(), 2);
    }

    #[test]
    fn unknown_symbols_are_named() {
        let mut builder = SizeTableBuilder::new([].iter());
        assert_eq!(builder.add(&Size::symbol("t")), Err(Arc::from("t")));
    }
}
