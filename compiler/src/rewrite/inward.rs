//! Weights into scans: what every iteration of a scan gets whole, and is a weight or a view of one, becomes a weight of the body.
//! There it can be packed, as the weights of any product are, and nothing copies it to where the scan reads it.

use super::{Receipt, hoist::own_body};
use crate::plan::error::layer_of;
use petgraph::stable_graph::{EdgeIndex, NodeIndex};
use petgraph::{Direction, visit::EdgeRef};
use strang_ir::{Edge, FunctionId, Module, Node, Op, SharedNode, Value};

/// Moves weights into scans, as long as there is fuel.
pub fn move_inward(module: &mut Module, fuel: usize, receipt: &mut Receipt) {
    for position in 0..module.functions.len() {
        for scan in module.functions[position].order() {
            let Some((body, states)) = own_body(module, position, scan) else { continue };
            // From the last, so that slots stay what they are.
            for slot in (states..module.functions[position].graph[scan].maps.len() as u32).rev() {
                if receipt.spent < fuel
                    && let Some(weight) = weight(module, position, scan, slot)
                {
                    move_operand(module, position, (scan, slot), body, &weight);
                    receipt.apply("weight-into-scan", layer_of(&module.functions[position].graph[scan]));
                }
            }
        }
    }
}

/// A parameter, and the views through which it is read, the last one first.
struct Weight {
    parameter: u32,
    views: Vec<SharedNode>,
}

/// The weight that a scan is given whole in a slot.
fn weight(module: &Module, position: usize, scan: NodeIndex, slot: u32) -> Option<Weight> {
    let function = &module.functions[position];
    let node = &function.graph[scan];
    let Op::Scan { along, .. } = node.op else { return None };
    if node.maps[slot as usize].mentions(along) {
        return None;
    }
    let mut value = function.operands(scan)[slot as usize];
    let mut views = Vec::new();
    loop {
        let node = &function.graph[value.node];
        match node.op {
            Op::Param(parameter) => return Some(Weight { parameter, views }),
            Op::View => {
                views.push(node.clone());
                value = function.operands(value.node)[0];
            }
            _ => return None,
        }
    }
}

/// Leaves out an operand of a scan: its body reads the weight instead.
fn move_operand(
    module: &mut Module,
    position: usize,
    (scan, slot): (NodeIndex, u32),
    body: FunctionId,
    weight: &Weight,
) {
    let parameter = module.parameters[weight.parameter as usize].clone();
    let inside = &mut module.functions[body.0 as usize];
    let mut value = Value::from(inside.add_param(weight.parameter, &parameter));
    for view in weight.views.iter().rev() {
        value = inside.add(view.clone(), &[value]).into();
    }
    let input = inside.inputs.remove(slot as usize);
    inside.replace(input.into(), value);
    inside.graph.remove_node(input);
    for (number, input) in inside.inputs.iter().enumerate() {
        inside.graph[*input].op = Op::Input(number as u32);
    }

    let function = &mut module.functions[position];
    let edges: Vec<(EdgeIndex, NodeIndex, Edge)> = function
        .graph
        .edges_directed(scan, Direction::Incoming)
        .map(|edge| (edge.id(), edge.source(), *edge.weight()))
        .filter(|(_, _, edge)| edge.slot >= slot)
        .collect();
    for (id, source, edge) in edges {
        function.graph.remove_edge(id);
        if edge.slot > slot {
            function.graph.add_edge(source, scan, Edge { slot: edge.slot - 1, ..edge });
        }
    }
    let node = &mut function.graph[scan];
    node.maps.remove(slot as usize);
    *node = without_unused(node).into();
    function.remove_dead();
}

/// A scan without the variables that nothing of it mentions.
fn without_unused(node: &Node) -> Node {
    let Op::Scan { along, .. } = node.op else { return node.clone() };
    let is_used = |variable: u32| {
        variable == along
            || node.maps.iter().any(|map| map.mentions(variable))
            || node.outputs.iter().any(|output| output.variables.contains(&variable))
    };
    let count = node.variables.len() as u32;
    let (used, unused): (Vec<u32>, Vec<u32>) = (0..count).partition(|variable| is_used(*variable));
    let order: Vec<u32> = used.iter().chain(&unused).copied().collect();
    let mut places = vec![0; count as usize];
    order.iter().enumerate().for_each(|(place, variable)| places[*variable as usize] = place as u32);
    let mut node = node.renumbered(&places);
    node.variables.truncate(used.len());
    node
}
