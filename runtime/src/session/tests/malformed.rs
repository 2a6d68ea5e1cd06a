//! Malformed programs are refused when they are loaded or bound, with an error that says where.

use super::*;
use crate::custom::{Operands, Operations, Results};

/// A program with something of everything, changed.
fn load(change: impl FnOnce(&mut Program)) -> Result<Executable, LoadError> {
    let mut builder = Builder::new();
    let (x, y) = (builder.input("x"), builder.output("y"));
    let (state, middle) = (builder.state("s"), builder.arena((0, 3)));
    let weight = builder.buffer(Base::Weights(0), (0, 0));
    builder.program.weights.push(ramp(100, 0.0));
    let first = builder.add(x, weight, middle);
    let (second, third) = (builder.accumulate(middle, state), builder.accumulate(middle, state));
    let repeat = Step::Repeat { count: Size::from(2), condition: Some(place(middle)), body: vec![second] };
    let branch = Step::If { condition: place(middle), then: vec![third], otherwise: vec![] };
    let host = Step::Host {
        name: "nothing".into(),
        operands: vec![(place(middle), Builder::port("m"))],
        results: vec![(place(y), Builder::port("y"))],
        label: "host".into(),
    };
    builder.program.body = vec![first, repeat, branch, host];
    change(&mut builder.program);
    Executable::new_with(builder.program, &Operations::new().with("nothing", |_: Operands, _: Results| Ok(())))
}

fn kernel(program: &mut Program) -> &mut KernelStep {
    match &mut program.body[0] {
        Step::Kernel(kernel) => kernel,
        _ => unreachable!("the first step is a kernel"),
    }
}

type Arrays = Vec<(Address, Port)>;

fn host(program: &mut Program) -> (&mut Arrays, &mut Arrays) {
    match program.body.last_mut() {
        Some(Step::Host { operands, results, .. }) => (operands, results),
        _ => unreachable!("the last step is a custom operation"),
    }
}

#[track_caller]
fn refused(change: impl FnOnce(&mut Program), expected: &str) {
    let error = load(change).expect_err(expected).to_string();
    assert!(error.contains(expected), "{error}");
}

