//! Downloads from the hub, as they are told on stderr.

use std::time::{Duration, Instant};

use elgen_engine::hub::{HubError, HubEvent};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    console::Console,
    error::{CliError, one_line},
    report::bytes,
};

const BAR: &str = "{bar:20} {binary_bytes}/{binary_total_bytes}, {binary_bytes_per_sec}, {eta} left {wide_msg}";
/// How often a long download is told where there is no bar to redraw.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Shows one model's download.
pub(crate) struct Downloads<'a> {
    console: &'a Console,
    quiet: bool,
    /// Hidden where stderr is no terminal.
    bar: Option<ProgressBar>,
    next_line: Instant,
}

impl<'a> Downloads<'a> {
    /// Nothing is shown if `quiet`.
    pub(crate) fn new(console: &'a Console, quiet: bool) -> Downloads<'a> {
        Downloads { console, quiet, bar: None, next_line: Instant::now() + LINE_INTERVAL }
    }

    /// Shows a step.
    pub(crate) fn show(&mut self, event: HubEvent<'_>) {
        if self.quiet {
            return;
        }
        match event {
            HubEvent::Begin { model, cache } => {
                self.note(&format!("downloading {model} into {}", cache.display()));
            }
            HubEvent::File { name, bytes, size } => {
                self.end();
                let bar = ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::stderr());
                bar.set_style(ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar()));
                bar.set_message(name.to_owned());
                bar.set_position(bytes);
                bar.reset_eta();
                self.bar = Some(bar);
            }
            HubEvent::Bytes { name, bytes: done, size } => {
                let Some(bar) = &self.bar else { return };
                bar.set_position(done);
                let now = Instant::now();
                if bar.is_hidden() && now >= self.next_line {
                    self.next_line = now + LINE_INTERVAL;
                    self.note(&format!("{name}: {} of {}", bytes(done), bytes(size)));
                }
            }
            HubEvent::Retry { error, .. } => self.note(&format!("{}; trying again", one_line(error))),
            _ => {}
        }
    }

    /// Removes the bar.
    pub(crate) fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.console.note(text)),
            None => self.console.note(text),
        }
    }
}

/// A failure of the hub, with the flag or the argument that it is about.
pub(crate) fn hub_error(error: HubError) -> CliError {
    let message = one_line(&error);
    match error {
        HubError::TwoRevisions { .. } | HubError::Revision { .. } => CliError::Usage(format!("--revision: {message}")),
        _ => CliError::Failed(message),
    }
}
