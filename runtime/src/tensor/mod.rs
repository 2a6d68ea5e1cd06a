//! Tensors: an element type, a shape and bytes, dense in row-major order. Weights, inputs and outputs are tensors; the
//! bytes are owned and 64-byte aligned, or a part of a mapped file, or computed when they are read.

mod bytes;
mod deferred;
mod spare;

pub use deferred::{Cut, Make};
pub use spare::Spare;

use crate::{ElementType, mapping, memory::shared::Room};
use bytemuck::Pod;
use bytes::AlignedBytes;
use deferred::Deferred;
use half::{bf16, f16};
use memmap2::Mmap;
use std::{
    any::Any,
    fmt,
    ops::Range,
    sync::{Arc, OnceLock},
};

/// A dense row-major array. Cloning shares the bytes.
#[derive(Clone)]
pub struct Tensor {
    element: ElementType,
    shape: Vec<usize>,
    storage: Storage,
}

#[derive(Clone)]
enum Storage {
    Owned(Arc<AlignedBytes>),
    Mapped { file: Arc<Mmap>, range: Range<usize> },
    Deferred(Arc<Deferred>),
}

/// Why a tensor cannot be made or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The number of bytes does not fit the shape.
    #[error("a tensor {element}{shape:?} takes {expected} bytes, not {found}")]
    Length {
        /// Its element type.
        element: ElementType,
        /// Its shape.
        shape: Vec<usize>,
        /// Bytes that the shape takes.
        expected: usize,
        /// Bytes that were given.
        found: usize,
    },
    /// The shape has more elements than memory can hold.
    #[error("a tensor {element}{shape:?} is too large for memory")]
    TooLarge {
        /// Its element type.
        element: ElementType,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// The elements are read as another type than they have.
    #[error("a tensor of {found} is read as {expected}")]
    Element {
        /// The type asked for.
        expected: ElementType,
        /// The type it has.
        found: ElementType,
    },
    /// Mapped bytes that do not start at a multiple of the element's size cannot be seen as a slice of it.
    #[error("the mapped bytes of this tensor are not aligned for {0}")]
    Unaligned(ElementType),
}

/// A Rust type that is an element type. `bool` has no entry: its bytes are read as `u8` by [`Tensor::bytes`].
pub trait Element: Pod {
    /// The element type.
    const TYPE: ElementType;
}

macro_rules! elements {
    ($($rust:ty => $variant:ident),*) => {$(
        impl Element for $rust {
            const TYPE: ElementType = ElementType::$variant;
        }
    )*};
}
elements!(f32 => F32, f64 => F64, f16 => F16, bf16 => BF16, i8 => I8, i16 => I16, i32 => I32, i64 => I64,
          u8 => U8, u16 => U16, u32 => U32, u64 => U64);

fn bytes_needed(element: ElementType, shape: &[usize]) -> Result<usize, TensorError> {
    shape
        .iter()
        .try_fold(1usize, |count, size| count.checked_mul(*size))
        .and_then(|count| element.bytes_of(count))
        .filter(|bytes| *bytes <= isize::MAX as usize / 2)
        .ok_or_else(|| TensorError::TooLarge { element, shape: shape.to_vec() })
}

impl Tensor {
    /// A tensor of zeros.
    ///
    /// # Errors
    /// A shape that memory cannot hold.
    pub fn zeros(element: ElementType, shape: &[usize]) -> Result<Self, TensorError> {
        let length = bytes_needed(element, shape)?;
        let too_large = || TensorError::TooLarge { element, shape: shape.to_vec() };
        let storage = Storage::Owned(Arc::new(AlignedBytes::zeros(length).ok_or_else(too_large)?));
        Ok(Self { element, shape: shape.to_vec(), storage })
    }

    /// Zeros for what stays, as the weights of a program do: such tensors share pages, so that these can be gathered into huge
    /// ones. The pages go back when none of those tensors is left.
    ///
    /// # Errors
    /// A shape that memory cannot hold.
    pub fn lasting(element: ElementType, shape: &[usize]) -> Result<Self, TensorError> {
        match Room::new(bytes_needed(element, shape)?) {
            Some(room) => {
                let storage = Storage::Owned(Arc::new(AlignedBytes::Shared(room)));
                Ok(Self { element, shape: shape.to_vec(), storage })
            }
            None => Self::zeros(element, shape),
        }
    }

