//! Every level against a plain loop, bit for bit, with arrays that end at a guard page and begin behind poison.

use proptest::prelude::*;

use super::*;
use crate::kernels::lanes::{Lanes, Portable};
use crate::kernels::{KernelTable, Level, math};

/// What lies before every array: a NaN that spreads into any result computed from it, and whose bits show any write.
const MARGIN: f32 = f32::from_bits(0x7fc0_dead);

/// An array that ends where a page ends, with a page behind it that nothing may touch: an access beyond the end is a
/// segmentation fault.
struct Guarded {
    /// The first element of the mapping; margin lies between it and the array.
    mapping: *mut f32,
    /// Length of what is mapped and can be touched, in elements.
    mapped: usize,
    length: usize,
}

impl Guarded {
    const PAGE: usize = 65536;

    fn new(length: usize, value: impl FnMut(usize) -> f32) -> Guarded {
        let bytes = (length * size_of::<f32>()).next_multiple_of(Guarded::PAGE) + Guarded::PAGE;
        // SAFETY: a fresh private mapping; the last page of it loses all rights.
        let mapping = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let mapping = libc::mmap(
                std::ptr::null_mut(),
                bytes + Guarded::PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                -1,
                0,
            );
            assert_ne!(mapping, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(mapping.byte_add(bytes), Guarded::PAGE, libc::PROT_NONE), 0);
            mapping.cast::<f32>()
        };
        let mut array = Guarded { mapping, mapped: bytes / size_of::<f32>(), length };
        let start = array.mapped - length;
        array.all_mut()[..start].fill(MARGIN);
        array.all_mut()[start..].iter_mut().zip((0..length).map(value)).for_each(|(to, from)| *to = from);
        array
    }
    fn all(&self) -> &[f32] {
        // SAFETY: the mapping has that length and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.mapping, self.mapped) }
    }
    fn all_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.mapping, self.mapped) }
    }
    fn pointer(&self) -> *const f32 {
        self.mapping.wrapping_add(self.mapped - self.length)
    }
    fn pointer_mut(&mut self) -> *mut f32 {
        self.mapping.wrapping_add(self.mapped - self.length)
    }
    fn get(&self, index: usize) -> f32 {
        self.all()[self.mapped - self.length + index]
    }
    fn set(&mut self, index: usize, value: f32) {
        let at = self.mapped - self.length + index;
        self.all_mut()[at] = value;
    }
    fn bits(&self) -> impl Iterator<Item = u32> {
        self.all().iter().map(|value| value.to_bits())
    }
}

impl Clone for Guarded {
    fn clone(&self) -> Self {
        Guarded::new(self.length, |index| self.get(index))
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, whole.
        unsafe { libc::munmap(self.mapping.cast(), self.mapped * size_of::<f32>() + Guarded::PAGE) };
    }
}

#[derive(Clone, Copy, Debug)]
enum LayoutA {
    RowMajor,
    Transposed,
    Spread,
}

#[derive(Clone, Copy, Debug)]
enum LayoutB {
    Packed,
    /// Packed, with numbers that are bf16.
    Bf16,
    RowMajor,
    /// Columns of a matrix with 16, up to its last: the rows lie as those of a packed panel do, but the last ends with them.
    LastOfSixteen,
}

#[derive(Clone, Debug)]
struct Case {
    rows: usize,
    columns: usize,
    depth: usize,
    items: usize,
    a: LayoutA,
    b: LayoutB,
    c_padding: usize,
    continues: bool,
    scale: f32,
    column_scale: bool,
    bias: bool,
    /// Where the residual is added, if there is one, and whether it is C itself.
    residual: Option<(ResidualPlace, bool)>,
    activation: Activation,
    parameters: [f32; 2],
    seed: u64,
}

const PLACES: [ResidualPlace; 3] =
    [ResidualPlace::AfterActivation, ResidualPlace::BeforeActivation, ResidualPlace::BeforeBias];

