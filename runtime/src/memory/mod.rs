//! Blocks of pages from the system: one for a session's arena, states and scratch, and one for every large tensor; tensors
//! that stay share theirs ([`shared`]). What is used for long is gathered into huge pages ([`huge`]).
//!
//! Kernels get addresses, not slices: which bytes a kernel touches is decided by the program, and two of its buffers may
//! take turns at the same bytes ([`arrange`] says where they lie).

pub(crate) mod arrange;
pub(crate) mod huge;
pub(crate) mod shared;

use huge::HUGE_PAGE;
use memmap2::MmapMut;
use std::ops::Range;

/// The alignment of everything that is placed: a cache line, and the widest vector.
pub(crate) const LINE: u64 = 64;

/// A block of zeroed pages, aligned to [`LINE`] (to [huge pages](huge) when it is large).
#[derive(Debug)]
pub(crate) struct Block {
    pages: MmapMut,
    /// Where the aligned part starts.
    start: usize,
    length: usize,
}

impl Block {
    /// A block of `length` bytes, zero. Pages take memory once they are written.
    ///
    /// # Errors
    /// The system has no room for it.
    pub(crate) fn new(length: u64) -> std::io::Result<Block> {
        let block = Block::mapped(length)?;
        // SAFETY: the pages were mapped just now, and nobody else knows of them.
        unsafe { huge::take(block.huge_pages()) };
        Ok(block)
    }

    /// The same for what is used for long and by nobody who waits: in huge pages, however long these take to come.
    ///
    /// # Errors
    /// As for [`Block::new`].
    pub(crate) fn lasting(length: u64) -> std::io::Result<Block> {
        let block = Block::mapped(length)?;
        huge::want(block.huge_pages());
        Ok(block)
    }

    fn mapped(length: u64) -> std::io::Result<Block> {
        let too_large = || std::io::Error::from(std::io::ErrorKind::OutOfMemory);
        let alignment = if length >= HUGE_PAGE { HUGE_PAGE } else { LINE };
        let whole = length.max(1).checked_add(alignment).ok_or_else(too_large)?;
        let pages = MmapMut::map_anon(usize::try_from(whole).map_err(|_| too_large())?)?;
        let start = pages.as_ptr().align_offset(alignment as usize);
        Ok(Block { pages, start, length: length as usize })
    }

    /// The addresses of the huge pages in it. The end that does not fill one stays in small ones, which take no more memory than
    /// is used.
    fn huge_pages(&self) -> Range<usize> {
        let start = self.addresses().start;
        start..start + self.length / HUGE_PAGE as usize * HUGE_PAGE as usize
    }

    /// The address of a byte, for kernels. It stays valid as long as the block lives.
    ///
    /// # Panics
    /// An offset outside the block.
    pub(crate) fn address(&mut self, offset: u64) -> u64 {
        assert!(offset <= self.length as u64, "an offset of {offset} in a block of {} bytes", self.length);
        let start = self.pages.as_mut_ptr().wrapping_add(self.start);
        start.wrapping_add(offset as usize).expose_provenance() as u64
    }

    /// The addresses of all bytes.
    pub(crate) fn addresses(&self) -> Range<usize> {
        let range = self.bytes().as_ptr_range();
        range.start.expose_provenance()..range.end.addr()
    }

    /// All bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.pages[self.start..][..self.length]
    }

    /// Some of the bytes.
    ///
    /// # Panics
    /// A range outside the block.
    pub(crate) fn bytes_mut(&mut self, offset: u64, length: u64) -> &mut [u8] {
        &mut self.pages[self.start..][..self.length][offset as usize..][..length as usize]
    }
}

/// `bytes` rounded up to whole [`LINE`]s; `None` beyond 64 bits.
pub(crate) fn whole_lines(bytes: u64) -> Option<u64> {
    bytes.checked_next_multiple_of(LINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_zero_and_aligned() {
        for length in [0, 1, 100, 4096, 3 << 20] {
            let mut block = Block::new(length).unwrap();
            assert_eq!(block.address(0) % LINE, 0);
            assert!(length < HUGE_PAGE || block.address(0).is_multiple_of(HUGE_PAGE));
            assert!(block.bytes_mut(0, length).iter().all(|byte| *byte == 0));
            let end = block.address(length);
            assert_eq!(end - block.address(0), length);
        }
    }

    #[test]
    fn impossible_blocks_are_refused() {
        assert!(Block::new(u64::MAX).is_err());
        assert!(Block::new(u64::MAX / 2).is_err());
    }
}
