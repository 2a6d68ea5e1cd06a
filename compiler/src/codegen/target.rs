//! Which CPU code is generated for: Cranelift's description of it, and the few facts that code generation asks of it.

use super::{CodegenError, schedule::Schedules};
use cranelift_codegen::{
    isa::{self, TargetIsa},
    settings::{self, Configurable},
};
use std::sync::Arc;
use strang_runtime::kernels::{Level, bf16, level::LEVEL_VARIABLE};

/// A CPU that code is generated for.
#[derive(Clone)]
pub struct Target {
    /// Its description for Cranelift.
    pub isa: Arc<dyn TargetIsa>,
    /// The same, for code that should be there soon rather than be fast.
    pub quick: Arc<dyn TargetIsa>,
    /// Whether it has fused multiply-add instructions; without them a call into the kernel table takes their place.
    pub fma: bool,
    /// Columns that the tallest tiles of the kernels have.
    pub tile_columns: i64,
    /// Whether the kernels of bytes filter, which takes less time than all products where bytes are widened to be multiplied.
    pub filters_bytes: bool,
    /// Whether products of bytes and of bf16 are computed in tile registers.
    pub has_tile_registers: bool,
    /// Blocks of products that were measured on this machine.
    pub schedules: Arc<Schedules>,
}

/// Features of x86-64-v2 that Cranelift knows.
const V2: &[&str] = &["has_cmpxchg16b", "has_sse3", "has_ssse3", "has_sse41", "has_sse42", "has_popcnt"];
/// What x86-64-v3 adds.
const V3: &[&str] = &["has_avx", "has_avx2", "has_fma", "has_bmi1", "has_bmi2", "has_lzcnt"];
/// What x86-64-v4 adds.
const V4: &[&str] = &["has_avx512f", "has_avx512dq", "has_avx512vl"];

impl Target {
    /// The names that [`Target::named`] takes. `aarch64` needs the feature `cross` of this crate on other machines.
    pub const NAMES: &[&str] = &["x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64"];

    /// The machine this runs on, lowered when `STRANG_CPU_LEVEL` says so.
    ///
    /// # Errors
    /// Cranelift does not know this machine, or the variable names no level that it has.
    pub fn host() -> Result<Self, CodegenError> {
        let level = match std::env::var_os(LEVEL_VARIABLE) {
            None => None,
            Some(_) => Some(Level::detect().map_err(|error| CodegenError::Target(error.to_string()))?),
        };
        match level {
            Some(Level::Portable) if cfg!(target_arch = "x86_64") => Self::named("x86-64-v2"),
            Some(Level::Avx2) if cfg!(target_arch = "x86_64") => Self::named("x86-64-v3"),
            _ => {
                let builder = cranelift_native::builder().map_err(|error| CodegenError::Target(error.to_owned()))?;
                let has_tile_registers = bf16::has_tile_registers(Level::Avx512);
                Ok(Target { has_tile_registers, ..Self::finish(builder)? })
            }
        }
    }

    /// A CPU by name, for code that is printed or written to a file: `x86-64` (which means v2, the least that is
    /// supported), `x86-64-v2`, `x86-64-v3`, `x86-64-v4` or `aarch64`.
    ///
    /// # Errors
    /// The name is none of these, or this build cannot generate code for it.
    pub fn named(name: &str) -> Result<Self, CodegenError> {
        let (architecture, features): (&str, &[&[&str]]) = match name {
            "x86-64" | "x86-64-v2" => ("x86_64-unknown-linux", &[V2]),
            "x86-64-v3" => ("x86_64-unknown-linux", &[V2, V3]),
            "x86-64-v4" => ("x86_64-unknown-linux", &[V2, V3, V4]),
            "aarch64" => ("aarch64-unknown-linux", &[]),
            _ => {
                let known = Self::NAMES.join(", ");
                return Err(CodegenError::Target(format!("unknown target `{name}`; the targets are {known}")));
            }
        };
        let mut builder = isa::lookup_by_name(architecture).map_err(|error| CodegenError::Target(error.to_string()))?;
        for feature in features.iter().copied().flatten() {
            builder.enable(feature).map_err(|error| CodegenError::Target(error.to_string()))?;
        }
        Self::finish(builder)
    }

    fn finish(builder: isa::Builder) -> Result<Self, CodegenError> {
        let isa = Self::isa(&builder, &[("opt_level", "speed")])?;
        let quick = Self::isa(&builder, &[("opt_level", "none"), ("regalloc_algorithm", "single_pass")])?;
        let fma = isa.has_native_fma();
        let has = |name: &str| isa.isa_flags().iter().any(|flag| flag.name == name && flag.as_bool() == Some(true));
        let wide = has("has_avx512f");
        // CPUs with vectors of 512 bits multiply bytes as they are, but for the oldest.
        let filters_bytes = has("has_avx2") && !wide;
        let tile_columns = if wide { 32 } else { 16 };
        let schedules = Arc::default();
        Ok(Target { isa, quick, fma, tile_columns, filters_bytes, has_tile_registers: false, schedules })
    }

    fn isa(builder: &isa::Builder, choices: &[(&str, &str)]) -> Result<Arc<dyn TargetIsa>, CodegenError> {
        let mut flags = settings::builder();
        let verifier = if cfg!(debug_assertions) { "true" } else { "false" };
        let common = [
            ("is_pic", "true"),
            ("enable_verifier", verifier),
            ("unwind_info", "false"),
            ("enable_probestack", "false"),
            ("use_colocated_libcalls", "false"),
        ];
        for (name, value) in common.iter().chain(choices) {
            flags.set(name, value).map_err(|error| CodegenError::Target(error.to_string()))?;
        }
        builder.finish(settings::Flags::new(flags)).map_err(|error| CodegenError::Target(error.to_string()))
    }
}
