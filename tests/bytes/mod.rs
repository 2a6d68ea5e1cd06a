//! Quantised models on integer dot products: what is computed is what the circuit says, and it is bytes that are multiplied.

use strang::{
    Compiler, Tensor,
    ir::{
        Module,
        interpret::{Arithmetic, interpret},
        text::parse_verified,
    },
    random::{self, Random},
};

fn block() -> Module {
    module(include_str!("block.ncd"))
}

fn module(text: &str) -> Module {
    let (mut module, _) = parse_verified(text, "circuit.ncd").unwrap_or_else(|e| panic!("{}", e.render()));
    let mut random = Random::new(5);
    for parameter in &mut module.parameters {
        let sizes: Vec<usize> = parameter.axes.iter().map(|axis| axis.size.as_constant().unwrap() as usize).collect();
        let mut data = random::tensor(&mut random, parameter.element, &sizes).unwrap();
        if *parameter.name == *"wide" {
            data.as_mut_slice::<f32>().unwrap().iter_mut().for_each(|value| *value = value.abs() * 0.01 + 0.002);
        }
        parameter.data = Some(data);
    }
    module
}

fn inputs(rows: usize) -> Vec<Tensor> {
    let mut random = Random::new(6);
    let image = random::tensor(&mut random, strang::ElementType::F32, &[rows, 32, 9, 9]).unwrap();
    let side = random::tensor(&mut random, strang::ElementType::U8, &[rows, 64, 5, 5]).unwrap();
    vec![image, side]
}

#[test]
fn products_of_dequantised_numbers_are_products_of_bytes() {
    let planned = Compiler::new().plan(block()).unwrap();
    let text = planned.plan.to_string();
    let products: Vec<&str> = text.lines().filter(|line| line.contains(": gemm")).collect();
    assert_eq!(products.len(), 2, "{text}");
    assert!(products.iter().all(|line| line.contains("gemm of bytes")), "{text}");
    // No array of floats lies between them, nor the padded image.
    assert!(!text.contains("operand of"), "{text}");
}

#[test]
fn bytes_give_what_the_circuit_says() {
    let module = block();
    for rows in [1, 3] {
        let inputs = inputs(rows);
        let expected = interpret(&module, &inputs, Arithmetic::Typed).unwrap();
        let compiled = Compiler::new().compile(module.clone()).unwrap().executable.run(&inputs).unwrap();
        // Scales are multiplied in another order: a number next to a half may be rounded to the other side.
        let steps = |a: &Tensor, b: &Tensor| -> Vec<f64> {
            a.to_f64().iter().zip(b.to_f64()).map(|(a, b)| (a - b).abs()).collect()
        };
        let pooled = steps(&compiled[0], &expected[0]);
        assert!(pooled.iter().all(|step| *step <= 1.), "{pooled:?}");
        assert!(pooled.iter().filter(|step| **step > 0.).count() * 50 <= pooled.len(), "{pooled:?}");
        let scale = expected[1].to_f64().iter().fold(0f64, |most, value| most.max(value.abs()));
        assert!(steps(&compiled[1], &expected[1]).iter().all(|step| *step <= 0.02 * scale));
    }
}

/// What the kernel of bytes must leave to others: finishes without the sum, zeros that are no whole numbers, sums of weights
/// alone, and windows of which no position is inside.
#[test]
fn odd_circuits_give_what_they_say() {
    let head = "ncd 0.1 \"odd\"\naxis n = 16   axis m = 16   axis k = 2   axis j = 3\nparam @w: i8[m, n]\n";
    for body in [
        "fn @f(%x: u8[j, n]) -> i32[j, m] {
  %p = dot %x[j, {n}], @w[m, {n}] -> [j, m]
  %y = map $0 * 0 + 3 : %p[j, m] -> [j, m]
  return %y
}",
        "fn @f(%x: u8[j, n]) -> u8[j, m] {
  %p = dot %x[j, {n}], @w[m, {n}] -> [j, m]
  %y = map cast(u8, round(cast(f32, $0) * 0.001) + 0.5) : %p[j, m] -> [j, m]
  return %y
}",
        "fn @f(%x: u8[j]) -> i32[j, m] {
  %y = dot %x[j], @w[m, {n}] -> [j, m]
  return %y
}",
        "fn @f(%x: u8[k, k]) -> f32[j] {
  %t = map cast(f32) : %x[k, k'] -> [k, k']
  %y = reduce max : %t[{k} + j - 1, 2 - j - {k}] else -inf -> [j]
  return %y
}",
    ] {
        let module = module(&format!("{head}{body}\n"));
        let mut random = Random::new(7);
        let entry = module.entry();
        let shape: Vec<usize> =
            entry.shape_of(entry.inputs[0].into()).iter().map(|size| size.as_constant().unwrap() as usize).collect();
        let inputs = [random::tensor(&mut random, strang::ElementType::U8, &shape).unwrap()];
        let expected = interpret(&module, &inputs, Arithmetic::Typed).unwrap();
        let found = Compiler::new().compile(module).unwrap().executable.run(&inputs).unwrap();
        assert_eq!(found[0].to_f64(), expected[0].to_f64(), "{body}");
    }
}

