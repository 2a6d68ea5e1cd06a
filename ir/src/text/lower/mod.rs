//! Trees to circuits: names are looked up, types inferred, variables numbered. This file lowers declarations and
//! functions; its children lower statements, index expressions, scalar expressions and literals.

mod index;
pub(crate) mod infer;
mod literal;
mod op;
mod scalar;
mod statement;

pub(crate) use statement::lower_statement;

use super::{
    ast::{ArrayType, Content, FunctionTree, Name, ParameterTree, Reference, StateOutput},
    error::{Complaint, Span, suggest},
    parse::{FileTree, Result, Scope},
};
use crate::{Axis, Function, FunctionId, Module, Parameter, Source, Value};
use petgraph::stable_graph::NodeIndex;
use rustc_hash::FxHashMap;
use strang_runtime::{ElementType, Size, Tensor};

/// What the statements of all functions can name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Declarations {
    pub scope: Scope,
    pub parameters: Vec<Parameter>,
    pub parameter_names: FxHashMap<String, u32>,
    pub functions: FxHashMap<String, Signature>,
}

/// What a call of a function needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Signature {
    pub id: FunctionId,
    pub outputs: Vec<ElementType>,
}

/// A function under construction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body {
    pub function: Function,
    /// The values named so far, and where.
    pub values: FxHashMap<String, (Value, Span)>,
    /// The nodes of the parameters used so far.
    parameters: FxHashMap<u32, NodeIndex>,
}

/// The module of a file.
pub(crate) fn lower_file(file: &FileTree, scope: Scope) -> Result<Module> {
    let mut declarations = Declarations { scope, ..Declarations::default() };
    for tree in &file.parameters {
        let parameter = declarations.parameter(tree)?;
        let position = declarations.parameters.len() as u32;
        if declarations.parameter_names.insert(tree.name.text.clone(), position).is_some() {
            return Err(Complaint::new(format!("`@{}` is declared twice", tree.name.text), tree.name.span));
        }
        declarations.parameters.push(parameter);
    }
    for (position, tree) in file.functions.iter().enumerate() {
        let outputs = tree.outputs.iter().map(|(_, array)| array.element).collect();
        let signature = Signature { id: FunctionId(position as u32), outputs };
        if declarations.functions.insert(tree.name.text.clone(), signature).is_some() {
            return Err(Complaint::new(format!("the function `@{}` is defined twice", tree.name.text), tree.name.span));
        }
    }
    let functions = file.functions.iter().map(|tree| lower_function(&declarations, tree)).collect::<Result<_>>()?;
    Ok(Module { title: file.title.as_str().into(), parameters: declarations.parameters, functions })
}

impl Declarations {
    /// The axes of an array.
    pub fn axes(&self, array: &ArrayType) -> Result<Vec<Axis>> {
        array.axes.iter().map(|name| Ok(Axis::new(name.text.as_str(), self.scope.axis(name)?.clone()))).collect()
    }

    fn parameter(&self, tree: &ParameterTree) -> Result<Parameter> {
        let mut parameter = Parameter::new(tree.name.text.as_str(), tree.array.element, self.axes(&tree.array)?);
        match &tree.content {
            None => {}
            Some(Content::Digest(digest)) => {
                let digest = digest.text.parse().map_err(|e| Complaint::new(format!("{e}"), digest.span))?;
                parameter.digest = Some(digest);
            }
            Some(Content::Values(values, span)) => {
                let sizes =
                    parameter.axes.iter().map(|axis| axis.size.as_constant().and_then(|n| usize::try_from(n).ok()));
                let Some(shape) = sizes.collect::<Option<Vec<usize>>>() else {
                    return Err(Complaint::new("elements are written for an array whose sizes are not known", *span)
                        .and(tree.array.span, "sizes known at run time"));
                };
                let count = shape.iter().try_fold(1usize, |count, size| count.checked_mul(*size));
                if count != Some(values.len()) {
                    return Err(Complaint::new(format!("{} elements are written", values.len()), *span)
                        .and(tree.array.span, format!("an array of the shape {shape:?}")));
                }
                let mut data = Tensor::zeros(parameter.element, &shape)
                    .map_err(|error| Complaint::new(error.to_string(), tree.array.span))?;
                for (position, value) in values.iter().enumerate() {
                    let number = literal::lower(value, Some(parameter.element))?;
                    if number.element != parameter.element {
                        let message = format!("a number of {} in an array of {}", number.element, parameter.element);
                        return Err(Complaint::new(message, value.span));
                    }
                    data.set_bits(position, number.bits);
                }
                parameter = parameter.with_data(data);
            }
        }
        Ok(parameter)
    }

