//! Packing of weights into the panels that the matrix kernels read: when the plan is made, or when they are needed, where they
//! are in a file or computed.

use super::{
    book::Codes,
    build::KernelBuilder,
    kernel::{Access, CodeScales, LoopVariable, RightOperand},
    lower::Planner,
    residues::Residue,
    scaled::Scales,
};
use crate::pieces::each_piece;
use half::{bf16, slice::HalfFloatSliceExt};
use rayon::prelude::*;
use std::ops::Range;
use strang_ir::{Atom, ElementType, IndexExpr, Size, Tensor};
use strang_runtime::{
    kernels::{bf16 as pairs, bytes, pack},
    program::{Address, Base},
    tensor::{Cut, Element, Spare},
};

/// A variable that selects a matrix of a block of weights.
#[derive(Debug)]
struct Selector {
    variable: u32,
    size: usize,
    stride: usize,
    /// The position of the kernel's first.
    first: usize,
}

/// Strides and extents of a strided block of weights, all known.
struct Block {
    /// What selects a matrix, outermost first.
    outer: Vec<Selector>,
    /// Elements from the start of the parameter.
    start: usize,
}

/// Weights that were packed: where, and the elements of every matrix.
#[derive(Clone, Copy, Debug)]
pub enum Packed {
    /// In panels of numbers.
    Panels {
        /// The buffer.
        buffer: u32,
        /// Elements of a matrix.
        each: usize,
        /// Their type.
        element: ElementType,
    },
    /// In pairs of bf16.
    Pairs {
        /// The buffer.
        buffer: u32,
        /// Elements of a matrix.
        each: usize,
    },
    /// As codes.
    Codes {
        /// The buffer of the codes.
        codes: u32,
        /// Words of a matrix.
        each: usize,
        /// The buffer of the numbers.
        book: u32,
        /// When each column has numbers of its own, how many at most are used; 0 otherwise.
        by_column: u8,
        /// The buffer of the scales, and what they are.
        scales: Option<(u32, CodeScales)>,
    },
}

