//! Weights of few bits in a trained model: the digit classifier.

use std::path::Path;
use strang::{
    Compiler,
    compiler::quantise::{Granularity, Scheme, quantise},
    npy,
};

/// How many of the 360 held-out images are read right with weights of a scheme.
fn right(bits: u32, split: bool) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits");
    let module = Compiler::new().load(folder.join("digits.onnx")).unwrap();
    let images = npy::read(&folder.join("inputs/input_0.npy"), None).unwrap();
    let labels = npy::read(&folder.join("labels.npy"), None).unwrap().to_vec::<i64>().unwrap();
    let scheme = Scheme { bits, affine: false, granularity: Granularity::Tensor, split };
    let (quantised, layers) = quantise(&module, &scheme).unwrap();
    assert_eq!(layers.len(), 25);
    let outputs = Compiler::new().compile(quantised).unwrap().executable.run(&[images]).unwrap();
    let logits = outputs[0].as_slice::<f32>().unwrap();
    let best = |row: &[f32]| (0..10).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap() as i64;
    logits.chunks(10).map(best).zip(labels).filter(|(read, label)| read == label).count()
}

#[test]
fn a_split_recovers_what_two_bits_lose() {
    let (plain, split) = (right(2, false), right(2, true));
    assert!(plain < 180, "{plain}");
    assert!(split > 340, "{split}");
    assert!(right(8, false) > 350);
}
