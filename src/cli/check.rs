//! `strang check`: whether compiled code computes what the circuit says.

use super::{ModelArguments, explain, inputs::InputArguments, output::showln, report};
use indicatif::{ProgressBar, ProgressStyle};
use miette::{Result, miette};
use std::path::PathBuf;
use strang::check::{Against, CheckError, Deviation};

/// The largest error that is none: what sums in another order and our own functions may differ by.
const TOLERANCE: f64 = 1e-3;

/// Compare compiled code with the reference interpreter, or with given outputs
///
/// Every layer is compiled, and interpreted on the values that the compiled layers before it produced; the table shows the
/// error of each, the worst first, relative to the largest magnitude of its result. Of large layers a sample of elements is
/// compared. The command fails when an error exceeds 1e-3. Without inputs the model is checked on random ones (seed 0).
///
/// Examples:
///   strang check model.onnx --dim batch=1
///   strang check model.onnx --inputs data --reference outputs
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Check {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    inputs: InputArguments,
    /// A folder with output_0.npy, output_1.npy, ...: what the outputs should be
    #[arg(long, value_name = "DIR")]
    reference: Option<PathBuf>,
    /// Show this many layers; 0 for all
    #[arg(long, value_name = "N", default_value = "20")]
    layers: usize,
}

impl Check {
    /// Does it.
    pub fn execute(self) -> Result<()> {
        let compiler = self.model.compiler();
        let module = super::load_with_progress(&self.model)?;
        let executable = compiler.compile(module.clone()).map_err(explain)?.executable;
        let inputs = self.inputs.read_any(&executable)?;
        let reference = super::inputs::references(self.reference.as_deref(), &executable)?;
        let bar = ProgressBar::new(0).with_message("checking");
        if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30} {pos} of {len} layers, {eta} left") {
            bar.set_style(style);
        }
        let found = strang::check::check(&compiler, &module, &inputs, reference.as_deref(), &mut |done, count| {
            bar.set_length(count as u64);
            bar.set_position(done as u64);
        });
        bar.finish_and_clear();
        let found = found.map_err(|error| match error {
            CheckError::Compile(error) => explain(error),
            other => report(other),
        })?;
        let against = match found.against {
            Against::Reference => "the given outputs",
            Against::Interpreter => "the interpreter",
            Against::Layers => "the layers compiled one by one",
        };
        showln!("outputs against {against}");
        found.results.iter().for_each(print_row);
        let shown = if self.layers == 0 { found.layers.len() } else { self.layers.min(found.layers.len()) };
        showln!("layers against the interpreter, {shown} of {}, the worst first", found.layers.len());
        found.layers.iter().take(shown).for_each(print_row);
        if found.worst() > TOLERANCE {
            return Err(miette!("the largest error is {:.1e}, more than {TOLERANCE:.0e}", found.worst()));
        }
        Ok(())
    }
}

fn print_row(row: &Deviation) {
    let (compared, total) = row.compared;
    let share = if compared == total { format!("all {total}") } else { format!("{compared} of {total}") };
    showln!("  {:<9.1e} {:<10} {} ({share} elements)", row.error, row.operation, row.name);
}
