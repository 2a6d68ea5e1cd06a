//! Statements: `%y = dot order=(p, c) : %a[b, {c}], @w[{c}, o] -> [b, o]`.

use super::{Parser, Result};
use crate::{
    op::{Monoid, Norm},
    text::{
        ast::{Name, OpTree, Operand, ResultTree, Statement},
        error::{Complaint, suggest},
        lexer::Token,
    },
};
use std::sync::Arc;

/// Every operation that a statement can start with.
const OPERATIONS: [&str; 17] = [
    "const",
    "dot",
    "map",
    "reduce",
    "argreduce",
    "softmax",
    "norm",
    "view",
    "concat",
    "gather",
    "scatter",
    "scan",
    "sort",
    "if",
    "loop",
    "call",
    "custom",
];

impl Parser<'_> {
    /// A statement in a block.
    pub(super) fn statement(&mut self, block: Option<Arc<str>>) -> Result<Statement> {
        let start = self.span();
        let mut names = vec![self.value_name()?];
        while self.eat(",") {
            names.push(self.value_name()?);
        }
        self.expect("=")?;
        let mut statement = self.operation()?;
        statement.names = names;
        statement.block = block;
        statement.span = start.to(self.previous_span());
        Ok(statement)
    }

    /// A statement without the names of its results.
    pub fn operation(&mut self) -> Result<Statement> {
        let word = self.word("an operation, as `dot`")?;
        let op = self.op(&word)?;
        let mut statement = Statement {
            names: Vec::new(),
            op,
            op_span: word.span,
            order: None,
            fill: None,
            operands: Vec::new(),
            target: None,
            results: Vec::new(),
            span: word.span,
            block: None,
        };
        if let OpTree::Const(..) = statement.op {
            return Ok(statement);
        }
        self.attributes(&mut statement)?;
        self.eat(":");
        if !self.at("->") && !self.at_word("at") {
            statement.operands.push(self.operand()?);
            while self.eat(",") {
                statement.operands.push(self.operand()?);
            }
        }
        if self.eat_word("at") {
            statement.target = Some(self.places()?);
        }
        self.expect("->")?;
        statement.results.push(self.result()?);
        while self.eat(",") {
            statement.results.push(self.result()?);
        }
        statement.span = word.span.to(self.previous_span());
        Ok(statement)
    }

    /// `order=(...)`, `fill=...`, `acc=...`, in any order.
    fn attributes(&mut self, statement: &mut Statement) -> Result<()> {
        while *self.peek_after() == Token::Mark("=") {
            let word = self.word("`order`, `fill` or `acc`")?;
            self.advance();
            match (word.text.as_str(), &mut statement.op) {
                ("order", _) => {
                    self.expect("(")?;
                    let variables = self.list(")", |parser| parser.word("a variable"))?;
                    statement.order = Some((variables, word.span.to(self.previous_span())));
                }
                ("fill", _) => statement.fill = Some(self.number()?),
                ("acc", OpTree::Dot(accumulator)) => *accumulator = Some(self.element_type()?),
                (other, _) => {
                    return Err(Complaint::new(format!("`{other}` is not an attribute of this operation"), word.span)
                        .help("attributes are `order=(p, c)`, `fill=0` and, of `dot`, `acc=f32`"));
                }
            }
        }
        Ok(())
    }

    fn op(&mut self, word: &Name) -> Result<OpTree> {
        Ok(match word.text.as_str() {
            "const" => {
                let element = self.element_type()?;
                OpTree::Const(element, self.number()?)
            }
            "dot" => OpTree::Dot(None),
            "map" => OpTree::Map(self.map_header()?),
            "reduce" => OpTree::Reduce(self.monoid()?),
            "argreduce" => {
                let largest = self.eat_word("max");
                if !largest {
                    self.expect_word("min")?;
                }
                OpTree::ArgReduce { largest, last: self.eat_word("last") }
            }
            "softmax" => OpTree::Softmax { log: self.eat_word("log") },
            "norm" => self.norm()?,
            "view" => OpTree::View,
            "concat" => self.concat()?,
            "gather" => OpTree::Gather,
            "scatter" => {
                let reduces =
                    matches!(self.peek(), Token::Word(word) if *word != "at") && *self.peek_after() != Token::Mark("=");
                OpTree::Scatter(if reduces { Some(self.monoid()?) } else { None })
            }
            "scan" => self.scan()?,
            "sort" => {
                let descending = self.eat_word("descending");
                if !descending {
                    self.expect_word("ascending")?;
                }
                OpTree::Sort { descending }
            }
            "if" => {
                self.expect_word("then")?;
                let then = self.global_name("a function, as `@body`")?;
                self.expect_word("else")?;
                OpTree::If { then, otherwise: self.global_name("a function, as `@body`")? }
            }
            "loop" => OpTree::Loop(self.global_name("a function, as `@body`")?),
            "call" => OpTree::Call(self.global_name("a function, as `@body`")?),
            "custom" => self.custom()?,
            other => {
                let complaint = Complaint::new(format!("`{other}` is not an operation"), word.span);
                return Err(match suggest(other, OPERATIONS.into_iter()) {
                    _ if crate::scalar::Unary::from_name(other).is_some()
                        || crate::scalar::Binary::from_name(other).is_some() =>
                    {
                        complaint.help(format!("functions of single values are maps: `map {other} : ...`"))
                    }
                    Some(help) => complaint.help(help),
                    None => complaint,
                });
            }
        })
    }

    fn monoid(&mut self) -> Result<Monoid> {
        let name = self.word("`sum`, `product`, `min`, `max`, `and` or `or`")?;
        let wanted = match name.text.as_str() {
            "add" => "sum",
            "mul" => "product",
            other => other,
        };
        Monoid::ALL.into_iter().find(|monoid| monoid.name() == wanted).ok_or_else(|| {
            Complaint::new(format!("`{}` does not combine values", name.text), name.span)
                .help("reductions are `sum`, `product`, `min`, `max`, `and` and `or`")
        })
    }

    /// `layer(eps = 1e-12)`.
    fn norm(&mut self) -> Result<OpTree> {
        let name = self.word("`layer`, `rms` or `batch`")?;
        let kind = [Norm::Layer, Norm::Rms, Norm::Batch].into_iter().find(|kind| kind.name() == name.text);
        let Some(kind) = kind else {
            return Err(Complaint::new(format!("`{}` is not a normalisation", name.text), name.span)
                .help("normalisations are `layer`, `rms` and `batch`"));
        };
        let mut epsilon = None;
        if self.eat("(") {
            self.expect_word("eps")?;
            self.expect("=")?;
            epsilon = Some(self.number()?);
            self.expect(")")?;
        }
        Ok(OpTree::Norm(kind, epsilon))
    }

    /// `along v`, and `at (0, 3, 7)` where the parts do not simply follow each other.
    fn concat(&mut self) -> Result<OpTree> {
        self.expect_word("along")?;
        let along = self.word("a variable")?;
        let mut offsets = None;
        if self.at_word("at") {
            let start = self.advance();
            self.expect("(")?;
            let sizes = self.list(")", Self::size)?;
            offsets = Some((sizes, start.to(self.previous_span())));
        }
        Ok(OpTree::Concat(along, offsets))
    }

    /// `@body along t reverse states=2`.
    fn scan(&mut self) -> Result<OpTree> {
        let body = self.global_name("a function, as `@body`")?;
        self.expect_word("along")?;
        let along = self.word("a variable")?;
        let reverse = self.eat_word("reverse");
        let mut states = 0;
        if self.eat_word("states") {
            self.expect("=")?;
            states = self.count("the number of states")?;
        }
        Ok(OpTree::Scan { body, along, reverse, states })
    }

    /// `"name" {key = "value"}`.
    fn custom(&mut self) -> Result<OpTree> {
        let name = self.string("the name that the operation is registered under, as a string")?;
        let mut attributes = Vec::new();
        if self.eat("{") {
            attributes = self.list("}", |parser| {
                let key = match parser.peek() {
                    Token::String(_) => parser.string("a key")?,
                    _ => parser.word("a key")?.text,
                };
                parser.expect("=")?;
                Ok((key, parser.string("a value, as a string")?))
            })?;
        }
        Ok(OpTree::Custom(name, attributes.into_iter().collect()))
    }

    fn operand(&mut self) -> Result<Operand> {
        let start = self.span();
        let reference = self.reference()?;
        if !self.at("[") {
            return Err(self.unexpected("`[`").help(format!(
                "say where the operand is read: `{}{}[b, m]`, or `[]` for a single number",
                if reference.global { "@" } else { "%" },
                reference.name.text
            )));
        }
        let places = self.places()?;
        let conditions = if self.eat_word("where") { self.conditions()? } else { Vec::new() };
        let fill = if self.eat_word("else") { Some(self.number()?) } else { None };
        Ok(Operand { reference, places, conditions, fill, span: start.to(self.previous_span()) })
    }

    fn result(&mut self) -> Result<ResultTree> {
        let start = self.span();
        let element = if self.at("[") { None } else { Some(self.element_type()?) };
        self.expect("[")?;
        let variables = self.list("]", |parser| {
            let braced = parser.eat("{");
            let name = parser.word("a variable")?;
            if braced {
                parser.expect("}")?;
            }
            Ok((name, braced))
        })?;
        let span = start.to(self.previous_span());
        super::check_rank(variables.len(), span)?;
        Ok(ResultTree { element, variables, span })
    }
}
