//! Random circuits with inputs that fit them, for property tests of everything that reads circuits: printing, rewriting,
//! planning, code generation. Behind the cargo feature `testing`.
//!
//! A circuit is drafted from tapes of numbers, one tape a step; every decision takes the next number, and 0 is always the
//! plainest choice. So proptest shrinks a failure by dropping steps and by lowering numbers, and whatever tapes say is a
//! valid module: [`crate::verify()`] accepts it, and all of its values are small.

mod chains;
mod data;
mod draft;
mod reads;
mod steps;
mod tape;
#[cfg(test)]
mod tests;

use crate::{ElementType, Module, Tensor, text};
use proptest::{collection::vec, prelude::*};
use std::{fmt, ops::RangeInclusive};
use strang_runtime::Bindings;

/// What kinds of circuits to draw.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How many steps; a step adds one node, or a chain of up to six.
    pub steps: RangeInclusive<usize>,
    /// Whether an axis of the first input may have a symbolic size.
    pub symbolic: bool,
    /// Whether floats may be NaN, infinities, zeros of both signs, subnormal or huge.
    pub special_values: bool,
    /// Whether element types other than f32 may occur (and integers for indices).
    pub all_elements: bool,
    /// Whether `scan`, `sort`, `gather`, `scatter` and arg-reductions may occur.
    pub irregular: bool,
    /// The largest number of elements of an array.
    pub elements: usize,
    /// The largest number of positions of a node's variables.
    pub work: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            steps: 1..=6,
            symbolic: false,
            special_values: false,
            all_elements: true,
            irregular: true,
            elements: 4096,
            work: 50_000,
        }
    }
}

/// A valid module, inputs for its entry, and the values of the symbols that they bind.
#[derive(Clone)]
pub struct Sample {
    /// The module: one function with parameters.
    pub module: Module,
    /// Its inputs, in order.
    pub inputs: Vec<Tensor>,
    /// What the inputs bind.
    pub bindings: Bindings,
}

impl fmt::Debug for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", text::print(&self.module))?;
        for (position, input) in self.inputs.iter().enumerate() {
            let values = input.to_f64();
            let shown: Vec<f64> = values.iter().copied().take(16).collect();
            writeln!(f, "input {position}: {input:?} = {shown:?}{}", if values.len() > 16 { " ..." } else { "" })?;
        }
        Ok(())
    }
}

/// Random modules with inputs.
pub fn random_module(config: Config) -> impl Strategy<Value = Sample> {
    let steps = vec(vec(0u32..10_000, 0..40), config.steps.clone());
    (steps, any::<u64>().no_shrink()).prop_map(move |(tapes, seed)| sample(&config, &tapes, seed))
}

/// The module that tapes say, with data from a seed: for generators other than proptest, such as fuzzers.
pub fn sample(config: &Config, tapes: &[Vec<u32>], seed: u64) -> Sample {
    let mut draft = draft::Draft::new(config, seed);
    for tape in tapes {
        draft.step(tape);
    }
    draft.finish()
}

/// A tensor of random values that suit an element type: floats between -2 and 2 (or special ones), small integers.
pub fn random_tensor(element: ElementType, shape: &[usize], special_values: bool, seed: u64) -> Tensor {
    data::Elements::new(seed).tensor(element, shape, special_values)
}
