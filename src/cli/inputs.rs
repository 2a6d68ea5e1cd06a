//! Where the inputs of a run come from: a folder, single files, or a seed.

use miette::{IntoDiagnostic, Result, miette};
use std::path::{Path, PathBuf};
use strang::{ElementType, Executable, Tensor, compiler::import::onnx, npy, runtime::Bindings, runtime::program::Port};

/// The inputs of a run.
#[derive(clap::Args)]
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
    /// Whether the user said anything.
    pub fn are_given(&self) -> bool {
        self.inputs.is_some() || !self.input.is_empty() || self.random.is_some()
    }

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
        for (position, (name, element)) in onnx::inputs(model).into_diagnostic()?.into_iter().enumerate() {
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
    /// Files that are missing or hold something else, or shapes that are not known.
    pub fn read(&self, executable: &Executable) -> Result<Vec<Tensor>> {
        self.read_ports(&executable.inputs().collect::<Vec<_>>())
    }

    /// As [`InputArguments::read`], for ports.
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
        let mut random = Random(self.random.unwrap_or(0));
        ports.iter().map(|port| random.tensor(port)).collect()
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
            tensors[position] = Some(npy::read(file.as_ref(), Some(ports[position].element)).into_diagnostic()?);
        }
        let missing = |port: &&Port| miette!("the input `{}` is missing; the inputs are: {}", port.name, names());
        tensors.into_iter().zip(ports).map(|(tensor, port)| tensor.ok_or_else(|| missing(port))).collect()
    }
}

/// A seeded generator (SplitMix64; Steele, Lea and Flood, 2014): the same inputs on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn tensor(&mut self, port: &Port) -> Result<Tensor> {
        let mut shape = Vec::with_capacity(port.shape.len());
        for size in &port.shape {
            let unknown = |_| {
                let symbols: Vec<String> = size.symbols().iter().map(|symbol| format!("--dim {symbol}=SIZE")).collect();
                miette!("the input `{}` has the size `{size}`; say what it is with {}", port.name, symbols.join(" "))
            };
            let value = size.eval(&Bindings::new()).map_err(unknown)?;
            shape.push(
                usize::try_from(value).map_err(|_| miette!("the input `{}` has a negative size {value}", port.name))?,
            );
        }
        let mut tensor = Tensor::zeros(port.element, &shape).into_diagnostic()?;
        for position in 0..tensor.count() {
            let value = if port.element.is_float() {
                let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
                strang::ir::Literal::from_f64(port.element, unit * 2. - 1.)
            } else {
                strang::ir::Literal::from_integer(port.element, (self.next() & 1) as i128)
            };
            tensor.set_bits(position, value.bits);
        }
        Ok(tensor)
    }
}

/// A type and a shape as people write them: `f32[batch, 10]`.
pub fn shape_text(element: ElementType, shape: &[strang::Size]) -> String {
    let sizes: Vec<String> = shape.iter().map(ToString::to_string).collect();
    format!("{element}[{}]", sizes.join(", "))
}
