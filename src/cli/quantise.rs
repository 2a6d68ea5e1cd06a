//! `strang quantise`: weights of few bits.

use super::{ModelArguments, output::showln, report, show::bytes_text};
use miette::Result;
use std::path::PathBuf;
use strang::{
    compiler::quantise::{Granularity, Scheme, Splitting, quantise},
    save::save,
};

/// Round the weights of a model to codes of few bits, plainly or split into three clusters
///
/// With --split every layer's weights are divided by k-means into a lower, a middle and an upper part, each with codes of its own
/// (SplitQuant): cluster and code are one index, of 4 bits where codes have 2. Biases are rounded likewise. The model that is written has
/// codes, in bytes, and the books they are looked up in; compiled, weights with up to 16 different numbers take 4 bits each and are
/// looked up while they are multiplied. The table says how many bytes the codes take.
///
/// Examples:
///   strang quantise model.onnx --bits 2 --split -o split.ncd
///   strang quantise model.onnx --bits 4 --granularity 64 --affine -o plain.ncd
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Quantise {
    #[command(flatten)]
    model: ModelArguments,
    /// Bits of a code: 2, 3, 4 or 8
    #[arg(long, value_name = "N")]
    bits: u32,
    /// Split weights into a lower, a middle and an upper part
    #[arg(long)]
    split: bool,
    /// Write the parts of a split as three layers whose results add up; compiling joins them again
    #[arg(long, requires = "split")]
    layers: bool,
    /// Codes around a zero point, instead of around 0; parts of a split always are
    #[arg(long)]
    affine: bool,
    /// Which weights share a scale: those of a `tensor`, of an output `channel`, or so many of a channel
    #[arg(long, value_name = "WHICH", default_value = "tensor", value_parser = granularity)]
    granularity: Granularity,
    /// Where the model is written: .ncd or .json
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

fn granularity(text: &str) -> Result<Granularity, String> {
    match text {
        "tensor" => Ok(Granularity::Tensor),
        "channel" => Ok(Granularity::Channel),
        size => size.parse().map(Granularity::Group).map_err(|_| "expected tensor, channel or a number".to_owned()),
    }
}

impl Quantise {
    /// Does it.
    pub fn execute(self) -> Result<()> {
        let module = super::load_with_progress(&self.model)?;
        let Quantise { bits, split, layers, affine, granularity, .. } = self;
        let splitting = match (split, layers) {
            (false, _) => Splitting::Whole,
            (true, false) => Splitting::Joined,
            (true, true) => Splitting::Layers,
        };
        let scheme = Scheme { bits, affine, granularity, splitting };
        let (quantised, reports) = quantise(&module, &scheme).map_err(report)?;
        save(&quantised, &self.output).map_err(report)?;
        showln!("{:>10} {:>10} {:>8}  layer", "f32", "codes", "error");
        for layer in &reports {
            let (before, after) = (bytes_text(4 * layer.weights as u64), bytes_text(layer.bits.div_ceil(8) as u64));
            showln!("{before:>10} {after:>10} {:>7.2}%  {}", 100. * layer.error, layer.layer);
        }
        let weights: usize = reports.iter().map(|layer| layer.weights).sum();
        let bits: usize = reports.iter().map(|layer| layer.bits).sum();
        let each = bits as f64 / weights.max(1) as f64;
        showln!("{} layers, {weights} weights, {each:.2} bits each with scales", reports.len());
        Ok(())
    }
}
