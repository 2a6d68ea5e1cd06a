//! What rewriting did and what it nearly did.

use super::{rule::Rule, search::ilp::Audit};
use crate::approximate::budget::Report;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What rewriting did, in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// The rules that shaped the result.
    pub applied: Vec<Application>,
    /// Into how many windows the circuit was cut.
    pub windows: u32,
    /// How many of them are different but for their weights, and were searched.
    pub searched: u32,
    /// How often rules were applied, whether or not the result was chosen: what [`super::RewriteOptions::fuel`] limits.
    pub spent: usize,
    /// The last application of those.
    pub last: Option<Application>,
    /// The predicted seconds of a run, of what was searched.
    pub seconds: f64,
    /// Rules that nearly shaped the result, where [`super::RewriteOptions::explain`] asks for them.
    pub missed: Vec<Miss>,
    /// How far the searched windows are from the best, where [`super::Extraction::Ilp`] asks for it; too large ones are left out.
    pub audits: Vec<Audit>,
    /// What an error budget did before, if there was one.
    pub budget: Option<Report>,
}

/// A rule that was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Application {
    /// The rule.
    pub rule: String,
    /// The user's layer.
    pub layer: String,
}

/// A rule that matched but did not shape the result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Miss {
    /// The rule.
    pub rule: String,
    /// The user's layer.
    pub layer: String,
    /// What stopped it.
    pub reason: Reason,
}

/// What stopped a rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reason {
    /// The one condition of its guard that does not hold.
    Guard(String),
    /// What it built costs so many seconds a run more than what was chosen instead.
    Cost(f64),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Guard(condition) => write!(f, "its guard does not hold: {condition}"),
            Reason::Cost(seconds) if *seconds > 1e-9 => {
                write!(f, "a run would cost {:.3} microseconds more", seconds * 1e6)
            }
            Reason::Cost(_) => f.write_str("it saves nothing"),
        }
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(budget) = &self.budget {
            write!(f, "{budget}")?;
        }
        self.applied.iter().try_for_each(|application| writeln!(f, "{}: {}", application.rule, application.layer))
    }
}

impl Receipt {
    /// Notes an application outside the search.
    pub fn apply(&mut self, rule: &str, layer: String) {
        let application = Application { rule: rule.into(), layer };
        self.spent += 1;
        self.last = Some(application.clone());
        self.applied.push(application);
    }
}

/// What stopped a rule in a window, before it is known for which layers.
#[derive(Clone, Debug, PartialEq)]
pub enum Obstacle {
    /// The conjunct of its guard that does not hold, by number.
    Guard(usize),
    /// Seconds a run.
    Cost(f64),
}

impl Obstacle {
    /// The obstacle as users read it.
    pub fn reason(&self, rule: &Rule) -> Reason {
        match self {
            Obstacle::Guard(conjunct) => Reason::Guard(rule.guard[*conjunct].text.into()),
            Obstacle::Cost(seconds) => Reason::Cost(*seconds),
        }
    }
}
