//! Weights that are packed when they are needed.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// A weight of as many elements, all of that value, that counts how often it is made.
fn late(length: usize, value: f32, made: &Arc<AtomicUsize>) -> Tensor {
    let made = made.clone();
    let make = move |bytes: &mut [u8], _: &mut Tensor| {
        made.fetch_add(1, Ordering::Relaxed);
        bytes.as_chunks_mut().0.fill(value.to_ne_bytes());
    };
    Tensor::deferred(ElementType::F32, &[length], make).unwrap()
}

/// A chain of additions, of 1, 2, 4 and so on to 8 and of the first once more, where three of them are repeated thrice: what is
/// added to an input in the end is 1 + 3 * (2 + 4 + 2) + 8 + 1.
fn chain(length: usize, made: &Arc<AtomicUsize>) -> Builder {
    let mut builder = Builder::new();
    let (x, y) = (builder.input("x"), builder.output("y"));
    let sum = builder.arena((0, 6));
    let mut weights = Vec::new();
    for (number, value) in [1., 2., 4., 8.].into_iter().enumerate() {
        builder.program.weights.push(late(length, value, made));
        weights.push(builder.buffer(Base::Weights(number as u32), (0, 6)));
    }
    let body = [1, 2, 1].map(|weight| builder.accumulate(weights[weight], sum));
    builder.program.body = vec![
        builder.add(x, weights[0], sum),
        Step::Repeat { count: Size::from(3), condition: None, body: body.into() },
        builder.accumulate(weights[3], sum),
        builder.add(sum, weights[0], y),
    ];
    builder
}

const ADDED: f32 = 1. + 3. * (2. + 4. + 2.) + 8. + 1.;

fn check(session: &mut Session, length: usize) {
    let input = ramp(length, 1.);
    let outputs = session.run(std::slice::from_ref(&input)).unwrap();
    let expected: Vec<f32> = values(&input).iter().map(|value| value + ADDED).collect();
    assert_eq!(values(&outputs[0]), expected);
}

#[test]
fn the_first_run_packs_in_a_room_and_the_second_keeps() {
    for size in [1, 2, 8] {
        let made = Arc::default();
        let executable = chain(1000, &made).load();
        let mut session = executable.session(&sizes(1000), &on_team(size)).unwrap();
        assert_eq!((made.load(Ordering::Relaxed), session.memory_use().weights), (0, 16_000));
        for expected in [4, 8, 8] {
            check(&mut session, 1000);
            assert_eq!(made.load(Ordering::Relaxed), expected);
        }
        // Others find them packed.
        let mut other = executable.session(&sizes(1000), &on_team(size)).unwrap();
        check(&mut other, 1000);
        assert_eq!(made.load(Ordering::Relaxed), 8);
    }
}

#[test]
fn a_room_holds_what_is_needed_at_once() {
    let made = Arc::default();
    let plan = chain(1000, &made).load();
    let mut session = plan.session(&sizes(1000), &on_team(1)).unwrap();
    let room = session.place_weights().unwrap().expect("no run has begun");
    // The first weight is needed to the end, the two that are repeated together.
    assert_eq!(room.bytes().len(), 3 * (4032 + 64));
}

#[test]
fn weights_are_packed_before_the_first_run_for_those_who_ask() {
    let made = Arc::default();
    let mut session = chain(100, &made).load().session(&sizes(100), &on_team(2)).unwrap();
    session.prepare().unwrap();
    session.prepare().unwrap();
    check(&mut session, 100);
    assert_eq!(made.load(Ordering::Relaxed), 4);
}

#[test]
fn sessions_that_start_together_wait_for_nobody() {
    let made = Arc::default();
    let executable = chain(100, &made).load();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut session = executable.session(&sizes(100), &on_team(2)).unwrap();
                (0..20).for_each(|_| check(&mut session, 100));
            });
        }
    });
    let before = made.load(Ordering::Relaxed);
    check(&mut executable.session(&sizes(100), &on_team(1)).unwrap(), 100);
    assert_eq!(made.load(Ordering::Relaxed), before);
}

#[test]
fn weights_of_branches_are_packed_whichever_is_taken() {
    for (limit, added) in [(0, 4.), (1000, 2.)] {
        let made = Arc::default();
        let mut builder = Builder::new();
        let (x, y) = (builder.input("x"), builder.output("y"));
        let chosen = builder.arena((0, 2));
        let weights = [2., 4.].map(|value| {
            builder.program.weights.push(late(50, value, &made));
            builder.buffer(Base::Weights(builder.program.weights.len() as u32 - 1), (1, 2))
        });
        let [then, otherwise] = weights.map(|weight| vec![builder.add(x, weight, y)]);
        let below = builder.below(x, limit, chosen);
        builder.program.body = vec![below, Step::If { condition: place(chosen), then, otherwise }];
        let mut session = builder.load().session(&sizes(50), &on_team(2)).unwrap();
        for _ in 0..3 {
            let outputs = session.run(&[ramp(50, 1.)]).unwrap();
            assert_eq!(values(&outputs[0])[0], 1. + added, "{limit}");
        }
    }
}
