//! A tape of decisions.

/// Numbers that decisions are taken from; past its end every decision is 0.
pub(super) struct Tape<'a> {
    rest: std::slice::Iter<'a, u32>,
}

impl<'a> Tape<'a> {
    pub(super) fn new(numbers: &'a [u32]) -> Self {
        Tape { rest: numbers.iter() }
    }

    /// A number below `count`, or 0.
    pub(super) fn pick(&mut self, count: usize) -> usize {
        self.rest.next().map_or(0, |number| *number as usize % count.max(1))
    }

    /// One of some choices, the first of which is the plainest.
    pub(super) fn choose<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.pick(choices.len())]
    }

    /// Yes in one of `times` cases; no when the tape has ended.
    pub(super) fn once_in(&mut self, times: usize) -> bool {
        self.pick(times) == times - 1
    }

    /// An order of `0..count`, most often ascending.
    pub(super) fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        if self.once_in(3) {
            for position in 1..count {
                order.swap(position, position - self.pick(position + 1));
            }
        }
        order
    }
}
