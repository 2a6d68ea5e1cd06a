//! The JSON form: what is printed reads back to the same circuit, and nothing else does harm.

use crate::random::Tape;
use proptest::prelude::*;
use strang_ir::{
    Module,
    json::{JsonError, parse, parse_verified, print},
    text,
};

fn random(seed: u32) -> Module {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    let tape: Vec<u32> = (0..600).map(|_| next()).collect();
    Tape::new(&tape).module()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn printing_and_parsing_give_the_same_module(tape in proptest::collection::vec(any::<u32>(), 0..600)) {
        let module = Tape::new(&tape).module();
        let printed = print(&module);
        let again = parse(&printed, "printed.json").map_err(|error| TestCaseError::fail(format!("{error}\n{printed}")))?;
        prop_assert!(again == module, "{printed}");
        prop_assert_eq!(print(&again), printed);
        prop_assert_eq!(text::print(&again), text::print(&module), "names are content too");
    }

    #[test]
    fn changed_json_is_refused_or_read(seed in any::<u32>(), changes in proptest::collection::vec(any::<(u32, u8)>(), 1..6)) {
        let mut document: serde_json::Value = serde_json::from_str(&print(&random(seed))).unwrap();
        for (place, what) in changes {
            change(&mut document, &mut place.clone(), what);
        }
        if let Ok((module, _)) = parse_verified(&document.to_string(), "changed.json") {
            prop_assert!(parse(&print(&module), "again.json").unwrap() == module);
        }
    }

    #[test]
    fn cut_json_is_refused(seed in any::<u32>(), share in 0.0..1.0) {
        let mut printed = print(&random(seed)).trim_end().to_owned();
        printed.truncate(printed.floor_char_boundary((printed.len() as f64 * share) as usize));
        let refused = matches!(parse(&printed, "cut.json"), Err(JsonError::Form { .. }));
        prop_assert!(refused);
    }
}

/// Replaces one of the document's values, counted in `place`, by another one.
fn change(value: &mut serde_json::Value, place: &mut u32, what: u8) {
    use serde_json::{Value, json};
    if place.is_multiple_of(97) {
        *place = u32::MAX;
        *value = match what % 9 {
            0 => Value::Null,
            1 => json!(0),
            2 => json!(1),
            3 => json!(u32::MAX),
            4 => json!(i64::MIN),
            5 => json!("n*n"),
            6 => json!([]),
            7 => json!({ "input": 0 }),
            _ => json!({ "operand": 7 }),
        };
        return;
    }
    *place = place.wrapping_sub(1);
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| change(item, place, what)),
        Value::Object(items) => items.values_mut().for_each(|item| change(item, place, what)),
        _ => {}
    }
}

const HEAD: &str = r#"{"ncd": "0.1", "functions": [{"name": "f", "nodes": "#;

fn refusal(document: &str) -> String {
    match parse_verified(document, "f.json") {
        Ok(_) => format!("accepted: {document}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn mistakes_say_where_they_are() {
    let variable = r#""variables": [{"name": "b", "axis": "b", "size": "b"}]"#;
    let output = r#""outputs": [{"name": "x", "element": "f32", "variables": [0]}]"#;
    let input = format!(r#"{{"op": {{"input": 0}}, {variable}, {output}}}"#);
    let view = |value: &str, at: &str| {
        let operand = format!(r#"{{"value": {value}, "at": [{{"terms": {at}}}]}}"#);
        format!(
            r#"{HEAD}[{input}, {{"op": "view", {variable}, "operands": [{operand}], {output}}}], "outputs": []}}]}}"#
        )
    };
    let plain = r#"[[{"variable": 0}, 1]]"#;
    let parameter = |rest: &str| {
        format!(
            r#"{{"ncd": "0.1", "functions": [], "parameters": [{{"name": "w", "element": "f16", "axes": [{{"name": "a", "size": 2}}], {rest}}}]}}"#
        )
    };
    let documents = [
        String::new(),
        "[]".to_owned(),
        "{}".to_owned(),
        r#"{"ncd": "0.1", "functions": []}"#.to_owned(),
        r#"{"ncd": "7", "functions": []}"#.to_owned(),
        r#"{"ncd": "0.1", "functions": [], "extra": 1}"#.to_owned(),
        format!(r#"{HEAD}[], "outputs": [{{"name": "y", "value": [0, 0]}}]}}]}}"#),
        format!(r#"{HEAD}[{input}, {input}], "outputs": []}}]}}"#),
        view("[1, 0]", plain),
        view("[0, 1]", plain),
        view("[0, 0]", r#"[[{"variable": 1}, 1]]"#),
        view("[0, 0]", r#"[[{"variable": 0}, "2**b"]]"#),
        view("[0, 0]", r#"[[{"variable": 0}, 1], [{"variable": 0}, 1]]"#),
        view("[0, 0]", r#"[[{"sideways": 0}, 1]]"#),
        parameter(r#""values": ["0"]"#),
        parameter(r#""values": ["0", "1e9"]"#),
        parameter(r#""values": ["0", "infinity"]"#),
        parameter(r#""blake3": "12""#),
    ];
    assert!(parse_verified(&view("[0, 0]", plain), "f.json").is_ok());
    let shown: Vec<String> = documents.iter().map(|document| refusal(document)).collect();
    insta::assert_snapshot!(shown.join("\n"));
}

#[test]
fn hostile_json_is_refused() {
    let deep = |open: &str, close: &str| open.repeat(100_000) + "0" + &close.repeat(100_000);
    let parameter = |axes: String| {
        format!(
            r#"{{"ncd": "0.1", "functions": [], "parameters": [{{"name": "w", "element": "f32", "axes": [{axes}], "values": ["0"]}}]}}"#
        )
    };
    let axis = |size: &str| format!(r#"{{"name": "a", "size": {size}}}"#);
    let documents = [
        deep("[", "]"),
        deep("{\"ncd\":", "}"),
        format!("{HEAD}{}", deep(r#"[{"op": {"map": {"unary": ["relu", "#, "]")),
        parameter(vec![axis("1000000000000"); 9].join(",")),
        parameter(axis("-1")),
        parameter(axis("1e300")),
        parameter(axis(&format!("\"{}\"", deep("(", ")")))),
        parameter(axis(&format!("\"{}1\"", "(a + b)*".repeat(100_000)))),
    ];
    for document in documents {
        assert!(parse(&document, "hostile.json").is_err(), "{}", &document[..document.len().min(200)]);
    }
    let variables = vec![r#"{"name": "a", "axis": "a", "size": 1}"#; 20_000].join(",");
    let axes: Vec<String> = (0..20_000).map(|variable: u32| variable.to_string()).collect();
    let output = format!(r#"{{"name": "x", "element": "f32", "variables": [{}]}}"#, axes.join(","));
    let node = format!(r#"{{"op": {{"input": 0}}, "variables": [{variables}], "outputs": [{output}]}}"#);
    assert!(parse_verified(&format!(r#"{HEAD}[{node}], "outputs": []}}]}}"#), "wide.json").is_err());
}

#[test]
fn a_perceptron_in_json() {
    let (module, _) = text::parse_verified(include_str!("../../../examples/circuits/mlp.ncd"), "mlp.ncd").unwrap();
    insta::assert_snapshot!(print(&module));
}
