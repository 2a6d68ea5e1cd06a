//! A worker, as the closure of a run sees it.

use std::cell::Cell;
use std::panic::resume_unwind;

use super::Shared;
use super::barrier::Phase;
use super::grid::Grid;
use super::stop::{Stop, Stopped};

/// The payload by which a worker leaves a run that another one broke; no panic message is printed for it.
pub(super) struct Released;

/// One of the workers that execute the closure of a run at the same time.
///
/// All workers of a run have to call [`barrier`](Worker::barrier) and [`share`](Worker::share) in the same order,
/// `share` with the same arguments: they walk the same program. A worker is of use only to the thread that it was
/// handed to.
pub struct Worker<'team> {
    index: usize,
    count: usize,
    /// The team; none when the closure runs on its caller alone.
    team: Option<&'team Shared>,
    phase: Cell<Phase>,
    turn: Cell<u32>,
    stop: Cell<Option<Stop>>,
}

impl<'team> Worker<'team> {
    /// The only worker of a run.
    pub(super) fn alone() -> Worker<'team> {
        Worker { index: 0, count: 1, team: None, phase: Cell::default(), turn: Cell::default(), stop: Cell::default() }
    }

    /// A worker of a run of the whole team that has just started.
    pub(super) fn of_team(team: &'team Shared, index: usize, count: usize) -> Worker<'team> {
        Worker { index, count, team: Some(team), phase: Cell::new(team.barrier.first_phase()), ..Worker::alone() }
    }

    /// The position of this worker among those of the run, below [`count`](Worker::count). Worker 0 is the thread that
    /// called `run`.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The number of workers of this run: the size of the team, or 1 when the team was busy.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Waits for all workers of the run. What any of them wrote before is visible to all of them after.
    ///
    /// When another worker panicked, this does not return: it unwinds the closure, and the panic goes on in the caller
    /// of the run.
    ///
    /// # Errors
    /// [`Stopped`] once a worker called [`stop`](Worker::stop) before it came here. All workers learn it at the same
    /// barrier, and are to return; one that does not still meets the others at every later barrier, and is told again.
    pub fn barrier(&self) -> Result<(), Stopped> {
        let stops = match self.team {
            None => self.stop.get().is_some(),
            Some(team) => match team.barrier.meet(self.phase.get(), self.count as u32, team.patience) {
                Ok(phase) => {
                    self.phase.set(phase);
                    phase.stops()
                }
                Err(_) => resume_unwind(Box::new(Released)),
            },
        };
        if stops { Err(Stopped) } else { Ok(()) }
    }

    /// Executes a grid of `total` tiles together with the other workers: calls `body(lo, hi)` for chunks of `grain`
    /// tiles (the last may be shorter; a `grain` of 0 counts as 1) until no chunk is left to take. Over all workers,
    /// every tile is in exactly one call.
    ///
    /// Chunks start at multiples of `grain`, whoever executes them and however many workers there are. When this
    /// returns, others may still be at their last chunk: call [`barrier`](Worker::barrier) before using what the grid
    /// wrote. Grids that are independent of each other need no barrier between them.
    pub fn share(&self, total: u64, grain: u64, body: impl FnMut(u64, u64)) {
        let grid = Grid::new(total, grain, self.count);
        match self.team {
            None => grid.for_each(body),
            Some(team) => {
                let turn = self.turn.get().wrapping_add(1);
                self.turn.set(turn);
                team.cursor.share(&grid, self.index, turn, body);
            }
        }
    }

    /// Publishes that the run is to end, with the status that it reports. It goes on until the next
    /// [`barrier`](Worker::barrier), where all workers learn of it; of several stops, the run reports the one of the
    /// lowest step, tile and status.
    ///
    /// A run is cancelled from outside by a flag of the embedder's that one worker looks at in every step, and answers
    /// with this.
    pub fn stop(&self, stop: Stop) {
        self.stop.set(Some(Stop::first(stop, self.stop.get())));
        if let Some(team) = self.team {
            team.barrier.request_stop();
        }
    }

    /// The stop that this worker published, if any.
    pub(super) fn stopped(&self) -> Option<Stop> {
        self.stop.get()
    }
}
