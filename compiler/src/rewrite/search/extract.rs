//! Extraction: the cheapest acyclic circuit of an e-graph, greedily, counting what is shared once.
//!
//! For every class the best term so far is kept with the set of classes that its circuit needs and their costs. A term is
//! better when the classes it needs cost less together, each counted once; a term that needs its own class is none. The
//! sets grow cheaper until nothing changes; where choices that changed late close a circle, each term pays for all that it reads instead. Terms are tried in a fixed order, those of the circuit before those of rules,
//! and replace another only when they are cheaper.

use super::cost::{Target, cost};
use crate::rewrite::egraph::{Graph, Term};
use egg::{Id, Language};
use rustc_hash::{FxHashMap, FxHashSet};

/// The chosen term of every class that the roots need.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// The terms.
    pub terms: FxHashMap<Id, Term>,
    /// The classes, operands first.
    pub order: Vec<Id>,
    /// What they cost together, in seconds.
    pub cost: f64,
}

struct Best {
    term: Term,
    own: f64,
    /// The classes that are needed, this one among them.
    needs: Vec<u64>,
    total: f64,
}

/// What a term of a class counts, given what it costs by itself.
pub type Price<'a> = &'a dyn Fn(&Term, Id, f64) -> f64;

/// What a term counts where the best terms of all classes are taken.
type Real<'a> = &'a dyn Fn(&[Option<Best>], Id, &Term) -> f64;

/// The terms of every class with what each costs by itself.
type Priced = Vec<Vec<(Term, f64)>>;

/// Extracts the roots. `price` says what a term counts whose cost is given.
pub fn extract(graph: &Graph, target: &Target, roots: &[Id], price: Price) -> Choice {
    let reachable = reachable(graph, roots);
    let places: FxHashMap<Id, usize> = reachable.iter().enumerate().map(|(place, id)| (*id, place)).collect();
    // The costs of terms do not depend on choices.
    let mut terms: Priced = reachable
        .iter()
        .map(|id| {
            let own = |term: &Term| own_price(graph, target, price, term, *id);
            graph[*id].nodes.iter().map(|term| (term.clone(), own(term))).collect()
        })
        .collect();
    let real = |best: &[Option<Best>], id: Id, term: &Term| {
        let chosen = |id: Id| best[places[&id]].as_ref().map(|best| &best.term);
        price(term, id, cost(graph, target, term, id, &chosen))
    };
    let mut best = greedy(graph, &places, &terms);
    let mut choice = chosen(graph, roots, &places, &best, &real);
    // What pays only for several readers together none of them chooses, and what is a result anyway each of them avoids: is
    // it better if it is there already?
    for whole in graph.analysis.wholes.iter().chain(roots) {
        let prepaid = chosen(graph, &[*whole], &places, &best, &real);
        if prepaid.order.is_empty() || prepaid.order.len() == choice.order.len() {
            continue;
        }
        let mut with = terms.clone();
        for (id, chosen) in &prepaid.terms {
            with[places[id]].iter_mut().filter(|(term, _)| term == chosen).for_each(|(_, own)| *own = 0.);
        }
        let other = greedy(graph, &places, &with);
        let together = chosen(graph, roots, &places, &other, &real);
        if together.cost < choice.cost * (1. - 1e-9) && together.is_acyclic(graph) {
            (choice, best, terms) = (together, other, with);
        }
    }
    if !choice.is_acyclic(graph) {
        // A term was changed after another relied on it. Costs that count what is shared every time cannot close a circle.
        choice = chosen(graph, roots, &places, &trees(graph, &places, &terms), &real);
    }
    choice
}

/// The best term of every class where each term pays for all that it reads: every cost is more than those of its operands,
/// and falls strictly.
fn trees(graph: &Graph, places: &FxHashMap<Id, usize>, terms: &Priced) -> Vec<Option<Best>> {
    let mut best: Vec<Option<Best>> = (0..terms.len()).map(|_| None).collect();
    let mut changed = true;
    while std::mem::take(&mut changed) {
        for place in 0..terms.len() {
            for (term, own) in &terms[place] {
                let operands =
                    term.children().iter().map(|child| Some(best[places[&graph.find(*child)]].as_ref()?.total));
                let Some(total) = operands.sum::<Option<f64>>().map(|operands| own + operands) else { continue };
                if best[place].as_ref().is_none_or(|old| total < old.total * (1. - 1e-12)) {
                    best[place] = Some(Best { term: term.clone(), own: *own, needs: Vec::new(), total });
                    changed = true;
                }
            }
        }
    }
    best
}

/// What a term counts by itself, whatever else is chosen.
pub fn own_price(graph: &Graph, target: &Target, price: Price, term: &Term, id: Id) -> f64 {
    price(term, id, cost(graph, target, term, id, &|_| None))
}

/// The choice of one term a class, without circles, completed by leaves.
pub fn assembled(graph: &Graph, target: &Target, roots: &[Id], price: Price, terms: FxHashMap<Id, Term>) -> Choice {
    let reachable = reachable(graph, roots);
    let places: FxHashMap<Id, usize> = reachable.iter().enumerate().map(|(place, id)| (*id, place)).collect();
    let best: Vec<Option<Best>> = reachable
        .iter()
        .map(|id| {
            let leaf = || graph[*id].nodes.iter().find(|term| term.is_leaf()).cloned();
            let term = terms.get(id).cloned().or_else(leaf)?;
            Some(Best { term, own: 0., needs: Vec::new(), total: 0. })
        })
        .collect();
    let real = |best: &[Option<Best>], id: Id, term: &Term| {
        let chosen = |id: Id| best[places[&id]].as_ref().map(|best| &best.term);
        price(term, id, cost(graph, target, term, id, &chosen))
    };
    chosen(graph, roots, &places, &best, &real)
}

