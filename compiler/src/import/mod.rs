//! Models from files: ONNX graphs become modules, safetensors files fill the parameters of a module.

pub mod onnx;
pub mod safetensors;
