//! Bytes in the place of others: any function of one byte.

/// Replaces bytes by their entries of a table, on any CPU.
///
/// # Safety
/// The table has 256 entries, and so many bytes can be read and written.
pub(super) unsafe fn one_by_one(table: *const u8, bytes: *mut u8, count: usize) {
    // SAFETY: the caller vouches for table and bytes.
    unsafe {
        let table = &*table.cast::<[u8; 256]>();
        for byte in std::slice::from_raw_parts_mut(bytes, count) {
            *byte = table[usize::from(*byte)];
        }
    }
}

/// [`one_by_one`], but 64 at a time where the CPU can: each half of the table is two registers.
///
/// # Safety
/// As for [`one_by_one`]; the CPU has AVX-512 F and BW.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn together(table: *const u8, bytes: *mut u8, count: usize) {
    // SAFETY: the CPU has the instructions; the rest is the caller's.
    unsafe {
        if is_x86_feature_detected!("avx512vbmi") {
            permuted(table, bytes, count);
        } else {
            one_by_one(table, bytes, count);
        }
    }
}

/// # Safety
/// As for [`together`]; the CPU has VBMI.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
unsafe fn permuted(table: *const u8, bytes: *mut u8, count: usize) {
    use core::arch::x86_64::*;
    // SAFETY: the table has 256 entries.
    let part = |index: usize| unsafe { _mm512_loadu_si512(table.add(64 * index).cast()) };
    let (low, high) = ([part(0), part(1)], [part(2), part(3)]);
    for start in (0..count).step_by(64) {
        let mask = u64::MAX >> (64 - (count - start).min(64));
        // SAFETY: the bytes in the mask can be read and written.
        unsafe {
            let place = bytes.add(start).cast::<i8>();
            let codes = _mm512_maskz_loadu_epi8(mask, place);
            let found = _mm512_permutex2var_epi8(low[0], codes, low[1]);
            let found_high = _mm512_permutex2var_epi8(high[0], codes, high[1]);
            let found = _mm512_mask_blend_epi8(_mm512_movepi8_mask(codes), found, found_high);
            _mm512_mask_storeu_epi8(place, mask, found);
        }
    }
}
