//! Parameters from `.safetensors` files.
