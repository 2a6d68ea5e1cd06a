//! Windows: a circuit is cut into runs of nodes that little crosses. Compile time then grows with distinct layers: windows
//! of one key ([`super::key`]) are saturated once.
//!
//! Where a cut falls depends only on what follows the one before, and a run of nodes that comes twice is cut off whole, so
//! repeated layers are cut alike, however many there are.

use petgraph::{Direction, stable_graph::NodeIndex, visit::NodeIndexable};
use strang_ir::{Function, Node, Op, op::Norm};

/// The fewest and most nodes of a window; searching takes longer than in proportion.
const FEWEST: usize = 32;
const MOST: usize = 128;
/// The most nodes of what is left after other windows and is not cut again.
const LAST: usize = 64;

/// The windows of a function whose nodes are of these kinds, in order; inputs, parameters and constants stand in none.
pub fn windows(function: &Function, kinds: &[u32]) -> Vec<Vec<NodeIndex>> {
    let order = order(function);
    let cuts = Cuts::new(function, &order, kinds);
    let mut windows = Vec::new();
    let mut start = 0;
    while start < order.len() {
        let end = cuts.after(start);
        windows.push(order[start..end].to_vec());
        start = end;
    }
    windows
}

/// Where to cut.
struct Cuts {
    /// The kind of every node.
    kinds: Vec<u32>,
    /// How bad a cut is before every position: by how many values are alive there, and by what it parts.
    badness: Vec<usize>,
}

impl Cuts {
    fn new(function: &Function, order: &[NodeIndex], kinds: &[u32]) -> Self {
        let mut badness = crossing(function, order);
        badness.iter_mut().for_each(|alive| *alive *= 2);
        for (place, node) in order.iter().enumerate() {
            badness[place] += usize::from(belongs_to_others(function, *node));
            badness[place + 1] += usize::from(belongs_to_what_follows(function, *node));
        }
        Cuts { kinds: order.iter().map(|node| kinds[node.index()]).collect(), badness }
    }

    /// The end of the window that starts at a position.
    fn after(&self, start: usize) -> usize {
        let count = self.kinds.len();
        let ends = || start + FEWEST..(start + MOST).min(count);
        let least = |ends: &mut dyn Iterator<Item = usize>| ends.min_by_key(|end| self.badness[*end]);
        if let Some(end) = least(&mut ends().filter(|end| self.comes_twice(start, *end))) {
            return end;
        }
        let most = if start == 0 { MOST } else { LAST };
        if count - start <= most { count } else { least(&mut ends()).unwrap_or(count) }
    }

    /// Whether nodes of the same kinds follow, in the same order.
    fn comes_twice(&self, start: usize, end: usize) -> bool {
        let again = self.kinds.get(end..2 * end - start);
        again.is_some_and(|again| again == &self.kinds[start..end])
    }
}

/// The nodes but leaves, operands before readers; what is made of weights alone comes right before what reads it first, so
/// that rules see both.
fn order(function: &Function) -> Vec<NodeIndex> {
    let all = function.order();
    let mut constant = vec![false; function.graph.node_bound()];
    for node in &all {
        let is_constant = |operand: NodeIndex| match function.graph[operand].op {
            Op::Param(_) | Op::Const(_) => true,
            _ => constant[operand.index()],
        };
        let mut operands = function.graph.neighbors_directed(*node, Direction::Incoming).peekable();
        constant[node.index()] = operands.peek().is_some() && operands.all(is_constant);
    }
    let (mut order, mut placed) = (Vec::with_capacity(all.len()), vec![false; constant.len()]);
    let later = all.iter().filter(|node| constant[node.index()]);
    for node in all.iter().filter(|node| !constant[node.index()]).chain(later) {
        place(function, *node, &constant, &mut placed, &mut order);
    }
    order
}

/// Places a node after the constant ones that it reads.
fn place(function: &Function, node: NodeIndex, constant: &[bool], placed: &mut [bool], order: &mut Vec<NodeIndex>) {
    if is_leaf(&function.graph[node]) || std::mem::replace(&mut placed[node.index()], true) {
        return;
    }
    if function.graph.neighbors_directed(node, Direction::Incoming).any(|operand| constant[operand.index()]) {
        for operand in function.operands(node).into_iter().filter(|operand| constant[operand.node.index()]) {
            place(function, operand.node, constant, placed, order);
        }
    }
    order.push(node);
}

fn is_leaf(node: &Node) -> bool {
    matches!(node.op, Op::Input(_) | Op::Param(_) | Op::Const(_))
}

/// Operations that rules join to what reads them.
fn belongs_to_what_follows(function: &Function, node: NodeIndex) -> bool {
    matches!(function.graph[node].op, Op::Norm { .. } | Op::View | Op::Reduce(_) | Op::Dot { .. } | Op::Softmax { .. })
        || is_widening(function, node)
}

/// Operations that rules join to what they read.
fn belongs_to_others(function: &Function, node: NodeIndex) -> bool {
    match function.graph[node].op {
        Op::Map(_) => !is_widening(function, node),
        Op::View | Op::Softmax { .. } | Op::Norm { kind: Norm::Batch, .. } => true,
        _ => false,
    }
}

/// Whether a map makes floats of bytes: products read it as bytes.
fn is_widening(function: &Function, node: NodeIndex) -> bool {
    let first = || function.operands(node).first().map(|value| function.element_of(*value));
    matches!(function.graph[node].op, Op::Map(_))
        && function.graph[node].outputs[0].element.is_float()
        && first().is_some_and(|element| element.is_integer() && element.bits() <= 8)
}

/// How many values are alive before each position.
fn crossing(function: &Function, order: &[NodeIndex]) -> Vec<usize> {
    let mut places = vec![usize::MAX; function.graph.node_bound()];
    order.iter().enumerate().for_each(|(place, node)| places[node.index()] = place);
    let last = order.iter().enumerate().map(|(place, node)| {
        let readers = function.graph.neighbors_directed(*node, Direction::Outgoing);
        readers.map(|reader| places[reader.index()]).fold(place, usize::max)
    });
    let mut change = vec![0i64; order.len() + 1];
    for (definition, last) in last.enumerate() {
        change[definition + 1] += 1;
        change[last + 1] -= 1;
    }
    let alive = change.into_iter().scan(0i64, |sum, change| {
        *sum += change;
        Some(*sum as usize)
    });
    alive.collect()
}
