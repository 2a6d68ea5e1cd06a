//! Structure: every position, port, slot and reference exists. After this no later check can index out of bounds.

use crate::{
    Atom, CircuitError, Condition, Function, FunctionId, IndexExpr, Literal, Module, Node, Op, ScalarExpr, Size,
    Source, error::Mistake, text::parse::LARGEST_RANK,
};
use petgraph::{
    Direction,
    visit::{EdgeRef, IntoEdgeReferences},
};
use strang_runtime::ElementType;

/// The name of a node's first value.
pub(super) fn name(node: &Node) -> String {
    node.outputs.first().map_or_else(|| format!("`{}`", node.op.name()), |output| format!("%{}", output.name))
}

fn broken(text: impl Into<String>, at: impl Into<String>, source: &Source) -> CircuitError {
    CircuitError::new(Mistake::Structure(text.into()), at, source)
}

/// The structure of a module.
pub(super) fn module(module: &Module) -> Result<(), CircuitError> {
    if module.functions.is_empty() {
        return Err(broken("the module has no function", "module", &Source::None));
    }
    parameters(module)?;
    for body in &module.functions {
        function(module, body)?;
    }
    calls_end(module)
}

fn parameters(module: &Module) -> Result<(), CircuitError> {
    for parameter in &module.parameters {
        let at = format!("@{}", parameter.name);
        let error = |text| CircuitError::new(Mistake::Sizes(text), at.clone(), &Source::None);
        for axis in &parameter.axes {
            if axis.size.as_constant().is_none_or(|size| size < 0) {
                let (axis, size) = (&axis.name, &axis.size);
                return Err(error(format!("axis {axis} has size {size}; parameters have constant sizes")));
            }
        }
        let Some(data) = &parameter.data else { continue };
        let same = data.shape().len() == parameter.axes.len()
            && data.shape().iter().zip(&parameter.axes).all(|(size, axis)| axis.size.is(*size as i64));
        if !same || data.element() != parameter.element {
            let shape: Vec<&Size> = parameter.axes.iter().map(|axis| &axis.size).collect();
            return Err(error(format!("is {}{shape:?}, but its data is {data:?}", parameter.element)));
        }
    }
    Ok(())
}

fn function(module: &Module, function: &Function) -> Result<(), CircuitError> {
    let at = format!("@{}", function.name);
    let error = |text: String| broken(text, at.clone(), &Source::None);
    for (position, index) in function.inputs.iter().enumerate() {
        if function.graph.node_weight(*index).is_none_or(|node| node.op != Op::Input(position as u32)) {
            return Err(error(format!("input {position} is not an input node")));
        }
    }
    for edge in function.graph.edge_references() {
        let source = &function.graph[edge.source()];
        if edge.weight().port as usize >= source.outputs.len() {
            let port = edge.weight().port;
            return Err(broken(format!("has no output {port}, which is read"), name(source), &source.source));
        }
    }
    for index in function.graph.node_indices() {
        let place = &function.graph[index];
        if let Op::Input(position) = place.op
            && function.inputs.get(position as usize) != Some(&index)
        {
            return Err(broken("is not among the inputs of its function", name(place), &place.source));
        }
        let mut slots: Vec<u32> =
            function.graph.edges_directed(index, Direction::Incoming).map(|e| e.weight().slot).collect();
        slots.sort_unstable();
        if !slots.iter().copied().eq(0..slots.len() as u32) {
            return Err(broken(format!("has operands in slots {slots:?}"), name(place), &place.source));
        }
        if slots.len() != place.maps.len() {
            let (operands, maps) = (slots.len(), place.maps.len());
            let text = format!("has {operands} operands, but {maps} index maps");
            return Err(broken(text, name(place), &place.source));
        }
        node(module, place).map_err(|kind| CircuitError::new(kind, name(place), &place.source))?;
        for (slot, value) in function.operands(index).into_iter().enumerate() {
            let source = &function.graph[value.node].outputs[value.port as usize];
            let (rank, found) = (source.variables.len(), place.maps[slot].exprs.len());
            if rank != found {
                return Err(CircuitError::new(Mistake::Rank { slot, rank, found }, name(place), &place.source));
            }
        }
    }
    if function.order().len() != function.graph.node_count() {
        return Err(error("has a cycle".into()));
    }
    for (position, value) in function.outputs.iter().enumerate() {
        let found = function.graph.node_weight(value.node).and_then(|node| node.outputs.get(value.port as usize));
        if found.is_none() {
            return Err(error(format!("result {position} is not a value of the function")));
        }
    }
    if function.output_names.len() != function.outputs.len() {
        let (names, results) = (function.output_names.len(), function.outputs.len());
        return Err(error(format!("has {names} names for {results} results")));
    }
    for (position, (input, output)) in function.states.iter().enumerate() {
        if *input as usize >= function.inputs.len() || *output as usize >= function.outputs.len() {
            return Err(error(format!("a state joins input {input} and result {output}, which do not both exist")));
        }
        if function.states[..position].iter().any(|(i, o)| i == input || o == output) {
            return Err(error(format!("input {input} or result {output} belongs to two states")));
        }
    }
    Ok(())
}

