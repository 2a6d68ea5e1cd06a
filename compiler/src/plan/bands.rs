//! A product and the depthwise convolution that alone reads it, as one kernel by bands.
//!
//! Mobile nets widen an image by a pointwise convolution and convolve every channel of it: the wide image is several times
//! as large as all else, so that writing and reading it takes as long as its arithmetic. In bands it never exists: a tile
//! computes some channels of the rows that it needs into the worker's scratch memory, and convolves them from there. Rows
//! where two bands meet are computed for both only if different workers, or different calls, compute them.

use super::{
    kernel::{Access, Bands, Body, Gemm, Image, Instruction, Kernel, LoopVariable, Plan, PlanStep, RightOperand},
    memory::{visit_addresses, visit_images},
    sweep::visit_accesses,
};
use rustc_hash::FxHashMap;
use strang_ir::{ElementType, Size};
use strang_runtime::program::Base;

/// Bytes of an image from which on bands pay: less stays in the second-level cache anyway.
const LARGE: i64 = 512 << 10;
/// Bytes of a band in scratch memory, at most: they stay in the smallest second-level cache that is usual.
const BAND: i64 = 160 << 10;
/// Channels of a tile, at most.
const CHANNELS: i64 = 64;
/// Rows that are computed, at most, for sixteen that are needed.
const WITH_BORDERS: i64 = 20;

/// Joins products with the convolutions that read them, where that saves more than it costs.
pub fn join(plan: &mut Plan) {
    let mut uses = vec![0; plan.buffers.len()];
    let mut body = std::mem::take(&mut plan.body);
    visit_addresses(&mut body, &mut |address| uses[address.buffer as usize] += 1);
    let may_join = |buffer: u32| plan.buffers[buffer as usize].base == Base::Arena && uses[buffer as usize] == 2;
    join_steps(&mut body, &may_join);
    visit_images(&mut body, &mut |image| {
        let buffer = &mut plan.buffers[image.buffer as usize];
        (buffer.bytes, buffer.zeroed) = (Size::ZERO, Vec::new());
    });
    plan.body = body;
}

fn join_steps(steps: &mut Vec<PlanStep>, may_join: &dyn Fn(u32) -> bool) {
    let mut place = 0;
    while place < steps.len() {
        match &mut steps[place] {
            PlanStep::Repeat { body, .. } => join_steps(body, may_join),
            PlanStep::If { then, otherwise, .. } => {
                join_steps(then, may_join);
                join_steps(otherwise, may_join);
            }
            PlanStep::Kernel(_) | PlanStep::Host { .. } => {}
        }
        if let Some([PlanStep::Kernel(first), PlanStep::Kernel(second)]) = steps.get(place..place + 2)
            && let Some(joined) = joined(first, second, may_join)
        {
            steps.splice(place..place + 2, [PlanStep::Kernel(Box::new(joined))]);
        }
        place += 1;
    }
}

