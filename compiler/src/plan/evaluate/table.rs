//! Functions of one byte as tables.

use super::{Number, binary, cast, number, unary};
use crate::plan::kernel::{Block, Instruction};
use strang_ir::ElementType;

/// What a byte that is one value of a block becomes in another, for the bytes 0 to 255; `None` if the other depends on anything
/// else. `elements` are the types of the values.
pub fn table(block: &Block, elements: &[ElementType], byte: u32, result: u32) -> Option<[u8; 256]> {
    let is_byte = |value: u32| matches!(elements[value as usize], ElementType::U8 | ElementType::I8);
    if !is_byte(byte) || !is_byte(result) {
        return None;
    }
    let mut table = [0; 256];
    for (place, entry) in table.iter_mut().enumerate() {
        let mut values: Vec<Option<Number>> = Vec::with_capacity(result as usize + 1);
        for (position, instruction) in block.instructions[..=result as usize].iter().enumerate() {
            let of = |value: &u32| values[*value as usize];
            let element = |value: &u32| elements[*value as usize];
            values.push(match instruction {
                _ if position == byte as usize => Some(number(elements[position], place as u64)),
                Instruction::Literal(literal) => Some(number(literal.element, literal.bits)),
                Instruction::Unary(function, a) => of(a).map(|x| unary(*function, element(a), x)),
                Instruction::Binary(function, a, b) => {
                    of(a).zip(of(b)).map(|(x, y)| binary(*function, element(a), x, y))
                }
                Instruction::Select(condition, a, b) => match of(condition) {
                    Some(Number::Integer(0)) => of(b),
                    Some(_) => of(a),
                    None => None,
                },
                Instruction::Cast(to, a) => of(a).map(|x| cast(*to, x)),
                _ => None,
            });
        }
        let Some(Some(Number::Integer(found))) = values.last() else { return None };
        *entry = *found as u8;
    }
    Some(table)
}
