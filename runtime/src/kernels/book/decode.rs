//! From codes to numbers.

use super::{BookBlock, CODES, DEPTHS};
use crate::kernels::lanes::{Lanes, WIDTH};

/// What the codes of a panel stand for.
pub(super) enum Book<V> {
    /// Lane `i` is the number of code `i`, whatever the column.
    Shared(V),
    /// A vector of numbers for every code, a lane for each column, and how many codes are used.
    ByColumn(*const f32, u64),
    /// Codes of four bits and what they stand for, scaled.
    Scaled(V, Scales),
    /// Codes of eight bits, scaled.
    ScaledBytes(Scales),
}

/// The scales of a panel.
#[derive(Clone, Copy)]
pub(super) struct Scales {
    /// Rows of 16, each followed by one of zero points if there are any.
    rows: *const f32,
    /// Depths that a row is for.
    depths: usize,
    has_zeros: bool,
}

impl Scales {
    /// Those of a panel, if there are any.
    ///
    /// # Safety
    /// The block has the panel.
    #[inline(always)]
    pub(super) unsafe fn of(block: &BookBlock, panel: usize) -> Self {
        let has_zeros = block.has_zeros > 0;
        if block.scales.is_null() {
            return Scales { rows: block.scales, depths: DEPTHS, has_zeros };
        }
        // SAFETY: the caller vouches for the panel.
        Scales { rows: unsafe { block.scales_of(panel) }, depths: block.scale_depths as usize, has_zeros }
    }
}

/// What a float has in its upper bits whose lowest eight are an integer, after this number is taken off.
pub(super) const BYTES: f32 = 8_388_608.;

impl<V: Lanes> Book<V> {
    /// # Safety
    /// The block has the panel, and its book can be read.
    #[inline(always)]
    pub(super) unsafe fn of(block: &BookBlock, panel: usize) -> Self {
        // SAFETY: the caller vouches for the book.
        unsafe {
            if !block.scales.is_null() {
                let scales = Scales::of(block, panel);
                return if block.bits == 8 {
                    Book::ScaledBytes(scales)
                } else {
                    Book::Scaled(V::load(block.book), scales)
                };
            }
            match block.by_column {
                0 => Book::Shared(V::load(block.book)),
                used => Book::ByColumn(block.book.add(panel * CODES * WIDTH), used),
            }
        }
    }
}

/// Looks up `groups` times eight depths of a panel, whose words begin with those of depth `from`.
///
/// # Safety
/// The words and the book can be read, and `groups * 8 * 16` numbers written.
#[inline(always)]
pub(super) unsafe fn decode<V: Lanes>(
    words: *const f32,
    (from, groups): (usize, usize),
    book: &Book<V>,
    numbers: *mut f32,
) {
    // SAFETY: the caller vouches for words, book and numbers.
    unsafe {
        match book {
            Book::Scaled(table, scales) if scales.has_zeros => {
                scaled::<V, true>(words, (from, groups), *table, *scales, numbers)
            }
            Book::Scaled(table, scales) => scaled::<V, false>(words, (from, groups), *table, *scales, numbers),
            Book::ScaledBytes(scales) if scales.has_zeros => {
                scaled_bytes::<V, true>(words, (from, groups), *scales, numbers)
            }
            Book::ScaledBytes(scales) => scaled_bytes::<V, false>(words, (from, groups), *scales, numbers),
            Book::Shared(table) => looked_up(words, groups, *table, numbers),
            Book::ByColumn(book, 0..=4) => chosen::<V, 1>(words, groups, *book, numbers),
            Book::ByColumn(book, 5..=8) => chosen::<V, 2>(words, groups, *book, numbers),
            Book::ByColumn(book, 9..=12) => chosen::<V, 3>(words, groups, *book, numbers),
            Book::ByColumn(book, _) => chosen::<V, 4>(words, groups, *book, numbers),
        }
    }
}

/// Codes of four bits that have scales.
///
/// # Safety
/// As for [`decode`].
#[inline(always)]
unsafe fn scaled<V: Lanes, const ZEROS: bool>(
    words: *const f32,
    (from, groups): (usize, usize),
    table: V,
    scales: Scales,
    numbers: *mut f32,
) {
    let mut rows = Rows::of(scales, from);
    for group in 0..groups {
        // SAFETY: the group and its scales are among those that the caller vouches for.
        unsafe {
            let (scale, zero) = rows.next::<V, ZEROS>();
            let mut word = V::load(words.add(group * WIDTH));
            let numbers = numbers.add(group * DEPTHS * WIDTH);
            for k in 0..DEPTHS {
                let number = word.look_up(table);
                let number = if ZEROS { number.sub(zero) } else { number };
                number.mul(scale).store(numbers.add(k * WIDTH));
                word = word.shift_right::<4>();
            }
        }
    }
}

