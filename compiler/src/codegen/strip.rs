//! Blocks over a range of one variable: vector loops, and strips for functions that the runtime computes.
//!
//! A function such as `exp` has no instruction. A block that has such functions is computed in *stages* over strips of a
//! few hundred positions: a loop writes the function's operand to a strip of scratch memory, the runtime computes the
//! strip in wide vectors, and later stages read it. What a later stage needs beside that, it computes again.
//!
//! Loops run sixteen positions at a time where types and strides allow, and fewer at the end. Where reads have guards,
//! the range in which all guards hold is computed first, and the positions around it are taken one by one.

use super::{
    block::{Typed, Width},
    emit::{Emitter, PLAIN},
    interior::Interior,
    scalar::{self, Lanes, register},
};
use crate::plan::kernel::{Block, Instruction, Store};
use cranelift_codegen::ir::{InstBuilder, InstructionData, Opcode, Value, condcodes::IntCC, types::I32};
use rustc_hash::FxHashMap;
use strang_ir::{
    ElementType, IndexExpr, Size,
    scalar::{Binary, Unary},
};
use strang_runtime::kernels::Function;

/// Positions in a strip.
pub const STRIP: i64 = 512;

/// Values in scratch memory, one a position, in their register types (`bool` as a mask of 32 bits).
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The address that position 0 would have.
    pub base: Value,
    /// The type of the values.
    pub element: ElementType,
}

/// Where a value goes.
#[derive(Clone, Debug)]
pub enum Sink {
    /// To memory.
    Memory(Store),
    /// To scratch memory.
    Row {
        /// Where.
        row: Row,
        /// The value.
        value: u32,
    },
}

impl Sink {
    fn value(&self) -> u32 {
        match self {
            Sink::Memory(store) => store.value,
            Sink::Row { value, .. } => *value,
        }
    }
}

/// A block that is to be computed over a range of a variable.
#[derive(Clone, Debug)]
pub struct Job<'b> {
    /// The block.
    pub block: &'b Block,
    /// The variable.
    pub variable: u32,
    /// Values that lie in scratch memory already, by position.
    pub given: FxHashMap<u32, Row>,
    /// Where values go.
    pub sinks: Vec<Sink>,
}

/// The strip function of a function of f32, if it has one.
pub fn strip_of(function: Unary) -> Option<Function> {
    Some(match function {
        Unary::Exp => Function::ExpF32,
        Unary::ExpMinusOne => Function::Expm1F32,
        Unary::Log => Function::LogF32,
        Unary::LogOnePlus => Function::Log1pF32,
        Unary::Tanh => Function::TanhF32,
        Unary::Erf => Function::ErfF32,
        Unary::Sigmoid => Function::SigmoidF32,
        Unary::Gelu => Function::GeluF32,
        Unary::GeluTanh => Function::GeluTanhF32,
        Unary::Silu => Function::SiluF32,
        Unary::Softplus => Function::SoftplusF32,
        Unary::Mish => Function::MishF32,
        Unary::Sin => Function::SinF32,
        Unary::Cos => Function::CosF32,
        _ => return None,
    })
}

/// The strip function of an instruction on f32, with its operands.
fn strip_function(instruction: &Instruction) -> Option<(Function, u32, Option<u32>)> {
    match instruction {
        Instruction::Binary(Binary::Power, a, b) => Some((Function::PowF32, *a, Some(*b))),
        Instruction::Unary(function, operand) => Some((strip_of(*function)?, *operand, None)),
        _ => None,
    }
}

/// Whether values of a type are f32 in registers.
fn is_single(element: ElementType) -> bool {
    matches!(element, ElementType::F32 | ElementType::F16 | ElementType::BF16)
}

