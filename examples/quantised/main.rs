//! What weights of few bits do to two trained models: plain codes, and codes split into three clusters (SplitQuant); how many
//! bytes they take, and how long a run takes with them.
//!
//! ```text
//! cargo run --release --example quantised
//! ```

use std::{error::Error, path::Path, time::Instant};
use strang::{
    Compiler, Tensor,
    compiler::quantise::{Granularity, Quantised, Scheme, Splitting, quantise},
    ir::Module,
    npy,
    runtime::session::Executable,
};

/// The rules that make one layer of three whose results add up.
const JOINING: [&str; 3] = ["sum-of-products-of-one-input", "sum-of-two-products", "merge-parallel-products"];

/// A trained classifier with examples that it was not trained on.
struct Classifier {
    module: Module,
    inputs: Tensor,
    labels: Vec<i64>,
}

fn main() -> Result<(), Box<dyn Error>> {
    for name in ["digits", "emotions"] {
        let classifier = Classifier::load(name)?;
        println!("\n{name}\n");
        println!(
            "| weights | bits each, with scales | kB | error of weights | right of {} | % |",
            classifier.labels.len()
        );
        println!("|---|---|---|---|---|---|");
        let right = classifier.right(&classifier.compile(&classifier.module)?)?;
        println!("| f32 | 32 | | | {right} | {:.1} |", classifier.percent(right));
        for granularity in [Granularity::Tensor, Granularity::Channel] {
            for bits in [8, 4, 3, 2] {
                for splitting in [Splitting::Whole, Splitting::Joined] {
                    classifier.row(&Scheme { bits, affine: false, granularity, splitting })?;
                }
            }
        }
        classifier.latencies()?;
    }
    Ok(())
}

impl Classifier {
    fn load(name: &str) -> Result<Self, Box<dyn Error>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
        Ok(Classifier {
            module: Compiler::new().load(folder.join(format!("{name}.onnx")))?,
            inputs: npy::read(&folder.join("inputs/input_0.npy"), None)?,
            labels: npy::read(&folder.join("labels.npy"), None)?.to_vec::<i64>()?,
        })
    }

    fn compile(&self, module: &Module) -> Result<Executable, Box<dyn Error>> {
        Ok(Compiler::new().compile(module.clone())?.executable)
    }

    fn percent(&self, right: usize) -> f64 {
        100. * right as f64 / self.labels.len() as f64
    }

    /// How well a model does with weights of a scheme.
    fn row(&self, scheme: &Scheme) -> Result<(), Box<dyn Error>> {
        let (quantised, layers) = quantise(&self.module, scheme)?;
        let sum = |of: fn(&Quantised) -> usize| layers.iter().map(of).sum::<usize>();
        let (weights, bits) = (sum(|layer| layer.weights), sum(|layer| layer.bits));
        let error = layers.iter().map(|layer| layer.error).sum::<f64>() / layers.len() as f64;
        let right = self.right(&self.compile(&quantised)?)?;
        println!(
            "| int{}, {}, a {} | {:.2} | {:.1} | {:.1} % | {right} | {:.1} |",
            scheme.bits,
            if scheme.splitting == Splitting::Whole { "plain" } else { "split" },
            if scheme.granularity == Granularity::Tensor { "layer" } else { "channel" },
            bits as f64 / weights as f64,
            bits as f64 / 8e3,
            100. * error,
            self.percent(right)
        );
        Ok(())
    }

    /// How many examples are read right.
    fn right(&self, executable: &Executable) -> Result<usize, Box<dyn Error>> {
        let outputs = executable.run(std::slice::from_ref(&self.inputs))?;
        let logits = outputs[0].as_slice::<f32>()?;
        let classes = logits.len() / self.labels.len();
        let best = |row: &[f32]| (0..classes).max_by(|a, b| row[*a].total_cmp(&row[*b]));
        let read = logits.chunks(classes).map(best);
        Ok(read.zip(&self.labels).filter(|(read, label)| read.is_some_and(|read| read as i64 == **label)).count())
    }

    /// How long a run takes with one example and with all: weights as f32, as one layer with a book, and as three layers.
    fn latencies(&self) -> Result<(), Box<dyn Error>> {
        let form = |splitting, granularity| -> Result<Module, Box<dyn Error>> {
            Ok(quantise(&self.module, &Scheme { bits: 2, affine: false, granularity, splitting })?.0)
        };
        let joined = form(Splitting::Joined, Granularity::Tensor)?;
        let by_channel = form(Splitting::Joined, Granularity::Channel)?;
        let layers = form(Splitting::Layers, Granularity::Tensor)?;
        let apart = JOINING.iter().fold(Compiler::new(), |compiler, rule| compiler.without(*rule));
        let compiled = |name, compiler: &Compiler, module: &Module| -> Result<_, Box<dyn Error>> {
            let weights: usize = compiler.plan(module.clone())?.plan.weights.iter().map(|tensor| tensor.length()).sum();
            Ok((name, weights, compiler.compile(module.clone())?.executable))
        };
        let usual = Compiler::new();
        let models = [
            compiled("f32", &usual, &self.module)?,
            compiled("int2 split, one layer with a book", &usual, &joined)?,
            compiled("int2 split, one layer with a book a channel", &usual, &by_channel)?,
            compiled("int2 split, three layers joined by rewriting", &usual, &layers)?,
            compiled("int2 split, three layers", &apart, &layers)?,
        ];
        let one = self.inputs.shape()[1..].to_vec();
        let bytes = self.inputs.bytes().len() / self.labels.len();
        let first =
            Tensor::from_bytes(self.inputs.element(), &[&[1], &one[..]].concat(), &self.inputs.bytes()[..bytes])?;
        let mut times = vec![[Vec::new(), Vec::new()]; models.len()];
        // By turns, so that what else the machine does is spread over all.
        for _ in 0..30 {
            for ((_, _, executable), times) in models.iter().zip(&mut times) {
                for (inputs, times) in [&first, &self.inputs].into_iter().zip(times) {
                    executable.run(std::slice::from_ref(inputs))?;
                    let start = Instant::now();
                    executable.run(std::slice::from_ref(inputs))?;
                    times.push(start.elapsed().as_secs_f64() * 1e3);
                }
            }
        }
        println!(
            "\n| weights | kB of all weights in the program | ms with 1 | ms with {} |\n|---|---|---|---|",
            self.labels.len()
        );
        for ((name, weights, _), times) in models.iter().zip(&mut times) {
            let [one, all] = times.each_mut().map(|times| {
                times.sort_by(f64::total_cmp);
                times[times.len() / 2]
            });
            println!("| {name} | {:.1} | {one:.3} | {all:.1} |", *weights as f64 / 1e3);
        }
        Ok(())
    }
}
