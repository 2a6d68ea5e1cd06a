//! What rewriting does to ONNX models, a row a model: `rewrite MODEL ...`. With `RULES=1`, the rules that were applied.
//!
//! Kernels and flops are those of the plan, before and after; the time is the shortest of five rewritings.

use std::{error::Error, path::Path, time::Instant};
use strang_compiler::{
    import::onnx::{ImportOptions, load},
    plan::{PlanOptions, kernel::PlanStep, plan},
    rewrite::{Receipt, RewriteOptions, rewrite},
};
use strang_ir::{Module, Size, verify::verify};

fn main() {
    for model in std::env::args().skip(1) {
        if let Err(error) = show(&model) {
            eprintln!("{model}: {error}");
        }
    }
}

fn show(model: &str) -> Result<(), Box<dyn Error>> {
    let module = load(Path::new(model), &ImportOptions::default())?;
    verify(&module)?;
    let options = RewriteOptions::default();
    let mut shortest = f64::INFINITY;
    let mut outcome: Option<(Module, Receipt)> = None;
    for _ in 0..5 {
        let start = Instant::now();
        outcome = Some(rewrite(&module, &options)?);
        shortest = shortest.min(start.elapsed().as_secs_f64());
    }
    let (rewritten, receipt) = outcome.ok_or("nothing was rewritten")?;
    verify(&rewritten)?;
    let (before, after) = (kernels(&module)?, kernels(&rewritten)?);
    let name = Path::new(model).file_stem().unwrap_or_default().to_string_lossy();
    println!(
        "{name:16} {:7.1} ms  {:4} rules  kernels {} -> {}  flops {} -> {}",
        shortest * 1e3,
        receipt.applied.len(),
        before.0,
        after.0,
        before.1,
        after.1
    );
    if std::env::var_os("RULES").is_some() {
        print!("{receipt}");
    }
    Ok(())
}

fn kernels(module: &Module) -> Result<(usize, Size), Box<dyn Error>> {
    let plan = plan(module, &PlanOptions::default())?;
    Ok((count(&plan.body), plan.flops()))
}

fn count(steps: &[PlanStep]) -> usize {
    let each = steps.iter().map(|step| match step {
        PlanStep::Repeat { body, .. } => count(body),
        PlanStep::If { then, otherwise, .. } => count(then) + count(otherwise),
        _ => 1,
    });
    each.sum()
}
