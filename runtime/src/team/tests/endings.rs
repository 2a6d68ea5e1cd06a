//! Tests of runs that do not end well: panics, stops, and closures whose workers disagree.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;

use super::{Stop, Worker, assert_usable, team, watched};

/// The message of the panic with which a run ends.
fn panic_message(run: impl FnOnce() -> Result<(), Stop>) -> String {
    let payload = catch_unwind(AssertUnwindSafe(run)).expect_err("the run panics");
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => (*payload.downcast::<&str>().expect("a message")).to_owned(),
    }
}

#[test]
fn a_panic_of_any_worker_reaches_the_caller() {
    watched(|| {
        for size in [1, 2, 3, 8] {
            let team = team(size);
            for culprit in 0..size {
                for meets in 0..3 {
                    let message = panic_message(|| {
                        team.run(|worker| {
                            for _ in 0..meets {
                                worker.barrier().unwrap();
                            }
                            assert!(worker.index() != culprit, "worker {culprit} fails");
                            let _ = worker.barrier();
                            unreachable!("the barrier lets nobody go on without worker {culprit}");
                        })
                    });
                    assert_eq!(message, format!("worker {culprit} fails"));
                    assert_usable(&team);
                }
            }
        }
    });
}

#[test]
fn a_panic_in_a_tile_leaves_the_cursor_usable() {
    watched(|| {
        let team = team(2);
        for tile in [0, 20, 63] {
            let message = panic_message(|| {
                team.run(|worker| {
                    for step in 0..3 {
                        worker.share(64, 1, |lo, _| assert!((step, lo) != (1, tile), "tile {tile} fails"));
                    }
                    let _ = worker.barrier();
                })
            });
            assert_eq!(message, format!("tile {tile} fails"));
            assert_usable(&team);
        }
    });
}

#[test]
fn of_several_panics_the_lowest_worker_is_heard() {
    watched(|| {
        let team = team(4);
        for _ in 0..50 {
            let message = panic_message(|| team.run(|worker| panic!("worker {}", worker.index())));
            assert_eq!(message, "worker 0");
        }
        assert_usable(&team);
    });
}

#[test]
fn a_payload_that_panics_when_dropped_harms_nobody() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !thread::panicking() {
                resume_unwind(Box::new("the bomb goes off"));
            }
        }
    }
    watched(|| {
        let team = team(3);
        let outcome = catch_unwind(AssertUnwindSafe(|| team.run(|_| resume_unwind(Box::new(Bomb)))));
        std::mem::forget(outcome);
        assert_usable(&team);
    });
}

#[test]
fn workers_that_disagree_about_barriers_are_told() {
    watched(|| {
        for size in [2, 3, 8] {
            let team = team(size);
            for leaver in 0..size {
                let message = panic_message(|| {
                    team.run(|worker| {
                        worker.barrier().unwrap();
                        if worker.index() != leaver {
                            let _ = worker.barrier();
                        }
                    })
                });
                assert!(message.contains("barrier"), "{message}");
                assert_usable(&team);
            }
        }
    });
}

/// Every combination of workers that meet, return and panic ends as it must, and the next run knows nothing of it.
#[test]
fn broken_runs_leave_nothing_behind() {
    #[derive(Clone, Copy, PartialEq)]
    enum Role {
        Meets,
        Returns,
        Panics,
    }
    watched(|| {
        let team = team(3);
        for round in 0..27 * 100 {
            let roles =
                [round, round / 3, round / 9].map(|digit| [Role::Meets, Role::Returns, Role::Panics][digit % 3]);
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                team.run(|worker| match roles[worker.index()] {
                    Role::Meets => assert_eq!(worker.barrier(), Ok(())),
                    Role::Returns => (),
                    Role::Panics => resume_unwind(Box::new(worker.index())),
                })
            }));
            let first_panic = roles.iter().position(|&role| role == Role::Panics);
            match outcome {
                Ok(outcome) => {
                    assert_eq!(outcome, Ok(()));
                    assert!(first_panic.is_none() && roles.iter().all(|&role| role == roles[0]), "round {round}");
                }
                Err(payload) => {
                    assert_eq!(payload.downcast_ref().copied(), first_panic, "round {round}");
                    assert_eq!(payload.is::<&str>(), first_panic.is_none(), "round {round}");
                }
            }
            assert_usable(&team);
        }
    });
}

#[test]
fn all_workers_leave_at_the_barrier_after_a_stop() {
    watched(|| {
        for size in [1, 2, 3, 8] {
            let team = team(size);
            for stopper in 0..size {
                for last in 0..20 {
                    let stop = Stop { step: last, tile: 5, code: 9 };
                    let steps = AtomicU32::new(0);
                    let outcome = team.run(|worker| {
                        for step in 0.. {
                            if worker.index() == stopper && step == last {
                                worker.stop(stop);
                            }
                            if worker.barrier().is_err() {
                                steps.fetch_add(step, Ordering::Relaxed);
                                return;
                            }
                        }
                    });
                    assert_eq!(outcome, Err(stop));
                    assert_eq!(steps.into_inner(), last * size as u32);
                }
            }
            assert_usable(&team);
        }
    });
}

#[test]
fn the_reported_stop_is_the_first_in_the_order_of_the_program() {
    watched(|| {
        for size in [1, 2, 3, 8] {
            let team = team(size);
            for round in 0..100 {
                let outcome = team.run(|worker| {
                    for step in 0..4 {
                        worker.share(64, 2, |lo, _| {
                            if step == 2 && lo >= 2 * round % 64 {
                                worker.stop(Stop { step, tile: lo, code: lo as u32 % 7 });
                            }
                        });
                        if worker.barrier().is_err() {
                            return;
                        }
                    }
                });
                let tile = 2 * round % 64;
                assert_eq!(outcome, Err(Stop { step: 2, tile, code: tile as u32 % 7 }));
            }
        }
    });
}

#[test]
fn a_stop_is_reported_without_a_barrier_and_forgotten_after() {
    watched(|| {
        for size in [1, 2, 3] {
            let team = team(size);
            let stop = |worker: &Worker| {
                worker.stop(Stop { step: 1, tile: worker.index() as u64, code: 2 });
                worker.stop(Stop { step: 3, tile: 0, code: 4 });
            };
            assert_eq!(team.run(stop), Err(Stop { step: 1, tile: 0, code: 2 }));
            assert_usable(&team);
        }
    });
}

#[test]
fn workers_that_ignore_a_stop_stay_in_step() {
    watched(|| {
        let team = team(2);
        let sum = AtomicU64::new(0);
        let outcome = team.run(|worker| {
            for round in 1..=1_000 {
                if round == 10 {
                    worker.stop(Stop { step: 10, tile: 0, code: 1 });
                }
                sum.fetch_add(1, Ordering::Relaxed);
                assert_eq!(worker.barrier().is_err(), round >= 10);
                assert_eq!(sum.load(Ordering::Relaxed), 2 * round);
                let _ = worker.barrier();
            }
        });
        assert_eq!(outcome, Err(Stop { step: 10, tile: 0, code: 1 }));
    });
}

#[test]
fn a_panic_outweighs_a_stop() {
    watched(|| {
        let team = team(2);
        let message = panic_message(|| {
            team.run(|worker| {
                worker.stop(Stop { step: 0, tile: 0, code: 1 });
                assert!(worker.index() == 0, "worker 1 fails");
                let _ = worker.barrier();
            })
        });
        assert_eq!(message, "worker 1 fails");
        assert_usable(&team);
    });
}