    /// A tensor with a copy of `bytes` (little-endian elements in row-major order).
    ///
    /// # Errors
    /// A length that does not fit the shape.
    pub fn from_bytes(element: ElementType, shape: &[usize], bytes: &[u8]) -> Result<Self, TensorError> {
        Self::check_length(element, shape, bytes.len())?;
        let mut tensor = Self::zeros(element, shape)?;
        tensor.bytes_mut().copy_from_slice(bytes);
        Ok(tensor)
    }

    /// A tensor with a copy of `values`.
    ///
    /// # Errors
    /// A count that does not fit the shape.
    pub fn from_slice<T: Element>(shape: &[usize], values: &[T]) -> Result<Self, TensorError> {
        Self::from_bytes(T::TYPE, shape, bytemuck::cast_slice(values))
    }

    /// A tensor of `bool`.
    ///
    /// # Errors
    /// A count that does not fit the shape.
    pub fn from_bools(shape: &[usize], values: &[bool]) -> Result<Self, TensorError> {
        let bytes: Vec<u8> = values.iter().map(|value| u8::from(*value)).collect();
        Self::from_bytes(ElementType::Bool, shape, &bytes)
    }

    /// A tensor of rank 0.
    pub fn scalar<T: Element>(value: T) -> Self {
        Self::from_slice(&[], &[value]).expect("one element fits rank 0")
    }

    /// A tensor whose bytes are `range` of a mapped file.
    ///
    /// # Errors
    /// A range that lies outside the file or does not fit the shape.
    pub fn from_mapped(
        element: ElementType,
        shape: &[usize],
        file: Arc<Mmap>,
        range: Range<usize>,
    ) -> Result<Self, TensorError> {
        let available = range.end.min(file.len()).saturating_sub(range.start);
        Self::check_length(element, shape, available)?;
        Ok(Self { element, shape: shape.to_vec(), storage: Storage::Mapped { file, range } })
    }

    /// A tensor whose bytes are computed when they are read.
    ///
    /// # Errors
    /// A shape that memory cannot hold.
    pub fn deferred(element: ElementType, shape: &[usize], make: impl Make) -> Result<Self, TensorError> {
        let length = bytes_needed(element, shape)?;
        let deferred = Deferred { make: Box::new(make), shape: shape.to_vec(), length, made: OnceLock::new() };
        Ok(Self { element, shape: shape.to_vec(), storage: Storage::Deferred(Arc::new(deferred)) })
    }

    fn check_length(element: ElementType, shape: &[usize], found: usize) -> Result<(), TensorError> {
        let expected = bytes_needed(element, shape)?;
        if expected == found {
            return Ok(());
        }
        Err(TensorError::Length { element, shape: shape.to_vec(), expected, found })
    }

    /// The type of an element.
    pub fn element(&self) -> ElementType {
        self.element
    }

    /// The sizes of the axes, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// The bytes, little-endian, in row-major order.
    ///
    /// # Panics
    /// When they are deferred and there is no memory for them.
    pub fn bytes(&self) -> &[u8] {
        match &self.storage {
            Storage::Owned(owned) => owned.bytes(),
            Storage::Mapped { file, range } => &file[range.clone()],
            Storage::Deferred(deferred) => deferred.bytes(),
        }
    }

    /// The number of bytes.
    pub fn length(&self) -> usize {
        match &self.storage {
            Storage::Deferred(deferred) => deferred.length,
            _ => self.bytes().len(),
        }
    }

    /// The bytes, for as long as `room` is not used otherwise: what is still to be computed is computed there, and is not
    /// kept. A `room` that is too small is replaced.
    ///
    /// # Panics
    /// When there is no memory for what is computed.
    pub fn bytes_in<'a>(&'a self, room: &'a mut Tensor) -> &'a [u8] {
        match &self.storage {
            Storage::Deferred(deferred) if deferred.made.get().is_none() => {
                if room.length() < deferred.length {
                    // Given back before there is another.
                    *room = Tensor::scalar(0u8);
                    *room = Tensor::zeros(ElementType::U8, &[deferred.length]).expect("memory for a tensor");
                }
                let bytes = &mut room.bytes_mut()[..deferred.length];
                deferred.make.write(bytes, &mut Tensor::scalar(0u8));
                bytes
            }
            _ => self.bytes(),
        }
    }

