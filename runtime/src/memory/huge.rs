//! Huge pages, which the processor finds faster. Most systems hand them out faster than as much in small pages; one that has to
//! get them from elsewhere first (from the host of a virtual machine, or by making room) takes many times as long, and then a
//! first result would wait for them. So they are taken where they come at once ([`take`]), and what is used again is gathered
//! into huge pages after its first use ([`gather`]).

use std::{
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// The bytes of a huge page.
pub(crate) const HUGE_PAGE: u64 = 2 << 20;

/// Less than this stays in small pages, all of which a processor finds at once, and takes no more memory than is used.
const LEAST: usize = 4 * HUGE_PAGE as usize;

/// So many bytes are taken at a time, after a look at how long the first page takes.
pub(crate) const PART: usize = 8 * HUGE_PAGE as usize;

/// As much as a huge page comes in small ones about as fast as this, cleared at two gigabytes a second.
const LONGEST: Duration = Duration::from_millis(1);

/// Whether a huge page took longer in this process.
static COME_LATE: AtomicBool = AtomicBool::new(false);

/// Takes huge pages for a range of addresses of whole ones that nothing was written to yet, as long as they come at once.
///
/// # Safety
/// The range lies in a mapping of zeroed pages of the caller's, and nothing else reads or writes it meanwhile.
pub(crate) unsafe fn take(range: Range<usize>) {
    for start in range.clone().step_by(PART) {
        if COME_LATE.load(Ordering::Relaxed) {
            return;
        }
        let part = start..range.end.min(start + PART);
        advise(part.clone(), Advice::Huge);
        let asked = Instant::now();
        // SAFETY: the caller has the range for itself, and zero is what it holds.
        unsafe { std::ptr::with_exposed_provenance_mut::<u8>(start).write_volatile(0) };
        if asked.elapsed() > LONGEST {
            COME_LATE.store(true, Ordering::Relaxed);
            advise(start + HUGE_PAGE as usize..part.end, Advice::Small);
        }
    }
}

/// Asks for huge pages for a range of addresses of whole ones, however long they take to come.
pub(crate) fn want(range: Range<usize>) {
    advise(range, Advice::Huge);
}

/// Moves what lies in ranges of addresses into huge pages, as far as these lie wholly in one of the ranges and the system has any;
/// less than [`LEAST`] stays where it is. It takes about as long as copying the bytes, and nothing where they lie in huge pages.
/// Contents and addresses stay.
pub(crate) fn gather(ranges: impl IntoIterator<Item = Range<usize>>) {
    let ranges = joined(ranges);
    if ranges.iter().map(ExactSizeIterator::len).sum::<usize>() < LEAST {
        return;
    }
    for range in ranges {
        // The first alone has them gathered in the system's own time, where it has no such call as the second.
        advise(range.clone(), Advice::Huge);
        advise(range, Advice::Gathered);
    }
}

/// What a system is asked for.
#[derive(Clone, Copy)]
enum Advice {
    /// Huge pages from now on.
    Huge,
    /// Small pages from now on.
    Small,
    /// Huge pages at once.
    Gathered,
}

/// Ranges of whole huge pages, in order, those that touch as one.
fn joined(ranges: impl IntoIterator<Item = Range<usize>>) -> Vec<Range<usize>> {
    let page = HUGE_PAGE as usize;
    let whole = |range: Range<usize>| range.start.next_multiple_of(page)..range.end / page * page;
    let mut whole: Vec<_> = ranges.into_iter().map(whole).filter(|range| !range.is_empty()).collect();
    whole.sort_unstable_by_key(|range| range.start);
    whole.dedup_by(|next, before| {
        let touches = next.start <= before.end;
        if touches {
            before.end = before.end.max(next.end);
        }
        touches
    });
    whole
}

#[cfg(target_os = "linux")]
fn advise(range: Range<usize>, advice: Advice) {
    let advice = match advice {
        Advice::Huge => libc::MADV_HUGEPAGE,
        Advice::Small => libc::MADV_NOHUGEPAGE,
        Advice::Gathered => libc::MADV_COLLAPSE,
    };
    // SAFETY: none of these changes what any address holds. A system that has no such call, no room or other pages there says so,
    // and all runs as well, only slower.
    unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(range.start), range.len(), advice) };
}

#[cfg(not(target_os = "linux"))]
fn advise(_: Range<usize>, _: Advice) {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Block;

    #[test]
    fn ranges_are_whole_pages_and_apart() {
        let page = HUGE_PAGE as usize;
        let ranges = [5 * page..6 * page, 1..page, page - 1..3 * page + 1, 2 * page..4 * page, 9 * page..9 * page + 7];
        assert_eq!(joined(ranges), [page..4 * page, 5 * page..6 * page]);
    }

    #[test]
    fn pages_are_taken_in_parts() {
        let length = 3 * PART + HUGE_PAGE as usize;
        for late in [false, true] {
            COME_LATE.store(late, Ordering::Relaxed);
            let mut block = Block::new(length as u64).unwrap();
            assert!(block.bytes().iter().all(|byte| *byte == 0));
            block.bytes_mut(0, length as u64).fill(7);
            assert!(block.bytes().iter().all(|byte| *byte == 7));
        }
    }

    #[test]
    fn bytes_stay() {
        let length = 5 * HUGE_PAGE + 4096;
        let mut block = Block::new(length).unwrap();
        let fill = |place: usize| (place / 4096 + place) as u8;
        block.bytes_mut(0, length).iter_mut().enumerate().for_each(|(place, byte)| *byte = fill(place));
        for _ in 0..2 {
            gather([block.addresses()]);
            assert!(block.bytes().iter().enumerate().all(|(place, byte)| *byte == fill(place)));
        }
        block.bytes_mut(0, length).fill(1);
        assert!(block.bytes().iter().all(|byte| *byte == 1));
    }
}
