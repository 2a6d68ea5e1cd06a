//! The builder of one kernel's function: arguments, loops, branches, scratch memory and calls into the kernel table.
//!
//! A kernel is `fn(context, step, scratch, lo, hi) -> status`. Every address and every size that is not a number becomes
//! a *slot*, one word of `step`, so that code depends on neither and equal kernels share it. Slots are loaded in the entry
//! block. Values are remembered in scopes that follow the blocks: what an outer loop computed, an inner loop finds.

use super::{Target, check};
use crate::plan::kernel::{Kernel, LoopVariable};
use cranelift_codegen::{
    cursor::{Cursor, FuncCursor},
    ir::{
        AbiParam, Block, BlockArg, Function as Code, Inst, InstBuilder, MemFlagsData, SigRef, Signature, StackSlot,
        StackSlotData, StackSlotKind, Type, UserFuncName, Value,
        condcodes::IntCC,
        types::{F32, F64, I32, I64},
    },
};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use rustc_hash::{FxHashMap, FxHashSet};
use std::{mem::offset_of, sync::Arc};
use strang_ir::{Atom, Condition, IndexExpr, Size};
use strang_runtime::{
    kernels::{Function, Parameter},
    program::{Address, Context, status},
};

/// A word of a kernel's arguments.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// An address.
    Address(Address),
    /// A size.
    Size(Size),
    /// The address of constant data: the table of an index expression, 64-bit integers.
    Table(Arc<[i64]>),
}

/// The code of one kernel before Cranelift compiles it, and what a step that calls it says.
#[derive(Clone, Debug)]
pub struct Emitted {
    /// The function.
    pub code: Code,
    /// Its arguments.
    pub slots: Vec<Slot>,
    /// The number of tiles.
    pub grid: Size,
    /// Bytes of scratch memory a worker needs.
    pub scratch: Size,
    /// What kind of kernel it is, for profiles.
    pub kind: &'static str,
    /// The buffers in which it hands addresses to kernels of the runtime.
    pub handed: FxHashSet<u32>,
}

/// What a remembered value is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Memo {
    /// The sum of some terms of an index expression, times a number of bytes, from a pointer when one is given.
    Sum(Option<u32>, i64, IndexExpr),
    /// An atom of an index expression.
    Atom(Atom),
    /// Whether a condition holds.
    Condition(Condition),
    /// The value of an access that does not vary.
    Load(u32),
    /// The checks of an access have been made; the value says nothing.
    Checked(u32),
}

/// Builds one function.
pub struct Emitter<'f> {
    /// Cranelift's builder.
    pub builder: FunctionBuilder<'f>,
    /// The kernel that is compiled.
    pub kernel: &'f Kernel,
    /// The machine it is compiled for.
    pub target: &'f Target,
    /// The first tile to run.
    pub lo: Value,
    /// One past the last tile to run.
    pub hi: Value,
    pub(super) context: Value,
    step: Value,
    scratch: Value,
    /// A pointer of the kernel that is scratch memory.
    placed: Option<(u32, Value)>,
    scratch_used: Size,
    entry_end: Inst,
    slots: Vec<Slot>,
    slot_values: FxHashMap<Slot, Value>,
    /// The buffers whose addresses are handed to others.
    pub(super) handed: FxHashSet<u32>,
    signatures: FxHashMap<Function, SigRef>,
    callees: FxHashMap<Function, Value>,
    table: Option<Value>,
    failure: Option<Block>,
    cell: Option<StackSlot>,
    pub(super) scopes: Vec<FxHashMap<Memo, Value>>,
    pub(super) bindings: Vec<Option<Binding>>,
    /// For every pointer of the kernel, whether the kernel writes through it.
    pub(super) written: Vec<bool>,
    /// Whether loads may move before loops, because no loop around them can be empty.
    pub(super) loads_may_move: bool,
    /// Conditions that hold where code is being emitted, by range.
    pub(super) assumed: Vec<Vec<Condition>>,
}

/// The current value of a loop variable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Binding {
    pub value: Value,
    /// The number of scopes when it was bound: how deep in the loops it is.
    pub depth: usize,
}

/// The signature of kernels.
fn signature(target: &Target) -> Signature {
    let mut signature = Signature::new(target.isa.default_call_conv());
    signature.params.extend([AbiParam::new(I64); 5]);
    signature.returns.push(AbiParam::new(I32));
    signature
}

