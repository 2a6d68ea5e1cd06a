//! Tokens to trees, by recursive descent: this file moves over the tokens and reads declarations and functions; its
//! children read statements, index expressions and scalar expressions.
//!
//! Sizes need no tree: an axis is declared before it is used, so they are computed while they are read. Recursion is
//! bounded and no token is read twice, so that no text takes long or overflows the stack.

mod index;
mod number;
mod scalar;
pub(crate) mod size;
mod statement;

use super::{
    ast::{ArrayType, Content, FunctionTree, Name, ParameterTree, Reference, StateOutput},
    error::{Complaint, Span, suggest},
    lexer::{Spanned, Token, tokens},
};
use rustc_hash::FxHashMap;
use std::sync::Arc;
use strang_runtime::{ElementType, Size};

pub(crate) type Result<T> = std::result::Result<T, Complaint>;

/// Nesting of parentheses, blocks and expressions beyond this is refused.
pub(crate) const DEEPEST: u16 = 96;

/// Arrays of more axes than this are refused.
pub(crate) const LARGEST_RANK: usize = 64;

/// The sizes that names stand for: axes and symbols declared so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    pub axes: FxHashMap<String, Size>,
    pub symbols: FxHashMap<String, Size>,
}

/// The declarations of a file, in order.
#[derive(Debug, Default)]
pub(crate) struct FileTree {
    pub title: String,
    pub parameters: Vec<ParameterTree>,
    pub functions: Vec<FunctionTree>,
}

pub(crate) struct Parser<'a> {
    tokens: Vec<Spanned<'a>>,
    position: usize,
    depth: u16,
    pub scope: Scope,
}

impl<'a> Parser<'a> {
    pub fn new(text: &'a str, scope: Scope) -> Result<Self> {
        if u32::try_from(text.len()).is_err() {
            return Err(Complaint::new("texts of 4 GiB and more are not read", Span::default()));
        }
        Ok(Parser { tokens: tokens(text)?, position: 0, depth: 0, scope })
    }

