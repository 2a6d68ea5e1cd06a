//! What is made of weights by several nodes, block by block: a slice of the weights goes through all of the nodes before the next
//! one, so that what lies between fits a cache and is never stored whole.

use super::{
    egraph::{compose::compose, signature::same_shape},
    evaluate::{evaluate, is_widening},
};
use crate::plan::trace::variable_positions;
use petgraph::stable_graph::NodeIndex;
use rayon::prelude::*;
use rustc_hash::{FxHashMap, FxHashSet};
use std::{
    collections::BinaryHeap,
    ops::Range,
    sync::{Mutex, PoisonError},
};
use strang_ir::{Axis, ElementType, Function, IndexMap, Node, Op, SharedNode, Size, Tensor, Value, op::Monoid};
use strang_runtime::tensor::{Cut, Make, Spare};

/// Nodes that make less are computed one after the other.
const FEWEST_BYTES: usize = 1 << 14;
/// The bytes of the largest array of a block.
const BLOCK_BYTES: usize = 1 << 18;

/// Constant nodes of which only the last is read by others.
pub struct Cone {
    /// The nodes, operands first.
    pub nodes: Vec<NodeIndex>,
    /// The variable of every node that blocks are ranges of.
    variables: FxHashMap<NodeIndex, u32>,
    /// The other operands, in order of use, and the axis of each that it is read at; `None` where it is read whole.
    leaves: Vec<(Value, Option<usize>)>,
}

impl Cone {
    /// The nodes that make the value of `root` out of values that are known, if they can be computed in blocks. `constant` are
    /// the nodes that are computed when the model is compiled, with their places in an order of operands before readers.
    pub fn new(function: &Function, root: NodeIndex, constant: &FxHashMap<NodeIndex, usize>) -> Option<Cone> {
        let mut members = FxHashSet::default();
        let mut nodes = Vec::new();
        // Later nodes come first, so that the readers of a node are known when it comes.
        let mut next = BinaryHeap::from([(*constant.get(&root)?, root)]);
        while let Some((_, node)) = next.pop() {
            let readers = function.readers(node.into());
            let is_private =
                !function.outputs.contains(&node.into()) && readers.iter().all(|(reader, _)| members.contains(reader));
            if (node == root || is_private) && members.insert(node) {
                nodes.push(node);
                let operands = function.operands(node).into_iter().map(|operand| operand.node);
                next.extend(operands.filter_map(|operand| Some((*constant.get(&operand)?, operand))));
            }
        }
        nodes.reverse();
        let is_large = |node: &NodeIndex| bytes_of(&function.graph[*node]).is_some_and(|bytes| bytes >= FEWEST_BYTES);
        if !nodes.iter().any(is_large) {
            return None;
        }
        // The longest axis but the last, along which rows are computed; the last if there is no other.
        let shape = shape(&function.graph[root])?;
        let mut axes: Vec<usize> = (0..shape.len()).collect();
        axes.sort_by_key(|axis| (*axis + 1 == shape.len(), std::cmp::Reverse(shape[*axis])));
        axes.into_iter().find_map(|axis| {
            let variable = function.graph[root].outputs[0].variables[axis];
            let (variables, leaves) = along(function, &nodes, (root, variable))?;
            Some(Cone { nodes: nodes.clone(), variables, leaves })
        })
    }

