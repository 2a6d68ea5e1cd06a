//! Attention from its definition: a product, the score, the softmax of a row, a product.

use super::{Machine, Number, Outcome, multiply_add, number, row_operation};
use crate::plan::kernel::{Attention, RowOperation};
use strang_ir::ElementType;

impl Machine<'_> {
    pub(super) fn attention(&mut self, attention: &Attention) -> Outcome {
        let f32s = [ElementType::F32];
        let score_elements = attention.score.elements(&self.kernel.accesses, &f32s);
        let finish_elements = attention.finish.elements(&self.kernel.accesses, &f32s);
        let space = [&attention.batch[..], &[attention.rows]].concat();
        self.for_each(&space, &mut |machine| {
            let mut weights: Vec<f32> = Vec::new();
            machine.for_each(&[attention.keys], &mut |machine| {
                let mut sum = number(ElementType::F32, 0);
                machine.for_each(&[attention.depth], &mut |machine| {
                    let (q, k) = (machine.load(attention.q)?, machine.load(attention.k)?);
                    sum = multiply_add(ElementType::F32, q, k, sum);
                    Ok(())
                })?;
                let values = machine.block(&attention.score, &score_elements, &[sum])?;
                if let Number::Float(score) = values[attention.score_value as usize] {
                    weights.push(score as f32);
                }
                Ok(())
            })?;
            row_operation(RowOperation::Softmax, &mut weights);
            machine.for_each(&[attention.columns], &mut |machine| {
                let (mut sum, mut weights) = (number(ElementType::F32, 0), weights.iter());
                machine.for_each(&[attention.keys], &mut |machine| {
                    let weight = Number::Float(weights.next().copied().unwrap_or(f32::NAN).into());
                    sum = multiply_add(ElementType::F32, weight, machine.load(attention.v)?, sum);
                    Ok(())
                })?;
                let values = machine.block(&attention.finish, &finish_elements, &[sum])?;
                machine.store(&attention.stores, &values)
            })
        })
    }
}
