//! Maps of floats, row by row.

use super::{by_rows, floats, go_to, offset, shape_of, sizes};
use std::borrow::Cow;
use strang_ir::{
    Condition, ElementType, IndexExpr, IndexMap, Node, ScalarExpr, Tensor,
    scalar::{Binary, Unary},
};
use strang_runtime::tensor::Spare;

/// Axes shorter than this are not worth a loop of their own: the one before them has it.
const SHORT: usize = 16;
/// The most positions of the short axes of a row.
const MOST_SHORT: usize = 64;

/// An operand read at an affine position; where a guard fails, the fill is read.
pub struct Operand<'a> {
    data: Cow<'a, [f32]>,
    place: Affine,
    guards: Vec<Guard>,
    fill: f32,
}

/// What is affine in the variables of a node.
pub struct Affine {
    /// The value where all of them are zero.
    pub start: i64,
    /// By how much each of them moves it.
    pub strides: Vec<i64>,
}

/// An affine number that must lie in a range.
struct Guard {
    value: Affine,
    low: i64,
    high: i64,
}

impl Affine {
    /// An expression as numbers; `None` if it is not affine or a size is not known.
    fn new(expression: &IndexExpr, variables: usize) -> Option<Affine> {
        if !expression.is_affine() {
            return None;
        }
        let strides = (0..variables).map(|variable| expression.coefficient(variable as u32).as_constant());
        Some(Affine { start: expression.offset().as_constant()?, strides: strides.collect::<Option<_>>()? })
    }

    /// The element of an array that a map reads, in row-major order; `None` as for an expression.
    pub fn place(map: &IndexMap, shape: &[usize], variables: usize) -> Option<Affine> {
        let mut place = Affine { start: 0, strides: vec![0; variables] };
        let mut unit = 1i64;
        for (expression, extent) in map.exprs.iter().zip(shape).rev() {
            let value = Affine::new(expression, variables)?;
            place.start += unit * value.start;
            place.strides.iter_mut().zip(&value.strides).for_each(|(sum, stride)| *sum += unit * stride);
            unit *= *extent as i64;
        }
        Some(place)
    }

    fn at(&self, position: &[usize]) -> i64 {
        self.start + offset(&self.strides, position)
    }

    /// The smallest and the largest value.
    pub fn range(&self, sizes: &[usize]) -> (i64, i64) {
        let reach = |sign: i64| -> i64 {
            let terms = self.strides.iter().zip(sizes).filter(|(stride, _)| **stride * sign > 0);
            terms.map(|(stride, size)| stride * (*size as i64 - 1)).sum()
        };
        (self.start + reach(-1), self.start + reach(1))
    }
}

impl Guard {
    /// The positions of a variable, of those from zero to `size`, at which the guard holds. `value` is the number at zero.
    fn holds(&self, value: i64, variable: Option<u32>, size: usize) -> (usize, usize) {
        let size = size as i64;
        let (low, high) = (self.low - value, self.high - value);
        let (first, end) = match variable.map_or(0, |variable| self.value.strides[variable as usize]) {
            0 => (0, if low <= 0 && 0 < high { size } else { 0 }),
            stride if stride > 0 => (ceiling(low, stride), ceiling(high, stride)),
            stride => (ceiling(1 - high, -stride), ceiling(1 - low, -stride)),
        };
        (first.clamp(0, size) as usize, end.clamp(0, size) as usize)
    }
}

/// The quotient by a positive number, rounded up.
fn ceiling(number: i64, divisor: i64) -> i64 {
    -(-number).div_euclid(divisor)
}

impl<'a> Operand<'a> {
    /// An operand of known sizes; `None` where it is not read at affine positions, or may be read outside without a fill.
    pub fn new(map: &IndexMap, sizes: &[usize], tensor: &'a Tensor) -> Option<Self> {
        let data = floats(tensor)?;
        let place = Affine::place(map, tensor.shape(), sizes.len())?;
        let mut guards = Vec::new();
        for (expression, extent) in map.exprs.iter().zip(tensor.shape()) {
            guards.push(Guard { value: Affine::new(expression, sizes.len())?, low: 0, high: *extent as i64 });
        }
        for condition in &map.conditions {
            let Condition::Range { expression, low, high } = condition else { return None };
            let value = Affine::new(expression, sizes.len())?;
            guards.push(Guard { value, low: low.as_constant()?, high: high.as_constant()? });
        }
        if sizes.contains(&0) {
            return None;
        }
        guards.retain(|guard| {
            let (smallest, largest) = guard.value.range(sizes);
            smallest < guard.low || largest >= guard.high
        });
        let fill = match &map.fill {
            Some(fill) if fill.element == ElementType::F32 => f32::from_bits(fill.bits as u32),
            None if guards.is_empty() => 0.,
            _ => return None,
        };
        Some(Operand { data, place, guards, fill })
    }

