//! The weights of a circuit's products and convolutions, rounded to codes.

use super::{Granularity, QuantiseError, Quantised, Scheme, codes::Coding, split::Split};
use crate::plan::layer_of;
use petgraph::stable_graph::NodeIndex;
use rayon::prelude::*;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use strang_ir::{ElementType, Function, Module, Op, Tensor, Value};

/// Layers with fewer weights stay as they are.
const FEWEST: usize = 512;

/// Rounds the f32 weights of every product of the entry to codes of a scheme. The circuit computes with what the codes stand for;
/// the reports say how many bits they take.
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
    let mut module = module.clone();
    let mut reports = Vec::new();
    let mut known: FxHashMap<(u32, Vec<usize>), Value> = FxHashMap::default();
    for node in module.entry().order() {
        let Some((slot, number, groups)) = weights(&module, module.entry(), node, scheme.granularity) else { continue };
        let layer = layer_of(&module.entry().graph[node]);
        let key = (number, groups.clone());
        let value = match known.get(&key) {
            Some(value) => *value,
            None => {
                let mut parameter = module.parameters[number as usize].clone();
                let Some(data) = parameter.data.as_ref().and_then(|data| data.to_vec::<f32>().ok()) else { continue };
                if !data.iter().all(|value| value.is_finite()) {
                    return Err(QuantiseError::NotFinite { layer });
                }
                let (rounded, bits) = rounded(&data, &groups, scheme);
                reports.push(Quantised { layer, weights: data.len(), bits, error: error(&data, &rounded) });
                let shape = parameter.data.as_ref().map_or(Vec::new(), |data| data.shape().to_vec());
                parameter.data = Tensor::from_slice(&shape, &rounded).ok();
                while module.parameters.iter().any(|other| other.name == parameter.name) {
                    parameter.name = format!("{}_quantised", parameter.name).into();
                }
                let number = module.add_parameter(parameter.clone());
                module.functions[0].add_param(number, &parameter).into()
            }
        };
        known.insert(key, value);
        module.functions[0].set_operand(node, slot, value);
    }
    module.functions[0].remove_dead();
    Ok((module, reports))
}

/// The slot and the number of a product's weights, and to which group each weight belongs.
pub(crate) fn weights(
    module: &Module,
    function: &Function,
    node: NodeIndex,
    granularity: Granularity,
) -> Option<(u32, u32, Vec<usize>)> {
    let product = &function.graph[node];
    let Op::Dot { .. } = product.op else { return None };
    let contracted = product.contracted();
    function.operands(node).into_iter().enumerate().find_map(|(slot, value)| {
        let Op::Param(number) = function.graph[value.node].op else { return None };
        let parameter = &module.parameters[number as usize];
        let data = parameter.data.as_ref()?;
        let variables = product.maps[slot].as_variables()?;
        let sums = variables.iter().any(|variable| contracted.contains(variable));
        if parameter.element != ElementType::F32 || data.count() < FEWEST || !sums {
            return None;
        }
        Some((slot as u32, number, groups(data.shape(), &variables, &contracted, granularity)))
    })
}

/// The group of every weight: by its position along the axes of output channels and, in groups, along those of the sum.
fn groups(shape: &[usize], variables: &[u32], contracted: &[u32], granularity: Granularity) -> Vec<usize> {
    let count: usize = shape.iter().product();
    let sum: usize =
        (0..shape.len()).filter(|axis| contracted.contains(&variables[*axis])).map(|axis| shape[axis]).product();
    (0..count)
        .map(|position| {
            let (mut channel, mut term, mut rest, mut inner) = (0, 0, position, count);
            for (axis, size) in shape.iter().enumerate() {
                inner /= size;
                let at = rest / inner;
                rest %= inner;
                let place = if contracted.contains(&variables[axis]) { &mut term } else { &mut channel };
                *place = *place * size + at;
            }
            match granularity {
                Granularity::Tensor => 0,
                Granularity::Channel => channel,
                Granularity::Group(size) => channel * sum.div_ceil(size) + term / size,
            }
        })
        .collect()
}

/// What weights become, and the bits that their codes take.
fn rounded(data: &[f32], groups: &[usize], scheme: &Scheme) -> (Vec<f32>, usize) {
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    groups.iter().enumerate().for_each(|(position, group)| members.entry(*group).or_default().push(position));
    let members: Vec<Vec<usize>> = members.into_values().collect();
    // A scale takes 32 bits, a zero point as many as a code.
    let coding_bits = |affine: bool| 32 + if affine { scheme.bits as usize } else { 0 };
    let of_group = |positions: &Vec<usize>| {
        let values: Vec<f32> = positions.iter().map(|position| data[*position]).collect();
        let codes = values.len() * scheme.bits as usize;
        if scheme.split {
            let split = Split::new(&values, scheme.bits);
            // The cluster and the code of a weight are one index.
            let indices = split.codings.len() << scheme.bits;
            let index = indices.next_power_of_two().trailing_zeros() as usize;
            (split.rounded(&values), values.len() * index + split.codings.len() * coding_bits(true))
        } else {
            let own = values.iter().copied();
            let coding = match scheme.affine {
                true => Coding::affine(own, scheme.bits),
                false => Coding::symmetric(own, scheme.bits),
            };
            (values.iter().map(|value| coding.rounded(*value)).collect(), codes + coding_bits(scheme.affine))
        }
    };
    let results: Vec<(Vec<f32>, usize)> = members.par_iter().map(of_group).collect();
    let mut rounded = vec![0.; data.len()];
    let mut bits = 0;
    for (positions, (values, own)) in members.iter().zip(results) {
        bits += own;
        positions.iter().zip(values).for_each(|(position, value)| rounded[*position] = value);
    }
    (rounded, bits)
}

fn error(data: &[f32], rounded: &[f32]) -> f64 {
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let whole = squares(&mut data.iter().map(|value| f64::from(*value)));
    let lost = squares(&mut data.iter().zip(rounded).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    if whole > 0. { (lost / whole).sqrt() } else { 0. }
}
