//! What weights of few bits do to the digit classifier: plain codes, and codes split into three clusters (SplitQuant).
//!
//! ```text
//! cargo run --release --example quantised
//! ```

use std::{error::Error, path::Path};
use strang::{
    Compiler, Tensor,
    compiler::quantise::{Granularity, Scheme, quantise},
    ir::Module,
    npy,
};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits");
    let module = Compiler::new().load(folder.join("digits.onnx"))?;
    let images = npy::read(&folder.join("inputs/input_0.npy"), None)?;
    let labels = npy::read(&folder.join("labels.npy"), None)?.to_vec::<i64>()?;
    println!("| weights | bits each, with scales | kB | error of weights | right of {} | % |", labels.len());
    println!("|---|---|---|---|---|---|");
    let right = right(&module, &images, &labels)?;
    println!("| f32 | 32 | | | {right} | {:.1} |", 100. * right as f64 / labels.len() as f64);
    for granularity in [Granularity::Tensor, Granularity::Channel] {
        for bits in [8, 4, 3, 2] {
            for split in [false, true] {
                let scheme = Scheme { bits, affine: false, granularity, split };
                row(&module, &scheme, &images, &labels)?;
            }
        }
    }
    Ok(())
}

fn row(module: &Module, scheme: &Scheme, images: &Tensor, labels: &[i64]) -> Result<(), Box<dyn Error>> {
    let (quantised, layers) = quantise(module, scheme)?;
    let weights: usize = layers.iter().map(|layer| layer.weights).sum();
    let bits: usize = layers.iter().map(|layer| layer.bits).sum();
    let error = layers.iter().map(|layer| layer.error).sum::<f64>() / layers.len() as f64;
    let right = right(&quantised, images, labels)?;
    println!(
        "| int{}, {}, a {} | {:.2} | {:.1} | {:.1} % | {right} | {:.1} |",
        scheme.bits,
        if scheme.split { "split" } else { "plain" },
        if scheme.granularity == Granularity::Tensor { "layer" } else { "channel" },
        bits as f64 / weights as f64,
        bits as f64 / 8e3,
        100. * error,
        100. * right as f64 / labels.len() as f64
    );
    Ok(())
}

/// How many images are read right.
fn right(module: &Module, images: &Tensor, labels: &[i64]) -> Result<usize, Box<dyn Error>> {
    let outputs = Compiler::new().compile(module.clone())?.executable.run(std::slice::from_ref(images))?;
    let logits = outputs[0].as_slice::<f32>()?;
    let classes = logits.len() / labels.len();
    let best = |row: &[f32]| (0..classes).max_by(|a, b| row[*a].total_cmp(&row[*b]));
    let read = logits.chunks(classes).map(best);
    Ok(read.zip(labels).filter(|(read, label)| read.is_some_and(|read| read as i64 == **label)).count())
}
