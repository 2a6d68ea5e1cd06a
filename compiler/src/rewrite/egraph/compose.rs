//! Composition of index maps: how a read through a view, or of a map's operand, looks from the reader.

pub use crate::plan::trace::compose;
use crate::plan::trace::{variable_positions, within};
use strang_ir::{Condition, IndexExpr, IndexMap, Node, Size};

/// The read of a view's operand that a read of the view is. `None` where a position outside the one and one outside the
/// other read different fills.
///
/// The law: `view_s(view_r x) = view_{r.s} x` if every position that `s` reads lies inside the view, or yields what a
/// position outside `r` yields. `operand` is the shape of `x`.
pub fn through_view(outer: &IndexMap, view: &Node, operand: &[Size], size: &dyn Fn(u32) -> Size) -> Option<IndexMap> {
    let inner = &view.maps[0];
    let mut map = compose(inner, &variable_positions(view, 0, &outer.exprs), size);
    let Some(fill) = outer.fill else { return Some(map) };
    if inner.fill.is_some_and(|other| other != fill) {
        return None;
    }
    map.fill = Some(fill);
    let mut conditions = outer.conditions.clone();
    for (expression, extent) in outer.exprs.iter().zip(view.shape(0)) {
        if !within(expression, &extent, size) {
            conditions.push(Condition::Range { expression: expression.clone(), low: Size::ZERO, high: extent });
        }
    }
    for condition in map.conditions {
        if !conditions.contains(&condition) {
            conditions.push(condition);
        }
    }
    // What the extents of the operand say need not be said twice.
    let extents: Vec<(&IndexExpr, &Size)> = map.exprs.iter().zip(operand).collect();
    conditions.retain(|condition| match condition {
        Condition::Range { expression, low, high } => !(low.is(0) && extents.contains(&(expression, high))),
        Condition::Divisible { .. } => true,
    });
    map.conditions = conditions;
    Some(map)
}
