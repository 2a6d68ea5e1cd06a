//! Parameters from `.safetensors` files: every parameter of a module is filled by name, from the mapped file.

use super::onnx::ImportError;
use ::safetensors::{Dtype, SafeTensors};
use std::path::Path;
use strang_ir::{Module, Parameter};
use strang_runtime::{ElementType, Tensor, mapping::map_file};

/// Fills every parameter of the module that has no data yet from a file. Tensors stay mapped where their bytes are
/// aligned for their element type, so the file must not be changed while the module lives (see [`map_file`]).
///
/// Tensors of the file that no parameter names are left alone.
///
/// # Errors
/// A file that cannot be read, a parameter that is not in it, or one with another shape or element type there; all
/// that does not fit is named at once.
pub fn attach(module: &mut Module, path: &Path) -> Result<(), ImportError> {
    let read_error = |error| ImportError::Read { path: path.to_owned(), error };
    let weights_error = |reason: String| ImportError::Weights { path: path.to_owned(), reason };
    let file = map_file(path).map_err(read_error)?;
    let (header, metadata) =
        SafeTensors::read_metadata(&file).map_err(|error| weights_error(format!("not a safetensors file: {error}")))?;
    // The tensors begin behind the length of the header (8 bytes) and the header.
    let start = header + 8;
    let names = metadata.offset_keys();
    let mut problems = Vec::new();
    let mut found = Vec::new();
    for (position, parameter) in module.parameters.iter().enumerate().filter(|(_, parameter)| parameter.data.is_none())
    {
        let Some(info) = metadata.info(&parameter.name) else {
            problems.push(missing(&parameter.name, &names));
            continue;
        };
        let shape = constant_shape(parameter);
        if element_type(info.dtype) != Some(parameter.element) || shape.as_ref() != Some(&info.shape) {
            let axes: Vec<String> =
                parameter.axes.iter().map(|axis| format!("{} = {}", axis.name, axis.size)).collect();
            problems.push(format!(
                "`{}` is {}[{}] in the circuit, but {}{:?} in the file",
                parameter.name,
                parameter.element,
                axes.join(", "),
                format!("{:?}", info.dtype).to_lowercase(),
                info.shape
            ));
            continue;
        }
        let range = start + info.data_offsets.0..start + info.data_offsets.1;
        let aligned = parameter.element.bytes().is_none_or(|width| range.start.is_multiple_of(width));
        let tensor = if aligned {
            Tensor::from_mapped(parameter.element, &info.shape, file.clone(), range)
        } else {
            let bytes = file.get(range).unwrap_or_default();
            Tensor::from_bytes(parameter.element, &info.shape, bytes)
        };
        match tensor {
            Ok(tensor) => found.push((position, tensor)),
            Err(error) => problems.push(format!("`{}`: {error}", parameter.name)),
        }
    }
    if !problems.is_empty() {
        let shown = problems.len().min(8);
        let more = problems.len() - shown;
        let mut reason = problems[..shown].join("; ");
        if more > 0 {
            reason.push_str(&format!("; and {more} more"));
        }
        return Err(weights_error(reason));
    }
    for (position, tensor) in found {
        let parameter = &mut module.parameters[position];
        *parameter = parameter.clone().with_data(tensor);
    }
    Ok(())
}

fn constant_shape(parameter: &Parameter) -> Option<Vec<usize>> {
    parameter.axes.iter().map(|axis| axis.size.as_constant().and_then(|size| usize::try_from(size).ok())).collect()
}

/// What to say of a name that the file does not have, with the names that come nearest.
fn missing(name: &str, names: &[String]) -> String {
    let mut near: Vec<(usize, &String)> = names.iter().map(|other| (strsim::levenshtein(name, other), other)).collect();
    near.sort();
    let near: Vec<String> = near
        .iter()
        .take_while(|(distance, other)| *distance <= name.len().max(other.len()) / 2)
        .take(3)
        .map(|(_, other)| format!("`{other}`"))
        .collect();
    match near.is_empty() {
        true => format!("`{name}` is not in the file"),
        false => format!("`{name}` is not in the file; near it are {}", near.join(", ")),
    }
}

fn element_type(dtype: Dtype) -> Option<ElementType> {
    Some(match dtype {
        Dtype::BOOL => ElementType::Bool,
        Dtype::U8 => ElementType::U8,
        Dtype::I8 => ElementType::I8,
        Dtype::I16 => ElementType::I16,
        Dtype::U16 => ElementType::U16,
        Dtype::F16 => ElementType::F16,
        Dtype::BF16 => ElementType::BF16,
        Dtype::I32 => ElementType::I32,
        Dtype::U32 => ElementType::U32,
        Dtype::F32 => ElementType::F32,
        Dtype::F64 => ElementType::F64,
        Dtype::I64 => ElementType::I64,
        Dtype::U64 => ElementType::U64,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::safetensors::tensor::TensorView;
    use std::collections::HashMap;
    use strang_ir::Axis;

    fn module(name: &str, size: i64) -> Module {
        let axes = vec![Axis::new("m", size)];
        let mut module = Module::default();
        module.add_parameter(Parameter::new(name, ElementType::F32, axes));
        module
    }

    fn attached(module: &mut Module) -> Result<(), String> {
        let values: Vec<u8> = [1f32, 2., 3.].iter().flat_map(|value| value.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, vec![3], &values).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.safetensors");
        ::safetensors::serialize_to_file(HashMap::from([("layer.weight", view)]), None, &path).unwrap();
        attach(module, &path).map_err(|error| error.to_string())
    }

    #[test]
    fn parameters_are_filled_by_name() {
        let mut module = module("layer.weight", 3);
        attached(&mut module).unwrap();
        let data = module.parameters[0].data.as_ref().unwrap();
        assert_eq!(data.to_vec::<f32>().unwrap(), [1., 2., 3.]);
    }

    #[test]
    fn what_does_not_fit_names_both_sides() {
        let error = attached(&mut module("layer.wieght", 3)).unwrap_err();
        assert!(error.contains("`layer.wieght` is not in the file; near it are `layer.weight`"), "{error}");
        let error = attached(&mut module("layer.weight", 4)).unwrap_err();
        assert!(error.contains("f32[m = 4] in the circuit, but f32[3] in the file"), "{error}");
    }
}
