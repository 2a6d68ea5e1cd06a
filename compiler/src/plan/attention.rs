//! Attention: two contractions with a softmax between, as one kernel that never stores the scores.

use super::{
    PlanError,
    build::{KernelBuilder, MustStore},
    group::{Group, row_variable},
    kernel::{Attention, Block, Body, Instruction, Kernel, PlanStep},
    lower::{Planner, finish, order_for_readers},
    nest::label,
    scope::Scope,
};
use petgraph::stable_graph::NodeIndex;

impl Planner<'_> {
    /// A kernel of attention; `scores` is the first contraction, the group's root the second.
    ///
    /// # Errors
    /// Something that has no kernel.
    pub fn lower_attention(
        &mut self,
        scope: &mut Scope,
        group: &Group,
        scores: NodeIndex,
        softmax: NodeIndex,
        steps: &mut Vec<PlanStep>,
    ) -> Result<Result<Kernel, MustStore>, PlanError> {
        let root = group.root;
        let function = scope.function;
        let node = &function.graph[root];
        let nodes: Vec<NodeIndex> = group.nodes().collect();
        self.bind_parameters(scope, &nodes)?;
        let sizes = node.variables.iter().map(|v| v.size().clone()).chain(group.extra.iter().cloned());
        let mut kernel = KernelBuilder::new(sizes);
        let depth = node.variables.len() as u32;
        let [keys] = node.contracted()[..] else { unreachable!("grouping asked for one contracted variable") };
        let score_frame = group.frames[&scores].clone();
        let reads_keys = |slot: usize| {
            let map = &function.graph[scores].maps[slot];
            score_frame.iter().enumerate().any(|(own, v)| *v == keys && map.mentions(own as u32))
        };
        let key_slot = usize::from(reads_keys(1));
        let output = &node.outputs[0].variables;
        let columns = output.iter().copied().find(|v| node.maps[1].mentions(*v) && !node.maps[0].mentions(*v));
        let rows = row_variable(function, group, root, scores, key_slot);
        let (Some(columns), Some(rows)) = (columns, rows) else {
            unreachable!("grouping asked for a row and a column variable")
        };
        let mut read = |planner: &mut Self, scope: &mut Scope, kernel: &mut KernelBuilder, node, slot, inner| {
            let frame = group.frames[&node].clone();
            planner.product_operand(scope, kernel, node, slot, &frame, inner, steps)
        };
        let own_depth = function.graph[scores].contracted()[0];
        let q = read(self, scope, &mut kernel, scores, 1 - key_slot, own_depth)?;
        let k = read(self, scope, &mut kernel, scores, key_slot, own_depth)?;
        let v = read(self, scope, &mut kernel, root, 1, columns)?;
        let (q, k, v) = match (q, k, v) {
            (Ok(q), Ok(k), Ok(v)) => (q, k, v),
            (Err(must_store), ..) | (_, Err(must_store), _) | (.., Err(must_store)) => return Ok(Err(must_store)),
        };
        let mut score = Block::default();
        let product = score.push(Instruction::Folded(0));
        kernel.locals.insert(scores.into(), product);
        for member in group.prologue.iter().filter(|member| **member != scores && **member != softmax) {
            let positions = kernel.positions(&group.frames[member]);
            match kernel.node_value(scope, &mut score, *member, &positions) {
                Ok(value) => kernel.locals.insert((*member).into(), value),
                Err(must_store) => return Ok(Err(must_store)),
            };
        }
        let softmax_positions = kernel.positions(&group.frames[&softmax]);
        let score_value = match kernel.operand(scope, &mut score, softmax, 0, &softmax_positions) {
            Ok(value) => value,
            Err(must_store) => return Ok(Err(must_store)),
        };
        kernel.locals.clear();
        let mut end = Block::default();
        let result = end.push(Instruction::Folded(0));
        kernel.locals.insert(root.into(), result);
        // Columns innermost; the rest as readers want it.
        let last = group.epilogue.iter().rev().chain([&root]).find(|node| scope.needed.contains(&(**node).into()));
        let wanted: Vec<u32> = last.map_or_else(Vec::new, |last| {
            let axes = &function.graph[*last].outputs[0].variables;
            let frame = &group.frames[last];
            order_for_readers(scope, (*last).into()).iter().map(|axis| frame[axes[*axis] as usize]).collect()
        });
        let ordered = wanted.iter().copied().filter(|v| *v != columns).chain([columns]);
        let order: Vec<usize> = ordered.filter_map(|v| output.iter().position(|other| *other == v)).collect();
        let stores = match self.epilogue(scope, group, &mut kernel, &mut end, &[root], &order) {
            Ok(stores) => stores,
            Err(must_store) => return Ok(Err(must_store)),
        };
        let batch = order.iter().map(|axis| output[*axis]).filter(|v| *v != rows && *v != columns).collect();
        let body = Attention { batch, rows, keys, depth, columns, q, k, v, score, score_value, finish: end, stores };
        Ok(Ok(finish(kernel, Body::Attention(body), &label(scope, group))))
    }
}
