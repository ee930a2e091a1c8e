//! The `elgen` program.

fn main() -> std::process::ExitCode {
    elgen::run(std::env::args_os(), &elgen::Registry::default())
}
