//! Extraction as an integer program, which audits the greedy one.
//!
//! Every term has a variable that is 1 where it is taken. A root takes one of its terms; a term takes one of each class that
//! it reads. Classes that could read one another in a circle have places in an order, and a term's class comes after those that it reads
//! (Miller, Tucker and Zemlin 1960). Costs are those of terms by themselves, as the greedy extraction
//! starts from, so that their sum is linear. The work is limited by counts, never by time: where a limit is met, the best bound
//! is reported.

use super::{
    cost::Target,
    extract::{Choice, Price, assembled, own_price, reachable},
};
use crate::rewrite::egraph::{Graph, Term};
use egg::{Id, Language};
use microlp::{ComparisonOp, OptimizationDirection, Problem, SolveOptions, Variable};
use petgraph::{Directed, algo::tarjan_scc, graphmap::GraphMap};
use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Windows with more terms are not audited.
const TERMS: usize = 2_000;
/// Nodes of a branch and bound.
const NODES: u64 = 50_000;
/// Seconds as the solver counts them, near 1.
const UNIT: f64 = 1e-6;

/// How far the greedy extraction of a window is from the best.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Audit {
    /// The terms of the window.
    pub terms: usize,
    /// Seconds of the greedy choice, each term by itself.
    pub greedy: f64,
    /// Seconds that no choice is below; those of the best where `exact`.
    pub bound: f64,
    /// Whether the bound is met.
    pub exact: bool,
}

impl Audit {
    /// How much the greedy choice costs more than the bound, as a share.
    pub fn gap(&self) -> f64 {
        if self.greedy > self.bound { self.greedy / self.bound.max(f64::MIN_POSITIVE) - 1. } else { 0. }
    }
}

/// Audits a greedy choice. The best choice comes with the report where it is found; nothing for windows that are too large.
pub fn audit(
    graph: &Graph,
    target: &Target,
    roots: &[Id],
    price: Price,
    greedy: &Choice,
) -> Option<(Audit, Option<Choice>)> {
    let program = Program::new(graph, target, roots, price)?;
    let own = |id: Id, term: &Term| own_price(graph, target, price, term, id);
    let sum = |terms: &FxHashMap<Id, Term>| terms.iter().map(|(id, term)| own(*id, term)).sum::<f64>();
    let greedy_sum = sum(&greedy.terms);
    let terms = reachable(graph, roots).iter().map(|id| graph[*id].nodes.len()).sum();
    let report = |bound: f64, exact: bool| Audit { terms, greedy: greedy_sum, bound, exact };
    let Some((chosen, bound, optimal)) = program.solve(greedy) else { return Some((report(0., false), None)) };
    let choice = assembled(graph, target, roots, price, chosen);
    if !choice.is_acyclic(graph) {
        return Some((report(bound, false), None));
    }
    let bound = if optimal { sum(&choice.terms) } else { bound };
    Some((report(bound, optimal), Some(choice)))
}

/// The integer program of a window.
struct Program {
    problem: Problem,
    /// The terms that may be taken, with their variables, by class.
    variables: FxHashMap<Id, Vec<(Term, Variable)>>,
    roots: Vec<Id>,
}

impl Program {
    fn new(graph: &Graph, target: &Target, roots: &[Id], price: Price) -> Option<Self> {
        let classes = reachable(graph, roots);
        if classes.iter().map(|id| graph[*id].nodes.len()).sum::<usize>() > TERMS {
            return None;
        }
        let mut problem = Problem::new(OptimizationDirection::Minimize);
        let mut variables: FxHashMap<Id, Vec<(Term, Variable)>> = FxHashMap::default();
        let is_free = |id: Id| graph[id].nodes.iter().any(Term::is_leaf);
        for id in classes.iter().copied().filter(|id| !is_free(*id)) {
            let reads_itself = |term: &&Term| term.children().iter().any(|child| graph.find(*child) == id);
            let mut taken: Vec<(Term, f64, FxHashSet<Id>)> = Vec::new();
            for term in graph[id].nodes.iter().filter(|term| !reads_itself(term)) {
                let reads: FxHashSet<Id> =
                    term.children().iter().map(|child| graph.find(*child)).filter(|child| !is_free(*child)).collect();
                let own = own_price(graph, target, price, term, id);
                // What costs no less and reads no less than another is never needed.
                if !taken.iter().any(|(_, other, less)| *other <= own && less.is_subset(&reads)) {
                    taken.push((term.clone(), own, reads));
                }
            }
            let of_class = taken.into_iter().map(|(term, own, _)| (term, problem.add_binary_var(own / UNIT)));
            variables.insert(id, of_class.collect());
        }
        let roots: Vec<Id> = roots.iter().map(|id| graph.find(*id)).filter(|id| !is_free(*id)).collect();
        for root in &roots {
            let one: Vec<(Variable, f64)> = variables[root].iter().map(|(_, variable)| (*variable, 1.)).collect();
            problem.add_constraint(&one[..], ComparisonOp::Ge, 1.);
        }
        for id in &classes {
            for (term, variable) in variables.get(id).into_iter().flatten() {
                let mut told: FxHashSet<Id> = FxHashSet::default();
                for child in term.children().iter().map(|child| graph.find(*child)) {
                    let Some(of_child) = variables.get(&child).filter(|_| told.insert(child)) else { continue };
                    let mut row: Vec<(Variable, f64)> = of_child.iter().map(|(_, other)| (*other, 1.)).collect();
                    row.push((*variable, -1.));
                    problem.add_constraint(&row[..], ComparisonOp::Ge, 0.);
                }
            }
        }
        forbid_circles(graph, &mut problem, &variables);
        Some(Program { problem, variables, roots })
    }

