//! What a process is set up with before a command runs.

/// Sets it up; where it can be told, as it was when the process began.
pub(crate) fn set_up() {
    #[cfg(target_os = "linux")]
    closed_streams::tell();
    silence_wayland();
    survive_file_limits();
}

/// Mesa asks the desktop for its preferred GPU. Where there is no desktop, as in a container, libwayland would print
/// `error: XDG_RUNTIME_DIR is invalid or not set` to stderr, as if elgen had failed.
fn silence_wayland() {
    const NAME: &str = "XDG_RUNTIME_DIR";
    let alone = || std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1);
    if cfg!(target_os = "linux") && std::env::var_os(NAME).is_none() && alone() {
        // SAFETY: the process has no other thread that could read its environment meanwhile.
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

/// Rust opens `/dev/null` in place of standard streams that are closed, before `main`: results would vanish without a word. What runs
/// earlier still sees how the program was started.
#[cfg(target_os = "linux")]
mod closed_streams {
    use std::{
        ffi::c_int,
        sync::atomic::{AtomicBool, Ordering},
    };

    static CLOSED: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(false)];
    const F_GETFD: c_int = 1;

    unsafe extern "C" {
        fn fcntl(descriptor: c_int, command: c_int, ...) -> c_int;
    }

    extern "C" fn look() {
        for (descriptor, closed) in [0, 1].into_iter().zip(&CLOSED) {
            // SAFETY: this asks for the flags of a descriptor, which changes nothing and is allowed for any number.
            closed.store(unsafe { fcntl(descriptor, F_GETFD) } == -1, Ordering::Relaxed);
        }
    }

    // SAFETY: the loader calls each function of this section once before `main`, with C's calling convention; `look` needs nothing
    // that Rust sets up there.
    #[used]
    #[unsafe(link_section = ".init_array")]
    static LOOK: extern "C" fn() = look;

    pub(super) fn tell() {
        let [stdin, stdout] = &CLOSED;
        crate::files::standard_streams_were_closed(stdin.load(Ordering::Relaxed), stdout.load(Ordering::Relaxed));
    }
}
