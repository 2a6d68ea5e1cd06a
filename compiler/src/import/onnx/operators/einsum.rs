//! `Einsum`.

use super::{
    matmul::same_type,
    scalar::{mul, operand},
};
use crate::import::onnx::{
    call::{Call, Imported},
    draft::Draft,
    error::ImportError,
};
use strang_ir::{IndexExpr, Op, Value};
use strang_runtime::Size;

/// `Einsum`: a contraction of one or two operands; one pair after the other where there are more.
pub fn einsum(call: &mut Call) -> Imported {
    let equation: String = call.attributes.string_or("equation", "")?.chars().filter(|c| !c.is_whitespace()).collect();
    let (inputs, output) = match equation.split_once("->") {
        Some((inputs, output)) => (inputs, Some(output)),
        None => (equation.as_str(), None),
    };
    let terms: Vec<&str> = inputs.split(',').collect();
    if terms.len() != call.operands.len() {
        let reason = format!("it has {} terms for {} inputs", terms.len(), call.operands.len());
        return Err(call.attributes.error("equation", reason));
    }
    let mut values = Vec::new();
    for slot in 0..terms.len() {
        values.push(call.value(slot)?);
    }
    // Axes under an ellipsis are called by their distance from its end, so that they broadcast like shapes do.
    let mut labels: Vec<Vec<Label>> = Vec::new();
    for (term, value) in terms.iter().zip(&values) {
        let rank = call.shape_of(*value).len();
        labels.push(term_labels(call, term, Some(rank), 0)?);
    }
    let hidden = labels.iter().flatten().filter_map(|label| match label {
        Label::Hidden(distance) => Some(*distance),
        Label::Letter(_) => None,
    });
    let hidden = hidden.max().map_or(0, |distance| distance + 1);
    let kept = match output {
        Some(output) => term_labels(call, output, None, hidden)?,
        None => {
            let mut letters: Vec<Label> = labels.iter().flatten().copied().collect();
            letters.retain(|label| matches!(label, Label::Letter(_)));
            let mut once: Vec<Label> = letters.clone();
            once.retain(|label| letters.iter().filter(|other| *other == label).count() == 1);
            once.sort_unstable();
            (0..hidden).rev().map(Label::Hidden).chain(once).collect()
        }
    };
    let sizes = label_sizes(call, labels.iter().zip(&values))?;
    for (place, label) in kept.iter().enumerate() {
        if !sizes.iter().any(|(other, _)| other == label) {
            return Err(call.attributes.error("equation", "the output has a letter that no input has"));
        }
        if kept[..place].contains(label) {
            return Err(call.attributes.error("equation", "the output has a letter twice"));
        }
    }
    for value in &values[1..] {
        same_type(call, values[0], *value)?;
    }
    let mut terms: Vec<Term> = labels.into_iter().zip(values).collect();
    while let Some((first, second)) = smallest_pair(&terms, &kept, &sizes) {
        let b = terms.remove(second);
        let a = terms.remove(first);
        let own = wanted_of([&a, &b], terms.iter(), &kept);
        let value = contracted(call, &[a, b], &own)?;
        terms.push((own, value));
    }
    Ok(vec![contracted(call, &terms, &kept)?.into()])
}

/// An array and what stands for each of its axes.
type Term = (Vec<Label>, Value);

/// The labels of some terms that others or the result have, each once.
fn wanted_of<'t>(own: [&Term; 2], others: impl Iterator<Item = &'t Term> + Clone, kept: &[Label]) -> Vec<Label> {
    let mut wanted: Vec<Label> = Vec::new();
    for label in own.into_iter().flat_map(|(labels, _)| labels) {
        let is_wanted = kept.contains(label) || others.clone().any(|(labels, _)| labels.contains(label));
        if is_wanted && !wanted.contains(label) {
            wanted.push(*label);
        }
    }
    wanted
}

/// The two terms whose product adds the fewest elements to those that are there, of more than two: what many terms contract to is
/// computed pair by pair (the greedy order of Smith and Gray, 2018, opt_einsum).
fn smallest_pair(terms: &[Term], kept: &[Label], sizes: &[(Label, Size)]) -> Option<(usize, usize)> {
    if terms.len() <= 2 {
        return None;
    }
    let size = |label: &Label| {
        let size = sizes.iter().find(|(other, _)| other == label).and_then(|(_, size)| size.as_constant());
        size.unwrap_or(ESTIMATE) as f64
    };
    let elements = |labels: &[Label]| labels.iter().map(size).product::<f64>();
    let growth = |(first, second): (usize, usize)| {
        let others = (0..terms.len()).filter(|place| ![first, second].contains(place)).map(|place| &terms[place]);
        let own = wanted_of([&terms[first], &terms[second]], others, kept);
        elements(&own) - elements(&terms[first].0) - elements(&terms[second].0)
    };
    let pairs = (1..terms.len()).flat_map(|second| (0..second).map(move |first| (first, second)));
    pairs.min_by(|a, b| growth(*a).total_cmp(&growth(*b)))
}

