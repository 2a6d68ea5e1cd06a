//! Nothing is allocated between the start and the end of a run. This is a program of its own because it replaces the
//! allocator, and it has one test because it counts what every thread of the process allocates.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use strang_runtime::team::{Stop, Team};

/// The system's allocator, counting calls.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the contract of this function is that of the one called.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `alloc` above got the pointer from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The number of allocations while `body` runs.
fn allocations(body: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    body();
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

#[test]
fn runs_of_a_team_allocate_nothing() {
    assert_eq!(allocations(|| drop(black_box(Box::new(0u8)))), 1);
    for size in [1, 2, 5] {
        let team = Team::new(Some(size));
        let run = || {
            let nested = team.run(|worker| {
                for step in 0..20 {
                    worker.share(100, 3, |lo, _| _ = black_box(lo));
                    assert!(worker.barrier().is_ok(), "step {step}");
                }
                assert_eq!(team.run(|_| ()), Ok(()));
            });
            assert_eq!(nested, Ok(()));
            let stop = Stop { step: 1, tile: 2, code: 3 };
            assert_eq!(team.run(|worker| worker.stop(stop)), Err(stop));
        };
        // The threads of the team have started once they took part in a run.
        run();
        assert_eq!(allocations(|| (0..100).for_each(|_| run())), 0, "spinning, {size} workers");
        thread::sleep(Duration::from_millis(5));
        assert_eq!(allocations(run), 0, "asleep, {size} workers");
    }
}
