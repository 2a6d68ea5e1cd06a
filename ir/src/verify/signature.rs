//! Signatures: what functions take and yield against what the nodes that call them pass and expect.

use super::{Place, Verifier};
use crate::{CircuitError, ElementType, Function, FunctionId, Op, Size, error::Mistake};

/// An element type and a shape.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Signature {
    pub(super) element: ElementType,
    pub(super) shape: Vec<Size>,
}

impl Signature {
    fn scalar(element: ElementType) -> Self {
        Signature { element, shape: Vec::new() }
    }
}

impl std::fmt::Display for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{:?}", self.element, self.shape)
    }
}

fn inputs_of(function: &Function) -> Vec<Signature> {
    let value = |node| crate::Value { node, port: 0 };
    let signature = |value| Signature { element: function.element_of(value), shape: function.shape_of(value) };
    function.inputs.iter().map(|node| signature(value(*node))).collect()
}

fn outputs_of(function: &Function) -> Vec<Signature> {
    let signature = |value: &_| Signature { element: function.element_of(*value), shape: function.shape_of(*value) };
    function.outputs.iter().map(signature).collect()
}

impl Verifier<'_> {
    /// A node that calls functions: `if`, `loop`, `scan`, `call`.
    pub(super) fn control(&mut self, place: Place) -> Result<(), CircuitError> {
        let operands = (0..place.node.maps.len()).map(|slot| self.plain_operand(place, slot));
        let operands = operands.collect::<Result<Vec<Signature>, _>>()?;
        let outputs: Vec<Signature> = (0..place.node.outputs.len() as u32)
            .map(|port| Signature { element: place.node.outputs[port as usize].element, shape: place.node.shape(port) })
            .collect();
        let name = place.node.op.name();
        let fixed = |slot: usize, element: ElementType, what: &str| match operands.get(slot) {
            Some(found) if *found == Signature::scalar(element) => Ok(()),
            Some(found) => {
                Err(place.types(format!("`{name}` takes {what} as operand {slot}: {element}[], not {found}")))
            }
            None => Err(place.structure(format!("`{name}` takes {what} as operand {slot}"))),
        };
        match &place.node.op {
            Op::Call(id) => self.fits(place, *id, &operands, &outputs),
            Op::If { then, otherwise } => {
                fixed(0, ElementType::Bool, "the condition")?;
                self.fits(place, *then, &operands[1..], &outputs)?;
                self.fits(place, *otherwise, &operands[1..], &outputs)
            }
            Op::Loop { body } => {
                fixed(0, ElementType::I64, "the largest number of iterations")?;
                fixed(1, ElementType::Bool, "whether to begin")?;
                let states = &operands[2..];
                let takes = [&[Signature::scalar(ElementType::I64)], states].concat();
                let yields = [&[Signature::scalar(ElementType::Bool)], outputs.as_slice()].concat();
                self.same_list(place, "state", states, &outputs)?;
                self.fits(place, *body, &takes, &yields)
            }
            Op::Scan { body, along, states, .. } => {
                self.scan(place, *body, *along, *states as usize, operands, outputs)
            }
            _ => Ok(()),
        }
    }

    fn scan(
        &mut self,
        place: Place,
        body: FunctionId,
        along: u32,
        states: usize,
        mut operands: Vec<Signature>,
        mut outputs: Vec<Signature>,
    ) -> Result<(), CircuitError> {
        let variable = &place.node.variables[along as usize].name;
        if operands.len() < states || outputs.len() < states {
            let (operands, outputs) = (operands.len(), outputs.len());
            return Err(
                place.structure(format!("`scan` has {states} states, but {operands} operands and {outputs} outputs"))
            );
        }
        for (slot, operand) in operands.iter_mut().enumerate() {
            let axis = place.node.maps[slot].exprs.iter().position(|e| e.as_variable() == Some(along));
            match axis {
                Some(_) if slot < states => {
                    return Err(
                        place.structure(format!("the initial state {slot} has the axis {variable} of the scan"))
                    );
                }
                Some(axis) => drop(operand.shape.remove(axis)),
                None => {}
            }
        }
        for (port, output) in outputs.iter_mut().enumerate() {
            let axis = place.node.outputs[port].variables.iter().position(|v| *v == along);
            match axis {
                Some(_) if port < states => {
                    return Err(place.structure(format!("the last state {port} has the axis {variable} of the scan")));
                }
                None if port >= states => {
                    return Err(place.structure(format!("output {port} has no axis {variable} to be stacked along")));
                }
                Some(axis) => drop(output.shape.remove(axis)),
                None => {}
            }
        }
        self.same_list(place, "state", &operands[..states], &outputs[..states])?;
        self.fits(place, body, &operands, &outputs)
    }

    /// An operand whose map has plain, distinct variables over whole axes.
    fn plain_operand(&mut self, place: Place, slot: usize) -> Result<Signature, CircuitError> {
        let map = &place.node.maps[slot];
        let variables = map.as_variables().filter(|variables| {
            map.fill.is_none() && (1..variables.len()).all(|axis| !variables[..axis].contains(&variables[axis]))
        });
        let Some(variables) = variables else {
            let name = place.node.op.name();
            return Err(place.structure(format!("`{name}` reads operand {slot} other than as a whole")));
        };
        let source = place.function.operands(place.index)[slot];
        let shape = place.function.shape_of(source);
        for (variable, size) in variables.iter().zip(&shape) {
            let variable = &place.node.variables[*variable as usize];
            self.demand_equal(place, variable.size(), size, || {
                let (name, expected) = (&variable.name, variable.size());
                Mistake::Sizes(format!("{name} has {expected} positions, but the axis of operand {slot} has {size}"))
            })?;
        }
        Ok(Signature { element: place.function.element_of(source), shape })
    }

    /// Whether a function takes and yields what it should.
    fn fits(
        &mut self,
        place: Place,
        id: FunctionId,
        takes: &[Signature],
        yields: &[Signature],
    ) -> Result<(), CircuitError> {
        let function = &self.module.functions[id.0 as usize];
        self.same_list(place, &format!("input of @{}", function.name), &inputs_of(function), takes)?;
        self.same_list(place, &format!("result of @{}", function.name), &outputs_of(function), yields)
    }

    fn same_list(
        &mut self,
        place: Place,
        what: &str,
        expected: &[Signature],
        found: &[Signature],
    ) -> Result<(), CircuitError> {
        if expected.len() != found.len() {
            let (expected, found) = (expected.len(), found.len());
            return Err(place.structure(format!("there are {expected} of: {what}, but {found} values")));
        }
        for (position, (expected, found)) in expected.iter().zip(found).enumerate() {
            let text = || format!("{what} {position} is {expected}, but the value is {found}");
            if expected.element != found.element {
                return Err(place.types(text()));
            }
            if expected.shape.len() != found.shape.len() {
                return Err(place.sizes(text()));
            }
            for (left, right) in expected.shape.iter().zip(&found.shape) {
                self.demand_equal(place, left, right, || Mistake::Sizes(text()))?;
            }
        }
        Ok(())
    }
}
