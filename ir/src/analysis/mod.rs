//! Work and memory of circuits, as sizes over the symbols.

mod cost;
mod summary;
#[cfg(test)]
mod tests;

pub use cost::{bytes_of, cost, function_cost};
pub use summary::{Layer, Summary, peak_bytes, summary};
