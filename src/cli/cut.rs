//! `strang cut`: a model in two.

use super::{ModelArguments, output::showln, report, show::bytes_text};
use miette::{Result, miette};
use std::path::PathBuf;
use strang::{
    Size,
    compiler::{
        cut::{at, balanced, cut},
        rewrite::search::cost::estimate,
    },
    save::save,
};

/// Cut a model at wires into a head and a tail whose composition equals the whole
///
/// The head computes the wires, which are its outputs; the tail reads them, and those of the model's inputs that it needs, and
/// computes the model's outputs. --at names the wires, as `strang compile --emit ncd` prints them or by their ONNX nodes;
/// --balance finds the fewest bytes that can cross between two parts that have each a third of the work at least. Both parts are
/// written as .ncd or .json, with their weights in a .safetensors file beside each.
///
/// Examples:
///   strang cut model.onnx --balance -o head.ncd tail.ncd
///   strang cut model.onnx --at /encoder/layer.5/output/LayerNorm -o head.ncd tail.ncd --quantise
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Cut {
    #[command(flatten)]
    model: ModelArguments,
    /// Cut at this value or layer; repeat it for several
    #[arg(long, value_name = "WIRE", required_unless_present = "balance", conflicts_with = "balance")]
    at: Vec<String>,
    /// Cut where the fewest bytes cross
    #[arg(long)]
    balance: bool,
    /// Send floats as 8-bit integers with a scale: a quarter of the bytes, and not exact
    #[arg(long)]
    quantise: bool,
    /// Where the two parts are written
    #[arg(short, long, value_names = ["HEAD", "TAIL"], num_args = 2, required = true)]
    output: Vec<PathBuf>,
}

impl Cut {
    /// Does it.
    pub fn execute(self) -> Result<()> {
        let module = super::load_with_progress(&self.model)?;
        let head = if self.balance { balanced(&module) } else { at(&module, &self.at) }.map_err(report)?;
        let parts = cut(&module, &head, self.quantise).map_err(report)?;
        let [first, second] = &self.output[..] else { return Err(miette!("-o takes two files")) };
        if first.with_extension("") == second.with_extension("") {
            return Err(miette!("the head and the tail would have the same weights file; give them different names"));
        }
        save(&parts.head, first).map_err(report)?;
        save(&parts.tail, second).map_err(report)?;
        let mut total = Size::ZERO;
        for message in &parts.messages {
            let sizes: Vec<String> = message.shape.iter().map(ToString::to_string).collect();
            showln!("{}: {}[{}]", message.name, message.element, sizes.join(", "));
            total += message.bytes();
        }
        let bytes = total.as_constant().map_or_else(|| total.to_string(), |bytes| bytes_text(bytes.unsigned_abs()));
        showln!("{bytes} cross in a run");
        let [head, tail] = [0, 1].map(|side| estimate(&parts.flops[side]));
        let share = |part: f64| 100. * part / (head + tail).max(1.);
        showln!("{}: {:.0} % of the work", first.display(), share(head));
        showln!("{}: {:.0} % of the work", second.display(), share(tail));
        Ok(())
    }
}
