//! Compiled code against the reference interpreter, layer by layer.
//!
//! A circuit is compiled twice: as it is, and with the value of every layer as a further result. Each layer is then
//! interpreted on the *compiled* values that it reads, so that its error is its own and no layer waits for those before
//! it; of large layers a seeded sample of elements is computed. The results of the circuit as it is, where layers are
//! fused, are compared with given results, with the interpreter's, or, where interpreting everything would take long, with
//! those of the layers.

use crate::{CompileError, Compiler, random::Random};
use std::{collections::HashMap, sync::Arc};
use strang_compiler::plan::layer_of;
use strang_ir::{
    Function, FunctionId, Module, Op, Value,
    analysis::summary,
    interpret::{Arithmetic, InterpretError, Number, interpret, interpret_elements, interpret_node},
    verify::verify,
};
use strang_runtime::{
    Bindings, Tensor,
    session::{BindError, RunError},
    size::SizeError,
    tensor::bits_to_f64,
};

/// Layers and circuits of at most this many operations are interpreted whole.
const WHOLE: i64 = 20_000_000;
/// Of larger ones so many operations are sampled.
const SAMPLED: i64 = 5_000_000;
/// Samples have at least and at most so many elements.
const SAMPLES: (i64, i64) = (16, 4096);

/// Why a circuit cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It does not compile.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The inputs do not fit.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// It does not run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The interpreter refuses it.
    #[error(transparent)]
    Interpret(#[from] InterpretError),
    /// A size has no value.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// The given results are not as many as the circuit has.
    #[error("the model has {expected} outputs, but {found} reference outputs are given")]
    References {
        /// What the circuit has.
        expected: usize,
        /// What was given.
        found: usize,
    },
}

/// How far something is from what it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Deviation {
    /// The user's layer, or the name of a result.
    pub name: String,
    /// The operation.
    pub operation: &'static str,
    /// The largest difference of an element, relative to the largest magnitude that is expected; infinite where one is a
    /// number and the other is not, or where shapes or types differ.
    pub error: f64,
    /// How many elements were compared, and how many there are.
    pub compared: (usize, usize),
}

/// What results were compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// Given results.
    Reference,
    /// The interpreter's.
    Interpreter,
    /// The results of the circuit compiled with the value of every layer as a result.
    Layers,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// What the results were compared with.
    pub against: Against,
    /// The results, in order.
    pub results: Vec<Deviation>,
    /// The layers, the worst first.
    pub layers: Vec<Deviation>,
}

impl Report {
    /// The largest error of all.
    pub fn worst(&self) -> f64 {
        self.results.iter().chain(&self.layers).map(|deviation| deviation.error).fold(0., f64::max)
    }
}

