//! Small circuits with results worked out by hand.

use super::*;
use crate::{
    Atom, Axis, Condition, ElementType, Function, IndexExpr, IndexMap, Literal, Node, Op, Output, Parameter,
    ScalarExpr, Size, Source, Value, Variable,
    op::{Monoid, Norm},
    scalar::{Binary, Unary},
};
use ElementType::{BF16, Bool, F16, F32, I8, I32, I64};

/// A node over variables of given sizes; the output has the variables `kept`.
pub(crate) fn node(op: Op, sizes: &[Size], maps: Vec<IndexMap>, element: ElementType, kept: &[u32]) -> Node {
    let name = |position: usize| format!("v{position}");
    Node {
        op,
        variables: sizes
            .iter()
            .enumerate()
            .map(|(v, size)| Variable::over(&Axis::new(name(v), size.clone())))
            .collect(),
        maps: maps.into(),
        outputs: vec![Output { name: "r".into(), element, variables: kept.to_vec() }],
        source: Source::None,
        block: None,
    }
}

fn sizes(sizes: &[i64]) -> Vec<Size> {
    sizes.iter().map(|size| Size::from(*size)).collect()
}

fn at(variables: &[u32]) -> IndexMap {
    IndexMap::of_variables(variables.iter().copied())
}

fn v(position: u32) -> IndexExpr {
    IndexExpr::variable(position)
}

/// A module whose entry has the given inputs and one node that reads them in order.
pub(crate) fn module_of(inputs: &[(ElementType, Vec<Size>)], node: Node) -> Module {
    let mut function = Function::new("main");
    let operands: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(position, (element, shape))| {
            let axes: Vec<Axis> =
                shape.iter().enumerate().map(|(axis, size)| Axis::new(format!("a{axis}"), size.clone())).collect();
            function.add_input(format!("x{position}"), *element, &axes).into()
        })
        .collect();
    let ports = node.outputs.len() as u32;
    let index = function.add(node, &operands);
    function.outputs = (0..ports).map(|port| Value { node: index, port }).collect();
    function.output_names = (0..ports).map(|port| format!("y{port}").into()).collect();
    Module { title: "test".into(), parameters: vec![], functions: vec![function] }
}

fn run_node(node: Node, inputs: &[Tensor], arithmetic: Arithmetic) -> Result<Vec<Tensor>, InterpretError> {
    let shapes: Vec<_> =
        inputs.iter().map(|t| (t.element(), t.shape().iter().map(|s| Size::from(*s as i64)).collect())).collect();
    interpret(&module_of(&shapes, node), inputs, arithmetic)
}

#[track_caller]
fn check(node: Node, inputs: &[Tensor], expected: &[f64]) {
    for arithmetic in [Arithmetic::Wide, Arithmetic::Typed] {
        let found = run_node(node.clone(), inputs, arithmetic).unwrap();
        let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
        let found = found[0].to_f64();
        assert!(
            found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| same(*a, *b)),
            "{arithmetic:?}: {found:?}, not {expected:?}"
        );
    }
}

fn f32s(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_slice(shape, values).unwrap()
}

const DOT: Op = Op::Dot { accumulator: F32 };

#[test]
fn a_matrix_product() {
    let a = f32s(&[2, 3], &[1., 2., 3., 4., 5., 6.]);
    let b = f32s(&[3, 2], &[1., 0., 0., 1., 2., -1.]);
    let product = node(DOT, &sizes(&[2, 2, 3]), vec![at(&[0, 2]), at(&[2, 1])], F32, &[0, 1]);
    check(product.clone(), &[a.clone(), b.clone()], &[7., -1., 16., -1.]);
    let mut transposed = product;
    transposed.outputs[0].variables = vec![1, 0];
    check(transposed, &[a, b], &[7., 16., -1., -1.]);
}

#[test]
fn a_padded_convolution_skips_what_lies_outside() {
    // An infinite weight times padding does not count.
    let a = f32s(&[4], &[1., 2., 3., 4.]);
    let kernel = f32s(&[3], &[f32::INFINITY, 1., 10.]);
    let window = IndexMap::new(vec![v(0).plus(&v(1)).plus_size(&Size::from(-1))]).with_fill(Literal::f32(0.));
    let convolution = node(DOT, &sizes(&[4, 3]), vec![window, at(&[1])], F32, &[0]);
    check(convolution, &[a, kernel], &[21., f64::INFINITY, f64::INFINITY, f64::INFINITY]);
}

