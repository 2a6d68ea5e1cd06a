//! Weights that are codes of four or eight bits with scales, and perhaps zero points, of their own for blocks of an axis, as ONNX's
//! `DequantizeLinear` reads them. They are made into numbers where something reads these; packing goes back to the codes.

use super::{egraph::compose::compose, evaluate::floats};
use crate::plan::trace::variable_positions;
use petgraph::stable_graph::NodeIndex;
use rayon::prelude::*;
use std::{borrow::Cow, ops::Range};
use strang_ir::{
    Atom, ElementType, Function, IndexExpr, IndexMap, Literal, Node, Op, ScalarExpr, Tensor, Value, scalar::Binary,
};
use strang_runtime::tensor::{Cut, Make, Spare};

/// Fewer numbers are computed at once.
const FEWEST: usize = 1 << 14;
/// Numbers of a part.
const PART: usize = 1 << 16;

/// The numbers `(code - zero) * scale`, in f32.
#[derive(Clone, Debug)]
pub struct Scaled {
    /// The codes, of four or eight bits.
    pub codes: Tensor,
    /// What is taken off.
    pub zero: Option<Factor>,
    /// What is multiplied by.
    pub scale: Option<Factor>,
}

/// A number for every code.
#[derive(Clone, Debug)]
pub enum Factor {
    /// The same for all.
    One(f32),
    /// One for every block.
    Many {
        /// The numbers, or integers that stand for themselves.
        numbers: Tensor,
        /// For every axis of the codes: how many positions have a number in common, and how far apart the numbers of two are.
        places: Vec<Place>,
    },
}

/// How an axis selects a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Positions that have a number in common.
    pub block: usize,
    /// Elements from one number to the next; 0 where all positions have the same.
    pub stride: usize,
}

/// What a map of several nodes reads: where, in the variables of the last, and what.
type Operands = Vec<(IndexMap, Tensor)>;

impl Scaled {
    /// The form of what some nodes compute, operands first, of operands that have values.
    pub fn of(function: &Function, nodes: &[NodeIndex], value: &dyn Fn(Value) -> Option<Tensor>) -> Option<Scaled> {
        let node = &function.graph[*nodes.last()?];
        let mut operands = Operands::new();
        let cone = Cone { function, nodes, value, last: node };
        let expression = cone.expression(*nodes.last()?, &IndexMap::clone, &mut operands)?;
        let output = &node.outputs[0];
        let factor = |expression: &ScalarExpr| Factor::of(&output.variables, expression, &operands);
        let (difference, scale) = match &expression {
            ScalarExpr::Binary(Binary::Multiply, a, b) if is_codes(a, &operands) => (&**a, Some(factor(b)?)),
            ScalarExpr::Binary(Binary::Multiply, a, b) if is_codes(b, &operands) => (&**b, Some(factor(a)?)),
            other => (other, None),
        };
        let (codes, zero) = match difference {
            ScalarExpr::Binary(Binary::Subtract, codes, zero) => (&**codes, Some(factor(zero)?)),
            other => (other, None),
        };
        let ScalarExpr::Cast(ElementType::F32, codes) = codes else { return None };
        let ScalarExpr::Operand(slot) = **codes else { return None };
        let (map, codes) = &operands[slot as usize];
        let is_whole = map.as_variables().is_some_and(|read| read == output.variables[..]);
        let is_large = is_code(codes) && codes.count() >= FEWEST;
        (is_whole && is_large && output.element == ElementType::F32).then(|| Scaled {
            codes: codes.clone(),
            zero,
            scale,
        })
    }

    /// The numbers, computed when they are read.
    pub fn deferred(self) -> Option<Tensor> {
        let shape = self.codes.shape().to_vec();
        Tensor::deferred(ElementType::F32, &shape, self).ok()
    }

    /// Bits of a code.
    pub fn bits(&self) -> usize {
        self.codes.element().bits() as usize
    }

    /// The number that a code of so many bits stands for before anything is taken off.
    pub fn number(&self, code: u32) -> f32 {
        let unused = 32 - self.bits() as u32;
        if self.codes.element().is_signed_integer() { ((code << unused) as i32 >> unused) as f32 } else { code as f32 }
    }

