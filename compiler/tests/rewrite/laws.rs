//! The list of rules, walked: every example of every rule on random sizes, element types and values; and every conjunct of
//! every guard removed, which must be caught.

use super::{compare::difference, disguise::disguise};
use std::{collections::BTreeMap, sync::Arc};
use strang_compiler::rewrite::{
    rule::{Class, Rule},
    rules,
    single::{Outcome, apply, circuit},
};
use strang_ir::{Module, Size, Tensor, random::random_tensor, text, verify::verify};

/// Random instances of every rule.
const INSTANCES: usize = 1000;

/// Instances of every example that are read in other ways; a rule need not apply to each.
const DISGUISED: usize = 300;

struct Instance {
    module: Module,
    inputs: Vec<Tensor>,
}

/// An example with sizes, element type and values drawn from a seed.
fn instance(class: Class, example: &str, seed: u64) -> Instance {
    drawn(class, example, seed, false)
}

/// An instance, whose arrays are read in other ways where `disguised`.
fn drawn(class: Class, example: &str, seed: u64, disguised: bool) -> Instance {
    let mut draw = Draw(seed);
    let mut source = circuit(example);
    if class != Class::Bit {
        source = source.replace("f32", "f64");
    } else {
        let element = ["f32", "f64", "f16", "bf16"][draw.below(4)];
        source = source.replace("f32", element);
    }
    let mut module = text::parse(&source, "example").unwrap_or_else(|error| panic!("{}\n{source}", error.render()));
    let sizes: BTreeMap<Arc<str>, Size> =
        ["a", "b", "c", "d"].iter().map(|name| (Arc::from(*name), Size::from(1 + draw.below(6) as i64))).collect();
    module.substitute(&sizes);
    if disguised {
        disguise(&mut module, &mut draw);
    }
    let shape = |sizes: Vec<Size>| -> Vec<usize> {
        sizes.iter().map(|size| size.as_constant().unwrap_or(1) as usize).collect()
    };
    let special = class == Class::Bit;
    for parameter in &mut module.parameters {
        let sizes = shape(parameter.axes.iter().map(|axis| axis.size.clone()).collect());
        let data = random_tensor(parameter.element, &sizes, special && draw.below(2) == 0, draw.next());
        // A variance is positive; so is what stands for one.
        let positive = parameter.name.contains("variance");
        parameter.data = Some(if positive { absolute(data) } else { data });
    }
    let function = module.entry();
    let inputs = function
        .inputs
        .iter()
        .map(|node| {
            let sizes = shape(function.shape_of((*node).into()));
            let tensor = random_tensor(function.element_of((*node).into()), &sizes, special, draw.next());
            // Positions of what is largest may tell a subnormal from a zero; values do not.
            if !special && !example.contains("argreduce") && draw.below(4) == 0 {
                sprinkled(tensor, &mut draw)
            } else {
                tensor
            }
        })
        .collect();
    Instance { module, inputs }
}

fn absolute(mut tensor: Tensor) -> Tensor {
    for (position, value) in tensor.to_f64().into_iter().enumerate() {
        let value = if value.is_finite() { value.abs() + 0.1 } else { 1. };
        tensor.set_bits(position, strang_ir::Literal::from_f64(tensor.element(), value).bits);
    }
    tensor
}

/// Zeros of both signs, subnormals, large numbers and ties among the values: special, but finite.
fn sprinkled(mut tensor: Tensor, draw: &mut Draw) -> Tensor {
    if tensor.element().is_float() {
        for position in 0..tensor.count() {
            if draw.below(3) == 0 {
                let value = [0., -0., 5e-324, -1e-310, 1., -1., 1e3, 2.5][draw.below(8)];
                tensor.set_bits(position, strang_ir::Literal::from_f64(tensor.element(), value).bits);
            }
        }
    }
    tensor
}

/// Numbers from a seed.
pub struct Draw(pub u64);

impl Draw {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 ^ (self.0 >> 29)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        ((self.next() >> 20) % limit as u64) as usize
    }
}

