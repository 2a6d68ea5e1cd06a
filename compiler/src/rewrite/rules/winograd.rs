//! Winograd's minimal filtering: convolutions along an axis with fewer products. Along two axes it is applied to each: what
//! it makes of the first is a convolution along the second.

use super::parts::{frame, is_float, output_frame, stacked, whole_axes};
use crate::rewrite::{
    egraph::{Graph, Read, Term, build},
    rule::{Class, Find, Match, Rule},
    search::cost::estimate,
};
use egg::Id;
use rustc_hash::FxHashSet;
use strang_ir::{Axis, ElementType, IndexExpr, IndexMap, Literal, Node, Output, Size, Variable, scalar::Binary};

/// The taps of a kernel.
const TAPS: i64 = 3;

/// The fewest terms beside the taps that a result is summed from where fewer products pay for transforms.
const FEWEST_TERMS: f64 = 8.;

/// `F(m, 3)`: `m` results `A ((G g) . (B d))` of a kernel `g` and `m + 2` inputs `d`.
struct Filtering {
    /// `B`: by product, what of the inputs is multiplied.
    inputs: &'static [&'static [f64]],
    /// `G`: by product, what of the kernel.
    kernel: &'static [&'static [f64]],
    /// `A`: by result, which products.
    results: &'static [&'static [f64]],
}

/// Two results with four products instead of six.
const TWO: Filtering = Filtering {
    inputs: &[&[1., 0., -1., 0.], &[0., 1., 1., 0.], &[0., -1., 1., 0.], &[0., 1., 0., -1.]],
    kernel: &[&[1., 0., 0.], &[0.5, 0.5, 0.5], &[0.5, -0.5, 0.5], &[0., 0., 1.]],
    results: &[&[1., 1., 1., 0.], &[0., 1., -1., -1.]],
};

/// Four results with six products instead of twelve. The numbers are of several sizes, so that rounding counts more.
const FOUR: Filtering = Filtering {
    inputs: &[
        &[4., 0., -5., 0., 1., 0.],
        &[0., -4., -4., 1., 1., 0.],
        &[0., 4., -4., -1., 1., 0.],
        &[0., -2., -1., 2., 1., 0.],
        &[0., 2., -1., -2., 1., 0.],
        &[0., 4., 0., -5., 0., 1.],
    ],
    kernel: &[
        &[1. / 4., 0., 0.],
        &[-1. / 6., -1. / 6., -1. / 6.],
        &[-1. / 6., 1. / 6., -1. / 6.],
        &[1. / 24., 1. / 12., 1. / 6.],
        &[1. / 24., -1. / 12., 1. / 6.],
        &[0., 0., 1.],
    ],
    results: &[
        &[1., 1., 1., 1., 1., 0.],
        &[0., 1., -1., 2., -2., 0.],
        &[0., 1., 1., 4., 4., 0.],
        &[0., 1., -1., 8., -8., 1.],
    ],
};

/// Where a product filters: a tap, the result's variable that it is beside, and the axis of the input that both move along.
struct Place {
    tap: u32,
    along: u32,
    axis: usize,
    offset: Size,
}

/// Whether a product filters along an axis, its first operand being the input.
pub fn is_filtering(d: &Node) -> bool {
    place(d).is_some()
}

/// The first tap of a product at which it filters, its first operand being the input.
fn place(d: &Node) -> Option<Place> {
    let [x, w] = &d.maps[..] else { return None };
    let is_zero = |fill: Literal| fill.to_f64() == 0.;
    if !x.conditions.is_empty() || !x.fill.is_none_or(is_zero) || w.fill.is_some() {
        return None;
    }
    let contracted = d.contracted();
    let is_tap = |variable: &u32| d.size_of(*variable).is(TAPS) && x.mentions(*variable);
    let (taps, terms): (Vec<u32>, Vec<u32>) = contracted.into_iter().partition(is_tap);
    let beside: f64 = terms.iter().map(|variable| estimate(&d.size_of(*variable))).product();
    if beside < FEWEST_TERMS {
        return None;
    }
    taps.into_iter().find_map(|tap| {
        let mut axes = x.exprs.iter().enumerate().filter(|(_, expression)| expression.mentions(tap));
        let ((axis, expression), None) = (axes.next()?, axes.next()) else { return None };
        let is_one = |variable: u32| expression.coefficient(variable).is(1);
        let outputs = d.outputs[0].variables.iter().copied();
        let along = outputs.filter(|variable| expression.mentions(*variable)).find(|variable| is_one(*variable))?;
        let elsewhere = x.exprs.iter().filter(|expression| expression.mentions(along)).count() != 1;
        let plain = expression.is_affine() && expression.terms().len() == 2 && is_one(tap);
        let offset = expression.offset().clone();
        (plain && !elsewhere && !w.mentions(along)).then_some(Place { tap, along, axis, offset })
    })
}

