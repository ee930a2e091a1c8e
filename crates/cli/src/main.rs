//! The `elgen` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    silence_wayland();
    survive_file_limits();
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

/// A file that would exceed `ulimit -f` is an error like a full disk, not a death without a word.
fn survive_file_limits() {
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    {
        use std::ffi::c_int;

        const SIGXFSZ: c_int = 25;
        const SIG_IGN: usize = 1;
        unsafe extern "C" {
            fn signal(signal: c_int, handler: usize) -> usize;
        }
        // SAFETY: the C library's own function, with the signature that it has on these systems; to ignore a signal has no
        // handler that could run.
        unsafe { signal(SIGXFSZ, SIG_IGN) };
    }
}
