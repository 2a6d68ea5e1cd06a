//! Error budgets: approximate variants of a circuit, chosen by what they save and by the error that they make on samples.

use crate::{CompileError, Compiler, check::difference, npy};
use std::path::Path;
use strang_compiler::{
    approximate::budget::{Chosen, Judge, Samples, choose},
    rewrite,
};
use strang_ir::{Module, Size};
use strang_runtime::{Tensor, session::RunError, tensor::TensorError};

/// Of how many samples one is held out to confirm what the others chose.
const HELD_OUT: usize = 4;

/// What may be lost, and on what it is measured.
#[derive(Clone, Debug)]
pub struct Budget {
    /// The largest difference of a result, relative to the largest magnitude of that result.
    pub max_error: f64,
    /// The samples.
    pub calibration: Calibration,
}

/// Samples of a model's inputs: each is one tensor an input, in the order of the model's inputs.
#[derive(Clone, Debug)]
pub struct Calibration {
    /// Those that choose.
    pub fitting: Vec<Vec<Tensor>>,
    /// Those that confirm the choice.
    pub held_out: Vec<Vec<Tensor>>,
}

/// Why an error budget cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum BudgetError {
    /// A file of samples cannot be read.
    #[error(transparent)]
    Read(#[from] npy::NpyError),
    /// An input has no samples.
    #[error("the samples have no array `{input}`; there are: {}", found.join(", "))]
    Missing {
        /// The input.
        input: String,
        /// The arrays that there are.
        found: Vec<String>,
    },
    /// Samples have another shape than the input.
    #[error(
        "the samples of `{input}` have the shape {found:?}; the input has {rank} axes, before which there may be one over samples"
    )]
    Shape {
        /// The input.
        input: String,
        /// The shape of its samples.
        found: Vec<usize>,
        /// The axes of the input.
        rank: usize,
    },
    /// There are too few samples, or the inputs have different numbers of them.
    #[error(
        "{counts:?} samples of the inputs; {HELD_OUT} or more are needed, of each input as many, so that one in {HELD_OUT} can be held out"
    )]
    Count {
        /// How many each input has.
        counts: Vec<usize>,
    },
    /// The error that is allowed is none.
    #[error("the largest error is {0}; a number from 0 to 1 is meant")]
    Allowed(f64),
    /// The model does not run on a sample.
    #[error("a sample: {0}")]
    Run(#[from] RunError),
    /// A sample is no tensor.
    #[error("a sample: {0}")]
    Tensor(#[from] TensorError),
}

impl Calibration {
    /// Reads samples of a model's inputs from a `.npz` file with an array an input, of the input's name.
    ///
    /// An array has one axis more than its input, the first, over the samples; or, where the first axis of every input is one
    /// symbol, it may have the shape of the input, and each position of that axis is a sample. The last quarter is held out.
    ///
    /// # Errors
    /// A file that cannot be read, an input without samples, shapes that do not fit, or fewer than four samples.
    pub fn read(path: &Path, module: &Module) -> Result<Self, BudgetError> {
        let function = module.entry();
        let mut tensors = Vec::new();
        let mut stacked = Vec::new();
        for node in &function.inputs {
            let node = &function.graph[*node];
            let (name, shape) = (&node.outputs[0].name, node.shape(0));
            let tensor = npy::read_named(path, name, Some(node.outputs[0].element))?;
            let missing =
                || Ok::<_, BudgetError>(BudgetError::Missing { input: name.to_string(), found: npy::names(path)? });
            let Some(tensor) = tensor else { return Err(missing()?) };
            let extra = tensor.shape().len().checked_sub(shape.len()).filter(|extra| *extra <= 1);
            let Some(extra) = extra else {
                let (input, found) = (name.to_string(), tensor.shape().to_vec());
                return Err(BudgetError::Shape { input, found, rank: shape.len() });
            };
            stacked.push((extra == 1, shape.first().cloned()));
            tensors.push(tensor);
        }
        let counts: Vec<usize> = tensors.iter().map(|tensor| tensor.shape().first().copied().unwrap_or(1)).collect();
        let all_stacked = stacked.iter().all(|(is_stacked, _)| *is_stacked);
        let first = stacked.first().and_then(|(_, size)| size.clone());
        let is_symbol = first.as_ref().is_some_and(|size: &Size| size.as_constant().is_none());
        let batched = is_symbol && stacked.iter().all(|(is_stacked, size)| !is_stacked && *size == first);
        let count = counts.first().copied().unwrap_or_default();
        if count < HELD_OUT || counts.iter().any(|other| *other != count) || !(all_stacked || batched) {
            return Err(BudgetError::Count {
                counts: if all_stacked || batched { counts } else { vec![1; tensors.len()] },
            });
        }
        let confirming = count - count / HELD_OUT;
        let rows = |from: usize, to: usize| tensors.iter().map(|tensor| rows(tensor, from, to, all_stacked)).collect();
        let samples = |from: usize, to: usize| -> Result<Vec<Vec<Tensor>>, TensorError> {
            if all_stacked { (from..to).map(|at| rows(at, at + 1)).collect() } else { Ok(vec![rows(from, to)?]) }
        };
        Ok(Calibration { fitting: samples(0, confirming)?, held_out: samples(confirming, count)? })
    }
}

/// Positions of the first axis; without that axis where there is one and it is to go.
fn rows(tensor: &Tensor, from: usize, to: usize, without: bool) -> Result<Tensor, TensorError> {
    let mut shape = tensor.shape().to_vec();
    let row = tensor.bytes().len() / shape[0].max(1);
    shape[0] = to - from;
    let shape = if without { &shape[1..] } else { &shape[..] };
    Tensor::from_bytes(tensor.element(), shape, &tensor.bytes()[from * row..to * row])
}

/// Chooses approximate variants of a verified circuit within a budget.
///
/// # Errors
/// An error that makes no sense, or samples on which the model does not run.
pub fn approximate(compiler: &Compiler, module: &Module, budget: &Budget) -> Result<Chosen, CompileError> {
    if !(0. ..=1.).contains(&budget.max_error) {
        return Err(BudgetError::Allowed(budget.max_error).into());
    }
    let mut measure = Measure { compiler, calibration: &budget.calibration, expected: [Vec::new(), Vec::new()] };
    let results = measure.results(module, Samples::Fitting)?;
    measure.expected = [results, measure.results(module, Samples::HeldOut)?];
    choose(module, budget.max_error, &mut measure)
}

struct Measure<'a> {
    compiler: &'a Compiler,
    calibration: &'a Calibration,
    /// The results of the exact circuit.
    expected: [Vec<Vec<Tensor>>; 2],
}

