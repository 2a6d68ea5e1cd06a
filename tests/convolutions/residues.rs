//! Transposed convolutions, which have a kernel for each residue of the positions of their results, and convolutions whose taps lie
//! in the padding: compiled and compared with the interpreter, for strides, kernels, dilations and paddings of many kinds.

use super::error;
use crate::with_weights;
use strang::{
    Compiler, ElementType,
    ir::interpret::{Arithmetic, interpret},
    random::{self, Random},
};

/// A transposed convolution with a bias and a skip connection.
#[derive(Clone, Copy, Debug)]
struct Case {
    strides: [i64; 2],
    taps: [i64; 2],
    dilation: i64,
    padding: i64,
    /// Positions more than the taps reach.
    extra: i64,
    channels: [i64; 2],
}

const PLAIN: Case = Case { strides: [2, 2], taps: [4, 4], dilation: 1, padding: 1, extra: 0, channels: [16, 24] };

const CASES: &[Case] = &[
    PLAIN,
    Case { taps: [2, 2], padding: 0, ..PLAIN },
    Case { taps: [3, 3], extra: 1, ..PLAIN },
    Case { taps: [3, 3], ..PLAIN },
    Case { strides: [1, 3], taps: [3, 5], padding: 2, ..PLAIN },
    Case { strides: [4, 1], taps: [8, 3], ..PLAIN },
    Case { taps: [3, 3], dilation: 3, padding: 2, ..PLAIN },
    // Taps that share a divisor with the stride, and residues that no tap reaches: one kernel.
    Case { taps: [3, 3], dilation: 2, ..PLAIN },
    Case { strides: [3, 3], taps: [2, 2], padding: 0, ..PLAIN },
    Case { channels: [16, 1], ..PLAIN },
    Case { channels: [3, 5], ..PLAIN },
    // More residues than kernels are made for: they become channels.
    Case { strides: [70, 1], taps: [140, 1], padding: 0, channels: [8, 16], ..PLAIN },
];

impl Case {
    fn extent(&self, axis: usize, inputs: i64) -> i64 {
        (inputs - 1) * self.strides[axis] + self.dilation * (self.taps[axis] - 1) + 1 - 2 * self.padding + self.extra
    }

    /// How many kernels it has.
    fn kernels(&self) -> i64 {
        let alone = |axis: &usize| {
            let (stride, taps) = (self.strides[*axis], self.taps[*axis]);
            let coprime = self.dilation == 1 || stride % self.dilation != 0 && self.dilation % stride != 0;
            stride == 1 || coprime && taps >= stride
        };
        let kernels = self.strides.iter().product();
        if kernels <= 64 && [0, 1].iter().all(alone) { kernels } else { 1 }
    }

    fn text(&self, [height, width]: [i64; 2]) -> String {
        let Case { dilation, padding, .. } = self;
        let [p, q] = [self.extent(0, height), self.extent(1, width)];
        let position = |result: &str, tap: &str, axis: usize| {
            let reach = format!("{result} - {dilation}*{tap} + {padding}");
            let stride = self.strides[axis];
            if stride == 1 { reach } else { format!("({reach}) // {stride}") }
        };
        let conditions: Vec<String> = [("p", "e"), ("q", "f")]
            .iter()
            .zip(self.strides)
            .filter(|(_, stride)| *stride > 1)
            .map(|((result, tap), stride)| format!("({result} - {dilation}*{tap} + {padding}) % {stride} == 0"))
            .collect();
        let conditions =
            if conditions.is_empty() { String::new() } else { format!(" where {}", conditions.join(" and ")) };
        format!(
            "ncd 0.1 \"transposed\"
axis b   axis d = {}   axis c = {}   axis h = {height}   axis w = {width}   axis p = {p}   axis q = {q}   axis e = {}   axis f = {}
param @k: f32[d, c, e, f]   param @bias: f32[c]
fn @f(%x: f32[b, d, h, w], %skip: f32[b, c, p, q]) -> f32[b, c, p, q] {{
  %y = dot order=(e, f, d) : %x[b, {{d}}, {}, {}]{conditions} else 0, @k[{{d}}, c, {{e}}, {{f}}] -> [b, c, p, q]
  %r = map relu($0 + $1) + $2 : %y[b, c, p, q], @bias[c], %skip[b, c, p, q] -> [b, c, p, q]
  return %r
}}
",
            self.channels[0],
            self.channels[1],
            self.taps[0],
            self.taps[1],
            position("p", "{e}", 0),
            position("q", "{f}", 1),
        )
    }
}

#[test]
fn transposed_convolutions_have_a_kernel_for_every_residue() {
    for case in CASES {
        for sizes in [[5, 6], [8, 3], [3, 4]] {
            let text = case.text(sizes);
            let module = with_weights(&text, 7);
            // With few channels, residues become channels; both ways are compared.
            let compiler = || Compiler::new().without("residues-as-channels").without("neighbours-as-channels");
            let plan = compiler().plan(module.clone()).unwrap().plan.to_string();
            let kernels = plan.matches(": gemm").count() as i64;
            assert_eq!(kernels, case.kernels(), "{case:?}: {plan}");
            let [apart, free] = [compiler(), Compiler::new()].map(|compiler| compiler.compile(module.clone()).unwrap());
            for (batch, compiled) in [(1, &apart), (2, &apart), (1, &free), (2, &free)] {
                let shape =
                    |[channels, height, width]: [i64; 3]| [batch, channels, height, width].map(|size| size as usize);
                let results = [case.channels[1], case.extent(0, sizes[0]), case.extent(1, sizes[1])];
                let inputs = [shape([case.channels[0], sizes[0], sizes[1]]), shape(results)]
                    .map(|shape| random::tensor(&mut Random::new(9), ElementType::F32, &shape).unwrap());
                let error = error(&module, &compiled.executable, batch, &inputs);
                assert!(error < 1e-4, "{case:?} {sizes:?} {batch}: {error:.1e}\n{text}{plan}");
            }
        }
    }
}

