//! What the machine can do, measured once for each number of threads: the scale of profiles. Nothing else depends on it.

use crate::{
    kernels::{
        KernelTable, Level,
        gemm::{GemmBlock, GemmItem},
    },
    team::{Team, Worker},
};
use std::{
    collections::BTreeMap,
    hint::black_box,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Rates of a number of threads together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// Floating-point operations per second, in matrix products that stay in the nearest cache.
    pub flops: f64,
    /// Bytes read and bytes written per second, together, in copies of memory that no cache holds.
    pub bandwidth: f64,
}

/// How long each rate is measured.
const TIME: Duration = Duration::from_millis(20);

/// The product: a block of C that fits the tiles of every level, and panels of B that fit the nearest cache.
const ROWS: usize = 28;
const COLUMNS: usize = 32;
const DEPTH: usize = 128;

/// Bytes that each thread copies: beyond the caches of current machines.
const COPY: usize = 48 << 20;

impl Machine {
    /// The rates of a team, measured on the first call for teams of its size.
    pub(crate) fn measured(team: &Team) -> Machine {
        static KNOWN: Mutex<BTreeMap<usize, Machine>> = Mutex::new(BTreeMap::new());
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        *known
            .entry(team.size())
            .or_insert_with(|| Machine { flops: together(team, flops), bandwidth: together(team, bandwidth) })
    }
}

/// The sum of the rates that the workers of a team reach at the same time.
fn together(team: &Team, rate: impl Fn(&Worker) -> f64 + Sync) -> f64 {
    let sum = Mutex::new(0.0);
    let outcome = team.run(|worker| {
        let rate = rate(worker);
        *sum.lock().unwrap_or_else(PoisonError::into_inner) += rate;
    });
    debug_assert_eq!(outcome, Ok(()), "measuring stops nothing");
    sum.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// The shortest of many runs, all workers starting together, in seconds.
fn best(worker: &Worker, mut run: impl FnMut()) -> f64 {
    run();
    // A stop is published by nobody here.
    let _ = worker.barrier();
    let (start, mut best) = (Instant::now(), f64::INFINITY);
    while start.elapsed() < TIME || best == f64::INFINITY {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

fn flops(worker: &Worker) -> f64 {
    let table = KernelTable::for_level(Level::detect().unwrap_or(Level::Portable));
    let (a, b, mut c) = (vec![0.5f32; ROWS * DEPTH], vec![0.25f32; COLUMNS * DEPTH], vec![0f32; ROWS * COLUMNS]);
    let item = GemmItem { a: a.as_ptr(), b: b.as_ptr() };
    let block = GemmBlock {
        c: c.as_mut_ptr(),
        c_row_stride: COLUMNS as i64,
        rows: ROWS as u64,
        columns: COLUMNS as u64,
        items: &item,
        item_count: 1,
        a_row_stride: DEPTH as i64,
        a_depth_stride: 1,
        depth: DEPTH as u64,
        b_depth_stride: 16,
        b_panel_stride: 16 * DEPTH as i64,
        ..GemmBlock::default()
    };
    const REPEATS: usize = 8;
    let time = best(worker, || {
        for _ in 0..REPEATS {
            // SAFETY: the arrays have the sizes that the block states.
            unsafe { (table.gemm_f32)(black_box(&block)) }
        }
    });
    (2 * ROWS * COLUMNS * DEPTH * REPEATS) as f64 / time
}

fn bandwidth(worker: &Worker) -> f64 {
    let (source, mut target) = (vec![1u8; COPY], vec![2u8; COPY]);
    let time = best(worker, || black_box(&mut target).copy_from_slice(black_box(&source)));
    2.0 * COPY as f64 / time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_measured_once() {
        let team = Team::new(Some(1));
        let machine = Machine::measured(&team);
        assert!(machine.flops.is_finite() && machine.flops > 0.0);
        assert!(machine.bandwidth.is_finite() && machine.bandwidth > 0.0);
        assert_eq!(Machine::measured(&team), machine);
    }
}
