//! How many workers a team gets by default: as many as the CPUs that this process may use, which is not the number that
//! the machine has.

/// The number of workers of a team that nobody sized: the smaller of the CPUs that the calling thread may run on and
/// the CPU quota of the process's control group, rounded up; at least one.
pub fn default_size() -> usize {
    affinity().min(quota().unwrap_or(usize::MAX)).max(1)
}

/// The CPU quota of the process's control group, in CPUs rounded up; none where there is no such thing, or no limit.
pub(super) fn quota() -> Option<usize> {
    #[cfg(target_os = "linux")]
    return super::cgroup::cpu_limit(|path| std::fs::read_to_string(path).ok());
    #[cfg(not(target_os = "linux"))]
    None
}

/// The number of CPUs that the calling thread may run on.
fn affinity() -> usize {
    #[cfg(target_os = "linux")]
    if let Some(count) = linux::affinity() {
        return count;
    }
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(target_os = "linux")]
mod linux {
    /// Sets of up to 64 Ki CPUs are asked for; no kernel is built for more.
    const MOST_WORDS: usize = 1024;

    /// The number of CPUs in the affinity set of the calling thread. The kernel refuses a set that is smaller than its
    /// own, hence the attempts.
    pub(super) fn affinity() -> Option<usize> {
        let mut set: Vec<u64> = vec![0; 16];
        loop {
            // SAFETY: the kernel writes at most the given number of bytes into the vector, whose elements are at least
            // as aligned as a `cpu_set_t` and may hold any bits.
            let answer = unsafe { libc::sched_getaffinity(0, size_of_val(&set[..]), set.as_mut_ptr().cast()) };
            if answer == 0 {
                return Some(set.iter().map(|word| word.count_ones() as usize).sum());
            }
            if set.len() >= MOST_WORDS {
                return None;
            }
            set = vec![0; set.len() * 2];
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_bound_to_one_cpu_gets_a_team_of_one() {
        let bound = std::thread::spawn(|| {
            let mut set = [0u64; 1024];
            let size = size_of_val(&set);
            // SAFETY: the kernel writes at most `size` bytes into the array, then reads as many.
            unsafe {
                assert_eq!(libc::sched_getaffinity(0, size, set.as_mut_ptr().cast()), 0);
                let word = set.iter().position(|&word| word != 0).unwrap();
                let lowest = set[word] & set[word].wrapping_neg();
                set = [0; 1024];
                set[word] = lowest;
                assert_eq!(libc::sched_setaffinity(0, size, set.as_ptr().cast()), 0);
            }
            (affinity(), default_size(), super::super::Team::new(None).size())
        });
        assert_eq!(bound.join().unwrap(), (1, 1, 1));
    }

    #[test]
    fn affinity_and_quota_bound_the_default_size() {
        assert_eq!(default_size(), affinity().min(quota().unwrap_or(usize::MAX)));
        // The standard library counts the same CPUs, and takes a quota off as well.
        assert!(std::thread::available_parallelism().is_ok_and(|standard| standard.get() <= affinity()));
    }
}
