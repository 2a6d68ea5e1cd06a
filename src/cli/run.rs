//! `strang run`: compile a model and run it once.

use super::{
    ModelArguments, budget::BudgetArguments, inputs::InputArguments, output::showln, report, summary::summary,
};
use miette::{Result, miette};
use std::{path::PathBuf, sync::Arc};
use strang::{
    npy,
    runtime::{session::SessionOptions, team::Team},
};

/// Compile a model and run it on inputs
///
/// Inputs come from a folder, from single files, or at random; sizes that the model leaves open follow from the inputs, or
/// from --dim. Without --outputs a readable summary of each output is printed: shape, range, first values; for one row of
/// classes the top five.
///
/// Examples:
///   strang run resnet50.onnx --random 0 --dim batch=1
///   strang run model.onnx --inputs data --outputs results
///   strang run model.onnx --input tokens=tokens.npy --dim batch=1 --profile
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Run {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    inputs: InputArguments,
    #[command(flatten)]
    budget: BudgetArguments,
    /// Write the outputs to this folder, as output_0.npy, output_1.npy, ...
    #[arg(long, value_name = "DIR")]
    outputs: Option<PathBuf>,
    /// How many threads work; all that this process may use, if not given
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Show for every kernel its time, flops, bytes and its share of the machine's peak
    #[arg(long)]
    profile: bool,
}

/// Options for a number of threads, at least one.
pub fn session_options(threads: Option<usize>) -> SessionOptions {
    SessionOptions { team: threads.map(|threads| Arc::new(Team::new(Some(threads.max(1))))), ..Default::default() }
}

impl Run {
    /// Does it.
    pub fn execute(self) -> Result<()> {
        if self.threads == Some(0) {
            return Err(miette!("--threads takes at least 1"));
        }
        let model = super::compile_with_progress(&self.model, &self.budget, self.inputs.values(&self.model.model)?)?;
        let inputs = self.inputs.read(&model.executable)?;
        let bindings = model.executable.bindings(&inputs).map_err(report)?;
        let mut session = model.executable.session(&bindings, &session_options(self.threads)).map_err(report)?;
        let outputs = if self.profile {
            // The first run touches memory for the first time, the second gathers it; the third shows what a run costs.
            for _ in 0..2 {
                session.run(&inputs).map_err(report)?;
                session.reset_states();
            }
            let (outputs, profile) = session.run_profiled(&inputs).map_err(report)?;
            eprintln!("{profile}");
            outputs
        } else {
            session.run(&inputs).map_err(report)?
        };
        match &self.outputs {
            Some(folder) => {
                std::fs::create_dir_all(folder).map_err(|error| miette!("{}: {error}", folder.display()))?;
                for (position, output) in outputs.iter().enumerate() {
                    npy::write(&folder.join(format!("output_{position}.npy")), output).map_err(report)?;
                }
            }
            None => {
                for (port, output) in model.executable.outputs().zip(&outputs) {
                    showln!("{}", summary(&port.name, output));
                }
            }
        }
        Ok(())
    }
}
