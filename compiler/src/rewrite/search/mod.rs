//! The search: windows of a circuit become e-graphs, rules saturate them, the cheapest form is extracted and put back.

pub mod convert;
pub mod cost;
pub mod emit;
pub mod extract;
mod greedy;
pub mod ilp;
pub mod key;
pub mod saturate;
pub mod trace;
pub mod window;
