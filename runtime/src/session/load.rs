//! From a program to a [`Plan`]: every reference is checked, so that nothing later can go out of bounds because a list is
//! shorter than the program believes.
//!
//! What cannot be checked is what the machine code does with its arguments.

use super::{
    error::LoadError,
    late::{Late, Reads},
    plan::{Action, Node, Plan, PlanArray, PlanBuffer, PlanCustom, PlanFill, PlanKernel, PlanPort, WordSource},
    sizes::{SizeId, SizeTableBuilder},
    steps::{check_nesting, count_steps, lifetimes},
};
use crate::{
    Size, Tensor,
    code::{self, Code},
    custom::Operations,
    kernels::{
        KernelTable, Level,
        builtin::{self, Builtin},
    },
    program::{Address, Argument, Base, Buffer, Function, KernelFunction, KernelStep, Port, Program, Step},
};
use std::{collections::BTreeSet, sync::Arc};

/// Loads a program whose machine code lies in `memory`.
pub(super) fn load(program: Program, operations: &Operations, memory: Box<dyn Code>) -> Result<Plan, LoadError> {
    check_nesting(&program.body)?;
    let Program { symbols, inputs, outputs, states, checks, weights, unaligned, buffers, functions, code, body } =
        program;
    let mut names = BTreeSet::new();
    if let Some(symbol) = symbols.iter().find(|symbol| !names.insert(symbol.name.clone())) {
        return Err(LoadError::DuplicateSymbol { symbol: symbol.name.clone() });
    }
    let mut loader = Loader {
        sizes: SizeTableBuilder::new(symbols.iter().map(|symbol| &symbol.name)),
        operations,
        memory: &*memory,
        code: code.len(),
        functions: &functions,
        sources: &buffers,
        live: lifetimes(&buffers, &body),
        zeroed: vec![],
        filled: vec![false; buffers.len()],
        words: vec![],
        kernels: vec![],
        customs: vec![],
        fills: vec![],
        nodes: 0,
        steps: 0,
    };
    for index in 0..functions.len() {
        loader.function(index as u32)?;
    }
    let inputs = loader.ports("input", inputs)?;
    let outputs = loader.ports("output", outputs)?;
    let states = loader.ports("state", states)?;
    let checks = checks
        .into_iter()
        .map(|check| Ok((loader.size(&check.size, || "a check".into())?, check.message)))
        .collect::<Result<_, LoadError>>()?;
    let counts = [inputs.len(), outputs.len(), states.len(), weights.len()];
    let mut plan_buffers = loader.buffers(counts)?;
    let body = loader.list(&body)?;
    let Loader { sizes, live, words, kernels, customs, fills, nodes, steps, .. } = loader;
    for (buffer, live) in plan_buffers.iter_mut().zip(live) {
        buffer.live = live;
    }
    if u32::try_from(words.len()).is_err() {
        return Err(LoadError::TooMany { what: "arguments" });
    }
    let reads = Reads { words: &words, buffers: &plan_buffers, kernels: &kernels, customs: &customs };
    let late = Late::new(&weights, &body, &reads).ok_or(LoadError::TooMany { what: "bytes of weights" })?;
    Ok(Plan {
        sizes: sizes.finish(),
        symbols,
        inputs,
        outputs,
        states,
        checks,
        weights: (0u32..)
            .zip(weights)
            .map(|(number, tensor)| if unaligned.contains(&number) { Ok(tensor) } else { aligned(tensor) })
            .collect::<Result<_, _>>()?,
        late,
        buffers: plan_buffers,
        words,
        kernels,
        customs,
        fills,
        body,
        nodes,
        steps,
        table: KernelTable::for_level(Level::detect()?),
        code_bytes: code.len(),
        _code: memory,
    })
}

/// A tensor whose elements are aligned: a copy of one that is mapped at an odd place.
pub(super) fn aligned(tensor: Tensor) -> Result<Tensor, LoadError> {
    if tensor.is_deferred() || is_aligned(&tensor) {
        return Ok(tensor);
    }
    Ok(Tensor::from_bytes(tensor.element(), tensor.shape(), tensor.bytes())?)
}

