//! Why a model was rewritten and fused as it was: as a whole, or layer by layer.

use crate::Planned;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write},
};
use strang_compiler::{
    plan::{
        group::{Group, Kind, group},
        layer_of,
    },
    rewrite::{Reason, rule::Rule, rules},
};
use strang_ir::{
    Function, FunctionId, Module, Op, ScalarExpr, SharedNode, Value,
    op::Norm,
    scalar::{Binary, Unary},
    text::statements,
};

/// No layer has a name with this in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no layer of the model has `{name}` in its name; some that there are: {}", some.join(", "))]
pub struct UnknownLayer {
    /// What was asked for.
    pub name: String,
    /// Names of layers, the closest first.
    pub some: Vec<String>,
}

/// What happened to the whole model: how often each rule was used, what was recognised, how many kernels there are.
pub fn whole(planned: &Planned) -> String {
    let Planned { module, rewritten, receipt, .. } = planned;
    let mut text = String::new();
    let nodes = |module: &Module| module.functions.iter().map(computing).sum::<usize>();
    let kernels: usize = rewritten.functions.iter().map(|function| group(function).groups.len()).sum();
    line(&mut text, format_args!("{} operations became {} in {kernels} kernels", nodes(module), nodes(rewritten)));
    line(
        &mut text,
        format_args!(
            "searched {} windows of {} kinds; {} rules were applied, {} of them shaped the result",
            receipt.windows,
            receipt.searched,
            receipt.spent,
            receipt.applied.len()
        ),
    );
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    receipt.applied.iter().for_each(|application| *counts.entry(&application.rule).or_default() += 1);
    if !counts.is_empty() {
        text += "rules\n";
    }
    for (name, count) in counts {
        line(&mut text, format_args!("  {count:4}  {}", described(name)));
    }
    text += "recognised\n";
    for (what, layers) in recognised(rewritten) {
        let first = layers.first().map_or(String::new(), |layer| format!("  {layer}"));
        let more = if layers.len() > 1 { ", ..." } else { "" };
        line(&mut text, format_args!("  {:4}  {what}{first}{more}", layers.len()));
    }
    text
}

/// What happened to every layer whose name has a text in it: its operations before and after, the rules that shaped them,
/// those that nearly did with what stopped them, and the kernels that compute it.
///
/// # Errors
/// No layer has such a name.
pub fn layers(planned: &Planned, name: &str) -> Result<String, UnknownLayer> {
    let before = Layers::of(&planned.module);
    let after = Layers::of(&planned.rewritten);
    let receipt = &planned.receipt;
    let matching: Vec<&String> = before.order.iter().filter(|layer| layer.contains(name)).collect();
    if matching.is_empty() {
        let mut some = before.order.clone();
        let closeness = |layer: &String| {
            let parts = layer.split(['/', '.']).map(|part| strsim::jaro_winkler(name, part));
            parts.fold(strsim::jaro_winkler(name, layer), f64::max)
        };
        some.sort_by(|a, b| closeness(b).total_cmp(&closeness(a)));
        some.truncate(5);
        return Err(UnknownLayer { name: name.to_owned(), some });
    }
    let mut text = String::new();
    for layer in matching {
        line(&mut text, format_args!("{layer}"));
        before.show(&mut text, "as written", layer);
        let applied: Vec<&str> = once(receipt.applied.iter().filter(|a| a.layer == *layer).map(|a| &*a.rule));
        for rule in &applied {
            line(&mut text, format_args!("  shaped by {}", described(rule)));
            for conjunct in named(rule).map_or(&[][..], |rule| rule.guard) {
                line(&mut text, format_args!("    guard: {}", conjunct.text));
            }
        }
        let missed: Vec<(&str, &Reason)> =
            receipt.missed.iter().filter(|miss| miss.layer == *layer).map(|miss| (&*miss.rule, &miss.reason)).collect();
        // A rule whose whole guard is one condition is not near when that does not hold.
        let is_near = |(rule, reason): &(&str, &Reason)| {
            matches!(reason, Reason::Cost(_)) || named(rule).is_some_and(|rule| rule.guard.len() > 1)
        };
        let (near, far): (Vec<_>, Vec<_>) = once(missed.into_iter()).into_iter().partition(is_near);
        for (rule, reason) in near {
            line(&mut text, format_args!("  nearly {}", described(rule)));
            line(&mut text, format_args!("    stopped: {reason}"));
        }
        let far: Vec<&str> = once(far.into_iter().map(|(rule, _)| rule));
        if !far.is_empty() {
            line(&mut text, format_args!("  looked at by {}, whose guards do not hold", far.join(", ")));
        }
        if after.lines(layer).is_empty() {
            let others = absorbing(&planned.module, layer, &after);
            let named = if others.is_empty() { "other layers".into() } else { others.join(", ") };
            line(&mut text, format_args!("  became part of {named}"));
        } else if before.lines(layer) != after.lines(layer) {
            after.show(&mut text, "became", layer);
        }
        for kernel in kernels(&planned.rewritten, layer) {
            line(&mut text, format_args!("  runs in {kernel}"));
        }
    }
    Ok(text)
}