    /// Writes the bytes, as many as [`Tensor::length`] says. What is still to be computed is computed there, with `room` for what
    /// comes before, and is not kept.
    pub(crate) fn write_to(&self, bytes: &mut [u8], room: &mut Tensor) {
        match &self.storage {
            Storage::Deferred(deferred) if deferred.made.get().is_none() => deferred.make.write(bytes, room),
            _ => bytes.copy_from_slice(self.bytes()),
        }
    }

    /// Whether the bytes are still to be computed.
    pub fn is_deferred(&self) -> bool {
        matches!(&self.storage, Storage::Deferred(deferred) if deferred.made.get().is_none())
    }

    /// How the tensor is cut, if it is still to be computed, can be computed in parts, and has the shape that it was made with.
    pub fn cut(&self) -> Option<Cut> {
        match &self.storage {
            Storage::Deferred(deferred) if deferred.made.get().is_none() && deferred.shape == self.shape => {
                deferred.make.cut()
            }
            _ => None,
        }
    }

    /// What computes the bytes, if that is of this type and they are still to be computed.
    pub fn made_by<M: Make>(&self) -> Option<&M> {
        match &self.storage {
            Storage::Deferred(deferred) if deferred.made.get().is_none() => {
                let make: &dyn Any = &*deferred.make;
                make.downcast_ref()
            }
            _ => None,
        }
    }

    /// The same bytes as elements of another type, under a shape that takes as many.
    ///
    /// # Errors
    /// A shape that takes more or fewer bytes.
    pub fn reinterpreted(&self, element: ElementType, shape: &[usize]) -> Result<Self, TensorError> {
        Self::check_length(element, shape, self.length())?;
        Ok(Self { element, shape: shape.to_vec(), storage: self.storage.clone() })
    }

    /// What is at some positions of the axis that [`Tensor::cut`] names, computed now and not kept; `None` where that cannot be.
    /// `spare` has memory for it.
    pub fn part(&self, positions: Range<usize>, spare: &mut Spare) -> Option<Tensor> {
        match &self.storage {
            Storage::Deferred(deferred) => deferred.make.part(positions, spare),
            _ => None,
        }
    }

