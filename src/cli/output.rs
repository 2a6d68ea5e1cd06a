//! Printing to a reader that may have seen enough: `strang compile model.onnx | head` ends well.

use std::{
    fmt,
    io::{ErrorKind, Write, stdout},
    process::exit,
};

/// Prints; ends the program when nobody reads, or when what is read cannot be written.
pub fn write(text: fmt::Arguments) {
    let mut out = stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => exit(0),
        Err(error) => {
            eprintln!("cannot print: {error}");
            exit(1)
        }
    }
}

/// Prints text, as `print!`.
macro_rules! show {
    ($($part:tt)*) => { crate::cli::output::write(format_args!($($part)*)) };
}

/// Prints a line, as `println!`.
macro_rules! showln {
    ($($part:tt)*) => { crate::cli::output::write(format_args!("{}\n", format_args!($($part)*))) };
}

pub(super) use {show, showln};