#[test]
fn sums_of_halves_are_rounded_once() {
    let ones = |element| {
        let mut tensor = Tensor::zeros(element, &[3000]).unwrap();
        (0..3000).for_each(|position| tensor.set_bits(position, Literal::one(element).bits));
        tensor
    };
    for (element, expected) in [(F16, 3000.), (BF16, 3008.)] {
        let sum = node(DOT, &sizes(&[3000]), vec![at(&[0])], element, &[]);
        let found = run_node(sum, &[ones(element)], Arithmetic::Typed).unwrap();
        assert_eq!(found[0].to_f64(), [expected]);
    }
}

#[test]
fn integer_products_wrap_in_the_accumulator() {
    let a = Tensor::from_slice(&[2], &[100i8, -128]).unwrap();
    let dot = |element| node(Op::Dot { accumulator: I32 }, &sizes(&[2]), vec![at(&[0]), at(&[0])], element, &[]);
    check(dot(I32), &[a.clone(), a.clone()], &[26384.]);
    check(dot(I8), &[a.clone(), a], &[f64::from(26384i32 as i8)]);
}

#[test]
fn maps_compute_positions_sizes_and_selections() {
    // A causal mask: the score where key <= query, else -inf.
    let scores = f32s(&[2, 3], &[1., 2., 3., 4., 5., 6.]);
    let causal = ScalarExpr::select(
        ScalarExpr::binary(Binary::LessOrEqual, ScalarExpr::Index(1), ScalarExpr::Index(0)),
        ScalarExpr::Operand(0),
        ScalarExpr::Literal(Literal::lowest(F32)),
    );
    let masked = node(Op::Map(causal), &sizes(&[2, 3]), vec![at(&[0, 1])], F32, &[0, 1]);
    let inf = f64::INFINITY;
    check(masked, &[scores], &[1., -inf, -inf, 4., 5., -inf]);
    let scale = ScalarExpr::cast(F32, ScalarExpr::Size(Size::from(7)));
    check(node(Op::Map(scale), &sizes(&[2]), vec![], F32, &[0]), &[], &[7., 7.]);
}

#[test]
fn extremes_and_signs() {
    let a = f32s(&[6], &[-0., 0., f32::NAN, 1., -1., f32::INFINITY]);
    let unary = |function| node(Op::Map(ScalarExpr::unary_map(function)), &sizes(&[6]), vec![at(&[0])], F32, &[0]);
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    check(unary(Unary::Relu), std::slice::from_ref(&a), &[0., 0., nan, 1., 0., inf]);
    check(unary(Unary::Sign), std::slice::from_ref(&a), &[-0., 0., nan, 1., -1., 1.]);
    let minimum = ScalarExpr::binary_map(Binary::Minimum);
    let reversed = IndexMap::new(vec![v(0).times(&Size::from(-1)).plus_size(&Size::from(5))]);
    let minimum = node(Op::Map(minimum), &sizes(&[6]), vec![at(&[0]), reversed], F32, &[0]);
    check(minimum, &[a.clone(), a], &[-0., -1., nan, nan, -1., -0.]);
}

#[test]
fn integers_divide_without_trapping() {
    let a = Tensor::from_slice(&[5], &[7i8, -7, -128, 5, -7]).unwrap();
    let b = Tensor::from_slice(&[5], &[2i8, 2, -1, 0, -2]).unwrap();
    let of =
        |function| node(Op::Map(ScalarExpr::binary_map(function)), &sizes(&[5]), vec![at(&[0]), at(&[0])], I8, &[0]);
    check(of(Binary::Divide), &[a.clone(), b.clone()], &[3., -3., -128., 0., 3.]);
    check(of(Binary::Remainder), &[a.clone(), b.clone()], &[1., -1., 0., 0., -1.]);
    check(of(Binary::Modulo), &[a.clone(), b.clone()], &[1., 1., 0., 0., -1.]);
    check(of(Binary::Power), &[a.clone(), b.clone()], &[49., 49., 0., 1., 0.]);
    check(of(Binary::ShiftRight), &[a, b], &[1., -2., -1., 5., -1.]);
}

