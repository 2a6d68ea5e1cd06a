//! The JSON form of circuits, for programs in other languages: the content of the text form, with references resolved to
//! positions. [`parse`] reads it, [`print()`] writes it, and `parse(print(m)) == m`.
//!
//! ```json
//! { "ncd": "0.1", "title": "double", "parameters": [],
//!   "functions": [{ "name": "double", "nodes": [
//!     { "op": {"input": 0}, "variables": [{"name": "b", "axis": "b", "size": "b"}],
//!       "outputs": [{"name": "x", "element": "f32", "variables": [0]}] },
//!     { "op": {"map": {"binary": ["add", {"operand": 0}, {"operand": 0}]}},
//!       "variables": [{"name": "b", "axis": "b", "size": "b"}],
//!       "operands": [{"value": [0, 0], "at": [{"terms": [[{"variable": 0}, 1]]}]}],
//!       "outputs": [{"name": "y", "element": "f32", "variables": [0]}] }],
//!     "outputs": [{"name": "y", "value": [1, 0]}] }] }
//! ```
//!
//! A value is a node and one of its outputs, both by position; a node reads values of earlier nodes only, so that no cycle
//! can be written. Sizes are numbers or texts (`"4*s + 1"`), other numbers are texts beside their type. An expression of
//! `map` may nest about 50 deep, which is where readers of JSON draw the line.

use crate::{
    Axis, CircuitError, Condition, Digest, ElementType, Function, IndexExpr, IndexMap, Literal, Module, Node, Op,
    Output, Parameter, Size, Source, Tensor, Value, Variable,
    text::elements,
    verify::{Verified, verify},
};
use petgraph::stable_graph::NodeIndex;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Why a text is no circuit.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// It is not JSON, or not of this form.
    #[error("{origin}: {source}")]
    Form {
        /// The name of the text.
        origin: String,
        /// What is wrong, with line and column.
        source: serde_json::Error,
    },
    /// It is written in another version of the form.
    #[error("{origin}: written in version `{found}` of the form; this program reads {VERSION}")]
    Version {
        /// The name of the text.
        origin: String,
        /// The version.
        found: String,
    },
    /// Something refers to what is not there, or a parameter's elements do not fit it.
    #[error("{origin}: {at}: {text}")]
    Content {
        /// The name of the text.
        origin: String,
        /// The parameter, or the function and node.
        at: String,
        /// What is wrong.
        text: String,
    },
    /// It says a circuit that is wrong.
    #[error("{origin}: {source}")]
    Circuit {
        /// The name of the text.
        origin: String,
        /// What is wrong.
        source: CircuitError,
    },
}

