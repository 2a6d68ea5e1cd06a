//! What a tile of bytes does to its sums before it stores them, recognised in the finish of a contraction.
//!
//! The chain from the sum on is followed as far as the kernel knows it, in the order in which it applies its steps; see
//! [`strang_runtime::kernels::bytes::ByteBlock`].

use crate::codegen::{
    emit::Emitter,
    epilogue::{Chain, Repertoire, TileVariables, is_plain_of_any_type, single},
};
use crate::plan::{
    evaluate::table,
    kernel::{Block, Instruction, Store},
};
use strang_ir::{
    ElementType,
    scalar::{Binary, Unary},
};
use strang_runtime::kernels::{bytes::Stored, gemm::Activation};

/// How numbers stand for others: `x = (q - zero) * step`, `q = round(x * scale) + zero`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Codes {
    /// The type of `q`.
    pub stored: Stored,
    /// What a number is multiplied with before it is rounded.
    pub scale: f32,
    /// What stands for zero.
    pub zero: f32,
    /// What a whole number is multiplied with when it is read.
    pub step: f32,
}

impl Codes {
    /// Numbers as they are.
    pub const FLOATS: Codes = Codes { stored: Stored::F32, scale: 1., zero: 0., step: 1. };
    /// Sums as they are.
    const SUMS: Codes = Codes { stored: Stored::I32, ..Codes::FLOATS };
}

/// The largest zero, far beyond that of any byte and far below what floats hold exactly.
const LARGEST_ZERO: f32 = 65536.;

/// What the tile is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Requantisation {
    /// An access with what is taken from each column.
    pub offset: Option<u32>,
    /// An access with what is added to each column then.
    pub summand: Option<u32>,
    /// A factor for all sums.
    pub scale: f32,
    /// An access with a factor for each column.
    pub column_scale: Option<u32>,
    /// An access with a summand for each column.
    pub column_bias: Option<u32>,
    /// What the result goes through before the residual is added.
    pub snap: Codes,
    /// An access to an array that is added, and what it stands for.
    pub residual: Option<(u32, Codes)>,
    /// The activation.
    pub activation: Activation,
    /// Its parameters.
    pub parameters: [f32; 2],
    /// How results are stored.
    pub output: Codes,
    /// What is stored in the place of each byte.
    pub table: Option<[u8; 256]>,
    /// What that stands for, if it is looked up before the residual is added.
    pub entries: Codes,
    /// The value of the finish that the tile computes.
    pub result: u32,
    /// Its type.
    pub element: ElementType,
}

impl Requantisation {
    /// Nothing is done to the sum, which is this value of the finish.
    pub fn none(sum: u32) -> Self {
        Requantisation {
            offset: None,
            summand: None,
            scale: 1.,
            column_scale: None,
            column_bias: None,
            snap: Codes::FLOATS,
            residual: None,
            activation: Activation::None,
            parameters: [0.; 2],
            output: Codes::SUMS,
            table: None,
            entries: Codes::FLOATS,
            result: sum,
            element: ElementType::I32,
        }
    }
}

/// How far along the chain is: each step comes after all that are less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Sum,
    Offset,
    Summed,
    Float,
    Scaled,
    ColumnScaled,
    Biased,
    Snapped,
    Added,
    Activated,
    Done,
}

/// How far the chain may be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Not to bytes.
    Numbers,
    /// To bytes.
    Bytes,
    /// To bytes that all that is stored depends on alone, and by a table to what is stored.
    Table,
    /// To bytes, by a table to others, to which a residual is added, and to bytes.
    Entries,
}

/// Follows the chain from the sum. `None` when the finish does not read the sum, or does not do what [`Reach::Entries`] is for.
pub fn recognise(
    emitter: &Emitter<'_>,
    finish: &Block,
    stores: &[Store],
    tile: TileVariables,
    reach: Reach,
) -> Option<Requantisation> {
    let sum = finish.instructions.iter().position(|instruction| matches!(instruction, Instruction::Folded(_)))?;
    let chain = Chain { emitter, finish, stores, tile, repertoire: Repertoire::All };
    let elements = finish.elements(&emitter.kernel.accesses, &[ElementType::I32]);
    let follower = Follower { chain, elements, reach };
    let mut found = Requantisation::none(sum as u32);
    let mut stage = Stage::Sum;
    while let Some(next) = follower.step(&mut found, stage) {
        stage = next;
    }
    // What is looked up first is of no use without what comes after it.
    (reach != Reach::Entries || stage == Stage::Done).then_some(found)
}

struct Follower<'c, 'f> {
    chain: Chain<'c, 'f>,
    /// The types of the values of the finish.
    elements: Vec<ElementType>,
    reach: Reach,
}

impl Follower<'_, '_> {
    fn instruction(&self, value: u32) -> &Instruction {
        &self.chain.finish.instructions[value as usize]
    }

