//! Patches of images, which do not overlap, against the interpreter.

use super::{super::with_weights, error};
use strang::{
    Compiler, ElementType,
    ir::Module,
    random::{self, Random},
};

/// A grid of patches of an image with few channels before its pixels or after them, each as high and as wide as given, one every
/// `step` pixels.
fn embedding([high, wide]: [usize; 2], size: usize, step: usize, is_last: bool) -> Module {
    let [height, width] = [high, wide].map(|count| (count - 1) * step + size);
    let (shape, read) = if is_last { ("h, w, c", "ROW, COLUMN, {c}") } else { ("c, h, w", "{c}, ROW, COLUMN") };
    let read = read.replace("ROW", &format!("{step} * p + {{e}}")).replace("COLUMN", &format!("{step} * q + {{e'}}"));
    let text = format!(
        "ncd 0.1 \"patches\"
axis b   axis h = {height}   axis w = {width}   axis p = {high}   axis q = {wide}   axis o = 400   axis c = 3   axis e = {size}
param @k: f32[o, c, e, e]   param @bias: f32[o]
fn @patches(%x: f32[b, {shape}]) -> f32[b, p, q, o] {{
  %y = dot order=(c, e, e') : %x[b, {read}], @k[o, {{c}}, {{e}}, {{e'}}] -> [b, p, q, o]
  %r = map $0 + $1 : %y[b, p, q, o], @bias[o] -> [b, p, q, o]
  return %r
}}
"
    );
    with_weights(&text, 5)
}

/// Few patches a row are copied side by side, unless they overlap, lie side by side as they are, or fill tiles.
#[test]
fn patches_give_what_the_circuit_says() {
    for (grid, size, step, is_copied) in [
        ([7, 7], 8, 8, true),
        ([3, 5], 4, 4, true),
        ([3, 5], 4, 5, true),
        ([3, 5], 4, 3, false),
        ([20, 5], 4, 4, false),
        ([5, 20], 4, 4, false),
        ([6, 9], 1, 1, false),
        ([3, 5], 2, 2, false),
    ] {
        for is_last in [true, false] {
            let module = embedding(grid, size, step, is_last);
            let plan = Compiler::new().plan(module.clone()).unwrap().plan.to_string();
            assert_eq!(plan.contains("(operand of %y)"), is_copied, "{grid:?} {size} {step} {is_last}\n{plan}");
            let compiled = Compiler::new().compile(module.clone()).unwrap();
            for batch in [1, 3] {
                let [height, width] = grid.map(|count| (count - 1) * step + size);
                let shape = if is_last { [batch, height, width, 3] } else { [batch, 3, height, width] };
                let inputs = [random::tensor(&mut Random::new(3), ElementType::F32, &shape).unwrap()];
                let error = error(&module, &compiled.executable, batch as i64, &inputs);
                assert!(error < 1e-4, "{grid:?} {size} {step} {is_last} {batch}: {error:.1e}\n{plan}");
            }
        }
    }
}
