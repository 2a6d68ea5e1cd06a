//! Runs an ONNX model on the reference interpreter: `interpret run MODEL --inputs DIR --outputs DIR`.
//!
//! Inputs are `input_K.npy`, outputs `output_K.npy`; sub-byte integers come one to a byte, bf16 as the bits in u16. With
//! this the conformance suite judges the importer without a compiler.

use std::{error::Error, fs, path::Path};
use strang_compiler::import::onnx::{ImportOptions, load};
use strang_ir::interpret::{Arithmetic, interpret};
use strang_runtime::{ElementType, Tensor};

fn main() {
    if let Err(error) = run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let [command, model, inputs_flag, inputs, outputs_flag, outputs] = arguments else {
        return Err("usage: interpret run MODEL --inputs DIR --outputs DIR".into());
    };
    if [command.as_str(), inputs_flag, outputs_flag] != ["run", "--inputs", "--outputs"] {
        return Err("usage: interpret run MODEL --inputs DIR --outputs DIR".into());
    }
    let ports = strang_compiler::import::onnx::inputs(Path::new(model))?;
    let mut options = ImportOptions::default();
    let mut tensors = Vec::new();
    for (position, (name, element)) in ports.into_iter().enumerate() {
        let path = Path::new(inputs).join(format!("input_{position}.npy"));
        let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let tensor = read(&bytes, element)?;
        options.values.insert(name, tensor.clone());
        tensors.push(tensor);
    }
    let module = load(Path::new(model), &options)?;
    strang_ir::verify::verify(&module)?;
    let arithmetic = if std::env::var_os("WIDE").is_some() { Arithmetic::Wide } else { Arithmetic::Typed };
    for (position, tensor) in interpret(&module, &tensors, arithmetic)?.iter().enumerate() {
        fs::write(Path::new(outputs).join(format!("output_{position}.npy")), write(tensor))?;
    }
    Ok(())
}

fn descriptor(element: ElementType) -> &'static str {
    match element {
        ElementType::F32 => "<f4",
        ElementType::F64 => "<f8",
        ElementType::F16 => "<f2",
        ElementType::BF16 | ElementType::U16 => "<u2",
        ElementType::I8 | ElementType::I4 | ElementType::I2 => "|i1",
        ElementType::I16 => "<i2",
        ElementType::I32 => "<i4",
        ElementType::I64 => "<i8",
        ElementType::U8 | ElementType::U4 | ElementType::U2 => "|u1",
        ElementType::U32 => "<u4",
        ElementType::U64 => "<u8",
        ElementType::Bool => "|b1",
    }
}

/// The bytes of an element in the file.
fn width(element: ElementType) -> usize {
    element.bytes().unwrap_or(1)
}

fn read(bytes: &[u8], element: ElementType) -> Result<Tensor, Box<dyn Error>> {
    let length = match bytes.get(6) {
        Some(1) => 10 + u16::from_le_bytes(bytes[8..10].try_into()?) as usize,
        Some(_) => 12 + u32::from_le_bytes(bytes[8..12].try_into()?) as usize,
        None => return Err("not an npy file".into()),
    };
    let header = std::str::from_utf8(&bytes[10..length])?;
    if !header.contains(descriptor(element)) {
        return Err(format!("the input has another type than {element}: {header}").into());
    }
    let shape = header.split_once("'shape': (").and_then(|(_, rest)| rest.split_once(')')).ok_or("no shape")?.0;
    let shape: Vec<usize> =
        shape.split(',').map(str::trim).filter(|size| !size.is_empty()).map(str::parse).collect::<Result<_, _>>()?;
    let mut tensor = Tensor::zeros(element, &shape)?;
    for (position, entry) in bytes[length..].chunks_exact(width(element)).enumerate() {
        let mut word = [0; 8];
        word[..entry.len()].copy_from_slice(entry);
        tensor.set_bits(position, u64::from_le_bytes(word));
    }
    Ok(tensor)
}

fn write(tensor: &Tensor) -> Vec<u8> {
    let element = tensor.element();
    let sizes: Vec<String> = tensor.shape().iter().map(|size| format!("{size},")).collect();
    let shape = sizes.join(" ");
    let mut header = format!("{{'descr': '{}', 'fortran_order': False, 'shape': ({shape}), }}", descriptor(element));
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    for position in 0..tensor.count() {
        let mut bits = tensor.bits_at(position);
        if element.is_signed_integer() && element.bits() < 8 {
            bits = strang_runtime::tensor::bits_to_integer(element, bits) as u64;
        }
        bytes.extend(&bits.to_le_bytes()[..width(element)]);
    }
    bytes
}
