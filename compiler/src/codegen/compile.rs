//! Cranelift's part: a function becomes bytes, or text for people.

use super::{CodegenError, Target};
use cranelift_codegen::{
    CompiledCode, Context,
    control::ControlPlane,
    ir::{Function, Opcode},
};
use std::{cell::RefCell, sync::Arc};

thread_local! {
    /// Cranelift's memory, reused by all functions a thread compiles.
    static CONTEXT: RefCell<Context> = RefCell::new(Context::new());
}

/// The machine code of a function.
///
/// # Errors
/// Cranelift refuses the function, or its code refers to something outside it.
pub fn compile(code: &Function, label: &Arc<str>, target: &Target) -> Result<Vec<u8>, CodegenError> {
    with_compiled(code, label, target, false, |compiled| compiled.code_buffer().to_vec())
}

/// The assembly of a function.
///
/// # Errors
/// As for [`compile`].
pub fn assembly(code: &Function, label: &Arc<str>, target: &Target) -> Result<String, CodegenError> {
    with_compiled(code, label, target, true, |compiled| compiled.vcode.clone().unwrap_or_default())
}

/// Whether a function only tells kernels of the runtime where to work: it calls some, and computes with integers alone. How
/// good its own code is does not show.
fn only_calls(code: &Function) -> bool {
    let mut calls = false;
    for inst in code.layout.blocks().flat_map(|block| code.layout.block_insts(block)) {
        let opcode = code.dfg.insts[inst].opcode();
        calls |= opcode.is_call();
        let mut types = code.dfg.inst_results(inst).iter().map(|value| code.dfg.value_type(*value));
        let constant = matches!(opcode, Opcode::F32const | Opcode::F64const);
        if !constant && types.any(|kind| kind.is_vector() || kind.is_float()) {
            return false;
        }
    }
    calls
}

fn with_compiled<R>(
    code: &Function,
    label: &Arc<str>,
    target: &Target,
    text: bool,
    result: impl FnOnce(&CompiledCode) -> R,
) -> Result<R, CodegenError> {
    CONTEXT.with_borrow_mut(|context| {
        context.clear();
        context.func = code.clone();
        context.set_disasm(text);
        let failed = |reason: String| CodegenError::Code { label: label.clone(), reason };
        let compiled = context
            .compile(if only_calls(code) { &*target.quick } else { &*target.isa }, &mut ControlPlane::default())
            .map_err(|error| failed(cranelift_codegen::print_errors::pretty_error(error.func, error.inner)))?;
        if let Some(relocation) = compiled.buffer.relocs().first() {
            return Err(failed(format!("it refers to {:?}, which is outside it", relocation.target)));
        }
        Ok(result(compiled))
    })
}
