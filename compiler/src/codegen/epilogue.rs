//! What a tile does to its sums before it stores them, recognised in the finish of a contraction.
//!
//! The chain from the sum on is followed as far as the micro-kernels know it: scale, column scale, bias, residual and
//! activation, in the order in which they apply them. What comes after, generated code computes on the block in cache.

use super::{emit::Emitter, strip::operands};
use crate::plan::kernel::{Block, Instruction, Store};
use strang_ir::{
    ElementType, Literal,
    scalar::{Binary, Unary},
};
use strang_runtime::kernels::gemm::{Activation, ResidualPlace};

/// What the tile is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Epilogue {
    /// A factor for all sums.
    pub scale: f32,
    /// An access with a factor for each column.
    pub column_scale: Option<u32>,
    /// An access with a summand for each column.
    pub column_bias: Option<u32>,
    /// An access to an array that is added.
    pub residual: Option<u32>,
    /// Where it is added.
    pub residual_place: ResidualPlace,
    /// The activation.
    pub activation: Activation,
    /// Its parameters.
    pub parameters: [f32; 2],
    /// The value of the finish that the tile computes.
    pub result: u32,
}

impl Epilogue {
    /// Nothing is done to the sum, which is this value of the finish.
    pub fn none(sum: u32) -> Self {
        Epilogue {
            scale: 1.,
            column_scale: None,
            column_bias: None,
            residual: None,
            residual_place: ResidualPlace::AfterActivation,
            activation: Activation::None,
            parameters: [0.; 2],
            result: sum,
        }
    }
}

/// How far along the chain is: each step comes after all that are less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Sum,
    Scaled,
    ColumnScaled,
    Biased,
    Activated,
    Done,
}

/// The variables of a tile.
#[derive(Clone, Copy, Debug)]
pub struct TileVariables {
    /// The variable of the rows.
    pub rows: u32,
    /// The variable of the columns.
    pub columns: u32,
}

/// What a kernel can do to its sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repertoire {
    /// Everything.
    All,
    /// Column scale, column bias and activation.
    Columns,
}

/// Follows the chain from the sum. `None` when the finish does not read the sum.
pub fn recognise(
    emitter: &Emitter<'_>,
    finish: &Block,
    stores: &[Store],
    tile: TileVariables,
    repertoire: Repertoire,
) -> Option<Epilogue> {
    let sum = finish.instructions.iter().position(|instruction| matches!(instruction, Instruction::Folded(_)))?;
    let mut epilogue = Epilogue::none(sum as u32);
    let chain = Chain { emitter, finish, stores, tile, repertoire };
    let mut stage = Stage::Sum;
    while let Some(next) = chain.step(&mut epilogue, stage) {
        stage = next;
    }
    Some(epilogue)
}

/// The finish of a kernel, followed from a value on.
pub struct Chain<'c, 'f> {
    /// The kernel.
    pub emitter: &'c Emitter<'f>,
    /// What is computed.
    pub finish: &'c Block,
    /// What is stored of it.
    pub stores: &'c [Store],
    /// The variables of a tile.
    pub tile: TileVariables,
    /// What the kernel can do.
    pub repertoire: Repertoire,
}

impl Chain<'_, '_> {
    /// Takes one more step into the epilogue; says the stage after it.
    fn step(&self, epilogue: &mut Epilogue, stage: Stage) -> Option<Stage> {
        let value = epilogue.result;
        if self.stores.iter().any(|store| store.value == value) {
            return None;
        }
        if stage < Stage::Activated
            && let Some((activation, parameters, result)) = self.activation(value)
        {
            (epilogue.activation, epilogue.parameters, epilogue.result) = (activation, parameters, result);
            return Some(Stage::Activated);
        }
        let [user] = self.users(value)[..] else { return None };
        let Instruction::Binary(function, a, b) = self.finish.instructions[user as usize] else { return None };
        if a == b {
            return None;
        }
        let other = if a == value { b } else { a };
        let knows_all = self.repertoire == Repertoire::All;
        let next = match (function, &self.finish.instructions[other as usize]) {
            (Binary::Multiply, literal @ Instruction::Literal(_)) if stage < Stage::Scaled && knows_all => {
                epilogue.scale = single(literal)?;
                Stage::Scaled
            }
            (Binary::Multiply, &Instruction::Load(access)) if stage < Stage::ColumnScaled && self.is_column(access) => {
                epilogue.column_scale = Some(access);
                Stage::ColumnScaled
            }
            (Binary::Add, &Instruction::Load(access))
                if stage <= Stage::Biased && epilogue.column_bias.is_none() && self.is_column(access) =>
            {
                epilogue.column_bias = Some(access);
                if epilogue.residual.is_some() {
                    epilogue.residual_place = ResidualPlace::BeforeBias;
                }
                Stage::Biased
            }
            (Binary::Add, &Instruction::Load(access))
                if stage < Stage::Done && knows_all && epilogue.residual.is_none() && self.is_tile(access) =>
            {
                epilogue.residual = Some(access);
                if stage < Stage::Activated {
                    epilogue.residual_place = ResidualPlace::BeforeActivation;
                    Stage::Biased
                } else {
                    Stage::Done
                }
            }
            _ => return None,
        };
        epilogue.result = user;
        Some(next)
    }

