//! Names in printed text: axes, symbols, parameters, functions and values, each made unique and quoted where it must be.

use super::write_to;
use crate::{
    Atom, Axis, Condition, Function, IndexExpr, Module, Node, Op, ScalarExpr, Value,
    text::lexer::{is_name, is_word},
};
use rustc_hash::{FxHashMap, FxHashSet};
use std::{collections::BTreeSet, sync::Arc};
use strang_runtime::{Size, size::quote};

/// The names of a module.
pub(super) struct Names<'a> {
    axes: FxHashMap<&'a Axis, String>,
    /// The axes in the order of their declarations.
    order: Vec<&'a Axis>,
    /// The symbols that need a declaration of their own.
    symbols: Vec<Arc<str>>,
    parameters: Vec<String>,
    functions: Vec<String>,
}

/// Makes names unique by numbers behind them.
#[derive(Default)]
struct Unique {
    used: FxHashSet<String>,
    next: FxHashMap<String, u32>,
}

impl Unique {
    fn name(&mut self, base: &str) -> String {
        if self.used.insert(base.to_owned()) {
            return base.to_owned();
        }
        let next = self.next.entry(base.to_owned()).or_insert(0);
        loop {
            *next += 1;
            let candidate = format!("{base}_{next}");
            if self.used.insert(candidate.clone()) {
                return candidate;
            }
        }
    }
}

/// Whether the text can stand as a word without quotes.
fn is_plain_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && text.chars().all(is_word)
        && !matches!(text, "min" | "max")
}

pub(super) fn word_or_string(text: &str) -> String {
    if is_plain_word(text) { text.to_owned() } else { quote(text) }
}

/// A name as it stands after `%` or `@`.
fn sigil_name(text: &str) -> String {
    if !text.is_empty() && text.chars().all(is_name) { text.to_owned() } else { quote(text) }
}

/// What occurs in a module.
#[derive(Default)]
struct Found<'a> {
    order: Vec<&'a Axis>,
    seen: FxHashSet<&'a Axis>,
    symbols: BTreeSet<Arc<str>>,
}

impl<'a> Found<'a> {
    fn axis(&mut self, axis: &'a Axis) {
        if self.seen.insert(axis) {
            self.order.push(axis);
            self.size(&axis.size);
        }
    }

    fn size(&mut self, size: &Size) {
        if size.as_constant().is_none() {
            self.symbols.extend(size.symbols());
        }
    }

    fn expression(&mut self, expression: &IndexExpr) {
        self.size(expression.offset());
        for (atom, coefficient) in expression.terms() {
            self.size(coefficient);
            match atom {
                Atom::Variable(_) | Atom::Read(_) => {}
                Atom::FloorDiv(inner, divisor) | Atom::Remainder(inner, divisor) => {
                    self.expression(inner);
                    self.size(divisor);
                }
                Atom::Clamp(inner, low, high) => {
                    self.expression(inner);
                    self.size(low);
                    self.size(high);
                }
                Atom::Table(_, inner) => self.expression(inner),
            }
        }
    }

    fn node(&mut self, node: &'a Node) {
        let places = node.canonical_places();
        let mut variables: Vec<_> = node.variables.iter().enumerate().collect();
        variables.sort_by_key(|(position, _)| places.as_ref().map_or(*position as u32, |places| places[*position]));
        variables.into_iter().for_each(|(_, variable)| self.axis(&variable.axis));
        for map in &node.maps {
            map.exprs.iter().for_each(|expression| self.expression(expression));
            for condition in &map.conditions {
                self.expression(condition.expression());
                match condition {
                    Condition::Range { low, high, .. } => {
                        self.size(low);
                        self.size(high);
                    }
                    Condition::Divisible { divisor, .. } => self.size(divisor),
                }
            }
        }
        match &node.op {
            Op::Concat { offsets, .. } => offsets.iter().for_each(|offset| self.size(offset)),
            Op::Scatter { target, .. } => target.iter().for_each(|expression| self.expression(expression)),
            Op::Map(expression) => expression.visit(&mut |part| {
                if let ScalarExpr::Size(size) = part {
                    self.size(size);
                }
            }),
            _ => {}
        }
    }
}

