//! Rules as text for people: the list, and one rule in full with an example before and after.

use super::{
    rule::{Find, Rule},
    rules,
    single::{Outcome, apply, circuit},
};
use std::fmt::Write;
use strang_ir::{Module, text, verify::verify};

/// Every rule with its class and law, by family.
pub fn list() -> String {
    let width = rules::all().iter().map(|rule| rule.name.len()).max().unwrap_or_default();
    let mut text = String::new();
    let mut current = "";
    for (family, rule) in rules::families() {
        if *family != current {
            let gap = if current.is_empty() { "" } else { "\n" };
            let _ = writeln!(text, "{gap}{family}");
            current = family;
        }
        let _ = writeln!(text, "  {:width$}  {:4}  {}", rule.name, rule.class.name(), rule.law);
    }
    text
}

/// A rule in full; `None` if there is none of this name.
pub fn rule(name: &str) -> Option<String> {
    let (family, rule) = rules::families().iter().find(|(_, rule)| rule.name == name)?;
    let mut text = format!(
        "{}: {}\n  family  {family}\n  class   {}\n  source  {}\n",
        rule.name,
        rule.law,
        rule.class.name(),
        rule.source
    );
    for (position, conjunct) in rule.guard.iter().enumerate() {
        let _ = writeln!(text, "  {}  {}", if position == 0 { "guard " } else { "   and" }, conjunct.text);
    }
    match rule.find {
        Find::Patterns(patterns, _) => {
            for (position, pattern) in patterns.iter().enumerate() {
                let _ = writeln!(text, "  {}  {pattern}", if position == 0 { "finds " } else { "    or" });
            }
        }
        Find::Built => text.push_str("  finds   nothing: terms are built so\n"),
        Find::Whole(_) => text.push_str("  finds   several terms at once\n"),
    }
    if let Some((before, after)) = rule.examples.iter().find_map(|example| example_of(rule, example)) {
        let _ = write!(text, "\nbefore\n{}\nafter\n{}", body(&before), body(&after));
    }
    Some(text)
}

/// An example before and after, with small sizes.
fn example_of(rule: &'static Rule, example: &str) -> Option<(Module, Module)> {
    let sized = circuit(example)
        .replace("axis a   axis b   axis c   axis d", "axis a = 4   axis b = 6   axis c = 3   axis d = 5");
    let mut before = text::parse(&sized, rule.name).ok()?;
    for parameter in &mut before.parameters {
        let shape: Option<Vec<usize>> =
            parameter.axes.iter().map(|axis| axis.size.as_constant().map(|size| size as usize)).collect();
        // What the weights are does not matter, but that they are known does.
        let count = shape.as_ref()?.iter().product::<usize>();
        let values: Vec<f32> = (0..count).map(|position| position as f32).collect();
        parameter.data = strang_ir::Tensor::from_slice(&shape?, &values).ok();
    }
    verify(&before).ok()?;
    match apply(&before, rule, None) {
        Outcome::Rewritten(after) => Some((before, after)),
        _ => None,
    }
}

/// The functions of a module's text, without its axes and parameters.
fn body(module: &Module) -> String {
    let printed = text::print(module);
    let lines = printed.lines().skip_while(|line| !line.starts_with("fn "));
    lines.map(|line| format!("  {line}\n")).collect()
}
