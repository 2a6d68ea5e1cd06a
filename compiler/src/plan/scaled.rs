//! Weights that are codes with scales, packed as such: an eighth or a quarter of the memory of the numbers, to the bit the same.

use super::{
    book::Codes,
    pack::{LATE, Matrices, PANEL},
};
use crate::rewrite::scaled::{Factor, Scaled, position};
use rayon::prelude::*;
use strang_ir::{ElementType, Tensor};
use strang_runtime::{
    kernels::book::{CODES, DEPTHS, packed_len},
    tensor::Element,
};

/// The scales of packed codes.
#[derive(Clone)]
pub struct Scales {
    /// For every panel and every `depths` depths a row of 16 scales, and one of zero points.
    pub rows: Tensor,
    /// Depths that have a scale in common.
    pub depths: usize,
    /// Bits of a code.
    pub bits: u8,
    /// Whether there are zero points.
    pub have_zeros: bool,
}

/// A matrix of codes, and how it lies among them.
#[derive(Clone)]
struct Form {
    scaled: Scaled,
    start: usize,
    strides: [usize; 2],
    depth: usize,
    columns: usize,
    /// The axes of depths and of columns.
    axes: [usize; 2],
    /// Depths that have a scale and a zero point in common.
    depths: usize,
    have_zeros: bool,
}

impl Matrices {
    /// A matrix of codes with scales, if that is what the parameter is made of, and blocks suit the kernel.
    pub(super) fn scaled(&self) -> Option<Codes> {
        let form = Form::of(self)?;
        let (bits, panels) = (form.scaled.bits(), self.columns.div_ceil(PANEL));
        let book: Vec<f32> = (0..CODES as u32).map(|code| form.entry(code)).collect();
        let rows_of_panel = self.depth.div_ceil(form.depths) * (1 + usize::from(form.have_zeros));
        let (depths, have_zeros) = (form.depths, form.have_zeros);
        let words = packed_len(bits, self.depth, self.columns);
        let codes = form.clone().made::<u32>(&[1, words], Form::write_codes)?;
        let rows = form.made::<f32>(&[1, panels * rows_of_panel * PANEL], Form::write_scales)?;
        let scales = Some(Scales { rows, depths, bits: bits as u8, have_zeros });
        Some(Codes { codes, book: Tensor::from_slice(&[book.len()], &book).ok()?, by_column: 0, scales })
    }
}

impl Form {
    fn of(matrices: &Matrices) -> Option<Form> {
        let Matrices { source, starts, strides, depth, columns } = matrices;
        let scaled = source.made_by::<Scaled>()?;
        let [start] = starts[..] else { return None };
        let shape = scaled.codes.shape();
        let inner = |axis: usize| shape[axis + 1..].iter().product::<usize>();
        let along = |stride: usize| (0..shape.len()).find(|axis| shape[*axis] > 1 && inner(*axis) == stride);
        let axes = [along(strides[0])?, along(strides[1])?];
        let begin = position(start, shape);
        let fits = begin[axes[0]] == 0 && *depth <= shape[axes[0]] && begin[axes[1]] + columns <= shape[axes[1]];
        if axes[0] == axes[1] || !fits {
            return None;
        }
        let whole = depth.next_multiple_of(DEPTHS);
        let block = |factor: &Option<Factor>| factor.as_ref().and_then(|factor| factor.place(axes[0]));
        // A zero point that is the same for all is in the book, which codes of eight bits do not have: theirs is taken off together
        // with what makes them floats, exactly where it is a whole number.
        let is_one = matches!(scaled.zero, None | Some(Factor::One(_)));
        let has_offset = scaled.zero.is_some() || scaled.codes.element() == ElementType::I8;
        let have_zeros = !is_one || scaled.bits() == 8 && has_offset;
        let blocks: Vec<usize> =
            [block(&scaled.scale), block(&scaled.zero)].into_iter().flatten().map(|place| place.block).collect();
        let depths = blocks.iter().copied().min().map_or(whole, |block| block.min(whole));
        let suits = (scaled.bits() == 4 || scaled.zero.as_ref().is_none_or(Factor::is_whole))
            && depths.is_multiple_of(DEPTHS)
            && blocks.iter().all(|block| block.is_multiple_of(depths));
        let (scaled, strides, depth, columns) = (scaled.clone(), *strides, *depth, *columns);
        suits.then_some(Form { scaled, start, strides, depth, columns, axes, depths, have_zeros })
    }

