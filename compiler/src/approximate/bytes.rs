//! Products on bytes: what a product with weights reads is rounded to unsigned bytes over the range that it has on samples,
//! its weights to signed bytes with a scale for each output channel. Exact rules then move the scales out of the product.

use super::{Change, Ranges, Variant, rules::ApproximateRule};
use crate::{
    plan::layer_of,
    quantise::{Granularity, codes::Coding, layer_weights},
};
use petgraph::stable_graph::NodeIndex;
use std::sync::Arc;
use strang_ir::{
    Axis, ElementType, IndexMap, Literal, Module, Node, Op, Output, Parameter, ScalarExpr, Source, Tensor, Value,
    circuit::distinct_variables,
    op::Monoid,
    scalar::{Binary, Unary},
};

/// The largest unsigned byte.
const LARGEST: f64 = 255.;

/// Products of one value with weights.
#[derive(Clone, Debug)]
pub struct Rounding {
    value: Value,
    /// What the value's range maps to bytes with.
    scale: f64,
    zero: f64,
    products: Vec<Product>,
}

#[derive(Clone, Debug)]
struct Product {
    node: NodeIndex,
    /// The slot of the value.
    slot: u32,
    /// The slot of the weights.
    weights: u32,
}

/// The values that products with weights read, in order of the products, with those products.
fn read(module: &Module) -> Vec<(Value, Vec<Product>)> {
    let function = module.entry();
    let mut found: Vec<(Value, Vec<Product>)> = Vec::new();
    for node in function.order() {
        let Some((weights, ..)) = layer_weights(module, function, node, Granularity::Channel) else { continue };
        let operands = function.operands(node);
        let &[_, _] = &operands[..] else { continue };
        let slot = 1 - weights;
        let value = operands[slot as usize];
        let f32s = [value, node.into()].iter().all(|value| function.element_of(*value) == ElementType::F32);
        if !f32s || matches!(function.graph[value.node].op, Op::Param(_) | Op::Const(_)) {
            continue;
        }
        let product = Product { node, slot, weights };
        match found.iter_mut().find(|(other, _)| *other == value) {
            Some((_, products)) => products.push(product),
            None => found.push((value, vec![product])),
        }
    }
    found
}

/// The circuit that computes the least and the largest element of every value that products with weights read, in pairs, and
/// those values. `None` where there are none.
pub fn observing(module: &Module) -> Option<(Module, Vec<Value>)> {
    let values: Vec<Value> = read(module).into_iter().map(|(value, _)| value).collect();
    let mut module = module.clone();
    let function = &mut module.functions[0];
    (function.outputs, function.output_names) = (Vec::new(), Vec::new());
    for value in &values {
        for (monoid, name) in [(Monoid::Minimum, "low"), (Monoid::Maximum, "high")] {
            let variables = distinct_variables(
                &function.graph[value.node].axes(value.port).into_iter().cloned().collect::<Vec<_>>(),
            );
            let maps = vec![IndexMap::of_variables(0..variables.len() as u32)];
            let name: Arc<str> = format!("{name}_{}", function.outputs.len()).into();
            let output = Output { name: name.clone(), element: ElementType::F32, variables: Vec::new() };
            let node = Node {
                op: Op::Reduce(monoid),
                variables: variables.into(),
                maps: maps.into(),
                outputs: vec![output],
                source: Source::None,
                block: None,
            };
            let reduced = function.add(node, &[*value]);
            function.outputs.push(reduced.into());
            function.output_names.push(name);
        }
    }
    function.remove_dead();
    (!values.is_empty()).then_some((module, values))
}

/// Values that products with weights read, to be rounded with the weights.
pub fn roundings(module: &Module, rule: &'static ApproximateRule, ranges: &Ranges) -> Vec<Variant> {
    let rounding = |(value, products): (Value, Vec<Product>)| {
        let (low, high) = ranges.get(&value)?;
        // Zero is a byte, so that what lies beyond an edge is exact.
        let (low, high) = (low.min(0.), high.max(0.));
        let scale = f64::from(((high - low) / LARGEST) as f32);
        if !scale.is_normal() {
            return None;
        }
        let zero = (-low / scale).round_ties_even();
        let names: Vec<String> = products.iter().map(|product| layer_of(&module.entry().graph[product.node])).collect();
        let changes = products.iter().map(|product| product.node).collect();
        let degree = (names.len() > 1).then(|| format!("and {} more of its input", names.len() - 1));
        let change = Change::Bytes(Rounding { value, scale, zero, products });
        Some(Variant { rule, layer: names[0].clone(), degree, changes, change })
    };
    read(module).into_iter().filter_map(rounding).collect()
}

