//! The choice of variants under an error budget: as much predicted time saved as the measured error allows.
//!
//! Every variant is measured alone first. Then they are taken by the time they save for their error, the whole measured after
//! each, and one that makes the error exceed the budget is left out again. In the end samples that had no part in the choice
//! must agree; where they do not, the variant with the least saving for its error goes until they do.

use super::{Ranges, Variant, all, applied, observing};
use serde::{Deserialize, Serialize};
use std::fmt;
use strang_ir::Module;

/// Which samples an error is measured on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Samples {
    /// Those that choose.
    Fitting,
    /// Those that confirm.
    HeldOut,
}

/// How a circuit is judged.
pub trait Judge {
    /// Why it cannot be.
    type Error;
    /// The predicted seconds of a run.
    ///
    /// # Errors
    /// A circuit that does not compile.
    fn seconds(&mut self, module: &Module) -> Result<f64, Self::Error>;
    /// The largest difference of a result from the exact circuit's, relative to the largest magnitude of that result.
    ///
    /// # Errors
    /// A circuit that does not compile or run.
    fn error(&mut self, module: &Module, samples: Samples) -> Result<f64, Self::Error>;
    /// For every pair of results, each a number, the least of the first and the largest of the second over the samples that
    /// choose.
    ///
    /// # Errors
    /// A circuit that does not compile or run.
    fn extremes(&mut self, module: &Module) -> Result<Vec<(f64, f64)>, Self::Error>;
}

/// A variant that was chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Approximation {
    /// The rule.
    pub rule: String,
    /// The user's layer, with the degree where the rule has degrees.
    pub layer: String,
    /// The error that it makes alone.
    pub error: f64,
    /// The share of a run's predicted time that it saves alone.
    pub saving: f64,
}

/// What was chosen.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The circuit.
    pub module: Module,
    /// What a budget did.
    pub report: Report,
}

/// What a budget did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The error that was allowed.
    pub allowed: f64,
    /// The variants, those with the largest saving for their error first.
    pub variants: Vec<Approximation>,
    /// How many were measured.
    pub measured: usize,
    /// The error of the whole on the samples that chose.
    pub error: f64,
    /// The error of the whole on the samples that confirm.
    pub held_out: f64,
    /// The share of a run's predicted time that is saved.
    pub saving: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| 100. * share;
        writeln!(
            f,
            "error budget {:.1e}: {} of {} variants used, error {:.1e}, {:.1e} on held-out samples, {:.1} % of the predicted time saved",
            self.allowed,
            self.variants.len(),
            self.measured,
            self.error,
            self.held_out,
            percent(self.saving)
        )?;
        self.variants.iter().try_for_each(|variant| {
            let Approximation { rule, layer, error, saving } = variant;
            writeln!(f, "{rule}: {layer}: error {error:.1e}, {:.1} % saved", percent(*saving))
        })
    }
}

struct Candidate {
    variant: Variant,
    error: f64,
    saving: f64,
}

/// Chooses variants of a circuit whose results together differ by at most `allowed`.
///
/// # Errors
/// What the judge says.
pub fn choose<J: Judge>(module: &Module, allowed: f64, judge: &mut J) -> Result<Chosen, J::Error> {
    let exact = judge.seconds(module)?;
    let ranges = match observing(module) {
        Some((observing, values)) => values.into_iter().zip(judge.extremes(&observing)?).collect(),
        None => Ranges::default(),
    };
    let mut candidates = Vec::new();
    let mut measured = 0;
    for variant in all().iter().flat_map(|rule| (rule.find)(module, &ranges)) {
        let with = applied(module, [&variant]);
        let saving = 1. - judge.seconds(&with)? / exact;
        if saving > 0. {
            measured += 1;
            let error = judge.error(&with, Samples::Fitting)?;
            if error <= allowed {
                candidates.push(Candidate { variant, error, saving });
            }
        }
    }
    // The sort is stable: of equals the first that was found.
    let worth = |candidate: &Candidate| candidate.saving / candidate.error.max(f64::MIN_POSITIVE);
    candidates.sort_by(|a, b| worth(b).total_cmp(&worth(a)));

    let mut taken: Vec<Candidate> = Vec::new();
    let together = |taken: &[Candidate]| applied(module, taken.iter().map(|candidate| &candidate.variant));
    let mut error = 0.;
    for candidate in candidates {
        let (others, excluded): (Vec<_>, Vec<_>) =
            taken.drain(..).partition(|other| !other.variant.excludes(&candidate.variant));
        // A larger degree of what is taken stands in its place, where the whole still keeps the budget.
        let lost: f64 = excluded.iter().map(|other| other.saving).sum();
        if candidate.saving <= lost {
            taken = others;
            taken.extend(excluded);
            continue;
        }
        let count = others.len();
        taken = others;
        taken.push(candidate);
        let with = judge.error(&together(&taken), Samples::Fitting)?;
        if with <= allowed {
            error = with;
        } else {
            taken.truncate(count);
            taken.extend(excluded);
        }
    }
    let mut held_out = judge.error(&together(&taken), Samples::HeldOut)?;
    taken.sort_by(|a, b| worth(b).total_cmp(&worth(a)));
    while held_out > allowed && taken.pop().is_some() {
        let module = together(&taken);
        (error, held_out) = (judge.error(&module, Samples::Fitting)?, judge.error(&module, Samples::HeldOut)?);
    }
    let chosen = together(&taken);
    let saving = 1. - judge.seconds(&chosen)? / exact;
    let variants = taken.into_iter().map(|candidate| {
        let Variant { rule, layer, degree, .. } = candidate.variant;
        let layer = degree.map_or(layer.clone(), |degree| format!("{layer}, {degree}"));
        Approximation { rule: rule.name.into(), layer, error: candidate.error, saving: candidate.saving }
    });
    let report = Report { allowed, variants: variants.collect(), measured, error, held_out, saving };
    Ok(Chosen { module: chosen, report })
}