#[test]
fn lanes_then_a_tree() {
    // 2^24 absorbs a single 1, so the order shows: lane 0 adds 2^24 and element 16, the others each a 1.
    let mut values = vec![1f32; 17];
    values[0] = 16_777_216.;
    let input = f32s(&[17], &values);
    let sum = |kept: &[u32], map| node(Op::Reduce(Monoid::Sum), &sizes(&[17]), vec![map], F32, kept);
    let found = |sum, input| run_node(sum, &[input], Arithmetic::Typed).unwrap()[0].to_f64()[0];
    // Lane 0 keeps 2^24. Its tree adds lane 8 (1, absorbed), then 4 (lanes 4 and 12: 2), then 2 (4), then 1 (8).
    assert_eq!(found(sum(&[], at(&[0])), input.clone()), 16_777_230.);
    // Along an outer axis one after the other: every 1 is absorbed.
    let columns = IndexMap::new(vec![v(0), IndexExpr::constant(0)]);
    assert_eq!(found(sum(&[], columns), input.reshaped(&[17, 1]).unwrap()), 16_777_216.);
}

#[test]
fn reductions() {
    let a = f32s(&[2, 3], &[3., 1., 2., f32::NAN, -1., -2.]);
    let reduce = |monoid| node(Op::Reduce(monoid), &sizes(&[2, 3]), vec![at(&[0, 1])], F32, &[0]);
    check(reduce(Monoid::Maximum), std::slice::from_ref(&a), &[3., f64::NAN]);
    check(reduce(Monoid::Product), std::slice::from_ref(&a), &[6., f64::NAN]);
    let arg = |largest, last| node(Op::ArgReduce { largest, last }, &sizes(&[2, 3]), vec![at(&[0, 1])], I64, &[0]);
    check(arg(true, false), std::slice::from_ref(&a), &[0., 0.]);
    check(arg(false, false), &[a], &[1., 0.]);
    let ties = f32s(&[1, 4], &[1., 5., 5., 0.]);
    let arg = |last| node(Op::ArgReduce { largest: true, last }, &sizes(&[1, 4]), vec![at(&[0, 1])], I64, &[0]);
    check(arg(false), std::slice::from_ref(&ties), &[1.]);
    check(arg(true), &[ties], &[2.]);
}

#[test]
fn softmax_and_norms() {
    let a = f32s(&[2, 2], &[0., 0., f32::NEG_INFINITY, 7.]);
    let softmax = |over: &[u32]| {
        node(Op::Softmax { over: over.to_vec(), log: false }, &sizes(&[2, 2]), vec![at(&[0, 1])], F32, &[0, 1])
    };
    check(softmax(&[1]), &[a], &[0.5, 0.5, 0., 1.]);
    let b = f32s(&[2, 2], &[2., 1., 2., 1.]);
    check(softmax(&[0]), std::slice::from_ref(&b), &[0.5; 4]);
    check(softmax(&[0, 1]), &[f32s(&[2, 2], &[3.; 4])], &[0.25; 4]);
    let epsilon = Literal::from_f64(ElementType::F64, 0.);
    let norm = |kind, maps| node(Op::Norm { kind, over: vec![1], epsilon }, &sizes(&[2, 2]), maps, F32, &[0, 1]);
    let (gain, bias) = (f32s(&[2], &[2., 4.]), f32s(&[2], &[1., 0.]));
    let layer = norm(Norm::Layer, vec![at(&[0, 1]), at(&[1]), at(&[1])]);
    check(layer, &[b, gain.clone(), bias], &[3., -4., 3., -4.]);
    check(norm(Norm::Rms, vec![at(&[0, 1]), at(&[1])]), &[f32s(&[2, 2], &[3., 3., -5., 5.]), gain], &[2., 4., -2., 4.]);
}