impl Emitter<'_> {
    /// Reads a value of a row at the bound position of a variable plus an offset.
    pub fn read_row(&mut self, row: Row, variable: u32, offset: u32, lanes: Lanes) -> Value {
        let (place, displacement) = self.row_place(row, variable, offset);
        let value = match (row.element, lanes) {
            (ElementType::Bool, Lanes::One) => {
                let mask = self.builder.ins().load(I32, PLAIN, place, displacement);
                return self.builder.ins().icmp_imm_s(IntCC::NotEqual, mask, 0);
            }
            (element, lanes) => self.load_register(register(element, lanes), PLAIN, place, displacement),
        };
        // A strip function of a half type leaves an f32.
        self.round(row.element, value, lanes)
    }

    /// Writes a value of a row.
    pub fn write_row(&mut self, row: Row, variable: u32, offset: u32, value: Value, lanes: Lanes) {
        let (place, displacement) = self.row_place(row, variable, offset);
        let value = match (row.element, lanes) {
            (ElementType::Bool, Lanes::One) => self.builder.ins().bmask(I32, value),
            _ => value,
        };
        self.builder.ins().store(PLAIN, value, place, displacement);
    }

    fn row_place(&mut self, row: Row, variable: u32, offset: u32) -> (Value, i32) {
        let bytes = row_bytes(row.element);
        let index = self.index(&IndexExpr::variable(variable));
        let ahead = self.builder.ins().imul_imm_s(index, bytes);
        (self.builder.ins().iadd(row.base, ahead), offset as i32 * bytes as i32)
    }

    /// Calls `body` for strips of a range, in order.
    pub fn strips(&mut self, extent: &Size, (low, high): (Value, Value), body: impl FnOnce(&mut Self, Value, Value)) {
        if extent.as_constant().is_some_and(|extent| extent <= STRIP) {
            return body(self, low, high);
        }
        self.each((low, high, STRIP), |emitter, start| {
            let end = emitter.builder.ins().iadd_imm_s(start, STRIP);
            let end = emitter.smaller(end, high);
            body(emitter, start, end);
        });
    }

    /// Scratch memory for a strip that starts at a position.
    pub fn strip_row(&mut self, element: ElementType, start: Value, memory: Value) -> Row {
        let before = self.builder.ins().imul_imm_s(start, row_bytes(element));
        Row { base: self.builder.ins().isub(memory, before), element }
    }

    /// The address in a row of a position.
    pub fn row_address(&mut self, row: Row, position: Value) -> Value {
        let ahead = self.builder.ins().imul_imm_s(position, row_bytes(row.element));
        self.builder.ins().iadd(row.base, ahead)
    }

    /// The address of an access at a position of a variable that is not bound.
    pub fn address_at(&mut self, access: u32, variable: u32, position: Value) -> Value {
        self.address_of(access, &[(variable, position)])
    }

    /// The address of an access at positions of variables that are not bound; others that are not bound are at 0. It is for
    /// kernels of the runtime: elements are aligned there.
    pub fn address_of(&mut self, access: u32, positions: &[(u32, Value)]) -> Value {
        let pointer = self.kernel.accesses[access as usize].pointer;
        self.handed.insert(self.kernel.pointers[pointer as usize].buffer);
        self.scopes.push(FxHashMap::default());
        positions.iter().for_each(|(variable, position)| self.bind(*variable, *position));
        let (place, displacement) = self.address(access);
        positions.iter().for_each(|(variable, _)| self.unbind(*variable));
        self.scopes.pop();
        self.builder.ins().iadd_imm_s(place, i64::from(displacement))
    }

    /// Computes a job over a range of any length.
    pub fn run_in_strips(&mut self, job: &Job<'_>, folded: &[ElementType], range: (Value, Value)) {
        if !job.needs_strips(self, folded) {
            return self.run_job(job, folded, range);
        }
        let extent = self.extent(job.variable);
        self.strips(&extent, range, |emitter, low, high| emitter.run_job(job, folded, (low, high)));
    }

    /// Computes a job over a range of at most [`STRIP`] positions when it needs strips, of any length otherwise: see
    /// [`Job::needs_strips`].
    pub fn run_job(&mut self, job: &Job<'_>, folded: &[ElementType], range: (Value, Value)) {
        let plan = Stages::new(self, job, folded);
        let mut job = job.clone();
        let (low, high) = range;
        let count = self.builder.ins().isub(high, low);
        for level in &plan.levels {
            let mut sinks = Vec::new();
            let mut calls = Vec::new();
            for position in level {
                let Some((function, first, second)) = strip_function(&job.block.instructions[*position as usize])
                else {
                    continue;
                };
                let direct = plan.direct_store(self, &job, *position);
                let destination = match direct {
                    Some(access) => self.address_at(access, job.variable, low),
                    None => {
                        let memory = self.reserve(&Size::from(4 * STRIP));
                        let row = self.strip_row(plan.typed.elements[*position as usize], low, memory);
                        job.given.insert(*position, row);
                        memory
                    }
                };
                if let Some(access) = direct {
                    job.sinks.retain(|sink| !matches!(sink, Sink::Memory(store) if store.access == access));
                }
                let mut operand = |emitter: &mut Self, job: &Job<'_>, value: u32, own: Option<Value>| {
                    if let Some(source) = plan.in_memory(emitter, job, value, low) {
                        return source;
                    }
                    let memory = own.unwrap_or_else(|| emitter.reserve(&Size::from(4 * STRIP)));
                    let row = emitter.strip_row(ElementType::F32, low, memory);
                    sinks.push(Sink::Row { row, value });
                    memory
                };
                // An operand may be computed in place of the result, unless another stage still reads memory there.
                let own = direct.is_none().then_some(destination);
                let a = operand(self, &job, first, own);
                let b = second.map(|second| operand(self, &job, second, None));
                calls.push((function, destination, a, b));
            }
            if !sinks.is_empty() {
                // Results of this level are not there yet.
                let mut stage = Job { sinks, ..job.clone() };
                level.iter().for_each(|position| {
                    stage.given.remove(position);
                });
                self.run_stage(&stage, folded, range);
            }
            for (function, destination, a, b) in calls {
                match b {
                    None => self.call(function, &[destination, a, count]),
                    Some(b) => {
                        let one = self.int(1);
                        self.call(function, &[destination, a, b, count, one, one])
                    }
                };
            }
        }
        if !job.sinks.is_empty() {
            self.run_stage(&job, folded, range);
        }
    }

    /// Loops over a range.
    fn run_stage(&mut self, job: &Job<'_>, folded: &[ElementType], (low, high): (Value, Value)) {
        let needed = job.needed();
        let typed = Typed::for_stage(self, job, folded);
        let extent = self.extent(job.variable);
        let fits = extent.as_constant().is_none_or(|extent| extent >= 4);
        let is_read = |position: usize| needed[position] && !job.given.contains_key(&(position as u32));
        let Some(interior) = Interior::new(self, job.block, job.variable, &[], &is_read).filter(|_| fits) else {
            return self.run_loop(job, &typed, &needed, (low, high), 1);
        };
        if interior.is_everywhere() {
            if typed.stage_has_lanes(self, job, &needed) {
                self.vector_loops(job, &typed, &needed, (low, high));
            } else {
                self.run_loop(job, &typed, &needed, (low, high), 1);
            }
            return;
        }
        let (inside, has_lanes) = interior.assumed(self, |emitter| {
            let inside = Typed::for_stage(emitter, job, folded);
            let has_lanes = inside.stage_has_lanes(emitter, job, &needed);
            (inside, has_lanes)
        });
        if !has_lanes {
            return self.run_loop(job, &typed, &needed, (low, high), 1);
        }
        let (start, end) = interior.range(self, (low, high));
        self.run_loop(job, &typed, &needed, (low, start), 1);
        interior.assumed(self, |emitter| emitter.vector_loops(job, &inside, &needed, (start, end)));
        self.run_loop(job, &typed, &needed, (end, high), 1);
    }

    /// Vectors while they fit, then single positions.
    fn vector_loops(&mut self, job: &Job<'_>, typed: &Typed<'_>, needed: &[bool], (low, high): (Value, Value)) {
        let work = needed.iter().filter(|needed| **needed).count();
        let step = match work {
            0..=10 => 16,
            11..=24 => 8,
            _ => 4,
        };
        let extent = self.extent(job.variable);
        let assumed = self.assumed.last().is_some_and(|conditions| !conditions.is_empty());
        // Ranges are whole chunks and strips, so only the end of the variable leaves a rest.
        let multiple = extent.as_constant().filter(|_| !assumed);
        let mut from = low;
        for step in [step, 4] {
            if multiple.is_some_and(|extent| extent < step) {
                continue;
            }
            let end = if multiple.is_some_and(|extent| extent % step == 0) {
                high
            } else {
                let count = self.builder.ins().isub(high, from);
                let whole = self.builder.ins().band_imm_s(count, -step);
                self.builder.ins().iadd(from, whole)
            };
            self.run_loop(job, typed, needed, (from, end), step);
            if end == high {
                return;
            }
            from = end;
            // A second, narrower vector loop pays for short blocks only.
            if step == 4 || work > 10 || multiple.is_some_and(|extent| extent % step < 4) {
                break;
            }
        }
        self.run_loop(job, typed, needed, (from, high), 1);
    }

    /// The positions of a range when they are few and known, so that each can have its own code: loops over the channels
    /// of an image or the coordinates of a point cost more than what they do.
    fn few(&self, needed: &[bool], (low, high): (Value, Value)) -> Option<std::ops::Range<i64>> {
        /// Positions that are worth no loop.
        const FEW: i64 = 4;
        /// Instructions that they may become.
        const MOST: i64 = 64;
        let constant = |value: Value| {
            let dfg = &self.builder.func.dfg;
            match dfg.insts[dfg.value_def(value).inst()?] {
                InstructionData::UnaryImm { opcode: Opcode::Iconst, imm } => Some(imm.bits()),
                _ => None,
            }
        };
        let range = constant(low)?..constant(high)?;
        let count = range.end.checked_sub(range.start)?;
        let work = needed.iter().filter(|needed| **needed).count() as i64;
        ((1..=FEW).contains(&count) && count * work <= MOST).then_some(range)
    }

    /// One loop, `step` positions at a time.
    fn run_loop(&mut self, job: &Job<'_>, typed: &Typed<'_>, needed: &[bool], (low, high): (Value, Value), step: i64) {
        let mut accesses: Vec<u32> = Vec::new();
        for (position, instruction) in job.block.instructions.iter().enumerate() {
            if let Instruction::Load(access) | Instruction::Inside(access) = instruction
                && needed[position]
            {
                accesses.push(*access);
            }
        }
        let stores: Vec<u32> = job
            .sinks
            .iter()
            .filter_map(|sink| match sink {
                Sink::Memory(store) => Some(store.access),
                Sink::Row { .. } => None,
            })
            .collect();
        let warm = |emitter: &mut Self| {
            accesses.iter().for_each(|access| emitter.warm(*access));
            stores.iter().for_each(|access| emitter.warm_address(*access));
        };
        if step == 1
            && let Some(range) = self.few(needed, (low, high))
        {
            warm(self);
            for place in range {
                let place = self.int(place);
                self.scopes.push(FxHashMap::default());
                self.bind(job.variable, place);
                self.position(job, typed, needed, Width::One);
                self.unbind(job.variable);
                self.scopes.pop();
            }
            return;
        }
        self.loop_over(job.variable, (low, high, step), &[], warm, |emitter, _| {
            if step == 1 {
                emitter.position(job, typed, needed, Width::One);
                return Vec::new();
            }
            for quarter in 0..step as u32 / 4 {
                let width = Width::Four { variable: job.variable, offset: 4 * quarter };
                emitter.position(job, typed, needed, width);
            }
            Vec::new()
        });
    }

    /// One or four positions of a job.
    fn position(&mut self, job: &Job<'_>, typed: &Typed<'_>, needed: &[bool], width: Width) {
        let (lanes, offset) = match width {
            Width::One => (Lanes::One, 0),
            Width::Four { offset, .. } => (Lanes::Four, offset),
        };
        let nothing = self.context;
        let mut values: Vec<Value> = Vec::with_capacity(needed.len());
        for (position, instruction) in job.block.instructions.iter().enumerate() {
            let value = match job.given.get(&(position as u32)) {
                _ if !needed[position] => nothing,
                Some(row) => self.read_row(*row, job.variable, offset, lanes),
                None => self.instruction(typed, position, instruction, &values, &[], width),
            };
            values.push(value);
        }
        for sink in &job.sinks {
            let place = sink.value() as usize;
            let mut value = values[place];
            if lanes == Lanes::Four && !typed.varying[place] {
                value = self.spread(typed.elements[place], value, lanes);
            }
            match sink {
                Sink::Row { row, .. } => self.write_row(*row, job.variable, offset, value, lanes),
                Sink::Memory(store) => {
                    if let Some(monoid) = store.combine {
                        value = self.combine(monoid, store.access, value, width);
                    }
                    match lanes {
                        Lanes::Four => self.store_lanes(store.access, job.variable, offset, value),
                        Lanes::One => self.store(store.access, value),
                    }
                }
            }
        }
    }
}

