//! Small ONNX models built in code: one to three nodes each, every family of operators among them.

use prost::Message;
use strang_compiler::import::onnx::proto::{
    AttributeProto, Dimension, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, ShapeProto,
    TensorProto, TensorTypeProto, TypeProto, ValueInfoProto, kind,
};

/// The element type of floats.
pub const FLOAT: i32 = 1;
const INT64: i32 = 7;
const BOOL: i32 = 9;

/// A dimension: a number, or a symbol for a negative one.
fn dimension(size: i64) -> DimensionProto {
    let value = if size < 0 { Dimension::Symbol(format!("n{}", -size)) } else { Dimension::Size(size) };
    DimensionProto { value: Some(value) }
}

/// A graph input.
pub fn port(name: &str, element: i32, dims: &[i64]) -> ValueInfoProto {
    let shape = Some(ShapeProto { dim: dims.iter().map(|size| dimension(*size)).collect() });
    let tensor = Some(TensorTypeProto { element, shape });
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor, ..Default::default() }) }
}

/// A constant of floats.
pub fn floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    let float_data = values.to_vec();
    TensorProto { name: name.into(), dims: dims.to_vec(), data_type: FLOAT, float_data, ..Default::default() }
}

/// A constant vector of integers.
pub fn integers(name: &str, values: &[i64]) -> TensorProto {
    let (dims, int64_data) = (vec![values.len() as i64], values.to_vec());
    TensorProto { name: name.into(), dims, data_type: INT64, int64_data, ..Default::default() }
}

/// An attribute that is an integer.
pub fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i: value, kind: kind::INT, ..Default::default() }
}

fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { name: name.into(), f: value, kind: kind::FLOAT, ..Default::default() }
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { name: name.into(), ints: values.to_vec(), kind: kind::INTS, ..Default::default() }
}

pub fn text(name: &str, value: &'static str) -> AttributeProto {
    AttributeProto { name: name.into(), s: value.into(), kind: kind::STRING, ..Default::default() }
}

fn body(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto { name: name.into(), g: Some(graph), kind: kind::GRAPH, ..Default::default() }
}

/// A node; names are separated by blanks, and `_` leaves one out.
pub fn node(operator: &str, inputs: &str, outputs: &str, attribute: &[AttributeProto]) -> NodeProto {
    let names = |text: &str| text.split_whitespace().map(|name| name.replace('_', "")).collect();
    NodeProto {
        input: names(inputs),
        output: names(outputs),
        op_type: operator.into(),
        attribute: attribute.to_vec(),
        ..Default::default()
    }
}

/// A graph of nodes that yields `y`.
pub fn graph(inputs: &[ValueInfoProto], initializer: &[TensorProto], nodes: &[NodeProto]) -> GraphProto {
    GraphProto {
        node: nodes.to_vec(),
        name: "g".into(),
        initializer: initializer.to_vec(),
        input: inputs.to_vec(),
        output: vec![ValueInfoProto { name: "y".into(), r#type: None }],
        ..Default::default()
    }
}

/// A model around a graph.
pub fn model(graph: GraphProto, version: i64) -> ModelProto {
    ModelProto {
        ir_version: 8,
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version }],
        functions: vec![],
    }
}