impl Rounding {
    /// Rounds the value and the weights.
    pub fn apply(&self, module: &mut Module) {
        let rounded = self.value(module);
        for product in &self.products {
            let Some(weights) = weights(module, product) else { continue };
            let function = &mut module.functions[0];
            function.set_operand(product.node, product.slot, rounded);
            function.set_operand(product.node, product.weights, weights);
        }
    }

    /// The value, as bytes and back.
    fn value(&self, module: &mut Module) -> Value {
        let function = &mut module.functions[0];
        let axes: Vec<Axis> = function.graph[self.value.node].axes(self.value.port).into_iter().cloned().collect();
        let name = function.graph[self.value.node].outputs[self.value.port as usize].name.clone();
        let number = |value: f64| ScalarExpr::Literal(Literal::from_f64(ElementType::F32, value));
        let quotient = ScalarExpr::binary(Binary::Divide, ScalarExpr::Operand(0), number(self.scale));
        let rounded = ScalarExpr::unary(Unary::Round, quotient);
        let moved = ScalarExpr::binary(Binary::Add, rounded, number(self.zero));
        let codes = over(&axes, ScalarExpr::cast(ElementType::U8, moved), ElementType::U8, &format!("{name}_bytes"));
        let codes = function.add(codes, &[self.value]);
        let float = ScalarExpr::cast(ElementType::F32, ScalarExpr::Operand(0));
        let difference = ScalarExpr::binary(Binary::Subtract, float, number(self.zero));
        let scaled = ScalarExpr::binary(Binary::Multiply, difference, number(self.scale));
        let node = over(&axes, scaled, ElementType::F32, &format!("{name}_rounded"));
        function.add(node, &[codes.into()]).into()
    }
}

/// A map of one operand, read whole.
fn over(axes: &[Axis], expression: ScalarExpr, element: ElementType, name: &str) -> Node {
    let variables = distinct_variables(axes);
    let all = 0..variables.len() as u32;
    let output = Output { name: name.into(), element, variables: all.clone().collect() };
    let maps = vec![IndexMap::of_variables(all)];
    Node {
        op: Op::Map(expression),
        variables: variables.into(),
        maps: maps.into(),
        outputs: vec![output],
        source: Source::None,
        block: None,
    }
}

/// The weights of a product as bytes times a scale for each output channel.
fn weights(module: &mut Module, product: &Product) -> Option<Value> {
    let (slot, number, grouping) = layer_weights(module, module.entry(), product.node, Granularity::Channel)?;
    let channels = grouping.of_all();
    let old = module.parameters[number as usize].clone();
    let node = &module.entry().graph[product.node];
    let contracted = node.contracted();
    let read = node.maps[slot as usize].as_variables()?;
    let kept: Vec<usize> = (0..read.len()).filter(|axis| !contracted.contains(&read[*axis])).collect();
    let data = old.data.as_ref()?;
    let values = data.to_vec::<f32>().ok()?;
    let shape: Vec<usize> = kept.iter().map(|axis| data.shape()[*axis]).collect();
    let mut members: Vec<Vec<f32>> = vec![Vec::new(); shape.iter().product()];
    channels.iter().zip(&values).for_each(|(channel, value)| members[*channel].push(*value));
    let codings: Vec<Coding> =
        members.iter().map(|values| Coding::symmetric(values.iter().copied(), i8::BITS)).collect();
    let code = |(value, channel): (&f32, &usize)| codings[*channel].code(*value) as i8;
    let codes: Vec<i8> = values.iter().zip(&channels).map(code).collect();
    let scales: Vec<f32> = codings.iter().map(|coding| coding.scale).collect();
    let scale_axes = kept.iter().map(|axis| old.axes[*axis].clone()).collect();
    let codes = Tensor::from_slice(data.shape(), &codes).ok()?;
    let scales = Tensor::from_slice(&shape, &scales).ok()?;
    let codes = add(module, &old, "bytes", old.axes.clone(), codes);
    let scales = add(module, &old, "scales", scale_axes, scales);
    let float = ScalarExpr::cast(ElementType::F32, ScalarExpr::Operand(0));
    let scaled = ScalarExpr::binary(Binary::Multiply, float, ScalarExpr::Operand(1));
    let mut node = over(&old.axes, scaled, ElementType::F32, &format!("{}_rounded", old.name));
    node.maps.push(IndexMap::of_variables(kept.into_iter().map(|axis| axis as u32)));
    Some(module.functions[0].add(node, &[codes, scales]).into())
}

/// A parameter that takes the place of another.
fn add(module: &mut Module, old: &Parameter, suffix: &str, axes: Vec<Axis>, data: Tensor) -> Value {
    let mut new = Parameter { axes, element: data.element(), ..old.clone() }.with_data(data);
    new.name = format!("{}_{suffix}", old.name).into();
    let (number, new) = module.add_fresh_parameter(new);
    module.functions[0].add_param(number, &new).into()
}
