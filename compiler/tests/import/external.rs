//! Constants in files beside the model: read where they fit, refused where they are missing, short, or elsewhere.

use super::models::{encode, floats, graph, model, node};
use std::{fs, path::Path};
use strang_compiler::import::onnx::{
    ImportOptions, load, load_bytes,
    proto::{ModelProto, StringStringEntryProto, TensorProto},
};

/// A model with one constant of `count` floats that lies in another file.
fn stored(count: i64, entries: &[(&str, &str)]) -> ModelProto {
    let entry = |(key, value): &(&str, &str)| StringStringEntryProto { key: (*key).into(), value: (*value).into() };
    let constant = TensorProto {
        external_data: entries.iter().map(entry).collect(),
        data_location: 1,
        ..floats("w", &[count], &[])
    };
    model(graph(&[], &[constant], &[node("Neg", "w", "y", &[])]), 18)
}

fn import(folder: &Path, model: &ModelProto) -> Result<Vec<f32>, String> {
    let path = folder.join("model.onnx");
    fs::write(&path, encode(model)).unwrap();
    let module = load(&path, &ImportOptions::default()).map_err(|error| error.to_string())?;
    let data = module.parameters[0].data.as_ref().ok_or("no data")?;
    data.to_vec::<f32>().map_err(|error| error.to_string())
}

#[test]
fn data_is_read_where_it_lies() {
    let folder = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..4000).flat_map(|value| (value as f32).to_le_bytes()).collect();
    fs::create_dir(folder.path().join("weights")).unwrap();
    fs::write(folder.path().join("weights/w.bin"), &bytes).unwrap();
    let all = import(folder.path(), &stored(4000, &[("location", "weights/w.bin")])).unwrap();
    assert_eq!(all[3999], 3999.);
    // A length may be left out, and an offset need not be aligned to anything.
    let place = [("location", "./weights/w.bin"), ("offset", "8"), ("length", "12")];
    assert_eq!(import(folder.path(), &stored(3, &place)).unwrap(), [2., 3., 4.]);
    let unaligned = [0u8].iter().chain(&bytes).copied().collect::<Vec<u8>>();
    fs::write(folder.path().join("odd.bin"), unaligned).unwrap();
    let place = [("location", "odd.bin"), ("offset", "1")];
    assert_eq!(import(folder.path(), &stored(4000, &place)).unwrap()[1234], 1234.);
}

#[test]
fn data_elsewhere_is_refused() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("model");
    fs::create_dir(&folder).unwrap();
    fs::write(outer.path().join("secret.bin"), [0; 16]).unwrap();
    fs::write(folder.join("short.bin"), [0; 8]).unwrap();
    let refused = |entries: &[(&str, &str)], reason: &str| {
        let error = import(&folder, &stored(4, entries)).unwrap_err();
        assert!(error.contains(reason) && error.contains("`w`"), "{entries:?}: {error}");
    };
    let absolute = outer.path().join("secret.bin").display().to_string();
    refused(&[("location", "../secret.bin")], "outside");
    refused(&[("location", "a/../../secret.bin")], "outside");
    refused(&[("location", &absolute)], "outside");
    refused(&[("location", "missing.bin")], "missing.bin");
    refused(&[("location", ".")], "cannot read");
    refused(&[("location", "")], "cannot read");
    refused(&[], "location");
    refused(&[("location", "short.bin")], "outside `short.bin`");
    refused(&[("location", "short.bin"), ("offset", "9")], "outside `short.bin`");
    refused(&[("location", "short.bin"), ("offset", "18446744073709551615")], "outside `short.bin`");
    refused(&[("location", "short.bin"), ("offset", "-1")], "offset");
    refused(&[("location", "short.bin"), ("length", "4")], "16 bytes");
    refused(&[("location", "short.bin"), ("length", "many")], "length");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(outer.path().join("secret.bin"), folder.join("link.bin")).unwrap();
        refused(&[("location", "link.bin")], "outside");
    }
    let in_memory = encode(&stored(4, &[("location", "short.bin")]));
    let error = load_bytes(&in_memory, None, &ImportOptions::default()).unwrap_err().to_string();
    assert!(error.contains("without a folder"), "{error}");
}

#[test]
fn sizes_too_large_for_memory_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("w.bin"), [0; 8]).unwrap();
    for count in [i64::MAX, 1 << 62, 1 << 40] {
        let error = import(folder.path(), &stored(count, &[("location", "w.bin")])).unwrap_err();
        assert!(error.contains("`w`"), "{error}");
    }
    let product = TensorProto { dims: vec![1 << 32, 1 << 32], ..floats("w", &[], &[]) };
    let model = model(graph(&[], &[product], &[node("Neg", "w", "y", &[])]), 18);
    assert!(import(folder.path(), &model).is_err());
}
