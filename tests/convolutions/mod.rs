//! Convolutions with fewer products: sizes that tiles of two results do not divide, padding of either side, and images side by
//! side, compiled and compared with the interpreter.

use super::run_on;
use strang::{
    Compiler, ElementType,
    ir::{
        Module,
        interpret::{Arithmetic, interpret},
        text::parse_verified,
    },
    random::{self, Random},
    runtime::Bindings,
};

/// A convolution of images of `height` by `width` with an offset of its window.
fn convolution(height: usize, width: usize, offset: i64) -> Module {
    let text = format!(
        "ncd 0.1 \"convolution\"
axis b = 2   axis h = {height}   axis w = {width}   axis c = 96   axis o = 64   axis e = 3
param @k: f32[o, c, e, e]   param @bias: f32[o]
fn @convolution(%x: f32[b, c, h, w]) -> f32[b, o, h, w] {{
  %y = dot order=(e, e', c) : %x[b, {{c}}, h + {{e}} - {offset}, w + {{e'}} - {offset}] else 0, @k[o, {{c}}, {{e}}, {{e'}}] -> [b, o, h, w]
  %r = map relu($0 + $1) : %y[b, o, h, w], @bias[o] -> [b, o, h, w]
  return %r
}}
"
    );
    let (mut module, _) = parse_verified(&text, "convolution.ncd").unwrap_or_else(|error| panic!("{}", error.render()));
    let mut random = Random::new(11);
    for parameter in &mut module.parameters {
        let sizes: Vec<usize> = parameter.axes.iter().map(|axis| axis.size.as_constant().unwrap() as usize).collect();
        parameter.data = Some(random::tensor(&mut random, parameter.element, &sizes).unwrap());
    }
    module
}

#[test]
fn fewer_products_give_what_the_circuit_says() {
    for (height, width, offset) in [(32, 32, 1), (33, 19, 1), (17, 40, 0), (24, 25, 2)] {
        let module = convolution(height, width, offset);
        let compiled = Compiler::new().compile(module.clone()).unwrap();
        let applied = |rule: &str| compiled.receipt.applied.iter().filter(|applied| *applied.rule == *rule).count();
        assert!(applied("winograd-two-results") > 0, "{height} by {width}");
        let input = random::tensor(&mut Random::new(12), ElementType::F32, &[2, 96, height, width]).unwrap();
        let expected = interpret(&module, std::slice::from_ref(&input), Arithmetic::Wide).unwrap()[0].to_f64();
        let inputs = [input];
        let [one, two] =
            [1, 2].map(|threads| run_on(threads, &compiled.executable, &Bindings::new(), &inputs).swap_remove(0));
        assert!(one.bytes() == two.bytes(), "the bits depend on the number of threads");
        let range = expected.iter().fold(0f64, |most, value| most.max(value.abs()));
        let error = expected.iter().zip(one.to_f64()).map(|(a, b)| (a - b).abs()).fold(0., f64::max);
        assert!(error < 1e-5 * range, "{height} by {width}: {error:.1e} of {range:.1e}");
    }
}
