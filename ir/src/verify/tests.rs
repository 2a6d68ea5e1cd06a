//! Mistakes are found, and named; what symbols leave open is returned.

use super::*;
use crate::{
    Atom, ElementType, FunctionId, IndexExpr, IndexMap, Literal, Op, Output, ScalarExpr, Value,
    interpret::tests::{module_of, node},
    op::Monoid,
    scalar::Unary,
};
use ElementType::{Bool, F16, F32, F64, I32, I64};

fn v(position: u32) -> IndexExpr {
    IndexExpr::variable(position)
}

fn at(variables: &[u32]) -> IndexMap {
    IndexMap::of_variables(variables.iter().copied())
}

fn sizes(sizes: &[i64]) -> Vec<Size> {
    sizes.iter().map(|size| Size::from(*size)).collect()
}

#[track_caller]
fn refused(module: &Module, expected: &str) {
    let error = verify(module).expect_err("the module is wrong").to_string();
    assert_eq!(error, expected);
}

const DOT: Op = Op::Dot { accumulator: F32 };

#[test]
fn a_read_out_of_range_names_axis_and_sizes() {
    let dot = node(DOT, &sizes(&[2, 4]), vec![at(&[0, 1]), at(&[1])], F32, &[0]);
    let module = module_of(&[(F32, sizes(&[2, 3])), (F32, sizes(&[4]))], dot);
    refused(
        &module,
        "%r: operand 0 is read at `v1` on axis 1 (a1), which reaches 3, but the axis has 3; a fill would say what lies outside",
    );
    let before = node(Op::View, &sizes(&[3]), vec![IndexMap::new(vec![v(0).plus_size(&Size::from(-1))])], F32, &[0]);
    refused(
        &module_of(&[(F32, sizes(&[3]))], before),
        "%r: operand 0 is read at `v0 + -1` on axis 0 (a0), which reaches -1, but the axis has 3; a fill would say what lies outside",
    );
}

#[test]
fn a_window_is_proven_for_all_sizes() {
    // Stride 2, three taps, no padding: (s - 3)//2 + 1 positions.
    let s = Size::symbol("s");
    let out = (&s - &Size::from(3)).floor_div(&Size::from(2)) + Size::ONE;
    let window = IndexMap::new(vec![v(0).times(&Size::from(2)).plus(&v(1))]);
    let pool = |out| {
        let pool = node(Op::Reduce(Monoid::Maximum), &[out, Size::from(3)], vec![window.clone()], F32, &[0]);
        module_of(&[(F32, vec![s.clone()])], pool)
    };
    let verified = verify(&pool(out)).unwrap();
    let holds = |value: i64| {
        let bindings = [("s".into(), value)].into();
        verified.checks.iter().all(|check| check.size.eval(&bindings).unwrap() >= 0)
    };
    assert!((3..20).all(holds) && !holds(0));
    // One position more is out of range for some sizes, which the session finds.
    let verified = verify(&pool((&s - &Size::from(3)).floor_div(&Size::from(2)) + Size::from(2))).unwrap();
    let bindings = [("s".into(), 7)].into();
    assert!(verified.checks.iter().any(|check| check.size.eval(&bindings).unwrap() < 0));
    // The identity needs no check.
    let identity = node(Op::View, std::slice::from_ref(&s), vec![at(&[0])], F32, &[0]);
    assert_eq!(verify(&module_of(&[(F32, vec![s])], identity)).unwrap().checks, []);
}

#[test]
fn intervals_see_through_atoms() {
    let whole = |_: u32| (Size::ZERO, Size::from(5));
    let of = |expression: &IndexExpr| {
        let (low, high) = interval(expression, &whole).unwrap();
        (low.as_constant().unwrap(), high.as_constant().unwrap())
    };
    let boxed = |e: &IndexExpr| Box::new(e.clone());
    let shifted = v(0).plus_size(&Size::from(-2));
    assert_eq!(of(&shifted.times(&Size::from(-3))), (-9, 6));
    assert_eq!(of(&IndexExpr::atom(Atom::FloorDiv(boxed(&shifted), Size::from(2)))), (-1, 1));
    assert_eq!(of(&IndexExpr::atom(Atom::Remainder(boxed(&v(0)), Size::from(9)))), (0, 5));
    assert_eq!(of(&IndexExpr::atom(Atom::Remainder(boxed(&shifted), Size::from(9)))), (0, 8));
    assert_eq!(of(&IndexExpr::atom(Atom::Clamp(boxed(&shifted), Size::ZERO, Size::from(9)))), (0, 3));
    assert_eq!(of(&IndexExpr::atom(Atom::Table([9, 1, 2, 3, 4, 5, 70].into(), boxed(&v(0))))), (1, 9));
    assert_eq!(interval(&IndexExpr::atom(Atom::Read(1)), &whole), None);
}

