//! What is made of weights by several nodes, block by block: a slice of the weights goes through all of the nodes before the next
//! one, so that what lies between fits a cache and is never stored whole.

use super::evaluate::evaluate;
use petgraph::stable_graph::NodeIndex;
use rayon::prelude::*;
use rustc_hash::{FxHashMap, FxHashSet};
use std::{ops::Range, sync::Mutex};
use strang_ir::{Axis, Function, Node, Op, Size, Tensor, Value};

/// Nodes that make less are computed one after the other.
const FEWEST_BYTES: usize = 1 << 20;
/// The bytes of the largest array of a block.
const BLOCK_BYTES: usize = 1 << 17;

/// Constant nodes of which only the last is read by others.
pub struct Cone {
    /// The nodes, operands first.
    pub nodes: Vec<NodeIndex>,
    /// The variable of every node that blocks are ranges of.
    variables: FxHashMap<NodeIndex, u32>,
    /// The axis of the other operands that it is read at; `None` where they are read whole.
    leaves: FxHashMap<Value, Option<usize>>,
}

impl Cone {
    /// The nodes that make the value of `root` out of values that are known, if they can be computed in blocks. `constant` are
    /// the nodes that are computed when the model is compiled.
    pub fn new(function: &Function, root: NodeIndex, constant: &FxHashSet<NodeIndex>) -> Option<Cone> {
        let shape = shape(&function.graph[root])?;
        if bytes_of(&function.graph[root])? < FEWEST_BYTES {
            return None;
        }
        let mut members = FxHashSet::from_iter([root]);
        let order = function.order();
        for node in order.iter().rev().filter(|node| constant.contains(node)) {
            let readers = function.readers((*node).into());
            let is_private = !readers.is_empty() && readers.iter().all(|(reader, _)| members.contains(reader));
            if is_private && !function.outputs.contains(&(*node).into()) {
                members.insert(*node);
            }
        }
        let nodes: Vec<NodeIndex> = order.into_iter().filter(|node| members.contains(node)).collect();
        if nodes.len() < 2 {
            return None;
        }
        // The longest axis but the last, along which rows are computed.
        let mut axes: Vec<usize> = (0..shape.len().checked_sub(1)?).collect();
        axes.sort_by_key(|axis| std::cmp::Reverse(shape[*axis]));
        axes.into_iter().find_map(|axis| {
            let variable = function.graph[root].outputs[0].variables[axis];
            let (variables, leaves) = along(function, &nodes, (root, variable))?;
            Some(Cone { nodes: nodes.clone(), variables, leaves })
        })
    }

    /// The value of the last node; `None` where a node has an operation that is not computed fast. `value` are the operands that
    /// are not of the cone.
    pub fn evaluate(&self, function: &Function, value: &dyn Fn(Value) -> Option<Tensor>) -> Option<Tensor> {
        let root = *self.nodes.last()?;
        let node = &function.graph[root];
        let axis = node.outputs[0].variables.iter().position(|variable| *variable == self.variables[&root])?;
        let shape = shape(node)?;
        let extent = shape[axis];
        let leaves: FxHashMap<Value, (Tensor, Option<usize>)> =
            self.leaves.iter().map(|(leaf, axis)| Some((*leaf, (value(*leaf)?, *axis)))).collect::<Option<_>>()?;
        let largest = |node: &NodeIndex| bytes_of(&function.graph[*node]);
        let bytes = self.nodes.iter().map(largest).collect::<Option<Vec<_>>>()?.into_iter().max()?;
        let block = (BLOCK_BYTES * extent / bytes.max(1)).clamp(1, extent.max(1));
        let result = Mutex::new(Tensor::zeros(node.outputs[0].element, &shape).ok()?);
        (0..extent.div_ceil(block)).into_par_iter().try_for_each(|number| {
            let range = number * block..((number + 1) * block).min(extent);
            let part = self.block(function, &leaves, &range)?;
            put(&mut *result.lock().ok()?, axis, &range, &part);
            Some(())
        })?;
        result.into_inner().ok()
    }

