//! Products with weights of four and eight bits that have scales for blocks: they stay codes, and results are what the circuit says.

use super::with_weights;
use memmap2::MmapMut;
use std::sync::Arc;
use strang::{
    Compiler, ElementType, Tensor,
    ir::{
        Module,
        interpret::{Arithmetic, interpret},
    },
    random::{Random, tensor},
};

const DEPTH: usize = 160;
const COLUMNS: usize = 230;

/// A product of `rows` rows with weights of codes, which lie in rows of columns or of depths, in blocks of 32 depths, with zero
/// points or one number for all in their place.
fn product(rows: usize, element: &str, zero: Option<&str>, by_columns: bool) -> String {
    let (place, block) = if by_columns { ("n, k", "n, k // 32") } else { ("k, n", "k // 32, n") };
    let groups = if by_columns { "n, g" } else { "g, n" };
    let (difference, read, parameter) = match zero {
        Some("many") => (
            "(cast(f32, $0) - cast(f32, $2))".to_owned(),
            format!(", @zero[{block}]"),
            format!("param @zero: {element}[{groups}]\n"),
        ),
        Some(number) => (format!("(cast(f32, $0) - {number})"), String::new(), String::new()),
        None => ("cast(f32, $0)".to_owned(), String::new(), String::new()),
    };
    let right = if by_columns { "n, {k}" } else { "{k}, n" };
    format!(
        "ncd 0.1 \"few\"
axis m = {rows}   axis k = {DEPTH}   axis n = {COLUMNS}   axis g = 5
param @codes: {element}[{place}]
param @scale: f32[{groups}]
{parameter}fn @f(%x: f32[m, k]) -> f32[m, n] {{
  %w = map {difference} * $1 : @codes[{place}], @scale[{block}]{read} -> [{place}]
  %p = dot %x[m, {{k}}], %w[{right}] -> [m, n]
  %y = map relu($0) : %p[m, n] -> [m, n]
  return %y
}}"
    )
}

/// Moves weights into a mapping, where those of files are.
fn map(module: &mut Module) {
    for parameter in &mut module.parameters {
        let data = parameter.data.take().unwrap();
        let mut pages = MmapMut::map_anon(data.length()).unwrap();
        pages.copy_from_slice(data.bytes());
        let pages = Arc::new(pages.make_read_only().unwrap());
        parameter.data = Some(Tensor::from_mapped(data.element(), data.shape(), pages, 0..data.length()).unwrap());
    }
}

fn check(module: &Module, rows: usize, case: &str) {
    let input = tensor(&mut Random::new(3), ElementType::F32, &[rows, DEPTH]).unwrap();
    let expected = interpret(module, std::slice::from_ref(&input), Arithmetic::Typed).unwrap()[0].to_f64();
    let executable = Compiler::new().compile(module.clone()).unwrap().executable;
    let scale = expected.iter().fold(0f64, |most, value| most.max(value.abs()));
    // In a room, and where weights stay.
    for _ in 0..2 {
        let found = executable.run(std::slice::from_ref(&input)).unwrap()[0].to_f64();
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0., f64::max);
        assert!(worst <= 1e-5 * scale, "{worst} of {scale}: {case}");
    }
}

#[test]
fn codes_give_what_their_numbers_give() {
    for (number, element) in ["i4", "u4", "i8", "u8"].into_iter().enumerate() {
        for zero in [None, Some("3.0"), Some("many")] {
            for (rows, by_columns) in [(1, true), (1, false), (7, true), (7, false)] {
                let case = format!("{rows} rows, {element}, zero {zero:?}, by columns {by_columns}");
                let mut module = with_weights(&product(rows, element, zero, by_columns), number as u64);
                if number % 2 == usize::from(by_columns) {
                    map(&mut module);
                }
                let text = Compiler::new().plan(module.clone()).unwrap().plan.to_string();
                let bits = &element[1..];
                assert!(text.contains(&format!("times codes of {bits} bits")), "{case}: {text}");
                check(&module, rows, &case);
            }
        }
    }
}

/// Blocks that do not suit the kernel, or scales that do not lie in blocks of depths: floats, with the same results.
#[test]
fn other_scales_are_floats() {
    let source = product(3, "u4", Some("8.0"), true);
    for (block, groups) in [("k // 20", 8), ("k // 12", 14)] {
        let source = source.replace("k // 32", block).replace("axis g = 5", &format!("axis g = {groups}"));
        let module = with_weights(&source, 1);
        let text = Compiler::new().plan(module.clone()).unwrap().plan.to_string();
        assert!(!text.contains("times codes of"), "{text}");
        check(&module, 3, block);
    }
}

/// Zero points that are no whole numbers: exact beside codes of four bits, and floats beside those of eight.
#[test]
fn zero_points_may_be_fractions() {
    for (element, is_coded) in [("u4", true), ("i8", false)] {
        let module = with_weights(&product(2, element, Some("2.7"), true), 4);
        let text = Compiler::new().plan(module.clone()).unwrap().plan.to_string();
        assert_eq!(text.contains("times codes of"), is_coded, "{text}");
        check(&module, 2, element);
    }
}

/// A scale for each column leaves the product, and whole numbers are left.
#[test]
fn scales_of_columns_leave_codes() {
    for element in ["i8", "u4"] {
        let source = product(1, element, None, true).replace("n, k // 32", "n").replace("f32[n, g]", "f32[n]");
        let module = with_weights(&source, 2);
        let text = Compiler::new().plan(module.clone()).unwrap().plan.to_string();
        assert!(text.contains("times codes of"), "{text}");
        check(&module, 1, element);
    }
}
