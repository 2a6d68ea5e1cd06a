//! Code generation: from planned kernels to machine code, one small function a kernel, with Cranelift.
//!
//! | module | what |
//! |---|---|
//! | [`target`] | the CPU that code is for |
//! | [`check`] | what code generation relies on in a kernel |
//! | [`emit`] | the builder of a kernel's function: arguments, loops, calls |
//! | [`address`] | index expressions and accesses |
//! | [`block`], [`fold`] | straight-line code, and what loops carry |
//! | [`scalar`] | scalar instructions for all types |
//! | [`collapse`] | fewer loops |
//! | [`strip`] | blocks over a range of a variable: vectors, strips |
//! | `tile` | how a space is cut into tiles |
//! | `chunks` | a grid over several variables, each cut into chunks |
//! | `argument` | structures that kernels of the table take in memory |
//! | [`nest`], [`rows`], `gemm`, [`attention`], [`depthwise`], `bands` | kernels by kind |
//! | [`epilogue`] | what tile kernels do to their sums |
//! | `transpose` | maps that read along one variable and write along another |
//! | `segments` | rows of an image in segments: what depthwise convolution and pooling walk in |
//! | `pooling` | folds over windows of an image |
//! | `reduce` | folds along a row, in lanes |
//! | [`schedule`] | blocks of products, as they were measured |
//! | `unaligned` | weights that may lie at any address |
//! | [`compile`] | Cranelift itself: bytes, and text for people |
//!
//! Functions have no relocations: constants are inside them, and everything else comes through arguments.

pub mod address;
mod argument;
pub mod attention;
mod bands;
pub mod block;
pub mod check;
mod chunks;
pub mod collapse;
pub mod compile;
pub mod depthwise;
pub mod emit;
pub mod epilogue;
mod extremes;
pub mod fold;
mod gemm;
mod interior;
mod link;
pub mod nest;
mod pooling;
mod reduce;
pub mod rows;
pub mod scalar;
pub mod schedule;
mod segments;
pub mod strip;
pub mod target;
mod tile;
mod transpose;
mod unaligned;

use crate::plan::kernel::{Body, Kernel, Plan, PlanStep};
use cranelift_codegen::ir::Function as Code;
use emit::{Emitted, Slot};
pub use gemm::Blocking;
pub use link::link;
use rayon::prelude::*;
use rustc_hash::{FxHashMap, FxHasher};
use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};
use strang_ir::{Size, Tensor};
use strang_runtime::program::{Address, Argument, Base, Buffer, Function, KernelStep, Program, Step};
pub use target::Target;

/// Why there is no code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodegenError {
    /// Code cannot be generated for this CPU.
    #[error("no code can be generated for this target: {0}")]
    Target(String),
    /// Planning made a kernel that contradicts itself: a mistake of the compiler, not of its user.
    #[error("internal error: the kernel of `{label}` is malformed: {reason}")]
    Kernel {
        /// The user's layer.
        label: Arc<str>,
        /// What is wrong.
        reason: String,
    },
    /// Cranelift refused a function, or wants relocations: a mistake of the compiler, not of its user.
    #[error("internal error: no code for the kernel of `{label}`: {reason}")]
    Code {
        /// The user's layer.
        label: Arc<str>,
        /// What is wrong.
        reason: String,
    },
    /// The code cannot be placed in the memory of this process.
    #[error("the machine code cannot be loaded: {0}")]
    Link(String),
}

/// What [`print()`] shows of every kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Cranelift's intermediate form, as it is handed over.
    Clif,
    /// Assembly.
    Assembly,
}

/// Compiles a plan.
///
/// # Errors
/// [`CodegenError`]: nothing that a user's model can cause, short of a CPU that is not supported.
pub fn generate(plan: &Plan, target: &Target) -> Result<Program, CodegenError> {
    let kernels = kernels(plan);
    let emitted = emit_all(&kernels, target)?;
    let (of_kernel, unique) = distinct(&emitted);
    let compiled: Vec<Vec<u8>> = unique
        .par_iter()
        .map(|(kernel, code)| compile::compile(code, &kernels[*kernel].label, target))
        .collect::<Result<_, _>>()?;
    let mut assembly = Assembly::new(plan, &kernels, &emitted, &of_kernel);
    for code in &compiled {
        assembly.add_code(code);
    }
    let body = assembly.steps(&plan.body);
    let mut program = Program { body, ..assembly.program };
    let handed = emitted.iter().flatten().flat_map(|emitted| emitted.handed.iter().copied()).collect();
    program.unaligned = unaligned::unaligned(&program, handed);
    Ok(program)
}

