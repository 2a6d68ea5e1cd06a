//! What steps do: kernels, loops, branches, zeroed buffers, custom operations.

use super::*;
use crate::custom::{Operands, Operations, Results};
use proptest::prelude::*;

#[test]
fn kernels_follow_each_other() {
    let mut builder = Builder::new();
    let (a, b, y) = (builder.input("a"), builder.input("b"), builder.output("y"));
    let (first, second) = (builder.arena((0, 2)), builder.arena((1, 2)));
    builder.program.body = vec![builder.add(a, b, first), builder.add(first, a, second), builder.add(second, first, y)];
    let executable = builder.load();
    for length in [0, 1, 15, 16, 100, 5000] {
        let outputs = run_everywhere(&executable, &[ramp(length, 1.0), ramp(length, 5.0)]);
        let expected: Vec<f32> = (0..length).map(|x| x as f32).map(|x| 3.0 * (x + 1.0) + 2.0 * (x + 5.0)).collect();
        assert_eq!(values(&outputs[0]), expected);
    }
}

#[test]
fn loops_count_from_the_outside_in() {
    let mut builder = Builder::new();
    let (x, y) = (builder.input("x"), builder.output("y"));
    let sum = builder.zeroed((0, 4));
    let count = |builder: &mut Builder| builder.kernel("test_count", vec![at(sum), count()]);
    let (zero, one) = (builder.accumulate(x, sum), count(&mut builder));
    let (two, three) = (count(&mut builder), count(&mut builder));
    let inner = Step::Repeat { count: Size::from(4), condition: None, body: vec![one] };
    let outer = Step::Repeat { count: n(), condition: None, body: vec![inner, two] };
    builder.program.body = vec![zero, outer, three, builder.add(x, sum, y)];
    let outputs = run_everywhere(&builder.load(), &[ramp(40, 0.0)]);
    // 100 times the outer iteration, five times each, and the inner iterations once for each outer one; outside, nothing.
    let counted: i32 = (0..40).map(|outer| 5 * outer * 100 + (1 + 2 + 3)).sum();
    let expected: Vec<f32> = (0..40).map(|x| 2.0 * x as f32 + counted as f32).collect();
    assert_eq!(values(&outputs[0]), expected);
}

/// Doubles `y` while its first element is below 100.
fn doubling(shared: bool) -> Executable {
    let mut builder = Builder::new();
    let (x, y) = (builder.input("x"), builder.output("y"));
    let (go, sum) = (builder.arena((0, 4)), builder.zeroed((0, 4)));
    let (start, first) = (builder.accumulate(x, sum), builder.below(sum, 100, go));
    let (double, next, end) = (builder.accumulate(sum, sum), builder.below(sum, 100, go), builder.add(sum, sum, y));
    // The kernel that decides may run while others still read the decision before: the grid makes it a shared step.
    let next = with(next, |kernel| kernel.grid = Size::from(if shared { 2 } else { 1 }));
    let repeat = Step::Repeat { count: Size::from(1i64 << 40), condition: Some(place(go)), body: vec![double, next] };
    builder.program.body = vec![start, first, repeat, end];
    builder.load()
}

#[test]
fn loops_end_when_their_condition_fails() {
    for executable in [doubling(false), doubling(true)] {
        for (start, end) in [(3.0, 192.0), (99.0, 198.0), (100.0, 100.0)] {
            let outputs = run_everywhere(&executable, &[ramp(33, start)]);
            assert_eq!(values(&outputs[0])[0], 2.0 * end);
            assert_eq!(values(&outputs[0])[32], 2.0 * (start + 32.0) * end / start);
        }
    }
}

#[test]
fn loops_without_work_end_at_once() {
    let mut builder = Builder::new();
    let (x, y) = (builder.input("x"), builder.output("y"));
    let idle = with(builder.add(x, x, y), |kernel| kernel.grid = Size::ZERO);
    let idle = Step::If { condition: place(x), then: vec![idle], otherwise: vec![] };
    let repeat = |body| Step::Repeat { count: Size::from(i64::MAX), condition: None, body };
    builder.program.body = vec![repeat(vec![repeat(vec![idle]), repeat(vec![])]), builder.add(x, x, y)];
    assert_eq!(values(&run_everywhere(&builder.load(), &[ramp(20, 1.0)])[0])[0], 2.0);
}

