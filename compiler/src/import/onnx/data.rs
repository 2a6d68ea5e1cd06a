//! Constant tensors of a model file, in any of their encodings, as `Tensor`s. Raw bytes of a mapped file stay where they
//! are; everything else is copied once.

use super::{
    error::ImportError,
    proto::{TensorProto, ValueInfoProto},
};
use memmap2::Mmap;
use std::{
    cell::RefCell,
    collections::HashMap,
    path::{Component, Path, PathBuf},
    sync::Arc,
};
use strang_runtime::{ElementType, Tensor, mapping::map_file, tensor::TensorError};

/// Tensors with fewer bytes than this are copied, so that whoever reads them finds them aligned.
const COPY_BELOW: usize = 4096;

/// Where the bytes of constants come from: the model file and the files beside it.
pub struct Loader {
    /// The mapped model file, when the model is read from one.
    file: Option<Arc<Mmap>>,
    /// The folder that external data must lie in.
    folder: Option<PathBuf>,
    external: RefCell<HashMap<PathBuf, Arc<Mmap>>>,
}

impl Loader {
    /// A loader for a model in `file`, or in memory, with external data in `folder`.
    pub fn new(file: Option<Arc<Mmap>>, folder: Option<PathBuf>) -> Self {
        Loader { file, folder, external: RefCell::default() }
    }

    /// The tensor that a message holds.
    ///
    /// # Errors
    /// An element type without arithmetic here, a number of elements that does not fit the shape, or external data that
    /// is missing, too short or outside the model's folder.
    pub fn tensor(&self, proto: &TensorProto) -> Result<Tensor, ImportError> {
        self.read(proto).map_err(|reason| ImportError::Tensor { name: proto.name.clone(), reason })
    }

    fn read(&self, proto: &TensorProto) -> Result<Tensor, String> {
        let element = element_type(proto.data_type)?;
        if proto.segment.is_some() {
            return Err("tensors in segments are not supported; save the model again in one piece".into());
        }
        let shape = shape_of(&proto.dims)?;
        if proto.data_location == 1 {
            return self.external(proto, element, &shape);
        }
        match &proto.raw_data {
            Some(raw) if !raw.is_empty() || shape.contains(&0) => self.raw(element, &shape, raw),
            _ => typed(proto, element, &shape),
        }
    }

    fn raw(&self, element: ElementType, shape: &[usize], raw: &[u8]) -> Result<Tensor, String> {
        if raw.len() >= COPY_BELOW
            && let Some(file) = &self.file
        {
            let (start, base) = (raw.as_ptr() as usize, file.as_ptr() as usize);
            if start >= base && start + raw.len() <= base + file.len() {
                let start = start - base;
                return text(Tensor::from_mapped(element, shape, file.clone(), start..start + raw.len()));
            }
        }
        text(Tensor::from_bytes(element, shape, raw))
    }

    fn external(&self, proto: &TensorProto, element: ElementType, shape: &[usize]) -> Result<Tensor, String> {
        let entry =
            |key: &str| proto.external_data.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str());
        let number = |key: &str| match entry(key) {
            None => Ok(None),
            Some(value) => value
                .parse::<usize>()
                .map(Some)
                .map_err(|_| format!("the {key} of its external data, `{value}`, is not a number of bytes")),
        };
        let location = entry("location").ok_or("its external data has no location")?;
        let file = self.external_file(location)?;
        let start = number("offset")?.unwrap_or(0);
        let needed = expected_bytes(element, shape)?;
        let length = number("length")?.unwrap_or(needed);
        let end = start.checked_add(length).filter(|end| *end <= file.len()).ok_or_else(|| {
            format!("its bytes {start} to {start}+{length} lie outside `{location}`, which has {}", file.len())
        })?;
        if length < COPY_BELOW {
            return text(Tensor::from_bytes(element, shape, &file[start..end]));
        }
        text(Tensor::from_mapped(element, shape, file, start..end))
    }

    fn external_file(&self, location: &str) -> Result<Arc<Mmap>, String> {
        let folder = self.folder.as_ref().ok_or_else(|| {
            format!("its data is in the file `{location}`, but the model was read from memory without a folder")
        })?;
        let relative = Path::new(location);
        let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        if !relative.components().all(inside) {
            return Err(format!("its data is in `{location}`, which is outside the model's folder; move it there"));
        }
        let path = folder.join(relative);
        if let Some(file) = self.external.borrow().get(&path) {
            return Ok(file.clone());
        }
        // A symbolic link must not lead out of the folder either.
        let resolve = |path: &Path| path.canonicalize().map_err(|e| format!("cannot read {}: {e}", path.display()));
        if !resolve(&path)?.starts_with(resolve(folder)?) {
            return Err(format!("its data is in `{location}`, a link that leads outside the model's folder"));
        }
        let file = map_file(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        self.external.borrow_mut().insert(path, file.clone());
        Ok(file)
    }
}