    fn peek(&self) -> &Token<'a> {
        &self.tokens[self.position].0
    }

    fn peek_after(&self) -> &Token<'a> {
        &self.tokens[(self.position + 1).min(self.tokens.len() - 1)].0
    }

    fn span(&self) -> Span {
        self.tokens[self.position].1
    }

    fn previous_span(&self) -> Span {
        self.tokens[self.position.saturating_sub(1)].1
    }

    fn advance(&mut self) -> Span {
        let span = self.span();
        // The last token is the end, which stays.
        self.position = (self.position + 1).min(self.tokens.len() - 1);
        span
    }

    fn at(&self, mark: &str) -> bool {
        matches!(self.peek(), Token::Mark(found) if *found == mark)
    }

    fn eat(&mut self, mark: &str) -> bool {
        let found = self.at(mark);
        if found {
            self.advance();
        }
        found
    }

    fn at_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Word(found) if *found == word)
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let found = self.at_word(word);
        if found {
            self.advance();
        }
        found
    }

    fn unexpected(&self, expected: impl std::fmt::Display) -> Complaint {
        Complaint::new(format!("expected {expected}, found {}", self.peek().describe()), self.span())
    }

    fn expect(&mut self, mark: &'static str) -> Result<Span> {
        if self.at(mark) { Ok(self.advance()) } else { Err(self.unexpected(format_args!("`{mark}`"))) }
    }

    fn expect_word(&mut self, word: &str) -> Result<Span> {
        if self.at_word(word) { Ok(self.advance()) } else { Err(self.unexpected(format_args!("`{word}`"))) }
    }

    fn word(&mut self, what: &str) -> Result<Name> {
        let Token::Word(text) = *self.peek() else { return Err(self.unexpected(what)) };
        Ok(Name { text: text.to_owned(), span: self.advance() })
    }

    fn value_name(&mut self) -> Result<Name> {
        let Token::Value(text) = self.peek() else { return Err(self.unexpected("a value, as `%x`")) };
        let text = text.clone().into_owned();
        Ok(Name { text, span: self.advance() })
    }

    fn global_name(&mut self, what: &str) -> Result<Name> {
        let Token::Global(text) = self.peek() else { return Err(self.unexpected(what)) };
        let text = text.clone().into_owned();
        Ok(Name { text, span: self.advance() })
    }

    fn string(&mut self, what: &str) -> Result<String> {
        let Token::String(text) = self.peek() else { return Err(self.unexpected(what)) };
        let text = text.clone();
        self.advance();
        Ok(text)
    }

    fn reference(&mut self) -> Result<Reference> {
        if let Token::Global(_) = self.peek() {
            return Ok(Reference { name: self.global_name("a parameter")?, global: true });
        }
        Ok(Reference { name: self.value_name()?, global: false })
    }

    fn element_type(&mut self) -> Result<ElementType> {
        let name = self.word("an element type, as `f32`")?;
        name.text
            .parse()
            .map_err(|error: strang_runtime::element::UnknownElementType| Complaint::new(error.to_string(), name.span))
    }

    /// `item, item, ... close`, possibly empty.
    fn list<T>(&mut self, close: &'static str, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut items = Vec::new();
        while !self.eat(close) {
            items.push(item(self)?);
            if !self.eat(",") {
                self.expect(close)?;
                break;
            }
        }
        Ok(items)
    }

    fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(Complaint::new("this is too deeply nested", self.span()));
        }
        let result = inner(self);
        self.depth -= 1;
        result
    }

    /// A whole file.
    pub fn file(&mut self) -> Result<FileTree> {
        self.header()?;
        let title = if let Token::String(_) = self.peek() { self.string("a title")? } else { String::new() };
        let mut file = FileTree { title, ..FileTree::default() };
        loop {
            match self.peek() {
                Token::Word("axis") => self.axis()?,
                Token::Word("symbol") => self.symbol()?,
                Token::Word("param") => file.parameters.push(self.parameter()?),
                Token::Word("fn") => file.functions.push(self.function()?),
                Token::End => return Ok(file),
                _ => return Err(self.unexpected("`axis`, `symbol`, `param` or `fn`")),
            }
        }
    }

    fn header(&mut self) -> Result<()> {
        let start = self.span();
        if !self.eat_word("ncd") {
            return Err(self.unexpected("`ncd 0.1`").help("a circuit starts with its version: ncd 0.1 \"title\""));
        }
        match self.peek() {
            Token::Number(number) if number.text == "0.1" && number.suffix.is_none() => {
                self.advance();
                Ok(())
            }
            found => {
                let message = format!("version {} of the text format is not known", found.describe());
                Err(Complaint::new(message, start.to(self.span())).help("this program reads `ncd 0.1`"))
            }
        }
    }

    fn axis(&mut self) -> Result<()> {
        self.advance();
        let name = self.word("the name of an axis")?;
        if name.text.ends_with('\'') {
            return Err(Complaint::new(
                "primes mark variables: `s'` is a second variable over the axis `s`",
                name.span,
            ));
        }
        if self.scope.axes.contains_key(&name.text) {
            return Err(Complaint::new(format!("the axis `{}` is declared twice", name.text), name.span));
        }
        let size = if self.eat("=") {
            self.size()?
        } else {
            let symbol = Size::symbol(name.text.as_str());
            self.scope.symbols.insert(name.text.clone(), symbol.clone());
            symbol
        };
        self.scope.axes.insert(name.text, size);
        Ok(())
    }

    fn symbol(&mut self) -> Result<()> {
        self.advance();
        let name = match self.peek() {
            Token::String(_) => self.string("a symbol")?,
            _ => self.word("a symbol")?.text,
        };
        let symbol = Size::symbol(name.as_str());
        self.scope.symbols.insert(name, symbol);
        Ok(())
    }

    fn parameter(&mut self) -> Result<ParameterTree> {
        self.advance();
        let name = self.global_name("the name of a parameter, as `@w`")?;
        self.expect(":")?;
        let array = self.array_type()?;
        let mut content = None;
        if self.eat("=") {
            content = Some(if self.eat_word("blake3") {
                let span = self.span();
                Content::Digest(Name { text: self.string("a digest, as a string of 64 hexadecimal digits")?, span })
            } else {
                let start = self.span();
                let mut values = Vec::new();
                self.values(&mut values)?;
                Content::Values(values, start.to(self.previous_span()))
            });
        }
        Ok(ParameterTree { name, array, content })
    }

    /// `[1, 2]`, or nested for people to read: `[[1, 2], [3, 4]]`.
    fn values(&mut self, values: &mut Vec<super::ast::Number>) -> Result<()> {
        self.expect("[")?;
        self.nested(|parser| {
            parser.list("]", |parser| {
                if parser.at("[") {
                    return parser.values(values);
                }
                values.push(parser.number()?);
                Ok(())
            })
        })?;
        Ok(())
    }

    /// `f32[b, s]`; the axes must be declared.
    fn array_type(&mut self) -> Result<ArrayType> {
        let start = self.span();
        let element = self.element_type()?;
        self.expect("[")?;
        let axes = self.list("]", |parser| {
            let axis = parser.word("an axis")?;
            parser.scope.axis(&axis)?;
            Ok(axis)
        })?;
        let span = start.to(self.previous_span());
        check_rank(axes.len(), span)?;
        Ok(ArrayType { element, axes, span })
    }

    fn function(&mut self) -> Result<FunctionTree> {
        self.advance();
        let name = self.global_name("the name of a function, as `@main`")?;
        self.expect("(")?;
        let inputs = self.list(")", |parser| {
            let name = parser.value_name()?;
            parser.expect(":")?;
            Ok((name, parser.array_type()?))
        })?;
        let mut outputs = Vec::new();
        if self.eat("->") {
            if self.eat("(") {
                outputs = self.list(")", Self::function_output)?;
            } else {
                outputs.push((None, self.array_type()?));
            }
        }
        self.expect("{")?;
        let mut function = FunctionTree {
            name,
            inputs,
            outputs,
            statements: vec![],
            states: vec![],
            results: vec![],
            returns: Span::default(),
        };
        self.body(&mut function)?;
        Ok(function)
    }

    /// `f32[b]` or `name: f32[b]`.
    fn function_output(&mut self) -> Result<(Option<Name>, ArrayType)> {
        let mut name = None;
        if *self.peek_after() == Token::Mark(":") {
            let span = self.span();
            let text = match self.peek() {
                Token::String(_) => self.string("a name")?,
                _ => self.word("a name")?.text,
            };
            name = Some(Name { text, span });
            self.expect(":")?;
        }
        Ok((name, self.array_type()?))
    }

    /// Everything up to the closing brace of a function.
    fn body(&mut self, function: &mut FunctionTree) -> Result<()> {
        let mut blocks: Vec<Arc<str>> = Vec::new();
        loop {
            match self.peek() {
                Token::Word("block") => {
                    let span = self.advance();
                    let title = self.string("the title of the block")?;
                    self.expect("{")?;
                    if blocks.len() >= DEEPEST.into() {
                        return Err(Complaint::new("blocks are too deeply nested", span));
                    }
                    blocks.push(match blocks.last() {
                        Some(outer) => format!("{outer} / {title}").into(),
                        None => title.into(),
                    });
                }
                Token::Mark("}") => {
                    let span = self.advance();
                    if blocks.pop().is_none() {
                        function.returns = span;
                        return Ok(());
                    }
                }
                Token::Word("state") => {
                    self.advance();
                    let input = self.value_name()?;
                    self.expect("->")?;
                    let span = self.span();
                    let output = match self.peek() {
                        Token::Number(_) => StateOutput::Position(self.count("the position of an output")?, span),
                        _ => StateOutput::Value(self.value_name()?),
                    };
                    function.states.push((input, output));
                }
                Token::Word("return") => {
                    let start = self.advance();
                    if !blocks.is_empty() {
                        return Err(Complaint::new("`return` stands after the blocks, not in one", start));
                    }
                    while !self.at("}") {
                        function.results.push(self.reference()?);
                        if !self.eat(",") {
                            break;
                        }
                    }
                    function.returns = start.to(self.previous_span());
                    if !self.at("}") {
                        return Err(self.unexpected("`}`").help("`return` is the last line of a function"));
                    }
                    self.advance();
                    return Ok(());
                }
                Token::Value(_) => function.statements.push(self.statement(blocks.last().cloned())?),
                _ => return Err(self.unexpected("a statement, as `%y = ...`, or `block`, `state`, `return` or `}`")),
            }
        }
    }
}

fn check_rank(rank: usize, span: Span) -> Result<()> {
    if rank <= LARGEST_RANK {
        return Ok(());
    }
    Err(Complaint::new(format!("{rank} axes are too many: arrays have up to {LARGEST_RANK}"), span))
}

impl Scope {
    /// The size of a declared axis; of a variable, the size of its axis.
    pub fn axis(&self, name: &Name) -> Result<&Size> {
        let axis = axis_name(&name.text);
        self.axes.get(axis).ok_or_else(|| {
            let complaint = Complaint::new(format!("the axis `{axis}` is not declared"), name.span);
            match suggest(axis, self.axes.keys().map(String::as_str)) {
                Some(help) => complaint.help(help),
                None => {
                    complaint.help(format!("declare it: axis {axis} = 4, or axis {axis} for a size known at run time"))
                }
            }
        })
    }
}

/// The name of the axis that a variable runs over: the variable's without primes.
pub(crate) fn axis_name(variable: &str) -> &str {
    variable.trim_end_matches('\'')
}
