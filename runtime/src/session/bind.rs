//! From a plan and the values of its symbols to what a run walks over: sizes evaluated, buffers placed, every argument of
//! every step a 64-bit word.

use super::{
    effort::{Effort, Mode},
    error::BindError,
    plan::{Action, Node, Plan, PlanArray, PlanPort, WordSource},
    sizes::{SizeId, SizeValues},
};
use crate::{
    Bindings,
    custom::CustomArray,
    kernels::builtin::Word,
    memory::{
        Block,
        arrange::{Request, arrange},
        whole_lines,
    },
    program::Base,
};
use std::fmt::Write;

/// Scratch of different workers never shares a page.
const PAGE: u64 = 4096;

/// A plan with sizes.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) values: SizeValues,
    pub(super) inputs: Vec<BoundPort>,
    pub(super) outputs: Vec<BoundPort>,
    /// The arguments of all steps.
    pub(crate) words: Box<[u64]>,
    /// The words that are addresses in inputs and outputs.
    pub(super) patches: Box<[Patch]>,
    /// The words that are addresses in weights without a place; none, once these have theirs.
    pub(super) late: Box<[Patch]>,
    pub(crate) kernels: Box<[BoundKernel]>,
    pub(crate) customs: Box<[BoundCustom]>,
    pub(crate) fills: Box<[BoundFill]>,
    /// By the identity of a node: who runs it.
    pub(crate) modes: Box<[Mode]>,
    /// Whether the whole program is so short that it runs on the caller alone.
    pub(super) alone: bool,
    pub(super) layout: Layout,
}

/// An input or an output with its sizes.
#[derive(Debug)]
pub(crate) struct BoundPort {
    pub(super) shape: Box<[usize]>,
    pub(super) bytes: u64,
}

/// A word that holds an address in an input or an output, or in late weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patch {
    pub(super) word: u32,
    /// The position among all inputs, followed by all outputs; or among the late weights.
    pub(super) place: u32,
    pub(super) offset: u64,
}

/// A kernel step with its sizes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BoundKernel {
    pub(crate) grid: u64,
    pub(crate) flops: u64,
    pub(crate) bytes: u64,
}

/// The arrays of a custom operation.
#[derive(Debug)]
pub(crate) struct BoundCustom {
    pub(crate) operands: Box<[CustomArray]>,
    pub(crate) results: Box<[CustomArray]>,
}

/// Pieces of memory that are filled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BoundFill {
    pub(crate) word: u32,
    pub(crate) bytes: u64,
    pub(crate) count: u64,
    pub(crate) stride: u64,
    pub(crate) byte: u8,
}

/// Bytes of a tile of a fill, about.
const FILL_TILE: u64 = 32 << 10;

impl BoundFill {
    /// Parts of a piece that is longer than a tile.
    fn parts(&self) -> u64 {
        self.bytes.div_ceil(FILL_TILE)
    }

    /// Pieces of a tile, when they are shorter.
    fn together(&self) -> u64 {
        (FILL_TILE / self.bytes.max(1)).max(1)
    }

    /// How many tiles the pieces make.
    pub(crate) fn tiles(&self) -> u64 {
        if self.parts() > 1 { self.count * self.parts() } else { self.count.div_ceil(self.together()) }
    }

    /// Calls `clear` with the first byte and the length of everything in a tile.
    pub(crate) fn each_piece(&self, tile: u64, mut clear: impl FnMut(u64, u64)) {
        if self.parts() > 1 {
            let (piece, within) = (tile / self.parts(), tile % self.parts() * FILL_TILE);
            return clear(piece * self.stride + within, FILL_TILE.min(self.bytes - within));
        }
        let first = tile * self.together();
        for piece in first..(first + self.together()).min(self.count) {
            clear(piece * self.stride, self.bytes);
        }
    }
}

/// Where the parts of a session's block lie.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Layout {
    /// Bytes of the arena, at the start.
    pub(super) arena: u64,
    /// Bytes of the states, after it.
    pub(super) states: u64,
    /// Where the scratch of worker 0 starts.
    pub(super) scratch: u64,
    /// Bytes from one worker's scratch to the next.
    pub(super) scratch_stride: u64,
    /// Bytes of everything.
    pub(super) total: u64,
}

/// Where a buffer lies, once sizes are known.
#[derive(Clone, Copy)]
enum Place {
    Address(u64),
    /// In the port of this position, inputs first.
    Port(u32),
    /// In the late weights of this position.
    Late(u32),
}

