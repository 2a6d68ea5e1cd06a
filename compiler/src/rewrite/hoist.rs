//! Products out of scans: a contraction in the body of a scan that no state reaches is computed for all iterations at once,
//! before the scan. A recurrent layer then multiplies its whole input by its weights in one matrix product.
//!
//! The law: `scan(f(s, g(x_t))) = scan(f(s, y_t))` with `y = g` applied along the scanned axis. Each element is the same sum
//! in the same order, so the bits are the same.

use super::Receipt;
use crate::plan::{
    error::layer_of,
    trace::{Trace, operand_trace, through_views},
};
use petgraph::stable_graph::NodeIndex;
use std::collections::HashSet;
use strang_ir::{
    Axis, Edge, Function, FunctionId, IndexExpr, IndexMap, Module, Node, Op, Value, Variable,
    circuit::distinct_variables,
};

/// Moves contractions out of scans, as long as there is fuel.
pub fn hoist(module: &mut Module, fuel: usize, receipt: &mut Receipt) {
    for position in 0..module.functions.len() {
        for scan in module.functions[position].order() {
            let Some((body, states)) = own_body(module, position, scan) else { continue };
            while receipt.spent < fuel
                && let Some(product) = movable(&module.functions[body.0 as usize], states as usize)
            {
                let layer = layer_of(&module.functions[body.0 as usize].graph[product.node]);
                move_out(module, position, scan, body, &product);
                receipt.apply("hoist-from-scan", layer);
            }
        }
    }
}

/// The body of a scan and the number of its states, where nothing else calls the body.
pub fn own_body(module: &Module, position: usize, scan: NodeIndex) -> Option<(FunctionId, u32)> {
    let Op::Scan { body, states, .. } = module.functions[position].graph[scan].op else { return None };
    let place = body.0 as usize;
    let nodes = module.functions.iter().flat_map(|function| function.graph.node_weights());
    let calls = nodes.flat_map(|node| node.op.functions()).filter(|called| *called == body).count();
    (place < module.functions.len() && place != position && calls == 1).then_some((body, states))
}

/// A contraction of a body and how it reads inputs and parameters.
struct Product {
    node: NodeIndex,
    operands: Vec<Trace>,
}

/// A contraction that reads inputs that are not states, and parameters, and nothing else.
fn movable(body: &Function, states: usize) -> Option<Product> {
    body.order().into_iter().find_map(|index| {
        let node = &body.graph[index];
        if !matches!(node.op, Op::Dot { .. }) || node.outputs.len() != 1 {
            return None;
        }
        let mut reads_input = false;
        let mut operands = Vec::new();
        for (slot, operand) in body.operands(index).into_iter().enumerate() {
            let start = operand_trace(body, node, slot, operand);
            let is_view = |value: Value| matches!(body.graph[value.node].op, Op::View);
            let trace = through_views(body, start, &is_view, &|v| node.size_of(v));
            match body.graph[trace.value.node].op {
                Op::Input(_) => {
                    let input = body.inputs.iter().position(|input| *input == trace.value.node)?;
                    if input < states || trace.guard.is_some() {
                        return None;
                    }
                    reads_input = true;
                }
                Op::Param(_) if trace.guard.is_none() => {}
                _ => return None,
            }
            operands.push(trace);
        }
        reads_input.then_some(Product { node: index, operands })
    })
}

fn move_out(module: &mut Module, outer: usize, scan: NodeIndex, body: FunctionId, product: &Product) {
    let node = module.functions[body.0 as usize].graph[product.node].clone();
    let scan_node = module.functions[outer].graph[scan].clone();
    let Op::Scan { along, .. } = scan_node.op else { unreachable!("the caller found a scan") };
    let along_axis = scan_node.variables[along as usize].axis.clone();

    // The product with the scanned position as a variable after its own: the order of contracted variables stays.
    let time = node.variables.len() as u32;
    let scan_operands = module.functions[outer].operands(scan);
    let mut maps = Vec::new();
    let mut operands = Vec::new();
    for trace in &product.operands {
        let source = trace.value.node;
        let body_function = &module.functions[body.0 as usize];
        match body_function.graph[source].op {
            Op::Param(position) => {
                let parameter = module.parameters[position as usize].clone();
                let copy = module.functions[outer].add_param(position, &parameter);
                maps.push(IndexMap::new(trace.position.clone()));
                operands.push(Value::from(copy));
            }
            _ => {
                let slot = body_function.inputs.iter().position(|input| *input == source);
                let slot = slot.expect("a movable product reads inputs");
                let mut inner = trace.position.iter();
                let exprs = scan_node.maps[slot]
                    .exprs
                    .iter()
                    .map(|expr| {
                        if expr.as_variable() == Some(along) {
                            IndexExpr::variable(time)
                        } else {
                            inner.next().cloned().unwrap_or_default()
                        }
                    })
                    .collect();
                maps.push(IndexMap::new(exprs));
                operands.push(scan_operands[slot]);
            }
        }
    }
    let mut variables = node.variables.clone();
    variables.push(Variable::named(free_name(&node, &along_axis), &along_axis));
    let mut output = node.outputs[0].clone();
    output.variables.insert(0, time);
    let hoisted = Node { variables, maps: maps.into(), outputs: vec![output], ..Node::clone(&node) };
    let element = hoisted.outputs[0].element;
    let hoisted = module.functions[outer].add(hoisted, &operands);

    // The scan reads the result as one more input.
    let axes: Vec<Axis> = node.axes(0).into_iter().cloned().collect();
    let function = &mut module.functions[outer];
    let target = &mut function.graph[scan];
    let first = target.variables.len() as u32;
    let mut exprs = vec![IndexExpr::variable(along)];
    for (position, variable) in distinct_variables(&axes).into_iter().enumerate() {
        let name = format!("{}_{}", variable.name, first + position as u32);
        target.variables.push(Variable::named(name, &variable.axis));
        exprs.push(IndexExpr::variable(first + position as u32));
    }
    target.maps.push(IndexMap::new(exprs));
    let slot = target.maps.len() as u32 - 1;
    function.graph.add_edge(hoisted, scan, Edge { port: 0, slot });

    // The body takes it instead of computing it.
    let function = &mut module.functions[body.0 as usize];
    let input = function.add_input(node.outputs[0].name.clone(), element, &axes);
    function.replace(product.node.into(), input.into());
    function.graph.remove_node(product.node);
    function.remove_dead();
}

/// A name for the scanned position that the product does not use.
fn free_name(node: &Node, axis: &Axis) -> String {
    let taken: HashSet<&str> = node.variables.iter().map(|variable| &*variable.name).collect();
    let mut name = axis.name.to_string();
    while taken.contains(name.as_str()) {
        name.push('\'');
    }
    name
}
