//! Questions about the tree of steps: how deep it is, how long, and when buffers need their memory in it.

use super::error::LoadError;
use crate::program::{Buffer, Context, Step};

/// How deep steps may be nested: the walk over them is recursive.
const NESTING: usize = 64;

/// How deep `Repeat` may be nested: the counters that a kernel's context has room for.
const COUNTERS: usize = length(|context| &context.counters);

const fn length<const LENGTH: usize>(_: fn(&Context) -> &[u64; LENGTH]) -> usize {
    LENGTH
}

/// Refuses steps that are nested too deeply.
pub(super) fn check_nesting(steps: &[Step]) -> Result<(), LoadError> {
    nesting(steps, NESTING, COUNTERS)
}

/// Refuses steps nested deeper than `depth`, or `Repeat` nested deeper than `counters`.
fn nesting(steps: &[Step], depth: usize, counters: usize) -> Result<(), LoadError> {
    for step in steps {
        let (bodies, counters): ([&[Step]; 2], usize) = match step {
            Step::Kernel(_) | Step::Host { .. } => continue,
            Step::Repeat { .. } if counters == 0 => {
                return Err(LoadError::Nesting { what: "`Repeat` steps", limit: COUNTERS });
            }
            Step::Repeat { body, .. } => ([body, &[]], counters - 1),
            Step::If { then, otherwise, .. } => ([then, otherwise], counters),
        };
        if depth == 0 {
            return Err(LoadError::Nesting { what: "steps", limit: NESTING });
        }
        for body in bodies {
            nesting(body, depth - 1, counters)?;
        }
    }
    Ok(())
}

/// The number of kernel and host steps.
pub(super) fn count_steps(steps: &[Step]) -> u32 {
    let count = |step: &Step| match step {
        Step::Kernel(_) | Step::Host { .. } => 1,
        Step::Repeat { body, .. } => count_steps(body),
        Step::If { then, otherwise, .. } => count_steps(then) + count_steps(otherwise),
    };
    steps.iter().map(count).sum()
}

/// When each buffer needs its memory: as long as it is live, and through the whole of every `Repeat` that it is live in
/// and around, since the steps of the next iteration come between.
pub(super) fn lifetimes(buffers: &[Buffer], body: &[Step]) -> Vec<(u32, u32)> {
    let mut repeats = vec![];
    find_repeats(body, &mut 0, &mut repeats);
    let lifetime = |buffer: &Buffer| {
        repeats.iter().fold(buffer.live, |(first, last), (start, end)| {
            let meets = first <= *end && *start <= last;
            let inside = start <= &first && last <= *end;
            if meets && !inside { (first.min(*start), last.max(*end)) } else { (first, last) }
        })
    };
    buffers.iter().map(lifetime).collect()
}

/// The first and last step of every `Repeat`, inner ones first.
fn find_repeats(steps: &[Step], next: &mut u32, found: &mut Vec<(u32, u32)>) {
    for step in steps {
        match step {
            Step::Kernel(_) | Step::Host { .. } => *next += 1,
            Step::If { then, otherwise, .. } => {
                find_repeats(then, next, found);
                find_repeats(otherwise, next, found);
            }
            Step::Repeat { body, .. } => {
                let first = *next;
                find_repeats(body, next, found);
                if *next > first {
                    found.push((first, *next - 1));
                }
            }
        }
    }
}
