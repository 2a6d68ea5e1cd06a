//! Arithmetic on weights when a model is compiled, fast: f32 maps (of integers converted to f32 too), f32 products, sums of
//! integers, lookups of codes and concatenations whose operands are read at affine positions. The interpreter computes everything
//! else, and is what this is tested against: the bits are equal.

mod map;

use super::egraph::compose::compose;
use crate::pieces::each_piece;
use map::{Affine, Operand, Row, mapped};
use std::borrow::Cow;
use strang_ir::{
    Atom, ElementType, IndexExpr, IndexMap, Node, Op, ScalarExpr, Size, Tensor,
    op::Monoid,
    scalar::{Binary, Unary},
};
use strang_runtime::{
    kernels::{bytes, fma},
    tensor::{Element, Spare},
};

/// The result of a node of known sizes, if this can compute it; `spare` may have memory for it.
pub fn evaluate(node: &Node, operands: &[Tensor], spare: &mut Spare) -> Option<Tensor> {
    let types = || operands.iter().map(Tensor::element).collect::<Vec<_>>();
    match &node.op {
        Op::Concat { along, offsets } => {
            let whole = concatenated(node, *along as usize, operands, spare);
            whole.or_else(|| side_by_side(node, *along, offsets, operands, spare))
        }
        Op::Map(expression) if is_supported(expression, &types()) => mapped(node, expression, operands, spare),
        Op::Map(expression) if is_widening(expression, node) => {
            copied(node, &operands[0], integers(&operands[0])?, spare)
        }
        Op::View => viewed(node, &operands[0], spare),
        Op::Dot { accumulator: ElementType::F32 } if operands.len() == 2 => product(node, operands, spare),
        Op::Gather if operands.len() == 2 => looked_up(node, operands, spare),
        Op::Reduce(Monoid::Sum) => summed(node, &operands[0], spare),
        _ => None,
    }
}

/// Whether this may compute a node of operands of these types by ranges of an axis.
pub fn has_blocks(node: &Node, operands: &[ElementType]) -> bool {
    match &node.op {
        Op::Concat { .. } | Op::View => true,
        Op::Map(expression) => is_supported(expression, operands) || is_widening(expression, node),
        Op::Reduce(Monoid::Sum) => operands == [ElementType::I32],
        _ => false,
    }
}

fn sizes(node: &Node) -> Option<Vec<usize>> {
    node.variables.iter().map(|v| v.size().as_constant().and_then(|size| usize::try_from(size).ok())).collect()
}

/// An array and how far apart the elements that a variable tells apart are.
struct Strided<'a, T: Clone> {
    data: Cow<'a, [T]>,
    start: usize,
    strides: Vec<i64>,
}

impl<T: Copy> Strided<'_, T> {
    fn at(&self, offset: i64) -> T {
        self.data[(self.start as i64 + offset) as usize]
    }

    /// The same with the elements of the last output variable side by side, where that and contracted ones alone move it.
    fn in_rows(self, node: &Node, sizes: &[usize], contracted: &[u32]) -> Self {
        let output = &node.outputs[0].variables;
        let Some((last, others)) = output.split_last() else { return self };
        if others.iter().any(|variable| self.strides[*variable as usize] != 0) {
            return self;
        }
        let order: Vec<u32> = contracted.iter().copied().chain([*last]).collect();
        let mut strides = vec![0; sizes.len()];
        let mut count = 1;
        for variable in order.iter().rev() {
            strides[*variable as usize] = count as i64;
            count *= sizes[*variable as usize];
        }
        let mut position = vec![0; sizes.len()];
        let mut data = Vec::with_capacity(count);
        for number in 0..count {
            go_to(&mut position, number, &order, sizes);
            data.push(self.at(offset(&self.strides, &position)));
        }
        Strided { data: Cow::Owned(data), start: 0, strides }
    }

    /// Elements side by side.
    fn row(&self, offset: i64, length: usize) -> &[T] {
        &self.data[(self.start as i64 + offset) as usize..][..length]
    }
}

