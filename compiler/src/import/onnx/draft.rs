//! Building nodes: a draft collects variables and operand reads, a builder adds the finished nodes to a function.

use super::error::Place;
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;
use strang_ir::{
    Axis, Function, IndexExpr, IndexMap, Literal, Module, Node, Op, Output, Shared, Source, Value, Variable,
    circuit::Parameter, shared::Pool,
};
use strang_runtime::{ElementType, Size};

/// A node under construction: its variables, and where it reads its operands.
#[derive(Default)]
pub struct Draft {
    variables: Vec<Variable>,
    operands: Vec<Value>,
    maps: Vec<IndexMap>,
}

impl Draft {
    /// A node with one variable per size.
    pub fn over(sizes: &[Size]) -> (Self, Vec<u32>) {
        let mut draft = Draft::default();
        let variables = draft.variables(sizes);
        (draft, variables)
    }

    /// Adds a variable over an axis of the given size.
    pub fn variable(&mut self, size: &Size) -> u32 {
        let axis = axis_of(size);
        let mut name = axis.name.to_string();
        while self.variables.iter().any(|variable| *variable.name == *name) {
            name.push('\'');
        }
        self.variables.push(Variable::named(name, &axis));
        self.variables.len() as u32 - 1
    }

    /// Adds a variable for each size.
    pub fn variables(&mut self, sizes: &[Size]) -> Vec<u32> {
        sizes.iter().map(|size| self.variable(size)).collect()
    }

    /// The sizes of variables, as simplification of index expressions asks for them.
    pub fn sizes(&self) -> impl Fn(u32) -> Size + '_ {
        |variable| self.variables[variable as usize].axis.size.clone()
    }

    /// Adds an operand that is read at the given positions.
    pub fn read(&mut self, value: Value, exprs: Vec<IndexExpr>) {
        self.read_map(value, IndexMap::new(exprs));
    }

    /// Adds an operand that is read at the given variables.
    pub fn read_at(&mut self, value: Value, variables: &[u32]) {
        self.read_map(value, IndexMap::of_variables(variables.iter().copied()));
    }

    /// Adds an operand that is read through a map.
    pub fn read_map(&mut self, value: Value, map: IndexMap) {
        self.operands.push(value);
        self.maps.push(map);
    }
}

/// An axis named after its size: a symbol by itself, a number with a `d` before it.
pub fn axis_of(size: &Size) -> Axis {
    if let Some(value) = size.as_constant() {
        return Axis::new(format!("d{value}"), size.clone());
    }
    let text = size.to_string();
    let plain = size.symbols().iter().any(|symbol| **symbol == *text);
    Axis::new(if plain { text } else { identifier(&format!("d_{text}")) }, size.clone())
}

/// A text as an identifier: letters, digits and single underscores, not beginning with a digit.
pub fn identifier(text: &str) -> String {
    sanitise(text, "")
}

/// A text as a parameter name: an identifier in which dots may stand.
pub fn dotted_identifier(text: &str) -> String {
    sanitise(text, ".")
}

fn sanitise(text: &str, also: &str) -> String {
    let mut name = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii_alphanumeric() || also.contains(character) {
            name.push(character);
        } else if !name.is_empty() && !name.ends_with('_') {
            name.push('_');
        }
    }
    let name = name.trim_matches(|character| character == '_' || character == '.');
    match name.chars().next() {
        None => "v".to_owned(),
        Some(first) if first.is_ascii_digit() => format!("v{name}"),
        Some(_) => name.to_owned(),
    }
}

/// Where the nodes that are being made come from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The ONNX node, for errors.
    pub place: Place,
    /// The same, as circuits carry it.
    pub source: Source,
    /// The module path in the node's name.
    pub block: Option<Arc<str>>,
    /// What its values are named after.
    pub base: String,
}

