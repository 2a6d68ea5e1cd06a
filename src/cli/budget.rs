//! `--max-error` and `--calibrate`: what may be lost, as several commands take it.

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
}

impl BudgetArguments {
    /// A compiler for a module with the budget that the user allows.
    ///
    /// # Errors
    /// Samples that cannot be read or do not fit.
    pub fn of(&self, compiler: Compiler, module: &Module) -> Result<Compiler> {
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
