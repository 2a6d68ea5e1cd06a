//! Sorting along an axis: the kernels of sort and top-k.
//!
//! The arrays are dense and seen as `[outer, along, inner]`. The grid has one tile for each of the `outer * inner` rows. The
//! arguments of a step are
//!
//! | word | meaning |
//! |---|---|
//! | 0 | address of the source, `[outer, n, inner]` |
//! | 1 | address of the values, `[outer, k, inner]` of the same type; not the source |
//! | 2 | address of the positions, `[outer, k, inner]` of i64 |
//! | 3 | `n`, the number of elements of a row, below 2^32 |
//! | 4 | `inner`, the elements between neighbours of a row |
//! | 5 | `k`, how many are kept, at most `n` |
//! | 6 | 1 from the largest down, else 0 |
//! | 7 | the element type: its position in [`ElementType::ALL`] |
//!
//! and the scratch is [`SCRATCH_PER_ELEMENT`] bytes for each of `n`. The order is stable: of equal values (-0 and +0 are
//! equal) the lower position comes first, and NaN counts as the largest. Sub-byte types do not sort.

use super::builtin::{Builtin, Word};
use crate::ElementType;
use crate::program::{Context, status};
use half::{bf16, f16};

/// Bytes of scratch for each element of a row.
pub const SCRATCH_PER_ELEMENT: u64 = 16;

/// An element that sorts.
trait Sortable: Copy {
    /// A key and a position in one number, so that sorting is that of integers and stable by itself.
    type Packed: Ord + Copy;

    /// Packs the key, which ascends with the element (inverted when `descending`), above the position.
    fn pack(self, position: u32, descending: bool) -> Self::Packed;

    /// The position.
    fn position(packed: Self::Packed) -> u32;
}

macro_rules! sortable {
    ($($element:ty, $unsigned:ty, $packed:ty, |$value:ident| $key:expr;)*) => {$(
        impl Sortable for $element {
            type Packed = $packed;

            #[inline(always)]
            fn pack(self, position: u32, descending: bool) -> $packed {
                let $value = self;
                let key: $unsigned = $key;
                let key = if descending { !key } else { key };
                <$packed>::from(key) << 32 | <$packed>::from(position)
            }

            #[inline(always)]
            fn position(packed: $packed) -> u32 {
                packed as u32
            }
        }
    )*};
}

/// An unsigned key that ascends with a float of these bits: NaN is the largest, and the zeros are equal.
macro_rules! float_key {
    ($value:ident, $bits:ty, $sign:expr) => {{
        let bits: $bits = $value.to_bits();
        if $value.is_nan() {
            <$bits>::MAX
        } else if bits << 1 == 0 {
            $sign
        } else if bits & $sign != 0 {
            !bits
        } else {
            bits | $sign
        }
    }};
}

sortable! {
    f32, u32, u64, |value| float_key!(value, u32, 1 << 31);
    f64, u64, u128, |value| float_key!(value, u64, 1 << 63);
    f16, u16, u64, |value| float_key!(value, u16, 1 << 15);
    bf16, u16, u64, |value| float_key!(value, u16, 1 << 15);
    i8, u8, u64, |value| value as u8 ^ 1 << 7;
    i16, u16, u64, |value| value as u16 ^ 1 << 15;
    i32, u32, u64, |value| value as u32 ^ 1 << 31;
    i64, u64, u128, |value| value as u64 ^ 1 << 63;
    u8, u8, u64, |value| value;
    u16, u16, u64, |value| value;
    u32, u32, u64, |value| value;
    u64, u64, u128, |value| value;
}

/// The kernel.
pub(super) const BUILTIN: Builtin = Builtin { name: "sort", function: sort, check };

/// Sorts rows `lo..hi`.
///
/// # Safety
/// The arguments are as the module says, and [`check`] accepts them; values and positions overlap nothing else.
unsafe extern "C" fn sort(_context: *const Context, step: *const u64, scratch: *mut u8, lo: u64, hi: u64) -> u32 {
    // SAFETY: eight words were promised, and are all that `rows` asks for.
    unsafe {
        let words = &*step.cast::<[u64; 8]>();
        match ElementType::ALL[words[7] as usize] {
            ElementType::F32 => rows::<f32>(words, scratch, lo, hi),
            ElementType::F64 => rows::<f64>(words, scratch, lo, hi),
            ElementType::F16 => rows::<f16>(words, scratch, lo, hi),
            ElementType::BF16 => rows::<bf16>(words, scratch, lo, hi),
            ElementType::I8 => rows::<i8>(words, scratch, lo, hi),
            ElementType::I16 => rows::<i16>(words, scratch, lo, hi),
            ElementType::I32 => rows::<i32>(words, scratch, lo, hi),
            ElementType::I64 => rows::<i64>(words, scratch, lo, hi),
            ElementType::U8 | ElementType::Bool => rows::<u8>(words, scratch, lo, hi),
            ElementType::U16 => rows::<u16>(words, scratch, lo, hi),
            ElementType::U32 => rows::<u32>(words, scratch, lo, hi),
            ElementType::U64 => rows::<u64>(words, scratch, lo, hi),
            // `check` refuses them.
            ElementType::I4 | ElementType::U4 | ElementType::I2 | ElementType::U2 => {}
        }
    }
    status::OK
}

