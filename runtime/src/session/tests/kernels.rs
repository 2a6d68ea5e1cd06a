//! Kernels for the tests, in the place of generated code. A tile is [`TILE`] elements of f32.

use crate::{
    kernels::builtin::{Builtin, Word},
    program::{Context, KernelFunction, status},
};

/// Elements of a tile.
pub(crate) const TILE: u64 = 16;

pub(crate) fn find(name: &str) -> Option<&'static Builtin> {
    BUILTINS.iter().find(|builtin| builtin.name == name)
}

const fn builtin(name: &'static str, function: KernelFunction) -> Builtin {
    const fn accept(_: &[Word], _: u64, _: u64) -> Result<(), String> {
        Ok(())
    }
    Builtin { name, function, check: accept }
}

static BUILTINS: [Builtin; 6] = [
    builtin("test_add", add),
    builtin("test_accumulate", accumulate),
    builtin("test_count", count),
    builtin("test_below", below),
    builtin("test_fail", fail),
    builtin("test_scratch", scratch),
];

fn address(word: u64) -> *mut f32 {
    std::ptr::with_exposed_provenance_mut(word as usize)
}

/// The positions of the elements of some tiles of an array.
fn elements(lo: u64, hi: u64, count: u64) -> std::ops::Range<usize> {
    (lo * TILE) as usize..(hi * TILE).min(count) as usize
}

/// `[a, b, sum, n]`: the sum of two arrays.
unsafe extern "C" fn add(_: *const Context, step: *const u64, _: *mut u8, lo: u64, hi: u64) -> u32 {
    // SAFETY: the tests pass arrays of `n` elements.
    unsafe {
        let [a, b, sum, n] = step.cast::<[u64; 4]>().read();
        for index in elements(lo, hi, n) {
            let value = address(a).add(index).read() + address(b).add(index).read();
            address(sum).add(index).write(value);
        }
    }
    status::OK
}

/// `[a, sum, n]`: adds an array to another in place.
unsafe extern "C" fn accumulate(_: *const Context, step: *const u64, _: *mut u8, lo: u64, hi: u64) -> u32 {
    // SAFETY: the tests pass arrays of `n` elements.
    unsafe {
        let [a, sum, n] = step.cast::<[u64; 3]>().read();
        for index in elements(lo, hi, n) {
            *address(sum).add(index) += address(a).add(index).read();
        }
    }
    status::OK
}

/// `[sum, n]`: adds the iterations of the first two loops to an array in place, the outer one times 100.
unsafe extern "C" fn count(context: *const Context, step: *const u64, _: *mut u8, lo: u64, hi: u64) -> u32 {
    // SAFETY: the tests pass an array of `n` elements.
    unsafe {
        let [sum, n] = step.cast::<[u64; 2]>().read();
        let counters = (*context).counters;
        for index in elements(lo, hi, n) {
            *address(sum).add(index) += (counters[0] * 100 + counters[1]) as f32;
        }
    }
    status::OK
}

/// `[a, limit, result]`: whether the first element of an array is below a limit; tile 0 says.
unsafe extern "C" fn below(_: *const Context, step: *const u64, _: *mut u8, lo: u64, _: u64) -> u32 {
    if lo > 0 {
        return status::OK;
    }
    // SAFETY: the tests pass an element and a byte.
    unsafe {
        let [a, limit, result] = step.cast::<[u64; 3]>().read();
        address(result).cast::<u8>().write((address(a).read() < limit as f32).into());
    }
    status::OK
}

/// `[tile, status]`: fails at a tile.
unsafe extern "C" fn fail(_: *const Context, step: *const u64, _: *mut u8, lo: u64, hi: u64) -> u32 {
    // SAFETY: the tests pass two words.
    let [tile, code] = unsafe { step.cast::<[u64; 2]>().read() };
    if (lo..hi).contains(&tile) { code as u32 } else { status::OK }
}

/// `[a, result, n]`: copies every tile through as much scratch as the array is long.
unsafe extern "C" fn scratch(_: *const Context, step: *const u64, scratch: *mut u8, lo: u64, hi: u64) -> u32 {
    // SAFETY: the tests pass arrays of `n` elements, and ask for scratch for as many.
    unsafe {
        let [a, result, n] = step.cast::<[u64; 3]>().read();
        let scratch: *mut f32 = scratch.cast();
        for tile in lo..hi {
            (0..n as usize).for_each(|index| scratch.add(index).write(address(a).add(index).read()));
            std::hint::black_box(scratch);
            let range = elements(tile, tile + 1, n);
            range.for_each(|index| address(result).add(index).write(scratch.add(index).read()));
        }
    }
    status::OK
}
