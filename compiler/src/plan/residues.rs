//! Which taps a result of a convolution reads, where it is not all of them; there is a kernel for all results that read the same.
//!
//! Of a transposed convolution that depends on what a position leaves when it is divided by the stride, its residue: the results of
//! one residue are a plain convolution with every `stride`-th tap, and none reads the zeros that lie between the positions of the
//! input (the polyphase identity). Of a convolution whose taps are far apart it depends on how near to the border a result is:
//! others read nothing but padding.

use super::trace::compose;
use std::borrow::Cow;
use strang_ir::{Axis, Condition, IndexExpr, IndexMap, Node, Op, Size};

/// More kernels than this are not made of one product.
pub const MOST_KERNELS: i64 = 64;
/// Results near a border have kernels of their own where not more than this part of what taps read lies inside: elsewhere few
/// products are saved, and few rows are a bad tile.
const MOST_INSIDE: f64 = 0.8;
/// The fewest results that kernels have on average: so many fill a tile or two.
const LEAST_RESULTS: i64 = 16;
/// The most taps and results of an axis that are looked at.
const MOST_TAPS: i64 = 64;
const MOST_RESULTS: i64 = 4096;
/// The largest step or offset, so that no sum overflows.
const LARGEST: u64 = 1 << 30;

/// The positions `start + stride * i` of a variable, for `count` numbers `i`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Residue {
    /// The variable, of the product's node.
    pub variable: u32,
    /// The distance of two positions.
    pub stride: i64,
    /// The first position.
    pub start: i64,
    /// How many there are.
    pub count: Size,
    /// How many positions there are in all kernels.
    pub whole: Size,
}

/// The positions that a kernel computes, by the variables of which it does not run over all.
pub type Residues = Vec<Residue>;

/// The position of a variable in a kernel of some residues, at the number `expression` of those that the kernel runs over.
pub fn position(residues: &[Residue], variable: u32, expression: IndexExpr) -> IndexExpr {
    match residues.iter().find(|residue| residue.variable == variable) {
        Some(residue) => expression.times(&Size::from(residue.stride)).plus_size(&Size::from(residue.start)),
        None => expression,
    }
}

/// The product that a kernel of some residues computes.
pub fn part<'n>(node: &'n Node, residues: &[Residue]) -> Cow<'n, Node> {
    if residues.is_empty() {
        return Cow::Borrowed(node);
    }
    let mut part = node.clone();
    for residue in residues {
        let axis = &mut part.variables[residue.variable as usize].axis;
        *axis = Axis::new(axis.name.clone(), residue.count.clone());
    }
    let at = |variable: u32| position(residues, variable, IndexExpr::variable(variable));
    let positions: Vec<IndexExpr> = (0..node.variables.len() as u32).map(at).collect();
    part.maps = node.maps.iter().map(|map| compose(map, &positions, &|variable| part.size_of(variable))).collect();
    Cow::Owned(part)
}

/// The residues of every kernel of a product, whose operands have some shapes: one kernel without residues, where all results read
/// all taps.
pub fn kernels(node: &Node, shapes: &[Vec<Size>]) -> Vec<Residues> {
    if !matches!(node.op, Op::Dot { .. }) {
        return vec![Residues::new()];
    }
    strided(node).or_else(|| bordered(node, shapes)).unwrap_or_else(|| vec![Residues::new()])
}

/// Kernels for every one of some kernels and every pair of a result's positions and a tap's. `None` where the pairs are of
/// variables that kernels have already, or there would be too many.
fn combined(kernels: &[Residues], pairs: &[[Residue; 2]]) -> Option<Vec<Residues>> {
    let is_known = |residue: &Residue| kernels.iter().flatten().any(|other| other.variable == residue.variable);
    let is_small = (kernels.len() * pairs.len()) as i64 <= MOST_KERNELS;
    (is_small && !pairs.iter().flatten().any(is_known))
        .then(|| kernels.iter().flat_map(|kernel| pairs.iter().map(|pair| [&kernel[..], pair].concat())).collect())
}

/// Whether a product skips what it reads of an operand outside, or where a condition fails: another fill is multiplied.
fn skips(map: &IndexMap) -> bool {
    map.fill.is_some_and(|fill| fill.is(0.))
}

/// How many kernels a product has for the strides at which it reads its operands.
pub fn kernels_of_strides(node: &Node) -> usize {
    strided(node).map_or(1, |kernels| kernels.len())
}

/// The kernels of a product that reads operands at every `stride`-th position.
fn strided(node: &Node) -> Option<Vec<Residues>> {
    let mut kernels = vec![Residues::new()];
    for condition in node.maps.iter().filter(|map| skips(map)).flat_map(|map| &map.conditions) {
        let Condition::Divisible { expression, divisor } = condition else { continue };
        kernels = combined(&kernels, &pairs(node, expression, divisor)?)?;
    }
    (kernels.len() > 1).then_some(kernels)
}