impl Planner<'_> {
    /// Replaces an access to weights by one to packed panels: for every position of `batch` and `taps` that moves it, one
    /// matrix of `depth` by `columns`; or to packed codes, where few numbers occur. `None` when a size is not known at
    /// compile time.
    pub fn pack_right(
        &mut self,
        kernel: &mut KernelBuilder,
        access: u32,
        batch: &[u32],
        taps: &[u32],
        depth: u32,
        columns: u32,
    ) -> Option<RightOperand> {
        let (source, block) = self.block(kernel, access, batch.iter().chain(taps).copied())?;
        let Access { address, element, .. } = &kernel.accesses[access as usize];
        let constant = |size: Size| size.as_constant().and_then(|value| usize::try_from(value).ok());
        let sizes = [constant(kernel.size_of(depth))?, constant(kernel.size_of(columns))?];
        let strides = [constant(address.coefficient(depth))?, constant(address.coefficient(columns))?];
        let outer: Vec<(usize, usize)> = block.outer.iter().map(|selector| (selector.size, selector.stride)).collect();
        let key = format!("{source} {outer:?} {} {sizes:?} {strides:?}", block.start);
        let packed = match self.packed.get(&key) {
            Some(known) => *known,
            None => {
                let packed = self.pack(source, &block, *element, strides, sizes)?;
                self.packed.insert(key, packed);
                packed
            }
        };
        Some(match packed {
            Packed::Panels { buffer, each, element } => {
                RightOperand::Packed(block.access(kernel, buffer, each, element))
            }
            Packed::Pairs { buffer, each } => {
                RightOperand::Pairs(block.access(kernel, buffer, each, ElementType::BF16))
            }
            Packed::Codes { codes, each, book, by_column, scales } => {
                let codes = block.access(kernel, codes, each, ElementType::U32);
                let whole = Block { outer: Vec::new(), start: 0 };
                let book = whole.access(kernel, book, 0, ElementType::F32);
                let scales = scales.map(|(buffer, scales)| CodeScales {
                    rows: whole.access(kernel, buffer, 0, ElementType::F32),
                    ..scales
                });
                RightOperand::Coded { codes, book, by_column, scales }
            }
        })
    }

    /// Packs matrices of a parameter that is read as `element`.
    fn pack(
        &mut self,
        source: u32,
        block: &Block,
        element: ElementType,
        strides: [usize; 2],
        [depth, columns]: [usize; 2],
    ) -> Option<Packed> {
        let source = self.plan.weights[source as usize].clone();
        if source.element() != element {
            return None;
        }
        let starts = (0..block.count()).map(|position| block.start + block.offset(position)).collect();
        let matrices = Matrices { source: source.clone(), starts, strides, depth, columns };
        let packed = matrices.packed(&mut self.room);
        source.release();
        let each = |tensor: &Tensor| tensor.shape()[1];
        Some(match packed? {
            Panels::Numbers(tensor) => {
                Packed::Panels { each: each(&tensor), element: tensor.element(), buffer: self.weights(tensor) }
            }
            Panels::Pairs(tensor) => Packed::Pairs { each: each(&tensor), buffer: self.weights(tensor) },
            Panels::Codes(Codes { codes, book, by_column, scales }) => {
                let scales = scales.map(|Scales { rows, depths, bits, have_zeros }| {
                    (self.weights(rows), CodeScales { rows: 0, depths, bits, have_zeros })
                });
                let (each, codes, book) = (each(&codes), self.weights(codes), self.weights(book));
                Packed::Codes { codes, each, book, by_column, scales }
            }
        })
    }

    /// Replaces an access to depthwise weights by one to packed taps: for every position of `taps`, the channels, padded
    /// with zeros to a multiple of 16.
    pub fn pack_taps(&mut self, kernel: &mut KernelBuilder, access: u32, taps: &[u32], channels: u32) -> u32 {
        self.try_pack_taps(kernel, access, taps, channels).unwrap_or(access)
    }

    fn try_pack_taps(&mut self, kernel: &mut KernelBuilder, access: u32, taps: &[u32], channels: u32) -> Option<u32> {
        let (source, block) = self.block(kernel, access, taps.iter().copied())?;
        let count = usize::try_from(kernel.size_of(channels).as_constant()?).ok()?;
        let stride =
            usize::try_from(kernel.accesses[access as usize].address.coefficient(channels).as_constant()?).ok()?;
        let element = kernel.accesses[access as usize].element;
        let size = element.bytes()?;
        let values = self.plan.weights[source as usize].clone();
        let width = count.next_multiple_of(16);
        let total = block.count();
        let mut tensor = Tensor::lasting(element, &[total, width]).ok()?;
        for (position, row) in tensor.bytes_mut().chunks_mut(width * size).enumerate() {
            let start = block.start + block.offset(position);
            for (channel, value) in row.chunks_exact_mut(size).take(count).enumerate() {
                let start = (start + channel * stride) * size;
                value.copy_from_slice(values.bytes().get(start..start + size)?);
            }
        }
        values.release();
        let buffer = self.weights(tensor);
        let packed = block.access(kernel, buffer, width, element);
        let place = &mut kernel.accesses[packed as usize];
        place.address = place.address.plus(&IndexExpr::variable(channels));
        Some(packed)
    }

    /// Copies the weights that an access reads, so that positions of `inner` lie side by side and positions of `outer` follow
    /// on them, and lets the access read the copy. It stays as it is when a size is not known at compile time.
    pub fn gather(&mut self, kernel: &mut KernelBuilder, access: u32, outer: u32, inner: u32) -> Option<()> {
        let place = &kernel.accesses[access as usize];
        let (element, address) = (place.element, place.address.clone());
        let moving = |v: &u32| *v != outer && *v != inner && !address.coefficient(*v).is(0);
        let others: Vec<u32> = (0..kernel.variables.len() as u32).filter(moving).collect();
        let (source, block) = self.block(kernel, access, others.into_iter().chain([outer, inner]))?;
        let size = element.bytes()?;
        let count = block.count();
        let data = self.plan.weights[source as usize].clone();
        let mut tensor = Tensor::zeros(element, &[count]).ok()?;
        for (position, target) in tensor.bytes_mut().chunks_exact_mut(size).enumerate() {
            let start = (block.start + block.offset(position)) * size;
            target.copy_from_slice(data.bytes().get(start..start + size)?);
        }
        data.release();
        let buffer = self.weights(tensor);
        let copy = block.access(kernel, buffer, 1, element);
        kernel.accesses.swap_remove(access as usize);
        debug_assert_eq!(copy as usize, kernel.accesses.len(), "the copy was the last");
        Some(())
    }

    /// Whether weights are known that an access reads, of sizes that are.
    pub fn knows_weights(&self, kernel: &KernelBuilder, access: u32, moving: &[u32]) -> bool {
        self.block(kernel, access, moving.iter().copied()).is_some()
    }

    /// The parameter that an access reads, and the variables of `moving` that select a matrix in it.
    fn block(&self, kernel: &KernelBuilder, access: u32, moving: impl Iterator<Item = u32>) -> Option<(u32, Block)> {
        let access = &kernel.accesses[access as usize];
        let pointer = &kernel.pointers[access.pointer as usize];
        let Base::Weights(source) = self.plan.buffers[pointer.buffer as usize].base else { return None };
        let offset = usize::try_from(pointer.offset.as_constant()?).ok()? * 8 / access.element.bits() as usize;
        let mut start = offset.checked_add_signed(isize::try_from(access.address.offset().as_constant()?).ok()?)?;
        let mut outer = Vec::new();
        for variable in moving {
            let stride = access.address.coefficient(variable).as_constant()?;
            let LoopVariable::Loop(size) = &kernel.variables[variable as usize] else { return None };
            if stride != 0 {
                let stride = usize::try_from(stride).ok()?;
                // A kernel that runs over a range of positions reads part of what all kernels share.
                let is_range =
                    |residue: &&Residue| residue.variable == variable && residue.stride == 1 && residue.count == *size;
                let range = kernel.residues.iter().find(is_range);
                let first = range.map_or(Some(0), |range| usize::try_from(range.start).ok())?;
                let size = usize::try_from(range.map_or(size, |range| &range.whole).as_constant()?).ok()?;
                start = start.checked_sub(first * stride)?;
                outer.push(Selector { variable, size, stride, first });
            }
        }
        Some((source, Block { outer, start }))
    }
}