/// An operand read at an affine position that never lies outside.
fn strided<'a, T: Copy>(
    map: &IndexMap,
    sizes: &[usize],
    tensor: &Tensor,
    data: Cow<'a, [T]>,
) -> Option<Strided<'a, T>> {
    if map.fill.is_some() {
        return None;
    }
    let place = Affine::place(map, tensor.shape(), sizes.len())?;
    if sizes.contains(&0) {
        return None;
    }
    let (first, last) = place.range(sizes);
    let inside = first >= 0 && last < data.len() as i64;
    inside.then_some(Strided { data, start: place.start as usize, strides: place.strides })
}

/// The elements of an f32 tensor, or of integers as f32.
pub fn floats(tensor: &Tensor) -> Option<Cow<'_, [f32]>> {
    macro_rules! converted {
        ($integer:ty) => {
            tensor.to_vec::<$integer>().ok()?.into_iter().map(|value| value as f32).collect()
        };
    }
    Some(match tensor.element() {
        // Weights of a file may lie at any address.
        ElementType::F32 => match tensor.as_slice::<f32>() {
            Ok(values) => Cow::Borrowed(values),
            Err(_) => Cow::Owned(tensor.to_vec().ok()?),
        },
        ElementType::I8 => Cow::Owned(converted!(i8)),
        ElementType::U8 => Cow::Owned(converted!(u8)),
        ElementType::I16 => Cow::Owned(converted!(i16)),
        ElementType::U16 => Cow::Owned(converted!(u16)),
        ElementType::I32 => Cow::Owned(converted!(i32)),
        ElementType::I4 | ElementType::U4 => {
            Cow::Owned(tensor.to_f64().into_iter().map(|number| number as f32).collect())
        }
        _ => return None,
    })
}

/// The elements of a tensor of integers none of which is negative.
fn places(tensor: &Tensor) -> Option<Vec<usize>> {
    macro_rules! converted {
        ($integer:ty) => {
            tensor.to_vec::<$integer>().ok()?.into_iter().map(|value| usize::try_from(value).ok()).collect()
        };
    }
    match tensor.element() {
        ElementType::U8 => converted!(u8),
        ElementType::U16 => converted!(u16),
        ElementType::I32 => converted!(i32),
        ElementType::I64 => converted!(i64),
        _ => None,
    }
}

/// The elements of an integer tensor.
fn integers(tensor: &Tensor) -> Option<Cow<'_, [i32]>> {
    Some(match tensor.element() {
        ElementType::I8 => Cow::Owned(tensor.to_vec::<i8>().ok()?.into_iter().map(i32::from).collect()),
        ElementType::U8 => Cow::Owned(tensor.to_vec::<u8>().ok()?.into_iter().map(i32::from).collect()),
        ElementType::I32 => match tensor.as_slice::<i32>() {
            Ok(values) => Cow::Borrowed(values),
            Err(_) => Cow::Owned(tensor.to_vec().ok()?),
        },
        _ => return None,
    })
}

/// Whether a map makes its operand an i32 and does nothing else.
pub fn is_widening(expression: &ScalarExpr, node: &Node) -> bool {
    node.maps.len() == 1 && matches!(expression, ScalarExpr::Cast(ElementType::I32, a) if **a == ScalarExpr::Operand(0))
}

/// Whether an expression is of f32 alone, operands of other types being converted where they are read.
fn is_supported(expression: &ScalarExpr, operands: &[ElementType]) -> bool {
    let is_float = |slot: &u32| operands.get(*slot as usize) == Some(&ElementType::F32);
    match expression {
        ScalarExpr::Operand(slot) => is_float(slot),
        ScalarExpr::Cast(ElementType::F32, a) => matches!(**a, ScalarExpr::Operand(_)),
        ScalarExpr::Literal(literal) => literal.element == ElementType::F32,
        ScalarExpr::Unary(Unary::Negate | Unary::SquareRoot | Unary::ReciprocalSquareRoot, a) => {
            is_supported(a, operands)
        }
        ScalarExpr::Binary(Binary::Add | Binary::Subtract | Binary::Multiply | Binary::Divide, a, b) => {
            is_supported(a, operands) && is_supported(b, operands)
        }
        _ => false,
    }
}