fn cases() -> impl Strategy<Value = Case> {
    let sizes = (1usize..=40, 1usize..=140, 0usize..=70, 0usize..=5);
    let layouts = (
        prop_oneof![Just(LayoutA::RowMajor), Just(LayoutA::Transposed), Just(LayoutA::Spread)],
        prop_oneof![Just(LayoutB::Packed), Just(LayoutB::Bf16), Just(LayoutB::RowMajor), Just(LayoutB::LastOfSixteen)],
        0usize..20,
    );
    let epilogue = (
        any::<[bool; 3]>(),
        prop_oneof![Just(1.0f32), -2.0f32..2.0],
        proptest::option::of((proptest::sample::select(&PLACES[..]), any::<bool>())),
        proptest::sample::select(&Activation::ALL[..]),
        -1.0f32..0.5,
        0.5f32..2.0,
    );
    (sizes, layouts, epilogue, any::<u64>()).prop_map(
        |((rows, columns, depth, items), (a, b, c_padding), (flags, scale, residual, activation, p0, p1), seed)| Case {
            rows,
            columns: if let LayoutB::LastOfSixteen = b { (columns - 1) % WIDTH + 1 } else { columns },
            depth,
            items,
            a,
            b,
            c_padding,
            continues: flags[0],
            scale,
            column_scale: flags[1],
            bias: flags[2],
            residual,
            activation,
            parameters: [p0, p1],
            seed,
        },
    )
}

/// Values of either sign and of sizes some orders apart, zeros of both signs among them.
fn values(seed: u64) -> impl FnMut(usize) -> f32 {
    let mut state = seed | 1;
    move |_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let bits = (state >> 33) as u32;
        match bits % 61 {
            0 => 0.0,
            1 => -0.0,
            _ => (bits % 4096) as f32 / 2048.0 * 2f32.powi((bits >> 12) as i32 % 5 - 2) - 0.9,
        }
    }
}

fn reference_activation(activation: Activation, [p0, p1]: [f32; 2], x: f32) -> f32 {
    // -0 is less than +0, which `f32::max` leaves open.
    let max = |x: f32, y: f32| if x == y { f32::from_bits(x.to_bits() & y.to_bits()) } else { x.max(y) };
    let min = |x: f32, y: f32| if x == y { f32::from_bits(x.to_bits() | y.to_bits()) } else { x.min(y) };
    match activation {
        Activation::None => x,
        Activation::Relu => max(x, 0.0),
        Activation::Clip => min(max(x, p0), p1),
        Activation::LeakyRelu => {
            if x < 0.0 {
                p0 * x
            } else {
                x
            }
        }
        Activation::HardSwish => x * max(0.0, min(1.0, x / 6.0 + 0.5)),
        // The functions themselves are tested where they live; here only that they are the same, and applied.
        Activation::Sigmoid => math::sigmoid(Portable::splat(x)).first(),
        Activation::Tanh => math::tanh(Portable::splat(x)).first(),
        Activation::Silu => math::silu(Portable::splat(x)).first(),
        Activation::Gelu => math::gelu(Portable::splat(x)).first(),
        Activation::GeluTanh => math::gelu_tanh(Portable::splat(x)).first(),
    }
}