/// Sorts rows `lo..hi` of elements of a type.
///
/// # Safety
/// As for [`sort`].
unsafe fn rows<T: Sortable>(words: &[u64; 8], scratch: *mut u8, lo: u64, hi: u64) {
    let source: *const T = std::ptr::with_exposed_provenance(words[0] as usize);
    let values: *mut T = std::ptr::with_exposed_provenance_mut(words[1] as usize);
    let positions: *mut i64 = std::ptr::with_exposed_provenance_mut(words[2] as usize);
    let [count, inner, kept] = [3, 4, 5].map(|word| words[word] as usize);
    let descending = words[6] != 0;
    let row: *mut T::Packed = scratch.cast();
    if kept == 0 {
        return;
    }
    for tile in lo as usize..hi as usize {
        let (outer, column) = (tile / inner, tile % inner);
        // SAFETY: the row lies in the source, and its packed form in the scratch, which is aligned for every type.
        let row = unsafe {
            let first = source.add(outer * count * inner + column);
            for position in 0..count {
                row.add(position).write(first.add(position * inner).read().pack(position as u32, descending));
            }
            std::slice::from_raw_parts_mut(row, count)
        };
        if kept < count {
            row.select_nth_unstable(kept - 1);
        }
        row[..kept].sort_unstable();
        for (rank, packed) in row[..kept].iter().enumerate() {
            let position = T::position(*packed) as usize;
            let place = (outer * kept + rank) * inner + column;
            // SAFETY: a position of this row, and a place among `kept` of it.
            unsafe {
                values.add(place).write(source.add((outer * count + position) * inner + column).read());
                positions.add(place).write(position as i64);
            }
        }
    }
}

