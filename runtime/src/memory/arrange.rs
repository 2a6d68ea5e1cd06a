//! Where the buffers of the arena lie: buffers that are never live together share bytes.
//!
//! Greedy best fit: the largest buffer first, each into the smallest gap that takes it between those already placed that
//! are live at the same time. On inference graphs this comes within a few percent of the largest sum of live bytes,
//! which no arrangement can beat, and it depends on nothing but its input.

use super::{LINE, whole_lines};

/// Bytes kept free after every buffer, so that a vector that reads a few elements past the end of one never meets a
/// line that another worker is writing.
const GUARD: u64 = 64;

/// A buffer that wants a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Its length.
    pub(crate) bytes: u64,
    /// The first and last step that it is live in.
    pub(crate) live: (u32, u32),
}

/// Where buffers lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrangement {
    /// The offset of each request, a multiple of [`LINE`].
    pub(crate) offsets: Vec<u64>,
    /// Bytes from the start to the end of the last one.
    pub(crate) bytes: u64,
}

/// One that has its place.
struct Placed {
    offset: u64,
    end: u64,
    live: (u32, u32),
}

/// Places buffers; `None` when their sizes do not fit 64 bits.
pub(crate) fn arrange(requests: &[Request]) -> Option<Arrangement> {
    let mut order: Vec<(u64, usize)> = Vec::with_capacity(requests.len());
    for (index, request) in requests.iter().enumerate() {
        order.push((whole_lines(request.bytes)?.checked_add(GUARD)?, index));
    }
    order.sort_unstable_by_key(|(length, index)| (std::cmp::Reverse(*length), *index));
    let mut offsets = vec![0; requests.len()];
    // Ascending by offset.
    let mut placed: Vec<Placed> = Vec::with_capacity(requests.len());
    let mut bytes = 0;
    for (length, index) in order {
        let live = requests[index].live;
        let offset = best_gap(&placed, live, length);
        let end = offset.checked_add(length)?;
        let position = placed.partition_point(|other| other.offset < offset);
        placed.insert(position, Placed { offset, end, live });
        offsets[index] = offset;
        bytes = bytes.max(end);
    }
    debug_assert!(offsets.iter().all(|offset| offset.is_multiple_of(LINE)));
    Some(Arrangement { offsets, bytes })
}

/// The start of the smallest gap of at least `length` bytes among those live at the same time, the lowest of equal
/// ones; where there is none, the end of the last.
fn best_gap(placed: &[Placed], live: (u32, u32), length: u64) -> u64 {
    let mut end = 0;
    let mut best: Option<(u64, u64)> = None;
    for other in placed {
        if other.live.1 < live.0 || live.1 < other.live.0 {
            continue;
        }
        let gap = other.offset.saturating_sub(end);
        if gap >= length && best.is_none_or(|(smallest, _)| gap < smallest) {
            best = Some((gap, end));
        }
        end = end.max(other.end);
    }
    best.map_or(end, |(_, offset)| offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn requests() -> impl Strategy<Value = Vec<Request>> {
        let request = (0u64..5000, 0u32..60, 0u32..12)
            .prop_map(|(bytes, first, steps)| Request { bytes, live: (first, first + steps) });
        prop::collection::vec(request, 0..120)
    }

    fn together(a: &Request, b: &Request) -> bool {
        a.live.0 <= b.live.1 && b.live.0 <= a.live.1
    }

    /// The largest sum of bytes live in one step: no arrangement is smaller.
    fn least(requests: &[Request]) -> u64 {
        let sum = |step| {
            let live = requests.iter().filter(|request| (request.live.0..=request.live.1).contains(&step));
            live.map(|request| request.bytes.next_multiple_of(LINE) + GUARD).sum::<u64>()
        };
        (0..80).map(sum).max().unwrap()
    }

    proptest! {
        #[test]
        fn buffers_that_are_live_together_keep_a_guard_between_them(requests in requests()) {
            let arrangement = arrange(&requests).unwrap();
            for (index, (a, start)) in requests.iter().zip(&arrangement.offsets).enumerate() {
                prop_assert!(start.is_multiple_of(LINE));
                prop_assert!(start + a.bytes + GUARD <= arrangement.bytes);
                for (b, other) in requests.iter().zip(&arrangement.offsets).skip(index + 1) {
                    let apart = start + a.bytes + GUARD <= *other || other + b.bytes + GUARD <= *start;
                    prop_assert!(apart || !together(a, b), "{:?} at {} meets {:?} at {}", a, start, b, other);
                }
            }
            prop_assert!(arrangement.bytes >= least(&requests));
            prop_assert_eq!(arrange(&requests).unwrap(), arrangement);
        }
    }

    #[test]
    fn a_chain_takes_two_buffers() {
        let chain: Vec<Request> = (0..50).map(|step| Request { bytes: 1000, live: (step, step + 1) }).collect();
        assert_eq!(arrange(&chain).unwrap().bytes, 2 * (1024 + GUARD));
    }

    #[test]
    fn the_smallest_gap_is_taken() {
        let requests = [(2048, (0, 0)), (1024, (0, 9)), (512, (0, 0)), (480, (0, 9)), (448, (1, 1))]
            .map(|(bytes, live)| Request { bytes, live });
        let arrangement = arrange(&requests).unwrap();
        assert_eq!(arrangement.offsets[4], arrangement.offsets[2]);
    }

    #[test]
    fn sizes_beyond_64_bits_are_refused() {
        let huge = Request { bytes: u64::MAX - 200, live: (0, 1) };
        assert!(arrange(&[huge]).is_some());
        assert_eq!(arrange(&[huge, huge]), None);
        assert_eq!(arrange(&[Request { bytes: u64::MAX, live: (0, 0) }]), None);
    }
}
