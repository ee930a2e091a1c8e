//! Defects of the program itself, told in one line like any other error.

use std::{
    cell::RefCell,
    panic::{self, AssertUnwindSafe},
    thread,
};

use crate::{console::write_line, error::single_line};

thread_local! {
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `work`, the whole of a program, on the main thread; a panic that nothing catches becomes an error line and exit
/// code 1.
///
/// This replaces the process's panic hook, because the usual one prints several lines even for a panic that a library
/// catches, as is done around tokenizer files. Panics of other threads are printed as usual.
pub fn report_panics(work: impl FnOnce() -> u8) -> u8 {
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
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let what = LAST.with_borrow(|last| single_line(last));
        write_line(&format!("error: internal error, please report it: {what}"));
        1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_exit_code() {
        assert_eq!(report_panics(|| 2), 2);
        assert_eq!(report_panics(|| panic!("on purpose")), 1);
        let caught = || u8::from(panic::catch_unwind(|| panic!("caught")).is_err());
        assert_eq!(report_panics(caught), 1);
        let _ = panic::take_hook();
    }
}