/// Codes of eight bits that have scales.
///
/// # Safety
/// As for [`decode`].
#[inline(always)]
unsafe fn scaled_bytes<V: Lanes, const ZEROS: bool>(
    words: *const f32,
    (from, groups): (usize, usize),
    scales: Scales,
    numbers: *mut f32,
) {
    let (lowest, upper) = (V::splat(f32::from_bits(0xff)), V::splat(BYTES));
    let mut rows = Rows::of(scales, from);
    for group in 0..groups {
        // SAFETY: as above.
        unsafe {
            let (scale, zero) = rows.next::<V, ZEROS>();
            // Integers of 24 bits: exact.
            let zero = if ZEROS { upper.add(zero) } else { upper };
            for half in 0..2 {
                let mut word = V::load(words.add((group * 2 + half) * WIDTH));
                let numbers = numbers.add((group * 2 + half) * DEPTHS / 2 * WIDTH);
                for k in 0..DEPTHS / 2 {
                    let number = word.and(lowest).or(upper).sub(zero);
                    number.mul(scale).store(numbers.add(k * WIDTH));
                    word = word.shift_right::<8>();
                }
            }
        }
    }
}

/// A walk over the rows of scales, eight depths at a time.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    scales: Scales,
    /// Depths that the row is still for.
    left: usize,
}

impl Rows {
    #[inline(always)]
    pub(super) fn of(scales: Scales, from: usize) -> Self {
        let row = from / scales.depths * (1 + usize::from(scales.has_zeros));
        Rows {
            scales: Scales { rows: scales.rows.wrapping_add(row * WIDTH), ..scales },
            left: scales.depths - from % scales.depths,
        }
    }

    /// The scales of the next eight depths, and their zero points if there are any.
    ///
    /// # Safety
    /// The rows can be read.
    #[inline(always)]
    pub(super) unsafe fn next<V: Lanes, const ZEROS: bool>(&mut self) -> (V, V) {
        if self.left == 0 {
            self.left = self.scales.depths;
            self.scales.rows = self.scales.rows.wrapping_add((1 + usize::from(ZEROS)) * WIDTH);
        }
        self.left -= DEPTHS;
        // SAFETY: the caller vouches for the rows.
        unsafe {
            let scale = V::load(self.scales.rows);
            (scale, if ZEROS { V::load(self.scales.rows.add(WIDTH)) } else { scale })
        }
    }
}

/// Codes of four bits that a book of all columns tells of.
///
/// # Safety
/// As for [`decode`].
#[inline(always)]
unsafe fn looked_up<V: Lanes>(words: *const f32, groups: usize, table: V, numbers: *mut f32) {
    for group in 0..groups {
        // SAFETY: the group is one of those that the caller vouches for.
        unsafe {
            let mut word = V::load(words.add(group * WIDTH));
            let numbers = numbers.add(group * DEPTHS * WIDTH);
            for k in 0..DEPTHS {
                word.look_up(table).store(numbers.add(k * WIDTH));
                word = word.shift_right::<4>();
            }
        }
    }
}

/// Codes of four bits, below `4 * FOURS`, that a book of each column tells of.
///
/// # Safety
/// As for [`decode`].
#[inline(always)]
unsafe fn chosen<V: Lanes, const FOURS: usize>(words: *const f32, groups: usize, book: *const f32, numbers: *mut f32) {
    for group in 0..groups {
        // SAFETY: as above.
        unsafe {
            let word = V::load(words.add(group * WIDTH));
            choose_all::<V, FOURS>(word, book, numbers.add(group * DEPTHS * WIDTH));
        }
    }
}

/// Eight depths whose codes lie below `4 * FOURS`.
///
/// # Safety
/// The vectors of sixteen codes can be read, those of eight depths written.
#[inline(always)]
unsafe fn choose_all<V: Lanes, const FOURS: usize>(mut word: V, book: *const f32, numbers: *mut f32) {
    // The uppermost bit is what masks look at, so the last depth comes first.
    for k in (0..DEPTHS).rev() {
        let mut bit = || {
            let bit = word.has_sign();
            word = word.shift_left::<1>();
            bit
        };
        let bits = [bit(), bit(), bit(), bit()];
        // SAFETY: the caller vouches for book and numbers.
        unsafe { choose::<V, FOURS>(book, bits).store(numbers.add(k * WIDTH)) };
    }
}

/// The vector among `4 * FOURS` that four bits name, in every lane; the uppermost bit first.
///
/// # Safety
/// The vectors can be read.
#[inline(always)]
unsafe fn choose<V: Lanes, const FOURS: usize>(book: *const f32, bits: [V::Mask; 4]) -> V {
    // SAFETY: the number of a vector is below sixteen.
    let vector = |number: usize| unsafe { V::load(book.add(number * WIDTH)) };
    let of_two = |number: usize| V::select(bits[3], vector(2 * number + 1), vector(2 * number));
    let of_four = |number: usize| V::select(bits[2], of_two(2 * number + 1), of_two(2 * number));
    let of_eight = |number: usize| V::select(bits[1], of_four(2 * number + 1), of_four(2 * number));
    match FOURS {
        1 => of_four(0),
        2 => of_eight(0),
        3 => V::select(bits[0], of_four(2), of_eight(0)),
        _ => V::select(bits[0], of_eight(1), of_eight(0)),
    }
}
