//! A run allocates nothing. This test has a binary of its own, since it counts the allocations of the whole process.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use strang_runtime::{
    Bindings, ElementType, Executable, SessionOptions, Size, Tensor,
    program::{Address, Argument, Base, Buffer, Cost, Function, KernelStep, Port, Program, Step, Symbol, Zeroed},
    session::Workers,
    team::Team,
};

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: everything is the system's allocator; counting changes nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: passed on as it came.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: passed on as it came.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Sorts the rows of an array `[n, 32]` twice, through a zeroed buffer, in a loop and under a condition.
fn program() -> Program {
    let n = Size::symbol("n");
    let elements = &n * &Size::from(32);
    let port = |name: &str, element| Port { name: name.into(), element, shape: vec![n.clone(), Size::from(32)] };
    let buffer =
        |base, width: i64| Buffer { base, bytes: &elements * &Size::from(width), live: (0, 1), zeroed: vec![] };
    let place = |buffer| Address { buffer, offset: Size::ZERO };
    let sort = |source, values, positions| {
        let addresses = [source, values, positions].map(|buffer| Argument::Address(place(buffer)));
        let sizes = [32, 1, 32, 0, 0].map(|size| Argument::Size(Size::from(size)));
        Step::Kernel(KernelStep {
            function: 0,
            arguments: addresses.into_iter().chain(sizes).collect(),
            grid: n.clone(),
            scratch: Size::from(32 * 16),
            cost: Cost::default(),
            label: "sort".into(),
            kind: "sort".into(),
        })
    };
    let repeat = Step::Repeat { count: Size::from(3), condition: None, body: vec![sort(0, 3, 2)] };
    let branch = Step::If { condition: place(4), then: vec![sort(3, 1, 2)], otherwise: vec![] };
    Program {
        symbols: vec![Symbol { name: "n".into(), representative: 8 }],
        inputs: vec![
            port("x", ElementType::F32),
            Port { name: "go".into(), element: ElementType::Bool, shape: vec![] },
        ],
        outputs: vec![port("values", ElementType::F32), port("positions", ElementType::I64)],
        buffers: vec![
            buffer(Base::Input(0), 4),
            buffer(Base::Output(0), 4),
            buffer(Base::Output(1), 8),
            Buffer { zeroed: vec![Zeroed::start(&elements * &Size::from(4))], ..buffer(Base::Arena, 4) },
            Buffer { base: Base::Input(1), bytes: Size::ONE, live: (0, 1), zeroed: vec![] },
        ],
        functions: vec![Function::Builtin("sort".into())],
        body: vec![repeat, branch],
        ..Program::default()
    }
}

#[test]
fn runs_allocate_nothing() {
    let executable = Executable::new(program()).unwrap();
    let values: Vec<f32> = (0..64 * 32).map(|index| (index * 7919 % 1000) as f32).collect();
    let inputs = [Tensor::from_slice(&[64, 32], &values).unwrap(), Tensor::from_bools(&[], &[true]).unwrap()];
    let bindings = Bindings::from([("n".into(), 64)]);
    for (threads, workers) in [(1, Workers::Caller), (2, Workers::Team), (2, Workers::Automatic)] {
        let options = SessionOptions { team: Some(Arc::new(Team::new(Some(threads)))), workers, cancel: None };
        let mut session = executable.session(&bindings, &options).unwrap();
        let mut outputs = session.new_outputs().unwrap();
        session.run_into(&inputs, &mut outputs).unwrap();
        let mut round = || {
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            for _ in 0..100 {
                session.run_into(&inputs, &mut outputs).unwrap();
            }
            ALLOCATIONS.load(Ordering::Relaxed) - before
        };
        // The thread of the test harness may still be setting up: a few allocations in one round, not some in every one.
        let fewest = (0..10).map(|_| round()).min();
        assert_eq!(fewest, Some(0), "{workers:?}");
        let rows = outputs[0].as_slice::<f32>().unwrap().chunks(32);
        assert!(rows.into_iter().all(|row| row.is_sorted()));
    }
}
