//! Generated code, run on this machine, against kernels evaluated from their definition.

#[path = "codegen/attention.rs"]
mod attention;
#[path = "codegen/bands.rs"]
mod bands;
#[path = "codegen/depthwise.rs"]
mod depthwise;
#[path = "codegen/direct.rs"]
mod direct;
#[path = "codegen/extremes.rs"]
mod extremes;
#[path = "codegen/filter.rs"]
mod filter;
#[path = "codegen/gemm.rs"]
mod gemm;
#[path = "codegen/harness.rs"]
mod harness;
#[path = "codegen/measure.rs"]
mod measure;
#[path = "codegen/pooling.rs"]
mod pooling;
#[path = "codegen/random.rs"]
mod random;
#[path = "codegen/rows.rs"]
mod rows;
