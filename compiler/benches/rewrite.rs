//! How long rewriting takes for models of equal layers: `cargo bench -p strang-compiler --bench rewrite`.

#[path = "../tests/rewrite/encoder.rs"]
mod encoder;

use encoder::encoder;
use std::time::Instant;
use strang_compiler::rewrite::{RewriteOptions, rewrite};

fn main() {
    // With few features, products cost less than almost anything else, and most rules apply.
    let sizes = [(2, 4), (4, 32)].into_iter();
    for (layers, sizes) in sizes.flat_map(|sizes| [6, 24, 96].map(|layers| (layers, sizes))) {
        let module = encoder(layers, sizes);
        let time = || {
            let start = Instant::now();
            let done = rewrite(&module, &RewriteOptions::default());
            (start.elapsed().as_secs_f64(), done.map(|(_, receipt)| receipt.searched).unwrap_or_default())
        };
        let (shortest, searched) =
            (0..5).map(|_| time()).fold((f64::MAX, 0), |(least, _), (next, count)| (least.min(next), count));
        println!(
            "{layers:3} layers of {} features: {:.2} ms, {searched} kinds of windows searched",
            sizes.0 * sizes.1,
            1e3 * shortest
        );
    }
}
