//! Tests of sharing out grids: every tile of every grid is executed exactly once, however far the workers drift apart.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;

use proptest::prelude::*;

use super::{Team, team, watched};

/// Runs a list of grids on a team, with a barrier after some of them, and checks that every tile was in exactly one
/// call.
fn share_grids(team: &Team, grids: &[(u64, u64)], barrier_after: impl Fn(usize) -> bool + Sync) {
    let tiles: Vec<Vec<AtomicU32>> =
        grids.iter().map(|&(total, _)| (0..total).map(|_| AtomicU32::new(0)).collect()).collect();
    team.run(|worker| {
        for (step, &(total, grain)) in grids.iter().enumerate() {
            worker.share(total, grain, |lo, hi| {
                assert!(lo < hi && hi - lo <= grain.max(1) && lo % grain.max(1) == 0);
                for tile in lo..hi {
                    tiles[step][tile as usize].fetch_add(1, Ordering::Relaxed);
                    // Uneven work, so that workers steal and run ahead.
                    (0..(tile * 7919) % 97).for_each(|_| std::hint::spin_loop());
                }
            });
            if barrier_after(step) {
                worker.barrier().unwrap();
                assert!(tiles[step].iter().all(|count| count.load(Ordering::Relaxed) == 1), "step {step}");
            }
        }
    })
    .unwrap();
    for (step, tiles) in tiles.iter().enumerate() {
        assert!(tiles.iter().all(|count| count.load(Ordering::Relaxed) == 1), "step {step}");
    }
}

/// Grids of all sizes: empty ones, fewer chunks than workers, more than most.
fn grids(count: usize, mut seed: u64) -> Vec<(u64, u64)> {
    let mut next = |bound: u64| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) % bound
    };
    (0..count).map(|_| (if next(4) == 0 { next(4) } else { next(300) }, next(20))).collect()
}

#[test]
fn thousands_of_grids_run_every_tile_once() {
    watched(|| {
        for (size, steps) in [(1, 500), (2, 8_000), (3, 1_000), (8, 1_000)] {
            let team = team(size);
            share_grids(&team, &grids(steps, size as u64), |_| true);
            share_grids(&team, &grids(steps, 77 + size as u64), |step| step % 5 == 0);
            share_grids(&team, &grids(steps, 99 + size as u64), |_| false);
        }
    });
}

#[test]
fn runs_follow_each_other_without_rest() {
    watched(|| {
        let team = team(2);
        for round in 0..2_000 {
            share_grids(&team, &grids(3, round), |step| step != 1);
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_list_of_grids_runs_every_tile_once(
        grids in prop::collection::vec((0u64..200, 0u64..40), 1..20),
        barriers in prop::collection::vec(any::<bool>(), 20),
        size in 1usize..6,
    ) {
        watched(move || share_grids(&team(size), &grids, |step| barriers[step]));
    }
}

#[test]
fn a_delayed_worker_is_relieved_of_its_slice() {
    watched(|| {
        let team = team(2);
        let taken = [AtomicU64::new(0), AtomicU64::new(0)];
        team.run(|worker| {
            worker.share(64, 1, |_, _| {
                taken[worker.index()].fetch_add(1, Ordering::Relaxed);
                // Worker 1 stays in the first chunk it gets until everything else is done.
                while worker.index() == 1 && taken[0].load(Ordering::Relaxed) < 63 {
                    thread::yield_now();
                }
                // Worker 0 leaves worker 1 a chunk to get.
                while worker.index() == 0 && taken[1].load(Ordering::Relaxed) == 0 {
                    thread::yield_now();
                }
            });
        })
        .unwrap();
        assert_eq!(taken.map(AtomicU64::into_inner), [63, 1]);
    });
}
