//! Defects of the program itself, told in one line like any other error.

use std::{
    cell::RefCell,
    panic::{self, AssertUnwindSafe},
    thread,
};

use crate::{color::error_prefix, console::write_line, error::single_line};

thread_local! {
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `work`, the whole of a program, on the main thread; a panic that nothing catches becomes an error line and exit
/// code 1.
///
/// This replaces the process's panic hook, because the usual one prints several lines even for a panic that a library
/// catches, as is done around tokenizer files. Panics of other threads are printed as usual.
pub(crate) fn report_panics(work: impl FnOnce() -> u8) -> u8 {
    caught(work).unwrap_or_else(|what| {
        write_line(&format!("{} internal error, please report it: {what}", error_prefix()));
        1
    })
}

fn caught(work: impl FnOnce() -> u8) -> Result<u8, String> {
    let usual = panic::take_hook();
    let main = thread::current().id();
    panic::set_hook(Box::new(move |info| {
        if thread::current().id() == main {
            LAST.with_borrow_mut(|last| *last = info.to_string());
        } else {
            usual(info);
        }
    }));
    // Nothing that `work` leaves behind is used again.
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|_| LAST.with_borrow(|last| single_line(last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_one_line() {
        assert_eq!(caught(|| 2), Ok(2));
        let line = caught(|| panic!("on\npurpose")).unwrap_err();
        assert!(line.starts_with("panicked at ") && line.ends_with(": on purpose"), "{line}");
        // What a library catches stays its own affair.
        assert_eq!(caught(|| u8::from(panic::catch_unwind(|| panic!("caught")).is_err())), Ok(1));
        let _ = panic::take_hook();
    }
}