/// Binds a plan for at most `workers` workers, which `always` work or else only when it pays.
pub(super) fn bind(plan: &Plan, symbols: &[i64], workers: usize, always: bool) -> Result<(Bound, Block), BindError> {
    let negative = plan.symbols.iter().zip(symbols).find(|(_, value)| **value < 0);
    if let Some((symbol, value)) = negative {
        return Err(BindError::NegativeSymbol { symbol: symbol.name.clone(), value: *value });
    }
    let mut binder = Binder::new(plan, symbols)?;
    binder.check()?;
    let states = binder.ports("state", &plan.states)?;
    let inputs = binder.ports("input", &plan.inputs)?;
    let outputs = binder.ports("output", &plan.outputs)?;
    let effort = Effort { plan, values: &binder.values };
    let alone = workers <= 1 || !always && effort.is_short();
    let modes = effort.modes();
    let (layout, block) = binder.place(&states, &inputs, &outputs, if alone { 1 } else { workers as u64 })?;
    let kernels = binder.kernels()?;
    binder.conditions(&plan.body)?;
    let customs = binder.customs()?;
    let fills = binder.fills()?;
    let Binder { values, words, patches, late, .. } = binder;
    let (words, patches, late) = (words.into(), patches.into(), late.into());
    let (kernels, customs, fills) = (kernels.into(), customs.into(), fills.into());
    Ok((Bound { values, inputs, outputs, words, patches, late, kernels, customs, fills, modes, alone, layout }, block))
}

struct Binder<'plan> {
    plan: &'plan Plan,
    symbols: &'plan [i64],
    values: SizeValues,
    places: Vec<Place>,
    /// The length of each buffer.
    lengths: Vec<u64>,
    words: Vec<u64>,
    patches: Vec<Patch>,
    late: Vec<Patch>,
}

impl<'plan> Binder<'plan> {
    fn new(plan: &'plan Plan, symbols: &'plan [i64]) -> Result<Self, BindError> {
        let values = plan.sizes.evaluate(symbols).map_err(|error| {
            let bindings = describe(plan, symbols);
            // A size without a value often is what a check warns of, in better words.
            failed_check(plan, symbols).unwrap_or(BindError::Size { error, bindings })
        })?;
        let words = vec![0; plan.words.len()];
        Ok(Binder { plan, symbols, values, places: vec![], lengths: vec![], words, patches: vec![], late: vec![] })
    }

    fn bindings(&self) -> String {
        describe(self.plan, self.symbols)
    }

    fn check(&self) -> Result<(), BindError> {
        for (size, message) in &self.plan.checks {
            let value = self.values.get(*size);
            if value < 0 {
                let (message, size) = (message.clone(), self.plan.sizes.source(*size).clone());
                return Err(BindError::Check { message, size, value, bindings: self.bindings() });
            }
        }
        Ok(())
    }

    /// The value of a size that must not be negative.
    fn length(&self, id: SizeId, place: impl Fn() -> String) -> Result<u64, BindError> {
        let value = self.values.get(id);
        u64::try_from(value).map_err(|_| {
            let size = self.plan.sizes.source(id).clone();
            BindError::Negative { place: place(), size, value, bindings: self.bindings() }
        })
    }

    fn too_large(&self, what: impl Into<String>) -> BindError {
        BindError::TooLarge { what: what.into(), bindings: self.bindings() }
    }

    fn array(
        &self,
        element: crate::ElementType,
        axes: &[SizeId],
        place: impl Fn() -> String,
    ) -> Result<(Box<[usize]>, u64), BindError> {
        let mut shape = Vec::with_capacity(axes.len());
        let mut count = Some(1usize);
        for (axis, size) in axes.iter().enumerate() {
            let length = self.length(*size, || format!("axis {axis} of {}", place()))?;
            let length = usize::try_from(length).map_err(|_| self.too_large(place()))?;
            count = count.and_then(|count| count.checked_mul(length));
            shape.push(length);
        }
        let bytes = count.and_then(|count| element.bytes_of(count)).ok_or_else(|| self.too_large(place()))?;
        Ok((shape.into(), bytes as u64))
    }

    fn ports(&self, what: &str, ports: &[PlanPort]) -> Result<Vec<BoundPort>, BindError> {
        let bound = |port: &PlanPort| {
            let (shape, bytes) =
                self.array(port.port.element, &port.axes, || format!("{what} `{}`", port.port.name))?;
            Ok(BoundPort { shape, bytes })
        };
        ports.iter().map(bound).collect()
    }

