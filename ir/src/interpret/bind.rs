//! Values of symbols from the shapes of inputs.

use super::InterpretError;
use crate::{Function, Module, Size};
use std::{collections::BTreeMap, sync::Arc};
use strang_runtime::{Bindings, Tensor, program::Check};

/// The values of the symbols of a module for given inputs of its entry. An axis whose size is a plain symbol binds it;
/// every other size is then compared.
///
/// # Errors
/// A wrong number of inputs, a wrong element type or rank, or a size that disagrees, naming input, axis and sizes.
pub fn bind(module: &Module, inputs: &[Tensor]) -> Result<Bindings, InterpretError> {
    let function =
        module.functions.first().ok_or_else(|| InterpretError::Missing("the module has no function".into()))?;
    let names = input_names(function);
    if names.len() != inputs.len() {
        let (expected, found) = (names.len(), inputs.len());
        return Err(InterpretError::InputCount { expected, names: names.join(", "), found });
    }
    let mut bindings = Bindings::new();
    let mut bound_by: BTreeMap<Arc<str>, String> = BTreeMap::new();
    for ((node, name), tensor) in function.inputs.iter().zip(&names).zip(inputs) {
        let node = &function.graph[*node];
        let (expected, found) = (node.outputs[0].element, tensor.element());
        if expected != found {
            return Err(InterpretError::InputElement { input: name.clone(), expected, found });
        }
        let (expected, found) = (node.outputs[0].variables.len(), tensor.shape().len());
        if expected != found {
            return Err(InterpretError::InputRank { input: name.clone(), expected, found });
        }
        for (axis, found) in node.axes(0).into_iter().zip(tensor.shape()) {
            if let Some(symbol) = plain_symbol(&axis.size)
                && !bindings.contains_key(&symbol)
            {
                bindings.insert(symbol.clone(), *found as i64);
                bound_by.insert(symbol, format!("axis {} of input `{name}`", axis.name));
            }
        }
    }
    for ((node, name), tensor) in function.inputs.iter().zip(&names).zip(inputs) {
        for (position, (axis, found)) in function.graph[*node].axes(0).into_iter().zip(tensor.shape()).enumerate() {
            let axis_name = format!("{position} ({})", axis.name);
            let expected = axis
                .size
                .eval(&bindings)
                .map_err(|error| InterpretError::Size { at: format!("axis {axis_name} of input `{name}`"), error })?;
            if usize::try_from(expected) != Ok(*found) {
                let binders: Vec<&str> =
                    axis.size.symbols().iter().filter_map(|s| bound_by.get(s)).map(String::as_str).collect();
                let from = if binders.is_empty() { String::new() } else { format!(" (from {})", binders.join(", ")) };
                return Err(InterpretError::InputSize {
                    input: name.clone(),
                    axis: axis_name,
                    size: axis.size.to_string(),
                    expected: format!("{expected}{from}"),
                    found: *found,
                });
            }
        }
    }
    Ok(bindings)
}

/// Whether all conditions hold.
///
/// # Errors
/// The first one that does not, with the values of its symbols.
pub fn check(checks: &[Check], bindings: &Bindings) -> Result<(), InterpretError> {
    for Check { size, message } in checks {
        let value = size.eval(bindings).map_err(|error| InterpretError::Size { at: message.clone(), error })?;
        if value < 0 {
            let symbols: Vec<String> =
                size.symbols().iter().filter_map(|s| Some(format!("{s} = {}", bindings.get(s)?))).collect();
            return Err(InterpretError::Check(format!("{message} ({})", symbols.join(", "))));
        }
    }
    Ok(())
}

/// The symbol, when a size is one and nothing else.
pub(crate) fn plain_symbol(size: &Size) -> Option<Arc<str>> {
    let symbol = size.symbols().into_iter().next()?;
    (*size == Size::symbol(symbol.clone())).then_some(symbol)
}

fn input_names(function: &Function) -> Vec<String> {
    function.inputs.iter().map(|node| function.graph[*node].outputs[0].name.to_string()).collect()
}
