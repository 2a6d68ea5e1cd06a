//! Convolutions with fewer products: sizes that tiles of two results do not divide, padding of either side, and images side by
//! side; and wide images that only a depthwise convolution reads, computed in bands. All are compiled and compared with the
//! interpreter.

mod groups;
mod patches;
mod residues;

use super::{run_on, with_weights};
use strang::{
    Compiler, ElementType, Tensor,
    ir::{
        Module,
        interpret::{Arithmetic, interpret},
    },
    random::{self, Random},
    runtime::{Bindings, Executable},
};

/// The largest difference of the first result from what the interpreter says, for a batch `b`; one thread and two make the same bits.
fn error(module: &Module, executable: &Executable, batch: i64, inputs: &[Tensor]) -> f64 {
    let expected = interpret(module, inputs, Arithmetic::Wide).unwrap()[0].to_f64();
    let bindings = Bindings::from([("b".into(), batch)]);
    let [one, two] = [1, 2].map(|threads| run_on(threads, executable, &bindings, inputs).swap_remove(0));
    assert!(one.bytes() == two.bytes(), "the bits depend on the number of threads");
    expected.iter().zip(one.to_f64()).map(|(a, b)| (a - b).abs()).fold(0., f64::max)
}

/// A convolution of images of `height` by `width` with an offset of its window.
fn convolution(height: usize, width: usize, offset: i64) -> Module {
    let text = format!(
        "ncd 0.1 \"convolution\"
axis b = 2   axis h = {height}   axis w = {width}   axis c = 96   axis o = 64   axis e = 3
param @k: f32[o, c, e, e]   param @bias: f32[o]
fn @convolution(%x: f32[b, c, h, w]) -> f32[b, o, h, w] {{
  %y = dot order=(e, e', c) : %x[b, {{c}}, h + {{e}} - {offset}, w + {{e'}} - {offset}] else 0, @k[o, {{c}}, {{e}}, {{e'}}] -> [b, o, h, w]
  %r = map relu($0 + $1) : %y[b, o, h, w], @bias[o] -> [b, o, h, w]
  return %r
}}
"
    );
    with_weights(&text, 11)
}

#[test]
fn fewer_products_give_what_the_circuit_says() {
    for (height, width, offset) in [(32, 32, 1), (33, 19, 1), (17, 40, 0), (24, 25, 2)] {
        let module = convolution(height, width, offset);
        let compiled = Compiler::new().compile(module.clone()).unwrap();
        let applied = |rule: &str| compiled.receipt.applied.iter().filter(|applied| *applied.rule == *rule).count();
        assert!(applied("winograd-two-results") > 0, "{height} by {width}");
        let input = random::tensor(&mut Random::new(12), ElementType::F32, &[2, 96, height, width]).unwrap();
        let expected = interpret(&module, std::slice::from_ref(&input), Arithmetic::Wide).unwrap()[0].to_f64();
        let inputs = [input];
        let [one, two] =
            [1, 2].map(|threads| run_on(threads, &compiled.executable, &Bindings::new(), &inputs).swap_remove(0));
        assert!(one.bytes() == two.bytes(), "the bits depend on the number of threads");
        let range = expected.iter().fold(0f64, |most, value| most.max(value.abs()));
        let error = expected.iter().zip(one.to_f64()).map(|(a, b)| (a - b).abs()).fold(0., f64::max);
        assert!(error < 1e-5 * range, "{height} by {width}: {error:.1e} of {range:.1e}");
    }
}

/// What reads the wide image beside the depthwise convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    Nothing,
    /// Another kernel.
    Reduction,
    /// The depthwise convolution itself, which adds it to its result.
    Residual,
}

