//! Extraction on random e-graphs, with circles: complete, acyclic, deterministic, and how far from the best.

use egg::{Id, Language};
use proptest::prelude::*;
use rustc_hash::{FxHashMap, FxHashSet};
use strang_compiler::rewrite::{
    egraph::{Facts, Graph, Knowledge, Tag, Term},
    search::{
        cost::Target,
        extract::{Choice, extract},
        ilp::audit,
    },
};
use strang_ir::{ElementType, IndexMap, Literal, Node, Op, Output, ScalarExpr, Source};
use strang_runtime::kernels::Level;

/// What an e-graph is made of: for every term its children among the terms before it, then pairs of terms that are equal.
#[derive(Clone, Debug)]
struct Recipe {
    terms: Vec<(Vec<prop::sample::Index>, u8)>,
    equal: Vec<(prop::sample::Index, prop::sample::Index)>,
    roots: Vec<prop::sample::Index>,
}

fn recipe(terms: usize) -> impl Strategy<Value = Recipe> {
    let index = any::<prop::sample::Index>;
    let term = (prop::collection::vec(index(), 1..4), any::<u8>());
    (
        prop::collection::vec(term, 2..terms),
        prop::collection::vec((index(), index()), 0..terms / 2),
        prop::collection::vec(index(), 1..4),
    )
        .prop_map(|(terms, equal, roots)| Recipe { terms, equal, roots })
}

/// A signature that tells terms apart by a number.
fn signature(graph: &mut Graph, number: u8, operands: usize) -> Id {
    let literal = Literal::from_f64(ElementType::F32, f64::from(number));
    let output = Output { name: "".into(), element: ElementType::F32, variables: Vec::new() };
    let maps = vec![IndexMap::of_variables([]); operands];
    let op = Op::Map(ScalarExpr::Literal(literal));
    let node = Node {
        op,
        variables: Vec::new().into(),
        maps: maps.into(),
        outputs: vec![output],
        source: Source::None,
        block: None,
    };
    let number = graph.analysis.signatures.intern(node);
    graph.add(Term::Signature(number))
}

fn build(recipe: &Recipe) -> (Graph, Vec<Id>) {
    let leaf = || Facts::value(ElementType::F32, Vec::new());
    let knowledge = Knowledge { externals: vec![leaf(), leaf()], fuel: usize::MAX, ..Knowledge::default() };
    let mut graph = Graph::new(knowledge);
    let mut ids: Vec<Id> = (0..2).map(|number| graph.add(Term::External(number))).collect();
    for (children, number) in &recipe.terms {
        let mut operands = vec![signature(&mut graph, *number, children.len())];
        operands.extend(children.iter().map(|child| *child.get(&ids)));
        ids.push(graph.add(Term::Apply(Tag::Opaque, operands.len(), operands.into())));
    }
    for (a, b) in &recipe.equal {
        // Leaves cost nothing, so classes with one are of no interest.
        let computed = &ids[2..];
        graph.union(*a.get(computed), *b.get(computed));
    }
    graph.rebuild();
    let roots = recipe.roots.iter().map(|root| graph.find(*root.get(&ids[2..]))).collect();
    (graph, roots)
}

/// A price from 1 to 17 microseconds that depends on the term alone.
fn price(term: &Term, _: Id, _: f64) -> f64 {
    let Term::Apply(_, _, children) = term else { return 0. };
    let mixed =
        children.iter().fold(7u64, |sum, id| (sum ^ usize::from(*id) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    1e-6 * (1. + (mixed >> 60) as f64)
}

fn checked(graph: &Graph, roots: &[Id], choice: &Choice) {
    assert!(choice.is_acyclic(graph), "what is read comes after what reads it");
    let chosen: FxHashSet<Id> = choice.order.iter().copied().collect();
    assert_eq!(chosen.len(), choice.order.len(), "a class is chosen once");
    assert!(roots.iter().all(|root| chosen.contains(&graph.find(*root))), "a root has no circuit");
    let sum: f64 = choice.order.iter().map(|id| price(&choice.terms[id], *id, 0.)).sum();
    assert!((choice.cost - sum).abs() <= 1e-12 * sum.max(1e-6), "{} is not {sum}", choice.cost);
}

/// The least cost of the roots over all ways to take a term of every class; nothing where there are too many.
fn least(graph: &Graph, roots: &[Id]) -> Option<f64> {
    let classes: Vec<Id> = graph.classes().map(|class| class.id).collect();
    let ways: usize = classes
        .iter()
        .try_fold(1usize, |ways, id| ways.checked_mul(graph[*id].nodes.len()).filter(|ways| *ways <= 20_000))?;
    let mut least = f64::INFINITY;
    for mut way in 0..ways {
        let mut taken: FxHashMap<Id, &Term> = FxHashMap::default();
        for id in &classes {
            let terms = &graph[*id].nodes;
            taken.insert(*id, &terms[way % terms.len()]);
            way /= terms.len();
        }
        let mut done: FxHashSet<Id> = FxHashSet::default();
        let mut cost = 0.;
        let mut pending: Vec<(Id, bool)> = roots.iter().map(|root| (*root, false)).collect();
        let mut open: FxHashSet<Id> = FxHashSet::default();
        let mut circle = false;
        while let Some((id, leave)) = pending.pop() {
            if leave {
                open.remove(&id);
                done.insert(id);
            } else if open.contains(&id) {
                circle = true;
                break;
            } else if !done.contains(&id) {
                open.insert(id);
                cost += price(taken[&id], id, 0.);
                pending.push((id, true));
                pending.extend(taken[&id].children().iter().map(|child| (graph.find(*child), false)));
            }
        }
        if !circle {
            least = least.min(cost);
        }
    }
    Some(least)
}

fn target() -> Target {
    Target::for_level(Level::Avx512)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn choices_are_complete_acyclic_and_the_same_every_time(recipe in recipe(60)) {
        let (graph, roots) = build(&recipe);
        let choice = extract(&graph, &target(), &roots, &price);
        checked(&graph, &roots, &choice);
        let (graph, roots) = build(&recipe);
        let again = extract(&graph, &target(), &roots, &price);
        prop_assert_eq!(&choice.terms, &again.terms);
        prop_assert_eq!(&choice.order, &again.order);
        if let Some((audit, best)) = audit(&graph, &target(), &roots, &price, &again) {
            prop_assert!(audit.bound <= audit.greedy * (1. + 1e-6), "{audit:?}");
            prop_assert!(audit.exact, "{audit:?}");
            let best = best.unwrap();
            checked(&graph, &roots, &best);
            prop_assert!((best.cost - audit.bound).abs() <= 1e-6 * best.cost);
        }
    }

    #[test]
    fn the_integer_program_finds_the_least(recipe in recipe(14)) {
        let (graph, roots) = build(&recipe);
        if let Some(least) = least(&graph, &roots) {
            let greedy = extract(&graph, &target(), &roots, &price);
            let (audit, _) = audit(&graph, &target(), &roots, &price, &greedy).unwrap();
            prop_assert!(audit.exact && (audit.bound - least).abs() <= 1e-6 * least, "{audit:?}, least {least}");
            prop_assert!(greedy.cost >= least * (1. - 1e-6), "{} against {least}", greedy.cost);
        }
    }
}