/// Rows of the result along the last of its variables, in parallel: `row` writes all of a row, in which any numbers were.
/// `sizes` and `output` may have trailing axes as one.
fn by_rows<T: Element + Send>(
    result: &[usize],
    (sizes, output): (&[usize], &[u32]),
    spare: &mut Spare,
    row: impl Fn(&[usize], &mut [T]) + Sync,
) -> Option<Tensor> {
    let mut result = spare.take(T::TYPE, result).ok()?;
    let width = output.last().map_or(1, |last| sizes[*last as usize]);
    let values = result.as_mut_slice::<T>().ok()?;
    each_piece(values, width, |number, values| {
        let mut position = vec![0; sizes.len()];
        go_to(&mut position, number, output.split_last().map_or(&[], |(_, outer)| outer), sizes);
        row(&position, values);
        Some(())
    })?;
    Some(result)
}

/// Goes to a position of some variables, counted in row-major order.
fn go_to(position: &mut [usize], mut number: usize, variables: &[u32], sizes: &[usize]) {
    for variable in variables.iter().rev() {
        position[*variable as usize] = number % sizes[*variable as usize];
        number /= sizes[*variable as usize];
    }
}

fn offset(strides: &[i64], position: &[usize]) -> i64 {
    strides.iter().zip(position).map(|(stride, position)| stride * *position as i64).sum()
}

fn shape_of(node: &Node, sizes: &[usize]) -> Vec<usize> {
    node.outputs[0].variables.iter().map(|v| sizes[*v as usize]).collect()
}

/// One chain of fused multiply-adds an element, in the node's order.
fn product(node: &Node, operands: &[Tensor], spare: &mut Spare) -> Option<Tensor> {
    let sizes = sizes(node)?;
    let is_float = |tensor: &Tensor| tensor.element() == ElementType::F32;
    if node.outputs[0].element != ElementType::F32 || !operands.iter().all(is_float) {
        return None;
    }
    let operand = |slot: usize| strided(&node.maps[slot], &sizes, &operands[slot], floats(&operands[slot])?);
    let column =
        |operand: &Strided<f32>| node.outputs[0].variables.last().map_or(0, |last| operand.strides[*last as usize]);
    let (mut a, mut b) = (operand(0)?, operand(1)?);
    if column(&b) == 0 {
        (a, b) = (b, a);
    }
    let contracted = node.contracted();
    if column(&a) == 0 && column(&b) != 1 {
        b = b.in_rows(node, &sizes, &contracted);
    }
    let (a_column, b_column) = (column(&a), column(&b));
    let count: usize = contracted.iter().map(|v| sizes[*v as usize]).product();
    by_rows::<f32>(&shape_of(node, &sizes), (&sizes, &node.outputs[0].variables), spare, |position, values| {
        values.fill(0.);
        let mut position = position.to_vec();
        for number in 0..count {
            go_to(&mut position, number, &contracted, &sizes);
            let (a_start, b_start) = (offset(&a.strides, &position), offset(&b.strides, &position));
            if (a_column, b_column) == (0, 1) {
                fma::add_products(a.at(a_start), b.row(b_start, values.len()), values);
                continue;
            }
            for (column, value) in values.iter_mut().enumerate() {
                let column = column as i64;
                *value = a.at(a_start + a_column * column).mul_add(b.at(b_start + b_column * column), *value);
            }
        }
    })
}

/// What a node reads of an array, position by position.
fn copied<T: Element + Copy + Send + Sync>(
    node: &Node,
    operand: &Tensor,
    data: Cow<'_, [T]>,
    spare: &mut Spare,
) -> Option<Tensor> {
    let sizes = sizes(node)?;
    let operand = strided(&node.maps[0], &sizes, operand, data)?;
    let output = &node.outputs[0].variables;
    let stride = output.last().map_or(0, |last| operand.strides[*last as usize]);
    by_rows::<T>(&shape_of(node, &sizes), (&sizes, output), spare, |position, values| {
        let start = offset(&operand.strides, position);
        if stride == 1 {
            values.copy_from_slice(operand.row(start, values.len()));
            return;
        }
        for (column, value) in values.iter_mut().enumerate() {
            *value = operand.at(start + stride * column as i64);
        }
    })
}

