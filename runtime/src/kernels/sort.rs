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
//! | 4 | `k`, how many are kept, at most `n` |
//! | 5 | `inner`, the elements between neighbours of a row |
//! | 6 | 1 from the largest down, else 0 |
//!
//! and the scratch is [`scratch_per_element`] bytes for each of `n`. The order is stable: of equal values (-0 and +0 are
//! equal) the lower position comes first, and NaN counts as the largest.

use super::builtin::{Builtin, Word};
use crate::ElementType;
use crate::program::{Context, status};
use half::{bf16, f16};

/// The name of the kernel that sorts elements of a type; `None` for the sub-byte types.
pub fn name(element: ElementType) -> Option<&'static str> {
    let position = TYPES.iter().position(|other| *other == element)?;
    Some(BUILTINS[position].name)
}

/// Bytes of scratch for each element of a row.
pub const fn scratch_per_element(element: ElementType) -> i64 {
    if element.bits() == 64 { 16 } else { 8 }
}

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

/// Sorts rows `lo..hi`.
///
/// # Safety
/// The arguments are as the module says; values and positions overlap nothing else.
unsafe extern "C" fn sort<T: Sortable>(
    _context: *const Context,
    step: *const u64,
    scratch: *mut u8,
    lo: u64,
    hi: u64,
) -> u32 {
    // SAFETY: seven words were promised.
    let words = unsafe { std::slice::from_raw_parts(step, 7) };
    let source: *const T = std::ptr::with_exposed_provenance(words[0] as usize);
    let values: *mut T = std::ptr::with_exposed_provenance_mut(words[1] as usize);
    let positions: *mut i64 = std::ptr::with_exposed_provenance_mut(words[2] as usize);
    let [count, kept, inner] = [3, 4, 5].map(|word| words[word] as usize);
    let descending = words[6] != 0;
    if kept == 0 {
        return status::OK;
    }
    let row: *mut T::Packed = scratch.cast();
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
    status::OK
}

/// Checks the arguments of a sort of elements of a type.
fn check(element: ElementType, words: &[Word], grid: u64, scratch: u64) -> Result<(), String> {
    let &[
        Word::Bytes(source),
        Word::Bytes(values),
        Word::Bytes(positions),
        Word::Size(count),
        Word::Size(kept),
        Word::Size(inner),
        Word::Size(_),
    ] = words
    else {
        return Err("it takes three addresses and four sizes".into());
    };
    if !(0..=i64::from(u32::MAX)).contains(&count) || !(0..=count).contains(&kept) || inner < 1 {
        return Err(format!("it cannot keep {kept} of {count} elements that lie {inner} apart"));
    }
    let rows = grid.checked_next_multiple_of(inner as u64);
    let bytes = |length: i64, width: u64| rows?.checked_mul(length as u64)?.checked_mul(width);
    let width = u64::from(element.bits() / 8);
    let needs = [
        ("source", source, bytes(count, width)),
        ("values", values, bytes(kept, width)),
        ("positions", positions, bytes(kept, 8)),
        ("scratch", scratch, Some(count as u64 * scratch_per_element(element) as u64)),
    ];
    for (what, found, needed) in needs {
        if needed.is_none_or(|needed| needed > found) {
            return Err(format!("its {what} has {found} bytes, too few for {grid} rows of {count} elements"));
        }
    }
    Ok(())
}

macro_rules! builtins {
    ($($name:literal, $element:ident, $type:ty;)*) => {
        /// The element types that sort, in the order of [`BUILTINS`].
        const TYPES: &[ElementType] = &[$(ElementType::$element),*];

        /// The kernels, one for each element type.
        pub(super) const BUILTINS: &[Builtin] = &[$(Builtin {
            name: $name,
            function: sort::<$type>,
            check: |words, grid, scratch| check(ElementType::$element, words, grid, scratch),
        }),*];
    };
}
builtins! {
    "sort_f32", F32, f32;
    "sort_f64", F64, f64;
    "sort_f16", F16, f16;
    "sort_bf16", BF16, bf16;
    "sort_i8", I8, i8;
    "sort_i16", I16, i16;
    "sort_i32", I32, i32;
    "sort_i64", I64, i64;
    "sort_u8", U8, u8;
    "sort_u16", U16, u16;
    "sort_u32", U32, u32;
    "sort_u64", U64, u64;
    "sort_bool", Bool, u8;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cmp::Ordering;

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
        let builtin = super::super::builtin::find(name(element).unwrap()).unwrap();
        let step = [
            source.as_ptr().expose_provenance() as u64,
            values.as_mut_ptr().expose_provenance() as u64,
            positions.as_mut_ptr().expose_provenance() as u64,
            count as u64,
            kept as u64,
            inner as u64,
            descending.into(),
        ];
        let sizes = step[3..].iter().map(|word| Word::Size(*word as i64));
        let addresses = [size_of_val(source), size_of_val(&*values), size_of_val(&*positions)];
        let words: Vec<Word> = addresses.map(|bytes| Word::Bytes(bytes as u64)).into_iter().chain(sizes).collect();
        let bytes = count as u64 * scratch_per_element(element) as u64;
        (builtin.check)(&words, rows as u64, bytes).unwrap();
        assert!((builtin.check)(&words, rows as u64 + 1, bytes).is_err() || kept == 0);
        let middle = rows as u64 / 2;
        for (lo, hi) in [(0, middle), (middle, rows as u64)] {
            // SAFETY: the check above passed.
            let code =
                unsafe { (builtin.function)(std::ptr::null(), step.as_ptr(), scratch.as_mut_ptr().cast(), lo, hi) };
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
    fn every_type_of_whole_bytes_has_a_kernel() {
        for element in ElementType::ALL {
            let expected = element.bytes().map(|_| format!("sort_{element}"));
            assert_eq!(name(element), expected.as_deref());
        }
    }

    #[test]
    fn wrong_arguments_are_refused() {
        let words = |count, kept, inner| {
            let sizes = [count, kept, inner, 0].map(Word::Size);
            [&[Word::Bytes(1 << 20); 3][..], &sizes].concat()
        };
        let check = |words: &[Word]| (BUILTINS[0].check)(words, 4, 1 << 10);
        assert_eq!(check(&words(100, 10, 2)), Ok(()));
        for (count, kept, inner) in [(-1, 0, 1), (10, 11, 1), (10, -1, 1), (10, 10, 0), (1000, 1, 1), (1 << 33, 1, 1)] {
            assert!(check(&words(count, kept, inner)).is_err(), "{count} {kept} {inner}");
        }
        assert!(check(&words(100, 10, 2)[1..]).is_err());
    }
}
