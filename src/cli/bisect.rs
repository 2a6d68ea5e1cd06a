//! `strang bisect`: which application of a rule makes a model miss a tolerance.

use super::{ModelArguments, explain, inputs::InputArguments, output::showln, report};
use miette::{Result, miette};
use std::path::PathBuf;
use strang::{
    bisect::{Outcome, bisect},
    check::CheckError,
    compiler::rewrite::describe,
    ir::diff::diff,
};

/// Find the application of a rewriting rule that makes a model miss a tolerance
///
/// The model is compiled with the first half of the applications of rules, then with a quarter or three quarters, until one is
/// left with which the error exceeds the tolerance and without which it does not. Errors are relative to the largest
/// magnitude of the reference output. `--fuel` of the other commands stops before any application.
///
/// Examples:
///   strang bisect model.onnx --inputs data --reference outputs --tolerance 1e-4
///   strang bisect model.onnx --random 0 --tolerance 1e-6
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Bisect {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    inputs: InputArguments,
    /// A folder with output_0.npy, output_1.npy, ...: what the outputs should be; the model without any rule, if not given
    #[arg(long, value_name = "DIR")]
    reference: Option<PathBuf>,
    /// The largest error that is right
    #[arg(long, value_name = "T", default_value = "1e-4")]
    tolerance: f64,
}

impl Bisect {
    /// Does it.
    pub fn execute(self) -> Result<()> {
        let compiler = self.model.compiler();
        let module = super::load_with_progress(&self.model)?;
        let executable = compiler.compile(module.clone()).map_err(explain)?.executable;
        let inputs = self.inputs.read_any(&executable)?;
        let reference = super::inputs::references(self.reference.as_deref(), &executable)?;
        let mut progress =
            |applications: usize, error: f64| eprintln!("{applications:8} applications: error {error:.1e}");
        let outcome = bisect(&compiler, &module, &inputs, reference.as_deref(), self.tolerance, &mut progress);
        let outcome = outcome.map_err(|error| match error {
            CheckError::Compile(error) => explain(error),
            other => report(other),
        })?;
        let tolerance = self.tolerance;
        match outcome {
            Outcome::Kept { error, applications } => {
                showln!("the error is {error:.1e} with all {applications} applications: within {tolerance:.1e}");
                Ok(())
            }
            Outcome::Unrewritten { error } => Err(miette!(
                "the error is {error:.1e} without any rule: more than {tolerance:.1e}, so no rule is at fault"
            )),
            Outcome::Found(culprit) => {
                let application = &culprit.application;
                showln!("application {}: {} at {}", culprit.number, application.rule, application.layer);
                showln!("  the error is {:.1e} without it and {:.1e} with it", culprit.without, culprit.with);
                showln!("\n{}", diff(&culprit.before, &culprit.after));
                if let Some(text) = describe::rule(&application.rule) {
                    showln!("{text}");
                }
                Err(miette!(
                    "one application of `{}` makes the error {:.1e}, more than {tolerance:.1e}",
                    application.rule,
                    culprit.with
                ))
            }
        }
    }
}