    fn is_stored(&self, value: u32) -> bool {
        self.chain.stores.iter().any(|store| store.value == value)
    }

    /// The only instruction that reads a value, which is not stored.
    fn user(&self, value: u32) -> Option<u32> {
        let [user] = self.chain.users(value)[..] else { return None };
        (!self.is_stored(value)).then_some(user)
    }

    /// What a value is combined with by an instruction, if it is one of both operands.
    fn other(&self, user: u32, function: Binary, value: u32) -> Option<u32> {
        match *self.instruction(user) {
            Instruction::Binary(found, a, b) if found == function && a != b => {
                let commutes = matches!(function, Binary::Add | Binary::Multiply);
                if a == value { Some(b) } else { commutes.then_some(a) }
            }
            _ => None,
        }
    }

    /// A number, written as it is, as a byte that is made a float, or as a product of numbers.
    fn number(&self, value: u32) -> Option<f32> {
        match *self.instruction(value) {
            Instruction::Cast(ElementType::F32, inner) => match *self.instruction(inner) {
                Instruction::Literal(literal) if literal.element.is_integer() => Some(literal.to_f64() as f32),
                _ => None,
            },
            Instruction::Binary(Binary::Multiply, a, b) => Some(self.number(a)? * self.number(b)?),
            _ => single(self.instruction(value)),
        }
    }

    /// An access to one contiguous vector over the columns, the same for all rows.
    fn column(&self, value: u32, element: ElementType) -> Option<u32> {
        let Instruction::Load(access) = *self.instruction(value) else { return None };
        let (emitter, tile) = (self.chain.emitter, self.chain.tile);
        let place = &emitter.kernel.accesses[access as usize];
        let is_column = place.element == element
            && is_plain_of_any_type(emitter, access, tile)
            && place.address.coefficient(tile.rows).is(0);
        is_column.then_some(access)
    }

    /// Takes one more step; says the stage after it.
    fn step(&self, found: &mut Requantisation, stage: Stage) -> Option<Stage> {
        let value = found.result;
        if self.is_stored(value) {
            return None;
        }
        if (Stage::Float..Stage::Activated).contains(&stage)
            && self.reach != Reach::Entries
            && let Some((activation, parameters, result)) = self.chain.activation(value)
        {
            (found.activation, found.parameters, found.result) = (activation, parameters, result);
            return Some(Stage::Activated);
        }
        if (Stage::Float..Stage::Done).contains(&stage)
            && let Some((codes, whole)) = self.quantised(value)
        {
            if self.reach == Reach::Table
                && let &[store] = self.chain.stores
                && let Some(table) = table(self.chain.finish, &self.elements, whole, store.value)
            {
                (found.output, found.result, found.table) = (codes, store.value, Some(table));
                found.element = self.elements[store.value as usize];
                return Some(Stage::Done);
            }
            if self.reach == Reach::Entries && stage < Stage::Snapped {
                let (table, entries, result) = self.looked_up(whole)?;
                (found.snap, found.table, found.entries) = (codes, Some(table), entries);
                found.result = result;
                return Some(Stage::Snapped);
            }
            if stage < Stage::Snapped
                && let Some((zero, step, result)) = self.dequantised(whole, Some(codes.zero))
            {
                found.snap = Codes { zero, step, ..codes };
                found.result = result;
                return Some(Stage::Snapped);
            }
            let is_wanted = match self.reach {
                Reach::Bytes => true,
                Reach::Entries => found.table.is_some() && found.residual.is_some(),
                _ => false,
            };
            if !is_wanted {
                return None;
            }
            (found.output, found.result) = (codes, whole);
            found.element = if codes.stored == Stored::I8 { ElementType::I8 } else { ElementType::U8 };
            return Some(Stage::Done);
        }
        let user = self.user(value)?;
        let next = match *self.instruction(user) {
            Instruction::Binary(Binary::Subtract, ..) if stage < Stage::Offset => {
                found.offset = Some(self.column(self.other(user, Binary::Subtract, value)?, ElementType::I32)?);
                Stage::Offset
            }
            Instruction::Binary(Binary::Add, ..) if stage < Stage::Summed => {
                found.summand = Some(self.column(self.other(user, Binary::Add, value)?, ElementType::I32)?);
                Stage::Summed
            }
            Instruction::Cast(ElementType::F32, _) if stage < Stage::Float => {
                (found.element, found.output) = (ElementType::F32, Codes::FLOATS);
                Stage::Float
            }
            Instruction::Binary(Binary::Multiply, ..) if stage >= Stage::Float && stage < Stage::ColumnScaled => {
                let other = self.other(user, Binary::Multiply, value)?;
                match (self.number(other), self.column(other, ElementType::F32)) {
                    (Some(scale), _) if stage < Stage::Scaled => {
                        found.scale = scale;
                        Stage::Scaled
                    }
                    (None, Some(access)) => {
                        found.column_scale = Some(access);
                        Stage::ColumnScaled
                    }
                    _ => return None,
                }
            }
            Instruction::Binary(Binary::Add, ..) if stage >= Stage::Float && stage < Stage::Added => {
                let other = self.other(user, Binary::Add, value)?;
                match (self.column(other, ElementType::F32), self.residual(other)) {
                    (Some(access), _) if stage < Stage::Biased => {
                        found.column_bias = Some(access);
                        Stage::Biased
                    }
                    (None, Some(residual)) => {
                        found.residual = Some(residual);
                        Stage::Added
                    }
                    _ => return None,
                }
            }
            _ => return None,
        };
        found.result = user;
        Some(next)
    }

