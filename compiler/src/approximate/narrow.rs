//! Feed-forward layers without their least hidden units.
//!
//! A feed-forward layer is a sum over its hidden units, each a column of the first weights, a function and a row of the last.
//! The layer is cut along that axis, and the part with the smallest weights is erased: what is left is a narrower layer.

use super::{Change, Variant, rules::ApproximateRule};
use crate::plan::layer_of;
use petgraph::{Direction, stable_graph::NodeIndex};
use rustc_hash::FxHashMap;
use strang_ir::{Axis, Function, IndexMap, Module, Op, Parameter, Size, Tensor, Value};

/// Which parts of the hidden units stay.
const KEPT: [(usize, usize); 3] = [(7, 8), (3, 4), (1, 2)];
/// Fewer units than a vector has lanes are not worth a kernel of their own.
const LANES: usize = 16;

/// A hidden axis and the units of it that stay.
#[derive(Clone, Debug)]
pub struct Narrowing {
    hidden: Hidden,
    kept: Vec<usize>,
}

/// A hidden axis: a variable of every node from the products that make it to the product that sums over it.
#[derive(Clone, Debug)]
struct Hidden {
    /// The nodes with the variable that runs over it.
    variables: Vec<(NodeIndex, u32)>,
    /// Reads of parameters: the reader, the slot, and the axis of the parameter.
    parameters: Vec<(NodeIndex, u32, usize)>,
    size: usize,
}

/// Feed-forward layers to be narrowed, by degrees.
pub fn narrowings(module: &Module, rule: &'static ApproximateRule) -> Vec<Variant> {
    let function = module.entry();
    let mut found = Vec::new();
    for last in function.order() {
        let Some(hidden) = hidden(module, function, last) else { continue };
        let Some(weights) = weights(module, function, &hidden) else { continue };
        let mut order: Vec<usize> = (0..hidden.size).collect();
        order.sort_by(|a, b| weights[*b].total_cmp(&weights[*a]));
        for (part, whole) in KEPT {
            let count = (hidden.size * part / whole).next_multiple_of(LANES);
            if count >= hidden.size {
                continue;
            }
            let mut kept = order[..count].to_vec();
            kept.sort_unstable();
            found.push(Variant {
                rule,
                layer: layer_of(&function.graph[last]),
                degree: Some(format!("{count} of {} units", hidden.size)),
                changes: hidden.variables.iter().map(|(node, _)| *node).collect(),
                change: Change::Narrow(Narrowing { hidden: hidden.clone(), kept }),
            });
        }
    }
    found
}

/// The hidden axis over which a product sums, if it goes through maps alone back to products with weights.
fn hidden(module: &Module, function: &Function, last: NodeIndex) -> Option<Hidden> {
    let node = &function.graph[last];
    let contracted = node.contracted();
    let (Op::Dot { .. }, [variable], 2) = (&node.op, &contracted[..], node.maps.len()) else { return None };
    let size = usize::try_from(node.size_of(*variable).as_constant()?).ok()?;
    let mut hidden = Hidden { variables: Vec::new(), parameters: Vec::new(), size };
    let mut pending = vec![(last, *variable)];
    let mut products = 0;
    while let Some((index, variable)) = pending.pop() {
        if hidden.variables.contains(&(index, variable)) {
            continue;
        }
        if hidden.variables.iter().any(|(other, _)| *other == index) || function.graph[index].outputs.len() != 1 {
            return None;
        }
        hidden.variables.push((index, variable));
        let node = &function.graph[index];
        let is_product = index != last && matches!(node.op, Op::Dot { .. });
        if index != last && !is_product && !matches!(node.op, Op::Map(_)) {
            return None;
        }
        products += usize::from(is_product);
        let mut reads = 0;
        for (slot, operand) in function.operands(index).into_iter().enumerate() {
            let Some(axis) = axis_of(&node.maps[slot], variable)? else { continue };
            reads += 1;
            let source = &function.graph[operand.node];
            if source.shape(operand.port)[axis].as_constant() != i64::try_from(size).ok() {
                return None;
            }
            match source.op {
                Op::Param(number) => {
                    module.parameters[number as usize].data.as_ref()?;
                    hidden.parameters.push((index, slot as u32, axis));
                }
                Op::Map(_) | Op::Dot { .. } if !is_product => {
                    pending.push((operand.node, source.outputs[operand.port as usize].variables[axis]));
                }
                _ => return None,
            }
        }
        // A product that makes the axis has it from its weights alone.
        if is_product && reads != 1 {
            return None;
        }
    }
    let own = |node: NodeIndex| hidden.variables.iter().any(|(other, _)| *other == node);
    let inside = |node: NodeIndex| {
        node == last
            || function.graph.neighbors_directed(node, Direction::Outgoing).all(own)
                && function.outputs.iter().all(|value| value.node != node)
    };
    let closed = hidden.variables.iter().all(|(node, _)| inside(*node));
    (products > 0 && closed).then_some(hidden)
}

