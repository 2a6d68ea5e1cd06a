//! The verifier: everything that later stages rely on, so that they need not look.
//!
//! It first checks structure (every position, port, slot and reference exists), so that a module made by hand or read from
//! JSON cannot make the rest panic; then types, sizes and ranges of every node. What the symbols leave open is returned as
//! conditions that a session checks when it binds them.

mod infer;
mod operations;
mod range;
mod signature;
mod structure;
#[cfg(test)]
mod tests;

pub use infer::{infer_element, infer_elements};
pub use range::interval;

use crate::{CircuitError, Function, Module, Node, Size, error::Mistake, interpret::plain_symbol};
use petgraph::stable_graph::NodeIndex;
use std::{collections::BTreeSet, sync::Arc};
use strang_runtime::{Bindings, program::Check};

/// What holds of a verified module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Conditions on symbols (`size >= 0`) without which a read would be out of range or sizes would disagree.
    pub checks: Vec<Check>,
}

/// Checks a module.
///
/// # Errors
/// The first mistake, in order of functions and nodes, naming the value, the axes and the sizes.
pub fn verify(module: &Module) -> Result<Verified, CircuitError> {
    structure::module(module)?;
    let mut verifier = Verifier { module, checks: Vec::new() };
    for function in &module.functions {
        for index in function.order() {
            let node = &function.graph[index];
            verifier.node(Place { function, index, node })?;
        }
        verifier.states(function)?;
    }
    sizes_have_values(module)?;
    Ok(Verified { checks: verifier.checks })
}

/// A node and where it is.
#[derive(Clone, Copy)]
struct Place<'a> {
    function: &'a Function,
    index: NodeIndex,
    node: &'a Node,
}

impl Place<'_> {
    fn name(&self) -> String {
        crate::verify::structure::name(self.node)
    }

    fn error(&self, kind: Mistake) -> CircuitError {
        CircuitError::new(kind, self.name(), &self.node.source)
    }

    fn types(&self, text: impl Into<String>) -> CircuitError {
        self.error(Mistake::Types(text.into()))
    }

    fn sizes(&self, text: impl Into<String>) -> CircuitError {
        self.error(Mistake::Sizes(text.into()))
    }

    fn structure(&self, text: impl Into<String>) -> CircuitError {
        self.error(Mistake::Structure(text.into()))
    }
}

struct Verifier<'a> {
    module: &'a Module,
    checks: Vec<Check>,
}

impl Verifier<'_> {
    /// Demands that a size is not negative: proves it, refutes it, or leaves it to a session.
    fn demand(&mut self, place: Place, size: Size, mistake: impl FnOnce() -> Mistake) -> Result<(), CircuitError> {
        if size.lower_bound(0).is_some_and(|bound| bound >= 0) {
            return Ok(());
        }
        let error = place.error(mistake());
        if size.upper_bound(0).is_some_and(|bound| bound < 0) {
            return Err(error);
        }
        let check = Check { size, message: error.to_string() };
        if !self.checks.contains(&check) {
            self.checks.push(check);
        }
        Ok(())
    }

    /// Demands that two sizes are equal.
    fn demand_equal(
        &mut self,
        place: Place,
        left: &Size,
        right: &Size,
        mistake: impl Fn() -> Mistake,
    ) -> Result<(), CircuitError> {
        if left == right {
            return Ok(());
        }
        self.demand(place, left - right, &mistake)?;
        self.demand(place, right - left, &mistake)
    }

    fn states(&mut self, function: &Function) -> Result<(), CircuitError> {
        for (input, output) in &function.states {
            let (input, value) = (function.inputs[*input as usize], function.outputs[*output as usize]);
            let place = Place { function, index: input, node: &function.graph[input] };
            let (found, expected) = (function.output_of(value).element, function.output_of(input.into()).element);
            if found != expected {
                return Err(place.types(format!("the state is {expected}, but its next value is {found}")));
            }
            let (shape, next) = (function.shape_of(input.into()), function.shape_of(value));
            let mistake = || Mistake::Sizes(format!("the state has shape {shape:?}, but its next value {next:?}"));
            if shape.len() != next.len() {
                return Err(place.error(mistake()));
            }
            for (left, right) in shape.iter().zip(&next) {
                self.demand_equal(place, left, right, mistake)?;
            }
        }
        Ok(())
    }
}

/// Every size must have a value: its symbols are axes of inputs of the entry, for else no run can bind them, and without
/// symbols it can be computed now.
fn sizes_have_values(module: &Module) -> Result<(), CircuitError> {
    let entry = module.entry();
    let mut bound: BTreeSet<Arc<str>> = BTreeSet::new();
    for input in &entry.inputs {
        bound.extend(entry.shape_of((*input).into()).iter().filter_map(plain_symbol));
    }
    for function in &module.functions {
        for index in function.order() {
            let place = Place { function, index, node: &function.graph[index] };
            let (mut unbound, mut impossible) = (None, None);
            structure::visit_sizes(place.node, &mut |size| {
                if size.as_constant().is_some() {
                    return;
                }
                let symbols = size.symbols();
                if symbols.is_empty() {
                    // A division by zero: nothing else stays without symbols.
                    impossible = impossible.take().or(size.eval(&Bindings::new()).err());
                }
                unbound = unbound.take().or(symbols.into_iter().find(|symbol| !bound.contains(symbol)));
            });
            if let Some(error) = impossible {
                return Err(place.sizes(error.to_string()));
            }
            if let Some(symbol) = unbound {
                return Err(
                    place.sizes(format!("the size `{symbol}` is not known: no axis of an input has it as its size"))
                );
            }
        }
    }
    Ok(())
}
