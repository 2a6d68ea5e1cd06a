//! Tests of whole programs. One binary, because linking is what tests wait for.

mod circuits;
mod command_line;
mod files;
mod malformed;