/// A pointwise convolution to three times the channels and a depthwise one of it, `step` pixels at a time, on images of 2
/// `size` by `size` pixels.
fn block(size: usize, step: usize, reader: Reader) -> Module {
    let (height, low, width) = (2 * size, 2 * size / step, size / step);
    let (line, result, returned) = match reader {
        Reader::Nothing => ("", "", "%z"),
        Reader::Reduction => ("%n = reduce max %r[{b}, h, w, c] -> [c, h, w]", ", f32[c, h, w]", "%z, %n"),
        Reader::Residual => ("%s = map add : %z[b, p, q, c], %r[b, p, q, c] -> [b, p, q, c]", "", "%s"),
    };
    let text = format!(
        "ncd 0.1 \"block\"
axis b   axis h = {height}   axis w = {size}   axis p = {low}   axis q = {width}   axis d = 16   axis c = 48   axis e = 3
param @k: f32[c, d]   param @bias: f32[c]   param @l: f32[c, e, e]
fn @block(%x: f32[b, h, w, d]) -> (f32[b, p, q, c]{result}) {{
  %y = dot : %x[b, h, w, {{d}}], @k[c, {{d}}] -> [b, h, w, c]
  %r = map min(max($0 + $1, 0), 6) : %y[b, h, w, c], @bias[c] -> [b, h, w, c]
  %z = dot order=(e, e') : %r[b, {step} * p + {{e}} - 1, {step} * q + {{e'}} - 1, c] else 0, @l[c, {{e}}, {{e'}}] -> [b, p, q, c]
  {line}
  return {returned}
}}
"
    );
    with_weights(&text, 11)
}

#[test]
fn wide_images_that_one_convolution_reads_are_computed_in_bands() {
    use Reader::{Nothing, Reduction, Residual};
    for (size, step, reader) in
        [(40, 1, Nothing), (40, 2, Nothing), (40, 1, Reduction), (40, 1, Residual), (16, 1, Nothing)]
    {
        let module = block(size, step, reader);
        let plan = Compiler::new().plan(module.clone()).unwrap().plan.to_string();
        // What something else reads has to be stored, and what is small is in cache anyway.
        assert_eq!(plan.contains("bands of"), size == 40 && reader == Nothing, "{plan}");
        let compiled = Compiler::new().compile(module.clone()).unwrap();
        for batch in [1, 3] {
            let shape = [batch, 2 * size, size, 16];
            let input = random::tensor(&mut Random::new(13), ElementType::F32, &shape).unwrap();
            let error = error(&module, &compiled.executable, batch as i64, &[input]);
            assert!(error < 1e-4, "{size} {step} {reader:?} {batch}: {error:.1e}");
        }
    }
}

#[test]
fn products_of_bytes_are_not_computed_in_bands() {
    let module = with_weights(
        "ncd 0.1 \"bytes\"
axis b = 1   axis h = 80   axis w = 40   axis d = 64   axis c = 48   axis e = 3
param @k: i8[c, d]   param @l: f32[c, e, e]
fn @bytes(%x: u8[b, h, w, d]) -> f32[b, h, w, c] {
  %y = dot %x[b, h, w, {d}], @k[c, {d}] -> [b, h, w, c]
  %r = map cast(f32, $0) * 0.125 : %y[b, h, w, c] -> [b, h, w, c]
  %z = dot order=(e, e') : %r[b, h + {e} - 1, w + {e'} - 1, c] else 0, @l[c, {e}, {e'}] -> [b, h, w, c]
  return %z
}
",
        11,
    );
    let plan = Compiler::new().keep_as_written(true).plan(module.clone()).unwrap().plan.to_string();
    assert!(plan.contains("gemm of bytes") && plan.contains("depthwise") && !plan.contains("bands of"), "{plan}");
    let input = random::tensor(&mut Random::new(14), ElementType::U8, &[1, 80, 40, 64]).unwrap();
    let expected = interpret(&module, std::slice::from_ref(&input), Arithmetic::Wide).unwrap()[0].to_f64();
    let found =
        Compiler::new().keep_as_written(true).compile(module).unwrap().executable.run(&[input]).unwrap()[0].to_f64();
    let error = expected.iter().zip(found).map(|(a, b)| (a - b).abs()).fold(0., f64::max);
    assert!(error < 1e-3, "{error:.1e}");
}

/// Transformers of images keep them as sequences, which a depthwise convolution reads as images. What lies outside is told by
/// rows and columns, and the kernel is that of such convolutions.
#[test]
fn a_sequence_that_is_an_image_is_filtered_by_channels() {
    let text = "ncd 0.1 \"sequence\"
axis b = 1   axis s = 63   axis h = 7   axis w = 9   axis c = 32   axis e = 3
param @k: f32[c, e, e]
fn @f(%x: f32[b, s, c]) -> f32[b, s, c] {
  %n = map $0 * 2 : %x[b, s, c] -> [b, s, c]
  %i = view %n[b, 9*h + w, c] -> [b, c, h, w]
  %y = dot order=(e, e') : %i[b, c, h + {e} - 1, w + {e'} - 1] else 0, @k[c, {e}, {e'}] -> [b, c, h, w]
  %z = map relu : %y[b, c, s // 9, s % 9] -> [b, s, c]
  return %z
}
";
    let module = with_weights(text, 5);
    let plan = Compiler::new().plan(module.clone()).unwrap().plan.to_string();
    assert!(plan.contains(": depthwise") && !plan.contains("< 63 and"), "{plan}");
    let input = random::tensor(&mut Random::new(6), ElementType::F32, &[1, 63, 32]).unwrap();
    let expected = interpret(&module, std::slice::from_ref(&input), Arithmetic::Wide).unwrap()[0].to_f64();
    let found = Compiler::new().compile(module).unwrap().executable.run(&[input]).unwrap()[0].to_f64();
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() <= 1e-4, "{found} for {expected}\n{plan}");
    }
}

/// Windows of a sequence that is an image, `stride` apart, whose taps are `dilation` apart; `repeats` results a channel. What they read
/// is copied as an image, each element once.
#[test]
fn what_windows_read_is_copied_once() {
    for (stride, dilation, offset, repeats) in
        [(1, 1, 1, 1), (2, 1, 1, 1), (1, 2, 2, 1), (2, 1, 2, 2), (1, 1, 0, 3), (2, 2, 1, 1), (3, 1, 1, 2), (2, 3, 3, 1)]
    {
        let results = (12 + 2 * offset - 2 * dilation - 1) / stride + 1;
        let text = format!(
            "ncd 0.1 \"windows\"
axis b   axis n = 144   axis h = 12   axis w = 12   axis d = 16   axis c = {}   axis e = 3   axis p = {results}   axis q = {results}
param @k: f32[c, e, e]
fn @f(%x: f32[b, n, d]) -> f32[b, p, q, c] {{
  %i = view %x[b, 12 * h + w, d] -> [b, h, w, d]
  %y = dot order=(e, e') : %i[b, {stride} * p + {dilation} * {{e}} - {offset}, {stride} * q + {dilation} * {{e'}} - {offset}, c // {repeats}] else 0,
    @k[c, {{e}}, {{e'}}] -> [b, p, q, c]
  return %y
}}
",
            16 * repeats
        );
        let module = with_weights(&text, 5);
        let plan = Compiler::new().plan(module.clone()).unwrap().plan.to_string();
        let mut copies = plan.lines().filter(|line| line.contains(": loop over"));
        // Windows that do not overlap read every element once; what repeats channels reads no view.
        let is_image = stride < 3 || repeats == 1;
        assert!(copies.next().is_some_and(|copy| copy.contains("i4") != is_image), "{stride} {dilation}: {plan}");
        assert_eq!(copies.next(), None);
        let compiled = Compiler::new().compile(module.clone()).unwrap();
        for batch in [1, 3] {
            let inputs = [random::tensor(&mut Random::new(6), ElementType::F32, &[batch, 144, 16]).unwrap()];
            let error = error(&module, &compiled.executable, batch as i64, &inputs);
            assert!(error < 1e-4, "{stride} {dilation} {offset} {repeats} {batch}: {error:.1e}\n{plan}");
        }
    }
}

/// There may be no row at all, and then nothing is read: only where rows are known to be is what they read copied as an image.
#[test]
fn rows_that_may_be_none_are_copied_by_taps() {
    let text = |rows: &str| {
        format!(
            "ncd 0.1 \"rows\"
axis p{rows}   axis n = 9*p*p   axis h = 3*p   axis w = 3*p   axis d = 16   axis c = 32   axis e = 3
fn @f(%x: f32[n, d], %p: f32[p], %k: f32[c, e, e]) -> f32[p, p, c] {{
  %i = view %x[|w| * h + w, d] -> [h, w, d]
  %y = dot order=(e, e') : %i[p + {{e}}, p' + {{e'}}, c // 2] else 0, %k[c, {{e}}, {{e'}}] -> [p, p', c]
  return %y
}}
"
        )
    };
    for (rows, is_image) in [("", false), (" = 4", true)] {
        let plan = Compiler::new().plan(with_weights(&text(rows), 5)).unwrap().plan.to_string();
        let copy = plan.lines().find(|line| line.contains(": loop over") && line.contains("operand of"));
        assert_eq!(copy.map(|copy| copy.contains("i4")), Some(!is_image), "{plan}");
    }
}