    /// How the value of the last node is computed; `None` where a node has an operation that is not computed fast. `value` are
    /// the operands that are not of the cone, `kinds` what was found so far.
    pub fn blocks(
        &self,
        function: &Function,
        value: &dyn Fn(Value) -> Option<Tensor>,
        kinds: &mut Kinds,
    ) -> Option<Blocks> {
        let root = *self.nodes.last()?;
        let last = &function.graph[root];
        let axis = last.outputs[0].variables.iter().position(|variable| *variable == self.variables[&root])?;
        let shape = shape(last)?;
        let mut bytes = 0;
        let mut places: FxHashMap<Value, usize> = FxHashMap::default();
        let mut leaves = Vec::new();
        for (leaf, axis) in &self.leaves {
            places.insert(*leaf, places.len());
            let value = value(*leaf)?;
            bytes = axis.map_or(bytes, |_| bytes.max(value.length()));
            leaves.push((value, *axis));
        }
        let mut steps = Vec::new();
        let mut views: FxHashMap<Value, SharedNode> = FxHashMap::default();
        for index in &self.nodes {
            let operands = function.operands(*index);
            let mut node = function.graph[*index].clone();
            for (slot, operand) in operands.iter().enumerate() {
                if let Some(view) = views.get(operand) {
                    let positions = variable_positions(view, 0, &node.maps[slot].exprs);
                    node.maps[slot] = compose(&view.maps[0], &positions, &|variable| node.size_of(variable));
                }
            }
            // What is read elsewhere has to be there, as wide as it says.
            if *index != root && is_read_through(function, *index) {
                places.insert((*index).into(), *places.get(operands.first()?)?);
                views.insert((*index).into(), node);
                continue;
            }
            bytes = bytes.max(bytes_of(&node)?);
            let operands = operands.iter().map(|operand| places.get(operand).copied()).collect::<Option<_>>()?;
            steps.push(Step { node, variable: self.variables[index], operands });
            places.insert((*index).into(), leaves.len() + steps.len() - 1);
        }
        let length = (BLOCK_BYTES * shape[axis] / bytes.max(1)).clamp(1, shape[axis].max(1));
        let element = last.outputs[0].element;
        let mut blocks = Blocks { steps, leaves, shape, axis, length, element, ends: FxHashMap::default() };
        let last = blocks.count().checked_sub(1)?;
        let kind = blocks.kind();
        if !kinds.0.contains(&kind) {
            for number in [0, last] {
                if !blocks.ends.contains_key(&number) {
                    let end = blocks.block(&blocks.range(number), &mut Spare::default())?;
                    blocks.ends.insert(number, end);
                }
            }
            kinds.0.push(kind);
        }
        if blocks.is_large() {
            blocks.ends.clear();
        }
        Some(blocks)
    }
}

/// Whether all readers of a node can read its operand instead: a view of it, or what it is widened to for sums, which read
/// narrow numbers too.
fn is_read_through(function: &Function, index: NodeIndex) -> bool {
    let node = &function.graph[index];
    let keeps_values = match &node.op {
        Op::View => true,
        Op::Map(expression) => is_widening(expression, node) && is_summed(function, index),
        _ => false,
    };
    let is_whole = |map: &IndexMap| map.fill.is_none() && map.conditions.is_empty();
    keeps_values
        && is_whole(&node.maps[0])
        && function.readers(index.into()).iter().all(|(reader, slot)| {
            let reader = &function.graph[*reader];
            !matches!(reader.op, Op::Concat { .. }) && is_whole(&reader.maps[*slot as usize])
        })
}

/// Whether only sums read a node, or views that only sums read.
fn is_summed(function: &Function, index: NodeIndex) -> bool {
    let readers = function.readers(index.into());
    let is_sum = |(reader, _): &(NodeIndex, u32)| match function.graph[*reader].op {
        Op::Reduce(monoid) => monoid == Monoid::Sum,
        Op::View => is_summed(function, *reader),
        _ => false,
    };
    !readers.is_empty() && readers.iter().all(is_sum)
}

/// Kinds of cones whose first and last blocks were computed. Whether a node is computed depends on its sizes and types alone, so
/// on no other block than these, and on no other cone of the kind.
#[derive(Default)]
pub struct Kinds(Vec<Kind>);

/// What cones have in common that differ in their weights alone.
#[derive(PartialEq)]
struct Kind {
    steps: Vec<Step>,
    leaves: Vec<(ElementType, Vec<usize>, Option<usize>)>,
    axis: usize,
}

