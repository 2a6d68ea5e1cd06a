//! Tests that are files: each `.ncd` file here is a circuit with comments that say what is tested.
//!
//! | comment | what |
//! |---|---|
//! | `#! run`, then `#! in [[1, 2]]` an input, `#! out [3]` a result | the interpreter and compiled code, on one and two threads, give these results |
//! | `#! error` | the file is refused, with exactly the message in the lines `#\|` |
//! | `#! explain`, `#! explain NAME` | what `strang explain` tells of the whole, or of layers, is exactly the lines `#\|` |
//! | `#! print rewritten`, `plan`, `clif CPU`, `asm CPU` | this stage prints exactly the lines `#\|` |
//!
//! Numbers are JSON, with `"inf"`, `"-inf"` and `"nan"` as texts. `UPDATE_FILES=1 cargo test files` writes the lines `#|`.

use std::{fmt::Write, fs, path::Path};
use strang::{
    Compiler, ElementType, Executable, Tensor,
    check::difference,
    compiler::codegen::{self, Form, Target},
    ir::{
        Literal, Module,
        interpret::{Arithmetic, interpret},
        text,
    },
    runtime::kernels::Level,
};

/// Results may differ from what a file says by this share of their range: it says few digits.
const TOLERANCE: f64 = 1e-5;

#[test]
fn files_do_what_they_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files");
    let update = std::env::var_os("UPDATE_FILES").is_some();
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "ncd"));
    names.sort();
    assert!(!names.is_empty());
    let mut failures = String::new();
    for path in names {
        let name = path.file_name().unwrap().to_string_lossy();
        let source = fs::read_to_string(&path).unwrap();
        let (before, expected) = split(&source);
        let outcome = test(&name, &before);
        match outcome {
            Err(failure) => writeln!(failures, "{name}: {failure}").unwrap(),
            Ok(printed) if printed == expected => {}
            Ok(printed) if update => {
                let lines = printed.lines().map(|line| format!("#| {line}").trim_end().to_owned() + "\n");
                fs::write(&path, before.trim_end().to_owned() + "\n\n" + &lines.collect::<String>()).unwrap();
            }
            Ok(printed) => writeln!(failures, "{name} prints\n{printed}\ninstead of\n{expected}").unwrap(),
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

/// The file without what it should print, and that.
fn split(source: &str) -> (String, String) {
    let (mut before, mut expected) = (String::new(), String::new());
    for line in source.lines() {
        match line.strip_prefix("#|") {
            Some(line) => writeln!(expected, "{}", line.strip_prefix(' ').unwrap_or(line)).unwrap(),
            None => writeln!(before, "{line}").unwrap(),
        }
    }
    (before, expected)
}

/// Runs the file; what it printed, without spaces at the ends of lines.
fn test(name: &str, source: &str) -> Result<String, String> {
    let mut printed = String::new();
    let mut runs: Vec<Run> = Vec::new();
    for line in source.lines().filter_map(|line| line.strip_prefix("#! ")) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "run" => runs.push(Run::default()),
            "in" => runs.last_mut().ok_or("`in` before `run`")?.inputs.push(rest),
            "out" => runs.last_mut().ok_or("`out` before `run`")?.outputs.push(rest),
            "error" => printed += &refusal(name, source)?,
            "explain" => printed += &explain(module(name, source)?, rest)?,
            "print" => printed += &print(&module(name, source)?, rest)?,
            other => return Err(format!("`{other}` is no test")),
        }
    }
    if !runs.is_empty() {
        let module = module(name, source)?;
        let executable = Compiler::new().compile(module.clone()).map_err(|error| error.to_string())?.executable;
        for (position, run) in runs.iter().enumerate() {
            run.check(&module, &executable).map_err(|error| format!("run {position}: {error}"))?;
        }
    } else if printed.is_empty() {
        return Err("tests nothing".into());
    }
    let lines = printed.lines().map(|line| line.trim_end().to_owned() + "\n");
    Ok(lines.collect())
}

fn module(name: &str, source: &str) -> Result<Module, String> {
    text::parse_verified(source, name).map(|(module, _)| module).map_err(|error| error.render())
}

fn refusal(name: &str, source: &str) -> Result<String, String> {
    match text::parse_verified(source, name) {
        Err(error) => Ok(error.render()),
        Ok((module, _)) => match Compiler::new().compile(module) {
            Err(error) => Ok(error.to_string()),
            Ok(_) => Err("is not refused".into()),
        },
    }
}

