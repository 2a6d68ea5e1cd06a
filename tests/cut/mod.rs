//! Models in two: a head and a tail compose to the whole.

use std::path::Path;
use strang::{
    Compiler, Tensor,
    check::difference,
    compiler::cut::{CutError, at, balanced, cut},
    ir::{
        Function, Module, Op,
        interpret::{Arithmetic, interpret},
        random::random_tensor,
        text,
        verify::verify,
    },
    save::{SaveError, save},
};

/// The examples without state.
fn examples() -> Vec<(String, Module)> {
    let mut modules = all_examples();
    modules.retain(|(_, module)| module.entry().states.is_empty());
    assert!(modules.len() > 4);
    modules
}

fn all_examples() -> Vec<(String, Module)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/circuits");
    let mut modules = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let source = std::fs::read_to_string(&path).unwrap();
        let mut module = text::parse(&source, "example").unwrap();
        let symbols = strang::load::symbols(&module);
        module.substitute(&symbols.into_iter().zip((2..).map(strang::Size::from)).collect());
        for (number, parameter) in module.parameters.iter_mut().enumerate() {
            let shape: Vec<usize> =
                parameter.axes.iter().map(|axis| axis.size.as_constant().unwrap() as usize).collect();
            // Not negative: some are variances.
            let mut data = random_tensor(parameter.element, &shape, false, number as u64);
            data.as_mut_slice::<f32>().unwrap().iter_mut().for_each(|value| *value = value.abs());
            parameter.data = Some(data);
        }
        modules.push((path.file_stem().unwrap().to_string_lossy().into_owned(), module));
    }
    modules
}

fn inputs(module: &Module) -> Vec<Tensor> {
    let function = module.entry();
    let tensor = |number: usize| {
        let value = function.inputs[number].into();
        let shape: Vec<usize> =
            function.shape_of(value).iter().map(|size| size.as_constant().unwrap() as usize).collect();
        random_tensor(function.element_of(value), &shape, false, 99 + number as u64)
    };
    (0..function.inputs.len()).map(tensor).collect()
}

fn names(function: &Function) -> Vec<String> {
    function.inputs.iter().map(|node| function.graph[*node].outputs[0].name.to_string()).collect()
}

/// The results of a tail that reads those of a head, and inputs by their names.
fn composed(whole: &Module, parts: [&Module; 2], run: &dyn Fn(&Module, &[Tensor]) -> Vec<Tensor>) -> Vec<Tensor> {
    let mut known: Vec<(String, Tensor)> = names(whole.entry()).into_iter().zip(inputs(whole)).collect();
    for (position, part) in parts.into_iter().enumerate() {
        verify(part).unwrap_or_else(|error| panic!("{error}\n{}", text::print(part)));
        let find = |name: String| known.iter().find(|(other, _)| *other == name).unwrap().1.clone();
        let given: Vec<Tensor> = names(part.entry()).into_iter().map(find).collect();
        let results = run(part, &given);
        if position == 1 {
            return results;
        }
        known.extend(part.entry().output_names.iter().map(ToString::to_string).zip(results));
    }
    unreachable!("there are two parts")
}

fn interpreted(module: &Module, inputs: &[Tensor]) -> Vec<Tensor> {
    interpret(module, inputs, Arithmetic::Typed).unwrap()
}

fn compiled(module: &Module, inputs: &[Tensor]) -> Vec<Tensor> {
    Compiler::new().compile(module.clone()).unwrap().executable.run(inputs).unwrap()
}

#[test]
fn head_and_tail_compose_at_every_wire() {
    for (title, whole) in examples() {
        let function = whole.entry();
        let want = interpreted(&whole, &inputs(&whole));
        let nodes = function.order();
        let nodes = nodes.iter().filter(|node| !matches!(function.graph[**node].op, Op::Input(_) | Op::Param(_)));
        let mut cuts = 0;
        for node in nodes {
            let name = function.graph[*node].outputs[0].name.to_string();
            match at(&whole, std::slice::from_ref(&name)).and_then(|head| cut(&whole, &head, false)) {
                Ok(parts) => {
                    cuts += 1;
                    let got = composed(&whole, [&parts.head, &parts.tail], &interpreted);
                    assert_eq!(got, want, "{title} at {name}");
                }
                Err(CutError::Nothing(_)) => {}
                Err(error) => panic!("{title} at {name}: {error}"),
            }
        }
        assert!(cuts > 0, "{title}");
    }
}

