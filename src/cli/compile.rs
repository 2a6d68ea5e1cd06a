//! `strang compile`: show or write any stage of a compilation.

use super::ModelArguments;
use miette::{IntoDiagnostic, Result};
use std::{io::Write, path::PathBuf};
use strang::{compiler::codegen, ir};

/// Compile a model and print any stage
///
/// Examples:
///   strang compile model.onnx --emit ncd            the circuit as it was read
///   strang compile model.onnx --emit rewritten      after rewriting
///   strang compile model.onnx --emit plan           kernels, layouts, memory
///   strang compile model.onnx --emit asm -o model.s
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Compile {
    #[command(flatten)]
    model: ModelArguments,
    /// The stage
    #[arg(long, value_enum, default_value = "plan")]
    emit: Stage,
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

impl Compile {
    /// Does it.
    pub fn execute(self) -> Result<()> {
        let compiler = self.model.compiler();
        let text = match self.emit {
            Stage::Ncd => ir::text::print(&super::load_with_progress(&self.model)?),
            Stage::Json => ir::json::print(&super::load_with_progress(&self.model)?),
            stage => {
                let module = super::load_with_progress(&self.model)?;
                let planned = compiler.plan(module).into_diagnostic()?;
                match stage {
                    Stage::Rewritten => ir::text::print(&planned.rewritten),
                    Stage::Plan => planned.plan.to_string(),
                    other => {
                        let form = if other == Stage::Clif { codegen::Form::Clif } else { codegen::Form::Assembly };
                        codegen::print(&planned.plan, &codegen::Target::host().into_diagnostic()?, form)
                            .into_diagnostic()?
                    }
                }
            }
        };
        match &self.output {
            None => std::io::stdout().write_all(text.as_bytes()).into_diagnostic(),
            Some(path) => {
                // Written beside its place first, so that a failure leaves no half-written file.
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                let folder = folder.unwrap_or(std::path::Path::new("."));
                let mut file = tempfile::NamedTempFile::new_in(folder).into_diagnostic()?;
                file.write_all(text.as_bytes()).into_diagnostic()?;
                file.persist(path).into_diagnostic()?;
                Ok(())
            }
        }
    }
}
