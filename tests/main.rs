//! Tests of whole programs. One binary, because linking is what tests wait for.

mod bisect;
mod budget;
mod bytes;
mod circuits;
mod command_line;
mod convolutions;
mod cut;
mod diff;
mod few_bits;
mod files;
mod levels;
mod malformed;
mod padding;
mod precision;
mod quantised;
mod random;
mod tune;

use std::sync::Arc;
use strang::{
    Executable, Tensor,
    ir::{Module, text::parse_verified},
    random::{Random, tensor},
    runtime::{
        Bindings,
        session::{SessionOptions, Workers},
        team::Team,
    },
};

/// The circuit of a text, with random weights of a seed.
fn with_weights(text: &str, seed: u64) -> Module {
    let (mut module, _) = parse_verified(text, "test.ncd").unwrap_or_else(|error| panic!("{}", error.render()));
    let mut random = Random::new(seed);
    for parameter in &mut module.parameters {
        let sizes: Vec<usize> = parameter.axes.iter().map(|axis| axis.size.as_constant().unwrap() as usize).collect();
        parameter.data = Some(tensor(&mut random, parameter.element, &sizes).unwrap());
    }
    module
}

/// The results of a session with a number of threads.
fn run_on(threads: usize, executable: &Executable, bindings: &Bindings, inputs: &[Tensor]) -> Vec<Tensor> {
    let team = Some(Arc::new(Team::new(Some(threads))));
    let options = SessionOptions { team, workers: Workers::Team, ..Default::default() };
    let mut session = executable.session(bindings, &options).unwrap_or_else(|error| panic!("{error}"));
    session.run(inputs).unwrap_or_else(|error| panic!("{error}"))
}
