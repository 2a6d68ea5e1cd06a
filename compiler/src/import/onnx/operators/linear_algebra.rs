//! `Det` by Gaussian elimination, and `Col2Im`.

use super::{
    reduce::reduced,
    scalar::{apply, div, equal, mul, number, operand, sub},
    window::positive,
};
use crate::import::onnx::{
    call::{Call, Imported},
    draft::Draft,
};
use strang_ir::{Atom, Condition, IndexExpr, IndexMap, Literal, Op, ScalarExpr, op::Monoid, scalar::Unary};
use strang_runtime::{ElementType, Size};

/// Matrices of more rows have determinants of too many steps.
const ROWS: i64 = 64;

/// `Det`: elimination with the largest pivot of each column, one step a row.
pub fn determinant(call: &mut Call) -> Imported {
    let x = call.value(0)?;
    let sizes = call.shape_of(x);
    let outer = sizes.len().saturating_sub(2);
    let rows = sizes.last().and_then(Size::as_constant);
    let rows = rows.filter(|rows| sizes.len() >= 2 && sizes[outer].is(*rows) && (0..=ROWS).contains(rows));
    let Some(rows) = rows else {
        return Err(call.unsupported(format!("determinants are of fixed square matrices up to {ROWS}, not {sizes:?}")));
    };
    let element = call.element_of(x);
    let batch = sizes[..outer].to_vec();
    let mut result = call.filled(Literal::one(element), &batch);
    let mut matrix = x;
    let int = ElementType::I64;
    for left in (1..=rows).rev() {
        let [outer_at, first] = [outer, outer + 1];
        // The row with the largest element of the first column.
        let (mut draft, variables) = Draft::over(&batch);
        let row = draft.variable(&Size::from(left));
        let place = |last: IndexExpr, row: IndexExpr, variables: &[u32]| -> Vec<IndexExpr> {
            let outer = variables[..outer_at].iter().map(|variable| IndexExpr::variable(*variable));
            outer.chain([row, last]).collect()
        };
        let zero = || IndexExpr::constant(0);
        draft.read(matrix, place(zero(), IndexExpr::variable(row), &variables));
        let column = [variables.as_slice(), &[row]].concat();
        let sizes_of_column = [batch.as_slice(), &[Size::from(left)]].concat();
        let magnitudes = call.emit(draft, Op::Map(apply(Unary::Absolute, operand(0))), element, &column);
        let (mut draft, variables) = Draft::over(&sizes_of_column);
        draft.read_at(magnitudes, &variables);
        let op = Op::ArgReduce { largest: true, last: false };
        let chosen = call.emit(draft, op, int, &variables[..outer]);
        let (mut draft, variables) = Draft::over(&batch);
        draft.read(matrix, place(zero(), IndexExpr::atom(Atom::Read(1)), &variables));
        draft.read_at(chosen, &variables);
        let pivot = call.emit(draft, Op::Gather, element, &variables);
        // Another row than the first changes the sign.
        let moved = equal(operand(2), ScalarExpr::Literal(Literal::i64(0)));
        let signed = ScalarExpr::select(moved, operand(1), sub(number(element, 0.), operand(1)));
        result = call.map(&[result, pivot, chosen], mul(operand(0), signed))?;
        if left == 1 {
            break;
        }
        let (mut draft, variables) = Draft::over(&[batch.as_slice(), &[Size::from(left)]].concat());
        let last = IndexExpr::variable(variables[outer]);
        draft.read(matrix, place(last, IndexExpr::atom(Atom::Read(1)), &variables));
        draft.read_at(chosen, &variables[..outer]);
        let pivot_row = call.emit(draft, Op::Gather, element, &variables);
        // Below the pivot row: row `i + 1`, with the first row in the place of the chosen one.
        let smaller = Size::from(left - 1);
        let (mut draft, variables) = Draft::over(&[batch.as_slice(), &[smaller.clone(), smaller]].concat());
        let (row, next) = (IndexExpr::variable(variables[outer]), IndexExpr::variable(variables[first]));
        let (row, next) = (row.plus_size(&Size::ONE), next.plus_size(&Size::ONE));
        let batch_at = &variables[..outer];
        draft.read(matrix, place(next.clone(), row.clone(), &variables));
        draft.read(matrix, place(next.clone(), zero(), &variables));
        draft.read(matrix, place(zero(), row, &variables));
        draft.read(matrix, place(zero(), zero(), &variables));
        draft.read_at(chosen, batch_at);
        let mut exprs: Vec<IndexExpr> = batch_at.iter().map(|variable| IndexExpr::variable(*variable)).collect();
        exprs.push(next);
        draft.read(pivot_row, exprs);
        draft.read_at(pivot, batch_at);
        let position = super::scalar::add(ScalarExpr::Index(variables[outer]), ScalarExpr::Literal(Literal::i64(1)));
        let swapped = equal(operand(4), position);
        let value = ScalarExpr::select(swapped.clone(), operand(1), operand(0));
        let head = ScalarExpr::select(swapped, operand(3), operand(2));
        // A column of zeros makes the determinant zero whatever is left.
        let none = equal(operand(6), number(element, 0.));
        let factor = ScalarExpr::select(none, number(element, 0.), div(head, operand(6)));
        matrix = call.emit(draft, Op::Map(sub(value, mul(factor, operand(5)))), element, &variables);
    }
    Ok(vec![result.into()])
}

