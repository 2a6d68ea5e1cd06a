//! The program as its users call it.

use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};
use strang::{Tensor, npy};
use tempfile::TempDir;

const CIRCUIT: &str = "ncd 0.1 \"scores\"\naxis b   axis c = 6\nparam @w: f32[c] = [1, 2, 3, 4, 5, 6]\n\
    fn @scores(%x: f32[b, c]) -> (scores: f32[b, c]) {\n  %y = map mul : %x[b, c], @w[c] -> [b, c]\n  return %y\n}\n";

/// A folder with a circuit in it.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("scores.ncd"), CIRCUIT).unwrap();
    folder
}

fn strang(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strang"));
    command.args(arguments).current_dir(folder).env("NO_COLOR", "1").output().unwrap()
}

/// What the program prints; it must succeed.
fn prints(folder: &Path, arguments: &[&str]) -> String {
    let output = strang(folder, arguments);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?} fails: {err}");
    out.into_owned()
}

/// What the program says when it fails, in one line; it must fail in an orderly way.
fn fails(folder: &Path, arguments: &[&str]) -> String {
    let output = strang(folder, arguments);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code().filter(|code| matches!(code, 1 | 2)).map(|_| ()), Some(()), "{arguments:?}: {err}");
    assert!(!err.contains("panicked"), "{err}");
    let lines = err.lines().map(|line| line.trim_matches(|c: char| c.is_whitespace() || "│|×".contains(c)));
    lines.collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no `{part}` in:\n{text}");
    }
}

#[test]
fn help_teaches() {
    let folder = folder();
    assert_has(
        &prints(folder.path(), &["--help"]),
        &["run", "compile", "show", "check", "bench", "explain", "bisect", "diff", "cut", "quantise", "Start here:"],
    );
    for command in ["run", "compile", "show", "check", "bench", "explain", "bisect", "cut"] {
        assert_has(&prints(folder.path(), &[command, "--help"]), &["Example", "strang ", "MODEL", "--dim"]);
    }
}

#[test]
fn run_says_which_inputs_it_needs() {
    let folder = folder();
    let said = fails(folder.path(), &["run", "scores.ncd"]);
    assert_has(&said, &["x: f32[b, 6]", "--inputs DIR", "--random 0 --dim b=SIZE"]);
    let said = fails(folder.path(), &["run", "scores.ncd", "--random", "0"]);
    assert_has(&said, &["`x`", "`b`", "--dim b=SIZE"]);
    let said = fails(folder.path(), &["run", "scores.ncd", "--random", "0", "--dim", "q=2"]);
    assert_has(&said, &["no symbol `q`", "b"]);
    let said = fails(folder.path(), &["run", "scores.ncd", "--input", "z=z.npy"]);
    assert_has(&said, &["no input `z`", "x"]);
    let said = fails(folder.path(), &["run", "scores.ncd", "--inputs", "nowhere"]);
    assert_has(&said, &["input_0.npy", "`x`"]);
}

#[test]
fn run_prints_a_summary() {
    let folder = folder();
    npy::write(&folder.path().join("x.npy"), &Tensor::from_slice(&[1, 6], &[1f32, 1., 1., 1., 0., -1.]).unwrap())
        .unwrap();
    let printed = prints(folder.path(), &["run", "scores.ncd", "--input", "x=x.npy"]);
    assert_has(&printed, &["scores: f32[1, 6]", "from -6 to 4", "top five  3: 4  2: 3  1: 2  0: 1  4: 0"]);
    let twice = prints(folder.path(), &["run", "scores.ncd", "--random", "7", "--dim", "b=2"]);
    assert_has(&twice, &["scores: f32[2, 6]", "first values"]);
    assert_eq!(twice, prints(folder.path(), &["run", "scores.ncd", "--random", "7", "--dim", "b=2", "--threads", "1"]));
    let profile = strang(folder.path(), &["run", "scores.ncd", "--random", "7", "--dim", "b=2", "--profile"]);
    assert!(profile.status.success() && !profile.stderr.is_empty());
}

