//! What runs accept and refuse, their sizes, sharing, cancelling and profiles.

use super::*;
use crate::program::Check;
use std::{sync::atomic::Ordering, thread};

/// `y = x + x`, for inputs of shape `[b, 2*s + 1]` and `[s, 3]`, and `s < 50`.
fn shaped() -> Executable {
    let mut builder = Builder::new();
    let (x, _, y) = (builder.input("x"), builder.input("mask"), builder.output("y"));
    let step = builder.add(x, x, y);
    let program = &mut builder.program;
    let [b, s] = ["b", "s"].map(Size::symbol);
    program.symbols = ["b", "s"].map(|name| Symbol { name: name.into(), representative: 8 }).into();
    let double = &s * &Size::from(2) + Size::ONE;
    program.inputs[0].shape = vec![b.clone(), double.clone()];
    program.inputs[1].shape = vec![s.clone(), 3.into()];
    program.outputs[0].shape = vec![b.clone(), double.clone()];
    let elements = b * double;
    let bytes = &elements * &Size::from(4);
    program.buffers.iter_mut().for_each(|buffer| buffer.bytes = bytes.clone());
    program.buffers[1].bytes = Size::ZERO;
    program.checks = vec![Check { size: Size::from(49) - s, message: "layer `position` has 50 positions".into() }];
    builder.program.body = vec![with(step, |kernel| {
        kernel.arguments[3] = Argument::Size(elements.clone());
        kernel.grid = elements.ceil_div(&16.into());
    })];
    builder.load()
}

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(ElementType::F32, shape).unwrap()
}

#[test]
fn sizes_come_from_shapes() {
    let executable = shaped();
    let outputs = executable.run(&[zeros(&[4, 7]), zeros(&[3, 3])]).unwrap();
    assert_eq!(outputs[0].shape(), [4, 7]);
    let bindings = executable.bindings(&[zeros(&[4, 7]), zeros(&[3, 3])]).unwrap();
    assert_eq!(bindings, Bindings::from([("b".into(), 4), ("s".into(), 3)]));
    assert_eq!(executable.inputs().map(|port| &*port.name).collect::<Vec<_>>(), ["x", "mask"]);
    assert_eq!(executable.symbols().collect::<Vec<_>>(), ["b", "s"]);
}

#[test]
fn shapes_that_disagree_are_named() {
    let executable = shaped();
    let error = |inputs: &[Tensor]| executable.run(inputs).unwrap_err().to_string();
    assert_eq!(error(&[zeros(&[4, 9]), zeros(&[3, 3])]), "axis 1 of input `x` has 7 (`2*s + 1`) elements, not 9");
    assert_eq!(error(&[zeros(&[4, 7]), zeros(&[3, 4])]), "axis 1 of input `mask` has 3 elements, not 4");
    assert_eq!(error(&[zeros(&[4]), zeros(&[3, 3])]), "input `x` has 2 axes, not 1");
    assert_eq!(error(&[zeros(&[4, 7])]), "the program has 2 inputs, not 1");
    let wrong = Tensor::from_slice(&[4, 7], &[0i64; 28]).unwrap();
    assert_eq!(error(&[wrong, zeros(&[3, 3])]), "input `x` has elements of f32, not i64");
    assert_eq!(
        error(&[zeros(&[4, 121]), zeros(&[60, 3])]),
        "layer `position` has 50 positions (with b = 4, s = 60, `-s + 49` is -11, and must not be negative)"
    );
}

#[test]
fn sizes_hidden_in_expressions_are_solved() {
    let mut builder = Builder::new();
    let (x, y) = (builder.input("x"), builder.output("y"));
    builder.program.inputs[0].shape = vec![n() * Size::from(3) - Size::ONE];
    builder.program.body = vec![builder.accumulate(x, y)];
    builder.program.buffers[0].bytes = n() * Size::from(4);
    let executable = builder.load();
    assert_eq!(executable.bindings(&[zeros(&[29])]).unwrap(), sizes(10));
    assert_eq!(
        executable.run(&[zeros(&[30])]).unwrap_err().to_string(),
        "axis 0 of input `x` has `3*n - 1` elements, which cannot be 30"
    );
    let mut builder = Builder::new();
    let y = builder.output("y");
    builder.program.body = vec![builder.accumulate(y, y)];
    let error = builder.load().run::<Tensor>(&[]).unwrap_err().to_string();
    assert_eq!(error, "the shapes of the inputs do not determine the size `n`: bind it by hand");
}