    /// Places all buffers and allocates the session's memory.
    fn place(
        &mut self,
        states: &[BoundPort],
        inputs: &[BoundPort],
        outputs: &[BoundPort],
        workers: u64,
    ) -> Result<(Layout, Block), BindError> {
        let plan = self.plan;
        let mut requests = vec![];
        for (index, buffer) in plan.buffers.iter().enumerate() {
            let place = || format!("the length of buffer {index}");
            let bytes = self.length(buffer.bytes, place)?;
            let available = match buffer.base {
                Base::Arena => {
                    requests.push(Request { bytes, live: buffer.live });
                    bytes
                }
                Base::Input(port) => inputs[port as usize].bytes,
                Base::Output(port) => outputs[port as usize].bytes,
                Base::State(port) => states[port as usize].bytes,
                Base::Weights(tensor) => plan.weights[tensor as usize].length() as u64,
            };
            if bytes > available {
                return Err(self.bounds(place(), bytes.into(), available));
            }
            self.lengths.push(bytes);
        }
        let arrangement = arrange(&requests).ok_or_else(|| self.too_large("the memory between the layers"))?;
        let (layout, state_offsets) = self
            .layout(arrangement.bytes, states, workers)?
            .ok_or_else(|| self.too_large("the memory of the session"))?;
        let mut block = Block::new(layout.total).map_err(|reason| BindError::Memory { bytes: layout.total, reason })?;
        let mut offsets = arrangement.offsets.into_iter();
        for buffer in &plan.buffers {
            self.places.push(match buffer.base {
                Base::Arena => Place::Address(block.address(offsets.next().unwrap_or_default())),
                Base::State(port) => Place::Address(block.address(state_offsets[port as usize])),
                Base::Weights(tensor) => match plan.late.position(tensor) {
                    Some(position) => Place::Late(position),
                    None => Place::Address(plan.weights[tensor as usize].bytes().as_ptr().expose_provenance() as u64),
                },
                Base::Input(port) => Place::Port(port),
                Base::Output(port) => Place::Port(plan.inputs.len() as u32 + port),
            });
        }
        Ok((layout, block))
    }

    /// Where the parts of the block lie, and each state; `None` beyond 64 bits.
    fn layout(&self, arena: u64, states: &[BoundPort], workers: u64) -> Result<Option<(Layout, Vec<u64>)>, BindError> {
        let mut scratch = 0;
        for kernel in &self.plan.kernels {
            let bytes = self.length(kernel.scratch, || format!("the scratch of layer `{}`", kernel.label))?;
            scratch = scratch.max(bytes);
        }
        let parts = || {
            let mut offsets = Vec::with_capacity(states.len());
            let mut end = arena;
            for state in states {
                offsets.push(end);
                end = end.checked_add(whole_lines(state.bytes)?)?;
            }
            let start = end.checked_next_multiple_of(PAGE)?;
            let stride = scratch.checked_next_multiple_of(PAGE)?;
            let total = start.checked_add(stride.checked_mul(workers)?)?;
            let states = end - arena;
            Some((Layout { arena, states, scratch: start, scratch_stride: stride, total }, offsets))
        };
        Ok(parts())
    }

    fn bounds(&self, place: String, needed: i128, available: u64) -> BindError {
        BindError::Bounds { place, needed, available, bindings: self.bindings() }
    }

    /// Writes a word; an address must have `needed` bytes of its buffer behind it. Returns how many it has.
    fn word(&mut self, index: u32, needed: u64, place: impl Fn() -> String) -> Result<Word, BindError> {
        let (buffer, offset) = match self.plan.words[index as usize] {
            WordSource::Size(size) => {
                let value = self.values.get(size);
                self.words[index as usize] = value as u64;
                return Ok(Word::Size(value));
            }
            WordSource::Address { buffer, offset } => (buffer as usize, self.values.get(offset)),
        };
        let length = self.lengths[buffer];
        let end = i128::from(offset) + i128::from(needed);
        if offset < 0 || end > length.into() {
            let place = format!("the address {offset} bytes into buffer {buffer} of {}", place());
            return Err(self.bounds(place, end, length));
        }
        let offset = offset as u64;
        match self.places[buffer] {
            Place::Address(start) => self.words[index as usize] = start + offset,
            Place::Port(port) => self.patches.push(Patch { word: index, place: port, offset }),
            Place::Late(weights) => self.late.push(Patch { word: index, place: weights, offset }),
        }
        Ok(Word::Bytes(length - offset))
    }

    fn kernels(&mut self) -> Result<Vec<BoundKernel>, BindError> {
        let plan = self.plan;
        let mut bound = Vec::with_capacity(plan.kernels.len());
        let mut arguments = vec![];
        for kernel in &plan.kernels {
            let place = || format!("layer `{}`", kernel.label);
            let grid = self.length(kernel.grid, || format!("the grid of {}", place()))?;
            let [flops, bytes] = [kernel.flops, kernel.bytes].map(|size| self.values.get(size).max(0) as u64);
            bound.push(BoundKernel { grid, flops, bytes });
            // What an empty grid would touch is never touched, and may well lie outside an empty array.
            if grid == 0 {
                continue;
            }
            arguments.clear();
            for word in kernel.words.clone() {
                arguments.push(self.word(word, 0, place)?);
            }
            if let Some(builtin) = kernel.builtin {
                let scratch = self.length(kernel.scratch, place)?;
                (builtin.check)(&arguments, grid, scratch).map_err(|reason| BindError::Arguments {
                    label: kernel.label.clone(),
                    kernel: builtin.name,
                    reason,
                })?;
            }
        }
        Ok(bound)
    }