#[track_caller]
fn not_bound(change: impl FnOnce(&mut Program), expected: &str) {
    let executable = load(change).unwrap();
    let error = executable.session(&sizes(100), &SessionOptions::default()).expect_err(expected).to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn the_program_itself_is_fine() {
    let executable = load(|_| ()).unwrap();
    executable.session(&sizes(100), &SessionOptions::default()).unwrap();
}

#[test]
fn references_to_nothing() {
    refused(|program| kernel(program).function = 9, "layer `layer test_add` refers to function 9, but there are 2");
    refused(|program| kernel(program).arguments[1] = at(50), "refers to buffer 50, but there are 5");
    refused(|program| program.buffers[0].base = Base::Input(1), "buffer 0 refers to input 1, but there are 1");
    refused(|program| program.buffers[0].base = Base::Output(2), "refers to output 2");
    refused(|program| program.buffers[0].base = Base::State(3), "refers to state 3");
    refused(|program| program.buffers[0].base = Base::Weights(u32::MAX), "refers to weight 4294967295");
    refused(|program| program.functions[0] = Function::Builtin("nonsense".into()), "the kernel `nonsense`");
    let condition = |program: &mut Program| {
        program.body[1] = Step::Repeat { count: Size::ONE, condition: Some(place(77)), body: vec![] };
    };
    refused(condition, "the condition of a `Repeat` refers to buffer 77");
    let symbol = |program: &mut Program| kernel(program).grid = Size::symbol("q");
    refused(symbol, "layer `layer test_add` depends on the symbol `q`");
    refused(|program| program.symbols.push(program.symbols[0].clone()), "`n` is declared twice");
    let name = |program: &mut Program| {
        let Some(Step::Host { name, .. }) = program.body.last_mut() else { return };
        *name = "something".into();
    };
    refused(
        name,
        "layer `host` calls the custom operation `something`, which is not registered; registered are: nothing",
    );
}

#[test]
fn functions_outside_the_code() {
    for (offset, length) in [(0, 65), (64, 1), (0, 0), (32, 8), (u32::MAX - 63, u32::MAX)] {
        let change = |program: &mut Program| {
            program.code = vec![0xC3; 64];
            program.functions.push(Function::Generated { offset, length });
        };
        refused(change, "function 2 takes bytes");
    }
}

#[test]
fn buffers_out_of_their_time() {
    refused(
        |program| program.buffers[3].live = (1, 3),
        "`layer test_add` touches buffer 3, which is live in steps 1 to 3",
    );
    refused(|program| program.buffers[3].live = (0, 0), "touches buffer 3, which is live in steps 0 to 0");
    refused(|program| program.buffers[3].live = (0, 2), "layer `host` touches buffer 3");
    refused(
        |program| program.buffers[0].zeroed = vec![Zeroed::start(Size::ONE)],
        "writes buffer 0, which is an input or a weight",
    );
    refused(|program| host(program).1[0].0 = place(4), "layer `host` writes buffer 4, which is an input or a weight");
}

#[test]
fn steps_nested_without_end() {
    let repeat = |body| Step::Repeat { count: Size::ONE, condition: None, body };
    let repeats = |depth| (0..depth).fold(vec![], |body, _| vec![repeat(body)]);
    assert!(load(|program| program.body.extend(repeats(4))).is_ok());
    refused(|program| program.body.extend(repeats(5)), "`Repeat` steps are nested more than 4 deep");
    let branch = |otherwise| Step::If { condition: place(0), then: vec![], otherwise };
    refused(|program| program.body.extend((0..1000).fold(vec![], |body, _| vec![branch(body)])), "more than 64 deep");
}

#[test]
fn memory_outside_buffers() {
    let offset = |bytes: i64| {
        move |program: &mut Program| {
            let buffer = 3;
            kernel(program).arguments[2] = Argument::Address(Address { buffer, offset: Size::from(bytes) });
        }
    };
    assert!(load(offset(400)).unwrap().session(&sizes(100), &SessionOptions::default()).is_ok());
    not_bound(
        offset(401),
        "the address 401 bytes into buffer 3 of layer `layer test_add` needs 401 bytes, and there are 400",
    );
    not_bound(offset(-4), "the address -4 bytes into buffer 3");
    let long = |program: &mut Program| program.buffers[0].bytes = n() * Size::from(8);
    not_bound(long, "with n = 100, the length of buffer 0 needs 800 bytes, and there are 400");
    not_bound(|program| program.buffers[4].bytes = Size::from(401), "the length of buffer 4 needs 401 bytes");
    not_bound(|program| program.buffers[3].bytes = n() - Size::from(101), "`n - 101` = -1, which is negative");
    let shape = |program: &mut Program| host(program).0[0].1.shape.push(Size::from(2));
    not_bound(shape, "of layer `host` needs 800 bytes, and there are 400");
    let condition = |program: &mut Program| {
        let end = Address { buffer: 3, offset: Size::from(400) };
        program.body[2] = Step::If { condition: end, then: vec![], otherwise: vec![] };
    };
    not_bound(condition, "the condition of an `If` needs 401 bytes");
}

#[test]
fn arrays_of_custom_operations_that_overlap() {
    let twice = |program: &mut Program| {
        let results = host(program).1;
        results.push(results[0].clone());
    };
    not_bound(twice, "results of the custom operation of layer `host` overlap");
    let in_place = |program: &mut Program| {
        let (operands, results) = host(program);
        results[0].0 = operands[0].0.clone();
    };
    not_bound(in_place, "overlap");
}

#[test]
fn kernels_with_wrong_arguments() {
    let sort = |arguments: Vec<Argument>| {
        move |program: &mut Program| {
            program.functions.push(Function::Builtin("sort".into()));
            let kernel = kernel(program);
            (kernel.function, kernel.arguments, kernel.grid) = (2, arguments, Size::ONE);
        }
    };
    not_bound(sort(vec![]), "calls kernel `sort`, but it takes three addresses and five sizes");
    let size = |value: i64| Argument::Size(value.into());
    let arguments = vec![at(0), at(3), at(3), size(101), size(1), size(1), size(0), size(0)];
    not_bound(sort(arguments), "its source has 400 bytes, too few for 1 rows of 101 elements");
}

#[test]
fn negative_and_huge_sizes() {
    not_bound(|program| kernel(program).grid = Size::from(-1), "the grid of layer `layer test_add` is `-1` = -1");
    not_bound(|program| kernel(program).scratch = Size::from(-1), "the scratch of layer `layer test_add`");
    let count = |count: Size| {
        move |program: &mut Program| {
            program.body[1] = Step::Repeat { count, condition: None, body: vec![] };
        }
    };
    not_bound(count(Size::from(-7)), "the count of a `Repeat` is `-7`");
    not_bound(count(n().floor_div(&(n() - Size::from(100)))), "divides by 0");
    let cube = (0..10).fold(Size::ONE, |product, _| product * n());
    not_bound(count(cube), "does not fit 64 bits");
    not_bound(|program| program.buffers[3].bytes = Size::from(i64::MAX), "no memory");
    not_bound(|program| program.outputs[0].shape = vec![Size::from(i64::MAX); 2], "output `y` does not fit 64 bits");
    not_bound(|program| kernel(program).scratch = Size::from(i64::MAX), "memory");
}
