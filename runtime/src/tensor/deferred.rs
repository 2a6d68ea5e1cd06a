//! Tensors whose bytes are computed when they are read.

use super::{AlignedBytes, Spare, Tensor};
use std::{any::Any, ops::Range, sync::OnceLock};

/// Computes the bytes of a tensor when they are read; [`Tensor::deferred`] makes one. It may be asked more than once.
///
/// Functions that write all bytes are such.
pub trait Make: Any + Send + Sync {
    /// Writes all bytes. `room` is for what has to be computed first, with [`Tensor::bytes_in`].
    fn write(&self, bytes: &mut [u8], room: &mut Tensor);

    /// How the tensor is cut where it can be computed in parts.
    fn cut(&self) -> Option<Cut> {
        None
    }

    /// What is at some positions of the axis that is cut; `None` where that is not known without all. `spare` has memory for it and
    /// for what comes before.
    fn part(&self, positions: Range<usize>, spare: &mut Spare) -> Option<Tensor> {
        let _ = (positions, spare);
        None
    }

    /// Lets the system take back the memory of what the tensor is computed from, as [`Tensor::release`] does.
    fn release(&self) {}
}

impl<F: Fn(&mut [u8], &mut Tensor) + Send + Sync + 'static> Make for F {
    fn write(&self, bytes: &mut [u8], room: &mut Tensor) {
        self(bytes, room);
    }
}

/// Parts of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The axis that they are ranges of.
    pub axis: usize,
    /// How many positions fit a cache, with what they are computed from.
    pub length: usize,
}

/// Bytes that are computed when they are read.
pub(super) struct Deferred {
    pub(super) make: Box<dyn Make>,
    /// The shape that parts are cut from.
    pub(super) shape: Vec<usize>,
    pub(super) length: usize,
    pub(super) made: OnceLock<AlignedBytes>,
}

impl Deferred {
    /// The bytes, computed if they were not.
    ///
    /// # Panics
    /// When there is no memory for them.
    pub(super) fn bytes(&self) -> &[u8] {
        if self.made.get().is_none() {
            // Not within the lock: computing may take other tasks of its thread, which may read the same tensor.
            let mut made = AlignedBytes::zeros(self.length).expect("memory for a tensor");
            self.make.write(made.bytes_mut(), &mut Tensor::scalar(0u8));
            let _ = self.made.set(made);
        }
        self.made.get().map_or(&[], AlignedBytes::bytes)
    }
}