#[test]
fn maps_of_indices() {
    let a = f32s(&[6], &[0., 1., 2., 3., 4., 5.]);
    let view = |map, size| node(Op::View, &sizes(&[size]), vec![map], F32, &[0]);
    let of = |expression| IndexMap::new(vec![expression]);
    check(view(of(v(0).times(&Size::from(2))), 3), std::slice::from_ref(&a), &[0., 2., 4.]);
    let half = IndexExpr::atom(Atom::FloorDiv(Box::new(v(0)), Size::from(2)));
    check(view(of(half), 5), std::slice::from_ref(&a), &[0., 0., 1., 1., 2.]);
    let modulo = IndexExpr::atom(Atom::Remainder(Box::new(v(0).plus_size(&Size::from(-1))), Size::from(3)));
    check(view(of(modulo), 4), std::slice::from_ref(&a), &[2., 0., 1., 2.]);
    let clamp = IndexExpr::atom(Atom::Clamp(Box::new(v(0).plus_size(&Size::from(-2))), Size::ZERO, Size::ONE));
    check(view(of(clamp), 5), std::slice::from_ref(&a), &[0., 0., 0., 1., 1.]);
    let table = IndexExpr::table([5, 0, 5, 1].into(), v(0));
    check(view(of(table), 4), std::slice::from_ref(&a), &[5., 0., 5., 1.]);
    // Every third position only, and not the last: what a transposed convolution reads.
    let mut strided = of(IndexExpr::atom(Atom::FloorDiv(Box::new(v(0)), Size::from(3)))).with_fill(Literal::f32(-1.));
    strided.conditions = vec![
        Condition::Divisible { expression: v(0), divisor: Size::from(3) },
        Condition::Range { expression: v(0), low: Size::ZERO, high: Size::from(6) },
    ];
    check(view(strided, 7), &[a], &[0., -1., -1., 1., -1., -1., -1.]);
}

#[test]
fn concat_gather_scatter_sort() {
    let (a, b) = (f32s(&[2], &[1., 2.]), f32s(&[1], &[3.]));
    let op = Op::Concat { along: 0, offsets: sizes(&[0, 2, 2, 3]) };
    let shifted = |offset: i64| IndexMap::new(vec![v(0).plus_size(&Size::from(-offset))]);
    let concat = node(op, &sizes(&[3]), vec![shifted(0), shifted(2), shifted(2)], F32, &[0]);
    check(concat, &[a, Tensor::zeros(F32, &[0]).unwrap(), b], &[1., 2., 3.]);

    let table = f32s(&[3, 2], &[1., 2., 3., 4., 5., 6.]);
    let ids = Tensor::from_slice(&[2], &[2i64, 0]).unwrap();
    let source = IndexMap::new(vec![IndexExpr::atom(Atom::Read(1)), v(1)]);
    let gather = |source| node(Op::Gather, &sizes(&[2, 2]), vec![source, at(&[0])], F32, &[0, 1]);
    check(gather(source.clone()), &[table.clone(), ids.clone()], &[5., 6., 1., 2.]);
    let beyond = Tensor::from_slice(&[2], &[2i64, 3]).unwrap();
    let error = run_node(gather(source.clone()), &[table.clone(), beyond.clone()], Arithmetic::Wide).unwrap_err();
    assert_eq!(error.to_string(), "%r: index 3 lies outside axis 0 of operand 0, which has 3 positions");
    check(gather(source.with_fill(Literal::f32(0.))), &[table.clone(), beyond], &[5., 6., 0., 0.]);

    let target = vec![IndexExpr::atom(Atom::Read(2)), v(1)];
    let op = |reduction| Op::Scatter { reduction, target: target.clone() };
    let scatter =
        |reduction| node(op(reduction), &sizes(&[3, 2, 2]), vec![at(&[0, 1]), at(&[2, 1]), at(&[2])], F32, &[0, 1]);
    let updates = f32s(&[2, 2], &[10., 20., 30., 40.]);
    let same = Tensor::from_slice(&[2], &[1i64, 1]).unwrap();
    let inputs = [table, updates, same];
    check(scatter(Some(Monoid::Sum)), &inputs, &[1., 2., 43., 64., 5., 6.]);
    check(scatter(None), &inputs, &[1., 2., 30., 40., 5., 6.]);

    let mut sort = node(Op::Sort { along: 0, kept: 1, descending: true }, &sizes(&[4, 3]), vec![at(&[0])], F32, &[1]);
    sort.outputs.push(Output { name: "i".into(), element: I64, variables: vec![1] });
    let values = f32s(&[4], &[1., f32::NAN, 3., 3.]);
    let found = run_node(sort, &[values], Arithmetic::Typed).unwrap();
    assert!(found[0].to_f64()[0].is_nan());
    assert_eq!(found[0].to_f64()[1..], [3., 3.]);
    assert_eq!(found[1].to_f64(), [1., 2., 3.]);
}

