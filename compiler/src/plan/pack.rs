//! Packing of weights at compile time, into the panels that the matrix kernels read.

use super::{
    book::Coded,
    build::KernelBuilder,
    kernel::{Access, LoopVariable, RightOperand},
    lower::Planner,
};
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;
use strang_ir::{Atom, ElementType, IndexExpr, Size, Tensor};
use strang_runtime::{
    kernels::{bf16, book, bytes, pack},
    program::{Address, Base},
    tensor::Element,
};

/// Strides and extents of a strided block of weights, all known.
pub struct Block {
    /// Sizes and strides of the variables that select a matrix, outermost first.
    pub outer: Vec<(u32, usize, usize)>,
    /// Elements from the start of the parameter.
    pub start: usize,
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
        let address = &kernel.accesses[access as usize].address;
        let constant = |size: Size| size.as_constant().and_then(|value| usize::try_from(value).ok());
        let (rows, width) = (constant(kernel.size_of(depth))?, constant(kernel.size_of(columns))?);
        let strides = [constant(address.coefficient(depth))?, constant(address.coefficient(columns))?];
        let key = format!("{source} {:?} {} {rows} {width} {strides:?}", block.outer, block.start);
        let empty = rows == 0 || width == 0;
        if kernel.accesses[access as usize].element == ElementType::I8 {
            let each = if empty { 0 } else { bytes::packed_len(rows, width) };
            let buffer = self.pack_each(source, &block, key, each, |weights, start, chunk| {
                bytes::pack(weights.as_slice::<i8>().ok()?.get(start..)?, strides, rows, width, chunk).ok()
            })?;
            return Some(RightOperand::Packed(block.access(kernel, buffer, each, ElementType::I8)));
        }
        if kernel.accesses[access as usize].element == ElementType::BF16 {
            let each = if empty { 0 } else { bf16::packed_len(rows, width) };
            let buffer = self.pack_each(source, &block, key, each, |weights, start, chunk| {
                let values: &[[u8; 2]] = weights.bytes().as_chunks().0;
                pack_pairs_parallel(values.get(start..)?, strides, rows, width, chunk)
            })?;
            return Some(RightOperand::Pairs(block.access(kernel, buffer, each, ElementType::BF16)));
        }
        if let Some(Coded { codes, book, by_column }) = self.pack_codes(source, &block, &key, strides, [rows, width]) {
            let codes = block.access(kernel, codes, book::packed_len(rows, width), ElementType::U32);
            let numbers = Block { outer: Vec::new(), start: 0 };
            let book = numbers.access(kernel, book, 0, ElementType::F32);
            return Some(RightOperand::Coded { codes, book, by_column });
        }
        let each = if empty { 0 } else { pack::packed_len(rows, width) };
        if let Some(packed) = self.pack_bf16(source, &block, &key, strides, [rows, width, each]) {
            return Some(RightOperand::Packed(block.access(kernel, packed, each, ElementType::BF16)));
        }
        let packed = self.pack_each(source, &block, key, each, |weights, start, chunk| {
            let values: &[[u8; 4]] = weights.bytes().as_chunks().0;
            pack_parallel(values.get(start..)?, strides, rows, width, chunk)
        })?;
        Some(RightOperand::Packed(block.access(kernel, packed, each, ElementType::F32)))
    }

    /// Packs matrices of f32 as bf16, `each` elements of a packed one, if all of their numbers are.
    fn pack_bf16(
        &mut self,
        source: u32,
        block: &Block,
        key: &str,
        strides: [usize; 2],
        [depth, columns, each]: [usize; 3],
    ) -> Option<u32> {
        if let Some(known) = self.halves.get(key) {
            return *known;
        }
        let data = self.plan.weights[source as usize].clone();
        let count: usize = block.outer.iter().map(|(_, size, _)| size).product();
        if data.element() != ElementType::F32 || count * each < FEWEST {
            return None;
        }
        let values = data.bytes().as_chunks().0;
        // Most numbers need all of their bits: the first few tell.
        let start = values.get(block.start..)?;
        let first = start.iter().take(FEWEST).any(|value| u32::from_ne_bytes(*value) & 0xffff != 0);
        let packed = if first { None } else { packed_bf16(values, block, strides, [depth, columns, each]) };
        let buffer = packed.map(|packed| {
            data.release();
            self.weights(packed)
        });
        self.halves.insert(key.to_owned(), buffer);
        buffer
    }

    /// Packs matrices, `each` elements of a packed one, unless they were packed before: `pack` is given the parameter,
    /// the element at which a matrix begins, and where it goes.
    fn pack_each<T: Element + Send>(
        &mut self,
        source: u32,
        block: &Block,
        key: String,
        each: usize,
        pack: impl Fn(&Tensor, usize, &mut [T]) -> Option<()> + Sync,
    ) -> Option<u32> {
        if let Some(buffer) = self.packed.get(&key) {
            return Some(*buffer);
        }
        let data = self.plan.weights[source as usize].clone();
        let count: usize = block.outer.iter().map(|(_, size, _)| size).product();
        let mut tensor = Tensor::lasting(T::TYPE, &[count, each]).ok()?;
        let target = tensor.as_mut_slice::<T>().ok()?;
        if each > 0 {
            target
                .par_chunks_mut(each)
                .enumerate()
                .try_for_each(|(position, chunk)| pack(&data, block.start + block.offset(position), chunk))?;
        }
        data.release();
        let buffer = self.weights(tensor);
        self.packed.insert(key, buffer);
        Some(buffer)
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
        let values = self.plan.weights[source as usize].to_vec::<f32>().ok()?;
        let width = count.next_multiple_of(16);
        let total: usize = block.outer.iter().map(|(_, size, _)| size).product();
        let mut tensor = Tensor::lasting(ElementType::F32, &[total, width]).ok()?;
        for (position, row) in tensor.as_mut_slice::<f32>().ok()?.chunks_mut(width).enumerate() {
            let start = block.start + block.offset(position);
            for (channel, value) in row.iter_mut().take(count).enumerate() {
                *value = *values.get(start + channel * stride)?;
            }
        }
        self.plan.weights[source as usize].release();
        let buffer = self.weights(tensor);
        let packed = block.access(kernel, buffer, width, ElementType::F32);
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
        let count: usize = block.outer.iter().map(|(_, size, _)| size).product();
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

    /// The parameter that an access reads, and the variables of `moving` that select a matrix in it.
    fn block(&self, kernel: &KernelBuilder, access: u32, moving: impl Iterator<Item = u32>) -> Option<(u32, Block)> {
        let access = &kernel.accesses[access as usize];
        let pointer = &kernel.pointers[access.pointer as usize];
        let Base::Weights(source) = self.plan.buffers[pointer.buffer as usize].base else { return None };
        let offset = usize::try_from(pointer.offset.as_constant()?).ok()? * 8 / access.element.bits() as usize;
        let start = offset.checked_add_signed(isize::try_from(access.address.offset().as_constant()?).ok()?)?;
        let mut outer = Vec::new();
        for variable in moving {
            let stride = access.address.coefficient(variable).as_constant()?;
            let LoopVariable::Loop(size) = &kernel.variables[variable as usize] else { return None };
            if stride != 0 {
                let size = usize::try_from(size.as_constant()?).ok()?;
                outer.push((variable, size, usize::try_from(stride).ok()?));
            }
        }
        Some((source, Block { outer, start }))
    }
}

