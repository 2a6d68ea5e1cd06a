//! Operators whose results are as long as the data say: `NonZero`, `Compress`, `Unique` and `NonMaxSuppression`. The
//! length must be known while importing, from constants or from given inputs; what is selected is computed when the
//! circuit runs.

use super::{
    reduce::reduced,
    scalar::{add, apply, cast, div, equal, less, max, min, mul, number, operand, size, sub},
    shape::transposed,
};
use crate::import::onnx::{
    call::{Call, Imported},
    draft::Draft,
    error::ImportError,
    values::Item,
};
use strang_ir::{
    Atom, IndexExpr, Literal, Op, ScalarExpr, Value,
    op::Monoid,
    scalar::{Binary, Unary},
};
use strang_runtime::{ElementType, Size};

const INT: ElementType = ElementType::I64;

/// Positions of the flags that are set in a vector of bools, ascending.
fn selected(call: &mut Call, flags: Value) -> Result<Value, ImportError> {
    let bits = call.map(&[flags], cast(INT, ElementType::Bool, operand(0)))?;
    let total = reduced(call, bits, &[0], Monoid::Sum, false);
    let known = call.importer.evaluated(total).map(|tensor| Size::from(tensor.bits_at(0) as i64));
    let count = known.ok_or_else(|| {
        call.unsupported("the size of its result depends on data that are not known when the model is imported")
    })?;
    Ok(sorted(call, bits, true, &count).1)
}

/// The first elements of a sorted vector, equal ones in order, and their positions.
fn sorted(call: &mut Call, vector: Value, descending: bool, count: &Size) -> (Value, Value) {
    let (mut draft, output) = Draft::over(std::slice::from_ref(count));
    let along = draft.variable(&call.shape_of(vector)[0]);
    draft.read_at(vector, &[along]);
    let element = call.element_of(vector);
    let op = Op::Sort { along, kept: output[0], descending };
    let values = call.emit_many(draft, op, vec![(element, output.clone()), (INT, output)]);
    (values[0], values[1])
}

/// Elements of a vector at positions.
fn elements(call: &mut Call, vector: Value, positions: Value) -> Value {
    taken(call, vector, positions, 0)
}

/// The slices of an axis at positions.
fn taken(call: &mut Call, value: Value, positions: Value, axis: usize) -> Value {
    let mut sizes = call.shape_of(value);
    sizes[axis] = call.shape_of(positions)[0].clone();
    let (mut draft, variables) = Draft::over(&sizes);
    let mut exprs: Vec<IndexExpr> = variables.iter().map(|variable| IndexExpr::variable(*variable)).collect();
    exprs[axis] = IndexExpr::atom(Atom::Read(1));
    draft.read(value, exprs);
    draft.read_at(positions, &variables[axis..=axis]);
    let element = call.element_of(value);
    call.emit(draft, Op::Gather, element, &variables)
}

/// Positions in row-major order as one row of indices an axis: [axes, positions].
fn unravelled(call: &mut Call, positions: Value, sizes: &[Size]) -> Result<Value, ImportError> {
    let count = call.shape_of(positions)[0].clone();
    let mut rows = Vec::new();
    for axis in 0..sizes.len() {
        let behind: Size = sizes[axis + 1..].iter().cloned().product();
        let quotient = div(operand(0), size(INT, &behind));
        let index = ScalarExpr::binary(Binary::Remainder, quotient, size(INT, &sizes[axis]));
        let row = call.map(&[positions], index)?;
        rows.push(call.reshape(row, &[Size::ONE, count.clone()]));
    }
    super::shape::concatenated(call, &rows, 0)
}

