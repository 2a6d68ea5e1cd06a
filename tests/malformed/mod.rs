//! Files that are no models: each is refused with a message, and none panics.

use proptest::prelude::*;
use std::path::{Path, PathBuf};
use strang::{CompileError, Compiler, ir};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

/// What becomes of a file of these bytes.
fn load(extension: &str, bytes: &[u8]) -> Result<ir::Module, CompileError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model").with_extension(extension);
    std::fs::write(&path, bytes).unwrap();
    let outcome = Compiler::new().load(&path);
    if let Err(error) = &outcome {
        assert!(!error.to_string().is_empty());
    }
    outcome
}

#[test]
fn files_that_are_cut_off_are_refused() {
    let onnx = std::fs::read(example("digits/digits.onnx")).unwrap();
    assert!(load("onnx", &onnx).is_ok());
    for part in 0..40 {
        assert!(load("onnx", &onnx[..onnx.len() * part / 40]).is_err(), "{part} of 40 parts are a model");
    }
    let ncd = std::fs::read_to_string(example("circuits/mlp.ncd")).unwrap();
    let json = ir::json::print(&ir::text::parse(&ncd, "mlp.ncd").unwrap());
    for part in 1..40 {
        assert!(load("ncd", &ncd.as_bytes()[..ncd.len() * part / 40]).is_err());
        assert!(load("json", &json.as_bytes()[..json.len() * part / 40]).is_err());
    }
}

#[test]
fn files_of_another_kind_are_refused() {
    let onnx = std::fs::read(example("digits/digits.onnx")).unwrap();
    let ncd = std::fs::read(example("circuits/mlp.ncd")).unwrap();
    for bytes in [&b""[..], b"\0", b"null", b"\xff\xfe\xfd", &onnx] {
        assert!(load("ncd", bytes).is_err());
        assert!(load("json", bytes).is_err());
    }
    assert!(load("onnx", &ncd).is_err());
    assert!(load("json", &ncd).is_err());
    assert!(load("txt", &ncd).unwrap_err().to_string().contains(".onnx, .ncd or .json"));
    assert!(Compiler::new().load("no/such/file.onnx").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn changed_onnx_files_do_no_harm(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = std::fs::read(example("digits/digits.onnx")).unwrap();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Ok(module) = load("onnx", &bytes) {
            prop_assert!(ir::verify::verify(&module).is_ok());
        }
    }
}
