//! Steps: one random operation each, or a chain of operations as they stand together in networks.

use super::{chains, draft::Draft, reads::Read, tape::Tape};
use crate::{
    Atom, ElementType, IndexExpr, IndexMap, Literal, Op, ScalarExpr, Size, Value,
    op::{Monoid, Norm},
    scalar::{Binary, Unary},
};

/// Draws an operation and adds it; `None` when it would have been too large or does not fit.
pub(super) fn step(draft: &mut Draft, tape: &mut Tape) -> Option<Value> {
    let kind = tape.pick(if draft.config.irregular { 22 } else { 16 });
    // Mostly the newest value, so that chains grow.
    let back = tape.choose(&[0, 0, 0, 1, 2]).min(draft.values.len() - 1);
    let value = draft.values[draft.values.len() - 1 - back];
    if kind == 6 && draft.config.all_elements {
        return cast(draft, tape, value);
    }
    if kind == 7 && draft.config.all_elements && !draft.element_of(value).is_float() {
        return whole_numbers(draft, tape, value);
    }
    let value = as_float(draft, value)?;
    match kind {
        0 => unary(draft, tape, value),
        1 | 2 => binary(draft, tape, value),
        3 => contraction(draft, tape, value),
        4 => view(draft, tape, value),
        5 => reduce(draft, tape, value),
        8 => softmax(draft, tape, value),
        9 => norm(draft, tape, value),
        10 => expression(draft, tape, value),
        11 => concat(draft, tape, value),
        12 => chains::feed_forward(draft, tape, value),
        13 => chains::convolution(draft, tape, value),
        14 => chains::attention(draft, tape, value),
        15 => chains::pooling(draft, tape, value),
        16 => arg_reduce(draft, tape, value),
        17 => gather(draft, tape, value),
        18 => scatter(draft, tape, value),
        19 => sort(draft, tape, value),
        20 => chains::scan(draft, tape, value),
        21 => chains::quantised(draft, tape, value),
        _ => view(draft, tape, value),
    }
}

/// The value, cast to f32 where it is not a float.
fn as_float(draft: &mut Draft, value: Value) -> Option<Value> {
    if draft.element_of(value).is_float() {
        return Some(value);
    }
    let read = Read::plain(draft, value);
    map(draft, ScalarExpr::cast(ElementType::F32, ScalarExpr::Operand(0)), ElementType::F32, &[read])
}

/// All positions of a list of variables.
pub(super) fn all(sizes: &[Size]) -> Vec<u32> {
    (0..sizes.len() as u32).collect()
}

/// A map over operands that are read over the same variables.
pub(super) fn map(draft: &mut Draft, expression: ScalarExpr, element: ElementType, reads: &[Read]) -> Option<Value> {
    let sizes = reads[0].sizes.clone();
    let maps = reads.iter().map(|read| read.map.clone()).collect();
    let operands: Vec<Value> = reads.iter().map(|read| read.value).collect();
    draft.add(Op::Map(expression), &sizes, maps, (element, &all(&sizes)), &operands)
}

/// Functions that keep small values small.
const FUNCTIONS: [Unary; 28] = {
    use Unary::*;
    [
        Relu,
        Negate,
        Tanh,
        Sigmoid,
        Gelu,
        Silu,
        Absolute,
        Exp,
        Erf,
        SquareRoot,
        GeluTanh,
        Softplus,
        Mish,
        HardSwish,
        HardSigmoid6,
        Sin,
        Cos,
        Floor,
        Ceil,
        Round,
        Truncate,
        Sign,
        Log,
        LogOnePlus,
        ExpMinusOne,
        Reciprocal,
        ReciprocalSquareRoot,
        Atan,
    ]
};

fn unary(draft: &mut Draft, tape: &mut Tape, value: Value) -> Option<Value> {
    let (function, element) = (tape.choose(&FUNCTIONS), draft.element_of(value));
    let read = Read::random(draft, tape, value, Some(Literal::zero(element)));
    map(draft, ScalarExpr::unary_map(function), element, &[read])
}

