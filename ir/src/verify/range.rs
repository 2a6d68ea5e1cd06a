//! Reads stay in range: the interval of an index expression, compared with the axis that it reads.

use super::{Place, Verifier};
use crate::{Atom, CircuitError, IndexExpr, Size, error::Mistake};

/// The smallest and largest value of an expression, for variables whose first and last positions are given; `None` when
/// it follows a value read from data without a limit. Tighter than [`IndexExpr::bounds`]: limits of inner expressions
/// count, and a coefficient of unknown sign is a minimum or maximum.
pub fn interval(expression: &IndexExpr, variable: &dyn Fn(u32) -> (Size, Size)) -> Option<(Size, Size)> {
    let (mut low, mut high) = (expression.offset().clone(), expression.offset().clone());
    for (atom, coefficient) in expression.terms() {
        let (a, b) = atom_interval(atom, variable)?;
        let (a, b) = (coefficient * &a, coefficient * &b);
        let (a, b) = if coefficient.lower_bound(0).is_some_and(|c| c >= 0) {
            (a, b)
        } else if coefficient.upper_bound(0).is_some_and(|c| c <= 0) {
            (b, a)
        } else {
            (a.smaller(&b), a.larger(&b))
        };
        low += a;
        high += b;
    }
    Some((low, high))
}

fn atom_interval(atom: &Atom, variable: &dyn Fn(u32) -> (Size, Size)) -> Option<(Size, Size)> {
    Some(match atom {
        Atom::Variable(position) => variable(*position),
        Atom::FloorDiv(e, divisor) => {
            let (low, high) = interval(e, variable)?;
            (low.floor_div(divisor), high.floor_div(divisor))
        }
        Atom::Remainder(e, divisor) => {
            let last = divisor - &Size::ONE;
            match interval(e, variable) {
                Some((low, high)) if low.is_at_least(&Size::ZERO, 0) && last.is_at_least(&high, 0) => (low, high),
                _ => (Size::ZERO, last),
            }
        }
        // Evaluation takes the lower limit when the two cross.
        Atom::Clamp(e, first, last) => match interval(e, variable) {
            Some((low, high)) => (low.smaller(last).larger(first), high.smaller(last).larger(first)),
            None => (first.clone(), last.larger(first)),
        },
        Atom::Table(table, e) => {
            let position = |size: &Size| size.as_constant().and_then(|value| usize::try_from(value).ok());
            let known = interval(e, variable)
                .and_then(|(low, high)| table.get(position(&low)?..position(&high)?.checked_add(1)?));
            let entries = known.filter(|entries| !entries.is_empty()).unwrap_or(table);
            ((*entries.iter().min()?).into(), (*entries.iter().max()?).into())
        }
        Atom::Read(_) => return None,
    })
}

impl Verifier<'_> {
    /// Every position read must lie in the operand unless there is a fill, every table position in its table, and every
    /// divisor must be positive. `variable` says the first and last position of a variable.
    pub(super) fn map(
        &mut self,
        place: Place,
        slot: usize,
        variable: &dyn Fn(u32) -> (Size, Size),
    ) -> Result<(), CircuitError> {
        let map = &place.node.maps[slot];
        let source = place.function.operands(place.index)[slot];
        let axes = place.function.graph[source.node].axes(source.port);
        for condition in &map.conditions {
            self.parts(place, condition.expression(), variable)?;
            if let crate::Condition::Divisible { divisor, .. } = condition {
                self.divisor(place, divisor)?;
            }
        }
        for (axis, (expression, of)) in map.exprs.iter().zip(axes).enumerate() {
            self.parts(place, expression, variable)?;
            if map.fill.is_none() {
                let target = Target { slot, axis, of };
                self.in_range(place, expression, variable, target)?;
            }
        }
        Ok(())
    }

    /// Whether an expression stays in `0..size`. One that follows data without a limit is checked by the run.
    pub(super) fn in_range(
        &mut self,
        place: Place,
        expression: &IndexExpr,
        variable: &dyn Fn(u32) -> (Size, Size),
        target: Target,
    ) -> Result<(), CircuitError> {
        let Some((low, high)) = interval(expression, variable) else { return Ok(()) };
        let Target { slot, axis, of, .. } = target;
        let mistake = |reaches: &Size| Mistake::OutOfRange {
            slot,
            axis: format!("{axis} ({})", of.name),
            expression: written(place, expression),
            reaches: reaches.to_string(),
            size: of.size.to_string(),
        };
        self.demand(place, low.clone(), || mistake(&low))?;
        self.demand(place, &of.size - &(&high + &Size::ONE), || mistake(&high))
    }

    /// Divisors, limits and table positions inside an expression.
    pub(super) fn parts(
        &mut self,
        place: Place,
        expression: &IndexExpr,
        variable: &dyn Fn(u32) -> (Size, Size),
    ) -> Result<(), CircuitError> {
        for (atom, _) in expression.terms() {
            match atom {
                Atom::FloorDiv(e, divisor) | Atom::Remainder(e, divisor) => {
                    self.divisor(place, divisor)?;
                    self.parts(place, e, variable)?;
                }
                Atom::Clamp(e, ..) => self.parts(place, e, variable)?,
                Atom::Table(table, e) => {
                    self.parts(place, e, variable)?;
                    let Some((low, high)) = interval(e, variable) else { continue };
                    let length = table.len() as i64;
                    let mistake = |reaches: &Size| {
                        let position = written(place, e);
                        Mistake::Sizes(format!(
                            "a table of {length} entries is read at `{position}`, which reaches {reaches}"
                        ))
                    };
                    self.demand(place, low.clone(), || mistake(&low))?;
                    self.demand(place, Size::from(length - 1) - &high, || mistake(&high))?;
                }
                Atom::Variable(_) | Atom::Read(_) => {}
            }
        }
        Ok(())
    }

    fn divisor(&mut self, place: Place, divisor: &Size) -> Result<(), CircuitError> {
        self.demand(place, divisor - &Size::ONE, || {
            Mistake::Sizes(format!("an index is divided by {divisor}, which is not positive"))
        })
    }
}

/// An axis that is read or written, for errors.
#[derive(Clone, Debug)]
pub(super) struct Target<'a> {
    pub(super) slot: usize,
    pub(super) axis: usize,
    pub(super) of: &'a crate::Axis,
}

/// An expression as text, with the names of the node's variables.
fn written(place: Place, expression: &IndexExpr) -> String {
    let mut text = String::new();
    let mut add = |part: String| {
        if !text.is_empty() {
            text.push_str(" + ");
        }
        text.push_str(&part);
    };
    for (atom, coefficient) in expression.terms() {
        let atom = match atom {
            Atom::Variable(position) => place.node.variables[*position as usize].name.to_string(),
            Atom::FloorDiv(e, divisor) => format!("({})//({divisor})", written(place, e)),
            Atom::Remainder(e, divisor) => format!("({})%({divisor})", written(place, e)),
            Atom::Clamp(e, low, high) => format!("clamp({}, {low}, {high})", written(place, e)),
            Atom::Table(_, e) => format!("table({})", written(place, e)),
            Atom::Read(slot) => format!("${slot}"),
        };
        add(if coefficient.is(1) { atom } else { format!("({coefficient})*{atom}") });
    }
    if !expression.offset().is(0) || expression.terms().is_empty() {
        add(expression.offset().to_string());
    }
    text
}