/// Compiles a kernel's function with `body`, which says the number of tiles and the kind of kernel.
pub fn emit(kernel: &Kernel, target: &Target, body: impl FnOnce(&mut Emitter<'_>) -> (Size, &'static str)) -> Emitted {
    let mut code = Code::with_name_signature(UserFuncName::user(0, 0), signature(target));
    let mut builder_context = FunctionBuilderContext::new();
    let mut emitter = Emitter::new(kernel, target, &mut code, &mut builder_context);
    let (grid, kind) = body(&mut emitter);
    let handed = std::mem::take(&mut emitter.handed);
    let (slots, scratch) = emitter.finish();
    Emitted { code, slots, grid, scratch, kind, handed }
}

impl<'f> Emitter<'f> {
    fn new(
        kernel: &'f Kernel,
        target: &'f Target,
        code: &'f mut Code,
        builder_context: &'f mut FunctionBuilderContext,
    ) -> Self {
        let mut builder = FunctionBuilder::new(code, builder_context);
        let entry = builder.create_block();
        builder.append_block_params_for_function_params(entry);
        builder.switch_to_block(entry);
        let parameters = builder.block_params(entry).to_vec();
        let start = builder.create_block();
        let entry_end = builder.ins().jump(start, &[]);
        builder.switch_to_block(start);
        let mut written = vec![false; kernel.pointers.len()];
        for store in check::stores(&kernel.body) {
            written[kernel.accesses[store.access as usize].pointer as usize] = true;
        }
        let mut emitter = Emitter {
            builder,
            kernel,
            target,
            context: parameters[0],
            step: parameters[1],
            scratch: parameters[2],
            lo: parameters[3],
            hi: parameters[4],
            placed: None,
            scratch_used: Size::ZERO,
            entry_end,
            slots: Vec::new(),
            slot_values: FxHashMap::default(),
            handed: FxHashSet::default(),
            signatures: FxHashMap::default(),
            callees: FxHashMap::default(),
            table: None,
            failure: None,
            cell: None,
            scopes: vec![FxHashMap::default()],
            bindings: vec![None; kernel.variables.len()],
            written,
            loads_may_move: true,
            assumed: Vec::new(),
        };
        for (position, variable) in kernel.variables.iter().enumerate() {
            if let LoopVariable::Counter(depth) = variable {
                let offset = offset_of!(Context, counters) + 8 * *depth as usize;
                let value = emitter.entry_load(emitter.context, offset as i32);
                emitter.bindings[position] = Some(Binding { value, depth: 0 });
            }
        }
        emitter
    }

    /// A word loaded in the entry block.
    fn entry_load(&mut self, base: Value, offset: i32) -> Value {
        let flags = MemFlagsData::new().with_notrap().with_readonly().with_can_move();
        let mut cursor = FuncCursor::new(self.builder.func).at_inst(self.entry_end);
        cursor.ins().load(I64, flags, base, offset)
    }

    /// The value of a slot.
    pub fn slot(&mut self, slot: Slot) -> Value {
        if let Some(value) = self.slot_values.get(&slot) {
            return *value;
        }
        let value = self.entry_load(self.step, 8 * self.slots.len() as i32);
        self.slots.push(slot.clone());
        self.slot_values.insert(slot, value);
        value
    }

    /// The start of one of the kernel's pieces of memory.
    pub fn base(&mut self, pointer: u32) -> Value {
        if let Some((placed, memory)) = self.placed
            && placed == pointer
        {
            return memory;
        }
        self.slot(Slot::Address(self.kernel.pointers[pointer as usize].clone()))
    }

    /// A size: an immediate when it is a number, else a slot.
    pub fn size(&mut self, size: &Size) -> Value {
        match size.as_constant() {
            Some(value) => self.int(value),
            None => self.slot(Slot::Size(size.clone())),
        }
    }

    /// A 64-bit integer.
    pub fn int(&mut self, value: i64) -> Value {
        self.builder.ins().iconst(I64, value)
    }

    /// A value times a size.
    pub fn times(&mut self, value: Value, size: &Size) -> Value {
        match size.as_constant() {
            Some(1) => value,
            Some(factor) => self.builder.ins().imul_imm_s(value, factor),
            None => {
                let factor = self.size(size);
                self.builder.ins().imul(value, factor)
            }
        }
    }

    /// Sets some bytes of the worker's scratch memory aside for the whole kernel: their address, 64-byte aligned.
    pub fn reserve(&mut self, bytes: &Size) -> Value {
        let offset = self.scratch_used.clone();
        let rounded = bytes.ceil_div(&Size::from(64)) * Size::from(64);
        self.scratch_used += rounded;
        if offset.is(0) {
            return self.scratch;
        }
        // In the entry block, so that it is computed once.
        match offset.as_constant() {
            Some(offset) => {
                let mut cursor = FuncCursor::new(self.builder.func).at_inst(self.entry_end);
                cursor.ins().iadd_imm_s(self.scratch, offset)
            }
            None => {
                let offset = self.size(&offset);
                let mut cursor = FuncCursor::new(self.builder.func).at_inst(self.entry_end);
                cursor.ins().iadd(self.scratch, offset)
            }
        }
    }