impl Measure<'_> {
    fn results(&self, module: &Module, samples: Samples) -> Result<Vec<Vec<Tensor>>, CompileError> {
        let model = self.compiler.compile(module.clone())?;
        let samples = match samples {
            Samples::Fitting => &self.calibration.fitting,
            Samples::HeldOut => &self.calibration.held_out,
        };
        let run = |inputs: &Vec<Tensor>| Ok(model.executable.run(inputs).map_err(BudgetError::from)?);
        samples.iter().map(run).collect()
    }
}

impl Judge for Measure<'_> {
    type Error = CompileError;

    fn seconds(&mut self, module: &Module) -> Result<f64, CompileError> {
        let (_, receipt) = rewrite::rewrite(module, &self.compiler.rewrite_options()?)?;
        Ok(receipt.seconds)
    }

    fn error(&mut self, module: &Module, samples: Samples) -> Result<f64, CompileError> {
        let got = self.results(module, samples)?;
        let expected = &self.expected[usize::from(samples == Samples::HeldOut)];
        let pairs = got.iter().flatten().zip(expected.iter().flatten());
        Ok(pairs.map(|(got, want)| difference(got, want)).fold(0., f64::max))
    }

    fn extremes(&mut self, module: &Module) -> Result<Vec<(f64, f64)>, CompileError> {
        let results = self.results(module, Samples::Fitting)?;
        let numbers = results.iter().map(|results| results.iter().map(|result| result.to_f64()[0]).collect::<Vec<_>>());
        let pairs = numbers.map(|numbers| numbers.chunks(2).map(|pair| (pair[0], pair[1])).collect::<Vec<_>>());
        let wider = |a: Vec<(f64, f64)>, b: Vec<(f64, f64)>| {
            a.into_iter().zip(b).map(|(a, b)| (a.0.min(b.0), a.1.max(b.1))).collect()
        };
        Ok(pairs.reduce(wider).unwrap_or_default())
    }
}
