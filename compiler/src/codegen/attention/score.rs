//! Scores that the fused kernel computes: the product of query and key, times a scale, plus a mask.

use crate::{
    codegen::{emit::Emitter, rows::folded_values, strip::operands},
    plan::kernel::{Attention, Block, Instruction},
};
use cranelift_codegen::ir::{InstBuilder, Value};
use strang_ir::scalar::Binary;

/// What becomes of the product.
pub(super) struct Score {
    scale: Scale,
    /// The access to what is added.
    mask: Option<u32>,
}

/// A factor of all scores of a head.
enum Scale {
    None,
    Number(f32),
    /// Read through an access.
    Read(u32),
}

impl Score {
    /// `None` when the fused kernel cannot compute the score.
    pub(super) fn new(emitter: &Emitter<'_>, attention: &Attention) -> Option<Self> {
        let Attention { rows, keys, score: block, score_value, .. } = attention;
        let [mut value] = folded_values(block)[..] else { return None };
        let mut score = Score { scale: Scale::None, mask: None };
        while value != *score_value {
            let (place, Instruction::Binary(function, a, b)) = only_user(block, value)? else { return None };
            let other = if a == value { b } else { a };
            let is_new = matches!(score.scale, Scale::None) && score.mask.is_none();
            match (function, &block.instructions[other as usize]) {
                (Binary::Multiply, Instruction::Literal(factor)) if is_new => {
                    score.scale = Scale::Number(factor.to_f64() as f32);
                }
                (Binary::Divide, Instruction::Literal(divisor)) if is_new && a == value => {
                    score.scale = Scale::Number(exact_reciprocal(divisor.to_f64() as f32)?);
                }
                (Binary::Multiply, Instruction::Load(access))
                    if is_new
                        && emitter.is_plain(*access)
                        && !emitter.mentions(*access, *rows)
                        && !emitter.mentions(*access, *keys) =>
                {
                    score.scale = Scale::Read(*access);
                }
                (Binary::Add, Instruction::Load(access))
                    if score.mask.is_none()
                        && emitter.is_plain(*access)
                        && emitter.has_stride(*access, *rows)
                        && emitter.has_stride(*access, *keys) =>
                {
                    score.mask = Some(*access);
                }
                _ => return None,
            }
            value = place;
        }
        Some(score)
    }

    /// The scale at a position of the batch.
    pub(super) fn scale(&self, emitter: &mut Emitter<'_>) -> Value {
        match self.scale {
            Scale::None => emitter.builder.ins().f32const(1.),
            Scale::Number(number) => emitter.builder.ins().f32const(number),
            Scale::Read(access) => emitter.load(access),
        }
    }

    /// The first element of the mask of rows from `low` on, or null.
    pub(super) fn mask_start(&self, emitter: &mut Emitter<'_>, attention: &Attention, low: Value) -> Value {
        match self.mask {
            Some(access) => emitter.address_at(access, attention.rows, low),
            None => emitter.int(0),
        }
    }

    /// The distances of two rows and of two columns of the mask.
    pub(super) fn mask_strides(&self, emitter: &mut Emitter<'_>, attention: &Attention) -> [Value; 2] {
        [attention.rows, attention.keys].map(|variable| match self.mask {
            Some(access) => {
                let stride = emitter.kernel.accesses[access as usize].address.coefficient(variable);
                emitter.size(&stride)
            }
            None => emitter.int(0),
        })
    }
}

/// The instruction that alone reads a value.
fn only_user(block: &Block, value: u32) -> Option<(u32, Instruction)> {
    let users = block.instructions.iter().enumerate();
    let mut users = users.filter(|(_, instruction)| operands(instruction).contains(&value));
    match (users.next(), users.next()) {
        (Some((place, user)), None) => Some((place as u32, user.clone())),
        _ => None,
    }
}

/// The reciprocal of a number, when multiplying by it gives the same bits as dividing.
fn exact_reciprocal(number: f32) -> Option<f32> {
    let is_power_of_two = number.is_normal() && number.to_bits().trailing_zeros() >= f32::MANTISSA_DIGITS - 1;
    let reciprocal = 1. / number;
    (is_power_of_two && reciprocal.is_normal()).then_some(reciprocal)
}
