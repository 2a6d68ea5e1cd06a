//! Sums of a strip of rows: two registers of rows by two panels at a time, or one by four, over all items and depths.

use super::registers::{Multiply, SIDE, Shapes, load, store, zero};

/// Rows of the tallest strip.
pub(in super::super) const TALLEST: usize = 2 * SIDE;

/// One product that is summed: the first row of A, and the first panel of B.
#[repr(C)]
#[derive(Clone, Copy)]
pub(in super::super) struct Item {
    pub(in super::super) a: *const u8,
    pub(in super::super) b: *const u8,
}

/// How many rows a strip and its registers have. They are the same for all strips of a block, so that registers are
/// configured once: its last strip repeats rows of the one before.
#[derive(Clone, Copy)]
pub(in super::super) struct Tall {
    /// Rows of a strip.
    pub(in super::super) strip: usize,
    /// Rows of a register. Two of them may have rows of a strip in common.
    register: usize,
    /// Groups of 32 bits that an item is deep.
    groups: usize,
}

impl Tall {
    /// Rows of a strip of a block of so many, one or more.
    #[inline(always)]
    pub(in super::super) fn strip_of(rows: usize) -> usize {
        rows.div_ceil(rows.div_ceil(TALLEST))
    }

    /// For a block of so many rows, and items of so many groups.
    #[inline(always)]
    pub(in super::super) fn new(rows: usize, groups: usize) -> Self {
        let strip = Tall::strip_of(rows);
        let register = if strip <= SIDE { strip } else { strip.div_ceil(2) };
        Tall { strip, register, groups }
    }

    /// Configures the registers for such strips.
    ///
    /// # Safety
    /// [`is_available`](super::is_available) said yes, and the thread calls [`release`](super::release) when it is done.
    #[inline(always)]
    pub(in super::super) unsafe fn configure(&self) {
        let mut shapes = Shapes::none();
        for sums in 0..4 {
            shapes.set(sums, self.register, SIDE);
        }
        shapes.set(A, self.register, SIDE);
        shapes.set(B, SIDE, SIDE);
        let rest = self.groups % SIDE;
        if rest > 0 {
            shapes.set(REST_OF_A, self.register, rest);
            shapes.set(REST_OF_B, rest, SIDE);
        } else {
            shapes.set(NEXT_B, SIDE, SIDE);
        }
        // SAFETY: the caller vouches for it.
        unsafe { shapes.configure() }
    }
}

// Registers 0 to 3 hold sums. One register for each factor would be enough, as the CPU renames them and loads the next while one is
// multiplied: a second one for panels, where there is one left, saves loading the first panel again.
const A: usize = 4;
const B: usize = 5;
const NEXT_B: usize = 6;
const REST_OF_A: usize = 6;
const REST_OF_B: usize = 7;

/// A strip of a product.
pub(in super::super) struct Product {
    pub(in super::super) items: *const Item,
    pub(in super::super) item_count: usize,
    /// The first row, counted from that of the items, of [`Tall::strip`].
    pub(in super::super) row: usize,
    /// The first panel, counted from that of the items.
    pub(in super::super) panel: usize,
    /// How many panels there are.
    pub(in super::super) panels: usize,
    /// Bytes between two rows of A.
    pub(in super::super) a_row_stride: isize,
    /// Bytes between two panels of B, whose groups lie 64 bytes apart.
    pub(in super::super) b_panel_stride: isize,
    /// The sum of the first row and column, of 32 bits as all of them.
    pub(in super::super) sums: *mut u8,
    /// Bytes between two rows of sums.
    pub(in super::super) sum_stride: isize,
    /// Whether products are added to what the sums are.
    pub(in super::super) continues: bool,
}

/// Computes the sums of a strip, whole panels of them.
///
/// # Safety
/// The registers are configured for strips of that height, of which this one lies in the arrays of the items; sums can be written, and
/// read if they are continued.
#[inline(always)]
pub(in super::super) unsafe fn multiply<M: Multiply>(product: &Product, tall: &Tall) {
    // SAFETY: the caller vouches for the strip.
    unsafe {
        if tall.groups.is_multiple_of(SIDE) {
            panels::<M, false>(product, tall);
        } else {
            panels::<M, true>(product, tall);
        }
    }
}

/// [`multiply`] where items have depths after those of whole registers, or have not.
///
/// # Safety
/// As for [`multiply`].
#[inline(always)]
unsafe fn panels<M: Multiply, const HAS_REST: bool>(product: &Product, tall: &Tall) {
    let is_double = tall.strip > SIDE;
    let mut panel = 0;
    while panel < product.panels {
        let left = product.panels - panel;
        // SAFETY: the caller vouches for the strip, in which these panels lie.
        unsafe {
            panel += match (is_double, left) {
                (true, 1) => tile::<M, HAS_REST, 2, 1>(product, tall, panel),
                (true, _) => tile::<M, HAS_REST, 2, 2>(product, tall, panel),
                (false, 1) => tile::<M, HAS_REST, 1, 1>(product, tall, panel),
                (false, 2 | 3) => tile::<M, HAS_REST, 1, 2>(product, tall, panel),
                (false, _) => tile::<M, HAS_REST, 1, 4>(product, tall, panel),
            };
        }
    }
}

