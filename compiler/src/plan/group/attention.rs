//! Attention: two contractions with a softmax between become one group.

use super::{Builder, Group, Kind, Product, matrix_product};
use crate::plan::trace::distinct_variables;
use petgraph::stable_graph::NodeIndex;
use rustc_hash::FxHashMap;
use strang_ir::{Function, Op};

impl Builder<'_> {
    /// The group of a contraction that multiplies a softmax of scores with values, if it is one.
    pub(super) fn attention(&mut self, index: NodeIndex) -> Option<Group> {
        if matrix_product(self.function, index) != Some(Product::Floats) {
            return None;
        }
        let node = self.node(index);
        let operands = self.function.operands(index);
        let [keys] = node.contracted()[..] else { return None };
        let weights = self.trace(index, 0, operands[0]);
        let rows_home = *self.home.get(&weights.value.node)?;
        let rows = self.groups[rows_home].as_ref()?;
        let Op::Softmax { over, log: false } = &self.node(rows.root).op else { return None };
        if rows.kind != Kind::Rows
            || rows.root != weights.value.node
            || weights.guard.is_some()
            || !rows.epilogue.is_empty()
            || !self.only_read_by(rows_home, index)
            || self.reads_group(operands[1], rows_home)
        {
            return None;
        }
        let softmax = rows.root;
        // Softmax variables, in the variables of the second contraction.
        let read = distinct_variables(&weights.position)?;
        let softmax_node = self.node(softmax);
        let mut softmax_frame = vec![u32::MAX; softmax_node.variables.len()];
        for (axis, variable) in softmax_node.outputs[0].variables.iter().zip(&read) {
            softmax_frame[*axis as usize] = *variable;
        }
        let [normalised] = over[..] else { return None };
        if softmax_frame[normalised as usize] != keys {
            return None;
        }
        // The scores: a contraction that nothing else reads, directly or through the softmax's prologue.
        let (inner, prologue) = match rows.prologue.first() {
            None => (self.trace(softmax, 0, self.function.operands(softmax)[0]), Vec::new()),
            // A prologue is a group of maps of its own; the scores' maps have joined the contraction instead.
            Some(_) => return None,
        };
        let scores_home = *self.home.get(&inner.value.node)?;
        let scores = self.groups[scores_home].as_ref()?;
        if scores.kind != Kind::Contraction || inner.guard.is_some() || !self.only_read_by(scores_home, softmax) {
            return None;
        }
        let read = distinct_variables(&inner.position)?;
        let value_axes = &self.node(inner.value.node).outputs[inner.value.port as usize].variables;
        let value_frame = &scores.frames[&inner.value.node];
        let scores_node = self.node(scores.root);
        let [depth] = scores_node.contracted()[..] else { return None };
        let depth_variable = node.variables.len() as u32;
        let mut renamed: FxHashMap<u32, u32> = FxHashMap::from_iter([(depth, depth_variable)]);
        for (axis, variable) in value_axes.iter().zip(&read) {
            renamed.insert(value_frame[*axis as usize], softmax_frame[*variable as usize]);
        }
        let mut group = Group::new(Kind::Attention { scores: scores.root, softmax }, index, self.function);
        group.prologue = scores.nodes().chain(prologue).chain([softmax]).collect();
        for (node, frame) in &scores.frames {
            let frame: Option<Vec<u32>> = frame.iter().map(|v| renamed.get(v).copied()).collect();
            group.frames.insert(*node, frame?);
        }
        group.frames.insert(softmax, softmax_frame);
        group.extra = vec![scores_node.size_of(depth)];
        if !attention_shape(self.function, &group, index, scores.root, keys, depth_variable) {
            return None;
        }
        self.groups[scores_home] = None;
        self.groups[rows_home] = None;
        Some(group)
    }
}

/// Whether the variables of two contractions are those of attention: one row variable (in the query alone), one key
/// variable, one depth variable, one column variable, and all others shared.
fn attention_shape(
    function: &Function,
    group: &Group,
    index: NodeIndex,
    scores: NodeIndex,
    keys: u32,
    depth: u32,
) -> bool {
    let mentions = |node: NodeIndex, slot: usize, variable: u32| {
        let frame = &group.frames[&node];
        let map = &function.graph[node].maps[slot];
        frame.iter().enumerate().any(|(own, kernel)| *kernel == variable && map.mentions(own as u32))
    };
    let output = &function.graph[index].outputs[0].variables;
    let columns = output.iter().filter(|v| mentions(index, 1, **v) && !mentions(index, 0, **v)).count();
    let key_slot = match (mentions(scores, 0, keys), mentions(scores, 1, keys)) {
        (false, true) => 1,
        (true, false) => 0,
        _ => return false,
    };
    columns == 1
        && row_variable(function, group, index, scores, key_slot).is_some()
        && mentions(scores, 0, depth)
        && mentions(scores, 1, depth)
        && mentions(index, 1, keys)
        && function.graph[scores].maps.len() == 2
}

/// The row variable of attention: the one that the query has and neither keys nor values. A query of one row may be read
/// without mentioning it.
pub fn row_variable(
    function: &Function,
    group: &Group,
    index: NodeIndex,
    scores: NodeIndex,
    key_slot: usize,
) -> Option<u32> {
    let mentions = |node: NodeIndex, slot: usize, variable: u32| {
        let map = &function.graph[node].maps[slot];
        group.frames[&node].iter().enumerate().any(|(own, kernel)| *kernel == variable && map.mentions(own as u32))
    };
    let root = &function.graph[index];
    let candidates: Vec<u32> = (root.outputs[0].variables.iter().copied())
        .filter(|v| mentions(index, 0, *v) && !mentions(index, 1, *v) && !mentions(scores, key_slot, *v))
        .collect();
    let mut queried = candidates.iter().copied().filter(|v| mentions(scores, 1 - key_slot, *v));
    match (queried.next(), queried.next()) {
        (Some(row), None) => Some(row),
        (None, _) => candidates.into_iter().rfind(|v| root.size_of(*v).is(1)),
        _ => None,
    }
}
