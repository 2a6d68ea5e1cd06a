//! The walk over the steps of a program, which every worker of the team does at the same time.
//!
//! Workers share out the tiles of a kernel and meet at a barrier after it. Neighbouring steps that worker 0 runs alone
//! have no barrier between them, so that a loop over small steps costs the team one wait and not thousands. A condition is
//! read by all workers between two barriers, so all take the same way.

use crate::{
    Tensor,
    custom::{Operands, Results},
    program::{Context, status},
    session::{
        bind::{Bound, BoundFill},
        effort::Mode,
        plan::{Action, Node, Plan},
        sizes::SizeId,
    },
    team::{Stop, Stopped, Worker},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

/// The status of a run that the embedder cancelled; kernels do not return it.
pub(crate) const CANCELLED: u32 = u32::MAX;

/// Chunks for each worker that a grid is cut into, at most: enough to even out, few enough to stay cheap.
const CHUNKS: u64 = 8;

/// Everything that the workers of a run share.
#[derive(Clone, Copy)]
pub(crate) struct Run<'run> {
    pub(crate) plan: &'run Plan,
    pub(crate) bound: &'run Bound,
    /// The address of worker 0's scratch, and the distance to the next worker's.
    pub(crate) scratch: u64,
    pub(crate) scratch_stride: u64,
    /// Set by the embedder to end the run.
    pub(crate) cancel: Option<&'run AtomicBool>,
    /// What a custom operation said when it failed.
    pub(crate) failure: &'run Mutex<Option<String>>,
    /// Where times are kept, when they are: one for each step, and one for all fills.
    pub(crate) times: Option<&'run [StepTime]>,
    /// The address of the room where weights are packed in this run, unless they are kept.
    pub(crate) room: Option<u64>,
}

/// The time that a step took, over all of its executions in a run.
#[derive(Debug, Default)]
pub(crate) struct StepTime {
    pub(crate) nanoseconds: AtomicU64,
    pub(crate) calls: AtomicU64,
}

impl Run<'_> {
    /// Walks all steps as one of the workers.
    ///
    /// # Safety
    /// All words of the bound program are what its plan says, those of inputs and outputs included, all memory that they
    /// refer to is there for the duration, and no other run uses the outputs, the arena, the states or the scratch.
    pub(crate) unsafe fn walk(&self, worker: &Worker) {
        let scratch = self.scratch + self.scratch_stride * worker.index() as u64;
        let context = Context {
            kernels: std::ptr::from_ref(self.plan.table).cast(),
            counters: [0; 4],
            worker: worker.index() as u64,
        };
        let scratch = std::ptr::with_exposed_provenance_mut(scratch as usize);
        let mut walker = Walker { run: *self, worker, context, scratch, depth: 0, solo: false };
        // A stop was published by whoever met it; the caller of the run gets it from the team.
        let _ = match self.room {
            Some(room) => walker.packing(room),
            None => walker.list(&self.plan.body),
        };
    }
}

struct Walker<'run, 'worker> {
    run: Run<'run>,
    worker: &'worker Worker<'worker>,
    context: Context,
    scratch: *mut u8,
    /// The number of enclosing `Repeat`s.
    depth: usize,
    /// Whether this is worker 0 in steps that it runs alone.
    solo: bool,
}