impl Block {
    /// How many matrices there are.
    fn count(&self) -> usize {
        self.outer.iter().map(|selector| selector.size).product()
    }

    /// Elements from the start of the block to matrix `position`, row-major over the outer variables.
    fn offset(&self, mut position: usize) -> usize {
        let mut offset = 0;
        for Selector { size, stride, .. } in self.outer.iter().rev() {
            offset += position % size * stride;
            position /= size;
        }
        offset
    }

    /// The access to matrix `position` of packed data, each of `length` elements.
    fn access(&self, kernel: &mut KernelBuilder, buffer: u32, length: usize, element: ElementType) -> u32 {
        let mut stride = length as i64;
        let mut terms = Vec::new();
        let mut start = 0;
        for Selector { variable, size, first, .. } in self.outer.iter().rev() {
            terms.push((Atom::Variable(*variable), Size::from(stride)));
            start += *first as i64 * stride;
            stride = stride.saturating_mul(*size as i64);
        }
        kernel.pointers.push(Address { buffer, offset: Size::ZERO });
        kernel.accesses.push(Access {
            pointer: kernel.pointers.len() as u32 - 1,
            element,
            address: IndexExpr::new(terms, Size::from(start)),
            guard: None,
            checked: Vec::new(),
        });
        kernel.accesses.len() as u32 - 1
    }
}

/// Part of the columns that one task packs: whole panels, enough of them to be worth a task.
const PART: usize = 512;

/// Bytes of the source after which the pages of what was packed go back to the system.
const RELEASED: usize = 16 << 20;

/// Weights with fewer elements stay f32: little is saved, and a few numbers are few by chance.
pub const FEWEST: usize = 4096;

/// Columns of a panel.
pub const PANEL: usize = 16;

/// Packed matrices with fewer bytes are packed at once: they take little memory, and packing them little time.
pub const LATE: usize = 1 << 16;

