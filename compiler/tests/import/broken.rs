//! Broken files: models cut short, with changed bytes, and with numbers, types and names that mean nothing. Every one is
//! an error or another model; none ends the process.

use super::models::{encode, floats, graph, model, models, node};
use prost::Message;
use std::{collections::BTreeMap, path::Path};
use strang_compiler::{
    import::onnx::{
        ImportOptions, load_bytes,
        proto::{AttributeProto, Dimension, GraphProto, ModelProto, TensorProto},
    },
    plan::{PlanOptions, plan},
    rewrite::{RewriteOptions, rewrite},
};
use strang_ir::generator::Random;

/// What a user's file goes through before code is generated.
fn judge(bytes: &[u8]) -> Result<(), String> {
    let module = load_bytes(bytes, None, &ImportOptions::default()).map_err(|error| error.to_string())?;
    let checks = strang_ir::verify::verify(&module).map_err(|error| error.to_string())?.checks;
    let (rewritten, _) = rewrite(&module, &RewriteOptions::default()).map_err(|error| error.to_string())?;
    let options = PlanOptions { representative: BTreeMap::new(), checks };
    plan(&rewritten, &options).map(drop).map_err(|error| error.to_string())
}

#[test]
fn the_models_are_whole() {
    for (name, model) in models() {
        judge(&encode(&model)).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn files_cut_short_are_judged() {
    for (_, model) in models() {
        let bytes = encode(&model);
        let refused = (0..bytes.len()).filter(|length| judge(&bytes[..*length]).is_err()).count();
        assert!(refused * 2 > bytes.len(), "only {refused} of {} cut files are refused", bytes.len());
    }
}

#[test]
fn changed_bytes_are_judged() {
    let mut random = Random::new(1);
    let mut refused = 0;
    for (_, model) in models() {
        let bytes = encode(&model);
        for _ in 0..300 {
            let mut changed = bytes.clone();
            for _ in 0..=random.below(3) {
                let place = random.below(changed.len());
                changed[place] = random.below(256) as u8;
            }
            refused += usize::from(judge(&changed).is_err());
        }
    }
    assert!(refused > 0);
}

/// Visits every message of a model that the mutations below change.
trait Visitor {
    fn tensor(&mut self, _: &mut TensorProto) {}
    fn attribute(&mut self, _: &mut AttributeProto) {}
    fn graph(&mut self, _: &mut GraphProto) {}
}

fn visit_graph(graph: &mut GraphProto, visitor: &mut dyn Visitor) {
    visitor.graph(graph);
    for tensor in &mut graph.initializer {
        visitor.tensor(tensor);
    }
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        visitor.attribute(attribute);
        if let Some(tensor) = &mut attribute.t {
            visitor.tensor(tensor);
        }
        if let Some(body) = &mut attribute.g {
            visit_graph(body, visitor);
        }
    }
}

/// Changes the `target`-th number of a model to `value`, and counts the numbers.
struct Numbers {
    seen: usize,
    target: usize,
    value: i64,
}

impl Numbers {
    fn meet(&mut self, number: &mut i64) {
        if self.seen == self.target {
            *number = self.value;
        }
        self.seen += 1;
    }
}

impl Visitor for Numbers {
    fn tensor(&mut self, tensor: &mut TensorProto) {
        tensor.dims.iter_mut().for_each(|number| self.meet(number));
        tensor.int64_data.iter_mut().for_each(|number| self.meet(number));
        let mut kind = i64::from(tensor.data_type);
        self.meet(&mut kind);
        tensor.data_type = kind as i32;
    }

    fn attribute(&mut self, attribute: &mut AttributeProto) {
        self.meet(&mut attribute.i);
        attribute.ints.iter_mut().for_each(|number| self.meet(number));
        let mut kind = i64::from(attribute.kind);
        self.meet(&mut kind);
        attribute.kind = kind as i32;
    }

    fn graph(&mut self, graph: &mut GraphProto) {
        for tensor in graph.input.iter_mut().filter_map(|port| port.r#type.as_mut()?.tensor.as_mut()) {
            let mut element = i64::from(tensor.element);
            self.meet(&mut element);
            tensor.element = element as i32;
            for dimension in tensor.shape.iter_mut().flat_map(|shape| &mut shape.dim) {
                let mut size = -1;
                match &mut dimension.value {
                    Some(Dimension::Size(size)) => self.meet(size),
                    value => {
                        self.meet(&mut size);
                        if size != -1 {
                            *value = Some(Dimension::Size(size));
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn numbers_that_mean_nothing_are_judged() {
    let values = [0, 1, -1, 2, -2, 3, 7, 64, 1 << 31, 1 << 40, 1 << 62, i64::MAX, i64::MIN, i64::MIN + 1];
    for (_, model) in models() {
        let mut counter = Numbers { seen: 0, target: usize::MAX, value: 0 };
        visit_graph(&mut model.clone().graph.unwrap(), &mut counter);
        for target in 0..counter.seen {
            for value in values {
                let mut changed = model.clone();
                visit_graph(changed.graph.as_mut().unwrap(), &mut Numbers { seen: 0, target, value });
                let _ = judge(&encode(&changed));
            }
        }
    }
}

#[test]
fn wrong_versions_and_operators_are_judged() {
    let all = models();
    for (_, model) in &all {
        for version in 1..=30 {
            let mut changed = model.clone();
            changed.opset_import[0].version = version;
            let _ = judge(&encode(&changed));
        }
        // The operands and attributes of one operator under the name of another.
        for (_, other) in &all {
            let mut changed = model.clone();
            let operator = &other.graph.as_ref().unwrap().node[0].op_type;
            changed.graph.as_mut().unwrap().node[0].op_type.clone_from(operator);
            let _ = judge(&encode(&changed));
        }
    }
}

#[test]
fn missing_and_exchanged_names_are_judged() {
    for (_, model) in models() {
        let node = &model.graph.as_ref().unwrap().node[0];
        for slot in 0..node.input.len() {
            for name in ["", "nothing", "y", "x"] {
                let mut changed = model.clone();
                changed.graph.as_mut().unwrap().node[0].input[slot] = name.into();
                let _ = judge(&encode(&changed));
            }
        }
        for count in 0..node.input.len() {
            let mut changed = model.clone();
            changed.graph.as_mut().unwrap().node[0].input.truncate(count);
            let _ = judge(&encode(&changed));
        }
        for position in 0..node.attribute.len() {
            let mut changed = model.clone();
            changed.graph.as_mut().unwrap().node[0].attribute.remove(position);
            let _ = judge(&encode(&changed));
        }
    }
}

fn refused(model: &ModelProto) -> String {
    judge(&encode(model)).unwrap_err()
}

#[test]
fn circles_are_refused() {
    let nodes = [node("Relu", "a", "y", &[]), node("Relu", "y", "a", &[])];
    assert!(refused(&model(graph(&[], &[], &nodes), 18)).contains("cycle"));
}

#[test]
fn deep_nesting_is_refused() {
    let mut inner = graph(&[], &[floats("c", &[], &[1.])], &[node("Relu", "c", "y", &[])]);
    let condition = TensorProto { data_type: 9, dims: vec![], int32_data: vec![1], ..floats("t", &[], &[]) };
    for _ in 0..200 {
        let body = |name: &str, graph: &GraphProto| AttributeProto {
            name: name.into(),
            g: Some(graph.clone()),
            kind: 5,
            ..Default::default()
        };
        let branches = [body("then_branch", &inner), body("else_branch", &graph(&[], &[], &[]))];
        inner = graph(&[], std::slice::from_ref(&condition), &[node("If", "t", "y", &branches)]);
    }
    assert!(refused(&model(inner, 18)).contains("recursion"));
}

/// The models of a folder, where `STRANG_MODEL_DIR` names one: the numbers of each are changed as above.
#[test]
fn numbers_in_other_models_are_judged() {
    let Some(folder) = std::env::var_os("STRANG_MODEL_DIR") else { return };
    let mut random = Random::new(7);
    let mut folders = vec![std::path::PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "onnx") {
                change_numbers(&path, &mut random);
            }
        }
    }
}

fn change_numbers(path: &Path, random: &mut Random) {
    let bytes = std::fs::read(path).unwrap();
    let Ok(model) = ModelProto::decode(bytes.as_slice()) else { return };
    let Some(mut graph) = model.graph.clone().filter(|_| bytes.len() < 100_000) else { return };
    eprintln!("{}", path.display());
    let mut counter = Numbers { seen: 0, target: usize::MAX, value: 0 };
    visit_graph(&mut graph, &mut counter);
    let values = [0, 1, -1, 2, -2, 5, 1 << 31, 1 << 40, i64::MAX, i64::MIN];
    for _ in 0..(4 * counter.seen).min(200) {
        let mut changed = model.clone();
        let value = values[random.below(values.len())];
        visit_graph(
            changed.graph.as_mut().unwrap(),
            &mut Numbers { seen: 0, target: random.below(counter.seen), value },
        );
        let _ = judge(&encode(&changed));
    }
}