/// The kernels of a convolution most of whose taps lie in the padding.
fn bordered(node: &Node, shapes: &[Vec<Size>]) -> Option<Vec<Residues>> {
    // Channels by themselves are segments of rows, which skip what lies in the padding.
    if node.outputs[0].variables.iter().any(|variable| node.maps.iter().all(|map| map.mentions(*variable))) {
        return None;
    }
    let mut kernels = vec![Residues::new()];
    let (mut inside, mut results) = (1., 1);
    for (map, shape) in node.maps.iter().zip(shapes).filter(|(map, _)| skips(map)) {
        for (expression, extent) in map.exprs.iter().zip(shape) {
            let Some((pairs, part)) = ranges(node, expression, extent) else { continue };
            results *= pairs[0][0].whole.as_constant()?;
            kernels = combined(&kernels, &pairs)?;
            inside *= part;
        }
    }
    let is_large = results >= LEAST_RESULTS * kernels.len() as i64;
    (kernels.len() > 1 && inside < MOST_INSIDE && is_large).then_some(kernels)
}

/// Ranges of a result's positions that read the same taps inside of an axis, with these taps; and which part of all taps of all
/// results that is.
fn ranges(node: &Node, expression: &IndexExpr, extent: &Size) -> Option<(Vec<[Residue; 2]>, f64)> {
    let (result, tap) = result_and_tap(node, expression)?;
    let number = |size: Size| size.as_constant();
    let (results, taps) = (number(node.size_of(result))?, number(node.size_of(tap))?);
    let (step, dilation) = (number(expression.coefficient(result))?, number(expression.coefficient(tap))?);
    let (offset, extent) = (number(expression.offset().clone())?, extent.as_constant()?);
    if [step, dilation, offset].iter().any(|number| number.unsigned_abs() > LARGEST) {
        return None;
    }
    if !expression.is_affine() || !(2..=MOST_TAPS).contains(&taps) || !(1..=MOST_RESULTS).contains(&results) {
        return None;
    }
    let range = |variable: u32, start: i64, count: i64, whole: i64| Residue {
        variable,
        stride: 1,
        start,
        count: Size::from(count),
        whole: Size::from(whole),
    };
    let mut found: Vec<[Residue; 2]> = Vec::new();
    let (mut from, mut read, mut last) = (0, 0, None);
    for position in 0..=results {
        let is_inside = |tap: &i64| (0..extent).contains(&(step * position + dilation * tap + offset));
        let taps_read = (position < results).then(|| (0..taps).filter(is_inside).collect::<Vec<i64>>());
        if let Some(own) = &taps_read {
            // A result that reads nothing has no kernel, and those of a kernel read taps side by side.
            let (first, end) = (*own.first()?, *own.last()? + 1);
            if end - first != own.len() as i64 {
                return None;
            }
            read += own.len() as i64;
        }
        if position > from && taps_read != last {
            let own = last.take().unwrap_or_default();
            let pair =
                [range(result, from, position - from, results), range(tap, *own.first()?, own.len() as i64, taps)];
            found.push(pair);
            from = position;
        }
        last = taps_read;
    }
    (found.len() > 1).then_some((found, read as f64 / (results * taps) as f64))
}

/// The variable of the result and that of the taps in a position that depends on one of each.
pub fn result_and_tap(node: &Node, expression: &IndexExpr) -> Option<(u32, u32)> {
    let contracted = node.contracted();
    let mut variables = Vec::new();
    expression.visit_variables(&mut |variable| variables.push(variable));
    match variables[..] {
        [a, b] if contracted.contains(&b) && !contracted.contains(&a) => Some((a, b)),
        [a, b] if contracted.contains(&a) && !contracted.contains(&b) => Some((b, a)),
        _ => None,
    }
}

/// For every residue of a result's positions, these and the taps that the results read, where an operand is read if a number
/// divides `result - dilation * tap + offset`.
fn pairs(node: &Node, expression: &IndexExpr, divisor: &Size) -> Option<Vec<[Residue; 2]>> {
    let (result, tap) = result_and_tap(node, expression)?;
    let (stride, offset) = (divisor.as_constant()?, expression.offset().as_constant()?);
    let (taps, dilation) = (node.size_of(tap).as_constant()?, expression.coefficient(tap).as_constant()?);
    if [offset, taps, dilation].iter().any(|number| number.unsigned_abs() > LARGEST) {
        return None;
    }
    if !expression.is_affine() || !expression.coefficient(result).is(1) || !(2..=MOST_KERNELS).contains(&stride) {
        return None;
    }
    let pair = |start: i64| {
        let is_read = |tap: &i64| (start + offset + tap * dilation).rem_euclid(stride) == 0;
        let first = (0..stride.min(taps)).find(is_read)?;
        // After the first tap, every `stride`-th is read; with a dilation that shares a divisor with the stride, others too.
        let others = (first + 1..(first + stride).min(taps)).any(|tap| is_read(&tap));
        let results = (node.size_of(result) + Size::from(stride - 1 - start)).floor_div(divisor);
        let count = Size::from((taps - first + stride - 1) / stride);
        (!others).then_some([
            Residue { variable: result, stride, start, count: results, whole: node.size_of(result) },
            Residue { variable: tap, stride, start: first, count, whole: node.size_of(tap) },
        ])
    };
    (0..stride).map(pair).collect()
}