/// A second operand over the variables of a first: an array of some of its axes.
pub(super) fn beside(draft: &mut Draft, tape: &mut Tape, sizes: &[Size], element: ElementType) -> Read {
    // An earlier value of the same shape, as a residual connection reads it.
    let same = draft
        .values
        .iter()
        .rev()
        .copied()
        .find(|value| draft.element_of(*value) == element && draft.shape(*value) == sizes);
    if let Some(value) = same.filter(|_| tape.once_in(3)) {
        return Read { sizes: sizes.to_vec(), ..Read::plain(draft, value) };
    }
    let kept: Vec<u32> = match tape.pick(4) {
        0 => (0..sizes.len() as u32).rev().take(1).collect(),
        1 => all(sizes),
        2 => Vec::new(),
        _ => all(sizes).into_iter().filter(|_| tape.once_in(2)).collect(),
    };
    let shape: Vec<Size> = kept.iter().map(|variable| sizes[*variable as usize].clone()).collect();
    let value = draft.source(tape, element, &shape);
    Read { value, sizes: sizes.to_vec(), map: IndexMap::of_variables(kept) }
}

fn binary(draft: &mut Draft, tape: &mut Tape, value: Value) -> Option<Value> {
    use Binary::*;
    let function = tape.choose(&[Add, Multiply, Subtract, Maximum, Minimum, Divide, Add, Power, Remainder, Modulo]);
    let element = draft.element_of(value);
    let first = Read::random(draft, tape, value, Some(Literal::zero(element)));
    let second = beside(draft, tape, &first.sizes, element);
    let reads = if tape.once_in(4) { [second, first] } else { [first, second] };
    map(draft, ScalarExpr::binary_map(function), element, &reads)
}

/// A random expression of one to three operands and of positions.
fn expression(draft: &mut Draft, tape: &mut Tape, value: Value) -> Option<Value> {
    let element = draft.element_of(value);
    let first = Read::random(draft, tape, value, Some(Literal::zero(element)));
    let sizes = first.sizes.clone();
    let mut reads = vec![first];
    for _ in 0..tape.pick(3) {
        reads.push(beside(draft, tape, &sizes, element));
    }
    let expression = tree(tape, element, (reads.len(), &sizes), 3);
    map(draft, expression, element, &reads)
}

fn tree(tape: &mut Tape, element: ElementType, (operands, sizes): (usize, &[Size]), depth: u32) -> ScalarExpr {
    let leaf = |tape: &mut Tape| match tape.pick(5) {
        3 => ScalarExpr::Literal(Literal::from_f64(element, tape.choose(&[0.5, 1., -2., 0.044715, 6.]))),
        4 if !sizes.is_empty() => ScalarExpr::cast(element, ScalarExpr::Index(tape.pick(sizes.len()) as u32)),
        _ => ScalarExpr::Operand(tape.pick(operands) as u32),
    };
    if depth == 0 {
        return leaf(tape);
    }
    let part = |tape: &mut Tape| tree(tape, element, (operands, sizes), depth - 1);
    use Binary::*;
    match tape.pick(6) {
        0 => ScalarExpr::unary(tape.choose(&FUNCTIONS), part(tape)),
        1 | 2 => {
            let function = tape.choose(&[Multiply, Add, Subtract, Maximum, Minimum, Divide]);
            ScalarExpr::binary(function, part(tape), part(tape))
        }
        3 => {
            let comparison = tape.choose(&[Less, LessOrEqual, Greater, GreaterOrEqual, Equal, NotEqual]);
            let condition = ScalarExpr::binary(comparison, part(tape), part(tape));
            ScalarExpr::select(condition, part(tape), part(tape))
        }
        4 if !sizes.is_empty() => {
            // A causal mask.
            let index = |tape: &mut Tape| ScalarExpr::Index(tape.pick(sizes.len()) as u32);
            let condition = ScalarExpr::binary(LessOrEqual, index(tape), index(tape));
            ScalarExpr::select(condition, part(tape), part(tape))
        }
        _ => leaf(tape),
    }
}

