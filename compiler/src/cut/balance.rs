//! The cheapest wires between two halves of the work: a minimum cut.
//!
//! The first third of the work, in order, belongs to the head and the last third to the tail. Between them every value is an edge
//! as wide as its bytes, however many read it; edges that are infinitely wide keep what a node of the head reads in the head.

use super::{CutError, is_leaf};
use crate::rewrite::search::cost::estimate;
use petgraph::{
    algo::dinics,
    graph::{DiGraph, NodeIndex as FlowIndex},
    stable_graph::NodeIndex,
    visit::EdgeRef,
};
use rustc_hash::{FxHashMap, FxHashSet};
use strang_ir::{Module, Op, Value, analysis};

/// Wider than all values together.
const INFINITE: u64 = u64::MAX / 4;

/// Parts of a byte that widths are counted in.
const UNIT: f64 = 1e4;

/// The nodes of the head when a verified model is cut at the cheapest wires that leave each side a third of the work. Sizes that are symbols
/// count as a usual size.
///
/// # Errors
/// A model with too little to cut.
pub fn balanced(module: &Module) -> Result<FxHashSet<NodeIndex>, CutError> {
    let function = module.entry();
    let order: Vec<NodeIndex> =
        function.order().into_iter().filter(|node| !is_leaf(&function.graph[*node].op)).collect();
    let work: Vec<f64> =
        order.iter().map(|node| 1. + estimate(&analysis::cost(module, function, *node).flops)).collect();
    let total: f64 = work.iter().sum();
    let mut graph: DiGraph<(), u64> = DiGraph::new();
    let (source, sink) = (graph.add_node(()), graph.add_node(()));
    let mut places: FxHashMap<NodeIndex, FlowIndex> = FxHashMap::default();
    let mut done = 0.;
    // Of equal wires that nearest to the middle is best: each is a little wider the further away it is.
    let mut widths: FxHashMap<NodeIndex, f64> = FxHashMap::default();
    for (place, (node, work)) in order.iter().zip(&work).enumerate() {
        let own = graph.add_node(());
        places.insert(*node, own);
        let middle = done + work / 2.;
        widths.insert(*node, 1. + 0.01 * ((done + work) / total - 0.5).abs());
        if middle <= total / 3. || place == 0 {
            graph.add_edge(source, own, INFINITE);
        } else if middle >= total * 2. / 3. || place + 1 == order.len() {
            graph.add_edge(own, sink, INFINITE);
        }
        done += work;
    }
    for (input, node) in function.inputs.iter().map(|node| (*node, graph.add_node(()))).collect::<Vec<_>>() {
        places.insert(input, node);
        graph.add_edge(source, node, INFINITE);
    }
    for node in order.iter().chain(&function.inputs) {
        for port in 0..function.graph[*node].outputs.len() as u32 {
            let value = Value { node: *node, port };
            let bytes = analysis::bytes_of(function.element_of(value), &function.shape_of(value).into_iter().product());
            let wire = graph.add_node(());
            let width = estimate(&bytes) * UNIT * widths.get(node).copied().unwrap_or(1.);
            graph.add_edge(places[node], wire, (width as u64).clamp(1, INFINITE / 1_000_000));
            for (reader, _) in function.readers(value) {
                graph.add_edge(wire, places[&reader], INFINITE);
                if !matches!(function.graph[*node].op, Op::Input(_)) {
                    graph.add_edge(places[&reader], places[node], INFINITE);
                }
            }
            if function.outputs.contains(&value) {
                graph.add_edge(wire, sink, INFINITE);
            }
        }
    }
    let (_, flows) = dinics(&graph, source, sink);
    let reached = residual(&graph, source, &flows);
    let head: FxHashSet<NodeIndex> = order.iter().copied().filter(|node| reached.contains(&places[node])).collect();
    if head.is_empty() || head.len() == order.len() {
        return Err(CutError::Nothing(if head.is_empty() { "head" } else { "tail" }));
    }
    Ok(head)
}

/// What is reached from the source where the flow leaves room.
fn residual(graph: &DiGraph<(), u64>, source: FlowIndex, flows: &[u64]) -> FxHashSet<FlowIndex> {
    let mut reached = FxHashSet::default();
    let mut pending = vec![source];
    while let Some(node) = pending.pop() {
        if !reached.insert(node) {
            continue;
        }
        let forward = graph.edges(node).filter(|edge| flows[edge.id().index()] < *edge.weight());
        pending.extend(forward.map(|edge| edge.target()));
        let backward = graph.edges_directed(node, petgraph::Direction::Incoming);
        pending.extend(backward.filter(|edge| flows[edge.id().index()] > 0).map(|edge| edge.source()));
    }
    reached
}
