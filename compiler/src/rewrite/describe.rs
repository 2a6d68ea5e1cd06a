//! Rules as text for people: the list, and one rule in full with an example before and after. Approximate rules come last.

use super::{
    rule::{Class, Find, Rule},
    rules,
    single::{Outcome, apply, circuit},
};
use crate::approximate::{self, ApproximateRule};
use std::fmt::Write;
use strang_ir::{Literal, Module, Tensor, text, verify::verify};

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
    let _ = writeln!(text, "\napproximate, used under an error budget alone");
    for rule in approximate::all() {
        let _ = writeln!(text, "  {:width$}        {}", rule.name, rule.law);
    }
    text
}

/// A rule in full; `None` if there is none of this name.
pub fn rule(name: &str) -> Option<String> {
    let Some((family, rule)) = rules::families().iter().find(|(_, rule)| rule.name == name) else {
        return approximate::all().iter().find(|rule| rule.name == name).map(approximation);
    };
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

/// An approximate rule in full.
fn approximation(rule: &ApproximateRule) -> String {
    let ApproximateRule { name, law, expansion, order, source, .. } = rule;
    let class = Class::Approximate.name();
    let mut text =
        format!("{name}: {law}\n  class   {class}\n  source  {source}\n  error   {expansion}\n  order   h^{order}\n");
    if let Some((before, after)) = approximation_of(rule) {
        let _ = write!(text, "\nbefore\n{}\nafter\n{}", body(&before), body(&after));
    }
    text
}

/// The example of an approximate rule before and after.
fn approximation_of(rule: &ApproximateRule) -> Option<(Module, Module)> {
    let before = with_weights(text::parse(&format!("ncd 0.1 \"example\"\n{}\n", rule.example), rule.name).ok()?)?;
    let values = approximate::observing(&before).map_or(Vec::new(), |(_, values)| values);
    let ranges = values.into_iter().map(|value| (value, (-1., 1.))).collect();
    let variant = (rule.find)(&before, &ranges).into_iter().next()?;
    let after = approximate::applied(&before, [&variant]);
    Some((before, after))
}

/// An example before and after, with small sizes.
fn example_of(rule: &'static Rule, example: &str) -> Option<(Module, Module)> {
    let sized = circuit(example)
        .replace("axis a   axis b   axis c   axis d", "axis a = 4   axis b = 6   axis c = 3   axis d = 5");
    let before = with_weights(text::parse(&sized, rule.name).ok()?)?;
    match apply(&before, rule, None) {
        Outcome::Rewritten(after) => Some((before, after)),
        _ => None,
    }
}

/// A verified module with values for its weights.
fn with_weights(mut module: Module) -> Option<Module> {
    for parameter in &mut module.parameters {
        let shape: Option<Vec<usize>> =
            parameter.axes.iter().map(|axis| axis.size.as_constant().map(|size| size as usize)).collect();
        // What the weights are does not matter, but that they are known does.
        let mut data = Tensor::zeros(parameter.element, &shape?).ok()?;
        for position in 0..data.count() {
            data.set_bits(position, Literal::from_f64(parameter.element, position as f64).bits);
        }
        parameter.data = Some(data);
    }
    verify(&module).ok()?;
    Some(module)
}

/// The functions of a module's text, without its axes and parameters.
fn body(module: &Module) -> String {
    let printed = text::print(module);
    let lines = printed.lines().skip_while(|line| !line.starts_with("fn "));
    lines.map(|line| format!("  {line}\n")).collect()
}