impl<'run> Walker<'run, '_> {
    fn mode(&self, node: &Node) -> Mode {
        self.run.bound.modes[node.id as usize]
    }

    fn is_first(&self) -> bool {
        self.worker.index() == 0
    }

    /// All steps, each after weights that it is the first to read were packed in a room: by worker 0, with as many threads as
    /// packing takes.
    fn packing(&mut self, room: u64) -> Result<(), Stopped> {
        let plan = self.run.plan;
        let mut before = Tensor::scalar(0u8);
        for (step, node) in (0u32..).zip(&plan.body) {
            if plan.late.is_first(step) {
                if self.is_first() {
                    // SAFETY: the session made the room for these weights; the steps before have met at a barrier, so weights
                    // that lie there and are not needed any more are not read.
                    unsafe { plan.late.make(step, room, &mut before) };
                }
                self.worker.barrier()?;
            }
            self.list(std::slice::from_ref(node))?;
        }
        Ok(())
    }

    fn list(&mut self, nodes: &'run [Node]) -> Result<(), Stopped> {
        let mut rest = nodes;
        while let Some((node, after)) = rest.split_first() {
            match self.mode(node) {
                Mode::Idle => rest = after,
                Mode::Shared => {
                    self.node(node)?;
                    rest = after;
                }
                Mode::Solo if self.solo => {
                    self.node(node)?;
                    rest = after;
                }
                Mode::Solo => {
                    let shared = rest.iter().position(|node| self.mode(node) == Mode::Shared);
                    let (group, after) = rest.split_at(shared.unwrap_or(rest.len()));
                    if self.is_first() {
                        self.solo = true;
                        // What stopped it was published, and everyone learns of it at the barrier.
                        let _ = self.list(group);
                        self.solo = false;
                    }
                    self.worker.barrier()?;
                    rest = after;
                }
            }
        }
        Ok(())
    }

    fn node(&mut self, node: &'run Node) -> Result<(), Stopped> {
        match &node.action {
            Action::Kernel(index) => self.kernel(*index),
            Action::Custom(index) => self.custom(*index),
            Action::Fill(begin, end) => self.fill(&self.run.bound.fills[*begin as usize..*end as usize]),
            Action::Repeat { count, condition, body } => self.repeat(*count, *condition, body),
            Action::If { condition, then, otherwise } => {
                let chosen = if self.condition(*condition)? { then } else { otherwise };
                self.list(chosen)
            }
        }
    }

    fn repeat(&mut self, count: SizeId, condition: Option<u32>, body: &'run [Node]) -> Result<(), Stopped> {
        let depth = self.depth;
        self.depth += 1;
        for iteration in 0..self.run.bound.values.get(count) {
            if let Some(condition) = condition
                && !self.condition(condition)?
            {
                break;
            }
            self.context.counters[depth] = iteration as u64;
            self.list(body)?;
        }
        self.context.counters[depth] = 0;
        self.depth = depth;
        Ok(())
    }

    /// Reads a condition. Others may still have to read it when this worker is through with it, and the next step may
    /// write it: hence the barrier.
    fn condition(&self, word: u32) -> Result<bool, Stopped> {
        let address = std::ptr::with_exposed_provenance::<u8>(self.run.bound.words[word as usize] as usize);
        // SAFETY: binding checked that the byte lies in its buffer; every write of it was before the last barrier.
        let value = unsafe { address.read() } != 0;
        if !self.solo {
            self.worker.barrier()?;
        }
        Ok(value)
    }

    fn kernel(&self, index: u32) -> Result<(), Stopped> {
        let start = self.start();
        let kernel = &self.run.plan.kernels[index as usize];
        let grid = self.run.bound.kernels[index as usize].grid;
        let words = &self.run.bound.words[kernel.words.start as usize..kernel.words.end as usize];
        let call = |lo, hi| {
            // SAFETY: the arguments are those of the plan, which was promised to fit the function, and `walk` was promised
            // the memory. The scratch is this worker's alone and as large as the largest kernel needs.
            unsafe { (kernel.function)(&self.context, words.as_ptr(), self.scratch, lo, hi) }
        };
        self.cancellation(kernel.step)?;
        if self.solo {
            let code = call(0, grid);
            self.stop_unless_ok(kernel.step, 0, code)?;
        } else {
            self.share(grid, |lo, hi| {
                // The first of several failures is reported, so the others are met as well.
                let _ = self.stop_unless_ok(kernel.step, lo, call(lo, hi));
            });
            self.worker.barrier()?;
        }
        self.finish(kernel.step, start);
        Ok(())
    }

    /// Shares out a grid of tiles in chunks of a size that suits the number of workers.
    fn share(&self, grid: u64, body: impl FnMut(u64, u64)) {
        let workers = self.worker.count() as u64;
        let grain = if workers == 1 { grid } else { grid.div_ceil(workers * CHUNKS) };
        self.worker.share(grid, grain, body);
    }

    /// Publishes a status that is not OK.
    fn stop_unless_ok(&self, step: u32, tile: u64, code: u32) -> Result<(), Stopped> {
        if code == status::OK {
            return Ok(());
        }
        self.worker.stop(Stop { step, tile, code });
        Err(Stopped)
    }

    /// Ends the run before a step when the embedder wants that. Worker 0 looks; the others follow at the next barrier.
    fn cancellation(&self, step: u32) -> Result<(), Stopped> {
        let cancelled = self.is_first() && self.run.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed));
        if cancelled {
            self.worker.stop(Stop { step, tile: 0, code: CANCELLED });
            if self.solo {
                return Err(Stopped);
            }
        }
        Ok(())
    }

    /// Runs a custom operation: always on worker 0 alone.
    fn custom(&self, index: u32) -> Result<(), Stopped> {
        let start = self.start();
        let custom = &self.run.plan.customs[index as usize];
        let bound = &self.run.bound.customs[index as usize];
        self.cancellation(custom.step)?;
        let call = || {
            let words = &self.run.bound.words;
            // SAFETY: binding checked that the arrays lie in their buffers and that results overlap nothing; the other
            // workers wait at a barrier.
            let (operands, results) =
                unsafe { (Operands::new(&bound.operands, words), Results::new(&bound.results, words)) };
            custom.operation.run(operands, results)
        };
        let outcome = catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|payload| {
            let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
            Err(format!("it panicked: {}", text.as_deref().unwrap_or("(no message)")))
        });
        if let Err(message) = outcome {
            *self.run.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(message);
            self.stop_unless_ok(custom.step, 0, status::CUSTOM_FAILED)?;
        }
        self.finish(custom.step, start);
        Ok(())
    }

    fn fill(&self, fills: &[BoundFill]) -> Result<(), Stopped> {
        let start = self.start();
        let clear = |fill: &BoundFill, tile: u64| {
            let word = self.run.bound.words[fill.word as usize];
            let address = std::ptr::with_exposed_provenance_mut::<u8>(word as usize);
            fill.each_piece(tile, |from, length| {
                // SAFETY: binding checked that the bytes lie in their buffer; nothing else touches them before the barrier.
                unsafe { address.add(from as usize).write_bytes(fill.byte, length as usize) }
            });
        };
        // Tiles of all fills, one after the other.
        let clear_tiles = |lo: u64, hi: u64| {
            let mut before = 0;
            for fill in fills {
                let tiles = fill.tiles();
                for tile in lo.max(before)..hi.min(before + tiles) {
                    clear(fill, tile - before);
                }
                before += tiles;
            }
        };
        let tiles = fills.iter().map(BoundFill::tiles).sum();
        if self.solo {
            clear_tiles(0, tiles);
        } else {
            self.share(tiles, clear_tiles);
            self.worker.barrier()?;
        }
        self.finish(self.run.plan.steps, start);
        Ok(())
    }

    /// The time at which a step starts, on worker 0 when times are kept.
    fn start(&self) -> Option<Instant> {
        (self.run.times.is_some() && self.is_first()).then(Instant::now)
    }

    fn finish(&self, step: u32, start: Option<Instant>) {
        if let (Some(times), Some(start)) = (self.run.times, start) {
            let time = &times[step as usize];
            time.nanoseconds.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
            time.calls.fetch_add(1, Ordering::Relaxed);
        }
    }
}
