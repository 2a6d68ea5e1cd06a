//! Model files: a circuit as text or JSON, with its weights in a `.safetensors` file of the same name beside it.

use crate::files;
use safetensors::{Dtype, SafeTensorError, tensor::TensorView};
use std::{
    io,
    path::{Path, PathBuf},
};
use strang_ir::{Module, Parameter, json, text};
use strang_runtime::ElementType;

/// Why a model cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// No such form is written.
    #[error("{}: circuits are written as .ncd or .json", .0.display())]
    Extension(PathBuf),
    /// A weight has a type that weight files do not have.
    #[error("the weight `{name}` is of type {element}, which .safetensors files do not hold")]
    Element {
        /// The weight.
        name: String,
        /// Its type.
        element: ElementType,
    },
    /// The weights make no file.
    #[error("the weights: {0}")]
    Weights(#[from] SafeTensorError),
}

/// Writes a circuit, as its extension says, and its weights beside it. A failure leaves neither.
///
/// # Errors
/// A file that cannot be written, another extension than `.ncd` or `.json`, or weights of less than eight bits.
pub fn save(module: &Module, path: &Path) -> Result<(), SaveError> {
    let circuit = match path.extension().and_then(|extension| extension.to_str()) {
        Some("ncd") => text::print(module),
        Some("json") => json::print(module),
        _ => return Err(SaveError::Extension(path.into())),
    };
    let views: Vec<(&str, TensorView)> =
        module.parameters.iter().filter_map(|p| view(p).transpose()).collect::<Result<_, _>>()?;
    let weights = safetensors::serialize(views, None)?;
    let beside = path.with_extension("safetensors");
    let write = |path: &Path, bytes: &[u8]| {
        files::replace(path, |file| file.write_all(bytes))
            .map_err(|source| SaveError::File { path: path.into(), source })
    };
    let had_weights = beside.exists();
    write(&beside, &weights)?;
    write(path, circuit.as_bytes()).inspect_err(|_| {
        if !had_weights {
            // What is left of a failure is of no use, and what is told of it is the failure.
            drop(std::fs::remove_file(&beside));
        }
    })
}

/// A parameter's elements with its name; nothing where it has none.
fn view(parameter: &Parameter) -> Result<Option<(&str, TensorView<'_>)>, SaveError> {
    let Some(data) = &parameter.data else { return Ok(None) };
    let element = parameter.element;
    let unknown = || SaveError::Element { name: parameter.name.to_string(), element };
    let view = TensorView::new(dtype(element).ok_or_else(unknown)?, data.shape().to_vec(), data.bytes())?;
    Ok(Some((&parameter.name, view)))
}

fn dtype(element: ElementType) -> Option<Dtype> {
    Some(match element {
        ElementType::Bool => Dtype::BOOL,
        ElementType::U8 => Dtype::U8,
        ElementType::I8 => Dtype::I8,
        ElementType::I16 => Dtype::I16,
        ElementType::U16 => Dtype::U16,
        ElementType::F16 => Dtype::F16,
        ElementType::BF16 => Dtype::BF16,
        ElementType::I32 => Dtype::I32,
        ElementType::U32 => Dtype::U32,
        ElementType::F32 => Dtype::F32,
        ElementType::F64 => Dtype::F64,
        ElementType::I64 => Dtype::I64,
        ElementType::U64 => Dtype::U64,
        ElementType::I4 | ElementType::U4 | ElementType::I2 | ElementType::U2 => return None,
    })
}
