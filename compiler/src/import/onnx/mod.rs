//! ONNX models become modules of the IR.
//!
//! | module | what |
//! |---|---|
//! | [`proto`] | the messages of the file format |
//! | [`data`] | constant tensors in their encodings; external data |
//! | [`order`] | which nodes are needed, and in which order |
//! | [`model`] | the walk over graphs, bodies and inlined functions; scopes of names |
//! | [`values`], [`fold`], [`evaluate`] | what is known while importing: arithmetic on sizes, values of constants |
//! | [`attributes`], [`call`], [`draft`] | what an operator's importer works with |
//! | [`operators`] | the table of operators and one importer for each |
//!
//! **Invariant:** an attribute, an operand or a type that an importer does not understand is an error that names the node.

pub mod attributes;
pub mod call;
pub mod data;
pub mod draft;
pub mod error;
pub mod evaluate;
pub mod fold;
pub mod model;
pub mod operators;
pub mod order;
#[expect(missing_docs, reason = "the fields are those of onnx.proto")]
pub mod proto;
pub mod values;

pub use error::{ImportError, Place};

use bytes::Bytes;
use memmap2::Mmap;
use prost::Message;
use std::{collections::BTreeMap, path::Path, sync::Arc};
use strang_ir::Module;
use strang_runtime::{ElementType, Tensor, mapping::map_file};

/// What an import may be told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImportOptions {
    /// Sizes for named dimensions of the inputs; the others stay symbols, known when a session binds shapes.
    pub dimensions: BTreeMap<String, i64>,
    /// Values of inputs, by name. They are used only where a size or another fixed part of the circuit depends on an
    /// input (the axes of a reduction, the shape of a reshape); the module is then right for these values only.
    pub values: BTreeMap<String, Tensor>,
}

/// Reads a model file. Its large constants stay mapped, so the file must not be changed while the module lives
/// (see [`map_file`]).
///
/// # Errors
/// A file that cannot be read or is broken, or a model with something that is not supported, by node.
pub fn load(path: &Path, options: &ImportOptions) -> Result<Module, ImportError> {
    let read_error = |error| ImportError::Read { path: path.to_owned(), error };
    let file = map_file(path).map_err(read_error)?;
    let folder = path.parent().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
    let loader = data::Loader::new(Some(file.clone()), folder.map(Path::to_owned));
    import(Bytes::from_owner(Mapped(file)), loader, options)
}

/// The names and element types of a model's inputs, in order: what [`ImportOptions::values`] can be filled from.
///
/// # Errors
/// A file that cannot be read, or an input that is no tensor.
pub fn inputs(path: &Path) -> Result<Vec<(String, ElementType)>, ImportError> {
    let file = map_file(path).map_err(|error| ImportError::Read { path: path.to_owned(), error })?;
    let model = decode(Bytes::from_owner(Mapped(file)))?;
    let Some(graph) = &model.graph else { return Ok(vec![]) };
    let constants: std::collections::BTreeSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let inputs = graph.input.iter().filter(|input| !constants.contains(input.name.as_str()));
    let port = |input: &proto::ValueInfoProto| match data::tensor_type(input) {
        Ok((element, _)) => Ok((input.name.clone(), element)),
        Err(reason) => Err(ImportError::Port { what: "input", name: input.name.clone(), reason }),
    };
    inputs.map(port).collect()
}

/// Reads a model from memory; external data, if it has any, must lie in `folder`.
///
/// # Errors
/// As [`load`].
pub fn load_bytes(bytes: &[u8], folder: Option<&Path>, options: &ImportOptions) -> Result<Module, ImportError> {
    import(Bytes::copy_from_slice(bytes), data::Loader::new(None, folder.map(Path::to_owned)), options)
}

/// A mapped file as an owner of `Bytes`.
struct Mapped(Arc<Mmap>);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn import(bytes: Bytes, loader: data::Loader, options: &ImportOptions) -> Result<Module, ImportError> {
    let model = decode(bytes)?;
    let graph = model.graph.as_ref();
    let graph = graph.ok_or_else(|| ImportError::Malformed { reason: "there is no graph in it".into() })?;
    model::Importer::new(&model, options, &loader)?.import(graph)
}

fn decode(bytes: Bytes) -> Result<proto::ModelProto, ImportError> {
    proto::ModelProto::decode(bytes).map_err(|error| ImportError::Malformed { reason: error.to_string() })
}
