//! Index expressions as text.

use crate::{Atom, Condition, IndexExpr};
use strang_runtime::Size;

/// How the variables of a node print in one place.
pub(super) struct Variables<'a> {
    pub names: &'a [String],
    /// Whether a variable stands in braces here.
    pub braced: &'a dyn Fn(u32) -> bool,
}

/// A size inside an index expression: a plain number, or in bars.
pub(super) fn size(size: &Size) -> String {
    match size.as_constant() {
        Some(value) if value >= 0 => value.to_string(),
        Some(value) => format!("|{value}|"),
        None => format!("|{}|", size),
    }
}

impl Variables<'_> {
    pub fn variable(&self, position: u32) -> String {
        let name = self.names.get(position as usize).map_or("_", String::as_str);
        if (self.braced)(position) { format!("{{{name}}}") } else { name.to_owned() }
    }

    pub fn expression(&self, expression: &IndexExpr) -> String {
        let mut out = String::new();
        for (atom, coefficient) in expression.terms() {
            let negative = coefficient.as_constant().is_some_and(|value| value < 0);
            push_sign(&mut out, negative);
            match coefficient.as_constant().map(i64::unsigned_abs) {
                Some(1) => {}
                Some(magnitude) => out += &format!("{magnitude}*"),
                None => out += &format!("|{}|*", coefficient),
            }
            out += &self.atom(atom, !coefficient.is(1));
        }
        let offset = expression.offset();
        match offset.as_constant() {
            Some(0) if !out.is_empty() => {}
            Some(value) => {
                push_sign(&mut out, value < 0);
                out += &value.unsigned_abs().to_string();
            }
            None => {
                push_sign(&mut out, false);
                out += &size(offset);
            }
        }
        out
    }

    /// An atom; a quotient behind a coefficient is grouped.
    fn atom(&self, atom: &Atom, grouped: bool) -> String {
        let group = |text: String| if grouped { format!("({text})") } else { text };
        match atom {
            Atom::Variable(position) => self.variable(*position),
            Atom::FloorDiv(inner, divisor) => group(format!("{} // {}", self.dividend(inner), size(divisor))),
            Atom::Remainder(inner, divisor) => group(format!("{} % {}", self.dividend(inner), size(divisor))),
            Atom::Clamp(inner, low, high) => {
                format!("clamp({}, {}, {})", self.expression(inner), size(low), size(high))
            }
            Atom::Table(table, inner) => {
                let entries: Vec<String> = table.iter().map(i64::to_string).collect();
                format!("table([{}], {})", entries.join(", "), self.expression(inner))
            }
            Atom::Read(slot) => format!("${slot}"),
        }
    }

    /// What is divided: a variable or number as it is, anything else in parentheses.
    fn dividend(&self, inner: &IndexExpr) -> String {
        let plain = inner.as_variable().is_some()
            || inner.as_size().is_some_and(|size| size.as_constant().is_none_or(|value| value >= 0));
        let text = self.expression(inner);
        if plain { text } else { format!("({text})") }
    }

    pub fn condition(&self, condition: &Condition) -> String {
        match condition {
            Condition::Range { expression, low, high } => {
                format!("{} <= {} < {}", size(low), self.expression(expression), size(high))
            }
            Condition::Divisible { expression, divisor } => {
                format!("{} % {} == 0", self.dividend(expression), size(divisor))
            }
        }
    }
}

fn push_sign(out: &mut String, negative: bool) {
    *out += match (out.is_empty(), negative) {
        (true, true) => "-",
        (true, false) => "",
        (false, true) => " - ",
        (false, false) => " + ",
    };
}
