//! A loaded program, cheap to clone and shared by all of its sessions.

use super::{BindError, LoadError, RunError, Session, SessionOptions, load, plan::Plan, solve};
use crate::{
    Bindings, Tensor,
    code::{Code, CodeMemory},
    custom::Operations,
    program::{Port, Program, Symbol},
};
use std::{
    borrow::Borrow,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// The sessions that [`Executable::run`] keeps for the next run with the same sizes.
const KEPT_SESSIONS: usize = 8;

/// A program that is ready to run. Clones share it.
#[derive(Clone)]
pub struct Executable {
    plan: Arc<Plan>,
    /// Idle sessions, the latest last.
    idle: Arc<Mutex<Vec<Idle>>>,
}

/// A session between two calls of [`Executable::run`], with the values of its symbols.
type Idle = (Vec<i64>, Session);

impl Executable {
    /// Loads a program that calls no custom operations.
    ///
    /// The machine code in the program is trusted: it comes from this process's compiler, or from an artefact whose digest
    /// was verified.
    ///
    /// # Errors
    /// A malformed program, kernels that this version does not have, or a system that gives no executable memory.
    pub fn new(program: Program) -> Result<Executable, LoadError> {
        Self::new_with(program, &Operations::default())
    }

    /// Loads a program that may call these custom operations.
    ///
    /// # Errors
    /// As [`Executable::new`], and an operation that is not there.
    pub fn new_with(program: Program, operations: &Operations) -> Result<Executable, LoadError> {
        let code = Box::new(CodeMemory::new(&program.code)?);
        Self::with_code(program, operations, code)
    }

    /// Loads a program whose machine code is in memory already, where a compiler in this process has placed it.
    ///
    /// # Errors
    /// As [`Executable::new_with`], and a function that is not in that memory.
    pub fn with_code(program: Program, operations: &Operations, code: Box<dyn Code>) -> Result<Executable, LoadError> {
        Ok(Executable { plan: Arc::new(load::load(program, operations, code)?), idle: Arc::default() })
    }

    /// A session for sizes.
    ///
    /// # Errors
    /// A symbol without value, sizes that the program refuses, or no memory.
    pub fn session(&self, bindings: &Bindings, options: &SessionOptions) -> Result<Session, BindError> {
        let plan = &self.plan;
        if let Some(symbol) = bindings.keys().find(|name| plan.symbols.iter().all(|symbol| symbol.name != **name)) {
            let known: Vec<&str> = plan.symbols.iter().map(|symbol| &*symbol.name).collect();
            let known = if known.is_empty() { "none".into() } else { known.join(", ") };
            return Err(BindError::UnknownSymbol { symbol: symbol.clone(), known });
        }
        let value = |symbol: &Symbol| {
            let value = bindings.get(&symbol.name).copied();
            value.ok_or_else(|| BindError::Unbound { symbol: symbol.name.clone() })
        };
        let symbols = plan.symbols.iter().map(value).collect::<Result<Vec<_>, _>>()?;
        Session::new(plan.clone(), &symbols, options)
    }

    /// The sizes that the shapes of inputs stand for.
    ///
    /// # Errors
    /// Inputs that do not fit the ports or each other, or that leave a size open.
    pub fn bindings<T: Borrow<Tensor>>(&self, inputs: &[T]) -> Result<Bindings, BindError> {
        let values = solve::solve(&self.plan, &inputs.iter().map(Borrow::borrow).collect::<Vec<_>>())?;
        Ok(self.plan.symbols.iter().map(|symbol| symbol.name.clone()).zip(values).collect())
    }

    /// Runs the program once: takes the sizes from the inputs' shapes, and starts from zeroed states. Sessions are kept, so
    /// that a later run with the same sizes binds nothing.
    ///
    /// # Errors
    /// Inputs that do not fit, or a run that fails.
    pub fn run<T: Borrow<Tensor>>(&self, inputs: &[T]) -> Result<Vec<Tensor>, RunError> {
        let values = solve::solve(&self.plan, &inputs.iter().map(Borrow::borrow).collect::<Vec<_>>())?;
        let kept = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let position = idle.iter().rposition(|(symbols, _)| *symbols == values);
            position.map(|position| idle.remove(position).1)
        };
        let mut session = match kept {
            Some(mut session) => {
                session.reset_states();
                session
            }
            None => Session::new(self.plan.clone(), &values, &SessionOptions::default())?,
        };
        let outputs = session.run(inputs);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() == KEPT_SESSIONS {
            idle.remove(0);
        }
        idle.push((values, session));
        outputs
    }

    /// What a run reads.
    pub fn inputs(&self) -> impl Iterator<Item = &Port> {
        self.plan.inputs.iter().map(|port| &port.port)
    }

    /// What a run writes.
    pub fn outputs(&self) -> impl Iterator<Item = &Port> {
        self.plan.outputs.iter().map(|port| &port.port)
    }

    /// The sizes that have to be bound.
    pub fn symbols(&self) -> impl Iterator<Item = &str> {
        self.plan.symbols.iter().map(|symbol| &*symbol.name)
    }
}

impl fmt::Debug for Executable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Executable")
            .field("inputs", &self.inputs().collect::<Vec<_>>())
            .field("outputs", &self.outputs().collect::<Vec<_>>())
            .field("steps", &self.plan.steps)
            .finish_non_exhaustive()
    }
}
