//! The text format on whole files: what people write parses, prints stably and parses back to the same circuit.

use crate::random::Tape;
use proptest::prelude::*;
use strang_ir::{
    Module,
    text::{parse, parse_verified, print},
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
    let text = include_str!("../../../examples/minilm/minilm.ncd");
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

fn tape() -> impl Strategy<Value = Vec<u32>> {
    proptest::collection::vec(any::<u32>(), 0..600)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn printing_and_parsing_give_the_same_module(tape in tape()) {
        let module = Tape::new(&tape).module();
        let printed = print(&module);
        let again = parse(&printed, "printed.ncd").map_err(|error| TestCaseError::fail(error.render()))?;
        prop_assert!(again == module, "{printed}\n{module:#?}\n{again:#?}");
        prop_assert_eq!(print(&again), printed);
    }

    #[test]
    fn changed_text_is_refused_or_read(tape in tape(), changes in proptest::collection::vec(any::<(u16, u8, u8)>(), 1..8)) {
        let mut text: Vec<char> = print(&Tape::new(&tape).module()).chars().collect();
        let alphabet: Vec<char> = "(){}[]|%@$\"'\\#,:=-><+*/^ \n09.exinfwmaé\u{0}".chars().collect();
        for (at, how, what) in changes {
            let at = at as usize % text.len().max(1);
            let to = (at + what as usize % 20).min(text.len());
            match how % 4 {
                0 => drop(text.drain(at..to)),
                1 => text.insert(at.min(text.len()), alphabet[what as usize % alphabet.len()]),
                2 => {
                    let copy: Vec<char> = text[at.min(to)..to].to_vec();
                    let place = (at * 7 + what as usize) % (text.len() + 1);
                    text.splice(place..place, copy);
                }
                _ => text.truncate(text.len() - text.len().min(what as usize / 32)),
            }
        }
        let text: String = text.into_iter().collect();
        match parse(&text, "changed.ncd") {
            Ok(module) => drop(print(&module)),
            Err(error) => prop_assert!(error.render().contains("changed.ncd:")),
        }
    }
}

#[test]
fn random_modules_cover_the_format() {
    let mut text = String::new();
    let mut state = 1u32;
    for _ in 0..300 {
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        let tape: Vec<u32> = (0..600).map(|_| next()).collect();
        text += &print(&Tape::new(&tape).module());
    }
    let words = "const dot map reduce argreduce softmax norm view concat gather scatter scan sort if loop call custom \
                 order acc where else at and // % clamp( table( $1 nan( inf true states reverse last log block symbol \
                 blake3 param state return select( cast( index( i4 u2 bf16 bool = [";
    for word in words.split_whitespace() {
        assert!(text.contains(word), "no random module has `{word}`");
    }
}

/// What a hostile text must not do: overflow the stack, take long, or panic.
#[test]
fn hostile_texts_are_refused() {
    let head = "ncd 0.1\naxis a\nfn @f(%x: f32[a]) -> f32[a] {\n";
    let deep = |open: &str, close: &str| open.repeat(100_000) + "a" + &close.repeat(100_000);
    let statement = |header: &str, place: &str| format!("{head}%y = {header} %x[{place}] -> [a]\nreturn %y\n}}");
    let sum = |part: &str| vec![part; 100_000].join(" ");
    let texts = [
        format!("ncd 0.1 axis a = {}", deep("(", ")")),
        format!("ncd 0.1 axis a axis b = {} a", sum("a *")),
        format!("ncd 0.1 axis a axis c axis b = {} (a + c)", sum("(a + c) *")),
        format!("ncd 0.1 axis a axis b = {} 2", sum("a //")),
        format!(
            "ncd 0.1 axis a0 {}",
            (0..50_000).map(|i| format!("axis a{} = (a{i} + 1)//3 * (a{i} + 2)//5 ", i + 1)).collect::<String>()
        ),
        statement("view", &deep("(", ")")),
        statement("view", &deep("clamp(", ", 0, 1)")),
        statement("view", &format!("{} 1", sum("a //"))),
        statement("view", &format!("{} a", sum("|a| *"))),
        statement(&format!("map {} :", deep("(", ")")), "a"),
        statement(&format!("map {} $0 :", "-".repeat(100_000)), "a"),
        statement(&format!("map {} $0 :", sum("$0 +")), "a"),
        statement(&format!("map {} $0 :", "relu(".repeat(100_000)), "a"),
        format!("{head}{}", "block \"b\" {".repeat(100_000)),
        format!("ncd 0.1 axis a param @w: f32[{}]", vec!["a"; 100_000].join(", ")),
        format!("ncd 0.1 axis a = 4 param @w: f32[a] = {}", deep("[", "]")),
        "ncd 0.1 axis a = 1000000000000 param @w: f32[a, a, a] = [1]".to_owned(),
        "\"".repeat(100_001),
        "%".repeat(100_000),
        "ncd 0.1 axis a = -9223372036854775808 // (-1)".to_owned() + &" * a".repeat(300),
    ];
    for text in texts {
        let error = parse(&text, "hostile.ncd").expect_err(&text[..text.len().min(80)]);
        assert!(!error.message().is_empty());
    }
}

#[test]
fn long_texts_are_read() {
    let mut text = "ncd 0.1\naxis a\nfn @f(%x0: f32[a]) -> f32[a] {\n".to_owned();
    for line in 0..20_000 {
        text += &format!("%x{} = map add : %x{line}[a], %x0[a] -> [a]\n", line + 1);
    }
    text += "return %x20000\n}\n";
    assert_eq!(canonical(&text).lines().count(), 20_000 + 7);
    let many = format!(
        "ncd 0.1\naxis a\nfn @f(%x: f32[a]) -> f32[a] {{\n%y = view %x[{}a] -> [a]\nreturn %y\n}}",
        "2*a + ".repeat(50_000)
    );
    assert!(canonical(&many).contains("%x[100001*a]"));
}

/// Snapshots of messages: `# comment` lines are left out of the texts to keep the carets close.
fn complaint(body: &str) -> String {
    let head = "ncd 0.1\naxis b  axis m = 4  axis o = 3\nparam @w: f32[m, o]\n";
    let text = format!("{head}fn @f(%x: f32[b, m], %n: i32[b]) -> f32[b, o] {{\n  {body}\n  return %y\n}}\n");
    parse_verified(&text, "f.ncd").map(|_| "accepted".to_owned()).unwrap_or_else(|error| error.render())
}

#[test]
fn mistakes_are_shown_with_carets() {
    let bodies = [
        "%y = dot %x[b, {m}], @w[{m}, o] -> [b, o]",
        "%y = dot %x[b, {m}], @v[{m}, o] -> [b, o]",
        "%y = dot %x[b, m], @w[m, o] -> [b, o]",
        "%y = dot %x[{m}], @w[{m}, o] -> [b, o]",
        "%y = dot %x[b, {m}], @w[{m}, {o}] -> [b, o]",
        "%y = dot %x[b, {mm}], @w[{mm}, o] -> [b, o]",
        "%y = dot %x[b, {m} + 1], @w[{m}, o] -> [b, o]",
        "%y = dott %x[b, {m}], @w[{m}, o] -> [b, o]",
        "%y = map add : %x[b, o], %n[b] -> [b, o]",
        "%y = map $0 * $2 : %x[b, o] -> [b, o]",
        "%y = map frob($0) : %x[b, o] -> [b, o]",
        "%y = map 1 -> [b, o]",
        "%y = softmax %x[b, o] -> [b, o]",
        "%y = view %x[b*o, o] -> [b, o]",
        "%y = view %x[b -> [b, o]",
        "%y = view %x[b, o] else true -> [b, o]",
        "%y = view %x[b, o] where b < 3 else 0 -> [b, o]",
        "%x = view %x[b, o] -> [b, o]",
        "%y = view %x[b, m] -> [b, m]",
        "%y = view %x -> [b, o]",
        "%y = view %x[b, o] -> [b, b]",
        "%y = scatter %x[b, o], %x[b, o] -> [b, o]",
        "%y = call @g : %x[b, o] -> [b, o]",
        "%y = \"text",
    ];
    let shown: Vec<String> = bodies.iter().map(|body| complaint(body)).collect();
    insta::assert_snapshot!(shown.join("\n"));
}