/// Writing to a string does not fail.
fn line(text: &mut String, arguments: fmt::Arguments) {
    let _ = text.write_fmt(arguments);
    text.push('\n');
}

fn once<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = Vec::new();
    items.for_each(|item| {
        if !seen.contains(&item) {
            seen.push(item);
        }
    });
    seen
}

fn named(name: &str) -> Option<&'static Rule> {
    rules::all().iter().find(|rule| rule.name == name).copied()
}

/// A rule with its class and law.
fn described(name: &str) -> String {
    match (named(name), name) {
        (Some(rule), _) => format!("{} ({}): {}", rule.name, rule.class.name(), rule.law),
        (None, "fold-constants") => format!("{name} (bit): what is made of weights alone is computed once"),
        (None, "weight-into-scan") => format!("{name} (bit): a weight that every iteration reads is one of its own"),
        (None, "hoist-from-scan") => format!("{name} (bit): a product that no state reaches leaves its loop"),
        (None, "unread-positions") => format!("{name} (bit): what no reader reads is not computed"),
        (None, _) => name.to_owned(),
    }
}

fn is_leaf(op: &Op) -> bool {
    matches!(op, Op::Input(_) | Op::Param(_) | Op::Const(_))
}

fn computing(function: &Function) -> usize {
    function.graph.node_weights().filter(|node| !is_leaf(&node.op)).count()
}

/// The layers of a module with the statements of each.
struct Layers {
    order: Vec<String>,
    lines: BTreeMap<String, Vec<String>>,
}

impl Layers {
    fn of(module: &Module) -> Self {
        let mut layers = Layers { order: Vec::new(), lines: BTreeMap::new() };
        for (position, function) in module.functions.iter().enumerate() {
            for (index, statement) in statements(module, FunctionId(position as u32)) {
                let node = &function.graph[index];
                if is_leaf(&node.op) {
                    continue;
                }
                let layer = layer_of(node);
                let lines = layers.lines.entry(layer.clone()).or_default();
                if lines.is_empty() {
                    layers.order.push(layer);
                }
                lines.push(statement);
            }
        }
        layers
    }

    fn lines(&self, layer: &str) -> &[String] {
        self.lines.get(layer).map_or(&[], Vec::as_slice)
    }

    fn show(&self, text: &mut String, title: &str, layer: &str) {
        line(text, format_args!("  {title}"));
        self.lines(layer).iter().for_each(|statement| line(text, format_args!("    {statement}")));
    }
}

/// The layers that a layer without operations of its own went into: the first that still have some among those that read it,
/// or else among those that it reads.
fn absorbing(written: &Module, layer: &str, after: &Layers) -> Vec<String> {
    let mut found = Vec::new();
    for function in &written.functions {
        let own: Vec<_> =
            function.order().into_iter().filter(|index| layer_of(&function.graph[*index]) == layer).collect();
        for forward in [true, false] {
            let (mut waiting, mut seen) = (own.clone(), BTreeSet::new());
            while let Some(index) = waiting.pop() {
                let neighbours: Vec<_> = if forward {
                    let ports = 0..function.graph[index].outputs.len() as u32;
                    let readers = ports.flat_map(|port| function.readers(Value { node: index, port }));
                    readers.map(|(reader, _)| reader).collect()
                } else {
                    function.operands(index).into_iter().map(|operand| operand.node).collect()
                };
                for other in neighbours {
                    let node = &function.graph[other];
                    let name = layer_of(node);
                    if !seen.insert(other) || is_leaf(&node.op) {
                        continue;
                    }
                    if after.lines(&name).is_empty() { waiting.push(other) } else { found.push(name) }
                }
            }
            if !found.is_empty() {
                break;
            }
        }
    }
    let mut found = once(found.into_iter());
    found.sort_by_key(|name| after.order.iter().position(|other| other == name));
    found
}