impl Block {
    /// Elements from the start of the block to matrix `position`, row-major over the outer variables.
    pub fn offset(&self, mut position: usize) -> usize {
        let mut offset = 0;
        for (_, size, stride) in self.outer.iter().rev() {
            offset += position % size * stride;
            position /= size;
        }
        offset
    }

    /// The access to matrix `position` of packed data, each of `length` elements.
    fn access(&self, kernel: &mut KernelBuilder, buffer: u32, length: usize, element: ElementType) -> u32 {
        let mut stride = length as i64;
        let mut terms = Vec::new();
        for (variable, size, _) in self.outer.iter().rev() {
            terms.push((Atom::Variable(*variable), Size::from(stride)));
            stride = stride.saturating_mul(*size as i64);
        }
        kernel.pointers.push(Address { buffer, offset: Size::ZERO });
        kernel.accesses.push(Access {
            pointer: kernel.pointers.len() as u32 - 1,
            element,
            address: IndexExpr::new(terms, Size::ZERO),
            guard: None,
            checked: Vec::new(),
        });
        kernel.accesses.len() as u32 - 1
    }
}

/// Part of the columns that one task packs: whole panels, enough of them to be worth a task.
const PART: usize = 512;

/// Weights with fewer elements stay f32: little is saved.
const FEWEST: usize = 4096;

/// Matrices as bf16, if all of their numbers are.
fn packed_bf16(
    values: &[[u8; 4]],
    block: &Block,
    strides: [usize; 2],
    [depth, columns, each]: [usize; 3],
) -> Option<Tensor> {
    let count: usize = block.outer.iter().map(|(_, size, _)| size).product();
    let mut tensor = Tensor::lasting(ElementType::BF16, &[count, each]).ok()?;
    let target: &mut [half::bf16] = tensor.as_mut_slice().ok()?;
    target.par_chunks_mut(each).enumerate().try_for_each(|(position, chunk)| {
        let matrix = values.get(block.start + block.offset(position)..)?;
        chunk.par_chunks_mut(PART * depth).enumerate().try_for_each(|(part, chunk)| {
            let (first, halves) = (part * PART, chunk.reinterpret_cast_mut());
            let width = PART.min(columns - first);
            pack::pack_bf16(matrix.get(first * strides[1]..)?, strides, depth, width, halves).ok()?.then_some(())
        })
    })?;
    Some(tensor)
}

/// Packs one matrix, parts of its columns in parallel.
fn pack_parallel(
    source: &[[u8; 4]],
    strides: [usize; 2],
    depth: usize,
    columns: usize,
    packed: &mut [f32],
) -> Option<()> {
    packed.par_chunks_mut(PART * depth).enumerate().try_for_each(|(part, chunk)| {
        let first = part * PART;
        let width = PART.min(columns - first);
        pack::pack(source.get(first * strides[1]..)?, strides, depth, width, chunk).ok()
    })
}

/// Packs one matrix of bf16 in pairs of depths, parts of its columns in parallel.
fn pack_pairs_parallel(
    source: &[[u8; 2]],
    strides: [usize; 2],
    depth: usize,
    columns: usize,
    packed: &mut [half::bf16],
) -> Option<()> {
    packed.par_chunks_mut(PART * depth.next_multiple_of(bf16::DEPTHS)).enumerate().try_for_each(|(part, chunk)| {
        let first = part * PART;
        let width = PART.min(columns - first);
        bf16::pack(source.get(first * strides[1]..)?, strides, depth, width, chunk.reinterpret_cast_mut()).ok()
    })
}