/// Checks a circuit on inputs. `progress` is told how many of how many layers are done.
///
/// # Errors
/// A circuit that does not compile, run or interpret, or tensors that do not fit it.
pub fn check(
    compiler: &Compiler,
    module: &Module,
    inputs: &[Tensor],
    reference: Option<&[Tensor]>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Report, CheckError> {
    let expected = module.functions.first().map_or(0, |entry| entry.outputs.len());
    if let Some(found) = reference.map(<[Tensor]>::len).filter(|found| *found != expected) {
        return Err(CheckError::References { expected, found });
    }
    let model = compiler.compile(module.clone())?;
    let got = model.executable.run(inputs)?;
    let bindings = model.executable.bindings(inputs)?;
    let layers = Layers::run(compiler, module, inputs, &bindings)?;
    let count = layers.nodes.len();
    let mut deviations = Vec::with_capacity(count);
    for (position, value) in layers.nodes.iter().enumerate() {
        progress(position, count);
        deviations.push(layers.check(*value)?);
    }
    progress(count, count);
    deviations.sort_by(|a, b| b.error.total_cmp(&a.error));
    let work = summary(module).cost.flops.eval(&bindings)?;
    let (against, want) = match reference {
        Some(reference) => (Against::Reference, reference.to_vec()),
        None if work <= WHOLE => (Against::Interpreter, interpret(module, inputs, Arithmetic::Wide)?),
        None => (Against::Layers, layers.results),
    };
    let names = model.executable.outputs().map(|port| port.name.to_string());
    let results = names.zip(got.iter().zip(&want)).map(|(name, (got, want))| {
        let count = got.count();
        Deviation { name, operation: "result", error: difference(got, want), compared: (count, count) }
    });
    Ok(Report { against, results: results.collect(), layers: deviations })
}

/// A circuit with the compiled values of all its layers.
struct Layers {
    module: Module,
    bindings: Bindings,
    /// The first values of the nodes of the entry that compute something.
    nodes: Vec<Value>,
    values: HashMap<Value, Tensor>,
    /// The circuit's own results.
    results: Vec<Tensor>,
}

impl Layers {
    fn run(compiler: &Compiler, module: &Module, inputs: &[Tensor], bindings: &Bindings) -> Result<Layers, CheckError> {
        let mut module = module.clone();
        verify(&module).map_err(CompileError::from)?;
        let entry = &mut module.functions[0];
        let own = entry.outputs.len();
        let nodes: Vec<Value> = entry.order().into_iter().map(Value::from).filter(|v| computes(entry, *v)).collect();
        let values: Vec<Value> = nodes.iter().flat_map(|value| ports(entry, *value)).collect();
        for value in values {
            entry.outputs.push(value);
            entry.output_names.push(Arc::from(format!("layer {}", entry.outputs.len() - own)));
        }
        let results = compiler.compile(module.clone())?.executable.run(inputs)?;
        let entry = module.entry();
        let mut values: HashMap<Value, Tensor> =
            entry.outputs.iter().copied().zip(results.iter().cloned()).skip(own).collect();
        values.extend(entry.inputs.iter().map(|node| Value::from(*node)).zip(inputs.iter().cloned()));
        for node in entry.graph.node_indices() {
            match &entry.graph[node].op {
                Op::Param(position) => {
                    let data = module.parameters[*position as usize].data.clone();
                    values.extend(data.map(|data| (node.into(), data)));
                }
                Op::Const(_) => {
                    let constant = interpret_node(&module, FunctionId(0), node, &[], bindings, Arithmetic::Typed)?;
                    values.extend(constant.into_iter().map(|tensor| (node.into(), tensor)));
                }
                _ => {}
            }
        }
        let results = results.into_iter().take(own).collect();
        Ok(Layers { bindings: bindings.clone(), nodes, values, results, module })
    }

    /// A layer on the compiled values that it reads.
    fn check(&self, value: Value) -> Result<Deviation, CheckError> {
        let entry = self.module.entry();
        let node = &entry.graph[value.node];
        let operands: Vec<Tensor> =
            entry.operands(value.node).iter().filter_map(|operand| self.values.get(operand).cloned()).collect();
        let got: Vec<&Tensor> = ports(entry, value).filter_map(|port| self.values.get(&port)).collect();
        let total: usize = got.iter().map(|tensor| tensor.count()).sum();
        let work = strang_ir::analysis::cost(&self.module, entry, value.node).flops.eval(&self.bindings)?;
        let work = work.max(total as i64);
        let at = (&self.module, FunctionId(0), value.node);
        let (error, compared) = match got.as_slice() {
            [only] if work > WHOLE && only.count() > 0 => {
                let per_element = (work / total as i64).max(1);
                let samples = (SAMPLED / per_element).clamp(SAMPLES.0, SAMPLES.1) as usize;
                let mut random = Random::new(value.node.index() as u64);
                let positions: Vec<usize> = (0..samples).map(|_| random.below(only.count())).collect();
                let unraveled: Vec<Vec<usize>> = positions.iter().map(|p| unravel(*p, only.shape())).collect();
                let want =
                    interpret_elements(at.0, at.1, at.2, &operands, &self.bindings, Arithmetic::Wide, &unraveled)?;
                let got = positions.iter().map(|position| value_at(only, *position));
                (largest_difference(got.zip(want.iter().copied().map(Number::to_f64))), samples)
            }
            all => {
                let want = interpret_node(at.0, at.1, at.2, &operands, &self.bindings, Arithmetic::Wide)?;
                (all.iter().zip(&want).map(|(got, want)| difference(got, want)).fold(0., f64::max), total)
            }
        };
        Ok(Deviation { name: layer_of(node), operation: node.op.name(), error, compared: (compared, total) })
    }
}

/// Whether a node does more than stand for something that is there.
fn computes(function: &Function, value: Value) -> bool {
    !matches!(function.graph[value.node].op, Op::Input(_) | Op::Param(_) | Op::Const(_))
}

/// All values of a node.
fn ports(function: &Function, value: Value) -> impl Iterator<Item = Value> + use<> {
    let count = function.graph[value.node].outputs.len() as u32;
    (0..count).map(move |port| Value { port, ..value })
}

fn unravel(mut position: usize, shape: &[usize]) -> Vec<usize> {
    let mut places = vec![0; shape.len()];
    for (place, size) in places.iter_mut().zip(shape).rev() {
        *place = position % size;
        position /= size;
    }
    places
}

fn value_at(tensor: &Tensor, position: usize) -> f64 {
    bits_to_f64(tensor.element(), tensor.bits_at(position))
}

/// The largest difference of two tensors, relative to the largest magnitude of the second.
pub fn difference(got: &Tensor, want: &Tensor) -> f64 {
    if got.shape() != want.shape() || got.element() != want.element() {
        return f64::INFINITY;
    }
    largest_difference(got.to_f64().into_iter().zip(want.to_f64()))
}

fn largest_difference(pairs: impl Iterator<Item = (f64, f64)>) -> f64 {
    let (mut difference, mut magnitude) = (0f64, 0f64);
    for (got, want) in pairs {
        if got == want || (got.is_nan() && want.is_nan()) {
            // Equal infinities have no difference that is a number.
        } else if got.is_finite() && want.is_finite() {
            difference = difference.max((got - want).abs());
        } else {
            difference = f64::INFINITY;
        }
        if want.is_finite() {
            magnitude = magnitude.max(want.abs());
        }
    }
    if difference == 0. { 0. } else { difference / magnitude.max(f64::MIN_POSITIVE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_relative_to_the_range() {
        let tensor = |values: &[f32]| Tensor::from_slice(&[values.len()], values).unwrap();
        let inf = f32::INFINITY;
        assert_eq!(difference(&tensor(&[1., 4.]), &tensor(&[2., 4.])), 0.25);
        assert_eq!(difference(&tensor(&[f32::NAN, inf, 0.]), &tensor(&[f32::NAN, inf, -0.])), 0.);
        assert_eq!(difference(&tensor(&[f32::NAN]), &tensor(&[1.])), f64::INFINITY);
        assert_eq!(difference(&tensor(&[inf]), &tensor(&[-inf])), f64::INFINITY);
        assert_eq!(difference(&tensor(&[1.]), &tensor(&[1., 1.])), f64::INFINITY);
    }
}