/// What a size counts as that is not known.
const ESTIMATE: i64 = 64;

/// The sizes of the axes that labels stand for: axes of one position are repeated.
fn label_sizes<'a>(
    call: &Call,
    terms: impl Iterator<Item = (&'a Vec<Label>, &'a Value)>,
) -> Result<Vec<(Label, Size)>, ImportError> {
    let mut sizes: Vec<(Label, Size)> = Vec::new();
    for (labels, value) in terms {
        for (label, size) in labels.iter().zip(call.shape_of(*value)) {
            match sizes.iter_mut().find(|(other, _)| other == label) {
                None => sizes.push((*label, size)),
                Some((_, known)) => match (known.as_constant(), size.as_constant()) {
                    (Some(1), _) | (None, Some(2..)) => *known = size,
                    (Some(a), Some(b)) if a != b && b != 1 => {
                        let reason = format!("one letter stands for the sizes {a} and {b}");
                        return Err(call.attributes.error("equation", reason));
                    }
                    _ => {}
                },
            }
        }
    }
    Ok(sizes)
}

/// The product of some terms, summed over the labels that are not kept.
fn contracted(call: &mut Call, terms: &[Term], kept: &[Label]) -> Result<Value, ImportError> {
    let sizes = label_sizes(call, terms.iter().map(|(labels, value)| (labels, value)))?;
    let summed = sizes.iter().filter(|(label, _)| !kept.contains(label));
    let kept_sizes = kept.iter().filter_map(|label| sizes.iter().find(|(other, _)| other == label));
    let mut draft = Draft::default();
    let variables: Vec<(Label, u32, Size)> =
        kept_sizes.chain(summed).map(|(label, size)| (*label, draft.variable(size), size.clone())).collect();
    for (labels, value) in terms {
        let shape = call.shape_of(*value);
        let place = |(label, size): (&Label, &Size)| {
            let found = variables.iter().find(|(other, ..)| other == label);
            match found {
                Some((_, variable, full)) if !size.is(1) || full.is(1) => IndexExpr::variable(*variable),
                _ => IndexExpr::constant(0),
            }
        };
        draft.read(*value, labels.iter().zip(&shape).map(place).collect());
    }
    let element = call.element_of(terms[0].1);
    let output: Vec<u32> = variables[..kept.len()].iter().map(|(_, variable, _)| *variable).collect();
    let op = match (terms.len(), variables.len() == kept.len()) {
        (1, true) => Op::View,
        (2, true) => Op::Map(mul(operand(0), operand(1))),
        _ => Op::Dot { accumulator: element.accumulator() },
    };
    Ok(call.emit(draft, op, element, &output))
}

/// What stands for an axis in an equation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    /// An axis under the ellipsis, by its distance from the ellipsis' end.
    Hidden(usize),
    /// A letter.
    Letter(char),
}

/// The labels of a term; `rank` is that of an input, `hidden` the axes that an ellipsis of the output stands for.
fn term_labels(call: &Call, term: &str, rank: Option<usize>, hidden: usize) -> Result<Vec<Label>, ImportError> {
    let error = |reason: String| call.attributes.error("equation", reason);
    let letters = term.replace("...", "");
    if let Some(bad) = letters.chars().find(|c| !c.is_ascii_alphabetic()) {
        return Err(error(format!("`{bad}` is not a letter")));
    }
    let count = letters.chars().count();
    let hidden = match (term.find("..."), rank) {
        (None, Some(rank)) if rank != count => {
            return Err(error(format!("the term `{term}` is for {count} axes, the input has {rank}")));
        }
        (None, _) => 0,
        (Some(_), Some(rank)) => {
            rank.checked_sub(count).ok_or_else(|| error(format!("the term `{term}` is for more than {rank} axes")))?
        }
        (Some(_), None) => hidden,
    };
    let Some((before, after)) = term.split_once("...") else {
        return Ok(letters.chars().map(Label::Letter).collect());
    };
    let middle = (0..hidden).rev().map(Label::Hidden);
    Ok(before.chars().map(Label::Letter).chain(middle).chain(after.chars().map(Label::Letter)).collect())
}
