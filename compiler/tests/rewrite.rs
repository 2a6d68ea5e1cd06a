//! Rewriting: every rule against the interpreter, and whole circuits before and after.

#[path = "rewrite/approximate.rs"]
mod approximate;
#[path = "rewrite/compare.rs"]
mod compare;
#[path = "rewrite/disguise.rs"]
mod disguise;
#[path = "rewrite/encoder.rs"]
mod encoder;
#[path = "rewrite/extraction.rs"]
mod extraction;
#[path = "rewrite/families.rs"]
mod families;
#[path = "rewrite/laws.rs"]
mod laws;
#[path = "rewrite/search.rs"]
mod search;
#[path = "rewrite/weights.rs"]
mod weights;
#[path = "rewrite/whole.rs"]
mod whole;
