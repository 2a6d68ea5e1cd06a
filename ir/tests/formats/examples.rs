//! The circuits of `examples/circuits`: each is verified, printed, read back and run.

use strang_ir::{
    Axis, ElementType, Literal, Module, Tensor,
    interpret::{Arithmetic, interpret},
    text::{parse_verified, print},
};

/// A tensor of small numbers, the same in every run; symbolic axes have three positions.
fn numbers(element: ElementType, axes: &[Axis], seed: &mut u32, offset: f64) -> Tensor {
    let shape: Vec<usize> = axes.iter().map(|axis| axis.size.as_constant().unwrap_or(3) as usize).collect();
    let mut tensor = Tensor::zeros(element, &shape).unwrap();
    for position in 0..tensor.count() {
        *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let value = f64::from(*seed >> 16) / 65536. - 0.5 + offset;
        tensor.set_bits(position, Literal::from_f64(element, value).bits);
    }
    tensor
}

fn run(module: &Module) -> Vec<Tensor> {
    let (mut module, mut seed) = (module.clone(), 7);
    for parameter in &mut module.parameters {
        let offset = if parameter.name.contains("variance") { 1. } else { 0. };
        parameter.data = Some(numbers(parameter.element, &parameter.axes, &mut seed, offset));
    }
    let entry = module.entry();
    let inputs = entry.inputs.iter().map(|node| {
        let axes: Vec<Axis> = entry.graph[*node].axes(0).into_iter().cloned().collect();
        numbers(ElementType::F32, &axes, &mut seed, 0.)
    });
    let inputs: Vec<Tensor> = inputs.collect();
    interpret(&module, &inputs, Arithmetic::Typed).unwrap()
}

fn check(name: &str, text: &str) {
    let (module, _) = parse_verified(text, name).unwrap_or_else(|error| panic!("{}", error.render()));
    let printed = print(&module);
    let (again, _) = parse_verified(&printed, "printed").unwrap_or_else(|error| panic!("{}", error.render()));
    assert!(module == again, "{printed}");
    let results = run(&module);
    assert_eq!(results.len(), module.entry().outputs.len());
    for result in &results {
        assert!(result.count() > 0 && result.to_f64().iter().all(|value| value.is_finite()), "{name}: {result:?}");
        assert!(result.to_f64().iter().any(|value| *value != 0.), "{name}: {result:?} is zero");
    }
    insta::assert_snapshot!(name, printed);
}

macro_rules! circuits {
    ($($name:ident),*) => {$(
        #[test]
        fn $name() {
            check(stringify!($name), include_str!(concat!("../../../examples/circuits/", stringify!($name), ".ncd")));
        }
    )*};
}
circuits!(mlp, attention, macaron, residual, unet, lstm, vit);
