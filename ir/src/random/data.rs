//! Random elements.

use crate::{ElementType, Literal, Tensor, generator::Random};

/// A generator of elements.
pub(super) struct Elements {
    random: Random,
}

impl Elements {
    pub(super) fn new(seed: u64) -> Self {
        Elements { random: Random::new(seed) }
    }

    fn bits(&mut self) -> u64 {
        self.random.bits()
    }

    /// An even float between -2 and 2.
    fn float(&mut self) -> f64 {
        4. * self.random.unit() - 2.
    }

    pub(super) fn tensor(&mut self, element: ElementType, shape: &[usize], special: bool) -> Tensor {
        self.fill(element, shape, |random| {
            if element == ElementType::Bool {
                return Literal::bool(random.bits() & 1 == 1);
            }
            if !element.is_float() {
                let (low, _) = element.integer_range().unwrap_or((0, 0));
                return Literal::from_integer(element, low.max(-6) + i128::from(random.bits() % 13));
            }
            let chosen = random.bits();
            if special && chosen.is_multiple_of(8) {
                return Literal::from_f64(element, SPECIAL[(chosen >> 8) as usize % SPECIAL.len()]);
            }
            Literal::from_f64(element, random.float())
        })
    }

    /// A tensor of positions below a limit.
    pub(super) fn indices(&mut self, element: ElementType, shape: &[usize], limit: usize) -> Tensor {
        self.fill(element, shape, |random| Literal::from_integer(element, (random.bits() % limit as u64).into()))
    }

    fn fill(&mut self, element: ElementType, shape: &[usize], mut value: impl FnMut(&mut Self) -> Literal) -> Tensor {
        let mut tensor = Tensor::zeros(element, shape).expect("a drafted array is small");
        for position in 0..tensor.count() {
            tensor.set_bits(position, value(self).bits);
        }
        tensor
    }
}

const SPECIAL: [f64; 12] =
    [0., -0., f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1., -1., 1e-40, -1e-45, 3e38, -65504., 100.];