/// Two kernels as one, if the second convolves what the first computes and bands pay.
fn joined(first: &Kernel, second: &Kernel, may_join: &dyn Fn(u32) -> bool) -> Option<Kernel> {
    let (Body::Gemm(gemm), Body::Depthwise(depthwise)) = (&first.body, &second.body) else { return None };
    let [store] = gemm.stores[..] else { return None };
    let sums = [gemm.sum(&first.accesses), depthwise.sum(&second.accesses)];
    let is_of_floats = sums == [ElementType::F32; 2] && depthwise.weight_stride(second).is_some();
    if store.combine.is_some() || !is_of_floats {
        return None;
    }
    let buffer = first.pointers[first.accesses[store.access as usize].pointer as usize].buffer;
    let reads = second.pointers[second.accesses[depthwise.a as usize].pointer as usize].buffer;
    if buffer != reads || !may_join(buffer) || matches!(gemm.b, RightOperand::Strided(_)) {
        return None;
    }
    // A residual may be the image too, and then it has to be there as a whole.
    let only = |kernel: &Kernel, own: u32| {
        let mut accesses = (0..).zip(&kernel.accesses);
        accesses.all(|(position, access)| position == own || kernel.pointers[access.pointer as usize].buffer != buffer)
    };
    if !only(first, store.access) || !only(second, depthwise.a) {
        return None;
    }
    let (image, row) = image(first, gemm, second)?;
    let (channels, rows) = sizes(&image)?;
    let mut kernel = second.clone();
    let Body::Depthwise(consumer) = kernel.body else { return None };
    let variables = shared_variables(first, gemm, second, &mut kernel.variables, row)?;
    let rename = |variable: u32| variables[variable as usize];
    let mut producer = Body::Gemm(gemm.clone());
    let mut pointers: FxHashMap<u32, u32> = FxHashMap::default();
    for (position, pointer) in first.pointers.iter().enumerate() {
        let found = kernel.pointers.iter().position(|other| other == pointer).unwrap_or_else(|| {
            kernel.pointers.push(pointer.clone());
            kernel.pointers.len() - 1
        });
        pointers.insert(position as u32, found as u32);
    }
    let start = kernel.accesses.len() as u32;
    for access in &first.accesses {
        let address = access.address.renumbered(&rename);
        kernel.accesses.push(Access { pointer: pointers[&access.pointer], address, ..access.clone() });
    }
    visit_accesses(&mut producer, &mut |access| *access += start);
    let Body::Gemm(mut producer) = producer else { return None };
    let batch = producer.batch.iter().chain([&producer.rows]).filter(|variable| ![row.0, row.1].contains(variable));
    producer.batch = batch.chain([&row.0]).map(|variable| rename(*variable)).collect();
    producer.rows = rename(row.1);
    producer.taps.iter_mut().for_each(|tap| *tap = rename(*tap));
    (producer.columns, producer.depth) = (rename(producer.columns), rename(producer.depth));
    kernel.cost.flops = &first.cost.flops + &second.cost.flops;
    let outer = consumer.batch.iter().rev().skip(1).map(|variable| kernel.variables[*variable as usize].extent());
    let between = Size::from(4 * image.channels * image.height * image.width) * outer.product::<Size>();
    kernel.cost.bytes = &first.cost.bytes + &second.cost.bytes + between * Size::from(-2);
    kernel.label = format!("{} and {}", first.label, second.label).into();
    kernel.body = Body::Bands(Box::new(Bands { producer, consumer, image, channels, rows }));
    Some(kernel)
}

/// The image between two kernels, and the variables of the product that are its rows and its pixels.
fn image(first: &Kernel, gemm: &Gemm, second: &Kernel) -> Option<(Image, (u32, u32))> {
    let Body::Depthwise(depthwise) = &second.body else { return None };
    let (write, read) = (&first.accesses[gemm.stores[0].access as usize], &second.accesses[depthwise.a as usize]);
    // Variables of the product get other numbers.
    if gemm.finish.instructions.iter().any(|instruction| matches!(instruction, Instruction::Index(_))) {
        return None;
    }
    let is_plain = |access: &Access| access.address.is_affine() && access.checked.is_empty() && access.guard.is_none();
    // All that the product reads: positions of its batch and its rows may change places.
    let is_f32 = [write, read].iter().all(|access| access.element == ElementType::F32);
    if !is_f32 || !is_plain(read) || !first.accesses.iter().all(is_plain) {
        return None;
    }
    let moves = |access: &Access, variables: &[&[u32]]| {
        let mut known = true;
        access.address.visit_variables(&mut |variable| known &= variables.iter().any(|list| list.contains(&variable)));
        known
    };
    let channels = [&write.address.coefficient(gemm.columns), &read.address.coefficient(depthwise.channels)];
    if !channels.iter().all(|stride| stride.is(1))
        || !moves(write, &[&gemm.batch, &[gemm.rows, gemm.columns]])
        || !moves(read, &[&depthwise.batch, &depthwise.taps, &[depthwise.columns, depthwise.channels]])
    {
        return None;
    }
    let extent = |kernel: &Kernel, variable: u32| kernel.variables[variable as usize].extent().as_constant();
    let stride = |access: &Access, variable: u32| access.address.coefficient(variable).as_constant();
    let row_out = *depthwise.batch.last()?;
    // Of what moves the product's result, the pixels have the smallest distance, and the rows the next.
    let mut moving: Vec<(i64, u32)> = Vec::new();
    for variable in gemm.batch.iter().chain([&gemm.rows]) {
        let extent = extent(first, *variable);
        if extent.is_none_or(|extent| extent > 1) {
            moving.push((stride(write, *variable)?, *variable));
        }
    }
    moving.sort_unstable();
    let [(pixel @ 1.., pixels), (row, rows), ..] = moving[..] else { return None };
    let offset = |kernel: &Kernel, access: &Access| {
        let bytes = kernel.pointers[access.pointer as usize].offset.as_constant()?;
        Some(bytes / 4 + access.address.offset().as_constant()?)
    };
    let (written, read_from) = (offset(first, write)?, offset(second, read)?);
    let step = stride(read, row_out)?;
    let mut span = 1;
    for tap in &depthwise.taps {
        let (stride, extent) = (stride(read, *tap)?, extent(second, *tap)?);
        if stride < 0 || extent < 1 {
            return None;
        }
        span += stride / row * (extent - 1);
    }
    let image = Image {
        buffer: first.pointers[write.pointer as usize].buffer,
        channels: extent(first, gemm.columns)?,
        height: extent(first, rows)?,
        width: extent(first, pixels)?,
        pixel,
        row,
        top: written / row,
        left: written % row / pixel,
        first: read_from / row,
        step: step / row,
        span,
        rows: extent(second, row_out)?,
    };
    let whole = |value: i64| value >= 0 && value % row % pixel == 0;
    let fits = pixel >= image.channels
        && row % pixel == 0
        && row / pixel >= image.left + image.width
        && whole(written)
        && whole(read_from)
        && step > 0
        && step % row == 0;
    fits.then_some((image, (rows, pixels)))
}