fn explain(module: Module, name: &str) -> Result<String, String> {
    let compiler = Compiler::new().level(Level::Avx512).explain(true);
    let planned = compiler.plan(module).map_err(|error| error.to_string())?;
    match name {
        "" => Ok(strang::explain::whole(&planned)),
        name => strang::explain::layers(&planned, name).map_err(|error| error.to_string()),
    }
}

fn print(module: &Module, what: &str) -> Result<String, String> {
    // Not this machine's: the lines are the same everywhere.
    let planned = Compiler::new().level(Level::Avx512).plan(module.clone()).map_err(|error| error.to_string())?;
    let code = |cpu: &str, form| {
        let target = Target::named(cpu).map_err(|error| error.to_string())?;
        codegen::print(&planned.plan, &target, form).map_err(|error| error.to_string())
    };
    match what.split_once(' ') {
        None if what == "rewritten" => Ok(text::print(&planned.rewritten)),
        None if what == "plan" => Ok(planned.plan.to_string()),
        Some(("clif", cpu)) => code(cpu, Form::Clif),
        Some(("asm", cpu)) => code(cpu, Form::Assembly),
        _ => Err(format!("`{what}` is no stage")),
    }
}

/// Inputs and results as they are written.
#[derive(Default)]
struct Run<'a> {
    inputs: Vec<&'a str>,
    outputs: Vec<&'a str>,
}

impl Run<'_> {
    fn check(&self, module: &Module, executable: &Executable) -> Result<(), String> {
        let tensors = |texts: &[&str], elements: Vec<ElementType>| -> Result<Vec<Tensor>, String> {
            if texts.len() != elements.len() {
                return Err(format!("{} tensors are written, not {}", texts.len(), elements.len()));
            }
            texts.iter().zip(elements).map(|(text, element)| tensor(text, element)).collect()
        };
        let inputs = tensors(&self.inputs, executable.inputs().map(|port| port.element).collect())?;
        let wanted = tensors(&self.outputs, executable.outputs().map(|port| port.element).collect())?;
        for arithmetic in [Arithmetic::Wide, Arithmetic::Typed] {
            let got = interpret(module, &inputs, arithmetic).map_err(|error| error.to_string())?;
            compare(&got, &wanted, &format!("interpreted in {arithmetic:?}"))?;
        }
        let bindings = executable.bindings(&inputs).map_err(|error| error.to_string())?;
        let mut first: Option<Vec<Tensor>> = None;
        for threads in [1, 2] {
            let got = crate::run_on(threads, executable, &bindings, &inputs);
            compare(&got, &wanted, &format!("compiled, with {threads} threads"))?;
            if first.get_or_insert(got.clone()) != &got {
                return Err("two threads give other bits than one".into());
            }
        }
        Ok(())
    }
}

fn compare(got: &[Tensor], wanted: &[Tensor], how: &str) -> Result<(), String> {
    for (position, (got, wanted)) in got.iter().zip(wanted).enumerate() {
        let tolerance = if got.element().is_float() { TOLERANCE } else { 0. };
        if difference(got, wanted) > tolerance {
            let values = got.to_f64();
            return Err(format!("{how}, result {position} is {got:?} {values:?}, not {:?}", wanted.to_f64()));
        }
    }
    Ok(())
}

/// A tensor written as nested arrays.
fn tensor(text: &str, element: ElementType) -> Result<Tensor, String> {
    fn flatten(value: &serde_json::Value, depth: usize, shape: &mut Vec<usize>, out: &mut Vec<String>) {
        match value {
            serde_json::Value::Array(items) => {
                if shape.len() == depth {
                    shape.push(items.len());
                }
                items.iter().for_each(|item| flatten(item, depth + 1, shape, out));
            }
            serde_json::Value::String(text) => out.push(text.clone()),
            other => out.push(other.to_string()),
        }
    }
    let value = serde_json::from_str(text).map_err(|error| format!("{text}: {error}"))?;
    let (mut shape, mut numbers) = (Vec::new(), Vec::new());
    flatten(&value, 0, &mut shape, &mut numbers);
    let mut tensor = Tensor::zeros(element, &shape).map_err(|error| error.to_string())?;
    if tensor.count() != numbers.len() {
        return Err(format!("{text} is no array"));
    }
    for (position, number) in numbers.iter().enumerate() {
        let literal = Literal::from_text(element, number).ok_or_else(|| format!("{number} is no {element}"))?;
        tensor.set_bits(position, literal.bits);
    }
    Ok(tensor)
}