    /// The instructions that read a value.
    pub fn users(&self, value: u32) -> Vec<u32> {
        let users = self.finish.instructions.iter().enumerate();
        users
            .filter(|(_, instruction)| operands(instruction).contains(&value))
            .map(|(position, _)| position as u32)
            .collect()
    }

    /// An activation of a value, with its parameters and the value it gives.
    pub fn activation(&self, value: u32) -> Option<(Activation, [f32; 2], u32)> {
        let instructions = &self.finish.instructions;
        let users = self.users(value);
        if let [user] = users[..] {
            let activation = match &instructions[user as usize] {
                Instruction::Unary(function, _) => match function {
                    Unary::Relu => return Some(self.limited(user, 0.).unwrap_or((Activation::Relu, [0.; 2], user))),
                    Unary::HardSwish => Activation::HardSwish,
                    Unary::Sigmoid => Activation::Sigmoid,
                    Unary::Tanh => Activation::Tanh,
                    Unary::Silu => Activation::Silu,
                    Unary::Gelu => Activation::Gelu,
                    Unary::GeluTanh => Activation::GeluTanh,
                    _ => return None,
                },
                Instruction::Binary(Binary::Maximum, a, b) => {
                    let low = single(&instructions[if *a == value { *b } else { *a } as usize])?;
                    return self.limited(user, low);
                }
                _ => return None,
            };
            return Some((activation, [0.; 2], user));
        }
        // x < 0 ? slope * x : x
        let [less, product, select] = users[..] else { return None };
        let (Instruction::Binary(Binary::Less, x, zero), Instruction::Binary(Binary::Multiply, a, b)) =
            (&instructions[less as usize], &instructions[product as usize])
        else {
            return None;
        };
        let slope = single(&instructions[if *a == value { *b } else { *a } as usize])?;
        let is_zero = *x == value && single(&instructions[*zero as usize]).is_some_and(|zero| zero == 0.);
        let chosen = instructions[select as usize] == Instruction::Select(less, product, value);
        let alone = |inner: u32| self.users(inner) == [select] && self.stores.iter().all(|store| store.value != inner);
        (is_zero && chosen && alone(less) && alone(product)).then_some((Activation::LeakyRelu, [slope, 0.], select))
    }

    /// The clip that the minimum of a number and the maximum `above` of another, `low`, is.
    fn limited(&self, above: u32, low: f32) -> Option<(Activation, [f32; 2], u32)> {
        let [user] = self.users(above)[..] else { return None };
        let instructions = &self.finish.instructions;
        let Instruction::Binary(Binary::Minimum, a, b) = instructions[user as usize] else { return None };
        let high = single(&instructions[if a == above { b } else { a } as usize])?;
        let is_stored = self.stores.iter().any(|store| store.value == above);
        (!is_stored).then_some((Activation::Clip, [low, high], user))
    }

    /// Whether an access is one contiguous vector over the columns, the same for all rows.
    fn is_column(&self, access: u32) -> bool {
        let address = &self.emitter.kernel.accesses[access as usize].address;
        is_plain(self.emitter, access, self.tile) && address.coefficient(self.tile.rows).is(0)
    }

    fn is_tile(&self, access: u32) -> bool {
        is_plain(self.emitter, access, self.tile)
    }
}

/// Whether an access is f32 without guard or checks, with contiguous columns and rows at one distance.
pub fn is_plain(emitter: &Emitter<'_>, access: u32, tile: TileVariables) -> bool {
    let columns_are_one = emitter.extent(tile.columns).is(1) && emitter.has_stride(access, tile.columns);
    emitter.is_plain(access) && is_tile(emitter, access, tile, columns_are_one)
}

/// Whether an access of any type is without guard or checks, with contiguous columns and rows at one distance.
pub fn is_plain_of_any_type(emitter: &Emitter<'_>, access: u32, tile: TileVariables) -> bool {
    let place = &emitter.kernel.accesses[access as usize];
    emitter.guard_is_known(access) && place.checked.is_empty() && is_tile(emitter, access, tile, false)
}

fn is_tile(emitter: &Emitter<'_>, access: u32, tile: TileVariables, columns_are_one: bool) -> bool {
    (columns_are_one || emitter.is_contiguous(access, tile.columns)) && emitter.has_stride(access, tile.rows)
}

/// The value of an f32 literal.
pub fn single(instruction: &Instruction) -> Option<f32> {
    match instruction {
        Instruction::Literal(Literal { element: ElementType::F32, bits }) => Some(f32::from_bits(*bits as u32)),
        _ => None,
    }
}
