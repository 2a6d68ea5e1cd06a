//! Running a compiled program: an [`Executable`] is a program that is loaded, a [`Session`] one that has its sizes and its
//! memory.
//!
//! ```text
//! Program --load--> Executable --bind (sizes)--> Session --run (tensors)--> tensors
//! ```
//!
//! Loading checks every reference of the program and makes its code executable; binding evaluates its sizes, places its
//! buffers and computes the arguments of every step; running patches the addresses of inputs and outputs in and walks the
//! steps. Invariants:
//! - **A run allocates nothing, takes no lock and formats nothing**, unless it fails or a tensor has to be copied: an input
//!   whose bytes are mapped at an odd address, an output whose bytes are shared. The first run packs weights as it comes to them;
//!   the second packs all and keeps them, and gathers memory into huge pages.
//! - **Who runs a step, and how many do, changes no bit** of a result.
//! - **A malformed program is refused** when it is loaded or bound. What its machine code does with good arguments is the
//!   compiler's promise.

pub(crate) mod bind;
pub(crate) mod effort;
mod error;
mod executable;
pub(crate) mod late;
mod load;
pub(crate) mod plan;
pub(crate) mod sizes;
mod solve;
mod steps;
#[cfg(test)]
pub(crate) mod tests;

pub use error::{BindError, Direction, LoadError, PortError, RunError};
pub use executable::Executable;

use crate::{
    Tensor,
    execute::{CANCELLED, Run, StepTime},
    memory::{Block, huge},
    profile::Profile,
    program::{Port, status},
    team::{Stop, Team, default_size},
    tensor::TensorError,
};
use bind::{Bound, BoundPort};
use plan::Plan;
use std::{
    borrow::Borrow,
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError, atomic::AtomicBool},
    time::Instant,
};

/// How a session runs.
#[derive(Clone, Debug, Default)]
pub struct SessionOptions {
    /// The threads; without, those that all sessions of the process share ([`process_team`]).
    pub team: Option<Arc<Team>>,
    /// Who works.
    pub workers: Workers,
    /// While it is true, runs end with [`RunError::Cancelled`]; looked at before every step.
    pub cancel: Option<Arc<AtomicBool>>,
}

/// Who works in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Workers {
    /// The team, but for programs so short that waking it would take longer than they do. Decided when sizes are bound,
    /// from what the program says about its work.
    #[default]
    Automatic,
    /// The caller alone.
    Caller,
    /// The team, however short the program.
    Team,
}

/// The team that sessions share unless they are given another: a worker for each CPU the process may use.
pub fn process_team() -> &'static Arc<Team> {
    static TEAM: OnceLock<Arc<Team>> = OnceLock::new();
    TEAM.get_or_init(|| Arc::new(Team::new(Some(process_team_size()))))
}

/// How large [`process_team`] is at most. A session that runs on its caller asks for this alone and starts no threads.
fn process_team_size() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    *SIZE.get_or_init(default_size)
}

/// A team of the caller.
fn lone_team() -> &'static Arc<Team> {
    static TEAM: OnceLock<Arc<Team>> = OnceLock::new();
    TEAM.get_or_init(|| Arc::new(Team::new(Some(1))))
}

/// A program with its sizes and its memory. States live here from run to run.
pub struct Session {
    plan: Arc<Plan>,
    bound: Bound,
    block: Block,
    /// How often it was run, up to twice.
    runs: u8,
    team: Arc<Team>,
    cancel: Option<Arc<AtomicBool>>,
    /// Aligned copies of misaligned inputs.
    aligned: Vec<Option<Tensor>>,
    /// The addresses of inputs and outputs in the current run.
    addresses: Vec<u64>,
    failure: Mutex<Option<String>>,
}

/// Where the memory of a session goes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Between the layers.
    pub arena: u64,
    /// From run to run.
    pub states: u64,
    /// The workers' scratch.
    pub scratch: u64,
    /// Weights, packed ones (from the second run on) and mapped ones; all sessions of a program share them.
    pub weights: u64,
    /// Machine code; shared as well.
    pub code: u64,
}

impl MemoryUse {
    /// The sum.
    pub fn total(&self) -> u64 {
        self.arena + self.states + self.scratch + self.weights + self.code
    }
}

impl Session {
    fn new(plan: Arc<Plan>, symbols: &[i64], options: &SessionOptions) -> Result<Session, BindError> {
        let workers = match (options.workers, &options.team) {
            (Workers::Caller, _) => 1,
            (_, Some(team)) => team.size(),
            (_, None) => process_team_size(),
        };
        let (bound, block) = bind::bind(&plan, symbols, workers, options.workers == Workers::Team)?;
        let team = match &options.team {
            _ if bound.alone => lone_team(),
            Some(team) => team,
            None => process_team(),
        };
        // Every worker has its scratch.
        debug_assert!(team.size() <= workers);
        let team = team.clone();
        Ok(Session {
            aligned: vec![None; plan.inputs.len()],
            addresses: vec![0; plan.inputs.len() + plan.outputs.len()],
            cancel: options.cancel.clone(),
            failure: Mutex::default(),
            plan,
            bound,
            block,
            runs: 0,
            team,
        })
    }