/// A product of the value and an array over some of its variables and a new one, summed over the former.
fn contraction(draft: &mut Draft, tape: &mut Tape, value: Value) -> Option<Value> {
    let element = draft.element_of(value);
    let read = Read::random(draft, tape, value, Some(Literal::zero(element)));
    let rank = read.sizes.len();
    let mut sizes = read.sizes;
    // The last variable is contracted, sometimes others too; sometimes the array has a kept one as well (a batch).
    let contracted: Vec<usize> = (0..rank).filter(|v| *v + 1 == rank || tape.once_in(5)).collect();
    let shared: Vec<usize> = (0..rank).filter(|v| !contracted.contains(v) && tape.once_in(5)).collect();
    sizes.push(draft.size(tape));
    let mut axes: Vec<usize> = [shared, contracted.clone(), vec![rank]].concat();
    if tape.once_in(3) {
        axes.rotate_left(1);
    }
    let shape: Vec<Size> = axes.iter().map(|variable| sizes[*variable].clone()).collect();
    if draft.count(&shape) > draft.config.elements {
        return None;
    }
    let weight = draft.source(tape, element, &shape);
    let map = IndexMap::of_variables(axes.into_iter().map(|variable| variable as u32));
    // The node's variables stand in another order: that of the sums, and that of the result's axes.
    let order = tape.order(sizes.len());
    let place = |variable: usize| order.iter().position(|other| *other == variable).unwrap_or(0) as u32;
    let kept: Vec<u32> = (0..sizes.len()).filter(|v| !contracted.contains(v)).map(place).collect();
    let kept: Vec<u32> = tape.order(kept.len()).into_iter().map(|position| kept[position]).collect();
    let renumbered = |map: &IndexMap| {
        let mut map = map.clone();
        let rename = |e: &IndexExpr| {
            e.substitute(&|v| IndexExpr::variable(place(v as usize)), &|slot| slot, &|v| {
                sizes[order[v as usize]].clone()
            })
        };
        map.exprs = map.exprs.iter().map(rename).collect();
        for condition in &mut map.conditions {
            match condition {
                crate::Condition::Range { expression, .. } | crate::Condition::Divisible { expression, .. } => {
                    *expression = rename(expression);
                }
            }
        }
        map
    };
    let ordered: Vec<Size> = order.iter().map(|variable| sizes[*variable].clone()).collect();
    let maps = vec![renumbered(&read.map), renumbered(&map)];
    let op = Op::Dot { accumulator: element.accumulator() };
    draft.add(op, &ordered, maps, (element, &kept), &[value, weight])
}

fn view(draft: &mut Draft, tape: &mut Tape, value: Value) -> Option<Value> {
    let element = draft.element_of(value);
    let fill = tape.choose(&[Literal::zero(element), Literal::one(element), Literal::lowest(element)]);
    let read = Read::random(draft, tape, value, Some(fill));
    draft.add(Op::View, &read.sizes, vec![read.map.clone()], (element, &all(&read.sizes)), &[value])
}

/// The variables that stay when some, mostly the last, are contracted.
fn kept_of(tape: &mut Tape, rank: usize) -> Vec<u32> {
    let kept: Vec<u32> = (0..rank).filter(|v| *v + 1 != rank && !tape.once_in(4)).map(|v| v as u32).collect();
    if tape.once_in(4) { (1..rank as u32).collect() } else { kept }
}

fn reduce(draft: &mut Draft, tape: &mut Tape, value: Value) -> Option<Value> {
    let element = draft.element_of(value);
    let monoid = tape.choose(&[Monoid::Sum, Monoid::Maximum, Monoid::Sum, Monoid::Minimum, Monoid::Product]);
    let read = Read::random(draft, tape, value, Some(monoid.neutral(element)));
    let kept = kept_of(tape, read.sizes.len());
    draft.add(Op::Reduce(monoid), &read.sizes, vec![read.map.clone()], (element, &kept), &[value])
}

fn arg_reduce(draft: &mut Draft, tape: &mut Tape, value: Value) -> Option<Value> {
    let read = Read::random(draft, tape, value, None);
    let along = read.sizes.len().checked_sub(1)?.saturating_sub(tape.pick(2));
    let kept: Vec<u32> = all(&read.sizes).into_iter().filter(|variable| *variable as usize != along).collect();
    let op = Op::ArgReduce { largest: !tape.once_in(2), last: tape.once_in(2) };
    draft.add(op, &read.sizes, vec![read.map.clone()], (ElementType::I64, &kept), &[value])
}

/// Some variables to normalise over, mostly the last.
fn over(tape: &mut Tape, rank: usize) -> Vec<u32> {
    let last = rank as u32 - 1;
    match tape.pick(5) {
        3 => vec![0],
        4 if rank > 1 => vec![last - 1, last],
        _ => vec![last],
    }
}

fn softmax(draft: &mut Draft, tape: &mut Tape, value: Value) -> Option<Value> {
    let element = draft.element_of(value);
    let read = Read::random(draft, tape, value, Some(Literal::lowest(element)));
    if read.sizes.is_empty() {
        return None;
    }
    let op = Op::Softmax { over: over(tape, read.sizes.len()), log: tape.once_in(4) };
    let kept: Vec<u32> = tape.order(read.sizes.len()).into_iter().map(|variable| variable as u32).collect();
    draft.add(op, &read.sizes, vec![read.map.clone()], (element, &kept), &[value])
}