/// Whether the elements of a tensor lie at multiples of their size.
pub(super) fn is_aligned(tensor: &Tensor) -> bool {
    (tensor.bytes().as_ptr() as usize).is_multiple_of(tensor.element().bytes().unwrap_or(1))
}

struct Loader<'program> {
    sizes: SizeTableBuilder,
    operations: &'program Operations,
    memory: &'program dyn Code,
    code: usize,
    functions: &'program [Function],
    sources: &'program [Buffer],
    /// The steps that each buffer needs its memory in.
    live: Vec<(u32, u32)>,
    /// Buffers that must be zero, by their first step.
    zeroed: Vec<(u32, u32)>,
    /// Which of them have their fill.
    filled: Vec<bool>,
    words: Vec<WordSource>,
    kernels: Vec<PlanKernel>,
    customs: Vec<PlanCustom>,
    fills: Vec<PlanFill>,
    nodes: u32,
    /// The number of the next kernel or host step.
    steps: u32,
}

impl Loader<'_> {
    fn size(&mut self, size: &Size, place: impl Fn() -> String) -> Result<SizeId, LoadError> {
        self.sizes.add(size).map_err(|symbol| LoadError::Symbol { place: place(), symbol })
    }

    fn sizes(&mut self, sizes: &[Size], place: impl Fn() -> String) -> Result<Vec<SizeId>, LoadError> {
        sizes.iter().map(|size| self.size(size, &place)).collect()
    }

    fn ports(&mut self, what: &str, ports: Vec<Port>) -> Result<Vec<PlanPort>, LoadError> {
        let load = |port: Port| {
            let axes = self.sizes(&port.shape, || format!("{what} `{}`", port.name))?;
            let symbols = axes.iter().map(|axis| self.sizes.symbol(*axis)).collect();
            Ok(PlanPort { port, axes, symbols })
        };
        ports.into_iter().map(load).collect()
    }

    /// The code of a function.
    fn function(&self, index: u32) -> Result<(KernelFunction, Option<&'static Builtin>), LoadError> {
        match &self.functions[index as usize] {
            &Function::Generated { offset, length } => {
                let address = self.memory.address(offset as usize, length as usize);
                let end = u64::from(offset) + u64::from(length);
                let address = address.filter(|_| end <= self.code as u64);
                address.map(|address| (code::function(address), None)).ok_or(LoadError::Function {
                    function: index,
                    offset,
                    length,
                    code: self.code,
                })
            }
            Function::Builtin(name) => match builtin::find(name) {
                Some(builtin) => Ok((builtin.function, Some(builtin))),
                None => Err(LoadError::Builtin { name: name.clone() }),
            },
        }
    }

    fn buffers(&mut self, [inputs, outputs, states, weights]: [usize; 4]) -> Result<Vec<PlanBuffer>, LoadError> {
        let mut loaded = Vec::with_capacity(self.sources.len());
        for (index, buffer) in (0u32..).zip(self.sources) {
            let place = || format!("buffer {index}");
            let (what, position, count) = match buffer.base {
                Base::Arena => ("buffer", 0, 1),
                Base::Input(position) => ("input", position, inputs),
                Base::Output(position) => ("output", position, outputs),
                Base::State(position) => ("state", position, states),
                Base::Weights(position) => ("weight", position, weights),
            };
            if position as usize >= count {
                return Err(LoadError::Missing { place: place(), what, index: position, count });
            }
            if !buffer.zeroed.is_empty() {
                if matches!(buffer.base, Base::Input(_) | Base::Weights(_)) {
                    return Err(LoadError::ReadOnly { place: "its being zeroed".into(), buffer: index });
                }
                self.zeroed.push((self.live[index as usize].0, index));
            }
            loaded.push(PlanBuffer { base: buffer.base, bytes: self.size(&buffer.bytes, place)?, live: buffer.live });
        }
        self.zeroed.sort_unstable();
        Ok(loaded)
    }

    /// Enters an address that is used in the steps `first..=last`.
    fn address(
        &mut self,
        address: &Address,
        (first, last): (u32, u32),
        place: impl Fn() -> String,
    ) -> Result<u32, LoadError> {
        let Some(buffer) = self.sources.get(address.buffer as usize) else {
            let (index, count) = (address.buffer, self.sources.len());
            return Err(LoadError::Missing { place: place(), what: "buffer", index, count });
        };
        if buffer.base == Base::Arena && (first < buffer.live.0 || buffer.live.1 < last) {
            return Err(LoadError::Live { place: place(), buffer: address.buffer, live: buffer.live });
        }
        let offset = self.size(&address.offset, place)?;
        self.words.push(WordSource::Address { buffer: address.buffer, offset });
        Ok(self.words.len() as u32 - 1)
    }

    fn node(&mut self, action: Action) -> Node {
        self.nodes += 1;
        Node { id: self.nodes - 1, action }
    }

    fn list(&mut self, steps: &[Step]) -> Result<Vec<Node>, LoadError> {
        let mut nodes = Vec::with_capacity(steps.len());
        for step in steps {
            self.fills_before(step, &mut nodes)?;
            let action = match step {
                Step::Kernel(kernel) => self.kernel(kernel)?,
                Step::Host { name, operands, results, label } => self.custom(name, operands, results, label)?,
                Step::Repeat { count, condition, body } => {
                    let count = self.size(count, || "the count of a `Repeat`".into())?;
                    // Read before every iteration, so it outlives all of them.
                    let before = self.steps.saturating_sub(1);
                    let last = (self.steps + count_steps(body)).saturating_sub(1).max(before);
                    let place = || "the condition of a `Repeat`".to_string();
                    let condition = match condition {
                        Some(address) => Some(self.address(address, (before, last), place)?),
                        None => None,
                    };
                    Action::Repeat { count, condition, body: self.list(body)? }
                }
                Step::If { condition, then, otherwise } => {
                    // Read after the step before, and before any other.
                    let before = self.steps.saturating_sub(1);
                    let place = || "the condition of an `If`".to_string();
                    let buffer = condition.buffer as usize;
                    let condition = self.address(condition, (before, before), place)?;
                    // Buffers of the branches may be zeroed before it is read.
                    self.live[buffer].1 = self.live[buffer].1.max(self.steps);
                    Action::If { condition, then: self.list(then)?, otherwise: self.list(otherwise)? }
                }
            };
            let node = self.node(action);
            nodes.push(node);
        }
        Ok(nodes)
    }

    fn kernel(&mut self, kernel: &KernelStep) -> Result<Action, LoadError> {
        let place = || format!("layer `{}`", kernel.label);
        if kernel.function as usize >= self.functions.len() {
            let (index, count) = (kernel.function, self.functions.len());
            return Err(LoadError::Missing { place: place(), what: "function", index, count });
        }
        let (function, builtin) = self.function(kernel.function)?;
        let start = self.words.len() as u32;
        for argument in &kernel.arguments {
            match argument {
                Argument::Address(address) => {
                    self.address(address, (self.steps, self.steps), place)?;
                }
                Argument::Size(size) => {
                    let size = self.size(size, place)?;
                    self.words.push(WordSource::Size(size));
                }
            }
        }
        let words = start..self.words.len() as u32;
        let loaded = PlanKernel {
            function,
            builtin,
            words,
            grid: self.size(&kernel.grid, place)?,
            scratch: self.size(&kernel.scratch, place)?,
            flops: self.size(&kernel.cost.flops, place)?,
            bytes: self.size(&kernel.cost.bytes, place)?,
            label: kernel.label.clone(),
            kind: kernel.kind.clone(),
            step: self.steps,
        };
        self.steps += 1;
        self.kernels.push(loaded);
        Ok(Action::Kernel(self.kernels.len() as u32 - 1))
    }

    fn custom(
        &mut self,
        name: &Arc<str>,
        operands: &[(Address, Port)],
        results: &[(Address, Port)],
        label: &Arc<str>,
    ) -> Result<Action, LoadError> {
        let Some(operation) = self.operations.get(name) else {
            let known = self.operations.names().collect::<Vec<_>>().join(", ");
            let known = if known.is_empty() { "none".into() } else { known };
            return Err(LoadError::Operation { label: label.clone(), name: name.clone(), known });
        };
        let operation = operation.clone();
        let place = || format!("layer `{label}`");
        for (address, _) in results {
            let base = self.sources.get(address.buffer as usize).map(|buffer| buffer.base);
            if let Some(Base::Input(_) | Base::Weights(_)) = base {
                return Err(LoadError::ReadOnly { place: place(), buffer: address.buffer });
            }
        }
        let mut arrays = |arrays: &[(Address, Port)]| {
            let load = |(address, port): &(Address, Port)| {
                let word = self.address(address, (self.steps, self.steps), place)?;
                Ok(PlanArray { word, element: port.element, axes: self.sizes(&port.shape, place)? })
            };
            arrays.iter().map(load).collect::<Result<Vec<_>, LoadError>>()
        };
        let (operands, results) = (arrays(operands)?, arrays(results)?);
        let (name, label, step) = (name.clone(), label.clone(), self.steps);
        self.customs.push(PlanCustom { operation, name, operands, results, label, step });
        self.steps += 1;
        Ok(Action::Custom(self.customs.len() as u32 - 1))
    }

    /// Fills the buffers that must be zero when this step begins.
    ///
    /// A buffer is filled right before its first step; but before the whole of a `Repeat` whose every step it covers, since
    /// it survives the iterations, and before the whole of an `If` that it outlives, since the other branch may be taken.
    fn fills_before(&mut self, step: &Step, nodes: &mut Vec<Node>) -> Result<(), LoadError> {
        let first = self.steps;
        let within = |live: (u32, u32), start: u32, steps: u32| start <= live.0 && live.1 < start + steps;
        let (steps, then_steps) = match step {
            Step::Kernel(_) | Step::Host { .. } => (1, 0),
            Step::Repeat { body, .. } => (count_steps(body), 0),
            Step::If { then, otherwise, .. } => (count_steps(then) + count_steps(otherwise), count_steps(then)),
        };
        let start = self.zeroed.partition_point(|(begin, _)| *begin < first);
        let end = self.zeroed.partition_point(|(begin, _)| *begin < first + steps);
        for position in start..end {
            let index = self.zeroed[position].1;
            let live = self.live[index as usize];
            let inside = match step {
                Step::Kernel(_) | Step::Host { .. } => false,
                Step::Repeat { .. } => within(live, first, steps) && live != (first, first + steps - 1),
                Step::If { .. } => {
                    within(live, first, then_steps) || within(live, first + then_steps, steps - then_steps)
                }
            };
            if inside || self.filled[index as usize] {
                continue;
            }
            self.filled[index as usize] = true;
            // Zeroed now, so its memory is its own from now on.
            self.live[index as usize].0 = live.0.min(first);
            let place = || format!("the zeroing of buffer {index}");
            let begin = self.fills.len() as u32;
            for zeroed in &self.sources[index as usize].zeroed {
                let address = Address { buffer: index, offset: zeroed.offset.clone() };
                let word = self.address(&address, (live.0, live.0), place)?;
                let (bytes, count) = (self.size(&zeroed.bytes, place)?, self.size(&zeroed.count, place)?);
                let stride = self.size(&zeroed.stride, place)?;
                self.fills.push(PlanFill { word, bytes, count, stride, byte: zeroed.byte });
            }
            let node = self.node(Action::Fill(begin, self.fills.len() as u32));
            nodes.push(node);
        }
        Ok(())
    }
}
