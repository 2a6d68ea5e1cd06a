//! Strang compiles neural networks to native CPU code.
//!
//! A model, from an ONNX file, a text circuit with its weights beside it, or a Rust builder, becomes a *circuit*; the
//! circuit is rewritten, planned and compiled, and the result runs on plain tensors:
//!
//! ```no_run
//! use strang::{Compiler, Tensor};
//!
//! let model = Compiler::new().compile_file("model.onnx")?;
//! let input = Tensor::zeros(strang::ElementType::F32, &[1, 3, 224, 224])?;
//! let outputs = model.executable.run(&[input])?;
//! println!("{:?}", outputs[0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod bisect;
pub mod budget;
pub mod check;
pub mod explain;
pub mod files;
pub mod load;
pub mod npy;
pub mod random;
pub mod save;
pub mod tune;

pub use strang_compiler as compiler;
pub use strang_ir as ir;
pub use strang_runtime as runtime;
pub use strang_runtime::{ElementType, Size, Tensor, session::Executable};

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};
use strang_compiler::{codegen, plan, rewrite};
use strang_ir::{CircuitError, Module};
use strang_runtime::{
    custom::Operations,
    kernels::{Level, LevelError},
    program::Program,
};

/// Why a model cannot be compiled, and whose mistake it is.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The file cannot be read as a model.
    #[error(transparent)]
    Load(#[from] load::LoadModelError),
    /// The circuit is wrong.
    #[error(transparent)]
    Circuit(#[from] CircuitError),
    /// Rewriting failed.
    #[error(transparent)]
    Rewrite(#[from] rewrite::RewriteError),
    /// An error budget cannot be kept.
    #[error(transparent)]
    Budget(#[from] budget::BudgetError),
    /// The environment asks for a level that this machine has not.
    #[error(transparent)]
    Level(#[from] LevelError),
    /// The circuit cannot be planned.
    #[error(transparent)]
    Plan(#[from] plan::PlanError),
    /// Code cannot be generated.
    #[error(transparent)]
    Codegen(#[from] codegen::CodegenError),
    /// The compiled program cannot be loaded.
    #[error(transparent)]
    Executable(#[from] runtime::session::LoadError),
}

/// How many bits the numbers have that are multiplied in matrix products with weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Those of the model.
    #[default]
    F32,
    /// Sixteen: the nearest bf16, which has eight significant bits. Sums and everything else that is computed stay in f32.
    Bf16,
}

/// Compiles models. Options are set first; one compiler compiles any number of models.
#[derive(Clone, Debug, Default)]
pub struct Compiler {
    dimensions: BTreeMap<String, i64>,
    values: BTreeMap<String, Tensor>,
    keep_as_written: bool,
    level: Option<Level>,
    fuel: Option<usize>,
    without: Vec<String>,
    explain: bool,
    extraction: rewrite::Extraction,
    budget: Option<budget::Budget>,
    precision: Precision,
    schedules: codegen::schedule::Schedules,
}

/// A compiled model with every stage it went through.
#[derive(Clone)]
pub struct Model {
    /// The circuit as it was read.
    pub module: Module,
    /// The circuit after rewriting.
    pub rewritten: Module,
    /// What rewriting did.
    pub receipt: rewrite::Receipt,
    /// Ready to run; clones share it.
    pub executable: Executable,
    /// Floating-point operations of a run, a fused multiply-add counting two.
    pub flops: Size,
    /// How long each stage took, in order.
    pub stages: Vec<(&'static str, Duration)>,
}

/// The stages of a compilation up to the plan.
pub struct Planned {
    /// The circuit as it was read.
    pub module: Module,
    /// The circuit after rewriting.
    pub rewritten: Module,
    /// What rewriting did.
    pub receipt: rewrite::Receipt,
    /// The kernels.
    pub plan: plan::Plan,
    /// How long each stage took, in order.
    pub stages: Vec<(&'static str, Duration)>,
}

impl Compiler {
    /// A compiler with default options: fast numerics, this machine.
    pub fn new() -> Self {
        Self::default()
    }

    /// Fixes a symbol of the model to a size.
    #[must_use]
    pub fn dimension(mut self, symbol: impl Into<String>, size: i64) -> Self {
        self.dimensions.insert(symbol.into(), size);
        self
    }

    /// Gives the value of an input of an ONNX model. It is used only where sizes or axes depend on the input, and the
    /// compiled model is then right for this value alone.
    #[must_use]
    pub fn value(mut self, input: impl Into<String>, value: Tensor) -> Self {
        self.values.insert(input.into(), value);
        self
    }

    /// Leaves the circuit as it is written: no rewriting.
    #[must_use]
    pub fn keep_as_written(mut self, keep: bool) -> Self {
        self.keep_as_written = keep;
        self
    }

    /// Chooses between equal forms as machines of a level run them, instead of as this one does. Code is generated for
    /// this machine all the same.
    #[must_use]
    pub fn level(mut self, level: Level) -> Self {
        self.level = Some(level);
        self
    }

    /// Stops rewriting after so many applications of rules: with fewer or more of them, which one made a difference is found
    /// (see [`mod@bisect`]).
    #[must_use]
    pub fn fuel(mut self, applications: usize) -> Self {
        self.fuel = Some(applications);
        self
    }

    /// Leaves out a rule, by the name that `strang rules` and receipts call it.
    #[must_use]
    pub fn without(mut self, rule: impl Into<String>) -> Self {
        self.without.push(rule.into());
        self
    }

    /// Has the receipt tell which rules nearly shaped each layer, and what stopped them. Rewriting then takes longer.
    #[must_use]
    pub fn explain(mut self, explain: bool) -> Self {
        self.explain = explain;
        self
    }

    /// Chooses how the cheapest form is found among those that are equal.
    #[must_use]
    pub fn extraction(mut self, extraction: rewrite::Extraction) -> Self {
        self.extraction = extraction;
        self
    }

    /// Allows approximate variants of the circuit, within an error that is measured on samples. The receipt lists them.
    #[must_use]
    pub fn budget(mut self, budget: budget::Budget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Chooses the precision of matrix products with weights. With [`Precision::Bf16`] weights take half the memory, and products
    /// up to half the time where [`Compiler::has_products_of_bf16`]; elsewhere only those that wait for their weights take less.
    /// On CPUs with and without such instructions results may differ as sums in another order do. A budget ([`Compiler::budget`]) does not count what rounding changes.
    #[must_use]
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// Reads a model file.
    ///
    /// # Errors
    /// A file that is no model, or a model with something that is not supported.
    pub fn load(&self, path: impl AsRef<Path>) -> Result<Module, CompileError> {
        Ok(load::load(path.as_ref(), &self.dimensions, &self.values)?)
    }

    /// Reads and compiles a model file: `.onnx`, `.ncd` (with its `.safetensors` beside it) or `.json`.
    ///
    /// # Errors
    /// A file that is no model, or a model with something that is not supported.
    pub fn compile_file(&self, path: impl AsRef<Path>) -> Result<Model, CompileError> {
        let start = Instant::now();
        let module = self.load(path)?;
        let loaded = start.elapsed();
        let mut model = self.compile(module)?;
        model.stages.insert(0, ("load", loaded));
        Ok(model)
    }

    /// Rewrites and plans a circuit.
    ///
    /// # Errors
    /// A circuit that is wrong, or with something that is not supported.
    pub fn plan(&self, module: Module) -> Result<Planned, CompileError> {
        let mut stages = Vec::new();
        let mut timed = Stopwatch { start: Instant::now(), stages: &mut stages };
        let verified = ir::verify::verify(&module)?;
        timed.lap("verify");
        let approximated = match &self.budget {
            Some(budget) => {
                let exact = Compiler { budget: None, precision: Precision::F32, ..self.clone() };
                Some(budget::approximate(&exact, &module, budget)?)
            }
            None => None,
        };
        let verified = match &approximated {
            Some(chosen) => {
                timed.lap("approximate");
                ir::verify::verify(&chosen.module)?
            }
            None => verified,
        };
        let base = approximated.as_ref().map_or(&module, |chosen| &chosen.module);
        let (mut rewritten, mut receipt) = if self.keep_as_written {
            (base.clone(), rewrite::Receipt::default())
        } else {
            rewrite::rewrite(base, &self.rewrite_options()?)?
        };
        receipt.budget = approximated.map(|chosen| chosen.report);
        timed.lap("rewrite");
        if self.precision == Precision::Bf16 {
            strang_compiler::precision::round_weights(&mut rewritten);
            timed.lap("round");
        }
        let options = plan::PlanOptions { representative: BTreeMap::new(), checks: verified.checks };
        let plan = plan::plan(&rewritten, &options)?;
        timed.lap("plan");
        Ok(Planned { module, rewritten, receipt, plan, stages })
    }

    /// Whether this machine, at the level that code is compiled for, has instructions for products of bf16.
    ///
    /// # Errors
    /// The environment asks for a level that this machine has not.
    pub fn has_products_of_bf16(&self) -> Result<bool, LevelError> {
        Ok(runtime::kernels::bf16::is_native(self.level.map_or_else(Level::detect, Ok)?))
    }

    fn rewrite_options(&self) -> Result<rewrite::RewriteOptions, CompileError> {
        let level = self.level.map_or_else(Level::detect, Ok)?;
        let mut options = rewrite::RewriteOptions::for_level(level);
        if self.precision == Precision::Bf16 && runtime::kernels::bf16::is_native(level) {
            options.target = options.target.in_bf16();
        }
        options.fuel = self.fuel.unwrap_or(options.fuel);
        options.without.clone_from(&self.without);
        options.explain = self.explain;
        options.extraction = self.extraction;
        Ok(options)
    }

    /// Compiles a circuit for this machine.
    ///
    /// # Errors
    /// A circuit that is wrong, or with something that is not supported.
    pub fn compile(&self, module: Module) -> Result<Model, CompileError> {
        let Planned { module, rewritten, receipt, plan, mut stages } = self.plan(module)?;
        let mut timed = Stopwatch { start: Instant::now(), stages: &mut stages };
        let program: Program = codegen::generate(&plan, &self.target()?)?;
        timed.lap("generate");
        let code = codegen::link(&program)?;
        let executable = Executable::with_code(program, &Operations::default(), code)?;
        timed.lap("link");
        Ok(Model { module, rewritten, receipt, executable, flops: plan.flops(), stages })
    }
}

struct Stopwatch<'a> {
    start: Instant,
    stages: &'a mut Vec<(&'static str, Duration)>,
}

impl Stopwatch<'_> {
    fn lap(&mut self, stage: &'static str) {
        self.stages.push((stage, self.start.elapsed()));
        self.start = Instant::now();
    }
}
