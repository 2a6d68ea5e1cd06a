//! What is known while one function is planned: its groups, and where its values lie.

use super::{
    group::Groups,
    layout::{Halo, Layout},
    residues::{self, Residues},
};
use petgraph::stable_graph::NodeIndex;
use rustc_hash::{FxHashMap, FxHashSet};
use strang_ir::{Function, IndexExpr, Literal, Module, Op, Size, Value};

/// A function that is being planned.
pub struct Scope<'a> {
    /// The module it is part of.
    pub module: &'a Module,
    /// The function.
    pub function: &'a Function,
    /// Its groups and the nodes that are none.
    pub groups: Groups,
    /// Where values lie that are in memory.
    pub arrays: FxHashMap<Value, Layout>,
    /// The halos of those that have one, per logical axis.
    pub halos: FxHashMap<Value, Vec<Halo>>,
    /// Where results of the function must be written: the first place becomes the array, others are written as well.
    pub destinations: FxHashMap<Value, Vec<Layout>>,
    /// Results that kernels have written to all of their places.
    pub delivered: FxHashSet<Value>,
    /// Values that something outside of their group reads.
    pub needed: FxHashSet<Value>,
    /// Copies of what a node reads through an operand slot in kernels of some residues, with the positions that the variables
    /// of the kernel read.
    pub copies: FxHashMap<(NodeIndex, usize, Residues), (Layout, Vec<IndexExpr>)>,
    /// The number of enclosing repeats.
    pub depth: u32,
}

impl Scope<'_> {
    /// The kernels of a product, by the positions that they compute.
    pub fn kernels(&self, product: NodeIndex) -> Vec<Residues> {
        let operands = self.function.operands(product);
        let shapes: Vec<Vec<Size>> = operands.into_iter().map(|operand| self.function.shape_of(operand)).collect();
        residues::kernels(&self.function.graph[product], &shapes)
    }

    /// Whether reads of a value go through it: it is a view or an index-only map that is not an array.
    pub fn is_virtual(&self, value: Value) -> bool {
        self.groups.virtuals.contains(&value.node) && !self.arrays.contains_key(&value)
    }

    /// The value of a constant, or of a parameter with one element.
    pub fn literal(&self, value: Value) -> Option<Literal> {
        match &self.function.graph[value.node].op {
            Op::Const(literal) => Some(*literal),
            Op::Param(position) => {
                let data = self.module.parameters.get(*position as usize)?.data.as_ref()?;
                (data.count() == 1).then(|| Literal { element: data.element(), bits: data.bits_at(0) })
            }
            _ => None,
        }
    }

    /// The parameter that a value is.
    pub fn parameter(&self, value: Value) -> Option<u32> {
        match self.function.graph[value.node].op {
            Op::Param(position) => Some(position),
            _ => None,
        }
    }

    /// The operation of a node.
    pub fn op(&self, node: NodeIndex) -> &Op {
        &self.function.graph[node].op
    }
}