/// Matrices of `depth` by `columns` as they lie in a parameter.
#[derive(Clone)]
pub struct Matrices {
    /// The parameter.
    pub source: Tensor,
    /// The element at which each matrix begins.
    pub starts: Vec<usize>,
    /// Elements from one depth to the next, and from one column to the next.
    pub strides: [usize; 2],
    /// The rows of each.
    pub depth: usize,
    /// The columns of each.
    pub columns: usize,
}

/// Packed matrices.
enum Panels {
    Numbers(Tensor),
    Pairs(Tensor),
    Codes(Codes),
}

impl Matrices {
    /// The matrices as kernels read them: of bytes, of pairs of bf16, or of f32, which become codes where few numbers occur and
    /// bf16 where all of them are. What has to be computed first is computed in `room`.
    fn packed(self, room: &mut Tensor) -> Option<Panels> {
        let (depth, columns) = (self.depth, self.columns);
        if !self.lies_in_source() {
            return None;
        }
        match self.source.element() {
            ElementType::I8 => self.numbers::<i8>(bytes::packed_len(depth, columns), room).map(Panels::Numbers),
            ElementType::BF16 => self.numbers::<bf16>(pairs::packed_len(depth, columns), room).map(Panels::Pairs),
            ElementType::F32 => {
                let length = pack::packed_len(depth, columns);
                if let Some(codes) = self.scaled() {
                    return Some(Panels::Codes(codes));
                }
                if !self.is_of_many_numbers() {
                    let bytes = self.source.bytes_in(room);
                    if let Some(codes) = self.codes(bytes) {
                        return Some(Panels::Codes(codes));
                    }
                    if let Some(packed) = self.halves(bytes) {
                        return Some(Panels::Numbers(packed));
                    }
                }
                self.numbers::<f32>(length, room).map(Panels::Numbers)
            }
            _ => None,
        }
    }

    /// Whether all elements of all matrices are in the parameter.
    fn lies_in_source(&self) -> bool {
        let last = |extent: usize, stride: usize| extent.saturating_sub(1) as u128 * stride as u128;
        let reach = last(self.depth, self.strides[0]) + last(self.columns, self.strides[1]);
        let is_empty = self.depth == 0 || self.columns == 0;
        is_empty || self.starts.iter().all(|start| *start as u128 + reach < self.source.count() as u128)
    }

    /// Matrices of `length` packed elements each: packed when they are needed if they are large and in a file or computed, else
    /// now.
    fn numbers<T: Packable>(self, length: usize, room: &mut Tensor) -> Option<Tensor> {
        let length = if self.depth == 0 || self.columns == 0 { 0 } else { length };
        let shape = [self.starts.len(), length];
        let is_late = self.source.is_deferred() || self.source.is_mapped();
        if is_late && self.starts.len() * length * size_of::<T>() >= LATE {
            let pack = move |target: &mut [u8], room: &mut Tensor| {
                let target = bytemuck::cast_slice_mut::<u8, T>(target);
                self.pack(length, room, target).expect("the matrices lie in their source");
            };
            return Tensor::deferred(T::TYPE, &shape, pack).ok();
        }
        let mut tensor = Tensor::lasting(T::TYPE, &shape).ok()?;
        self.pack(length, room, tensor.as_mut_slice::<T>().ok()?)?;
        Some(tensor)
    }

    /// Writes all elements of all packed matrices, and lets the pages go back that the parameter lies in.
    fn pack<T: Packable>(&self, length: usize, room: &mut Tensor, target: &mut [T]) -> Option<()> {
        let in_parts = self.columns_in_part().and_then(|width| self.pack_in_parts(width, length, target));
        // A part that cannot be computed alone is no reason to fail: all of them together can.
        if in_parts.is_none() {
            T::pack(self, self.source.bytes_in(room), length, target)?;
        }
        self.source.release();
        Some(())
    }

    /// How many columns are computed at a time, in whole panels, if the parts of a parameter that is still to be computed are
    /// ranges of columns.
    fn columns_in_part(&self) -> Option<usize> {
        let Cut { axis, length } = self.source.cut()?;
        let (shape, [depth_stride, column_stride]) = (self.source.shape(), self.strides);
        let inner: usize = shape[axis + 1..].iter().product();
        let is_axis = shape[axis] == self.columns && column_stride == inner && self.depth * depth_stride <= inner;
        let begins = |start: &usize| start % (self.columns * inner) + (self.depth - 1) * depth_stride < inner;
        (is_axis && self.depth > 0 && self.columns > 0 && self.starts.iter().all(begins))
            .then(|| length.next_multiple_of(PANEL))
    }

