//! The order of floating-point sums that every implementation keeps when it promises equal bits.
//!
//! **A `dot`** is one chain of fused multiply-adds per output element, from +0, over the contracted variables in the
//! node's order (the last one fastest), in the accumulator type. A position where an operand reads a fill that is zero is
//! skipped. With one operand the other factor is 1; with more than two, all but the last are multiplied first, from the
//! left, each product rounded to the accumulator type. The sum is rounded once to the output's type.
//!
//! **A float `reduce sum`** adds in f32 (f64 for f64) and rounds once to the output's type. Fills count like other values.
//! When [`lane_variable`] names a variable, the elements along it are added by `Lanes`: 16 lanes from +0, lane `j` adding
//! the elements `j`, `j + 16`, `j + 32`, ... in this order; then lane `j` adds lane `j + 8` for `j < 8`, lane `j + 4` for
//! `j < 4`, lane `j + 2` for `j < 2`, and lane 0 adds lane 1. The result of each row is added, in the order of the other
//! contracted variables, to a sum that starts from +0. When it names none, all elements are added to that sum one by one.
//! Statistics of `softmax` and `norm` use lanes over the positions of their `over` variables, row-major.
//!
//! Other monoids combine one by one in the node's order from their neutral element.

use crate::{Node, Op, op::Monoid};

/// The variable along which a float sum is added in 16 lanes: the last contracted one, when the operand's last index
/// expression has it as a term with coefficient 1, and it occurs nowhere else in the map's expressions.
pub fn lane_variable(node: &Node) -> Option<u32> {
    if node.op != Op::Reduce(Monoid::Sum) || !node.outputs.first()?.element.is_float() {
        return None;
    }
    let variable = *node.contracted().last()?;
    let (last, others) = node.maps.first()?.exprs.split_last()?;
    let mut uses = 0;
    last.visit_variables(&mut |other| uses += usize::from(other == variable));
    let alone = uses == 1 && !others.iter().any(|expression| expression.mentions(variable));
    (alone && last.coefficient(variable).is(1)).then_some(variable)
}

/// A float type that rows are computed in.
pub(super) trait Real: Copy + Into<f64> + PartialOrd {
    const ZERO: Self;
    fn of(value: f64) -> Self;
    fn add(self, other: Self) -> Self;
    fn multiply_add(self, factor: Self, addend: Self) -> Self;
}

impl Real for f32 {
    const ZERO: f32 = 0.;
    fn of(value: f64) -> f32 {
        value as f32
    }
    fn add(self, other: f32) -> f32 {
        self + other
    }
    fn multiply_add(self, factor: f32, addend: f32) -> f32 {
        self.mul_add(factor, addend)
    }
}

impl Real for f64 {
    const ZERO: f64 = 0.;
    fn of(value: f64) -> f64 {
        value
    }
    fn add(self, other: f64) -> f64 {
        self + other
    }
    fn multiply_add(self, factor: f64, addend: f64) -> f64 {
        self.mul_add(factor, addend)
    }
}

/// Sixteen partial sums.
pub(super) struct Lanes<R> {
    lanes: [R; 16],
    next: usize,
}

impl<R: Real> Lanes<R> {
    pub(super) fn new() -> Self {
        Lanes { lanes: [R::ZERO; 16], next: 0 }
    }

    /// The next element.
    pub(super) fn push(&mut self, value: R) {
        self.lanes[self.next] = self.lanes[self.next].add(value);
        self.next = (self.next + 1) % 16;
    }

    /// The square of the next element.
    pub(super) fn push_square(&mut self, value: R) {
        self.lanes[self.next] = value.multiply_add(value, self.lanes[self.next]);
        self.next = (self.next + 1) % 16;
    }

    /// The sum of all lanes.
    pub(super) fn sum(mut self) -> R {
        for half in [8, 4, 2, 1] {
            for lane in 0..half {
                self.lanes[lane] = self.lanes[lane].add(self.lanes[lane + half]);
            }
        }
        self.lanes[0]
    }
}
