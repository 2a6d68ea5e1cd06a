//! Text to tokens. Newlines and `#` comments are spaces: statements delimit themselves.

use super::error::{Complaint, Span};
use std::borrow::Cow;
use strang_runtime::ElementType;
use winnow::{
    LocatingSlice, Parser,
    ascii::digit1,
    combinator::{alt, opt, preceded, repeat},
    error::EmptyError,
    stream::{Location, Stream},
    token::{any, one_of, take_till, take_while},
};

/// A number as it is written, without its sign.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NumberText<'a> {
    pub text: &'a str,
    /// The type written behind it: `0.5f32`.
    pub suffix: Option<ElementType>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token<'a> {
    /// A keyword, an axis, a variable, a function of `map`: `dot`, `s'`.
    Word(&'a str),
    /// `%name`.
    Value(Cow<'a, str>),
    /// `@name`.
    Global(Cow<'a, str>),
    /// `$0`: an operand by slot.
    Slot(u32),
    Number(NumberText<'a>),
    /// The digits of `0x1F`.
    Hexadecimal(&'a str),
    String(String),
    Mark(&'static str),
    End,
}

pub(crate) type Spanned<'a> = (Token<'a>, Span);

type Input<'a> = LocatingSlice<&'a str>;
type Result<T> = std::result::Result<T, EmptyError>;

const MARKS: [&str; 26] = [
    "->", "//", "==", "!=", "<=", ">=", "<", ">", "=", "+", "-", "*", "/", "%", "^", "|", ",", ":", "(", ")", "[", "]",
    "{", "}", ";", ".",
];

/// All tokens, with [`Token::End`] last.
pub(crate) fn tokens(text: &str) -> std::result::Result<Vec<Spanned<'_>>, Complaint> {
    let mut input = LocatingSlice::new(text);
    // Tokens of real files are about this long; one growth more does no harm.
    let mut found = Vec::with_capacity(text.len() / 4 + 1);
    loop {
        let spaces: Result<()> =
            repeat(0.., alt((take_while(1.., char::is_whitespace), comment))).parse_next(&mut input);
        debug_assert!(spaces.is_ok(), "no repetition is a repetition");
        let start = input.current_token_start();
        let span = |input: &Input<'_>| Span { start: start as u32, end: input.current_token_start() as u32 };
        if input.is_empty() {
            found.push((Token::End, span(&input)));
            return Ok(found);
        }
        // `s%8` and `(s + 1)%8` divide; ` %8` names a value.
        let divides =
            text[..start].chars().next_back().is_some_and(|c| is_name(c) || matches!(c, ')' | '}' | '|' | ']' | '"'));
        match token(&mut input, divides) {
            Ok(token) => found.push((token, span(&input))),
            Err(EmptyError) => return Err(explain(&text[start..], start)),
        }
    }
}

fn explain(rest: &str, start: usize) -> Complaint {
    let first = rest.chars().next().unwrap_or(' ');
    let span = Span { start: start as u32, end: (start + first.len_utf8()) as u32 };
    match first {
        '"' => Complaint::new("this string does not end, or has an unknown escape", span)
            .help("escapes are \\\", \\\\, \\n, \\r, \\t and \\u{1F600}"),
        '$' => Complaint::new("`$` is followed by the slot of an operand: `$0`", span),
        '@' => Complaint::new("`@` is followed by a name: `@weight`, or `@\"any text\"`", span),
        '0'..='9' => Complaint::new("this is not a number", span).help("numbers are `2`, `0.5`, `1e-12`, `0.5f32`"),
        _ => Complaint::new(format!("unexpected character `{}`", first.escape_debug()), span),
    }
}

/// What names after `%` and `@` consist of.
pub(crate) fn is_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '\'')
}

/// What words consist of, before their primes.
pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.')
}

fn comment<'a>(input: &mut Input<'a>) -> Result<&'a str> {
    preceded('#', take_till(0.., '\n')).parse_next(input)
}

fn token<'a>(input: &mut Input<'a>, divides: bool) -> Result<Token<'a>> {
    if !divides && let Ok(value) = attempt(input, preceded('%', name)) {
        return Ok(Token::Value(value));
    }
    alt((
        preceded('@', name).map(Token::Global),
        preceded('$', digit1.parse_to::<u32>()).map(Token::Slot),
        word.map(Token::Word),
        preceded("0x", take_while(1.., |c: char| c.is_ascii_hexdigit())).map(Token::Hexadecimal),
        number.map(Token::Number),
        string.map(Token::String),
        mark.map(Token::Mark),
    ))
    .parse_next(input)
}

