//! What takes the place of weights: codes and the books that they are looked up in, or three layers.

use super::{
    Granularity, QuantiseError, Quantised, Scheme, Splitting,
    split::PARTS,
    weights::{Coded, Grouping, weights},
};
use crate::plan::layer_of;
use petgraph::stable_graph::NodeIndex;
use rustc_hash::FxHashMap;
use strang_ir::{
    Atom, Axis, ElementType, Function, IndexExpr, IndexMap, Module, Node, Op, Output, Parameter, ScalarExpr, Size,
    Source, Tensor, Value, circuit::distinct_variables, scalar::Binary,
};

/// Names of the parts of a split.
const NAMES: [&str; PARTS] = ["lower", "middle", "upper"];

/// Rounds the f32 weights of every product of the entry, and the bias that is added to it, to codes of a scheme. The circuit has
/// codes and books in their place, or three layers; the reports say how many bits the codes take.
///
/// # Errors
/// A scheme that is none, or weights that are not finite.
pub fn quantise(module: &Module, scheme: &Scheme) -> Result<(Module, Vec<Quantised>), QuantiseError> {
    if ![2, 3, 4, 8].contains(&scheme.bits) {
        return Err(QuantiseError::Bits(scheme.bits));
    }
    if scheme.granularity == Granularity::Group(0) {
        return Err(QuantiseError::Group);
    }
    let mut form = Form { module: module.clone(), scheme, known: FxHashMap::default(), reports: Vec::new() };
    for node in module.entry().order() {
        let Some((slot, number, grouping)) = weights(module, module.entry(), node, scheme.granularity) else {
            continue;
        };
        form.layer((node, slot), number, &grouping)?;
    }
    form.module.functions[0].remove_dead();
    form.module.remove_unused_parameters();
    Ok((form.module, form.reports))
}

/// A circuit whose layers get codes one by one.
struct Form<'a> {
    module: Module,
    scheme: &'a Scheme,
    /// Weights that have them, by parameter and by which of them belong together.
    known: FxHashMap<(u32, Grouping), Known>,
    reports: Vec<Quantised>,
}

/// What weights became.
#[derive(Clone)]
enum Known {
    /// One value.
    One(Value),
    /// Parts that add up.
    Parts(Vec<Value>),
}

