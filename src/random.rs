//! Seeded random tensors: the same on every machine.

use strang_ir::Literal;
use strang_runtime::{ElementType, Tensor, tensor::TensorError};

pub use strang_ir::generator::Random;

/// A tensor of floats from -1 to 1, or of integers 0 and 1 (which are positions of most tables).
///
/// # Errors
/// A shape that is too large.
pub fn tensor(random: &mut Random, element: ElementType, shape: &[usize]) -> Result<Tensor, TensorError> {
    let mut tensor = Tensor::zeros(element, shape)?;
    for position in 0..tensor.count() {
        let value = if element.is_float() {
            Literal::from_f64(element, random.unit() * 2. - 1.)
        } else {
            Literal::from_integer(element, (random.bits() & 1).into())
        };
        tensor.set_bits(position, value.bits);
    }
    Ok(tensor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_lie_between_minus_one_and_one() {
        let tensor = tensor(&mut Random::new(0), ElementType::F32, &[100]).unwrap();
        assert!(tensor.to_f64().iter().all(|value| (-1. ..1.).contains(value)));
    }
}
