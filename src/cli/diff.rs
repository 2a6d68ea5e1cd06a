//! `strang diff`: how two models differ.

use super::{explain, output::show};
use miette::Result;
use std::path::PathBuf;
use strang::{
    Compiler,
    ir::{Module, diff::diff},
};

/// Compare two models: operations that one has and the other has not, weights with other elements
///
/// The circuits are compared in structure: names of values and axes do not count. Lines with - are of A, lines with + of B, as
/// `strang compile --emit ncd` prints them. The exit code is 0 when they are equal, 1 when they differ, and 2 when one cannot
/// be read.
///
/// Examples:
///   strang diff old.onnx new.onnx
///   strang diff model.ncd model.onnx
///   strang diff model.onnx model.onnx --stage rewritten --fuel 10
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Diff {
    /// One model: .onnx, .ncd or .json
    a: PathBuf,
    /// The other
    b: PathBuf,
    /// Compare the circuits at this stage
    #[arg(long, value_enum, default_value = "read")]
    stage: Stage,
    /// Stop rewriting B after so many applications of rules
    #[arg(long, value_name = "N")]
    fuel: Option<usize>,
}

/// A stage at which circuits are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Stage {
    /// As they were read
    Read,
    /// After rewriting
    Rewritten,
}

impl Diff {
    /// Does it.
    pub fn execute(self) -> Result<()> {
        let both = self.circuits().unwrap_or_else(|error| {
            eprintln!("{error:?}");
            std::process::exit(2)
        });
        let difference = diff(&both.0, &both.1);
        show!("{difference}");
        if difference.is_none() { Ok(()) } else { std::process::exit(1) }
    }

    fn circuits(&self) -> Result<(Module, Module)> {
        let compiler = Compiler::new();
        let read = |path: &PathBuf, compiler: &Compiler| -> Result<Module> {
            let module = compiler.load(path).map_err(explain)?;
            match self.stage {
                Stage::Read => Ok(module),
                Stage::Rewritten => Ok(compiler.plan(module).map_err(explain)?.rewritten),
            }
        };
        let limited = self.fuel.map_or_else(Compiler::new, |fuel| Compiler::new().fuel(fuel));
        Ok((read(&self.a, &compiler)?, read(&self.b, &limited)?))
    }
}
