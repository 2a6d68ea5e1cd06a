//! What the importer knows of a value while it walks the graph: a value of the circuit, a constant tensor, or a small
//! integer tensor of sizes. Shape arithmetic (`Shape`, `Gather`, `Concat`, ...) happens on the last kind and never
//! reaches the circuit.

use std::{cell::Cell, rc::Rc};
use strang_ir::{Literal, Value};
use strang_runtime::{ElementType, Size, Tensor, tensor::bits_to_integer};

/// Integer tensors of up to this many elements take part in shape arithmetic.
pub const KNOWN_LIMIT: usize = 1 << 12;

/// A value of the ONNX graph.
#[derive(Clone)]
pub enum Item {
    /// An optional input or output that is left out.
    Absent,
    /// A value of the circuit under construction.
    Value(Value),
    /// A constant.
    Constant(Rc<Constant>),
    /// A small integer tensor whose elements are sizes.
    Known(Rc<Known>),
}

/// A constant tensor; it becomes a parameter of the module when something in the circuit reads it.
pub struct Constant {
    /// Its name in the file.
    pub name: String,
    /// Its elements.
    pub tensor: Tensor,
    /// Its position among the parameters, once it is one.
    pub parameter: Cell<Option<u32>>,
}

/// A small tensor of an integer type or `bool` whose elements are known as sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// The type of an element.
    pub element: ElementType,
    /// The sizes of the axes.
    pub shape: Vec<usize>,
    /// The elements in row-major order.
    pub sizes: Vec<Size>,
}

impl Item {
    /// A constant that is not yet a parameter.
    pub fn constant(name: impl Into<String>, tensor: Tensor) -> Self {
        Item::Constant(Rc::new(Constant { name: name.into(), tensor, parameter: Cell::new(None) }))
    }

    /// Whether the value is left out.
    pub fn is_absent(&self) -> bool {
        matches!(self, Item::Absent)
    }

    /// The elements as sizes, for a small tensor of integers or `bool`.
    pub fn known(&self) -> Option<Rc<Known>> {
        match self {
            Item::Known(known) => Some(known.clone()),
            Item::Constant(constant) => Known::of_tensor(&constant.tensor).map(Rc::new),
            Item::Absent | Item::Value(_) => None,
        }
    }

    /// The elements as a tensor, when they are constants.
    pub fn tensor(&self) -> Option<Tensor> {
        match self {
            Item::Constant(constant) => Some(constant.tensor.clone()),
            Item::Known(known) => known.to_tensor(),
            Item::Absent | Item::Value(_) => None,
        }
    }

    /// The only element of a constant tensor of one element.
    pub fn literal(&self) -> Option<Literal> {
        let tensor = match self {
            Item::Constant(constant) if constant.tensor.count() == 1 => constant.tensor.clone(),
            Item::Known(known) if known.sizes.len() == 1 => known.to_tensor()?,
            _ => return None,
        };
        Some(Literal { element: tensor.element(), bits: tensor.bits_at(0) })
    }
}

impl From<Value> for Item {
    fn from(value: Value) -> Self {
        Item::Value(value)
    }
}

impl From<Known> for Item {
    fn from(known: Known) -> Self {
        Item::Known(Rc::new(known))
    }
}

impl Known {
    /// A vector of i64.
    pub fn vector(sizes: Vec<Size>) -> Self {
        Known { element: ElementType::I64, shape: vec![sizes.len()], sizes }
    }

    /// One i64.
    pub fn scalar(size: Size) -> Self {
        Known { element: ElementType::I64, shape: vec![], sizes: vec![size] }
    }

    /// The elements of a small tensor of integers or `bool` whose values fit sizes.
    pub fn of_tensor(tensor: &Tensor) -> Option<Self> {
        let element = tensor.element();
        if element.is_float() || tensor.count() > KNOWN_LIMIT {
            return None;
        }
        let sizes = (0..tensor.count())
            .map(|position| i64::try_from(bits_to_integer(element, tensor.bits_at(position))).ok().map(Size::from))
            .collect::<Option<Vec<_>>>()?;
        Some(Known { element, shape: tensor.shape().to_vec(), sizes })
    }

    /// The elements as numbers, when no symbol occurs.
    pub fn integers(&self) -> Option<Vec<i64>> {
        self.sizes.iter().map(Size::as_constant).collect()
    }

    /// The tensor, when no symbol occurs.
    pub fn to_tensor(&self) -> Option<Tensor> {
        let integers = self.integers()?;
        let mut tensor = Tensor::zeros(self.element, &self.shape).ok()?;
        for (position, value) in integers.into_iter().enumerate() {
            tensor.set_bits(position, Literal::from_integer(self.element, value.into()).bits);
        }
        Some(tensor)
    }
}