    fn conditions(&mut self, nodes: &[Node]) -> Result<(), BindError> {
        for node in nodes {
            match &node.action {
                Action::Kernel(_) | Action::Custom(_) | Action::Fill(..) => {}
                Action::Repeat { count, condition, body } => {
                    self.length(*count, || "the count of a `Repeat`".into())?;
                    if let Some(condition) = condition {
                        self.word(*condition, 1, || "the condition of a `Repeat`".into())?;
                    }
                    self.conditions(body)?;
                }
                Action::If { condition, then, otherwise } => {
                    self.word(*condition, 1, || "the condition of an `If`".into())?;
                    self.conditions(then)?;
                    self.conditions(otherwise)?;
                }
            }
        }
        Ok(())
    }

    fn customs(&mut self) -> Result<Vec<BoundCustom>, BindError> {
        let plan = self.plan;
        let mut bound = Vec::with_capacity(plan.customs.len());
        for custom in &plan.customs {
            let place = || format!("layer `{}`", custom.label);
            let mut arrays = |arrays: &[PlanArray]| {
                let bind = |array: &PlanArray| {
                    let (shape, bytes) = self.array(array.element, &array.axes, place)?;
                    self.word(array.word, bytes, place)?;
                    let bytes = usize::try_from(bytes).map_err(|_| self.too_large(place()))?;
                    Ok(CustomArray { word: array.word, element: array.element, shape, bytes })
                };
                arrays.iter().map(bind).collect::<Result<Box<[_]>, BindError>>()
            };
            let (operands, results) = (arrays(&custom.operands)?, arrays(&custom.results)?);
            let all: Vec<&CustomArray> = results.iter().chain(&operands).collect();
            for (index, result) in results.iter().enumerate() {
                if all[index + 1..].iter().any(|other| self.overlap(result, other)) {
                    return Err(BindError::Overlap { label: custom.label.clone() });
                }
            }
            bound.push(BoundCustom { operands, results });
        }
        Ok(bound)
    }

    /// Whether two arrays share bytes. Different ports, and a port and the session's memory, never do; weights are only read.
    fn overlap(&self, a: &CustomArray, b: &CustomArray) -> bool {
        let range = |array: &CustomArray| {
            let patch = self.patches.iter().rev().find(|patch| patch.word == array.word);
            let (port, start) = match patch {
                Some(patch) => (Some(patch.place), patch.offset),
                None => (None, self.words[array.word as usize]),
            };
            (port, start, start + array.bytes as u64)
        };
        let ((a_port, a_start, a_end), (b_port, b_start, b_end)) = (range(a), range(b));
        a_port == b_port && a_start.max(b_start) < a_end.min(b_end)
    }

    fn fills(&mut self) -> Result<Vec<BoundFill>, BindError> {
        let plan = self.plan;
        let mut bound = Vec::with_capacity(plan.fills.len());
        for fill in &plan.fills {
            let length = |size| self.length(size, || "a zeroed buffer".into());
            let (bytes, count, stride) = (length(fill.bytes)?, length(fill.count)?, length(fill.stride)?);
            let count = if bytes == 0 { 0 } else { count };
            let all = match count.checked_sub(1) {
                None => 0,
                Some(more) => more.saturating_mul(stride).saturating_add(bytes),
            };
            self.word(fill.word, all, || "a zeroed buffer".into())?;
            bound.push(BoundFill { word: fill.word, bytes, count, stride, byte: fill.byte });
        }
        Ok(bound)
    }
}

/// The values of the symbols, as people write them.
pub(super) fn describe(plan: &Plan, symbols: &[i64]) -> String {
    let mut text = String::new();
    for (symbol, value) in plan.symbols.iter().zip(symbols) {
        let separator = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{separator}{} = {value}", symbol.name);
    }
    if text.is_empty() { "no sizes to bind".into() } else { text }
}

/// The first check that fails, evaluated one by one.
fn failed_check(plan: &Plan, symbols: &[i64]) -> Option<BindError> {
    let bindings: Bindings =
        plan.symbols.iter().map(|symbol| symbol.name.clone()).zip(symbols.iter().copied()).collect();
    plan.checks.iter().find_map(|(size, message)| {
        let size = plan.sizes.source(*size);
        let value = size.eval(&bindings).ok().filter(|value| *value < 0)?;
        let (message, size) = (message.clone(), size.clone());
        Some(BindError::Check { message, size, value, bindings: describe(plan, symbols) })
    })
}
