//! One rule alone, applied wherever it can be: what tests check and `strang rules` shows.

use super::{
    RewriteOptions,
    egraph::Term,
    rule::{Compiled, Find, Rule},
    rules,
    search::{
        convert::{Converted, convert},
        emit::template,
        extract::extract,
        key::{Keys, kinds},
    },
};
use egg::{Id, Language, Runner, SimpleScheduler};
use petgraph::stable_graph::NodeIndex;
use rustc_hash::{FxHashMap, FxHashSet};
use std::time::Duration;
use strang_ir::{Function, Module, Op, Value};

/// What became of a module.
#[derive(Debug)]
pub enum Outcome {
    /// The rule found nothing.
    Nothing,
    /// What it built has another type or shape, and was refused.
    Refused,
    /// The module rewritten.
    Rewritten(Module),
}

/// Applies a rule to the entry of a module, wherever it can be applied and whatever that costs; without the conjunct
/// `removed` of its guard, if one is given.
pub fn apply(module: &Module, rule: &'static Rule, removed: Option<usize>) -> Outcome {
    let mut refused = false;
    match applied(module, rule, removed, &mut refused) {
        Some(module) => Outcome::Rewritten(module),
        None if refused => Outcome::Refused,
        None => Outcome::Nothing,
    }
}

fn applied(module: &Module, rule: &'static Rule, removed: Option<usize>, refused: &mut bool) -> Option<Module> {
    let number = rules::all().iter().position(|other| std::ptr::eq(*other, rule))?;
    let function = module.entry();
    let is_leaf = |node: &NodeIndex| matches!(function.graph[*node].op, Op::Input(_) | Op::Param(_) | Op::Const(_));
    let nodes: Vec<NodeIndex> = function.order().into_iter().filter(|node| !is_leaf(node)).collect();
    let kinds = kinds(function);
    let mut keys = Keys::new(module, function, &kinds);
    let interface = keys.interface(&nodes, &mut Vec::new());
    let facts = keys.facts(&interface);
    let Converted { graph, results } = convert(function, &nodes, (&interface, facts));
    let written: Vec<Term> = graph.classes().flat_map(|class| class.nodes.iter().cloned()).collect();
    let options = RewriteOptions::default();
    let mut graph = graph;
    match rule.find {
        // What the constructor does is done by now.
        Find::Built => {}
        Find::Whole(find) => drop(find(&mut graph, number)),
        Find::Patterns(..) => {
            let compiled = Compiled::new(number, rule, removed);
            let runner = Runner::default().with_egraph(graph).with_scheduler(SimpleScheduler).with_iter_limit(1);
            graph = runner.with_time_limit(Duration::MAX).run(compiled.rewrites()).egraph;
        }
    }
    graph.rebuild();
    *refused = graph.analysis.refused > 0;
    if graph.analysis.applied.is_empty() && !matches!(rule.find, Find::Built) {
        return None;
    }
    let written: FxHashSet<Term> = written.into_iter().map(|term| term.map_children(|id| graph.find(id))).collect();
    let price = |term: &Term, _: Id, _: f64| match term {
        Term::Apply(..) if written.contains(term) => 1.,
        Term::Apply(..) => 1e-6,
        _ => 1e-9,
    };
    let choice = extract(&graph, &options.target, &results, &price);
    if !choice.is_acyclic(&graph) {
        return None;
    }
    let template = template(&graph, &choice, &results);
    let mut new = Function::new(function.name.clone());
    let mut moved: FxHashMap<NodeIndex, NodeIndex> = FxHashMap::default();
    for input in &function.inputs {
        moved.insert(*input, new.add(function.graph[*input].clone(), &[]));
    }
    let mut parameter =
        |new: &mut Function, number: u32| Value::from(new.add_param(number, &module.parameters[number as usize]));
    let old = |value: Value| Value { node: moved[&value.node], port: value.port };
    let mut receipt = Vec::new();
    let values = template.put((function, &nodes), &interface, &mut new, &old, &mut parameter, &mut receipt);
    let places: FxHashMap<Value, Value> = interface.results.iter().copied().zip(values).collect();
    let place = |value: &Value| match (places.get(value), &function.graph[value.node].op) {
        (Some(place), _) => Some(*place),
        (None, Op::Input(_)) => Some(old(*value)),
        (None, _) => None,
    };
    new.outputs = function.outputs.iter().map(place).collect::<Option<_>>()?;
    new.output_names = function.output_names.clone();
    let mut rewritten = module.clone();
    rewritten.functions[0] = new;
    Some(rewritten)
}