#[test]
fn run_reads_and_writes_folders() {
    let folder = folder();
    let (inputs, outputs) = (folder.path().join("in"), folder.path().join("out"));
    fs::create_dir(&inputs).unwrap();
    let input = Tensor::from_slice(&[2, 6], &[1f32; 12]).unwrap();
    npy::write(&inputs.join("input_0.npy"), &input).unwrap();
    let printed = prints(folder.path(), &["run", "scores.ncd", "--inputs", "in", "--outputs", "out"]);
    assert!(printed.is_empty());
    let got = npy::read(&outputs.join("output_0.npy"), None).unwrap();
    assert_eq!(got.to_vec::<f32>().unwrap(), [1., 2., 3., 4., 5., 6., 1., 2., 3., 4., 5., 6.]);
    assert_eq!(fs::read_dir(&outputs).unwrap().count(), 1);
    npy::write(&inputs.join("input_0.npy"), &Tensor::from_slice(&[2, 5], &[1f32; 10]).unwrap()).unwrap();
    assert_has(&fails(folder.path(), &["run", "scores.ncd", "--inputs", "in"]), &["x", "5", "6"]);
    npy::write(&inputs.join("input_0.npy"), &Tensor::from_slice(&[2, 6], &[1i64; 12]).unwrap()).unwrap();
    assert_has(&fails(folder.path(), &["run", "scores.ncd", "--inputs", "in"]), &["i64", "f32"]);
}

#[test]
fn every_stage_is_written() {
    let folder = folder();
    for (stage, part) in [
        ("ncd", "fn @scores(%x: f32[b, c])"),
        ("rewritten", "fn @scores(%x: f32[b, c])"),
        ("json", "\"name\": \"scores\""),
        ("plan", "%y"),
        ("clif", "function"),
        ("asm", "%y"),
    ] {
        let printed = prints(folder.path(), &["compile", "scores.ncd", "--emit", stage]);
        assert_has(&printed, &[part]);
        assert!(prints(folder.path(), &["compile", "scores.ncd", "--emit", stage, "-o", "out.txt"]).is_empty());
        assert_eq!(fs::read_to_string(folder.path().join("out.txt")).unwrap(), printed);
    }
    prints(folder.path(), &["compile", "scores.ncd", "--emit", "json", "-o", "again.json"]);
    let run = |model| prints(folder.path(), &["run", model, "--random", "3", "--dim", "b=2"]);
    assert_eq!(run("again.json"), run("scores.ncd"));
    let before = fs::read_dir(folder.path()).unwrap().count();
    assert_has(&fails(folder.path(), &["compile", "scores.ncd", "-o", "no/such.txt"]), &["no/such.txt"]);
    fs::write(folder.path().join("scores.ncd"), "ncd 0.1\n").unwrap();
    fails(folder.path(), &["compile", "scores.ncd", "-o", "new.txt"]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), before, "nothing is left behind");
}

#[test]
fn show_says_what_a_model_is() {
    let folder = folder();
    let printed = prints(folder.path(), &["show", "scores.ncd"]);
    assert_has(
        &printed,
        &["x: f32[b, 6]", "scores: f32[b, 6]", "1 arrays, 24 B", "1 map", "6*b", "fix them with --dim"],
    );
    assert_has(&prints(folder.path(), &["show", "scores.ncd", "--dim", "b=2"]), &["x: f32[2, 6]", "with the weights"]);
}

