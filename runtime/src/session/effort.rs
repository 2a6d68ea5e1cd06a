//! Who runs what: the whole program on the caller or on the team, and each step on all workers or on the first.
//!
//! The choice rests on what the program says about its work and on round figures, so a session makes the same one on every
//! machine. It changes who waits for whom, and never a bit of a result.

use super::{
    plan::{Action, Node, Plan},
    sizes::SizeValues,
};

/// Work of less than that many nanoseconds runs on the caller alone: waking the team would take as long.
const ALONE: f64 = 100_000.0;

/// A step of less than that many nanoseconds runs on worker 0 alone, so that neighbours of its kind need no barrier.
const SMALL_STEP: f64 = 300.0;

/// Floating-point operations in a nanosecond, and bytes, on one core of a current machine.
const FLOPS: f64 = 64.0;
const BYTES: f64 = 20.0;

/// Who runs a node. A list of nodes has the largest mode among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    /// Nobody: there is nothing to do, however often it is repeated.
    Idle,
    /// Worker 0 alone, without barriers: steps of one tile, steps too short to share, and custom operations.
    Solo,
    /// All workers.
    Shared,
}

/// The work of a plan with sizes.
pub(super) struct Effort<'plan> {
    pub(super) plan: &'plan Plan,
    pub(super) values: &'plan SizeValues,
}

impl Effort<'_> {
    /// Whether the program is so short that it runs on the caller alone.
    pub(super) fn is_short(&self) -> bool {
        self.list(&self.plan.body) < ALONE
    }

    /// Nanoseconds of work that could be shared in some steps, at a guess.
    fn list(&self, nodes: &[Node]) -> f64 {
        let node = |node: &Node| match &node.action {
            Action::Kernel(index) => match self.values.get(self.plan.kernels[*index as usize].grid) {
                0 | 1 => 0.0,
                // What is not known may be long.
                _ => self.kernel(*index).unwrap_or(ALONE),
            },
            Action::Fill(begin, end) => self.fill(*begin, *end),
            Action::Custom(_) => 0.0,
            Action::Repeat { count, body, .. } => self.values.get(*count) as f64 * self.list(body),
            Action::If { then, otherwise, .. } => self.list(then).max(self.list(otherwise)),
        };
        nodes.iter().map(node).sum()
    }

    /// Nanoseconds that a kernel takes on one core, at a guess; `None` when the program does not say what it does.
    fn kernel(&self, index: u32) -> Option<f64> {
        let kernel = &self.plan.kernels[index as usize];
        let (flops, bytes) = (self.values.get(kernel.flops), self.values.get(kernel.bytes));
        ((flops, bytes) != (0, 0)).then(|| (flops as f64 / FLOPS).max(bytes as f64 / BYTES))
    }

    /// Nanoseconds that it takes to zero a buffer.
    fn fill(&self, begin: u32, end: u32) -> f64 {
        let fills = &self.plan.fills[begin as usize..end as usize];
        fills.iter().map(|fill| self.values.get(fill.bytes) as f64 * self.values.get(fill.count) as f64 / BYTES).sum()
    }

    /// Who runs each node, by its identity.
    pub(super) fn modes(&self) -> Box<[Mode]> {
        let mut modes = vec![Mode::Idle; self.plan.nodes as usize];
        self.list_modes(&self.plan.body, &mut modes);
        modes.into()
    }

    fn list_modes(&self, nodes: &[Node], modes: &mut [Mode]) -> Mode {
        let by_time = |time: f64| if time < SMALL_STEP { Mode::Solo } else { Mode::Shared };
        let mut all = Mode::Idle;
        for node in nodes {
            let mode = match &node.action {
                Action::Custom(_) => Mode::Solo,
                Action::Kernel(index) => match self.values.get(self.plan.kernels[*index as usize].grid) {
                    0 => Mode::Idle,
                    1 => Mode::Solo,
                    _ => self.kernel(*index).map_or(Mode::Shared, by_time),
                },
                Action::Fill(begin, end) => match self.fill(*begin, *end) {
                    0.0 => Mode::Idle,
                    time => by_time(time),
                },
                Action::Repeat { body, .. } => self.list_modes(body, modes),
                Action::If { then, otherwise, .. } => {
                    let then = self.list_modes(then, modes);
                    then.max(self.list_modes(otherwise, modes))
                }
            };
            modes[node.id as usize] = mode;
            all = all.max(mode);
        }
        all
    }
}