fn text(tensor: Result<Tensor, TensorError>) -> Result<Tensor, String> {
    tensor.map_err(|error| error.to_string())
}

fn expected_bytes(element: ElementType, shape: &[usize]) -> Result<usize, String> {
    let count = shape.iter().try_fold(1usize, |count, size| count.checked_mul(*size));
    let bytes = count.and_then(|count| element.bytes_of(count));
    bytes.ok_or_else(|| format!("a tensor {element}{shape:?} is too large for memory"))
}

fn shape_of(dims: &[i64]) -> Result<Vec<usize>, String> {
    dims.iter().map(|dim| usize::try_from(*dim).map_err(|_| format!("it has the negative size {dim}"))).collect()
}

/// Elements in the typed fields. Sub-byte types come packed into int32 entries of one byte each, the 16-bit floats as
/// bit patterns in int32 entries.
fn typed(proto: &TensorProto, element: ElementType, shape: &[usize]) -> Result<Tensor, String> {
    use ElementType::*;
    let bytes: Vec<u8> = match element {
        F32 => proto.float_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        F64 => proto.double_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        I64 => proto.int64_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        U64 => proto.uint64_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        U32 => proto.uint64_data.iter().flat_map(|value| (*value as u32).to_le_bytes()).collect(),
        I32 => proto.int32_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        F16 | BF16 | I16 | U16 => proto.int32_data.iter().flat_map(|value| (*value as u16).to_le_bytes()).collect(),
        Bool => proto.int32_data.iter().map(|value| u8::from(*value != 0)).collect(),
        I8 | U8 | I4 | U4 | I2 | U2 => proto.int32_data.iter().map(|value| *value as u8).collect(),
    };
    text(Tensor::from_bytes(element, shape, &bytes))
}

/// The number of an ONNX data type by its name in the format's definition.
pub fn data_type_number(name: &str) -> Option<i32> {
    const NAMES: [&str; 17] = [
        "UNDEFINED",
        "FLOAT",
        "UINT8",
        "INT8",
        "UINT16",
        "INT16",
        "INT32",
        "INT64",
        "STRING",
        "BOOL",
        "FLOAT16",
        "DOUBLE",
        "UINT32",
        "UINT64",
        "COMPLEX64",
        "COMPLEX128",
        "BFLOAT16",
    ];
    NAMES.iter().position(|other| *other == name).map(|position| position as i32)
}

/// The element type of an ONNX data type.
///
/// # Errors
/// A type that there is no arithmetic for, by name.
pub fn element_type(data_type: i32) -> Result<ElementType, String> {
    use ElementType::*;
    Ok(match data_type {
        1 => F32,
        2 => U8,
        3 => I8,
        4 => U16,
        5 => I16,
        6 => I32,
        7 => I64,
        9 => Bool,
        10 => F16,
        11 => F64,
        12 => U32,
        13 => U64,
        16 => BF16,
        21 => U4,
        22 => I4,
        25 => U2,
        26 => I2,
        0 => return Err("it has no element type".into()),
        other => {
            let name = match other {
                8 => "string".to_owned(),
                14 => "complex64".to_owned(),
                15 => "complex128".to_owned(),
                17..=20 | 24 => "float8".to_owned(),
                23 => "float4".to_owned(),
                27 | 28 => "float6".to_owned(),
                _ => format!("number {other}"),
            };
            return Err(format!(
                "the data type {name} is not supported; f16, bf16, f32, f64, bool and the integers are"
            ));
        }
    })
}

/// The element type and dimensions of a tensor value.
///
/// # Errors
/// A value that is not a tensor, or has no shape.
pub fn tensor_type(info: &ValueInfoProto) -> Result<(ElementType, &[super::proto::DimensionProto]), String> {
    let kind = info.r#type.as_ref().ok_or("it has no type")?;
    let Some(tensor) = &kind.tensor else {
        let name = match () {
            () if kind.sequence.is_some() => "sequence",
            () if kind.map.is_some() => "map",
            () if kind.sparse.is_some() => "sparse tensor",
            () if kind.optional.is_some() => "optional",
            () => return Err("it has no type".into()),
        };
        return Err(format!("values of kind {name} are not supported; tensors are"));
    };
    let shape = tensor.shape.as_ref().ok_or("it has no shape; at least the number of dimensions must be known")?;
    Ok((element_type(tensor.element)?, &shape.dim))
}
