//! Machine code into the memory of this process, with Cranelift's JIT: on every system that it knows.

use super::{ALIGNMENT, CodegenError};
use cranelift_codegen::ir::Signature;
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{Module, ModuleError, default_libcall_names};
use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    ptr::NonNull,
    sync::{Mutex, PoisonError},
};
use strang_runtime::{
    Code,
    program::{Function, Program},
};

/// The functions of a program, ready to be called. They are unmapped when this is dropped.
struct Linked {
    /// Owns the memory; nobody asks it anything else any more.
    module: Mutex<Option<JITModule>>,
    /// Addresses by offset and length in the program's code.
    addresses: BTreeMap<(usize, usize), usize>,
}

/// Places the generated functions of a program in executable memory of this process.
///
/// # Errors
/// Functions outside the program's code, or a system that gives no executable memory.
pub fn link(program: &Program) -> Result<Box<dyn Code>, CodegenError> {
    let refused = |error: ModuleError| CodegenError::Link(error.to_string());
    // Code is position-independent; the JIT asks that what it would compile itself is not.
    let builder = JITBuilder::with_flags(&[("is_pic", "false")], default_libcall_names()).map_err(refused)?;
    let mut module = JITModule::new(builder);
    let signature = Signature::new(module.isa().default_call_conv());
    let mut functions = BTreeMap::new();
    for function in &program.functions {
        let &Function::Generated { offset, length } = function else { continue };
        let (offset, length) = (offset as usize, length as usize);
        let bytes = offset.checked_add(length).and_then(|end| program.code.get(offset..end));
        let bytes = bytes.ok_or_else(|| CodegenError::Link(format!("there is no code at {offset}")))?;
        if let Entry::Vacant(place) = functions.entry((offset, length)) {
            let id = module.declare_anonymous_function(&signature).map_err(refused)?;
            module.define_function_bytes(id, ALIGNMENT as u64, bytes, &[]).map_err(refused)?;
            place.insert(id);
        }
    }
    module.finalize_definitions().map_err(refused)?;
    let addresses = functions
        .into_iter()
        .map(|(place, id)| (place, module.get_finalized_function(id).expose_provenance()))
        .collect();
    Ok(Box::new(Linked { module: Mutex::new(Some(module)), addresses }))
}

impl Code for Linked {
    fn address(&self, offset: usize, length: usize) -> Option<NonNull<u8>> {
        let address = *self.addresses.get(&(offset, length))?;
        NonNull::new(std::ptr::with_exposed_provenance_mut(address))
    }
}

impl fmt::Debug for Linked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Linked").field("functions", &self.addresses.len()).finish_non_exhaustive()
    }
}

impl Drop for Linked {
    fn drop(&mut self) {
        if let Some(module) = self.module.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            // SAFETY: the runtime drops code memory after the last session of the program, so no function of it runs or
            // is called any more.
            unsafe { module.free_memory() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strang_runtime::program::Program;

    #[test]
    fn functions_lie_where_the_program_has_them() {
        let mut program = Program { code: vec![0x90; 256], ..Program::default() };
        program.functions =
            [(0, 64), (64, 32), (0, 64)].map(|(offset, length)| Function::Generated { offset, length }).into();
        let code = link(&program).unwrap();
        let [first, second] = [(0, 64), (64, 32)].map(|(offset, length)| code.address(offset, length).unwrap());
        assert_ne!(first, second);
        assert!(first.addr().get().is_multiple_of(ALIGNMENT));
        assert!(code.address(64, 64).is_none() && code.address(128, 1).is_none());
        program.functions.push(Function::Generated { offset: 255, length: 2 });
        assert!(matches!(link(&program), Err(CodegenError::Link(_))));
    }
}
