//! Control flow: `If`, `Loop` and `Scan`. Bodies become functions; what they read of the graph around them becomes further
//! inputs. A loop of a known number of rounds is a scan.

use crate::import::onnx::{
    call::{Call, Imported},
    draft::Draft,
    error::ImportError,
    proto::GraphProto,
    values::{Item, Known},
};
use strang_ir::{Function, Literal, Op, ScalarExpr, Value};
use strang_runtime::{ElementType, Size};

/// `If`: a condition that is known chooses now.
pub fn branch(call: &mut Call) -> Imported {
    let (yes, no) = (call.attributes.graph("then_branch")?, call.attributes.graph("else_branch")?);
    if let Some(literal) = call.item(0).literal() {
        return chosen(call, if literal.is(0.) { no } else { yes });
    }
    let condition = call.value(0)?;
    let condition = call.reshape(condition, &[]);
    let base = call.importer.origin.base.clone();
    let mut captures: Vec<Value> = Vec::new();
    let mut functions: Vec<Function> = Vec::new();
    for (graph, name) in [(yes, "then"), (no, "else")] {
        call.importer.open_body(graph, &format!("{base}_{name}"))?;
        // Both branches take the same values: the second begins with what the first reads.
        for outer in &captures {
            capture(call, *outer);
        }
        let items = call.importer.walk_body(graph)?;
        let mut function_outputs = Vec::new();
        for item in &items {
            function_outputs.push(call.importer.materialise(item)?);
        }
        let (mut function, read) = call.importer.close_body();
        function.output_names = graph.output.iter().map(|output| output.name.as_str().into()).collect();
        function.outputs = function_outputs;
        functions.push(function);
        captures = read;
    }
    let (Some(otherwise), Some(mut then)) = (functions.pop(), functions.pop()) else {
        return Err(call.error("it has no branches"));
    };
    for outer in &captures[then.inputs.len()..] {
        let axes: Vec<_> = call.shape_of(*outer).iter().map(crate::import::onnx::draft::axis_of).collect();
        let name = format!("unused_{}", then.inputs.len());
        then.add_input(name, call.element_of(*outer), &axes);
    }
    let signature = |function: &Function| -> Vec<(ElementType, Vec<Size>)> {
        function.outputs.iter().map(|value| (function.element_of(*value), function.shape_of(*value))).collect()
    };
    let results = signature(&then);
    if results != signature(&otherwise) {
        if let Some(literal) = call.given(0).literal() {
            return chosen(call, if literal.is(0.) { no } else { yes });
        }
        return Err(call.unsupported(format!(
            "its branches yield values of different shapes or types: {results:?} and {:?}",
            signature(&otherwise)
        )));
    }
    let op = Op::If { then: call.importer.add_function(then), otherwise: call.importer.add_function(otherwise) };
    let mut draft = Draft::default();
    read_whole(call, &mut draft, condition);
    for outer in captures {
        read_whole(call, &mut draft, outer);
    }
    let outputs = whole_outputs(&mut draft, results);
    Ok(call.emit_many(draft, op, outputs).into_iter().map(Item::from).collect())
}

/// The results of the branch that is known to be taken, whose nodes go among those around it.
fn chosen<'a>(call: &mut Call<'_, 'a>, graph: &'a GraphProto) -> Imported {
    call.importer.open_scope(graph)?;
    let items = call.importer.walk_body(graph)?;
    call.importer.close_scope();
    Ok(items)
}

/// Makes a value of the function around the open body an input of the body.
fn capture(call: &mut Call, outer: Value) -> Value {
    let builders = &mut call.importer.builders;
    let around = &builders[builders.len() - 2].function;
    let (element, sizes) = (around.element_of(outer), around.shape_of(outer));
    let name = around.output_of(outer).name.to_string();
    let body = builders.len() - 1;
    builders[body].capture(outer, &name, element, &sizes)
}

fn read_whole(call: &Call, draft: &mut Draft, value: Value) {
    let variables = draft.variables(&call.shape_of(value));
    draft.read_at(value, &variables);
}

fn whole_outputs(draft: &mut Draft, signature: Vec<(ElementType, Vec<Size>)>) -> Vec<(ElementType, Vec<u32>)> {
    signature.into_iter().map(|(element, sizes)| (element, draft.variables(&sizes))).collect()
}

/// A body that has been imported: its function, what it reads of the graph around it, and its results' types.
struct Body {
    function: Function,
    captures: Vec<Value>,
}

impl Body {
    fn results(&self) -> Vec<(ElementType, Vec<Size>)> {
        let function = &self.function;
        function.outputs.iter().map(|value| (function.element_of(*value), function.shape_of(*value))).collect()
    }
}

/// Checks that states leave a round as they come in.
fn check_states(call: &Call, states: &[Value], results: &[(ElementType, Vec<Size>)]) -> Result<(), ImportError> {
    for (position, (state, (element, sizes))) in states.iter().zip(results).enumerate() {
        let (before, shape) = (call.element_of(*state), call.shape_of(*state));
        if before != *element || shape != *sizes {
            return Err(call.unsupported(format!(
                "state {position} is {before}{shape:?} before a round and {element}{sizes:?} after it; states keep their shape"
            )));
        }
    }
    Ok(())
}