/// Text of every kernel of a plan, in the order of its steps; the same for the same plan and target.
///
/// # Errors
/// As for [`generate`].
pub fn print(plan: &Plan, target: &Target, form: Form) -> Result<String, CodegenError> {
    let kernels = kernels(plan);
    let emitted = emit_all(&kernels, target)?;
    let (of_kernel, unique) = distinct(&emitted);
    let mut text = String::new();
    for (position, (kernel, emitted)) in kernels.iter().zip(&emitted).enumerate() {
        let Some(emitted) = emitted else {
            if let Body::Builtin { name, .. } = &kernel.body {
                text += &format!("; {position} \"{}\": builtin {name}\n\n", kernel.label);
            }
            continue;
        };
        let Emitted { grid, scratch, kind, slots, .. } = emitted;
        text += &format!("; {position} \"{}\": {kind}, {grid} tiles, {scratch} bytes of scratch\n", kernel.label);
        for (word, slot) in slots.iter().enumerate() {
            text += &match slot {
                Slot::Address(address) => format!(";   {word}: buffer {} + {}\n", address.buffer, address.offset),
                Slot::Size(size) => format!(";   {word}: {size}\n"),
                Slot::Table(table) => format!(";   {word}: table of {}\n", table.len()),
            };
        }
        let first = of_kernel[position].map_or(position, |code| unique[code].0);
        text += &match (first == position, form) {
            (false, _) => format!(";   code of {first}\n"),
            (true, Form::Clif) => emitted.code.display().to_string(),
            (true, Form::Assembly) => compile::assembly(&emitted.code, &kernel.label, target)?,
        };
        text.push('\n');
    }
    Ok(text)
}

/// The kernels of a plan, in the order of its steps.
fn kernels(plan: &Plan) -> Vec<&Kernel> {
    fn collect<'p>(steps: &'p [PlanStep], kernels: &mut Vec<&'p Kernel>) {
        for step in steps {
            match step {
                PlanStep::Kernel(kernel) => kernels.push(kernel),
                PlanStep::Repeat { body, .. } => collect(body, kernels),
                PlanStep::If { then, otherwise, .. } => {
                    collect(then, kernels);
                    collect(otherwise, kernels);
                }
                PlanStep::Host { .. } => {}
            }
        }
    }
    let mut kernels = Vec::new();
    collect(&plan.body, &mut kernels);
    kernels
}

/// The code of every kernel before compilation; `None` for kernels of the runtime.
fn emit_all(kernels: &[&Kernel], target: &Target) -> Result<Vec<Option<Emitted>>, CodegenError> {
    kernels.par_iter().map(|kernel| emit_kernel(kernel, target)).collect()
}

/// The code of a kernel before compilation; `None` for a kernel of the runtime.
///
/// # Errors
/// The kernel is malformed.
pub fn emit_kernel(kernel: &Kernel, target: &Target) -> Result<Option<Emitted>, CodegenError> {
    let malformed = |reason: String| CodegenError::Kernel { label: kernel.label.clone(), reason };
    check::check(kernel).map_err(malformed)?;
    let kernel = &collapse::collapse(kernel);
    Ok(Some(match &kernel.body {
        Body::Builtin { .. } => return Ok(None),
        Body::Nest(nest) => emit::emit(kernel, target, |emitter| nest::emit(emitter, nest)),
        Body::Rows(rows) => emit::emit(kernel, target, |emitter| rows::emit(emitter, rows)),
        Body::Gemm(gemm) => emit::emit(kernel, target, |emitter| gemm::emit(emitter, gemm)),
        Body::Attention(attention) => emit::emit(kernel, target, |emitter| attention::emit(emitter, attention)),
        Body::Depthwise(depthwise) => emit::emit(kernel, target, |emitter| depthwise::emit(emitter, depthwise)),
        Body::Bands(bands) => {
            let (kernel, scratch) = bands::in_scratch(kernel, bands);
            emit::emit(&kernel, target, |emitter| bands::emit(emitter, bands, scratch))
        }
    }))
}

/// For every kernel the number of its code, and each code with the first kernel that has it.
fn distinct(emitted: &[Option<Emitted>]) -> (Vec<Option<usize>>, Vec<(usize, &Code)>) {
    let mut numbers: FxHashMap<u64, Vec<usize>> = FxHashMap::default();
    let mut unique: Vec<(usize, &Code)> = Vec::new();
    let of_kernel = emitted.iter().enumerate().map(|(kernel, emitted)| {
        let code = &emitted.as_ref()?.code;
        let mut hasher = FxHasher::default();
        code.stencil.hash(&mut hasher);
        let numbers = numbers.entry(hasher.finish()).or_default();
        let found = numbers.iter().copied().find(|number| unique[*number].1.stencil == code.stencil);
        Some(found.unwrap_or_else(|| {
            unique.push((kernel, code));
            numbers.push(unique.len() - 1);
            unique.len() - 1
        }))
    });
    (of_kernel.collect(), unique)
}