    /// The bytes, writable: copied first when they are shared, mapped or computed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        if !matches!(self.storage, Storage::Owned(_)) {
            self.storage = Storage::Owned(Arc::new(AlignedBytes::copy(self.bytes())));
        }
        let Storage::Owned(owned) = &mut self.storage else { unreachable!("other bytes were copied above") };
        Arc::make_mut(owned).bytes_mut()
    }

    /// Lets the system take back the memory of a tensor in a mapped file, or of what it is computed from: what is read again comes
    /// from the file again. For a tensor that was copied elsewhere and will hardly be read again; does nothing to others.
    pub fn release(&self) {
        match &self.storage {
            Storage::Deferred(deferred) => deferred.make.release(),
            _ => self.release_part(0..usize::MAX),
        }
    }

    /// [`Tensor::release`] for a range of bytes in a mapped file.
    pub fn release_part(&self, part: Range<usize>) {
        if let Storage::Mapped { file, range } = &self.storage {
            let place = |byte: usize| range.start.saturating_add(byte).min(range.end);
            mapping::release(file, place(part.start)..place(part.end));
        }
    }

    /// The addresses of the pages that the bytes lie in, if these may become [huge](crate::memory::huge).
    pub(crate) fn pages(&self) -> Option<Range<usize>> {
        match &self.storage {
            Storage::Owned(owned) => match &**owned {
                AlignedBytes::Pages(block) => Some(block.addresses()),
                AlignedBytes::Shared(room) => Some(room.pages()),
                AlignedBytes::Lines { .. } => None,
            },
            _ => None,
        }
    }

    /// Whether the bytes are part of a mapped file.
    pub fn is_mapped(&self) -> bool {
        matches!(self.storage, Storage::Mapped { .. })
    }

    /// The elements.
    ///
    /// # Errors
    /// Another element type, or mapped bytes that are not aligned for it (copy them with [`Tensor::to_vec`]).
    pub fn as_slice<T: Element>(&self) -> Result<&[T], TensorError> {
        self.expect(T::TYPE)?;
        bytemuck::try_cast_slice(self.bytes()).map_err(|_| TensorError::Unaligned(T::TYPE))
    }

    /// The elements, writable.
    ///
    /// # Errors
    /// Another element type.
    pub fn as_mut_slice<T: Element>(&mut self) -> Result<&mut [T], TensorError> {
        self.expect(T::TYPE)?;
        bytemuck::try_cast_slice_mut(self.bytes_mut()).map_err(|_| TensorError::Unaligned(T::TYPE))
    }

    /// A copy of the elements, whatever their alignment.
    ///
    /// # Errors
    /// Another element type.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>, TensorError> {
        self.expect(T::TYPE)?;
        Ok(bytemuck::pod_collect_to_vec(self.bytes()))
    }

    fn expect(&self, expected: ElementType) -> Result<(), TensorError> {
        if self.element == expected { Ok(()) } else { Err(TensorError::Element { expected, found: self.element }) }
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    /// A shape with another number of elements.
    pub fn reshaped(&self, shape: &[usize]) -> Result<Self, TensorError> {
        self.reinterpreted(self.element, shape)
    }

    /// The element at a row-major position as a bit pattern in the low bits (two's complement for signed integers).
    ///
    /// # Panics
    /// When the position is not below [`Tensor::count`].
    pub fn bits_at(&self, position: usize) -> u64 {
        let (bytes, bits) = (self.bytes(), self.element.bits() as usize);
        match self.element.bytes() {
            Some(width) => {
                let mut word = [0u8; 8];
                word[..width].copy_from_slice(&bytes[position * width..][..width]);
                u64::from_le_bytes(word)
            }
            None => {
                let shift = position * bits % 8;
                u64::from(bytes[position * bits / 8] >> shift) & ((1 << bits) - 1)
            }
        }
    }

    /// Writes the element at a row-major position from the low bits of `value`.
    ///
    /// # Panics
    /// When the position is not below [`Tensor::count`].
    pub fn set_bits(&mut self, position: usize, value: u64) {
        let (element, bits) = (self.element, self.element.bits() as usize);
        let bytes = self.bytes_mut();
        match element.bytes() {
            Some(width) => bytes[position * width..][..width].copy_from_slice(&value.to_le_bytes()[..width]),
            None => {
                let (shift, mask) = (position * bits % 8, (1u8 << bits) - 1);
                let byte = &mut bytes[position * bits / 8];
                *byte = *byte & !(mask << shift) | (value as u8 & mask) << shift;
            }
        }
    }

    /// All elements as f64 (exact for every type but 64-bit integers beyond 2^53), for summaries and comparisons.
    pub fn to_f64(&self) -> Vec<f64> {
        if self.element == ElementType::F32 {
            return self.bytes().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes).into()).collect();
        }
        (0..self.count()).map(|position| bits_to_f64(self.element, self.bits_at(position))).collect()
    }
}

/// The value of a bit pattern as f64.
pub fn bits_to_f64(element: ElementType, bits: u64) -> f64 {
    match element {
        ElementType::F32 => f32::from_bits(bits as u32).into(),
        ElementType::F64 => f64::from_bits(bits),
        ElementType::F16 => f16::from_bits(bits as u16).to_f64(),
        ElementType::BF16 => bf16::from_bits(bits as u16).to_f64(),
        _ => bits_to_integer(element, bits) as f64,
    }
}

/// The value of a bit pattern of an integer type or `bool`.
pub fn bits_to_integer(element: ElementType, bits: u64) -> i128 {
    if element.is_signed_integer() {
        let unused = 64 - element.bits();
        return ((bits << unused) as i64 >> unused).into();
    }
    bits.into()
}

