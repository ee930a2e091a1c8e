//! The `elgen` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    silence_wayland();
    ExitCode::from(elgen_cli::report_panics(|| elgen_cli::run(std::env::args_os())))
}

/// Mesa asks the desktop for its preferred GPU. Where there is no desktop, as in a container, libwayland would print
/// `error: XDG_RUNTIME_DIR is invalid or not set` to stderr, as if elgen had failed.
fn silence_wayland() {
    const NAME: &str = "XDG_RUNTIME_DIR";
    if cfg!(unix) && std::env::var_os(NAME).is_none() {
        // SAFETY: this is the program's first action, no other thread exists.
        unsafe { std::env::set_var(NAME, "/nonexistent") };
    }
}
