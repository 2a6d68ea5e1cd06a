//! Random trees of steps against a walk written down plainly: whoever runs which step, in whatever company, the values are
//! those of one thread that takes one step after the other.

use super::*;
use proptest::prelude::*;

/// The arrays that steps work on, all zero at first; array 0 is the output in the end.
const ARRAYS: usize = 3;

/// A step; arrays are named by position. `small` kernels say that they are, and are run by worker 0 alone.
#[derive(Clone, Debug)]
enum Tree {
    Add { operands: [usize; 2], sum: usize, small: bool },
    Count { sum: usize, small: bool },
    Repeat { count: i64, body: Vec<Tree> },
    While { array: usize, limit: i64, body: Vec<Tree> },
    If { array: usize, limit: i64, then: Vec<Tree>, otherwise: Vec<Tree> },
}

/// More iterations of a `While` than this there are not.
const MOST: i64 = 4;

fn trees() -> impl Strategy<Value = Vec<Tree>> {
    let array = 0..ARRAYS;
    let leaf =
        prop_oneof![
            ([array.clone(), array.clone()], array.clone(), any::<bool>())
                .prop_map(|(operands, sum, small)| Tree::Add { operands, sum, small }),
            (array.clone(), any::<bool>()).prop_map(|(sum, small)| Tree::Count { sum, small }),
        ];
    let tree = leaf.prop_recursive(3, 20, 4, move |inner| {
        let list = prop::collection::vec(inner, 0..4);
        prop_oneof![
            (0i64..4, list.clone()).prop_map(|(count, body)| Tree::Repeat { count, body }),
            (array.clone(), 0i64..500, list.clone()).prop_map(|(array, limit, body)| Tree::While {
                array,
                limit,
                body
            }),
            (array.clone(), 0i64..500, list.clone(), list).prop_map(|(array, limit, then, otherwise)| Tree::If {
                array,
                limit,
                then,
                otherwise
            }),
        ]
    });
    prop::collection::vec(tree, 1..6)
}

/// Turns trees into steps over these buffers.
fn steps(builder: &mut Builder, buffers: &[u32], trees: &[Tree]) -> Vec<Step> {
    let mut body = vec![];
    for tree in trees {
        let sized = |step, small| with(step, |kernel| kernel.cost.flops = Size::from(i64::from(small)));
        match tree {
            Tree::Add { operands: [a, b], sum, small } => {
                let step = builder.add(buffers[*a], buffers[*b], buffers[*sum]);
                body.push(sized(step, *small));
            }
            Tree::Count { sum, small } => {
                let step = builder.kernel("test_count", vec![at(buffers[*sum]), count()]);
                body.push(sized(step, *small));
            }
            Tree::Repeat { count, body: inner } => {
                let inner = steps(builder, buffers, inner);
                body.push(Step::Repeat { count: Size::from(*count), condition: None, body: inner });
            }
            Tree::While { array, limit, body: inner } => {
                let go = builder.arena((0, u32::MAX));
                body.push(builder.below(buffers[*array], *limit, go));
                let mut inner = steps(builder, buffers, inner);
                inner.push(builder.below(buffers[*array], *limit, go));
                body.push(Step::Repeat { count: Size::from(MOST), condition: Some(place(go)), body: inner });
            }
            Tree::If { array, limit, then, otherwise } => {
                let chosen = builder.arena((0, u32::MAX));
                body.push(builder.below(buffers[*array], *limit, chosen));
                let (then, otherwise) = (steps(builder, buffers, then), steps(builder, buffers, otherwise));
                body.push(Step::If { condition: place(chosen), then, otherwise });
            }
        }
    }
    body
}

/// Walks trees, plainly. `counters` are the iterations of the enclosing loops.
fn walk(trees: &[Tree], arrays: &mut [Vec<f32>], counters: &mut Vec<i64>) {
    for tree in trees {
        match tree {
            Tree::Add { operands: [a, b], sum, .. } => {
                let values = arrays[*a].iter().zip(&arrays[*b]).map(|(a, b)| a + b).collect();
                arrays[*sum] = values;
            }
            Tree::Count { sum, .. } => {
                let at = |depth| counters.get(depth).copied().unwrap_or(0);
                let value = (at(0) * 100 + at(1)) as f32;
                arrays[*sum].iter_mut().for_each(|element| *element += value);
            }
            Tree::Repeat { count, body } => {
                for iteration in 0..*count {
                    counters.push(iteration);
                    walk(body, arrays, counters);
                    counters.pop();
                }
            }
            Tree::While { array, limit, body } => {
                let mut iteration = 0;
                while iteration < MOST && arrays[*array][0] < *limit as f32 {
                    counters.push(iteration);
                    walk(body, arrays, counters);
                    counters.pop();
                    iteration += 1;
                }
            }
            Tree::If { array, limit, then, otherwise } => {
                let chosen = if arrays[*array][0] < *limit as f32 { then } else { otherwise };
                walk(chosen, arrays, counters);
            }
        }
    }
}

proptest! {
    #[test]
    fn trees_of_steps_run_as_one_thread_would(trees in trees(), length in prop::sample::select(vec![1usize, 20, 100])) {
        let mut builder = Builder::new();
        let (x, y) = (builder.input("x"), builder.output("y"));
        let buffers: Vec<u32> = (0..ARRAYS).map(|_| builder.zeroed((0, u32::MAX))).collect();
        let mut body: Vec<Step> = (0..ARRAYS).map(|array| builder.accumulate(x, buffers[array])).collect();
        body.extend(steps(&mut builder, &buffers, &trees));
        body.push(builder.add(buffers[0], buffers[0], y));
        builder.program.body = body;
        let input = ramp(length, 1.0);
        let mut arrays = vec![values(&input).to_vec(); ARRAYS];
        walk(&trees, &mut arrays, &mut vec![]);
        let expected: Vec<f32> = arrays[0].iter().map(|value| value + value).collect();
        let executable = builder.load();
        thread_local! {
            static TEAMS: Vec<Arc<Team>> = [1, 2, 3].map(|size| Arc::new(Team::new(Some(size)))).into();
        }
        for team in TEAMS.with(Clone::clone) {
            let options = SessionOptions { team: Some(team), workers: Workers::Team, cancel: None };
            let mut session = executable.session(&sizes(length as i64), &options).unwrap();
            for _ in 0..2 {
                let outputs = session.run(std::slice::from_ref(&input)).unwrap();
                prop_assert_eq!(values(&outputs[0]), &expected);
            }
        }
    }
}
