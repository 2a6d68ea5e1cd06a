//! Physical layout: where the elements of an array lie.
//!
//! A layout is a buffer, an offset and one stride per logical axis, so transposed storage (channels last), halos of padded
//! images, and parts of a concatenation that are written in place are all the same thing.

use strang_ir::{Atom, ElementType, IndexExpr, Size};
use strang_runtime::program::Zeroed;

/// Variables from this number on stand for the iterations of enclosing repeats: `COUNTER + depth`. They occur in offsets
/// of arrays inside a repeat and become [`super::kernel::LoopVariable::Counter`] in kernels.
pub const COUNTER: u32 = 1 << 30;

/// Where the elements of an array lie.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// The position in the plan's buffers.
    pub buffer: u32,
    /// The type of an element.
    pub element: ElementType,
    /// Elements from the start of the buffer to the element at position 0 of every axis; it may vary with counters.
    pub offset: IndexExpr,
    /// Elements from one position of an axis to the next.
    pub strides: Vec<Size>,
}

/// A halo: unused elements before and after the positions of one axis, zeros but where bytes stand for numbers.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Halo {
    /// Before the first position.
    pub before: Size,
    /// After the last.
    pub after: Size,
    /// What every byte of them is.
    pub byte: u8,
}

impl Halo {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        self.before.is(0) && self.after.is(0)
    }
}

impl Layout {
    /// A dense layout with the axes in physical `order` (outermost first, a permutation of the logical axes) and a halo
    /// per axis; also the number of elements.
    pub fn dense(buffer: u32, element: ElementType, shape: &[Size], order: &[usize], halos: &[Halo]) -> (Self, Size) {
        let mut strides = vec![Size::ZERO; shape.len()];
        let (mut stride, mut offset) = (Size::ONE, Size::ZERO);
        for axis in order.iter().rev() {
            strides[*axis] = stride.clone();
            let mut extent = shape[*axis].clone();
            if let Some(halo) = halos.get(*axis) {
                offset += &halo.before * &stride;
                extent = &extent + &(&halo.before + &halo.after);
            }
            stride = stride * extent;
        }
        (Layout { buffer, element, offset: IndexExpr::constant(offset), strides }, stride)
    }

    /// The address of a position given by one expression per axis.
    pub fn address(&self, position: &[IndexExpr]) -> IndexExpr {
        let terms = position.iter().zip(&self.strides).map(|(expr, stride)| expr.times(stride));
        terms.fold(self.offset.clone(), |sum, term| sum.plus(&term))
    }

    /// The layout of a part that starts at `start` of an axis.
    pub fn part(&self, axis: usize, start: &Size) -> Self {
        let mut part = self.clone();
        part.offset = part.offset.plus_size(&(start * &self.strides[axis]));
        part
    }

    /// The layout of the array at one position of an axis, which goes away.
    pub fn slice(&self, axis: usize, position: &IndexExpr) -> Self {
        let mut slice = self.clone();
        slice.offset = slice.offset.plus(&position.times(&self.strides[axis]));
        slice.strides.remove(axis);
        slice
    }

    /// The logical axes from the largest stride to the smallest, as far as sizes can be compared; ties by position.
    pub fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.strides.len()).collect();
        // Insertion keeps logical order where strides of symbolic sizes do not compare.
        for current in 1..order.len() {
            let mut at = current;
            while at > 0 && larger(&self.strides[order[at]], &self.strides[order[at - 1]]) {
                order.swap(at, at - 1);
                at -= 1;
            }
        }
        order
    }
}

/// The halo of a dense layout as pieces of memory: for each axis what comes before and after its positions, with all
/// positions of the axes outside it, halos included.
pub fn border(element: ElementType, shape: &[Size], order: &[usize], halos: &[Halo]) -> Vec<Zeroed> {
    let mut pieces = Vec::new();
    let bits = Size::from(i64::from(element.bits()));
    let bytes = |elements: &Size| (elements * &bits).ceil_div(&Size::from(8));
    // From the innermost axis outwards: the stride of the axis, and its extent with the halo.
    let mut stride = Size::ONE;
    let mut inner: Vec<(usize, Size, Size)> = Vec::new();
    for axis in order.iter().rev() {
        let halo = halos.get(*axis).cloned().unwrap_or_default();
        let extent = &shape[*axis] + &(&halo.before + &halo.after);
        inner.push((*axis, stride.clone(), extent.clone()));
        stride = stride * extent;
    }
    for (axis, stride, extent) in &inner {
        let Some(halo) = halos.get(*axis) else { continue };
        let whole = stride * extent;
        let outer = inner.iter().skip_while(|(other, ..)| other != axis).skip(1);
        let count: Size = outer.map(|(_, _, extent)| extent.clone()).product();
        for (start, length) in [(Size::ZERO, &halo.before), (&halo.before + &shape[*axis], &halo.after)] {
            if !length.is(0) {
                pieces.push(Zeroed {
                    byte: halo.byte,
                    offset: bytes(&(&start * stride)),
                    bytes: bytes(&(length * stride)),
                    count: count.clone(),
                    stride: bytes(&whole),
                });
            }
        }
    }
    pieces
}

fn larger(a: &Size, b: &Size) -> bool {
    a != b && a.is_at_least(b, 1)
}

/// The iteration of the repeat of a depth, as an expression.
pub fn counter(depth: u32) -> IndexExpr {
    IndexExpr::atom(Atom::Variable(COUNTER + depth))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_last_with_a_halo() {
        let shape: Vec<Size> = [2, 3, 4, 5].map(Size::from).to_vec();
        let halo = Halo { before: 1.into(), after: 1.into(), byte: 0 };
        let halos = [Halo::default(), Halo::default(), halo.clone(), halo];
        let (layout, count) = Layout::dense(0, ElementType::F32, &shape, &[0, 2, 3, 1], &halos);
        assert_eq!(count, Size::from(2 * 6 * 7 * 3));
        assert_eq!(layout.strides, [126, 1, 21, 3].map(Size::from));
        assert_eq!(layout.offset.as_size(), Some(&Size::from(24)));
        assert_eq!(layout.order(), [0, 2, 3, 1]);
        // What is inside and what the border covers is everything, and inside is not in the border.
        let mut covered = vec![0; 252];
        for piece in border(ElementType::F32, &shape, &[0, 2, 3, 1], &halos) {
            let number = |size: &Size| size.as_constant().unwrap() as usize / 4;
            for row in 0..piece.count.as_constant().unwrap() as usize {
                let start = number(&piece.offset) + row * number(&piece.stride);
                covered[start..start + number(&piece.bytes)].fill(1);
            }
        }
        let mut inside = 0;
        for (n, c) in [(0, 0), (0, 2), (1, 1)] {
            for (h, w) in [(0, 0), (3, 4), (2, 1)] {
                assert_eq!(covered[24 + n * 126 + c + h * 21 + w * 3], 0);
                inside += 1;
            }
        }
        assert_eq!(inside, 9);
        assert_eq!(covered.iter().sum::<usize>(), 252 - 2 * 3 * 4 * 5);
    }
}
