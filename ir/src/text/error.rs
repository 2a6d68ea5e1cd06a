//! Mistakes in text: what is wrong, where, and what would work, with carets under the source.

use std::{fmt, ops::Range, sync::Arc};

/// Bytes of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub start: u32,
    /// One past the last.
    pub end: u32,
}

impl Span {
    /// From the start of one span to the end of another.
    pub fn to(self, other: Span) -> Span {
        Span { start: self.start, end: other.end.max(self.start) }
    }

    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// A place in the text and what is to be said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Where.
    pub span: Span,
    /// What; may be empty.
    pub text: String,
}

/// A mistake found while reading text, before it is known which text that is.
#[derive(Clone, Debug)]
pub(crate) struct Complaint {
    pub message: String,
    pub labels: Vec<Label>,
    pub help: Option<String>,
}

impl Complaint {
    pub fn new(message: impl Into<String>, span: Span) -> Self {
        Complaint { message: message.into(), labels: vec![Label { span, text: String::new() }], help: None }
    }

    /// The same mistake with words under its first place.
    pub fn under(mut self, text: impl Into<String>) -> Self {
        self.labels[0].text = text.into();
        self
    }

    /// The same mistake with a second place.
    pub fn and(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push(Label { span, text: text.into() });
        self
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub fn in_text(self, origin: &str, text: &str) -> TextError {
        TextError(Box::new(Inner {
            message: self.message,
            labels: self.labels,
            help: self.help,
            origin: origin.into(),
            text: text.into(),
        }))
    }
}

/// A mistake in a text, with the text, so that it can be shown: as one line by `Display`, with the source by
/// [`TextError::render`], in colours by any `miette` handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextError(Box<Inner>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    message: String,
    labels: Vec<Label>,
    help: Option<String>,
    origin: Arc<str>,
    text: Arc<str>,
}

impl TextError {
    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The places; the first is where the mistake is.
    pub fn labels(&self) -> &[Label] {
        &self.0.labels
    }

    /// What would work.
    pub fn help(&self) -> Option<&str> {
        self.0.help.as_deref()
    }

    /// The name of the text, as it was given.
    pub fn origin(&self) -> &str {
        &self.0.origin
    }

    /// Line and column (of characters) of the mistake, from 1.
    pub fn line_and_column(&self) -> (usize, usize) {
        let start = self.0.labels.first().map_or(0, |label| label.span.start);
        let line = Line::around(&self.0.text, start as usize);
        (line.number, line.column(start as usize))
    }

    /// The mistake as plain text: message, source lines with carets, help.
    pub fn render(&self) -> String {
        let Inner { message, labels, help, origin, text } = &*self.0;
        let (number, column) = self.line_and_column();
        let lines: Vec<Line> = labels.iter().map(|label| Line::around(text, label.span.start as usize)).collect();
        let margin = lines.iter().map(|line| line.number.to_string().len()).max().unwrap_or(1);
        let mut out = format!("error: {message}\n{:margin$}--> {origin}:{number}:{column}\n", "");
        for (position, (label, line)) in labels.iter().zip(&lines).enumerate() {
            if position == 0 || lines[position - 1].number != line.number {
                out += &format!("{:>margin$} | {}\n", line.number, line.text);
            }
            let start = line.column(label.span.start as usize) - 1;
            let end = line.column((label.span.end as usize).min(line.start + line.text.len())) - 1;
            let carets = "^".repeat(end.saturating_sub(start).max(1));
            let caret_line = format!("{:margin$} | {:start$}{carets} {}", "", "", label.text);
            out += caret_line.trim_end();
            out.push('\n');
        }
        if let Some(help) = help {
            out += &format!("{:margin$} = help: {help}\n", "");
        }
        out
    }
}

/// One line of a text.
struct Line<'a> {
    number: usize,
    start: usize,
    text: &'a str,
}

impl<'a> Line<'a> {
    fn around(text: &'a str, position: usize) -> Self {
        let mut position = position.min(text.len());
        while !text.is_char_boundary(position) {
            position -= 1;
        }
        let start = text[..position].rfind('\n').map_or(0, |newline| newline + 1);
        let end = text[position..].find('\n').map_or(text.len(), |newline| position + newline);
        let number = text[..start].matches('\n').count() + 1;
        Line { number, start, text: text[start..end].trim_end_matches('\r') }
    }

    fn column(&self, position: usize) -> usize {
        self.text.char_indices().take_while(|(at, _)| self.start + at < position).count() + 1
    }
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.line_and_column();
        write!(f, "{}:{line}:{column}: {}", self.0.origin, self.0.message)
    }
}

impl std::error::Error for TextError {}

impl miette::Diagnostic for TextError {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.0.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        Some(&*self.0)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = miette::LabeledSpan> + '_>> {
        Some(Box::new(self.0.labels.iter().map(|label| {
            let text = (!label.text.is_empty()).then(|| label.text.clone());
            miette::LabeledSpan::new_with_span(text, label.span.range())
        })))
    }
}

/// The text under its name.
impl miette::SourceCode for Inner {
    fn read_span<'a>(
        &'a self,
        span: &miette::SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn miette::SpanContents<'a> + 'a>, miette::MietteError> {
        let found = self.text.read_span(span, before, after)?;
        Ok(Box::new(miette::MietteSpanContents::new_named(
            self.origin.to_string(),
            found.data(),
            *found.span(),
            found.line(),
            found.column(),
            found.line_count(),
        )))
    }
}

/// `one of these: ...` for a help line: the known names, nearest spelling first, at most eight.
pub(crate) fn suggest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    // Distances to very long lists or names take long and help nobody.
    const CONSIDERED: usize = 4096;
    let wrong: String = wrong.chars().take(64).collect();
    let mut near: Vec<(usize, &str)> = known
        .take(CONSIDERED)
        .filter(|name| name.len() <= 256)
        .map(|name| (edit_distance(&wrong, name), name))
        .collect();
    near.sort_unstable();
    let (distance, best) = near.first()?;
    if *distance <= 1 + wrong.chars().count() / 3 {
        return Some(format!("did you mean `{best}`?"));
    }
    near.truncate(8);
    let names: Vec<String> = near.iter().map(|(_, name)| format!("`{name}`")).collect();
    Some(format!("known here: {}", names.join(", ")))
}

/// Levenshtein's distance (1966) by characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carets_count_characters() {
        let text = "first\n  größe [x]\r\nlast";
        let at = text.find("[x]").unwrap() as u32;
        let error =
            Complaint::new("wrong", Span { start: at, end: at + 3 }).under("here").help("that").in_text("t.ncd", text);
        assert_eq!(
            error.render(),
            "error: wrong\n --> t.ncd:2:9\n2 |   größe [x]\n  |         ^^^ here\n  = help: that\n"
        );
        assert_eq!(error.to_string(), "t.ncd:2:9: wrong");
    }

    #[test]
    fn near_names_are_suggested() {
        assert_eq!(suggest("quer", ["key", "query"].into_iter()).unwrap(), "did you mean `query`?");
        assert_eq!(suggest("zzz", ["b", "a"].into_iter()).unwrap(), "known here: `a`, `b`");
    }
}
