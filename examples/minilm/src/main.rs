//! Says how alike sentences are, with all-MiniLM-L6-v2 compiled by Strang.
//!
//! ```text
//! cargo run --release                                  three sentences, compared with each other
//! cargo run --release -- "a query" "a text" "another"  texts by their likeness to the first
//! cargo run --release -- --check                       the same figures as another implementation gives?
//! ```

use std::{
    error::Error,
    path::{Path, PathBuf},
    time::Instant,
};
use strang::{Compiler, Executable, Tensor, compiler::import::safetensors};
use tokenizers::{PaddingParams, Tokenizer, TruncationParams};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Sentences to unit vectors.
struct Embedder {
    tokenizer: Tokenizer,
    model: Executable,
}

impl Embedder {
    /// Compiles `minilm.ncd` with the weights that `fetch_weights.py` obtained.
    fn load() -> Result<Embedder> {
        let (folder, weights) = (folder(), folder().join("weights"));
        if !weights.join("model.safetensors").is_file() {
            return Err("there are no weights yet; obtain them with: python3 fetch_weights.py".into());
        }
        let mut tokenizer = Tokenizer::from_file(weights.join("tokenizer.json"))?;
        // The file pads every sentence to 128 tokens; the longest one is enough.
        tokenizer.with_padding(Some(PaddingParams::default()));
        tokenizer.with_truncation(Some(TruncationParams { max_length: 256, ..Default::default() }))?;

        let compiler = Compiler::new();
        let mut circuit = compiler.load(folder.join("minilm.ncd"))?;
        safetensors::attach(&mut circuit, &weights.join("model.safetensors"))?;
        Ok(Embedder { tokenizer, model: compiler.compile(circuit)?.executable })
    }

    /// One vector a sentence, and the tokens that it was read as.
    fn embed(&self, sentences: &[String]) -> Result<(Vec<Vec<f32>>, Vec<Vec<u32>>)> {
        let encoded = self.tokenizer.encode_batch(sentences.to_vec(), true)?;
        let length = encoded.first().map_or(0, |encoding| encoding.get_ids().len());
        let tensor = |numbers: Vec<i64>| Tensor::from_slice(&[encoded.len(), length], &numbers);
        let ids = tensor(encoded.iter().flat_map(|e| e.get_ids()).map(|id| i64::from(*id)).collect())?;
        let mask = tensor(encoded.iter().flat_map(|e| e.get_attention_mask()).map(|bit| i64::from(*bit)).collect())?;
        let outputs = self.model.run(&[ids, mask])?;
        let width = outputs[0].shape()[1];
        let vectors = outputs[0].as_slice::<f32>()?.chunks(width).map(<[f32]>::to_vec).collect();
        let tokens = encoded.iter().map(|e| {
            let words = e.get_ids().iter().zip(e.get_attention_mask()).filter(|(_, mask)| **mask == 1);
            words.map(|(id, _)| *id).collect()
        });
        Ok((vectors, tokens.collect()))
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// The cosine of the angle between two unit vectors.
fn likeness(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let start = Instant::now();
    let embedder = Embedder::load()?;
    println!("compiled minilm.ncd in {:.0} ms", 1e3 * start.elapsed().as_secs_f64());
    if arguments == ["--check"] {
        return check(&embedder);
    }
    let sentences = if arguments.is_empty() { reference()?.sentences } else { arguments };
    let start = Instant::now();
    let (vectors, _) = embedder.embed(&sentences)?;
    println!(
        "read {} sentences in {:.1} ms; their likeness to the first:",
        sentences.len(),
        1e3 * start.elapsed().as_secs_f64()
    );
    let mut order: Vec<usize> = (0..sentences.len()).collect();
    order.sort_by(|a, b| likeness(&vectors[0], &vectors[*b]).total_cmp(&likeness(&vectors[0], &vectors[*a])));
    for place in order {
        println!("  {:>6.3}  {}", likeness(&vectors[0], &vectors[place]), sentences[place]);
    }
    Ok(())
}

/// What `make_reference.py` recorded of another implementation.
struct Reference {
    sentences: Vec<String>,
    tokens: Vec<Vec<u32>>,
    first_values: Vec<Vec<f64>>,
    likeness: Vec<Vec<f64>>,
}

fn reference() -> Result<Reference> {
    let text = std::fs::read_to_string(folder().join("reference.json"))?;
    let mut recorded: serde_json::Value = serde_json::from_str(&text)?;
    Ok(Reference {
        sentences: serde_json::from_value(recorded["sentences"].take())?,
        tokens: serde_json::from_value(recorded["token_ids"].take())?,
        first_values: serde_json::from_value(recorded["first_8_values"].take())?,
        likeness: serde_json::from_value(recorded["cosine_similarity"].take())?,
    })
}

/// Compares tokens, vectors and likeness with the recorded ones.
fn check(embedder: &Embedder) -> Result<()> {
    /// Single precision rounds to about 1e-7 of numbers below 1, a few layers over.
    const TOLERANCE: f64 = 1e-5;
    let reference = reference()?;
    let (vectors, tokens) = embedder.embed(&reference.sentences)?;
    if tokens != reference.tokens {
        return Err(format!("the tokens are {tokens:?}, not {:?}", reference.tokens).into());
    }
    let mut worst = 0f64;
    for (row, vector) in vectors.iter().enumerate() {
        for (got, want) in vector.iter().zip(&reference.first_values[row]) {
            worst = worst.max((f64::from(*got) - want).abs());
        }
        for (other, want) in vectors.iter().zip(&reference.likeness[row]) {
            worst = worst.max((f64::from(likeness(vector, other)) - want).abs());
        }
    }
    println!("tokens are the same; vectors and likeness differ by at most {worst:.1e}");
    if worst > TOLERANCE { Err(format!("that is more than {TOLERANCE:.0e}").into()) } else { Ok(()) }
}
