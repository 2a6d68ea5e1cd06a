//! The commands of the program, one file each, and what they share.

mod bench;
mod bisect;
mod budget;
mod check;
mod compile;
mod cut;
mod diff;
mod explain;
mod inputs;
mod output;
mod quantise;
mod rules;
mod run;
mod show;
mod summary;

use budget::BudgetArguments;
use clap::{Parser, Subcommand};
use indicatif::ProgressBar;
use miette::Result;
use std::{path::PathBuf, time::Duration};
use strang::{CompileError, Model, Tensor, ir::Module, load::LoadModelError};

/// Compile neural networks to native CPU code, and run them
///
/// A MODEL is an ONNX file (.onnx), a text circuit (.ncd) or a JSON circuit (.json), these two with their weights in a
/// .safetensors file of the same name beside them. Everything is compiled when the command starts; nothing is cached, and
/// nothing is written unless asked for.
#[derive(Parser)]
#[command(name = "strang", version, propagate_version = true, max_term_width = 120, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Start here:
  strang show model.onnx                     what goes in, what comes out, what is inside
  strang run model.onnx --random 0           run it once on random inputs
  strang run model.onnx --inputs DIR         run it on DIR/input_0.npy, DIR/input_1.npy, ...
  strang check model.onnx --random 0         compare compiled code with the reference interpreter
  strang bench model.onnx --threads 1,2      how long it takes
  strang compile model.onnx --emit plan      what it was compiled to
  strang explain model.onnx                  which rules made it faster
`strang help COMMAND` says more about each.";

#[derive(Subcommand)]
enum Command {
    Run(run::Run),
    Compile(compile::Compile),
    Show(show::Show),
    Check(check::Check),
    Bench(bench::Bench),
    Rules(rules::Rules),
    Explain(explain::Explain),
    Bisect(bisect::Bisect),
    Diff(diff::Diff),
    Cut(cut::Cut),
    Quantise(quantise::Quantise),
}

/// Reads the command line and does what it says.
pub fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // The thread that waits for parallel work does a part of it: on one processor no other thread is started, and nothing
    // has to wait until the scheduler has changed between two. It can fail only where a pool was made before, which serves.
    let _ = rayon::ThreadPoolBuilder::new().use_current_thread().build_global();
    match arguments.command {
        Command::Run(command) => command.execute(),
        Command::Compile(command) => command.execute(),
        Command::Show(command) => command.execute(),
        Command::Check(command) => command.execute(),
        Command::Bench(command) => command.execute(),
        Command::Rules(command) => command.execute(),
        Command::Explain(command) => command.execute(),
        Command::Bisect(command) => command.execute(),
        Command::Diff(command) => command.execute(),
        Command::Cut(command) => command.execute(),
        Command::Quantise(command) => command.execute(),
    }
}

/// What all commands that read a model take.
#[derive(clap::Args)]
struct ModelArguments {
    /// The model: .onnx, .ncd or .json
    model: PathBuf,
    /// Fix a symbolic size of the model, as in `--dim batch=8`
    #[arg(long = "dim", value_name = "NAME=SIZE", value_parser = dimension)]
    dimensions: Vec<(String, i64)>,
    /// Stop rewriting after so many applications of rules (`strang bisect` says of which)
    #[arg(long, value_name = "N")]
    fuel: Option<usize>,
    /// Leave out a rule of rewriting (`strang rules` lists them); may be given several times
    #[arg(long, value_name = "RULE")]
    without: Vec<String>,
}

impl ModelArguments {
    fn compiler(&self) -> strang::Compiler {
        let start = strang::Compiler::new();
        let start = self.fuel.map_or(start.clone(), |applications| start.fuel(applications));
        let start = self.without.iter().fold(start, |compiler, rule| compiler.without(rule));
        self.dimensions.iter().fold(start, |compiler, (name, size)| compiler.dimension(name, *size))
    }
}

fn dimension(text: &str) -> Result<(String, i64), String> {
    let (name, size) = text.split_once('=').ok_or("expected NAME=SIZE, as in batch=8")?;
    let size = size.parse().ok().filter(|size| *size >= 0).ok_or_else(|| format!("`{size}` is not a size"))?;
    Ok((name.to_owned(), size))
}

/// Reads the model, with a spinner while it takes long.
fn load_with_progress(arguments: &ModelArguments) -> Result<Module> {
    let bar = spinner("reading");
    let module = arguments.compiler().load(&arguments.model);
    bar.finish_and_clear();
    module.map_err(explain)
}

/// Reads and compiles the model, of which values of inputs may be known, with a spinner while it takes long.
fn compile_with_progress(
    arguments: &ModelArguments,
    budget: &BudgetArguments,
    values: Vec<(String, Tensor)>,
) -> Result<Model> {
    let start = arguments.compiler();
    let compiler = values.into_iter().fold(start, |compiler, (name, value)| compiler.value(name, value));
    let bar = spinner("reading");
    let module = compiler.load(&arguments.model);
    bar.finish_and_clear();
    let module = module.map_err(explain)?;
    let compiler = budget.of(compiler, &module)?;
    let bar = spinner("compiling");
    let model = compiler.compile(module);
    bar.finish_and_clear();
    let model = model.map_err(explain)?;
    budget::tell(&model.receipt);
    Ok(model)
}

fn spinner(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(what);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// An error as it is shown: under the line of the text circuit that it is in, when it is in one.
fn explain(error: CompileError) -> miette::Report {
    match error {
        CompileError::Load(LoadModelError::Text(error)) => miette::Report::new(error),
        other => report(other),
    }
}

/// An error whose message says all.
fn report(error: impl std::fmt::Display) -> miette::Report {
    miette::miette!("{error}")
}