/// The axis that a map reads at a variable, if it does; `None` where it does so in any other way.
fn axis_of(map: &IndexMap, variable: u32) -> Option<Option<usize>> {
    if !map.mentions(variable) {
        return Some(None);
    }
    let plain: Vec<usize> =
        (0..map.exprs.len()).filter(|axis| map.exprs[*axis].as_variable() == Some(variable)).collect();
    let mut mentions = 0;
    map.visit_variables(&mut |other| mentions += usize::from(other == variable));
    (plain.len() == 1 && mentions == 1 && map.fill.is_none()).then_some(plain.first().copied())
}

/// For every unit the product of the lengths of its weights in the products.
fn weights(module: &Module, function: &Function, hidden: &Hidden) -> Option<Vec<f64>> {
    let mut weights = vec![1.; hidden.size];
    for (reader, slot, axis) in &hidden.parameters {
        if !matches!(function.graph[*reader].op, Op::Dot { .. }) {
            continue;
        }
        let data = parameter(module, function, *reader, *slot)?.1.data.as_ref()?;
        let inner: usize = data.shape()[axis + 1..].iter().product();
        let mut squares = vec![0.; hidden.size];
        for (position, value) in data.to_f64().into_iter().enumerate() {
            squares[position / inner % hidden.size] += value * value;
        }
        weights.iter_mut().zip(squares).for_each(|(weight, square)| *weight *= f64::sqrt(square));
    }
    Some(weights)
}

fn parameter<'a>(
    module: &'a Module,
    function: &Function,
    reader: NodeIndex,
    slot: u32,
) -> Option<(u32, &'a Parameter)> {
    let operand = function.operands(reader)[slot as usize];
    match function.graph[operand.node].op {
        Op::Param(number) => Some((number, &module.parameters[number as usize])),
        _ => None,
    }
}

impl Narrowing {
    /// Narrows the layer.
    pub fn apply(&self, module: &mut Module) {
        let size = Size::from(self.kept.len() as i64);
        for (node, variable) in &self.hidden.variables {
            let variable = &mut module.functions[0].graph[*node].variables[*variable as usize];
            variable.axis = Axis::new(variable.axis.name.clone(), size.clone());
        }
        let mut narrowed: FxHashMap<(u32, usize), Value> = FxHashMap::default();
        for (reader, slot, axis) in &self.hidden.parameters {
            let Some((number, old)) = parameter(module, module.entry(), *reader, *slot) else { continue };
            let value = match narrowed.get(&(number, *axis)) {
                Some(value) => *value,
                None => {
                    let Some(data) = old.data.as_ref().and_then(|data| kept(data, *axis, &self.kept)) else { continue };
                    let mut new = old.clone().with_data(data);
                    new.name = format!("{}_narrow", new.name).into();
                    new.axes[*axis] = Axis::new(new.axes[*axis].name.clone(), size.clone());
                    let (number, new) = module.add_fresh_parameter(new);
                    module.functions[0].add_param(number, &new).into()
                }
            };
            narrowed.insert((number, *axis), value);
            module.functions[0].set_operand(*reader, *slot, value);
        }
    }
}

/// The positions of a tensor along an axis that stay.
fn kept(data: &Tensor, axis: usize, positions: &[usize]) -> Option<Tensor> {
    let element = data.element();
    let inner = element.bytes_of(data.shape()[axis + 1..].iter().product())?;
    let bytes = data.bytes();
    let mut shape = data.shape().to_vec();
    let outer: usize = shape[..axis].iter().product();
    let mut result = Vec::with_capacity(outer * positions.len() * inner);
    for row in 0..outer {
        for position in positions {
            let start = (row * shape[axis] + position) * inner;
            result.extend_from_slice(&bytes[start..start + inner]);
        }
    }
    shape[axis] = positions.len();
    Tensor::from_bytes(element, &shape, &result).ok()
}
