//! From extracted terms back to nodes: a template that is put in the place of every window of one kind.

use super::{extract::Choice, key::Interface, trace::shaped};
use crate::{
    plan::error::layer_of,
    rewrite::{
        Application,
        egraph::{Graph, Term, compose::compose},
        rules,
    },
};
use egg::{Id, Language};
use petgraph::stable_graph::NodeIndex;
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;
use strang_ir::{Function, IndexExpr, IndexMap, Node, Op, Output, ScalarExpr, Shared, Source, Value};

/// A value of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A value from outside, by number.
    External(u32),
    /// A weight, by number.
    Parameter(u32),
    /// A result of a node of the template.
    Node(u32, u32),
}

/// The nodes that replace a window.
#[derive(Clone, Debug, Default)]
pub struct Template {
    /// The nodes with their operands, in order, and the node of the window that each was made for.
    pub nodes: Vec<(Node, Vec<Place>, u32)>,
    /// The window's results.
    pub results: Vec<Place>,
    /// The rules that shaped it, with the node of the window where each applied.
    pub applied: Vec<(usize, u32)>,
}

/// Makes a template of a choice.
pub fn template(graph: &Graph, choice: &Choice, results: &[Id]) -> Template {
    let uses = uses(graph, choice, results);
    let mut emitter = Emitter { graph, choice, uses, maps: FxHashMap::default(), joined: FxHashSet::default() };
    for id in &choice.order {
        emitter.join(*id);
    }
    let (maps, joined) = (emitter.maps, emitter.joined);
    let mut template = Template::default();
    let mut places: FxHashMap<Id, Place> = FxHashMap::default();
    for id in choice.order.iter().filter(|id| !joined.contains(*id)) {
        let place = match &choice.terms[id] {
            Term::Signature(_) => continue,
            Term::External(number) => Place::External(*number),
            Term::Parameter(number) => Place::Parameter(*number),
            Term::Project(port, [whole]) => match places[&graph.find(*whole)] {
                Place::Node(node, _) => Place::Node(node, *port),
                other => other,
            },
            term => {
                let (node, values) = match maps.get(id) {
                    Some(map) => (map.node.clone(), map.values.clone()),
                    None => plain(graph, term),
                };
                let operands = values.iter().map(|value| places[&graph.find(*value)]).collect();
                template.nodes.push((node, operands, graph[*id].data.origin));
                Place::Node(template.nodes.len() as u32 - 1, 0)
            }
        };
        places.insert(*id, place);
    }
    template.results = results.iter().map(|id| places[&graph.find(*id)]).collect();
    template.drop_unused();
    template.applied = shaped(graph, choice);
    template
}

fn uses(graph: &Graph, choice: &Choice, results: &[Id]) -> FxHashMap<Id, usize> {
    let mut uses: FxHashMap<Id, usize> = FxHashMap::default();
    let read = choice.terms.values().flat_map(|term| term.children()).chain(results);
    read.for_each(|id| *uses.entry(graph.find(*id)).or_default() += 1);
    uses
}

/// The node of a term that is no map of several functions.
fn plain(graph: &Graph, term: &Term) -> (Node, Vec<Id>) {
    match term {
        Term::Constant(literal) => {
            let outputs = vec![Output { name: Arc::from(""), element: literal.element, variables: Vec::new() }];
            let (op, source) = (Op::Const(*literal), Source::None);
            (
                Node { op, variables: Shared::default(), maps: Shared::default(), outputs, source, block: None },
                Vec::new(),
            )
        }
        term => (Node::clone(signature(graph, term)), term.children()[1..].to_vec()),
    }
}

fn signature<'a>(graph: &'a Graph, term: &Term) -> &'a Arc<Node> {
    let number = graph[term.children()[0]].data.signature.unwrap_or_default();
    graph.analysis.signatures.node(number)
}

/// A map put together again from terms of one function each.
struct Map {
    node: Node,
    values: Vec<Id>,
}

struct Emitter<'a> {
    graph: &'a Graph,
    choice: &'a Choice,
    uses: FxHashMap<Id, usize>,
    maps: FxHashMap<Id, Map>,
    /// Maps that are part of another.
    joined: FxHashSet<Id>,
}