/// Puts in the place of a node of a module's entry what a rule makes of it, applied to what it makes too, whatever that costs.
/// Other nodes keep their places. Returns whether the rule applies.
pub fn replace(module: &mut Module, node: NodeIndex, rule: &'static Rule) -> bool {
    const ROUNDS: usize = 4;
    let function = module.entry().clone();
    let kinds = kinds(&function);
    let mut keys = Keys::new(module, &function, &kinds);
    let interface = keys.interface(&[node], &mut Vec::new());
    let facts = keys.facts(&interface);
    let Converted { graph, results } = convert(&function, &[node], (&interface, facts));
    let written: Vec<Term> = graph.classes().flat_map(|class| class.nodes.iter().cloned()).collect();
    let compiled = Compiled::new(0, rule, None);
    let runner = Runner::default().with_egraph(graph).with_scheduler(SimpleScheduler).with_iter_limit(ROUNDS);
    let mut graph = runner.with_time_limit(Duration::MAX).run(compiled.rewrites()).egraph;
    graph.rebuild();
    if graph.analysis.applied.is_empty() {
        return false;
    }
    let written: FxHashSet<Term> = written.into_iter().map(|term| term.map_children(|id| graph.find(id))).collect();
    let price = |term: &Term, _: Id, own: f64| if written.contains(term) { 1. + own } else { own };
    let choice = extract(&graph, &RewriteOptions::default().target, &results, &price);
    if !choice.is_acyclic(&graph) {
        return false;
    }
    let template = template(&graph, &choice, &results);
    let Module { functions, parameters, .. } = module;
    let mut parameter =
        |new: &mut Function, number: u32| Value::from(new.add_param(number, &parameters[number as usize]));
    let window = (&function, &[node][..]);
    let values = template.put(window, &interface, &mut functions[0], &|value| value, &mut parameter, &mut Vec::new());
    functions[0].replace(node.into(), values[0]);
    true
}

/// The circuit of an example: text as it is, or the body of a map over `%x[a, b]`, `%y[a, b]` and `%z[b]`.
pub fn circuit(example: &str) -> String {
    let axes = "axis a   axis b   axis c   axis d";
    if example.contains("fn @") {
        return format!("ncd 0.1 \"example\"\n{axes}\n{example}\n");
    }
    let names = [("x", "a, b"), ("y", "a, b"), ("z", "b")];
    let used: Vec<&(&str, &str)> = names
        .iter()
        .enumerate()
        .filter(|(slot, _)| example.contains(&format!("${slot}")))
        .map(|(_, name)| name)
        .collect();
    let inputs: Vec<String> = used.iter().map(|(name, axes)| format!("%{name}: f32[{axes}]")).collect();
    let operands: Vec<String> = used.iter().map(|(name, axes)| format!("%{name}[{axes}]")).collect();
    let element = if example.starts_with("cast(bool") || example.contains("is_nan(") { "bool" } else { "f32" };
    format!(
        "ncd 0.1 \"example\"\n{axes}\nfn @f({}) -> {element}[a, b] {{\n  %r = map {example} : {} -> [a, b]\n  return %r\n}}\n",
        inputs.join(", "),
        operands.join(", ")
    )
}
