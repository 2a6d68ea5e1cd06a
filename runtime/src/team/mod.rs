//! The thread team: one program, executed by several threads at the same time.
//!
//! A [`Team`] keeps its threads parked. [`Team::run`] wakes them once, and all of them, the caller included, execute
//! the same closure, told apart by their [`Worker`]. The closure walks the steps of a program: the tiles of a step are
//! divided with [`Worker::share`], steps are kept apart with [`Worker::barrier`], and an error ends the run for all at
//! the same barrier through [`Worker::stop`].
//!
//! Invariants:
//! - **Nothing is allocated and no lock is taken** between the start and the end of a run that goes well. Locks guard
//!   only what a panic or a stop leaves behind.
//! - **Which worker executes a tile changes no bit of a result.** Nothing here hands a closure a time, a random number
//!   or an order of arrival, and every worker runs in the default floating-point mode.
//! - **`run` returns only after every worker has left the closure**, panics included; therefore the closure may borrow
//!   from the caller.
//! - **A run never waits for another run.** When the team is busy, the closure runs on its caller alone.
//! - **Threads are not pinned to CPUs**: the team shares the machine with the program that embeds it.

mod barrier;
#[cfg(any(test, target_os = "linux"))]
mod cgroup;
mod float_state;
mod grid;
mod size;
mod sleep;
mod stop;
mod word;
mod worker;

#[cfg(test)]
mod tests;

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use barrier::{Barrier, Padded};
use float_state::DefaultFloatState;
use grid::GridCursor;
use word::{Patience, Word};
use worker::Released;

pub use size::default_size;
pub use stop::{Stop, Stopped};
pub use worker::Worker;

/// The closure of a run.
type Task<'run> = dyn Fn(&Worker) + Sync + 'run;

/// What a panic leaves behind.
type Payload = Box<dyn Any + Send>;

/// What a run is, for the threads that are woken for it. It lives on the stack of the caller of the run.
struct Job<'run> {
    task: &'run Task<'run>,
    workers: usize,
}

/// What panics and stops leave behind, until the caller of the run takes it.
#[derive(Default)]
struct Troubles {
    stop: Option<Stop>,
    /// The panic of the worker with the lowest index, among those that panicked.
    panic: Option<(usize, Payload)>,
}

/// What the threads of a team share.
struct Shared {
    patience: Patience,
    busy: AtomicBool,
    /// The job of the run that `starts` announced last; null asks the threads to end.
    job: AtomicPtr<Job<'static>>,
    starts: Padded<Word>,
    barrier: Barrier,
    cursor: GridCursor,
    troubles: Mutex<Troubles>,
}

/// A team of threads; see the [module](self).
///
/// A team is meant to be shared: programs, sessions and threads may call [`run`](Team::run) on the same one at any
/// time.
pub struct Team {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Team {
    /// No team is larger than this.
    pub const MAX_SIZE: usize = 1024;

    /// A team of `requested` workers, or of one for each CPU that this thread may run on; in either case no more than
    /// the CPU quota of the process's control group pays for, rounded up, and at least one. The team is smaller where
    /// the system refuses threads; [`size`](Team::size) tells.
    ///
    /// Workers that wait spin for some 30 microseconds, then offer their CPU to others for 20 milliseconds, before they
    /// sleep; in a team larger than [`default_size`] they sleep at once.
    pub fn new(requested: Option<usize>) -> Team {
        let usable = default_size();
        let size = match requested {
            None => usable,
            Some(requested) => requested.min(size::quota().unwrap_or(usize::MAX)),
        };
        Team::with_size(size.clamp(1, Team::MAX_SIZE), usable)
    }

    /// A team of `size` workers on a machine of `usable` CPUs.
    fn with_size(size: usize, usable: usize) -> Team {
        let shared = Arc::new(Shared {
            patience: if size > usable { Patience::NONE } else { Patience::SPINNING },
            busy: AtomicBool::new(false),
            job: AtomicPtr::new(ptr::null_mut()),
            starts: Padded::default(),
            barrier: Barrier::default(),
            cursor: GridCursor::new(size),
            troubles: Mutex::default(),
        });
        let spawn = |index| {
            let shared = Arc::clone(&shared);
            Builder::new().name(format!("strang-{index}")).spawn(move || shared.attend(index))
        };
        let threads = (1..size).map_while(|index| spawn(index).ok()).collect();
        Team { shared, threads }
    }

    /// The number of workers of a run, the caller included.
    pub fn size(&self) -> usize {
        self.threads.len() + 1
    }

