//! What happens to the sums of a tile: to floats, through scales, bias, residual and activation, and to what is stored.

use super::block::{ByteBlock, Quantisation, Stored};
use super::lanes::Sums;
use crate::kernels::gemm::Activation;
use crate::kernels::gemm::curve::{self, Curve};
use crate::kernels::lanes::{Lanes, WIDTH};
use std::ops::Range;

/// Does what the block says with sums, whose rows are so far apart, and stores them: of so many rows from one on, and so many
/// columns from one on.
///
/// # Safety
/// The rows and columns lie in the block, whose arrays are valid; sums of whole panels can be read; the CPU is of the level
/// the function was compiled for.
pub(crate) type FinishFunction =
    unsafe fn(block: &ByteBlock, rows: [usize; 2], columns: [usize; 2], sums: (*const i32, usize));

/// # Safety
/// As for [`FinishFunction`].
#[inline(always)]
pub(super) unsafe fn finish<S: Sums>(
    block: &ByteBlock,
    rows: [usize; 2],
    columns: [usize; 2],
    sums: (*const i32, usize),
) {
    let is_added = block.entries.stored != Stored::F32 as u64;
    // What is looked up before the residual is added is stored in the place of the result.
    let before = ByteBlock {
        snap: Quantisation::default(),
        residual: std::ptr::null(),
        activation: Activation::None as u64,
        output: block.snap,
        ..*block
    };
    let told = if is_added { &before } else { block };
    let strip = &Strip { block: told, rows, columns, sums };
    const RELU: u64 = Activation::Relu as u64;
    const CLIP: u64 = Activation::Clip as u64;
    const LEAKY_RELU: u64 = Activation::LeakyRelu as u64;
    const HARD_SWISH: u64 = Activation::HardSwish as u64;
    const SIGMOID: u64 = Activation::Sigmoid as u64;
    const TANH: u64 = Activation::Tanh as u64;
    const SILU: u64 = Activation::Silu as u64;
    const GELU: u64 = Activation::Gelu as u64;
    const GELU_TANH: u64 = Activation::GeluTanh as u64;
    let [p0, p1] = block.activation_parameters.map(|parameter| parameter.0);
    let is_of_bytes = told.output.stored == Stored::U8 as u64 || told.output.stored == Stored::I8 as u64;
    // SAFETY: the caller vouches for the strip and the arrays; what is looked up was stored before.
    unsafe {
        match told.activation {
            RELU => with::<S, true>(strip, curve::Relu),
            CLIP => with::<S, true>(strip, curve::Clip(p0, p1)),
            LEAKY_RELU => with::<S, false>(strip, curve::LeakyRelu(p0)),
            HARD_SWISH => with::<S, true>(strip, curve::HardSwish),
            SIGMOID => with::<S, false>(strip, curve::Sigmoid),
            TANH => with::<S, false>(strip, curve::Tanh),
            SILU => with::<S, false>(strip, curve::Silu),
            GELU => with::<S, false>(strip, curve::Gelu),
            GELU_TANH => with::<S, false>(strip, curve::GeluTanh),
            _ => with::<S, true>(strip, curve::Identity),
        }
        if is_of_bytes && !block.table.is_null() {
            for row in rows[0]..rows[0] + rows[1] {
                let place = (row as i64 * block.c_row_stride) as isize + columns[0] as isize;
                S::look_up(block.table, block.c.offset(place), columns[1]);
            }
        }
        if is_added {
            add_residual::<S>(block, rows, columns);
        }
    }
}

/// Adds the residual to the numbers that the bytes of C stand for.
///
/// # Safety
/// As for [`FinishFunction`]; C is of bytes.
#[inline(always)]
unsafe fn add_residual<S: Sums>(block: &ByteBlock, rows: [usize; 2], columns: [usize; 2]) {
    let [entries, residual, output] = [&block.entries, &block.residual_type, &block.output].map(Codes::<S>::new);
    for row in rows[0]..rows[0] + rows[1] {
        let place = |stride: i64| (row as i64 * stride) as isize + columns[0] as isize;
        for start in (0..columns[1]).step_by(WIDTH) {
            let lanes = (columns[1] - start).min(WIDTH);
            // SAFETY: the row and the columns lie in the strip.
            unsafe {
                let at = |stride: i64| [place(stride) + start as isize];
                let [x] = entries.read(block.c, at(block.c_row_stride), lanes);
                let [added] = residual.read(block.residual, at(block.residual_row_stride), lanes);
                let [code] = output.codes([x.add(added)]);
                code.store_bytes(block.c.offset(at(block.c_row_stride)[0]), lanes);
            }
        }
    }
}