fn norm(draft: &mut Draft, tape: &mut Tape, value: Value) -> Option<Value> {
    let element = draft.element_of(value);
    let read = Read::random(draft, tape, value, None);
    if read.sizes.is_empty() {
        return None;
    }
    let kind = tape.choose(&[Norm::Layer, Norm::Rms, Norm::Batch]);
    let over = if kind == Norm::Batch { vec![] } else { over(tape, read.sizes.len()) };
    let statistics = match kind {
        Norm::Layer => 1 + tape.pick(2),
        Norm::Rms => 1,
        Norm::Batch => 4,
    };
    let axis = read.sizes.len() as u32 - 1;
    let (mut maps, mut operands) = (vec![read.map.clone()], vec![value]);
    for slot in 0..statistics {
        let source = draft.source(tape, element, std::slice::from_ref(&read.sizes[axis as usize]));
        // A variance is not negative.
        operands.push(if slot == 3 { absolute(draft, source)? } else { source });
        maps.push(IndexMap::of_variables([axis]));
    }
    let op = Op::Norm { kind, over, epsilon: Literal::from_f64(ElementType::F64, 1e-5) };
    draft.add(op, &read.sizes, maps, (element, &all(&read.sizes)), &operands)
}

fn absolute(draft: &mut Draft, value: Value) -> Option<Value> {
    let (read, element) = (Read::plain(draft, value), draft.element_of(value));
    map(draft, ScalarExpr::unary_map(Unary::Absolute), element, &[read])
}

fn cast(draft: &mut Draft, tape: &mut Tape, value: Value) -> Option<Value> {
    use ElementType::*;
    let element = tape.choose(&[F32, F16, BF16, F64, I32, I8, Bool, I64, U8, I16, U16, U32, U64, I4, U4, I2, U2]);
    let read = Read::plain(draft, value);
    map(draft, ScalarExpr::cast(element, ScalarExpr::Operand(0)), element, &[read])
}

/// Arithmetic of integers and `bool`.
fn whole_numbers(draft: &mut Draft, tape: &mut Tape, value: Value) -> Option<Value> {
    use Binary::*;
    let element = draft.element_of(value);
    let first = Read::random(draft, tape, value, Some(Literal::zero(element)));
    if element == ElementType::Bool {
        let second = beside(draft, tape, &first.sizes, element);
        let function = tape.choose(&[And, Or, Xor]);
        return map(draft, ScalarExpr::binary_map(function), element, &[first, second]);
    }
    if tape.once_in(3) {
        let function = tape.choose(&[Unary::Negate, Unary::Absolute, Unary::Not, Unary::Relu, Unary::Sign]);
        return map(draft, ScalarExpr::unary_map(function), element, &[first]);
    }
    let second = beside(draft, tape, &first.sizes, element);
    let function = tape.choose(&[
        Add, Subtract, Multiply, Maximum, Minimum, Divide, Remainder, Modulo, And, Or, Xor, ShiftLeft, ShiftRight,
        Power, Less,
    ]);
    let result = if function.is_comparison() { ElementType::Bool } else { element };
    map(draft, ScalarExpr::binary_map(function), result, &[first, second])
}

fn concat(draft: &mut Draft, tape: &mut Tape, value: Value) -> Option<Value> {
    let (shape, element) = (draft.shape(value), draft.element_of(value));
    let axis = shape.len().checked_sub(1)?.saturating_sub(tape.pick(3));
    let mut operands = vec![value];
    let mut starts = vec![Size::ZERO];
    let mut offsets = vec![Size::ZERO, shape[axis].clone()];
    if draft.number(&shape[axis]) > 1 && tape.once_in(3) {
        // The first position alone, and perhaps the others where they are.
        offsets[1] = Size::ONE;
        if tape.once_in(2) {
            operands.push(value);
            starts.push(Size::ONE);
            offsets.push(shape[axis].clone());
        }
    }
    for _ in 0..=tape.pick(2) {
        let mut other = shape.clone();
        if tape.once_in(2) {
            other[axis] = draft.size(tape);
        }
        let part = if other == shape && tape.once_in(2) { value } else { draft.source(tape, element, &other) };
        operands.push(part);
        starts.push(Size::ZERO);
        offsets.push(&offsets[offsets.len() - 1] + &other[axis]);
    }
    let maps = starts.iter().zip(&offsets).map(|(start, offset)| {
        IndexMap::new(
            (0..shape.len())
                .map(|v| {
                    let variable = IndexExpr::variable(v as u32);
                    if v == axis { variable.plus_size(&(start - offset)) } else { variable }
                })
                .collect(),
        )
    });
    let maps = maps.collect();
    let mut sizes = shape;
    sizes[axis] = offsets[offsets.len() - 1].clone();
    let op = Op::Concat { along: axis as u32, offsets };
    draft.add(op, &sizes, maps, (element, &all(&sizes)), &operands)
}