/// `NonZero`: the indices of the elements that are not zero, one row an axis.
pub fn non_zero(call: &mut Call) -> Imported {
    let x = call.value(0)?;
    let mut sizes = call.shape_of(x);
    if sizes.is_empty() {
        sizes.push(Size::ONE);
    }
    let element = call.element_of(x);
    let zero = ScalarExpr::Literal(Literal::zero(element));
    let flags = call.map(&[x], ScalarExpr::binary(Binary::NotEqual, operand(0), zero))?;
    let flags = call.reshape(flags, &[sizes.iter().cloned().product()]);
    let positions = selected(call, flags)?;
    Ok(vec![unravelled(call, positions, &sizes)?.into()])
}

/// `Compress`: the slices of an axis, or the elements, whose condition holds.
pub fn compress(call: &mut Call) -> Imported {
    let (mut x, condition) = (call.value(0)?, call.value(1)?);
    let axis = match call.attributes.int("axis")? {
        Some(axis) => call.axis(axis, call.shape_of(x).len())?,
        None => {
            let count: Size = call.shape_of(x).into_iter().product();
            x = call.reshape(x, &[count]);
            0
        }
    };
    if call.shape_of(condition).len() != 1 {
        return Err(call.operand_error(1, "the condition has one axis"));
    }
    let positions = selected(call, condition)?;
    Ok(vec![taken(call, x, positions, axis).into()])
}

/// For every slice of an axis the number of slices that come before it in lexicographic order: equal for equal slices.
fn ranks(call: &mut Call, x: Value, axis: usize) -> Result<Value, ImportError> {
    let sizes = call.shape_of(x);
    let order: Vec<usize> = [axis].into_iter().chain((0..sizes.len()).filter(|other| *other != axis)).collect();
    let rest: Size = order[1..].iter().map(|other| sizes[*other].clone()).product();
    let turned = transposed(call, x, &order);
    let rows = call.reshape(turned, &[sizes[axis].clone(), rest.clone()]);
    let count = sizes[axis].clone();
    // The first column in which each pair of rows differs.
    let (mut draft, variables) = Draft::over(&[count.clone(), count.clone(), rest]);
    draft.read_at(rows, &[variables[0], variables[2]]);
    draft.read_at(rows, &[variables[1], variables[2]]);
    let differs = cast(INT, ElementType::Bool, ScalarExpr::binary(Binary::NotEqual, operand(0), operand(1)));
    let differs = call.emit(draft, Op::Map(differs), INT, &variables);
    let (mut draft, variables) = Draft::over(&call.shape_of(differs));
    draft.read_at(differs, &variables);
    let op = Op::ArgReduce { largest: true, last: false };
    let columns = call.emit(draft, op, INT, &variables[..2]);
    let element = call.element_of(x);
    let mut pair = Vec::new();
    for row in 0..2 {
        let (mut draft, variables) = Draft::over(&[count.clone(), count.clone()]);
        draft.read(rows, vec![IndexExpr::variable(variables[row]), IndexExpr::atom(Atom::Read(1))]);
        draft.read_at(columns, &variables);
        pair.push(call.emit(draft, Op::Gather, element, &variables));
    }
    let after = cast(INT, ElementType::Bool, less(operand(1), operand(0)));
    let after = call.map(&pair, after)?;
    Ok(reduced(call, after, &[1], Monoid::Sum, false))
}