    fn affine(&mut self) -> impl Iterator<Item = &mut Affine> {
        std::iter::once(&mut self.place).chain(self.guards.iter_mut().map(|guard| &mut guard.value))
    }
}

/// The value of a map.
pub fn mapped(node: &Node, expression: &ScalarExpr, operands: &[Tensor], spare: &mut Spare) -> Option<Tensor> {
    let mut sizes = sizes(node)?;
    let mut operands: Vec<Operand> =
        node.maps.iter().zip(operands).map(|(map, tensor)| Operand::new(map, &sizes, tensor)).collect::<Option<_>>()?;
    let shape = shape_of(node, &sizes);
    let mut output = node.outputs[0].variables.clone();
    // Axes that are read as one are one.
    while let [.., before, last] = output[..] {
        let (before, last) = (before as usize, last as usize);
        let together = |affine: &mut Affine| affine.strides[before] == affine.strides[last] * sizes[last] as i64;
        if sizes[last] != 1 && !operands.iter_mut().flat_map(Operand::affine).all(together) {
            break;
        }
        if sizes[last] != 1 {
            operands
                .iter_mut()
                .flat_map(Operand::affine)
                .for_each(|affine| affine.strides[before] = affine.strides[last]);
            sizes[before] *= sizes[last];
        }
        sizes[last] = 1;
        output.pop();
    }
    let (mut short, mut width) = (Vec::new(), 1);
    while let [.., _, last] = output[..]
        && sizes[last as usize] < SHORT
        && width * sizes[last as usize] <= MOST_SHORT
    {
        short.insert(0, last);
        width *= sizes[last as usize];
        output.pop();
    }
    let long = output.last().copied();
    let mut rows = sizes.clone();
    if let Some(long) = long {
        rows[long as usize] *= width;
    }
    by_rows::<f32>(&shape, (&rows, &output), spare, |position, values| {
        Row { operands: &operands, position, long, short: &short, sizes: &sizes, width }.write(expression, values);
    })
}

/// A row of a map: along one axis and short ones after it.
pub struct Row<'a> {
    /// What is read.
    pub operands: &'a [Operand<'a>],
    /// Where the row begins.
    pub position: &'a [usize],
    /// The axis.
    pub long: Option<u32>,
    /// The short axes, innermost last.
    pub short: &'a [u32],
    /// The sizes of all axes.
    pub sizes: &'a [usize],
    /// The positions of the short axes.
    pub width: usize,
}

