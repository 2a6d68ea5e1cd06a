//! Differences of circuits.

use strang::ir::{Module, diff::diff, text};

const OLD: &str = "ncd 0.1 \"old\"
axis b   axis m = 4   axis n = 3
param @w: f32[m, n]   param @c: f32[n] = [1, 2, 3]
fn @net(%x: f32[b, m]) -> f32[b, n] {
  %a = map $0 * 2 : %x[b, m] -> [b, m]
  %p = dot %a[b, {m}], @w[{m}, n] -> [b, n]
  %q = map add : %p[b, n], @c[n] -> [b, n]
  %r = map relu : %q[b, n] -> [b, n]
  %y = softmax %r[b, {n}] -> [b, {n}]
  return %y
}
";

fn parse(source: &str) -> Module {
    text::parse(source, "circuit").unwrap_or_else(|error| panic!("{}", error.render()))
}

/// The difference of the old circuit and that with texts replaced.
fn changed(replacements: &[(&str, &str)]) -> String {
    let new = replacements.iter().fold(OLD.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    });
    diff(&parse(OLD), &parse(&new)).to_string()
}

#[test]
fn names_are_no_difference() {
    let names = [
        ("%a", "%first"),
        ("@w", "@weights"),
        ("%q", "%sum"),
        ("@net", "@f"),
        ("axis m", "axis width"),
        ("m]", "width]"),
        ("{m}", "{width}"),
        ("[m", "[width"),
    ];
    assert_eq!(changed(&names), "the circuits are equal\n");
}

#[test]
fn an_operation_in_the_middle_is_one_difference() {
    assert_eq!(
        changed(&[("map relu", "map gelu")]),
        "0 operations removed, 0 added, 1 changed, 0 weights with other elements
fn @net
  ...
  %p = dot %a[b, {m}], @w[{m}, n] -> [b, n]
  %q = map add : %p[b, n], @c[n] -> [b, n]
- %r = map relu : %q[b, n] -> [b, n]
+ %r = map gelu : %q[b, n] -> [b, n]
  %y = softmax %r[b, {n}] -> [b, {n}]
"
    );
    assert_eq!(
        changed(&[("  %r = map relu : %q[b, n] -> [b, n]\n", ""), ("softmax %r", "softmax %q")]),
        "1 operation removed, 0 added, 1 changed, 0 weights with other elements
fn @net
  ...
  %p = dot %a[b, {m}], @w[{m}, n] -> [b, n]
  %q = map add : %p[b, n], @c[n] -> [b, n]
- %r = map relu : %q[b, n] -> [b, n]
- %y = softmax %r[b, {n}] -> [b, {n}]
+ %y = softmax %q[b, {n}] -> [b, {n}]
"
    );
}

#[test]
fn weights_inputs_and_results_are_compared() {
    assert_eq!(
        changed(&[("[1, 2, 3]", "[1, 2, 4]")]),
        "0 operations removed, 0 added, 0 changed, 1 weight with other elements
weights with other elements
  @c
"
    );
    assert_eq!(
        changed(&[("return %y", "return %r")]),
        "0 operations removed, 0 added, 0 changed, 0 weights with other elements
fn @net
- result f32[b, 3] of statement 4.0
+ result f32[b, 3] of statement 3.0
  %a = map $0 * 2.0 : %x[b, m] -> [b, m]
  %p = dot %a[b, {m}], @w[{m}, n] -> [b, n]
"
    );
}

#[test]
fn every_example_differs_from_every_other_and_not_from_itself() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/circuits");
    let read =
        |entry: std::io::Result<std::fs::DirEntry>| parse(&std::fs::read_to_string(entry.unwrap().path()).unwrap());
    let modules: Vec<Module> = std::fs::read_dir(folder).unwrap().map(read).collect();
    assert!(modules.len() > 5);
    for (place, first) in modules.iter().enumerate() {
        for (other, second) in modules.iter().enumerate() {
            assert_eq!(diff(first, second).is_none(), place == other);
        }
    }
}

#[test]
fn the_order_of_independent_operations_is_no_difference() {
    let both = |first: &str, second: &str| {
        let source = format!(
            "ncd 0.1 \"pair\"\naxis b = 2\nparam @v: f32[b] = [1, 2]   param @w: f32[b] = [3, 4]\n\
             fn @f(%x: f32[b]) -> f32[b] {{\n{first}{second}  %y = map sub : %p[b], %q[b] -> [b]\n  return %y\n}}\n"
        );
        parse(&source)
    };
    let (p, q) = ("  %p = map mul : %x[b], @v[b] -> [b]\n", "  %q = map mul : %x[b], @w[b] -> [b]\n");
    assert_eq!(diff(&both(p, q), &both(q, p)).to_string(), "the circuits are equal\n");
}