impl Emitter<'_> {
    /// Puts a map together with numbers, and with the maps for the same node of the window that only it reads.
    fn join(&mut self, id: Id) {
        let term = &self.choice.terms[&id];
        let Term::Apply(tag, _, children) = term else { return };
        if !tag.is_map() {
            return;
        }
        let mut node = Node::clone(signature(self.graph, term));
        let Op::Map(function) = &node.op else { return };
        let origin = self.graph[id].data.origin;
        let mut reads: Vec<(Id, IndexMap)> = Vec::new();
        let mut parts: Vec<ScalarExpr> = Vec::new();
        for (slot, child) in children[1..].iter().enumerate() {
            let (child, map) = (self.graph.find(*child), &node.maps[slot]);
            let part = match &self.choice.terms[&child] {
                Term::Constant(literal) if map.fill.is_none() => Some(ScalarExpr::Literal(*literal)),
                // What is made of weights alone stays apart, so that it is computed once.
                _ if self.uses[&child] == 1
                    && self.graph[child].data.origin == origin
                    && !self.graph[child].data.constant =>
                {
                    self.inline(&node, child, map, &mut reads)
                }
                _ => None,
            };
            // A number may have other readers; if none is left, it is dropped at the end.
            if part.is_some() && !matches!(self.choice.terms[&child], Term::Constant(_)) {
                self.joined.insert(child);
            }
            parts.push(part.unwrap_or_else(|| operand(&mut reads, child, map.clone())));
        }
        let function = function.replace_leaves(&mut |leaf| match leaf {
            ScalarExpr::Operand(slot) => parts[*slot as usize].clone(),
            other => other.clone(),
        });
        node.op = Op::Map(function);
        let (values, maps): (Vec<Id>, Vec<IndexMap>) = reads.into_iter().unzip();
        node.maps = maps.into();
        self.maps.insert(id, Map { node, values });
    }

    /// The expression of an inner map as the outer sees it.
    fn inline(&self, outer: &Node, child: Id, map: &IndexMap, reads: &mut Vec<(Id, IndexMap)>) -> Option<ScalarExpr> {
        let inner = self.maps.get(&child)?;
        if map.fill.is_some() {
            return None;
        }
        let Op::Map(expression) = &inner.node.op else { return None };
        let mut positions = vec![IndexExpr::default(); inner.node.variables.len()];
        for (variable, position) in inner.node.outputs[0].variables.iter().zip(&map.exprs) {
            positions[*variable as usize] = position.clone();
        }
        let mut expressible = true;
        expression.visit(&mut |part| {
            if let ScalarExpr::Index(variable) = part {
                expressible &= positions[*variable as usize].as_variable().is_some();
            }
        });
        if !expressible {
            return None;
        }
        let size = |v: u32| outer.size_of(v);
        let places: Vec<ScalarExpr> = inner
            .values
            .iter()
            .zip(&inner.node.maps)
            .map(|(value, map)| operand(reads, *value, compose(map, &positions, &size)))
            .collect();
        Some(expression.replace_leaves(&mut |leaf| match leaf {
            ScalarExpr::Operand(slot) => places[*slot as usize].clone(),
            ScalarExpr::Index(variable) => {
                ScalarExpr::Index(positions[*variable as usize].as_variable().unwrap_or_default())
            }
            other => other.clone(),
        }))
    }
}

fn operand(reads: &mut Vec<(Id, IndexMap)>, value: Id, map: IndexMap) -> ScalarExpr {
    let read = (value, map);
    let slot = reads.iter().position(|other| *other == read).unwrap_or_else(|| {
        reads.push(read);
        reads.len() - 1
    });
    ScalarExpr::Operand(slot as u32)
}