impl Form<'_> {
    fn function(&mut self) -> &mut Function {
        &mut self.module.functions[0]
    }

    fn layer(&mut self, (node, slot): (NodeIndex, u32), number: u32, grouping: &Grouping) -> Result<(), QuantiseError> {
        let layer = layer_of(&self.module.entry().graph[node]);
        let Some((weights, mut report)) = self.values(number, grouping, &layer)? else { return Ok(()) };
        let mut bias = None;
        if let Some((sum, slot, number)) = super::weights::bias(&self.module, self.module.entry(), node) {
            let length = self.module.parameters[number as usize].data.as_ref().map_or(0, Tensor::count);
            if let Some((known, own)) = self.values(number, &Grouping::whole(length), &layer)? {
                bias = Some((sum, slot, known));
                report = match (report, own) {
                    (Some(report), Some(own)) => Some(Quantised {
                        weights: report.weights + own.weights,
                        bits: report.bits + own.bits,
                        ..report
                    }),
                    (report, own) => report.or(own),
                };
            }
        }
        self.reports.extend(report);
        match weights {
            Known::One(weights) => {
                self.function().set_operand(node, slot, weights);
                if let Some((sum, slot, Known::One(bias))) = bias {
                    self.function().set_operand(sum, slot, bias);
                }
            }
            Known::Parts(parts) => self.layers((node, slot), &parts, bias),
        }
        Ok(())
    }

    /// What a parameter becomes, with a report the first time.
    fn values(
        &mut self,
        number: u32,
        grouping: &Grouping,
        layer: &str,
    ) -> Result<Option<(Known, Option<Quantised>)>, QuantiseError> {
        let key = (number, grouping.clone());
        if let Some(known) = self.known.get(&key) {
            return Ok(Some((known.clone(), None)));
        }
        let parameter = self.module.parameters[number as usize].clone();
        let Some(data) = parameter.data.as_ref().and_then(|data| data.to_vec::<f32>().ok()) else { return Ok(None) };
        if !data.iter().all(|value| value.is_finite()) {
            return Err(QuantiseError::NotFinite { layer: layer.to_owned() });
        }
        let coded = Coded::new(&data, grouping, self.scheme);
        let report = Quantised {
            layer: layer.to_owned(),
            weights: data.len(),
            bits: coded.bits,
            error: error(&data, &coded.rounded()),
        };
        let known = match self.scheme.splitting {
            Splitting::Layers => Known::Parts(self.parts(&parameter, &coded)),
            Splitting::Whole | Splitting::Joined => Known::One(self.looked_up(&parameter, &coded, grouping)),
        };
        self.known.insert(key, known.clone());
        Ok(Some((known, Some(report))))
    }

    /// Codes looked up in a book for each group.
    fn looked_up(&mut self, old: &Parameter, coded: &Coded, grouping: &Grouping) -> Value {
        let entries = coded.books.iter().map(Vec::len).max().unwrap_or(1);
        let numbers: Vec<f32> = coded
            .books
            .iter()
            .flat_map(|book| (0..entries).map(|code| book.get(code).copied().unwrap_or(0.)))
            .collect();
        let shape = old.data.as_ref().map_or(&[][..], |data| data.shape());
        let codes = match entries <= 256 {
            true => Tensor::from_slice(shape, &coded.codes.iter().map(|code| *code as u8).collect::<Vec<u8>>()),
            false => Tensor::from_slice(shape, &coded.codes),
        };
        let book_axes = [("group", coded.books.len()), ("code", entries)]
            .map(|(name, size)| Axis::new(name, Size::from(size as i64)));
        let book =
            self.add(old, "book", book_axes.to_vec(), Tensor::from_slice(&[coded.books.len(), entries], &numbers));
        let codes = self.add(old, "codes", old.axes.clone(), codes);
        let variables = distinct_variables(&old.axes);
        let all = 0..variables.len() as u32;
        let place = IndexMap::new(vec![grouping.expression(), IndexExpr::atom(Atom::Read(1))]);
        let name = format!("{}_rounded", old.name).into();
        let output = Output { name, element: ElementType::F32, variables: all.clone().collect() };
        let maps = vec![place, IndexMap::of_variables(all)];
        let node = Node {
            op: Op::Gather,
            variables: variables.into(),
            maps: maps.into(),
            outputs: vec![output],
            source: Source::None,
            block: None,
        };
        self.function().add(node, &[book, codes]).into()
    }

    /// Each part with its numbers and zeros elsewhere; fewer where there are fewer clusters.
    fn parts(&mut self, old: &Parameter, coded: &Coded) -> Vec<Value> {
        let rounded = coded.rounded();
        let shape = old.data.as_ref().map_or(&[][..], |data| data.shape());
        let most = usize::from(coded.parts.iter().copied().max().unwrap_or(0));
        let part = |number: usize| -> Vec<f32> {
            let own = rounded.iter().zip(&coded.parts);
            own.map(|(value, part)| if usize::from(*part) == number { *value } else { 0. }).collect()
        };
        (0..=most)
            .map(|number| self.add(old, NAMES[number], old.axes.clone(), Tensor::from_slice(shape, &part(number))))
            .collect()
    }

    /// A parameter that takes the place of another.
    fn add<E>(&mut self, old: &Parameter, suffix: &str, axes: Vec<Axis>, data: Result<Tensor, E>) -> Value {
        // Their shape is that of the elements they are made of.
        let data = data.unwrap_or_else(|_| unreachable!("there are as many numbers as the shape says"));
        let name = format!("{}_{suffix}", old.name);
        let parameter = Parameter::new(name, data.element(), axes).with_data(data);
        let (number, parameter) = self.module.add_fresh_parameter(parameter);
        self.function().add_param(number, &parameter).into()
    }

    /// A layer for each part of the weights, with a part of the bias, and the sum of their results.
    fn layers(&mut self, (product, slot): (NodeIndex, u32), weights: &[Value], bias: Option<(NodeIndex, u32, Known)>) {
        let function = self.function();
        let last = bias.as_ref().map_or(product, |(sum, ..)| *sum);
        let biases = match &bias {
            Some((_, _, Known::Parts(parts))) => &parts[..],
            _ => &[],
        };
        let readers = function.readers(last.into());
        let is_output: Vec<bool> = function.outputs.iter().map(|output| *output == last.into()).collect();
        let mut results = Vec::new();
        for (number, weights) in weights.iter().enumerate() {
            let mut operands = function.operands(product);
            operands[slot as usize] = *weights;
            let mut result = copy(function, product, &operands, NAMES[number]);
            if let (Some((sum, slot, _)), Some(part)) = (&bias, biases.get(number)) {
                let mut operands = function.operands(*sum);
                (operands[*slot as usize], operands[1 - *slot as usize]) = (*part, result);
                result = copy(function, *sum, &operands, NAMES[number]);
            }
            results.push(result);
        }
        // A bias may have more clusters than the weights: what is left of it is added by itself.
        let mut total = results[0];
        for other in &results[1..] {
            total = added(function, last, [total, *other], None);
        }
        for rest in biases.iter().skip(weights.len()) {
            total = added(function, last, [total, *rest], bias.as_ref().map(|(sum, slot, _)| (*sum, *slot)));
        }
        for (reader, slot) in readers {
            function.set_operand(reader, slot, total);
        }
        for (output, is_this) in function.outputs.iter_mut().zip(is_output) {
            if is_this {
                *output = total;
            }
        }
    }
}

