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

/// A circuit of this text must be refused, for this reason.
fn refuses(text: &str, reason: &str) {
    let outcome = load("ncd", text.as_bytes()).and_then(|module| Compiler::new().compile(module).map(drop));
    let error = outcome.err().unwrap_or_else(|| panic!("compiled:\n{text}")).to_string();
    assert!(error.contains(reason), "{error}\ninstead of `{reason}` for\n{text}");
}

#[test]
fn sizes_beyond_all_memory_are_refused() {
    let refuses = |axes: &str, result: &str, body: &str, reason: &str| {
        let head = format!("ncd 0.1 \"huge\"\naxis a = 3   {axes}\nfn @f(%x: f32[a]) -> f32[{result}]");
        refuses(&format!("{head} {{\n  {body}\n  return %y\n}}\n"), reason);
    };
    let huge = "axis h = 1099511627776   axis k = 1099511627776   axis l = 9223372036854775807";
    for (result, body) in [
        ("h, k", "%y = view %x[0] -> [h, k]"),
        ("l", "%y = view %x[0] -> [l]"),
        ("l, a", "%y = map exp : %x[a] -> [l, a]"),
        ("a", "%z = view %x[a] -> [a, h, k]\n  %y = reduce product : %z[a, {h}, {k}] -> [a]"),
        ("a", "%z = view %x[0] -> [h, k]\n  %y = dot %x[a], %z[{h}, {k}] -> [a]"),
        ("l", "%z = view %x[0] -> [l]\n  %y = softmax %z[{l}] -> [{l}]"),
    ] {
        refuses(huge, result, body, "more than 2^56 positions");
    }
    for (size, reason) in [
        ("99999999999999999999999", "expected a whole number"),
        ("-1", "axis h has size -1"),
        ("1.5", "expected a whole number"),
        ("h", "is neither an axis nor a symbol"),
        ("1 / 0", "divides by 0, which is not positive"),
    ] {
        refuses(&format!("axis h = {size}"), "h", "%y = view %x[0] -> [h]", reason);
    }
}

#[test]
fn circles_and_references_to_nothing_are_refused() {
    for (body, reason) in [
        ("%y = map relu : %y[a] -> [a]\n  return %y", "`%y` is not defined above"),
        ("%y = map relu : %z[a] -> [a]\n  %z = map relu : %y[a] -> [a]\n  return %z", "`%z` is not defined above"),
        ("%y = map relu : %nothing[a] -> [a]\n  return %y", "`%nothing` is not defined above"),
        ("%y = map relu : @nothing[a] -> [a]\n  return %y", "there is no parameter `@nothing`"),
        ("%y = map relu : %x[nothing] -> [a]\n  return %y", "the axis `nothing` is not declared"),
        ("return %nothing", "`%nothing` is not defined above"),
        ("%x = map relu : %x[a] -> [a]\n  return %x", "`%x` is defined twice"),
    ] {
        refuses(&format!("ncd 0.1 \"m\"\naxis a = 3\nfn @f(%x: f32[a]) -> f32[a] {{\n  {body}\n}}\n"), reason);
    }
}

#[test]
fn changed_json_is_refused_or_still_a_circuit() {
    let ncd = std::fs::read_to_string(example("circuits/mlp.ncd")).unwrap();
    let json = ir::json::print(&ir::text::parse(&ncd, "mlp.ncd").unwrap());
    assert!(load("json", json.as_bytes()).is_ok());
    let changed = changes(&serde_json::from_str(&json).unwrap());
    let mut refused = 0;
    for value in &changed {
        match load("json", value.to_string().as_bytes()) {
            Ok(module) => assert!(ir::verify::verify(&module).is_ok(), "{value}"),
            Err(_) => refused += 1,
        }
    }
    assert!(2 * refused > changed.len(), "only {refused} of {} are refused", changed.len());
}

/// A JSON value with each of its parts in turn made something else: a number of the wrong size, a reference too far, a
/// value of another type, or nothing.
fn changes(value: &serde_json::Value) -> Vec<serde_json::Value> {
    use serde_json::{Value, json};
    let mut changed =
        vec![json!(null), json!(-1), json!(1u64 << 40), json!(u64::MAX), json!("x"), json!([]), json!({})];
    match value {
        Value::Array(items) => {
            for (place, item) in items.iter().enumerate() {
                changed.extend(changes(item).into_iter().map(|item| {
                    let mut items = items.clone();
                    items[place] = item;
                    Value::Array(items)
                }));
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                changed.extend(changes(field).into_iter().map(|field| {
                    let mut fields = fields.clone();
                    fields.insert(name.clone(), field);
                    Value::Object(fields)
                }));
            }
        }
        _ => {}
    }
    changed
}

#[test]
fn weights_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mlp.ncd");
    std::fs::copy(example("circuits/mlp.ncd"), &path).unwrap();
    let header = |text: &str, data: usize| {
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    };
    let w1 = r#"{"w1":{"dtype":"F32","shape":[64,32],"data_offsets":[0,8192]}}"#;
    for (weights, reason) in [
        (Vec::new(), "header too small"),
        (u64::MAX.to_le_bytes().to_vec(), "header too large"),
        (header("{}", 0), "`w1` is not in the file"),
        (header("{", 0), "invalid JSON in header"),
        (header(w1, 8191), "not a safetensors file"),
        (header(w1, 8192), "`b1` is not in the file"),
        (header(&w1.replace("F32", "F64").replace("8192", "16384"), 16384), "`w1` is f32"),
        (header(&w1.replace("64,32", "32,64"), 8192), "`w1` is f32"),
        (header(&w1.replace("8192", "18446744073709551615"), 8192), "not a safetensors file"),
        (header(&w1.replace("64,32", "4611686018427387904,4"), 8192), "not a safetensors file"),
    ] {
        std::fs::write(folder.path().join("mlp.safetensors"), weights).unwrap();
        let error = Compiler::new().compile_file(&path).err().expect("no weights fit").to_string();
        assert!(error.contains(reason), "{error}\ninstead of `{reason}`");
    }
}
