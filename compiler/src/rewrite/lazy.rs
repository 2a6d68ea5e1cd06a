//! Patterns that are compiled when they may match: small models have few kinds of operations, and most patterns name others.

use super::egraph::{Graph, Knowledge, Tag, Term};
use egg::{ENodeOrVar, Id, Language, Pattern, SearchMatches, Searcher, Var};
use std::sync::{Arc, OnceLock};

/// A pattern as text, and compiled once it is needed.
pub struct Lazy {
    text: &'static str,
    tags: Vec<Tag>,
    /// The operations from the outermost to what the variables stand for.
    depth: usize,
    /// The variables, in the order of the text.
    pub variables: Vec<Var>,
    compiled: OnceLock<Pattern<Term>>,
}

impl Lazy {
    /// A pattern.
    ///
    /// # Panics
    /// When it names an operation that there is none of: a mistake in the rule.
    pub fn new(text: &'static str) -> Self {
        let (mut tags, mut variables) = (Vec::new(), Vec::new());
        let (mut open, mut depth) = (0, 0);
        for word in text.split_whitespace() {
            let (word, closed) = (word.trim_end_matches(')'), word.matches(')').count());
            if let Some(name) = word.strip_prefix('(') {
                open += 1;
                depth = depth.max(open);
                tags.push(Tag::from_name(name).unwrap_or_else(|| panic!("{text}: there is no operation {name}")));
            } else if word.starts_with('?') {
                let variable = word.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
                if !variables.contains(&variable) {
                    variables.push(variable);
                }
            }
            open -= closed;
        }
        Lazy { text, tags, depth, variables, compiled: OnceLock::new() }
    }

    /// The pattern, compiled.
    ///
    /// # Panics
    /// When the text is none: a mistake in the rule.
    pub fn pattern(&self) -> &Pattern<Term> {
        self.compiled.get_or_init(|| self.text.parse().unwrap_or_else(|error| panic!("{}: {error}", self.text)))
    }

    /// The classes in which the pattern may match as it did not before: those of its outermost operation that something
    /// changed near, in a graph that has all the operations that the pattern names.
    fn classes<'a>(&'a self, graph: &'a Graph) -> impl Iterator<Item = Id> + 'a {
        let has_all = self.tags.iter().all(|tag| graph.analysis.tags.contains(tag));
        let outermost = || match self.pattern().ast.last() {
            Some(ENodeOrVar::ENode(term)) => graph.classes_for_op(&term.discriminant()),
            _ => None,
        };
        let of_operation = has_all.then(outermost).flatten();
        of_operation.into_iter().flatten().filter(|class| graph.analysis.changes.is_near(*class, self.depth + BEYOND))
    }
}

/// Operations beyond what a pattern matches that its rule may ask about: views are read through.
const BEYOND: usize = 1;

impl Searcher<Term, Knowledge> for Arc<Lazy> {
    fn search_with_limit(&self, graph: &Graph, limit: usize) -> Vec<SearchMatches<'_, Term>> {
        self.classes(graph).filter_map(|class| self.pattern().search_eclass_with_limit(graph, class, limit)).collect()
    }

    fn search_eclass_with_limit(&self, graph: &Graph, class: Id, limit: usize) -> Option<SearchMatches<'_, Term>> {
        self.pattern().search_eclass_with_limit(graph, class, limit)
    }

    fn vars(&self) -> Vec<Var> {
        self.variables.clone()
    }
}