/// A first convolution: three channels are no depth, but a row of the window is.
#[test]
fn a_window_over_few_channels_is_read_row_by_row() {
    let circuit = |element: &str, image: &str, weights: &str| {
        format!(
            "ncd 0.1 \"first\"
axis n = 1   axis c = 3   axis h = 9   axis w = 8   axis p = 5   axis q = 4   axis r = 7   axis s = 7   axis m = 20
param @w: {element}[m, c, r, s]
fn @f(%x: f32[n, c, h, w]) -> f32[n, m, p, q] {{
  {image}
  {weights}
  %z = dot order=(r, s, c) : %i[n, {{c}}, 2*p + {{r}} - 3, 2*q + {{s}} - 3] else 0, %k[m, {{c}}, {{r}}, {{s}}] -> [n, m, p, q]
  %y = map cast(f32) : %z[n, m, p, q] -> [n, m, p, q]
  return %y
}}
"
        )
    };
    let bytes = circuit(
        "i8",
        "%b = map cast(u8, round($0 * 50) + 125) : %x[n, c, h, w] -> [n, c, h, w]
  %i = map cast(i32, $0) - 125 : %b[n, c, h, w] -> [n, c, h, w]",
        "%k = map cast(i32) : @w[m, c, r, s] -> [m, c, r, s]",
    );
    let floats =
        circuit("f32", "%i = map $0 : %x[n, c, h, w] -> [n, c, h, w]", "%k = map $0 : @w[m, c, r, s] -> [m, c, r, s]");
    for (text, kernel) in [(bytes, ": gemm of bytes"), (floats, ": gemm batch")] {
        let module = module(&text);
        let plan = Compiler::new().plan(module.clone()).unwrap().plan.to_string();
        let is_one_run = |line: &str| line.contains(kernel) && line.contains("< 7] depth") && line.contains("< 21]");
        assert!(plan.lines().any(is_one_run), "{plan}");
        let inputs = [random::tensor(&mut Random::new(8), strang::ElementType::F32, &[1, 3, 9, 8]).unwrap()];
        let expected = interpret(&module, &inputs, Arithmetic::Typed).unwrap();
        let found = Compiler::new().compile(module).unwrap().executable.run(&inputs).unwrap();
        for (found, expected) in found[0].to_f64().iter().zip(expected[0].to_f64()) {
            assert!((found - expected).abs() <= 1e-4, "{found} for {expected}\n{plan}");
        }
    }
}

/// Functions of one byte between a product and what comes after it: a residual that is added to bytes or to floats, on either side,
/// in unsigned or signed bytes; what the byte stands for as the result; another byte beside.
#[test]
fn functions_of_bytes_come_before_a_residual() {
    let head = "ncd 0.1 \"swish\"\naxis n = 40   axis m = 70   axis j = 9\nparam @w: i8[m, n]
fn @f(%x: u8[j, n], %r: u8[j, m], %s: f32[j, m]) -> TYPE[j, m] {
  %p = dot %x[j, {n}], @w[m, {n}] -> [j, m]
  %q = map cast(u8, round(cast(f32, $0) * 0.002) + 128.0) : %p[j, m] -> [j, m]
  %a = map (cast(f32, $0) - 128.0) * 0.05 : %q[j, m] -> [j, m]
  %g = map cast(u8, round(sigmoid($0) * 255.0)) : %a[j, m] -> [j, m]
  %h = map $0 * (cast(f32, $1) * 0.00392) : %a[j, m], %g[j, m] -> [j, m]
  %e = map cast(CODE, round($0 * 30.0) + ZERO) : %h[j, m] -> [j, m]
  %d = map (cast(f32, $0) - ZERO) * 0.0333 : %e[j, m] -> [j, m]
";
    let bytes = "%b = map (cast(f32, $0) - 100.0) * 0.04 : %r[j, m] -> [j, m]\n";
    for (element, tail) in [
        ("u8", format!("{bytes}  %y = map cast(u8, round(($0 + $1) * 20.0) + 90.0) : %d[j, m], %b[j, m] -> [j, m]")),
        ("i8", format!("{bytes}  %y = map cast(i8, round(($1 + $0) * 20.0) - 9.0) : %d[j, m], %b[j, m] -> [j, m]")),
        ("u8", "%y = map cast(u8, round(($0 + $1) * 20.0) + 90.0) : %d[j, m], %s[j, m] -> [j, m]".into()),
        ("f32", format!("{bytes}  %y = map add : %d[j, m], %b[j, m] -> [j, m]")),
        ("f32", "%y = map $0 : %d[j, m] -> [j, m]".into()),
        ("u8", "%y = map cast(u8, round(relu($0 + $1) * 20.0)) : %d[j, m], %s[j, m] -> [j, m]".into()),
    ] {
        for (code, zero) in [("u8", "17.0"), ("i8", "3.0")] {
            let text = format!("{head}  {tail}\n  return %y\n}}\n");
            let module = module(&text.replace("TYPE", element).replace("CODE", code).replace("ZERO", zero));
            let mut random = Random::new(9);
            let mut input = |element, shape: &[usize]| random::tensor(&mut random, element, shape).unwrap();
            use strang::ElementType::{F32, U8};
            let inputs = [input(U8, &[9, 40]), input(U8, &[9, 70]), input(F32, &[9, 70])];
            let expected = interpret(&module, &inputs, Arithmetic::Typed).unwrap();
            let found = Compiler::new().compile(module).unwrap().executable.run(&inputs).unwrap();
            // A number next to a half may be rounded to the other side once, and again after it.
            let step = if element == "f32" { 0.0334 } else { 1. };
            let pairs: Vec<(f64, f64)> = found[0].to_f64().into_iter().zip(expected[0].to_f64()).collect();
            assert!(pairs.iter().all(|(a, b)| (a - b).abs() <= step), "{element} {code} {tail}\n{pairs:?}");
            assert!(pairs.iter().filter(|(a, b)| a != b).count() * 50 <= pairs.len(), "{element} {code} {tail}");
        }
    }
}
