//! The bytes that tensors own.

use crate::memory::{Block, shared::Room};

/// Bytes that start at a multiple of 64, so that vector loads of a whole tensor are aligned.
pub(super) enum AlignedBytes {
    /// In lines of 64 bytes, of which there may be more than it takes.
    Lines { lines: Vec<Line>, length: usize },
    /// In pages of their own, which the system gives zeroed.
    Pages(Block),
    /// In pages that others share.
    Shared(Room),
}

/// Tensors from this size on have pages of their own.
const OWN_PAGES: usize = 1 << 20;

impl AlignedBytes {
    /// Zeros; `None` when there is no memory for them.
    pub(super) fn zeros(length: usize) -> Option<Self> {
        if length >= OWN_PAGES {
            return Block::new(length as u64).ok().map(AlignedBytes::Pages);
        }
        let mut lines = Vec::new();
        lines.try_reserve_exact(length.div_ceil(64)).ok()?;
        lines.resize(length.div_ceil(64), Line([0; 64]));
        Some(AlignedBytes::Lines { lines, length })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            AlignedBytes::Lines { lines, length } => &bytemuck::must_cast_slice(lines)[..*length],
            AlignedBytes::Pages(block) => block.bytes(),
            AlignedBytes::Shared(room) => room.bytes(),
        }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            AlignedBytes::Lines { lines, length } => &mut bytemuck::must_cast_slice_mut(lines)[..*length],
            AlignedBytes::Pages(block) => {
                let length = block.bytes().len() as u64;
                block.bytes_mut(0, length)
            }
            AlignedBytes::Shared(room) => room.bytes_mut(),
        }
    }

    /// A copy of some bytes.
    ///
    /// # Panics
    /// When there is no memory for it, as everywhere in Rust where a value is cloned.
    pub(super) fn copy(bytes: &[u8]) -> Self {
        let mut copy = Self::zeros(bytes.len()).expect("memory for a copy of a tensor");
        copy.bytes_mut().copy_from_slice(bytes);
        copy
    }
}

impl Clone for AlignedBytes {
    fn clone(&self) -> Self {
        Self::copy(self.bytes())
    }
}

#[derive(Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(64))]
pub(super) struct Line([u8; 64]);