/// What each of some terms of classes costs more, with all that it needs, than what is cheapest there; `None` where nothing
/// that the roots need can be made of it.
pub fn excess(graph: &Graph, target: &Target, roots: &[Id], terms: &[(Id, Term)]) -> Vec<Option<f64>> {
    let reachable = reachable(graph, roots);
    let places: FxHashMap<Id, usize> = reachable.iter().enumerate().map(|(place, id)| (*id, place)).collect();
    let own = |term: &Term, id: Id| cost(graph, target, term, id, &|_| None);
    let priced: Priced = reachable
        .iter()
        .map(|id| graph[*id].nodes.iter().map(|term| (term.clone(), own(term, *id))).collect())
        .collect();
    let best = greedy(graph, &places, &priced);
    let mut needs = vec![0; reachable.len().div_ceil(64)];
    let excess = terms.iter().map(|(id, term)| {
        let place = *places.get(id)?;
        let total = circuit(graph, &places, &best, (term, place, own(term, *id)), f64::INFINITY, &mut needs)?;
        Some(total - best[place].as_ref()?.total)
    });
    excess.collect()
}

/// The best term of every class, each for itself. Costs only fall from round to round, and a choice travels up one class a
/// round at least, so as many rounds as there are classes are enough; more would chase rounding.
fn greedy(graph: &Graph, places: &FxHashMap<Id, usize>, terms: &Priced) -> Vec<Option<Best>> {
    let mut needs = vec![0; terms.len().div_ceil(64)];
    let mut best: Vec<Option<Best>> = (0..terms.len()).map(|_| None).collect();
    for _ in 0..=terms.len() {
        let mut changed = false;
        for place in 0..terms.len() {
            for (term, own) in &terms[place] {
                let below = best[place].as_ref().map_or(f64::INFINITY, |old| old.total * (1. - 1e-9) - 1e-15);
                if let Some(total) = circuit(graph, places, &best, (term, place, *own), below, &mut needs) {
                    best[place] = Some(Best { term: term.clone(), own: *own, needs: needs.clone(), total });
                    changed = true;
                }
            }
        }
        if !changed {
            break;
        }
    }
    best
}

/// What the circuit of a term of the class at a place costs, which costs `own` by itself, and into `needs` the classes that it
/// needs. `None` unless that is less than `below` and all its operands have a circuit without its own class.
fn circuit(
    graph: &Graph,
    places: &FxHashMap<Id, usize>,
    best: &[Option<Best>],
    (term, place, own): (&Term, usize, f64),
    below: f64,
    needs: &mut [u64],
) -> Option<f64> {
    needs.fill(0);
    for child in term.children() {
        let operand = best[places[&graph.find(*child)]].as_ref()?;
        needs.iter_mut().zip(&operand.needs).for_each(|(mine, theirs)| *mine |= theirs);
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

/// The classes below the roots, operands of the first terms first.
pub fn reachable(graph: &Graph, roots: &[Id]) -> Vec<Id> {
    let mut seen: FxHashSet<Id> = FxHashSet::default();
    let mut order = Vec::new();
    let mut pending: Vec<(Id, bool)> = roots.iter().rev().map(|root| (graph.find(*root), false)).collect();
    while let Some((id, done)) = pending.pop() {
        if done {
            order.push(id);
        } else if seen.insert(id) {
            pending.push((id, true));
            for term in &graph[id].nodes {
                pending.extend(term.children().iter().map(|child| (graph.find(*child), false)));
            }
        }
    }
    order
}

/// What the roots need of the best terms. Choices change after others relied on them, which could close a circle; a class
/// that is met below itself is a fault that the caller sees as a missing term.
fn chosen(graph: &Graph, roots: &[Id], places: &FxHashMap<Id, usize>, best: &[Option<Best>], real: Real) -> Choice {
    let mut choice = Choice::default();
    let mut open: FxHashSet<Id> = FxHashSet::default();
    let mut pending: Vec<(Id, bool)> = roots.iter().rev().map(|root| (graph.find(*root), false)).collect();
    while let Some((id, done)) = pending.pop() {
        let Some(found) = places.get(&id).and_then(|place| best[*place].as_ref()) else { continue };
        if done {
            open.remove(&id);
            choice.cost += real(best, id, &found.term);
            choice.order.push(id);
            choice.terms.insert(id, found.term.clone());
        } else if !choice.terms.contains_key(&id) && open.insert(id) {
            pending.push((id, true));
            pending.extend(found.term.children().iter().rev().map(|child| (graph.find(*child), false)));
        }
    }
    choice
}

impl Choice {
    /// Whether every operand comes before what reads it.
    pub fn is_acyclic(&self, graph: &Graph) -> bool {
        let mut seen: FxHashSet<Id> = FxHashSet::default();
        self.order.iter().all(|id| {
            let ready = self.terms[id].children().iter().all(|child| seen.contains(&graph.find(*child)));
            seen.insert(*id);
            ready
        })
    }
}
