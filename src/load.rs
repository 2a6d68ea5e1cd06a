//! Reading model files: ONNX, text circuits, JSON circuits, each with its weights.

use std::sync::Arc;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use strang_compiler::import::{onnx, safetensors};
use strang_ir::{Module, Size, json, text};
use strang_runtime::Tensor;

/// Why a file is no model.
#[derive(Debug, thiserror::Error)]
pub enum LoadModelError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The name of the file does not say what it is.
    #[error("{}: a model file ends in .onnx, .ncd or .json", .0.display())]
    Extension(PathBuf),
    /// An ONNX file that cannot be imported.
    #[error(transparent)]
    Onnx(#[from] onnx::ImportError),
    /// A text circuit with a mistake.
    #[error(transparent)]
    Text(#[from] text::TextError),
    /// A JSON circuit with a mistake.
    #[error(transparent)]
    Json(#[from] json::JsonError),
    /// Weights that do not fit the circuit.
    #[error(transparent)]
    Weights(onnx::ImportError),
    /// A symbol of the command line that the model does not have.
    #[error("the model has no symbol `{symbol}` that could be {size}; its symbols are: {known}")]
    Symbol {
        /// The symbol.
        symbol: String,
        /// The size it was to have.
        size: i64,
        /// The symbols there are.
        known: String,
    },
}

/// Reads a model file, with some of its symbols fixed to sizes. Values of inputs count for ONNX models whose sizes or axes
/// depend on them (see [`onnx::ImportOptions::values`]).
///
/// # Errors
/// A file that is no model, or a model with something that is not supported.
pub fn load(
    path: &Path,
    dimensions: &BTreeMap<String, i64>,
    values: &BTreeMap<String, Tensor>,
) -> Result<Module, LoadModelError> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let mut module = match extension {
        "onnx" => onnx::load(path, &onnx::ImportOptions { dimensions: dimensions.clone(), values: values.clone() })?,
        "ncd" => text::parse_verified(&read(path)?, &path.display().to_string())?.0,
        "json" => json::parse_verified(&read(path)?, &path.display().to_string())?.0,
        _ => return Err(LoadModelError::Extension(path.into())),
    };
    if extension != "onnx" {
        let weights = path.with_extension("safetensors");
        if weights.exists() {
            safetensors::attach(&mut module, &weights).map_err(LoadModelError::Weights)?;
        }
        substitute(&mut module, dimensions)?;
    }
    Ok(module)
}

fn read(path: &Path) -> Result<String, LoadModelError> {
    std::fs::read_to_string(path).map_err(|source| LoadModelError::File { path: path.into(), source })
}

fn substitute(module: &mut Module, dimensions: &BTreeMap<String, i64>) -> Result<(), LoadModelError> {
    let symbols = symbols(module);
    if let Some((symbol, size)) = dimensions.iter().find(|(symbol, _)| symbols.iter().all(|known| **known != ***symbol))
    {
        let known: Vec<&str> = symbols.iter().map(|symbol| &**symbol).collect();
        let known = if known.is_empty() { "none".into() } else { known.join(", ") };
        return Err(LoadModelError::Symbol { symbol: symbol.clone(), size: *size, known });
    }
    let sizes: BTreeMap<Arc<str>, Size> =
        dimensions.iter().map(|(symbol, size)| (symbol.as_str().into(), (*size).into())).collect();
    if !sizes.is_empty() {
        module.substitute(&sizes);
    }
    Ok(())
}

/// The symbols that the inputs of a module bind, in order of names.
pub fn symbols(module: &Module) -> Vec<Arc<str>> {
    let function = module.entry();
    let shapes = function.inputs.iter().flat_map(|input| function.shape_of((*input).into()));
    let found: std::collections::BTreeSet<Arc<str>> = shapes.flat_map(|size| size.symbols()).collect();
    found.into_iter().collect()
}
