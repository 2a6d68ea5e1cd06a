//! Tests of whole teams: who runs, when, and what the barriers promise. All of them run under a watchdog, since the way
//! in which such code fails is to wait forever.

mod endings;
mod grids;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::*;

/// Fails the test if `body` does not end. The limit is no measure of speed: the machine may be busy with other things.
fn watched(body: impl FnOnce() + Send + 'static) {
    let (done, finished) = mpsc::channel();
    let thread = thread::spawn(move || {
        body();
        let _ = done.send(());
    });
    match finished.recv_timeout(Duration::from_secs(120)) {
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => {
            thread.join().unwrap_or_else(|payload| resume_unwind(payload))
        }
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the team hangs"),
    }
}

/// A team of exactly this size on two CPUs, whatever this machine has.
fn team(size: usize) -> Team {
    let team = Team::with_size(size, 2);
    assert_eq!(team.size(), size);
    team
}

/// The team still does what it is for.
fn assert_usable(team: &Team) {
    let sum = AtomicU64::new(0);
    team.run(|worker| {
        assert_eq!(worker.count(), team.size());
        for _ in 0..3 {
            worker.share(100, 7, |lo, hi| {
                sum.fetch_add((lo..hi).sum(), Ordering::Relaxed);
            });
            worker.barrier().expect("nothing stops this run");
        }
    })
    .expect("nothing stops this run");
    assert_eq!(sum.into_inner(), 3 * 4950);
}

#[test]
fn every_worker_runs_once_and_the_caller_is_worker_0() {
    watched(|| {
        for size in [1, 2, 3, 8] {
            let team = team(size);
            let caller = thread::current().id();
            for _ in 0..100 {
                let seen: Vec<_> = (0..size).map(|_| AtomicUsize::new(0)).collect();
                let run = team.run(|worker| {
                    assert_eq!(worker.count(), size);
                    assert_eq!(worker.index() == 0, thread::current().id() == caller);
                    seen[worker.index()].fetch_add(1, Ordering::Relaxed);
                });
                assert_eq!(run, Ok(()));
                assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    });
}

#[test]
fn threads_are_named() {
    let names = Mutex::new(Vec::new());
    team(3)
        .run(|worker| {
            if worker.index() > 0 {
                names.lock().unwrap().push((worker.index(), thread::current().name().map(str::to_owned)));
            }
        })
        .unwrap();
    let mut names = names.into_inner().unwrap();
    names.sort();
    assert_eq!(names, [(1, Some("strang-1".to_owned())), (2, Some("strang-2".to_owned()))]);
}

#[test]
fn requested_sizes_are_bounded() {
    assert_eq!(Team::new(Some(0)).size(), 1);
    assert_eq!(Team::new(Some(1)).size(), 1);
    assert_eq!(Team::new(None).size(), default_size());
    let several = Team::new(Some(5));
    assert_eq!(several.size(), size::quota().unwrap_or(5).min(5));
    assert_usable(&several);
}

/// Every worker counts the barriers for itself and looks at the counts of the others: between two barriers none is off.
fn count_barriers(size: usize, barriers: u64) {
    let team = team(size);
    let counts: Vec<_> = (0..size).map(|_| Padded(AtomicU64::new(0))).collect();
    team.run(|worker| {
        for round in 1..=barriers {
            counts[worker.index()].0.store(round, Ordering::Relaxed);
            worker.barrier().unwrap();
            for count in &counts {
                assert_eq!(count.0.load(Ordering::Relaxed), round);
            }
            worker.barrier().unwrap();
        }
    })
    .unwrap();
}

#[test]
fn barriers_keep_two_workers_in_step() {
    watched(|| count_barriers(2, 50_000));
}

#[test]
fn barriers_keep_an_oversubscribed_team_in_step() {
    watched(|| count_barriers(8, 1_000));
}

#[test]
fn concurrent_runs_all_complete() {
    watched(|| {
        let team = team(2);
        let (alone, together) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for caller in 0..4u64 {
                let (team, alone, together) = (&team, &alone, &together);
                scope.spawn(move || {
                    for round in 0..500 {
                        let sum = AtomicU64::new(0);
                        team.run(|worker| {
                            worker.share(50, 3, |lo, hi| {
                                sum.fetch_add((lo..hi).sum(), Ordering::Relaxed);
                            });
                            worker.barrier().unwrap();
                            assert_eq!(sum.load(Ordering::Relaxed), 1225, "caller {caller}, round {round}");
                            if worker.index() == 0 {
                                let kind = if worker.count() == 1 { alone } else { together };
                                kind.fetch_add(1, Ordering::Relaxed);
                            }
                        })
                        .unwrap();
                    }
                });
            }
        });
        assert_eq!(alone.into_inner() + together.load(Ordering::Relaxed), 2_000);
        assert!(together.into_inner() > 0);
    });
}

#[test]
fn a_busy_team_runs_on_the_caller_alone() {
    watched(|| {
        let team = team(2);
        let (busy, release) = (AtomicBool::new(false), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                team.run(|_| {
                    busy.store(true, Ordering::Relaxed);
                    while !release.load(Ordering::Relaxed) {
                        thread::yield_now();
                    }
                })
            });
            while !busy.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            let here = thread::current().id();
            let seen = Mutex::new(Vec::new());
            let outcome = team.run(|worker| seen.lock().unwrap().push((worker.count(), thread::current().id())));
            release.store(true, Ordering::Relaxed);
            assert_eq!(outcome, Ok(()));
            assert_eq!(seen.into_inner().unwrap(), [(1, here)]);
        });
        assert_usable(&team);
    });
}

#[test]
fn nested_runs_execute_on_their_caller() {
    watched(|| {
        let team = team(3);
        let inner = AtomicUsize::new(0);
        team.run(|outer| {
            let here = thread::current().id();
            let run = team.run(|worker| {
                assert_eq!((worker.index(), worker.count()), (0, 1));
                assert_eq!(thread::current().id(), here);
                let mut tiles = Vec::new();
                worker.share(10, 4, |lo, hi| tiles.push((lo, hi)));
                worker.barrier().unwrap();
                assert_eq!(tiles, [(0, 4), (4, 8), (8, 10)]);
                inner.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(run, Ok(()));
            outer.barrier().unwrap();
        })
        .unwrap();
        assert_eq!(inner.into_inner(), 3);
        assert_usable(&team);
    });
}

#[test]
fn parked_teams_wake_and_end() {
    watched(|| {
        for size in [1, 2, 8] {
            let team = team(size);
            // Longer than anybody spins.
            thread::sleep(Duration::from_millis(5));
            assert_usable(&team);
            thread::sleep(Duration::from_millis(5));
        }
        for _ in 0..200 {
            drop(team(3));
        }
    });
}

#[test]
fn callers_may_change() {
    watched(|| {
        let team = Arc::new(team(2));
        for _ in 0..20 {
            let team = Arc::clone(&team);
            thread::spawn(move || assert_usable(&team)).join().unwrap();
        }
        assert_usable(&team);
    });
}