#[test]
fn bench_prints_one_object() {
    let folder = folder();
    let arguments = ["bench", "scores.ncd", "--dim", "b=2", "--threads", "1,2", "--seconds", "0.01", "--json"];
    let printed: Value = serde_json::from_str(&prints(folder.path(), &arguments)).unwrap();
    for key in ["median_ms", "p10_ms", "p90_ms", "load_ms", "first_ms"] {
        assert!(printed[key].as_f64().unwrap() > 0., "{key}: {printed}");
    }
    assert!(printed["count"].as_u64().unwrap() >= 20 && printed["first_ms"].as_f64() > printed["load_ms"].as_f64());
    assert!(!cfg!(target_os = "linux") || printed["peak_bytes"].as_u64() > printed["needed_bytes"].as_u64());
    assert_eq!(printed["runs"].as_array().unwrap().len(), 2);
    assert_has(&prints(folder.path(), &arguments[..8]), &["median", "load", "threads"]);
}

#[test]
fn check_names_what_is_wrong() {
    let folder = folder();
    let printed = prints(folder.path(), &["check", "scores.ncd", "--dim", "b=2"]);
    assert_has(&printed, &["against the interpreter", "scores", "%y", "map"]);
    fs::create_dir(folder.path().join("wrong")).unwrap();
    let wrong = Tensor::from_slice(&[2, 6], &[1f32; 12]).unwrap();
    npy::write(&folder.path().join("wrong/output_0.npy"), &wrong).unwrap();
    let said = fails(folder.path(), &["check", "scores.ncd", "--dim", "b=2", "--reference", "wrong"]);
    assert_has(&said, &["the largest error is", "more than 1e-3"]);
}

#[test]
fn mistakes_are_shown_in_the_source() {
    let folder = folder();
    fs::write(folder.path().join("wrong.ncd"), CIRCUIT.replace("%x[b, c], @w", "%z[b, c], @w")).unwrap();
    for command in ["run", "compile", "show", "check", "bench", "explain", "bisect"] {
        let said = fails(folder.path(), &[command, "wrong.ncd"]);
        assert_has(&said, &["wrong.ncd:5:18", "%z", "map mul : %z[b, c]", "did you mean"]);
        assert_has(&fails(folder.path(), &[command, "missing.onnx"]), &["missing.onnx"]);
    }
    fs::write(folder.path().join("wrong.json"), "{\"ncd\": 3}").unwrap();
    assert_has(&fails(folder.path(), &["show", "wrong.json"]), &["wrong.json", "line 1 column 9"]);
    assert_has(&fails(folder.path(), &["show", "scores.ncd", "--dim", "b"]), &["NAME=SIZE"]);
    assert_has(&fails(folder.path(), &["run", "scores.ncd", "--random", "0", "--threads", "0"]), &["at least 1"]);
}