/// A [`Quantisation`] in registers. What has no effect is left out: a step of 1, a zero of 0.
struct Codes<S: Sums> {
    stored: u64,
    scale: Option<S::Floats>,
    step: Option<S::Floats>,
    zero: Option<S::Floats>,
    whole_zero: Option<S>,
    /// The least and the greatest number that has a code, before the zero is added.
    low: S::Floats,
    high: S::Floats,
}

impl<S: Sums> Codes<S> {
    #[inline(always)]
    fn new(from: &Quantisation) -> Self {
        let (low, high) = if from.stored == Stored::I8 as u64 { (-128.0, 127.0) } else { (0.0, 255.0) };
        let zero = from.zero.0;
        let factor = |value: f32| if value == 1.0 { None } else { Some(S::Floats::splat(value)) };
        Codes {
            stored: from.stored,
            scale: factor(from.scale.0),
            step: factor(from.step.0),
            zero: if zero == 0.0 { None } else { Some(S::Floats::splat(zero)) },
            whole_zero: if zero == 0.0 { None } else { Some(S::splat(zero as i32)) },
            low: S::Floats::splat(low - zero),
            high: S::Floats::splat(high - zero),
        }
    }

    #[inline(always)]
    fn is(&self, stored: Stored) -> bool {
        self.stored == stored as u64
    }

    /// Numbers as far as they have codes. The zero is a whole number, so clamping before it is added and before rounding is
    /// the same as after.
    #[inline(always)]
    fn clamp<const COUNT: usize>(&self, x: &mut [S::Floats; COUNT]) {
        multiply(x, self.scale);
        if self.is(Stored::I8) {
            // NaN becomes the code 0: of unsigned bytes the least, of signed ones what the zero is added to.
            let nothing = self.zero.map_or(S::Floats::splat(0.0), Lanes::neg);
            for x in x.iter_mut() {
                *x = S::Floats::select(x.is_nan(), nothing, *x);
            }
        }
        for x in x.iter_mut() {
            *x = x.greater(self.low).lesser(self.high);
        }
    }

    /// The codes of numbers.
    #[inline(always)]
    fn codes<const COUNT: usize>(&self, mut x: [S::Floats; COUNT]) -> [S; COUNT] {
        self.clamp(&mut x);
        let mut codes = [S::splat(0); COUNT];
        for (code, x) in codes.iter_mut().zip(x) {
            *code = S::nearest(x);
        }
        if let Some(zero) = self.whole_zero {
            for code in &mut codes {
                *code = code.add(zero);
            }
        }
        codes
    }

    /// Makes numbers what their codes stand for.
    #[inline(always)]
    fn snap<const COUNT: usize>(&self, x: &mut [S::Floats; COUNT]) {
        self.clamp(x);
        for x in x.iter_mut() {
            // A code has no sign of zero.
            *x = S::round(*x).add(S::Floats::splat(0.0));
        }
        multiply(x, self.step);
    }

    /// The numbers that codes stand for.
    #[inline(always)]
    fn numbers<const COUNT: usize>(&self, codes: [S; COUNT]) -> [S::Floats; COUNT] {
        let mut x = [S::Floats::splat(0.0); COUNT];
        for (x, code) in x.iter_mut().zip(codes) {
            *x = code.to_floats();
        }
        if let Some(zero) = self.zero {
            for x in &mut x {
                *x = x.sub(zero);
            }
        }
        multiply(&mut x, self.step);
        x
    }

    /// The numbers that an array holds from some of its elements on: floats, or what bytes stand for.
    ///
    /// # Safety
    /// So many elements of the array can be read from each of these places on.
    #[inline(always)]
    unsafe fn read<const COUNT: usize>(
        &self,
        array: *const u8,
        places: [isize; COUNT],
        lanes: usize,
    ) -> [S::Floats; COUNT] {
        if self.is(Stored::F32) {
            let (mut x, mask) = ([S::Floats::splat(0.0); COUNT], S::Floats::mask(lanes));
            for (x, place) in x.iter_mut().zip(places) {
                // SAFETY: the caller vouches for the elements.
                *x = unsafe { S::Floats::load_masked(array.cast::<f32>().wrapping_offset(place), mask) };
            }
            return x;
        }
        let mut codes = [S::splat(0); COUNT];
        for (codes, place) in codes.iter_mut().zip(places) {
            // SAFETY: as above.
            *codes = unsafe { S::load_bytes(array.wrapping_offset(place), lanes, self.is(Stored::I8)) };
        }
        self.numbers(codes)
    }
}

