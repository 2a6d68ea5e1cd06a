//! Planning: which nodes become one kernel, where arrays lie, and how every kernel reads and writes them.
//!
//! | file | what |
//! |---|---|
//! | `group` | fusion: nodes to groups |
//! | `trace` | reads through views |
//! | `layout` | strides, offsets, halos |
//! | `build` | the scalar code and accesses of one kernel |
//! | `lower`, `nest`, `contract`, `attention`, `control` | groups to kernels, by kind |
//! | `grouped` | convolutions in groups of few channels |
//! | `padding` | rows of whole pages, kept apart |
//! | `windows` | copies of what windows read |
//! | `bands` | products that depthwise convolutions read, without the image between |
//! | `pack`, `book`, `scaled` | weights into panels: of numbers, of codes, of codes with scales |
//! | `memory`, `cost`, `print` | live ranges; flops and bytes; text |
//! | `kernel` | the result, which code generation reads |
//! | `evaluate` | kernels evaluated from their definition, for tests |

mod attention;
mod bands;
mod book;
mod build;
mod contract;
mod control;
mod cost;
pub mod error;
pub mod evaluate;
pub mod group;
pub mod grouped;
pub mod kernel;
mod layout;
mod lower;
mod memory;
mod nest;
pub(crate) mod pack;
mod padding;
mod patches;
mod print;
pub(crate) mod residues;
mod scaled;
mod scope;
mod sweep;
pub(crate) mod trace;
pub(crate) mod windows;

pub use error::{PlanError, layer_of};
pub use kernel::{Kernel, Plan};

use kernel::PlanStep;
use layout::Layout;
use lower::Planner;
use std::{collections::BTreeMap, sync::Arc};
use strang_ir::{Module, Size};
use strang_runtime::program::{Base, Check, Port, Symbol};

/// What planning is told beside the circuit.
#[derive(Clone, Debug, Default)]
pub struct PlanOptions {
    /// Sizes that symbols are estimated with; 1 for those that are not named.
    pub representative: BTreeMap<Arc<str>, i64>,
    /// Conditions on symbols that the verifier could not decide.
    pub checks: Vec<Check>,
}

/// The most positions of a node: their bytes, and the rounding of them, still fit 64 bits.
const MOST_POSITIONS: i64 = 1 << 56;

/// Refuses sizes whose products do not fit the arithmetic of addresses. Symbols are checked when they are bound.
fn sizes_are_possible(module: &Module) -> Result<(), PlanError> {
    for node in module.functions.iter().flat_map(|function| function.graph.node_weights()) {
        // The variables of a scan, a loop or a call say how arrays fit, not what is visited together.
        if !node.op.functions().is_empty() {
            continue;
        }
        let known = node.variables.iter().filter_map(|variable| variable.size().as_constant());
        let positions = known.filter(|size| *size > 0).try_fold(1i64, i64::checked_mul);
        if positions.is_none_or(|positions| positions > MOST_POSITIONS) {
            let axes = node.variables.iter().map(|variable| format!("{} = {}", variable.name, variable.size()));
            return Err(PlanError::TooLarge { layer: layer_of(node), sizes: axes.collect::<Vec<_>>().join(", ") });
        }
    }
    Ok(())
}

/// Plans the entry of a verified module.
///
/// # Errors
/// A parameter without data, something that has no kernel, or sizes that nothing could compute.
pub fn plan(module: &Module, options: &PlanOptions) -> Result<Plan, PlanError> {
    sizes_are_possible(module)?;
    let mut planner = Planner::new(module);
    let function = module.entry();
    let port = |name: &Arc<str>, value: strang_ir::Value| Port {
        name: name.clone(),
        element: function.element_of(value),
        shape: function.shape_of(value),
    };
    let dense = |buffer: u32, port: &Port| {
        let order: Vec<usize> = (0..port.shape.len()).collect();
        let (layout, count) = Layout::dense(buffer, port.element, &port.shape, &order, &[]);
        (layout, (count * Size::from(i64::from(port.element.bits()))).ceil_div(&Size::from(8)))
    };
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    for (position, node) in function.inputs.iter().enumerate() {
        let port = port(&function.graph[*node].outputs[0].name, (*node).into());
        let buffer = planner.buffer(Base::Input(position as u32), Size::ZERO, Vec::new());
        let (layout, bytes) = dense(buffer, &port);
        planner.plan.buffers[buffer as usize].bytes = bytes;
        planner.plan.inputs.push(port);
        inputs.push(layout);
    }
    for (position, value) in function.outputs.iter().enumerate() {
        let own = &function.output_of(*value).name;
        let port = port(function.output_names.get(position).unwrap_or(own), *value);
        let buffer = planner.buffer(Base::Output(position as u32), Size::ZERO, Vec::new());
        let (layout, bytes) = dense(buffer, &port);
        planner.plan.buffers[buffer as usize].bytes = bytes;
        planner.plan.outputs.push(port);
        outputs.push(layout);
    }
    let body: Vec<PlanStep> = planner.function(function, &inputs, &outputs, 0)?;
    let mut plan = planner.plan;
    plan.body = body;
    plan.checks = options.checks.clone();
    let mut symbols: Vec<Arc<str>> =
        plan.inputs.iter().flat_map(|port| &port.shape).flat_map(|size| size.symbols()).collect();
    symbols.sort();
    symbols.dedup();
    plan.symbols = symbols
        .into_iter()
        .map(|name| Symbol { representative: options.representative.get(&name).copied().unwrap_or(1), name })
        .collect();
    bands::join(&mut plan);
    memory::drop_unused(&mut plan);
    memory::set_live_ranges(&mut plan);
    Ok(plan)
}
