//! Tensors in `.npy` files, with the conventions of the conformance suite: bf16 as raw `uint16`, sub-byte integers one a
//! byte.

use crate::files;
use half::f16;
use npyz::{DType, NpyFile, Order, TypeChar, WriterBuilder, npz::NpzArchive};
use std::{
    fs::File,
    io::{BufReader, Read, Write},
    path::{Path, PathBuf},
};
use strang_runtime::{ElementType, Tensor};

/// Why a `.npy` file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum NpyError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The file holds something else than numbers of a known type.
    #[error("{}: holds {found}; numbers of a numeric or bool type are read", path.display())]
    Type {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: String,
    },
    /// The file holds another type than is wanted.
    #[error("{}: holds {found}, but {wanted} is wanted", path.display())]
    Wanted {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: ElementType,
        /// What is wanted.
        wanted: ElementType,
    },
    /// The elements do not make a tensor.
    #[error("{}: {source}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: strang_runtime::tensor::TensorError,
    },
}

/// Reads a tensor. When the wanted element type is known, files that hold it in another form (raw bf16, one sub-byte
/// integer a byte) are understood.
///
/// # Errors
/// A file that cannot be read, is cut off, or holds something else.
pub fn read(path: &Path, wanted: Option<ElementType>) -> Result<Tensor, NpyError> {
    let file_error = |source| NpyError::File { path: path.into(), source };
    let file = NpyFile::new(BufReader::new(File::open(path).map_err(file_error)?)).map_err(file_error)?;
    read_array(file, path, wanted)
}

/// The names of the arrays in a `.npz` file, in its order.
///
/// # Errors
/// A file that cannot be read or is no archive.
pub fn names(path: &Path) -> Result<Vec<String>, NpyError> {
    let file_error = |source| NpyError::File { path: path.into(), source };
    let archive = NpzArchive::open(path).map_err(file_error)?;
    Ok(archive.array_names().map(ToOwned::to_owned).collect())
}

/// Reads an array of a `.npz` file as [`read`] does; `None` if there is none of this name.
///
/// # Errors
/// As [`read`].
pub fn read_named(path: &Path, name: &str, wanted: Option<ElementType>) -> Result<Option<Tensor>, NpyError> {
    let file_error = |source| NpyError::File { path: path.into(), source };
    let mut archive = NpzArchive::open(path).map_err(file_error)?;
    let found = archive.by_name(name).map_err(file_error)?;
    found.map(|file| read_array(file, path, wanted)).transpose()
}

fn read_array<R: Read>(file: NpyFile<R>, path: &Path, wanted: Option<ElementType>) -> Result<Tensor, NpyError> {
    let file_error = |source| NpyError::File { path: path.into(), source };
    let tensor_error = |source| NpyError::Tensor { path: path.into(), source };
    let shape: Vec<usize> = file.shape().iter().map(|size| *size as usize).collect();
    let strides: Vec<u64> = file.strides().to_vec();
    let fortran = file.order() == Order::Fortran && shape.len() > 1;
    let found =
        element_of(&file.dtype()).ok_or_else(|| NpyError::Type { path: path.into(), found: file.dtype().descr() })?;
    macro_rules! elements {
        ($($variant:ident: $rust:ty),*) => {
            match found {
                $(ElementType::$variant => {
                    let values = file.into_vec::<$rust>().map_err(file_error)?;
                    Tensor::from_slice(&shape, &if fortran { row_major(&values, &shape, &strides) } else { values })
                })*
                ElementType::Bool => {
                    let values = file.into_vec::<bool>().map_err(file_error)?;
                    Tensor::from_bools(&shape, &if fortran { row_major(&values, &shape, &strides) } else { values })
                }
                _ => return Err(NpyError::Type { path: path.into(), found: found.to_string() }),
            }
        };
    }
    let tensor = elements!(F32: f32, F64: f64, F16: f16, I8: i8, I16: i16, I32: i32, I64: i64, U8: u8, U16: u16, U32: u32, U64: u64)
        .map_err(tensor_error)?;
    let Some(wanted) = wanted.filter(|wanted| *wanted != found) else { return Ok(tensor) };
    match (found, wanted) {
        (ElementType::U16, ElementType::BF16) => {
            Tensor::from_bytes(wanted, tensor.shape(), tensor.bytes()).map_err(tensor_error)
        }
        (ElementType::I8, ElementType::I4 | ElementType::I2) | (ElementType::U8, ElementType::U4 | ElementType::U2) => {
            let mut packed = Tensor::zeros(wanted, tensor.shape()).map_err(tensor_error)?;
            for position in 0..tensor.count() {
                packed.set_bits(position, tensor.bits_at(position));
            }
            Ok(packed)
        }
        _ => Err(NpyError::Wanted { path: path.into(), found, wanted }),
    }
}