/// Checks the arguments of a sort.
fn check(words: &[Word], grid: u64, scratch: u64) -> Result<(), String> {
    let &[
        Word::Bytes(source),
        Word::Bytes(values),
        Word::Bytes(positions),
        Word::Size(count),
        Word::Size(inner),
        Word::Size(kept),
        Word::Size(_),
        Word::Size(element),
    ] = words
    else {
        return Err("it takes three addresses and five sizes".into());
    };
    let element = usize::try_from(element).ok().and_then(|position| ElementType::ALL.get(position));
    let Some(element) = element else { return Err("its element type is none".into()) };
    let Some(width) = element.bytes() else { return Err(format!("it does not sort elements of {element}")) };
    if !(0..=i64::from(u32::MAX)).contains(&count) || !(0..=count).contains(&kept) || inner < 1 {
        return Err(format!("it cannot keep {kept} of {count} elements that lie {inner} apart"));
    }
    let rows = grid.checked_next_multiple_of(inner as u64);
    let bytes = |length: i64, width: u64| rows?.checked_mul(length as u64)?.checked_mul(width);
    let needs = [
        ("source", source, bytes(count, width as u64)),
        ("values", values, bytes(kept, width as u64)),
        ("positions", positions, bytes(kept, 8)),
        ("scratch", scratch, Some(count as u64 * SCRATCH_PER_ELEMENT)),
    ];
    for (what, found, needed) in needs {
        if needed.is_none_or(|needed| needed > found) {
            return Err(format!("its {what} has {found} bytes, too few for {grid} rows of {count} elements"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cmp::Ordering;

    fn code(element: ElementType) -> u64 {
        ElementType::ALL.iter().position(|other| *other == element).unwrap() as u64
    }

    /// Sorts `[outer, n, inner]` with the kernel, in two calls.
    fn run<T: Sortable + Default>(
        element: ElementType,
        source: &[T],
        count: usize,
        inner: usize,
        kept: usize,
        descending: bool,
    ) -> (Vec<T>, Vec<i64>) {
        let rows = source.len() / count.max(1);
        let mut values = vec![T::default(); rows * kept];
        let mut positions = vec![-1i64; rows * kept];
        let mut scratch = vec![0u128; count];
        let step = [
            source.as_ptr().expose_provenance() as u64,
            values.as_mut_ptr().expose_provenance() as u64,
            positions.as_mut_ptr().expose_provenance() as u64,
            count as u64,
            inner as u64,
            kept as u64,
            descending.into(),
            code(element),
        ];
        let sizes = step[3..].iter().map(|word| Word::Size(*word as i64));
        let addresses = [size_of_val(source), size_of_val(&*values), size_of_val(&*positions)];
        let words: Vec<Word> = addresses.map(|bytes| Word::Bytes(bytes as u64)).into_iter().chain(sizes).collect();
        let bytes = count as u64 * SCRATCH_PER_ELEMENT;
        check(&words, rows as u64, bytes).unwrap();
        assert!(check(&words, rows as u64 + 1, bytes).is_err() || kept == 0);
        let middle = rows as u64 / 2;
        for (lo, hi) in [(0, middle), (middle, rows as u64)] {
            // SAFETY: the check above passed.
            let code = unsafe { sort(std::ptr::null(), step.as_ptr(), scratch.as_mut_ptr().cast(), lo, hi) };
            assert_eq!(code, status::OK);
        }
        (values, positions)
    }

    fn compare(a: f32, b: f32) -> Ordering {
        a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
    }

    proptest! {
        #[test]
        fn rows_are_sorted_stably_with_nan_last(
            (outer, count, inner, kept, source) in (1usize..4, 1usize..40, 1usize..4)
                .prop_flat_map(|(outer, count, inner)| (
                    Just(outer), Just(count), Just(inner), 0..=count,
                    prop::collection::vec(
                        prop_oneof![
                            prop::sample::select(vec![0f32, -0.0, 1.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY]),
                            any::<f32>(),
                        ],
                        outer * count * inner),
                )),
            descending: bool,
        ) {
            let (values, positions) = run(ElementType::F32, &source, count, inner, kept, descending);
            for row in 0..outer * inner {
                let (first, column) = (row / inner * count, row % inner);
                let at = |position: usize| source[(first + position) * inner + column];
                let mut expected: Vec<usize> = (0..count).collect();
                expected.sort_by(|a, b| {
                    let order = compare(at(*a), at(*b));
                    if descending { order.reverse() } else { order }
                });
                for (rank, position) in expected.into_iter().take(kept).enumerate() {
                    let place = (row / inner * kept + rank) * inner + column;
                    prop_assert_eq!(positions[place], position as i64);
                    prop_assert_eq!(values[place].to_bits(), at(position).to_bits());
                }
            }
        }

        #[test]
        fn integers_are_sorted(source: Vec<i64>, narrow: Vec<i8>) {
            let mut expected = source.clone();
            expected.sort_unstable();
            prop_assert_eq!(run(ElementType::I64, &source, source.len(), 1, source.len(), false).0, expected);
            let mut expected = narrow.clone();
            expected.sort_unstable_by(|a, b| b.cmp(a));
            prop_assert_eq!(run(ElementType::I8, &narrow, narrow.len(), 1, narrow.len(), true).0, expected);
        }
    }

    #[test]
    fn types_of_whole_bytes_sort_and_others_are_refused() {
        for element in ElementType::ALL {
            let words = [&[Word::Bytes(64); 3][..], &[1, 1, 1, 0, code(element) as i64].map(Word::Size)].concat();
            assert_eq!(check(&words, 1, 16).is_ok(), element.bytes().is_some(), "{element}");
        }
        let words = [&[Word::Bytes(64); 3][..], &[1, 1, 1, 0, 17].map(Word::Size)].concat();
        assert!(check(&words, 1, 16).is_err());
    }

    #[test]
    fn bools_sort_false_first() {
        let (values, positions) = run(ElementType::Bool, &[1u8, 0, 1, 0], 4, 1, 3, false);
        assert_eq!((values, positions), (vec![0, 0, 1], vec![1, 3, 0]));
    }

    #[test]
    fn wrong_arguments_are_refused() {
        let words = |count, inner, kept| {
            let sizes = [count, inner, kept, 0, code(ElementType::F32) as i64].map(Word::Size);
            [&[Word::Bytes(1 << 20); 3][..], &sizes].concat()
        };
        let check = |words: &[Word]| check(words, 4, 1 << 11);
        assert_eq!(check(&words(100, 2, 10)), Ok(()));
        for (count, inner, kept) in [(-1, 1, 0), (10, 1, 11), (10, 1, -1), (10, 0, 10), (1000, 1, 1), (1 << 33, 1, 1)] {
            assert!(check(&words(count, inner, kept)).is_err(), "{count} {inner} {kept}");
        }
        assert!(check(&words(100, 2, 10)[1..]).is_err());
    }
}