    /// Runs the program on inputs, into outputs that are there already, and keeps its states.
    ///
    /// # Errors
    /// Tensors that do not fit the ports, a failing kernel or custom operation, or cancellation. The outputs then hold
    /// anything. A panic of a custom operation is an error as well.
    pub fn run_into<T: Borrow<Tensor>>(&mut self, inputs: &[T], outputs: &mut [Tensor]) -> Result<(), RunError> {
        self.execute(inputs, outputs, None)
    }

    /// Runs the program on inputs, into new outputs, and keeps its states.
    ///
    /// # Errors
    /// As [`Session::run_into`], and memory that the outputs do not find.
    pub fn run<T: Borrow<Tensor>>(&mut self, inputs: &[T]) -> Result<Vec<Tensor>, RunError> {
        let mut outputs = self.new_outputs()?;
        self.run_into(inputs, &mut outputs)?;
        Ok(outputs)
    }

    /// Runs the program as [`Session::run`] does, and measures its steps.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run_profiled<T: Borrow<Tensor>>(&mut self, inputs: &[T]) -> Result<(Vec<Tensor>, Profile), RunError> {
        let mut outputs = self.new_outputs()?;
        let times: Vec<StepTime> = (0..=self.plan.steps).map(|_| StepTime::default()).collect();
        let start = Instant::now();
        self.execute(inputs, &mut outputs, Some(&times))?;
        let profile = Profile::new(&self.plan, &self.bound, &times, start.elapsed(), &self.team);
        Ok((outputs, profile))
    }

    /// Tensors of zeros for the outputs.
    ///
    /// # Errors
    /// No memory.
    pub fn new_outputs(&self) -> Result<Vec<Tensor>, RunError> {
        let ports = self.plan.outputs.iter().zip(&self.bound.outputs);
        ports.map(|(port, bound)| Ok(Tensor::zeros(port.port.element, &bound.shape)?)).collect()
    }

    /// Zeroes all states, as they were at first.
    pub fn reset_states(&mut self) {
        let layout = self.bound.layout;
        self.block.bytes_mut(layout.arena, layout.states).fill(0);
    }

    /// The number of threads that a run works with, unless the team is busy.
    pub fn workers(&self) -> usize {
        self.team.size()
    }

    /// Where the memory of the session goes. Together it is what the process needs beside the tensors of a run.
    pub fn memory_use(&self) -> MemoryUse {
        let layout = self.bound.layout;
        MemoryUse {
            arena: layout.arena,
            states: layout.states,
            scratch: layout.total - layout.scratch,
            weights: self.plan.weights.iter().map(|tensor| tensor.length() as u64).sum(),
            code: self.plan.code_bytes as u64,
        }
    }

    /// The most memory that a run needs beside its tensors, in bytes: all of [`Session::memory_use`].
    pub fn peak_memory(&self) -> u64 {
        self.memory_use().total()
    }

    fn execute<T: Borrow<Tensor>>(
        &mut self,
        inputs: &[T],
        outputs: &mut [Tensor],
        times: Option<&[StepTime]>,
    ) -> Result<(), RunError> {
        self.take_inputs(inputs)?;
        self.take_outputs(outputs)?;
        let room = self.place_weights()?;
        if self.runs == 1 {
            self.gather_memory();
        }
        self.runs = 2.min(self.runs + 1);
        for patch in &self.bound.patches {
            self.bound.words[patch.word as usize] = self.addresses[patch.place as usize] + patch.offset;
        }
        let layout = self.bound.layout;
        let run = Run {
            plan: &self.plan,
            bound: &self.bound,
            scratch: self.block.address(layout.scratch),
            scratch_stride: layout.scratch_stride,
            cancel: self.cancel.as_deref(),
            failure: &self.failure,
            times,
            room: room.as_ref().map(|room| room.addresses().start as u64),
        };
        // SAFETY: the words were computed by binding and patched above with the addresses of tensors that are borrowed
        // until this returns; the session, and so its memory, is borrowed exclusively. Binding made the scratch for as many
        // workers as the team has.
        let outcome = self.team.run(|worker| unsafe { run.walk(worker) });
        outcome.map_err(|stop| self.error(stop))
    }

    /// Does now what the second run would do: packs all weights and keeps them, for all sessions of the program, and gathers
    /// memory into huge pages. For programs that run for long and answer nobody yet. Until then weights may be read from the file of
    /// the model, which must not change; tables of which runs read a few rows stay there.
    ///
    /// # Errors
    /// No memory.
    pub fn prepare(&mut self) -> Result<(), RunError> {
        self.plan.late.keep().map_err(|reason| self.no_memory(reason))?;
        self.gather_memory();
        self.runs = 2;
        Ok(())
    }

    /// Gives weights that have no place theirs: in a room for this run, or where they stay.
    fn place_weights(&mut self) -> Result<Option<Block>, RunError> {
        if self.bound.late.is_empty() {
            return Ok(None);
        }
        let late = &self.plan.late;
        let room = late.room().map_err(|reason| self.no_memory(reason))?;
        for patch in &self.bound.late {
            self.bound.words[patch.word as usize] = late.address(patch.place, room.as_ref()) + patch.offset;
        }
        if room.is_none() {
            self.bound.late = Box::default();
        }
        Ok(room)
    }

    #[cold]
    fn no_memory(&self, reason: std::io::Error) -> RunError {
        BindError::Memory { bytes: self.plan.late.total(), reason }.into()
    }

    /// Gathers the memory of a session that is used again into huge pages: after its first result, which does not wait for it.
    #[cold]
    fn gather_memory(&self) {
        let weights = self.plan.weights.iter().filter_map(Tensor::pages);
        let kept = self.plan.late.kept().map(Block::addresses);
        huge::gather(weights.chain(kept).chain([self.block.addresses()]));
    }

    /// Checks the inputs and notes their addresses.
    fn take_inputs<T: Borrow<Tensor>>(&mut self, inputs: &[T]) -> Result<(), RunError> {
        check_count(Direction::Input, self.plan.inputs.len(), inputs.len())?;
        for (index, input) in inputs.iter().enumerate() {
            let input = input.borrow();
            check_port(Direction::Input, &self.plan.inputs[index].port, &self.bound.inputs[index], input)?;
            let input = if load::is_aligned(input) { input } else { align(&mut self.aligned[index], input)? };
            self.addresses[index] = input.bytes().as_ptr().expose_provenance() as u64;
        }
        Ok(())
    }

    /// Checks the outputs and notes their addresses.
    fn take_outputs(&mut self, outputs: &mut [Tensor]) -> Result<(), PortError> {
        check_count(Direction::Output, self.plan.outputs.len(), outputs.len())?;
        for (index, output) in outputs.iter_mut().enumerate() {
            check_port(Direction::Output, &self.plan.outputs[index].port, &self.bound.outputs[index], output)?;
            let address = output.bytes_mut().as_mut_ptr().expose_provenance() as u64;
            self.addresses[self.plan.inputs.len() + index] = address;
        }
        Ok(())
    }

    /// The error that a stop stands for.
    #[cold]
    fn error(&self, stop: Stop) -> RunError {
        if stop.code == CANCELLED {
            return RunError::Cancelled;
        }
        if let Some(custom) = self.plan.customs.iter().find(|custom| custom.step == stop.step) {
            let message = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
            return RunError::Custom { label: custom.label.clone(), name: custom.name.clone(), message };
        }
        let label = self.plan.kernels.iter().find(|kernel| kernel.step == stop.step).map(|kernel| kernel.label.clone());
        let label = label.unwrap_or_else(|| "".into());
        match stop.code {
            status::INDEX_OUT_OF_RANGE => RunError::Index { label },
            status => RunError::Status { label, status },
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Session")
            .field("workers", &self.workers())
            .field("memory", &self.memory_use())
            .finish_non_exhaustive()
    }
}