/// A program that is put together.
struct Assembly<'p> {
    kernels: &'p [&'p Kernel],
    emitted: &'p [Option<Emitted>],
    of_kernel: &'p [Option<usize>],
    /// The next kernel in the order of steps.
    next: usize,
    /// Buffers of tables that generated code reads.
    tables: FxHashMap<Arc<[i64]>, u32>,
    /// Kernels of the runtime that are functions already.
    builtins: FxHashMap<Arc<str>, u32>,
    program: Program,
}

/// Functions start at multiples of this: a cache line.
const ALIGNMENT: usize = 64;

impl<'p> Assembly<'p> {
    fn new(
        plan: &Plan,
        kernels: &'p [&'p Kernel],
        emitted: &'p [Option<Emitted>],
        of_kernel: &'p [Option<usize>],
    ) -> Self {
        let program = Program {
            symbols: plan.symbols.clone(),
            inputs: plan.inputs.clone(),
            outputs: plan.outputs.clone(),
            states: plan.states.clone(),
            checks: plan.checks.clone(),
            weights: plan.weights.clone(),
            buffers: plan.buffers.clone(),
            ..Program::default()
        };
        let (tables, builtins) = (FxHashMap::default(), FxHashMap::default());
        Assembly { kernels, emitted, of_kernel, next: 0, tables, builtins, program }
    }

    fn add_code(&mut self, code: &[u8]) {
        let offset = self.program.code.len();
        self.program.code.extend_from_slice(code);
        // What lies between functions traps if it is ever reached.
        self.program.code.resize(self.program.code.len().next_multiple_of(ALIGNMENT), 0xcc);
        self.program.functions.push(Function::Generated { offset: offset as u32, length: code.len() as u32 });
    }

    fn steps(&mut self, steps: &[PlanStep]) -> Vec<Step> {
        steps
            .iter()
            .map(|step| match step {
                PlanStep::Kernel(_) => Step::Kernel(self.kernel()),
                PlanStep::Repeat { count, condition, body } => {
                    Step::Repeat { count: count.clone(), condition: condition.clone(), body: self.steps(body) }
                }
                PlanStep::If { condition, then, otherwise } => {
                    Step::If { condition: condition.clone(), then: self.steps(then), otherwise: self.steps(otherwise) }
                }
                PlanStep::Host { name, operands, results, label } => Step::Host {
                    name: name.clone(),
                    operands: operands.clone(),
                    results: results.clone(),
                    label: label.clone(),
                },
            })
            .collect()
    }

    fn kernel(&mut self) -> KernelStep {
        let position = self.next;
        self.next += 1;
        let kernel = self.kernels[position];
        let (cost, label) = (kernel.cost.clone(), kernel.label.clone());
        match (&self.emitted[position], self.of_kernel[position], &kernel.body) {
            (Some(emitted), Some(function), _) => {
                let arguments = emitted.slots.iter().map(|slot| self.argument(slot)).collect();
                let (grid, scratch) = (emitted.grid.clone(), emitted.scratch.clone());
                let kind = emitted.kind.into();
                KernelStep { function: function as u32, arguments, grid, scratch, cost, label, kind }
            }
            (_, _, Body::Builtin { name, arguments, grid, scratch }) => {
                let functions = &mut self.program.functions;
                let function = *self.builtins.entry(name.clone()).or_insert_with(|| {
                    functions.push(Function::Builtin(name.clone()));
                    functions.len() as u32 - 1
                });
                let (arguments, grid, scratch) = (arguments.clone(), grid.clone(), scratch.clone());
                KernelStep { function, arguments, grid, scratch, cost, label, kind: name.clone() }
            }
            _ => unreachable!("every kernel but those of the runtime has code"),
        }
    }

    fn argument(&mut self, slot: &Slot) -> Argument {
        match slot {
            Slot::Address(address) => Argument::Address(address.clone()),
            Slot::Size(size) => Argument::Size(size.clone()),
            Slot::Table(table) => {
                let program = &mut self.program;
                let buffer = *self.tables.entry(table.clone()).or_insert_with(|| {
                    let tensor = Tensor::from_slice(&[table.len()], table).unwrap_or_else(|_| Tensor::scalar(0i64));
                    program.weights.push(tensor);
                    program.buffers.push(Buffer {
                        base: Base::Weights(program.weights.len() as u32 - 1),
                        bytes: Size::from(8 * table.len() as i64),
                        live: (0, 0),
                        zeroed: Vec::new(),
                    });
                    program.buffers.len() as u32 - 1
                });
                Argument::Address(Address { buffer, offset: Size::ZERO })
            }
        }
    }
}