/// `Col2Im`: every pixel is the sum of what the blocks that cover it say.
pub fn columns_to_image(call: &mut Call) -> Imported {
    let (x, image, block) = (call.value(0)?, call.sizes(1)?, call.sizes(2)?);
    let sizes = call.shape_of(x);
    let rank = image.len();
    if sizes.len() != 3 || block.len() != rank || rank == 0 {
        return Err(call.error(format!("columns {sizes:?} do not go with blocks {block:?} of an image {image:?}")));
    }
    let (strides, dilations) = (positive(call, "strides", rank)?, positive(call, "dilations", rank)?);
    let pads = call.attributes.ints_or("pads", 2 * rank, 0)?;
    let taps: Size = block.iter().cloned().product();
    let channels = sizes[1].floor_div(&taps);
    let mut blocks = Vec::new();
    for axis in 0..rank {
        let extent = (&block[axis] - &Size::ONE) * Size::from(dilations[axis]) + Size::ONE;
        let room = &image[axis] + &Size::from(pads[axis]) + Size::from(pads[rank + axis]) - extent;
        blocks.push(room.floor_div(&Size::from(strides[axis])) + Size::ONE);
    }
    let count: Size = blocks.iter().cloned().product();
    let differs = |a: &Size, b: &Size| a.as_constant().zip(b.as_constant()).is_some_and(|(a, b)| a != b);
    if differs(&count, &sizes[2]) || differs(&(&channels * &taps), &sizes[1]) {
        return Err(call.error(format!("{count} blocks of {taps} do not make columns {sizes:?}")));
    }
    let mut output = vec![sizes[0].clone(), channels];
    output.extend(image);
    let (mut draft, variables) = Draft::over(&output);
    let within: Vec<u32> = draft.variables(&block);
    let mut tap = IndexExpr::variable(variables[1]);
    let mut place = IndexExpr::default();
    let mut conditions = Vec::new();
    for axis in 0..rank {
        tap = tap.times(&block[axis]).plus(&IndexExpr::variable(within[axis]));
        let reach = IndexExpr::variable(variables[axis + 2])
            .plus(&IndexExpr::variable(within[axis]).times(&Size::from(-dilations[axis])))
            .plus_size(&Size::from(pads[axis]));
        let stride = Size::from(strides[axis]);
        let position = reach.floor_div(&stride, &draft.sizes());
        place = place.times(&blocks[axis]).plus(&position);
        conditions.push(Condition::Range { expression: position, low: Size::ZERO, high: blocks[axis].clone() });
        if !stride.is(1) {
            conditions.push(Condition::Divisible { expression: reach, divisor: stride });
        }
    }
    let element = call.element_of(x);
    let mut map = IndexMap::new(vec![IndexExpr::variable(variables[0]), tap, place]).with_fill(Literal::zero(element));
    map.conditions = conditions;
    draft.read_map(x, map);
    // The taps become an axis first, then they are added.
    let everything = [variables.as_slice(), &within].concat();
    let spread = call.emit(draft, Op::View, element, &everything);
    let axes: Vec<usize> = (rank + 2..2 * rank + 2).collect();
    Ok(vec![reduced(call, spread, &axes, Monoid::Sum, false).into()])
}