impl PartialEq for Tensor {
    /// Equality of element type, shape and bits.
    fn eq(&self, other: &Self) -> bool {
        self.element == other.element && self.shape == other.shape && self.bytes() == other.bytes()
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.element, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn deferred_bytes_are_computed_when_they_are_read() {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let make = move |bytes: &mut [u8], _: &mut Tensor| {
            counted.fetch_add(1, Ordering::Relaxed);
            bytes.copy_from_slice(bytemuck::cast_slice(&[1f32, 2., 3.]));
        };
        let tensor = Tensor::deferred(ElementType::F32, &[3], make).unwrap();
        let calls = || calls.load(Ordering::Relaxed);
        assert_eq!((tensor.length(), tensor.reshaped(&[3, 1]).unwrap().length(), calls()), (12, 12, 0));
        // In a room they are computed every time, until somebody keeps them.
        let mut room = Tensor::scalar(7u8);
        let values = [1f32, 2., 3.];
        for call in 1..3 {
            assert_eq!(tensor.bytes_in(&mut room), bytemuck::cast_slice::<f32, u8>(&values));
            assert_eq!(calls(), call);
        }
        let mut copy = tensor.clone();
        assert_eq!(tensor.as_slice::<f32>().unwrap(), values);
        copy.as_mut_slice::<f32>().unwrap()[0] = 9.;
        assert_eq!(tensor.bytes_in(&mut room), bytemuck::cast_slice::<f32, u8>(&values));
        assert_eq!(calls(), 3);
        let small = Tensor::from_slice(&[1], &[5u8]).unwrap();
        assert_eq!(small.bytes_in(&mut room), [5]);
    }

    /// Ten rows of their own number.
    struct Rows;

    impl Make for Rows {
        fn write(&self, bytes: &mut [u8], _: &mut Tensor) {
            bytes.chunks_mut(3).zip(0..).for_each(|(row, number)| row.fill(number));
        }

        fn cut(&self) -> Option<Cut> {
            Some(Cut { axis: 0, length: 2 })
        }

        fn part(&self, positions: Range<usize>, _: &mut Spare) -> Option<Tensor> {
            let numbers: Vec<u8> = positions.clone().flat_map(|row| [row as u8; 3]).collect();
            Tensor::from_slice(&[positions.len(), 3], &numbers).ok()
        }
    }

    #[test]
    fn parts_are_known_until_all_are_and_in_their_shape() {
        let tensor = Tensor::deferred(ElementType::U8, &[10, 3], Rows).unwrap();
        assert_eq!(tensor.cut(), Some(Cut { axis: 0, length: 2 }));
        assert_eq!(tensor.part(4..6, &mut Spare::default()).unwrap().bytes(), [4, 4, 4, 5, 5, 5]);
        assert_eq!(tensor.reshaped(&[3, 10]).unwrap().cut(), None);
        assert!(tensor.made_by::<Rows>().is_some() && tensor.is_deferred());
        assert_eq!(&tensor.bytes()[12..18], [4, 4, 4, 5, 5, 5]);
        assert!(tensor.cut().is_none() && tensor.made_by::<Rows>().is_none() && !tensor.is_deferred());
    }

    #[test]
    fn bytes_are_aligned_and_shared() {
        let tensor = Tensor::from_slice(&[2, 3], &[1f32, 2., 3., 4., 5., 6.]).unwrap();
        assert_eq!(tensor.bytes().as_ptr() as usize % 64, 0);
        let mut copy = tensor.clone();
        copy.as_mut_slice::<f32>().unwrap()[0] = 9.;
        assert_eq!(tensor.as_slice::<f32>().unwrap()[0], 1.);
        assert!(tensor.as_slice::<i32>().is_err());
    }

    #[test]
    fn sub_byte_elements_pack_from_the_low_bits() {
        let mut tensor = Tensor::zeros(ElementType::I4, &[3]).unwrap();
        tensor.set_bits(0, 1);
        tensor.set_bits(1, 0xF);
        tensor.set_bits(2, 7);
        assert_eq!(tensor.bytes(), [0xF1, 0x07]);
        assert_eq!(tensor.to_f64(), [1., -1., 7.]);
    }

    #[test]
    fn impossible_shapes_are_refused() {
        assert!(Tensor::zeros(ElementType::F32, &[usize::MAX, 2]).is_err());
        assert!(Tensor::zeros(ElementType::F32, &[1 << 60]).is_err());
        assert!(Tensor::from_bytes(ElementType::F32, &[2], &[0; 7]).is_err());
    }
}