/// Bytes of a value in a row.
pub fn row_bytes(element: ElementType) -> i64 {
    i64::from(register(element, Lanes::One).bytes()).max(4)
}

impl<'b> Job<'b> {
    /// Which values the sinks need that are not given.
    fn needed(&self) -> Vec<bool> {
        let mut needed = vec![false; self.block.instructions.len()];
        for sink in &self.sinks {
            needed[sink.value() as usize] = true;
        }
        for position in (0..needed.len()).rev() {
            if !needed[position] || self.given.contains_key(&(position as u32)) {
                continue;
            }
            for operand in operands(&self.block.instructions[position]) {
                needed[operand as usize] = true;
            }
        }
        needed
    }

    /// Whether the job has functions that are computed in strips.
    pub fn needs_strips(&self, emitter: &Emitter<'_>, folded: &[ElementType]) -> bool {
        !Stages::new(emitter, self, folded).levels.is_empty()
    }
}

/// The values an instruction reads.
pub fn operands(instruction: &Instruction) -> Vec<u32> {
    match instruction {
        Instruction::Unary(_, a) | Instruction::Cast(_, a) => vec![*a],
        Instruction::Binary(_, a, b) => vec![*a, *b],
        Instruction::Select(a, b, c) => vec![*a, *b, *c],
        _ => Vec::new(),
    }
}

