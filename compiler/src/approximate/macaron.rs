//! Reorderings of residual branches seen as steps of operator splitting (DESIGN, Macaron reorderings).
//!
//! A layer `x + A(x)`, then `+ F(x)`, is a Lie-Trotter step; `F/2, A, F/2` is Strang-Marchuk. With branches of size `h` the
//! forms agree to the first order in `h`; the expansions of their differences are in the list of rules.

use super::{
    Change, Variant,
    branch::{Branch, branches, copied, moved, redirect, scaled},
    rules::ApproximateRule,
};
use crate::{plan::layer_of, rewrite::egraph::signature::same_shape};
use petgraph::stable_graph::NodeIndex;
use rustc_hash::{FxHashMap, FxHashSet};
use strang_ir::{ElementType, Function, Literal, Module, Node, Op, Size, Value};

/// What is done to branches.
#[derive(Clone, Debug)]
pub enum Reordering {
    /// A branch goes.
    Erase(Branch),
    /// The second branch is computed from what the first is.
    Parallel(Branch, Branch),
    /// The second branch is computed from the sum of the first.
    Sequential(Branch, Branch),
    /// Half of the second branch before the first, half after it.
    Halve(Branch, Branch),
    /// The first of three goes, and the last, which equals it, counts double.
    Join(Branch, Branch),
}

impl Reordering {
    /// Reorders.
    pub fn apply(&self, function: &mut Function) {
        match self {
            Reordering::Erase(branch) => {
                let skip = function.operands(branch.sum)[branch.slot as usize];
                function.replace(branch.sum.into(), skip);
            }
            Reordering::Parallel(first, second) => {
                redirect(function, &second.region, first.sum.into(), first.input);
            }
            Reordering::Sequential(first, second) => {
                redirect(function, &second.region, first.input, first.sum.into());
            }
            Reordering::Halve(first, second) => halve(function, first, second),
            Reordering::Join(first, last) => {
                let skip = function.operands(first.sum)[first.slot as usize];
                function.replace(first.sum.into(), skip);
                scale(function, last, 2.);
            }
        }
    }
}

/// `x + A(x)`, `+ F`, to `x + F(x)/2`, `+ A`, `+ F/2`.
fn halve(function: &mut Function, first: &Branch, second: &Branch) {
    let input = first.input;
    let copies = copied(function, second, input);
    let operands: Vec<Value> = function
        .operands(second.sum)
        .into_iter()
        .enumerate()
        .map(|(slot, value)| if slot == second.slot as usize { input } else { moved(&copies, second, input, value) })
        .collect();
    scale(function, second, 0.5);
    let sum = function.graph[second.sum].clone();
    let before = function.add(sum, &operands);
    redirect(function, &first.region, input, before.into());
    function.set_operand(first.sum, first.slot, before.into());
}

/// Scales what a sum adds to its skip.
fn scale(function: &mut Function, branch: &Branch, factor: f64) {
    let node = &mut function.graph[branch.sum];
    let factor = Literal::from_f64(node.outputs[0].element, factor);
    if let Op::Map(expression) = &node.op {
        node.op = Op::Map(scaled(expression, branch.slot, factor));
    }
}

fn variant(
    function: &Function,
    rule: &'static ApproximateRule,
    at: &Branch,
    change: Reordering,
    changes: Vec<NodeIndex>,
) -> Variant {
    let layer = layer_of(&function.graph[at.sum]);
    Variant { rule, layer, degree: None, changes, change: Change::Macaron(change) }
}

/// Branches that follow one another, each added to the sum of the one before.
fn chains(found: &[Branch], count: usize) -> Vec<Vec<&Branch>> {
    let next = |branch: &Branch| found.iter().find(|other| other.skip == Value::from(branch.sum));
    let chain = |first: &'_ Branch| {
        let first = found.iter().find(|other| other.sum == first.sum)?;
        let mut chain = vec![first];
        while chain.len() < count {
            chain.push(next(chain[chain.len() - 1])?);
        }
        Some(chain)
    };
    found.iter().filter_map(chain).collect()
}

/// Whether a branch is computed from what it is added to.
fn is_sequential(branch: &Branch) -> bool {
    branch.input == branch.skip
}

/// Branches to erase.
pub fn erasures(module: &Module, rule: &'static ApproximateRule) -> Vec<Variant> {
    let function = module.entry();
    let erase = |branch: Branch| {
        let mut changes: Vec<NodeIndex> = branch.region.iter().copied().chain([branch.sum]).collect();
        changes.sort_unstable();
        variant(function, rule, &branch, Reordering::Erase(branch.clone()), changes)
    };
    branches(function).into_iter().map(erase).collect()
}

