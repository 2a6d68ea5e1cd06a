//! Rows of whole pages are kept apart by a cache line: else the lines of all rows that a tile of a product reads would share one
//! set of the first-level cache, which holds fewer than there are rows.

use super::scope::Scope;
use strang_ir::{Node, Op, Size, Value};

/// What the sets of a first-level cache repeat after, in bytes, and the bytes of a line.
const PAGE: usize = 4096;
const LINE: usize = 64;
/// The most bytes of one position more: with larger ones rows would share sets again, and waste memory.
const MOST: usize = 512;

/// The shape to make room for where a new array has its axes in `order`: that of the value, or one that leaves something unused
/// after each row, where a product sums along rows of whole pages and all that read them read one row apart from another.
pub fn with_spare(scope: &Scope, value: Value, order: &[usize]) -> Vec<Size> {
    let mut shape = scope.function.shape_of(value);
    if let Some((axis, positions)) = spare(scope, value, &shape, order) {
        shape[axis] += Size::from(positions as i64);
    }
    shape
}

/// The outermost axis of rows that should be longer, and by how many positions.
fn spare(scope: &Scope, value: Value, shape: &[Size], order: &[usize]) -> Option<(usize, usize)> {
    if scope.function.outputs.contains(&value) {
        return None;
    }
    let readers = scope.function.readers(value);
    let read = || readers.iter().map(|(reader, slot)| (&*scope.function.graph[*reader], *slot as usize));
    let mut bytes = scope.function.element_of(value).bytes()?;
    for outermost in (1..order.len()).rev() {
        let axis = order[outermost];
        let stride = bytes;
        let size = usize::try_from(shape[axis].as_constant()?).ok().filter(|size| *size > 0)?;
        bytes = bytes.checked_mul(size)?;
        let (outer, row) = order.split_at(outermost);
        if bytes.is_multiple_of(PAGE)
            && stride <= MOST
            && read().any(|(node, slot)| sums_along(node, slot, row))
            && read().all(|(node, slot)| reads_apart(node, slot, outer, row))
        {
            return Some((axis, LINE.div_ceil(stride)));
        }
    }
    None
}

/// Whether a node is a product that sums along some axes of an operand.
fn sums_along(node: &Node, slot: usize, axes: &[usize]) -> bool {
    let contracted = node.contracted();
    matches!(node.op, Op::Dot { .. })
        && variables(node, slot, axes).iter().all(|variable| contracted.contains(variable))
}

/// Whether no variable of a node tells where it reads an operand both along these axes and along those.
fn reads_apart(node: &Node, slot: usize, these: &[usize], those: &[usize]) -> bool {
    let reads_by_map =
        matches!(node.op, Op::Dot { .. } | Op::Map(_) | Op::Norm { .. } | Op::Softmax { .. } | Op::Reduce(_));
    reads_by_map && {
        let these = variables(node, slot, these);
        !variables(node, slot, those).iter().any(|variable| these.contains(variable))
    }
}

/// The variables that tell where a node reads an operand along some axes.
fn variables(node: &Node, slot: usize, axes: &[usize]) -> Vec<u32> {
    let mut variables = Vec::new();
    for axis in axes {
        node.maps[slot].exprs[*axis].visit_variables(&mut |variable| variables.push(variable));
    }
    variables
}