    pub fn function(&self, name: &Name) -> Result<&Signature> {
        self.functions.get(&name.text).ok_or_else(|| {
            let complaint = Complaint::new(format!("there is no function `@{}`", name.text), name.span);
            match suggest(&name.text, self.functions.keys().map(String::as_str)) {
                Some(help) => complaint.help(help),
                None => complaint,
            }
        })
    }
}

impl Body {
    /// The value that a reference names; a parameter gets its node when it is first used.
    pub fn value(&mut self, declarations: &Declarations, reference: &Reference) -> Result<Value> {
        let Name { text, span } = &reference.name;
        let complain = |complaint: Complaint, help: Option<String>| match help {
            Some(help) => complaint.help(help),
            None => complaint,
        };
        if !reference.global {
            return self.values.get(text).map(|(value, _)| *value).ok_or_else(|| {
                let complaint = Complaint::new(format!("`%{text}` is not defined above"), *span);
                complain(complaint, suggest(text, self.values.keys().map(String::as_str)))
            });
        }
        let position = *declarations.parameter_names.get(text).ok_or_else(|| {
            let complaint = Complaint::new(format!("there is no parameter `@{text}`"), *span);
            complain(complaint, suggest(text, declarations.parameter_names.keys().map(String::as_str)))
        })?;
        let function = &mut self.function;
        let parameter = &declarations.parameters[position as usize];
        Ok((*self.parameters.entry(position).or_insert_with(|| function.add_param(position, parameter))).into())
    }

    /// Names a value.
    pub fn define(&mut self, name: &Name, value: Value) -> Result<()> {
        if let Some((_, first)) = self.values.insert(name.text.clone(), (value, name.span)) {
            return Err(Complaint::new(format!("`%{}` is defined twice", name.text), name.span)
                .and(first, "first defined here"));
        }
        Ok(())
    }
}

fn lower_function(declarations: &Declarations, tree: &FunctionTree) -> Result<Function> {
    let mut body = Body { function: Function::new(tree.name.text.as_str()), ..Body::default() };
    for (name, array) in &tree.inputs {
        let axes = declarations.axes(array)?;
        let node = body.function.add_input(name.text.as_str(), array.element, &axes);
        body.function.graph[node].source = Source::Span { start: name.span.start, end: array.span.end };
        body.define(name, node.into())?;
    }
    for statement in &tree.statements {
        lower_statement(declarations, &mut body, statement)?;
    }
    if tree.results.len() != tree.outputs.len() {
        let message =
            format!("`@{}` returns {} values, not {}", tree.name.text, tree.results.len(), tree.outputs.len());
        return Err(Complaint::new(message, tree.returns).and(tree.name.span, "as declared here"));
    }
    for (reference, (name, array)) in tree.results.iter().zip(&tree.outputs) {
        let value = body.value(declarations, reference)?;
        check_result(declarations, &body, reference, value, array)?;
        body.function.outputs.push(value);
        let name = name.as_ref().unwrap_or(&reference.name);
        body.function.output_names.push(name.text.as_str().into());
    }
    for (input, output) in &tree.states {
        let pair = lower_state(&body, tree, input, output)?;
        body.function.states.push(pair);
    }
    Ok(body.function)
}

/// Whether a returned value has the type that the function declares.
fn check_result(
    declarations: &Declarations,
    body: &Body,
    reference: &Reference,
    value: Value,
    array: &ArrayType,
) -> Result<()> {
    let found = body.function.element_of(value);
    let sizes = body.function.shape_of(value);
    let expected: Vec<Size> = declarations.axes(array)?.into_iter().map(|axis| axis.size).collect();
    if found == array.element && sizes == expected {
        return Ok(());
    }
    let name = &reference.name.text;
    let message = format!("`{name}` is {found}{sizes:?}, but the function returns {}{expected:?}", array.element);
    Err(Complaint::new(message, reference.name.span).and(array.span, "as declared here"))
}

fn lower_state(body: &Body, tree: &FunctionTree, input: &Name, output: &StateOutput) -> Result<(u32, u32)> {
    let from = tree.inputs.iter().position(|(name, _)| name.text == input.text).ok_or_else(|| {
        Complaint::new(format!("`%{}` is not an input, so it cannot be state", input.text), input.span)
    })?;
    let to = match output {
        StateOutput::Value(name) => {
            let value = body.values.get(&name.text).map(|(value, _)| *value);
            let position = body.function.outputs.iter().position(|output| Some(*output) == value);
            position.ok_or_else(|| Complaint::new(format!("`%{}` is not returned", name.text), name.span))? as u32
        }
        StateOutput::Position(position, span) => {
            if *position as usize >= tree.outputs.len() {
                return Err(Complaint::new(format!("there is no output {position}"), *span));
            }
            *position
        }
    };
    Ok((from as u32, to))
}
