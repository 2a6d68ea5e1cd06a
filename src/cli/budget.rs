//! `--max-error`, `--calibrate` and `--precision`, what may be lost, and `--tuned`, as several commands take them.

use super::report;
use miette::Result;
use std::path::{Path, PathBuf};
use strang::{
    Compiler,
    budget::{Budget, Calibration},
    compiler::{codegen::schedule::Schedules, rewrite::Receipt},
    ir::Module,
};

/// What may be lost.
#[derive(clap::Args)]
pub struct BudgetArguments {
    /// Allow approximate variants of the model whose results differ by at most this share of the largest result (0.01 is
    /// 1 %) on the samples of --calibrate
    #[arg(long, value_name = "E", requires = "calibrate")]
    max_error: Option<f64>,
    /// Samples for --max-error: an array for each input, of its name, whose first axis is over samples. A quarter of them is
    /// held out and must agree
    #[arg(long, value_name = "FILE.npz", requires = "max_error")]
    calibrate: Option<PathBuf>,
    /// Precision of matrix products with weights: with bf16 these take half the memory and, on CPUs with AVX-512 BF16 or AMX, less
    /// time; sums and all else stay in f32
    #[arg(long, value_enum, default_value_t = Precision::F32, hide_default_value = true)]
    precision: Precision,
    /// Schedules that `strang compile --tune` measured on this machine
    #[arg(long, value_name = "FILE")]
    tuned: Option<PathBuf>,
}

/// Names of precisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Precision {
    /// As the model has them
    F32,
    /// The nearest numbers with eight significant bits
    Bf16,
}

impl BudgetArguments {
    /// A compiler for a module with the budget that the user allows.
    ///
    /// # Errors
    /// Samples that cannot be read or do not fit.
    pub fn of(&self, compiler: Compiler, module: &Module) -> Result<Compiler> {
        let compiler = match &self.tuned {
            Some(path) => compiler.schedules(schedules(path)?),
            None => compiler,
        };
        let compiler = match self.precision {
            Precision::F32 => compiler,
            Precision::Bf16 => {
                if !compiler.has_products_of_bf16().map_err(report)? {
                    eprintln!(
                        "bf16: this CPU level has no instructions for bf16; rounded numbers are multiplied in f32, which is not faster"
                    );
                }
                compiler.precision(strang::Precision::Bf16)
            }
        };
        let (Some(max_error), Some(path)) = (self.max_error, &self.calibrate) else { return Ok(compiler) };
        let calibration = Calibration::read(path, module).map_err(report)?;
        Ok(compiler.budget(Budget { max_error, calibration }))
    }
}

/// The schedules of a file.
///
/// # Errors
/// A file that cannot be read, or holds something else.
pub fn schedules(path: &Path) -> Result<Schedules> {
    let text = std::fs::read_to_string(path).map_err(|error| report(format!("{}: {error}", path.display())))?;
    text.parse().map_err(|error| report(format!("{}: {error}", path.display())))
}

/// Tells what a budget did, if there was one.
pub fn tell(receipt: &Receipt) {
    if let Some(budget) = &receipt.budget {
        eprint!("{budget}");
    }
}
