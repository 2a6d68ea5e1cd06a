//! The cost of terms: a roofline over fused kernels, of machines of a level.
//!
//! A kernel takes the larger of its arithmetic and its traffic. Planning fuses maps into the kernel whose result they read
//! position by position, so such a map pays for its arithmetic and its other operands alone. Weights made of others cost
//! nothing when the model runs; making them is charged at a small share of what it takes when the model is compiled.

use crate::plan::{grouped::fill_lanes, residues::kernels_of_strides};
use crate::rewrite::egraph::{Graph, Tag, Term};
use egg::Id;
use rustc_hash::FxHashSet;
use strang_ir::{
    ElementType, IndexExpr, Node, Op, ScalarExpr, Size,
    op::Norm,
    scalar::{Binary, Unary},
};
use strang_runtime::kernels::Level;

/// Rates of a class of machines.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// Multiplications and additions of matrix products, per second.
    pub products: f64,
    /// Multiplications and additions of products of bytes, per second.
    pub bytes: f64,
    /// Elementary functions (an addition is one, an exponential several), per second.
    pub functions: f64,
    /// Bytes of weights per second.
    pub memory: f64,
    /// Bytes of arrays that one kernel writes and the next reads, per second.
    pub cache: f64,
    /// Seconds to start a kernel.
    pub start: f64,
}

const AVX512: Target =
    Target { products: 4e11, bytes: 1.4e12, functions: 4e10, memory: 2e10, cache: 1e11, start: 3e-6 };
const AVX2: Target =
    Target { products: 1.5e11, bytes: 2.2e11, functions: 2e10, memory: 2e10, cache: 6e10, start: 3e-6 };
const PORTABLE: Target = Target { products: 3e10, bytes: 3e10, functions: 5e9, memory: 1e10, cache: 3e10, start: 3e-6 };

impl Target {
    /// The target of a level.
    pub const fn for_level(level: Level) -> Target {
        match level {
            Level::Avx512 => AVX512,
            Level::Avx2 => AVX2,
            Level::Portable => PORTABLE,
        }
    }

    /// The target with products in bf16, by instructions for them.
    pub fn in_bf16(self) -> Target {
        Target { products: 1.8 * self.products, memory: 2. * self.memory, ..self }
    }
}

/// What a byte of a weight that is made when compiling counts, in seconds of a run: a thousand runs pay for making it at a
/// gigabyte a second.
const MADE: f64 = 1e-12;

/// Maps that are part of a kernel hide behind its loads and stores: what is left of their arithmetic.
const FUSED: f64 = 0.25;

/// The size that stands for a symbol.
const REPRESENTATIVE: i64 = 64;

/// A size as a number, 0 for one that cannot be: a model that makes no sense costs nothing, but never less.
pub fn estimate(size: &Size) -> f64 {
    if let Some(value) = size.as_constant() {
        return value.max(0) as f64;
    }
    let bindings = size.symbols().into_iter().map(|symbol| (symbol, REPRESENTATIVE)).collect();
    size.eval(&bindings).map_or(f64::MAX, |value| value.max(0) as f64)
}

fn product<'a>(sizes: impl Iterator<Item = &'a Size>) -> f64 {
    sizes.map(estimate).product()
}

