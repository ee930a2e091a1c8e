//! All commands of `elgen`, with `--attention window-8` and `--attention window-1024`.

use std::process::ExitCode;

fn main() -> ExitCode {
    elgen::run(std::env::args_os(), &own_attention::registry())
}
