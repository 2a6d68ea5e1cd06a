//! Transposed convolutions: which taps a result reads depends on what its position leaves when it is divided by the stride, its
//! residue. The results of one residue are a plain convolution with every `stride`-th tap, so that there is a kernel for each
//! residue, and none reads the zeros that lie between the positions of the input (the polyphase identity).

use super::trace::recombined;
use strang_ir::{Axis, Condition, IndexExpr, Node, Op, Size};

/// More kernels than this are not made of one product.
const MOST_KERNELS: i64 = 64;

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
}

impl Residue {
    /// The position of number `expression`.
    pub fn position(&self, expression: &IndexExpr) -> IndexExpr {
        expression.times(&Size::from(self.stride)).plus_size(&Size::from(self.start))
    }
}

/// The positions that a kernel computes, by the variables of which it does not run over all.
pub type Residues = Vec<Residue>;

/// A position of a variable in a kernel of some residues.
pub fn position(residues: &[Residue], variable: u32, expression: IndexExpr) -> IndexExpr {
    residues
        .iter()
        .find(|residue| residue.variable == variable)
        .map_or(expression.clone(), |residue| residue.position(&expression))
}

/// How many positions of a variable a kernel of some residues runs over.
pub fn size(residues: &[Residue], node: &Node, variable: u32) -> Size {
    let residue = residues.iter().find(|residue| residue.variable == variable);
    residue.map_or_else(|| node.size_of(variable), |residue| residue.count.clone())
}

/// The product that a kernel of some residues computes.
pub fn part(node: &Node, residues: &[Residue]) -> Node {
    let size = |variable: u32| size(residues, node, variable);
    let at = |variable: u32| position(residues, variable, IndexExpr::variable(variable));
    let read = |expression: &IndexExpr| recombined(&expression.substitute(&at, &|slot| slot, &size), &size);
    let mut part = node.clone();
    for residue in residues {
        let axis = &mut part.variables[residue.variable as usize].axis;
        *axis = Axis::new(axis.name.clone(), residue.count.clone());
    }
    for map in part.maps.iter_mut() {
        map.exprs.iter_mut().for_each(|expression| *expression = read(expression));
        for condition in &mut map.conditions {
            let (Condition::Range { expression, .. } | Condition::Divisible { expression, .. }) = condition;
            *expression = read(expression);
        }
    }
    part
}

/// The residues of every kernel of a product: one kernel without residues, where no operand skips positions.
pub fn kernels(node: &Node) -> Vec<Residues> {
    let mut kernels = vec![Residues::new()];
    if !matches!(node.op, Op::Dot { .. }) {
        return kernels;
    }
    for condition in node.maps.iter().flat_map(|map| &map.conditions) {
        let Condition::Divisible { expression, divisor } = condition else { continue };
        let pairs = pairs(node, expression, divisor).filter(|pairs| {
            let is_new = |pair: &[Residue; 2]| {
                let own = pair.iter().map(|residue| residue.variable);
                kernels.iter().flatten().all(|residue| own.clone().all(|variable| variable != residue.variable))
            };
            (pairs.len() * kernels.len()) as i64 <= MOST_KERNELS && pairs.iter().all(is_new)
        });
        let Some(pairs) = pairs else { return vec![Residues::new()] };
        kernels = kernels.iter().flat_map(|kernel| pairs.iter().map(|pair| [&kernel[..], pair].concat())).collect();
    }
    kernels
}

/// For every residue of a result's positions, these and the taps that the results read, where an operand is read if a number
/// divides `result - dilation * tap + offset`.
fn pairs(node: &Node, expression: &IndexExpr, divisor: &Size) -> Option<Vec<[Residue; 2]>> {
    let contracted = node.contracted();
    let mut variables = Vec::new();
    expression.visit_variables(&mut |variable| variables.push(variable));
    let (result, tap) = match variables[..] {
        [a, b] if contracted.contains(&b) && !contracted.contains(&a) => (a, b),
        [a, b] if contracted.contains(&a) && !contracted.contains(&b) => (b, a),
        _ => return None,
    };
    let (stride, offset) = (divisor.as_constant()?, expression.offset().as_constant()?);
    let (taps, dilation) = (node.size_of(tap).as_constant()?, expression.coefficient(tap).as_constant()?);
    if !expression.is_affine() || !expression.coefficient(result).is(1) || !(2..=MOST_KERNELS).contains(&stride) {
        return None;
    }
    let pair = |start: i64| {
        let is_read = |tap: &i64| (start + offset + tap * dilation).rem_euclid(stride) == 0;
        let first = (0..stride.min(taps)).find(is_read)?;
        // After the first tap, every `stride`-th is read; with a dilation that shares a divisor with the stride, others too.
        let others = (first + 1..(first + stride).min(taps)).any(|tap| is_read(&tap));
        let results = (node.size_of(result) + Size::from(stride - 1 - start)).floor_div(&divisor.clone());
        let count = Size::from((taps - first + stride - 1) / stride);
        (!others).then_some([
            Residue { variable: result, stride, start, count: results },
            Residue { variable: tap, stride, start: first, count },
        ])
    };
    (0..stride).map(pair).collect()
}
