//! Saturation of a function: every window of one kind is searched once, and what was found is put in the place of all.

use super::{
    convert::{Converted, convert},
    emit::{Template, template},
    extract::{Choice, extract},
    ilp::audit,
    key::{Interface, Keys, kinds},
    trace::missed,
    window::windows,
};
use crate::plan::error::layer_of;
use crate::rewrite::{
    Application, Extraction, Miss, Numerics, Obstacle, Receipt, RewriteOptions,
    egraph::{Facts, Graph, Knowledge, Term, changes, signature::Signatures},
    rule::{COMPILED, Class, Find},
    rules,
};
use egg::{Id, Language, Runner, SimpleScheduler};
use petgraph::{
    stable_graph::{NodeIndex, StableDiGraph},
    visit::NodeIndexable,
};
use rustc_hash::{FxHashMap, FxHashSet};
use std::{rc::Rc, time::Duration};
use strang_ir::{Edge, Function, Module, Op, Value};

/// Runs of the rules, with merging of parallel products between them.
const RUNS: usize = 3;

/// Saturates every function of a module.
pub fn saturate(module: &mut Module, options: &RewriteOptions, receipt: &mut Receipt) {
    let mut search = Search { options, signatures: Signatures::default(), found: FxHashMap::default() };
    // egg times itself with a clock whose first use is spent on calibration, up to 200 ms by its source. Nothing here depends
    // on time, so it gets one that stands still.
    let (clock, _) = quanta::Clock::mock();
    quanta::with_clock(&clock, || {
        for position in 0..module.functions.len() {
            if let Some(function) = search.function(module, position, receipt) {
                module.functions[position] = function;
            }
        }
    });
}

struct Search<'a> {
    options: &'a RewriteOptions,
    signatures: Signatures,
    /// What was found for the windows of a key.
    found: FxHashMap<Vec<u32>, Found>,
}

/// What was found for windows of one kind.
#[derive(Clone)]
struct Found {
    /// What is cheaper than what is there, if anything is.
    template: Option<Rc<Template>>,
    /// The predicted seconds of what is cheapest.
    seconds: f64,
    /// Rules that nearly shaped it, with the nodes of the window, where they are asked for.
    missed: Rc<[(usize, u32, Obstacle)]>,
}

impl Search<'_> {
    /// The function rewritten, if anything in it changes.
    fn function(&mut self, module: &Module, position: usize, receipt: &mut Receipt) -> Option<Function> {
        let function = &module.functions[position];
        let kinds = kinds(function);
        let mut keys = Keys::new(module, function, &kinds);
        self.found.clear();
        let (mut plans, mut key) = (Vec::new(), Vec::new());
        for nodes in windows(function, &kinds) {
            let interface = keys.interface(&nodes, &mut key);
            let found = match self.found.get(&key) {
                Some(known) => known.clone(),
                None => {
                    receipt.searched += 1;
                    let found = self.window(function, &nodes, (&interface, keys.facts(&interface)), receipt);
                    self.found.insert(key.clone(), found.clone());
                    found
                }
            };
            receipt.windows += 1;
            receipt.seconds += found.seconds;
            for (rule, origin, obstacle) in found.missed.iter() {
                let rule = rules::all()[*rule];
                let (layer, reason) = (layer(function, &nodes, *origin), obstacle.reason(rule));
                receipt.missed.push(Miss { rule: rule.name.into(), layer, reason });
            }
            plans.push((nodes, interface, found.template));
        }
        plans.iter().any(|(_, _, template)| template.is_some()).then(|| rebuilt(module, function, &plans, receipt))
    }

    /// Searches a window.
    fn window(
        &mut self,
        function: &Function,
        nodes: &[NodeIndex],
        (interface, facts): (&Interface, Vec<Facts>),
        receipt: &mut Receipt,
    ) -> Found {
        let signatures = std::mem::take(&mut self.signatures);
        let Converted { mut graph, results } = convert(function, nodes, (interface, facts), signatures);
        graph.analysis.fuel = self.options.fuel.saturating_sub(receipt.spent);
        graph.analysis.explain = self.options.explain;
        let (graph, choice, seconds) = self.cheapest(graph, &results, receipt);
        if let Some(last) = graph.analysis.applied.last() {
            receipt.spent += graph.analysis.applied.len();
            let layer = layer(function, nodes, graph[last.class].data.origin);
            receipt.last = Some(Application { rule: rules::all()[last.rule].name.into(), layer });
        }
        let template = choice.map(|choice| Rc::new(template(&graph, &choice, &results)));
        let missed = if self.options.explain {
            let shaped = template.as_ref().map_or(&[][..], |template| &template.applied);
            missed(&graph, &self.options.target, &results, shaped).into()
        } else {
            Rc::default()
        };
        self.signatures = graph.analysis.signatures;
        Found { template, seconds, missed }
    }

    /// The cheapest form of the results, if it is cheaper than the one that is there, and the seconds of the cheaper.
    fn cheapest(&self, graph: Graph, results: &[Id], receipt: &mut Receipt) -> (Graph, Option<Choice>, f64) {
        let target = &self.options.target;
        let written = extract(&graph, target, results, &|_, _, own| own);
        let originals: Vec<Term> = graph.classes().flat_map(|class| class.nodes.iter().cloned()).collect();
        let graph = run(graph, self.options);
        if graph.analysis.applied.is_empty() {
            return (graph, None, written.cost);
        }
        let originals: FxHashSet<Term> =
            originals.into_iter().map(|term| term.map_children(|id| graph.find(id))).collect();
        // Of equally cheap terms the one that is written stays.
        let price = |term: &Term, _: Id, own: f64| if originals.contains(term) { own } else { own * (1. + 1e-6) };
        let mut choice = extract(&graph, target, results, &price);
        if self.options.extraction == Extraction::Ilp
            && let Some((audit, best)) = audit(&graph, target, results, &price, &choice)
        {
            receipt.audits.push(audit);
            choice = best.filter(|best| best.cost < choice.cost * (1. - 1e-9)).unwrap_or(choice);
        }
        let cheaper = choice.cost < written.cost * (1. - 1e-5) && choice.is_acyclic(&graph);
        let seconds = if cheaper { choice.cost } else { written.cost };
        (graph, cheaper.then_some(choice), seconds)
    }
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

type Planned = (Vec<NodeIndex>, Interface, Option<Rc<Template>>);

/// The function with windows replaced; those without a template are copied as they are.
fn rebuilt(module: &Module, function: &Function, plans: &[Planned], receipt: &mut Receipt) -> Function {
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
    for (nodes, interface, template) in plans {
        match template {
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