impl<'b> Typed<'b> {
    /// The block of a job, whose given values vary.
    fn for_stage(emitter: &Emitter<'_>, job: &Job<'b>, folded: &[ElementType]) -> Self {
        let mut typed = Typed::new(emitter, job.block, folded, Some(job.variable));
        for (position, instruction) in job.block.instructions.iter().enumerate() {
            let given = job.given.contains_key(&(position as u32));
            if given || operands(instruction).iter().any(|operand| typed.varying[*operand as usize]) {
                typed.varying[position] = true;
            }
        }
        typed
    }

    /// Whether what is needed can be computed, and stored, four positions at a time.
    fn stage_has_lanes(&self, emitter: &Emitter<'_>, job: &Job<'_>, needed: &[bool]) -> bool {
        let values = job.block.instructions.iter().enumerate().all(|(position, instruction)| {
            !needed[position]
                || !self.varying[position]
                || scalar::has_lanes(self.elements[position])
                    && (job.given.contains_key(&(position as u32))
                        || match instruction {
                            Instruction::Load(access) => emitter.has_stride(*access, job.variable),
                            Instruction::Inside(_) => false,
                            _ => true,
                        })
        });
        values
            && job.sinks.iter().all(|sink| match sink {
                Sink::Row { value, .. } => scalar::has_lanes(self.elements[*value as usize]),
                Sink::Memory(store) => {
                    scalar::has_lanes(self.elements[store.value as usize])
                        && emitter.has_stride(store.access, job.variable)
                        && !emitter.kernel.accesses[store.access as usize].address.coefficient(job.variable).is(0)
                }
            })
    }
}

