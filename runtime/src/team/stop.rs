//! How a run ends early: the status that a worker publishes, and the sign by which the workers leave.

use thiserror::Error;

/// Why and where a run ended early: the status of the lowest tile of the lowest step that stopped it.
///
/// The order is that of the fields, so the least of several stops is the one a sequential execution meets first. Every
/// worker finishes the step in which a stop was published, and chunks are cut the same way whoever runs them; so
/// neither the number of workers nor their speed changes which stop is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
#[error("step {step} stopped the run with status {code} at tile {tile}")]
pub struct Stop {
    /// The position of the step in the program.
    pub step: u32,
    /// The tile of the step's grid; the first tile of a chunk when the status is that of a chunk.
    pub tile: u64,
    /// The status, as the step defines it.
    pub code: u32,
}

impl Stop {
    /// The one of two stops that a run reports.
    pub(super) fn first(stop: Stop, other: Option<Stop>) -> Stop {
        other.map_or(stop, |other| other.min(stop))
    }
}

/// What a barrier answers once a stop was published: every worker gets it at the same barrier and is to return.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the run was stopped")]
pub struct Stopped;
