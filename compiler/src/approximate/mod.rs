//! Approximate variants of circuits: not equal, so they never meet in an e-graph. Each is applied to a circuit, measured on
//! the user's samples, and kept where an error budget allows it (DESIGN, the error budget).
//!
//! | file | what |
//! |---|---|
//! | `branch` | residual branches, which most rules are about |
//! | `rules` | the list: name, law, expansion, order of the error |
//! | `macaron` | reorderings of splitting steps |
//! | `bytes` | products of bytes instead of floats |
//! | `filtering` | convolutions with fewer products |
//! | `narrow` | feed-forward layers without their least hidden units |
//! | `budget` | the choice of variants under an error budget |

mod branch;
pub mod budget;
mod bytes;
mod filtering;
mod macaron;
mod narrow;
pub mod rules;

pub use bytes::observing;
pub use rules::{ApproximateRule, all};

use petgraph::stable_graph::NodeIndex;
use rustc_hash::FxHashMap;
use strang_ir::{Module, Value};

/// The least and the largest element that values have on samples: of those that [`observing`] names.
pub type Ranges = FxHashMap<Value, (f64, f64)>;

/// A rule at a place of a circuit.
#[derive(Clone, Debug)]
pub struct Variant {
    /// The rule.
    pub rule: &'static ApproximateRule,
    /// The user's layer: that of the sum, or of the contraction.
    pub layer: String,
    /// How much of something, where the rule has degrees, as text: `64 of 128 units`.
    pub degree: Option<String>,
    /// Nodes whose meaning changes: two variants that share one exclude each other.
    pub changes: Vec<NodeIndex>,
    change: Change,
}

#[derive(Clone, Debug)]
enum Change {
    Macaron(macaron::Reordering),
    Narrow(narrow::Narrowing),
    Bytes(bytes::Rounding),
    Filtering(filtering::Filtering),
}

impl Variant {
    /// Whether two variants cannot be applied together.
    pub fn excludes(&self, other: &Variant) -> bool {
        self.changes.iter().any(|node| other.changes.contains(node))
    }

    /// Applies the variant to the circuit that it was found in, or to that with other variants applied which it does not exclude.
    pub fn apply(&self, module: &mut Module) {
        match &self.change {
            Change::Macaron(reordering) => reordering.apply(&mut module.functions[0]),
            Change::Narrow(narrowing) => narrowing.apply(module),
            Change::Bytes(rounding) => rounding.apply(module),
            Change::Filtering(filtering) => filtering.apply(module),
        }
    }
}

/// A circuit with variants applied, and what nothing needs any more removed.
pub fn applied<'a>(module: &Module, variants: impl IntoIterator<Item = &'a Variant>) -> Module {
    let mut module = module.clone();
    variants.into_iter().for_each(|variant| variant.apply(&mut module));
    module.functions[0].remove_dead();
    module
}
