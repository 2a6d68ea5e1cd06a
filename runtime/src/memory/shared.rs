//! Large pages that tensors which stay share: most weights are smaller than a huge page, and a model has many of them.

use super::{
    LINE,
    huge::{self, HUGE_PAGE},
};
use memmap2::{MmapMut, MmapRaw};
use std::{
    ops::Range,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// The bytes that are asked of the system at once. They take memory as they are written.
const CHUNK: usize = 32 << 20;

/// Longer rooms would leave too much of a chunk empty.
pub(crate) const LONGEST: usize = CHUNK / 4;

/// Where rooms of this process are given out.
static OPEN: Mutex<Open> = Mutex::new(Open { chunk: Weak::new(), taken: 0, asked: 0 });

/// The chunk that rooms are given out of, which lives as long as one of them.
struct Open {
    chunk: Weak<MmapRaw>,
    /// How much of it is taken.
    taken: usize,
    /// How much of it huge pages were asked for.
    asked: usize,
}

/// Zeroed bytes in a chunk with others, aligned to [`LINE`]. A chunk goes back to the system with the last room in it.
#[derive(Debug)]
pub(crate) struct Room {
    chunk: Arc<MmapRaw>,
    start: usize,
    length: usize,
}

impl Room {
    /// A room of `length` bytes, all zero; `None` where it is longer than [`LONGEST`] or the system has no memory for it.
    pub(crate) fn new(length: usize) -> Option<Room> {
        OPEN.lock().unwrap_or_else(PoisonError::into_inner).room(length)
    }

    /// The addresses of the huge pages that these bytes lie in, with others of the chunk.
    pub(crate) fn pages(&self) -> Range<usize> {
        let (page, range) = (HUGE_PAGE as usize, self.bytes().as_ptr_range());
        range.start.expose_provenance() / page * page..range.end.addr().next_multiple_of(page)
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the range lies in the chunk, which lives as long as this room, and in no other room: every room begins
        // behind the one before. Its bytes are written through this room alone, which is borrowed.
        unsafe { std::slice::from_raw_parts(self.chunk.as_ptr().add(self.start), self.length) }
    }

    /// The bytes, writable.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `bytes`; this room is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.chunk.as_mut_ptr().add(self.start), self.length) }
    }
}

impl Open {
    fn room(&mut self, length: usize) -> Option<Room> {
        if length > LONGEST {
            return None;
        }
        let chunk = match self.chunk.upgrade().filter(|_| self.taken + length <= CHUNK) {
            Some(chunk) => chunk,
            None => {
                let new = Arc::new(chunk().ok()?);
                // The first page stays in small ones: small models need no more.
                *self = Open { chunk: Arc::downgrade(&new), taken: 0, asked: HUGE_PAGE as usize };
                new
            }
        };
        // The chunk begins at a page; its first huge page begins where one can.
        let first = (chunk.as_ptr() as usize).next_multiple_of(HUGE_PAGE as usize) - chunk.as_ptr() as usize;
        let start = first + self.taken;
        self.taken = (self.taken + length).next_multiple_of(LINE as usize);
        while self.taken > self.asked {
            let end = CHUNK.min(self.asked + huge::PART);
            let pages = chunk.as_ptr().expose_provenance() + first;
            // SAFETY: the chunk holds `CHUNK` bytes from its first huge page on, and no room was given out behind the taken part.
            unsafe { huge::take(pages + self.asked..pages + end) };
            self.asked = end;
        }
        Some(Room { chunk, start, length })
    }
}

fn chunk() -> std::io::Result<MmapRaw> {
    Ok(MmapMut::map_anon(CHUNK + HUGE_PAGE as usize)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_are_zero_aligned_and_apart() {
        let lengths = [1, 64, 100, 4096, 1 << 20, LONGEST, LONGEST, LONGEST, LONGEST, 7];
        let mut rooms: Vec<Room> = lengths.iter().map(|length| Room::new(*length).unwrap()).collect();
        for (number, room) in rooms.iter_mut().enumerate() {
            assert_eq!(room.bytes().as_ptr() as u64 % LINE, 0);
            assert!(room.bytes().iter().all(|byte| *byte == 0));
            room.bytes_mut().fill(number as u8 + 1);
        }
        for (number, room) in rooms.iter().enumerate() {
            assert_eq!(room.bytes().len(), lengths[number]);
            assert!(room.bytes().iter().all(|byte| *byte == number as u8 + 1));
        }
    }

    #[test]
    fn a_chunk_goes_back_with_its_last_room() {
        let mut open = Open { chunk: Weak::new(), taken: 0, asked: 0 };
        let mut first = open.room(100).unwrap();
        let second = open.room(100).unwrap();
        first.bytes_mut().fill(1);
        drop(first);
        assert!(open.chunk.upgrade().is_some(), "the second is there");
        drop(second);
        assert!(open.chunk.upgrade().is_none());
        assert_eq!(open.room(100).unwrap().bytes(), [0; 100]);
    }

    #[test]
    fn long_rooms_are_refused() {
        assert!(Room::new(LONGEST + 1).is_none());
    }
}
