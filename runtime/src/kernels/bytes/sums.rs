//! Sums of rows of bytes: what zero points of quantised products are multiplied by.

use crate::kernels::{
    lanes::{self, Lanes},
    level::{at_highest_level, per_level},
};

/// Adds bytes to sums, position by position; sums wrap. The same on every CPU.
pub fn add_signed(row: &[i8], sums: &mut [i32]) {
    let count = row.len().min(sums.len()) as u64;
    // SAFETY: the CPU is of the level, and so many numbers can be read and written.
    unsafe { at_highest_level!(signed(row.as_ptr(), sums.as_mut_ptr(), count)) }
}

/// [`add_signed`] of unsigned bytes.
pub fn add_unsigned(row: &[u8], sums: &mut [i32]) {
    let count = row.len().min(sums.len()) as u64;
    // SAFETY: the CPU is of the level, and so many numbers can be read and written.
    unsafe { at_highest_level!(unsigned(row.as_ptr(), sums.as_mut_ptr(), count)) }
}

per_level! {
    /// `(row, sums, count)`: adds `count` signed bytes to `sums`.
    ///
    /// # Safety
    /// The numbers can be read and written; they do not overlap.
    pub(crate) mod signed = signed_of::<lanes>(row: *const i8, sums: *mut i32, count: u64);
    /// `(row, sums, count)`: adds `count` unsigned bytes to `sums`.
    ///
    /// # Safety
    /// The numbers can be read and written; they do not overlap.
    pub(crate) mod unsigned = unsigned_of::<lanes>(row: *const u8, sums: *mut i32, count: u64);
}

/// # Safety
/// As for [`signed`].
#[inline(always)]
unsafe fn signed_of<V: Lanes>(row: *const i8, sums: *mut i32, count: u64) {
    // SAFETY: the caller vouches for the numbers.
    unsafe { add_all(row, sums, count) }
}

/// # Safety
/// As for [`unsigned`].
#[inline(always)]
unsafe fn unsigned_of<V: Lanes>(row: *const u8, sums: *mut i32, count: u64) {
    // SAFETY: the caller vouches for the numbers.
    unsafe { add_all(row, sums, count) }
}

/// A loop that is as wide as the vectors of the level it is compiled for.
///
/// # Safety
/// As for [`signed`].
#[inline(always)]
unsafe fn add_all<T: Copy + Into<i32>>(row: *const T, sums: *mut i32, count: u64) {
    for place in 0..count as usize {
        // SAFETY: the place is below the count.
        unsafe {
            let sum = sums.add(place);
            *sum = (*sum).wrapping_add((*row.add(place)).into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_added_one_by_one() {
        for count in [0, 1, 15, 64, 100] {
            let row: Vec<u8> = (0..count).map(|place| (place * 37 + 120) as u8).collect();
            let sums: Vec<i32> = (0..count).map(|place| if place % 3 == 0 { i32::MAX } else { -9 }).collect();
            let (mut unsigned, mut signed) = (sums.clone(), sums.clone());
            add_unsigned(&row, &mut unsigned);
            add_signed(bytemuck::cast_slice(&row), &mut signed);
            for (place, (byte, sum)) in row.iter().zip(sums).enumerate() {
                assert_eq!(unsigned[place], sum.wrapping_add((*byte).into()));
                assert_eq!(signed[place], sum.wrapping_add((*byte as i8).into()));
            }
        }
    }
}
