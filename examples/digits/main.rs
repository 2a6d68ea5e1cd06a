//! Compiles the digit classifier beside this file, reads the held-out images and says how many it gets right. Then it compiles it
//! again with an error budget of 1 %, chosen on three quarters of these images, and reads the last quarter with both.
//!
//! ```text
//! cargo run --release --example digits
//! ```

use std::{error::Error, path::Path, time::Instant};
use strang::{
    Compiler, Tensor,
    budget::{Budget, Calibration},
    npy,
};

/// What the results may differ by, relative to the largest.
const MAX_ERROR: f64 = 0.01;
/// How often the images are read to tell how long it takes.
const ROUNDS: usize = 41;

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

    let read = classes(&outputs[0], labels.len())?;
    show(&inputs[0].as_slice::<f32>()?[..64 * 5], &read);
    let right = read.iter().zip(&labels).filter(|(read, label)| read == label).count();
    println!(
        "{right} of {} held-out images are read right ({:.2} %), all of them in {:.2} ms",
        labels.len(),
        100. * right as f64 / labels.len() as f64,
        1e3 * elapsed.as_secs_f64()
    );

    let count = labels.len() - labels.len() / 4;
    let [fitting, held_out] = [(0, count), (count, labels.len())].map(|(from, to)| {
        let pixels = &inputs[0].as_slice::<f32>()?[64 * from..64 * to];
        Ok::<_, Box<dyn Error>>(Tensor::from_slice(&[to - from, 1, 8, 8], pixels)?)
    });
    let [fitting, held_out] = [vec![fitting?], vec![held_out?]];
    let calibration = Calibration { fitting: vec![fitting], held_out: vec![held_out.clone()] };
    let budget = Budget { max_error: MAX_ERROR, calibration };
    let budgeted = Compiler::new().budget(budget).compile_file(folder.join("digits.onnx"))?;
    if let Some(report) = &budgeted.receipt.budget {
        print!("\n{report}");
    }
    for (name, model) in [("exact", &model), ("within 1 %", &budgeted)] {
        let outputs = model.executable.run(&held_out)?;
        let read = classes(&outputs[0], labels.len() - count)?;
        let right = read.iter().zip(&labels[count..]).filter(|(read, label)| read == label).count();
        println!("{name}: {right} of {} images that had no part in the choice are read right", labels.len() - count);
    }
    // By turns, so that what else the machine does meets both alike.
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (model, times) in [&model, &budgeted].into_iter().zip(&mut times) {
            let start = Instant::now();
            model.executable.run(&inputs)?;
            times.push(start.elapsed().as_secs_f64());
        }
    }
    let [exact, within] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        1e3 * times[ROUNDS / 2]
    });
    println!("all images: {exact:.2} ms exact, {within:.2} ms within 1 %, {:.2} times as fast", exact / within);
    Ok(())
}

/// The class of every image.
fn classes(logits: &Tensor, images: usize) -> Result<Vec<i64>, Box<dyn Error>> {
    let logits = logits.as_slice::<f32>()?;
    let classes = logits.len() / images;
    let best = |row: &[f32]| (0..classes).max_by(|a, b| row[*a].total_cmp(&row[*b]));
    Ok(logits.chunks(classes).filter_map(best).map(|class| class as i64).collect())
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
