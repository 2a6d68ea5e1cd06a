//! What the thread team costs: a run of an empty closure (wake-up and join) on spinning and on sleeping workers, a
//! barrier, and taking a chunk of a grid. Beside criterion's estimate each prints the best sample, which other programs
//! on the machine disturb least.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};
use strang_runtime::team::{Team, default_size};

/// Operations between two readings of the clock, where single ones are too short for it.
const BATCH: u32 = 100;

/// Measures `sample`, which performs some operations and returns the time and their number.
fn measure(group: &mut BenchmarkGroup<WallTime>, name: &str, mut sample: impl FnMut() -> (Duration, u32)) {
    let best = Cell::new(f64::INFINITY);
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| {
            let (mut total, mut operations) = (Duration::ZERO, 0u64);
            while operations < iterations {
                let (time, count) = sample();
                best.set(best.get().min(time.as_secs_f64() / f64::from(count)));
                total += time;
                operations += u64::from(count);
            }
            total.mul_f64(iterations as f64 / operations as f64)
        });
    });
    if best.get().is_finite() {
        println!("{name}: {:.1} ns at best", best.get() * 1e9);
    }
}

/// The time of `BATCH` repetitions of `body` as worker 0 sees them.
fn timed(body: impl Fn()) -> (Duration, u32) {
    let start = Instant::now();
    (0..BATCH).for_each(|_| body());
    (start.elapsed(), BATCH)
}

fn bench_team(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("team");
    group.sample_size(20);
    for size in [1, default_size().max(2)] {
        let team = Team::new(Some(size));
        let run = || team.run(|worker| _ = black_box(worker.index())).expect("nothing stops it");
        measure(&mut group, &format!("run, {size} spinning"), || timed(run));
        measure(&mut group, &format!("run, {size} sleeping"), || {
            // Longer than a worker spins.
            thread::sleep(Duration::from_micros(300));
            let start = Instant::now();
            run();
            (start.elapsed(), 1)
        });
        measure(&mut group, &format!("barrier, {size} workers"), || {
            let nanoseconds = AtomicU64::new(0);
            team.run(|worker| {
                // Everybody is awake and warm before the clock starts.
                (0..BATCH).for_each(|_| worker.barrier().expect("nothing stops it"));
                let (time, _) = timed(|| worker.barrier().expect("nothing stops it"));
                if worker.index() == 0 {
                    nanoseconds.store(time.as_nanos() as u64, Ordering::Relaxed);
                }
            })
            .expect("nothing stops it");
            (Duration::from_nanos(nanoseconds.into_inner()), BATCH)
        });
        measure(&mut group, &format!("chunk, {size} workers"), || {
            let nanoseconds = AtomicU64::new(0);
            let chunks = BATCH * 100;
            team.run(|worker| {
                // Nobody begins before worker 0 has read the clock.
                let start = Instant::now();
                worker.barrier().expect("nothing stops it");
                worker.share(u64::from(chunks), 1, |lo, _| _ = black_box(lo));
                worker.barrier().expect("nothing stops it");
                if worker.index() == 0 {
                    nanoseconds.store(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
                }
            })
            .expect("nothing stops it");
            (Duration::from_nanos(nanoseconds.into_inner()), chunks)
        });
    }
    group.finish();
}

criterion_group!(benches, bench_team);
criterion_main!(benches);
