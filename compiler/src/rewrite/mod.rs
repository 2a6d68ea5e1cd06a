//! Rewriting circuits into equal ones that run faster.

pub mod fold;
pub mod hoist;

use serde::{Deserialize, Serialize};
use std::fmt;
use strang_ir::Module;

/// What rewriting is told.
#[derive(Clone, Debug, Default)]
pub struct RewriteOptions {}

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
pub fn rewrite(module: &Module, _options: &RewriteOptions) -> Result<(Module, Receipt), RewriteError> {
    let mut module = module.clone();
    let mut receipt = Receipt::default();
    fold::fold_constants(&mut module, &mut receipt)?;
    hoist::hoist(&mut module, &mut receipt);
    Ok((module, receipt))
}
