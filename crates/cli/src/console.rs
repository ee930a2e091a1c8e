//! Messages and progress on stderr.

use std::{
    io::{self, IsTerminal, Write},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    color,
    error::{printable_lines, single_line},
    progress::Progress,
};

/// What does not fit into the terminal's width is cut: a line that wraps cannot be drawn over.
const COUNTING: &str = "{spinner} {wide_msg}";
const BOUNDED: &str = "{bar:12} {wide_msg}";
/// How often the bar is drawn while no record ends.
const TICK: Duration = Duration::from_millis(200);
/// How often progress is told where there is no bar to redraw.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// When progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    /// A bar, where stderr is a terminal
    Auto,
    /// A bar, or a line every 10 seconds where stderr is no terminal
    Always,
    /// Nothing
    Never,
}

/// Where everything but results is told.
pub(crate) struct Console {
    quiet: bool,
    progress: Option<Shown>,
}

struct Shown {
    progress: Arc<Mutex<Progress>>,
    display: Display,
}

enum Display {
    Bar(Bar),
    Lines { next: Instant },
}

impl Console {
    /// A console that shows errors alone if `quiet`.
    pub(crate) fn new(quiet: bool) -> Console {
        Console { quiet, progress: None }
    }

    /// Prints `error: …`.
    pub(crate) fn error(&self, message: &str) {
        self.show(&format!("{} {}", color::error_prefix(), single_line(message)));
    }

    /// Prints `warning: …` unless quiet.
    pub(crate) fn warning(&self, message: &str) {
        if !self.quiet {
            self.show(&format!("{} {}", color::warning_prefix(), single_line(message)));
        }
    }

    /// Prints a line unless quiet.
    pub(crate) fn note(&self, message: &str) {
        if !self.quiet {
            self.line(message);
        }
    }

    /// Prints a line, or several, above the progress bar.
    pub(crate) fn line(&self, line: &str) {
        self.show(&printable_lines(line));
    }

    /// Prints what is printable, colours and all.
    fn show(&self, line: &str) {
        match &self.progress {
            Some(Shown { display: Display::Bar(bar), .. }) => bar.shown.suspend(|| write_line(line)),
            _ => write_line(line),
        }
    }

    /// Whether a progress bar or progress lines will be shown. Results that appear on a terminal are progress enough, and a
    /// bar would run into them.
    pub(crate) fn shows_progress(&self, mode: ProgressMode, results_to_stdout: bool) -> bool {
        match mode {
            ProgressMode::Always => true,
            ProgressMode::Never => false,
            ProgressMode::Auto => {
                let results_are_seen = results_to_stdout && io::stdout().is_terminal();
                !self.quiet && !results_are_seen && io::stderr().is_terminal()
            }
        }
    }

    /// Starts to show progress.
    pub(crate) fn start_progress(&mut self, progress: Progress) {
        let (done, total) = progress.counts();
        let progress = Arc::new(Mutex::new(progress));
        let display = if io::stderr().is_terminal() {
            Display::Bar(Bar::start(&progress, done, total))
        } else {
            Display::Lines { next: Instant::now() + LINE_INTERVAL }
        };
        self.progress = Some(Shown { progress, display });
    }

    /// Sets the number of all records, once the input's end is known.
    pub(crate) fn set_total(&mut self, total: u64) {
        let Some(shown) = &self.progress else { return };
        lock(&shown.progress).set_total(total);
        if let Display::Bar(bar) = &shown.display {
            bar.shown.set_style(style(BOUNDED));
            bar.shown.set_length(total);
        }
    }

    /// Counts a finished record.
    pub(crate) fn finished_one(&mut self) {
        let Some(shown) = &mut self.progress else { return };
        lock(&shown.progress).finished_one();
        match &mut shown.display {
            Display::Bar(bar) => {
                // The text tells the same number as the bar, whenever its thread renews it.
                bar.shown.set_message(lock(&shown.progress).line(Instant::now()));
                bar.shown.inc(1);
            }
            Display::Lines { next } => {
                let now = Instant::now();
                if now >= *next {
                    *next = now + LINE_INTERVAL;
                    write_line(&format!("progress: {}", lock(&shown.progress).line(now)));
                }
            }
        }
    }

    /// Removes the bar, or tells the last state.
    pub(crate) fn end_progress(&mut self) {
        match self.progress.take() {
            Some(Shown { display: Display::Bar(bar), .. }) => bar.end(),
            Some(Shown { progress, .. }) => {
                write_line(&format!("progress: {}", lock(&progress).line(Instant::now())));
            }
            None => {}
        }
    }
}

/// The state is whole whatever happened to another thread that held it.
fn lock(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A bar whose text is renewed by a thread: times go on while no record ends.
struct Bar {
    shown: ProgressBar,
    /// Ends the thread when it is dropped.
    until: Sender<()>,
    ticker: JoinHandle<()>,
}

impl Bar {
    fn start(progress: &Arc<Mutex<Progress>>, done: u64, total: Option<u64>) -> Bar {
        let shown = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        shown.set_style(style(if total.is_some() { BOUNDED } else { COUNTING }));
        shown.set_position(done);
        let (until, ended) = mpsc::channel();
        let (bar, progress) = (shown.clone(), Arc::clone(progress));
        let ticker = thread::spawn(move || {
            loop {
                let line = lock(&progress).line(Instant::now());
                bar.set_message(line);
                bar.tick();
                if ended.recv_timeout(TICK) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
        });
        Bar { shown, until, ticker }
    }

    fn end(self) {
        drop(self.until);
        // A thread that has panicked draws no more either.
        let _ = self.ticker.join();
        self.shown.finish_and_clear();
    }
}

/// Tells that a device is measured, which nothing can be seen of for seconds.
pub(crate) fn tell_measurement(device: &str) {
    write_line(&format!("measuring {device} for --attention auto; the result is kept for later runs"));
}

/// Writes to stderr; where nobody listens any more there is nobody to tell.
pub(crate) fn write_line(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