    fn block(
        &self,
        function: &Function,
        leaves: &FxHashMap<Value, (Tensor, Option<usize>)>,
        range: &Range<usize>,
    ) -> Option<Tensor> {
        let mut values: FxHashMap<Value, Tensor> = FxHashMap::default();
        for (leaf, (tensor, axis)) in leaves {
            let slice = match axis {
                Some(axis) => sliced(tensor, *axis, range)?,
                None => tensor.clone(),
            };
            values.insert(*leaf, slice);
        }
        for index in &self.nodes {
            let mut node = function.graph[*index].clone();
            let place = &mut node.variables[self.variables[index] as usize];
            place.axis = Axis::new(place.axis.name.clone(), Size::from(range.len() as i64));
            let operands: Vec<Tensor> =
                function.operands(*index).iter().map(|operand| values.get(operand).cloned()).collect::<Option<_>>()?;
            values.insert((*index).into(), evaluate(&node, &operands)?);
        }
        values.remove(&(*self.nodes.last()?).into())
    }
}

type Along = (FxHashMap<NodeIndex, u32>, FxHashMap<Value, Option<usize>>);

/// The variable of every node that a variable of the last is, where each reads its operands at that very position.
fn along(function: &Function, nodes: &[NodeIndex], (root, variable): (NodeIndex, u32)) -> Option<Along> {
    let mut variables = FxHashMap::from_iter([(root, variable)]);
    let mut leaves: FxHashMap<Value, Option<usize>> = FxHashMap::default();
    for index in nodes.iter().rev() {
        let node = &function.graph[*index];
        let variable = *variables.get(index)?;
        let joins = matches!(node.op, Op::Concat { along, .. } if along == variable);
        if joins || !matches!(node.op, Op::Map(_) | Op::Concat { .. }) || node.outputs.len() != 1 {
            return None;
        }
        for (map, operand) in node.maps.iter().zip(function.operands(*index)) {
            let mut read = map.exprs.iter().enumerate().filter(|(_, expression)| expression.mentions(variable));
            let axis = match (read.next(), read.next()) {
                (Some((axis, expression)), None) if expression.as_variable() == Some(variable) => Some(axis),
                (None, _) => None,
                _ => return None,
            };
            let whole = |axis: usize| function.shape_of(operand)[axis] == node.size_of(variable);
            if !map.conditions.is_empty() || axis.is_some_and(|axis| !whole(axis)) {
                return None;
            }
            if nodes.contains(&operand.node) {
                let own = function.graph[operand.node].outputs[0].variables[axis?];
                if *variables.entry(operand.node).or_insert(own) != own {
                    return None;
                }
            } else if *leaves.entry(operand).or_insert(axis) != axis {
                return None;
            }
        }
    }
    Some((variables, leaves))
}

fn shape(node: &Node) -> Option<Vec<usize>> {
    node.shape(0).iter().map(|size| usize::try_from(size.as_constant()?).ok()).collect()
}

fn bytes_of(node: &Node) -> Option<usize> {
    Some(node.outputs[0].element.bytes()? * shape(node)?.iter().product::<usize>())
}

/// The bytes of one position of an axis and all after it, and the number of positions of all before it.
fn around(tensor: &Tensor, axis: usize) -> Option<(usize, usize)> {
    let inner: usize = tensor.shape()[axis + 1..].iter().product();
    Some((inner * tensor.element().bytes()?, tensor.shape()[..axis].iter().product()))
}

/// Some positions of an axis.
fn sliced(tensor: &Tensor, axis: usize, range: &Range<usize>) -> Option<Tensor> {
    let (inner, outer) = around(tensor, axis)?;
    let mut shape = tensor.shape().to_vec();
    let row = shape[axis] * inner;
    shape[axis] = range.len();
    let mut slice = Tensor::zeros(tensor.element(), &shape).ok()?;
    let length = range.len() * inner;
    for number in 0..outer {
        let start = number * row + range.start * inner;
        slice.bytes_mut()[number * length..(number + 1) * length]
            .copy_from_slice(&tensor.bytes()[start..start + length]);
    }
    Some(slice)
}

/// Puts a block in its place.
fn put(whole: &mut Tensor, axis: usize, range: &Range<usize>, part: &Tensor) {
    let Some((inner, outer)) = around(part, axis) else { return };
    let (row, length) = (whole.shape()[axis] * inner, range.len() * inner);
    for number in 0..outer {
        let start = number * row + range.start * inner;
        whole.bytes_mut()[start..start + length].copy_from_slice(&part.bytes()[number * length..(number + 1) * length]);
    }
}