#[test]
fn types_are_checked() {
    let one = |op, element| module_of(&[(F32, sizes(&[2]))], node(op, &sizes(&[2]), vec![at(&[0])], element, &[0]));
    refused(&one(Op::Map(ScalarExpr::unary_map(Unary::Exp)), F16), "%r: `map` yields f32, not f16");
    refused(&one(Op::Map(ScalarExpr::unary_map(Unary::Not)), F32), "%r: `not` does not take f32");
    refused(&one(Op::Dot { accumulator: I32 }, I32), "%r: `dot` cannot sum products of f32 in i32");
    refused(&one(DOT, I32), "%r: a sum in f32 does not become i32");
    assert!(verify(&one(Op::Dot { accumulator: F64 }, F16)).is_ok());
    let fill = node(Op::View, &sizes(&[2]), vec![at(&[0]).with_fill(Literal::i64(0))], F32, &[0]);
    refused(&module_of(&[(F32, sizes(&[2]))], fill), "%r: operand 0 is f32, but its fill is i64");
    let two = node(DOT, &sizes(&[2]), vec![at(&[0]), at(&[0])], F32, &[0]);
    refused(
        &module_of(&[(F32, sizes(&[2])), (F64, sizes(&[2]))], two),
        "%r: `dot` takes operands of one type, not f32 and f64",
    );
    // Beside one type of 16 bits f32 is rounded to it.
    for (first, second, fits) in
        [(F32, ElementType::BF16, true), (F16, F32, true), (F16, ElementType::BF16, false), (F64, F16, false)]
    {
        let two = node(DOT, &sizes(&[2]), vec![at(&[0]), at(&[0])], F32, &[0]);
        let module = module_of(&[(first, sizes(&[2])), (second, sizes(&[2]))], two);
        assert_eq!(verify(&module).is_ok(), fits, "{first} and {second}");
    }
}

#[test]
fn operations_are_checked() {
    let f32s = |shape: &[i64]| (F32, sizes(shape));
    let contracts = node(Op::View, &sizes(&[2, 2]), vec![at(&[0, 1])], F32, &[0]);
    refused(&module_of(&[f32s(&[2, 2])], contracts), "%r: `view` contracts nothing, but [\"v1\"] are no axes of it");
    let softmax = node(Op::Softmax { over: vec![1, 0], log: false }, &sizes(&[2, 2]), vec![at(&[0, 1])], F32, &[0, 1]);
    refused(&module_of(&[f32s(&[2, 2])], softmax), "%r: `softmax` is over [\"v1\", \"v0\"], which are not ascending");
    let concat = |offsets: &[i64]| {
        let op = Op::Concat { along: 0, offsets: sizes(offsets) };
        let second = IndexMap::new(vec![v(0).plus_size(&Size::from(-2))]);
        module_of(&[f32s(&[2]), f32s(&[1])], node(op, &sizes(&[3]), vec![at(&[0]), second], F32, &[0]))
    };
    assert!(verify(&concat(&[0, 2, 3])).is_ok());
    refused(&concat(&[0, 2, 4]), "%r: the parts end at [0, 2, 4], but v0 has 3 positions");
    refused(&concat(&[0, 3]), "%r: `concat` of 2 operands has 2 offsets");
    assert!(verify(&concat(&[0, 1, 3])).is_err());
    let gather =
        node(Op::Gather, &sizes(&[2]), vec![IndexMap::new(vec![IndexExpr::atom(Atom::Read(1))]), at(&[0])], F32, &[0]);
    assert!(verify(&module_of(&[f32s(&[9]), (I64, sizes(&[2]))], gather.clone())).is_ok());
    refused(&module_of(&[f32s(&[9]), (F32, sizes(&[2]))], gather), "%r: `gather` takes integers as indices, not f32");
    let read = node(Op::View, &sizes(&[2]), vec![IndexMap::new(vec![IndexExpr::atom(Atom::Read(0))])], F32, &[0]);
    refused(&module_of(&[f32s(&[2])], read), "%r: reads at the value of operand 0, which is not an index operand");
}

