//! `strang bench`: how fast a model is.

use super::{
    ModelArguments,
    budget::{self, BudgetArguments},
    explain,
    inputs::InputArguments,
    output::showln,
    report,
    run::session_options,
    show::bytes_text,
};
use indicatif::ProgressBar;
use miette::{Result, miette};
use serde_json::json;
use std::time::{Duration, Instant};
use strang::{
    Model, Tensor,
    runtime::{Bindings, team::default_size},
};

/// However fast or slow a model is, so many runs are measured.
const RUNS: std::ops::Range<usize> = 20..1_000_000;

/// Measure a model: median, p10, p90, load time (file to ready), first-run time, peak memory
///
/// After a warm-up the model runs at least 20 times and for 2 seconds. Without inputs it runs on random ones (seed 0).
///
///   load    from the file to a model that is ready to run, compilation included
///   first   from the file to the first result: load and the first run, which touches memory for the first time
///   memory  the most that this process has used, and the part of it that the compiled model says it needs
///
/// Examples:
///   strang bench model.onnx --dim batch=1 --threads 1,2
///   strang bench model.onnx --inputs data --json
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Bench {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    inputs: InputArguments,
    #[command(flatten)]
    budget: BudgetArguments,
    /// Numbers of threads, as in `--threads 1,2`; all that this process may use, if not given
    #[arg(long, value_name = "N", value_delimiter = ',')]
    threads: Vec<usize>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// Measure for at least this many seconds for each number of threads
    #[arg(long, value_name = "SECONDS", default_value = "2")]
    seconds: f64,
}

/// What was measured with one number of threads.
struct Row {
    threads: usize,
    load: Duration,
    first: Duration,
    times: Vec<Duration>,
    /// Bytes that the session says it needs.
    needed: u64,
    /// Bytes that the process has used at most, where the system says.
    peak: Option<u64>,
}

impl Bench {
    /// Does it.
    pub fn execute(self) -> Result<()> {
        if !(self.seconds > 0. && self.seconds < 1e6) {
            return Err(miette!("--seconds takes a positive number"));
        }
        if self.threads.contains(&0) {
            return Err(miette!("--threads takes at least 1"));
        }
        let start = Instant::now();
        let module = self.model.compiler().load(&self.model.model).map_err(explain)?;
        let compiler = self.budget.of(self.model.compiler(), &module)?;
        let model = compiler.compile(module).map_err(explain)?;
        let compiled = start.elapsed();
        budget::tell(&model.receipt);
        let inputs = self.inputs.read_any(&model.executable)?;
        let bindings = model.executable.bindings(&inputs).map_err(report)?;
        let threads = if self.threads.is_empty() { vec![default_size()] } else { self.threads.clone() };
        let mut rows = Vec::with_capacity(threads.len());
        for threads in threads {
            // Without a ticking thread, which would run beside what is measured.
            let bar = ProgressBar::new_spinner().with_message(format!("measuring with {threads} threads"));
            bar.tick();
            rows.push(self.measure(&model, &inputs, &bindings, threads, compiled)?);
            bar.finish_and_clear();
        }
        if self.json {
            showln!("{}", self.json(&rows));
        } else {
            print_table(&rows);
        }
        Ok(())
    }

    fn measure(
        &self,
        model: &Model,
        inputs: &[Tensor],
        bindings: &Bindings,
        threads: usize,
        compiled: Duration,
    ) -> Result<Row> {
        let start = Instant::now();
        let mut session = model.executable.session(bindings, &session_options(Some(threads))).map_err(report)?;
        let mut outputs = session.new_outputs().map_err(report)?;
        let load = compiled + start.elapsed();
        let mut run = || -> Result<Duration> {
            let start = Instant::now();
            session.run_into(inputs, &mut outputs).map_err(report)?;
            Ok(start.elapsed())
        };
        let first = load + run()?;
        let warm = Instant::now() + Duration::from_secs_f64(self.seconds / 4.);
        let mut runs = 0;
        while runs < RUNS.start / 4 || (Instant::now() < warm && runs < RUNS.end) {
            run()?;
            runs += 1;
        }
        let end = Instant::now() + Duration::from_secs_f64(self.seconds);
        let mut times = Vec::new();
        while times.len() < RUNS.start || (Instant::now() < end && times.len() < RUNS.end) {
            times.push(run()?);
        }
        times.sort_unstable();
        Ok(Row { threads, load, first, times, needed: session.peak_memory(), peak: peak_of_process() })
    }

    /// The figures of the first number of threads, and those of all under `runs`.
    fn json(&self, rows: &[Row]) -> serde_json::Value {
        let all: Vec<serde_json::Value> = rows.iter().map(Row::json).collect();
        let mut object = all.first().cloned().unwrap_or_else(|| json!({}));
        object["model"] = json!(self.model.model.display().to_string());
        object["runs"] = json!(all);
        object
    }
}

impl Row {
    fn quantile(&self, share: f64) -> Duration {
        self.times[((self.times.len() - 1) as f64 * share).round() as usize]
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "threads": self.threads,
            "median_ms": milliseconds(self.quantile(0.5)),
            "p10_ms": milliseconds(self.quantile(0.1)),
            "p90_ms": milliseconds(self.quantile(0.9)),
            "load_ms": milliseconds(self.load),
            "first_ms": milliseconds(self.first),
            "count": self.times.len(),
            "needed_bytes": self.needed,
            "peak_bytes": self.peak,
        })
    }
}

fn print_table(rows: &[Row]) {
    showln!("threads  median ms       p10       p90   load ms  first ms    runs   memory  of it needed");
    for row in rows {
        showln!(
            "{:>7} {:>10.3} {:>9.3} {:>9.3} {:>9.2} {:>9.2} {:>7} {:>8}  {:>12}",
            row.threads,
            milliseconds(row.quantile(0.5)),
            milliseconds(row.quantile(0.1)),
            milliseconds(row.quantile(0.9)),
            milliseconds(row.load),
            milliseconds(row.first),
            row.times.len(),
            row.peak.map_or("unknown".into(), bytes_text),
            bytes_text(row.needed),
        );
    }
}

/// The largest resident memory of this process so far, as Linux says it.
fn peak_of_process() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