/// A node of a cone.
#[derive(Clone)]
struct Step {
    node: SharedNode,
    /// The variable that blocks are ranges of.
    variable: u32,
    /// What it reads, among the leaves and the nodes before.
    operands: Vec<usize>,
}

impl PartialEq for Step {
    fn eq(&self, other: &Self) -> bool {
        same_shape(&self.node, &other.node) && (self.variable, &self.operands) == (other.variable, &other.operands)
    }
}

/// The value of a cone, to be computed block by block.
pub struct Blocks {
    steps: Vec<Step>,
    leaves: Vec<(Tensor, Option<usize>)>,
    element: ElementType,
    shape: Vec<usize>,
    /// The axis that is cut.
    axis: usize,
    /// Positions of a block.
    length: usize,
    /// Blocks that are known, by their numbers: the first and the last of the first small value of a kind.
    ends: FxHashMap<usize, Tensor>,
}

impl Blocks {
    /// The value, computed now.
    pub fn computed(self) -> Option<Tensor> {
        let mut tensor = Tensor::zeros(self.element, &self.shape).ok()?;
        self.fill(tensor.bytes_mut());
        Some(tensor)
    }

    /// The value, computed when it is read if it is large, so that memory need not hold the values of all cones.
    pub fn deferred(self) -> Option<Tensor> {
        if !self.is_large() {
            return self.computed();
        }
        let (element, shape) = (self.element, self.shape.clone());
        Tensor::deferred(element, &shape, self).ok()
    }

    fn kind(&self) -> Kind {
        let leaf = |(leaf, axis): &(Tensor, Option<usize>)| (leaf.element(), leaf.shape().to_vec(), *axis);
        Kind { steps: self.steps.clone(), leaves: self.leaves.iter().map(leaf).collect(), axis: self.axis }
    }

    fn is_large(&self) -> bool {
        self.element.bytes_of(self.shape.iter().product()).is_none_or(|bytes| bytes >= FEWEST_BYTES)
    }

    fn count(&self) -> usize {
        self.shape[self.axis].div_ceil(self.length)
    }

    fn range(&self, number: usize) -> Range<usize> {
        number * self.length..((number + 1) * self.length).min(self.shape[self.axis])
    }

    /// Computes the bytes of the value.
    fn fill(&self, bytes: &mut [u8]) {
        let bytes = Mutex::new(bytes);
        (0..self.count()).into_par_iter().for_each_init(Spare::default, |spare, number| {
            let range = self.range(number);
            let known = self.ends.get(&number).cloned();
            let part = known.or_else(|| self.block(&range, spare));
            let part = part.expect("all blocks are computed, as the first and the last of the kind were");
            let mut bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
            put(&mut bytes, self.shape[self.axis], self.axis, &range, &part);
            spare.give(part);
        });
        self.release();
    }

    /// Computes what is at some positions, with what comes before, all of which goes back as soon as nothing reads it.
    fn block(&self, range: &Range<usize>, spare: &mut Spare) -> Option<Tensor> {
        let mut values: Vec<Option<Tensor>> = Vec::with_capacity(self.leaves.len() + self.steps.len());
        for (tensor, axis) in &self.leaves {
            values.push(Some(match axis {
                Some(axis) => sliced(tensor, *axis, range, spare)?,
                None => tensor.clone(),
            }));
        }
        for (number, step) in self.steps.iter().enumerate() {
            let mut node = Node::clone(&step.node);
            let place = &mut node.variables[step.variable as usize];
            place.axis = Axis::new(place.axis.name.clone(), Size::from(range.len() as i64));
            let operands: Vec<Tensor> =
                step.operands.iter().map(|operand| values[*operand].clone()).collect::<Option<_>>()?;
            let value = evaluate(&node, &operands, spare)?;
            drop(operands);
            let is_read_later =
                |place: &usize| self.steps[number + 1..].iter().any(|later| later.operands.contains(place));
            for place in step.operands.iter().filter(|place| !is_read_later(place)) {
                values[*place].take().into_iter().for_each(|tensor| spare.give(tensor));
            }
            values.push(Some(value));
        }
        values.pop()?
    }
}