/// Dilated convolutions, most of whose taps lie in the padding: results that read the same taps have a kernel, and all kernels read
/// one copy of the weights.
#[test]
fn results_near_a_border_have_kernels_without_padding() {
    for (size, dilation, taps, stride, kernels) in [
        (14, 12, 3, 1, 9),
        (20, 14, 3, 1, 9),
        (33, 18, 3, 1, 9),
        (28, 24, 3, 2, 9),
        (21, 10, 5, 1, 25),
        (12, 5, 5, 1, 1),
        (14, 2, 3, 1, 1),
    ] {
        let padding = dilation * (taps - 1) / 2;
        let results = (size - 1) / stride + 1;
        let text = format!(
            "ncd 0.1 \"dilated\"
axis b   axis d = 16   axis c = 32   axis h = {size}   axis w = {size}   axis p = {results}   axis q = {results}   axis e = {taps}
param @k: f32[c, d, e, e]   param @bias: f32[c]
fn @f(%x: f32[b, d, h, w]) -> f32[b, c, p, q] {{
  %y = dot order=(e, e', d) : %x[b, {{d}}, {stride}*p + {dilation}*{{e}} - {padding}, {stride}*q + {dilation}*{{e'}} - {padding}] else 0, @k[c, {{d}}, {{e}}, {{e'}}] -> [b, c, p, q]
  %r = map relu($0 + $1) : %y[b, c, p, q], @bias[c] -> [b, c, p, q]
  return %r
}}
"
        );
        let module = with_weights(&text, 7);
        let plan = Compiler::new().without("winograd-two-results").plan(module.clone()).unwrap().plan.to_string();
        assert_eq!(plan.matches(": gemm").count(), kernels, "{size} {dilation}: {plan}");
        assert_eq!(plan.matches("weights").count(), 2, "{size} {dilation}: {plan}");
        let compiled = Compiler::new().compile(module.clone()).unwrap();
        let input = random::tensor(&mut Random::new(9), ElementType::F32, &[2, 16, size, size]).unwrap();
        let error = error(&module, &compiled.executable, 2, &[input]);
        assert!(error < 1e-4, "{size} {dilation} {taps} {stride}: {error:.1e}\n{text}{plan}");
    }
}

/// Channels by themselves are computed along rows, which skip what lies in the padding: many kernels would only be in the way.
#[test]
fn channels_by_themselves_stay_one_kernel() {
    let text = "ncd 0.1 \"dilated\"
axis c = 32   axis h = 33   axis w = 33   axis e = 3
param @k: f32[c, e, e]
fn @f(%x: f32[h, w, c]) -> f32[h, w, c] {
  %y = dot order=(e, e') : %x[h + 18*{e} - 18, w + 18*{e'} - 18, c] else 0, @k[c, {e}, {e'}] -> [h, w, c]
  return %y
}
";
    let module = with_weights(text, 7);
    let plan = Compiler::new().plan(module.clone()).unwrap().plan.to_string();
    assert_eq!((plan.matches(": depthwise").count(), plan.matches(": loop").count()), (1, 1), "{plan}");
    let input = random::tensor(&mut Random::new(9), ElementType::F32, &[33, 33, 32]).unwrap();
    let expected = interpret(&module, std::slice::from_ref(&input), Arithmetic::Wide).unwrap()[0].to_f64();
    let found = Compiler::new().compile(module).unwrap().executable.run(&[input]).unwrap()[0].to_f64();
    let error = expected.iter().zip(found).map(|(a, b)| (a - b).abs()).fold(0., f64::max);
    assert!(error < 1e-4, "{error:.1e}\n{plan}");
}

/// Codes stand between the positions of an input of bytes: zeros are skipped, others are multiplied by the taps that read them.
#[test]
fn what_lies_between_positions_counts_unless_it_is_zero() {
    for (fill, kernels) in [(0, 2), (3, 1)] {
        let text = format!(
            "ncd 0.1 \"bytes\"
axis a = 7   axis b = 16   axis h = 14   axis c = 20   axis e = 4
param @k: i8[e, c, b]
fn @f(%x: u8[a, b]) -> i32[h, c] {{
  %y = dot order=(e, b) : %x[(h - {{e}} + 1) // 2, {{b}}] where (h - e + 1) % 2 == 0 else {fill}, @k[{{e}}, c, {{b}}] -> [h, c]
  return %y
}}
"
        );
        let module = with_weights(&text, 7);
        let plan = Compiler::new().plan(module.clone()).unwrap().plan.to_string();
        assert_eq!(plan.matches(": gemm of bytes").count(), kernels, "{fill}: {plan}");
        let input = random::tensor(&mut Random::new(9), ElementType::U8, &[7, 16]).unwrap();
        let expected = interpret(&module, std::slice::from_ref(&input), Arithmetic::Typed).unwrap();
        let found = Compiler::new().compile(module).unwrap().executable.run(&[input]).unwrap();
        assert!(found[0].bytes() == expected[0].bytes(), "{fill}: {plan}");
    }
}
