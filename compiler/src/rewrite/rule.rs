//! Rules as values: a name, a class, a law, where it comes from, patterns, a semantic guard, and what to build.
//!
//! The structure is an egg pattern; the applier computes new signatures with the algebra of index maps. The guard is apart
//! from profit: it says when the law holds, one conjunct at a time, each with a circuit where it alone fails, so that tests
//! can check that every conjunct is needed. Whether a rewrite pays is decided by extraction.

use super::{
    egraph::{Facts, Graph, Knowledge, Read, Term, build, compose::compose, facts::Applied},
    lazy::Lazy,
};
use crate::plan::trace::variable_positions;
use egg::{Applier, ENodeOrVar, Id, Language, PatternAst, RecExpr, Rewrite, Subst, Symbol};
use rustc_hash::FxHasher;
use std::{
    hash::{Hash, Hasher},
    sync::{Arc, LazyLock},
};
use strang_ir::{
    ElementType, IndexMap, Literal, Node,
    scalar::{Binary, Unary},
};

/// How equal the two sides of a rule are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// The bits are equal (zeros may differ in sign only where the law says so).
    Bit,
    /// Equal over the reals; floats may round elsewhere.
    Real,
    /// Not equal: there is an error to measure. Never a union.
    Approximate,
}

impl Class {
    /// The word that stands for it in lists.
    pub fn name(self) -> &'static str {
        match self {
            Class::Bit => "bit",
            Class::Real => "real",
            Class::Approximate => "approximate",
        }
    }
}

/// One condition of a rule's law.
pub struct Conjunct {
    /// What must hold.
    pub text: &'static str,
    /// Whether it does.
    pub holds: fn(&Match) -> bool,
    /// A circuit where everything but this holds, and the law fails.
    pub counterexample: &'static str,
}

/// What a rule looks for.
pub enum Find {
    /// Terms that match a pattern; the applier builds an equal class.
    Patterns(&'static [&'static str], fn(&mut Match) -> Option<Id>),
    /// Nothing: the constructor of terms does it wherever terms are built.
    Built,
    /// Several terms at once, between two runs of the other rules.
    Whole(fn(&mut Graph, usize) -> usize),
}

/// A law of circuits.
pub struct Rule {
    /// What receipts call it.
    pub name: &'static str,
    /// How equal its sides are.
    pub class: Class,
    /// The law, in one line.
    pub law: &'static str,
    /// Where it comes from.
    pub source: &'static str,
    /// What it looks for and what it builds.
    pub find: Find,
    /// When the law holds.
    pub guard: &'static [Conjunct],
    /// Circuits that it changes.
    pub examples: &'static [&'static str],
}

/// A match of a rule: the classes that the pattern's variables stand for.
pub struct Match<'a> {
    /// The e-graph.
    pub graph: &'a mut Graph,
    /// Which pattern of the rule matched.
    pub pattern: usize,
    names: &'a [Box<str>],
    ids: Vec<Id>,
}