#[test]
fn bindings_must_be_complete_and_known() {
    let executable = shaped();
    let error = |bindings: &[(&str, i64)]| {
        let bindings = bindings.iter().map(|(name, value)| ((*name).into(), *value)).collect();
        executable.session(&bindings, &SessionOptions::default()).unwrap_err().to_string()
    };
    assert_eq!(error(&[("b", 1)]), "the size `s` is not given");
    assert_eq!(error(&[("b", 1), ("s", 1), ("t", 1)]), "the program has no size `t`; its sizes are: b, s");
    assert_eq!(error(&[("b", -1), ("s", 1)]), "the size `b` is -1, and sizes are not negative");
    assert!(error(&[("b", i64::MAX), ("s", 40)]).contains("does not fit 64 bits"));
}

/// `y = x + x`, of `n` elements.
fn double() -> Executable {
    let mut builder = Builder::new();
    let (x, y) = (builder.input("x"), builder.output("y"));
    builder.program.body = vec![builder.add(x, x, y)];
    builder.load()
}

#[test]
fn sessions_check_tensors_against_their_sizes() {
    let mut session = double().session(&sizes(10), &SessionOptions::default()).unwrap();
    let error = session.run(&[zeros(&[11])]).unwrap_err().to_string();
    assert_eq!(error, "axis 0 of input `x` has 10 (`n`) elements, not 11");
    let mut outputs = [zeros(&[9])];
    let error = session.run_into(&[zeros(&[10])], &mut outputs).unwrap_err().to_string();
    assert_eq!(error, "axis 0 of output `y` has 10 (`n`) elements, not 9");
    let error = session.run_into(&[zeros(&[10])], &mut []).unwrap_err().to_string();
    assert_eq!(error, "the program has 1 outputs, not 0");
    let mut outputs = [Tensor::zeros(ElementType::I32, &[10]).unwrap()];
    let error = session.run_into(&[zeros(&[10])], &mut outputs).unwrap_err().to_string();
    assert_eq!(error, "output `y` has elements of f32, not i32");
}

#[test]
fn shared_outputs_are_not_overwritten() {
    let mut session = double().session(&sizes(10), &SessionOptions::default()).unwrap();
    let input = ramp(10, 1.0);
    // The output starts as a clone of the input, which shares its bytes.
    let mut outputs = [input.clone()];
    session.run_into(std::slice::from_ref(&input), &mut outputs).unwrap();
    assert_eq!(values(&input)[0], 1.0);
    assert_eq!(values(&outputs[0])[0], 2.0);
}

#[test]
fn misaligned_inputs_and_weights_are_copied() {
    use std::io::Write;
    let mut file = tempfile().unwrap();
    let bytes: &[u8] = bytemuck::cast_slice(&[1f32, 2.0, 3.0]);
    file.write_all(&[b"x", bytes].concat()).unwrap();
    // SAFETY: nobody else knows the file.
    let map = Arc::new(unsafe { memmap2::Mmap::map(&file) }.unwrap());
    let mapped = Tensor::from_mapped(ElementType::F32, &[3], map, 1..13).unwrap();
    let mut builder = Builder::new();
    let (x, y) = (builder.input("x"), builder.output("y"));
    builder.program.weights.push(mapped.clone());
    let weight = builder.buffer(Base::Weights(0), (0, 0));
    builder.program.body = vec![builder.add(x, weight, y)];
    let mut session = builder.load().session(&sizes(3), &SessionOptions::default()).unwrap();
    for _ in 0..2 {
        let outputs = session.run(std::slice::from_ref(&mapped)).unwrap();
        assert_eq!(values(&outputs[0]), [2.0, 4.0, 6.0]);
    }
}