impl Row<'_> {
    /// Puts the values of an expression in place of what is there.
    pub fn write(&self, expression: &ScalarExpr, values: &mut [f32]) {
        match expression {
            ScalarExpr::Operand(slot) => self.combine(*slot, values, |_, x| x),
            ScalarExpr::Cast(_, operand) => self.write(operand, values),
            ScalarExpr::Literal(literal) => values.fill(f32::from_bits(literal.bits as u32)),
            ScalarExpr::Unary(function, a) => {
                self.write(a, values);
                let function: fn(f32) -> f32 = match function {
                    Unary::Negate => |x| -x,
                    Unary::SquareRoot => f32::sqrt,
                    _ => |x| 1. / x.sqrt(),
                };
                values.iter_mut().for_each(|value| *value = function(*value));
            }
            ScalarExpr::Binary(function, a, b) => match function {
                Binary::Add => self.binary(a, b, values, |a, b| a + b),
                Binary::Subtract => self.binary(a, b, values, |a, b| a - b),
                Binary::Multiply => self.binary(a, b, values, |a, b| a * b),
                _ => self.binary(a, b, values, |a, b| a / b),
            },
            _ => unreachable!("supported expressions have no other parts"),
        }
    }

    /// Puts a function of two expressions in place of what is there, in one pass where it can.
    fn binary(&self, a: &ScalarExpr, b: &ScalarExpr, values: &mut [f32], function: impl Fn(f32, f32) -> f32) {
        match (a, b) {
            (ScalarExpr::Operand(slot), ScalarExpr::Literal(literal)) => {
                let number = f32::from_bits(literal.bits as u32);
                self.combine(*slot, values, |_, x| function(x, number));
            }
            (ScalarExpr::Operand(first), ScalarExpr::Operand(second))
                if let (Some(a), Some(b)) = (self.beside(*first, values.len()), self.beside(*second, values.len())) =>
            {
                values.iter_mut().zip(a.iter().zip(b)).for_each(|(value, (a, b))| *value = function(*a, *b));
            }
            _ => {
                self.write(a, values);
                self.combined(b, values, function);
            }
        }
    }

    /// What an operand has in the row, where that lies side by side and none of it outside.
    fn beside(&self, slot: u32, count: usize) -> Option<&[f32]> {
        let operand = &self.operands[slot as usize];
        let stride = self.long.map(|long| operand.place.strides[long as usize]);
        let is_beside = stride == Some(1) && self.width == 1 && operand.guards.is_empty();
        is_beside.then(|| &operand.data[operand.place.at(self.position) as usize..][..count])
    }

    /// Combines values with those of an expression.
    fn combined(&self, expression: &ScalarExpr, values: &mut [f32], function: impl Fn(f32, f32) -> f32) {
        match expression {
            ScalarExpr::Operand(slot) => self.combine(*slot, values, function),
            ScalarExpr::Literal(literal) => {
                let number = f32::from_bits(literal.bits as u32);
                values.iter_mut().for_each(|value| *value = function(*value, number));
            }
            _ => {
                let mut other = vec![0.; values.len()];
                self.write(expression, &mut other);
                values.iter_mut().zip(other).for_each(|(value, other)| *value = function(*value, other));
            }
        }
    }

    /// Combines values with those that an operand has in the row.
    fn combine(&self, slot: u32, values: &mut [f32], function: impl Fn(f32, f32) -> f32) {
        let operand = &self.operands[slot as usize];
        let stride = self.long.map_or(0, |long| operand.place.strides[long as usize]);
        let size = values.len() / self.width;
        let mut position = self.position.to_vec();
        for lane in 0..self.width {
            go_to(&mut position, lane, self.short, self.sizes);
            let (mut first, mut end) = (0, size);
            for guard in &operand.guards {
                let holds = guard.holds(guard.value.at(&position), self.long, size);
                (first, end) = (first.max(holds.0), end.min(holds.1));
            }
            let end = end.max(first);
            let start = operand.place.at(&position) + stride * first as i64;
            if self.width == 1 {
                let (before, inside) = values.split_at_mut(first);
                let (inside, after) = inside.split_at_mut(end - first);
                before.iter_mut().chain(after).for_each(|value| *value = function(*value, operand.fill));
                combine_with(&operand.data, start, stride, inside, &function);
            } else {
                let values = values[lane..].iter_mut().step_by(self.width);
                for (place, value) in values.enumerate() {
                    let is_inside = first <= place && place < end;
                    let read = || operand.data[(start + stride * (place - first) as i64) as usize];
                    *value = function(*value, if is_inside { read() } else { operand.fill });
                }
            }
        }
    }
}

/// Combines values with elements that lie `stride` apart.
fn combine_with(data: &[f32], start: i64, stride: i64, values: &mut [f32], function: impl Fn(f32, f32) -> f32) {
    if values.is_empty() {
        return;
    }
    let first = start as usize;
    match stride {
        0 => {
            let number = data[first];
            values.iter_mut().for_each(|value| *value = function(*value, number));
        }
        1 => values.iter_mut().zip(&data[first..]).for_each(|(value, x)| *value = function(*value, *x)),
        stride if stride > 0 => {
            let read = data[first..].iter().step_by(stride as usize);
            values.iter_mut().zip(read).for_each(|(value, x)| *value = function(*value, *x));
        }
        _ => {
            for (column, value) in values.iter_mut().enumerate() {
                *value = function(*value, data[(start + stride * column as i64) as usize]);
            }
        }
    }
}
