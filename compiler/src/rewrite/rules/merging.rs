//! Merging of parallel products: several weights that multiply one input become one, and its results are slices. Found
//! between runs of the other rules, by an index of products by input and signature.

use super::parts::{distinct, positions, whole_axes};
use crate::rewrite::{
    egraph::{
        Graph, Read, Tag, Term,
        build::{self, nameless},
        signature::Signatures,
        term::Kind,
    },
    rule::{Class, Find, Rule, record},
};
use egg::{Id, Language};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;
use strang_ir::{Axis, IndexExpr, IndexMap, Node, Op, Size, scalar::Binary};

pub const RULES: &[Rule] = &[Rule {
    name: "merge-parallel-products",
    class: Class::Bit,
    law: "x v, x w = slices of x [v w]; likewise with a bias on each",
    source: "one matrix product for query, key and value",
    find: Find::Whole(merge),
    guard: &[],
    examples: &[
        "param @v: f32[b, c] param @w: f32[b, d]
fn @f(%x: f32[a, b]) -> (f32[a, c], f32[a, d]) {
  %p = dot %x[a, {b}], @v[{b}, c] -> [a, c]
  %q = dot %x[a, {b}], @w[{b}, d] -> [a, d]
  return %p, %q
}",
        "param @v: f32[b, c] param @w: f32[b, c] param @s: f32[c] param @t: f32[c]
fn @f(%x: f32[a, b]) -> (f32[a, c], f32[a, c]) {
  %p = dot %x[a, {b}], @v[{b}, c] -> [a, c]
  %q = dot %x[a, {b}], @w[{b}, c] -> [a, c]
  %y = map add : %p[a, c], @s[c] -> [a, c]
  %z = map add : %q[a, c], @t[c] -> [a, c]
  return %y, %z
}",
    ],
}];

/// An operation on something shared and a weight of its own, along whose axis it can be put beside others.
struct Member {
    class: Id,
    term: Term,
    node: Arc<Node>,
    weight: Id,
    /// The output variable that the weight brings.
    column: u32,
}

/// Merges what can be merged; says how many results have a new form.
fn merge(graph: &mut Graph, rule: usize) -> usize {
    let mut merged = 0;
    for (shared, members) in groups(graph, &products(graph)) {
        let before = graph.analysis.applied.len();
        let whole = side_by_side(graph, rule, shared, &members);
        merged += graph.analysis.applied.len() - before;
        let biased = biases(graph, &members);
        if biased.len() == members.len() {
            side_by_side(graph, rule, whole, &biased);
        }
    }
    merged
}

/// Products of something with a weight that has a column of its own.
fn products(graph: &Graph) -> Vec<(Id, Member)> {
    let Some(classes) = graph.classes_for_op(&Kind::Apply(Tag::Dot, 3)) else {
        return Vec::new();
    };
    let mut classes: Vec<Id> = classes.collect();
    classes.sort_unstable();
    let wholes: FxHashSet<Id> = graph.analysis.wholes.iter().map(|whole| graph.find(*whole)).collect();
    let mut found = Vec::new();
    for class in classes {
        // What is a slice already was merged before, and what was merged stays as it is.
        if graph[class].data.view.is_some() || graph[class].data.constant || wholes.contains(&class) {
            continue;
        }
        for term in &graph[class].nodes {
            let Term::Apply(Tag::Dot, 3, children) = term else { continue };
            let (input, weight) = (graph.find(children[1]), graph.find(children[2]));
            let Some(number) = graph[children[0]].data.signature else { continue };
            let node = graph.analysis.signatures.node(number).clone();
            if !graph[weight].data.constant || graph[input].data.constant {
                continue;
            }
            let Some(axes) = whole_axes(graph, &node, 1, weight) else { continue };
            let output = &node.outputs[0].variables;
            let column = axes.into_iter().find(|v| output.contains(v) && !node.maps[0].mentions(*v));
            if let Some(column) = column {
                found.push((input, Member { class, term: term.clone(), node, weight, column }));
                break;
            }
        }
    }
    found
}

/// What one weight is made of, and its members in several forms.
type Forms<'a> = (Id, Vec<&'a Member>);

/// The members that differ in nothing but their weights and the sizes of their columns, two at least, by what they share.
/// Of one weight in several forms, scaled or not, one is enough: the first of each make a group, and the last of each, which
/// have the scales in them. Those come first: extraction takes a product that is made for several readers if it is better.
fn groups<'a>(graph: &Graph, members: &'a [(Id, Member)]) -> Vec<(Id, Vec<&'a Member>)> {
    let mut signatures = Signatures::default();
    let mut places: FxHashMap<(Id, u32, u32), usize> = FxHashMap::default();
    let mut alike: Vec<(Id, Vec<Forms>)> = Vec::new();
    for (shared, member) in members {
        let form = signatures.intern(widened(&member.node, member.column, &Size::ZERO));
        let place = *places.entry((graph.find(*shared), form, member.column)).or_insert_with(|| {
            alike.push((*shared, Vec::new()));
            alike.len() - 1
        });
        let (origin, weights) = (origin(graph, member.weight), &mut alike[place].1);
        match weights.iter_mut().find(|(other, _)| *other == origin) {
            Some((_, forms)) => forms.push(member),
            None => weights.push((origin, vec![member])),
        }
    }
    let mut groups = Vec::new();
    for (shared, weights) in alike.into_iter().filter(|(_, weights)| weights.len() > 1) {
        if weights.iter().any(|(_, forms)| forms.len() > 1) {
            groups.push((shared, weights.iter().map(|(_, forms)| forms[forms.len() - 1]).collect()));
        }
        groups.push((shared, weights.iter().map(|(_, forms)| forms[0]).collect()));
    }
    groups
}