/// Codes looked up in a book, along one of its axes.
fn looked_up(node: &Node, operands: &[Tensor], spare: &mut Spare) -> Option<Tensor> {
    let sizes = sizes(node)?;
    let [book, codes] = operands else { return None };
    let code = IndexExpr::atom(Atom::Read(1));
    let axis = node.maps[0].exprs.iter().position(|expression| *expression == code)?;
    let mut map = node.maps[0].clone();
    map.exprs[axis] = IndexExpr::constant(0);
    let extent = *book.shape().get(axis)?;
    let apart: usize = book.shape()[axis + 1..].iter().product();
    let book = strided(&map, &sizes, book, floats(book).filter(|_| book.element() == ElementType::F32)?)?;
    let codes = strided(&node.maps[1], &sizes, codes, Cow::Owned(places(codes)?))?;
    if codes.data.iter().any(|code| *code >= extent) {
        return None;
    }
    let output = &node.outputs[0].variables;
    let step = |strides: &[i64]| output.last().map_or(0, |last| strides[*last as usize]);
    let (book_step, code_step) = (step(&book.strides), step(&codes.strides));
    by_rows::<f32>(&shape_of(node, &sizes), (&sizes, output), spare, |position, values| {
        let (book_start, code_start) = (offset(&book.strides, position), offset(&codes.strides, position));
        for (column, value) in values.iter_mut().enumerate() {
            let column = column as i64;
            let code = codes.at(code_start + code_step * column);
            *value = book.at(book_start + book_step * column + (code * apart) as i64);
        }
    })
}

/// A view of an array.
fn viewed(node: &Node, operand: &Tensor, spare: &mut Spare) -> Option<Tensor> {
    match operand.element() {
        ElementType::F32 => copied(node, operand, floats(operand)?, spare),
        ElementType::I32 => copied(node, operand, integers(operand)?, spare),
        ElementType::I8 => copied(node, operand, Cow::Borrowed(operand.as_slice::<i8>().ok()?), spare),
        ElementType::U8 => copied(node, operand, Cow::Borrowed(operand.as_slice::<u8>().ok()?), spare),
        _ => None,
    }
}

/// Sums of i32, which wrap; of narrower integers too, as if they were widened before.
fn summed(node: &Node, operand: &Tensor, spare: &mut Spare) -> Option<Tensor> {
    if node.outputs[0].element != ElementType::I32 {
        return None;
    }
    match operand.element() {
        ElementType::I8 => {
            summed_of(node, operand, Cow::Borrowed(operand.as_slice::<i8>().ok()?), bytes::add_signed, spare)
        }
        ElementType::U8 => {
            summed_of(node, operand, Cow::Borrowed(operand.as_slice::<u8>().ok()?), bytes::add_unsigned, spare)
        }
        ElementType::I32 => summed_of(node, operand, integers(operand)?, add_integers, spare),
        _ => None,
    }
}

fn add_integers(row: &[i32], sums: &mut [i32]) {
    sums.iter_mut().zip(row).for_each(|(sum, x)| *sum = sum.wrapping_add(*x));
}

/// Sums of `data`; `add` adds elements that lie side by side to sums, position by position.
fn summed_of<T: Copy + Into<i32> + Sync>(
    node: &Node,
    operand: &Tensor,
    data: Cow<'_, [T]>,
    add: fn(&[T], &mut [i32]),
    spare: &mut Spare,
) -> Option<Tensor> {
    let sizes = sizes(node)?;
    let operand = strided(&node.maps[0], &sizes, operand, data)?;
    let (output, contracted) = (&node.outputs[0].variables, node.contracted());
    let stride = output.last().map_or(0, |last| operand.strides[*last as usize]);
    let count: usize = contracted.iter().map(|v| sizes[*v as usize]).product();
    let in_rows = matches!(contracted[..], [only] if operand.strides[only as usize] == 1) && stride != 1;
    by_rows::<i32>(&shape_of(node, &sizes), (&sizes, output), spare, |position, values| {
        if in_rows {
            let start = offset(&operand.strides, position);
            for (column, value) in values.iter_mut().enumerate() {
                let row = operand.row(start + stride * column as i64, count);
                *value = row.iter().fold(0, |sum, x| sum.wrapping_add((*x).into()));
            }
            return;
        }
        values.fill(0);
        let mut position = position.to_vec();
        let first = offset(&operand.strides, &position);
        for number in 0..count {
            let start = if let [only] = contracted[..] {
                first + operand.strides[only as usize] * number as i64
            } else {
                go_to(&mut position, number, &contracted, &sizes);
                offset(&operand.strides, &position)
            };
            if stride == 1 {
                add(operand.row(start, values.len()), values);
                continue;
            }
            for (column, value) in values.iter_mut().enumerate() {
                *value = value.wrapping_add(operand.at(start + stride * column as i64).into());
            }
        }
    })
}

