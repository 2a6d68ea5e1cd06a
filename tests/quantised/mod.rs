//! Weights of few bits in a trained model: the digit classifier.

use std::path::Path;
use strang::{
    Compiler,
    compiler::{
        plan::kernel::{Body, PlanStep, RightOperand},
        quantise::{Granularity, Scheme, Splitting, quantise},
    },
    ir::Module,
    npy,
};

fn load(example: &str) -> Module {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(example);
    Compiler::new().load(folder.join(format!("{example}.onnx"))).unwrap()
}

fn digits() -> Module {
    load("digits")
}

/// How many held-out inputs of an example are read right, and how many there are, with weights of a scheme.
fn right(example: &str, bits: u32, splitting: Splitting) -> (usize, usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(example);
    let inputs = npy::read(&folder.join("inputs/input_0.npy"), None).unwrap();
    let labels = npy::read(&folder.join("labels.npy"), None).unwrap().to_vec::<i64>().unwrap();
    let scheme = Scheme { bits, affine: false, granularity: Granularity::Tensor, splitting };
    let (quantised, layers) = quantise(&load(example), &scheme).unwrap();
    assert!(layers.len() > 12);
    let outputs = Compiler::new().compile(quantised).unwrap().executable.run(&[inputs]).unwrap();
    let logits = outputs[0].as_slice::<f32>().unwrap();
    let classes = logits.len() / labels.len();
    let best = |row: &[f32]| (0..classes).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap() as i64;
    let found = logits.chunks(classes).map(best).zip(&labels).filter(|(read, label)| read == *label).count();
    (found, labels.len())
}

#[test]
fn a_split_recovers_what_two_bits_lose() {
    for example in ["digits", "emotions"] {
        let [plain, split] = [Splitting::Whole, Splitting::Joined].map(|splitting| right(example, 2, splitting));
        assert!(4 * plain.0 < 3 * plain.1, "{example}: {plain:?}");
        assert!(20 * split.0 > 19 * split.1, "{example}: {split:?}");
        let eight = right(example, 8, Splitting::Whole);
        assert!(100 * eight.0 > 98 * eight.1, "{example}: {eight:?}");
    }
    assert_eq!(right("digits", 2, Splitting::Layers), right("digits", 2, Splitting::Joined));
}

/// How many products of a compiled circuit read codes, and how many there are.
fn products(compiler: &Compiler, module: Module) -> (usize, usize) {
    let plan = compiler.plan(module).unwrap().plan;
    let gemms: Vec<_> = plan
        .body
        .iter()
        .filter_map(|step| match step {
            PlanStep::Kernel(kernel) => match &kernel.body {
                Body::Gemm(gemm) => Some(gemm),
                _ => None,
            },
            _ => None,
        })
        .collect();
    (gemms.iter().filter(|gemm| matches!(gemm.b, RightOperand::Coded { .. })).count(), gemms.len())
}

#[test]
fn three_layers_become_one_that_reads_codes() {
    for granularity in [Granularity::Tensor, Granularity::Channel] {
        let form =
            |splitting| quantise(&digits(), &Scheme { bits: 2, affine: false, granularity, splitting }).unwrap().0;
        let joined = products(&Compiler::new(), form(Splitting::Joined));
        let layers = products(&Compiler::new(), form(Splitting::Layers));
        // All but the patches and the classes, which have fewer weights.
        assert!(joined.0 + 2 >= joined.1 && joined.0 > 12, "{joined:?} by {granularity:?}");
        assert!(layers.0 + 2 >= layers.1 && layers.0 > 12 && layers.1 <= 26, "{layers:?} by {granularity:?}");
    }
    let rules = ["sum-of-products-of-one-input", "sum-of-two-products", "merge-parallel-products"];
    let apart = rules.iter().fold(Compiler::new(), |compiler, rule| compiler.without(*rule));
    let scheme = Scheme { bits: 2, affine: false, granularity: Granularity::Tensor, splitting: Splitting::Layers };
    assert!(products(&apart, quantise(&digits(), &scheme).unwrap().0).1 >= 70);
}

#[test]
fn rules_that_are_left_out_exist() {
    let refused = Compiler::new().without("sum-of-everything").plan(digits()).err().unwrap();
    assert_eq!(refused.to_string(), "there is no rule `sum-of-everything`; `strang rules` lists them");
}

/// A convolution whose weights are few numbers keeps them: transformed for Winograd's algebra, they would be many.
#[test]
fn convolutions_with_few_numbers_read_codes() {
    let circuit = "ncd 0.1 \"codes\"
axis c = 64   axis m = 64   axis k = 3   axis h = 56   axis w = 56
param @w: f32[c, m, k, k]
fn @codes(%x: f32[m, h, w]) -> f32[c, h, w] {
  %y = dot order=(k, k', m) : %x[{m}, h + {k} - 1, w + {k'} - 1] else 0.0, @w[c, {m}, {k}, {k'}] -> [c, h, w]
  return %y
}
";
    let coded = |numbers: u64| {
        let mut module = strang::ir::text::parse_verified(circuit, "codes").unwrap().0;
        let values: Vec<f32> = (0..64 * 64 * 9u64).map(|place| (place * place % numbers) as f32 * 0.37 - 1.).collect();
        module.parameters[0].data = Some(strang::ir::Tensor::from_slice(&[64, 64, 3, 3], &values).unwrap());
        products(&Compiler::new(), module)
    };
    assert_eq!(coded(11), (1, 1));
    assert_eq!(coded(65_537).0, 0);
}
