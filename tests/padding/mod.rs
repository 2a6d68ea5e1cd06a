//! Arrays whose rows lie a little apart give what the circuit says, to whoever reads them: `tests/files/padding.ncd` shows where
//! that is so, and has too many numbers to run there.

use super::{run_on, with_weights};
use strang::{
    Compiler, ElementType,
    ir::interpret::{Arithmetic, interpret},
    random::{Random, tensor},
    runtime::Bindings,
};

#[test]
fn rows_apart_give_what_the_circuit_says() {
    let module = with_weights(include_str!("../files/padding.ncd"), 1);
    let compiled = Compiler::new().compile(module.clone()).unwrap();
    let mut random = Random::new(2);
    let shapes: [&[usize]; 6] = [&[40, 1024], &[40, 16, 64], &[40, 1024], &[1024, 32], &[16, 64, 32], &[40960]];
    let inputs = shapes.map(|shape| tensor(&mut random, ElementType::F32, shape).unwrap());
    let expected = interpret(&module, &inputs, Arithmetic::Wide).unwrap();
    for threads in [1, 2] {
        let results = run_on(threads, &compiled.executable, &Bindings::new(), &inputs);
        for (result, expected) in results.iter().zip(&expected) {
            let (result, expected) = (result.to_f64(), expected.to_f64());
            let range = expected.iter().fold(0f64, |most, value| most.max(value.abs()));
            let error = expected.iter().zip(&result).map(|(a, b)| (a - b).abs()).fold(0., f64::max);
            assert!(error < 1e-5 * range, "{threads} threads: {error:.1e} of {range:.1e}");
        }
    }
}
