//! Every family of rules with an example of each rule before and after, for a person to review.
//!
//! `INSTA_UPDATE=always cargo test -p strang-compiler --test rewrite families` writes them anew.

use std::collections::BTreeMap;
use strang_compiler::{
    approximate,
    rewrite::{describe, rules},
};

#[test]
fn families_read_well() {
    let mut families: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    rules::families().iter().for_each(|(family, rule)| families.entry(family).or_default().push(rule.name));
    families.insert("approximate", approximate::all().iter().map(|rule| rule.name).collect());
    for (family, names) in families {
        let texts = names.iter().map(|name| {
            let text = describe::rule(name).unwrap();
            assert!(text.contains("\nbefore\n"), "`{name}` has no example that it changes");
            text
        });
        insta::assert_snapshot!(family, texts.collect::<Vec<_>>().join("\n"));
    }
}
