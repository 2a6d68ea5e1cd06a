//! Sleeping in the kernel until a number changes: the futex on Linux, a condition variable elsewhere.
//!
//! Measured against `std::thread::park` on two cores of a virtual machine, both take the same time (a one-way wake-up
//! 4.5 us at best and 6 to 7 us in the median, nearly all of it in the call that wakes). The futex is here because one
//! call wakes all sleepers, and because the words belong to the team: nobody needs a handle of the thread that called
//! `run`, which may be gone when it is woken.

use std::sync::atomic::AtomicU32;

/// A way to sleep until a number changes. A wake-up without a reason is allowed: callers look at the number again.
pub(super) trait Sleep {
    /// Sleeps if `word` still holds `seen`, until somebody calls `wake_all`.
    fn sleep_while(&self, word: &AtomicU32, seen: u32);

    /// Wakes all who sleep on `word`; called after the number changed.
    fn wake_all(&self, word: &AtomicU32);
}

#[cfg(target_os = "linux")]
pub(super) use futex::FutexSleep as PlatformSleep;

#[cfg(not(target_os = "linux"))]
pub(super) use condvar::CondvarSleep as PlatformSleep;

#[cfg(test)]
pub(super) use condvar::CondvarSleep;

#[cfg(target_os = "linux")]
mod futex {
    use std::ptr;
    use std::sync::atomic::AtomicU32;

    /// Sleeps in `futex(2)`, private to the process.
    #[derive(Default)]
    pub(in super::super) struct FutexSleep;

    impl super::Sleep for FutexSleep {
        fn sleep_while(&self, word: &AtomicU32, seen: u32) {
            let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
            // SAFETY: the kernel reads the four aligned bytes of a live atomic; a null time limit means none. Whatever
            // it answers (woken, changed already, interrupted), the caller looks at the number again.
            unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, seen, ptr::null::<libc::timespec>()) };
        }

        fn wake_all(&self, word: &AtomicU32) {
            let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
            // SAFETY: the kernel takes the address as a key and touches no memory behind it.
            unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, i32::MAX) };
        }
    }
}

#[cfg(any(test, not(target_os = "linux")))]
mod condvar {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Condvar, Mutex, PoisonError};

    /// Sleeps on a condition variable; its lock is taken only to sleep and to wake sleepers, never while threads spin.
    #[derive(Default)]
    pub(in super::super) struct CondvarSleep {
        lock: Mutex<()>,
        changed: Condvar,
    }

    impl super::Sleep for CondvarSleep {
        fn sleep_while(&self, word: &AtomicU32, seen: u32) {
            let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            if word.load(Ordering::SeqCst) == seen {
                drop(self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner));
            }
        }

        fn wake_all(&self, _word: &AtomicU32) {
            // Between a sleeper's look at the number and its sleep it holds the lock; passing through the lock waits
            // for that.
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.changed.notify_all();
        }
    }
}