/// Every model, encoded, with the operator that it is about.
pub fn models() -> Vec<(String, ModelProto)> {
    let x = |dims: &[i64]| port("x", FLOAT, dims);
    let image = || x(&[1, 2, 5, 5]);
    let mut models: Vec<(String, ModelProto)> = Vec::new();
    let mut add = |inputs: &[ValueInfoProto], constants: &[TensorProto], nodes: &[NodeProto]| {
        let name = nodes.iter().map(|node| node.op_type.as_str()).collect::<Vec<_>>().join("-");
        models.push((name, model(graph(inputs, constants, nodes), 28)));
    };
    let one = |operator: &str, inputs: &str, attributes: &[AttributeProto]| [node(operator, inputs, "y", attributes)];

    add(&[x(&[-1, 3])], &[floats("w", &[3], &[1., 2., 3.])], &one("Add", "x w", &[]));
    add(&[x(&[2])], &[], &one("LeakyRelu", "x", &[float("alpha", 0.5)]));
    add(&[x(&[2]), port("c", BOOL, &[2])], &[], &one("Where", "c x x", &[]));
    add(&[x(&[2])], &[], &one("Cast", "x", &[int("to", 7)]));
    add(&[x(&[-1, 2])], &[floats("w", &[2, 2], &[1.; 4])], &one("MatMul", "x w", &[]));
    let gemm = [int("transB", 1), float("alpha", 2.)];
    add(&[x(&[3, 2])], &[floats("w", &[4, 2], &[1.; 8]), floats("b", &[4], &[0.; 4])], &one("Gemm", "x w b", &gemm));
    let windows = [ints("pads", &[1, 1, 1, 1]), ints("strides", &[2, 2]), ints("dilations", &[1, 2])];
    let kernel = floats("w", &[2, 1, 3, 3], &[1.; 18]);
    let grouped: Vec<_> = windows.iter().cloned().chain([int("group", 2)]).collect();
    add(&[image()], std::slice::from_ref(&kernel), &one("Conv", "x w", &grouped));
    let transposed = [ints("strides", &[2, 2]), ints("output_padding", &[1, 1]), int("group", 2)];
    add(&[image()], std::slice::from_ref(&kernel), &one("ConvTranspose", "x w", &transposed));
    let pooled: Vec<_> = windows.iter().cloned().chain([ints("kernel_shape", &[2, 2]), int("ceil_mode", 1)]).collect();
    add(&[image()], &[], &one("MaxPool", "x", &pooled));
    let counted = [ints("kernel_shape", &[2, 2]), int("count_include_pad", 1), text("auto_pad", "SAME_UPPER")];
    add(&[image()], &[], &one("AveragePool", "x", &counted));
    let statistics: Vec<_> = ["s", "b", "m", "v"].map(|name| floats(name, &[2], &[1.; 2])).into();
    add(&[image()], &statistics, &one("BatchNormalization", "x s b m v", &[float("epsilon", 1e-3)]));
    add(&[x(&[-1, 2])], &statistics, &one("LayerNormalization", "x s b", &[int("axis", -1)]));
    add(&[image()], &statistics, &one("GroupNormalization", "x s b", &[int("num_groups", 2)]));
    add(&[image()], &[], &one("LRN", "x", &[int("size", 3)]));
    add(&[x(&[2, 3])], &[], &one("Softmax", "x", &[int("axis", 1)]));
    add(&[x(&[2, 3])], &[integers("a", &[1])], &one("ReduceSum", "x a", &[int("keepdims", 0)]));
    add(&[x(&[2, 3])], &[], &one("ArgMax", "x", &[int("axis", 1), int("select_last_index", 1)]));
    add(&[x(&[2, 3])], &[integers("k", &[2])], &[node("TopK", "x k", "v y", &[int("axis", 1), int("largest", 0)])]);
    add(&[x(&[2, 3])], &[integers("a", &[1])], &one("CumSum", "x a", &[int("reverse", 1)]));
    add(&[x(&[-1, 3])], &[integers("i", &[2, -1])], &one("Gather", "x i", &[int("axis", 1)]));
    add(&[x(&[4, 3]), port("i", INT64, &[2, 3])], &[], &one("GatherElements", "x i", &[int("axis", 0)]));
    add(&[x(&[4, 3]), port("i", INT64, &[5, 2])], &[], &one("GatherND", "x i", &[int("batch_dims", 0)]));
    let writes = [x(&[4, 3]), port("i", INT64, &[2, 1]), port("u", FLOAT, &[2, 3])];
    add(&writes, &[], &one("ScatterND", "x i u", &[text("reduction", "add")]));
    let bounds = [integers("s", &[1]), integers("e", &[-1]), integers("a", &[0]), integers("t", &[2])];
    add(&[x(&[9, 3])], &bounds, &one("Slice", "x s e a t", &[]));
    add(&[x(&[3, 3])], &[integers("p", &[1, 0, 2, 0])], &one("Pad", "x p", &[text("mode", "reflect")]));
    add(&[x(&[-1, 3]), port("z", FLOAT, &[-1, 2])], &[], &one("Concat", "x z", &[int("axis", 1)]));
    add(&[x(&[5, 3])], &[integers("p", &[2, 3])], &[node("Split", "x p", "y z", &[int("axis", 0)])]);
    add(&[x(&[-1, 6])], &[integers("s", &[0, -1, 2])], &one("Reshape", "x s", &[int("allowzero", 0)]));
    add(&[x(&[2, 3])], &[], &one("Transpose", "x", &[ints("perm", &[1, 0])]));
    add(&[x(&[2, 1])], &[integers("s", &[3, 2, 4])], &one("Expand", "x s", &[]));
    add(&[x(&[2, 3])], &[integers("r", &[2, 2])], &one("Tile", "x r", &[]));
    add(&[x(&[2, 3])], &[integers("a", &[0, -1])], &one("Unsqueeze", "x a", &[]));
    add(&[x(&[1, 8, 2, 2])], &[], &one("DepthToSpace", "x", &[int("blocksize", 2), text("mode", "CRD")]));
    add(&[x(&[2, 3, 4])], &[], &one("Einsum", "x", &[text("equation", "a...b->...a")]));
    add(&[x(&[1, 1, 4, 4])], &[integers("s", &[1, 1, 3, 6])], &one("Resize", "x _ _ s", &[text("mode", "linear")]));
    add(&[x(&[2])], &[integers("d", &[3]), floats("v", &[2], &[0., 1.])], &one("OneHot", "x d v", &[int("axis", -1)]));
    let gates = [floats("w", &[1, 8, 3], &[0.1; 24]), floats("r", &[1, 8, 2], &[0.1; 16])];
    add(&[x(&[4, 1, 3])], &gates, &[node("LSTM", "x w r", "y h", &[int("hidden_size", 2)])]);
    let shape = [node("Shape", "x", "s", &[int("start", 1)]), node("ConstantOfShape", "s", "y", &[])];
    add(&[x(&[-1, 3, -2])], &[], &shape);
    let range = [node("Shape", "x", "n", &[int("end", 1)]), node("Squeeze", "n", "m", &[])];
    let range = [&range[..], &[node("Range", "z m o", "y", &[])]].concat();
    let number = |name: &str, value| TensorProto { dims: vec![], ..integers(name, &[value]) };
    add(&[x(&[-1])], &[number("z", 0), number("o", 1)], &range);
    let quantised = [floats("s", &[], &[0.5])];
    let quantise = [node("QuantizeLinear", "x s", "q", &[]), node("DequantizeLinear", "q s", "y", &[])];
    add(&[x(&[2, 3])], &quantised, &quantise);
    let grid = [text("padding_mode", "reflection"), text("mode", "cubic")];
    add(&[image(), port("g", FLOAT, &[1, 3, 2, 2])], &[], &one("GridSample", "x g", &grid));
    add(&[x(&[1, 6, 1])], &[number("l", 4), number("a", 1)], &one("DFT", "x l a", &[int("onesided", 1)]));
    add(&[x(&[2, 3, 3])], &[], &one("Det", "x", &[]));
    let heads = [int("q_num_heads", 2), int("kv_num_heads", 1), text("update_rule", "delta")];
    let packed = [x(&[1, 3, 4]), port("k", FLOAT, &[1, 3, 2]), port("b", FLOAT, &[1, 3, 1])];
    add(&packed, &[], &one("LinearAttention", "x k k _ _ b", &heads));
    add(&[], &[floats("x", &[2, 2], &[1., 0., 2., 0.])], &one("NonZero", "x", &[]));
    add(
        &[x(&[4, 2])],
        &[floats("c", &[4], &[1.; 4])],
        &[node("Cast", "c", "d", &[int("to", 9)]), node("Compress", "x d", "y", &[int("axis", 0)])],
    );

    let doubled = |operand: &str| graph(&[], &[], &one("Add", &format!("{operand} {operand}"), &[]));
    let branches = [body("then_branch", doubled("x")), body("else_branch", graph(&[], &[], &one("Neg", "x", &[])))];
    add(&[x(&[2]), port("c", BOOL, &[])], &[], &one("If", "c", &branches));
    let rounds = GraphProto {
        output: ["k", "y", "z"].map(|name| ValueInfoProto { name: name.into(), r#type: None }).into(),
        ..graph(
            &[port("t", INT64, &[]), port("c", BOOL, &[]), port("a", FLOAT, &[2])],
            &[],
            &[node("Identity", "c", "k", &[]), node("Add", "a x", "y", &[]), node("Mul", "a x", "z", &[])],
        )
    };
    add(&[x(&[2])], &[number("n", 3)], &[node("Loop", "n _ x", "y z", &[body("body", rounds)])]);
    let steps = GraphProto {
        output: ["b", "y"].map(|name| ValueInfoProto { name: name.into(), r#type: None }).into(),
        ..graph(
            &[port("a", FLOAT, &[3]), port("e", FLOAT, &[3])],
            &[],
            &[node("Add", "a e", "b", &[]), node("Identity", "b", "y", &[])],
        )
    };
    let scan = [body("body", steps), int("num_scan_inputs", 1), ints("scan_input_axes", &[0])];
    add(&[x(&[4, 3])], &[floats("i", &[3], &[0.; 3])], &[node("Scan", "i x", "f y", &scan)]);
    models
}

/// A model as the bytes of its file.
pub fn encode(model: &ModelProto) -> Vec<u8> {
    model.encode_to_vec()
}
