//! Which application of a rule makes a model miss a tolerance: found by halving.
//!
//! A model is compiled with the first applications only, half of them at first; where its results are still right the fault
//! is in the other half. Rules build on one another, so the applications after the fault are left out rather than before it.

use crate::{
    Compiler,
    check::{CheckError, difference},
};
use strang_compiler::rewrite::Application;
use strang_ir::Module;
use strang_runtime::Tensor;

/// What a search for a faulty application found.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The model keeps the tolerance.
    Kept {
        /// Its error.
        error: f64,
        /// How many applications there are.
        applications: usize,
    },
    /// The model misses the tolerance without any rule: the fault lies elsewhere.
    Unrewritten {
        /// Its error.
        error: f64,
    },
    /// With one application more the tolerance is missed.
    Found(Box<Culprit>),
}

/// The application that makes a difference.
#[derive(Clone, Debug)]
pub struct Culprit {
    /// Its number; a compiler with one less of [`Compiler::fuel`] stops before it.
    pub number: usize,
    /// The rule and the layer. A window that stands for several like it was searched at its first place.
    pub application: Application,
    /// The error without it.
    pub without: f64,
    /// The error with it.
    pub with: f64,
    /// The circuit without it.
    pub before: Module,
    /// The circuit with it.
    pub after: Module,
}

struct Trial {
    error: f64,
    applications: usize,
    last: Option<Application>,
    rewritten: Module,
}

/// Finds the application of a rule with which the error exceeds the tolerance. Errors are largest differences relative to the
/// largest magnitude of the reference; without a reference the results of the model without any rule are it. `progress` is told the
/// applications of each trial and its error.
///
/// # Errors
/// A circuit that does not compile or run, or tensors that do not fit it.
pub fn bisect(
    compiler: &Compiler,
    module: &Module,
    inputs: &[Tensor],
    reference: Option<&[Tensor]>,
    tolerance: f64,
    progress: &mut dyn FnMut(usize, f64),
) -> Result<Outcome, CheckError> {
    let own;
    let reference = match reference {
        Some(given) => given,
        None => {
            own = compiler.clone().fuel(0).compile(module.clone())?.executable.run(inputs)?;
            &own
        }
    };
    let mut attempt = |fuel: Option<usize>| {
        let compiler = fuel.map_or_else(|| compiler.clone(), |fuel| compiler.clone().fuel(fuel));
        let model = compiler.compile(module.clone())?;
        let got = model.executable.run(inputs)?;
        if got.len() != reference.len() {
            return Err(CheckError::References { expected: got.len(), found: reference.len() });
        }
        let error = got.iter().zip(reference).map(|(got, want)| difference(got, want)).fold(0., f64::max);
        progress(model.receipt.spent, error);
        let (applications, last) = (model.receipt.spent, model.receipt.last);
        Ok(Trial { error, applications, last, rewritten: model.rewritten })
    };
    let all = attempt(None)?;
    if all.error <= tolerance {
        return Ok(Outcome::Kept { error: all.error, applications: all.applications });
    }
    let mut good = attempt(Some(0))?;
    if good.error > tolerance {
        return Ok(Outcome::Unrewritten { error: good.error });
    }
    let mut bad = all;
    // `good` keeps the tolerance and `bad` misses it, whatever is between.
    while bad.applications - good.applications > 1 {
        let middle = attempt(Some(good.applications.midpoint(bad.applications)))?;
        let kept = middle.error <= tolerance;
        *(if kept { &mut good } else { &mut bad }) = middle;
    }
    let application = bad.last.unwrap_or(Application { rule: String::new(), layer: String::new() });
    Ok(Outcome::Found(Box::new(Culprit {
        number: bad.applications,
        application,
        without: good.error,
        with: bad.error,
        before: good.rewritten,
        after: bad.rewritten,
    })))
}
