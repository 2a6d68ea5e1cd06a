//! How two modules differ in structure, as text: names of values, axes and variables, sources and blocks do not count.
//!
//! Nodes are aligned step by step: those that compute the same from the same weights, wherever they stand; those that compute
//! the same from weights of the same types; of the others, in their order, those that are equal but for what they read; and between
//! these, those with one operation. Aligned nodes differ where they read other values, or other weights.

use crate::{Digest, Function, FunctionId, Module, Node, Op, Source, Value, text::statements};
use petgraph::stable_graph::NodeIndex;
use rustc_hash::{FxHashMap, FxHashSet, FxHasher};
use similar::{Algorithm, DiffOp, capture_diff_slices};
use std::{
    collections::VecDeque,
    fmt,
    hash::{Hash, Hasher},
};

/// Unchanged statements that are shown around a difference.
const CONTEXT: usize = 2;

/// A statement of a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// In both.
    Same(String),
    /// In the first alone.
    Removed(String),
    /// In the second alone.
    Added(String),
}

/// How two modules differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Statements of the first module alone, those that changed apart.
    pub removed: usize,
    /// Statements of the second module alone, those that changed apart.
    pub added: usize,
    /// Statements of both that read other values or compute something else.
    pub changed: usize,
    /// Weights that have other elements, by their names in both.
    pub weights: Vec<(String, String)>,
    /// The functions with their statements.
    pub functions: Vec<(String, Vec<Line>)>,
}

/// Compares two modules.
pub fn diff(first: &Module, second: &Module) -> Difference {
    let mut difference = Difference::default();
    let mut digests = [first, second].map(|module| Digests { module, known: FxHashMap::default() });
    for position in 0..first.functions.len().max(second.functions.len()) {
        let id = FunctionId(position as u32);
        let sides = [first, second].map(|module| Side::of(module, id));
        let title = first.function(id).or(second.function(id)).map_or("", |function| &function.name);
        let lines = compare(&sides, &mut digests, &mut difference);
        difference.functions.push((title.to_owned(), lines));
    }
    difference
}

impl Difference {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        let count = self.removed + self.added + self.changed + self.weights.len();
        count == 0 && self.functions.iter().all(|(_, lines)| lines.iter().all(|line| matches!(line, Line::Same(_))))
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return writeln!(f, "the circuits are equal");
        }
        let Difference { removed, added, changed, weights, functions } = self;
        let several = |count: usize| if count == 1 { "" } else { "s" };
        writeln!(
            f,
            "{removed} operation{} removed, {added} added, {changed} changed, {} weight{} with other elements",
            several(*removed),
            weights.len(),
            several(weights.len())
        )?;
        for (name, lines) in functions {
            write_lines(f, name, lines)?;
        }
        if !weights.is_empty() {
            writeln!(f, "weights with other elements")?;
        }
        for (first, second) in weights {
            if first == second { writeln!(f, "  @{first}")? } else { writeln!(f, "  @{first} and @{second}")? }
        }
        Ok(())
    }
}

/// The differences of a function with the statements around them.
fn write_lines(f: &mut fmt::Formatter<'_>, name: &str, lines: &[Line]) -> fmt::Result {
    let differs = |line: &Line| !matches!(line, Line::Same(_));
    if !lines.iter().any(differs) {
        return Ok(());
    }
    writeln!(f, "fn @{name}")?;
    let shown = |place: usize| {
        let near = place.saturating_sub(CONTEXT)..(place + CONTEXT + 1).min(lines.len());
        lines[near].iter().any(differs)
    };
    let mut gap = false;
    for (place, line) in lines.iter().enumerate() {
        if !shown(place) {
            gap = true;
            continue;
        }
        if std::mem::take(&mut gap) {
            writeln!(f, "  ...")?;
        }
        match line {
            Line::Same(text) => writeln!(f, "  {text}")?,
            Line::Removed(text) => writeln!(f, "- {text}")?,
            Line::Added(text) => writeln!(f, "+ {text}")?,
        }
    }
    Ok(())
}

/// The digests of a module's weights, computed once.
struct Digests<'a> {
    module: &'a Module,
    known: FxHashMap<u32, Option<Digest>>,
}

impl Digests<'_> {
    fn of(&mut self, number: u32) -> Option<Digest> {
        let module = self.module;
        *self.known.entry(number).or_insert_with(|| module.parameters.get(number as usize)?.digest())
    }
}

/// A function of one of the modules, as it is compared.
struct Side<'a> {
    module: &'a Module,
    function: Option<&'a Function>,
    nodes: Vec<NodeIndex>,
    texts: Vec<String>,
    places: FxHashMap<NodeIndex, usize>,
}

impl<'a> Side<'a> {
    fn of(module: &'a Module, id: FunctionId) -> Self {
        let function = module.function(id);
        let statements = function.map_or_else(Vec::new, |_| statements(module, id));
        let (nodes, texts): (Vec<NodeIndex>, Vec<String>) = statements.into_iter().unzip();
        let places = nodes.iter().enumerate().map(|(place, node)| (*node, place)).collect();
        Side { module, function, nodes, texts, places }
    }

