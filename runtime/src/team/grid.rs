//! Dividing the tiles of a step among the workers: a static slice for each, then what the others have left.
//!
//! The grid is cut into chunks of `grain` tiles, the same chunks whatever the number of workers, and every worker owns
//! a contiguous slice of the chunks. It takes chunks from the front of its own slice and then from the slices of the
//! others, so that a step which runs many times finds its data in the same caches, and a delayed worker still delays
//! nobody by more than one chunk.
//!
//! **Invariant: every worker of a run shares out the same sequence of grids.** A cursor holds, per slice, how many
//! chunks were taken and the number of the grid that this count belongs to (its turn), in one atomic number. A count of
//! an earlier turn reads as zero, so nothing is ever reset between grids; a worker goes on to the next turn only once
//! it found every slice of the last one empty, so a count of a later turn reads as "all taken". Hence a fast worker may
//! be any number of grids ahead of a slow one, with or without a barrier in between: every chunk is taken exactly once.
//! The barrier between two steps is needed for their data alone.

use std::sync::atomic::{AtomicU64, Ordering};

use super::barrier::Padded;

/// A grid of tiles cut into chunks, and the chunks into one slice for each worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    total: u64,
    grain: u64,
    chunks: u64,
    workers: u64,
}

impl Grid {
    /// A grid of `total` tiles in chunks of `grain` tiles (at least 1), for `workers` workers. Chunks grow where there
    /// would be more of them than 32 bits count.
    pub(super) fn new(total: u64, grain: u64, workers: usize) -> Grid {
        let grain = grain.max(1).max(total.div_ceil(u64::from(u32::MAX)));
        Grid { total, grain, chunks: total.div_ceil(grain), workers: workers as u64 }
    }

    /// Calls `body(lo, hi)` for every chunk, in order.
    pub(super) fn for_each(&self, mut body: impl FnMut(u64, u64)) {
        for chunk in 0..self.chunks {
            self.visit(chunk, &mut body);
        }
    }

    fn visit(&self, chunk: u64, body: &mut impl FnMut(u64, u64)) {
        let lo = chunk * self.grain;
        body(lo, lo.saturating_add(self.grain).min(self.total));
    }

    /// The first chunk of a worker's slice, and the number of its chunks.
    fn slice(&self, worker: u64) -> (u64, u32) {
        let (share, longer) = (self.chunks / self.workers, self.chunks % self.workers);
        let length = share + u64::from(worker < longer);
        // `new` keeps the number of chunks below 2^32.
        (worker * share + worker.min(longer), length as u32)
    }
}

/// How far the grids of a run have been taken: one count for each worker's slice.
pub(super) struct GridCursor {
    slices: Box<[Padded<AtomicU64>]>,
}

impl GridCursor {
    /// A cursor for grids of at most `workers` workers.
    pub(super) fn new(workers: usize) -> GridCursor {
        GridCursor { slices: (0..workers).map(|_| Padded::default()).collect() }
    }

    /// Readies the cursor for a run, whose turns count from 1; called while no worker uses it.
    pub(super) fn reset(&self) {
        for slice in &self.slices {
            slice.0.store(0, Ordering::Relaxed);
        }
    }

    /// Takes and visits chunks, as `worker`, until none of this turn is left to take.
    pub(super) fn share(&self, grid: &Grid, worker: usize, turn: u32, mut body: impl FnMut(u64, u64)) {
        let own = worker as u64;
        for owner in (own..grid.workers).chain(0..own) {
            let (first, length) = grid.slice(owner);
            while let Some(taken) = take(&self.slices[owner as usize].0, turn, length) {
                grid.visit(first + u64::from(taken), &mut body);
            }
        }
    }
}