/// Rows (or elements of another axis) of the value at positions of another array.
fn gather(draft: &mut Draft, tape: &mut Tape, value: Value) -> Option<Value> {
    let (shape, element) = (draft.shape(value), draft.element_of(value));
    let axis = if shape.is_empty() { return None } else { tape.pick(shape.len()) };
    let limit = draft.number(&shape[axis]);
    let index_shape: Vec<Size> = (0..tape.choose(&[1, 1, 2, 0])).map(|_| draft.size(tape)).collect();
    if draft.count(&index_shape) * draft.count(&shape) > draft.config.elements * limit {
        return None;
    }
    let indices = draft.indices(tape, &index_shape, limit);
    // The variables: those of the indices in place of the axis that they select from.
    let sizes = [&shape[..axis], &index_shape, &shape[axis + 1..]].concat();
    let exprs = (0..shape.len()).map(|v| match v {
        v if v < axis => IndexExpr::variable(v as u32),
        v if v == axis => IndexExpr::atom(Atom::Read(1)),
        v => IndexExpr::variable((v + index_shape.len() - 1) as u32),
    });
    let source = IndexMap::new(exprs.collect());
    let at = IndexMap::of_variables((axis..axis + index_shape.len()).map(|v| v as u32));
    draft.add(Op::Gather, &sizes, vec![source, at], (element, &all(&sizes)), &[value, indices])
}

/// Updates into rows of the value.
fn scatter(draft: &mut Draft, tape: &mut Tape, value: Value) -> Option<Value> {
    let (shape, element) = (draft.shape(value), draft.element_of(value));
    let rank = shape.len();
    let rows = if rank == 0 { return None } else { draft.number(&shape[0]) };
    let count = draft.size(tape);
    let update_shape = [std::slice::from_ref(&count), &shape[1..]].concat();
    if draft.count(&update_shape) > draft.config.elements {
        return None;
    }
    let indices = draft.indices(tape, std::slice::from_ref(&count), rows);
    let updates = draft.source(tape, element, &update_shape);
    let reduction =
        tape.choose(&[Some(Monoid::Sum), None, Some(Monoid::Maximum), Some(Monoid::Minimum), Some(Monoid::Product)]);
    let rest = 1..rank as u32;
    let target = std::iter::once(IndexExpr::atom(Atom::Read(2))).chain(rest.clone().map(IndexExpr::variable)).collect();
    let new = rank as u32;
    let maps = vec![
        IndexMap::of_variables(0..new),
        IndexMap::of_variables(std::iter::once(new).chain(rest)),
        IndexMap::of_variables([new]),
    ];
    let kept = all(&shape);
    let sizes = [shape, vec![count]].concat();
    draft.add(Op::Scatter { reduction, target }, &sizes, maps, (element, &kept), &[value, updates, indices])
}

fn sort(draft: &mut Draft, tape: &mut Tape, value: Value) -> Option<Value> {
    let (mut sizes, element) = (draft.shape(value), draft.element_of(value));
    let rank = sizes.len() as u32;
    let along = if rank == 0 { return None } else { tape.pick(rank as usize) as u32 };
    let size = sizes[along as usize].clone();
    let kept_size = if tape.once_in(2) { Size::from(1 + tape.pick(draft.number(&size)) as i64) } else { size };
    sizes.push(kept_size);
    let kept: Vec<u32> = (0..rank).map(|v| if v == along { rank } else { v }).collect();
    let op = Op::Sort { along, kept: rank, descending: tape.once_in(2) };
    let values = draft.add(op, &sizes, vec![IndexMap::of_variables(0..rank)], (element, &kept), &[value])?;
    let positions = draft.add_output(values, ElementType::I64, &kept);
    Some(if tape.once_in(4) { positions } else { values })
}
