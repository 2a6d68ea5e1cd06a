//! Saturation of a function: every window of one kind is searched once, and what was found is put in the place of all.

use super::{
    convert::{Converted, convert},
    emit::{Template, template},
    extract::{Choice, extract},
    ilp::{Audit, audit},
    key::{Interface, Keys, kinds},
    trace::missed,
    window,
};
use crate::plan::error::layer_of;
use crate::rewrite::{
    Application, Extraction, Miss, Numerics, Obstacle, Receipt, RewriteOptions,
    egraph::{Facts, Graph, Knowledge, Term, changes},
    rule::{COMPILED, Class, Find},
    rules,
};
use egg::{Id, Language, Runner, SimpleScheduler};
use petgraph::{
    stable_graph::{NodeIndex, StableDiGraph},
    visit::NodeIndexable,
};
use rayon::prelude::*;
use rustc_hash::{FxHashMap, FxHashSet};
use std::time::Duration;
use strang_ir::{Edge, Function, Module, Op, Value};

/// Runs of the rules, with merging of parallel products between them.
const RUNS: usize = 3;

/// Saturates every function of a module.
pub fn saturate(module: &mut Module, options: &RewriteOptions, receipt: &mut Receipt) {
    for position in 0..module.functions.len() {
        if let Some(function) = rewritten(module, position, options, receipt) {
            module.functions[position] = function;
        }
    }
}

/// A window, and which of the different ones it is.
struct Window {
    nodes: Vec<NodeIndex>,
    interface: Interface,
    kind: usize,
}

/// What was found for windows of one kind.
struct Found {
    /// What is cheaper than what is there, if anything is.
    template: Option<Template>,
    /// The predicted seconds of what is cheapest.
    seconds: f64,
    /// Rules that nearly shaped it, with the nodes of the window, where they are asked for.
    missed: Vec<(usize, u32, Obstacle)>,
    /// How often rules were applied, and the last time.
    spent: usize,
    last: Option<Application>,
    /// How far it is from the best, where that is asked for.
    audit: Option<Audit>,
}

/// A function with its windows replaced, if anything in it changes.
fn rewritten(module: &Module, position: usize, options: &RewriteOptions, receipt: &mut Receipt) -> Option<Function> {
    let function = &module.functions[position];
    let kinds = kinds(function);
    let mut keys = Keys::new(module, function, &kinds);
    let (mut windows, mut key) = (Vec::new(), Vec::new());
    // The first window of every kind, with what is known of its parameters.
    let mut firsts: Vec<(usize, Vec<Facts>)> = Vec::new();
    let mut known: FxHashMap<Vec<u32>, usize> = FxHashMap::default();
    for nodes in window::windows(function, &kinds) {
        let interface = keys.interface(&nodes, &mut key);
        let kind = known.get(&key).copied().unwrap_or_else(|| {
            known.insert(key.clone(), firsts.len());
            firsts.push((windows.len(), keys.facts(&interface)));
            firsts.len() - 1
        });
        windows.push(Window { nodes, interface, kind });
    }
    let search = |(first, facts): (usize, Vec<Facts>), fuel: usize| {
        // egg times itself with a clock whose first use is spent on calibration, up to 200 ms by its source. Nothing here
        // depends on time, so it gets one that stands still.
        let (clock, _) = quanta::Clock::mock();
        quanta::with_clock(&clock, || searched(function, &windows[first], facts, fuel, options))
    };
    let found: Vec<Found> = match options.fuel {
        usize::MAX => firsts.into_par_iter().with_max_len(1).map(|first| search(first, usize::MAX)).collect(),
        // What a window may spend depends on what those before it have spent.
        fuel => {
            let mut left = fuel.saturating_sub(receipt.spent);
            let searched = firsts.into_iter().map(|first| {
                let found = search(first, left);
                left -= found.spent.min(left);
                found
            });
            searched.collect()
        }
    };
    receipt.windows += windows.len() as u32;
    receipt.searched += found.len() as u32;
    for found in &found {
        receipt.spent += found.spent;
        receipt.last = found.last.clone().or(receipt.last.take());
        receipt.audits.extend(found.audit.clone());
    }
    for window in &windows {
        let found = &found[window.kind];
        receipt.seconds += found.seconds;
        for (rule, origin, obstacle) in &found.missed {
            let rule = rules::all()[*rule];
            let (layer, reason) = (layer(function, &window.nodes, *origin), obstacle.reason(rule));
            receipt.missed.push(Miss { rule: rule.name.into(), layer, reason });
        }
    }
    let templates: Vec<Option<Template>> = found.into_iter().map(|found| found.template).collect();
    templates.iter().any(Option::is_some).then(|| rebuilt(module, function, &windows, &templates, receipt))
}

/// Searches a window, applying rules up to `fuel` times.
fn searched(
    function: &Function,
    Window { nodes, interface, .. }: &Window,
    facts: Vec<Facts>,
    fuel: usize,
    options: &RewriteOptions,
) -> Found {
    let Converted { mut graph, results } = convert(function, nodes, (interface, facts));
    graph.analysis.fuel = fuel;
    graph.analysis.explain = options.explain;
    let (graph, choice, seconds, audit) = cheapest(graph, &results, options);
    let last = graph.analysis.applied.last().map(|last| {
        let layer = layer(function, nodes, graph[last.class].data.origin);
        Application { rule: rules::all()[last.rule].name.into(), layer }
    });
    let template = choice.map(|choice| template(&graph, &choice, &results));
    let missed = if options.explain {
        let shaped = template.as_ref().map_or(&[][..], |template| &template.applied);
        missed(&graph, &options.target, &results, shaped)
    } else {
        Vec::new()
    };
    Found { template, seconds, missed, spent: graph.analysis.applied.len(), last, audit }
}