impl Template {
    /// Drops nodes that nothing reads: numbers that became part of maps.
    fn drop_unused(&mut self) {
        let mut used = vec![false; self.nodes.len()];
        let mark = |place: &Place, used: &mut Vec<bool>| {
            if let Place::Node(node, _) = place {
                used[*node as usize] = true;
            }
        };
        self.results.iter().for_each(|place| mark(place, &mut used));
        for position in (0..self.nodes.len()).rev() {
            if used[position] {
                self.nodes[position].1.iter().for_each(|place| mark(place, &mut used));
            }
        }
        let mut next = 0;
        let moved: Vec<u32> = used
            .iter()
            .map(|used| {
                next += u32::from(*used);
                next - u32::from(*used)
            })
            .collect();
        let renumber = |place: &mut Place| {
            if let Place::Node(node, _) = place {
                *node = moved[*node as usize];
            }
        };
        let mut kept = used.into_iter();
        self.nodes.retain(|_| kept.next().unwrap_or_default());
        self.nodes.iter_mut().for_each(|(_, operands, _)| operands.iter_mut().for_each(renumber));
        self.results.iter_mut().for_each(renumber);
    }

    /// Adds the nodes to a function in the place of a window. `value` says where values of the old function are in the new
    /// one, `parameter` the node of a parameter. Returns where the window's results are.
    pub fn put(
        &self,
        (old, window): (&Function, &[NodeIndex]),
        interface: &Interface,
        new: &mut Function,
        value: &dyn Fn(Value) -> Value,
        parameter: &mut dyn FnMut(&mut Function, u32) -> Value,
        receipt: &mut Vec<Application>,
    ) -> Vec<Value> {
        let mut names: FxHashMap<u32, Arc<str>> = FxHashMap::default();
        for (place, result) in self.results.iter().zip(&interface.results) {
            if let Place::Node(node, 0) = place {
                names.entry(*node).or_insert_with(|| old.output_of(*result).name.clone());
            }
        }
        let mut last = vec![0; window.len()];
        for (position, (_, _, origin)) in self.nodes.iter().enumerate() {
            if let Some(last) = last.get_mut(*origin as usize) {
                *last = position;
            }
        }
        let mut built: Vec<NodeIndex> = Vec::with_capacity(self.nodes.len());
        for (position, (node, operands, origin)) in self.nodes.iter().enumerate() {
            let mut node = node.clone();
            if let Some(origin_node) = window.get(*origin as usize).map(|index| &old.graph[*index]) {
                (node.source, node.block) = (origin_node.source.clone(), origin_node.block.clone());
                let own = &origin_node.outputs[0].name;
                let name = match names.get(&(position as u32)) {
                    Some(name) => name.clone(),
                    None if last[*origin as usize] == position && !names.values().any(|name| name == own) => {
                        own.clone()
                    }
                    None => format!("{own}_{}_{position}", node.op.name()).into(),
                };
                for (port, output) in node.outputs.iter_mut().enumerate() {
                    output.name = if port == 0 {
                        name.clone()
                    } else {
                        origin_node.outputs.get(port).map_or_else(|| name.clone(), |output| output.name.clone())
                    };
                }
            } else {
                node.outputs.iter_mut().for_each(|output| output.name = format!("value_{position}").into());
            }
            let operands: Vec<Value> =
                operands.iter().map(|place| self.value(*place, &built, interface, new, value, parameter)).collect();
            built.push(new.add(node, &operands));
        }
        for (rule, origin) in &self.applied {
            let layer = window.get(*origin as usize).map_or_else(String::new, |index| layer_of(&old.graph[*index]));
            receipt.push(Application { rule: rules::all()[*rule].name.into(), layer });
        }
        self.results.iter().map(|place| self.value(*place, &built, interface, new, value, parameter)).collect()
    }

    fn value(
        &self,
        place: Place,
        built: &[NodeIndex],
        interface: &Interface,
        new: &mut Function,
        value: &dyn Fn(Value) -> Value,
        parameter: &mut dyn FnMut(&mut Function, u32) -> Value,
    ) -> Value {
        match place {
            Place::External(number) => value(interface.externals[number as usize]),
            Place::Parameter(number) => parameter(new, interface.parameters[number as usize]),
            Place::Node(node, port) => Value { node: built[node as usize], port },
        }
    }
}