#[inline(always)]
fn multiply<F: Lanes, const COUNT: usize>(x: &mut [F; COUNT], factor: Option<F>) {
    if let Some(factor) = factor {
        for x in x {
            *x = x.mul(factor);
        }
    }
}

/// Sums and where they go.
struct Strip<'a> {
    block: &'a ByteBlock,
    rows: [usize; 2],
    columns: [usize; 2],
    /// The first sum, and how far rows are apart.
    sums: (*const i32, usize),
}

/// Finishes a strip, panels or rows `TOGETHER` where the activation leaves registers for them: whether there is a step is asked
/// once for four sums of 16 lanes, or for two, and of four panels the bytes are stored at once.
///
/// # Safety
/// As for [`FinishFunction`].
#[inline(always)]
unsafe fn with<S: Sums, const TOGETHER: bool>(strip: &Strip<'_>, activation: impl Curve) {
    // A copy: stores to C do not change it, so nothing of it is read again.
    let block = *strip.block;
    let steps = &Steps::<S> {
        scale: if block.scale.0 == 1.0 { None } else { Some(S::Floats::splat(block.scale.0)) },
        snap: Codes::new(&block.snap),
        residual: Codes::new(&block.residual_type),
        output: Codes::new(&block.output),
        block,
    };
    let (width, height) = (strip.columns[1], strip.rows[1]);
    let (whole, mut panel) = (width / WIDTH, 0);
    // SAFETY: the panels and rows lie in the strip.
    unsafe {
        if S::HAS_MANY_REGISTERS && TOGETHER {
            while panel + 4 <= whole {
                steps.rows::<4, 4>(strip, (panel, WIDTH), 0..height, activation);
                panel += 4;
            }
            // Of fewer panels several rows at a time.
            if panel + 2 <= whole {
                steps.rows::<4, 2>(strip, (panel, WIDTH), 0..height / 2 * 2, activation);
                steps.rows::<2, 2>(strip, (panel, WIDTH), height / 2 * 2..height, activation);
                panel += 2;
            }
            if panel < whole {
                steps.rows::<4, 1>(strip, (panel, WIDTH), 0..height / 4 * 4, activation);
                steps.rows::<1, 1>(strip, (panel, WIDTH), height / 4 * 4..height, activation);
                panel += 1;
            }
        } else if TOGETHER {
            while panel < whole {
                steps.rows::<2, 1>(strip, (panel, WIDTH), 0..height / 2 * 2, activation);
                steps.rows::<1, 1>(strip, (panel, WIDTH), height / 2 * 2..height, activation);
                panel += 1;
            }
        }
        for panel in panel..width.div_ceil(WIDTH) {
            steps.rows::<1, 1>(strip, (panel, (width - panel * WIDTH).min(WIDTH)), 0..height, activation);
        }
    }
}

/// What the block says to do, with what is the same for all columns in registers.
struct Steps<S: Sums> {
    block: ByteBlock,
    scale: Option<S::Floats>,
    snap: Codes<S>,
    residual: Codes<S>,
    output: Codes<S>,
}