impl Match<'_> {
    /// The class of a variable of the pattern, named without its question mark.
    ///
    /// # Panics
    /// When the pattern has no such variable: a mistake in the rule.
    pub fn id(&self, name: &str) -> Id {
        let place = self.names.iter().position(|other| **other == *name);
        self.ids[place.unwrap_or_else(|| panic!("the pattern has no ?{name}"))]
    }

    /// Whether the pattern has a variable.
    pub fn has(&self, name: &str) -> bool {
        self.names.iter().any(|other| **other == *name)
    }

    /// What is known of a variable.
    pub fn facts(&self, name: &str) -> &Facts {
        &self.graph[self.id(name)].data
    }

    /// The node of the signature that a variable is.
    pub fn node(&self, name: &str) -> Arc<Node> {
        let number = self.facts(name).signature.unwrap_or_default();
        self.graph.analysis.signatures.node(number).clone()
    }

    /// The number that a variable is everywhere.
    pub fn literal(&self, name: &str) -> Option<Literal> {
        self.facts(name).literal
    }

    /// Whether a variable is this number everywhere (zeros of either sign are one).
    pub fn is(&self, name: &str, value: f64) -> bool {
        self.literal(name).is_some_and(|literal| literal.is(value))
    }

    /// Whether a variable is this number everywhere, as nearly as two roundings in its type leave it.
    pub fn is_about(&self, name: &str, value: f64) -> bool {
        let unit = match self.facts(name).element() {
            ElementType::F64 => f64::EPSILON,
            ElementType::F16 => 1e-3,
            ElementType::BF16 => 8e-3,
            _ => f64::from(f32::EPSILON),
        };
        self.literal(name).is_some_and(|literal| (literal.to_f64() - value).abs() <= 2. * unit * value.abs())
    }

    /// A read of a variable where a node reads it in a slot.
    pub fn read(&self, node: &str, slot: usize, value: &str) -> Read {
        Read { value: self.id(value), map: self.node(node).maps[slot].clone() }
    }

    /// A read of a variable at the end of a path of nodes and slots, in the variables of the first node. `None` where one
    /// reads the next with a fill.
    pub fn through(&self, path: &[(&str, usize)], value: &str) -> Option<Read> {
        Some(Read { value: self.id(value), map: self.position_of(path)? })
    }

    /// Where the value at the end of a path is read, as [`Match::through`].
    pub fn position_of(&self, path: &[(&str, usize)]) -> Option<IndexMap> {
        let (first, slot) = path[0];
        let outer = self.node(first);
        let mut map = outer.maps[slot].clone();
        for (name, slot) in &path[1..] {
            if map.fill.is_some() {
                return None;
            }
            let inner = self.node(name);
            let positions = variable_positions(&inner, 0, &map.exprs);
            map = compose(&inner.maps[*slot], &positions, &|v| outer.size_of(v));
        }
        Some(map)
    }

    /// A number of the element type of a variable.
    pub fn number(&mut self, like: &str, value: f64) -> Read {
        let element = self.facts(like).element();
        Read::number(build::number(self.graph, Literal::from_f64(element, value)))
    }

    /// Builds a map of a function of one value over the output of a node.
    pub fn unary(&mut self, frame: &str, function: Unary, read: Read) -> Id {
        let frame = self.node(frame);
        build::unary(self.graph, &frame, function, read)
    }

    /// Builds a map of a function of two values over the output of a node.
    pub fn binary(&mut self, frame: &str, function: Binary, a: Read, b: Read) -> Id {
        let frame = self.node(frame);
        build::binary(self.graph, &frame, function, a, b)
    }

    /// Builds a view of a read over the output of a node: the read itself, where it is whole.
    pub fn view(&mut self, frame: &str, read: Read) -> Id {
        let frame = self.node(frame);
        build::view(self.graph, &frame, read)
    }

    /// A read of a result over the output of a node, position by position.
    pub fn whole(&self, frame: &str, value: Id) -> Read {
        build::whole(&self.node(frame), value)
    }
}

/// A rule as egg takes it.
pub struct Compiled {
    rewrites: Vec<Rewrite<Term, Knowledge>>,
}

impl Compiled {
    /// The rewrites of one pattern each.
    pub fn rewrites(&self) -> &[Rewrite<Term, Knowledge>] {
        &self.rewrites
    }

    /// The rewrites of a rule; without the conjunct `removed` of its guard, if one is given.
    pub fn new(number: usize, rule: &'static Rule, removed: Option<usize>) -> Self {
        let Find::Patterns(patterns, apply) = rule.find else { return Compiled { rewrites: Vec::new() } };
        let compile = |(place, text): (usize, &&'static str)| {
            let searcher = Arc::new(Lazy::new(text));
            let names = searcher.variables.iter().map(|variable| variable.to_string()[1..].into()).collect();
            let applier = Application { number, rule, removed, apply, names, place, searcher: searcher.clone() };
            Rewrite::new(format!("{}/{place}", rule.name), searcher, applier).unwrap_or_else(|error| panic!("{error}"))
        };
        Compiled { rewrites: patterns.iter().enumerate().map(compile).collect() }
    }
}

/// Every rule, once.
pub static COMPILED: LazyLock<Vec<Compiled>> = LazyLock::new(|| {
    super::rules::all().iter().enumerate().map(|(number, rule)| Compiled::new(number, rule, None)).collect()
});

