//! Profiles: where the time of a run went, layer by layer, and how near each kernel came to what the machine can do.

mod machine;

pub use machine::Machine;

use crate::{
    execute::StepTime,
    session::{bind::Bound, plan::Plan},
    team::Team,
};
use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// The times of one run.
#[derive(Clone, Debug)]
pub struct Profile {
    /// One for each step that ran, the longest first.
    pub rows: Vec<ProfileRow>,
    /// The whole run, barriers and wake-up included.
    pub total: Duration,
    /// The number of threads that took part.
    pub workers: usize,
    /// What that many threads of this machine can do.
    pub machine: Machine,
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileRow {
    /// The number of the step, in the order of the program.
    pub step: u32,
    /// The user's layer.
    pub label: Arc<str>,
    /// What kind of kernel it is.
    pub kind: Arc<str>,
    /// How often it ran.
    pub calls: u64,
    /// How long all of that took.
    pub time: Duration,
    /// Floating-point operations of all calls, a fused multiply-add counting two.
    pub flops: u64,
    /// Bytes that all calls read and wrote, each once a call.
    pub bytes: u64,
}

impl ProfileRow {
    /// Floating-point operations per second.
    pub fn flops_per_second(&self) -> f64 {
        rate(self.flops, self.time)
    }

    /// Bytes per second.
    pub fn bytes_per_second(&self) -> f64 {
        rate(self.bytes, self.time)
    }
}

fn rate(count: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { count as f64 / time.as_secs_f64() }
}

impl Profile {
    /// The profile of a run whose times were kept.
    pub(crate) fn new(plan: &Plan, bound: &Bound, times: &[StepTime], total: Duration, team: &Team) -> Profile {
        let row = |step: usize, label: Arc<str>, kind: Arc<str>, flops: u64, bytes: u64| {
            let calls = times[step].calls.load(Ordering::Relaxed);
            let time = Duration::from_nanos(times[step].nanoseconds.load(Ordering::Relaxed));
            let [flops, bytes] = [flops, bytes].map(|count| count.saturating_mul(calls));
            ProfileRow { step: step as u32, label, kind, calls, time, flops, bytes }
        };
        let kernels = plan.kernels.iter().zip(&bound.kernels).map(|(kernel, sizes)| {
            row(kernel.step as usize, kernel.label.clone(), kernel.kind.clone(), sizes.flops, sizes.bytes)
        });
        let customs = plan.customs.iter().map(|custom| {
            row(custom.step as usize, custom.label.clone(), format!("custom {}", custom.name).into(), 0, 0)
        });
        let fills = row(plan.steps as usize, "buffers that start from zero".into(), "zero".into(), 0, 0);
        let mut rows: Vec<ProfileRow> = kernels.chain(customs).chain([fills]).filter(|row| row.calls > 0).collect();
        // Stable: equal times stay in the order of the program.
        rows.sort_by_key(|row| std::cmp::Reverse(row.time));
        Profile { rows, total, workers: team.size(), machine: Machine::measured(team) }
    }

    /// All rows in one: the whole run.
    pub fn sum(&self) -> ProfileRow {
        let total = |count: fn(&ProfileRow) -> u64| self.rows.iter().map(count).fold(0, u64::saturating_add);
        ProfileRow {
            step: 0,
            label: "total".into(),
            kind: "".into(),
            calls: total(|row| row.calls),
            time: self.total,
            flops: total(|row| row.flops),
            bytes: total(|row| row.bytes),
        }
    }
}

/// A table: the longest first, and a row for the whole run.
impl fmt::Display for Profile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = self.sum();
        let width = self.rows.iter().chain([&sum]).map(|row| row.label.chars().count()).max().unwrap_or(0).min(60);
        let kind_width = self.rows.iter().map(|row| row.kind.chars().count()).max().unwrap_or(0).max("kind".len());
        writeln!(
            formatter,
            "{:>11} {:>6} {:<width$} {:<kind_width$} {:>7} {:>9} {:>6} {:>8}",
            "time", "%", "kernel", "kind", "calls", "GFLOP/s", "% peak", "GB/s"
        )?;
        for row in self.rows.iter().chain([&sum]) {
            let share = 100.0 * row.time.as_secs_f64() / self.total.as_secs_f64().max(f64::MIN_POSITIVE);
            let time = format!("{:.1} us", row.time.as_secs_f64() * 1e6);
            write!(formatter, "{time:>11} {share:>6.1} ")?;
            write!(formatter, "{:<width$} {:<kind_width$} {:>7} ", shorten(&row.label, width), row.kind, row.calls)?;
            let flops = row.flops_per_second();
            let peak = 100.0 * flops / self.machine.flops;
            writeln!(formatter, "{:>9.1} {peak:>6.1} {:>8.1}", flops / 1e9, row.bytes_per_second() / 1e9)?;
        }
        let (workers, machine) = (self.workers, self.machine);
        let threads = if workers == 1 { "thread reaches" } else { "threads reach" };
        write!(
            formatter,
            "{workers} {threads} {:.1} GFLOP/s in products and copy {:.1} GB/s (read and written)",
            machine.flops / 1e9,
            machine.bandwidth / 1e9
        )
    }
}

/// The end of a long label, which tells layers apart.
fn shorten(label: &str, width: usize) -> String {
    let count = label.chars().count();
    if count <= width {
        return label.to_owned();
    }
    let kept = label.chars().skip(count + 1 - width);
    std::iter::once('…').chain(kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_prints_as_a_table() {
        let row = |label: &str, kind: &str, calls, micros, flops, bytes| ProfileRow {
            step: 0,
            label: label.into(),
            kind: kind.into(),
            calls,
            time: Duration::from_micros(micros),
            flops,
            bytes,
        };
        let profile = Profile {
            rows: vec![
                row("encoder.0.query", "gemm", 1, 300, 30_000_000, 600_000),
                row("softmax", "rows", 12, 100, 0, 0),
            ],
            total: Duration::from_micros(500),
            workers: 2,
            machine: Machine { flops: 200e9, bandwidth: 20e9 },
        };
        let expected = "
       time      % kernel          kind   calls   GFLOP/s % peak     GB/s
   300.0 us   60.0 encoder.0.query gemm       1     100.0   50.0      2.0
   100.0 us   20.0 softmax         rows      12       0.0    0.0      0.0
   500.0 us  100.0 total                     13      60.0   30.0      1.2
2 threads reach 200.0 GFLOP/s in products and copy 20.0 GB/s (read and written)";
        assert_eq!(format!("\n{profile}"), expected);
    }

    #[test]
    fn long_labels_keep_their_end() {
        assert_eq!(shorten("abcdef", 4), "…def");
        assert_eq!(shorten("äöü", 3), "äöü");
    }
}
