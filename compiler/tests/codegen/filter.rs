//! Convolutions of bytes with three by three taps: computed with fewer products where the CPU is better off with it, to the
//! same bytes.

use super::depthwise::{BYTE_FINISHES, finish_of_bytes};
use super::harness::{Aligned, Callable, access, check, f32s, kernel};
use strang_compiler::{
    codegen::{Target, emit_kernel},
    plan::kernel::{Body, Gemm, Kernel, LoopVariable, RightOperand, Store},
};
use strang_ir::{Bindings, ElementType, Size};
use strang_runtime::kernels::{Level, bytes::filter_memory};

/// A convolution of images of `[batch, lines, pixels]` of so many channels to so many others, with a window of so many taps a
/// side, a stride and so many numbers between the lines of its result.
#[derive(Clone, Copy, Debug)]
struct Convolution {
    image: [i64; 3],
    channels: [i64; 2],
    window: i64,
    step: i64,
    gap: i64,
    finish: usize,
}

impl Convolution {
    fn kernel(&self) -> (Kernel, Vec<Vec<u8>>) {
        let Convolution { image: [batch, lines, pixels], channels: [depth, columns], window, step, gap, .. } = *self;
        let line = ((pixels - 1) * step + window) * depth;
        let image = ((lines - 1) * step + window) * line;
        let each = (columns + 15) / 16 * 16 * ((depth + 3) / 4 * 4);
        let result_line = pixels * columns + gap;
        let dense = [(0, lines * result_line), (1, result_line), (2, columns), (3, 1)];
        let (finish, value, result) = finish_of_bytes(self.finish);
        let of_columns = [(3, 1)];
        let a = [(0, image), (1, step * line), (2, step * depth), (4, line), (5, depth), (6, 1)];
        let accesses = vec![
            access(0, ElementType::U8, &a, 0),
            access(1, ElementType::I8, &[(4, window * each), (5, each)], 0),
            access(2, ElementType::I32, &of_columns, 0),
            access(3, ElementType::F32, &of_columns, 0),
            access(4, ElementType::U8, &dense, 0),
            access(5, result, &dense, 0),
        ];
        let body = Gemm {
            batch: vec![0, 1],
            rows: 2,
            columns: 3,
            taps: vec![4, 5],
            depth: 6,
            a: 0,
            b: RightOperand::Packed(1),
            finish,
            stores: vec![Store { access: 5, value, combine: None }],
        };
        let sizes = [batch, lines, pixels, columns, window, window, depth].map(Size::from);
        let bytes = |count: i64, factor: i64| (0..count).map(|place| (place * factor + place / 251) as u8).collect();
        let results = batch * lines * result_line;
        let memory = vec![
            bytes(batch * image, 37),
            bytes(window * window * each, 91),
            (0..columns as i32).flat_map(|column| (column * 31 - 400).to_ne_bytes()).collect(),
            f32s((0..columns).map(|column| 0.0001 + column as f32 * 1e-6)),
            bytes(results, 53),
            vec![0; (results * i64::from(result.bits()) / 8) as usize],
        ];
        (kernel(&sizes, accesses, Body::Gemm(body)), memory)
    }
}

/// Scratch memory of code for CPUs with AVX2, in bytes.
fn scratch(kernel: &Kernel) -> i64 {
    let emitted = emit_kernel(kernel, &Target::named("x86-64-v3").unwrap()).unwrap().unwrap();
    emitted.scratch.as_constant().unwrap()
}

const IMAGE: Convolution = Convolution { image: [1, 8, 9], channels: [64, 48], window: 3, step: 1, gap: 0, finish: 1 };

#[test]
fn convolutions_are_their_definition_at_every_level() {
    for (place, (image, channels)) in [
        ([1, 7, 7], [32, 32]),
        ([2, 7, 9], [64, 70]),
        ([1, 3, 24], [32, 150]),
        ([1, 15, 3], [96, 33]),
        ([1, 2, 61], [288, 32]),
    ]
    .into_iter()
    .enumerate()
    {
        for finish in 0..BYTE_FINISHES {
            let gap = [0, 48][(place + finish) % 2];
            let convolution = Convolution { image, channels, gap, finish, ..IMAGE };
            let (kernel, memory) = convolution.kernel();
            check(&kernel, &memory, &Bindings::new(), &[]).unwrap_or_else(|text| panic!("{convolution:?}: {text}"));
            // Each level to the same bytes.
            let outputs: Vec<Vec<u8>> = (Level::available().into_iter())
                .map(|level| {
                    let mut memory: Vec<Aligned> = memory.iter().map(|bytes| Aligned::new(bytes)).collect();
                    let callable = Callable::at_level(&kernel, level).unwrap();
                    assert_eq!(callable.run(&mut memory, &Bindings::new(), &[], place % 2 == 0), 0);
                    memory[5].content().to_vec()
                })
                .collect();
            assert!(outputs.iter().all(|output| *output == outputs[0]), "{convolution:?}");
        }
    }
}

#[test]
fn what_pays_is_filtered() {
    let is_filtered = |convolution: Convolution| {
        let depth = convolution.channels[0] as usize;
        scratch(&convolution.kernel().0) >= filter_memory(2, 2, depth) as i64
    };
    assert!(is_filtered(IMAGE));
    assert!(is_filtered(Convolution { channels: [48, 48], ..IMAGE }));
    // Generated code goes on from what it finds in scratch memory.
    assert!(is_filtered(Convolution { finish: 3, ..IMAGE }));
    for other in [
        Convolution { window: 2, ..IMAGE },
        Convolution { step: 2, ..IMAGE },
        Convolution { channels: [40, 48], ..IMAGE },
        Convolution { channels: [64, 16], ..IMAGE },
        Convolution { image: [1, 2, 4], ..IMAGE },
    ] {
        assert!(!is_filtered(other), "{other:?}");
    }
}

#[test]
fn open_sizes_are_not_filtered() {
    let (mut kernel, memory) = IMAGE.kernel();
    kernel.variables[1] = LoopVariable::Loop(Size::symbol("lines"));
    assert!(scratch(&kernel) < filter_memory(2, 2, 64) as i64);
    let bindings: Bindings = [("lines".into(), IMAGE.image[1])].into_iter().collect();
    check(&kernel, &memory, &bindings, &[]).unwrap();
}
