//! Sums of rows of bytes: what zero points of quantised products are multiplied by.

use crate::kernels::{
    lanes::{self, Lanes},
    level::{Level, per_level},
};

/// A byte, signed or not.
pub trait Byte: Copy + Into<i32> {
    /// Adds bytes to sums, position by position; sums wrap. The same on every CPU.
    fn add(row: &[Self], sums: &mut [i32]);
}

macro_rules! bytes {
    ($($byte:ty => $kernels:ident),*) => {$(
        impl Byte for $byte {
            fn add(row: &[$byte], sums: &mut [i32]) {
                let count = row.len().min(sums.len()) as u64;
                #[cfg(target_arch = "x86_64")]
                if Level::Avx512.is_available() {
                    // SAFETY: the CPU is of the level, and so many numbers can be read and written.
                    return unsafe { $kernels::avx512(row.as_ptr(), sums.as_mut_ptr(), count) };
                }
                #[cfg(target_arch = "x86_64")]
                if Level::Avx2.is_available() {
                    // SAFETY: the CPU is of the level, and so many numbers can be read and written.
                    return unsafe { $kernels::avx2(row.as_ptr(), sums.as_mut_ptr(), count) };
                }
                // SAFETY: so many numbers can be read and written.
                unsafe { $kernels::portable(row.as_ptr(), sums.as_mut_ptr(), count) }
            }
        }
    )*};
}
bytes!(i8 => signed, u8 => unsigned);

per_level! {
    /// `(row, sums, count)`: adds `count` signed bytes to `sums`.
    ///
    /// # Safety
    /// The numbers can be read and written; they do not overlap.
    pub(crate) mod signed = add_signed::<lanes>(row: *const i8, sums: *mut i32, count: u64);
    /// `(row, sums, count)`: adds `count` unsigned bytes to `sums`.
    ///
    /// # Safety
    /// The numbers can be read and written; they do not overlap.
    pub(crate) mod unsigned = add_unsigned::<lanes>(row: *const u8, sums: *mut i32, count: u64);
}

/// # Safety
/// As for [`signed`].
#[inline(always)]
unsafe fn add_signed<V: Lanes>(row: *const i8, sums: *mut i32, count: u64) {
    // SAFETY: the caller vouches for the numbers.
    unsafe { add_all(row, sums, count) }
}

/// # Safety
/// As for [`unsigned`].
#[inline(always)]
unsafe fn add_unsigned<V: Lanes>(row: *const u8, sums: *mut i32, count: u64) {
    // SAFETY: the caller vouches for the numbers.
    unsafe { add_all(row, sums, count) }
}

/// A loop that is as wide as the vectors of the level it is compiled for.
///
/// # Safety
/// As for [`signed`].
#[inline(always)]
unsafe fn add_all<T: Byte>(row: *const T, sums: *mut i32, count: u64) {
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
            u8::add(&row, &mut unsigned);
            i8::add(bytemuck::cast_slice(&row), &mut signed);
            for (place, (byte, sum)) in row.iter().zip(sums).enumerate() {
                assert_eq!(unsigned[place], sum.wrapping_add((*byte).into()));
                assert_eq!(signed[place], sum.wrapping_add((*byte as i8).into()));
            }
        }
    }
}
