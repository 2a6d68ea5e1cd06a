//! Rewriting circuits into equal ones that run faster.

pub mod hoist;
