//! The `evenkeel` command: daemon and CLI in one binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    evenkeel::cli::main()
}
