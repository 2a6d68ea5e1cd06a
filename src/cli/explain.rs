//! `strang explain`: which rules shaped a model or a layer, and which nearly did.

use super::{ModelArguments, explain as explained, output::show, report};
use miette::Result;
use strang::explain;

/// Tell which rules shaped a model, and why a layer was or was not rewritten and fused
///
/// Without --layer: how often each rule was used, and which attention, normalisations and activations were recognised.
/// With it, for every layer whose name has NAME in it: its operations as they were written and what became of them, the rules
/// that led there with their guards, the rules that nearly applied with the guard or the cost that stopped them, and the
/// kernel that computes it.
///
/// Examples:
///   strang explain model.onnx
///   strang explain model.onnx --layer layer.0/attention
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Explain {
    #[command(flatten)]
    model: ModelArguments,
    /// Tell of the layers whose names have this in them
    #[arg(long, value_name = "NAME")]
    layer: Option<String>,
}

impl Explain {
    /// Does it.
    pub fn execute(self) -> Result<()> {
        let compiler = self.model.compiler().explain(self.layer.is_some());
        let module = super::load_with_progress(&self.model)?;
        let planned = compiler.plan(module).map_err(explained)?;
        match &self.layer {
            None => show!("{}", explain::whole(&planned)),
            Some(name) => show!("{}", explain::layers(&planned, name).map_err(report)?),
        }
        Ok(())
    }
}