#[test]
fn balanced_parts_compose_and_share_the_work() {
    for (title, whole) in examples() {
        let parts = cut(&whole, &balanced(&whole).unwrap(), false).unwrap();
        let want = compiled(&whole, &inputs(&whole));
        for (got, want) in composed(&whole, [&parts.head, &parts.tail], &compiled).iter().zip(&want) {
            assert!(difference(got, want) < 1e-5, "{title}");
        }
        let flops = parts.flops.map(|flops| flops.as_constant().unwrap() as f64);
        let nodes = [&parts.head, &parts.tail].map(|part| part.entry().graph.node_count());
        assert!(nodes.iter().all(|count| *count > 0), "{title}");
        let total: i64 = strang::ir::analysis::summary(&whole).cost.flops.as_constant().unwrap();
        assert_eq!(flops[0] + flops[1], total as f64, "{title}");
    }
}

#[test]
fn quantised_messages_are_small_and_near() {
    for (title, whole) in examples() {
        let head = balanced(&whole).unwrap();
        let (exact, parts) = (cut(&whole, &head, false).unwrap(), cut(&whole, &head, true).unwrap());
        let bytes = |messages: &[strang::compiler::cut::Message]| {
            messages.iter().map(|message| message.bytes().as_constant().unwrap()).sum::<i64>()
        };
        let (before, after) = (bytes(&exact.messages), bytes(&parts.messages));
        assert!(after <= before / 4 + 8 * exact.messages.len() as i64, "{title}: {after} of {before} bytes");
        let want = compiled(&whole, &inputs(&whole));
        for (got, want) in composed(&whole, [&parts.head, &parts.tail], &compiled).iter().zip(&want) {
            let error = difference(got, want);
            assert!(error < 0.05, "{title}: {error}");
        }
    }
}

#[test]
fn the_cheapest_wire_is_the_narrow_one() {
    let source = "ncd 0.1 \"bottleneck\"
axis b = 8   axis m = 64   axis n = 4
fn @net(%x: f32[b, m], %v: f32[m, m], %c: f32[m, n], %d: f32[n, m], %w: f32[m, m]) -> f32[b, m] {
  %p = dot %x[b, {m'}], %v[{m'}, m] -> [b, m]
  %q = dot %p[b, {m}], %c[{m}, n] -> [b, n]
  %r = map relu : %q[b, n] -> [b, n]
  %s = dot %r[b, {n}], %d[{n}, m] -> [b, m]
  %y = dot %s[b, {m'}], %w[{m'}, m] -> [b, m]
  return %y
}
";
    let whole = text::parse_verified(source, "bottleneck").unwrap_or_else(|error| panic!("{}", error.render())).0;
    let parts = cut(&whole, &balanced(&whole).unwrap(), false).unwrap();
    assert_eq!(parts.messages.len(), 1);
    assert_eq!(parts.messages[0].shape, [8.into(), 4.into()], "{:?}", parts.messages);
}

#[test]
fn what_cannot_be_cut_is_told() {
    let (_, whole) = examples().into_iter().find(|(title, _)| title == "mlp").unwrap();
    let error = at(&whole, &["hiden".into()]).unwrap_err();
    assert!(matches!(&error, CutError::Wire { some, .. } if some.contains(&"hidden".into())), "{error}");
    let all = at(&whole, &["biased".into()]).unwrap();
    assert_eq!(cut(&whole, &all, false).unwrap_err(), CutError::Nothing("tail"));
    assert_eq!(cut(&whole, &Default::default(), false).unwrap_err(), CutError::Nothing("head"));
    let (_, whole) = all_examples().into_iter().find(|(_, module)| !module.entry().states.is_empty()).unwrap();
    assert!(matches!(cut(&whole, &Default::default(), false), Err(CutError::State(name)) if !name.is_empty()));
}

#[test]
fn saved_models_read_back_and_failures_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for (title, module) in examples() {
        for extension in ["ncd", "json"] {
            let path = folder.path().join(&title).with_extension(extension);
            save(&module, &path).unwrap();
            let read = Compiler::new().load(&path).unwrap();
            assert_eq!(read, module, "{title}.{extension}");
            assert!(read.parameters.iter().all(|parameter| parameter.data.is_some()));
        }
    }
    let module = &examples()[0].1;
    let missing = folder.path().join("no/such/folder/model.ncd");
    assert!(matches!(save(module, &missing), Err(SaveError::File { .. })));
    assert!(matches!(save(module, &folder.path().join("model.onnx")), Err(SaveError::Extension(_))));
    let blocked = folder.path().join("blocked.ncd");
    std::fs::create_dir(&blocked).unwrap();
    assert!(save(module, &blocked).is_err());
    assert!(!folder.path().join("blocked.safetensors").exists(), "weights without a circuit");
}