/// The seconds that a term adds to a run. `chosen` says which term of an operand's class is taken, where that is known.
pub fn cost<'a>(
    graph: &Graph,
    target: &Target,
    term: &Term,
    class: Id,
    chosen: &dyn Fn(Id) -> Option<&'a Term>,
) -> f64 {
    let Term::Apply(tag, _, children) = term else { return 0. };
    let Some(number) = graph[children[0]].data.signature else { return 0. };
    let node = graph.analysis.signatures.node(number).clone();
    let values = &children[1..];
    let facts = &graph[class].data;
    let bytes_out: f64 = facts.ports.iter().map(|port| bytes(graph, class, &port.shape)).sum();
    if values.iter().all(|value| graph[*value].data.constant) && facts.constant {
        return if *tag == Tag::View { 0. } else { MADE * bytes_out };
    }
    if matches!(tag, Tag::View) {
        // Read through, almost always.
        return 1e-3 * target.start;
    }
    let positions = product(node.variables.iter().map(|variable| variable.size())) / kernels_of_strides(&node) as f64;
    let mut traffic = 0.;
    let mut fused = false;
    let mut counted: FxHashSet<Id> = FxHashSet::default();
    for (slot, value) in values.iter().enumerate() {
        if joins(*tag) && is_read_in_place(graph, &node, slot, *value, chosen) {
            fused = true;
            continue;
        }
        let (size, is_new) = (read_bytes(graph, &node, slot, *value), counted.insert(*value));
        if is_new {
            traffic += size / if graph[*value].data.constant { target.memory } else { target.cache };
        }
    }
    let rate = match node.op {
        Op::Dot { accumulator } if accumulator.is_float() => target.products,
        Op::Dot { .. } if is_of_bytes(graph, &node, values) => target.bytes,
        // The kernel of channels by themselves takes one multiply-add for each product, as that of floats does.
        Op::Dot { .. } if is_of_channels(graph, &node, values) => target.products,
        // Other products of integers run element by element.
        Op::Dot { .. } => target.functions / 4.,
        _ => target.functions,
    };
    // What is read by quotients and remainders may have to be copied: of equal products the other is taken.
    if matches!(node.op, Op::Dot { .. }) && !node.maps.iter().flat_map(|map| &map.exprs).all(IndexExpr::is_affine) {
        traffic += 1e-3 * target.start;
    }
    let arithmetic = positions * unused(graph, &node, values) * work(&node) / rate;
    if fused {
        return FUSED * arithmetic + traffic;
    }
    if *tag == Tag::Position || values.iter().all(|value| graph[*value].data.literal.is_some()) {
        return arithmetic;
    }
    traffic += bytes_out / target.cache;
    arithmetic.max(traffic) + target.start
}

/// Whether an operation becomes part of the kernel whose result it reads: maps do, and softmax of scores is part of attention.
fn joins(tag: Tag) -> bool {
    tag.is_map() || tag == Tag::Softmax
}

/// Whether there is a kernel for a product of integers: unsigned bytes by weights of signed ones, enough of them side by
/// side that it pays. Of a window, the positions along the last axis of the image lie side by side too.
fn is_of_bytes(graph: &Graph, node: &Node, values: &[Id]) -> bool {
    const FEWEST: f64 = 8.;
    let contracted = node.contracted();
    let Some((innermost, others)) = contracted.split_last() else { return false };
    let slides = |v: u32| {
        node.maps.iter().flat_map(|map| &map.exprs).any(|expr| expr.terms().len() > 1 && expr.coefficient(v).is(1))
    };
    let window = others.last().filter(|v| slides(**v)).map_or(1., |v| estimate(&node.size_of(*v)));
    window * estimate(&node.size_of(*innermost)) >= FEWEST && multiplies_bytes(graph, values)
}

/// Whether there is a kernel for a product of integers that convolves channels by themselves.
fn is_of_channels(graph: &Graph, node: &Node, values: &[Id]) -> bool {
    shared(node) == 1 && multiplies_bytes(graph, values)
}

/// How many axes of a product's result both operands have.
fn shared(node: &Node) -> usize {
    let is_in_both = |v: &u32| !node.size_of(*v).is(1) && node.maps.iter().all(|map| map.mentions(*v));
    node.outputs[0].variables.iter().filter(|v| is_in_both(v)).count()
}

/// Whether unsigned bytes are multiplied by weights of signed ones.
fn multiplies_bytes(graph: &Graph, values: &[Id]) -> bool {
    let elements: Vec<_> = values.iter().map(|value| graph[*value].data.element()).collect();
    let is_weight = |place: usize| graph[values[place]].data.constant;
    match elements[..] {
        [ElementType::U8, ElementType::I8] => is_weight(1),
        [ElementType::I8, ElementType::U8] => is_weight(0),
        _ => false,
    }
}

fn bytes(graph: &Graph, value: Id, shape: &[Size]) -> f64 {
    product(shape.iter()) * f64::from(graph[value].data.element().bits()) / 8.
}

/// The bytes of an operand that are read: no more than there are, and no more than positions that its map tells apart.
fn read_bytes(graph: &Graph, node: &Node, slot: usize, value: Id) -> f64 {
    let whole = bytes(graph, value, graph[value].data.shape());
    let mut mentioned = vec![false; node.variables.len()];
    node.maps[slot].visit_variables(&mut |variable| mentioned[variable as usize] = true);
    let sizes = node.variables.iter().zip(mentioned).filter(|(_, mentioned)| *mentioned);
    let positions = product(sizes.map(|(variable, _)| variable.size()));
    whole.min(positions * f64::from(graph[value].data.element().bits()) / 8.)
}