/// The array with most axes that a constant is made of.
fn origin(graph: &Graph, constant: Id) -> Id {
    let mut id = graph.find(constant);
    let mut seen = FxHashSet::default();
    while seen.insert(id) {
        let Some(Term::Apply(Tag::Binary(_) | Tag::Cast | Tag::View, _, children)) = graph[id].nodes.first() else {
            break;
        };
        let axes = |child: &&Id| graph[**child].data.shape().len();
        // The first of those with as many axes.
        let Some(largest) = children[1..].iter().rev().max_by_key(axes) else { break };
        id = graph.find(*largest);
    }
    id
}

/// A node with another size of a variable.
fn widened(node: &Node, variable: u32, size: &Size) -> Node {
    let mut node = node.clone();
    let variable = &mut node.variables[variable as usize];
    variable.axis = Axis::new(variable.axis.name.clone(), size.clone());
    node
}

/// The operation on all weights side by side; every member becomes a slice of it.
fn side_by_side(graph: &mut Graph, rule: usize, shared: Id, members: &[impl std::borrow::Borrow<Member>]) -> Id {
    let mut offsets = vec![Size::ZERO];
    for member in members {
        let member: &Member = member.borrow();
        let end = &offsets[offsets.len() - 1] + &member.node.size_of(member.column);
        offsets.push(end);
    }
    let (mut result, before) = (shared, graph.analysis.applied.len());
    for (place, member) in members.iter().enumerate() {
        let member: &Member = member.borrow();
        let matched = |_: &Graph| vec![member.term.clone()];
        record(graph, rule, member.class, matched, |graph| {
            let first: &Member = members[0].borrow();
            let total = &offsets[members.len()];
            let node = widened(&first.node, first.column, total);
            let axes = distinct(&node.maps[1])?;
            let along = axes.iter().position(|axis| *axis == first.column)? as u32;
            let variables = axes.iter().map(|axis| node.variables[*axis as usize].clone()).collect();
            let element = graph[first.weight].data.element();
            let op = Op::Concat { along, offsets: offsets.clone() };
            let concat = nameless(op, variables, element, (0..axes.len() as u32).collect());
            let parts = members.iter().zip(&offsets).map(|(member, offset)| {
                let member: &Member = member.borrow();
                let exprs = (0..axes.len() as u32).map(|axis| {
                    let position = IndexExpr::variable(axis);
                    if axis == along { position.plus_size(&(&Size::ZERO - offset)) } else { position }
                });
                Read { value: member.weight, map: IndexMap::new(exprs.collect()) }
            });
            let weights = build::add(graph, &concat, parts.collect());
            let reads = [shared, weights].into_iter().zip(&node.maps);
            let reads = reads.map(|(value, map)| Read { value, map: map.clone() }).collect();
            result = build::add(graph, &node, reads);
            // The slice.
            let output = &member.node.outputs[0].variables;
            let variables = output.iter().map(|v| member.node.variables[*v as usize].clone()).collect();
            let frame =
                nameless(Op::View, variables, member.node.outputs[0].element, (0..output.len() as u32).collect());
            let exprs = output.iter().enumerate().map(|(axis, variable)| {
                let position = IndexExpr::variable(axis as u32);
                if *variable == member.column { position.plus_size(&offsets[place]) } else { position }
            });
            Some(build::view(graph, &frame, Read { value: result, map: IndexMap::new(exprs.collect()) }))
        });
    }
    if graph.analysis.applied.len() > before {
        graph.analysis.wholes.push(result);
    }
    result
}

/// The sums of members and weights that have their columns, one each, all alike; fewer where some have none.
fn biases(graph: &Graph, members: &[&Member]) -> Vec<Member> {
    let mut signatures = Signatures::default();
    let mut found: Vec<(Member, u32)> = Vec::new();
    let sums = graph.classes_for_op(&Kind::Apply(Tag::Binary(Binary::Add), 3));
    let mut sums: Vec<Id> = sums.map(Iterator::collect).unwrap_or_default();
    sums.sort_unstable();
    for member in members {
        for class in &sums {
            let sum = graph[*class].nodes.iter().find_map(|term| {
                let children = term.children();
                let is_sum = matches!(term, Term::Apply(Tag::Binary(Binary::Add), ..));
                if !is_sum || graph.find(children[1]) != graph.find(member.class) {
                    return None;
                }
                let weight = graph.find(children[2]);
                let node = graph.analysis.signatures.node(graph[children[0]].data.signature?).clone();
                let places = positions(&node, 0, &member.node)?;
                let column = places.iter().position(|place| *place == member.column)? as u32;
                let axes = whole_axes(graph, &node, 1, weight)?;
                let fits = graph[weight].data.constant && axes.contains(&column);
                fits.then(|| Member { class: *class, term: term.clone(), node, weight, column })
            });
            if let Some(sum) = sum {
                let form = signatures.intern(widened(&sum.node, sum.column, &Size::ZERO));
                if found.first().is_none_or(|(first, other)| *other == form && first.column == sum.column) {
                    found.push((sum, form));
                    break;
                }
            }
        }
    }
    found.into_iter().map(|(member, _)| member).collect()
}
