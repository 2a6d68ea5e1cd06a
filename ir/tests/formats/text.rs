//! The text format on whole files: what people write parses, prints stably and parses back to the same circuit.

use strang_ir::{
    Module,
    text::{parse, print},
};

fn read(text: &str) -> Module {
    parse(text, "test.ncd").unwrap_or_else(|error| panic!("{}", error.render()))
}

/// The canonical text, after checking that it says the same and is a fixed point.
fn canonical(text: &str) -> String {
    let module = read(text);
    let printed = print(&module);
    let again = read(&printed);
    assert!(again == module, "the printed text reads as another circuit:\n{printed}");
    assert_eq!(print(&again), printed, "printing is not canonical");
    printed
}

#[test]
fn minilm_reads_and_prints() {
    let text = include_str!("../../examples/minilm/minilm.ncd");
    let module = read(text);
    assert_eq!(module.entry().inputs.len(), 2);
    assert_eq!(module.parameters.len(), 5 + 6 * 16);
    let printed = canonical(text);
    for line in [
        "    %word = gather @embeddings.word_embeddings.weight[{v}, m], %input_ids[b, s] -> [b, s, m]",
        "    %placed = map add : %typed[b, s, m], @embeddings.position_embeddings.weight[s, m] -> [b, s, m]",
        "    %scores0 = dot %query0[b, h, s, {k}], %key0[b, h, s', {k}] -> [b, h, s, s']",
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line}\n{printed}");
    }
}

#[test]
fn attention_prints_as_it_is_written() {
    let text = r#"ncd 0.1 "multi-head attention"
axis y   axis x   axis m = 512   axis h = 8   axis k = m / h
param @WQ: f32[m, h, k]  param @WK: f32[m, h, k]  param @WV: f32[m, h, k]  param @WO: f32[h, k, m]
fn @mha(%e: f32[y, m], %s: f32[x, m]) -> f32[y, m] {
  %q = dot %e[y, {m}], @WQ[{m}, h, k] -> [y, h, k]
  %k = dot %s[x, {m}], @WK[{m}, h, k] -> [x, h, k]
  %v = dot %s[x, {m}], @WV[{m}, h, k] -> [x, h, k]
  block "scaled dot-product attention" {
    %s0 = dot %q[y, h, {k}], %k[x, h, {k}] -> [h, y, x]
    %s1 = map scale(|k|^-1/2) : %s0[h, y, x] -> [h, y, x]
    %p  = softmax %s1[h, y, {x}] -> [h, y, {x}]
    %o  = dot %p[h, y, {x}], %v[{x}, h, k] -> [y, h, k]
  }
  %r = dot %o[y, {h}, {k}], @WO[{h}, {k}, m] -> [y, m]
  return %r
}
"#;
    insta::assert_snapshot!(canonical(text));
}
