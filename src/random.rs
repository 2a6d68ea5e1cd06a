//! Seeded random tensors: the same on every machine.

use strang_ir::Literal;
use strang_runtime::{ElementType, Tensor, tensor::TensorError};

/// A generator of numbers (SplitMix64; Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below a bound, which is not 0; as even as 64 bits allow.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.bits()) * bound as u128) >> 64) as usize
    }

    /// A tensor of floats from -1 to 1, or of integers 0 and 1 (which are positions of most tables).
    ///
    /// # Errors
    /// A shape that is too large.
    pub fn tensor(&mut self, element: ElementType, shape: &[usize]) -> Result<Tensor, TensorError> {
        let mut tensor = Tensor::zeros(element, shape)?;
        for position in 0..tensor.count() {
            let value = if element.is_float() {
                let unit = (self.bits() >> 11) as f64 / (1u64 << 53) as f64;
                Literal::from_f64(element, unit * 2. - 1.)
            } else {
                Literal::from_integer(element, (self.bits() & 1).into())
            };
            tensor.set_bits(position, value.bits);
        }
        Ok(tensor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_everywhere() {
        let mut random = Random::new(0);
        assert_eq!(random.bits(), 0xE220_A839_7B1D_CDAF, "the first number of the published generator");
        let tensor = random.tensor(ElementType::F32, &[100]).unwrap();
        assert!(tensor.to_f64().iter().all(|value| (-1. ..1.).contains(value)));
        assert!((0..100).all(|_| random.below(3) < 3));
    }
}