    /// Packs matrices as `width` columns of their parameter are computed after the other: it is never there as a whole.
    fn pack_in_parts<T: Packable>(&self, width: usize, length: usize, target: &mut [T]) -> Option<()> {
        let inner = self.strides[1];
        let rows = length / self.columns.next_multiple_of(PANEL);
        let parts: Vec<Range<usize>> = groups(self.columns, width).collect();
        let mut spares: Vec<Spare> = (0..rayon::current_num_threads()).map(|_| Spare::default()).collect();
        for parts in parts.chunks(spares.len()) {
            let computed = parts.par_iter().zip(&mut spares);
            let computed = computed.map(|(columns, spare)| self.source.part(columns.clone(), spare));
            let computed = computed.collect::<Option<Vec<Tensor>>>()?;
            each_piece(target, length, |number, target| {
                let start = self.starts.get(number)?;
                parts.iter().zip(&computed).try_for_each(|(columns, source)| {
                    let start = start / (self.columns * inner) * (columns.len() * inner) + start % inner;
                    let whole = columns.len().next_multiple_of(PANEL);
                    let target = &mut target[columns.start * rows..][..whole * rows];
                    let columns = columns.len();
                    let part = Matrices { source: source.clone(), starts: vec![start], columns, ..*self };
                    T::pack(&part, source.bytes(), whole * rows, target)
                })
            })?;
            spares.iter_mut().zip(computed).for_each(|(spare, part)| spare.give(part));
        }
        Some(())
    }

    /// Matrices of f32 as bf16, if all of their numbers are.
    fn halves(&self, bytes: &[u8]) -> Option<Tensor> {
        let values: &[[u8; 4]] = bytes.as_chunks().0;
        let length = pack::packed_len(self.depth, self.columns);
        // Most numbers need all of their bits: the first few tell.
        let mut first = values.get(*self.starts.first()?..)?.iter().take(FEWEST);
        let is_small = self.starts.len() * length < FEWEST;
        if is_small || first.any(|value| u32::from_ne_bytes(*value) & 0xffff != 0) {
            return None;
        }
        let mut tensor = Tensor::lasting(ElementType::BF16, &[self.starts.len(), length]).ok()?;
        let target = tensor.as_mut_slice::<bf16>().ok()?;
        self.parts(length, self.depth, target, |start, width, chunk| {
            let halves = chunk.reinterpret_cast_mut();
            pack::pack_bf16(values.get(start..)?, self.strides, self.depth, width, halves).ok()?.then_some(())
        })?;
        Some(tensor)
    }

    /// Packs parts of the columns in parallel, each column of `rows` packed elements: `pack` is given the element at which a part
    /// begins, the number of its columns and its place. Where columns lie far apart, the pages of those that are packed go back
    /// before others are read.
    fn parts<T: Element + Send>(
        &self,
        length: usize,
        rows: usize,
        target: &mut [T],
        pack: impl Fn(usize, usize, &mut [T]) -> Option<()> + Sync,
    ) -> Option<()> {
        let apart = self.strides[1] * self.source.element().bytes()?;
        let is_outermost = self.starts.iter().all(|start| start - self.starts[0] < self.strides[1]);
        let group = match RELEASED.checked_div(apart) {
            Some(columns) if is_outermost => columns.next_multiple_of(PART).max(PART),
            _ => self.columns.max(1),
        };
        for columns in groups(self.columns, group) {
            self.each(length, target, |start, chunk| {
                // The last panel is whole, though its columns may be fewer.
                let end = if columns.end == self.columns { chunk.len() } else { columns.end * rows };
                each_piece(&mut chunk[columns.start * rows..end], PART * rows, |part, chunk| {
                    let first = columns.start + part * PART;
                    pack(start + first * self.strides[1], PART.min(columns.end - first), chunk)
                })
            })?;
            self.release(columns, self.strides[1]);
        }
        Some(())
    }

