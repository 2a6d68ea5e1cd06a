//! Nodes that read parameters and constants alone become parameters: they are computed once, when the model is compiled.
//!
//! Views stay, because reading through them costs nothing; so do nodes whose result is much larger than what they read. Products of
//! weights wait for the search, which multiplies by one after the other where the rank between them is low, and counts on
//! those that it leaves being computed.

use super::{
    Receipt, RewriteError,
    blocks::{Cone, Kinds},
    evaluate::has_blocks,
    scaled::Scaled,
};
use crate::plan::error::layer_of;
use petgraph::{Direction, stable_graph::NodeIndex};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeMap;
use strang_ir::{
    Bindings, ElementType, Function, FunctionId, Module, Op, Parameter, ScalarExpr, Tensor, Value,
    interpret::{Arithmetic, InterpretError, interpret_node},
};
use strang_runtime::size::SizeError;
use strang_runtime::tensor::Spare;

/// Results up to this size are stored however small their operands are; before rewriting not what is made of bytes.
const SMALL: usize = 1 << 14;
/// How many times larger than its operands a result may be before rewriting: what is narrow tells rules where values lie.
pub const NARROW: usize = 2;
/// How many times larger it may be afterwards: weights of four bits as floats.
pub const WIDE: usize = 8;
/// The bytes up to which products that the search leaves are stored.
const PRODUCT: usize = 1 << 28;

/// Replaces constant nodes by parameters, as long as there is fuel, if they are at most `larger` times what they read; products
/// are limited otherwise.
///
/// # Errors
/// A constant that the interpreter cannot compute.
pub fn fold_constants(
    module: &mut Module,
    larger: usize,
    fuel: usize,
    receipt: &mut Receipt,
) -> Result<(), RewriteError> {
    let mut kinds = Kinds::default();
    for position in 0..module.functions.len() {
        let mut computed = Computed::default();
        let constant = constants(module, position, larger);
        let mut cones = cones(&module.functions[position], &constant);
        let wide: FxHashSet<NodeIndex> =
            constant.iter().filter(|constant| constant.is_wide).map(|constant| constant.node).collect();
        let within: FxHashSet<NodeIndex> = cones.values().flat_map(|cone| cone.nodes.iter().copied()).collect();
        for Constant { node, .. } in constant {
            if receipt.spent >= fuel {
                break;
            }
            let cone = cones.remove(&node);
            let own = [node];
            let nodes = match &cone {
                Some(cone) => &cone.nodes,
                None if within.contains(&node) => continue,
                None => &own[..],
            };
            let fits = larger == WIDE && receipt.spent + nodes.len() <= fuel;
            if fits && fold_scaled(module, position, nodes, &mut computed, receipt).is_some() {
                continue;
            }
            let Some(cone) = cone else {
                fold(module, position, node, larger, &mut computed, receipt)?;
                continue;
            };
            let enough = receipt.spent + cone.nodes.len() <= fuel && cone.nodes.iter().all(|node| !wide.contains(node));
            if !enough || !fold_blocks(module, position, &cone, larger, &mut kinds, &mut computed, receipt) {
                for node in cone.nodes.into_iter().take(fuel.saturating_sub(receipt.spent)) {
                    fold(module, position, node, larger, &mut computed, receipt)?;
                }
            }
        }
        for (node, data) in computed.values {
            store(module, position, node, data);
        }
        module.functions[position].remove_dead();
    }
    Ok(())
}

/// A node that may be computed when the model is compiled.
struct Constant {
    node: NodeIndex,
    /// Whether it may be by ranges of an axis.
    has_blocks: bool,
    /// Whether it is, or reads, zero points that were widened for every position: it is computed with codes alone.
    is_wide: bool,
}

/// The nodes that may be computed, and views of weights and of them; operands first.
fn constants(module: &Module, position: usize, larger: usize) -> Vec<Constant> {
    let function = &module.functions[position];
    let mut constant = Vec::new();
    let mut known: FxHashSet<NodeIndex> = FxHashSet::default();
    let mut wide: FxHashSet<NodeIndex> = FxHashSet::default();
    for node in function.order() {
        let is_known = |operand: NodeIndex| match &function.graph[operand].op {
            Op::Param(number) => module.parameters.get(*number as usize).is_some_and(|other| other.data.is_some()),
            Op::Const(_) => true,
            _ => known.contains(&operand),
        };
        if !function.graph.neighbors_directed(node, Direction::Incoming).all(is_known) {
            continue;
        }
        let operands = function.operands(node);
        let sizes = operands.iter().map(|value| Some((function.element_of(*value), bytes_of(function, *value)?)));
        let Some(sizes) = sizes.collect::<Option<Vec<_>>>() else { continue };
        let is_computed = function.graph[node].op == Op::View || pays(function, node, &sizes, larger);
        if is_computed || larger == WIDE && widens(function, node) {
            known.insert(node);
            let is_wide = !is_computed || operands.iter().any(|operand| wide.contains(&operand.node));
            if is_wide {
                wide.insert(node);
            }
            let types: Vec<ElementType> = sizes.into_iter().map(|(element, _)| element).collect();
            constant.push(Constant { node, has_blocks: has_blocks(&function.graph[node], &types), is_wide });
        }
    }
    constant
}