    /// The byte that a value becomes, with its codes.
    fn quantised(&self, value: u32) -> Option<(Codes, u32)> {
        let (mut codes, mut value) = (Codes::FLOATS, value);
        let mut user = self.user(value)?;
        if let Some(scale) = self.other(user, Binary::Multiply, value).and_then(|other| self.number(other)) {
            codes.scale = scale;
            (value, user) = (user, self.user(user)?);
        }
        if *self.instruction(user) != Instruction::Unary(Unary::Round, value) {
            return None;
        }
        (value, user) = (user, self.user(user)?);
        if let Some(zero) = self.other(user, Binary::Add, value).and_then(|other| self.number(other)) {
            // The kernel adds it to whole numbers.
            if zero.fract() != 0. || zero.abs() > LARGEST_ZERO {
                return None;
            }
            codes.zero = zero;
            user = self.user(user)?;
        }
        codes.stored = match self.instruction(user) {
            Instruction::Cast(ElementType::U8, _) => Stored::U8,
            Instruction::Cast(ElementType::I8, _) => Stored::I8,
            _ => return None,
        };
        Some((codes, user))
    }

    /// What a byte becomes by a table, what that stands for, and the float that it is.
    fn looked_up(&self, byte: u32) -> Option<([u8; 256], Codes, u32)> {
        let finish = self.chain.finish;
        (byte + 1..finish.instructions.len() as u32).rev().find_map(|other| {
            let stored = match self.instruction(other) {
                Instruction::Cast(ElementType::U8, _) => Stored::U8,
                Instruction::Cast(ElementType::I8, _) => Stored::I8,
                _ => return None,
            };
            let table = table(finish, &self.elements, byte, other)?;
            let (zero, step, result) = self.dequantised(other, None)?;
            Some((table, Codes { stored, scale: 1., zero, step }, result))
        })
    }

    /// The float that a byte becomes: its zero, its step and the value. The zero must be the one it was made with, if that is known.
    fn dequantised(&self, whole: u32, expected: Option<f32>) -> Option<(f32, f32, u32)> {
        let mut value = self.user(whole)?;
        if !matches!(self.instruction(value), Instruction::Cast(ElementType::F32, _)) {
            return None;
        }
        let (mut zero, mut step) = (0., 1.);
        if let Some(user) = self.user(value)
            && let Some(found) = self.other(user, Binary::Subtract, value).and_then(|other| self.number(other))
        {
            (zero, value) = (found, user);
        }
        if let Some(user) = self.user(value)
            && let Some(found) = self.other(user, Binary::Multiply, value).and_then(|other| self.number(other))
        {
            (step, value) = (found, user);
        }
        expected.is_none_or(|expected| zero == expected).then_some((zero, step, value))
    }

    /// An array that is added: floats, or bytes with what they stand for.
    fn residual(&self, value: u32) -> Option<(u32, Codes)> {
        let (mut codes, mut value) = (Codes::FLOATS, value);
        if let Instruction::Binary(Binary::Multiply, a, b) = *self.instruction(value) {
            (codes.step, value) = (self.number(b)?, a);
        }
        if let Instruction::Binary(Binary::Subtract, a, b) = *self.instruction(value) {
            (codes.zero, value) = (self.number(b)?, a);
        }
        let is_byte = matches!(self.instruction(value), Instruction::Cast(ElementType::F32, _));
        if let Instruction::Cast(ElementType::F32, inner) = *self.instruction(value) {
            value = inner;
        }
        let Instruction::Load(access) = *self.instruction(value) else { return None };
        let (emitter, tile) = (self.chain.emitter, self.chain.tile);
        codes.stored = match (emitter.kernel.accesses[access as usize].element, is_byte) {
            (ElementType::F32, false) if codes == Codes::FLOATS => Stored::F32,
            (ElementType::U8, true) => Stored::U8,
            (ElementType::I8, true) => Stored::I8,
            _ => return None,
        };
        is_plain_of_any_type(emitter, access, tile).then_some((access, codes))
    }
}
