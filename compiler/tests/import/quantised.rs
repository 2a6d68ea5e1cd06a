//! Quantised operators: signed bytes, which are read as unsigned ones, and the operators of ONNX Runtime's quantiser.

use super::models::{FLOAT, encode, floats, graph, int, model, node, port};
use strang_compiler::import::onnx::{
    ImportOptions, load_bytes,
    proto::{NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto},
};
use strang_ir::{
    Tensor,
    interpret::{Arithmetic, interpret},
};

const U8: i32 = 2;
const I8: i32 = 3;
const I32: i32 = 6;

/// A constant of integers of a type.
fn whole(name: &str, data_type: i32, dims: &[i64], values: &[i32]) -> TensorProto {
    TensorProto { name: name.into(), dims: dims.to_vec(), data_type, int32_data: values.to_vec(), ..Default::default() }
}

fn scale(name: &str, value: f32) -> TensorProto {
    floats(name, &[], &[value])
}

/// An operator of ONNX Runtime.
fn extension(operator: &str, inputs: &str, outputs: &str) -> NodeProto {
    NodeProto { domain: "com.microsoft".into(), ..node(operator, inputs, outputs, &[]) }
}

/// The result of a model, as numbers.
fn run(inputs: &[(ValueInfoProto, Tensor)], constants: &[TensorProto], nodes: &[NodeProto]) -> Vec<f64> {
    let ports: Vec<ValueInfoProto> = inputs.iter().map(|(port, _)| port.clone()).collect();
    let mut model = model(graph(&ports, constants, nodes), 21);
    model.opset_import.push(OperatorSetIdProto { domain: "com.microsoft".into(), version: 1 });
    let module = load_bytes(&encode(&model), None, &ImportOptions::default()).unwrap();
    let values: Vec<Tensor> = inputs.iter().map(|(_, value)| value.clone()).collect();
    interpret(&module, &values, Arithmetic::Typed).unwrap()[0].to_f64()
}

fn code(x: f64, scale: f64, zero: f64, range: [f64; 2]) -> f64 {
    ((x / scale).round_ties_even() + zero).clamp(range[0], range[1])
}

/// There and back, and the signed bytes themselves, for zero points of both signs and none.
#[test]
fn signed_bytes_are_what_they_say() {
    let numbers: Vec<f32> = (-40..40).map(|place| place as f32 * 0.37).collect();
    let x = || (port("x", FLOAT, &[80]), Tensor::from_slice(&[80], &numbers).unwrap());
    for (zero, name) in [(-128, "z"), (0, "z"), (7, "z"), (127, "z")] {
        let constants = [scale("s", 0.125), whole("z", I8, &[], &[zero])];
        let quantise = node("QuantizeLinear", &format!("x s {name}"), "q", &[]);
        let codes: Vec<f64> =
            numbers.iter().map(|x| code(f64::from(*x), 0.125, f64::from(zero), [-128., 127.])).collect();
        let back = node("DequantizeLinear", "q s z", "y", &[]);
        let expected: Vec<f64> = codes.iter().map(|code| (code - f64::from(zero)) * 0.125).collect();
        assert_eq!(run(&[x()], &constants, &[quantise, back]), expected, "{zero}");
        let itself = node("QuantizeLinear", "x s z", "y", &[]);
        assert_eq!(run(&[x()], &constants, &[itself]), codes, "{zero}");
    }
}

/// A zero point for each channel: nothing is read as something else.
#[test]
fn signed_bytes_of_channels() {
    let numbers: Vec<f32> = (0..6).map(|place| place as f32 - 2.).collect();
    let x = (port("x", FLOAT, &[3, 2]), Tensor::from_slice(&[3, 2], &numbers).unwrap());
    let constants = [floats("s", &[3], &[1., 0.5, 2.]), whole("z", I8, &[3], &[3, -4, 0])];
    let nodes = [
        node("QuantizeLinear", "x s z", "q", &[int("axis", 0)]),
        node("DequantizeLinear", "q s z", "y", &[int("axis", 0)]),
    ];
    assert_eq!(run(&[x], &constants, &nodes), [-2., -1., 0., 1., 2., 4.]);
}

