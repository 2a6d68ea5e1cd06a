//! Code memory: where the machine code of a program lies while it can be called.
//!
//! A compiler in the same process has placed it already ([`Code`]); a program that came from elsewhere is placed here. Pages
//! are written first and made executable afterwards, never both at once, and unmapped when the last owner of the program
//! lets go.

use crate::program::KernelFunction;
use memmap2::{Mmap, MmapMut};
use std::ptr::NonNull;

/// Executable memory that holds the functions of one program.
pub trait Code: std::fmt::Debug + Send + Sync {
    /// The first instruction of the function that the program has at an offset, with that length; `None` when there is none.
    ///
    /// The address is valid while this memory lives. What the function does when called is the business of whoever made it.
    fn address(&self, offset: usize, length: usize) -> Option<NonNull<u8>>;
}

/// The function at an address of code memory.
pub(crate) fn function(address: NonNull<u8>) -> KernelFunction {
    // SAFETY: the address is that of executable memory; calling it is unsafe and promised by the caller.
    unsafe { std::mem::transmute::<*const u8, KernelFunction>(address.as_ptr()) }
}

/// Why machine code cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum CodeError {
    /// The operating system gave no executable memory.
    #[error("the system gives no executable memory for {bytes} bytes of code: {reason}")]
    Memory {
        /// The length of the code.
        bytes: usize,
        /// What the system said.
        reason: std::io::Error,
    },
    /// Generated code runs on x86-64 Unix systems.
    #[error("generated code can be loaded on x86-64 Unix systems alone, not on {system}")]
    Platform {
        /// Architecture and system of this process.
        system: String,
    },
}

/// Executable pages that hold the code of one program.
#[derive(Debug)]
pub(crate) struct CodeMemory {
    /// Nothing is mapped for a program without code.
    pages: Option<Mmap>,
}

impl CodeMemory {
    /// Where each function of a program starts is a multiple of this.
    pub(crate) const ALIGNMENT: usize = 64;

    /// Copies machine code into pages of its own and makes them executable.
    ///
    /// # Errors
    /// A system that cannot run it or gives no memory.
    pub(crate) fn new(code: &[u8]) -> Result<CodeMemory, CodeError> {
        if code.is_empty() {
            return Ok(CodeMemory { pages: None });
        }
        // Other architectures need their instruction caches told about new code, which cannot be tested here.
        if !cfg!(all(unix, target_arch = "x86_64")) {
            let system = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
            return Err(CodeError::Platform { system });
        }
        let pages = MmapMut::map_anon(code.len()).and_then(|mut pages| {
            pages.copy_from_slice(code);
            pages.make_exec()
        });
        let pages = pages.map_err(|reason| CodeError::Memory { bytes: code.len(), reason })?;
        Ok(CodeMemory { pages: Some(pages) })
    }
}

impl Code for CodeMemory {
    /// `None` outside the code or off [`CodeMemory::ALIGNMENT`].
    fn address(&self, offset: usize, length: usize) -> Option<NonNull<u8>> {
        let pages = self.pages.as_ref()?;
        let inside = offset.checked_add(length).is_some_and(|end| end <= pages.len());
        if !inside || length == 0 || !offset.is_multiple_of(Self::ALIGNMENT) {
            return None;
        }
        Some(NonNull::from(&pages[offset]))
    }
}

#[cfg(all(test, unix, target_arch = "x86_64"))]
mod tests {
    use super::*;

    /// `mov eax, 7; ret`
    const SEVEN: [u8; 6] = [0xB8, 7, 0, 0, 0, 0xC3];

    #[test]
    fn code_runs_where_it_was_placed() {
        let mut code = vec![0; 64];
        code.extend(SEVEN);
        let memory = CodeMemory::new(&code).unwrap();
        let function = function(memory.address(64, SEVEN.len()).unwrap());
        // SAFETY: the function reads none of its arguments.
        let status = unsafe { function(std::ptr::null(), std::ptr::null(), std::ptr::null_mut(), 0, 0) };
        assert_eq!(status, 7);
    }

    #[test]
    fn functions_outside_the_code_are_refused() {
        let memory = CodeMemory::new(&[0xC3; 128]).unwrap();
        assert!(memory.address(64, 64).is_some());
        for (offset, length) in [(64, 65), (128, 1), (32, 1), (0, 0), (usize::MAX - 63, 128), (1 << 40, 1)] {
            assert!(memory.address(offset, length).is_none(), "{offset} {length}");
        }
        assert!(CodeMemory::new(&[]).unwrap().address(0, 1).is_none());
    }

    #[test]
    fn pages_are_never_writable_and_executable() {
        let memory = CodeMemory::new(&SEVEN).unwrap();
        let address = memory.pages.as_ref().unwrap().as_ptr() as usize;
        let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
        let covers = |line: &&str| {
            let (start, rest) = line.split_once('-').unwrap();
            let end = rest.split(' ').next().unwrap();
            let number = |text| usize::from_str_radix(text, 16).unwrap();
            (number(start)..number(end)).contains(&address)
        };
        let line = maps.lines().find(covers).unwrap();
        assert!(line.contains("r-x"), "{line}");
    }
}