/// Takes the next chunk of a slice: its position there, or none once all `length` are taken. The order of memory
/// accesses does not matter here: which chunks are taken is told by this number alone, and what chunks write becomes
/// visible at a barrier.
fn take(slice: &AtomicU64, turn: u32, length: u32) -> Option<u32> {
    let mut seen = slice.load(Ordering::Relaxed);
    loop {
        let (seen_turn, count) = ((seen >> 32) as u32, seen as u32);
        // Turns are compared on a circle: a run may share out more than 2^32 grids.
        let taken = match turn.wrapping_sub(seen_turn) {
            0 => count,
            ahead if ahead < 1 << 31 => 0,
            _ => return None,
        };
        if taken >= length {
            return None;
        }
        let next = u64::from(turn) << 32 | u64::from(taken + 1);
        match slice.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Some(taken),
            Err(now) => seen = now,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The chunks that workers take who share a grid one after the other.
    fn chunks(cursor: &GridCursor, turn: u32, total: u64, grain: u64, workers: usize) -> Vec<Vec<(u64, u64)>> {
        let grid = Grid::new(total, grain, workers);
        let take_all = |worker| {
            let mut taken = Vec::new();
            cursor.share(&grid, worker, turn, |lo, hi| taken.push((lo, hi)));
            taken
        };
        (0..workers).map(take_all).collect()
    }

    proptest! {
        #[test]
        fn slices_cover_the_chunks_evenly_and_in_order(
            total in 0u64..100_000,
            grain in 0u64..300,
            workers in 1usize..70,
        ) {
            let grid = Grid::new(total, grain, workers);
            let mut next = 0;
            for worker in 0..workers as u64 {
                let (first, length) = grid.slice(worker);
                prop_assert_eq!(first, next);
                prop_assert!(u64::from(length).abs_diff(grid.chunks / workers as u64) <= 1);
                next += u64::from(length);
            }
            prop_assert_eq!(next, grid.chunks);
        }

        #[test]
        fn chunks_do_not_depend_on_the_number_of_workers(
            total in 0u64..5_000,
            grain in 1u64..90,
            workers in 1usize..9,
        ) {
            let mut alone = Vec::new();
            Grid::new(total, grain, 1).for_each(|lo, hi| alone.push((lo, hi)));
            let mut together = chunks(&GridCursor::new(workers), 1, total, grain, workers).concat();
            together.sort_unstable();
            prop_assert_eq!(&together, &alone);
            prop_assert!(alone.iter().all(|&(lo, hi)| lo < hi && hi - lo <= grain && hi <= total));
        }
    }

    #[test]
    fn a_worker_starts_with_its_own_slice() {
        let cursor = GridCursor::new(3);
        let grid = Grid::new(30, 2, 3);
        let mut order = Vec::new();
        cursor.share(&grid, 1, 1, |lo, _| order.push(lo));
        let expected: Vec<u64> = (5..15).chain(0..5).map(|chunk| chunk * 2).collect();
        assert_eq!(order, expected);
    }

    #[test]
    fn a_late_worker_finds_an_earlier_turn_taken() {
        let cursor = GridCursor::new(2);
        let everything = |turn| {
            let mut count = 0;
            cursor.share(&Grid::new(10, 1, 2), 0, turn, |_, _| count += 1);
            count
        };
        assert_eq!(everything(1), 10);
        assert_eq!(everything(2), 10);
        assert_eq!(everything(1), 0);
        cursor.reset();
        assert_eq!(everything(1), 10);
    }

    #[test]
    fn turns_wrap_around() {
        let cursor = GridCursor::new(2);
        for turn in [1 << 30, 2 << 30, 3 << 30, u32::MAX, 0, 1] {
            assert_eq!(chunks(&cursor, turn, 7, 2, 2).concat().len(), 4, "turn {turn}");
        }
    }

    #[test]
    fn huge_grids_get_coarser_chunks() {
        let grid = Grid::new(u64::MAX, 1, 4);
        assert!(grid.chunks <= u64::from(u32::MAX));
        let (first, length) = grid.slice(3);
        let mut last = (0, 0);
        grid.visit(first + u64::from(length) - 1, &mut |lo, hi| last = (lo, hi));
        assert!(last.0 < last.1);
        assert_eq!(last.1, u64::MAX);
    }
}