    fn node(&self, place: usize) -> Option<Node> {
        Some(nameless(&self.function?.graph[self.nodes[place]]))
    }

    fn operands(&self, place: usize) -> Vec<Read> {
        let Some(function) = self.function else { return Vec::new() };
        function.operands(self.nodes[place]).into_iter().map(|value| self.read(value)).collect()
    }

    fn read(&self, value: Value) -> Read {
        match self.function.and_then(|function| function.graph.node_weight(value.node)).map(|node| &node.op) {
            Some(Op::Input(number)) => Read::Input(*number),
            Some(Op::Param(number)) => Read::Weight(*number),
            _ => Read::Value(self.places.get(&value.node).copied().unwrap_or(usize::MAX), value.port),
        }
    }

    /// The inputs, results and states of the function, a line each; statements by the places that they are aligned with.
    fn interface(&self, aligned: &dyn Fn(usize) -> Option<usize>) -> Vec<String> {
        let Some(function) = self.function else { return Vec::new() };
        let array = |value: Value| {
            let sizes: Vec<String> = function.shape_of(value).iter().map(ToString::to_string).collect();
            format!("{}[{}]", function.element_of(value), sizes.join(", "))
        };
        let source = |value: &Value| match self.read(*value) {
            Read::Value(place, port) => match aligned(place) {
                Some(place) => format!("statement {place}.{port}"),
                None => "a statement that is gone".to_owned(),
            },
            Read::Input(number) => format!("input {number}"),
            Read::Weight(number) => format!("@{}", parameter(self.module, number).0),
        };
        let input = |node: &NodeIndex| format!("input {}", array((*node).into()));
        let result = |value: &Value| format!("result {} of {}", array(*value), source(value));
        let state = |(input, output): &(u32, u32)| format!("state {input} -> {output}");
        let lines = function.inputs.iter().map(input).chain(function.outputs.iter().map(result));
        lines.chain(function.states.iter().map(state)).collect()
    }
}

/// What is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    Input(u32),
    Weight(u32),
    /// A result of the statement at a place.
    Value(usize, u32),
}

/// A node in canonical form without names.
fn nameless(node: &Node) -> Node {
    let mut node = node.canonical();
    (node.source, node.block) = (Source::None, None);
    node
}

fn hash(parts: impl FnOnce(&mut FxHasher)) -> u64 {
    let mut hasher = FxHasher::default();
    parts(&mut hasher);
    hasher.finish()
}

/// What nodes that differ in names and in what they read share.
fn exact(node: &Node) -> u64 {
    hash(|state| {
        node.op.hash(state);
        node.maps.hash(state);
        node.variables.iter().for_each(|variable| variable.axis.size.hash(state));
        node.outputs.iter().for_each(|output| (output.element, &output.variables).hash(state));
    })
}

/// What nodes of one kind of operation share.
fn loose(node: &Node) -> u64 {
    hash(|state| (node.op.name(), node.maps.len()).hash(state))
}

/// For every place of the first side the place of the second that it is aligned with.
fn align(sides: &[Side; 2], digests: &mut [Digests; 2]) -> Vec<Option<usize>> {
    let mut aligned: Vec<Option<usize>> = vec![None; sides[0].nodes.len()];
    for with_elements in [true, false] {
        let deep = [0, 1].map(|side| deep(&sides[side], digests.get_mut(side).filter(|_| with_elements)));
        let mut free: FxHashMap<u64, VecDeque<usize>> = FxHashMap::default();
        let taken: FxHashSet<usize> = aligned.iter().flatten().copied().collect();
        for place in (0..deep[1].len()).filter(|place| !taken.contains(place)) {
            free.entry(deep[1][place]).or_default().push_back(place);
        }
        for place in (0..aligned.len()).filter(|place| aligned[*place].is_none()).collect::<Vec<_>>() {
            aligned[place] = free.get_mut(&deep[0][place]).and_then(VecDeque::pop_front);
        }
    }
    let taken: FxHashSet<usize> = aligned.iter().flatten().copied().collect();
    let rest = [
        (0..aligned.len()).filter(|place| aligned[*place].is_none()).collect::<Vec<usize>>(),
        (0..sides[1].nodes.len()).filter(|place| !taken.contains(place)).collect(),
    ];
    let keys = |key: fn(&Node) -> u64| {
        [0, 1].map(|side| {
            let nodes = rest[side].iter().filter_map(|place| sides[side].node(*place));
            nodes.map(|node| key(&node)).collect::<Vec<u64>>()
        })
    };
    let (exact, loose) = (keys(exact), keys(loose));
    let mut together = |old: usize, new: usize, count: usize| {
        (0..count).for_each(|step| aligned[rest[0][old + step]] = Some(rest[1][new + step]));
    };
    for part in capture_diff_slices(Algorithm::Myers, &exact[0], &exact[1]) {
        match part {
            DiffOp::Equal { old_index, new_index, len } => together(old_index, new_index, len),
            DiffOp::Replace { old_index, old_len, new_index, new_len } => {
                let old = &loose[0][old_index..old_index + old_len];
                let new = &loose[1][new_index..new_index + new_len];
                for part in capture_diff_slices(Algorithm::Myers, old, new) {
                    if let DiffOp::Equal { old_index: old, new_index: new, len } = part {
                        together(old_index + old, new_index + new, len);
                    }
                }
            }
            DiffOp::Delete { .. } | DiffOp::Insert { .. } => {}
        }
    }
    aligned
}

