//! The best term of every class, greedily, counting what is shared once.
//!
//! For every class the best term so far is kept with the set of classes that its circuit needs. A term is better when the
//! classes it needs cost less together, each counted once; a term that needs its own class is none. The sets grow cheaper
//! until nothing changes. Terms are tried in a fixed order, those of the circuit before those of rules, and replace another
//! only when they are cheaper. A class is looked at again when a class that it reads became cheaper.

use crate::rewrite::egraph::{Graph, Term};
use egg::{Id, Language};
use rustc_hash::FxHashMap;
use std::{ops::Range, rc::Rc};

/// A term that a class may be.
pub struct Candidate<'a> {
    /// The term.
    pub term: &'a Term,
    /// The places of the classes that it reads.
    operands: Vec<usize>,
}

/// The classes below the roots, by their places, and the terms of all of them.
pub struct Classes<'a> {
    /// The classes, operands of first terms first.
    pub ids: Vec<Id>,
    /// The place of each.
    pub places: FxHashMap<Id, usize>,
    /// The terms, class by class.
    pub candidates: Vec<Candidate<'a>>,
    ranges: Vec<Range<usize>>,
    /// The classes that read each.
    readers: Vec<Vec<usize>>,
}

/// The best term of a class.
#[derive(Clone)]
pub struct Best {
    /// The term, among the candidates.
    pub candidate: usize,
    own: f64,
    /// The classes that are needed, this one among them.
    needs: Rc<[u64]>,
    /// What they cost together.
    pub total: f64,
}

impl Best {
    /// A term of which nothing is known.
    pub fn given(candidate: usize) -> Self {
        Best { candidate, own: 0., needs: Rc::default(), total: 0. }
    }
}

impl<'a> Classes<'a> {
    /// The classes of a graph: all that the roots reach.
    pub fn new(graph: &'a Graph, ids: Vec<Id>) -> Self {
        let places: FxHashMap<Id, usize> = ids.iter().enumerate().map(|(place, id)| (*id, place)).collect();
        let (mut candidates, mut ranges) = (Vec::new(), Vec::with_capacity(ids.len()));
        let mut readers: Vec<Vec<usize>> = vec![Vec::new(); ids.len()];
        for (place, id) in ids.iter().enumerate() {
            let start = candidates.len();
            for term in &graph[*id].nodes {
                let operands: Vec<usize> = term.children().iter().map(|child| places[&graph.find(*child)]).collect();
                for operand in &operands {
                    if readers[*operand].last() != Some(&place) {
                        readers[*operand].push(place);
                    }
                }
                candidates.push(Candidate { term, operands });
            }
            ranges.push(start..candidates.len());
        }
        Classes { ids, places, candidates, ranges, readers }
    }

    /// The candidates of the class at a place, by their numbers.
    pub fn of(&self, place: usize) -> Range<usize> {
        self.ranges[place].clone()
    }

    /// The best terms where each costs its price by itself.
    pub fn cheapest(&self, prices: &[f64]) -> Vec<Option<Best>> {
        let mut best = vec![None; self.ids.len()];
        self.improve(prices, &mut best, vec![true; self.ids.len()]);
        best
    }

    /// Improves best terms, starting at some classes of which a price fell. Says whether a class chose another term.
    pub fn improve(&self, prices: &[f64], best: &mut [Option<Best>], mut waiting: Vec<bool>) -> bool {
        let mut needs = vec![0; self.ids.len().div_ceil(64)];
        let mut chose = false;
        // Costs only fall, and a choice travels up one class a round at least, so as many rounds as there are classes are
        // enough; more would chase rounding.
        for _ in 0..=self.ids.len() {
            let mut changed = false;
            for place in 0..self.ids.len() {
                if !std::mem::take(&mut waiting[place]) {
                    continue;
                }
                for candidate in self.of(place) {
                    let below = best[place].as_ref().map_or(f64::INFINITY, |old| old.total * (1. - 1e-9) - 1e-15);
                    let Some(total) = self.circuit(best, (candidate, place, prices[candidate]), below, &mut needs)
                    else {
                        continue;
                    };
                    chose |= best[place].as_ref().is_none_or(|old| old.candidate != candidate);
                    best[place] = Some(Best { candidate, own: prices[candidate], needs: (&needs[..]).into(), total });
                    self.readers[place].iter().for_each(|reader| waiting[*reader] = true);
                    changed = true;
                }
            }
            if !changed {
                break;
            }
        }
        chose
    }

    /// What the circuit of a candidate of the class at a place costs more than the best of it; `None` if it has none.
    pub fn excess(&self, best: &[Option<Best>], (candidate, place, own): (usize, usize, f64)) -> Option<f64> {
        let mut needs = vec![0; self.ids.len().div_ceil(64)];
        let total = self.circuit(best, (candidate, place, own), f64::INFINITY, &mut needs)?;
        Some(total - best[place].as_ref()?.total)
    }

    /// What the circuit of a candidate of the class at a place costs, which costs `own` by itself, and into `needs` the classes
    /// that it needs. `None` unless that is less than `below` and all its operands have a circuit without its own class.
    fn circuit(
        &self,
        best: &[Option<Best>],
        (candidate, place, own): (usize, usize, f64),
        below: f64,
        needs: &mut [u64],
    ) -> Option<f64> {
        // Together they cost no less than one of them.
        for operand in &self.candidates[candidate].operands {
            if own + best[*operand].as_ref()?.total * (1. - 1e-6) >= below {
                return None;
            }
        }
        needs.fill(0);
        for operand in &self.candidates[candidate].operands {
            let operand = best[*operand].as_ref()?;
            needs.iter_mut().zip(&operand.needs[..]).for_each(|(mine, theirs)| *mine |= theirs);
        }
        let bit = 1 << (place % 64);
        if needs[place / 64] & bit != 0 {
            return None;
        }
        let mut total = own;
        for (word, bits) in needs.iter().enumerate() {
            let mut bits = *bits;
            while bits != 0 {
                total += best[word * 64 + bits.trailing_zeros() as usize].as_ref().map_or(0., |needed| needed.own);
                bits &= bits - 1;
            }
            // Nothing costs less than nothing.
            if total >= below {
                return None;
            }
        }
        needs[place / 64] |= bit;
        (total < below).then_some(total)
    }

    /// The best term of every class where each term pays for all that it reads: every cost is more than those of its operands,
    /// and falls strictly.
    pub fn trees(&self, prices: &[f64]) -> Vec<Option<Best>> {
        let mut best: Vec<Option<Best>> = vec![None; self.ids.len()];
        let mut changed = true;
        while std::mem::take(&mut changed) {
            for place in 0..self.ids.len() {
                for candidate in self.of(place) {
                    let operands = self.candidates[candidate].operands.iter();
                    let operands = operands.map(|operand| Some(best[*operand].as_ref()?.total)).sum::<Option<f64>>();
                    let Some(total) = operands.map(|operands| prices[candidate] + operands) else { continue };
                    if best[place].as_ref().is_none_or(|old| total < old.total * (1. - 1e-12)) {
                        best[place] = Some(Best { total, ..Best::given(candidate) });
                        changed = true;
                    }
                }
            }
        }
        best
    }
}