/// `Unique`: each different element, or slice of an axis, once.
pub fn unique(call: &mut Call) -> Imported {
    let sort = call.attributes.flag("sorted", true)?;
    let mut x = call.value(0)?;
    let (axis, keys) = match call.attributes.int("axis")? {
        Some(axis) => {
            let axis = call.axis(axis, call.shape_of(x).len())?;
            (axis, ranks(call, x, axis)?)
        }
        None => {
            let count: Size = call.shape_of(x).into_iter().product();
            x = call.reshape(x, &[count]);
            (0, x)
        }
    };
    let total = call.shape_of(keys)[0].clone();
    let (ordered, places) = sorted(call, keys, false, &total);
    // Where a run of equal keys begins.
    let (mut draft, variables) = Draft::over(std::slice::from_ref(&total));
    let here = IndexExpr::variable(variables[0]);
    let before =
        IndexExpr::atom(Atom::Clamp(Box::new(here.plus_size(&Size::from(-1))), Size::ZERO, &total - &Size::ONE));
    draft.read(ordered, vec![here]);
    draft.read(ordered, vec![before]);
    let first = equal(ScalarExpr::Index(variables[0]), ScalarExpr::Literal(Literal::i64(0)));
    let begins = ScalarExpr::binary(Binary::Or, first, ScalarExpr::binary(Binary::NotEqual, operand(0), operand(1)));
    let begins = call.emit(draft, Op::Map(begins), ElementType::Bool, &variables);
    let starts = selected(call, begins)?;
    let count = call.shape_of(starts)[0].clone();
    // Equal keys keep their order, so that the first of a run is the first in the input.
    let mut indices = elements(call, places, starts);
    let ends = {
        let (mut draft, variables) = Draft::over(std::slice::from_ref(&count));
        let next = IndexExpr::variable(variables[0]).plus_size(&Size::ONE);
        let next = IndexExpr::atom(Atom::Clamp(Box::new(next), Size::ZERO, &count - &Size::ONE));
        draft.read(starts, vec![next]);
        let last = equal(ScalarExpr::Index(variables[0]), size(INT, &(&count - &Size::ONE)));
        let end = ScalarExpr::select(last, size(INT, &total), operand(0));
        call.emit(draft, Op::Map(end), INT, &variables)
    };
    let mut counts = call.map(&[ends, starts], sub(operand(0), operand(1)))?;
    // Every element belongs to the run with the last start that is not behind it.
    let runs = {
        let (mut draft, variables) = Draft::over(&[total.clone(), count.clone()]);
        draft.read_at(starts, &variables[1..]);
        let begun = ScalarExpr::binary(Binary::LessOrEqual, operand(0), ScalarExpr::Index(variables[0]));
        let begun = call.emit(draft, Op::Map(cast(INT, ElementType::Bool, begun)), INT, &variables);
        let passed = reduced(call, begun, &[1], Monoid::Sum, false);
        call.map(&[passed], sub(operand(0), number(INT, 1.)))?
    };
    let mut runs = runs;
    if !sort {
        let (_, order) = sorted(call, indices, false, &count);
        indices = elements(call, indices, order);
        counts = elements(call, counts, order);
        let (_, place) = sorted(call, order, false, &count);
        runs = elements(call, place, runs);
    }
    let mut inverse = Vec::new();
    if call.wants(2) {
        let zeros = call.filled(Literal::zero(INT), std::slice::from_ref(&total));
        let (mut draft, output) = Draft::over(std::slice::from_ref(&total));
        let from = draft.variable(&total);
        draft.read_at(zeros, &output);
        draft.read_at(runs, &[from]);
        draft.read_at(places, &[from]);
        let target = vec![IndexExpr::atom(Atom::Read(2))];
        inverse.push(call.emit(draft, Op::Scatter { reduction: None, target }, INT, &output));
    }
    let y = taken(call, x, indices, axis);
    let inverse = inverse.first().map_or(Item::Absent, |value| Item::from(*value));
    Ok(vec![y.into(), indices.into(), inverse, counts.into()])
}

/// The corners of boxes, [batch, boxes, 4], as the smallest and largest coordinate of each axis.
fn corners(centred: bool, first: u32) -> [ScalarExpr; 4] {
    let [a, b, c, d] = [0, 1, 2, 3].map(|part| operand(first + part));
    if centred {
        let half = |x| mul(x, number(ElementType::F32, 0.5));
        [sub(a.clone(), half(c.clone())), sub(b.clone(), half(d.clone())), add(a, half(c)), add(b, half(d))]
    } else {
        [min(a.clone(), c.clone()), min(b.clone(), d.clone()), max(a, c), max(b, d)]
    }
}