/// Whether a rule applies to an instance, or what is wrong with what it makes of it.
fn holds(rule: &'static Rule, sample: &Instance) -> Result<bool, String> {
    let Outcome::Rewritten(rewritten) = apply(&sample.module, rule, None) else { return Ok(false) };
    let shown = || format!("{}\n{}\nbecame\n{}", rule.name, text::print(&sample.module), text::print(&rewritten));
    verify(&rewritten).map_err(|error| format!("{error}\n{}", shown()))?;
    match difference(rule.class, &sample.module, &rewritten, &sample.inputs) {
        Some(difference) => Err(format!("{difference} on {:?}\n{}", sample.inputs, shown())),
        None => Ok(true),
    }
}

/// The number of instances on which a rule applied, or what is wrong.
fn check(rule: &'static Rule) -> Result<usize, String> {
    let each = INSTANCES.div_ceil(rule.examples.len());
    let mut applied = 0;
    for example in rule.examples {
        let mut here = 0;
        for seed in 0..each as u64 * 4 {
            if here == each {
                break;
            }
            let sample = instance(rule.class, example, seed);
            here += usize::from(holds(rule, &sample)?);
        }
        if here < each {
            return Err(format!("{} applied to {here} of {each} instances of\n{example}", rule.name));
        }
        applied += here;
    }
    Ok(applied)
}

/// The number of disguised instances on which a rule applied, or what is wrong.
fn check_disguised(rule: &'static Rule) -> Result<usize, String> {
    let mut applied = 0;
    for (example, seed) in
        rule.examples.iter().flat_map(|example| (0..DISGUISED as u64).map(move |seed| (example, seed)))
    {
        let sample = drawn(rule.class, example, seed, true);
        if verify(&sample.module).is_ok() {
            applied += usize::from(holds(rule, &sample)?);
        }
    }
    Ok(applied)
}

/// Whether removing a conjunct is caught on its counterexample.
fn is_caught(rule: &'static Rule, position: usize) -> Result<(), String> {
    let conjunct = &rule.guard[position];
    let mut applied = 0;
    for seed in 0..200 {
        let sample = instance(rule.class, conjunct.counterexample, seed);
        if let Outcome::Rewritten(rewritten) = apply(&sample.module, rule, None) {
            return Err(format!("applies to its counterexample {}: {}", conjunct.text, text::print(&rewritten)));
        }
        let rewritten = match apply(&sample.module, rule, Some(position)) {
            Outcome::Nothing => continue,
            Outcome::Refused => return Ok(()),
            Outcome::Rewritten(rewritten) => rewritten,
        };
        applied += 1;
        if verify(&rewritten).is_err() || difference(rule.class, &sample.module, &rewritten, &sample.inputs).is_some() {
            return Ok(());
        }
    }
    Err(format!("`{}` is not needed: applied {applied} times without it, and nothing differs", conjunct.text))
}

#[test]
fn every_rule_keeps_its_law() {
    let (mut instances, mut failures) = (0, Vec::new());
    for rule in rules::all() {
        match check(rule) {
            Ok(count) => instances += count,
            Err(failure) => failures.push(failure),
        }
    }
    println!("{} rules on {instances} instances", rules::all().len());
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn every_rule_keeps_its_law_however_arrays_are_read() {
    let (mut instances, mut rules_that_applied, mut failures) = (0, 0, Vec::new());
    for rule in rules::all() {
        match check_disguised(rule) {
            Ok(count) => {
                instances += count;
                rules_that_applied += usize::from(count > 0);
            }
            Err(failure) => failures.push(failure),
        }
    }
    println!("{rules_that_applied} rules applied to {instances} disguised instances");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    // A disguise that no rule sees through would test nothing.
    assert!(rules_that_applied * 10 >= rules::all().len() * 9 && instances >= 100 * rules_that_applied);
}

#[test]
fn every_conjunct_is_needed() {
    let (mut caught, mut failures) = (0, Vec::new());
    for rule in rules::all() {
        for position in 0..rule.guard.len() {
            match is_caught(rule, position) {
                Ok(()) => caught += 1,
                Err(failure) => failures.push(format!("{}: {failure}", rule.name)),
            }
        }
    }
    println!("{caught} conjuncts removed and caught");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn names_are_unique() {
    let names: std::collections::BTreeSet<&str> = rules::all().iter().map(|rule| rule.name).collect();
    assert_eq!(names.len(), rules::all().len());
    assert!(rules::all().iter().all(|rule| !rule.law.is_empty() && !rule.source.is_empty()));
}
