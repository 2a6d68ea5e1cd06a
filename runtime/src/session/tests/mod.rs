//! Sessions on programs made by hand.

pub(crate) mod kernels;
mod late;
mod machine_code;
mod malformed;
mod runs;
mod steps;
mod trees;

use super::*;
use crate::{
    Bindings, ElementType, Size,
    program::{Address, Argument, Base, Buffer, Cost, Function, KernelStep, Program, Step, Symbol, Zeroed},
};

/// A program over f32 arrays of `n` elements.
#[derive(Default)]
struct Builder {
    program: Program,
}

impl Builder {
    fn new() -> Builder {
        let mut builder = Builder::default();
        builder.program.symbols.push(Symbol { name: "n".into(), representative: 100 });
        builder
    }

    fn port(name: &str) -> Port {
        Port { name: name.into(), element: ElementType::F32, shape: vec![n()] }
    }

    fn buffer(&mut self, base: Base, live: (u32, u32)) -> u32 {
        let buffers = &mut self.program.buffers;
        buffers.push(Buffer { base, bytes: n() * Size::from(4), live, zeroed: vec![] });
        buffers.len() as u32 - 1
    }

    fn input(&mut self, name: &str) -> u32 {
        self.program.inputs.push(Self::port(name));
        self.buffer(Base::Input(self.program.inputs.len() as u32 - 1), (0, 0))
    }

    fn output(&mut self, name: &str) -> u32 {
        self.program.outputs.push(Self::port(name));
        self.buffer(Base::Output(self.program.outputs.len() as u32 - 1), (0, 0))
    }

    fn state(&mut self, name: &str) -> u32 {
        self.program.states.push(Self::port(name));
        self.buffer(Base::State(self.program.states.len() as u32 - 1), (0, 0))
    }

    fn arena(&mut self, live: (u32, u32)) -> u32 {
        self.buffer(Base::Arena, live)
    }

    fn zeroed(&mut self, live: (u32, u32)) -> u32 {
        let buffer = self.arena(live);
        let buffer_bytes = self.program.buffers[buffer as usize].bytes.clone();
        self.program.buffers[buffer as usize].zeroed = vec![Zeroed::start(buffer_bytes)];
        buffer
    }

    /// A step that calls a builtin kernel over the tiles of an array.
    fn kernel(&mut self, name: &str, arguments: Vec<Argument>) -> Step {
        let known = self.program.functions.iter().position(|function| *function == Function::Builtin(name.into()));
        let function = known.unwrap_or_else(|| {
            self.program.functions.push(Function::Builtin(name.into()));
            self.program.functions.len() - 1
        });
        Step::Kernel(KernelStep {
            function: function as u32,
            arguments,
            grid: n().ceil_div(&Size::from(kernels::TILE as i64)),
            scratch: Size::ZERO,
            cost: Cost::default(),
            label: format!("layer {name}").into(),
            kind: "test".into(),
        })
    }

    fn add(&mut self, a: u32, b: u32, sum: u32) -> Step {
        self.kernel("test_add", vec![at(a), at(b), at(sum), count()])
    }

    fn accumulate(&mut self, a: u32, sum: u32) -> Step {
        self.kernel("test_accumulate", vec![at(a), at(sum), count()])
    }

    fn below(&mut self, a: u32, limit: i64, result: u32) -> Step {
        let step = self.kernel("test_below", vec![at(a), Argument::Size(limit.into()), at(result)]);
        with(step, |kernel| kernel.grid = Size::ONE)
    }

    fn load(self) -> Executable {
        Executable::new(self.program).unwrap()
    }
}

fn n() -> Size {
    Size::symbol("n")
}

fn count() -> Argument {
    Argument::Size(n())
}

fn place(buffer: u32) -> Address {
    Address { buffer, offset: Size::ZERO }
}

fn at(buffer: u32) -> Argument {
    Argument::Address(place(buffer))
}

/// A kernel step, changed.
fn with(mut step: Step, change: impl FnOnce(&mut KernelStep)) -> Step {
    if let Step::Kernel(kernel) = &mut step {
        change(kernel);
    }
    step
}

fn sizes(value: i64) -> Bindings {
    Bindings::from([("n".into(), value)])
}

/// A ramp of `length` elements from `start`.
fn ramp(length: usize, start: f32) -> Tensor {
    let values: Vec<f32> = (0..length).map(|index| start + index as f32).collect();
    Tensor::from_slice(&[length], &values).unwrap()
}

fn values(tensor: &Tensor) -> &[f32] {
    tensor.as_slice().unwrap()
}

/// Options to run on a team of that size, however short the program.
fn on_team(size: usize) -> SessionOptions {
    SessionOptions { team: Some(Arc::new(Team::new(Some(size)))), workers: Workers::Team, cancel: None }
}

/// Runs a program on the caller and on teams of 1, 2 and 8, which all give the same bits.
fn run_everywhere(executable: &Executable, inputs: &[Tensor]) -> Vec<Tensor> {
    let expected = executable.run(inputs).unwrap();
    let bindings = executable.bindings(inputs).unwrap();
    for size in [1, 2, 8] {
        let mut session = executable.session(&bindings, &on_team(size)).unwrap();
        assert_eq!(session.workers(), size);
        for _ in 0..3 {
            session.reset_states();
            assert_eq!(session.run(inputs).unwrap(), expected, "{size} workers");
        }
    }
    expected
}
