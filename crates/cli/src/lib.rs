//! The `elgen` command line: `elgen generate`, `elgen score`, `elgen eval`, `elgen tokenize`, `elgen plan`, `elgen bench`, `elgen devices`,
//! `elgen inspect`, `elgen pull`, `elgen completions` and `elgen man`.
//!
//! It composes the other crates and computes nothing: flags become options, files become requests, results become lines
//! in input order, counters become reports. Results go to stdout or the named file and nothing else does; progress,
//! statistics, warnings and errors go to stderr.
//!
//! ```
//! // What the program's `main` does; the answer is the exit code.
//! assert_eq!(elgen_cli::run(["elgen", "--version"]), 0);
//! assert_eq!(elgen_cli::run(["elgen", "generate", "--model"]), 2);
//! ```

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches};

mod asked;
mod bench;
mod builtin;
mod color;
mod completions;
mod console;
#[cfg(test)]
mod counting;
mod devices;
#[cfg(feature = "hub")]
mod download;
mod error;
mod eval;
mod files;
mod flags;
mod input;
mod inspect;
mod interrupt;
mod man;
mod model;
#[cfg(test)]
mod numbers_tests;
mod output;
mod panics;
mod plan;
mod plot;
mod print_config;
mod progress;
mod pull;
mod report;
mod resume;
mod run;
mod score;
mod spool;
mod stream;
mod suggest;
mod terminal;
mod tokenize;

use console::Console;
use error::{CliError, one_line};
pub use files::standard_streams_were_closed;
use flags::{Cli, Command};
pub use panics::report_panics;

/// Runs the command line given by `arguments`, the program's name first, and returns the exit code: 0 all done,
/// 1 something failed, 2 wrong usage.
pub fn run<I, T>(arguments: I) -> u8
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    let color = color::asked(&arguments);
    color::set(color);
    let mut command = Cli::command().color(color.choice());
    let parsed = command.try_get_matches_from_mut(arguments);
    let parsed = parsed.and_then(|matches| Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command)));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(answer) => {
            return tell(&answer);
        }
    };
    let result = match cli.command {
        Command::Generate(arguments) => run::generate(*arguments),
        Command::Score(arguments) => score::score(*arguments),
        Command::Bench(arguments) => bench::bench(&arguments),
        Command::Devices(arguments) => devices::devices(&arguments),
        Command::Eval(arguments) => eval::eval(&arguments),
        Command::Inspect(arguments) => inspect::inspect(&arguments),
        Command::Plan(arguments) => plan::plan(&arguments),
        Command::Pull(arguments) => pull::pull(&arguments),
        Command::Tokenize(arguments) => tokenize::tokenize(arguments),
        Command::Completions(arguments) => completions::completions(&arguments),
        Command::Man(arguments) => man::man(&arguments),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            Console::new(true).error(&one_line(&error));
            error.exit_code()
        }
    }
}

/// Prints what clap has to say: a usage error to stderr; help, the version and the like, which are results, to stdout.
fn tell(answer: &clap::Error) -> u8 {
    use std::io::{self, Write};

    let code = u8::try_from(answer.exit_code()).unwrap_or(2);
    if answer.use_stderr() {
        let text = answer.render().to_string();
        // Arguments may be names of files that somebody else has chosen.
        match error::printable_lines(&text) == text {
            true => drop(answer.print()),
            false => console::write_line(error::printable_lines(&text).trim_end()),
        }
        return code;
    }
    let printed = files::check_open(files::Stream::Stdout)
        .and_then(|()| answer.print().and_then(|()| io::stdout().flush()).map_err(stdout_error));
    match printed {
        Err(CliError::File { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => code,
        Err(error) => {
            Console::new(true).error(&one_line(&error));
            error.exit_code()
        }
        Ok(()) => code,
    }
}

fn stdout_error(source: std::io::Error) -> CliError {
    CliError::File { action: "write", path: "<stdout>".into(), source }
}

/// The reader of records on bytes instead of a file, for the fuzz targets and tests. Not part of the interface.
#[doc(hidden)]
pub fn fuzz_jsonl(bytes: &[u8]) -> usize {
    input::read_all(bytes)
}

/// Writes a report to stdout; a closed pipe ends quietly.
fn print_report(text: &str) -> Result<u8, CliError> {
    use std::io;

    files::check_open(files::Stream::Stdout)?;
    let mut stdout = files::results();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(source) if source.kind() != io::ErrorKind::BrokenPipe => Err(stdout_error(source)),
        _ => Ok(0),
    }
}

/// A value as indented JSON.
fn pretty_json(value: &impl serde::Serialize) -> Result<String, CliError> {
    let mut text = serde_json::to_string_pretty(value).map_err(|error| CliError::Failed(error.to_string()))?;
    text.push('\n');
    Ok(text)
}