impl Make for Blocks {
    fn write(&self, bytes: &mut [u8], _: &mut Tensor) {
        self.fill(bytes);
    }

    fn cut(&self) -> Option<Cut> {
        Some(Cut { axis: self.axis, length: self.length })
    }

    fn part(&self, positions: Range<usize>, spare: &mut Spare) -> Option<Tensor> {
        let count = positions.len();
        if count <= self.length {
            return self.block(&positions, spare);
        }
        let mut shape = self.shape.clone();
        shape[self.axis] = count;
        let mut part = spare.take(self.element, &shape).ok()?;
        for first in (0..count).step_by(self.length) {
            let range = first..(first + self.length).min(count);
            let block = self.block(&(positions.start + range.start..positions.start + range.end), spare)?;
            put(part.bytes_mut(), count, self.axis, &range, &block);
            spare.give(block);
        }
        Some(part)
    }

    fn release(&self) {
        self.leaves.iter().for_each(|(leaf, _)| leaf.release());
    }
}

type Along = (FxHashMap<NodeIndex, u32>, Vec<(Value, Option<usize>)>);

/// The variable of every node that a variable of the last is, where each reads its operands at that very position.
fn along(function: &Function, nodes: &[NodeIndex], (root, variable): (NodeIndex, u32)) -> Option<Along> {
    let mut variables = FxHashMap::from_iter([(root, variable)]);
    let mut leaves: Vec<(Value, Option<usize>)> = Vec::new();
    for index in nodes.iter().rev() {
        let node = &function.graph[*index];
        let variable = *variables.get(index)?;
        let joins = matches!(node.op, Op::Concat { along, .. } if along == variable);
        if joins || node.outputs.len() != 1 {
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
            let is_limited = map.conditions.iter().any(|condition| condition.expression().mentions(variable));
            if is_limited || axis.is_some_and(|axis| !whole(axis)) {
                return None;
            }
            if nodes.contains(&operand.node) {
                let own = function.graph[operand.node].outputs[0].variables[axis?];
                if *variables.entry(operand.node).or_insert(own) != own {
                    return None;
                }
            } else if let Some((_, other)) = leaves.iter().find(|(leaf, _)| *leaf == operand) {
                if *other != axis {
                    return None;
                }
            } else {
                leaves.push((operand, axis));
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
fn sliced(tensor: &Tensor, axis: usize, range: &Range<usize>, spare: &mut Spare) -> Option<Tensor> {
    if range.len() == tensor.shape()[axis] {
        return Some(tensor.clone());
    }
    let (inner, outer) = around(tensor, axis)?;
    let mut shape = tensor.shape().to_vec();
    let row = shape[axis] * inner;
    shape[axis] = range.len();
    let mut slice = spare.take(tensor.element(), &shape).ok()?;
    let length = range.len() * inner;
    for number in 0..outer {
        let start = number * row + range.start * inner;
        slice.bytes_mut()[number * length..(number + 1) * length]
            .copy_from_slice(&tensor.bytes()[start..start + length]);
    }
    Some(slice)
}

/// Puts a block in its place among the bytes of all `extent` positions of the axis.
fn put(whole: &mut [u8], extent: usize, axis: usize, range: &Range<usize>, part: &Tensor) {
    let Some((inner, outer)) = around(part, axis) else { return };
    let (row, length) = (extent * inner, range.len() * inner);
    for number in 0..outer {
        let start = number * row + range.start * inner;
        whole[start..start + length].copy_from_slice(&part.bytes()[number * length..(number + 1) * length]);
    }
}