/// A scan: states, then inputs that are sliced along an axis each, then captured values, whole. Every result after the
/// states is stacked along the axis that `stacked` names.
fn scan(
    call: &mut Call,
    body: Body,
    states: &[Value],
    sliced: &[(Value, usize)],
    length: &Size,
    stacked: &[usize],
) -> Result<Vec<Value>, ImportError> {
    let results = body.results();
    check_states(call, states, &results)?;
    let mut draft = Draft::default();
    let along = draft.variable(length);
    for state in states {
        read_whole(call, &mut draft, *state);
    }
    for (value, axis) in sliced {
        let mut sizes = call.shape_of(*value);
        sizes.remove(*axis);
        let mut variables = draft.variables(&sizes);
        variables.insert(*axis, along);
        draft.read_at(*value, &variables);
    }
    for outer in body.captures {
        read_whole(call, &mut draft, outer);
    }
    let mut outputs = whole_outputs(&mut draft, results);
    for ((_, variables), axis) in outputs[states.len()..].iter_mut().zip(stacked) {
        variables.insert((*axis).min(variables.len()), along);
    }
    let function = call.importer.add_function(body.function);
    let op = Op::Scan { body: function, along, reverse: false, states: states.len() as u32 };
    Ok(call.emit_many(draft, op, outputs))
}

/// `Loop`.
pub fn repeat(call: &mut Call) -> Imported {
    let graph = call.attributes.graph("body")?;
    let count = call.operands.len().saturating_sub(2);
    if graph.input.len() != count + 2 || graph.output.len() < count + 1 {
        return Err(call.error("the body does not take and yield what the loop has"));
    }
    let mut states = Vec::new();
    for slot in 0..count {
        states.push(call.value(slot + 2)?);
    }
    let rounds = if call.has(0) { call.given(0).known().and_then(|known| known.sizes.first().cloned()) } else { None };
    let base = call.importer.origin.base.clone();
    call.importer.open_body(graph, &format!("{base}_round"))?;
    let round = call.importer.builder_mut().input("round", ElementType::I64, &[]);
    let mut inner = Vec::new();
    for (state, input) in states.iter().zip(&graph.input[2..]) {
        let around = &call.importer.builders[call.importer.builders.len() - 2].function;
        let (element, sizes) = (around.element_of(*state), around.shape_of(*state));
        inner.push(call.importer.builder_mut().input(&input.name, element, &sizes));
    }
    let round_item = match &graph.input[0].r#type {
        // Some exporters give the number of the round one axis.
        Some(kind) if kind.tensor.as_ref().and_then(|t| t.shape.as_ref()).is_some_and(|s| s.dim.len() == 1) => {
            call.reshape(round, &[Size::ONE]).into()
        }
        _ => Item::from(round),
    };
    call.importer.define(&graph.input[0].name, round_item)?;
    // A round only begins while the condition holds.
    let holds = Known { element: ElementType::Bool, shape: vec![], sizes: vec![Size::ONE] };
    call.importer.define(&graph.input[1].name, holds.into())?;
    for (input, value) in graph.input[2..].iter().zip(&inner) {
        call.importer.define(&input.name, (*value).into())?;
    }
    let items = call.importer.walk_body(graph)?;
    let always = items[0].literal().is_some_and(|literal| !literal.is(0.));
    let begins = !call.has(1) || call.item(1).literal().is_some_and(|literal| !literal.is(0.));
    if let (true, true, Some(rounds)) = (always, begins, rounds) {
        let outputs = items[1..].iter().map(|item| call.importer.materialise(item)).collect::<Result<Vec<_>, _>>()?;
        let body = close(call, outputs, &[])?;
        // Captured values follow the states, the number of the round and what is sliced come between.
        let (draft, variables) = Draft::over(std::slice::from_ref(&rounds));
        let numbers = call.emit(draft, Op::Map(ScalarExpr::Index(variables[0])), ElementType::I64, &variables);
        let body = with_input_last_of(body, 0, count);
        let stacked = vec![0; items.len() - 1 - count];
        let values = scan(call, body, &states, &[(numbers, 0)], &rounds, &stacked)?;
        return Ok(values.into_iter().map(Item::from).collect());
    }
    if items.len() > count + 1 {
        return Err(call.unsupported(
            "it collects a result of every round, but the number of rounds depends on data; sizes must follow from the inputs' shapes",
        ));
    }
    let condition = call.importer.materialise(&items[0])?;
    let condition = call.reshape(condition, &[]);
    let mut outputs = vec![condition];
    for item in &items[1..] {
        outputs.push(call.importer.materialise(item)?);
    }
    // Captured values are states that stay what they are.
    let kept: Vec<Value> = call.importer.builder().captures.iter().map(|(_, inner)| *inner).collect();
    let body = close(call, outputs, &kept)?;
    states.extend(&body.captures);
    check_states(call, &states, &body.results()[1..])?;
    let most = match call.has(0) {
        true => call.value(0)?,
        false => call.constant(Literal::i64(i64::MAX)),
    };
    let most = call.reshape(most, &[]);
    let begin = match call.has(1) {
        true => call.value(1)?,
        false => call.constant(Literal::bool(true)),
    };
    let begin = call.reshape(begin, &[]);
    let mut draft = Draft::default();
    for value in [most, begin].iter().chain(&states) {
        read_whole(call, &mut draft, *value);
    }
    let results = body.results()[1..].to_vec();
    let outputs = whole_outputs(&mut draft, results);
    let op = Op::Loop { body: call.importer.add_function(body.function) };
    let values = call.emit_many(draft, op, outputs);
    Ok(values.into_iter().take(count).map(Item::from).collect())
}