    /// Executes `task` on all workers of the team at the same time, this thread being worker 0, and returns when all
    /// have left it.
    ///
    /// When the team is busy (with a run of another thread, or with the very run that this is called from), `task` is
    /// executed on this thread alone, as the only worker. It never waits for the other run.
    ///
    /// # Errors
    /// The [`Stop`] of the lowest step and tile, if a worker published one.
    ///
    /// # Panics
    /// Goes on with the panic of a worker (the one of the lowest index, if several panic) once all workers have left
    /// `task`; and panics if some workers end while others wait for them at a barrier. The team stays usable in both
    /// cases.
    pub fn run(&self, task: impl Fn(&Worker) + Sync) -> Result<(), Stop> {
        if self.threads.is_empty() || self.shared.busy.swap(true, Ordering::Acquire) {
            return run_alone(&task);
        }
        let outcome = self.run_together(&task);
        self.shared.busy.store(false, Ordering::Release);
        match outcome {
            Ok(stop) => stop.map_or(Ok(()), Err),
            Err(payload) => resume_unwind(payload),
        }
    }

    /// A run of the whole team, by the thread that made it busy.
    fn run_together(&self, task: &Task) -> Result<Option<Stop>, Payload> {
        let shared = &*self.shared;
        let workers = self.size();
        let runs = shared.barrier.runs();
        shared.cursor.reset();
        let job = Job { task, workers };
        shared.job.store(ptr::from_ref(&job).cast_mut().cast(), Ordering::Relaxed);
        shared.starts.0.publish(shared.starts.0.load().wrapping_add(1));
        shared.perform(0, workers, task);
        shared.barrier.finish(workers as u32);
        let ending = shared.barrier.close(runs, shared.patience);
        if !ending.stopped && !ending.broken {
            return Ok(None);
        }
        let troubles = std::mem::take(&mut *shared.troubles());
        match troubles.panic {
            Some((_, payload)) => Err(payload),
            None if ending.uneven => {
                Err(Box::new("some workers of a team ended while others waited for them at a barrier"))
            }
            None => Ok(troubles.stop),
        }
    }
}

/// A run without a team.
fn run_alone(task: &Task) -> Result<(), Stop> {
    let worker = Worker::alone();
    let _state = DefaultFloatState::enter();
    task(&worker);
    worker.stopped().map_or(Ok(()), Err)
}

impl Shared {
    /// What a thread of the team does all its life.
    fn attend(&self, index: usize) {
        let mut seen = 0;
        loop {
            seen = self.starts.0.wait_past(seen, self.patience);
            let job = self.job.load(Ordering::Relaxed);
            if job.is_null() {
                return;
            }
            // SAFETY: `run_together` wrote the job before it announced this start, and keeps it on its stack,
            // untouched, until all workers have called `finish`; this one reads it before. The lifetime is stretched no
            // further than this block: `perform` returns before `finish`, and keeps nothing of the task.
            let workers = unsafe {
                let Job { task, workers } = *job;
                self.perform(index, workers, task);
                workers
            };
            self.barrier.finish(workers as u32);
        }
    }

    /// Executes the task as one of the workers, and keeps what goes wrong. Does not unwind.
    fn perform(&self, index: usize, workers: usize, task: &Task) {
        let worker = Worker::of_team(self, index, workers);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let _state = DefaultFloatState::enter();
            task(&worker);
        }));
        if let Some(stop) = worker.stopped() {
            let mut troubles = self.troubles();
            troubles.stop = Some(Stop::first(stop, troubles.stop));
        }
        if let Err(payload) = outcome {
            self.keep_panic(index, payload);
            self.barrier.break_up();
        }
    }

    fn keep_panic(&self, index: usize, payload: Payload) {
        if payload.is::<Released>() {
            return;
        }
        let mut troubles = self.troubles();
        let lost = match &troubles.panic {
            Some((first, _)) if *first < index => Some(payload),
            _ => troubles.panic.replace((index, payload)).map(|(_, payload)| payload),
        };
        drop(troubles);
        // A payload may panic as it is dropped; what that leaves is not worth another attempt.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(lost))) {
            std::mem::forget(payload);
        }
    }

    fn troubles(&self) -> MutexGuard<'_, Troubles> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Team {
    /// Ends the threads and waits for them. No run is in progress: it would borrow the team.
    fn drop(&mut self) {
        self.shared.job.store(ptr::null_mut(), Ordering::Relaxed);
        self.shared.starts.0.publish(self.shared.starts.0.load().wrapping_add(1));
        for thread in self.threads.drain(..) {
            // A thread of the team catches every panic, so there is no outcome to look at.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Team {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Team").field("size", &self.size()).finish_non_exhaustive()
    }
}

// A panic of a run leaves the team as it was before the run.
impl UnwindSafe for Team {}
impl RefUnwindSafe for Team {}
