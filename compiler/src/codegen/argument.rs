//! Argument blocks: what kernels of the table take through memory, because it is more than registers hold.

use super::emit::{Emitter, PLAIN};
use cranelift_codegen::ir::{InstBuilder, StackSlot, StackSlotData, StackSlotKind, Value, types::I64};

/// A structure in stack memory, filled in field by field.
#[derive(Clone, Copy, Debug)]
pub(super) struct ArgumentBlock(StackSlot);

impl Emitter<'_> {
    /// Room for a structure of this type; every field must be set before a kernel gets it.
    pub(super) fn argument_block<T>(&mut self) -> ArgumentBlock {
        let data = StackSlotData::new(StackSlotKind::ExplicitSlot, size_of::<T>() as u32, 3);
        ArgumentBlock(self.builder.create_sized_stack_slot(data))
    }

    /// Sets the field at an offset.
    pub(super) fn set(&mut self, block: ArgumentBlock, offset: usize, value: Value) {
        let place = self.builder.ins().stack_addr(I64, block.0, offset as i32);
        self.builder.ins().store(PLAIN, value, place, 0);
    }

    /// Sets several fields.
    pub(super) fn set_all<const COUNT: usize>(&mut self, block: ArgumentBlock, fields: [(usize, Value); COUNT]) {
        fields.into_iter().for_each(|(offset, value)| self.set(block, offset, value));
    }

    /// The address of a block.
    pub(super) fn block_address(&mut self, block: ArgumentBlock) -> Value {
        self.builder.ins().stack_addr(I64, block.0, 0)
    }
}
