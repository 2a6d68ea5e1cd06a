//! The text format of circuits, `.ncd`.
//!
//! [`parse()`] reads it, [`print()`] writes it in one canonical form, and `parse(print(m)) == m`.
//!
//! # Grammar
//!
//! Spaces, newlines and `#` comments separate; statements end by themselves. `x, ...` is a list with commas, `[x]` in
//! quotes below is literal.
//!
//! ```text
//! file       := "ncd" "0.1" [STRING] (axis | symbol | param | fn)*
//! axis       := "axis" NAME ["=" size]                 an axis; without a size, its size is the symbol NAME
//! symbol     := "symbol" (NAME | STRING)               a size known at run time
//! param      := "param" "@"name ":" array ["=" ("blake3" STRING | values)]
//! array      := TYPE "[" axis, ... "]"
//! fn         := "fn" "@"name "(" "%"name ":" array, ... ")" ["->" (array | "(" [name ":"] array, ... ")")]
//!               "{" (statement | block | state)* ["return" value, ...] "}"
//! block      := "block" STRING "{" (statement | block | state)* "}"
//! state      := "state" "%"input "->" ("%"output | NUMBER)
//! statement  := "%"name, ... "=" op
//! op         := "const" TYPE number
//!             | header attribute* [":"] operand, ... ["at" "[" index, ... "]"] "->" result, ...
//! header     := "dot" | "map" scalar | "reduce" monoid | "argreduce" ("max" | "min") ["last"] | "softmax" ["log"]
//!             | "norm" ("layer" | "rms" | "batch") ["(" "eps" "=" number ")"] | "view"
//!             | "concat" "along" variable ["at" "(" size, ... ")"] | "gather" | "scatter" [monoid]
//!             | "scan" "@"fn "along" variable ["reverse"] ["states" "=" NUMBER] | "sort" ("ascending" | "descending")
//!             | "if" "then" "@"fn "else" "@"fn | "loop" "@"fn | "call" "@"fn
//!             | "custom" STRING ["{" key "=" STRING, ... "}"]
//! attribute  := "order" "=" "(" variable, ... ")" | "fill" "=" number | "acc" "=" TYPE
//! operand    := ("%"name | "@"name) "[" index, ... "]" ["where" condition ("and" condition)*] ["else" number]
//! result     := [TYPE] "[" variable, ... "]"
//! variable   := NAME "'"*, or in braces
//! condition  := size "<=" index "<" size | index "%" size "==" "0"
//! index      := affine in variables: "2*u + {p} - 1", "e // 4", "e % 4", "clamp(e, 0, 9)", "table([3, 1, 2], e)", "$1";
//!               sizes stand in bars: "|s|*b + t"
//! size       := "m / h", "4*s + 1", "(s + 1)//2", "s % 8", "min(s, 512)"
//! scalar     := "$0 * 0.5 + sin($1)", "select($0 < $1, 0, index(s))", "cast(f32, $0)", "|s|"; or the name of one
//!               function of all operands: "add", "cast(f32)", "scale(|k|^-1/2)"
//! monoid     := "sum" | "product" | "min" | "max" | "and" | "or"
//! ```
//!
//! Names beside letters, digits, `_` and `.` are quoted: `%"a b"`, `@"onnx::MatMul_7"`.
//!
//! # Rules
//!
//! - A variable runs over the axis of its name without primes: `s` and `s'` are two variables over the axis `s`.
//! - Variables that an operation combines over, those of its operands that are in no result, stand in braces. So do the
//!   variables that softmax and norm work over, in the result and in their first operand, and the variable of a sorted
//!   result that takes the place of the sorted one.
//! - The order of summation is the order of first appearance in the operands, unless `order=(...)` lists it.
//! - In `gather`, the k-th braced place of the first operand that no other variable explains reads index operand k;
//!   `$k` says so in any expression.
//! - Numbers have the type of what stands beside them; a suffix (`0.5f32`, `inf_f16`) where nothing does.

pub(crate) mod ast;
pub(crate) mod error;
pub(crate) mod lexer;
pub(crate) mod lower;
pub(crate) mod parse;
mod print;

pub use error::{Label, Span, TextError};
pub(crate) use print::elements;
pub use print::{print, statements};

use crate::{
    CircuitError, Module, Source,
    error::Mistake,
    verify::{Verified, verify},
};
use error::Complaint;
use parse::FileTree;

/// Reads a module from text; `origin` names the text in messages.
///
/// # Errors
/// The first mistake, with its place in the text. Names, types and ranks are checked; that sizes fit, and all else that
/// later stages rely on, is the verifier's to say: see [`parse_verified`].
pub fn parse(source: &str, origin: &str) -> Result<Module, TextError> {
    let read = || read(source).map(|(_, module)| module);
    read().map_err(|complaint| complaint.in_text(origin, source))
}

/// Reads a module from text and verifies it.
///
/// # Errors
/// As [`parse`]; then the verifier's first mistake, at the statement or operand where it is.
pub fn parse_verified(source: &str, origin: &str) -> Result<(Module, Verified), TextError> {
    let read = || {
        let (file, module) = read(source)?;
        let verified = verify(&module).map_err(|error| place_in_text(&file, &error))?;
        Ok((module, verified))
    };
    read().map_err(|complaint: Complaint| complaint.in_text(origin, source))
}

fn read(source: &str) -> Result<(FileTree, Module), Complaint> {
    let mut parser = parse::Parser::new(source, parse::Scope::default())?;
    let file = parser.file()?;
    let module = lower::lower_file(&file, parser.scope)?;
    Ok((file, module))
}

/// A mistake of the verifier under the text it is about: the operand where there is one, else the statement.
fn place_in_text(file: &FileTree, error: &CircuitError) -> Complaint {
    let Source::Span { start, end } = error.source else {
        return Complaint::new(format!("{}: {}", error.at, error.kind), Span::default());
    };
    let statement_span = Span { start, end };
    let operand = |slot: usize| {
        let mut statements = file.functions.iter().flat_map(|function| &function.statements);
        let statement = statements.find(|statement| statement.span == statement_span)?;
        statement.operands.get(slot).map(|operand| operand.span)
    };
    match &*error.kind {
        Mistake::OutOfRange { slot, axis, expression, reaches, size } => {
            let message = format!("{}: this reads outside the axis {axis}", error.at);
            Complaint::new(message, operand(*slot).unwrap_or(statement_span))
                .under(format!("`{expression}` reaches {reaches}, but the axis has size {size}"))
                .help("`else 0` behind the operand gives the value that lies outside")
        }
        kind => Complaint::new(format!("{}: {kind}", error.at), statement_span),
    }
}
