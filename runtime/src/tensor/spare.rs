//! Memory that goes from tensor to tensor.

use super::{AlignedBytes, ElementType, Storage, Tensor, TensorError, bytes::Line, bytes_needed};
use std::sync::Arc;

/// Memory of tensors that are no longer needed, for others: it is in the cache, and nothing has to write zeros there first.
#[derive(Default)]
pub struct Spare(Vec<Vec<Line>>);

impl Spare {
    /// A tensor of any numbers, to be written.
    ///
    /// # Errors
    /// A shape that memory cannot hold.
    pub fn take(&mut self, element: ElementType, shape: &[usize]) -> Result<Tensor, TensorError> {
        let length = bytes_needed(element, shape)?;
        let count = length.div_ceil(size_of::<Line>());
        let fits = |(place, lines): (usize, &Vec<Line>)| (lines.len() >= count).then_some((lines.len(), place));
        let Some((_, place)) = self.0.iter().enumerate().filter_map(fits).min() else {
            return Tensor::zeros(element, shape);
        };
        let lines = self.0.swap_remove(place);
        let storage = Storage::Owned(Arc::new(AlignedBytes::Lines { lines, length }));
        Ok(Tensor { element, shape: shape.to_vec(), storage })
    }

    /// Takes the memory of a tensor that nothing else has.
    pub fn give(&mut self, tensor: Tensor) {
        let Storage::Owned(owned) = tensor.storage else { return };
        if let Ok(AlignedBytes::Lines { lines, .. }) = Arc::try_unwrap(owned) {
            self.0.push(lines);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_goes_to_the_next_tensor_that_fits_in_it() {
        let mut spare = Spare::default();
        let tensor = Tensor::from_slice(&[40], &[7u32; 40]).unwrap();
        let place = tensor.bytes().as_ptr();
        let other = tensor.clone();
        spare.give(tensor);
        assert_ne!(spare.take(ElementType::U8, &[160]).unwrap().bytes().as_ptr(), place, "another tensor has it");
        spare.give(other);
        assert_ne!(spare.take(ElementType::U8, &[1000]).unwrap().bytes().as_ptr(), place, "it is too small");
        for shape in [[3, 5], [16, 12]] {
            let taken = spare.take(ElementType::U8, &shape).unwrap();
            assert_eq!((taken.bytes().as_ptr(), taken.bytes().len()), (place, shape[0] * shape[1]));
            spare.give(taken);
        }
        assert!(spare.take(ElementType::F32, &[usize::MAX, 2]).is_err());
        assert!(spare.take(ElementType::F32, &[0, 2]).unwrap().bytes().is_empty());
    }
}