#[test]
fn branches_take_one_way() {
    let mut builder = Builder::new();
    let (x, y) = (builder.input("x"), builder.output("y"));
    let (chosen, sum) = (builder.arena((0, 0)), builder.zeroed((3, 4)));
    let junk = builder.arena((1, 2));
    let decide = builder.below(x, 10, chosen);
    // Memory of the condition and of the first branch must not be what the second branch wants zeroed.
    let then = vec![builder.add(x, x, junk), builder.add(junk, x, y)];
    let otherwise = vec![builder.accumulate(x, sum)];
    let branch = Step::If { condition: place(chosen), then, otherwise };
    builder.program.body = vec![decide, branch, builder.accumulate(sum, y)];
    let executable = builder.load();
    assert_eq!(values(&run_everywhere(&executable, &[ramp(50, 1.0)])[0])[1], 6.0);
    assert_eq!(values(&run_everywhere(&executable, &[ramp(50, 10.0)])[0])[1], 11.0);
}

#[test]
fn zeroed_buffers_are_zero_in_every_run_and_iteration() {
    let mut builder = Builder::new();
    let (x, y) = (builder.input("x"), builder.output("y"));
    // Local to the body, so zero in every iteration; the other one survives, so zero once.
    let (local, kept, total) = (builder.zeroed((0, 1)), builder.arena((2, 2)), builder.zeroed((0, 3)));
    let body = vec![builder.accumulate(x, local), builder.accumulate(local, total), builder.add(x, x, kept)];
    let repeat = Step::Repeat { count: Size::from(5), condition: None, body };
    builder.program.body = vec![repeat, builder.add(total, x, y)];
    for length in [30, 50_000] {
        assert_eq!(values(&run_everywhere(&builder_clone(&builder).load(), &[ramp(length, 1.0)])[0])[1], 12.0);
    }
}

fn builder_clone(builder: &Builder) -> Builder {
    Builder { program: builder.program.clone() }
}

#[test]
fn states_live_from_run_to_run() {
    let mut builder = Builder::new();
    let (x, y, state) = (builder.input("x"), builder.output("y"), builder.state("sum"));
    builder.program.body = vec![builder.accumulate(x, state), builder.add(state, state, y)];
    let executable = builder.load();
    let mut session = executable.session(&sizes(20), &SessionOptions::default()).unwrap();
    let inputs = [ramp(20, 1.0)];
    let first = |session: &mut Session| values(&session.run(&inputs).unwrap()[0])[0];
    assert_eq!([first(&mut session), first(&mut session), first(&mut session)], [2.0, 4.0, 6.0]);
    session.reset_states();
    assert_eq!(first(&mut session), 2.0);
    // Running the program itself starts from zero every time.
    assert_eq!(executable.run(&inputs).unwrap(), executable.run(&inputs).unwrap());
}

#[test]
fn workers_have_scratch_of_their_own() {
    let mut builder = Builder::new();
    let (x, y) = (builder.input("x"), builder.output("y"));
    let step = builder.kernel("test_scratch", vec![at(x), at(y), count()]);
    builder.program.body = vec![with(step, |kernel| kernel.scratch = n() * Size::from(4))];
    let input = ramp(10_000, 0.0);
    assert_eq!(run_everywhere(&builder.load(), std::slice::from_ref(&input)), [input]);
}

/// `y = x + x`, then the custom operation `double`: `z, w = y + y, x`.
fn custom(operations: &Operations) -> Executable {
    let mut builder = Builder::new();
    let (x, z, w) = (builder.input("x"), builder.output("z"), builder.output("w"));
    let y = builder.arena((0, 1));
    let port = |buffer, name: &str| (place(buffer), Builder::port(name));
    let host = Step::Host {
        name: "double".into(),
        operands: vec![port(y, "y"), port(x, "x")],
        results: vec![port(z, "z"), port(w, "w")],
        label: "my layer".into(),
    };
    builder.program.body = vec![builder.add(x, x, y), host];
    Executable::new_with(builder.program, operations).unwrap()
}

#[test]
fn custom_operations_read_and_write_arrays() {
    let operations = Operations::new().with("double", |operands: Operands, mut results: Results| {
        let (y, x) = (operands.as_slice::<f32>(0).unwrap(), operands.as_slice::<f32>(1).unwrap());
        assert_eq!((operands.len(), results.len(), operands.shape(0)), (2, 2, results.shape(1)));
        results.as_mut_slice::<f32>(0).unwrap().iter_mut().zip(y).for_each(|(z, y)| *z = y + y);
        let [_, w] = results.all().collect::<Vec<_>>().try_into().unwrap();
        w.copy_from_slice(bytemuck::cast_slice(x));
        assert!(results.as_mut_slice::<i32>(0).is_err() && operands.as_slice::<u8>(0).is_err());
        Ok(())
    });
    let input = ramp(77, 3.0);
    let outputs = run_everywhere(&custom(&operations), std::slice::from_ref(&input));
    assert_eq!(values(&outputs[0])[7], 40.0);
    assert_eq!(outputs[1], input);
}