/// Closes the open body with its results and `kept` behind them.
fn close(call: &mut Call, mut outputs: Vec<Value>, kept: &[Value]) -> Result<Body, ImportError> {
    outputs.extend(kept);
    let (mut function, captures) = call.importer.close_body();
    function.output_names = (0..outputs.len()).map(|position| format!("out{position}").into()).collect();
    function.outputs = outputs;
    Ok(Body { function, captures })
}

/// The same body with input `from` moved behind the `count` inputs that follow it.
fn with_input_last_of(mut body: Body, from: usize, count: usize) -> Body {
    let inputs = &mut body.function.inputs;
    inputs[from..=from + count].rotate_left(1);
    for (position, node) in inputs.clone().into_iter().enumerate() {
        body.function.graph[node].op = Op::Input(position as u32);
    }
    body
}

/// `Scan`.
pub fn scanned(call: &mut Call) -> Imported {
    if call.version < 9 {
        return Err(call.unsupported("it is from opset 9 on"));
    }
    let graph = call.attributes.graph("body")?;
    let inputs = usize::try_from(call.attributes.required_int("num_scan_inputs")?).unwrap_or(usize::MAX);
    let count = call.operands.len().checked_sub(inputs).filter(|_| inputs > 0);
    let count = count.ok_or_else(|| call.attributes.error("num_scan_inputs", "there are not so many inputs"))?;
    let results = graph.output.len().checked_sub(count).filter(|_| graph.input.len() == count + inputs);
    let results = results.ok_or_else(|| call.error("the body does not take and yield what the scan has"))?;
    let input_axes = call.attributes.ints_or("scan_input_axes", inputs, 0)?;
    let output_axes = call.attributes.ints_or("scan_output_axes", results, 0)?;
    let input_directions = call.attributes.ints_or("scan_input_directions", inputs, 0)?;
    let output_directions = call.attributes.ints_or("scan_output_directions", results, 0)?;
    let mut states = Vec::new();
    for slot in 0..count {
        states.push(call.value(slot)?);
    }
    let mut sliced = Vec::new();
    for position in 0..inputs {
        let value = call.value(count + position)?;
        let axis = call.axis(input_axes[position], call.shape_of(value).len())?;
        let value = if input_directions[position] == 1 { flipped(call, value, axis) } else { value };
        sliced.push((value, axis));
    }
    let length = call.shape_of(sliced[0].0)[sliced[0].1].clone();
    let base = call.importer.origin.base.clone();
    call.importer.open_body(graph, &format!("{base}_step"))?;
    for (position, input) in graph.input.iter().enumerate() {
        let builders = &call.importer.builders;
        let around = &builders[builders.len() - 2].function;
        let (element, sizes) = match position.checked_sub(count) {
            None => (around.element_of(states[position]), around.shape_of(states[position])),
            Some(position) => {
                let (value, axis) = sliced[position];
                let mut sizes = around.shape_of(value);
                sizes.remove(axis);
                (around.element_of(value), sizes)
            }
        };
        let value = call.importer.builder_mut().input(&input.name, element, &sizes);
        call.importer.define(&input.name, value.into())?;
    }
    let items = call.importer.walk_body(graph)?;
    let outputs = items.iter().map(|item| call.importer.materialise(item)).collect::<Result<Vec<_>, _>>()?;
    let body = close(call, outputs, &[])?;
    let mut stacked = Vec::new();
    for (axis, (_, sizes)) in output_axes.iter().zip(&body.results()[count..]) {
        stacked.push(call.axis(*axis, sizes.len() + 1)?);
    }
    let values = scan(call, body, &states, &sliced, &length, &stacked)?;
    let mut items: Vec<Item> = Vec::new();
    for (position, value) in values.into_iter().enumerate() {
        let reversed = position.checked_sub(count).filter(|result| output_directions[*result] == 1);
        items.push(match reversed {
            Some(result) => flipped(call, value, stacked[result]).into(),
            None => value.into(),
        });
    }
    Ok(items)
}

/// The positions of an axis in the opposite order.
fn flipped(call: &mut Call, value: Value, axis: usize) -> Value {
    let size = call.shape_of(value)[axis].clone();
    super::shape::cut(call, value, axis, &(&size - &Size::ONE), &size, -1)
}
