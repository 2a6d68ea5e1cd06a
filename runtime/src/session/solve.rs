//! The values of symbols from the shapes of inputs.
//!
//! An axis whose size is a symbol binds it. An axis of `2*s + 1` elements binds `s` when nothing else does. All others are
//! compared.

use super::{
    BindError, Direction, PortError, check_count, check_kind,
    plan::{Plan, PlanPort},
};
use crate::{Bindings, Size, Tensor, size::Factor};
use std::{collections::BTreeMap, sync::Arc};

/// The values of a plan's symbols, in order.
pub(super) fn solve(plan: &Plan, inputs: &[&Tensor]) -> Result<Vec<i64>, BindError> {
    check_count(Direction::Input, plan.inputs.len(), inputs.len())?;
    let mut bindings = Bindings::new();
    let mut open: Vec<Axis> = vec![];
    for (PlanPort { port, symbols, .. }, input) in plan.inputs.iter().zip(inputs) {
        check_kind(Direction::Input, port, input)?;
        for (axis, (symbol, found)) in symbols.iter().zip(input.shape()).enumerate() {
            let symbol = symbol.map(|symbol| &plan.symbols[symbol as usize].name);
            let axis = Axis { name: &port.name, axis, size: &port.shape[axis], found: *found };
            match symbol {
                Some(name) if !bindings.contains_key(name) => {
                    bindings.insert(name.clone(), *found as i64);
                }
                Some(_) => axis.compare(&bindings)?,
                None => open.push(axis),
            }
        }
    }
    // Every pass binds a symbol or is the last.
    loop {
        let before = bindings.len();
        for axis in &open {
            if let Some((name, value)) = axis.only_unknown(&bindings)? {
                bindings.insert(name, value);
            }
        }
        if bindings.len() == before {
            break;
        }
    }
    let symbols = plan.symbols.iter().map(|symbol| {
        let value = bindings.get(&symbol.name).copied();
        value.ok_or_else(|| BindError::Undetermined { symbol: symbol.name.clone() })
    });
    let symbols = symbols.collect::<Result<_, _>>()?;
    for axis in &open {
        axis.compare(&bindings)?;
    }
    Ok(symbols)
}

/// An axis of an input, and the size that it was given.
struct Axis<'plan> {
    name: &'plan Arc<str>,
    axis: usize,
    size: &'plan Size,
    found: usize,
}

impl Axis<'_> {
    fn compare(&self, bindings: &Bindings) -> Result<(), PortError> {
        let found = self.found as i64;
        match self.size.eval(bindings) {
            // What has no value is refused when all sizes are bound.
            Err(_) => Ok(()),
            Ok(expected) if expected == found => Ok(()),
            Ok(expected) => Err(PortError::Axis {
                direction: Direction::Input,
                name: self.name.clone(),
                axis: self.axis,
                size: self.size.clone(),
                expected,
                found: self.found,
            }),
        }
    }

    /// The one symbol of this size that has no value yet, and its value, when the size is linear in it.
    fn only_unknown(&self, bindings: &Bindings) -> Result<Option<(Arc<str>, i64)>, BindError> {
        if self.size.symbols().iter().all(|symbol| bindings.contains_key(symbol)) {
            return Ok(None);
        }
        let known: BTreeMap<Arc<str>, Size> =
            bindings.iter().map(|(name, value)| (name.clone(), Size::from(*value))).collect();
        let (mut unknown, mut rest) = (None, self.found as i64);
        for (monomial, coefficient) in self.size.substitute(&known).terms() {
            match monomial.as_slice() {
                [] => rest = rest.saturating_sub(coefficient),
                [Factor::Symbol(name)] if unknown.is_none() => unknown = Some((name.clone(), coefficient)),
                _ => return Ok(None),
            }
        }
        let Some((name, coefficient)) = unknown else { return Ok(None) };
        match rest.checked_rem(coefficient) {
            Some(0) if rest / coefficient >= 0 => Ok(Some((name, rest / coefficient))),
            _ => Err(BindError::NoSolution {
                name: self.name.clone(),
                axis: self.axis,
                size: self.size.clone(),
                found: self.found,
            }),
        }
    }
}
