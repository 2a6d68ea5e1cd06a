//! One application of an operator while it is imported: its operands, its attributes, and the nodes it adds.

use super::{
    attributes::Attributes,
    draft::Draft,
    error::ImportError,
    model::Importer,
    values::{Item, Known},
};
use std::{cell::Cell, rc::Rc};
use strang_ir::{IndexExpr, Literal, Op, ScalarExpr, Value};
use strang_runtime::{ElementType, Size, Tensor};

/// What an operator's importer yields: its outputs, in order.
pub type Imported = Result<Vec<Item>, ImportError>;

/// One application of an operator.
pub struct Call<'i, 'a> {
    /// The importer, for operators with bodies.
    pub importer: &'i mut Importer<'a>,
    /// The operator.
    pub operator: &'a str,
    /// The version of the operator: the last one at which it changed that the model's opset includes.
    pub version: i64,
    /// The attributes.
    pub attributes: Attributes<'a>,
    /// The operands.
    pub operands: Vec<Item>,
    /// Their names.
    pub names: &'a [String],
    /// Which outputs something reads.
    pub wanted: Vec<bool>,
    /// Which operands the importer has looked at.
    pub read: Vec<Cell<bool>>,
}

impl<'a> Call<'_, 'a> {
    /// An error about this node.
    pub fn error(&self, reason: impl Into<String>) -> ImportError {
        ImportError::Node { place: self.importer.origin.place.clone(), reason: reason.into() }
    }

    /// An error that says that the operator, or this use of it, is not supported.
    pub fn unsupported(&self, reason: impl Into<String>) -> ImportError {
        ImportError::Operator {
            place: self.importer.origin.place.clone(),
            domain: String::new(),
            version: self.importer.opset,
            reason: reason.into(),
        }
    }

    /// An error about an operand.
    pub fn operand_error(&self, slot: usize, reason: impl Into<String>) -> ImportError {
        let name = self.names.get(slot).map_or("", String::as_str);
        ImportError::Operand {
            place: self.importer.origin.place.clone(),
            slot: format!("{slot} (`{name}`)"),
            reason: reason.into(),
        }
    }

    /// An operand, `Absent` when it is left out.
    pub fn item(&self, slot: usize) -> Item {
        self.ignore_operand(slot);
        self.operands.get(slot).cloned().unwrap_or(Item::Absent)
    }

    /// Marks an operand as read that does not change the result.
    pub fn ignore_operand(&self, slot: usize) {
        if let Some(read) = self.read.get(slot) {
            read.set(true);
        }
    }

    /// Checks that all operands have been read.
    ///
    /// # Errors
    /// An operand that nothing has read: the operator at the model's opset does not have it.
    pub fn finish(&self) -> Result<(), ImportError> {
        let unread = (0..self.operands.len()).find(|slot| !self.read[*slot].get() && !self.operands[*slot].is_absent());
        match unread {
            None => Ok(()),
            Some(slot) => {
                Err(self.operand_error(slot, "this input is not known for the operator at the model's opset"))
            }
        }
    }

    /// An operand whose value decides the circuit: an input has the value that the options give.
    pub fn given(&self, slot: usize) -> Item {
        self.importer.given(self.item(slot))
    }

    /// Whether an operand is given.
    pub fn has(&self, slot: usize) -> bool {
        self.operands.get(slot).is_some_and(|item| !item.is_absent())
    }

    /// Whether something reads an output.
    pub fn wants(&self, output: usize) -> bool {
        self.wanted.get(output).copied().unwrap_or(false)
    }

    /// An operand as a value of the circuit.
    ///
    /// # Errors
    /// An operand that is left out.
    pub fn value(&mut self, slot: usize) -> Result<Value, ImportError> {
        let item = self.item(slot);
        if item.is_absent() {
            return Err(self.operand_error(slot, "this input is missing"));
        }
        self.importer.materialise(&item)
    }

    /// An operand as a value of the circuit, if it is given.
    ///
    /// # Errors
    /// A constant too large for memory.
    pub fn optional(&mut self, slot: usize) -> Result<Option<Value>, ImportError> {
        if self.has(slot) { self.value(slot).map(Some) } else { Ok(None) }
    }

    /// The sizes of an operand's axes.
    ///
    /// # Errors
    /// An operand that is left out.
    pub fn shape(&self, slot: usize) -> Result<Vec<Size>, ImportError> {
        match self.item(slot) {
            Item::Absent => Err(self.operand_error(slot, "this input is missing")),
            item => Ok(self.importer.shape_of_item(&item)),
        }
    }

    /// The element type of an operand.
    ///
    /// # Errors
    /// An operand that is left out.
    pub fn element(&self, slot: usize) -> Result<ElementType, ImportError> {
        match self.item(slot) {
            Item::Absent => Err(self.operand_error(slot, "this input is missing")),
            item => Ok(self.importer.element_of_item(&item)),
        }
    }

    /// The sizes of a value's axes.
    pub fn shape_of(&self, value: Value) -> Vec<Size> {
        self.importer.builder().function.shape_of(value)
    }

    /// The element type of a value.
    pub fn element_of(&self, value: Value) -> ElementType {
        self.importer.builder().function.element_of(value)
    }

    /// An operand whose elements must be known while importing: a shape, axes, paddings.
    ///
    /// # Errors
    /// An operand that is left out or computed from data.
    pub fn known(&self, slot: usize) -> Result<Rc<Known>, ImportError> {
        match self.given(slot) {
            Item::Absent => Err(self.operand_error(slot, "this input is missing")),
            item => item.known().ok_or_else(|| {
                self.operand_error(slot, "this must be a constant or computed from shapes, because sizes depend on it")
            }),
        }
    }

    /// The elements of such an operand as sizes.
    ///
    /// # Errors
    /// As [`Call::known`].
    pub fn sizes(&self, slot: usize) -> Result<Vec<Size>, ImportError> {
        self.known(slot).map(|known| known.sizes.clone())
    }

    /// The elements of such an operand as numbers.
    ///
    /// # Errors
    /// As [`Call::known`], and sizes that depend on symbols.
    pub fn integers(&self, slot: usize) -> Result<Vec<i64>, ImportError> {
        self.known(slot)?
            .integers()
            .ok_or_else(|| self.operand_error(slot, "this must not depend on the sizes of the inputs"))
    }

    /// A constant operand.
    ///
    /// # Errors
    /// An operand that is left out or computed from data.
    pub fn tensor(&self, slot: usize) -> Result<Tensor, ImportError> {
        self.given(slot).tensor().ok_or_else(|| self.operand_error(slot, "this must be a constant"))
    }

    /// An axis that counts from the end when negative, as a position below `rank`.
    ///
    /// # Errors
    /// An axis outside `-rank..rank`.
    pub fn axis(&self, axis: i64, rank: usize) -> Result<usize, ImportError> {
        let position = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
        let position = position.and_then(|position| usize::try_from(position).ok()).filter(|p| *p < rank);
        position.ok_or_else(|| self.error(format!("axis {axis} does not exist: the tensor has {rank} axes")))
    }

    /// Several axes, each given once, in the given order.
    ///
    /// # Errors
    /// An axis outside `-rank..rank`, or one that is given twice.
    pub fn axes(&self, axes: &[i64], rank: usize) -> Result<Vec<usize>, ImportError> {
        let mut positions = Vec::with_capacity(axes.len());
        for axis in axes {
            let position = self.axis(*axis, rank)?;
            if positions.contains(&position) {
                return Err(self.error(format!("axis {axis} is given twice")));
            }
            positions.push(position);
        }
        Ok(positions)
    }

    /// Adds a node with one output.
    pub fn emit(&mut self, draft: Draft, op: Op, element: ElementType, output: &[u32]) -> Value {
        self.emit_many(draft, op, vec![(element, output.to_vec())])[0]
    }

    /// Adds a node.
    pub fn emit_many(&mut self, draft: Draft, op: Op, outputs: Vec<(ElementType, Vec<u32>)>) -> Vec<Value> {
        let importer = &mut *self.importer;
        let builder = importer.builders.last_mut().expect("an importer has a function under construction");
        builder.add(draft, op, outputs, &importer.origin)
    }

    /// The node of a number.
    pub fn constant(&mut self, literal: Literal) -> Value {
        self.importer.builder_mut().constant(literal)
    }

    /// A number repeated over an array.
    pub fn filled(&mut self, literal: Literal, sizes: &[Size]) -> Value {
        let constant = self.constant(literal);
        if sizes.is_empty() {
            return constant;
        }
        self.view(constant, sizes, |_, _| vec![])
    }

    /// A view with axes of the given sizes; `exprs` says where it reads, given the variables and their sizes.
    pub fn view(
        &mut self,
        value: Value,
        sizes: &[Size],
        exprs: impl FnOnce(&[u32], &dyn Fn(u32) -> Size) -> Vec<IndexExpr>,
    ) -> Value {
        let (mut draft, variables) = Draft::over(sizes);
        let exprs = exprs(&variables, &draft.sizes());
        draft.read(value, exprs);
        let element = self.element_of(value);
        self.emit(draft, Op::View, element, &variables)
    }

    /// The same elements under another shape of as many elements.
    pub fn reshape(&mut self, value: Value, sizes: &[Size]) -> Value {
        let from = self.shape_of(value);
        if from == sizes {
            return value;
        }
        self.view(value, sizes, |variables, size_of| {
            super::operators::shape::reshape_exprs(&from, sizes, variables, size_of)
        })
    }

    /// A scalar expression of values that broadcast against each other, ONNX style.
    ///
    /// # Errors
    /// Shapes that do not broadcast, or element types that the expression does not take.
    pub fn map(&mut self, values: &[Value], expression: ScalarExpr) -> Result<Value, ImportError> {
        let shapes: Vec<Vec<Size>> = values.iter().map(|value| self.shape_of(*value)).collect();
        let sizes = self.broadcast(&shapes)?;
        self.map_over(values, expression, &sizes)
    }

    /// A scalar expression of values that broadcast to the given sizes.
    ///
    /// # Errors
    /// Element types that the expression does not take.
    pub fn map_over(&mut self, values: &[Value], expression: ScalarExpr, sizes: &[Size]) -> Result<Value, ImportError> {
        let elements: Vec<ElementType> = values.iter().map(|value| self.element_of(*value)).collect();
        let element = expression.element(&elements).map_err(|reason| self.error(reason))?;
        let (mut draft, variables) = Draft::over(sizes);
        for value in values {
            let shape = self.shape_of(*value);
            draft.read(*value, broadcast_exprs(&shape, sizes, &variables));
        }
        Ok(self.emit(draft, Op::Map(expression), element, &variables))
    }

    /// The shape that shapes broadcast to. A size that depends on symbols is taken to equal what it meets.
    ///
    /// # Errors
    /// Sizes that differ, neither being 1.
    pub fn broadcast(&self, shapes: &[Vec<Size>]) -> Result<Vec<Size>, ImportError> {
        let rank = shapes.iter().map(Vec::len).max().unwrap_or(0);
        let mut sizes = vec![Size::ONE; rank];
        for shape in shapes {
            for (position, size) in shape.iter().enumerate() {
                let target = &mut sizes[rank - shape.len() + position];
                match (target.as_constant(), size.as_constant()) {
                    _ if target == size => {}
                    (Some(1), _) => *target = size.clone(),
                    (_, Some(1)) => {}
                    (Some(_), None) | (None, None) => {}
                    (None, Some(_)) => *target = size.clone(),
                    (Some(a), Some(b)) => {
                        return Err(self.error(format!("sizes {a} and {b} do not broadcast: {}", shapes_text(shapes))));
                    }
                }
            }
        }
        Ok(sizes)
    }
}

/// Shapes for messages: `[2, 3] and [4]`.
pub fn shapes_text(shapes: &[Vec<Size>]) -> String {
    shapes.iter().map(|shape| format!("{shape:?}")).collect::<Vec<_>>().join(" and ")
}

/// Where an operand of the given shape is read when it broadcasts to `sizes`.
pub fn broadcast_exprs(shape: &[Size], sizes: &[Size], variables: &[u32]) -> Vec<IndexExpr> {
    let skipped = variables.len() - shape.len();
    shape
        .iter()
        .zip(&variables[skipped..])
        .zip(&sizes[skipped..])
        .map(
            |((size, variable), target)| {
                if size.is(1) && !target.is(1) { IndexExpr::constant(0) } else { IndexExpr::variable(*variable) }
            },
        )
        .collect()
}
