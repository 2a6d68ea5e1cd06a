//! The command-line program.

mod cli;

fn main() -> miette::Result<()> {
    cli::main()
}