    /// A tensor of one matrix that `write` makes: now if it is small, else when it is needed.
    fn made<T: Element>(self, shape: &[usize], write: fn(&Form, &mut [T])) -> Option<Tensor> {
        if self.scaled.codes.is_mapped() && shape.iter().product::<usize>() * size_of::<T>() >= LATE {
            let make = move |target: &mut [u8], _: &mut Tensor| {
                write(&self, bytemuck::cast_slice_mut(target));
                self.scaled.codes.release();
            };
            return Tensor::deferred(T::TYPE, shape, make).ok();
        }
        let mut tensor = Tensor::lasting(T::TYPE, shape).ok()?;
        write(&self, tensor.as_mut_slice::<T>().ok()?);
        Some(tensor)
    }

    /// What a code of four bits stands for in the book.
    fn entry(&self, code: u32) -> f32 {
        match self.scaled.zero {
            Some(Factor::One(zero)) => self.scaled.number(code) - zero,
            _ => self.scaled.number(code),
        }
    }

    /// By how much packed codes of eight bits exceed the numbers that they stand for.
    fn excess(&self) -> f32 {
        if self.scaled.codes.element() == ElementType::I8 { 128. } else { 0. }
    }

    /// Packs the codes, as `kernels::book::pack` lays them out.
    fn write_codes(&self, target: &mut [u32]) {
        let (bits, bytes) = (self.scaled.bits(), self.scaled.codes.bytes());
        let of_panel = packed_len(bits, self.depth, PANEL);
        let flip = if self.excess() > 0. { 0x80 } else { 0 };
        target.par_chunks_mut(of_panel).enumerate().for_each(|(panel, target)| {
            let columns = PANEL.min(self.columns - panel * PANEL);
            target.fill(0);
            let first = self.start + panel * PANEL * self.strides[1];
            if bits == 8 {
                for k in 0..self.depth {
                    let (row, shift) = (&mut target[k / 4 * PANEL..][..columns], k % 4 * 8);
                    let start = first + k * self.strides[0];
                    for (column, word) in row.iter_mut().enumerate() {
                        *word |= u32::from(bytes[start + column * self.strides[1]] ^ flip) << shift;
                    }
                }
                return;
            }
            // Eight codes of a column are four bytes, if they lie side by side from a whole byte on.
            let is_side_by_side = self.strides[0] == 1 && self.strides[1].is_multiple_of(2) && first.is_multiple_of(2);
            let whole = if is_side_by_side { self.depth / DEPTHS * DEPTHS } else { 0 };
            for column in 0..if is_side_by_side { columns } else { 0 } {
                let start = (first + column * self.strides[1]) / 2;
                let words = bytes[start..][..whole / 2].as_chunks().0;
                for (word, target) in words.iter().zip(target[column..].iter_mut().step_by(PANEL)) {
                    *target = u32::from_le_bytes(*word);
                }
            }
            for k in whole..self.depth {
                let (row, shift) = (&mut target[k / DEPTHS * PANEL..][..columns], k % DEPTHS * 4);
                let start = first + k * self.strides[0];
                for (column, word) in row.iter_mut().enumerate() {
                    let place = start + column * self.strides[1];
                    *word |= u32::from(bytes[place / 2] >> (place % 2 * 4) & 15) << shift;
                }
            }
        });
    }

    /// Writes the rows of scales and zero points.
    fn write_scales(&self, target: &mut [f32]) {
        let [scale, zero] = [&self.scaled.scale, &self.scaled.zero].map(|factor| factor.as_ref().map(Factor::read));
        let (groups, of_group) = (self.depth.div_ceil(self.depths), 1 + usize::from(self.have_zeros));
        let begin = position(self.start, self.scaled.codes.shape());
        target.par_chunks_mut(groups * of_group * PANEL).enumerate().for_each(|(panel, target)| {
            let mut place = begin.clone();
            for (number, row) in target.chunks_mut(PANEL).enumerate() {
                let is_zero = number % of_group == 1;
                place[self.axes[0]] = number / of_group * self.depths;
                for (lane, target) in row.iter_mut().enumerate() {
                    let column = panel * PANEL + lane;
                    place[self.axes[1]] = begin[self.axes[1]] + column;
                    *target = match (column < self.columns, is_zero) {
                        (false, _) => 0.,
                        (true, true) => zero.as_ref().map_or(0., |zero| zero.at(&place)) + self.excess(),
                        (true, false) => scale.as_ref().map_or(1., |scale| scale.at(&place)),
                    };
                }
            }
        });
    }
}
