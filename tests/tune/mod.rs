//! Schedules: any block of a product gives the same bits, and what is measured is kept as text.

use super::{run_on, with_weights};
use strang::{
    Compiler, ElementType, Tensor,
    compiler::{
        codegen::{Blocking, schedule::Schedules},
        plan::kernel::{Body, PlanStep},
    },
    ir::Module,
    random::{self, Random},
    runtime::{Bindings, session::SessionOptions},
    tune,
};

fn network() -> Module {
    let text = "ncd 0.1 \"network\"\naxis b = 45   axis i = 70   axis h = 150   axis o = 33\n\
        param @w: f32[i, h]   param @l: f32[h, o]\nfn @network(%x: f32[b, i]) -> f32[b, o] {\n  \
        %y = dot : %x[b, {i}], @w[{i}, h] -> [b, h]\n  %r = map gelu : %y[b, h] -> [b, h]\n  \
        %z = dot : %r[b, {h}], @l[{h}, o] -> [b, o]\n  return %z\n}\n";
    with_weights(text, 31)
}

fn input() -> Tensor {
    random::tensor(&mut Random::new(32), ElementType::F32, &[45, 70]).unwrap()
}

/// The products of the network, as schedules name them.
fn products() -> Vec<String> {
    let planned = Compiler::new().plan(network()).unwrap();
    let product = |step: &PlanStep| match step {
        PlanStep::Kernel(kernel) => match &kernel.body {
            Body::Gemm(gemm) => strang::compiler::codegen::schedule::product(kernel, gemm),
            _ => None,
        },
        _ => None,
    };
    planned.plan.body.iter().filter_map(product).collect()
}

#[test]
fn every_block_gives_the_same_bits() {
    let products = products();
    assert_eq!(products, ["gemm 1x45x150 over 1x70 packed f32", "gemm 1x45x33 over 1x150 packed f32"]);
    let run = |schedules: Schedules| {
        let model = Compiler::new().schedules(schedules).compile(network()).unwrap();
        [1, 2].map(|threads| {
            run_on(threads, &model.executable, &Bindings::new(), &[input()]).swap_remove(0).bytes().to_vec()
        })
    };
    let expected = run(Schedules::default());
    for block in [(1, 16), (7, 48), (45, 160), (500, 512), (13, 64)] {
        let mut schedules = Schedules::default();
        products.iter().for_each(|product| schedules.set(product, Blocking { rows: block.0, columns: block.1 }));
        assert!(run(schedules) == expected, "{block:?}");
    }
}

#[test]
fn schedules_change_the_code() {
    let code = |schedules: Schedules| {
        let compiler = Compiler::new().schedules(schedules);
        let planned = compiler.plan(network()).unwrap();
        strang::compiler::codegen::generate(&planned.plan, &compiler.target().unwrap()).unwrap().code
    };
    let mut schedules = Schedules::default();
    schedules.set(&products()[0], Blocking { rows: 9, columns: 64 });
    assert!(code(schedules) != code(Schedules::default()));
}

#[test]
fn tuning_measures_every_product_and_keeps_what_others_know() {
    let mut known: Schedules =
        "strang schedules 0.1\nAnother CPU, gemm 1x1x16 over 1x8 codes: 1 x 64\n".parse().unwrap();
    known.set(&products()[0], Blocking { rows: 1, columns: 16 });
    let compiler = Compiler::new().schedules(known);
    let plan = compiler.plan(network()).unwrap().plan;
    let tuned = tune::tune(&compiler, &plan, &[input()], &SessionOptions::default()).unwrap();
    assert_eq!(tuned.products, 2);
    assert!(tuned.better <= 2 && tuned.after <= tuned.before);
    assert!(tuned.schedules.to_string().contains("Another CPU"));
    // What was known of these products was forgotten before they were measured.
    assert_ne!(tuned.schedules.get(&products()[0]), Some(Blocking { rows: 1, columns: 16 }));
    let wrong = tune::tune(&compiler, &plan, &[], &SessionOptions::default());
    assert!(wrong.is_err(), "an input is missing");
}
