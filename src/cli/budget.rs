//! `--max-error`, `--calibrate` and `--precision`: what may be lost, as several commands take it.

use super::report;
use miette::Result;
use std::path::PathBuf;
use strang::{
    Compiler,
    budget::{Budget, Calibration},
    compiler::rewrite::Receipt,
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
    /// Precision of the weights of products: with bf16 they take half the memory, and models that wait for their weights, as in
    /// decoding, run up to twice as fast; sums stay in f32
    #[arg(long, value_enum, default_value_t = Precision::F32, hide_default_value = true)]
    precision: Precision,
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
        let compiler = match self.precision {
            Precision::F32 => compiler,
            Precision::Bf16 => {
                eprintln!("bf16: weights are rounded to 16 bits and multiplied in f32, not by instructions for bf16");
                compiler.precision(strang::Precision::Bf16)
            }
        };
        let (Some(max_error), Some(path)) = (self.max_error, &self.calibrate) else { return Ok(compiler) };
        let calibration = Calibration::read(path, module).map_err(report)?;
        Ok(compiler.budget(Budget { max_error, calibration }))
    }
}

/// Tells what a budget did, if there was one.
pub fn tell(receipt: &Receipt) {
    if let Some(budget) = &receipt.budget {
        eprint!("{budget}");
    }
}