/// What every statement computes, from its inputs on; weights count by their elements if there are digests, by their types otherwise.
fn deep(side: &Side, mut digests: Option<&mut Digests>) -> Vec<u64> {
    let mut deep: Vec<u64> = Vec::with_capacity(side.nodes.len());
    for place in 0..side.nodes.len() {
        let own = side.node(place).map(|node| exact(&node));
        let reads = side.operands(place);
        deep.push(hash(|state| {
            own.hash(state);
            for read in reads {
                match read {
                    Read::Input(number) => (0, number).hash(state),
                    Read::Weight(number) => match &mut digests {
                        Some(digests) => (1, digests.of(number), parameter(side.module, number).1).hash(state),
                        None => (2, parameter(side.module, number).1).hash(state),
                    },
                    Read::Value(place, port) => (3, deep.get(place), port).hash(state),
                }
            }
        }));
    }
    deep
}

/// The statements of two functions side by side.
fn compare(sides: &[Side; 2], digests: &mut [Digests; 2], difference: &mut Difference) -> Vec<Line> {
    let aligned = align(sides, digests);
    let mut lines = interfaces(sides, &aligned);
    // What the second function has alone stands after what comes before it there.
    let mut partners: Vec<Option<usize>> = vec![None; sides[1].nodes.len()];
    aligned.iter().enumerate().for_each(|(place, partner)| {
        if let Some(partner) = partner {
            partners[*partner] = Some(place);
        }
    });
    let mut added: FxHashMap<Option<usize>, Vec<Line>> = FxHashMap::default();
    let mut before = None;
    for (place, partner) in partners.iter().enumerate() {
        match partner {
            Some(_) => before = *partner,
            None => added.entry(before).or_default().push(Line::Added(sides[1].texts[place].clone())),
        }
    }
    difference.added += added.values().map(Vec::len).sum::<usize>();
    lines.extend(added.remove(&None).unwrap_or_default());
    for (place, partner) in aligned.iter().enumerate() {
        let old = &sides[0].texts[place];
        let Some(partner) = *partner else {
            difference.removed += 1;
            lines.push(Line::Removed(old.clone()));
            continue;
        };
        let same_node =
            sides[0].node(place).map(|node| exact(&node)) == sides[1].node(partner).map(|node| exact(&node));
        let reads = [sides[0].operands(place), sides[1].operands(partner)];
        if same_node && same_reads(sides, digests, &aligned, &reads, difference) {
            lines.push(Line::Same(old.clone()));
        } else {
            difference.changed += 1;
            lines.push(Line::Removed(old.clone()));
            lines.push(Line::Added(sides[1].texts[partner].clone()));
        }
        lines.extend(added.remove(&Some(place)).unwrap_or_default());
    }
    lines
}

/// Whether aligned statements read the same; weights may have other elements, which is noted.
fn same_reads(
    sides: &[Side; 2],
    digests: &mut [Digests; 2],
    aligned: &[Option<usize>],
    reads: &[Vec<Read>; 2],
    difference: &mut Difference,
) -> bool {
    let mut same = reads[0].len() == reads[1].len();
    for (old, new) in reads[0].iter().zip(&reads[1]) {
        same &= match (*old, *new) {
            (Read::Value(place, port), Read::Value(other, number)) => {
                port == number && aligned.get(place).copied().flatten() == Some(other)
            }
            (Read::Weight(first), Read::Weight(second)) => {
                let names = [(0, first), (1, second)].map(|(side, number)| parameter(sides[side].module, number));
                let pair = (names[0].0.clone(), names[1].0.clone());
                if digests[0].of(first) != digests[1].of(second) && !difference.weights.contains(&pair) {
                    difference.weights.push(pair);
                }
                names[0].1 == names[1].1
            }
            (old, new) => old == new,
        };
    }
    same
}

/// The name of a parameter, and its type.
fn parameter(module: &Module, number: u32) -> (String, String) {
    module.parameters.get(number as usize).map_or_else(Default::default, |parameter| {
        let sizes: Vec<String> = parameter.axes.iter().map(|axis| axis.size.to_string()).collect();
        (parameter.name.to_string(), format!("{}[{}]", parameter.element, sizes.join(", ")))
    })
}

/// The inputs and results where they differ.
fn interfaces(sides: &[Side; 2], aligned: &[Option<usize>]) -> Vec<Line> {
    let first = sides[0].interface(&|place| aligned.get(place).copied().flatten());
    let second = sides[1].interface(&Some);
    let mut lines = Vec::new();
    for part in capture_diff_slices(Algorithm::Myers, &first, &second) {
        if let DiffOp::Equal { .. } = part {
            continue;
        }
        lines.extend(first[part.old_range()].iter().cloned().map(Line::Removed));
        lines.extend(second[part.new_range()].iter().cloned().map(Line::Added));
    }
    lines
}
