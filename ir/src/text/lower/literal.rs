//! Numbers as written, to typed bits. A number that its type cannot hold is refused, not rounded away.

use crate::{
    Literal,
    text::{ast::Number, error::Complaint, parse::Result},
};
use strang_runtime::ElementType;

/// The literal of a number, of the type it is written with, else of the expected one.
pub(super) fn lower(number: &Number, expected: Option<ElementType>) -> Result<Literal> {
    let text = number.text.as_str();
    if let "true" | "false" = text {
        return match number.element.or(expected).unwrap_or(ElementType::Bool) {
            ElementType::Bool => Ok(Literal::bool(text == "true")),
            other => Err(Complaint::new(format!("`{text}` is a bool, not of {other}"), number.span)),
        };
    }
    let Some(element) = number.element.or(expected) else {
        return Err(Complaint::new("the type of this number is not known", number.span)
            .help(format!("nothing beside it has a type; write one behind it: `{text}f32`")));
    };
    let refuse = || Complaint::new(format!("`{text}` is not a number of {element}"), number.span);
    if let Some((low, high)) = element.integer_range() {
        let value: i128 = text.parse().map_err(|_| refuse())?;
        if element == ElementType::Bool {
            return Err(refuse().help("the values of bool are `true` and `false`"));
        }
        if value < low || value > high {
            return Err(refuse().help(format!("{element} holds {low} to {high}")));
        }
        return Ok(Literal::from_integer(element, value));
    }
    if let Some(bits) = number.bits {
        let literal = Literal { element, bits };
        let fits = element.bits() == 64 || bits >> element.bits() == 0;
        return if fits && literal.to_f64().is_nan() {
            Ok(literal)
        } else {
            Err(refuse().help(format!("{bits:#x} are not the bits of a NaN of {element}")))
        };
    }
    Literal::from_text(element, text).ok_or_else(|| match text.parse::<f64>() {
        Ok(_) => refuse().help(format!("it is too large; write `inf` for the infinity of {element}")),
        Err(_) => refuse(),
    })
}
