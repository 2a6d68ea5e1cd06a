//! What no reader reads is not computed: a classifier that looks at the first position of a sequence needs one row of the layers
//! before, up to attention, whose keys and values are those of all positions.
//!
//! Axes are made shorter from readers to operands, where all readers read one range of positions that is known when compiling. Every
//! element that is left is computed as before, so the bits are the same.

use super::{Receipt, egraph::compose::compose};
use crate::plan::error::layer_of;
use petgraph::{Direction, stable_graph::NodeIndex, visit::EdgeRef};
use strang_ir::{Axis, Function, IndexExpr, Module, Node, Op, ScalarExpr, Size};

/// Makes axes shorter of which a part is read, as long as there is fuel.
pub fn leave_unread(module: &mut Module, fuel: usize, receipt: &mut Receipt) {
    for function in &mut module.functions {
        for index in function.order().into_iter().rev() {
            let node = &function.graph[index];
            if !reads_by_maps(&node.op) || node.outputs.len() != 1 || function.outputs.contains(&index.into()) {
                continue;
            }
            let mut shorter = false;
            for axis in (0..node.outputs[0].variables.len()).filter(|_| receipt.spent < fuel) {
                if let Some(range) = range(function, index, axis) {
                    shorten(function, index, axis, &range);
                    shorter = true;
                }
            }
            if shorter {
                receipt.apply("unread-positions", layer_of(&function.graph[index]));
            }
        }
    }
}

/// Positions of an axis.
struct Range {
    first: Size,
    last: Size,
}

impl Range {
    fn size(&self) -> Size {
        &self.last - &self.first + Size::ONE
    }

    /// The least range that has the positions of both, where that can be told.
    fn with(self, other: Range) -> Option<Range> {
        let less = |a: Size, b: Size| {
            if b.is_at_least(&a, 1) {
                Some((a, b))
            } else if a.is_at_least(&b, 1) {
                Some((b, a))
            } else {
                None
            }
        };
        Some(Range { first: less(self.first, other.first)?.0, last: less(self.last, other.last)?.1 })
    }
}

/// The positions of an axis of a node that are read, if they are fewer than there are and the node can do without the others.
fn range(function: &Function, index: NodeIndex, axis: usize) -> Option<Range> {
    let node = &function.graph[index];
    let variable = node.outputs[0].variables[axis];
    let size = node.variables[variable as usize].size();
    let mut read: Option<Range> = None;
    for edge in function.graph.edges_directed(index, Direction::Outgoing) {
        let (reader, slot) = (&function.graph[edge.target()], edge.weight().slot);
        let map = reader.maps.get(slot as usize).filter(|map| reads_by_maps(&reader.op) && map.fill.is_none())?;
        // Most read an axis whole.
        if map.exprs[axis].as_variable().is_some_and(|variable| reader.variables[variable as usize].size() == size) {
            return None;
        }
        let (first, last) = map.exprs[axis].bounds(&|variable| reader.size_of(variable))?;
        // No further than the axis goes, whatever symbols stand for.
        let inside = first.lower_bound(1).is_some_and(|first| first >= 0);
        if !inside || !size.is_at_least(&(last.clone() + Size::ONE), 1) {
            return None;
        }
        let own = Range { first, last };
        read = Some(match read {
            Some(read) => read.with(own)?,
            None => own,
        });
    }
    let is_less = |range: &Range| range.size() != *size && range.size().lower_bound(1).is_some_and(|size| size >= 1);
    read.filter(|range| is_less(range) && is_free(node, variable))
}

/// Whether an operation reads what its maps say, and nothing else.
fn reads_by_maps(op: &Op) -> bool {
    matches!(op, Op::Dot { .. } | Op::View | Op::Reduce(_) | Op::Map(_) | Op::Softmax { .. } | Op::Norm { .. })
}

/// Whether a node computes every position of a variable by itself.
fn is_free(node: &Node, variable: u32) -> bool {
    match &node.op {
        Op::Dot { .. } | Op::View | Op::Reduce(_) => true,
        Op::Map(expression) => {
            let mut free = true;
            expression.visit(&mut |part| free &= *part != ScalarExpr::Index(variable));
            free
        }
        Op::Softmax { over, .. } | Op::Norm { over, .. } => !over.contains(&variable),
        _ => false,
    }
}

/// Leaves a node with a range of an axis, and has readers read from its start.
fn shorten(function: &mut Function, index: NodeIndex, axis: usize, range: &Range) {
    for (reader, slot) in function.readers(index.into()) {
        let place = &mut function.graph[reader].maps[slot as usize].exprs[axis];
        *place = place.plus_size(&(&Size::ZERO - &range.first));
    }
    let node = &mut function.graph[index];
    let variable = node.outputs[0].variables[axis];
    let place = &mut node.variables[variable as usize];
    place.axis = Axis::new(place.axis.name.clone(), range.size());
    let moved = |other: u32| {
        let expression = IndexExpr::variable(other);
        if other == variable { expression.plus_size(&range.first) } else { expression }
    };
    let positions: Vec<IndexExpr> = (0..node.variables.len() as u32).map(moved).collect();
    let maps = node.maps.iter().map(|map| compose(map, &positions, &|variable| node.size_of(variable))).collect();
    node.maps = maps;
}
