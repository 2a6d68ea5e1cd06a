//! What a module is made of, in numbers: what `strang show` prints.

use super::cost::{bytes_of, cost};
use crate::{Function, Module, Op, Size, Value, interpret::plain_symbol};
use rustc_hash::FxHashMap;
use std::{collections::BTreeMap, fmt, sync::Arc};
use strang_runtime::{Bindings, program::Cost, size::SizeError};

/// A node of the entry, with its cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// The name of its first value.
    pub name: Arc<str>,
    /// The operation.
    pub operation: &'static str,
    /// The block it stands in.
    pub block: Option<Arc<str>>,
    /// The sizes of its first result's axes.
    pub shape: Vec<Size>,
    /// Its arithmetic and traffic.
    pub cost: Cost,
}

/// A module in numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Its title.
    pub title: Arc<str>,
    /// How many parameters it has.
    pub parameters: usize,
    /// The elements of all parameters.
    pub parameter_elements: Size,
    /// The bytes of all parameters.
    pub parameter_bytes: Size,
    /// The operations of all functions, by name.
    pub operations: BTreeMap<&'static str, usize>,
    /// The symbols that inputs bind.
    pub symbols: Vec<Arc<str>>,
    /// The nodes of the entry that compute something, in order.
    pub layers: Vec<Layer>,
    /// The cost of all of them.
    pub cost: Cost,
}

/// The numbers of a verified module.
pub fn summary(module: &Module) -> Summary {
    let mut summary =
        Summary { title: module.title.clone(), parameters: module.parameters.len(), ..Default::default() };
    for parameter in &module.parameters {
        let elements: Size = parameter.axes.iter().map(|axis| axis.size.clone()).product();
        summary.parameter_bytes += bytes_of(parameter.element, &elements);
        summary.parameter_elements += elements;
    }
    for node in module.functions.iter().flat_map(|function| function.graph.node_weights()) {
        if !matches!(node.op, Op::Input(_) | Op::Param(_)) {
            *summary.operations.entry(node.op.name()).or_default() += 1;
        }
    }
    let Some(entry) = module.functions.first() else { return summary };
    for input in &entry.inputs {
        for symbol in entry.shape_of((*input).into()).iter().filter_map(plain_symbol) {
            if !summary.symbols.contains(&symbol) {
                summary.symbols.push(symbol);
            }
        }
    }
    for index in entry.order() {
        let node = &entry.graph[index];
        if matches!(node.op, Op::Input(_) | Op::Param(_) | Op::Const(_)) {
            continue;
        }
        let cost = cost(module, entry, index);
        summary.cost.flops += cost.flops.clone();
        summary.cost.bytes += cost.bytes.clone();
        summary.layers.push(Layer {
            name: node.outputs[0].name.clone(),
            operation: node.op.name(),
            block: node.block.clone(),
            shape: node.shape(0),
            cost,
        });
    }
    summary
}

/// The largest number of bytes that values of a function take at once when nodes run in canonical order, every value has
/// memory of its own until its last reader has run, and parameters do not count.
///
/// # Errors
/// A size without a value.
pub fn peak_bytes(function: &Function, bindings: &Bindings) -> Result<i64, SizeError> {
    let bytes = |value: Value| {
        let count: Size = function.shape_of(value).into_iter().product();
        bytes_of(function.element_of(value), &count).eval(bindings)
    };
    let mut readers: FxHashMap<Value, usize> = FxHashMap::default();
    let order = function.order();
    for index in &order {
        function.operands(*index).into_iter().for_each(|value| *readers.entry(value).or_default() += 1);
    }
    function.outputs.iter().for_each(|value| *readers.entry(*value).or_default() += 1);
    let (mut live, mut peak) = (0i64, 0i64);
    for index in order {
        let node = &function.graph[index];
        let parameter = |value: Value| matches!(function.graph[value.node].op, Op::Param(_));
        let mut unread = 0;
        for port in 0..node.outputs.len() as u32 {
            let value = Value { node: index, port };
            if !parameter(value) {
                let bytes = bytes(value)?;
                live = live.saturating_add(bytes);
                unread += if readers.contains_key(&value) { 0 } else { bytes };
            }
        }
        peak = peak.max(live);
        live -= unread;
        for value in function.operands(index) {
            if let Some(count) = readers.get_mut(&value) {
                *count -= 1;
                if *count == 0 && !parameter(value) {
                    live -= bytes(value)?;
                }
            }
        }
    }
    Ok(peak)
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { title, parameters, parameter_elements, parameter_bytes, cost, .. } = self;
        writeln!(f, "{title}")?;
        writeln!(f, "  parameters  {parameters} arrays, {parameter_elements} elements, {parameter_bytes} bytes")?;
        let symbols: Vec<&str> = self.symbols.iter().map(|symbol| &**symbol).collect();
        if !symbols.is_empty() {
            writeln!(f, "  symbols     {}", symbols.join(", "))?;
        }
        let operations: Vec<String> = self.operations.iter().map(|(name, count)| format!("{count} {name}")).collect();
        writeln!(f, "  operations  {}", operations.join(", "))?;
        writeln!(f, "  flops       {}", cost.flops)?;
        writeln!(f, "  bytes moved {}", cost.bytes)
    }
}