fn check(case: &Case) {
    let Case { rows, columns, depth, items, .. } = *case;
    let (a_row_stride, a_depth_stride, a_length) = match case.a {
        LayoutA::RowMajor => (depth as i64 + 3, 1, rows * (depth + 3)),
        LayoutA::Transposed => (1, rows as i64 + 1, depth * (rows + 1)),
        LayoutA::Spread => (2 * depth as i64 + 1, 2, rows * (2 * depth + 1)),
    };
    let panels = columns.div_ceil(WIDTH);
    let (b_depth_stride, b_panel_stride, b_length) = match case.b {
        LayoutB::Packed | LayoutB::Bf16 => (WIDTH, WIDTH * depth, panels * WIDTH * depth),
        LayoutB::RowMajor => (columns, WIDTH, columns * depth),
        LayoutB::LastOfSixteen => (WIDTH, WIDTH, (WIDTH * depth).saturating_sub(WIDTH - columns)),
    };
    let mut value = values(case.seed);
    let a: Vec<_> = (0..items).map(|_| Guarded::new(a_length, &mut value)).collect();
    let mut b: Vec<_> = (0..items).map(|_| Guarded::new(b_length, &mut value)).collect();
    let b_index = |k: usize, j: usize| (j / WIDTH) * b_panel_stride + k * b_depth_stride + j % WIDTH;
    if let LayoutB::Packed | LayoutB::Bf16 = case.b {
        for (k, j) in (0..depth).flat_map(|k| (columns..panels * WIDTH).map(move |j| (k, j))) {
            b.iter_mut().for_each(|b| b.set(b_index(k, j), 0.0));
        }
    }
    // Two numbers in the place of one.
    let mut halves = Vec::new();
    if let LayoutB::Bf16 = case.b {
        for b in &mut b {
            (0..b_length).for_each(|index| b.set(index, f32::from_bits(b.get(index).to_bits() & 0xffff_0000)));
            let half = |index: usize| b.get(index).to_bits() >> 16;
            halves.push(Guarded::new(b_length / 2, |pair| f32::from_bits(half(2 * pair) | half(2 * pair + 1) << 16)));
        }
    }
    let is_bf16 = matches!(case.b, LayoutB::Bf16);
    let column_scale = case.column_scale.then(|| Guarded::new(columns, &mut value));
    let bias = case.bias.then(|| Guarded::new(columns, &mut value));
    let c_row_stride = columns + case.c_padding;
    let c = Guarded::new(rows * c_row_stride, &mut value);
    let separate = Guarded::new(rows * columns, &mut value);
    let place = case.residual.map(|(place, _)| place);
    let in_place = case.residual.is_some_and(|(_, in_place)| in_place);

    let mut expected = c.clone();
    for (i, j) in (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j))) {
        let at = i * c_row_stride + j;
        let residual = if in_place { c.get(at) } else { separate.get(i * columns + j) };
        let mut x = if case.continues { c.get(at) } else { 0.0 };
        for (a, b) in a.iter().zip(&b) {
            for k in 0..depth {
                x = a.get(i * a_row_stride as usize + k * a_depth_stride as usize).mul_add(b.get(b_index(k, j)), x);
            }
        }
        x *= case.scale;
        x = column_scale.as_ref().map_or(x, |scale| x * scale.get(j));
        x = if place == Some(ResidualPlace::BeforeBias) { x + residual } else { x };
        x = bias.as_ref().map_or(x, |bias| x + bias.get(j));
        x = if place == Some(ResidualPlace::BeforeActivation) { x + residual } else { x };
        x = reference_activation(case.activation, case.parameters, x);
        x = if place == Some(ResidualPlace::AfterActivation) { x + residual } else { x };
        expected.set(at, x);
    }

    let list: Vec<_> = a
        .iter()
        .zip(if is_bf16 { &halves } else { &b })
        .map(|(a, b)| GemmItem { a: a.pointer(), b: b.pointer() })
        .collect();
    for level in Level::available() {
        let mut found = c.clone();
        let pointer = found.pointer_mut();
        let (residual, residual_row_stride) = match case.residual {
            None => (std::ptr::null(), 0),
            Some((_, true)) => (pointer.cast_const(), c_row_stride as i64),
            Some((_, false)) => (separate.pointer(), columns as i64),
        };
        let block = GemmBlock {
            c: pointer,
            c_row_stride: c_row_stride as i64,
            rows: rows as u64,
            columns: columns as u64,
            items: list.as_ptr(),
            item_count: items as u64,
            a_row_stride,
            a_depth_stride,
            depth: depth as u64,
            b_depth_stride: b_depth_stride as i64,
            b_panel_stride: b_panel_stride as i64,
            start: if case.continues { pointer } else { std::ptr::null() },
            start_row_stride: c_row_stride as i64,
            scale: FloatSlot(case.scale),
            column_scale: column_scale.as_ref().map_or(std::ptr::null(), Guarded::pointer),
            column_bias: bias.as_ref().map_or(std::ptr::null(), Guarded::pointer),
            residual,
            residual_row_stride,
            residual_place: place.map_or(0, |place| place as u64),
            activation: case.activation as u64,
            activation_parameters: case.parameters.map(FloatSlot),
            b_is_bf16: is_bf16.into(),
            memory: std::ptr::null_mut(),
            memory_words: 0,
        };
        // SAFETY: all arrays have the sizes the block states.
        unsafe { (KernelTable::for_level(level).gemm_f32)(&block) };
        assert!(found.bits().eq(expected.bits()), "{level}: {case:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn all_levels_equal_a_plain_loop(case in cases()) {
        check(&case);
    }
}

/// Every height and width of tile with every activation, whatever the random cases hit.
#[test]
fn every_tile() {
    for rows in 1..=29 {
        for columns in (1..=140).step_by(if rows < 15 { 5 } else { 31 }) {
            check(&Case {
                rows,
                columns,
                depth: 3,
                items: 2,
                a: LayoutA::RowMajor,
                b: LayoutB::Packed,
                c_padding: 1,
                continues: columns % 2 == 0,
                scale: 0.5,
                column_scale: true,
                bias: true,
                residual: Some((PLACES[rows % 3], rows % 5 == 0)),
                activation: Activation::ALL[(rows + columns) % Activation::ALL.len()],
                parameters: [0.1, 1.0],
                seed: (rows * 1000 + columns) as u64,
            });
        }
    }
}

#[test]
fn every_field_has_eight_bytes() {
    assert_eq!(size_of::<FloatSlot>(), 8);
    assert_eq!(size_of::<GemmBlock>(), 25 * 8);
    assert_eq!(core::mem::offset_of!(GemmBlock, activation_parameters), 20 * 8);
}