const VERSION: &str = "0.1";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a circuit")]
struct ModuleForm {
    ncd: String,
    #[serde(default)]
    title: Arc<str>,
    #[serde(default)]
    parameters: Vec<ParameterForm>,
    functions: Vec<FunctionForm>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a parameter")]
struct ParameterForm {
    name: Arc<str>,
    element: ElementType,
    axes: Vec<Axis>,
    /// The elements of a small parameter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    values: Option<Vec<String>>,
    /// The digest of a large one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blake3: Option<Digest>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a function")]
struct FunctionForm {
    name: Arc<str>,
    nodes: Vec<NodeForm>,
    outputs: Vec<ResultForm>,
    #[serde(default)]
    states: Vec<(u32, u32)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a node")]
struct NodeForm {
    op: Op,
    variables: Vec<VariableForm>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    operands: Vec<OperandForm>,
    outputs: Vec<OutputForm>,
    /// The node of an ONNX file that this one came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    onnx: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    block: Option<Arc<str>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a variable")]
struct VariableForm {
    name: Arc<str>,
    axis: Arc<str>,
    size: Size,
}

/// A value and the index map that it is read through.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an operand")]
struct OperandForm {
    value: (u32, u32),
    at: Vec<IndexExpr>,
    #[serde(default, rename = "where", skip_serializing_if = "Vec::is_empty")]
    conditions: Vec<Condition>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fill: Option<Literal>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an output of a node")]
struct OutputForm {
    name: Arc<str>,
    element: ElementType,
    variables: Vec<u32>,
}

/// A result of a function.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a result of a function")]
struct ResultForm {
    name: Arc<str>,
    value: (u32, u32),
}

/// The module as JSON, one node a line. As in the text form, the elements of large parameters are replaced by their
/// digest, and nodes on a cycle, which no valid module has, are left out.
pub fn print(module: &Module) -> String {
    let parameters: Vec<String> = module.parameters.iter().map(|parameter| line(&parameter_form(parameter))).collect();
    let functions: Vec<String> = module.functions.iter().map(print_function).collect();
    format!(
        "{{\n  \"ncd\": \"{VERSION}\",\n  \"title\": {},\n  \"parameters\": {},\n  \"functions\": {}\n}}\n",
        line(&module.title),
        list(&parameters, 2),
        list(&functions, 2),
    )
}

fn print_function(function: &Function) -> String {
    let FunctionForm { name, nodes, outputs, states } = function_form(function);
    let nodes: Vec<String> = nodes.iter().map(line).collect();
    format!(
        "{{\n      \"name\": {},\n      \"nodes\": {},\n      \"outputs\": {},\n      \"states\": {}\n    }}",
        line(&name),
        list(&nodes, 6),
        line(&outputs),
        line(&states),
    )
}

fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("the forms hold nothing that JSON cannot say")
}

/// An array with one item a line, closed at an indentation.
fn list(items: &[String], indentation: usize) -> String {
    if items.is_empty() {
        return "[]".to_owned();
    }
    let line = format!("\n{:1$}", "", indentation + 2);
    format!("[{line}{}\n{:2$}]", items.join(&format!(",{line}")), "", indentation)
}

fn parameter_form(parameter: &Parameter) -> ParameterForm {
    let values = elements(parameter);
    let blake3 = if values.is_some() { None } else { parameter.digest() };
    let Parameter { name, element, axes, .. } = parameter.clone();
    ParameterForm { name, element, axes, values, blake3 }
}

fn function_form(function: &Function) -> FunctionForm {
    let order = function.order();
    let places: FxHashMap<NodeIndex, u32> = order.iter().copied().zip(0..).collect();
    // A node that is left out has a place that no reader accepts.
    let value = |value: Value| (places.get(&value.node).copied().unwrap_or(u32::MAX), value.port);
    let nodes = order.iter().map(|index| {
        let node = &function.graph[*index];
        let operand = |(operand, map): (Value, &IndexMap)| OperandForm {
            value: value(operand),
            at: map.exprs.clone(),
            conditions: map.conditions.clone(),
            fill: map.fill,
        };
        NodeForm {
            op: node.op.clone(),
            variables: node.variables.iter().map(variable_form).collect(),
            operands: function.operands(*index).into_iter().zip(&node.maps).map(operand).collect(),
            outputs: node.outputs.iter().map(output_form).collect(),
            onnx: if let Source::Onnx(name) = &node.source { Some(name.clone()) } else { None },
            block: node.block.clone(),
        }
    });
    let nodes = nodes.collect();
    let result = |(position, result): (usize, &Value)| ResultForm {
        name: function.output_names.get(position).cloned().unwrap_or_default(),
        value: value(*result),
    };
    let outputs = function.outputs.iter().enumerate().map(result).collect();
    FunctionForm { name: function.name.clone(), nodes, outputs, states: function.states.clone() }
}

fn variable_form(variable: &Variable) -> VariableForm {
    let Axis { name, size } = variable.axis.clone();
    VariableForm { name: variable.name.clone(), axis: name, size }
}

fn output_form(output: &Output) -> OutputForm {
    OutputForm { name: output.name.clone(), element: output.element, variables: output.variables.clone() }
}

/// Reads a module from JSON; `origin` names the text in messages.
///
/// # Errors
/// The first mistake. That the circuit is sound is the verifier's to say: see [`parse_verified`].
pub fn parse(text: &str, origin: &str) -> Result<Module, JsonError> {
    let form: ModuleForm =
        serde_json::from_str(text).map_err(|source| JsonError::Form { origin: origin.into(), source })?;
    if form.ncd != VERSION {
        return Err(JsonError::Version { origin: origin.into(), found: form.ncd });
    }
    let refuse = |(at, text)| JsonError::Content { origin: origin.into(), at, text };
    let parameters = form.parameters.into_iter().map(read_parameter).collect::<Result<_, _>>().map_err(refuse)?;
    let functions = form.functions.into_iter().map(read_function).collect::<Result<_, _>>().map_err(refuse)?;
    Ok(Module { title: form.title, parameters, functions })
}

/// Reads a module from JSON and verifies it.
///
/// # Errors
/// As [`parse`]; then the verifier's first mistake.
pub fn parse_verified(text: &str, origin: &str) -> Result<(Module, Verified), JsonError> {
    let module = parse(text, origin)?;
    let verified = verify(&module).map_err(|source| JsonError::Circuit { origin: origin.into(), source })?;
    Ok((module, verified))
}

/// Where a mistake is and what it is.
type Refusal = (String, String);

fn read_parameter(form: ParameterForm) -> Result<Parameter, Refusal> {
    let refuse = |text: String| (format!("@{}", form.name), text);
    let mut parameter = Parameter::new(form.name.clone(), form.element, form.axes);
    parameter.digest = form.blake3;
    let Some(values) = form.values else { return Ok(parameter) };
    if parameter.digest.is_some() {
        return Err(refuse("has both elements and a digest".into()));
    }
    let sizes = parameter.axes.iter().map(|axis| axis.size.as_constant().and_then(|size| usize::try_from(size).ok()));
    let shape: Option<Vec<usize>> = sizes.collect();
    let shape = shape.ok_or_else(|| refuse("has elements, but its sizes are not numbers".into()))?;
    let count = shape.iter().try_fold(1usize, |count, size| count.checked_mul(*size));
    if count != Some(values.len()) {
        return Err(refuse(format!("has {} elements, but the shape {shape:?}", values.len())));
    }
    let mut data = Tensor::zeros(form.element, &shape).map_err(|error| refuse(error.to_string()))?;
    for (position, value) in values.iter().enumerate() {
        let literal = Literal::from_text(form.element, value)
            .ok_or_else(|| refuse(format!("`{value}` is not a number of {}", form.element)))?;
        data.set_bits(position, literal.bits);
    }
    Ok(parameter.with_data(data))
}

fn read_function(form: FunctionForm) -> Result<Function, Refusal> {
    let mut function = Function::new(form.name.clone());
    // Outputs of the nodes so far; the graph gives nodes the same positions.
    let mut ports: Vec<usize> = Vec::with_capacity(form.nodes.len());
    let value = |ports: &[usize], (node, port): (u32, u32)| match ports.get(node as usize) {
        Some(count) if (port as usize) < *count => Ok(Value { node: NodeIndex::new(node as usize), port }),
        Some(count) => Err(format!("reads output {port} of node {node}, which has {count}")),
        None => Err(format!("reads node {node}, but comes before it")),
    };
    for (position, node) in form.nodes.into_iter().enumerate() {
        let refuse = |text| (format!("@{}, node {position}", form.name), text);
        let operands: Result<Vec<Value>, String> =
            node.operands.iter().map(|operand| value(&ports, operand.value)).collect();
        ports.push(node.outputs.len());
        function.add(read_node(node), &operands.map_err(refuse)?);
    }
    let inputs = |index: &NodeIndex| if let Op::Input(at) = function.graph[*index].op { at } else { u32::MAX };
    let mut order = function.inputs.clone();
    order.sort_by_key(inputs);
    function.inputs = order;
    for result in form.outputs {
        let (node, port) = result.value;
        let found = value(&ports, result.value);
        let refuse = |_| (format!("@{}", form.name), format!("gives output {port} of node {node}, which is not there"));
        function.outputs.push(found.map_err(refuse)?);
        function.output_names.push(result.name);
    }
    function.states = form.states;
    Ok(function)
}

fn read_node(form: NodeForm) -> Node {
    let variable = |form: VariableForm| Variable { name: form.name, axis: Axis { name: form.axis, size: form.size } };
    let map = |form: OperandForm| IndexMap { exprs: form.at, conditions: form.conditions, fill: form.fill };
    let output = |form: OutputForm| Output { name: form.name, element: form.element, variables: form.variables };
    Node {
        op: form.op,
        variables: form.variables.into_iter().map(variable).collect(),
        maps: form.operands.into_iter().map(map).collect(),
        outputs: form.outputs.into_iter().map(output).collect(),
        source: form.onnx.map_or(Source::None, Source::Onnx),
        block: form.block,
    }
}
