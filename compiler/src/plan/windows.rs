//! Windows: what an operand of a convolution reads, in as few coordinates as tell it.
//!
//! A window reads `a * row + b * tap`, and windows overlap: a copy over rows and taps has most elements many times. Where a row
//! and a tap occur in that sum alone, the sum is a coordinate, and the copy is an image.

use strang_ir::{Atom, IndexExpr, IndexMap, Node, Size};

/// One axis of a copy of what an operand reads.
#[derive(Clone, Debug)]
pub struct Coordinate {
    /// How many positions it has.
    pub size: Size,
    /// The position that the variables of the node read.
    pub expression: IndexExpr,
    /// The variable that stands for the coordinate while the copy is made; the other is at 0.
    pub variable: u32,
}

/// The coordinates of an operand of a node: its variables, those of windows summed. That of `inner` comes last.
pub fn coordinates(node: &Node, slot: usize, inner: u32) -> Vec<Coordinate> {
    let map = &node.maps[slot];
    let mut left: Vec<u32> = (0..node.variables.len() as u32).filter(|variable| map.mentions(*variable)).collect();
    left.sort_by_key(|variable| *variable == inner);
    let is_output = |variable: u32| node.outputs[0].variables.contains(&variable);
    let mut coordinates = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let first = left.remove(0);
        let partner = |other: u32| match (is_output(first), is_output(other)) {
            (true, false) => window(node, map, first, other),
            (false, true) => window(node, map, other, first),
            _ => None,
        };
        let found = left.iter().enumerate().find_map(|(place, other)| Some((place, partner(*other)?)));
        coordinates.push(match found {
            // The last is that of `inner`, and stays so.
            Some((place, coordinate)) if left[place] != inner => {
                left.remove(place);
                coordinate
            }
            _ => Coordinate { size: node.size_of(first), expression: IndexExpr::variable(first), variable: first },
        });
    }
    coordinates
}

/// The coordinate `a * row + b * tap`, if a map reads nothing else of the two. Every position of it is read, and most
/// more than once.
fn window(node: &Node, map: &IndexMap, row: u32, tap: u32) -> Option<Coordinate> {
    let mut steps: Option<(i64, i64)> = None;
    let mut is_sum = true;
    let mut look = |form: &IndexExpr| {
        let own = (form.coefficient(row).as_constant(), form.coefficient(tap).as_constant());
        is_sum &= match (own, steps) {
            ((Some(0), Some(0)), _) => true,
            ((Some(a), Some(b)), Some((c, d))) => {
                a.checked_mul(d).is_some_and(|product| Some(product) == b.checked_mul(c))
            }
            ((Some(a), Some(b)), None) if a > 0 && b > 0 => {
                let common = common_divisor(a, b);
                steps = Some((a / common, b / common));
                true
            }
            _ => false,
        };
    };
    let conditions = map.conditions.iter().map(|condition| condition.expression());
    map.exprs.iter().chain(conditions).for_each(|expression| visit_sums(expression, &mut look));
    let (a, b) = steps.filter(|_| is_sum)?;
    // Without a row nothing is read, but the sum would have positions; they may lie outside.
    let is_somewhere = |variable: u32| node.size_of(variable).lower_bound(0).is_some_and(|size| size >= 1);
    if !is_somewhere(row) || !is_somewhere(tap) {
        return None;
    }
    let is_more = |size: Size, step: i64| size.as_constant().is_some_and(|size| size > step);
    let variable = match (a, b) {
        (_, 1) if is_more(node.size_of(tap), a) => tap,
        (1, _) if is_more(node.size_of(row), b) => row,
        _ => return None,
    };
    let last = |variable: u32| node.size_of(variable) - Size::ONE;
    let size = last(row) * Size::from(a) + last(tap) * Size::from(b) + Size::ONE;
    let term = |variable: u32, step: i64| (Atom::Variable(variable), Size::from(step));
    Some(Coordinate { size, expression: IndexExpr::new([term(row, a), term(tap, b)], Size::ZERO), variable })
}

/// Calls a function with an expression and with those inside of its atoms.
pub fn visit_sums(expression: &IndexExpr, visit: &mut dyn FnMut(&IndexExpr)) {
    visit(expression);
    for (atom, _) in expression.terms() {
        match atom {
            Atom::FloorDiv(inner, _) | Atom::Remainder(inner, _) | Atom::Clamp(inner, ..) | Atom::Table(_, inner) => {
                visit_sums(inner, visit);
            }
            Atom::Variable(_) | Atom::Read(_) => {}
        }
    }
}

fn common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}
