//! Arrays of the interpreter: every float is held as f64 and every integer as i128, which hold each value of each element
//! type exactly. Wide arithmetic leaves floats unrounded in there; typed arithmetic rounds before it stores.

use super::{InterpretError, numerics};
use crate::Literal;
use strang_runtime::{ElementType, Tensor};

/// A number while it is computed with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// Of a float type.
    Float(f64),
    /// Of an integer type or `bool`.
    Integer(i128),
}

impl Number {
    /// The value of a literal.
    pub fn of(literal: Literal) -> Self {
        match literal.to_integer() {
            Some(value) => Number::Integer(value),
            None => Number::Float(literal.to_f64()),
        }
    }

    /// The value as f64 (integers beyond 2^53 are rounded).
    pub fn to_f64(self) -> f64 {
        match self {
            Number::Float(value) => value,
            Number::Integer(value) => value as f64,
        }
    }

    /// The value as an integer; floats truncate.
    pub fn to_i128(self) -> i128 {
        match self {
            Number::Float(value) => value as i128,
            Number::Integer(value) => value,
        }
    }

    /// Whether this is `true`.
    pub(super) fn holds(self) -> bool {
        self.to_f64() != 0.
    }

    /// The bits of the value in an element type, rounded to nearest even.
    pub fn to_bits(self, element: ElementType) -> u64 {
        match self {
            Number::Float(value) => Literal::from_f64(element, numerics::round(element, value)).bits,
            Number::Integer(value) => Literal::from_integer(element, numerics::wrap(element, value)).bits,
        }
    }
}

/// The elements of an [`Array`], row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Of a float type.
    Float(Vec<f64>),
    /// Of an integer type or `bool`.
    Integer(Vec<i128>),
}

/// A dense row-major array.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// The type of its port; in wide arithmetic, floats are not rounded to it.
    pub element: ElementType,
    /// The sizes of its axes, outermost first.
    pub shape: Vec<usize>,
    /// Its elements.
    pub data: Data,
}

impl Array {
    /// The elements of a tensor.
    pub fn from_tensor(tensor: &Tensor) -> Self {
        let (element, count) = (tensor.element(), tensor.count());
        let data = if element.is_float() {
            // The commonest type, without a decision per element.
            match tensor.as_slice::<f32>() {
                Ok(values) => Data::Float(values.iter().map(|value| f64::from(*value)).collect()),
                Err(_) => Data::Float(tensor.to_f64()),
            }
        } else {
            let bits = (0..count).map(|position| tensor.bits_at(position));
            Data::Integer(bits.map(|bits| strang_runtime::tensor::bits_to_integer(element, bits)).collect())
        };
        Array { element, shape: tensor.shape().to_vec(), data }
    }

    /// The elements rounded to the element type.
    ///
    /// # Errors
    /// More elements than memory holds.
    pub fn to_tensor(&self) -> Result<Tensor, InterpretError> {
        let mut tensor = Tensor::zeros(self.element, &self.shape)?;
        if let (Data::Float(values), Ok(slice)) = (&self.data, tensor.as_mut_slice::<f32>()) {
            slice.iter_mut().zip(values).for_each(|(slot, value)| *slot = *value as f32);
            return Ok(tensor);
        }
        for position in 0..self.count() {
            tensor.set_bits(position, self.at(position).to_bits(self.element));
        }
        Ok(tensor)
    }

    /// The number of elements.
    pub fn count(&self) -> usize {
        match &self.data {
            Data::Float(values) => values.len(),
            Data::Integer(values) => values.len(),
        }
    }

    /// The element at a row-major position.
    ///
    /// # Panics
    /// When the position is not below [`Array::count`].
    pub fn at(&self, position: usize) -> Number {
        match &self.data {
            Data::Float(values) => Number::Float(values[position]),
            Data::Integer(values) => Number::Integer(values[position]),
        }
    }

    /// Writes an element of the array's kind.
    pub(super) fn set(&mut self, position: usize, value: Number) {
        match &mut self.data {
            Data::Float(values) => values[position] = value.to_f64(),
            Data::Integer(values) => values[position] = value.to_i128(),
        }
    }

    /// An array of zeros.
    ///
    /// # Errors
    /// More elements than memory holds.
    pub(super) fn zeros(element: ElementType, shape: &[usize]) -> Result<Self, InterpretError> {
        let too_large = || InterpretError::TooLarge { element, shape: shape.to_vec() };
        let count = shape.iter().try_fold(1usize, |count, size| count.checked_mul(*size)).ok_or_else(too_large)?;
        let data = if element.is_float() {
            Data::Float(allocate(count, 0.).ok_or_else(too_large)?)
        } else {
            Data::Integer(allocate(count, 0).ok_or_else(too_large)?)
        };
        Ok(Array { element, shape: shape.to_vec(), data })
    }
}

fn allocate<T: Clone>(count: usize, value: T) -> Option<Vec<T>> {
    let mut values = Vec::new();
    values.try_reserve_exact(count).ok()?;
    values.resize(count, value);
    Some(values)
}

/// Row-major strides of a shape.
pub(super) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}
