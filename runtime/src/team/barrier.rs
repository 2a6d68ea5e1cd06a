//! Where the workers of a run meet: the barriers within it, and its end.
//!
//! One counter counts both kinds of arrival, at a barrier and at the end of the closure, so that the last to arrive
//! knows all cases apart: all met (go on), all finished (the run is over), or some of each, which can never resolve and
//! therefore breaks the run. The barrier is sense-reversing, with a phase number in place of the sense: the number that
//! releases the workers also carries the verdict whether to stop. No later barrier completes before every worker has
//! read it, so all read the same verdict.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::word::{Patience, Word};

/// Keeps a value away from its neighbours: two cache lines, since processors fetch lines in pairs.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Padded<T>(pub(super) T);

/// One arrival at a barrier, in the low half of the counter of arrivals.
const MET: u32 = 1;
/// One arrival at the end, above. Teams are far smaller than either part of the counter holds.
const FINISHED: u32 = 1 << 16;
/// Flag of the counter: a worker that met may leave the barrier and finish, and so be counted twice. What the counter
/// says of the others is known only together with this, hence not from the phase.
const ABANDONED: u32 = 1 << 31;

/// Flag of a phase: a stop was published before the barrier that began this phase.
const STOP: u32 = 1;
/// Flag of a phase: a worker will never arrive.
const BROKEN: u32 = 2;
/// The step from one phase to the next, above the flags.
const NEXT: u32 = 4;

/// A barrier at which a worker would wait forever, because another one panicked or finished.
pub(super) struct Broken;

/// A phase of a run, as its worker last saw it.
#[derive(Clone, Copy, Default)]
pub(super) struct Phase(u32);

impl Phase {
    /// Whether the workers are to leave.
    pub(super) fn stops(self) -> bool {
        self.0 & STOP != 0
    }
}

/// How a run ended, apart from well.
pub(super) struct Ending {
    /// A worker published a stop.
    pub(super) stopped: bool,
    /// A worker panicked, or the arrivals were uneven.
    pub(super) broken: bool,
    /// Some workers finished while others waited at a barrier.
    pub(super) uneven: bool,
}

/// The meeting point of a team.
#[derive(Default)]
pub(super) struct Barrier {
    arrivals: Padded<AtomicU32>,
    phase: Padded<Word>,
    runs: Padded<Word>,
    stopping: AtomicBool,
    uneven: AtomicBool,
}

impl Barrier {
    /// The phase in which a run starts; for a worker that has met nobody yet.
    pub(super) fn first_phase(&self) -> Phase {
        Phase(self.phase.0.load() & !(STOP | BROKEN))
    }

    /// Waits until all `count` workers have called this from the phase `seen`; returns the phase that begins.
    pub(super) fn meet(&self, seen: Phase, count: u32, patience: Patience) -> Result<Phase, Broken> {
        if self.phase.0.load() & BROKEN != 0 {
            return Err(Broken);
        }
        let arrivals = self.arrivals.0.fetch_add(MET, Ordering::AcqRel) + MET;
        if arrivals == count * MET {
            // Nobody arrives again before the phase changes, and whoever stops the run did so before arriving.
            self.arrivals.0.store(0, Ordering::Relaxed);
            let stop = if self.stopping.load(Ordering::Relaxed) { STOP } else { 0 };
            let phase = (seen.0 & !STOP).wrapping_add(NEXT) | stop;
            self.phase.0.publish(phase);
            return Ok(Phase(phase));
        }
        self.break_if_uneven(arrivals, count);
        let phase = self.phase.0.wait_past(seen.0, patience);
        if phase & BROKEN != 0 { Err(Broken) } else { Ok(Phase(phase)) }
    }

    /// Asks all workers to leave at the next barrier; called before arriving there.
    pub(super) fn request_stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Releases all who wait at a barrier, now and for the rest of the run. Called by a worker that arrives at no barrier
    /// any more, so no phase can begin at the same time; and either before it finishes or while others wait, so the
    /// run cannot end at the same time.
    pub(super) fn break_up(&self) {
        self.arrivals.0.fetch_or(ABANDONED, Ordering::AcqRel);
        self.phase.0.raise(BROKEN);
    }

    /// Says that a worker is through with the run. Of the run's data it touches nothing afterwards.
    pub(super) fn finish(&self, count: u32) {
        let arrivals = self.arrivals.0.fetch_add(FINISHED, Ordering::AcqRel) + FINISHED;
        if (arrivals & !ABANDONED) / FINISHED == count {
            self.arrivals.0.store(0, Ordering::Relaxed);
            self.runs.0.publish(self.runs.0.load().wrapping_add(1));
        } else {
            self.break_if_uneven(arrivals, count);
        }
    }

    /// The number of runs so far; for the caller of a run, before it starts.
    pub(super) fn runs(&self) -> u32 {
        self.runs.0.load()
    }

    /// Waits for the end of the run that started when `runs` answered `before`, and readies the barrier for the next
    /// one.
    pub(super) fn close(&self, before: u32, patience: Patience) -> Ending {
        self.runs.0.wait_past(before, patience);
        let phase = self.phase.0.load();
        let ending = Ending {
            stopped: self.stopping.load(Ordering::Relaxed),
            broken: phase & BROKEN != 0,
            uneven: self.uneven.load(Ordering::Relaxed),
        };
        if phase & (STOP | BROKEN) != 0 || ending.stopped {
            self.phase.0.publish(phase & !(STOP | BROKEN));
            self.stopping.store(false, Ordering::Relaxed);
            self.uneven.store(false, Ordering::Relaxed);
        }
        ending
    }

    /// Breaks the run if every worker has either met or finished. Where nobody is counted twice, the one worker that
    /// sees this is the last to arrive; those that met cannot finish, nor the run end, before it has released them.
    fn break_if_uneven(&self, arrivals: u32, count: u32) {
        let (finished, met) = (arrivals / FINISHED, arrivals % FINISHED);
        if arrivals & ABANDONED == 0 && finished > 0 && finished + met == count {
            self.uneven.store(true, Ordering::Relaxed);
            self.break_up();
        }
    }
}
