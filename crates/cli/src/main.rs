//! The `elgen` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(elgen_cli::report_panics(|| elgen_cli::run(std::env::args_os())))
}