/// As in `strang show model.onnx | head -0`.
#[test]
fn a_reader_may_stop_reading() {
    let folder = folder();
    for command in [&["show", "scores.ncd"][..], &["compile", "scores.ncd", "--emit", "asm"], &["rules"], &["--help"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_strang"))
            .args(command)
            .current_dir(&folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(output.stderr.is_empty(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{command:?} ends with {}", output.status);
    }
}

#[test]
fn explain_and_bisect_tell_of_rules() {
    let folder = folder();
    let path = folder.path();
    assert_has(&prints(path, &["explain", "scores.ncd"]), &["1 operations became 1 in 1 kernels", "windows"]);
    assert_has(
        &prints(path, &["explain", "scores.ncd", "--layer", "y"]),
        &["%y", "as written", "runs in a map for %y"],
    );
    assert_has(&fails(path, &["explain", "scores.ncd", "--layer", "zzz"]), &["no layer", "zzz", "%y"]);
    let all = prints(path, &["bisect", "scores.ncd", "--random", "0", "--dim", "b=2"]);
    assert_has(&all, &["the error is 0.0e0 with all 0 applications"]);
    prints(path, &["run", "scores.ncd", "--random", "1", "--dim", "b=2", "--outputs", "wrong", "--fuel", "0"]);
    let arguments = ["bisect", "scores.ncd", "--random", "0", "--dim", "b=2", "--reference", "wrong"];
    assert_has(&fails(path, &arguments), &["without any rule", "no rule is at fault"]);
}

#[test]
fn diff_says_by_its_exit_code_whether_models_differ() {
    let folder = folder();
    let path = folder.path();
    assert_eq!(prints(path, &["diff", "scores.ncd", "scores.ncd"]), "the circuits are equal\n");
    fs::write(path.join("other.ncd"), CIRCUIT.replace("map mul", "map add")).unwrap();
    let output = strang(path, &["diff", "scores.ncd", "other.ncd"]);
    assert_eq!(output.status.code(), Some(1));
    assert_has(&String::from_utf8_lossy(&output.stdout), &["1 changed", "- %y = map mul", "+ %y = map add"]);
    assert_eq!(strang(path, &["diff", "scores.ncd", "missing.ncd"]).status.code(), Some(2));
}

#[test]
fn cut_writes_two_models_that_run_one_after_the_other() {
    let folder = folder();
    let path = folder.path();
    let circuit = "ncd 0.1 \"net\"\naxis b = 2   axis c = 3\nparam @w: f32[c] = [1, 2, 3]\n\
        fn @net(%x: f32[b, c]) -> (y: f32[b, c]) {\n  %h = map mul : %x[b, c], @w[c] -> [b, c]\n  \
        %y = map add : %h[b, c], %x[b, c] -> [b, c]\n  return %y\n}\n";
    fs::write(path.join("net.ncd"), circuit).unwrap();
    let told = prints(path, &["cut", "net.ncd", "--at", "%h", "-o", "head.ncd", "tail.json"]);
    assert_has(&told, &["h: f32[2, 3]", "24 B cross in a run", "head.ncd: 50 % of the work"]);
    let input = Tensor::from_slice(&[2, 3], &[1f32, 2., 3., 4., 5., 6.]).unwrap();
    npy::write(&path.join("x.npy"), &input).unwrap();
    prints(path, &["run", "head.ncd", "--input", "x=x.npy", "--outputs", "wire"]);
    prints(path, &["run", "tail.json", "--input", "h=wire/output_0.npy", "--input", "x=x.npy", "--outputs", "out"]);
    let result = npy::read(&path.join("out/output_0.npy"), None).unwrap();
    assert_eq!(result.as_slice::<f32>().unwrap(), [2., 6., 12., 8., 15., 24.]);
    assert_has(&fails(path, &["cut", "net.ncd", "--at", "k", "-o", "a.ncd", "b.ncd"]), &["no value or layer `k`", "h"]);
    assert_has(&fails(path, &["cut", "net.ncd", "--at", "h", "-o", "a.ncd", "a.json"]), &["different names"]);
    assert!(!path.join("a.ncd").exists());
}

#[test]
fn quantise_writes_a_model_and_tells_its_bits() {
    let folder = folder();
    let path = folder.path();
    let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits/digits.onnx");
    let digits = digits.to_str().unwrap();
    let told = prints(path, &["quantise", digits, "--bits", "2", "--split", "-o", "split.ncd"]);
    assert_has(&told, &["25 layers, 150026 weights, 4.03 bits each", "error", "layer"]);
    let output = strang(path, &["diff", digits, "split.ncd"]);
    assert_has(
        &String::from_utf8_lossy(&output.stdout),
        &["0 weights with other elements", "gather @val_8_book[0, {code}], @val_8_codes"],
    );
    let size = |name: &str| std::fs::metadata(path.join(name)).unwrap().len();
    assert!(size("split.safetensors") < 200_000, "codes take a byte each");
    prints(path, &["quantise", digits, "--bits", "2", "--split", "--layers", "-o", "layers.ncd"]);
    assert!(size("layers.safetensors") > 1_500_000, "three layers have three times the weights");
    prints(
        path,
        &["run", "layers.ncd", "--dim", "batch=1", "--random", "0", "--without", "sum-of-products-of-one-input"],
    );
    let message = fails(path, &["run", "layers.ncd", "--dim", "batch=1", "--random", "0", "--without", "sums"]);
    assert_has(&message, &["there is no rule `sums`", "strang rules"]);
    assert_has(
        &fails(path, &["quantise", digits, "--bits", "5", "-o", "x.ncd"]),
        &["codes of 5 bits", "2, 3, 4 and 8"],
    );
    assert_has(&fails(path, &["quantise", digits, "--bits", "4", "-o", "x.onnx"]), &[".ncd or .json"]);
}

#[test]
fn weights_are_rounded_where_the_user_asks() {
    let folder = folder();
    let numbers: Vec<String> = (0..4096).map(|place| format!("{}", f64::from(place) * 0.37)).collect();
    let circuit = format!(
        "ncd 0.1 \"layer\"\naxis b   axis c = 64   axis o = 64\nparam @w: f32[c, o] = [{}]\n\
         fn @layer(%x: f32[b, c]) -> f32[b, o] {{\n  %y = dot : %x[b, {{c}}], @w[{{c}}, o] -> [b, o]\n  return %y\n}}\n",
        numbers.join(", ")
    );
    fs::write(folder.path().join("layer.ncd"), circuit).unwrap();
    let plan = ["compile", "layer.ncd", "--emit", "plan"];
    let bf16 = [&plan[..], &["--precision", "bf16"]].concat();
    assert_has(&prints(folder.path(), &bf16), &["times packed pairs of bf16"]);
    for exact in [&[][..], &["--precision", "f32"]] {
        assert!(!prints(folder.path(), &[&plan[..], exact].concat()).contains("bf16"));
    }
    // The portable level has no instructions for bf16, whatever this machine has.
    let mut command = Command::new(env!("CARGO_BIN_EXE_strang"));
    let output = command.args(&bf16).current_dir(folder.path()).env("STRANG_CPU_LEVEL", "portable").output().unwrap();
    assert_has(&String::from_utf8_lossy(&output.stderr), &["no instructions for bf16"]);
    assert_has(&fails(folder.path(), &[&plan[..], &["--precision", "f8"]].concat()), &["f8", "f32", "bf16"]);
}

#[test]
fn schedules_are_measured_and_used() {
    let folder = folder();
    let circuit = "ncd 0.1 \"layer\"\naxis b   axis c = 24   axis o = 40\nparam @w: f32[c, o] = [W]\n\
         fn @layer(%x: f32[b, c]) -> f32[b, o] {\n  %y = dot : %x[b, {c}], @w[{c}, o] -> [b, o]\n  return %y\n}\n";
    let numbers: Vec<String> = (0..960).map(|place| format!("{}", f64::from(place % 31) * 0.37)).collect();
    fs::write(folder.path().join("layer.ncd"), circuit.replace('W', &numbers.join(", "))).unwrap();
    let tune = ["compile", "layer.ncd", "--dim", "b=30", "--tune", "tuned.txt", "--threads", "1"];
    assert_has(&prints(folder.path(), &tune), &["of 1 products", "ms a run instead of"]);
    assert!(fs::read_to_string(folder.path().join("tuned.txt")).unwrap().starts_with("strang schedules 0.1\n"));
    prints(folder.path(), &["run", "layer.ncd", "--random", "0", "--dim", "b=30", "--tuned", "tuned.txt"]);
    // Sizes that are left open cannot be measured, and a file that is something else stays.
    assert_has(&fails(folder.path(), &["compile", "layer.ncd", "--tune", "tuned.txt"]), &["b", "--dim"]);
    for arguments in [&tune[..], &["run", "layer.ncd", "--random", "0", "--dim", "b=30", "--tuned", "tuned.txt"]] {
        fs::write(folder.path().join("tuned.txt"), "something else\n").unwrap();
        assert_has(&fails(folder.path(), arguments), &["tuned.txt", "strang schedules 0.1"]);
        assert_eq!(fs::read_to_string(folder.path().join("tuned.txt")).unwrap(), "something else\n");
    }
}
