//! Maps and gathers.

use super::{
    Number,
    node::{Element, Prepared},
    scalar::Scalar,
};
use crate::ScalarExpr;
use std::cell::RefCell;
use strang_runtime::{ElementType, size::SizeError};

/// A scalar expression of the operands' values.
pub(super) fn map<'a>(node: &'a Prepared<'a>, expression: &ScalarExpr) -> Result<Element<'a>, SizeError> {
    let elements: Vec<ElementType> = node.readers.iter().map(|reader| reader.array.element).collect();
    let (scalar, _) = Scalar::new(expression, &elements, node.bindings)?;
    thread_local! {
        static VALUES: RefCell<Vec<Number>> = const { RefCell::new(Vec::new()) };
    }
    Ok(Box::new(move |position| {
        VALUES.with_borrow_mut(|values| {
            values.clear();
            for reader in &node.readers {
                values.push(reader.get(position)?);
            }
            Ok(scalar.eval(values, position, node.arithmetic))
        })
    }))
}

/// Operand 0 where the index operands say.
pub(super) fn gather<'a>(node: &'a Prepared<'a>) -> Element<'a> {
    thread_local! {
        static INDICES: RefCell<Vec<i64>> = const { RefCell::new(Vec::new()) };
    }
    Box::new(move |position| {
        INDICES.with_borrow_mut(|indices| {
            indices.clear();
            indices.push(i64::MIN);
            for reader in &node.readers[1..] {
                indices.push(index(reader.get(position)?));
            }
            let source = &node.readers[0];
            Ok(source.value(source.place(position, &|slot| indices[slot as usize])?))
        })
    })
}

/// A value of an index operand. What does not fit lies in no operand.
pub(super) fn index(value: Number) -> i64 {
    i64::try_from(value.to_i128()).unwrap_or(i64::MAX)
}