#[test]
fn control_flow() {
    // A scan of running sums: state += slice; yields the state.
    let scalar = |op, maps| node(op, &[], maps, F32, &[]);
    let add = || Op::Map(ScalarExpr::binary_map(Binary::Add));
    let mut body = Function::new("step");
    let (state, slice) = (body.add_input("s", F32, &[]), body.add_input("x", F32, &[]));
    let next = body.add(scalar(add(), vec![at(&[]), at(&[])]), &[state.into(), slice.into()]);
    body.outputs = vec![next.into(), next.into()];
    body.output_names = vec!["s".into(), "y".into()];
    let scan = |reverse| {
        let op = Op::Scan { body: FunctionId(1), along: 0, reverse, states: 1 };
        let mut scan = node(op, &sizes(&[3]), vec![at(&[]), at(&[0])], F32, &[]);
        scan.outputs.push(Output { name: "all".into(), element: F32, variables: vec![0] });
        let mut module = module_of(&[(F32, vec![]), (F32, sizes(&[3]))], scan);
        module.functions.push(body.clone());
        module
    };
    let inputs = [Tensor::scalar(10f32), f32s(&[3], &[1., 2., 3.])];
    let found = interpret(&scan(false), &inputs, Arithmetic::Typed).unwrap();
    assert_eq!((found[0].to_f64(), found[1].to_f64()), (vec![16.], vec![11., 13., 16.]));
    let found = interpret(&scan(true), &inputs, Arithmetic::Typed).unwrap();
    assert_eq!((found[0].to_f64(), found[1].to_f64()), (vec![16.], vec![16., 15., 13.]));

    // A loop that doubles until it reaches 10, and an `if` between that body's sum and a constant.
    let mut double = Function::new("double");
    double.add_input("i", I64, &[]);
    let state = double.add_input("s", F32, &[]);
    let twice = double.add(scalar(add(), vec![at(&[]), at(&[])]), &[state.into(), state.into()]);
    let below = ScalarExpr::binary(Binary::Less, ScalarExpr::Operand(0), ScalarExpr::Literal(Literal::f32(10.)));
    let go_on = double.add(node(Op::Map(below), &[], vec![at(&[])], Bool, &[]), &[twice.into()]);
    double.outputs = vec![go_on.into(), twice.into()];
    double.output_names = vec!["go".into(), "s".into()];
    let repeat = node(Op::Loop { body: FunctionId(1) }, &[], vec![at(&[]); 3], F32, &[]);
    let mut module = module_of(&[(I64, vec![]), (Bool, vec![]), (F32, vec![])], repeat);
    module.functions.push(double);
    let run = |limit: i64, begin: bool| {
        let inputs = [Tensor::scalar(limit), Tensor::from_bools(&[], &[begin]).unwrap(), Tensor::scalar(3f32)];
        interpret(&module, &inputs, Arithmetic::Wide).unwrap()[0].to_f64()
    };
    assert_eq!((run(9, true), run(1, true), run(9, false)), (vec![12.], vec![6.], vec![3.]));

    let mut constant = Function::new("constant");
    let (a, b) = (constant.add_input("a", F32, &[]), constant.add_input("b", F32, &[]));
    let five = constant.add(scalar(Op::Const(Literal::f32(5.)), vec![]), &[]);
    assert_ne!(a, b);
    constant.outputs = vec![five.into()];
    constant.output_names = vec!["five".into()];
    let mut sum = body.clone();
    sum.outputs.pop();
    sum.output_names.pop();
    let choose = node(Op::If { then: FunctionId(1), otherwise: FunctionId(2) }, &[], vec![at(&[]); 3], F32, &[]);
    let mut module = module_of(&[(Bool, vec![]), (F32, vec![]), (F32, vec![])], choose);
    module.functions.extend([sum, constant]);
    let run = |yes: bool| {
        let inputs = [Tensor::from_bools(&[], &[yes]).unwrap(), Tensor::scalar(3f32), Tensor::scalar(4f32)];
        interpret(&module, &inputs, Arithmetic::Typed).unwrap()[0].to_f64()
    };
    assert_eq!((run(true), run(false)), (vec![7.], vec![5.]));
}