/// The sum of reads times numbers over a frame.
fn combination(graph: &mut Graph, frame: &Node, element: ElementType, factors: &[f64], reads: &[Read]) -> Id {
    let mut sum: Option<Read> = None;
    // A sum starts with a term that is added.
    let terms = || factors.iter().zip(reads).filter(|(factor, _)| **factor != 0.);
    let positive = terms().filter(|(factor, _)| **factor > 0.);
    for (factor, read) in positive.chain(terms().filter(|(factor, _)| **factor < 0.)) {
        let size = factor.abs();
        let mut term = read.clone();
        if size != 1. {
            let number = Read::number(build::number(graph, Literal::from_f64(element, size)));
            let value = build::binary(graph, frame, Binary::Multiply, term, number);
            term = build::whole(frame, value);
        }
        let value = match sum {
            None => build::view(graph, frame, term),
            Some(sum) if *factor < 0. => build::binary(graph, frame, Binary::Subtract, sum, term),
            Some(sum) => build::binary(graph, frame, Binary::Add, sum, term),
        };
        sum = Some(build::whole(frame, value));
    }
    sum.map_or_else(|| build::number(graph, Literal::zero(element)), |sum| sum.value)
}

/// The product `d` of `x` and `w` with fewer multiplications, at a place where it filters along an axis.
fn filtered(graph: &mut Graph, d: &Node, place: Place, [x, w]: [Id; 2], filtering: &Filtering) -> Option<Id> {
    let Place { tap, along, axis, offset } = place;
    let element = d.outputs[0].element;
    if [x, w].iter().any(|value| graph[*value].data.element() != element) {
        return None;
    }
    let (products, results) = (filtering.inputs.len() as i64, filtering.results.len() as i64);
    let weight_axes = whole_axes(graph, d, 1, w)?;
    // The inputs of every product, over the axes of the input with a position for every tile of results.
    let tiles = (d.size_of(along) + Size::from(results - 1)).floor_div(&Size::from(results));
    let mut variables: Vec<Variable> = (graph[x].data.shape().iter().enumerate())
        .map(|(axis, size)| Variable::over(&Axis::new(format!("axis_{axis}"), size.clone())))
        .collect();
    variables[axis] = Variable::over(&Axis::new("tile", tiles.clone()));
    let over = frame(variables.into(), element);
    let reads: Vec<Read> = (0..products)
        .map(|position| {
            let mut exprs: Vec<IndexExpr> = (0..over.variables.len() as u32).map(IndexExpr::variable).collect();
            exprs[axis] = exprs[axis].times(&Size::from(results)).plus_size(&(offset.clone() + Size::from(position)));
            Read { value: x, map: IndexMap::new(exprs).with_fill(Literal::zero(element)) }
        })
        .collect();
    let inputs: Vec<Id> = filtering.inputs.iter().map(|row| combination(graph, &over, element, row, &reads)).collect();
    let inputs = stacked(graph, &over, &inputs, 0);
    // The kernel of every product.
    let mut own: Vec<u32> = weight_axes.iter().copied().filter(|variable| *variable != tap).collect();
    // The longest last, as weights are transformed row by row.
    own.sort_by(|a, b| estimate(&d.size_of(*a)).total_cmp(&estimate(&d.size_of(*b))));
    let over = frame(own.iter().map(|variable| d.variables[*variable as usize].clone()).collect(), element);
    let place = |variable: u32| own.iter().position(|other| *other == variable).unwrap_or_default() as u32;
    let reads: Vec<Read> = (0..TAPS)
        .map(|position| {
            let exprs = weight_axes.iter().map(|variable| match *variable == tap {
                true => IndexExpr::constant(position),
                false => IndexExpr::variable(place(*variable)),
            });
            Read { value: w, map: IndexMap::new(exprs.collect()) }
        })
        .collect();
    let kernel: Vec<Id> = filtering.kernel.iter().map(|row| combination(graph, &over, element, row, &reads)).collect();
    let kernel = stacked(graph, &over, &kernel, 0);
    // The products, the tap being which of them.
    let mut node = d.clone();
    node.variables[along as usize].axis = Axis::new("tile", tiles);
    node.variables[tap as usize].axis = Axis::new("part", Size::from(products));
    node.outputs = vec![Output {
        variables: [tap].into_iter().chain(d.outputs[0].variables.iter().copied()).collect(),
        ..d.outputs[0].clone()
    }];
    let mut map = d.maps[0].clone();
    map.exprs[axis] = IndexExpr::variable(along);
    map.exprs.insert(0, IndexExpr::variable(tap));
    let reads = vec![
        Read { value: inputs, map },
        Read { value: kernel, map: IndexMap::of_variables([tap].into_iter().chain(own)) },
    ];
    let value = build::add(graph, &node, reads);
    // The results of every tile, and those of all in a row.
    let output = &d.outputs[0].variables;
    let over = frame(output.iter().map(|variable| node.variables[*variable as usize].clone()).collect(), element);
    let whole = || (0..output.len() as u32).map(IndexExpr::variable);
    let reads: Vec<Read> = (0..products)
        .map(|position| {
            let exprs = [IndexExpr::constant(position)].into_iter().chain(whole());
            Read { value, map: IndexMap::new(exprs.collect()) }
        })
        .collect();
    let rows: Vec<Id> = filtering.results.iter().map(|row| combination(graph, &over, element, row, &reads)).collect();
    let row = output.iter().position(|variable| *variable == along)?;
    let tiled = stacked(graph, &over, &rows, row as u32 + 1);
    let over = output_frame(d);
    let size = |variable: u32| over.size_of(variable);
    let results = Size::from(results);
    let mut exprs: Vec<IndexExpr> = whole().collect();
    exprs.insert(row + 1, exprs[row].remainder(&results, &size));
    exprs[row] = exprs[row].floor_div(&results, &size);
    Some(build::view(graph, &over, Read { value: tiled, map: IndexMap::new(exprs) }))
}

