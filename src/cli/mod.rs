//! The commands of the program, one file each, and what they share.

mod bench;
mod compile;
mod inputs;
mod rules;
mod run;
mod show;
mod summary;

use clap::{Parser, Subcommand};
use indicatif::ProgressBar;
use miette::{IntoDiagnostic, Result};
use std::{path::PathBuf, time::Duration};
use strang::{CompileError, Model, ir::Module, load::LoadModelError};

/// Compile neural networks to native CPU code, and run them.
///
/// A MODEL is an ONNX file (.onnx), a text circuit (.ncd, with its weights in a .safetensors file of the same name) or a JSON
/// circuit (.json). Everything is compiled when the command starts; nothing is cached or written unless asked for.
#[derive(Parser)]
#[command(name = "strang", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Run),
    Compile(compile::Compile),
    Show(show::Show),
    Bench(bench::Bench),
    Rules(rules::Rules),
}

/// Reads the command line and does what it says.
pub fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Run(command) => command.execute(),
        Command::Compile(command) => command.execute(),
        Command::Show(command) => command.execute(),
        Command::Bench(command) => command.execute(),
        Command::Rules(command) => command.execute(),
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
}

impl ModelArguments {
    fn compiler(&self) -> strang::Compiler {
        let start = strang::Compiler::new();
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

/// Reads and compiles the model, with a spinner while it takes long.
fn compile_with_progress(arguments: &ModelArguments) -> Result<Model> {
    let module = load_with_progress(arguments)?;
    let bar = spinner("compiling");
    let model = arguments.compiler().compile(module);
    bar.finish_and_clear();
    model.map_err(explain)
}

fn spinner(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(what);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// An error with the line of the text circuit that it is in, when it is in one.
fn explain(error: CompileError) -> miette::Report {
    match error {
        CompileError::Load(LoadModelError::Text(error)) => miette::miette!("{}", error.render()),
        other => miette::Report::from(IntoDiagnostic::into_diagnostic(Err::<(), _>(other)).unwrap_err()),
    }
}