fn node(module: &Module, node: &Node) -> Result<(), Mistake> {
    let count = node.variables.len();
    let structure = |text: String| Err(Mistake::Structure(text));
    if node.outputs.is_empty() {
        return structure("yields nothing".into());
    }
    for (port, output) in node.outputs.iter().enumerate() {
        if output.variables.len() > LARGEST_RANK {
            let rank = output.variables.len();
            return structure(format!("output {port} has {rank} axes; arrays have up to {LARGEST_RANK}"));
        }
        for (axis, variable) in output.variables.iter().enumerate() {
            if *variable as usize >= count {
                return structure(format!("output {port} has variable {variable} as an axis, of {count}"));
            }
            if output.variables[..axis].contains(variable) {
                let variable = &node.variables[*variable as usize].name;
                return structure(format!("output {port} has the variable {variable} as two of its axes"));
            }
        }
    }
    for variable in &node.variables {
        if variable.size().upper_bound(0).is_some_and(|bound| bound < 0) {
            return Err(Mistake::Sizes(format!("axis {} has size {}", variable.axis.name, variable.size())));
        }
    }
    let operands = node.maps.len() as u32;
    for (slot, map) in node.maps.iter().enumerate() {
        let reads = matches!(node.op, Op::Gather) && slot == 0;
        for expression in &map.exprs {
            index_expression(expression, count, if reads { 1..operands } else { 0..0 })?;
        }
        for condition in &map.conditions {
            index_expression(condition.expression(), count, if reads { 1..operands } else { 0..0 })?;
        }
        if !map.conditions.is_empty() && map.fill.is_none() {
            return structure(format!("operand {slot} is read under a condition, but has no fill"));
        }
        map.fill.map_or(Ok(()), literal)?;
    }
    operation(module, node)
}

/// What an operation refers to beside its maps.
fn operation(module: &Module, node: &Node) -> Result<(), Mistake> {
    let count = node.variables.len();
    let variables = |positions: &[u32]| match positions.iter().find(|v| **v as usize >= count) {
        Some(variable) => Err(Mistake::Structure(format!("names variable {variable}, of {count}"))),
        None => Ok(()),
    };
    for FunctionId(id) in node.op.functions() {
        if id as usize >= module.functions.len() {
            return Err(Mistake::Structure(format!("calls function {id}, of {}", module.functions.len())));
        }
    }
    match &node.op {
        Op::Param(position) if *position as usize >= module.parameters.len() => {
            Err(Mistake::Structure(format!("is parameter {position}, of {}", module.parameters.len())))
        }
        Op::Const(number) => literal(*number),
        Op::Map(expression) => scalar(expression, count),
        Op::Softmax { over, .. } => variables(over),
        Op::Norm { over, epsilon, .. } => variables(over).and(literal(*epsilon)),
        Op::Concat { along, .. } | Op::Scan { along, .. } => variables(&[*along]),
        Op::Sort { along, kept, .. } => variables(&[*along, *kept]),
        Op::Scatter { target, .. } => {
            let operands = node.maps.len() as u32;
            target.iter().try_for_each(|e| index_expression(e, count, 2..operands))
        }
        _ => Ok(()),
    }
}

