//! Import of model files: whole models, and files that are broken.

mod broken;
mod external;
mod models;
mod products;
mod quantised;

use proptest::prelude::*;
use prost::Message;
use std::{fs, path::PathBuf};
use strang_compiler::import::onnx::{ImportOptions, load, load_bytes};
use strang_ir::{
    Module, Op, Tensor,
    interpret::{Arithmetic, interpret},
};

fn digits() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/digits/digits.onnx")
}

fn count(module: &Module, wanted: fn(&Op) -> bool) -> usize {
    module.functions.iter().flat_map(|function| function.graph.node_weights()).filter(|node| wanted(&node.op)).count()
}

#[test]
fn digits_imports() {
    let module = load(&digits(), &ImportOptions::default()).unwrap();
    let entry = module.entry();
    assert_eq!(entry.inputs.len(), 1);
    assert_eq!(entry.outputs.len(), 1);
    assert!(count(&module, |op| matches!(op, Op::Dot { .. })) > 30);
    assert_eq!(entry.order().len(), entry.graph.node_count(), "the graph is acyclic");
}

/// The benchmark models, where `STRANG_BENCH_DIR` says that they have been written out.
#[test]
fn bench_models_import() {
    let Some(folder) = std::env::var_os("STRANG_BENCH_DIR") else { return };
    let mut failures = Vec::new();
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "onnx")) {
        let start = std::time::Instant::now();
        match load(&path, &ImportOptions::default()) {
            Ok(module) => println!(
                "{}: {} nodes, {} parameters ({} mapped), {:?}",
                path.display(),
                module.functions.iter().map(|function| function.graph.node_count()).sum::<usize>(),
                module.parameters.len(),
                module.parameters.iter().filter(|p| p.data.as_ref().is_some_and(|data| data.is_mapped())).count(),
                start.elapsed()
            ),
            Err(error) => failures.push(format!("{}: {error}", path.display())),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn what_is_no_model_is_refused() {
    let refused = |bytes: &[u8]| load_bytes(bytes, None, &ImportOptions::default()).unwrap_err().to_string();
    assert!(refused(b"").contains("no graph"));
    assert!(refused(b"not a model at all").contains("not an ONNX model"));
    let missing = load(&PathBuf::from("missing.onnx"), &ImportOptions::default()).unwrap_err().to_string();
    assert!(missing.contains("missing.onnx"), "{missing}");
}

/// A model in memory with the structure of the digits model but few weights, so that changes of bytes often meet it.
fn structure() -> Vec<u8> {
    let bytes = fs::read(digits()).unwrap();
    assert!(bytes.len() > 1000);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Broken files give errors or models that the verifier judges, and never end the process.
    #[test]
    fn broken_files_are_errors(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        end in any::<prop::sample::Index>(),
        cut in any::<bool>(),
        near_the_structure in any::<bool>(),
    ) {
        let mut bytes = structure();
        // Most bytes are weights; the nodes come first in the file.
        let range = if near_the_structure { bytes.len().min(20_000) } else { bytes.len() };
        for (place, value) in changes {
            let place = place.index(range);
            bytes[place] = value;
        }
        if cut {
            bytes.truncate(end.index(range) + 1);
        }
        if let Ok(module) = load_bytes(&bytes, None, &ImportOptions::default()) {
            let _ = strang_ir::verify::verify(&module);
        }
    }
}

#[test]
fn dimensions_can_be_fixed() {
    let options = ImportOptions { dimensions: [("nonsense".into(), 3)].into(), ..Default::default() };
    let error = load(&digits(), &options).unwrap_err().to_string();
    assert!(error.contains("no dimension `nonsense`"), "{error}");
}

/// Remainders of numbers that are known when a model is read have the sign that the model asks for.
#[test]
fn remainders_of_constants_follow_their_attribute() {
    for (attributes, wanted) in [(vec![], 2.), (vec![models::int("fmod", 0)], 2.), (vec![models::int("fmod", 1)], -1.)]
    {
        let constants = [models::integers("a", &[-7]), models::integers("b", &[3])];
        let remainder = models::node("Mod", "a b", "r", &attributes);
        let cast = models::node("Cast", "r", "f", &[models::int("to", 1)]);
        let sum = models::node("Add", "x f", "y", &[]);
        let graph = models::graph(&[models::port("x", models::FLOAT, &[1])], &constants, &[remainder, cast, sum]);
        let bytes = models::model(graph, 18).encode_to_vec();
        let module = load_bytes(&bytes, None, &ImportOptions::default()).unwrap();
        let x = Tensor::from_slice(&[1], &[0f32]).unwrap();
        let result = interpret(&module, &[x], Arithmetic::Typed).unwrap();
        assert_eq!(result[0].to_f64(), [wanted]);
    }
}
