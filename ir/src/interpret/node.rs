//! One node with everything about it that does not vary by position.

use super::{
    Arithmetic, Array, InterpretError, Number, concat, contract, map, numerics,
    read::{Outside, Reader},
    rows,
};
use crate::{Node, Op};
use rayon::prelude::*;
use std::ops::Range;
use strang_runtime::{Bindings, Size};

/// A node whose sizes and operands are known.
pub(super) struct Prepared<'a> {
    pub(super) node: &'a Node,
    pub(super) arithmetic: Arithmetic,
    pub(super) bindings: &'a Bindings,
    /// The sizes of the variables.
    pub(super) extents: Vec<usize>,
    pub(super) readers: Vec<Reader<'a>>,
    /// Variables that are not axes of the first output.
    pub(super) contracted: Vec<usize>,
}

/// The value of an output element at a position of the node's variables, of which those of the output are set. The others
/// may be changed.
pub(super) type Element<'a> = Box<dyn Fn(&mut [i64]) -> Result<Number, Outside> + Sync + 'a>;

impl<'a> Prepared<'a> {
    pub(super) fn new(
        node: &'a Node,
        operands: &[&'a Array],
        bindings: &'a Bindings,
        arithmetic: Arithmetic,
    ) -> Result<Self, InterpretError> {
        let at = name_of(node);
        let extents = node.variables.iter().map(|variable| extent(&variable.axis.size, bindings, &at));
        let extents = extents.collect::<Result<Vec<usize>, _>>()?;
        let mut ranges: Vec<Range<i64>> = extents.iter().map(|size| 0..*size as i64).collect();
        let mut readers = Vec::with_capacity(operands.len());
        for (slot, (map, array)) in node.maps.iter().zip(operands).enumerate() {
            let size_error = |error| InterpretError::Size { at: at.clone(), error };
            if let Op::Concat { along, offsets } = &node.op {
                let offset = |k: usize| offsets[k].eval(bindings).map_err(size_error);
                ranges[*along as usize] = offset(slot)?..offset(slot + 1)?;
            }
            readers.push(Reader::new(slot, map, array, &ranges, bindings).map_err(size_error)?);
        }
        let contracted = node.contracted().into_iter().map(|variable| variable as usize).collect();
        Ok(Prepared { node, arithmetic, bindings, extents, readers, contracted })
    }

    /// How an element of the output is computed on its own; `None` for operations that yield whole arrays.
    pub(super) fn element(&'a self) -> Result<Option<Element<'a>>, InterpretError> {
        let size_error = |error| InterpretError::Size { at: name_of(self.node), error };
        Ok(Some(match &self.node.op {
            Op::Dot { accumulator } => contract::dot(self, *accumulator),
            Op::Map(expression) => map::map(self, expression).map_err(size_error)?,
            Op::Reduce(monoid) => contract::reduce(self, *monoid),
            Op::ArgReduce { largest, last } => contract::arg_reduce(self, *largest, *last),
            Op::View => Box::new(|position| self.readers[0].get(position)),
            Op::Gather => map::gather(self),
            Op::Concat { along, offsets } => concat::concat(self, *along, offsets).map_err(size_error)?,
            Op::Norm { over, epsilon, .. } if over.is_empty() => rows::batch_norm(self, *epsilon),
            _ => return Ok(None),
        }))
    }

    /// The shape of an output.
    pub(super) fn shape(&self, port: usize) -> Vec<usize> {
        self.node.outputs[port].variables.iter().map(|variable| self.extents[*variable as usize]).collect()
    }

    /// An output of zeros.
    pub(super) fn zeros(&self, port: usize) -> Result<Array, InterpretError> {
        Array::zeros(self.node.outputs[port].element, &self.shape(port))
    }

    /// The first output, element by element.
    pub(super) fn each(&self, element: &Element) -> Result<Array, InterpretError> {
        let mut array = self.zeros(0)?;
        let chunk = (array.count() / 64).clamp(1, 4096);
        let outcome = match &mut array.data {
            super::Data::Float(values) => values
                .par_chunks_mut(chunk)
                .enumerate()
                .try_for_each(|(index, values)| self.chunk(index * chunk, values, element, |value| value.to_f64())),
            super::Data::Integer(values) => values
                .par_chunks_mut(chunk)
                .enumerate()
                .try_for_each(|(index, values)| self.chunk(index * chunk, values, element, |value| value.to_i128())),
        };
        outcome.map_err(|outside| outside.at(&name_of(self.node)))?;
        Ok(array)
    }

    fn chunk<T>(
        &self,
        start: usize,
        values: &mut [T],
        element: &Element,
        store: impl Fn(Number) -> T,
    ) -> Result<(), Outside> {
        let axes: Vec<usize> = self.node.outputs[0].variables.iter().map(|variable| *variable as usize).collect();
        let mut position = self.unravel(&axes, start);
        for value in values {
            *value = store(element(&mut position)?);
            advance(&mut position, &axes, &self.extents);
        }
        Ok(())
    }

    /// The position whose row-major number over some variables is given; the other variables are 0.
    pub(super) fn unravel(&self, axes: &[usize], mut number: usize) -> Vec<i64> {
        let mut position = vec![0; self.extents.len()];
        for axis in axes.iter().rev() {
            position[*axis] = (number % self.extents[*axis]) as i64;
            number /= self.extents[*axis];
        }
        position
    }

    /// A value as the first output stores it.
    pub(super) fn settle(&self, value: Number) -> Number {
        numerics::settle(self.node.outputs[0].element, value, self.arithmetic)
    }

    /// The number of positions of some variables.
    pub(super) fn count(&self, axes: &[usize]) -> usize {
        axes.iter().map(|axis| self.extents[*axis]).product()
    }
}

/// Moves to the next position over some variables, the last one fastest; false at the end, where all are 0 again.
pub(super) fn advance(position: &mut [i64], axes: &[usize], extents: &[usize]) -> bool {
    for axis in axes.iter().rev() {
        position[*axis] += 1;
        if position[*axis] < extents[*axis] as i64 {
            return true;
        }
        position[*axis] = 0;
    }
    false
}

/// Calls `visit` at every position of some variables, the last one fastest.
pub(super) fn for_each<E>(
    position: &mut [i64],
    axes: &[usize],
    extents: &[usize],
    mut visit: impl FnMut(&mut [i64]) -> Result<(), E>,
) -> Result<(), E> {
    if axes.iter().any(|axis| extents[*axis] == 0) {
        return Ok(());
    }
    axes.iter().for_each(|axis| position[*axis] = 0);
    loop {
        visit(position)?;
        if !advance(position, axes, extents) {
            return Ok(());
        }
    }
}

/// The name of a node's first value, for errors.
pub(super) fn name_of(node: &Node) -> String {
    node.outputs.first().map_or_else(|| node.op.name().to_owned(), |output| format!("%{}", output.name))
}

/// The value of the size of an axis.
pub(super) fn extent(size: &Size, bindings: &Bindings, at: &str) -> Result<usize, InterpretError> {
    let value = size.eval(bindings).map_err(|error| InterpretError::Size { at: at.to_owned(), error })?;
    usize::try_from(value).map_err(|_| InterpretError::NegativeSize {
        at: at.to_owned(),
        size: size.to_string(),
        value,
    })
}
