//! Random circuits through the whole compiler, on every level that the machine has: compiled code agrees with the
//! interpreter, and how many threads run it does not change a bit.

use crate::run_on;
use proptest::prelude::*;
use strang::{
    Compiler, ElementType, Model, Precision, Tensor,
    ir::{
        Module, Op, ScalarExpr,
        interpret::{Arithmetic, interpret},
        random::{Config, Sample, random_module},
        scalar::{Binary, Unary},
    },
};

/// What rounding may change of a result, as a share of its range or of 1, the size of most values: a few steps of a narrow
/// type.
fn tolerance(element: ElementType) -> f64 {
    match element {
        ElementType::BF16 => 3e-2,
        ElementType::F16 => 4e-3,
        ElementType::F32 | ElementType::F64 => 1e-4,
        _ => 0.,
    }
}

/// Whether a circuit has functions that jump, so that a difference in the last bit may become one of any size.
fn jumps(module: &Module) -> bool {
    let mut found = false;
    let mut look = |expression: &ScalarExpr| {
        found |= match expression {
            ScalarExpr::Binary(function, ..) => {
                function.is_comparison() || matches!(function, Binary::Remainder | Binary::Modulo)
            }
            ScalarExpr::Unary(function, _) => {
                use Unary::{Ceil, Floor, Round, Sign, Truncate};
                function.is_predicate() || matches!(function, Floor | Ceil | Round | Truncate | Sign)
            }
            ScalarExpr::Cast(element, _) => !element.is_float(),
            _ => false,
        }
    };
    let mut picks = false;
    for node in module.functions.iter().flat_map(|function| function.graph.node_weights()) {
        match &node.op {
            Op::Map(expression) => expression.visit(&mut look),
            Op::Sort { .. } | Op::ArgReduce { .. } => picks = true,
            _ => {}
        }
    }
    found || picks
}

/// By how much each element differs, as a share of the range of what is wanted.
fn differences(got: &Tensor, want: &Tensor) -> Vec<f64> {
    let range = want.to_f64().into_iter().filter(|value| value.is_finite()).fold(1f64, |range, x| range.max(x.abs()));
    let difference = |(got, want): (f64, f64)| match (got - want).abs() {
        _ if got == want || (got.is_nan() && want.is_nan()) => 0.,
        difference if difference.is_finite() => difference / range,
        _ => f64::INFINITY,
    };
    got.to_f64().into_iter().zip(want.to_f64()).map(difference).collect()
}

/// Compares a circuit, as it is written and rewritten, with the interpreter. Behind a jump one result is as right as
/// another; there threads must agree, and nothing else.
fn agrees(sample: &Sample) -> Result<(), TestCaseError> {
    let Sample { module, inputs, .. } = sample;
    let [wide, typed] = [Arithmetic::Wide, Arithmetic::Typed].map(|how| interpret(module, inputs, how).unwrap());
    for keep in [true, false] {
        let executable = Compiler::new().keep_as_written(keep).compile(module.clone()).unwrap().executable;
        let bindings = executable.bindings(inputs).unwrap();
        let got = run_on(1, &executable, &bindings, inputs);
        prop_assert!(got == run_on(2, &executable, &bindings, inputs), "two threads give other bits than one");
        for (position, (got, wide)) in got.iter().zip(&wide).enumerate() {
            prop_assert_eq!((got.shape(), got.element()), (wide.shape(), wide.element()));
            // What rounding does to the interpreter's result (an overflow, a narrow type), it may do here.
            let rounding = differences(&typed[position], wide).into_iter().fold(0., f64::max);
            let allowed = tolerance(got.element()) + 8. * rounding;
            let elements = differences(got, wide).into_iter().zip(wide.to_f64());
            // Laws of the reals may lose an infinity or a NaN.
            let counts = |value: f64| keep || value.is_finite();
            let wrong = elements.filter(|(difference, value)| *difference > allowed && counts(*value)).count();
            prop_assert!(
                wrong == 0 || jumps(module),
                "{wrong} elements of result {position} are off by more than {allowed:e} (as written: {keep})\n{:?}\n{:?}",
                got.to_f64(),
                wide.to_f64()
            );
        }
    }
    Ok(())
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn circuits_agree_with_the_interpreter(sample in random_module(Config { symbolic: true, ..Config::default() })) {
        agrees(&sample)?;
    }

    /// One step on inputs that are exact: jumps are where the interpreter has them.
    #[test]
    fn single_steps_agree_with_the_interpreter(sample in random_module(Config { steps: 1..=1, ..Config::default() })) {
        let Sample { module, inputs, .. } = &sample;
        let executable = Compiler::new().keep_as_written(true).compile(module.clone()).unwrap().executable;
        let got = executable.run(inputs).unwrap();
        for (got, want) in got.iter().zip(interpret(module, inputs, Arithmetic::Typed).unwrap()) {
            let worst = differences(got, &want).into_iter().fold(0., f64::max);
            prop_assert!(worst <= tolerance(got.element()), "{:?}\n{:?}", got.to_f64(), want.to_f64());
        }
    }
    /// Steps with products in bf16: what is rounded is what the circuit says, whatever multiplies it.
    #[test]
    fn products_in_bf16_agree_with_the_interpreter(sample in random_module(Config { steps: 1..=1, ..Config::default() })) {
        let Sample { module, inputs, .. } = &sample;
        let compiler = Compiler::new().keep_as_written(true).precision(Precision::Bf16);
        let Model { executable, rewritten, .. } = compiler.compile(module.clone()).unwrap();
        let got = executable.run(inputs).unwrap();
        for (got, want) in got.iter().zip(interpret(&rewritten, inputs, Arithmetic::Typed).unwrap()) {
            let worst = differences(got, &want).into_iter().fold(0., f64::max);
            let allowed = tolerance(got.element());
            prop_assert!(worst <= allowed || jumps(module), "{:?}\n{:?}", got.to_f64(), want.to_f64());
        }
    }
}
