//! Queries, keys and values as matrices: as they lie in memory, or copied to scratch memory where they lie otherwise.

use crate::{
    codegen::{
        emit::Emitter,
        strip::{Job, Row, Sink},
    },
    plan::kernel::{Block, Instruction},
};
use cranelift_codegen::ir::{InstBuilder, Value};
use strang_ir::{ElementType, Size};

/// An operand with a variable of its rows and a variable of the elements of a row.
pub(super) struct Matrix {
    access: u32,
    rows: u32,
    elements: u32,
    /// Where rows are copied to, one after the other.
    copy: Option<Value>,
}

impl Matrix {
    /// Of an access; `count` rows of it are in use at a time.
    pub(super) fn new(emitter: &mut Emitter<'_>, access: u32, [rows, elements]: [u32; 2], count: &Size) -> Self {
        let in_place =
            emitter.is_plain(access) && emitter.has_stride(access, rows) && emitter.has_stride(access, elements);
        let copy = (!in_place).then(|| {
            let bytes = count * &emitter.extent(elements) * Size::from(4);
            emitter.reserve(&bytes)
        });
        Matrix { access, rows, elements, copy }
    }

    pub(super) fn is_copied(&self) -> bool {
        self.copy.is_some()
    }

    /// Whether the elements of a row are adjacent.
    pub(super) fn is_contiguous(&self, emitter: &Emitter<'_>) -> bool {
        self.is_copied() || emitter.is_contiguous(self.access, self.elements)
    }

    /// The distances of two rows and of two elements.
    pub(super) fn strides(&self, emitter: &mut Emitter<'_>) -> [Value; 2] {
        let strides = match self.copy {
            Some(_) => [emitter.extent(self.elements), Size::ONE],
            None => {
                let address = &emitter.kernel.accesses[self.access as usize].address;
                [self.rows, self.elements].map(|variable| address.coefficient(variable))
            }
        };
        strides.map(|stride| emitter.size(&stride))
    }

    /// Where the row `low` lies, the first that was copied if rows are.
    pub(super) fn start(&self, emitter: &mut Emitter<'_>, low: Value) -> Value {
        match self.copy {
            Some(memory) => memory,
            None => emitter.address_at(self.access, self.rows, low),
        }
    }

    /// Copies some rows, unless they are read in place.
    pub(super) fn copy(&self, emitter: &mut Emitter<'_>, (low, high): (Value, Value)) {
        let Some(memory) = self.copy else { return };
        let block = Block { instructions: vec![Instruction::Load(self.access)] };
        let extent = emitter.extent(self.elements);
        emitter.loop_over(
            self.rows,
            (low, high, 1),
            &[memory],
            |_| {},
            |emitter, base| {
                let sink = Sink::Row { row: Row { base: base[0], element: ElementType::F32 }, value: 0 };
                let job = Job { block: &block, variable: self.elements, given: Default::default(), sinks: vec![sink] };
                let range = (emitter.int(0), emitter.size(&extent));
                emitter.run_in_strips(&job, &[], range);
                let bytes = emitter.size(&(&extent * &Size::from(4)));
                vec![emitter.builder.ins().iadd(base[0], bytes)]
            },
        );
    }
}