/// A convolution of signed bytes into signed bytes, which another reads.
#[test]
fn convolutions_of_signed_bytes() {
    let x = (port("x", I8, &[1, 1, 3]), Tensor::from_slice(&[1, 1, 3], &[-128i8, 5, 127]).unwrap());
    let constants = [
        scale("s", 0.5),
        whole("z", I8, &[], &[-3]),
        whole("w", I8, &[1, 1, 1], &[2]),
        scale("ws", 1.),
        whole("wz", I8, &[], &[0]),
        scale("ys", 2.),
    ];
    let nodes =
        [node("QLinearConv", "x s z w ws wz ys z", "h", &[]), node("QLinearConv", "h ys z w ws wz ys z", "y", &[])];
    // (q + 3) 0.5 2 / 2 - 3, then (q + 3) 2 2 / 2 - 3.
    let first = |q: f64| code((q + 3.) * 0.5 * 2., 2., -3., [-128., 127.]);
    let second = |q: f64| code((q + 3.) * 2. * 2., 2., -3., [-128., 127.]);
    let expected: Vec<f64> = [-128., 5., 127.].map(|q| second(first(q))).into();
    assert_eq!(run(&[x], &constants, &nodes), expected);
}

/// Every operator of the quantiser, against its definition; of both types.
#[test]
fn operators_of_the_quantiser() {
    const X: [i32; 8] = [0, 1, 2, 50, 100, 101, 126, 127];
    const Y: [i32; 8] = [9, 127, 64, 3, 77, 0, 31, 8];
    for (element, range) in [(U8, [0., 255.]), (I8, [-128., 127.])] {
        let of = |values: [i32; 8]| match element {
            U8 => Tensor::from_slice(&[1, 2, 2, 2], &values.map(|value| value as u8)).unwrap(),
            _ => Tensor::from_slice(&[1, 2, 2, 2], &values.map(|value| value as i8)).unwrap(),
        };
        let inputs = [(port("x", element, &[1, 2, 2, 2]), of(X)), (port("b", element, &[1, 2, 2, 2]), of(Y))];
        let constants = [
            scale("s", 0.25),
            whole("z", element, &[], &[20]),
            scale("t", 0.5),
            whole("u", element, &[], &[3]),
            scale("r", 2.),
            whole("v", element, &[], &[11]),
        ];
        let x = X.map(|x| (f64::from(x) - 20.) * 0.25);
        let y = Y.map(|y| (f64::from(y) - 3.) * 0.5);
        let codes = |values: &[f64]| -> Vec<f64> { values.iter().map(|x| code(*x, 2., 11., range)).collect() };
        let both = |function: fn(f64, f64) -> f64| -> Vec<f64> { (0..8).map(|i| function(x[i], y[i])).collect() };
        let leaky = |x: f64| if x < 0. { x * f64::from(0.01f32) } else { x };
        let mean = |part: &[f64]| part.iter().sum::<f64>() / 4.;
        let sides: Vec<f64> = x.iter().chain(&y).copied().collect();
        for (operator, inputs_of, expected) in [
            ("QLinearAdd", "x s z b t u r v", both(|x, y| x + y)),
            ("QLinearMul", "x s z b t u r v", both(|x, y| x * y)),
            ("QLinearSigmoid", "x s z r v", x.map(|x| 1. / (1. + (-x).exp())).into()),
            ("QLinearLeakyRelu", "x s z r v", x.map(leaky).into()),
            ("QLinearGlobalAveragePool", "x s z r v", x.chunks(4).map(mean).collect()),
            ("QLinearConcat", "r v x s z b t u", sides),
        ] {
            let mut apply = extension(operator, inputs_of, "y");
            if operator == "QLinearConcat" {
                apply.attribute.push(int("axis", 0));
            }
            // Both are used, so that no input is left out.
            let nodes = [apply];
            let given = &inputs[..if inputs_of.contains(" b") { 2 } else { 1 }];
            assert_eq!(run(given, &constants, &nodes), codes(&expected), "{operator}");
        }
    }
}

/// A product with weights that lie transposed, each column with a scale, and a bias; as codes and as floats.
#[test]
fn product_of_the_quantiser() {
    let x = || (port("x", U8, &[1, 3]), Tensor::from_slice(&[1, 3], &[7u8, 0, 255]).unwrap());
    let constants = [
        scale("s", 0.5),
        whole("z", U8, &[], &[5]),
        whole("w", I8, &[2, 3], &[1, -2, 3, 100, 0, -128]),
        floats("ws", &[2], &[0.5, 0.25]),
        whole("wz", I8, &[2], &[0, 0]),
        whole("c", I32, &[2], &[10, -20]),
        scale("r", 16.),
        whole("v", U8, &[], &[100]),
    ];
    let sums = [2. + 10. + 750. + 10., 200. - 250. * 128. - 20.];
    let numbers = [sums[0] * 0.25, sums[1] * 0.125];
    let mut product = extension("QGemm", "x s z w ws wz c r v", "y");
    product.attribute.push(int("transB", 1));
    let codes: Vec<f64> = numbers.iter().map(|number| code(*number, 16., 100., [0., 255.])).collect();
    assert_eq!(run(&[x()], &constants[..], &[product.clone()]), codes);
    product.input.truncate(7);
    assert_eq!(run(&[x()], &constants[..6], &[product]), numbers);
}

