//! Compiles the digit classifier beside this file, reads the held-out images and says how many it gets right.
//!
//! ```text
//! cargo run --release --example digits
//! ```

use std::{error::Error, path::Path, time::Instant};
use strang::{Compiler, npy};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits");

    let start = Instant::now();
    let model = Compiler::new().compile_file(folder.join("digits.onnx"))?;
    println!("compiled digits.onnx in {:.1} ms", 1e3 * start.elapsed().as_secs_f64());

    let images = npy::read(&folder.join("inputs/input_0.npy"), None)?;
    let labels = npy::read(&folder.join("labels.npy"), None)?.to_vec::<i64>()?;

    // The number of images is a symbol of the model, bound here by the shape of the input; the second run uses the session
    // of the first.
    let inputs = [images];
    model.executable.run(&inputs)?;
    let start = Instant::now();
    let outputs = model.executable.run(&inputs)?;
    let elapsed = start.elapsed();

    let logits = outputs[0].as_slice::<f32>()?;
    let classes = logits.len() / labels.len();
    let best = |row: &[f32]| (0..classes).max_by(|a, b| row[*a].total_cmp(&row[*b]));
    let read: Vec<i64> = logits.chunks(classes).filter_map(best).map(|class| class as i64).collect();

    show(&inputs[0].as_slice::<f32>()?[..64 * 5], &read);
    let right = read.iter().zip(&labels).filter(|(read, label)| read == label).count();
    println!(
        "{right} of {} held-out images are read right ({:.2} %), all of them in {:.2} ms",
        labels.len(),
        100. * right as f64 / labels.len() as f64,
        1e3 * elapsed.as_secs_f64()
    );
    Ok(())
}

/// Draws 8x8 images side by side, with what they were read as under them.
fn show(images: &[f32], read: &[i64]) {
    const SHADES: [char; 5] = [' ', '.', 'o', 'O', '@'];
    let count = images.len() / 64;
    for row in 0..8 {
        for image in 0..count {
            let pixels = &images[image * 64 + row * 8..][..8];
            let shade = |pixel: &f32| SHADES[((pixel * 4.).round() as usize).min(4)];
            print!("{}  ", pixels.iter().map(|pixel| String::from(shade(pixel)).repeat(2)).collect::<String>());
        }
        println!();
    }
    let names: String = read.iter().take(count).map(|digit| format!("{digit:^18}")).collect();
    println!("{}\n", names.trim_end());
}
