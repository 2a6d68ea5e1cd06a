//! A number that threads wait on: first spinning, then yielding, each for a bounded time, then asleep in
//! the kernel.
//!
//! Everything in the team that waits waits on one of these: parked workers for the next run, workers at a barrier, the
//! caller for the last worker. Whoever changes the number pays for a wake-up only if somebody sleeps, and wakes all
//! sleepers with one call.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::sleep::{PlatformSleep, Sleep};

/// Looks at a number between two looks at the clock: reading the clock costs as much as one pause, so a batch hides it.
const LOOKS_PER_BATCH: u32 = 64;

/// How long a thread spins, and then looks once each time it has offered its CPU to others, before it sleeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    spinning: Duration,
    yielding: Duration,
}

impl Patience {
    /// Spins for longer than the gap between two kernels of a program, short beside a scheduler's time slice; then yields
    /// for longer than a kernel that one worker executes alone, or the gap between two calls of a busy caller.
    ///
    /// A virtual machine gives a sleeping CPU away and may take milliseconds to get it back from a busy host. On one where
    /// it did, models of 4 to 12 ms on two threads took two to five times as long without yielding, and up to twice as
    /// long with 5 ms of it instead of 20.
    pub(super) const SPINNING: Patience =
        Patience { spinning: Duration::from_micros(30), yielding: Duration::from_millis(20) };

    /// Sleep at once: with more threads than CPUs, whoever spins takes the CPU from the thread it waits for.
    pub(super) const NONE: Patience = Patience { spinning: Duration::ZERO, yielding: Duration::ZERO };

    /// Calls `ready` until it answers something or patience ends.
    fn spin<T>(self, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
        if self.spinning.is_zero() {
            return ready();
        }
        let mut end = None;
        let end = loop {
            for _ in 0..LOOKS_PER_BATCH {
                if let Some(answer) = ready() {
                    return Some(answer);
                }
                std::hint::spin_loop();
            }
            let now = Instant::now();
            if now >= *end.get_or_insert(now + self.spinning) {
                break now + self.yielding;
            }
        };
        while Instant::now() < end {
            std::thread::yield_now();
            if let Some(answer) = ready() {
                return Some(answer);
            }
        }
        None
    }
}

/// A number, and the threads that sleep until it changes.
#[derive(Default)]
pub(super) struct Word<S = PlatformSleep> {
    value: AtomicU32,
    sleepers: AtomicU32,
    sleep: S,
}

impl<S: Sleep> Word<S> {
    /// The number; what was written before it was published is visible.
    pub(super) fn load(&self) -> u32 {
        self.value.load(Ordering::Acquire)
    }

    /// Sets the number and wakes who sleeps on it.
    pub(super) fn publish(&self, value: u32) {
        self.value.store(value, Ordering::SeqCst);
        self.wake();
    }

    /// Raises bits of the number and wakes who sleeps on it.
    pub(super) fn raise(&self, bits: u32) {
        self.value.fetch_or(bits, Ordering::SeqCst);
        self.wake();
    }

    /// Waits until the number is not `seen`, and returns it.
    pub(super) fn wait_past(&self, seen: u32, patience: Patience) -> u32 {
        let changed = || Some(self.load()).filter(|&value| value != seen);
        patience.spin(changed).unwrap_or_else(|| self.sleep_past(seen))
    }

    /// The counterpart of `sleep_past`: one side writes `value` then reads `sleepers`, the other writes `sleepers` then
    /// reads `value`. In the single total order of these four, at least one side sees the other, so no wake-up is lost.
    fn wake(&self) {
        if self.sleepers.load(Ordering::SeqCst) != 0 {
            self.sleep.wake_all(&self.value);
        }
    }

    #[cold]
    fn sleep_past(&self, seen: u32) -> u32 {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let value = loop {
            let value = self.value.load(Ordering::SeqCst);
            if value != seen {
                break value;
            }
            self.sleep.sleep_while(&self.value, seen);
        };
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::super::sleep::CondvarSleep;
    use super::*;

    /// Two threads count together through two words; a lost wake-up hangs it.
    fn count_together<S: Sleep + Default + Sync>(patience: Patience, rounds: u32) {
        let (forth, back) = (Word::<S>::default(), Word::<S>::default());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..rounds {
                    assert_eq!(forth.wait_past(round, patience), round + 1);
                    back.publish(round + 1);
                }
            });
            for round in 0..rounds {
                forth.publish(round + 1);
                assert_eq!(back.wait_past(round, patience), round + 1);
            }
        });
    }

    #[test]
    fn no_wake_up_is_lost_on_this_platform() {
        count_together::<PlatformSleep>(Patience::NONE, 5_000);
        let spinning = Duration::from_nanos(1);
        for yielding in [0, 1, 1_000_000].map(Duration::from_nanos) {
            count_together::<PlatformSleep>(Patience { spinning, yielding }, 5_000);
        }
        count_together::<PlatformSleep>(Patience::SPINNING, 5_000);
    }

    #[test]
    fn no_wake_up_is_lost_on_other_platforms() {
        count_together::<CondvarSleep>(Patience::NONE, 5_000);
        count_together::<CondvarSleep>(Patience::SPINNING, 5_000);
    }

    #[test]
    fn raised_bits_wake_every_sleeper() {
        let word = Word::<PlatformSleep>::default();
        std::thread::scope(|scope| {
            let sleepers: Vec<_> = (0..4).map(|_| scope.spawn(|| word.wait_past(0, Patience::NONE))).collect();
            word.raise(2);
            for sleeper in sleepers {
                assert_eq!(sleeper.join().unwrap(), 2);
            }
        });
    }
}
