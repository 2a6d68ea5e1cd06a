//! Snapshots of every stage for every example: the circuit as text and as JSON, rewritten, its plan, Cranelift's
//! intermediate code, and machine code for two CPUs. None depends on the machine that the tests run on.

use std::path::{Path, PathBuf};
use strang::{
    Compiler,
    compiler::codegen::{self, Form, Target},
    ir::{Module, json, text},
    random::{self, Random},
    runtime::kernels::Level,
};

/// The CPU of the intermediate code, and those of the machine code.
const CPU: &str = "x86-64-v4";
const CPUS: [&str; 2] = [CPU, "aarch64"];

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name)
}

/// A circuit of `examples/circuits`, with random weights.
fn circuit(name: &str) -> Module {
    let name = format!("{name}.ncd");
    let source = std::fs::read_to_string(example("circuits").join(&name)).unwrap();
    let (mut module, _) = text::parse_verified(&source, &name).unwrap_or_else(|error| panic!("{}", error.render()));
    let mut random = Random::new(1);
    for parameter in &mut module.parameters {
        let sizes = parameter.axes.iter().map(|axis| axis.size.as_constant().unwrap() as usize);
        let shape: Vec<usize> = sizes.collect();
        parameter.data = Some(random::tensor(&mut random, parameter.element, &shape).unwrap());
    }
    module
}

fn examine(name: &str, module: Module) {
    let planned = Compiler::new().level(Level::Avx512).plan(module).unwrap();
    insta::assert_snapshot!(format!("{name}.ncd"), text::print(&planned.module));
    insta::assert_snapshot!(format!("{name}.json"), json::print(&planned.module));
    insta::assert_snapshot!(format!("{name}.rewritten"), text::print(&planned.rewritten));
    insta::assert_snapshot!(format!("{name}.plan"), planned.plan.to_string());
    let print = |cpu, form| codegen::print(&planned.plan, &Target::named(cpu).unwrap(), form).unwrap();
    insta::assert_snapshot!(format!("{name}.clif"), print(CPU, Form::Clif));
    for cpu in CPUS {
        insta::assert_snapshot!(format!("{name}.{cpu}"), print(cpu, Form::Assembly));
    }
}

macro_rules! examples {
    ($($name:ident),*) => {$(
        #[test]
        fn $name() {
            examine(stringify!($name), circuit(stringify!($name)));
        }
    )*};
}
examples!(mlp, attention, macaron, residual, unet, lstm, vit);

#[test]
fn digits() {
    examine("digits", Compiler::new().load(example("digits/digits.onnx")).unwrap());
}