#[test]
fn failures_of_custom_operations_name_the_layer() {
    type Kernel = fn(Operands, Results) -> Result<(), String>;
    let fails: Kernel = |_, _| Err("out of paper".into());
    let panics: Kernel = |operands, _| panic!("{} is too much", operands.shape(0)[0]);
    let indexes: Kernel = |operands, _| Err(format!("{:?}", operands.bytes(7)));
    for (kernel, expected) in [(fails, "out of paper"), (panics, "it panicked: 40 is too much"), (indexes, "panicked")]
    {
        let executable = custom(&Operations::new().with("double", kernel));
        for size in [1, 2] {
            let mut session = executable.session(&sizes(40), &on_team(size)).unwrap();
            for _ in 0..2 {
                let error = session.run(&[ramp(40, 0.0)]).unwrap_err().to_string();
                assert!(error.starts_with("layer `my layer`: the custom operation `double` failed: "), "{error}");
                assert!(error.contains(expected), "{error}");
            }
        }
    }
}

#[test]
fn the_first_failing_step_is_reported() {
    let mut builder = Builder::new();
    let (x, y) = (builder.input("x"), builder.output("y"));
    let fail = |builder: &mut Builder, tile: i64, code: i64, label: &str| {
        let step = builder.kernel("test_fail", vec![Argument::Size(tile.into()), Argument::Size(code.into())]);
        with(step, |kernel| kernel.label = label.into())
    };
    let (none, first) = (fail(&mut builder, 99, 7, "none"), fail(&mut builder, 2, 1, "first"));
    let second = fail(&mut builder, 0, 9, "second");
    builder.program.body = vec![builder.add(x, x, y), none.clone(), first.clone(), second.clone()];
    let index = builder_clone(&builder).load();
    builder.program.body = vec![none, second, first];
    let other = builder.load();
    for size in [1, 2, 8] {
        for (executable, expected) in [
            (&index, "layer `first`: an index in the data lies outside the axis that it selects from"),
            (&other, "layer `second`: the kernel failed with status 9"),
        ] {
            let mut session = executable.session(&sizes(64), &on_team(size)).unwrap();
            for _ in 0..3 {
                assert_eq!(session.run(&[ramp(64, 0.0)]).unwrap_err().to_string(), expected);
            }
        }
    }
}

proptest! {
    /// Random chains of sums through an arena where buffers take turns: whatever the plan, the values are those of the chain.
    #[test]
    fn sharing_memory_changes_no_value(
        picks in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..40),
        length in 1usize..200,
    ) {
        let mut builder = Builder::new();
        let (x, y) = (builder.input("x"), builder.output("y"));
        let steps = picks.len() as u32;
        // What each step adds, by the number of the value: 0 is the input, k + 1 is what step k wrote.
        let operands: Vec<(usize, usize)> =
            picks.iter().enumerate().map(|(step, (a, b))| (a.index(step + 1), b.index(step + 1))).collect();
        let last_use = |value: usize| {
            let uses = operands.iter().rposition(|(a, b)| *a == value || *b == value);
            uses.map_or(value as u32 - 1, |step| step as u32).max(value as u32 - 1)
        };
        let buffers: Vec<u32> = std::iter::once(x)
            .chain((1..=operands.len()).map(|value| match value as u32 {
                last if last == steps => y,
                value => builder.arena((value - 1, last_use(value as usize))),
            }))
            .collect();
        let body = operands.iter().enumerate().map(|(step, (a, b))| {
            builder.add(buffers[*a], buffers[*b], buffers[step + 1])
        });
        builder.program.body = body.collect();
        let input = ramp(length, 1.0);
        let mut expected = vec![values(&input).to_vec()];
        for (a, b) in &operands {
            let sum = expected[*a].iter().zip(&expected[*b]).map(|(a, b)| a + b).collect();
            expected.push(sum);
        }
        let executable = builder.load();
        let mut session = executable.session(&sizes(length as i64), &on_team(2)).unwrap();
        let outputs = session.run(&[input]).unwrap();
        prop_assert_eq!(values(&outputs[0]), expected.last().unwrap());
    }
}