/// Whether a node makes codes of few bits floats, for every position of some axes that these do not have.
fn widens(function: &Function, node: NodeIndex) -> bool {
    let operand = || function.element_of(function.operands(node)[0]);
    match &function.graph[node].op {
        Op::Map(ScalarExpr::Cast(ElementType::F32, inner)) => {
            **inner == ScalarExpr::Operand(0) && operand().is_integer() && operand().bits() <= 8
        }
        _ => false,
    }
}

/// The nodes of which several are computed together, by the last of them.
fn cones(function: &Function, constant: &[Constant]) -> FxHashMap<NodeIndex, Cone> {
    let in_blocks = constant.iter().filter(|constant| constant.has_blocks).map(|constant| constant.node);
    let mut places: FxHashMap<NodeIndex, usize> = in_blocks.enumerate().map(|(place, node)| (node, place)).collect();
    // Views alone are not computed.
    for Constant { node, .. } in constant.iter().rev().filter(|constant| function.graph[constant.node].op == Op::View) {
        let readers = function.readers((*node).into());
        if readers.is_empty() || !readers.iter().all(|(reader, _)| places.contains_key(reader)) {
            places.remove(node);
        }
    }
    let is_read = |(reader, _): &(NodeIndex, u32)| places.contains_key(reader);
    let is_last = |node: &&NodeIndex| {
        function.graph[**node].op != Op::View && !function.readers((**node).into()).iter().all(is_read)
    };
    places.keys().filter(is_last).filter_map(|root| Some((*root, Cone::new(function, *root, &places)?))).collect()
}

/// Computes several nodes together; `false` where that cannot be done.
fn fold_blocks(
    module: &Module,
    position: usize,
    cone: &Cone,
    larger: usize,
    kinds: &mut Kinds,
    computed: &mut Computed,
    receipt: &mut Receipt,
) -> bool {
    let function = &module.functions[position];
    let value = |value: Value| constant(module, position, value, computed);
    let Some(blocks) = cone.blocks(function, &value, kinds) else { return false };
    // What is known before rewriting may be made of again.
    let data = if larger == NARROW { blocks.computed() } else { blocks.deferred() };
    let (Some(data), Some(root)) = (data, cone.nodes.last()) else { return false };
    for node in &cone.nodes {
        receipt.apply("fold-constants", layer_of(&function.graph[*node]));
        computed.note(function, *node);
    }
    computed.values.insert(*root, data);
    true
}

/// Makes nodes that scale codes a weight that knows its codes; `None` where they compute something else.
fn fold_scaled(
    module: &Module,
    position: usize,
    nodes: &[NodeIndex],
    computed: &mut Computed,
    receipt: &mut Receipt,
) -> Option<()> {
    let function = &module.functions[position];
    let value = |value: Value| constant(module, position, value, computed);
    let data = Scaled::of(function, nodes, &value)?.deferred()?;
    for node in nodes {
        receipt.apply("fold-constants", layer_of(&function.graph[*node]));
        computed.note(function, *node);
    }
    computed.values.insert(*nodes.last()?, data);
    Some(())
}

fn fold(
    module: &Module,
    position: usize,
    node: NodeIndex,
    larger: usize,
    computed: &mut Computed,
    receipt: &mut Receipt,
) -> Result<(), RewriteError> {
    let Some(operands) = constant_operands(module, position, node, larger, computed) else { return Ok(()) };
    let layer = layer_of(&module.functions[position].graph[node]);
    let data = evaluate(module, position, node, &operands)
        .map_err(|reason| RewriteError::Constant { layer: layer.clone(), reason })?;
    if let Some(data) = data {
        receipt.apply("fold-constants", layer);
        computed.note(&module.functions[position], node);
        computed.values.insert(node, data);
    }
    Ok(())
}

/// The values of nodes that others may still read.
#[derive(Default)]
struct Computed {
    values: BTreeMap<NodeIndex, Tensor>,
    nodes: FxHashSet<NodeIndex>,
}

impl Computed {
    /// Notes that a node was computed, and drops the values of operands that only computed nodes read.
    fn note(&mut self, function: &Function, node: NodeIndex) {
        self.nodes.insert(node);
        for operand in function.operands(node) {
            let is_done = |(reader, _): &(NodeIndex, u32)| self.nodes.contains(reader);
            if !function.outputs.contains(&operand) && function.readers(operand).iter().all(is_done) {
                self.values.remove(&operand.node);
            }
        }
    }
}

