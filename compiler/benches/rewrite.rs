//! How long rewriting takes for models of equal layers: `cargo bench -p strang-compiler --bench rewrite`.

#[path = "../tests/rewrite/encoder.rs"]
mod encoder;

use encoder::encoder;
use std::time::Instant;
use strang_compiler::rewrite::{RewriteOptions, rewrite};

fn main() {
    for layers in [6, 24, 96] {
        let module = encoder(layers);
        let time = || {
            let start = Instant::now();
            let done = rewrite(&module, &RewriteOptions::default());
            (start.elapsed().as_secs_f64(), done.map(|(_, receipt)| receipt.searched).unwrap_or_default())
        };
        let (shortest, searched) =
            (0..20).map(|_| time()).fold((f64::MAX, 0), |(least, _), (next, count)| (least.min(next), count));
        println!("{layers:3} layers: {:.2} ms, {searched} kinds of windows searched", 1e3 * shortest);
    }
}
