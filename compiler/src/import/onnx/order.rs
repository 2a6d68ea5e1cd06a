//! Which nodes of a graph are needed, and an order in which every value is made before it is read. The format asks for
//! sorted nodes; files that are not sorted are read all the same.

use super::{error::ImportError, proto::NodeProto};
use rustc_hash::{FxHashMap, FxHashSet};

/// The needed nodes, in order, and the names that they or the outputs read.
pub struct Order<'a> {
    /// Positions of nodes, producers before readers.
    pub nodes: Vec<usize>,
    /// Names that something reads.
    pub wanted: FxHashSet<&'a str>,
}

/// Orders the nodes that `outputs` depend on.
///
/// # Errors
/// Two nodes that produce one name, or nodes that depend on each other in a circle.
pub fn order<'a>(nodes: &'a [NodeProto], outputs: &[&'a str]) -> Result<Order<'a>, ImportError> {
    let mut producers: FxHashMap<&str, usize> = FxHashMap::default();
    for (position, node) in nodes.iter().enumerate() {
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            if producers.insert(name, position).is_some() {
                return Err(ImportError::Model { reason: format!("two nodes of one graph produce `{name}`") });
            }
        }
    }
    let mut wanted: FxHashSet<&str> = outputs.iter().copied().collect();
    let reads: Vec<Vec<&'a str>> = nodes.iter().map(read_names).collect();
    let mut state = vec![State::New; nodes.len()];
    let mut sorted = Vec::new();
    let roots: Vec<usize> = outputs.iter().filter_map(|name| producers.get(name).copied()).collect();
    for root in roots {
        let mut path = vec![(root, 0)];
        while let Some((node, next)) = path.last_mut() {
            let node = *node;
            if state[node] == State::Done {
                path.pop();
                continue;
            }
            state[node] = State::Open;
            let Some(name) = reads[node].get(*next) else {
                state[node] = State::Done;
                sorted.push(node);
                path.pop();
                continue;
            };
            *next += 1;
            wanted.insert(name);
            match producers.get(name).map(|producer| (*producer, state[*producer])) {
                Some((producer, State::New)) => path.push((producer, 0)),
                Some((_, State::Open)) => {
                    return Err(ImportError::Model {
                        reason: format!("the graph has a cycle: `{name}` depends on itself"),
                    });
                }
                _ => {}
            }
        }
    }
    // The file's own order, where it is sorted, keeps circuits close to what their authors see.
    let mut in_file = sorted.clone();
    in_file.sort_unstable();
    let mut made = vec![false; nodes.len()];
    let is_sorted = in_file.iter().all(|node| {
        let ready = reads[*node].iter().all(|name| producers.get(name).is_none_or(|producer| made[*producer]));
        made[*node] = true;
        ready
    });
    Ok(Order { nodes: if is_sorted { in_file } else { sorted }, wanted })
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    New,
    Open,
    Done,
}

/// The names that a node reads, those that its bodies read of the graph around them included.
fn read_names(node: &NodeProto) -> Vec<&str> {
    let mut names: Vec<&str> = node.input.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
    for graph in node.attribute.iter().filter_map(|attribute| attribute.g.as_ref()) {
        let made = graph.node.iter().flat_map(|node| &node.output).chain(graph.input.iter().map(|input| &input.name));
        let made = made.chain(graph.initializer.iter().map(|tensor| &tensor.name));
        let made: FxHashSet<&str> = made.map(String::as_str).collect();
        let read = graph.node.iter().flat_map(read_names);
        let read = read.chain(graph.output.iter().map(|output| output.name.as_str()));
        names.extend(read.filter(|name| !made.contains(name)));
    }
    names
}
