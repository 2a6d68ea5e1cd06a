//! The forms in which circuits are written: text and JSON. One binary, because linking is what tests wait for.

mod examples;
mod json;
mod random;
mod text;