    /// The numbers of some rows along the last axis, as bytes.
    fn rows(&self, rows: Range<usize>, target: &mut [u8]) {
        let shape = self.codes.shape();
        let Some((length, outer)) = shape.split_last() else { return };
        let (bytes, bits) = (self.codes.bytes(), self.bits());
        let code = |place: usize| match bits {
            4 => u32::from(bytes[place / 2] >> (place % 2 * 4) & 15),
            _ => u32::from(bytes[place]),
        };
        let [zero, scale] = [&self.zero, &self.scale].map(|factor| factor.as_ref().map(Factor::read));
        let row_bytes = (length * 4).max(1);
        target.par_chunks_exact_mut(row_bytes).zip(rows).for_each(|(target, row)| {
            let position = position(row, outer);
            let [zero, scale] = [&zero, &scale].map(|numbers| numbers.as_ref().map(|numbers| numbers.row(&position)));
            for (column, target) in target.as_chunks_mut().0.iter_mut().enumerate() {
                let mut number = self.number(code(row * length + column));
                if let Some(zero) = &zero {
                    number -= zero.at(column);
                }
                if let Some(scale) = &scale {
                    number *= scale.at(column);
                }
                *target = number.to_ne_bytes();
            }
        });
    }

    /// Rows along the last axis of one position of the first.
    fn rows_of_first(&self) -> usize {
        let shape = self.codes.shape();
        shape.get(1..shape.len().saturating_sub(1)).unwrap_or_default().iter().product()
    }
}

impl Make for Scaled {
    fn write(&self, bytes: &mut [u8], _: &mut Tensor) {
        let rows = self.codes.shape().split_last().map_or(0, |(_, outer)| outer.iter().product());
        self.rows(0..rows, bytes);
    }

    fn cut(&self) -> Option<Cut> {
        let shape = self.codes.shape();
        let of_first: usize = shape.get(1..)?.iter().product();
        (shape.len() > 1).then(|| Cut { axis: 0, length: (PART / of_first.max(1)).max(1) })
    }

    fn part(&self, positions: Range<usize>, spare: &mut Spare) -> Option<Tensor> {
        let mut shape = self.codes.shape().to_vec();
        let of_first = self.rows_of_first();
        *shape.first_mut()? = positions.len();
        let mut part = spare.take(ElementType::F32, &shape).ok()?;
        self.rows(positions.start * of_first..positions.end * of_first, part.bytes_mut());
        Some(part)
    }

    fn release(&self) {
        self.codes.release();
    }
}

/// Nodes of which the last is computed.
struct Cone<'a> {
    function: &'a Function,
    nodes: &'a [NodeIndex],
    value: &'a dyn Fn(Value) -> Option<Tensor>,
    last: &'a Node,
}

impl Cone<'_> {
    /// What a node computes out of operands that have values; `place` turns where it reads into the variables of the last node.
    fn expression(
        &self,
        index: NodeIndex,
        place: &dyn Fn(&IndexMap) -> IndexMap,
        operands: &mut Operands,
    ) -> Option<ScalarExpr> {
        let node = &self.function.graph[index];
        let Op::Map(expression) = &node.op else { return None };
        let mut parts = Vec::new();
        for (map, operand) in node.maps.iter().zip(self.function.operands(index)) {
            let map = place(map);
            if !self.nodes.contains(&operand.node) {
                operands.push((map, (self.value)(operand)?));
                parts.push(ScalarExpr::Operand(operands.len() as u32 - 1));
            } else if map.fill.is_none() && map.conditions.is_empty() {
                let positions = variable_positions(&self.function.graph[operand.node], 0, &map.exprs);
                let inner = |map: &IndexMap| compose(map, &positions, &|variable| self.last.size_of(variable));
                parts.push(self.expression(operand.node, &inner, operands)?);
            } else {
                return None;
            }
        }
        Some(expression.replace_leaves(&mut |leaf| match leaf {
            ScalarExpr::Operand(slot) => parts[*slot as usize].clone(),
            other => other.clone(),
        }))
    }
}

impl Factor {
    fn of(output: &[u32], expression: &ScalarExpr, operands: &Operands) -> Option<Factor> {
        match expression {
            ScalarExpr::Literal(literal) if literal.element == ElementType::F32 => Some(Factor::One(as_f32(*literal))),
            ScalarExpr::Cast(ElementType::F32, inner) => match &**inner {
                ScalarExpr::Literal(literal) if literal.element.bits() <= 8 => Some(Factor::One(as_f32(*literal))),
                ScalarExpr::Operand(slot) => {
                    let operand = &operands[*slot as usize];
                    if is_code(&operand.1) { Factor::many(output, operand) } else { None }
                }
                _ => None,
            },
            ScalarExpr::Operand(slot) if operands[*slot as usize].1.element() == ElementType::F32 => {
                Factor::many(output, &operands[*slot as usize])
            }
            _ => None,
        }
    }

    fn many(output: &[u32], (map, numbers): &(IndexMap, Tensor)) -> Option<Factor> {
        let places = places(map, numbers.shape(), output)?;
        match numbers.count() {
            1 => floats(numbers)?.first().copied().map(Factor::One),
            _ => Some(Factor::Many { numbers: numbers.clone(), places }),
        }
    }

