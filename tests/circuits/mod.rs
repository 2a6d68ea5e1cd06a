//! The circuits of `examples/circuits`: compiled code agrees with the interpreter.

use strang::{
    Compiler,
    check::{Against, check},
    ir::{
        Module, Value,
        text::parse_verified,
    },
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

fn examine(text: &str) {
    let (module, compiler) = (read(text), Compiler::new());
    let mut random = Random::new(2);
    let entry = module.entry();
    let inputs = entry.inputs.iter().map(|node| {
        let value = Value::from(*node);
        let sizes = entry.shape_of(value);
        let shape: Vec<usize> = sizes.iter().map(|size| size.as_constant().unwrap_or(3) as usize).collect();
        random::tensor(&mut random, entry.element_of(value), &shape).unwrap()
    });
    let inputs: Vec<_> = inputs.collect();
    let report = check(&compiler, &module, &inputs, None, &mut |_, _| {}).unwrap();
    assert!(report.worst() < 1e-5, "{report:#?}");
    assert!(report.against == Against::Interpreter && !report.layers.is_empty());
}

macro_rules! circuits {
    ($($name:ident),*) => {$(
        #[test]
        fn $name() {
            examine(include_str!(concat!("../../examples/circuits/", stringify!($name), ".ncd")));
        }
    )*};
}
circuits!(mlp, attention, macaron, residual, unet, lstm, vit);