/// Computes so many panels of sums, and says how many.
///
/// # Safety
/// As for [`multiply`]; the panels lie in the strip.
#[inline(always)]
unsafe fn tile<M: Multiply, const HAS_REST: bool, const ROWS: usize, const PANELS: usize>(
    product: &Product,
    tall: &Tall,
    panel: usize,
) -> usize {
    // Where the second register's rows begin.
    let second = (tall.strip - tall.register) as isize;
    let (a_stride, b_stride) = (product.a_row_stride, product.b_panel_stride);
    let sums = Sums {
        first: product.sums.wrapping_add(panel * SIDE * 4),
        below: second * product.sum_stride,
        stride: product.sum_stride,
    };
    let strides = Strides { row: a_stride, below: second * a_stride, panel: b_stride };
    let (first_row, first_panel) = (product.row as isize * a_stride, (product.panel + panel) as isize * b_stride);
    // SAFETY: the caller vouches for the registers, the arrays and the sums.
    unsafe {
        if product.continues {
            sums.load::<ROWS, PANELS>();
        } else {
            zero::<0>();
            zero::<1>();
            zero::<2>();
            zero::<3>();
        }
        for item in 0..product.item_count {
            let item = *product.items.add(item);
            let mut a = item.a.wrapping_offset(first_row);
            let mut b = item.b.wrapping_offset(first_panel);
            for _ in 0..tall.groups / SIDE {
                if HAS_REST {
                    step::<M, A, B, B, ROWS, PANELS>(a, b, &strides);
                } else {
                    step::<M, A, B, NEXT_B, ROWS, PANELS>(a, b, &strides);
                }
                a = a.wrapping_add(4 * SIDE);
                b = b.wrapping_add(4 * SIDE * SIDE);
            }
            if HAS_REST {
                step::<M, REST_OF_A, REST_OF_B, REST_OF_B, ROWS, PANELS>(a, b, &strides);
            }
        }
        sums.store::<ROWS, PANELS>();
    }
    PANELS
}

/// Where the sums of a tile are.
struct Sums {
    first: *mut u8,
    /// From a row to the same one of the second register of rows, in bytes.
    below: isize,
    /// From a row to the next.
    stride: isize,
}

impl Sums {
    #[inline(always)]
    fn at(&self, row: isize, panel: usize) -> *mut u8 {
        self.first.wrapping_offset(row * self.below).wrapping_add(panel * SIDE * 4)
    }

    /// # Safety
    /// The registers are configured, and the sums can be read.
    #[inline(always)]
    unsafe fn load<const ROWS: usize, const PANELS: usize>(&self) {
        // SAFETY: the caller vouches for both.
        unsafe {
            load::<0>(self.at(0, 0), self.stride);
            if PANELS > 1 {
                load::<1>(self.at(0, 1), self.stride);
            }
            if PANELS > 2 {
                load::<2>(self.at(0, 2), self.stride);
                load::<3>(self.at(0, 3), self.stride);
            }
            if ROWS > 1 {
                load::<2>(self.at(1, 0), self.stride);
                if PANELS > 1 {
                    load::<3>(self.at(1, 1), self.stride);
                }
            }
        }
    }

    /// # Safety
    /// The registers are configured, and the sums can be written.
    #[inline(always)]
    unsafe fn store<const ROWS: usize, const PANELS: usize>(&self) {
        // SAFETY: the caller vouches for both.
        unsafe {
            store::<0>(self.at(0, 0), self.stride);
            if PANELS > 1 {
                store::<1>(self.at(0, 1), self.stride);
            }
            if PANELS > 2 {
                store::<2>(self.at(0, 2), self.stride);
                store::<3>(self.at(0, 3), self.stride);
            }
            if ROWS > 1 {
                store::<2>(self.at(1, 0), self.stride);
                if PANELS > 1 {
                    store::<3>(self.at(1, 1), self.stride);
                }
            }
        }
    }
}

/// Distances in the factors, in bytes.
struct Strides {
    /// Between two rows of A.
    row: isize,
    /// From a row of A to the same one of the second register.
    below: isize,
    /// Between two panels of B.
    panel: isize,
}

/// Adds the products of a register's depths, with one register for rows, and two for panels that may be the same.
///
/// # Safety
/// As for [`tile`]; the registers have the shapes of what lies at `a` and below it, and at `b` with the panels after it.
#[inline(always)]
unsafe fn step<
    M: Multiply,
    const FACTOR: usize,
    const PANEL: usize,
    const NEXT: usize,
    const ROWS: usize,
    const PANELS: usize,
>(
    a: *const u8,
    b: *const u8,
    strides: &Strides,
) {
    /// Bytes of a group of depths of a panel.
    const GROUP: isize = 4 * SIDE as isize;
    let panel = |place: isize| b.wrapping_offset(place * strides.panel);
    // SAFETY: the caller vouches for the registers and the arrays.
    unsafe {
        load::<FACTOR>(a, strides.row);
        load::<PANEL>(b, GROUP);
        M::add_product::<0, FACTOR, PANEL>();
        if PANELS > 1 {
            load::<NEXT>(panel(1), GROUP);
            M::add_product::<1, FACTOR, NEXT>();
        }
        if PANELS > 2 {
            load::<PANEL>(panel(2), GROUP);
            M::add_product::<2, FACTOR, PANEL>();
            load::<NEXT>(panel(3), GROUP);
            M::add_product::<3, FACTOR, NEXT>();
        }
        if ROWS > 1 {
            load::<FACTOR>(a.wrapping_offset(strides.below), strides.row);
            if PANELS > 1 {
                M::add_product::<3, FACTOR, NEXT>();
                if PANEL == NEXT {
                    load::<PANEL>(b, GROUP);
                }
            }
            M::add_product::<2, FACTOR, PANEL>();
        }
    }
}