/// `NonMaxSuppression`: of boxes that overlap too much only the one with the best score, class by class.
pub fn suppress(call: &mut Call) -> Imported {
    let float = ElementType::F32;
    let centred = call.attributes.flag("center_point_box", false)?;
    let (boxes, scores) = (call.value(0)?, call.value(1)?);
    let (shape, classes) = (call.shape_of(boxes), call.shape_of(scores));
    if shape.len() != 3 || classes.len() != 3 || !shape[2].is(4) || call.element_of(boxes) != float {
        return Err(call.error(format!("boxes {shape:?} and scores {classes:?} do not fit")));
    }
    let scalar = |call: &mut Call, slot: usize| -> Result<Option<Value>, ImportError> {
        let value = call.optional(slot)?;
        Ok(value.map(|value| call.reshape(value, &[])))
    };
    let most = match scalar(call, 2)? {
        Some(most) => most,
        None => call.constant(Literal::i64(0)),
    };
    let overlap = match scalar(call, 3)? {
        Some(overlap) => overlap,
        None => call.constant(Literal::zero(float)),
    };
    let least = match scalar(call, 4)? {
        Some(least) => least,
        None => call.constant(Literal::lowest(float)),
    };
    let (batch, class, count) = (classes[0].clone(), classes[1].clone(), classes[2].clone());
    // Boxes from the best score down, class by class.
    let (mut draft, output) = Draft::over(&classes);
    let along = draft.variable(&count);
    draft.read_at(scores, &[output[0], output[1], along]);
    let op = Op::Sort { along, kept: output[2], descending: true };
    let results = call.emit_many(draft, op, vec![(float, output.clone()), (INT, output)]);
    let (best, order) = (results[0], results[1]);
    let arranged = {
        let sizes = [batch.clone(), class.clone(), count.clone(), Size::from(4)];
        let (mut draft, variables) = Draft::over(&sizes);
        let (image, part) = (IndexExpr::variable(variables[0]), IndexExpr::variable(variables[3]));
        draft.read(boxes, vec![image, IndexExpr::atom(Atom::Read(1)), part]);
        draft.read_at(order, &variables[..3]);
        call.emit(draft, Op::Gather, float, &variables)
    };
    // Whether two boxes overlap too much: [boxes, batch, classes, boxes], so that a step reads one row.
    let sizes = [count.clone(), batch.clone(), class.clone(), count.clone()];
    let (mut draft, variables) = Draft::over(&sizes);
    for which in [variables[0], variables[3]] {
        for part in 0..4 {
            let place = [variables[1], variables[2], which].map(IndexExpr::variable);
            draft.read(arranged, [&place[..], &[IndexExpr::constant(part)]].concat());
        }
    }
    draft.read(overlap, vec![]);
    let zero = || number(float, 0.);
    let ([a, b, c, d], [e, f, g, h]) = (corners(centred, 0), corners(centred, 4));
    let area = |low: [ScalarExpr; 2], high: [ScalarExpr; 2]| {
        let ([a, b], [c, d]) = (low, high);
        mul(max(sub(c, a), zero()), max(sub(d, b), zero()))
    };
    let shared = area(
        [max(a.clone(), e.clone()), max(b.clone(), f.clone())],
        [min(c.clone(), g.clone()), min(d.clone(), h.clone())],
    );
    let union = sub(add(area([a, b], [c, d]), area([e, f], [g, h])), shared.clone());
    let ratio = ScalarExpr::select(less(zero(), union.clone()), div(shared, union), zero());
    let close = call.emit(draft, Op::Map(less(operand(8), ratio)), ElementType::Bool, &variables);
    // Candidates one after the other: a candidate stays if it is no neighbour of one that stayed.
    let state_sizes = [batch.clone(), class.clone(), count.clone()];
    let flag_sizes = [batch.clone(), class.clone()];
    let candidates = {
        let (mut draft, variables) = Draft::over(&[count.clone(), batch.clone(), class.clone()]);
        draft.read_at(best, &[variables[1], variables[2], variables[0]]);
        draft.read(least, vec![]);
        call.emit(draft, Op::Map(less(operand(1), operand(0))), ElementType::Bool, &variables)
    };
    let positions = {
        let (draft, variables) = Draft::over(std::slice::from_ref(&count));
        call.emit(draft, Op::Map(ScalarExpr::Index(variables[0])), INT, &variables)
    };
    let name = format!("{}_step", call.importer.origin.base);
    let boolean = ElementType::Bool;
    call.importer.open_made_body(&name);
    let kept = call.importer.builder_mut().input("kept", boolean, &state_sizes);
    let near = call.importer.builder_mut().input("near", boolean, &state_sizes);
    let candidate = call.importer.builder_mut().input("candidate", boolean, &flag_sizes);
    let position = call.importer.builder_mut().input("position", INT, &[]);
    let most_inside = call.importer.builder_mut().input("most", INT, &[]);
    let blocked = call.map(&[kept, near], ScalarExpr::binary(Binary::And, operand(0), operand(1)))?;
    let blocked = reduced(call, blocked, &[2], Monoid::Or, false);
    let bits = call.map(&[kept], cast(INT, boolean, operand(0)))?;
    let number_kept = reduced(call, bits, &[2], Monoid::Sum, false);
    let (mut draft, variables) = Draft::over(&flag_sizes);
    for value in [candidate, blocked, number_kept] {
        draft.read_at(value, &variables);
    }
    draft.read(most_inside, vec![]);
    let free = ScalarExpr::binary(Binary::And, operand(0), apply(Unary::Not, operand(1)));
    let stays = ScalarExpr::binary(Binary::And, free, less(operand(2), operand(3)));
    let stays = call.emit(draft, Op::Map(stays), boolean, &variables);
    let (mut draft, variables) = Draft::over(&state_sizes);
    draft.read_at(kept, &variables);
    draft.read_at(stays, &variables[..2]);
    draft.read(position, vec![]);
    let here = ScalarExpr::binary(Binary::And, operand(1), equal(ScalarExpr::Index(variables[2]), operand(2)));
    let next = ScalarExpr::binary(Binary::Or, operand(0), here);
    let next = call.emit(draft, Op::Map(next), boolean, &variables);
    let body = call.importer.close_made_body(&[next]);
    let none = call.filled(Literal::bool(false), &state_sizes);
    let mut draft = Draft::default();
    let along = draft.variable(&count);
    let state = draft.variables(&state_sizes);
    draft.read_at(none, &state);
    let others = draft.variables(&state_sizes);
    draft.read_at(close, &[&[along], others.as_slice()].concat());
    let flags = draft.variables(&flag_sizes);
    draft.read_at(candidates, &[&[along], flags.as_slice()].concat());
    draft.read_at(positions, &[along]);
    draft.read(most, vec![]);
    let output = draft.variables(&state_sizes);
    let op = Op::Scan { body, along, reverse: false, states: 1 };
    let kept = call.emit_many(draft, op, vec![(boolean, output)])[0];
    // The kept candidates in order, as batch, class and box.
    let flat = call.reshape(kept, &[state_sizes.iter().cloned().product()]);
    let places = selected(call, flat)?;
    let rows = unravelled(call, places, &state_sizes)?;
    let order = call.reshape(order, &[state_sizes.iter().cloned().product()]);
    let chosen = elements(call, order, places);
    let (mut draft, variables) = Draft::over(&[call.shape_of(places)[0].clone(), Size::from(3)]);
    draft.read(rows, vec![IndexExpr::variable(variables[1]), IndexExpr::variable(variables[0])]);
    draft.read_at(chosen, &variables[..1]);
    let last = equal(ScalarExpr::Index(variables[1]), ScalarExpr::Literal(Literal::i64(2)));
    let result = ScalarExpr::select(last, operand(1), operand(0));
    Ok(vec![call.emit(draft, Op::Map(result), INT, &variables).into()])
}
