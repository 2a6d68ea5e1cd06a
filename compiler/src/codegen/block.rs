//! Straight-line blocks: at one position of the loop variables, or at four adjacent positions of one of them.

use super::{
    emit::Emitter,
    scalar::{self, Lanes},
};
use crate::plan::kernel::{Block, Instruction};
use cranelift_codegen::ir::{
    InstBuilder, Value,
    condcodes::IntCC,
    types::{I8, I32},
};
use strang_ir::{Atom, Condition, ElementType, IndexExpr, Literal, Size};

/// Which positions a block is computed at.
#[derive(Clone, Copy, Debug)]
pub enum Width {
    /// That of the bound variables.
    One,
    /// Four, from the bound value of a variable plus an offset.
    Four {
        /// The variable.
        variable: u32,
        /// Added to its bound value.
        offset: u32,
    },
}

/// A block with what is known of it beforehand.
#[derive(Clone, Debug)]
pub struct Typed<'b> {
    /// The instructions.
    pub block: &'b Block,
    /// The type of each value.
    pub elements: Vec<ElementType>,
    /// Whether each value differs between positions of the variable that is computed four at a time.
    pub varying: Vec<bool>,
}

impl<'b> Typed<'b> {
    /// A block whose folded values have the given types, as seen by a loop over `variable`.
    pub fn new(emitter: &Emitter<'_>, block: &'b Block, folded: &[ElementType], variable: Option<u32>) -> Self {
        let elements = block.elements(&emitter.kernel.accesses, folded);
        let mut varying: Vec<bool> = Vec::with_capacity(elements.len());
        for instruction in &block.instructions {
            let varies = variable.is_some_and(|variable| match instruction {
                Instruction::Load(access) => emitter.mentions(*access, variable),
                Instruction::Inside(access) => emitter.guard_mentions(*access, variable),
                Instruction::Index(other) => *other == variable,
                Instruction::Size(_) | Instruction::Literal(_) => false,
                Instruction::Unary(_, a) | Instruction::Cast(_, a) => varying[*a as usize],
                Instruction::Binary(_, a, b) => varying[*a as usize] || varying[*b as usize],
                Instruction::Select(a, b, c) => [a, b, c].iter().any(|value| varying[**value as usize]),
                Instruction::Folded(_) => true,
            });
            varying.push(varies);
        }
        Typed { block, elements, varying }
    }

    /// Whether the block can be computed four positions of the variable at a time.
    pub fn has_lanes(&self, emitter: &Emitter<'_>, variable: u32) -> bool {
        self.block.instructions.iter().enumerate().all(|(position, instruction)| {
            !self.varying[position]
                || scalar::has_lanes(self.elements[position])
                    && match instruction {
                        Instruction::Load(access) => emitter.has_stride(*access, variable),
                        Instruction::Inside(_) => false,
                        _ => true,
                    }
        })
    }

    /// The accesses that the block loads or asks about.
    pub fn accesses(&self) -> impl Iterator<Item = u32> + '_ {
        self.block.instructions.iter().filter_map(|instruction| match instruction {
            Instruction::Load(access) | Instruction::Inside(access) => Some(*access),
            _ => None,
        })
    }
}

