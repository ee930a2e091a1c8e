//! Ctrl-C: the first lets finished lines out, the second ends the program where it stands.

use std::{
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use elgen_engine::CancelToken;

use crate::console::write_line;

/// Exit code of a program that ended through an interrupt.
const INTERRUPTED: i32 = 1;

/// The switch that an interrupt throws.
#[derive(Debug, Default)]
pub(crate) struct Interrupt {
    cancel: CancelToken,
    /// Whether there is anything to finish in good order.
    working: AtomicBool,
    asked: AtomicBool,
}

impl Interrupt {
    /// Listens for Ctrl-C from here on. While nothing is generated or written (a model loads, a terminal is read), an
    /// interrupt ends the program at once.
    pub(crate) fn install() -> Arc<Interrupt> {
        let interrupt = Arc::new(Interrupt::default());
        let heard = Arc::clone(&interrupt);
        // Without a handler an interrupt still ends the program, only less politely.
        let _ = ctrlc::set_handler(move || {
            let again = heard.asked.swap(true, Ordering::SeqCst);
            heard.cancel.cancel();
            if again || !heard.working.load(Ordering::SeqCst) {
                write_line("interrupted");
                process::exit(INTERRUPTED);
            }
        });
        interrupt
    }

    /// The switch that stops generation.
    pub(crate) fn cancel_token(&self) -> CancelToken {
        self.cancel.clone()
    }

    /// Stops generation for another reason than an interrupt.
    pub(crate) fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Whether generation is to stop.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Whether the user interrupted the program.
    pub(crate) fn was_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Runs `work` to its end, or to its own answer to the cancel flag, before an interrupt ends the program.
    pub(crate) fn guard<T>(&self, work: impl FnOnce() -> T) -> T {
        self.working.store(true, Ordering::SeqCst);
        let result = work();
        self.working.store(false, Ordering::SeqCst);
        result
    }
}
