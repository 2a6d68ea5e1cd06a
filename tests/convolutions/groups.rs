//! Convolutions in groups of few channels, against the interpreter.

use super::{super::with_weights, error};
use strang::{
    Compiler, ElementType,
    ir::Module,
    random::{self, Random},
};

/// Five groups of so many channels, `step` pixels at a time; the channels of all groups are one axis of the image, before its
/// pixels or after them.
fn convolution(members: usize, step: usize, is_last: bool) -> Module {
    let channels = 5 * members;
    let (shape, read) = if is_last { ("h, w, a", "ROW, COLUMN, CHANNEL") } else { ("a, h, w", "CHANNEL, ROW, COLUMN") };
    let read = read
        .replace("ROW", &format!("{step} * p + {{e}} - 1"))
        .replace("COLUMN", &format!("{step} * q + {{e'}} - 1"))
        .replace("CHANNEL", "|c| * g + {c}");
    let (low, narrow) = (12usize.div_ceil(step), 9usize.div_ceil(step));
    let text = format!(
        "ncd 0.1 \"groups\"
axis b   axis h = 12   axis w = 9   axis p = {low}   axis q = {narrow}   axis a = {channels}   axis g = 5   axis o = {members}
axis c = {members}   axis e = 3
param @k: f32[g, o, c, e, e]   param @bias: f32[g, o]
fn @groups(%x: f32[b, {shape}]) -> f32[b, p, q, g, o] {{
  %y = dot order=(e, e', c) : %x[b, {read}] else 0, @k[g, o, {{c}}, {{e}}, {{e'}}] -> [b, p, q, g, o]
  %r = map relu($0 + $1) : %y[b, p, q, g, o], @bias[g, o] -> [b, p, q, g, o]
  return %r
}}
"
    );
    with_weights(&text, 7)
}

#[test]
fn groups_of_few_channels_give_what_the_circuit_says() {
    for (members, step) in [(2, 1), (4, 1), (8, 1), (4, 2), (8, 2), (3, 1), (16, 1)] {
        for is_last in [true, false] {
            let module = convolution(members, step, is_last);
            let plan = Compiler::new().plan(module.clone()).unwrap().plan.to_string();
            assert_eq!(plan.contains(": depthwise"), is_last && matches!(members, 2 | 4 | 8), "{plan}");
            let compiled = Compiler::new().compile(module.clone()).unwrap();
            for batch in [1, 3] {
                let channels = 5 * members;
                let shape = if is_last { [batch, 12, 9, channels] } else { [batch, channels, 12, 9] };
                let inputs = [random::tensor(&mut Random::new(13), ElementType::F32, &shape).unwrap()];
                let error = error(&module, &compiled.executable, batch as i64, &inputs);
                assert!(error < 1e-4, "{members} {step} {is_last} {batch}: {error:.1e}\n{plan}");
            }
        }
    }
}