    /// The terms that a solution takes, seconds that none is below, and whether it is proven the best.
    fn solve(&self, start: &Choice) -> Option<(FxHashMap<Id, Term>, f64, bool)> {
        let mut order: Vec<(&Id, &Vec<(Term, Variable)>)> = self.variables.iter().collect();
        order.sort_by_key(|(id, _)| **id);
        let of_start = |id: &Id, term: &Term| f64::from(start.terms.get(id) == Some(term));
        let hint =
            order.iter().flat_map(|(id, terms)| terms.iter().map(|(term, v)| (*v, of_start(id, term)))).collect();
        let mut options = SolveOptions::default();
        (options.node_limit, options.warm_start) = (Some(NODES), Some(hint));
        let solution = self.problem.solve_with(options).ok()?.into_solution().ok()?;
        let bound = solution.stats().best_bound.unwrap_or(0.) * UNIT;
        let mut terms: FxHashMap<Id, Term> = FxHashMap::default();
        let mut pending = self.roots.clone();
        while let Some(id) = pending.pop() {
            let Some(of_class) = self.variables.get(&id).filter(|_| !terms.contains_key(&id)) else { continue };
            let most = of_class.iter().max_by(|a, b| solution.var_value(a.1).total_cmp(&solution.var_value(b.1)));
            let (term, _) = most?;
            terms.insert(id, term.clone());
            pending.extend(term.children().iter().filter(|child| self.variables.contains_key(child)));
        }
        Some((terms, bound, solution.stats().gap == Some(0.)))
    }
}

/// Has the classes of every possible circle stand in an order: with `x` for whether a class takes a term that reads another, and
/// places from 0 to `n`, `place(class) - place(child) >= 1 - (n + 1) (1 - x)`. Circles of two and three are forbidden outright, which bounds
/// the relaxation better.
fn forbid_circles(graph: &Graph, problem: &mut Problem, variables: &FxHashMap<Id, Vec<(Term, Variable)>>) {
    let mut classes: Vec<Id> = variables.keys().copied().collect();
    classes.sort_unstable();
    // For a class and what it reads: the terms that do.
    let mut reads: BTreeMap<(Id, Id), Vec<Variable>> = BTreeMap::new();
    for id in &classes {
        for (term, variable) in &variables[id] {
            let children: BTreeSet<Id> = term.children().iter().map(|child| graph.find(*child)).collect();
            for child in children.into_iter().filter(|child| variables.contains_key(child)) {
                reads.entry((*id, child)).or_default().push(*variable);
            }
        }
    }
    let edges = reads.keys().map(|(id, child)| (usize::from(*id), usize::from(*child)));
    let circles = tarjan_scc(&GraphMap::<usize, (), Directed>::from_edges(edges));
    for circle in circles.into_iter().filter(|circle| circle.len() > 1) {
        let most = circle.len() as f64;
        let circle: BTreeSet<Id> = circle.into_iter().map(Id::from).collect();
        let places: FxHashMap<Id, Variable> = circle.iter().map(|id| (*id, problem.add_var(0., (0., most)))).collect();
        let inside: Vec<(&(Id, Id), &Vec<Variable>)> =
            reads.iter().filter(|((id, child), _)| circle.contains(id) && circle.contains(child)).collect();
        for id in &circle {
            let one: Vec<(Variable, f64)> = variables[id].iter().map(|(_, variable)| (*variable, 1.)).collect();
            problem.add_constraint(&one[..], ComparisonOp::Le, 1.);
        }
        for ((id, child), takes) in &inside {
            let mut row = vec![(places[id], 1.), (places[child], -1.)];
            row.extend(takes.iter().map(|variable| (*variable, -(most + 1.))));
            problem.add_constraint(&row[..], ComparisonOp::Ge, -most);
            forbid(problem, &reads, &[*id, *child]);
            for ((_, third), _) in inside.iter().filter(|((other, _), _)| other == child) {
                forbid(problem, &reads, &[*id, *child, *third]);
            }
        }
    }
}

/// Forbids a circle of classes in this order, where there can be one; each circle once.
fn forbid(problem: &mut Problem, reads: &BTreeMap<(Id, Id), Vec<Variable>>, circle: &[Id]) {
    let next = |place: usize| (circle[place], circle[(place + 1) % circle.len()]);
    let first = circle.iter().min() == circle.first();
    if first && (0..circle.len()).all(|place| reads.contains_key(&next(place))) {
        let takes = (0..circle.len()).flat_map(|place| &reads[&next(place)]);
        let row: Vec<(Variable, f64)> = takes.map(|variable| (*variable, 1.)).collect();
        problem.add_constraint(&row[..], ComparisonOp::Le, circle.len() as f64 - 1.);
    }
}
