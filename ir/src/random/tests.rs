//! Random modules are what they promise: valid, small, printable, and diverse.

use super::*;
use crate::{
    interpret::{Arithmetic, interpret},
    verify::verify,
};
use proptest::test_runner::{Config as Runner, TestRunner};

fn check(config: Config, cases: u32, mut with: impl FnMut(&Sample)) {
    let mut runner = TestRunner::new_with_rng(
        Runner { cases, failure_persistence: None, ..Runner::default() },
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let with = std::cell::RefCell::new(&mut with);
    let outcome = runner.run(&random_module(config), |sample| {
        with.borrow_mut()(&sample);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn random_modules_are_valid_and_have_values() {
    for symbolic in [false, true] {
        check(Config { symbolic, ..Config::default() }, 256, |sample| {
            verify(&sample.module).unwrap();
            let bound = crate::interpret::bind(&sample.module, &sample.inputs).unwrap();
            assert_eq!(bound, sample.bindings);
            for arithmetic in [Arithmetic::Wide, Arithmetic::Typed] {
                interpret(&sample.module, &sample.inputs, arithmetic).unwrap();
            }
        });
    }
}

#[test]
fn random_modules_print_and_parse() {
    check(Config { symbolic: true, ..Config::default() }, 256, |sample| {
        let printed = text::print(&sample.module);
        let parsed = text::parse(&printed, "random.ncd").unwrap_or_else(|error| panic!("{}", error.render()));
        assert!(parsed == sample.module);
        let (parsed, _) = crate::json::parse_verified(&crate::json::print(&sample.module), "random.json").unwrap();
        assert!(parsed == sample.module);
    });
}

#[test]
fn every_operation_occurs() {
    let mut seen = std::collections::BTreeMap::<&str, usize>::new();
    check(Config::default(), 512, |sample| {
        for function in &sample.module.functions {
            function.graph.node_weights().for_each(|node| *seen.entry(node.op.name()).or_default() += 1);
        }
    });
    for name in [
        "input",
        "param",
        "dot",
        "map",
        "reduce",
        "argreduce",
        "softmax",
        "norm",
        "view",
        "concat",
        "gather",
        "scatter",
        "scan",
        "sort",
    ] {
        assert!(seen.get(name).is_some_and(|count| *count >= 10), "{name}: {seen:?}");
    }
}
