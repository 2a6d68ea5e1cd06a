//! Operations of the embedder: kernels in Rust that a program calls by name.
//!
//! A custom operation runs on one thread while the team waits, sees its operands as dense row-major bytes and writes its
//! results in place. What it returns as an error, and what it panics with, ends the run with an error that names the layer.

use crate::{
    ElementType,
    tensor::{Element, TensorError},
};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// An operation that the embedder brings.
pub trait CustomKernel: Send + Sync {
    /// Computes the results from the operands. Results hold whatever was in that memory before.
    ///
    /// # Errors
    /// A message for the user; the run ends with it.
    fn run(&self, operands: Operands<'_>, results: Results<'_>) -> Result<(), String>;
}

impl<F: Fn(Operands<'_>, Results<'_>) -> Result<(), String> + Send + Sync> CustomKernel for F {
    fn run(&self, operands: Operands<'_>, results: Results<'_>) -> Result<(), String> {
        self(operands, results)
    }
}

/// The operations that programs may call, by name.
#[derive(Clone, Default)]
pub struct Operations(BTreeMap<Arc<str>, Arc<dyn CustomKernel>>);

impl Operations {
    /// None.
    pub fn new() -> Operations {
        Operations::default()
    }

    /// Registers an operation; one of the same name is replaced.
    #[must_use]
    pub fn with(mut self, name: &str, kernel: impl CustomKernel + 'static) -> Operations {
        self.0.insert(name.into(), Arc::new(kernel));
        self
    }

    /// The operation of a name.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn CustomKernel>> {
        self.0.get(name)
    }

    /// The names of all operations, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|name| &**name)
    }
}

impl fmt::Debug for Operations {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.names()).finish()
    }
}

/// An array of a custom operation: its type and shape, and which word of the session holds its address.
#[derive(Clone, Debug)]
pub(crate) struct CustomArray {
    pub(crate) word: u32,
    pub(crate) element: ElementType,
    pub(crate) shape: Box<[usize]>,
    pub(crate) bytes: usize,
}

impl CustomArray {
    fn address(&self, words: &[u64]) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(words[self.word as usize] as usize)
    }
}

/// What a custom operation reads.
#[derive(Clone, Copy, Debug)]
pub struct Operands<'run> {
    arrays: &'run [CustomArray],
    words: &'run [u64],
}

impl<'run> Operands<'run> {
    /// # Safety
    /// For the lifetime, every array's word is the address of that many initialised bytes that nothing writes.
    pub(crate) unsafe fn new(arrays: &'run [CustomArray], words: &'run [u64]) -> Operands<'run> {
        Operands { arrays, words }
    }

    /// The number of operands.
    #[expect(clippy::len_without_is_empty, reason = "the count of operands is fixed by the program")]
    pub fn len(&self) -> usize {
        self.arrays.len()
    }

    /// The type of an operand.
    ///
    /// # Panics
    /// All methods panic when there is no operand of that index; a panic in a custom operation is an error of the run.
    pub fn element(&self, index: usize) -> ElementType {
        self.arrays[index].element
    }

    /// The sizes of an operand's axes.
    pub fn shape(&self, index: usize) -> &'run [usize] {
        &self.arrays[index].shape
    }

    /// The bytes of an operand.
    pub fn bytes(&self, index: usize) -> &'run [u8] {
        let array = &self.arrays[index];
        // SAFETY: `new` was promised that the bytes are there and stay as they are.
        unsafe { std::slice::from_raw_parts(array.address(self.words), array.bytes) }
    }

    /// The elements of an operand.
    ///
    /// # Errors
    /// Another element type.
    pub fn as_slice<T: Element>(&self, index: usize) -> Result<&'run [T], TensorError> {
        expect::<T>(self.element(index))?;
        bytemuck::try_cast_slice(self.bytes(index)).map_err(|_| TensorError::Unaligned(T::TYPE))
    }
}

/// What a custom operation writes.
#[derive(Debug)]
pub struct Results<'run> {
    arrays: &'run [CustomArray],
    words: &'run [u64],
}

impl<'run> Results<'run> {
    /// # Safety
    /// For the lifetime, every array's word is the address of that many initialised bytes that nothing else reads or
    /// writes, and no two arrays overlap.
    pub(crate) unsafe fn new(arrays: &'run [CustomArray], words: &'run [u64]) -> Results<'run> {
        Results { arrays, words }
    }

    /// The number of results.
    #[expect(clippy::len_without_is_empty, reason = "the count of results is fixed by the program")]
    pub fn len(&self) -> usize {
        self.arrays.len()
    }

    /// The type of a result.
    ///
    /// # Panics
    /// All methods panic when there is no result of that index; a panic in a custom operation is an error of the run.
    pub fn element(&self, index: usize) -> ElementType {
        self.arrays[index].element
    }

    /// The sizes of a result's axes.
    pub fn shape(&self, index: usize) -> &'run [usize] {
        &self.arrays[index].shape
    }

    /// The bytes of a result.
    pub fn bytes_mut(&mut self, index: usize) -> &mut [u8] {
        let array = &self.arrays[index];
        // SAFETY: `new` was promised that the bytes are there and nobody else's; the result is borrowed from `self`.
        unsafe { std::slice::from_raw_parts_mut(array.address(self.words), array.bytes) }
    }

    /// The elements of a result.
    ///
    /// # Errors
    /// Another element type.
    pub fn as_mut_slice<T: Element>(&mut self, index: usize) -> Result<&mut [T], TensorError> {
        expect::<T>(self.element(index))?;
        bytemuck::try_cast_slice_mut(self.bytes_mut(index)).map_err(|_| TensorError::Unaligned(T::TYPE))
    }

    /// The bytes of all results, to be written side by side.
    pub fn all(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.arrays.iter().map(|array| {
            // SAFETY: as in `bytes_mut`; the arrays do not overlap and each is visited once.
            unsafe { std::slice::from_raw_parts_mut(array.address(self.words), array.bytes) }
        })
    }
}

fn expect<T: Element>(found: ElementType) -> Result<(), TensorError> {
    if found == T::TYPE { Ok(()) } else { Err(TensorError::Element { expected: T::TYPE, found }) }
}