    /// Packs f32 with rows that lie side by side, some depths after the other: their pages go back before others are read.
    fn by_depths(&self, values: &[[u8; 4]], length: usize, target: &mut [f32]) -> Option<()> {
        for depths in groups(self.depth, (RELEASED / 4 / self.strides[0].max(1)).max(1)) {
            self.each(length, target, |start, chunk| {
                each_piece(chunk, PART * self.depth, |part, chunk| {
                    let (first, depths) = (part * PART, depths.clone());
                    let (matrix, width) = (values.get(start + first..)?, PART.min(self.columns - first));
                    pack::pack_depths(matrix, self.strides[0], self.depth, width, depths, chunk).ok()
                })
            })?;
            if let [_] = self.starts[..] {
                self.release(depths, self.strides[0]);
            }
        }
        Some(())
    }

    /// Calls `pack` for every matrix of `length` packed elements, with the element at which it begins and its place.
    fn each<T: Send>(
        &self,
        length: usize,
        target: &mut [T],
        pack: impl Fn(usize, &mut [T]) -> Option<()> + Sync,
    ) -> Option<()> {
        if length > 0 {
            each_piece(target, length, |number, chunk| pack(*self.starts.get(number)?, chunk))?;
        }
        Some(())
    }

    /// Gives back pages of positions that lie `stride` elements apart.
    fn release(&self, positions: Range<usize>, stride: usize) {
        let (Some(start), Some(size)) = (self.starts.first(), self.source.element().bytes()) else { return };
        let place = |position: usize| (start + position * stride) * size;
        self.source.release_part(place(positions.start)..place(positions.end));
    }
}

/// Elements of matrices that are packed into panels.
trait Packable: Element + Send {
    /// Packs matrices out of the bytes of their parameter, each into `length` elements of `target`, all of which are written.
    fn pack(matrices: &Matrices, bytes: &[u8], length: usize, target: &mut [Self]) -> Option<()>;
}

impl Packable for i8 {
    fn pack(matrices: &Matrices, bytes: &[u8], length: usize, target: &mut [i8]) -> Option<()> {
        let values: &[i8] = bytemuck::cast_slice(bytes);
        matrices.each(length, target, |start, chunk| {
            bytes::pack(values.get(start..)?, matrices.strides, matrices.depth, matrices.columns, chunk).ok()
        })
    }
}

impl Packable for bf16 {
    fn pack(matrices: &Matrices, bytes: &[u8], length: usize, target: &mut [bf16]) -> Option<()> {
        let values: &[[u8; 2]] = bytes.as_chunks().0;
        let rows = matrices.depth.next_multiple_of(pairs::DEPTHS);
        matrices.parts(length, rows, target, |start, width, chunk| {
            let halves = chunk.reinterpret_cast_mut();
            pairs::pack(values.get(start..)?, matrices.strides, matrices.depth, width, halves).ok()
        })
    }
}

impl Packable for f32 {
    fn pack(matrices: &Matrices, bytes: &[u8], length: usize, target: &mut [f32]) -> Option<()> {
        let values: &[[u8; 4]] = bytes.as_chunks().0;
        let Matrices { strides, depth, .. } = matrices;
        if strides[1] == 1 && bytes.len() > 2 * RELEASED {
            return matrices.by_depths(values, length, target);
        }
        matrices.parts(length, *depth, target, |start, width, chunk| {
            pack::pack(values.get(start..)?, *strides, *depth, width, chunk).ok()
        })
    }
}