/// The most operations between a weight and the codes that it is made of.
const DEEPEST: usize = 4;

/// Whether a value is made of integers or of few numbers: products with such weights are products of bytes, or of codes. Classes
/// have many forms that read the same, so each is looked at once.
fn is_made_of_codes(graph: &Graph, value: Id) -> bool {
    let mut seen: FxHashSet<Id> = [value].into_iter().collect();
    let mut values = vec![value];
    for _ in 0..=DEEPEST {
        let is_code = |value: &Id| graph[*value].data.coded || !graph[*value].data.element().is_float();
        if values.iter().any(is_code) {
            return true;
        }
        let terms = values.iter().flat_map(|value| &graph[*value].nodes);
        let read = terms.flat_map(|term| match term {
            Term::Apply(_, _, children) => &children[1..],
            _ => &[],
        });
        values = read.map(|child| graph.find(*child)).filter(|child| seen.insert(*child)).collect();
    }
    false
}

fn apply(m: &mut Match, filtering: &Filtering) -> Option<Id> {
    let d = m.node("d");
    let place = place(&d)?;
    let (x, w) = (m.id("x"), m.id("w"));
    if !m.facts("w").constant || !is_float(m, "x") || is_made_of_codes(m.graph, w) {
        return None;
    }
    filtered(m.graph, &d, place, [x, w], filtering)
}

/// The rule of four results: equal over the reals, but with an error in floats that a budget has to allow.
pub static FOUR_RESULTS: Rule = Rule {
    name: "winograd-four-results",
    class: Class::Approximate,
    law: "x * k = A ((G k) . (B x)) along an axis: four results of three taps with six products",
    source: "F(4, 3) of Lavin and Gray, 2016, Fast Algorithms for Convolutional Neural Networks",
    find: Find::Patterns(&["(dot ?d ?x ?w)"], |m| apply(m, &FOUR)),
    guard: &[],
    examples: &[],
};

/// The exact rules.
pub const RULES: &[Rule] = &[Rule {
    name: "winograd-two-results",
    class: Class::Real,
    law: "x * k = A ((G k) . (B x)) along an axis: two results of three taps with four products",
    source: "Winograd, 1980, Arithmetic Complexity of Computations; F(2, 3) of Lavin and Gray, 2016",
    find: Find::Patterns(&["(dot ?d ?x ?w)"], |m| apply(m, &TWO)),
    guard: &[],
    examples: &[
        "axis m = 8   axis e = 3   param @k: f32[c, m, e]
fn @f(%x: f32[m, a]) -> f32[c, a] {
  %r = dot %x[{m}, a + {e} - 1] else 0.0, @k[c, {m}, {e}] -> [c, a]
  return %r
}",
        "axis m = 8   axis e = 3   axis h = a + 2   axis w = b + 2   param @k: f32[c, m, e, e]
fn @f(%x: f32[d, h, w, m]) -> f32[d, c, a, b] {
  %r = dot order=(e, e', m) : %x[d, a + {e}, b + {e'}, {m}], @k[c, {m}, {e}, {e'}] -> [d, c, a, b]
  return %r
}",
    ],
}];
