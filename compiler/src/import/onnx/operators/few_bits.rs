//! Products with weights of few bits, as ONNX Runtime's weight-only quantiser writes them.

use super::{
    matmul::product,
    scalar::{add, cast, mul, number, operand, sub},
};
use crate::import::onnx::{
    call::{Call, Imported},
    draft::Draft,
    error::ImportError,
    values::Item,
};
use strang_ir::{IndexExpr, Op, Tensor, Value};
use strang_runtime::{ElementType, Size};

/// A matrix of codes: `columns` rows of `depth` codes, in blocks that have a scale each.
struct Codes {
    columns: usize,
    depth: usize,
    block: usize,
    bits: usize,
}

impl Codes {
    fn of(call: &mut Call) -> Result<Codes, ImportError> {
        let number = |name: &'static str| -> Result<usize, ImportError> {
            let value = call.attributes.int(name)?;
            let value =
                value.and_then(|value| usize::try_from(value).ok()).filter(|value| (1..1 << 31).contains(value));
            value.ok_or_else(|| call.attributes.error(name, "this is no size"))
        };
        let (depth, columns, block) = (number("K")?, number("N")?, number("block_size")?);
        let bits = call.attributes.int_or("bits", 4)?;
        if ![4, 8].contains(&bits) {
            return Err(call.unsupported(format!("codes of {bits} bits are not, those of 4 and 8 are")));
        }
        if block < 16 || !block.is_power_of_two() {
            return Err(call.attributes.error("block_size", "this is no power of two from 16 on"));
        }
        Ok(Codes { columns, depth, block, bits: bits as usize })
    }

    fn blocks(&self) -> usize {
        self.depth.div_ceil(self.block)
    }

    fn element(&self) -> ElementType {
        if self.bits == 4 { ElementType::U4 } else { ElementType::U8 }
    }

    /// An operand of codes: for every column so many, the last of which may mean nothing.
    fn codes(&self, call: &mut Call, slot: usize, of_column: usize) -> Result<Value, ImportError> {
        self.constant(call, slot, self.element(), of_column)
    }

    /// A constant operand as a matrix of so many elements for every column.
    fn constant(
        &self,
        call: &mut Call,
        slot: usize,
        element: ElementType,
        of_column: usize,
    ) -> Result<Value, ImportError> {
        let Item::Constant(constant) = call.item(slot) else {
            return Err(call.unsupported("weights that are computed are not, constant ones are"));
        };
        let tensor: Result<Tensor, _> = constant.tensor.reinterpreted(element, &[self.columns, of_column]);
        let tensor = tensor.map_err(|reason| call.operand_error(slot, reason.to_string()))?;
        call.importer.materialise(&Item::constant(constant.name.clone(), tensor))
    }

    /// The numbers that the codes stand for, a row for each column of the matrix.
    fn numbers(&self, call: &mut Call) -> Result<Value, ImportError> {
        let (float, element) = (call.element(2)?, self.element());
        let padded = self.blocks() * self.block;
        let codes = self.codes(call, 1, padded)?;
        let scales = self.constant(call, 2, float, self.blocks())?;
        // Zero points of codes come in whole bytes.
        let zeros = match call.has(3) {
            false => None,
            true if call.element(3)?.is_float() => {
                let element = call.element(3)?;
                Some(self.constant(call, 3, element, self.blocks())?)
            }
            true => Some(self.codes(call, 3, self.blocks().next_multiple_of(8 / self.bits))?),
        };
        let sizes = [self.columns, padded].map(|size| Size::from(size as i64));
        let (mut draft, variables) = Draft::over(&sizes);
        draft.read_at(codes, &variables);
        let block = IndexExpr::variable(variables[1]).floor_div(&Size::from(self.block as i64), &draft.sizes());
        let place = vec![IndexExpr::variable(variables[0]), block];
        draft.read(scales, place.clone());
        let zero = match zeros {
            None => number(float, f64::from(1 << (self.bits - 1))),
            Some(zeros) => {
                draft.read(zeros, place);
                cast(float, call.element_of(zeros), operand(2))
            }
        };
        let numbers = mul(sub(cast(float, element, operand(0)), zero), operand(1));
        Ok(call.emit(draft, Op::Map(numbers), float, &variables))
    }
}

/// `MatMulNBits`: `A` times the transpose of what codes of 4 or 8 bits stand for, in the precision of the scales.
pub fn matmul(call: &mut Call) -> Imported {
    // Whether activations may be rounded too: they need not.
    call.attributes.ignore(&["accuracy_level"]);
    let codes = Codes::of(call)?;
    let a = call.value(0)?;
    if call.has(4) {
        return Err(call.unsupported("an order of groups (g_idx) is not"));
    }
    let (numbers, element) = (codes.numbers(call)?, call.element_of(a));
    let sizes = [codes.depth, codes.columns].map(|size| Size::from(size as i64));
    let turned = call.view(numbers, &sizes, |at, _| vec![IndexExpr::variable(at[1]), IndexExpr::variable(at[0])]);
    let product = product(call, a, turned, element.accumulator(), element)?;
    if !call.has(5) {
        return Ok(vec![product.into()]);
    }
    let bias = call.value(5)?;
    let sum = call.map(&[product, bias], add(operand(0), operand(1)))?;
    Ok(vec![sum.into()])
}
