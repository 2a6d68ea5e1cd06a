//! What rewriting does to models, a row each: operations, kernels, flops, bytes and the time of a run, as written and rewritten.
//!
//! ```text
//! cargo run --release --example rewriting -- model.onnx other.onnx
//! ```
//!
//! Inputs are those of the folder `inputs` in a folder of the model's name beside it, or random ones; symbols are bound to 1. The
//! two are run by turns on one thread, so that what else the machine does meets both.

use std::{
    error::Error,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use strang::{
    Compiler, Executable, Size, Tensor,
    compiler::plan::kernel::PlanStep,
    ir::Module,
    load::symbols,
    npy,
    random::{Random, tensor},
    runtime::{
        Bindings,
        session::{Session, SessionOptions},
        team::Team,
    },
};

/// How long the two of a model are measured.
const MEASURED: Duration = Duration::from_secs(4);

fn main() -> Result<(), Box<dyn Error>> {
    println!("| model | operations | kernels | Mflop | MB | ms as written | ms rewritten | ratio | rewriting, ms |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for path in std::env::args().skip(1) {
        let path = Path::new(&path);
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match row(path) {
            Ok(row) => println!("| {name} | {row}"),
            Err(error) => eprintln!("{name}: {error}"),
        }
    }
    Ok(())
}

/// One of the two forms of a model.
struct Form {
    operations: usize,
    kernels: usize,
    flops: i64,
    bytes: i64,
    rewriting: Duration,
    executable: Executable,
}

fn row(path: &Path) -> Result<String, Box<dyn Error>> {
    let start = Compiler::new();
    let open = symbols(&start.load(path)?);
    let compiler = open.into_iter().fold(start, |compiler, symbol| compiler.dimension(&*symbol, 1));
    let module = compiler.load(path)?;
    let written = form(&compiler.clone().keep_as_written(true), &module)?;
    let rewritten = form(&compiler, &module)?;
    let inputs = inputs(path, &written.executable)?;
    let [before, after] = medians([&written.executable, &rewritten.executable], &inputs)?;
    Ok(format!(
        "{} to {} | {} to {} | {:.1} to {:.1} | {:.2} to {:.2} | {:.3} | {:.3} | {:.3} | {:.1} |",
        written.operations,
        rewritten.operations,
        written.kernels,
        rewritten.kernels,
        written.flops as f64 / 1e6,
        rewritten.flops as f64 / 1e6,
        written.bytes as f64 / 1e6,
        rewritten.bytes as f64 / 1e6,
        1e3 * before,
        1e3 * after,
        after / before,
        1e3 * rewritten.rewriting.as_secs_f64(),
    ))
}

fn form(compiler: &Compiler, module: &Module) -> Result<Form, Box<dyn Error>> {
    let planned = compiler.plan(module.clone())?;
    let none = Bindings::new();
    let mut kernels = Vec::new();
    collect(&planned.plan.body, &Size::ONE, &mut kernels);
    let bytes = kernels.iter().map(|bytes| bytes.eval(&none)).sum::<Result<i64, _>>()?;
    let rewriting = planned.stages.iter().find(|(stage, _)| *stage == "rewrite").map(|(_, time)| *time);
    let operations = planned.rewritten.functions.iter().map(|function| function.graph.node_count()).sum();
    Ok(Form {
        operations,
        kernels: kernels.len(),
        flops: planned.plan.flops().eval(&none)?,
        bytes,
        rewriting: rewriting.unwrap_or_default(),
        executable: compiler.compile(module.clone())?.executable,
    })
}

/// The bytes that every kernel moves in a run.
fn collect(steps: &[PlanStep], times: &Size, kernels: &mut Vec<Size>) {
    for step in steps {
        match step {
            PlanStep::Kernel(kernel) => kernels.push(times * &kernel.cost.bytes),
            PlanStep::Repeat { count, body, .. } => collect(body, &(times * count), kernels),
            PlanStep::If { then, otherwise, .. } => {
                collect(then, times, kernels);
                collect(otherwise, times, kernels);
            }
            PlanStep::Host { .. } => {}
        }
    }
}

fn inputs(path: &Path, executable: &Executable) -> Result<Vec<Tensor>, Box<dyn Error>> {
    let folder = path.with_extension("").join("inputs");
    let mut random = Random::new(0);
    let mut inputs = Vec::new();
    for (position, port) in executable.inputs().enumerate() {
        let file = folder.join(format!("input_{position}.npy"));
        let shape: Result<Vec<usize>, _> =
            port.shape.iter().map(|size| size.eval(&Bindings::new()).map(|size| size as usize)).collect();
        inputs.push(if file.exists() {
            npy::read(&file, Some(port.element))?
        } else {
            tensor(&mut random, port.element, &shape?)?
        });
    }
    Ok(inputs)
}

/// The median seconds of runs of each, by turns.
fn medians(executables: [&Executable; 2], inputs: &[Tensor]) -> Result<[f64; 2], Box<dyn Error>> {
    let mut sessions: Vec<(Session, Vec<Tensor>)> = Vec::new();
    for executable in executables {
        let team = Some(Arc::new(Team::new(Some(1))));
        let options = SessionOptions { team, ..SessionOptions::default() };
        let session = executable.session(&executable.bindings(inputs)?, &options)?;
        let outputs = session.new_outputs()?;
        sessions.push((session, outputs));
    }
    let mut times = [Vec::new(), Vec::new()];
    let start = Instant::now();
    while times[0].len() < 11 || (start.elapsed() < MEASURED && times[0].len() < 20_000) {
        for (position, (session, outputs)) in sessions.iter_mut().enumerate() {
            let start = Instant::now();
            session.run_into(inputs, outputs)?;
            times[position].push(start.elapsed().as_secs_f64());
        }
    }
    Ok(times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    }))
}
