//! The rules, one family a file, and the list of all.

mod activation;
mod association;
mod attention;
mod broadcast;
mod chained;
mod codes;
mod convolution;
mod elementwise;
mod flattened;
mod integers;
mod linear;
mod merging;
mod neighbours;
mod norm_products;
mod normalisation;
mod parts;
mod pooling;
mod projections;
mod quantised;
mod rotary;
mod splitting;
mod streaming;
mod views;
pub mod winograd;

use super::rule::Rule;
use std::sync::LazyLock;

static ALL: LazyLock<Vec<(&'static str, &'static Rule)>> = LazyLock::new(|| {
    let families: &[(&str, &[Rule])] = &[
        ("views", views::RULES),
        ("elementwise", elementwise::RULES),
        ("activation", activation::RULES),
        ("broadcast", broadcast::RULES),
        ("linear", linear::RULES),
        ("association", association::RULES),
        ("merging", merging::RULES),
        ("convolution", convolution::RULES),
        ("neighbours", neighbours::RULES),
        ("winograd", winograd::RULES),
        ("chained", chained::RULES),
        ("pooling", pooling::RULES),
        ("normalisation", normalisation::RULES),
        ("norm-products", norm_products::RULES),
        ("flattened", flattened::RULES),
        ("attention", attention::RULES),
        ("streaming", streaming::RULES),
        ("rotary", rotary::RULES),
        ("projections", projections::RULES),
        ("splitting", splitting::RULES),
        ("integers", integers::RULES),
        ("quantised", quantised::RULES),
        ("codes", codes::RULES),
    ];
    families.iter().flat_map(|(family, rules)| rules.iter().map(|rule| (*family, rule))).collect()
});

static RULES: LazyLock<Vec<&'static Rule>> = LazyLock::new(|| ALL.iter().map(|(_, rule)| *rule).collect());

/// Every rule, in the order in which receipts number them.
pub fn all() -> &'static [&'static Rule] {
    &RULES
}

/// The rules with their families.
pub fn families() -> &'static [(&'static str, &'static Rule)] {
    &ALL
}