/// A function under construction.
pub struct Builder {
    /// The function so far.
    pub function: Function,
    /// The nodes of parameters by position, each made once.
    parameters: FxHashMap<u32, Value>,
    constants: FxHashMap<Literal, Value>,
    /// Values of the enclosing function that this one reads, each with the input that stands for it.
    pub captures: Vec<(Value, Value)>,
    names: FxHashSet<String>,
    /// The variables and maps of the nodes so far, which nodes that read alike share.
    variables: Pool<Vec<Variable>>,
    maps: Pool<Vec<IndexMap>>,
}

impl Builder {
    /// An empty function.
    pub fn new(name: &str) -> Self {
        Builder {
            function: Function::new(name),
            parameters: FxHashMap::default(),
            constants: FxHashMap::default(),
            captures: Vec::new(),
            names: FxHashSet::default(),
            variables: Pool::default(),
            maps: Pool::default(),
        }
    }

    /// A name that no value of the function has yet.
    pub fn unique(&mut self, wanted: &str) -> Arc<str> {
        let mut name = wanted.to_owned();
        let mut count = 1;
        while !self.names.insert(name.clone()) {
            count += 1;
            name = format!("{wanted}_{count}");
        }
        name.into()
    }

    /// Adds an input.
    pub fn input(&mut self, name: &str, element: ElementType, sizes: &[Size]) -> Value {
        let name = self.unique(&identifier(name));
        let axes: Vec<Axis> = sizes.iter().map(axis_of).collect();
        self.function.add_input(name, element, &axes).into()
    }

    /// The input that stands for a value of the enclosing function.
    pub fn capture(&mut self, outer: Value, name: &str, element: ElementType, sizes: &[Size]) -> Value {
        if let Some((_, inner)) = self.captures.iter().find(|(captured, _)| *captured == outer) {
            return *inner;
        }
        let inner = self.input(name, element, sizes);
        self.captures.push((outer, inner));
        inner
    }

    /// The node of a parameter.
    pub fn parameter(&mut self, position: u32, module: &Module) -> Value {
        let parameter: &Parameter = &module.parameters[position as usize];
        if let Some(value) = self.parameters.get(&position) {
            return *value;
        }
        let node = self.function.add_param(position, parameter);
        let own = &mut self.function.graph[node];
        own.variables = self.variables.share(std::mem::take(&mut own.variables));
        self.parameters.insert(position, node.into());
        node.into()
    }

    /// The node of a number.
    pub fn constant(&mut self, literal: Literal) -> Value {
        if let Some(value) = self.constants.get(&literal) {
            return *value;
        }
        let name = self.unique(&format!("const_{}", identifier(&literal.to_string().replace('-', "minus_"))));
        let node = Node {
            op: Op::Const(literal),
            variables: Shared::default(),
            maps: Shared::default(),
            outputs: vec![Output { name, element: literal.element, variables: vec![] }],
            source: Source::None,
            block: None,
        };
        let value = self.function.add(node, &[]).into();
        self.constants.insert(literal, value);
        value
    }

    /// Adds a finished node with the given outputs.
    pub fn add(&mut self, draft: Draft, op: Op, outputs: Vec<(ElementType, Vec<u32>)>, origin: &Origin) -> Vec<Value> {
        let count = outputs.len() as u32;
        let wanted = format!("{}_{}", origin.base, op.name());
        let outputs = outputs
            .into_iter()
            .map(|(element, variables)| Output { name: self.unique(&wanted), element, variables })
            .collect();
        let node = Node {
            op,
            variables: self.variables.share(draft.variables.into()),
            maps: self.maps.share(draft.maps.into()),
            outputs,
            source: origin.source.clone(),
            block: origin.block.clone(),
        };
        let node = self.function.add(node, &draft.operands);
        (0..count).map(|port| Value { node, port }).collect()
    }

    /// Gives a value its final name.
    pub fn rename(&mut self, value: Value, wanted: &str) {
        let old = self.function.output_of(value).name.clone();
        self.names.remove(&*old);
        let name = self.unique(&identifier(wanted));
        self.function.graph[value.node].outputs[value.port as usize].name = name;
    }
}