    /// Where the number of a position lies along an axis; `None` if all have the same.
    pub fn place(&self, axis: usize) -> Option<Place> {
        match self {
            Factor::One(_) => None,
            Factor::Many { places, .. } => Some(places[axis]).filter(|place| place.stride > 0),
        }
    }

    /// Whether all are whole numbers, of no more than sixteen bits.
    pub fn is_whole(&self) -> bool {
        match self {
            Factor::One(number) => number.fract() == 0. && number.abs() < 65536.,
            Factor::Many { numbers, .. } => is_code(numbers),
        }
    }

    /// The numbers, for reading many of them.
    pub fn read(&self) -> Numbers<'_> {
        match self {
            Factor::One(number) => Numbers { numbers: vec![*number].into(), places: &[] },
            Factor::Many { numbers, places } => Numbers { numbers: floats(numbers).unwrap_or_default(), places },
        }
    }
}

/// Numbers for reading.
pub struct Numbers<'a> {
    numbers: Cow<'a, [f32]>,
    places: &'a [Place],
}

/// The numbers of positions that differ in the last axis alone.
struct Row<'a> {
    numbers: &'a [f32],
    start: usize,
    place: Place,
}

impl Numbers<'_> {
    /// The number of a position.
    pub fn at(&self, position: &[usize]) -> f32 {
        let offsets = position.iter().zip(self.places).map(|(index, place)| index / place.block * place.stride);
        self.numbers[offsets.sum::<usize>()]
    }

    fn row(&self, outer: &[usize]) -> Row<'_> {
        let offsets = outer.iter().zip(self.places).map(|(index, place)| index / place.block * place.stride);
        let place = self.places.last().copied().unwrap_or(Place { block: 1, stride: 0 });
        Row { numbers: &self.numbers, start: offsets.sum(), place }
    }
}

impl Row<'_> {
    fn at(&self, column: usize) -> f32 {
        self.numbers[self.start + column / self.place.block * self.place.stride]
    }
}

/// Whether an expression is codes, with a zero point or without.
fn is_codes(expression: &ScalarExpr, operands: &Operands) -> bool {
    match expression {
        ScalarExpr::Binary(Binary::Subtract, codes, _) => is_codes(codes, operands),
        ScalarExpr::Cast(ElementType::F32, inner) => {
            matches!(**inner, ScalarExpr::Operand(slot) if is_code(&operands[slot as usize].1))
        }
        _ => false,
    }
}

/// Whether the elements of a tensor are integers of four or eight bits.
fn is_code(tensor: &Tensor) -> bool {
    matches!(tensor.element(), ElementType::I4 | ElementType::U4 | ElementType::I8 | ElementType::U8)
}

/// Where a map reads for positions of the output: at one of them, or at one for each block of them.
fn places(map: &IndexMap, shape: &[usize], output: &[u32]) -> Option<Vec<Place>> {
    if map.fill.is_some() || !map.conditions.is_empty() {
        return None;
    }
    let mut places = vec![Place { block: 1, stride: 0 }; output.len()];
    let mut unit = 1;
    for (expression, extent) in map.exprs.iter().zip(shape).rev() {
        if let Some((variable, block)) = block(expression)? {
            let axis = output.iter().position(|other| *other == variable)?;
            let place = &mut places[axis];
            if place.stride > 0 {
                return None;
            }
            *place = Place { block, stride: if *extent > 1 { unit } else { 0 } };
        }
        unit *= extent;
    }
    Some(places)
}

/// The variable that an expression is, rounded down to blocks of some length; `Some(None)` for zero.
#[expect(clippy::option_option, reason = "an expression is none of these, zero, or a variable")]
fn block(expression: &IndexExpr) -> Option<Option<(u32, usize)>> {
    if !expression.offset().is(0) {
        return None;
    }
    match expression.terms() {
        [] => Some(None),
        [(Atom::Variable(variable), factor)] if factor.is(1) => Some(Some((*variable, 1))),
        [(Atom::FloorDiv(inner, size), factor)] if factor.is(1) => {
            let block = usize::try_from(size.as_constant()?).ok().filter(|block| *block > 0)?;
            Some(Some((inner.as_variable()?, block)))
        }
        _ => None,
    }
}

/// The position along some axes of a row-major place.
pub fn position(mut place: usize, shape: &[usize]) -> Vec<usize> {
    let mut position = vec![0; shape.len()];
    for (index, extent) in position.iter_mut().zip(shape).rev() {
        (*index, place) = (place % extent, place / extent);
    }
    position
}

fn as_f32(literal: Literal) -> f32 {
    literal.to_f64() as f32
}