#[test]
fn symbols_are_bound_from_shapes() {
    let s = Size::symbol("s");
    let pairs = node(Op::View, std::slice::from_ref(&s), vec![at(&[0])], F32, &[0]);
    let mut module = module_of(&[(F32, vec![s.clone()])], pairs);
    let mut again = module.functions[0].clone();
    again.add_input("z", F32, &[Axis::new("twice", &s * &Size::from(2))]);
    module.functions[0] = again;
    let inputs = |twice| [f32s(&[2], &[1., 2.]), Tensor::zeros(F32, &[twice]).unwrap()];
    assert_eq!(interpret(&module, &inputs(4), Arithmetic::Wide).unwrap()[0].to_f64(), [1., 2.]);
    let error = interpret(&module, &inputs(5), Arithmetic::Wide).unwrap_err();
    assert_eq!(error.to_string(), "axis 0 (twice) of input `z` is 2*s = 4 (from axis a0 of input `x0`), not 5");
    assert!(interpret(&module, &inputs(4)[..1], Arithmetic::Wide).is_err());
    assert!(interpret(&module, &[Tensor::scalar(1f32), Tensor::zeros(F32, &[4]).unwrap()], Arithmetic::Wide).is_err());
}

#[test]
fn single_elements_agree_with_the_whole() {
    let softmax = node(Op::Softmax { over: vec![0], log: true }, &sizes(&[3, 2]), vec![at(&[0, 1])], F32, &[1, 0]);
    let module = module_of(&[(F32, sizes(&[3, 2]))], softmax);
    let input = f32s(&[3, 2], &[1., 2., 3., 4., 5., 7.]);
    let value = module.functions[0].outputs[0].node;
    for arithmetic in [Arithmetic::Wide, Arithmetic::Typed] {
        let (_, trace) = interpret_all(&module, std::slice::from_ref(&input), arithmetic).unwrap();
        let whole = &trace[&(FunctionId(0), value, 0)];
        let positions: Vec<Vec<usize>> = (0..6).map(|flat| vec![flat / 3, flat % 3]).collect();
        let operands = [input.clone()];
        let bindings = Bindings::new();
        let found =
            interpret_elements(&module, FunctionId(0), value, &operands, &bindings, arithmetic, &positions).unwrap();
        let expected: Vec<Number> = (0..6).map(|flat| whole.at(flat)).collect();
        assert_eq!(found, expected);
        let outside = [vec![2, 0]];
        assert!(interpret_elements(&module, FunctionId(0), value, &operands, &bindings, arithmetic, &outside).is_err());
    }
}

#[test]
fn parameters_without_data_are_named() {
    let mut module = module_of(&[], node(Op::Param(0), &sizes(&[2]), vec![], F32, &[0]));
    module.parameters.push(parameter("w", Some(f32s(&[2], &[1., 2.]))));
    assert_eq!(interpret(&module, &[], Arithmetic::Wide).unwrap()[0].to_f64(), [1., 2.]);
    module.parameters[0].data = None;
    let error = interpret(&module, &[], Arithmetic::Wide).unwrap_err();
    assert_eq!(error.to_string(), "parameter `w` has no data");
}

fn parameter(name: &str, data: Option<Tensor>) -> Parameter {
    let parameter = Parameter::new(name, F32, vec![Axis::new("n", 2)]);
    data.map_or(parameter.clone(), |data| parameter.with_data(data))
}
