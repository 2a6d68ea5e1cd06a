//! From a choice back to the rules that led to it, and to those that nearly did.

use super::{
    cost::Target,
    extract::{Choice, excess},
};
use crate::rewrite::{
    Obstacle,
    egraph::{Graph, Term},
};
use egg::{Id, Language};
use rustc_hash::{FxHashMap, FxHashSet};

/// The rules that shaped a choice, each once for a node of the window, in order of application.
pub fn shaped(graph: &Graph, choice: &Choice) -> Vec<(usize, u32)> {
    let mut applied = Vec::new();
    for position in causes(graph, choice) {
        let application = &graph.analysis.applied[position];
        let found = (application.rule, graph[application.class].data.origin);
        if !applied.contains(&found) {
            applied.push(found);
        }
    }
    applied
}

/// The applications that made what was chosen, and those that made what these matched, in order.
fn causes(graph: &Graph, choice: &Choice) -> Vec<usize> {
    let chosen: FxHashSet<&Term> = choice.terms.values().collect();
    let all = &graph.analysis.applied;
    let mut made: FxHashMap<Term, usize> = FxHashMap::default();
    for (position, application) in all.iter().enumerate() {
        for term in &application.new {
            made.entry(canonical(graph, term)).or_insert(position);
        }
    }
    let mut pending: Vec<usize> = Vec::new();
    for (position, application) in all.iter().enumerate() {
        let found = if application.new.is_empty() {
            // It says that two terms that were there are equal: it counts where the whole that it matched is gone.
            let class = graph.find(application.class);
            let whole = application.matched.last().map(|term| canonical(graph, term));
            choice.terms.get(&class).is_some_and(|term| Some(term) != whole.as_ref())
                && whole.is_some_and(|whole| !chosen.contains(&whole))
        } else {
            application.new.iter().any(|term| chosen.contains(&canonical(graph, term)))
        };
        if found {
            pending.push(position);
        }
    }
    let mut used: FxHashSet<usize> = FxHashSet::default();
    while let Some(position) = pending.pop() {
        if used.insert(position) {
            let causes = all[position].matched.iter().filter_map(|term| made.get(&canonical(graph, term)));
            pending.extend(causes.copied().filter(|cause| *cause < position));
        }
    }
    let mut used: Vec<usize> = used.into_iter().collect();
    used.sort_unstable();
    used
}

fn canonical(graph: &Graph, term: &Term) -> Term {
    term.clone().map_children(|id| graph.find(id))
}

/// The rules that did not shape what was chosen, with the nodes of the window and what stopped them: those whose guard has
/// one conjunct that does not hold, and those that built what was not cheaper.
pub fn missed(graph: &Graph, target: &Target, roots: &[Id], shaped: &[(usize, u32)]) -> Vec<(usize, u32, Obstacle)> {
    let mut tried: Vec<((usize, u32), (Id, Term))> = Vec::new();
    for application in &graph.analysis.applied {
        let class = graph.find(application.class);
        let key = (application.rule, graph[class].data.origin);
        let new: Vec<Term> = application.new.iter().map(|term| canonical(graph, term)).collect();
        let built = graph[class].nodes.iter().find(|term| new.contains(term));
        if let Some(built) = built
            && !shaped.contains(&key)
            && tried.iter().all(|(other, _)| *other != key)
        {
            tried.push((key, (class, built.clone())));
        }
    }
    let (keys, terms): (Vec<_>, Vec<_>) = tried.into_iter().unzip();
    let excess = excess(graph, target, roots, &terms);
    let costly = keys.into_iter().zip(excess);
    let mut missed: Vec<(usize, u32, Obstacle)> =
        costly.filter_map(|((rule, origin), seconds)| Some((rule, origin, Obstacle::Cost(seconds?)))).collect();
    let is_told = |rule: usize, origin: u32, missed: &[(usize, u32, Obstacle)]| {
        shaped.contains(&(rule, origin)) || missed.iter().any(|(other, place, _)| (*other, *place) == (rule, origin))
    };
    let mut refusals: Vec<_> = graph.analysis.refusals.iter().copied().collect();
    refusals.sort_unstable();
    for (rule, conjunct, origin) in refusals {
        if !is_told(rule, origin, &missed) {
            missed.push((rule, origin, Obstacle::Guard(conjunct)));
        }
    }
    missed.sort_by_key(|(rule, origin, _)| (*origin, *rule));
    missed
}
