//! Schedules by measurement: every product of a model in every block that is worth a try, in the model as it runs.
//!
//! A round compiles the whole model with one candidate for each product and times its kernels, so a product is measured with the
//! caches that it finds in a run. Of the rounds the best of each product is kept where it is better than the rule's choice by more
//! than measurements differ; then the whole model must be faster with them than without.

use crate::{CompileError, Compiler};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use strang_compiler::{
    codegen::{self, Target, schedule},
    plan::kernel::{Body, Gemm, Kernel, Plan, PlanStep},
};
use strang_runtime::{
    Tensor,
    custom::Operations,
    session::{BindError, Executable, RunError, SessionOptions},
};

/// Runs of a round; the least time of each kernel counts.
const RUNS: usize = 7;
/// Runs with the tuned schedules and with the rule's, by turns.
const COMPARED: usize = 25;
/// What a schedule must take of the time of the rule's.
const BETTER: f64 = 0.97;

/// What a measurement failed at.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// The model does not compile.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The inputs do not fit.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A run fails.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// What tuning found.
#[derive(Clone, Debug)]
pub struct Tuned {
    /// Those that were given, with what is better on this machine.
    pub schedules: schedule::Schedules,
    /// Products of known sizes that were measured.
    pub products: usize,
    /// Those of which a block is better than the rule's.
    pub better: usize,
    /// The time of a run by the rule.
    pub before: Duration,
    /// The time of a run with the schedules.
    pub after: Duration,
}

/// The least times of a product: by the rule, and with the best candidate.
struct Measured {
    rule: Duration,
    candidate: Option<(Duration, codegen::Blocking)>,
}

/// Measures the candidates of every product of a plan that a compiler made, starting from the schedules that it knows.
///
/// # Errors
/// A plan that does not compile, or inputs that do not fit it.
pub fn tune(compiler: &Compiler, plan: &Plan, inputs: &[Tensor], options: &SessionOptions) -> Result<Tuned, TuneError> {
    let mut products: BTreeMap<String, (Vec<u32>, Vec<codegen::Blocking>)> = BTreeMap::new();
    let target = Target::host().map_err(CompileError::from)?;
    let mut step = 0;
    visit(&plan.body, &mut step, &mut |step, kernel, gemm| {
        if let Some(product) = schedule::product(kernel, gemm) {
            let entry = products.entry(product);
            entry.or_insert_with(|| (Vec::new(), schedule::candidates(kernel, gemm, target.tile_columns))).0.push(step);
        }
    });
    let mut known = compiler.schedules.clone();
    products.keys().for_each(|product| known.forget(product));
    let rule = executable(plan, &target, known.clone())?;
    let mut measured: BTreeMap<&str, Measured> = BTreeMap::new();
    let rounds = products.values().map(|(_, candidates)| candidates.len()).max().unwrap_or(0);
    // The rule is measured first, and again in the end: machines change their clock.
    for round in std::iter::once(None).chain((0..rounds).map(Some)).chain([None]) {
        let of_round = |candidates: &[codegen::Blocking]| round.map(|round| candidates.get(round).copied());
        let mut tried = known.clone();
        for (product, (_, candidates)) in &products {
            if let Some(Some(candidate)) = of_round(candidates) {
                tried.set(product, candidate);
            }
        }
        let times = kernel_times(&executable(plan, &target, tried)?, inputs, options)?;
        for (product, (steps, candidates)) in &products {
            let time: Duration = steps.iter().filter_map(|step| times.get(step)).sum();
            let best = measured.entry(product).or_insert(Measured { rule: time, candidate: None });
            match of_round(candidates) {
                None => best.rule = best.rule.min(time),
                Some(Some(block)) if best.candidate.is_none_or(|(least, _)| time < least) => {
                    best.candidate = Some((time, block));
                }
                Some(_) => {}
            }
        }
    }
    let mut schedules = known.clone();
    let mut better = 0;
    for (product, Measured { rule, candidate }) in measured {
        if let Some((time, block)) = candidate
            && time < rule.mul_f64(BETTER)
        {
            schedules.set(product, block);
            better += 1;
        }
    }
    let tuned = executable(plan, &target, schedules.clone())?;
    let [before, after] = compared([&rule, &tuned], inputs, options)?;
    Ok(if better > 0 && after < before {
        Tuned { schedules, products: products.len(), better, before, after }
    } else {
        Tuned { schedules: known, products: products.len(), better: 0, before, after: before }
    })
}

/// Calls `visit` with every product of a plan and the number of its step.
fn visit<'p>(steps: &'p [PlanStep], number: &mut u32, visit_product: &mut dyn FnMut(u32, &'p Kernel, &'p Gemm)) {
    for step in steps {
        match step {
            PlanStep::Kernel(kernel) => {
                if let Body::Gemm(gemm) = &kernel.body {
                    visit_product(*number, kernel, gemm);
                }
                *number += 1;
            }
            PlanStep::Host { .. } => *number += 1,
            PlanStep::Repeat { body, .. } => visit(body, number, visit_product),
            PlanStep::If { then, otherwise, .. } => {
                visit(then, number, visit_product);
                visit(otherwise, number, visit_product);
            }
        }
    }
}

fn executable(plan: &Plan, target: &Target, schedules: schedule::Schedules) -> Result<Executable, TuneError> {
    let target = Target { schedules: Arc::new(schedules), ..target.clone() };
    let program = codegen::generate(plan, &target).map_err(CompileError::from)?;
    let code = codegen::link(&program).map_err(CompileError::from)?;
    Ok(Executable::with_code(program, &Operations::default(), code).map_err(CompileError::from)?)
}

/// The least time of every step in some runs.
fn kernel_times(
    executable: &Executable,
    inputs: &[Tensor],
    options: &SessionOptions,
) -> Result<BTreeMap<u32, Duration>, TuneError> {
    let mut session = executable.session(&executable.bindings(inputs)?, options)?;
    let mut least: BTreeMap<u32, Duration> = BTreeMap::new();
    for _ in 0..RUNS {
        for row in session.run_profiled(inputs)?.1.rows {
            let entry = least.entry(row.step).or_insert(row.time);
            *entry = row.time.min(*entry);
        }
    }
    Ok(least)
}

/// The median time of a run of two executables, by turns.
fn compared(
    executables: [&Executable; 2],
    inputs: &[Tensor],
    options: &SessionOptions,
) -> Result<[Duration; 2], TuneError> {
    let mut times = [Vec::new(), Vec::new()];
    let bindings = executables[0].bindings(inputs)?;
    let mut sessions = Vec::new();
    for executable in executables {
        sessions.push(executable.session(&bindings, options)?);
    }
    let mut outputs = sessions[0].new_outputs()?;
    for _ in 0..COMPARED {
        for (session, times) in sessions.iter_mut().zip(&mut times) {
            let start = Instant::now();
            session.run_into(inputs, &mut outputs)?;
            times.push(start.elapsed());
        }
    }
    times.iter_mut().for_each(|times| times.sort_unstable());
    Ok(times.map(|times| times[times.len() / 2]))
}

impl Compiler {
    /// Uses schedules that were measured ([`tune`]) where they fit.
    #[must_use]
    pub fn schedules(mut self, schedules: schedule::Schedules) -> Self {
        self.schedules = schedules;
        self
    }

    /// This machine, with the schedules that were measured.
    ///
    /// # Errors
    /// A CPU that is not known.
    pub fn target(&self) -> Result<Target, CompileError> {
        Ok(Target { schedules: Arc::new(self.schedules.clone()), ..Target::host()? })
    }
}