/// A file that is gone when it is closed.
fn tempfile() -> std::io::Result<std::fs::File> {
    let path = std::env::temp_dir().join(format!("strang-session-{}", std::process::id()));
    let file = std::fs::File::options().create(true).truncate(true).read(true).write(true).open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

#[test]
fn threads_share_an_executable() {
    let executable = double();
    let team = Arc::new(Team::new(Some(2)));
    thread::scope(|scope| {
        for thread in 0..4 {
            let (executable, team) = (&executable, &team);
            scope.spawn(move || {
                let length = 100 + thread * 1000;
                let team = Some(team.clone());
                let options = SessionOptions { team, workers: Workers::Team, cancel: None };
                let mut session = executable.session(&sizes(length as i64), &options).unwrap();
                for round in 0..200 {
                    let input = ramp(length, round as f32);
                    let expected: Vec<f32> = values(&input).iter().map(|value| value + value).collect();
                    let outputs = session.run(std::slice::from_ref(&input)).unwrap();
                    assert_eq!(values(&outputs[0]), expected);
                    let outputs = executable.run(std::slice::from_ref(&input)).unwrap();
                    assert_eq!(values(&outputs[0]), expected);
                }
            });
        }
    });
}

#[test]
fn runs_can_be_cancelled() {
    let cancel = Arc::new(AtomicBool::new(true));
    for size in [1, 2] {
        let options = SessionOptions { cancel: Some(cancel.clone()), ..on_team(size) };
        let mut session = double().session(&sizes(100), &options).unwrap();
        cancel.store(true, Ordering::Relaxed);
        assert!(matches!(session.run(&[ramp(100, 0.0)]), Err(RunError::Cancelled)));
        cancel.store(false, Ordering::Relaxed);
        assert!(session.run(&[ramp(100, 0.0)]).is_ok());
    }
}

#[test]
fn a_running_loop_can_be_cancelled() {
    let mut builder = Builder::new();
    let (x, y) = (builder.input("x"), builder.output("y"));
    let body = vec![builder.add(x, x, y)];
    builder.program.body = vec![Step::Repeat { count: Size::from(i64::MAX), condition: None, body }];
    let executable = builder.load();
    for length in [10, 1000] {
        let cancel = Arc::new(AtomicBool::new(false));
        let options = SessionOptions { cancel: Some(cancel.clone()), ..on_team(2) };
        let mut session = executable.session(&sizes(length as i64), &options).unwrap();
        let run = thread::spawn(move || session.run(&[ramp(length, 0.0)]));
        cancel.store(true, Ordering::Relaxed);
        assert!(matches!(run.join().unwrap(), Err(RunError::Cancelled)));
    }
}

#[test]
fn short_programs_stay_on_the_caller() {
    let cost = |flops: i64| {
        let mut builder = Builder::new();
        let (x, y) = (builder.input("x"), builder.output("y"));
        let step = with(builder.add(x, x, y), |kernel| kernel.cost.flops = flops.into());
        builder.program.body = vec![Step::Repeat { count: Size::from(10), condition: None, body: vec![step] }];
        let options = SessionOptions { workers: Workers::Automatic, ..on_team(2) };
        builder.load().session(&sizes(1000), &options).unwrap().workers()
    };
    assert_eq!(cost(10_000), 1);
    assert_eq!(cost(10_000_000), 2);
    // A program that does not say what it does may be long.
    assert_eq!(cost(0), 2);
}

#[test]
fn profiles_have_a_row_for_every_step() {
    let mut builder = Builder::new();
    let (x, y) = (builder.input("x"), builder.output("y"));
    let middle = builder.zeroed((0, 1));
    let cost = Cost { flops: n(), bytes: n() * Size::from(12) };
    let step = with(builder.accumulate(x, middle), |kernel| kernel.cost = cost);
    let repeat = Step::Repeat { count: Size::from(3), condition: None, body: vec![step] };
    builder.program.body = vec![repeat, builder.add(middle, x, y)];
    let executable = builder.load();
    for size in [1, 2] {
        let mut session = executable.session(&sizes(5000), &on_team(size)).unwrap();
        let (outputs, profile) = session.run_profiled(&[ramp(5000, 1.0)]).unwrap();
        assert_eq!(values(&outputs[0])[0], 4.0);
        assert_eq!((profile.rows.len(), profile.workers), (3, size));
        let row = profile.rows.iter().find(|row| &*row.label == "layer test_accumulate").unwrap();
        assert_eq!((row.calls, row.flops, row.bytes), (3, 15_000, 180_000));
        assert!(profile.rows.iter().map(|row| row.time).sum::<std::time::Duration>() <= profile.total);
        assert!(profile.to_string().contains("layer test_add"), "{profile}");
    }
}

#[test]
fn memory_is_what_was_planned() {
    let mut builder = Builder::new();
    let (x, y) = (builder.input("x"), builder.output("y"));
    let _ = builder.state("s");
    let middle = builder.arena((0, 1));
    let step = with(builder.add(x, x, middle), |kernel| kernel.scratch = Size::from(5000));
    builder.program.body = vec![step, builder.add(middle, x, y)];
    builder.program.weights.push(ramp(10, 0.0));
    let session = builder.load().session(&sizes(100), &on_team(2)).unwrap();
    let expected = MemoryUse { arena: 448 + 64, states: 448, scratch: 2 * 8192, weights: 40, code: 0 };
    assert_eq!(session.memory_use(), expected);
    assert_eq!(session.peak_memory(), expected.total());
}