struct Application {
    number: usize,
    rule: &'static Rule,
    removed: Option<usize>,
    apply: fn(&mut Match) -> Option<Id>,
    names: Vec<Box<str>>,
    place: usize,
    searcher: Arc<Lazy>,
}

impl Applier<Term, Knowledge> for Application {
    fn apply_one(
        &self,
        graph: &mut Graph,
        class: Id,
        found: &Subst,
        _: Option<&PatternAst<Term>>,
        _: Symbol,
    ) -> Vec<Id> {
        let bound =
            |graph: &Graph| self.searcher.variables.iter().map(|variable| graph.find(found[*variable])).collect();
        let ids = bound(graph);
        let matched = Match { graph, pattern: self.place, names: &self.names, ids };
        // What was applied is not asked about again: the guard held.
        let mut hasher = FxHasher::default();
        (self.number, self.place, matched.graph.find(class), &matched.ids).hash(&mut hasher);
        let key = hasher.finish();
        if matched.graph.analysis.done.contains(&key) {
            return Vec::new();
        }
        let conjuncts = self.rule.guard.iter().enumerate();
        let mut broken =
            conjuncts.filter(|(position, part)| Some(*position) != self.removed && !(part.holds)(&matched));
        if let Some((conjunct, _)) = broken.next() {
            if matched.graph.analysis.explain && broken.next().is_none() {
                let origin = matched.graph[class].data.origin;
                matched.graph.analysis.refusals.insert((self.number, conjunct, origin));
            }
            return Vec::new();
        }
        let graph = matched.graph;
        let terms = |graph: &Graph| instantiated(graph, &self.searcher.pattern().ast, found);
        let outcome = record(graph, self.number, class, terms, |graph| {
            let ids = bound(graph);
            (self.apply)(&mut Match { graph, pattern: self.place, names: &self.names, ids })
        });
        if outcome != Recorded::Nothing {
            graph.analysis.done.insert(key);
        }
        if outcome == Recorded::Merged { vec![class] } else { Vec::new() }
    }
}

/// What became of an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// The rule built nothing, or something of another shape.
    Nothing,
    /// What it built is in the class already.
    Known,
    /// Two classes became one.
    Merged,
}

/// Builds something equal to a class and merges the two, noting which terms are new and why.
pub fn record(
    graph: &mut Graph,
    rule: usize,
    class: Id,
    matched: impl FnOnce(&Graph) -> Vec<Term>,
    build: impl FnOnce(&mut Graph) -> Option<Id>,
) -> Recorded {
    if graph.analysis.applied.len() >= graph.analysis.fuel {
        return Recorded::Nothing;
    }
    let before = graph.nodes().len();
    graph.analysis.origin = graph[class].data.origin;
    let built = build(graph);
    graph.analysis.origin = u32::MAX;
    let Some(built) = built else { return Recorded::Nothing };
    if graph[built].data.ports != graph[class].data.ports {
        graph.analysis.refused += 1;
        return Recorded::Nothing;
    }
    if graph.find(built) == graph.find(class) {
        return Recorded::Known;
    }
    let operation = |term: &&Term| matches!(term, Term::Apply(..));
    let new = graph.nodes()[before..].iter().filter(operation).cloned().collect();
    let matched = matched(graph);
    graph.analysis.applied.push(Applied { rule, class, new, matched });
    graph.union(class, built);
    Recorded::Merged
}

/// The operations of a pattern with its variables bound.
fn instantiated(graph: &Graph, pattern: &PatternAst<Term>, found: &Subst) -> Vec<Term> {
    let nodes: &RecExpr<ENodeOrVar<Term>> = pattern;
    let mut ids: Vec<Option<Id>> = Vec::with_capacity(nodes.len());
    let mut terms = Vec::new();
    for node in nodes {
        ids.push(match node {
            ENodeOrVar::Var(variable) => Some(graph.find(found[*variable])),
            ENodeOrVar::ENode(term) => {
                let bound: Option<Vec<Id>> = term.children().iter().map(|child| ids[usize::from(*child)]).collect();
                bound.and_then(|bound| {
                    let mut places = bound.into_iter();
                    let term = term.clone().map_children(|id| places.next().unwrap_or(id));
                    let id = graph.lookup(term.clone());
                    terms.push(term);
                    id
                })
            }
        });
    }
    terms
}
