//! `strang rules`: the rules that circuits are rewritten by.

use super::output::show;
use miette::Result;
use strang::compiler::rewrite::{describe, rules};

/// List the rewriting rules, or show one with its law, guard and an example before and after
#[derive(clap::Args)]
pub struct Rules {
    /// The name of a rule
    name: Option<String>,
}

impl Rules {
    /// Does it.
    pub fn execute(self) -> Result<()> {
        let Some(name) = self.name else {
            show!("{}", describe::list());
            return Ok(());
        };
        match describe::rule(&name) {
            Some(text) => show!("{text}"),
            None => {
                let close = rules::all().iter().filter(|rule| rule.name.contains(&name)).map(|rule| rule.name);
                let close: Vec<&str> = close.collect();
                let help = if close.is_empty() { "`strang rules` lists them".to_owned() } else { close.join(", ") };
                return Err(miette::miette!(help = help, "there is no rule `{name}`"));
            }
        }
        Ok(())
    }
}