/// The channels and the rows of the convolution that a tile computes, if bands pay.
fn sizes(image: &Image) -> Option<(i64, i64)> {
    if 4 * image.channels * image.height * image.width < LARGE {
        return None;
    }
    let parts = ceiling(image.channels, CHANNELS);
    let mut channels = 16 * ceiling(ceiling(image.channels, parts), 16);
    loop {
        let most = BAND / (4 * channels * (image.row / image.pixel));
        let rows = ((most - image.span) / image.step + 1).min(image.rows);
        if most >= image.span {
            // Bands of equal height.
            let rows = ceiling(image.rows, ceiling(image.rows, rows));
            if image.band(rows) * 16 <= rows * image.step * WITH_BORDERS {
                return Some((channels, rows));
            }
        }
        if channels <= 16 {
            return None;
        }
        channels = 16 * ceiling(channels / 2, 16);
    }
}

fn ceiling(value: i64, divisor: i64) -> i64 {
    (value + divisor - 1) / divisor
}

/// For every variable of the product its number among the variables of both: channels and what is outside of the rows are
/// the convolution's own.
fn shared_variables(
    first: &Kernel,
    gemm: &Gemm,
    second: &Kernel,
    variables: &mut Vec<LoopVariable>,
    (row, pixel): (u32, u32),
) -> Option<Vec<u32>> {
    let Body::Depthwise(depthwise) = &second.body else { return None };
    let (_, outer) = depthwise.batch.split_last()?;
    let (write, read) = (&first.accesses[gemm.stores[0].access as usize], &second.accesses[depthwise.a as usize]);
    let mut taken = Vec::new();
    let mut numbers = Vec::with_capacity(first.variables.len());
    for (position, variable) in first.variables.iter().enumerate() {
        let position = position as u32;
        let is_outer = gemm.batch.contains(&position) || gemm.rows == position;
        let number = if position == gemm.columns {
            Some(depthwise.channels)
        } else if is_outer && position != row && position != pixel {
            let stride = write.address.coefficient(position);
            let found = outer.iter().copied().find(|other| {
                !taken.contains(other)
                    && read.address.coefficient(*other) == stride
                    && second.variables[*other as usize] == *variable
            });
            taken.push(found?);
            found
        } else {
            variables
                .iter()
                .position(|other| matches!(variable, LoopVariable::Counter(_)) && other == variable)
                .map(|p| p as u32)
        };
        numbers.push(number.unwrap_or_else(|| {
            variables.push(variable.clone());
            variables.len() as u32 - 1
        }));
    }
    let alike = second.variables[depthwise.channels as usize] == first.variables[gemm.columns as usize];
    (alike && taken.len() == outer.len()).then_some(numbers)
}
