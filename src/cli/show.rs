//! `strang show`: what a model is.

use super::{ModelArguments, inputs::shape_text, output::showln, report};
use miette::Result;
use std::collections::BTreeMap;
use strang::{
    ir::{Function, Op, analysis::summary},
    load::symbols,
    runtime::Bindings,
    runtime::session::SessionOptions,
};

/// Show a model: inputs, outputs, symbols, parameters, operators, flops, peak memory
///
/// Example:
///   strang show model.onnx --dim batch=1
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Show {
    #[command(flatten)]
    model: ModelArguments,
}

impl Show {
    /// Does it.
    pub fn execute(self) -> Result<()> {
        let module = super::load_with_progress(&self.model)?;
        let function = module.entry();
        showln!("{}", module.title);
        let port = |function: &Function, name: &str, value| {
            showln!("  {name}: {}", shape_text(function.element_of(value), &function.shape_of(value)));
        };
        showln!("inputs");
        for node in &function.inputs {
            port(function, &function.graph[*node].outputs[0].name, (*node).into());
        }
        showln!("outputs");
        for (position, value) in function.outputs.iter().enumerate() {
            let name = function.output_names.get(position).unwrap_or(&function.output_of(*value).name);
            port(function, name, *value);
        }
        let symbols: Vec<String> = symbols(&module).iter().map(ToString::to_string).collect();
        showln!("symbols\n  {}", if symbols.is_empty() { "none".into() } else { symbols.join(", ") });
        let bytes: usize = module
            .parameters
            .iter()
            .filter_map(|parameter| parameter.data.as_ref())
            .map(|data| data.bytes().len())
            .sum();
        showln!("parameters\n  {} arrays, {}", module.parameters.len(), bytes_text(bytes as u64));
        let mut operators: BTreeMap<&str, usize> = BTreeMap::new();
        for function in &module.functions {
            for node in function.graph.node_weights() {
                if !matches!(node.op, Op::Input(_) | Op::Param(_) | Op::Const(_)) {
                    *operators.entry(node.op.name()).or_default() += 1;
                }
            }
        }
        let operators: Vec<String> = operators.into_iter().map(|(name, count)| format!("{count} {name}")).collect();
        showln!("operators\n  {}", operators.join(", "));
        showln!("flops\n  {}", count_text(&summary(&module).cost.flops));
        showln!("peak memory");
        // Weights may be absent: what a model is can be shown all the same.
        let model = match self.model.compiler().compile(module) {
            Ok(model) => model,
            Err(error) => {
                showln!("  unknown: {error}");
                return Ok(());
            }
        };
        if model.executable.symbols().next().is_some() {
            showln!("  depends on the symbols; fix them with --dim NAME=SIZE to see it");
        } else {
            let session = model.executable.session(&Bindings::new(), &SessionOptions::default()).map_err(report)?;
            showln!("  {} with the weights, beside inputs and outputs", bytes_text(session.peak_memory()));
        }
        Ok(())
    }
}

fn count_text(size: &strang::Size) -> String {
    match size.as_constant() {
        Some(count) if count >= 1_000_000_000 => format!("{:.2} G", count as f64 / 1e9),
        Some(count) if count >= 1_000_000 => format!("{:.2} M", count as f64 / 1e6),
        _ => size.to_string(),
    }
}

/// Bytes for people.
pub fn bytes_text(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}