/// The kernels that compute nodes of a layer.
fn kernels(module: &Module, layer: &str) -> Vec<String> {
    let mut found = Vec::new();
    for function in &module.functions {
        for group in group(function).groups {
            let is_of_layer = |layer: &str| group.nodes().any(|node| layer_of(&function.graph[node]) == layer);
            let inner = match group.kind {
                Kind::Attention { scores, softmax } => vec![scores, softmax],
                _ => Vec::new(),
            };
            if is_of_layer(layer) || inner.iter().any(|node| layer_of(&function.graph[*node]) == layer) {
                found.push(kernel(function, &group));
            }
        }
    }
    found
}

/// A kernel in a line: what it is, and what is fused into it.
fn kernel(function: &Function, group: &Group) -> String {
    let layer = |node| {
        let node: &SharedNode = &function.graph[node];
        layer_of(node)
    };
    let kind = match group.kind {
        Kind::Map => "a map",
        Kind::Fold => "a fold",
        Kind::Rows => "an operation on rows",
        Kind::Contraction => "a matrix product",
        Kind::Attention { .. } => "attention in one kernel",
        Kind::Concat => "a concatenation",
        Kind::Scatter => "a scatter",
        Kind::Control => "steps of its own",
    };
    let root = layer(group.root);
    let others = |nodes: &[_]| once(nodes.iter().map(|node| layer(*node)).filter(|other| *other != root)).join(", ");
    let (before, after) = (others(&group.prologue), others(&group.epilogue));
    let before = if before.is_empty() { before } else { format!(", after {before} in the same pass") };
    let after = if after.is_empty() { after } else { format!(", with {after} on its result") };
    format!("{kind} for {root}{before}{after}")
}

/// Whether a concatenation joins two halves of which each is turned by an angle: `x c - y s` and `y c + x s`.
fn joins_turned_halves(function: &Function, operands: &[Value]) -> bool {
    let is_product = |part: &ScalarExpr| matches!(part, ScalarExpr::Binary(Binary::Multiply, ..));
    let turn = |value: &Value| match &function.graph[value.node].op {
        Op::Map(ScalarExpr::Binary(function, a, b)) if is_product(a) && is_product(b) => Some(*function),
        _ => None,
    };
    let turns: Vec<Option<Binary>> = operands.iter().map(turn).collect();
    turns == [Some(Binary::Subtract), Some(Binary::Add)]
}

/// Composite operations of the circuit with the layers where they stand: what exporters write in pieces, as a whole.
fn recognised(module: &Module) -> Vec<(&'static str, Vec<String>)> {
    let mut found: Vec<(&'static str, Vec<String>)> = [
        "attention, one kernel each",
        "softmax outside attention",
        "layer normalisation",
        "root mean square normalisation",
        "batch normalisation",
        "GELU",
        "SiLU",
        "rotary embedding",
    ]
    .map(|what| (what, Vec::new()))
    .into();
    for function in &module.functions {
        let groups = group(function).groups;
        let in_attention =
            |index| groups.iter().any(|g| matches!(g.kind, Kind::Attention { softmax, .. } if softmax == index));
        for index in function.order() {
            let node = &function.graph[index];
            let mut places = Vec::new();
            match &node.op {
                Op::Softmax { .. } if in_attention(index) => places.push(0),
                Op::Softmax { .. } => places.push(1),
                Op::Norm { kind: Norm::Layer, .. } => places.push(2),
                Op::Norm { kind: Norm::Rms, .. } => places.push(3),
                Op::Norm { kind: Norm::Batch, .. } => places.push(4),
                Op::Concat { .. } if joins_turned_halves(function, &function.operands(index)) => places.push(7),
                Op::Map(expression) => expression.visit(&mut |part| match part {
                    ScalarExpr::Unary(Unary::Gelu | Unary::GeluTanh, _) => places.push(5),
                    ScalarExpr::Unary(Unary::Silu, _) => places.push(6),
                    _ => {}
                }),
                _ => {}
            }
            places.into_iter().for_each(|place| found[place].1.push(layer_of(node)));
        }
    }
    found.retain(|(_, layers)| !layers.is_empty());
    found
}
