//! Convolutions with fewer products, whose rounding counts more: Winograd's algebra for four results at a time.

use super::{Change, Variant, rules::ApproximateRule};
use crate::{
    plan::layer_of,
    rewrite::{
        rules::winograd::{FOUR_RESULTS, is_filtering},
        single,
    },
};
use petgraph::stable_graph::NodeIndex;
use strang_ir::{Module, Op};

/// A convolution.
#[derive(Clone, Debug)]
pub struct Filtering(NodeIndex);

/// Products with weights that filter along an axis.
pub fn filterings(module: &Module, rule: &'static ApproximateRule) -> Vec<Variant> {
    let function = module.entry();
    let is_weight = |number: u32| module.parameters[number as usize].data.is_some();
    let found = function.order().into_iter().filter(|index| {
        let node = &function.graph[*index];
        let operands = function.operands(*index);
        let weights = operands.get(1).map(|operand| &function.graph[operand.node].op);
        let has_weights = matches!(weights, Some(Op::Param(number)) if is_weight(*number));
        matches!(node.op, Op::Dot { .. }) && has_weights && is_filtering(node)
    });
    let variant = |node: NodeIndex| Variant {
        rule,
        layer: layer_of(&function.graph[node]),
        degree: None,
        changes: vec![node],
        change: Change::Filtering(Filtering(node)),
    };
    found.map(variant).collect()
}

impl Filtering {
    /// Makes the convolution one of fewer products.
    pub fn apply(&self, module: &mut Module) {
        single::replace(module, self.0, &FOUR_RESULTS);
    }
}
