//! Patterns that are compiled when they may match: small models have few kinds of operations, and most patterns name others.

use super::egraph::{Graph, Knowledge, Tag, Term};
use egg::{Id, Pattern, SearchMatches, Searcher, Var};
use std::sync::{Arc, OnceLock};

/// A pattern as text, and compiled once it is needed.
pub struct Lazy {
    text: &'static str,
    tags: Vec<Tag>,
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
        for word in text.split(|letter: char| letter.is_whitespace() || letter == ')') {
            if let Some(name) = word.strip_prefix('(') {
                tags.push(Tag::from_name(name).unwrap_or_else(|| panic!("{text}: there is no operation {name}")));
            } else if word.starts_with('?') {
                let variable = word.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
                if !variables.contains(&variable) {
                    variables.push(variable);
                }
            }
        }
        Lazy { text, tags, variables, compiled: OnceLock::new() }
    }

    /// The pattern, compiled.
    ///
    /// # Panics
    /// When the text is none: a mistake in the rule.
    pub fn pattern(&self) -> &Pattern<Term> {
        self.compiled.get_or_init(|| self.text.parse().unwrap_or_else(|error| panic!("{}: {error}", self.text)))
    }

    /// Whether a graph has the operations that the pattern names.
    fn may_match(&self, graph: &Graph) -> bool {
        self.tags.iter().all(|tag| graph.analysis.tags.contains(tag))
    }
}

impl Searcher<Term, Knowledge> for Arc<Lazy> {
    fn search_with_limit(&self, graph: &Graph, limit: usize) -> Vec<SearchMatches<'_, Term>> {
        if self.may_match(graph) { self.pattern().search_with_limit(graph, limit) } else { Vec::new() }
    }

    fn search_eclass_with_limit(&self, graph: &Graph, class: Id, limit: usize) -> Option<SearchMatches<'_, Term>> {
        if self.may_match(graph) { self.pattern().search_eclass_with_limit(graph, class, limit) } else { None }
    }

    fn vars(&self) -> Vec<Var> {
        self.variables.clone()
    }
}