fn index_expression(expression: &IndexExpr, variables: usize, reads: std::ops::Range<u32>) -> Result<(), Mistake> {
    for (atom, _) in expression.terms() {
        let inner = |inner: &IndexExpr| index_expression(inner, variables, reads.clone());
        match atom {
            Atom::Variable(position) if *position as usize >= variables => {
                return Err(Mistake::Structure(format!("reads at variable {position}, of {variables}")));
            }
            Atom::Variable(_) => {}
            Atom::FloorDiv(e, _) | Atom::Remainder(e, _) | Atom::Clamp(e, ..) => inner(e)?,
            Atom::Table(table, _) if table.is_empty() => {
                return Err(Mistake::Structure("reads at a position from an empty table".into()));
            }
            Atom::Table(_, e) => inner(e)?,
            Atom::Read(slot) if !reads.contains(slot) => {
                return Err(Mistake::Structure(format!(
                    "reads at the value of operand {slot}, which is not an index operand"
                )));
            }
            Atom::Read(_) => {}
        }
    }
    Ok(())
}

fn scalar(expression: &ScalarExpr, variables: usize) -> Result<(), Mistake> {
    let mut result = Ok(());
    expression.visit(&mut |part| {
        let found = match part {
            ScalarExpr::Index(variable) if *variable as usize >= variables => {
                Err(Mistake::Structure(format!("computes with variable {variable}, of {variables}")))
            }
            ScalarExpr::Literal(number) => literal(*number),
            _ => Ok(()),
        };
        if result.is_ok() {
            result = found;
        }
    });
    result
}

/// The bits of a literal must be a value of its type.
fn literal(literal: Literal) -> Result<(), Mistake> {
    let bits = if literal.element == ElementType::Bool { 1 } else { literal.element.bits() };
    if bits < 64 && literal.bits >> bits != 0 {
        let Literal { element, bits } = literal;
        return Err(Mistake::Types(format!("{bits:#x} is not the bits of a {element}")));
    }
    Ok(())
}

/// Functions that call each other in a circle never end.
fn calls_end(module: &Module) -> Result<(), CircuitError> {
    let callees = |function: &Function| -> Vec<usize> {
        function.graph.node_weights().flat_map(|node| node.op.functions()).map(|id| id.0 as usize).collect()
    };
    // Removing functions that call no remaining function, until nothing changes, leaves exactly the circles.
    let calls: Vec<Vec<usize>> = module.functions.iter().map(callees).collect();
    let mut ends = vec![false; calls.len()];
    loop {
        let next = (0..calls.len()).find(|id| !ends[*id] && calls[*id].iter().all(|callee| ends[*callee]));
        match next {
            Some(id) => ends[id] = true,
            None => break,
        }
    }
    match ends.iter().position(|ends| !ends) {
        Some(id) => {
            let name = format!("@{}", module.functions[id].name);
            Err(broken("calls itself, directly or through others", name, &Source::None))
        }
        None => Ok(()),
    }
}

/// Calls `visit` with every size of a node.
pub(super) fn visit_sizes(node: &Node, visit: &mut dyn FnMut(&Size)) {
    node.variables.iter().for_each(|variable| visit(variable.size()));
    for map in &node.maps {
        map.exprs.iter().for_each(|expression| expression_sizes(expression, visit));
        for condition in &map.conditions {
            expression_sizes(condition.expression(), visit);
            match condition {
                Condition::Range { low, high, .. } => {
                    visit(low);
                    visit(high);
                }
                Condition::Divisible { divisor, .. } => visit(divisor),
            }
        }
    }
    match &node.op {
        Op::Map(expression) => expression.visit(&mut |part| {
            if let ScalarExpr::Size(size) = part {
                visit(size);
            }
        }),
        Op::Concat { offsets, .. } => offsets.iter().for_each(visit),
        Op::Scatter { target, .. } => target.iter().for_each(|expression| expression_sizes(expression, visit)),
        _ => {}
    }
}

fn expression_sizes(expression: &IndexExpr, visit: &mut dyn FnMut(&Size)) {
    visit(expression.offset());
    for (atom, coefficient) in expression.terms() {
        visit(coefficient);
        match atom {
            Atom::FloorDiv(e, size) | Atom::Remainder(e, size) => {
                visit(size);
                expression_sizes(e, visit);
            }
            Atom::Clamp(e, low, high) => {
                visit(low);
                visit(high);
                expression_sizes(e, visit);
            }
            Atom::Table(_, e) => expression_sizes(e, visit),
            Atom::Variable(_) | Atom::Read(_) => {}
        }
    }
}