/// Positions in groups of some length.
fn groups(count: usize, length: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count).step_by(length).map(move |start| start..(start + length).min(count))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use strang_runtime::tensor::Make;

    /// A tensor that is computed when it is read, in parts or as a whole.
    pub struct Computed {
        pub whole: Tensor,
        pub axis: usize,
        pub length: usize,
    }

    impl Computed {
        pub fn tensor(self) -> Tensor {
            let (element, shape) = (self.whole.element(), self.whole.shape().to_vec());
            Tensor::deferred(element, &shape, self).unwrap()
        }
    }

    impl Make for Computed {
        fn write(&self, bytes: &mut [u8], _: &mut Tensor) {
            bytes.copy_from_slice(self.whole.bytes());
        }

        fn cut(&self) -> Option<Cut> {
            Some(Cut { axis: self.axis, length: self.length })
        }

        fn part(&self, positions: Range<usize>, _: &mut Spare) -> Option<Tensor> {
            let (shape, size) = (self.whole.shape(), self.whole.element().bytes()?);
            let inner: usize = size * shape[self.axis + 1..].iter().product::<usize>();
            let rows = self.whole.bytes().chunks(shape[self.axis] * inner);
            let bytes: Vec<u8> =
                rows.flat_map(|row| row[positions.start * inner..positions.end * inner].to_vec()).collect();
            let mut part = shape.to_vec();
            part[self.axis] = positions.len();
            Tensor::from_bytes(self.whole.element(), &part, &bytes).ok()
        }
    }

    /// What is packed when it is needed is what is packed at once, wherever it goes.
    #[test]
    fn late_packing_makes_what_packing_makes() {
        fn check<T: Element + Into<f64>>(element: fn(usize) -> T) {
            // Two matrices of rows, the same by columns, and two that are columns of others; cut along columns or not.
            for (shape, axis, starts, strides, [depth, columns]) in [
                ([2, 261, 300], 1, [0, 261 * 300], [300, 1], [261, 300]),
                ([2, 261, 300], 2, [0, 261 * 300], [300, 1], [261, 300]),
                ([2, 515, 230], 1, [0, 515 * 230], [1, 230], [230, 515]),
                ([130, 530, 2], 1, [0, 1], [530 * 2, 2], [130, 530]),
                ([300, 260, 2], 0, [0, 1], [2, 520], [260, 300]),
            ] {
                let count: usize = shape.iter().product();
                let values: Vec<T> = (0..count).map(element).collect();
                let source = Tensor::from_slice(&shape, &values).unwrap();
                let computed = Computed { whole: source.clone(), axis, length: 41 }.tensor();
                let mut room = Tensor::scalar(0u8);
                let mut packed = |source: Tensor| {
                    let matrices = Matrices { source, starts: starts.to_vec(), strides, depth, columns };
                    match matrices.packed(&mut room) {
                        Some(Panels::Numbers(packed) | Panels::Pairs(packed)) => packed,
                        _ => panic!("they are numbers"),
                    }
                };
                let (now, late) = (packed(source), packed(computed));
                assert_eq!((now.is_deferred(), late.is_deferred()), (false, true));
                // Whatever was there before.
                let mut used = Tensor::zeros(ElementType::U8, &[late.length()]).unwrap();
                used.bytes_mut().fill(0x5a);
                assert!(late.bytes_in(&mut used) == now.bytes(), "{depth} {columns} {strides:?}");
                assert!(late == now);
            }
        }
        check(|place| place as f32 + 0.1);
        check(|place| bf16::from_f32(place as f32));
        check(|place| (place * 7 % 251) as i8);
    }

    /// Matrices that are packed in several groups: of columns, of depths, and taps of one weight whose columns lie outermost.
    #[test]
    fn groups_make_what_one_packing_makes() {
        let (depth, columns) = (9_000, 1_100);
        let values: Vec<f32> = (0..depth * columns).map(|place| place as f32 + 0.1).collect();
        let source = Tensor::from_slice(&[values.len()], &values).unwrap();
        let mut room = Tensor::scalar(0u8);
        for (strides, taps) in [([1, depth], 1), ([columns, 1], 1), ([3, depth], 3)] {
            let (starts, depth) = ((0..taps).collect(), depth / taps);
            let matrices = Matrices { source: source.clone(), starts, strides, depth, columns };
            let Some(Panels::Numbers(packed)) = matrices.packed(&mut room) else { panic!("they are numbers") };
            let length = pack::packed_len(depth, columns);
            let mut expected = vec![0.; length];
            for (start, packed) in packed.as_slice::<f32>().unwrap().chunks(length).enumerate() {
                let matrix = &source.bytes().as_chunks().0[start..];
                pack::pack(matrix, strides, depth, columns, &mut expected).unwrap();
                assert!(packed == expected, "{strides:?} from {start}");
            }
        }
    }
}
