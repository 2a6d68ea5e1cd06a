//! The examples: compiled code agrees with the interpreter, and gives the same bits on one and two threads, and for a row of
//! a batch alone.

use crate::run_on;
use std::path::Path;
use strang::{
    Compiler, Executable, Tensor,
    check::{Against, check},
    ir::{Module, Value, text::parse_verified},
    random::{self, Random},
};

/// The circuit, with random weights. Variances are positive.
fn read(text: &str) -> Module {
    let (mut module, _) = parse_verified(text, "example.ncd").unwrap_or_else(|error| panic!("{}", error.render()));
    let mut random = Random::new(1);
    for parameter in &mut module.parameters {
        let sizes = parameter.axes.iter().map(|axis| axis.size.as_constant().unwrap() as usize);
        let mut data = random::tensor(&mut random, parameter.element, &sizes.collect::<Vec<_>>()).unwrap();
        if parameter.name.contains("variance") {
            data.as_mut_slice::<f32>().unwrap().iter_mut().for_each(|value| *value = value.abs() + 0.5);
        }
        parameter.data = Some(data);
    }
    module
}

/// Random inputs, symbols being `size`.
fn inputs(module: &Module, size: usize) -> Vec<Tensor> {
    let mut random = Random::new(2);
    let entry = module.entry();
    let inputs = entry.inputs.iter().map(|node| {
        let value = Value::from(*node);
        let shape: Vec<usize> =
            entry.shape_of(value).iter().map(|axis| axis.as_constant().map_or(size, |axis| axis as usize)).collect();
        random::tensor(&mut random, entry.element_of(value), &shape).unwrap()
    });
    inputs.collect()
}

fn examine(module: &Module, is_batched: bool) {
    let compiler = Compiler::new();
    let report = check(&compiler, module, &inputs(module, 3), None, &mut |_, _| {}).unwrap();
    assert!(report.worst() < 1e-5, "{report:#?}");
    assert!(report.against == Against::Interpreter && !report.layers.is_empty());

    let executable = compiler.compile(module.clone()).unwrap().executable;
    for size in [1, 2, 5, 16, 33] {
        let inputs = inputs(module, size);
        let bindings = executable.bindings(&inputs).unwrap();
        let all = run_on(1, &executable, &bindings, &inputs);
        assert!(all == run_on(2, &executable, &bindings, &inputs), "two threads give other bits than one");
        if is_batched {
            rows_are_independent(&executable, &inputs, &all);
        }
    }
}

/// Every row of a batch, run alone, gives the bits that it gives among others.
fn rows_are_independent(executable: &Executable, inputs: &[Tensor], all: &[Tensor]) {
    let rows = inputs[0].shape()[0];
    for row in 0..rows {
        let inputs: Vec<Tensor> = inputs.iter().map(|input| part(input, row)).collect();
        for (position, (alone, all)) in executable.run(&inputs).unwrap().iter().zip(all).enumerate() {
            assert!(*alone == part(all, row), "result {position} of row {row} of {rows} differs when it runs alone");
        }
    }
}

/// One row, as a batch of one.
fn part(tensor: &Tensor, row: usize) -> Tensor {
    let shape: Vec<usize> = [1].into_iter().chain(tensor.shape()[1..].iter().copied()).collect();
    let bytes = tensor.bytes().len() / tensor.shape()[0];
    Tensor::from_bytes(tensor.element(), &shape, &tensor.bytes()[row * bytes..][..bytes]).unwrap()
}

macro_rules! circuits {
    ($($name:ident: $is_batched:literal),*) => {$(
        #[test]
        fn $name() {
            let text = include_str!(concat!("../../examples/circuits/", stringify!($name), ".ncd"));
            examine(&read(text), $is_batched);
        }
    )*};
}
circuits!(mlp: true, attention: false, macaron: true, residual: true, unet: true, lstm: true, vit: true);

#[test]
fn digits() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits/digits.onnx");
    examine(&Compiler::new().load(path).unwrap(), true);
}
