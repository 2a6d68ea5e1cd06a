//! Approximate rules: each error falls with the size of the branches as its law says, and budgets are kept.

use std::convert::Infallible;
use strang_compiler::approximate::{
    Ranges, all, applied,
    budget::{Judge, Samples, choose},
    observing,
};
use strang_ir::{
    ElementType, Module, Tensor,
    interpret::{Arithmetic, interpret},
    random::random_tensor,
    text,
    verify::verify,
};

/// The example of a rule with branches of a size, and an input.
fn sample(example: &str, size: f64) -> (Module, Vec<Tensor>) {
    let source = format!("ncd 0.1 \"example\"\n{example}\n");
    let mut module = text::parse(&source, "example").unwrap_or_else(|error| panic!("{}", error.render()));
    for (number, parameter) in module.parameters.iter_mut().enumerate() {
        let shape: Vec<usize> = parameter.axes.iter().map(|axis| axis.size.as_constant().unwrap() as usize).collect();
        parameter.data = Some(match &*parameter.name {
            "h" if parameter.element == ElementType::F32 => Tensor::scalar(size as f32),
            "h" => Tensor::scalar(size),
            _ => random_tensor(parameter.element, &shape, false, number as u64 + 7),
        });
    }
    verify(&module).unwrap();
    let input = random_tensor(module.parameters[0].element, &[5, 6], false, 3);
    (module, vec![input])
}

fn run(module: &Module, inputs: &[Tensor]) -> Vec<f64> {
    verify(module).unwrap_or_else(|error| panic!("{error}\n{}", text::print(module)));
    interpret(module, inputs, Arithmetic::Wide).unwrap()[0].to_f64()
}

/// What the values of a module are in a run.
fn ranges(module: &Module, inputs: &[Tensor]) -> Ranges {
    let Some((observing, values)) = observing(module) else { return Ranges::default() };
    values.into_iter().zip(extremes(&observing, inputs)).collect()
}

fn extremes(module: &Module, inputs: &[Tensor]) -> Vec<(f64, f64)> {
    verify(module).unwrap();
    let results = interpret(module, inputs, Arithmetic::Wide).unwrap();
    results.chunks(2).map(|pair| (pair[0].to_f64()[0], pair[1].to_f64()[0])).collect()
}

fn error(exact: &[f64], other: &[f64]) -> f64 {
    exact.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0., f64::max)
}

#[test]
fn errors_fall_at_the_order_of_the_law() {
    for rule in all() {
        let (module, inputs) = sample(rule.example, 1.);
        let places = (rule.find)(&module, &ranges(&module, &inputs)).len();
        assert!(places > 0, "{} does not apply to its example", rule.name);
        for place in 0..places {
            let errors: Vec<f64> = [7, 8, 9]
                .map(|power| {
                    let (module, inputs) = sample(rule.example, 0.5f64.powi(power));
                    let variant = (rule.find)(&module, &ranges(&module, &inputs)).swap_remove(place);
                    error(&run(&module, &inputs), &run(&applied(&module, [&variant]), &inputs))
                })
                .into();
            for pair in errors.windows(2) {
                let slope = (pair[0] / pair[1]).log2();
                assert!(
                    (slope - f64::from(rule.order)).abs() < 0.1,
                    "{}, place {place}: order {slope:.3} instead of {} from {errors:?}",
                    rule.name,
                    rule.order
                );
            }
        }
    }
}

/// Both directions of a reordering undo each other.
#[test]
fn reorderings_go_back() {
    let there_and_back = |first: &str, second: &str| {
        let named = |name: &str| all().iter().find(|rule| rule.name == name).unwrap();
        let (module, inputs) = sample(named(first).example, 0.5);
        let there = applied(&module, [&(named(first).find)(&module, &Ranges::default())[0]]);
        let back = (named(second).find)(&there, &Ranges::default());
        assert!(!back.is_empty(), "{second} does not find what {first} makes");
        let back = applied(&there, [&back[0]]);
        assert!(error(&run(&module, &inputs), &run(&there, &inputs)) > 1e-6);
        assert!(error(&run(&module, &inputs), &run(&back, &inputs)) < 1e-14);
    };
    there_and_back("sequential-to-parallel", "parallel-to-sequential");
    there_and_back("parallel-to-sequential", "sequential-to-parallel");
    there_and_back("lie-trotter-to-strang", "strang-to-lie-trotter");
}

/// Judges by the interpreter, and by the number of operations.
struct Interpreter {
    exact: [(Vec<Tensor>, Vec<f64>); 2],
    /// Errors on the samples held out are this much larger than they are.
    severity: f64,
}

impl Judge for Interpreter {
    type Error = Infallible;

    fn seconds(&mut self, module: &Module) -> Result<f64, Infallible> {
        Ok(module.entry().graph.node_count() as f64)
    }

    fn error(&mut self, module: &Module, samples: Samples) -> Result<f64, Infallible> {
        let held_out = samples == Samples::HeldOut;
        let (inputs, exact) = &self.exact[usize::from(held_out)];
        Ok(error(exact, &run(module, inputs)) * if held_out { self.severity } else { 1. })
    }

    fn extremes(&mut self, module: &Module) -> Result<Vec<(f64, f64)>, Infallible> {
        Ok(extremes(module, &self.exact[0].0))
    }
}

#[test]
fn budgets_are_kept() {
    let rule = all().iter().find(|rule| rule.name == "erase-branch").unwrap();
    let (module, first) = sample(rule.example, 0.01);
    let second = vec![random_tensor(module.parameters[0].element, &[5, 6], false, 4)];
    let judge = |severity: f64| {
        let exact = [first.clone(), second.clone()].map(|inputs| {
            let results = run(&module, &inputs);
            (inputs, results)
        });
        Interpreter { exact, severity }
    };
    let none = choose(&module, 0., &mut judge(1.)).unwrap();
    assert_eq!((none.report.variants.len(), none.module), (0, module.clone()), "nothing is lost where nothing may be");
    let all = choose(&module, 1., &mut judge(1.)).unwrap();
    assert_eq!(all.report.variants.len(), 2, "{}", all.report);
    assert!(all.report.saving > 0.9, "both branches go: {}", all.report);
    let errors = all.report.variants.iter().map(|variant| variant.error);
    let (least, most) = errors.fold((f64::MAX, 0f64), |(least, most), error| (least.min(error), most.max(error)));
    assert!(least < most);
    let one = choose(&module, (least + most) / 2., &mut judge(1.)).unwrap();
    assert_eq!(one.report.variants.len(), 1, "{}", one.report);
    assert!(one.report.error <= one.report.allowed && one.report.held_out <= one.report.allowed);
    let confirmed = choose(&module, 1., &mut judge(1e6)).unwrap();
    assert_eq!(confirmed.report.variants.len(), 0, "samples held out disagree: {}", confirmed.report);
}
