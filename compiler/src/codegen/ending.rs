//! What a kernel of the table does to its sums while they are in registers: the first steps of a finish, recognised.

use super::{emit::Emitter, strip::operands};
use crate::plan::kernel::{Block, Instruction, Store};
use strang_ir::{
    ElementType,
    scalar::{Binary, Unary},
};
use strang_runtime::kernels::gemm::Activation;

/// `activation(sum * scale + bias)`, every part of it optional.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ending {
    /// The access to a factor for each element of the inner variable.
    pub scale: Option<u32>,
    /// The access to a summand for each element of the inner variable.
    pub bias: Option<u32>,
    /// The function applied last.
    pub activation: Activation,
    /// Its parameters.
    pub parameters: [f32; 2],
    /// The value of the finish that this computes.
    pub result: u32,
}

impl Ending {
    /// As much of a finish as possible. Scale and bias are contiguous along `inner` and the same for all
    /// positions of `outer`. `None` when the sum is not read in one place.
    pub(super) fn new(emitter: &Emitter<'_>, finish: &Block, stores: &[Store], inner: u32, outer: u32) -> Option<Self> {
        let [result] = folded_values(finish)[..] else { return None };
        let mut ending = Ending { scale: None, bias: None, activation: Activation::None, parameters: [0.; 2], result };
        let is_vector = |access: u32| {
            let read = &emitter.kernel.accesses[access as usize];
            is_plain(emitter, access)
                && emitter.is_contiguous(access, inner)
                && !emitter.written[read.pointer as usize]
                && !emitter.mentions(access, outer)
        };
        while let Some((place, user)) = only_user(finish, stores, ending.result) {
            let no_activation = ending.activation == Activation::None;
            match user {
                Instruction::Binary(function @ (Binary::Multiply | Binary::Add), a, b) if no_activation && a != b => {
                    let other = if a == ending.result { b } else { a };
                    let Instruction::Load(access) = finish.instructions[other as usize] else { break };
                    if !is_vector(access) || ending.bias.is_some() {
                        break;
                    }
                    match (function, ending.scale) {
                        (Binary::Multiply, None) => ending.scale = Some(access),
                        (Binary::Add, _) => ending.bias = Some(access),
                        _ => break,
                    }
                }
                Instruction::Unary(function, _) if no_activation => match activation_of(function) {
                    Some(activation) => ending.activation = activation,
                    None => break,
                },
                Instruction::Binary(function, a, b) => {
                    let other = if a == ending.result { b } else { a };
                    let Instruction::Literal(limit) = finish.instructions[other as usize] else { break };
                    if !ending.limit(function, limit.to_f64() as f32) {
                        break;
                    }
                }
                _ => break,
            }
            ending.result = place;
        }
        Some(ending)
    }

    /// Adds a limit from below or above, when the activation is none or such limits and can express it.
    fn limit(&mut self, function: Binary, limit: f32) -> bool {
        let [low, high] = match self.activation {
            Activation::None => [f32::NEG_INFINITY, f32::INFINITY],
            Activation::Relu => [0., f32::INFINITY],
            Activation::Clip => self.parameters,
            _ => return false,
        };
        // The kernel takes the maximum first: where the limits cross, or are NaN, the order matters.
        let parameters = match function {
            Binary::Maximum if low == f32::NEG_INFINITY && limit < high => [limit, high],
            Binary::Minimum if high == f32::INFINITY && low < limit => [low, limit],
            _ => return false,
        };
        (self.activation, self.parameters) = (Activation::Clip, parameters);
        true
    }
}

/// The activation of the kernels that gives the same bits as a function.
fn activation_of(function: Unary) -> Option<Activation> {
    Some(match function {
        Unary::Relu => Activation::Relu,
        Unary::Sigmoid => Activation::Sigmoid,
        Unary::Tanh => Activation::Tanh,
        Unary::Silu => Activation::Silu,
        Unary::Gelu => Activation::Gelu,
        Unary::GeluTanh => Activation::GeluTanh,
        _ => return None,
    })
}

/// Where a block reads the folded value.
pub(super) fn folded_values(block: &Block) -> Vec<u32> {
    let values = block.instructions.iter().enumerate();
    values
        .filter(|(_, instruction)| matches!(instruction, Instruction::Folded(_)))
        .map(|(place, _)| place as u32)
        .collect()
}

/// The instruction that alone reads a value, which is not stored.
pub(super) fn only_user(block: &Block, stores: &[Store], value: u32) -> Option<(u32, Instruction)> {
    if stores.iter().any(|store| store.value == value) {
        return None;
    }
    let users = block.instructions.iter().enumerate();
    let mut users = users.filter(|(_, instruction)| operands(instruction).contains(&value));
    match (users.next(), users.next()) {
        (Some((place, user)), None) => Some((place as u32, user.clone())),
        _ => None,
    }
}

/// Whether an access is to f32 without guard or checks, so that a kernel of the table may read or write there.
pub(super) fn is_plain(emitter: &Emitter<'_>, access: u32) -> bool {
    let place = &emitter.kernel.accesses[access as usize];
    place.element == ElementType::F32 && emitter.guard_is_known(access) && place.checked.is_empty()
}