#[test]
fn broken_structures_are_refused() {
    let good = || module_of(&[(F32, sizes(&[2]))], node(Op::View, &sizes(&[2]), vec![at(&[0])], F32, &[0]));
    let view = good().functions[0].outputs[0].node;
    type Break<'a> = (&'a str, &'a dyn Fn(&mut Module));
    let breaks: [Break; 12] = [
        ("no function", &|m| m.functions.clear()),
        ("variable out of range", &|m| m.functions[0].graph[view].maps[0] = at(&[7])),
        ("rank", &|m| m.functions[0].graph[view].maps[0] = at(&[])),
        ("output variable", &|m| m.functions[0].graph[view].outputs[0].variables = vec![3]),
        ("twice the same axis", &|m| m.functions[0].graph[view].outputs[0].variables = vec![0, 0]),
        ("no output", &|m| m.functions[0].graph[view].outputs.clear()),
        ("maps without operands", &|m| m.functions[0].graph[view].maps.push(at(&[0]))),
        ("port", &|m| m.functions[0].graph.edge_weights_mut().for_each(|edge| edge.port = 3)),
        ("slot", &|m| m.functions[0].graph.edge_weights_mut().for_each(|edge| edge.slot = 3)),
        ("result", &|m| m.functions[0].outputs[0] = Value { node: NodeIndex::new(99), port: 0 }),
        ("call", &|m| m.functions[0].graph[view].op = Op::Call(FunctionId(9))),
        ("state", &|m| m.functions[0].states = vec![(0, 4)]),
    ];
    assert!(verify(&good()).is_ok());
    for (what, change) in breaks {
        let mut module = good();
        change(&mut module);
        assert!(verify(&module).is_err(), "{what}");
    }
    let mut circle = good();
    circle.functions[0].graph[view].op = Op::Call(FunctionId(0));
    refused(&circle, "@main: calls itself, directly or through others");
}

#[test]
fn unbound_symbols_are_refused() {
    let iota = node(Op::Map(ScalarExpr::Index(0)), &[Size::symbol("n")], vec![], I64, &[0]);
    refused(&module_of(&[], iota), "%r: the size `n` is not known: no axis of an input has it as its size");
}

#[test]
fn signatures_are_checked() {
    let caller = node(Op::Call(FunctionId(1)), &sizes(&[2]), vec![at(&[0])], F32, &[0]);
    let mut module = module_of(&[(F32, sizes(&[2]))], caller);
    let view = node(Op::View, &sizes(&[2]), vec![at(&[0])], F32, &[0]);
    let callee = module_of(&[(F32, sizes(&[2]))], view).functions.remove(0);
    module.functions.push(callee);
    module.functions[1].name = "f".into();
    assert!(verify(&module).is_ok());
    let input = module.functions[1].inputs[0];
    module.functions[1].graph[input].variables[0].axis.size = Size::from(3);
    refused(&module, "%r: input of @f 0 is f32[3], but the value is f32[2]");
    let mut sort = node(Op::Sort { along: 0, kept: 1, descending: false }, &sizes(&[2, 3]), vec![at(&[0])], F32, &[1]);
    sort.outputs.push(Output { name: "i".into(), element: Bool, variables: vec![1] });
    let mut module = module_of(&[(F32, sizes(&[2]))], sort);
    refused(&module, "%r: the second output of a `sort` is i64 and has the axes of the first");
    let index = module.functions[0].outputs[0].node;
    module.functions[0].graph[index].outputs[1].element = I64;
    refused(&module, "%r: `sort` keeps 3 of 2 positions");
}