/// Runs a parser and takes nothing when it fails.
fn attempt<'a, T>(input: &mut Input<'a>, mut parser: impl Parser<Input<'a>, T, EmptyError>) -> Result<T> {
    let start = input.checkpoint();
    parser.parse_next(input).inspect_err(|_| input.reset(&start))
}

fn name<'a>(input: &mut Input<'a>) -> Result<Cow<'a, str>> {
    alt((take_while(1.., is_name).map(Cow::Borrowed), string.map(Cow::Owned))).parse_next(input)
}

fn word<'a>(input: &mut Input<'a>) -> Result<&'a str> {
    (one_of(|c: char| c.is_alphabetic() || c == '_'), take_while(0.., is_word), take_while(0.., '\''))
        .take()
        .parse_next(input)
}

fn number<'a>(input: &mut Input<'a>) -> Result<NumberText<'a>> {
    let fraction = ('.', digit1);
    let exponent = (one_of(['e', 'E']), opt(one_of(['+', '-'])), digit1);
    let text = (digit1, opt(fraction), opt(exponent)).take().parse_next(input)?;
    let suffix = take_while(0.., is_word).parse_next(input)?;
    let suffix = if suffix.is_empty() { None } else { Some(suffix.parse().map_err(|_| EmptyError)?) };
    Ok(NumberText { text, suffix })
}

fn string(input: &mut Input<'_>) -> Result<String> {
    '"'.parse_next(input)?;
    let mut out = String::new();
    loop {
        match any.parse_next(input)? {
            '"' => return Ok(out),
            '\\' => out.push(escape(input)?),
            c => out.push(c),
        }
    }
}

fn escape(input: &mut Input<'_>) -> Result<char> {
    let code = |input: &mut Input<'_>| {
        let digits = ("{", take_while(1..=6, |c: char| c.is_ascii_hexdigit()), "}").parse_next(input)?.1;
        u32::from_str_radix(digits, 16).ok().and_then(char::from_u32).ok_or(EmptyError)
    };
    match any.parse_next(input)? {
        c @ ('"' | '\\') => Ok(c),
        'n' => Ok('\n'),
        'r' => Ok('\r'),
        't' => Ok('\t'),
        'u' => code(input),
        _ => Err(EmptyError),
    }
}

fn mark(input: &mut Input<'_>) -> Result<&'static str> {
    let rest: &str = input.as_ref();
    let mark = MARKS.into_iter().find(|mark| rest.starts_with(mark)).ok_or(EmptyError)?;
    input.next_slice(mark.len());
    Ok(mark)
}

impl Token<'_> {
    /// The token as it reads in a message.
    pub fn describe(&self) -> String {
        match self {
            Token::Word(word) => format!("`{word}`"),
            Token::Value(name) => format!("`%{name}`"),
            Token::Global(name) => format!("`@{name}`"),
            Token::Slot(slot) => format!("`${slot}`"),
            Token::Number(number) => format!("`{}`", number.text),
            Token::Hexadecimal(digits) => format!("`0x{digits}`"),
            Token::String(_) => "a string".to_owned(),
            Token::Mark(mark) => format!("`{mark}`"),
            Token::End => "the end of the text".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<Token<'_>> {
        tokens(text).unwrap().into_iter().map(|(token, _)| token).collect()
    }

    #[test]
    fn percent_signs() {
        use Token::*;
        let number = |text| Number(NumberText { text, suffix: None });
        assert_eq!(kinds("s%8"), [Word("s"), Mark("%"), number("8"), End]);
        assert_eq!(kinds("e % 4"), [Word("e"), Mark("%"), number("4"), End]);
        assert_eq!(
            kinds("[%8, %a.b']"),
            [Mark("["), Value("8".into()), Mark(","), Value("a.b'".into()), Mark("]"), End]
        );
    }

    #[test]
    fn numbers_and_strings() {
        use Token::*;
        assert_eq!(kinds("1e-12")[0], Number(NumberText { text: "1e-12", suffix: None }));
        assert_eq!(kinds("0.5f32")[0], Number(NumberText { text: "0.5", suffix: Some(ElementType::F32) }));
        assert_eq!(kinds("@\"a b\\u{41}\\n\" # no\n x''"), [Global("a bA\n".into()), Word("x''"), End]);
        for wrong in ["\"open", "\"\\q\"", "3x", "$", "@", "§", "$99999999999"] {
            assert!(tokens(wrong).is_err(), "{wrong}");
        }
    }
}