/// The strip functions of a job by level: those of one level depend on results of lower levels only.
struct Stages<'b> {
    typed: Typed<'b>,
    levels: Vec<Vec<u32>>,
}

impl<'b> Stages<'b> {
    fn new(emitter: &Emitter<'_>, job: &Job<'b>, folded: &[ElementType]) -> Self {
        let typed = Typed::for_stage(emitter, job, folded);
        let needed = job.needed();
        let mut level_of = vec![0usize; needed.len()];
        let mut levels: Vec<Vec<u32>> = Vec::new();
        for (position, instruction) in job.block.instructions.iter().enumerate() {
            if !needed[position] || job.given.contains_key(&(position as u32)) {
                continue;
            }
            let below = operands(instruction).iter().map(|operand| level_of[*operand as usize]).max().unwrap_or(0);
            level_of[position] = below;
            if strip_function(instruction).is_some() && is_single(typed.elements[position]) && typed.varying[position] {
                level_of[position] = below + 1;
                if levels.len() <= below {
                    levels.push(Vec::new());
                }
                levels[below].push(position as u32);
            }
        }
        Stages { typed, levels }
    }

    /// Where a value lies as contiguous f32, if it lies in memory.
    fn in_memory(&self, emitter: &mut Emitter<'_>, job: &Job<'_>, value: u32, low: Value) -> Option<Value> {
        if let Some(row) = job.given.get(&value) {
            // Half types are not rounded there.
            return (row.element == ElementType::F32).then(|| emitter.row_address(*row, low));
        }
        let Instruction::Load(access) = job.block.instructions[value as usize] else { return None };
        let contiguous = self.typed.elements[value as usize] == ElementType::F32
            && emitter.is_contiguous(access, job.variable)
            && emitter.guard_is_known(access)
            && emitter.kernel.accesses[access as usize].checked.is_empty();
        contiguous.then(|| emitter.address_at(access, job.variable, low))
    }

    /// The access to which a strip function may write its result: the only use of the result is a store to contiguous
    /// f32, and nothing else of the job touches that memory.
    fn direct_store(&self, emitter: &Emitter<'_>, job: &Job<'_>, position: u32) -> Option<u32> {
        if self.typed.elements[position as usize] != ElementType::F32 {
            return None;
        }
        let used = job.block.instructions.iter().any(|instruction| operands(instruction).contains(&position));
        let mut sinks = job.sinks.iter().filter(|sink| sink.value() == position);
        let (Some(Sink::Memory(store)), None, false) = (sinks.next(), sinks.next(), used) else { return None };
        let write = &emitter.kernel.accesses[store.access as usize];
        let alone = job.block.instructions.iter().all(|instruction| match instruction {
            Instruction::Load(access) => emitter.kernel.accesses[*access as usize].pointer != write.pointer,
            _ => true,
        });
        let contiguous = emitter.is_contiguous(store.access, job.variable) && write.checked.is_empty();
        (alone && contiguous && store.combine.is_none()).then_some(store.access)
    }
}
