//! Concatenation: the operand is chosen by the position along one variable.

use super::node::{Element, Prepared};
use strang_runtime::{Size, size::SizeError};

/// The operands one after the other.
pub(super) fn concat<'a>(node: &'a Prepared<'a>, along: u32, offsets: &[Size]) -> Result<Element<'a>, SizeError> {
    let starts = offsets.iter().map(|offset| offset.eval(node.bindings)).collect::<Result<Vec<i64>, _>>()?;
    Ok(Box::new(move |position| {
        let here = position[along as usize];
        // The last operand that starts at or before this position; empty ones before it start there as well.
        let operand = starts.partition_point(|start| *start <= here).clamp(1, node.readers.len()) - 1;
        node.readers[operand].get(position)
    }))
}