#[test]
fn other_extensions_are_refused() {
    let x = port("x", FLOAT, &[4]);
    let mut model = model(graph(&[x], &[], &[extension("FastGelu", "x", "y")]), 21);
    model.opset_import.push(OperatorSetIdProto { domain: "com.microsoft".into(), version: 1 });
    let error = load_bytes(&encode(&model), None, &ImportOptions::default()).unwrap_err().to_string();
    assert!(error.contains("extension of ONNX Runtime"), "{error}");
}

/// Weights of a few bits, in blocks that have a scale each and zero points of several kinds, against their definition.
#[test]
fn product_with_codes_of_few_bits() {
    const DEPTH: usize = 40;
    const COLUMNS: usize = 3;
    const BLOCKS: usize = 3;
    let numbers: Vec<f32> = (0..2 * DEPTH).map(|place| (place * 7 % 23) as f32 - 11.).collect();
    let x = || (port("x", FLOAT, &[2, DEPTH as i64]), Tensor::from_slice(&[2, DEPTH], &numbers).unwrap());
    let scales: Vec<f32> = (0..COLUMNS * BLOCKS).map(|place| 0.25 + place as f32 / 8.).collect();
    for bits in [4usize, 8] {
        let most = 1 << bits;
        let code = |column: usize, k: usize| (column * 31 + k * 11) % most;
        let zero_point = |column: usize, block: usize| (column * 5 + block * 3) % most;
        // Codes of four bits lie two in a byte, the first in the lower half.
        let packed = |count: usize, of_column: usize, code: &dyn Fn(usize, usize) -> usize| -> Vec<i32> {
            let codes = |column: usize| -> Vec<i32> {
                (0..of_column).map(|k| if k < count { code(column, k) as i32 } else { 0 }).collect()
            };
            let together = |codes: Vec<i32>| {
                codes.chunks(8 / bits).map(|pair| pair.iter().rev().fold(0, |byte, code| byte << 4 | code)).collect()
            };
            (0..COLUMNS)
                .flat_map(|column| -> Vec<i32> {
                    if bits == 8 { codes(column) } else { together(codes(column)) }
                })
                .collect()
        };
        let codes = packed(DEPTH, BLOCKS * 16, &code);
        let zeros = packed(BLOCKS, BLOCKS.next_multiple_of(8 / bits), &zero_point);
        let of_floats: Vec<f32> =
            (0..COLUMNS * BLOCKS).map(|place| zero_point(place / BLOCKS, place % BLOCKS) as f32 + 0.5).collect();
        let constants = [
            whole("codes", U8, &[COLUMNS as i64, BLOCKS as i64, (2 * bits) as i64], &codes),
            floats("scales", &[(COLUMNS * BLOCKS) as i64], &scales),
            whole("zeros", U8, &[zeros.len() as i64], &zeros),
            floats("floats", &[(COLUMNS * BLOCKS) as i64], &of_floats),
            floats("bias", &[COLUMNS as i64], &[1., 2., 3.]),
        ];
        for (inputs, zero) in [
            ("x codes scales", (most / 2) as f64),
            ("x codes scales zeros", -1.),
            ("x codes scales floats", -2.),
            ("x codes scales zeros - bias", -1.),
        ] {
            let mut product = extension("MatMulNBits", "x", "y");
            product.input = inputs.split(' ').map(|name| name.trim_matches('-').into()).collect();
            let sizes = [("K", DEPTH), ("N", COLUMNS), ("bits", bits), ("block_size", 16), ("accuracy_level", 4)];
            product.attribute.extend(sizes.map(|(name, size)| int(name, size as i64)));
            let used: Vec<TensorProto> =
                constants.iter().filter(|tensor| product.input.contains(&tensor.name)).cloned().collect();
            let number = |column: usize, k: usize| {
                let zero = match zero {
                    -1. => zero_point(column, k / 16) as f64,
                    -2. => f64::from(of_floats[column * BLOCKS + k / 16]),
                    zero => zero,
                };
                (code(column, k) as f64 - zero) * f64::from(scales[column * BLOCKS + k / 16])
            };
            let expected: Vec<f64> = (0..2 * COLUMNS)
                .map(|place| {
                    let (row, column) = (place / COLUMNS, place % COLUMNS);
                    let sum: f64 = (0..DEPTH).map(|k| f64::from(numbers[row * DEPTH + k]) * number(column, k)).sum();
                    sum + if inputs.ends_with("bias") { column as f64 + 1. } else { 0. }
                })
                .collect();
            // All numbers are small multiples of powers of two: exact.
            assert_eq!(run(&[x()], &used, &[product]), expected, "{bits} bits, {inputs}");
        }
    }
}