/// Pairs of branches that follow one another, to be computed from one value. `meeting` are those that are alike but for
/// their weights and act on one position at a time, as the half steps do that meet between Macaron layers; the others are not.
pub fn parallels(module: &Module, rule: &'static ApproximateRule, meeting: bool) -> Vec<Variant> {
    let function = module.entry();
    let found = branches(function);
    let pairs = chains(&found, 2).into_iter().filter(|pair| pair.iter().all(|branch| is_sequential(branch)));
    let alike = pairs.filter(|pair| alike(function, pair[0], pair[1], false) == meeting);
    let parallel = |pair: Vec<&Branch>| {
        let change = Reordering::Parallel(pair[0].clone(), pair[1].clone());
        let readers = function.readers(pair[0].sum.into()).into_iter().map(|(reader, _)| reader);
        let mut changes: Vec<NodeIndex> = readers.filter(|reader| pair[1].region.contains(reader)).collect();
        changes.push(pair[0].sum);
        variant(function, rule, pair[1], change, changes)
    };
    alike.map(parallel).collect()
}

/// Pairs of branches of one value, the second to be computed from the sum of the first.
pub fn sequentials(module: &Module, rule: &'static ApproximateRule) -> Vec<Variant> {
    let function = module.entry();
    let found = branches(function);
    let pairs = chains(&found, 2).into_iter().filter(|pair| is_sequential(pair[0]) && !is_sequential(pair[1]));
    let sequential = |pair: Vec<&Branch>| {
        let change = Reordering::Sequential(pair[0].clone(), pair[1].clone());
        variant(function, rule, pair[1], change, pair[1].region.iter().copied().collect())
    };
    pairs.map(sequential).collect()
}

/// Pairs of branches that follow one another, the second to be halved around the first.
pub fn halvings(module: &Module, rule: &'static ApproximateRule) -> Vec<Variant> {
    let function = module.entry();
    let found = branches(function);
    let pairs = chains(&found, 2).into_iter().filter(|pair| {
        let both = pair.iter().all(|branch| is_sequential(branch));
        both && !alike(function, pair[0], pair[1], false)
    });
    let halve = |pair: Vec<&Branch>| {
        let change = Reordering::Halve(pair[0].clone(), pair[1].clone());
        let changes = pair.iter().flat_map(|branch| branch.region.iter().copied().chain([branch.sum])).collect();
        variant(function, rule, pair[1], change, changes)
    };
    pairs.map(halve).collect()
}

/// Three branches that follow one another, the first and the last the same with the same weights, to be joined.
pub fn joins(module: &Module, rule: &'static ApproximateRule) -> Vec<Variant> {
    let function = module.entry();
    let found = branches(function);
    let triples = chains(&found, 3).into_iter().filter(|triple| {
        let sequential = triple.iter().all(|branch| is_sequential(branch));
        sequential && alike(function, triple[0], triple[2], true)
    });
    let join = |triple: Vec<&Branch>| {
        let (first, last) = (triple[0].clone(), triple[2].clone());
        let changes = triple.iter().flat_map(|branch| branch.region.iter().copied().chain([branch.sum])).collect();
        variant(function, rule, &last.clone(), Reordering::Join(first, last), changes)
    };
    triples.map(join).collect()
}

/// What an operand of a node of a branch is.
#[derive(PartialEq, Debug)]
enum Operand {
    Input,
    Inside(usize, u32),
    Parameter(Option<u32>, ElementType, Vec<Size>),
    Number(Literal),
    Outside(Value),
}

/// Whether two branches are the same but for names, and for weights unless those count.
fn alike(function: &Function, first: &Branch, second: &Branch, weights: bool) -> bool {
    let (first, second) = (operations(function, first, weights), operations(function, second, weights));
    first.len() == second.len() && first.iter().zip(&second).all(|(a, b)| same_shape(&a.0, &b.0) && a.1 == b.1)
}

/// The nodes of a branch with their operands, its sum last.
fn operations(function: &Function, branch: &Branch, weights: bool) -> Vec<(Node, Vec<Operand>)> {
    let nodes: FxHashSet<NodeIndex> = branch.region.iter().copied().chain([branch.sum]).collect();
    let order: Vec<NodeIndex> = function.order().into_iter().filter(|node| nodes.contains(node)).collect();
    let places: FxHashMap<NodeIndex, usize> = order.iter().enumerate().map(|(place, node)| (*node, place)).collect();
    let operand = |value: Value| match function.graph[value.node].op {
        _ if value == branch.input || value == branch.skip => Operand::Input,
        Op::Param(number) => {
            Operand::Parameter(weights.then_some(number), function.element_of(value), function.shape_of(value))
        }
        Op::Const(literal) => Operand::Number(literal),
        _ => places.get(&value.node).map_or(Operand::Outside(value), |place| Operand::Inside(*place, value.port)),
    };
    let operands = |node: NodeIndex| function.operands(node).into_iter().map(operand).collect();
    order.iter().map(|node| (function.graph[*node].canonical(), operands(*node))).collect()
}
