//! Extraction: the cheapest acyclic circuit of an e-graph, out of the best terms of its classes; where choices that changed late
//! close a circle, each term pays for all that it reads instead.

use super::{
    cost::{Target, cost},
    greedy::{Best, Classes},
};
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

/// What a term of a class counts, given what it costs by itself.
pub type Price<'a> = &'a dyn Fn(&Term, Id, f64) -> f64;

/// What a term counts where the best terms of all classes are taken.
type Real<'a> = &'a dyn Fn(&[Option<Best>], Id, &Term) -> f64;

/// Extracts the roots. `price` says what a term counts whose cost is given.
pub fn extract(graph: &Graph, target: &Target, roots: &[Id], price: Price) -> Choice {
    let classes = Classes::new(graph, reachable(graph, roots));
    // The costs of terms do not depend on choices.
    let mut prices = prices(graph, target, price, &classes);
    let real = real(graph, target, price, &classes);
    let mut best = classes.cheapest(&prices);
    let mut choice = chosen(graph, roots, &classes, &best, &real);
    // What pays only for several readers together none of them chooses, and what is a result anyway each of them avoids: is
    // it better if it is there already?
    for whole in graph.analysis.wholes.iter().chain(roots) {
        let prepaid = chosen(graph, &[*whole], &classes, &best, &real);
        if prepaid.order.is_empty() || prepaid.order.len() == choice.order.len() {
            continue;
        }
        let (mut other, mut with, mut waiting) = (best.clone(), prices.clone(), vec![false; classes.ids.len()]);
        for place in prepaid.order.iter().map(|id| classes.places[id]) {
            if let Some(best) = &best[place] {
                with[best.candidate] = 0.;
                waiting[place] = true;
            }
        }
        if !classes.improve(&with, &mut other, waiting) {
            continue;
        }
        let together = chosen(graph, roots, &classes, &other, &real);
        if together.cost < choice.cost * (1. - 1e-9) && together.is_acyclic(graph) {
            (choice, best, prices) = (together, other, with);
        }
    }
    if !choice.is_acyclic(graph) {
        // A term was changed after another relied on it. Costs that count what is shared every time cannot close a circle.
        choice = chosen(graph, roots, &classes, &classes.trees(&prices), &real);
    }
    choice
}

/// What each candidate counts by itself.
fn prices(graph: &Graph, target: &Target, price: Price, classes: &Classes) -> Vec<f64> {
    let of = |place: usize| classes.of(place).map(move |candidate| (place, candidate));
    let own = |(place, candidate): (usize, usize)| {
        own_price(graph, target, price, classes.candidates[candidate].term, classes.ids[place])
    };
    (0..classes.ids.len()).flat_map(of).map(own).collect()
}

/// What a term counts where others are chosen.
fn real<'a>(
    graph: &'a Graph,
    target: &'a Target,
    price: Price<'a>,
    classes: &'a Classes,
) -> impl Fn(&[Option<Best>], Id, &Term) -> f64 + 'a {
    move |best, id, term| {
        let chosen = |id: Id| best[classes.places[&id]].as_ref().map(|best| classes.candidates[best.candidate].term);
        price(term, id, cost(graph, target, term, id, &chosen))
    }
}

/// What a term counts by itself, whatever else is chosen.
pub fn own_price(graph: &Graph, target: &Target, price: Price, term: &Term, id: Id) -> f64 {
    price(term, id, cost(graph, target, term, id, &|_| None))
}

/// The choice of one term a class, without circles, completed by leaves.
pub fn assembled(graph: &Graph, target: &Target, roots: &[Id], price: Price, terms: FxHashMap<Id, Term>) -> Choice {
    let classes = Classes::new(graph, reachable(graph, roots));
    let given = |place: usize| {
        let given = terms.get(&classes.ids[place]);
        let is_given = |candidate: &usize| {
            let term = classes.candidates[*candidate].term;
            given.map_or_else(|| term.is_leaf(), |given| given == term)
        };
        classes.of(place).find(is_given).map(Best::given)
    };
    let best: Vec<Option<Best>> = (0..classes.ids.len()).map(given).collect();
    chosen(graph, roots, &classes, &best, &real(graph, target, price, &classes))
}

/// What each of some terms of classes costs more, with all that it needs, than what is cheapest there; `None` where nothing
/// that the roots need can be made of it.
pub fn excess(graph: &Graph, target: &Target, roots: &[Id], terms: &[(Id, Term)]) -> Vec<Option<f64>> {
    let classes = Classes::new(graph, reachable(graph, roots));
    let prices = prices(graph, target, &|_, _, own| own, &classes);
    let best = classes.cheapest(&prices);
    let excess = terms.iter().map(|(id, term)| {
        let place = *classes.places.get(id)?;
        let candidate = classes.of(place).find(|candidate| classes.candidates[*candidate].term == term)?;
        classes.excess(&best, (candidate, place, prices[candidate]))
    });
    excess.collect()
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
fn chosen(graph: &Graph, roots: &[Id], classes: &Classes, best: &[Option<Best>], real: Real) -> Choice {
    let mut choice = Choice::default();
    let mut open: FxHashSet<Id> = FxHashSet::default();
    let mut pending: Vec<(Id, bool)> = roots.iter().rev().map(|root| (graph.find(*root), false)).collect();
    while let Some((id, done)) = pending.pop() {
        let Some(found) = classes.places.get(&id).and_then(|place| best[*place].as_ref()) else { continue };
        let term = classes.candidates[found.candidate].term;
        if done {
            open.remove(&id);
            choice.cost += real(best, id, term);
            choice.order.push(id);
            choice.terms.insert(id, term.clone());
        } else if !choice.terms.contains_key(&id) && open.insert(id) {
            pending.push((id, true));
            pending.extend(term.children().iter().rev().map(|child| (graph.find(*child), false)));
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
