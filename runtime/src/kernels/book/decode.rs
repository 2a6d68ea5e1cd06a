//! From codes to numbers.

use super::{BookBlock, CODES, DEPTHS};
use crate::kernels::lanes::{Lanes, WIDTH};

/// What the codes of a panel stand for.
pub(super) enum Book<V> {
    /// Lane `i` is the number of code `i`, whatever the column.
    Shared(V),
    /// A vector of numbers for every code, a lane for each column, and how many codes are used.
    ByColumn(*const f32, u64),
}

impl<V: Lanes> Book<V> {
    /// # Safety
    /// The block has the panel, and its book can be read.
    #[inline(always)]
    pub(super) unsafe fn of(block: &BookBlock, panel: usize) -> Self {
        // SAFETY: the caller vouches for the book.
        unsafe {
            match block.by_column {
                0 => Book::Shared(V::load(block.book)),
                used => Book::ByColumn(block.book.add(panel * CODES * WIDTH), used),
            }
        }
    }
}

/// Looks up `groups` times eight depths of a panel.
///
/// # Safety
/// The words and the book can be read, and `groups * 8 * 16` numbers written.
#[inline(always)]
pub(super) unsafe fn decode<V: Lanes>(words: *const f32, groups: usize, book: &Book<V>, numbers: *mut f32) {
    for group in 0..groups {
        // SAFETY: the group is one of those that the caller vouches for.
        unsafe {
            let mut word = V::load(words.add(group * WIDTH));
            let numbers = numbers.add(group * DEPTHS * WIDTH);
            match book {
                Book::Shared(table) => {
                    for k in 0..DEPTHS {
                        word.look_up(*table).store(numbers.add(k * WIDTH));
                        word = word.shift_right::<4>();
                    }
                }
                Book::ByColumn(book, 0..=4) => choose_all::<V, 1>(word, *book, numbers),
                Book::ByColumn(book, 5..=8) => choose_all::<V, 2>(word, *book, numbers),
                Book::ByColumn(book, 9..=12) => choose_all::<V, 3>(word, *book, numbers),
                Book::ByColumn(book, _) => choose_all::<V, 4>(word, *book, numbers),
            }
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