/// The operands of a node, when all of them are constant and folding pays.
fn constant_operands(
    module: &Module,
    position: usize,
    index: NodeIndex,
    larger: usize,
    computed: &Computed,
) -> Option<Vec<Tensor>> {
    let function = &module.functions[position];
    let operands = function.operands(index).into_iter().map(|operand| constant(module, position, operand, computed));
    let operands: Vec<Tensor> = operands.collect::<Option<_>>()?;
    let size = |tensor: &Tensor| (tensor.element(), tensor.length());
    pays(function, index, &operands.iter().map(size).collect::<Vec<_>>(), larger).then_some(operands)
}

/// Whether a node of constant operands, of given types and bytes, is computed when the model is compiled.
fn pays(function: &Function, index: NodeIndex, operands: &[(ElementType, usize)], larger: usize) -> bool {
    let node = &function.graph[index];
    let foldable = matches!(
        node.op,
        Op::Map(_)
            | Op::Dot { .. }
            | Op::Reduce(_)
            | Op::Gather
            | Op::Concat { .. }
            | Op::Norm { .. }
            | Op::Softmax { .. }
    );
    if !foldable || node.outputs.len() != 1 || operands.is_empty() {
        return false;
    }
    let read: usize = operands.iter().map(|(_, bytes)| bytes).sum();
    let narrow = |(element, bytes): &(ElementType, usize)| element.bits() <= 8 && *bytes > 1;
    let small = if larger == NARROW && operands.iter().any(narrow) { 0 } else { SMALL };
    let most = match node.op {
        Op::Dot { .. } if larger == NARROW => read.max(small),
        Op::Dot { .. } => PRODUCT,
        // Codes and their book: no rule looks into them, but many do into weights.
        Op::Gather => read.saturating_mul(WIDE).max(SMALL),
        _ => read.saturating_mul(larger).max(small),
    };
    bytes_of(function, index.into()).is_some_and(|bytes| bytes <= most)
}

/// The bytes of a value, when its sizes are fixed and memory can hold it.
fn bytes_of(function: &Function, value: Value) -> Option<usize> {
    let sizes = function.shape_of(value);
    let mut counts = sizes.iter().map(|size| usize::try_from(size.as_constant()?).ok());
    let count = counts.try_fold(1usize, |product, count| product.checked_mul(count?))?;
    function.element_of(value).bytes_of(count)
}

/// The value of a parameter or constant; of a small view of one too.
fn constant(module: &Module, position: usize, value: Value, computed: &Computed) -> Option<Tensor> {
    if let Some(data) = computed.values.get(&value.node) {
        return Some(data.clone());
    }
    let function = &module.functions[position];
    let node = &function.graph[value.node];
    match &node.op {
        Op::Param(parameter) => module.parameters.get(*parameter as usize)?.data.clone(),
        Op::Const(literal) => {
            let mut tensor = Tensor::zeros(literal.element, &[]).ok()?;
            tensor.set_bits(0, literal.bits);
            Some(tensor)
        }
        Op::View => {
            let inner = constant(module, position, function.operands(value.node)[0], computed)?;
            if bytes_of(function, value)? > inner.length().max(SMALL) {
                return None;
            }
            evaluate(module, position, value.node, &[inner]).ok()?
        }
        _ => None,
    }
}

/// The value of a node; `None` when it depends on a symbol (a sum over an axis of any length) after all.
fn evaluate(module: &Module, position: usize, node: NodeIndex, operands: &[Tensor]) -> Result<Option<Tensor>, String> {
    if let Some(result) =
        super::evaluate::evaluate(&module.functions[position].graph[node], operands, &mut Spare::default())
    {
        return Ok(Some(result));
    }
    let function = FunctionId(position as u32);
    match interpret_node(module, function, node, operands, &Bindings::new(), Arithmetic::Typed) {
        Err(InterpretError::Size { error: SizeError::Unbound(_), .. }) => Ok(None),
        Err(error) => Err(error.to_string()),
        Ok(results) => results.into_iter().next().map(Some).ok_or_else(|| "it has no result".into()),
    }
}

/// Puts a parameter with a node's value in its place.
fn store(module: &mut Module, position: usize, index: NodeIndex, data: Tensor) {
    let node = module.functions[position].graph[index].clone();
    let axes = node.axes(0).into_iter().cloned().collect();
    let parameter = Parameter::new(node.outputs[0].name.clone(), node.outputs[0].element, axes).with_data(data);
    let (number, parameter) = module.add_fresh_parameter(parameter);
    let function = &mut module.functions[position];
    let replacement = function.add_param(number, &parameter);
    function.graph[replacement].source = node.source.clone();
    function.replace(index.into(), replacement.into());
}