/// Whether a map reads the result of a kernel position by position, so that it becomes part of that kernel.
fn is_read_in_place<'a>(
    graph: &Graph,
    node: &Node,
    slot: usize,
    value: Id,
    chosen: &dyn Fn(Id) -> Option<&'a Term>,
) -> bool {
    let map = &node.maps[slot];
    let Some(variables) = map.as_variables() else { return false };
    let distinct = (1..variables.len()).all(|i| !variables[..i].contains(&variables[i]));
    let is_kernel = |term: &Term| match term {
        Term::Apply(tag, ..) => !matches!(tag, Tag::View | Tag::Opaque | Tag::Concat | Tag::Position),
        _ => false,
    };
    let computed = match chosen(graph.find(value)) {
        Some(term) => is_kernel(term),
        None => graph[value].nodes.iter().any(is_kernel),
    };
    distinct && variables.len() == node.variables.len() && computed && !graph[value].data.constant
}

/// The columns of a tile.
pub const COLUMNS: i64 = 16;

/// The variables that are the columns of a product: those of the result that only its second operand has. `None` for channels by
/// themselves.
pub fn columns(node: &Node) -> Option<Vec<u32>> {
    let [x, w] = &node.maps[..] else { return None };
    let of_second = node.outputs[0].variables.iter().copied().filter(|v| w.mentions(*v));
    let (shared, columns): (Vec<u32>, Vec<u32>) = of_second.partition(|v| x.mentions(*v));
    (!columns.is_empty() || shared.is_empty()).then_some(columns)
}

/// How many times more columns a product with weights computes than it has, where these do not fill a tile.
fn unused(graph: &Graph, node: &Node, values: &[Id]) -> f64 {
    if !matches!(node.op, Op::Dot { .. }) || !values.last().is_some_and(|weight| graph[*weight].data.constant) {
        return 1.;
    }
    let Some(columns) = columns(node) else { return 1. };
    let columns = product(columns.iter().map(|v| node.variables[*v as usize].size()));
    if is_in_groups(node, columns) {
        return SPREAD;
    }
    (COLUMNS as f64 / columns.max(1.)).max(1.)
}

/// The time of a multiply-add in the kernel of groups, which spreads what it reads over the lanes of a group, by that in a tile.
const SPREAD: f64 = 1.5;

/// Whether a product of floats has as many columns as it adds up of an axis, and few, in several groups: whole groups fill the lanes
/// of their kernel.
fn is_in_groups(node: &Node, columns: f64) -> bool {
    let members = node.contracted().last().map(|member| estimate(&node.size_of(*member)));
    matches!(node.op, Op::Dot { accumulator: ElementType::F32 })
        && shared(node) == 1
        && fill_lanes(columns as i64)
        && members == Some(columns)
}

/// The work at one position, in elementary functions.
fn work(node: &Node) -> f64 {
    match &node.op {
        Op::Dot { .. } => 2. * (node.maps.len() as f64 - 1.).max(1.),
        Op::Map(ScalarExpr::Unary(function, _)) => of_unary(*function),
        Op::Map(ScalarExpr::Binary(function, ..)) => match function {
            Binary::Divide | Binary::Remainder | Binary::Modulo => 4.,
            Binary::Power => 30.,
            _ => 1.,
        },
        Op::Map(_) | Op::Reduce(_) | Op::ArgReduce { .. } => 1.,
        Op::Softmax { .. } => 14. + gathering(node),
        Op::Norm { kind: Norm::Batch, .. } => 8.,
        Op::Norm { .. } => 6. + gathering(node),
        _ => 0.5,
    }
}

/// What it takes to bring together a row that is read by quotients and remainders: element by element.
fn gathering(node: &Node) -> f64 {
    if node.maps[0].exprs.iter().all(IndexExpr::is_affine) { 0. } else { 100. }
}

fn of_unary(function: Unary) -> f64 {
    use Unary::*;
    match function {
        Negate | Absolute | Sign | Floor | Ceil | Round | Truncate | Relu | Not | IsNan | IsInfinite => 1.,
        Reciprocal | SquareRoot | ReciprocalSquareRoot => 4.,
        HardSigmoid6 => 3.,
        HardSwish => 4.,
        Exp | ExpMinusOne | Log | LogOnePlus | Sin | Cos => 10.,
        Sigmoid | Silu | Tanh => 12.,
        Gelu | GeluTanh | Erf => 15.,
        _ => 20.,
    }
}