impl<S: Sums> Steps<S> {
    /// Some rows of `PANELS` panels from one on, with so many lanes each, `COUNT` panels of rows that follow each other at a
    /// time.
    ///
    /// # Safety
    /// As for [`FinishFunction`], of these rows and panels; the rows are a multiple of those that are done at a time.
    #[inline(always)]
    unsafe fn rows<const COUNT: usize, const PANELS: usize>(
        &self,
        strip: &Strip<'_>,
        (first, lanes): (usize, usize),
        rows: Range<usize>,
        activation: impl Curve,
    ) {
        let Steps { block, scale, snap, residual, output } = self;
        let (first_row, column) = (strip.rows[0], strip.columns[0] + first * WIDTH);
        let mask = S::Floats::mask(lanes);
        // SAFETY: the panels' columns in the mask are in the block, and so are those of its vectors.
        let [column_scale, column_bias] = unsafe {
            [
                of_columns::<S, PANELS>(block.column_scale, column, mask),
                of_columns::<S, PANELS>(block.column_bias, column, mask),
            ]
        };
        // SAFETY: as above.
        let [offset, summand] = unsafe {
            [
                whole_of_columns::<S, PANELS>(block.offset, column, lanes),
                whole_of_columns::<S, PANELS>(block.summand, column, lanes),
            ]
        };
        for row in rows.step_by(COUNT / PANELS) {
            // Where the panels at an index begin.
            let place = |stride: i64, index: usize| {
                let row = first_row + row + index / PANELS;
                (row as i64 * stride) as isize + (column + index % PANELS * WIDTH) as isize
            };
            let mut sums = [S::splat(0); COUNT];
            for (index, sum) in sums.iter_mut().enumerate() {
                let at = (row + index / PANELS) * strip.sums.1 + (first + index % PANELS) * WIDTH;
                // SAFETY: the sums of whole panels can be read.
                *sum = unsafe { S::load(strip.sums.0.add(at), WIDTH) };
            }
            if let Some(offset) = offset {
                for (index, sum) in sums.iter_mut().enumerate() {
                    *sum = sum.sub(offset[index % PANELS]);
                }
            }
            if let Some(summand) = summand {
                for (index, sum) in sums.iter_mut().enumerate() {
                    *sum = sum.add(summand[index % PANELS]);
                }
            }
            if output.is(Stored::I32) {
                for (index, sum) in sums.iter().enumerate() {
                    // SAFETY: the panels' columns in the mask are in the block.
                    unsafe { sum.store(block.c.cast::<i32>().offset(place(block.c_row_stride, index)), lanes) };
                }
                continue;
            }
            let mut x = [S::Floats::splat(0.0); COUNT];
            for (x, sum) in x.iter_mut().zip(sums) {
                *x = sum.to_floats();
            }
            multiply(&mut x, *scale);
            if let Some(factors) = column_scale {
                for (index, x) in x.iter_mut().enumerate() {
                    *x = x.mul(factors[index % PANELS]);
                }
            }
            if let Some(bias) = column_bias {
                for (index, x) in x.iter_mut().enumerate() {
                    *x = x.add(bias[index % PANELS]);
                }
            }
            if !snap.is(Stored::F32) {
                snap.snap(&mut x);
            }
            if !block.residual.is_null() {
                let mut at = [0; COUNT];
                for (index, at) in at.iter_mut().enumerate() {
                    *at = place(block.residual_row_stride, index);
                }
                // SAFETY: so many columns of the panels are in the residual.
                let added = unsafe { residual.read(block.residual, at, lanes) };
                for (x, added) in x.iter_mut().zip(added) {
                    *x = x.add(added);
                }
            }
            for x in &mut x {
                *x = activation.of(*x);
            }
            // SAFETY: the panels' columns in the mask are in the block.
            unsafe {
                if output.is(Stored::F32) {
                    for (index, x) in x.iter().enumerate() {
                        x.store_masked(block.c.cast::<f32>().offset(place(block.c_row_stride, index)), mask);
                    }
                } else if COUNT == PANELS {
                    S::store_codes(
                        output.codes(x),
                        block.c.offset(place(block.c_row_stride, 0)),
                        lanes,
                        output.is(Stored::I8),
                    );
                } else {
                    for (index, codes) in output.codes(x).iter().enumerate() {
                        codes.store_bytes(block.c.offset(place(block.c_row_stride, index)), lanes);
                    }
                }
            }
        }
    }
}

/// The columns of some panels in a vector of all, if there is one.
///
/// # Safety
/// The columns in the mask can be read, of each panel.
#[inline(always)]
unsafe fn of_columns<S: Sums, const PANELS: usize>(
    vector: *const f32,
    column: usize,
    mask: <S::Floats as Lanes>::Mask,
) -> Option<[S::Floats; PANELS]> {
    if vector.is_null() {
        return None;
    }
    let mut columns = [S::Floats::splat(0.0); PANELS];
    for (panel, columns) in columns.iter_mut().enumerate() {
        // SAFETY: the caller vouches for the columns.
        *columns = unsafe { S::Floats::load_masked(vector.add(column + panel * WIDTH), mask) };
    }
    Some(columns)
}

/// The same of integers.
///
/// # Safety
/// So many columns can be read, of each panel.
#[inline(always)]
unsafe fn whole_of_columns<S: Sums, const PANELS: usize>(
    vector: *const i32,
    column: usize,
    lanes: usize,
) -> Option<[S; PANELS]> {
    if vector.is_null() {
        return None;
    }
    let mut columns = [S::splat(0); PANELS];
    for (panel, columns) in columns.iter_mut().enumerate() {
        // SAFETY: the caller vouches for the columns.
        *columns = unsafe { S::load(vector.add(column + panel * WIDTH), lanes) };
    }
    Some(columns)
}
