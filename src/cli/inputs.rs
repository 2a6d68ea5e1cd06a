//! Where the inputs of a run come from: a folder, single files, or a seed.

use super::report;
use miette::{Result, miette};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};
use strang::{
    ElementType, Executable, Size, Tensor,
    compiler::import::onnx,
    npy,
    random::{self, Random},
    runtime::Bindings,
    runtime::program::Port,
};

/// The inputs of a run.
#[derive(clap::Args, Default)]
pub struct InputArguments {
    /// A folder with input_0.npy, input_1.npy, ... in the order of the model's inputs
    #[arg(long, value_name = "DIR", conflicts_with_all = ["input", "random"])]
    inputs: Option<PathBuf>,
    /// One input by name, as in `--input image=photo.npy`; repeat it for every input
    #[arg(long, value_name = "NAME=FILE.npy", conflicts_with = "random")]
    input: Vec<String>,
    /// Random inputs: floats from -1 to 1, integers 0 and 1
    #[arg(long, value_name = "SEED")]
    random: Option<u64>,
}

impl InputArguments {
    /// The inputs of an ONNX model that the user gives, by name: sizes may depend on them, so they are needed before the
    /// model is compiled.
    ///
    /// # Errors
    /// A model that cannot be read, and files that are missing or hold something else.
    pub fn values(&self, model: &Path) -> Result<Vec<(String, Tensor)>> {
        let given = self.inputs.is_some() || !self.input.is_empty();
        if !given || model.extension().is_none_or(|extension| extension != "onnx") {
            return Ok(Vec::new());
        }
        let mut values = Vec::new();
        for (position, (name, element)) in onnx::inputs(model).map_err(report)?.into_iter().enumerate() {
            let named = self.input.iter().find_map(|argument| argument.strip_prefix(&*name)?.strip_prefix('='));
            let path = match (&self.inputs, named) {
                (Some(folder), _) => folder.join(format!("input_{position}.npy")),
                (None, Some(file)) => file.into(),
                // What is missing is told when the inputs are read.
                (None, None) => continue,
            };
            let tensor = npy::read(&path, Some(element));
            values.push((name.clone(), tensor.map_err(|error| miette!("input {position} `{name}`: {error}"))?));
        }
        Ok(values)
    }

    /// The tensors for the inputs of a program. With random inputs all symbols must have been fixed by `--dim`.
    ///
    /// # Errors
    /// No word about inputs where some are needed, files that are missing or hold something else, or shapes that are not
    /// known.
    pub fn read(&self, executable: &Executable) -> Result<Vec<Tensor>> {
        let ports: Vec<&Port> = executable.inputs().collect();
        if self.inputs.is_none() && self.input.is_empty() && self.random.is_none() && !ports.is_empty() {
            return Err(needed(&ports));
        }
        self.read_ports(&ports)
    }

    /// As [`InputArguments::read`], but random tensors where the user said nothing: for work whose result does not matter.
    ///
    /// # Errors
    /// As [`InputArguments::read`].
    pub fn read_any(&self, executable: &Executable) -> Result<Vec<Tensor>> {
        self.read_ports(&executable.inputs().collect::<Vec<_>>())
    }

    /// As [`InputArguments::read_any`], for the inputs of a plan.
    ///
    /// # Errors
    /// As [`InputArguments::read`].
    pub fn read_ports(&self, ports: &[&Port]) -> Result<Vec<Tensor>> {
        if let Some(folder) = &self.inputs {
            return ports
                .iter()
                .enumerate()
                .map(|(position, port)| {
                    let path = folder.join(format!("input_{position}.npy"));
                    npy::read(&path, Some(port.element))
                        .map_err(|error| miette!("input {position} `{}`: {error}", port.name))
                })
                .collect();
        }
        if !self.input.is_empty() {
            return self.named(ports);
        }
        let mut random = Random::new(self.random.unwrap_or(0));
        ports
            .iter()
            .map(|port| random::tensor(&mut random, port.element, &known_shape(port)?).map_err(report))
            .collect()
    }

    fn named(&self, ports: &[&Port]) -> Result<Vec<Tensor>> {
        let names = || ports.iter().map(|port| &*port.name).collect::<Vec<_>>().join(", ");
        let mut tensors: Vec<Option<Tensor>> = vec![None; ports.len()];
        for argument in &self.input {
            let (name, file) =
                argument.split_once('=').ok_or_else(|| miette!("`{argument}`: expected NAME=FILE.npy"))?;
            let position = ports
                .iter()
                .position(|port| *port.name == *name)
                .ok_or_else(|| miette!("the model has no input `{name}`; its inputs are: {}", names()))?;
            let tensor = npy::read(file.as_ref(), Some(ports[position].element));
            tensors[position] = Some(tensor.map_err(|error| miette!("input `{name}`: {error}"))?);
        }
        let missing = |port: &&Port| miette!("the input `{}` is missing; the inputs are: {}", port.name, names());
        tensors.into_iter().zip(ports).map(|(tensor, port)| tensor.ok_or_else(|| missing(port))).collect()
    }
}

/// The tensors of a folder with what the outputs should be, if one is given.
///
/// # Errors
/// Files that are missing or hold something else.
pub fn references(folder: Option<&Path>, executable: &Executable) -> Result<Option<Vec<Tensor>>> {
    let Some(folder) = folder else { return Ok(None) };
    let read = |(position, port): (usize, &Port)| {
        npy::read(&folder.join(format!("output_{position}.npy")), Some(port.element))
    };
    executable.outputs().enumerate().map(read).collect::<Result<Vec<_>, _>>().map(Some).map_err(report)
}

/// What to say when there are inputs and no word about them.
fn needed(ports: &[&Port]) -> miette::Report {
    let inputs: Vec<String> =
        ports.iter().map(|port| format!("\n  {}: {}", port.name, shape_text(port.element, &port.shape))).collect();
    let symbols: BTreeSet<Arc<str>> =
        ports.iter().flat_map(|port| &port.shape).flat_map(|size| size.symbols()).collect();
    let symbols: Vec<String> = symbols.iter().map(|symbol| format!(" --dim {symbol}=SIZE")).collect();
    let help = format!(
        "give them with --inputs DIR (input_0.npy, input_1.npy, ...) or --input NAME=FILE.npy, or try random ones: --random 0{}",
        symbols.concat()
    );
    miette!(help = help, "the model needs inputs:{}", inputs.concat())
}

/// The shape of an input whose sizes are all known.
fn known_shape(port: &Port) -> Result<Vec<usize>> {
    let unknown = |size: &Size| {
        let symbols: Vec<String> = size.symbols().iter().map(|symbol| format!("--dim {symbol}=SIZE")).collect();
        miette!("the input `{}` has the size `{size}`; say what it is with {}", port.name, symbols.join(" "))
    };
    let value = |size: &Size| size.eval(&Bindings::new()).map_err(|_| unknown(size));
    let size = |size: &Size| usize::try_from(value(size)?).map_err(|_| unknown(size));
    port.shape.iter().map(size).collect()
}

/// A type and a shape as people write them: `f32[batch, 10]`.
pub fn shape_text(element: ElementType, shape: &[Size]) -> String {
    let sizes: Vec<String> = shape.iter().map(ToString::to_string).collect();
    format!("{element}[{}]", sizes.join(", "))
}