/// The cheapest form of the results, if it is cheaper than the one that is there, the seconds of the cheaper, and how far it is
/// from the best, where that is asked for.
fn cheapest(graph: Graph, results: &[Id], options: &RewriteOptions) -> (Graph, Option<Choice>, f64, Option<Audit>) {
    let target = &options.target;
    let written = extract(&graph, target, results, &|_, _, own| own);
    let originals: Vec<Term> = graph.classes().flat_map(|class| class.nodes.iter().cloned()).collect();
    let graph = run(graph, options);
    if graph.analysis.applied.is_empty() {
        return (graph, None, written.cost, None);
    }
    let originals: FxHashSet<Term> = originals.into_iter().map(|term| term.map_children(|id| graph.find(id))).collect();
    // Of equally cheap terms the one that is written stays.
    let price = |term: &Term, _: Id, own: f64| if originals.contains(term) { own } else { own * (1. + 1e-6) };
    let mut choice = extract(&graph, target, results, &price);
    let mut report = None;
    if options.extraction == Extraction::Ilp
        && let Some((audit, best)) = audit(&graph, target, results, &price, &choice)
    {
        report = Some(audit);
        choice = best.filter(|best| best.cost < choice.cost * (1. - 1e-9)).unwrap_or(choice);
    }
    let cheaper = choice.cost < written.cost * (1. - 1e-5) && choice.is_acyclic(&graph);
    let seconds = if cheaper { choice.cost } else { written.cost };
    (graph, cheaper.then_some(choice), seconds, report)
}

/// Saturates an e-graph within the limits.
pub fn run(mut graph: Graph, options: &RewriteOptions) -> Graph {
    let allowed = |class: Class| match options.numerics {
        Numerics::Exact => class == Class::Bit,
        Numerics::Fast => class != Class::Approximate,
    };
    let kept = |name: &str| options.without.iter().all(|other| other != name);
    let all = || rules::all().iter().enumerate().filter(|(_, rule)| allowed(rule.class) && kept(rule.name));
    let rewrites: Vec<_> = all().flat_map(|(number, _)| COMPILED[number].rewrites()).collect();
    for _ in 0..RUNS {
        let runner = Runner::<Term, Knowledge, ()>::default()
            .with_egraph(graph)
            .with_scheduler(SimpleScheduler)
            .with_iter_limit(options.iterations)
            .with_node_limit(options.nodes)
            .with_time_limit(Duration::MAX)
            .with_hook(|runner| {
                changes::measure(&mut runner.egraph);
                Ok(())
            });
        graph = runner.run(rewrites.iter().copied()).egraph;
        let mut merged = 0;
        for (number, rule) in all() {
            if let Find::Whole(find) = rule.find {
                merged += find(&mut graph, number);
                graph.rebuild();
            }
        }
        if merged == 0 {
            break;
        }
    }
    graph
}

/// The layer of a node of a window; nothing for values from outside.
fn layer(function: &Function, window: &[NodeIndex], node: u32) -> String {
    window.get(node as usize).map_or_else(String::new, |index| layer_of(&function.graph[*index]))
}

/// The function with windows replaced by the templates of their kinds; those of kinds without one are copied as they are.
fn rebuilt(
    module: &Module,
    function: &Function,
    windows: &[Window],
    templates: &[Option<Template>],
    receipt: &mut Receipt,
) -> Function {
    let mut new = Function::new(function.name.clone());
    new.graph = StableDiGraph::with_capacity(function.graph.node_count(), function.graph.edge_count());
    let mut moved = vec![NodeIndex::end(); function.graph.node_bound()];
    let mut values: FxHashMap<Value, Value> = FxHashMap::default();
    let mut parameters: FxHashMap<u32, NodeIndex> = FxHashMap::default();
    for input in &function.inputs {
        moved[input.index()] = new.add(function.graph[*input].clone(), &[]);
    }
    for index in function.graph.node_indices() {
        let node = &function.graph[index];
        if let Op::Param(number) = node.op {
            let copy = *parameters.entry(number).or_insert_with(|| new.add(node.clone(), &[]));
            moved[index.index()] = copy;
        } else if matches!(node.op, Op::Const(_)) {
            moved[index.index()] = new.add(node.clone(), &[]);
        }
    }
    for Window { nodes, interface, kind } in windows {
        match &templates[*kind] {
            None => {
                for index in nodes {
                    let copy = new.graph.add_node(function.graph[*index].clone());
                    for (slot, operand) in function.operands(*index).into_iter().enumerate() {
                        let source = place(&moved, &values, operand);
                        new.graph.add_edge(source.node, copy, Edge { port: source.port, slot: slot as u32 });
                    }
                    moved[index.index()] = copy;
                }
            }
            Some(template) => {
                let mut parameter = |new: &mut Function, number: u32| {
                    let node = *parameters
                        .entry(number)
                        .or_insert_with(|| new.add_param(number, &module.parameters[number as usize]));
                    Value::from(node)
                };
                let old = |value: Value| place(&moved, &values, value);
                let applied = &mut receipt.applied;
                let results = template.put((function, nodes), interface, &mut new, &old, &mut parameter, applied);
                values.extend(interface.results.iter().copied().zip(results));
            }
        }
    }
    new.outputs = function.outputs.iter().map(|value| place(&moved, &values, *value)).collect();
    new.output_names = function.output_names.clone();
    new.states = function.states.clone();
    new.remove_dead();
    new
}

/// Where a value of the old function is in the new one.
fn place(moved: &[NodeIndex], values: &FxHashMap<Value, Value>, value: Value) -> Value {
    match values.get(&value) {
        Some(place) => *place,
        None => Value { node: moved[value.node.index()], port: value.port },
    }
}