/// Parts that are read whole and in order, copied in blocks.
fn concatenated(node: &Node, along: usize, operands: &[Tensor], spare: &mut Spare) -> Option<Tensor> {
    let sizes = sizes(node)?;
    let output = &node.outputs[0].variables;
    let axis = output.iter().position(|v| *v as usize == along)?;
    let element = node.outputs[0].element;
    let width = element.bytes()?;
    let shape: Vec<usize> = output.iter().map(|v| sizes[*v as usize]).collect();
    let inner: usize = shape[axis + 1..].iter().product::<usize>() * width;
    let mut parts = Vec::new();
    for (map, tensor) in node.maps.iter().zip(operands) {
        // An operand may have one position of the axis, without having the axis.
        let is_single = map.exprs.len() + 1 == output.len();
        let places: Vec<usize> = (0..output.len()).filter(|place| !is_single || *place != axis).collect();
        let in_order = map.fill.is_none()
            && map.exprs.len() == places.len()
            && map.exprs.iter().zip(&places).zip(tensor.shape()).all(|((expression, place), extent)| {
                let varies = match expression.terms() {
                    [(strang_ir::Atom::Variable(v), coefficient)] => *v == output[*place] && coefficient.is(1),
                    _ => false,
                };
                varies && (*place == axis || expression.offset().is(0) && *extent == shape[*place])
            });
        if !in_order {
            return None;
        }
        parts.push((tensor.bytes(), if is_single { 1 } else { tensor.shape()[axis] } * inner));
    }
    let row = shape[axis] * inner;
    if row == 0 || parts.iter().map(|(_, bytes)| bytes).sum::<usize>() != row {
        return None;
    }
    let mut result = spare.take(element, &shape).ok()?;
    each_piece(result.bytes_mut(), row, |number, bytes| {
        let mut start = 0;
        for (data, length) in &parts {
            bytes[start..start + length].copy_from_slice(&data[number * length..(number + 1) * length]);
            start += length;
        }
        Some(())
    })?;
    Some(result)
}

/// Parts of floats that are read at affine positions, row by row, joined along an axis that is not the last.
fn side_by_side(node: &Node, along: u32, offsets: &[Size], operands: &[Tensor], spare: &mut Spare) -> Option<Tensor> {
    let sizes = sizes(node)?;
    let output = &node.outputs[0].variables;
    let last = output.last().filter(|last| **last != along && node.outputs[0].element == ElementType::F32)?;
    let starts: Vec<usize> =
        offsets.iter().map(|offset| usize::try_from(offset.as_constant()?).ok()).collect::<Option<_>>()?;
    let mut parts = Vec::new();
    for (slot, (map, tensor)) in node.maps.iter().zip(operands).enumerate() {
        // In the part, positions along the axis start from zero.
        let moved = |variable: u32| match IndexExpr::variable(variable) {
            position if variable == along => position.plus_size(&offsets[slot]),
            position => position,
        };
        let positions: Vec<IndexExpr> = (0..sizes.len() as u32).map(moved).collect();
        let map = compose(map, &positions, &|variable| node.size_of(variable));
        let mut sizes = sizes.clone();
        sizes[along as usize] = starts[slot + 1].checked_sub(starts[slot])?;
        parts.push(Operand::new(&map, &sizes, tensor)?);
    }
    by_rows::<f32>(&shape_of(node, &sizes), (&sizes, output), spare, |position, values| {
        let place = position[along as usize];
        let slot = starts.partition_point(|start| *start <= place) - 1;
        let mut position = position.to_vec();
        position[along as usize] -= starts[slot];
        let operands = std::slice::from_ref(&parts[slot]);
        let row = Row { operands, position: &position, long: Some(*last), short: &[], sizes: &sizes, width: 1 };
        row.write(&ScalarExpr::Operand(0), values);
    })
}
