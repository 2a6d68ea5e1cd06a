//! Rewriting circuits into equal ones that run faster.
//!
//! | file | what |
//! |---|---|
//! | `fold`, `evaluate`, `blocks` | nodes of weights alone become weights: which, one of them, several together |
//! | `scaled` | weights that are codes with scales |
//! | `inward` | weights into scans |
//! | `hoist` | products out of scans |
//! | `unread` | positions that nothing reads |
//! | `egraph` | circuits as e-graphs |
//! | `receipt` | what was done, and what nearly was |
//! | `rule`, `rules`, `lazy` | rules as values; the list, a family a file; their patterns, compiled when needed |
//! | `search` | windows, saturation, costs, extraction |
//! | `describe` | rules as text for people |
//! | `single` | one rule applied alone, for tests and examples |

mod blocks;
pub mod describe;
pub mod egraph;
pub mod evaluate;
pub mod fold;
pub mod hoist;
pub mod inward;
mod lazy;
mod receipt;
pub mod rule;
pub mod rules;
pub mod scaled;
pub mod search;
pub mod single;
pub mod unread;

use strang_ir::Module;
use strang_runtime::kernels::Level;

pub use receipt::{Application, Miss, Obstacle, Reason, Receipt};
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

/// How the cheapest form is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extraction {
    /// Greedily.
    #[default]
    Greedy,
    /// Greedily, and as an integer program that tells how far from the best that is; the better is taken. Slow.
    Ilp,
}

/// What rewriting is told.
#[derive(Clone, Debug)]
pub struct RewriteOptions {
    /// Which rules may be used.
    pub numerics: Numerics,
    /// Names of rules that are not used though they may be.
    pub without: Vec<String>,
    /// The machine whose costs decide.
    pub target: Target,
    /// The most rounds of rules on one window.
    pub iterations: usize,
    /// The number of terms of one window after which no round begins.
    pub nodes: usize,
    /// After how many applications of rules to stop.
    pub fuel: usize,
    /// Whether the receipt tells what nearly was done.
    pub explain: bool,
    /// How the cheapest form is found.
    pub extraction: Extraction,
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
        RewriteOptions {
            numerics: Numerics::default(),
            without: Vec::new(),
            target,
            iterations: 6,
            nodes: 5_000,
            fuel: usize::MAX,
            explain: false,
            extraction: Extraction::default(),
        }
    }
}

/// Why rewriting fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// A rule to be left out does not exist.
    #[error("there is no rule `{0}`; `strang rules` lists them")]
    Rule(String),
    /// A constant part of the circuit has no value.
    #[error("{layer}: {reason}")]
    Constant {
        /// The user's layer.
        layer: String,
        /// What went wrong.
        reason: String,
    },
}

/// Rewrites a verified module into an equal one.
///
/// # Errors
/// A constant part without a value, or a rule to be left out that is none.
pub fn rewrite(module: &Module, options: &RewriteOptions) -> Result<(Module, Receipt), RewriteError> {
    if let Some(unknown) = options.without.iter().find(|name| rules::all().iter().all(|rule| rule.name != **name)) {
        return Err(RewriteError::Rule(unknown.clone()));
    }
    let mut module = module.clone();
    let mut receipt = Receipt::default();
    fold::fold_constants(&mut module, fold::NARROW, options.fuel, &mut receipt)?;
    inward::move_inward(&mut module, options.fuel, &mut receipt);
    hoist::hoist(&mut module, options.fuel, &mut receipt);
    unread::leave_unread(&mut module, options.fuel, &mut receipt);
    search::saturate::saturate(&mut module, options, &mut receipt);
    fold::fold_constants(&mut module, fold::WIDE, options.fuel, &mut receipt)?;
    Ok((module, receipt))
}
