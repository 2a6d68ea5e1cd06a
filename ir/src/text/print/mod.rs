//! Modules as canonical text: equal modules with equal names print the same bytes.

mod index;
mod names;
mod node;
mod scalar;

use crate::{Function, FunctionId, Module, Op, Parameter, Value};
use names::{Names, ValueNames};
use petgraph::stable_graph::NodeIndex;
use std::fmt::Write;
use strang_runtime::size::quote;

/// Parameters of up to this many elements print them; larger ones print a digest.
const MOST_INLINE: usize = 16;

/// The module as text, which [`parse`](super::parse()) reads back to an equal module.
///
/// Names of axes and values are made unique; the elements of large parameters are replaced by their digest. Nodes on a
/// cycle, which no valid module has, are left out.
pub fn print(module: &Module) -> String {
    let names = Names::of(module);
    let mut out = format!("ncd 0.1 {}\n", quote(&module.title));
    let declarations = names.declarations();
    if !declarations.is_empty() {
        out.push('\n');
        out += &declarations;
    }
    if !module.parameters.is_empty() {
        out.push('\n');
    }
    for (position, parameter) in module.parameters.iter().enumerate() {
        print_parameter(&mut out, &names, position, parameter);
    }
    for position in 0..module.functions.len() {
        out.push('\n');
        FunctionPrinter::new(module, &names, position).print(&mut out, position);
    }
    out
}

/// The statements of a function, as [`print()`] writes them, with their nodes: all but inputs and parameters.
pub fn statements(module: &Module, function: FunctionId) -> Vec<(NodeIndex, String)> {
    let names = Names::of(module);
    let printer = FunctionPrinter::new(module, &names, function.0 as usize);
    let is_statement = |index: &NodeIndex| !matches!(printer.function.graph[*index].op, Op::Input(_) | Op::Param(_));
    let statement = |index: NodeIndex| {
        let mut text = String::new();
        printer.print_node(&mut text, index);
        (index, text)
    };
    printer.function.order().into_iter().filter(is_statement).map(statement).collect()
}

fn print_parameter(out: &mut String, names: &Names<'_>, position: usize, parameter: &Parameter) {
    let axes: Vec<&str> = parameter.axes.iter().map(|axis| names.axis(axis)).collect();
    write_to(
        out,
        format_args!("param {}: {}[{}]", names.parameter(position as u32), parameter.element, axes.join(", ")),
    );
    if let Some(values) = elements(parameter) {
        write_to(out, format_args!(" = [{}]", values.join(", ")));
    } else if let Some(digest) = parameter.digest() {
        write_to(out, format_args!(" = blake3 \"{digest}\""));
    }
    out.push('\n');
}

/// The elements of a parameter as texts, when there are few.
pub(crate) fn elements(parameter: &Parameter) -> Option<Vec<String>> {
    let data = parameter.data.as_ref()?;
    let element = data.element();
    let sizes = parameter.axes.iter().map(|axis| axis.size.as_constant());
    let fits = data.count() <= MOST_INLINE
        && element == parameter.element
        && sizes.eq(data.shape().iter().map(|size| i64::try_from(*size).ok()));
    let text = |at| crate::Literal { element, bits: data.bits_at(at) }.to_string();
    fits.then(|| (0..data.count()).map(text).collect())
}

/// Writing to a string does not fail.
fn write_to(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}

/// What the lines of a function are printed with.
struct FunctionPrinter<'a> {
    module: &'a Module,
    function: &'a Function,
    names: &'a Names<'a>,
    values: ValueNames,
}

impl<'a> FunctionPrinter<'a> {
    fn new(module: &'a Module, names: &'a Names<'a>, position: usize) -> Self {
        let function = &module.functions[position];
        FunctionPrinter { module, function, names, values: ValueNames::of(function) }
    }

    /// A value as it is read: `%x`, or `@w` for a parameter.
    fn value(&self, value: Value) -> String {
        match self.function.graph.node_weight(value.node).map(|node| &node.op) {
            Some(Op::Param(position)) => self.names.parameter(*position),
            _ => format!("%{}", self.values.get(value)),
        }
    }

    /// The type of a value: `f32[b, m]`.
    fn array(&self, value: Value) -> String {
        let Some(node) = self.function.graph.node_weight(value.node) else { return "f32[]".to_owned() };
        let Some(output) = node.outputs.get(value.port as usize) else { return "f32[]".to_owned() };
        let axes = output.variables.iter().filter_map(|variable| node.variables.get(*variable as usize));
        let axes: Vec<&str> = axes.map(|variable| self.names.axis(&variable.axis)).collect();
        format!("{}[{}]", output.element, axes.join(", "))
    }

    fn print(&self, out: &mut String, position: usize) {
        let function = self.function;
        let inputs: Vec<String> = function
            .inputs
            .iter()
            .map(|node| format!("{}: {}", self.value((*node).into()), self.array((*node).into())))
            .collect();
        write_to(out, format_args!("fn {}({})", self.names.function(position), inputs.join(", ")));
        self.print_outputs(out);
        out.push_str(" {\n");
        self.print_nodes(out);
        for (input, output) in &function.states {
            if let Some(node) = function.inputs.get(*input as usize) {
                write_to(out, format_args!("  state {} -> {}\n", self.value((*node).into()), self.state(*output)));
            }
        }
        if !function.outputs.is_empty() {
            let results: Vec<String> = function.outputs.iter().map(|value| self.value(*value)).collect();
            write_to(out, format_args!("  return {}\n", results.join(", ")));
        }
        out.push_str("}\n");
    }

    fn print_outputs(&self, out: &mut String) {
        let function = self.function;
        let outputs: Vec<String> = function
            .outputs
            .iter()
            .enumerate()
            .map(|(position, value)| {
                let name = function.output_names.get(position);
                let own = self.value(*value);
                match name {
                    Some(name) if own[1..] != **name && own[1..] != quote(name) => {
                        format!("{}: {}", names::word_or_string(name), self.array(*value))
                    }
                    _ => self.array(*value),
                }
            })
            .collect();
        match outputs.as_slice() {
            [] => {}
            [only] if !only.contains(": ") => write_to(out, format_args!(" -> {only}")),
            all => write_to(out, format_args!(" -> ({})", all.join(", "))),
        }
    }

    /// The output of a state pair: the value where it says which output that is.
    fn state(&self, output: u32) -> String {
        let value = self.function.outputs.get(output as usize);
        match value {
            Some(value)
                if self.function.outputs.iter().position(|v| v == value) == Some(output as usize)
                    && !self.value(*value).starts_with('@') =>
            {
                self.value(*value)
            }
            _ => output.to_string(),
        }
    }

    fn print_nodes(&self, out: &mut String) {
        let mut block = None;
        for index in self.function.order() {
            let node = &self.function.graph[index];
            if let Op::Input(_) | Op::Param(_) = node.op {
                continue;
            }
            if node.block != block {
                if block.is_some() {
                    out.push_str("  }\n");
                }
                if let Some(title) = &node.block {
                    write_to(out, format_args!("  block {} {{\n", quote(title)));
                }
                block.clone_from(&node.block);
            }
            out.push_str(if block.is_some() { "    " } else { "  " });
            self.print_node(out, index);
            out.push('\n');
        }
        if block.is_some() {
            out.push_str("  }\n");
        }
    }
}