/// A node again, with other operands.
fn copy(function: &mut Function, node: NodeIndex, operands: &[Value], suffix: &str) -> Value {
    let mut node = function.graph[node].clone();
    node.outputs[0].name = format!("{}_{suffix}", node.outputs[0].name).into();
    function.add(node, operands).into()
}

/// The sum of two values; of an array as `like` and a vector that is read as a bias is.
fn added(function: &mut Function, like: NodeIndex, operands: [Value; 2], bias: Option<(NodeIndex, u32)>) -> Value {
    let axes: Vec<Axis> = function.graph[like].axes(0).into_iter().cloned().collect();
    let variables = distinct_variables(&axes);
    let all = 0..variables.len() as u32;
    let second = match bias {
        None => IndexMap::of_variables(all.clone()),
        Some((sum, slot)) => {
            let node = &function.graph[sum];
            let place = |variable: u32| node.outputs[0].variables.iter().position(|other| *other == variable);
            let read = node.maps[slot as usize].as_variables().unwrap_or_default();
            IndexMap::of_variables(read.into_iter().filter_map(place).map(|axis| axis as u32))
        }
    };
    let name = format!("{}_sum", function.graph[like].outputs[0].name).into();
    let source = function.graph[like].source.clone();
    let element = function.graph[like].outputs[0].element;
    let output = Output { name, element, variables: all.clone().collect() };
    let sum = ScalarExpr::binary(Binary::Add, ScalarExpr::Operand(0), ScalarExpr::Operand(1));
    let maps = vec![IndexMap::of_variables(all), second];
    let node = Node {
        op: Op::Map(sum),
        variables: variables.into(),
        maps: maps.into(),
        outputs: vec![output],
        source,
        block: None,
    };
    function.add(node, &operands).into()
}

fn error(data: &[f32], rounded: &[f32]) -> f64 {
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let whole = squares(&mut data.iter().map(|value| f64::from(*value)));
    let lost = squares(&mut data.iter().zip(rounded).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    if whole > 0. { (lost / whole).sqrt() } else { 0. }
}