impl<'a> Names<'a> {
    pub fn of(module: &'a Module) -> Self {
        let mut found = Found::default();
        module.parameters.iter().flat_map(|parameter| &parameter.axes).for_each(|axis| found.axis(axis));
        for function in &module.functions {
            function
                .inputs
                .iter()
                .filter_map(|node| function.graph.node_weight(*node))
                .for_each(|node| found.node(node));
            function.order().into_iter().for_each(|node| found.node(&function.graph[node]));
        }
        let mut unique = Unique::default();
        unique.used.extend(found.symbols.iter().map(|symbol| symbol.to_string()));
        // An axis whose size is the symbol of its name declares that symbol, so it keeps the name.
        let (symbolic, others): (Vec<&Axis>, Vec<&Axis>) = found
            .order
            .iter()
            .partition(|axis| is_plain_word(&axis.name) && axis.size == Size::symbol(axis.name.clone()));
        let mut axes: FxHashMap<&Axis, String> = symbolic.iter().map(|axis| (*axis, axis.name.to_string())).collect();
        for axis in &others {
            let name = unique.name(&plain_word(&axis.name));
            axes.insert(axis, name);
        }
        let mut symbols: Vec<Arc<str>> = found.symbols.into_iter().collect();
        let declared: FxHashSet<&str> = symbolic.iter().map(|axis| &*axis.name).collect();
        symbols.retain(|symbol| !declared.contains(&**symbol));
        let (mut parameters, mut functions) = (Unique::default(), Unique::default());
        Names {
            axes,
            order: symbolic.into_iter().chain(others).collect(),
            symbols,
            parameters: module.parameters.iter().map(|parameter| parameters.name(&parameter.name)).collect(),
            functions: module.functions.iter().map(|function| functions.name(&function.name)).collect(),
        }
    }

    /// The lines that declare symbols and axes.
    pub fn declarations(&self) -> String {
        let mut out = String::new();
        for symbol in &self.symbols {
            write_to(&mut out, format_args!("symbol {}\n", word_or_string(symbol)));
        }
        for axis in &self.order {
            let name = self.axis(axis);
            if is_plain_word(&axis.name) && axis.size == Size::symbol(axis.name.clone()) {
                write_to(&mut out, format_args!("axis {name}\n"));
            } else {
                write_to(&mut out, format_args!("axis {name} = {}\n", axis.size));
            }
        }
        out
    }

    pub fn axis(&self, axis: &Axis) -> &str {
        self.axes.get(axis).map_or("_", String::as_str)
    }

    /// A parameter with its sigil. One that does not exist, which no valid module names, has a name that cannot be read.
    pub fn parameter(&self, position: u32) -> String {
        match self.parameters.get(position as usize) {
            Some(name) => format!("@{}", sigil_name(name)),
            None => format!("@\"no parameter {position}\""),
        }
    }

    /// A function with its sigil.
    pub fn function(&self, position: usize) -> String {
        match self.functions.get(position) {
            Some(name) => format!("@{}", sigil_name(name)),
            None => format!("@\"no function {position}\""),
        }
    }
}

/// A word made of a name: other characters become `_`.
fn plain_word(name: &str) -> String {
    let mut word: String = name.trim_end_matches('\'').chars().map(|c| if is_word(c) { c } else { '_' }).collect();
    if !is_plain_word(&word) {
        word.insert(0, '_');
    }
    word
}

/// The names of a function's values, quoted where they must be, without sigil.
pub(super) struct ValueNames(FxHashMap<Value, String>);

impl ValueNames {
    pub fn of(function: &Function) -> Self {
        let mut unique = Unique::default();
        let mut names = FxHashMap::default();
        // Inputs first: they are an interface, so theirs are the last to change.
        for index in function.inputs.iter().copied().chain(function.order()) {
            let Some(node) = function.graph.node_weight(index) else { continue };
            if let Op::Param(_) = node.op {
                continue;
            }
            for (port, output) in node.outputs.iter().enumerate() {
                names.entry(Value { node: index, port: port as u32 }).or_insert_with(|| {
                    let base = if output.name.is_empty() { "v" } else { &output.name };
                    sigil_name(&unique.name(base))
                });
            }
        }
        ValueNames(names)
    }

    pub fn get(&self, value: Value) -> &str {
        self.0.get(&value).map_or("\"no value\"", String::as_str)
    }
}
