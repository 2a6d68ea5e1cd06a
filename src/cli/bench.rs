//! `strang bench`: how fast a model is.

use super::{ModelArguments, inputs::InputArguments, run::session_options, show::bytes_text};
use indicatif::ProgressBar;
use miette::{IntoDiagnostic, Result, miette};
use std::time::{Duration, Instant};

/// Measure a model: median, p10, p90, load time (file to ready), first-run time, peak memory
#[derive(clap::Args)]
pub struct Bench {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    inputs: InputArguments,
    /// Numbers of threads, as in `--threads 1,2`; all that this process may use, if not given
    #[arg(long, value_name = "N", value_delimiter = ',')]
    threads: Vec<usize>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// Measure for about this many seconds for each number of threads
    #[arg(long, value_name = "SECONDS", default_value = "2")]
    seconds: f64,
}

struct Row {
    threads: usize,
    first: Duration,
    times: Vec<Duration>,
    memory: u64,
}

impl Bench {
    /// Does it.
    pub fn execute(self) -> Result<()> {
        if !(self.seconds > 0. && self.seconds < 1e6) {
            return Err(miette!("--seconds takes a positive number"));
        }
        let start = Instant::now();
        let model = self.model.compiler().compile_file(&self.model.model).into_diagnostic()?;
        let inputs = self.inputs.read(&model.executable)?;
        let bindings = model.executable.bindings(&inputs).into_diagnostic()?;
        let load = start.elapsed();
        let threads =
            if self.threads.is_empty() { vec![strang::runtime::team::default_size()] } else { self.threads.clone() };
        let mut rows = Vec::new();
        for threads in threads {
            let bar = ProgressBar::new_spinner().with_message(format!("{threads} threads"));
            bar.enable_steady_tick(Duration::from_millis(200));
            let mut session = model.executable.session(&bindings, &session_options(Some(threads))).into_diagnostic()?;
            let mut outputs = session.new_outputs().into_diagnostic()?;
            let start = Instant::now();
            session.run_into(&inputs, &mut outputs).into_diagnostic()?;
            let first = start.elapsed();
            let end = Instant::now() + Duration::from_secs_f64(self.seconds);
            let mut times = Vec::new();
            while times.len() < 10 || (Instant::now() < end && times.len() < 1_000_000) {
                let start = Instant::now();
                session.run_into(&inputs, &mut outputs).into_diagnostic()?;
                times.push(start.elapsed());
            }
            times.sort_unstable();
            bar.finish_and_clear();
            rows.push(Row { threads, first, times, memory: session.peak_memory() });
        }
        if self.json {
            let rows: Vec<serde_json::Value> = rows.iter().map(|row| row.json()).collect();
            println!("{}", serde_json::json!({ "load_ms": milliseconds(load), "runs": rows }));
        } else {
            println!("file to ready {:.2} ms", milliseconds(load));
            println!("threads   median       p10       p90     first   ms, runs   peak memory");
            for row in &rows {
                println!(
                    "{:>7} {:>8.3} {:>9.3} {:>9.3} {:>9.3}   {:>8}   {:>11}",
                    row.threads,
                    milliseconds(row.quantile(0.5)),
                    milliseconds(row.quantile(0.1)),
                    milliseconds(row.quantile(0.9)),
                    milliseconds(row.first),
                    row.times.len(),
                    bytes_text(row.memory),
                );
            }
        }
        Ok(())
    }
}

impl Row {
    fn quantile(&self, share: f64) -> Duration {
        self.times[((self.times.len() - 1) as f64 * share).round() as usize]
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "threads": self.threads,
            "median_ms": milliseconds(self.quantile(0.5)),
            "p10_ms": milliseconds(self.quantile(0.1)),
            "p90_ms": milliseconds(self.quantile(0.9)),
            "first_ms": milliseconds(self.first),
            "runs": self.times.len(),
            "peak_bytes": self.memory,
        })
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