    /// From now on a pointer is scratch memory that was set aside.
    pub fn place(&mut self, pointer: u32, memory: Value) {
        self.placed = Some((pointer, memory));
    }

    /// Sixteen bytes of stack, for scalars that pass through memory.
    pub fn cell(&mut self) -> Value {
        let cell = match self.cell {
            Some(cell) => cell,
            None => {
                let data = StackSlotData::new(StackSlotKind::ExplicitSlot, 16, 4);
                *self.cell.insert(self.builder.create_sized_stack_slot(data))
            }
        };
        self.builder.ins().stack_addr(I64, cell, 0)
    }

    /// Calls a function of the kernel table.
    pub fn call(&mut self, function: Function, arguments: &[Value]) -> Option<Value> {
        let convention = self.target.isa.default_call_conv();
        let builder = &mut self.builder;
        let signature = *self.signatures.entry(function).or_insert_with(|| {
            let mut signature = Signature::new(convention);
            signature.params.extend(function.parameters().iter().map(|parameter| AbiParam::new(passed(*parameter))));
            signature.returns.extend(function.result().map(|result| AbiParam::new(passed(result))));
            builder.import_signature(signature)
        });
        let table = match self.table {
            Some(table) => table,
            None => {
                let table = self.entry_load(self.context, offset_of!(Context, kernels) as i32);
                *self.table.insert(table)
            }
        };
        let callee = match self.callees.get(&function) {
            Some(callee) => *callee,
            None => {
                let callee = self.entry_load(table, function.offset() as i32);
                self.callees.insert(function, callee);
                callee
            }
        };
        let call = self.builder.ins().call_indirect(signature, callee, arguments);
        self.builder.inst_results(call).first().copied()
    }