/// Writes a tensor; a failure leaves no half-written file.
///
/// # Errors
/// A file that cannot be written.
pub fn write(path: &Path, tensor: &Tensor) -> Result<(), NpyError> {
    let file_error = |source| NpyError::File { path: path.into(), source };
    files::replace(path, |file| write_to(file, tensor)).map_err(file_error)
}

fn write_to(writer: impl Write, tensor: &Tensor) -> std::io::Result<()> {
    let shape: Vec<u64> = tensor.shape().iter().map(|size| *size as u64).collect();
    macro_rules! elements {
        ($writer:expr, $($variant:ident: $rust:ty),*) => {
            match tensor.element() {
                $(ElementType::$variant => {
                    let mut file = npyz::WriteOptions::<$rust>::new().default_dtype().shape(&shape).writer($writer).begin_nd()?;
                    file.extend(tensor.to_vec::<$rust>().map_err(std::io::Error::other)?)?;
                    file.finish()
                })*
                ElementType::BF16 => {
                    let mut file = npyz::WriteOptions::<u16>::new().default_dtype().shape(&shape).writer($writer).begin_nd()?;
                    file.extend((0..tensor.count()).map(|position| tensor.bits_at(position) as u16))?;
                    file.finish()
                }
                ElementType::Bool => {
                    let mut file = npyz::WriteOptions::<bool>::new().default_dtype().shape(&shape).writer($writer).begin_nd()?;
                    file.extend((0..tensor.count()).map(|position| tensor.bits_at(position) != 0))?;
                    file.finish()
                }
                ElementType::I4 | ElementType::I2 => {
                    let mut file = npyz::WriteOptions::<i8>::new().default_dtype().shape(&shape).writer($writer).begin_nd()?;
                    file.extend(tensor.to_f64().into_iter().map(|value| value as i8))?;
                    file.finish()
                }
                ElementType::U4 | ElementType::U2 => {
                    let mut file = npyz::WriteOptions::<u8>::new().default_dtype().shape(&shape).writer($writer).begin_nd()?;
                    file.extend(tensor.to_f64().into_iter().map(|value| value as u8))?;
                    file.finish()
                }
            }
        };
    }
    elements!(writer, F32: f32, F64: f64, F16: f16, I8: i8, I16: i16, I32: i32, I64: i64, U8: u8, U16: u16, U32: u32, U64: u64)
}

fn element_of(dtype: &DType) -> Option<ElementType> {
    let DType::Plain(text) = dtype else { return None };
    Some(match (text.type_char(), text.size_field()) {
        (TypeChar::Float, 2) => ElementType::F16,
        (TypeChar::Float, 4) => ElementType::F32,
        (TypeChar::Float, 8) => ElementType::F64,
        (TypeChar::Int, 1) => ElementType::I8,
        (TypeChar::Int, 2) => ElementType::I16,
        (TypeChar::Int, 4) => ElementType::I32,
        (TypeChar::Int, 8) => ElementType::I64,
        (TypeChar::Uint, 1) => ElementType::U8,
        (TypeChar::Uint, 2) => ElementType::U16,
        (TypeChar::Uint, 4) => ElementType::U32,
        (TypeChar::Uint, 8) => ElementType::U64,
        (TypeChar::Bool, 1) => ElementType::Bool,
        _ => return None,
    })
}

fn row_major<T: Copy>(values: &[T], shape: &[usize], strides: &[u64]) -> Vec<T> {
    let count: usize = shape.iter().product();
    let place = |mut position: usize| {
        let mut offset = 0;
        for (size, stride) in shape.iter().zip(strides).rev() {
            offset += position % size * *stride as usize;
            position /= size;
        }
        values[offset]
    };
    (0..count).map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        let mut nibbles = Tensor::zeros(ElementType::I4, &[3]).unwrap();
        nibbles.set_bits(1, 0xF);
        for tensor in [
            Tensor::from_slice(&[2, 2], &[1f32, -0., f32::INFINITY, f32::NAN]).unwrap(),
            Tensor::from_slice(&[], &[7i64]).unwrap(),
            Tensor::from_bools(&[0, 4], &[]).unwrap(),
            Tensor::from_slice(&[1], &[half::bf16::from_f32(1.5)]).unwrap(),
            nibbles,
        ] {
            write(&path, &tensor).unwrap();
            assert_eq!(read(&path, Some(tensor.element())).unwrap(), tensor);
        }
        assert!(matches!(read(&path, Some(ElementType::F32)), Err(NpyError::Wanted { .. })));
        std::fs::write(&path, b"\x93NUMPY").unwrap();
        assert!(matches!(read(&path, None), Err(NpyError::File { .. })));
    }
}
