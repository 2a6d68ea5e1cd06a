//! `strang compile`: show or write any stage of a compilation.

use super::{
    ModelArguments,
    budget::{self, BudgetArguments},
    explain,
    inputs::InputArguments,
    output::{show, showln},
    report,
};
use indicatif::ProgressBar;
use miette::Result;
use std::path::{Path, PathBuf};
use strang::{
    Compiler,
    compiler::{
        codegen::{self, schedule::Schedules},
        rewrite::{Extraction, Receipt},
    },
    files, ir,
    runtime::program::Port,
    tune,
};

/// Compile a model and print any stage
///
/// A model goes through these stages; each prints as text that stays the same for the same model, so that it can be kept
/// and compared:
///
///   ncd        the circuit as it was read, in the text form that `strang` reads back (weights as digests)
///   json       the same as JSON, for other programs
///   rewritten  the circuit after rewriting: constants folded, equal forms that run faster
///   plan       the kernels: what is fused, where arrays lie, how much memory there is
///   clif       Cranelift's intermediate code of every kernel
///   asm        the machine code of every kernel, for this machine
///
/// Examples:
///   strang compile model.onnx --emit ncd -o model.ncd
///   strang compile model.onnx --emit plan | less
///   strang compile model.onnx --tune tuned.txt; strang run model.onnx --inputs DIR --tuned tuned.txt
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Compile {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    budget: BudgetArguments,
    /// The stage
    #[arg(long, value_enum, default_value = "plan")]
    emit: Stage,
    /// How the cheapest form is found. `ilp` also tells how far from the best `greedy` is, and takes long
    #[arg(long, value_enum, default_value = "greedy")]
    extract: Extract,
    /// Measure schedules of the products on this machine, and keep those that are better than the built-in ones in this file,
    /// beside what it has of other models and machines; `--tuned` then uses them. Sizes must be known (--dim)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["output", "emit", "tuned"])]
    tune: Option<PathBuf>,
    /// The threads that --tune measures with; all that this process may use, if not given
    #[arg(long, value_name = "N", requires = "tune")]
    threads: Option<usize>,
    /// Write to this file instead of the terminal
    #[arg(short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// A stage of a compilation, readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Stage {
    /// The circuit as it was read, as text
    Ncd,
    /// The circuit after rewriting, as text
    Rewritten,
    /// The circuit as it was read, as JSON
    Json,
    /// The kernels: what is fused, where arrays lie, memory
    Plan,
    /// Cranelift's intermediate code of every kernel
    Clif,
    /// The machine code of every kernel
    Asm,
}

/// How the cheapest form is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Extract {
    /// The cheapest form of every part for itself, then of all together
    Greedy,
    /// An integer program for every window of up to 2,000 terms
    Ilp,
}

impl Compile {
    /// Does it.
    pub fn execute(self) -> Result<()> {
        let extraction = match self.extract {
            Extract::Greedy => Extraction::Greedy,
            Extract::Ilp => Extraction::Ilp,
        };
        let compiler = self.model.compiler().extraction(extraction);
        if let Some(path) = &self.tune {
            return self.tune(compiler, path);
        }
        let text = match self.emit {
            Stage::Ncd => ir::text::print(&super::load_with_progress(&self.model)?),
            Stage::Json => ir::json::print(&super::load_with_progress(&self.model)?),
            stage => {
                let module = super::load_with_progress(&self.model)?;
                let compiler = self.budget.of(compiler, &module)?;
                let planned = compiler.plan(module).map_err(explain)?;
                budget::tell(&planned.receipt);
                tell_audits(&planned.receipt);
                match stage {
                    Stage::Rewritten => ir::text::print(&planned.rewritten),
                    Stage::Plan => planned.plan.to_string(),
                    other => {
                        let form = if other == Stage::Clif { codegen::Form::Clif } else { codegen::Form::Assembly };
                        codegen::print(&planned.plan, &compiler.target().map_err(report)?, form).map_err(report)?
                    }
                }
            }
        };
        match &self.output {
            None => {
                show!("{text}");
                Ok(())
            }
            Some(path) => files::replace(path, |file| file.write_all(text.as_bytes()))
                .map_err(|error| report(format!("{}: {error}", path.display()))),
        }
    }
}

impl Compile {
    fn tune(&self, compiler: Compiler, path: &Path) -> Result<()> {
        let known = if path.exists() { budget::schedules(path)? } else { Schedules::default() };
        let module = super::load_with_progress(&self.model)?;
        let compiler = self.budget.of(compiler, &module)?.schedules(known);
        let plan = compiler.plan(module).map_err(explain)?.plan;
        let ports: Vec<&Port> = plan.inputs.iter().collect();
        let inputs = InputArguments::default().read_ports(&ports)?;
        // Without a ticking thread, which would run beside what is measured.
        let bar = ProgressBar::new_spinner().with_message("measuring");
        bar.tick();
        let options = super::run::session_options(self.threads);
        let tuned = tune::tune(&compiler, &plan, &inputs, &options).map_err(report)?;
        bar.finish_and_clear();
        files::replace(path, |file| write!(file, "{}", tuned.schedules))
            .map_err(|error| report(format!("{}: {error}", path.display())))?;
        showln!(
            "{} of {} products are faster in other blocks: {:.3} ms a run instead of {:.3}",
            tuned.better,
            tuned.products,
            tuned.after.as_secs_f64() * 1e3,
            tuned.before.as_secs_f64() * 1e3
        );
        Ok(())
    }
}

/// How far the greedy extraction is from the best, a line a window.
fn tell_audits(receipt: &Receipt) {
    for (number, audit) in receipt.audits.iter().enumerate() {
        let what = if audit.exact { "the best" } else { "the bound" };
        eprintln!(
            "window {number}: {} terms, greedy {:.3} us, {what} {:.3} us, gap {:.3} %",
            audit.terms,
            audit.greedy * 1e6,
            audit.bound * 1e6,
            100. * audit.gap()
        );
    }
    if !receipt.audits.is_empty() {
        eprintln!("{} of {} kinds of windows audited", receipt.audits.len(), receipt.searched);
    }
}
