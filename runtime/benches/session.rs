//! What a session costs beside its kernels: loading and binding a program of 500 kernels, and walking over its steps.
//!
//! `cargo bench -p strang-runtime --bench session`.

use criterion::{BatchSize, Criterion};
use std::{hint::black_box, sync::Arc};
use strang_runtime::{
    Bindings, ElementType, Executable, SessionOptions, Size, Tensor,
    program::{Address, Argument, Base, Buffer, Cost, Function, KernelStep, Port, Program, Step, Symbol},
    session::Workers,
    team::Team,
};

/// A chain of kernels as a transformer has them: every step reads what two steps before it wrote, and takes some twenty
/// words, half of them sizes that other steps take as well. Each sorts rows of one element, which is next to nothing.
fn program(kernels: u32) -> Program {
    let [b, s] = ["b", "s"].map(Size::symbol);
    let rows = &b * &s;
    let width = |step: u32| Size::from(64 * i64::from(step % 7 + 1));
    let mut buffers = vec![
        Buffer { base: Base::Input(0), bytes: &rows * &Size::from(4), live: (0, 0), zeroed: vec![] },
        Buffer { base: Base::Output(0), bytes: &rows * &Size::from(8), live: (0, 0), zeroed: vec![] },
    ];
    let address = |buffer: u32, offset: Size| Argument::Address(Address { buffer, offset });
    let mut body = vec![];
    for step in 0..kernels {
        let bytes = &rows * &width(step) * Size::from(4) + Size::from(4096);
        buffers.push(Buffer { base: Base::Arena, bytes, live: (step, (step + 2).min(kernels - 1)), zeroed: vec![] });
        let (own, source) = (step + 2, if step < 2 { 0 } else { step });
        let addresses = [address(source, Size::ZERO), address(own, Size::ZERO), address(1, Size::ZERO)];
        let sizes = [1, 1, 1, 0, 0].map(|size| Argument::Size(size.into()));
        body.push(Step::Kernel(KernelStep {
            function: 0,
            arguments: addresses.into_iter().chain(sizes).collect(),
            grid: Size::from(8),
            scratch: Size::from(64),
            cost: Cost { flops: &rows * &width(step) * width(step + 1), bytes: &rows * &width(step) },
            label: format!("layer {step}").into(),
            kind: "sort".into(),
        }));
        // Words that the kernel does not look at stand for the strides and extents of real ones.
        if let Some(Step::Kernel(kernel)) = body.last_mut() {
            kernel.scratch =
                (&rows * &width(step)).ceil_div(&Size::from(16)).smaller(&Size::from(4096)) + Size::from(64);
        }
    }
    Program {
        symbols: ["b", "s"].map(|name| Symbol { name: name.into(), representative: 8 }).into(),
        inputs: vec![Port { name: "x".into(), element: ElementType::F32, shape: vec![b.clone(), s.clone()] }],
        outputs: vec![Port { name: "y".into(), element: ElementType::I64, shape: vec![b, s] }],
        buffers,
        functions: vec![Function::Builtin("sort".into())],
        body,
        ..Program::default()
    }
}

fn main() {
    let mut criterion = Criterion::default().sample_size(20).configure_from_args();
    let program = program(500);
    criterion.bench_function("load 500 kernels", |bencher| {
        bencher.iter_batched(|| program.clone(), |program| black_box(Executable::new(program)), BatchSize::LargeInput);
    });
    let executable = Executable::new(program).expect("the program is well-formed");
    let bindings = Bindings::from([("b".into(), 4), ("s".into(), 128)]);
    let team = Arc::new(Team::new(Some(2)));
    let options = |workers| SessionOptions { team: Some(team.clone()), workers, cancel: None };
    criterion.bench_function("bind 500 kernels", |bencher| {
        bencher.iter(|| black_box(executable.session(&bindings, &options(Workers::Automatic))).map(|_| ()));
    });
    let input = [Tensor::zeros(ElementType::F32, &[4, 128]).expect("it is small")];
    for (name, workers) in [("walk 500 kernels alone", Workers::Caller), ("walk 500 kernels together", Workers::Team)] {
        let mut session = executable.session(&bindings, &options(workers)).expect("the sizes are fine");
        let mut outputs = session.new_outputs().expect("they are small");
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| session.run_into(&input, &mut outputs));
        });
    }
    criterion.final_summary();
}