    /// Runs `body` for `low, low + step, ...` below `high`, passing values from one iteration to the next; `prepare` runs
    /// once before the first iteration, and only if there is one.
    pub fn fold(
        &mut self,
        (low, high, step): (Value, Value, i64),
        carried: &[Value],
        prepare: impl FnOnce(&mut Self),
        body: impl FnOnce(&mut Self, Value, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let (before, header, exit) =
            (self.builder.create_block(), self.builder.create_block(), self.builder.create_block());
        let index = self.builder.append_block_param(header, I64);
        let (mut inside, mut after) = (Vec::new(), Vec::new());
        for value in carried {
            let kind = self.builder.func.dfg.value_type(*value);
            inside.push(self.builder.append_block_param(header, kind));
            after.push(self.builder.append_block_param(exit, kind));
        }
        let starts = self.builder.ins().icmp(IntCC::SignedLessThan, low, high);
        self.builder.ins().brif(starts, before, &[], exit, &arguments(carried));
        self.builder.switch_to_block(before);
        self.scopes.push(FxHashMap::default());
        prepare(self);
        let first: Vec<Value> = [&[low], carried].concat();
        self.builder.ins().jump(header, &arguments(&first));
        self.builder.switch_to_block(header);
        self.scopes.push(FxHashMap::default());
        let results = body(self, index, &inside);
        self.scopes.pop();
        self.scopes.pop();
        let next = self.builder.ins().iadd_imm_s(index, step);
        let goes_on = self.builder.ins().icmp(IntCC::SignedLessThan, next, high);
        let again: Vec<Value> = [&[next], results.as_slice()].concat();
        self.builder.ins().brif(goes_on, header, &arguments(&again), exit, &arguments(&results));
        self.builder.switch_to_block(exit);
        after
    }

    /// Runs `body` for `low, low + step, ...` below `high`.
    pub fn each(&mut self, range: (Value, Value, i64), body: impl FnOnce(&mut Self, Value)) {
        self.fold(
            range,
            &[],
            |_| {},
            |emitter, index, _| {
                body(emitter, index);
                Vec::new()
            },
        );
    }

    /// Runs one of two branches, which yield values of the same types.
    pub fn choose(
        &mut self,
        condition: Value,
        then: impl FnOnce(&mut Self) -> Vec<Value>,
        otherwise: impl FnOnce(&mut Self) -> Vec<Value>,
    ) -> Vec<Value> {
        let (yes, no, exit) = (self.builder.create_block(), self.builder.create_block(), self.builder.create_block());
        self.builder.ins().brif(condition, yes, &[], no, &[]);
        self.builder.switch_to_block(yes);
        self.scopes.push(FxHashMap::default());
        let results = then(self);
        self.scopes.pop();
        let mut after = Vec::new();
        for value in &results {
            let kind = self.builder.func.dfg.value_type(*value);
            after.push(self.builder.append_block_param(exit, kind));
        }
        self.builder.ins().jump(exit, &arguments(&results));
        self.builder.switch_to_block(no);
        self.scopes.push(FxHashMap::default());
        let results = otherwise(self);
        self.scopes.pop();
        self.builder.ins().jump(exit, &arguments(&results));
        self.builder.switch_to_block(exit);
        after
    }

    /// Runs `body` when a condition holds.
    pub fn when(&mut self, condition: Value, body: impl FnOnce(&mut Self)) {
        self.choose(
            condition,
            |emitter| {
                body(emitter);
                Vec::new()
            },
            |_| Vec::new(),
        );
    }

    /// Leaves the kernel with [`status::INDEX_OUT_OF_RANGE`] when a condition holds.
    pub fn fail_if(&mut self, condition: Value) {
        let failure = match self.failure {
            Some(block) => block,
            None => {
                let block = self.builder.create_block();
                self.builder.set_cold_block(block);
                *self.failure.insert(block)
            }
        };
        let next = self.builder.create_block();
        self.builder.ins().brif(condition, failure, &[], next, &[]);
        self.builder.switch_to_block(next);
    }

    /// A remembered value.
    pub(super) fn remembered(&self, memo: &Memo) -> Option<Value> {
        self.scopes.iter().rev().find_map(|scope| scope.get(memo)).copied()
    }

    /// Remembers a value that was computed here.
    pub(super) fn remember(&mut self, memo: Memo, value: Value) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(memo, value);
        }
    }

    /// Gives a loop variable its current value.
    pub fn bind(&mut self, variable: u32, value: Value) {
        self.bindings[variable as usize] = Some(Binding { value, depth: self.scopes.len() });
    }

    /// Takes a loop variable's value away, after its loop.
    pub fn unbind(&mut self, variable: u32) {
        self.bindings[variable as usize] = None;
    }

    /// [`Self::fold`] with a loop variable bound to the position.
    pub fn loop_over(
        &mut self,
        variable: u32,
        range: (Value, Value, i64),
        carried: &[Value],
        prepare: impl FnOnce(&mut Self),
        body: impl FnOnce(&mut Self, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let results = self.fold(range, carried, prepare, |emitter, index, carried| {
            emitter.bind(variable, index);
            body(emitter, carried)
        });
        self.unbind(variable);
        results
    }

    /// The smaller of two signed integers.
    pub fn smaller(&mut self, a: Value, b: Value) -> Value {
        let less = self.builder.ins().icmp(IntCC::SignedLessThan, a, b);
        self.builder.ins().select(less, a, b)
    }

    /// The larger of two signed integers.
    pub fn larger(&mut self, a: Value, b: Value) -> Value {
        let less = self.builder.ins().icmp(IntCC::SignedLessThan, a, b);
        self.builder.ins().select(less, b, a)
    }

    /// The extent of a loop variable, as [`LoopVariable::extent`] gives it.
    pub fn extent(&self, variable: u32) -> Size {
        self.kernel.variables.get(variable as usize).map_or(Size::ONE, LoopVariable::extent)
    }

    fn finish(mut self) -> (Vec<Slot>, Size) {
        let ok = self.builder.ins().iconst(I32, i64::from(status::OK));
        self.builder.ins().return_(&[ok]);
        if let Some(failure) = self.failure {
            self.builder.switch_to_block(failure);
            let failed = self.builder.ins().iconst(I32, i64::from(status::INDEX_OUT_OF_RANGE));
            self.builder.ins().return_(&[failed]);
        }
        self.builder.seal_all_blocks();
        self.builder.finalize(self.target.isa.frontend_config());
        (self.slots, self.scratch_used)
    }
}

fn arguments(values: &[Value]) -> Vec<BlockArg> {
    values.iter().copied().map(BlockArg::Value).collect()
}

fn passed(parameter: Parameter) -> Type {
    match parameter {
        Parameter::Word => I64,
        Parameter::F32 => F32,
        Parameter::F64 => F64,
    }
}

/// Memory flags of ordinary accesses: they never trap, and need no alignment (vectors start anywhere).
pub(super) const PLAIN: MemFlagsData = MemFlagsData::new().with_notrap();
