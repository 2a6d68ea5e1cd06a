//! Work on pieces of an array, by several threads where that is worth it.

use rayon::prelude::*;

/// The fewest bytes that are worth waking a thread for.
const FEWEST_BYTES: usize = 1 << 17;

/// Calls `work` for every piece of `width` elements, the last of which may be shorter, with its number. Few elements stay with the
/// calling thread, and of many no thread gets few. `None` as soon as `work` says so.
pub fn each_piece<T: Send>(
    values: &mut [T],
    width: usize,
    work: impl Fn(usize, &mut [T]) -> Option<()> + Sync,
) -> Option<()> {
    let width = width.max(1);
    if size_of_val(values) < FEWEST_BYTES {
        return values.chunks_mut(width).enumerate().try_for_each(|(number, piece)| work(number, piece));
    }
    let fewest = FEWEST_BYTES / (width * size_of::<T>()).max(1);
    let pieces = values.par_chunks_mut(width).with_min_len(fewest.max(1)).enumerate();
    pieces.try_for_each(|(number, piece)| work(number, piece))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_worked_on_once() {
        for (count, width) in [(0, 3), (10, 3), (100_000, 7), (100_000, 99_999), (100_000, 0)] {
            let mut values = vec![0usize; count];
            let add = |number: usize, piece: &mut [usize]| {
                piece.iter_mut().zip(number * width.max(1)..).for_each(|(value, place)| *value += place);
                Some(())
            };
            assert_eq!(each_piece(&mut values, width, add), Some(()));
            assert!(values.iter().enumerate().all(|(place, value)| *value == place), "{count} {width}");
        }
        assert_eq!(each_piece(&mut [0u8; 9], 2, |number, _| (number < 3).then_some(())), None);
        assert_eq!(each_piece(&mut vec![0u8; 1 << 20], 2, |number, _| (number < 3).then_some(())), None);
    }
}