fn check_count(direction: Direction, expected: usize, found: usize) -> Result<(), PortError> {
    if expected == found { Ok(()) } else { Err(PortError::Count { direction, expected, found }) }
}

fn check_kind(direction: Direction, port: &Port, tensor: &Tensor) -> Result<(), PortError> {
    let name = || port.name.clone();
    if port.element != tensor.element() {
        let (expected, found) = (port.element, tensor.element());
        return Err(PortError::Element { direction, name: name(), expected, found });
    }
    if port.shape.len() != tensor.shape().len() {
        let (expected, found) = (port.shape.len(), tensor.shape().len());
        return Err(PortError::Rank { direction, name: name(), expected, found });
    }
    Ok(())
}

fn check_port(direction: Direction, port: &Port, bound: &BoundPort, tensor: &Tensor) -> Result<(), PortError> {
    check_kind(direction, port, tensor)?;
    let axes = bound.shape.iter().zip(tensor.shape());
    match axes.enumerate().find(|(_, (expected, found))| expected != found) {
        None => Ok(()),
        Some((axis, (expected, found))) => Err(PortError::Axis {
            direction,
            name: port.name.clone(),
            axis,
            size: port.shape[axis].clone(),
            expected: *expected as i64,
            found: *found,
        }),
    }
}

/// A copy of a tensor in memory that is kept from run to run.
fn align<'copy>(kept: &'copy mut Option<Tensor>, tensor: &Tensor) -> Result<&'copy Tensor, TensorError> {
    let copy = match kept.take() {
        Some(mut copy) => {
            copy.bytes_mut().copy_from_slice(tensor.bytes());
            copy
        }
        None => Tensor::from_bytes(tensor.element(), tensor.shape(), tensor.bytes())?,
    };
    Ok(kept.insert(copy))
}