impl Emitter<'_> {
    /// The values of a block. At four positions, those that vary are vectors and the others scalars.
    pub fn block(&mut self, typed: &Typed<'_>, folded: &[Value], width: Width) -> Vec<Value> {
        let mut values: Vec<Value> = Vec::with_capacity(typed.elements.len());
        for (position, instruction) in typed.block.instructions.iter().enumerate() {
            let value = self.instruction(typed, position, instruction, &values, folded, width);
            values.push(value);
        }
        values
    }

    /// One value of a block from those before it.
    pub fn instruction(
        &mut self,
        typed: &Typed<'_>,
        position: usize,
        instruction: &Instruction,
        values: &[Value],
        folded: &[Value],
        width: Width,
    ) -> Value {
        let lanes = match width {
            Width::Four { .. } if typed.varying[position] => Lanes::Four,
            _ => Lanes::One,
        };
        let operand = |emitter: &mut Self, value: u32| {
            let scalar = values[value as usize];
            if lanes == Lanes::Four && !typed.varying[value as usize] {
                emitter.spread(typed.elements[value as usize], scalar, lanes)
            } else {
                scalar
            }
        };
        match instruction {
            Instruction::Load(access) => match width {
                Width::Four { variable, offset } if lanes == Lanes::Four => self.load_lanes(*access, variable, offset),
                _ => self.load(*access),
            },
            Instruction::Inside(access) => match self.guard(*access) {
                Some(inside) => inside,
                None => self.builder.ins().iconst(I8, 1),
            },
            Instruction::Index(variable) => self.index(&IndexExpr::variable(*variable)),
            Instruction::Size(size) => self.size(size),
            Instruction::Literal(literal) => self.literal(*literal, Lanes::One),
            Instruction::Unary(function, a) => {
                let x = operand(self, *a);
                self.unary(*function, typed.elements[*a as usize], x, lanes)
            }
            Instruction::Binary(function, a, b) => {
                let bound = literal(typed.block, *b);
                let (x, y) = (operand(self, *a), operand(self, *b));
                self.binary(*function, typed.elements[*a as usize], (x, y), bound, lanes)
            }
            Instruction::Select(condition, a, b) => {
                let (c, x, y) = (operand(self, *condition), operand(self, *a), operand(self, *b));
                self.select(c, x, y, lanes)
            }
            Instruction::Cast(to, a) => {
                let x = operand(self, *a);
                self.cast(typed.elements[*a as usize], *to, x, lanes)
            }
            Instruction::Folded(fold) => folded[*fold as usize],
        }
    }

    /// Four elements of an access that [`Self::has_stride`] in the variable.
    pub fn load_lanes(&mut self, access: u32, variable: u32, offset: u32) -> Value {
        let kernel = self.kernel;
        let read = &kernel.accesses[access as usize];
        let inside = self.guard(access);
        self.check(access, inside);
        match (inside, &read.guard) {
            (Some(inside), Some(guard)) => self.choose(
                inside,
                |emitter| vec![emitter.load_lanes_inside(access, variable, offset)],
                |emitter| vec![emitter.literal(guard.fill, Lanes::Four)],
            )[0],
            _ => self.load_lanes_inside(access, variable, offset),
        }
    }

    fn load_lanes_inside(&mut self, access: u32, variable: u32, offset: u32) -> Value {
        let kernel = self.kernel;
        let read = &kernel.accesses[access as usize];
        let flags = self.read_flags(access);
        let bytes = i64::from(read.element.bits() / 8);
        let stride = read.address.coefficient(variable) * Size::from(bytes);
        let (place, displacement) = self.address(access);
        if let Some(stride) = stride.as_constant().and_then(|stride| i32::try_from(stride).ok())
            && (stride.abs() < 1 << 20 || i64::from(stride) == bytes)
        {
            let start = displacement + stride * offset as i32;
            if i64::from(stride) == bytes {
                return self.load_at(read.element, flags, place, start, Lanes::Four);
            }
            let lanes: Vec<Value> = (0..4)
                .map(|lane| self.load_at(read.element, flags, place, start + stride * lane, Lanes::One))
                .collect();
            return self.gathered(read.element, &lanes);
        }
        let stride = self.size(&stride);
        let lanes: Vec<Value> = (0..4)
            .map(|lane| {
                let ahead = self.builder.ins().imul_imm_s(stride, i64::from(offset) + lane);
                let place = self.builder.ins().iadd(place, ahead);
                self.load_at(read.element, flags, place, displacement, Lanes::One)
            })
            .collect();
        self.gathered(read.element, &lanes)
    }

    /// A vector from its lanes.
    pub fn gathered(&mut self, element: ElementType, lanes: &[Value]) -> Value {
        let lane_of = |emitter: &mut Self, value: Value| match element {
            ElementType::Bool => emitter.builder.ins().bmask(I32, value),
            _ => value,
        };
        let first = lane_of(self, lanes[0]);
        let mut vector = self.builder.ins().scalar_to_vector(scalar::register(element, Lanes::Four), first);
        for (lane, value) in lanes.iter().enumerate().skip(1) {
            let value = lane_of(self, *value);
            vector = self.builder.ins().insertlane(vector, value, lane as u8);
        }
        vector
    }

    /// Writes four elements through an access that [`Self::has_stride`] in the variable.
    pub fn store_lanes(&mut self, access: u32, variable: u32, offset: u32, value: Value) {
        let kernel = self.kernel;
        let write = &kernel.accesses[access as usize];
        let stride = write.address.coefficient(variable) * Size::from(i64::from(write.element.bits() / 8));
        let (place, displacement) = self.address(access);
        if write.address.coefficient(variable).is(1) {
            let bytes = write.element.bits() / 8;
            self.store_at(write.element, value, place, displacement + (offset * bytes) as i32, Lanes::Four);
            return;
        }
        let stride = self.size(&stride);
        for lane in 0..4u8 {
            let mut scalar = self.builder.ins().extractlane(value, lane);
            if write.element == ElementType::Bool {
                scalar = self.builder.ins().icmp_imm_s(IntCC::NotEqual, scalar, 0);
            }
            let ahead = self.builder.ins().imul_imm_s(stride, i64::from(offset) + i64::from(lane));
            let place = self.builder.ins().iadd(place, ahead);
            self.store_at(write.element, scalar, place, displacement, Lanes::One);
        }
    }

    /// Whether anything about an access differs between positions of a variable.
    pub fn mentions(&self, access: u32, variable: u32) -> bool {
        let read = &self.kernel.accesses[access as usize];
        self.expression_mentions(&read.address, variable)
            || read.checked.iter().any(|(expression, _)| self.expression_mentions(expression, variable))
            || self.guard_mentions(access, variable)
    }

    /// Whether the guard of an access differs between positions of a variable.
    pub fn guard_mentions(&self, access: u32, variable: u32) -> bool {
        let guard = self.kernel.accesses[access as usize].guard.iter().flat_map(|guard| &guard.conditions);
        guard
            .filter(|condition| !self.always(condition))
            .any(|condition: &Condition| self.expression_mentions(condition.expression(), variable))
    }

    /// Whether an expression differs between positions of a variable, through what it reads too.
    pub fn expression_mentions(&self, expression: &IndexExpr, variable: u32) -> bool {
        expression.terms().iter().any(|(atom, _)| match atom {
            Atom::Variable(other) => *other == variable,
            Atom::FloorDiv(inner, _) | Atom::Remainder(inner, _) | Atom::Clamp(inner, ..) | Atom::Table(_, inner) => {
                self.expression_mentions(inner, variable)
            }
            Atom::Read(access) => self.mentions(*access, variable),
        })
    }

    /// Whether the guard of an access is known to hold.
    pub fn guard_is_known(&self, access: u32) -> bool {
        let guard = &self.kernel.accesses[access as usize].guard;
        guard.as_ref().is_none_or(|guard| guard.conditions.iter().all(|condition| self.always(condition)))
    }

    /// Whether an access is to f32 without guard or checks, so that kernels of the table may go there.
    pub fn is_plain(&self, access: u32) -> bool {
        let place = &self.kernel.accesses[access as usize];
        place.element == ElementType::F32 && self.guard_is_known(access) && place.checked.is_empty()
    }

    /// Whether an access moves by one stride with a variable: only a plain term of its address mentions it, and its guard
    /// does not.
    pub fn has_stride(&self, access: u32, variable: u32) -> bool {
        let read = &self.kernel.accesses[access as usize];
        read.element.bits() >= 8
            && !self.guard_mentions(access, variable)
            && !read.checked.iter().any(|(expression, _)| self.expression_mentions(expression, variable))
            && self.is_linear(&read.address, variable)
    }

    /// Whether a variable occurs in an expression as a plain term only.
    pub fn is_linear(&self, expression: &IndexExpr, variable: u32) -> bool {
        expression.terms().iter().all(|(atom, _)| match atom {
            Atom::Variable(_) => true,
            other => !self.expression_mentions(&IndexExpr::atom(other.clone()), variable),
        })
    }

    /// Whether an access has a stride of one element in a variable.
    pub fn is_contiguous(&self, access: u32, variable: u32) -> bool {
        self.has_stride(access, variable) && self.kernel.accesses[access as usize].address.coefficient(variable).is(1)
    }
}

/// The number that a value is, when it is a literal.
fn literal(block: &Block, value: u32) -> Option<Literal> {
    match block.instructions[value as usize] {
        Instruction::Literal(literal) => Some(literal),
        _ => None,
    }
}
