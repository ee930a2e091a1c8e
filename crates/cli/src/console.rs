//! Messages and progress on stderr.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::error::single_line;

const COUNTING: &str = "{spinner} {pos} done, {elapsed} elapsed";
const BOUNDED: &str = "{bar:30} {pos}/{len} done, {elapsed} elapsed";

/// Where everything but results is told.
pub(crate) struct Console {
    quiet: bool,
    bar: Option<ProgressBar>,
}

impl Console {
    /// A console that shows errors alone if `quiet`.
    pub(crate) fn new(quiet: bool) -> Console {
        Console { quiet, bar: None }
    }

    /// Prints `error: …`.
    pub(crate) fn error(&self, message: &str) {
        self.line(&format!("error: {}", single_line(message)));
    }

    /// Prints `warning: …` unless quiet.
    pub(crate) fn warning(&self, message: &str) {
        if !self.quiet {
            self.line(&format!("warning: {}", single_line(message)));
        }
    }

    /// Prints a line unless quiet.
    pub(crate) fn note(&self, message: &str) {
        if !self.quiet {
            self.line(message);
        }
    }

    /// Prints a line as it is, above the progress bar.
    pub(crate) fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| write_line(line)),
            None => write_line(line),
        }
    }

    /// Starts to count finished records, where stderr is a terminal. Results that appear on a terminal are progress enough,
    /// and a bar would run into them.
    pub(crate) fn start_progress(&mut self, results_to_stdout: bool) {
        let results_are_seen = results_to_stdout && io::stdout().is_terminal();
        if self.quiet || results_are_seen || !io::stderr().is_terminal() {
            return;
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style(COUNTING));
        bar.enable_steady_tick(Duration::from_millis(200));
        self.bar = Some(bar);
    }

    /// Sets the number of all records, once the input's end is known.
    pub(crate) fn set_total(&self, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_style(style(BOUNDED));
            bar.set_length(total);
        }
    }

    /// Counts a finished record.
    pub(crate) fn finished_one(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// Removes the bar.
    pub(crate) fn end_progress(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Writes to stderr; where nobody listens any more there is nobody to tell.
pub(crate) fn write_line(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
