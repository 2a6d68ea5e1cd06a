//! Rewriting circuits into equal ones that run faster.
//!
//! | file | what |
//! |---|---|
//! | `fold`, `evaluate` | nodes of weights alone become weights |
//! | `hoist` | products out of scans |
//! | `egraph` | circuits as e-graphs |
//! | `rule`, `rules` | rules as values; the list, a family a file |
//! | `search` | windows, saturation, costs, extraction |
//! | `describe` | rules as text for people |
//! | `single` | one rule applied alone, for tests and examples |

pub mod describe;
pub mod egraph;
pub mod evaluate;
pub mod fold;
pub mod hoist;
pub mod rule;
pub mod rules;
pub mod search;
pub mod single;

use serde::{Deserialize, Serialize};
use std::fmt;
use strang_ir::Module;
use strang_runtime::kernels::Level;

use search::cost::Target;

/// Which rules may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numerics {
    /// Those that keep every bit.
    Exact,
    /// Those that are equal over the reals too.
    #[default]
    Fast,
}

/// What rewriting is told.
#[derive(Clone, Debug)]
pub struct RewriteOptions {
    /// Which rules may be used.
    pub numerics: Numerics,
    /// The machine whose costs decide.
    pub target: &'static Target,
    /// The most rounds of rules on one window.
    pub iterations: usize,
    /// The number of terms of one window after which no round begins.
    pub nodes: usize,
}

impl RewriteOptions {
    /// The default options, with the costs of machines of a level.
    pub fn for_level(level: Level) -> Self {
        RewriteOptions { target: Target::for_level(level), ..Self::default() }
    }
}

impl Default for RewriteOptions {
    /// Costs are those of [`Level::Avx512`], whatever this machine is.
    fn default() -> Self {
        let target = Target::for_level(Level::Avx512);
        RewriteOptions { numerics: Numerics::default(), target, iterations: 6, nodes: 5_000 }
    }
}

/// Why rewriting fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// A constant part of the circuit has no value.
    #[error("{layer}: {reason}")]
    Constant {
        /// The user's layer.
        layer: String,
        /// What went wrong.
        reason: String,
    },
}

/// What rewriting did, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The rules that were applied.
    pub applied: Vec<Application>,
    /// Into how many windows the circuit was cut.
    pub windows: u32,
    /// How many of them are different but for their weights, and were searched.
    pub searched: u32,
}

/// A rule that was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Application {
    /// The rule.
    pub rule: String,
    /// The user's layer.
    pub layer: String,
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.applied.iter().try_for_each(|application| writeln!(f, "{}: {}", application.rule, application.layer))
    }
}

/// Rewrites a verified module into an equal one.
///
/// # Errors
/// A constant part without a value.
pub fn rewrite(module: &Module, options: &RewriteOptions) -> Result<(Module, Receipt), RewriteError> {
    let mut module = module.clone();
    let mut receipt = Receipt::default();
    fold::fold_constants(&mut module, &mut receipt)?;
    hoist::hoist(&mut module, &mut receipt);
    search::saturate::saturate(&mut module, options, &mut receipt);
    fold::fold_constants(&mut module, &mut receipt)?;
    Ok((module, receipt))
}
