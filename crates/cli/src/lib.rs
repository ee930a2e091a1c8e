//! The `elgen` command line: `elgen generate`, `elgen score`, `elgen eval`, `elgen tokenize`, `elgen plan`, `elgen bench`, `elgen devices`,
//! `elgen inspect`, `elgen pull`, `elgen completions` and `elgen man`.
//!
//! It composes the other crates and computes nothing: flags become options, files become requests, results become lines
//! in input order, counters become reports. Results go to stdout or the named file and nothing else does; progress,
//! statistics, warnings and errors go to stderr.
//!
//! A program of one's own has all commands, with the attention kinds of its registry:
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     elgen::run(std::env::args_os(), &elgen::Registry::default())
//! }
//! ```

use std::{ffi::OsString, process::ExitCode};

use clap::FromArgMatches;
pub use elgen_engine::Registry;

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
mod process;
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
use flags::{Cli, Command};
use panics::report_panics;

/// Runs the command line given by `arguments`, the program's name first, as the whole of a program that knows the attention kinds of
/// `registry`: 0 all done, 1 something failed, 2 wrong usage.
///
/// It is meant to be all that `main` does: panics of this thread become error lines, files that exceed a limit of the process become errors,
/// and where no other thread runs yet, libraries that look for a desktop are told that there is none.
pub fn run<T: Into<OsString>>(arguments: impl IntoIterator<Item = T>, registry: &Registry) -> ExitCode {
    process::set_up();
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    ExitCode::from(report_panics(|| code(arguments, registry)))
}

/// The exit code of a command line.
fn code(arguments: Vec<OsString>, registry: &Registry) -> u8 {
    let color = color::asked(&arguments);
    color::set(color);
    let mut command = flags::command(registry).color(color.choice());
    let parsed = command.try_get_matches_from_mut(arguments);
    let parsed = parsed.and_then(|matches| Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command)));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(answer) => {
            return tell(&answer);
        }
    };
    let result = match cli.command {
        Command::Generate(arguments) => run::generate(*arguments, registry),
        Command::Score(arguments) => score::score(*arguments, registry),
        Command::Bench(arguments) => bench::bench(&arguments, registry),
        Command::Devices(arguments) => devices::devices(&arguments),
        Command::Eval(arguments) => eval::eval(&arguments),
        Command::Inspect(arguments) => inspect::inspect(&arguments),
        Command::Plan(arguments) => plan::plan(&arguments, registry),
        Command::Pull(arguments) => pull::pull(&arguments),
        Command::Tokenize(arguments) => tokenize::tokenize(arguments),
        Command::Completions(arguments) => completions::completions(&arguments, registry),
        Command::Man(arguments) => man::man(&arguments, registry),
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

/// The reader of records on bytes instead of a file, for the fuzz targets and tests.
#[cfg(feature = "testing")]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_tells_results_from_wrong_usage() {
        let code = |arguments: &[&str]| code(arguments.iter().map(Into::into).collect(), &Registry::default());
        assert_eq!(code(&["elgen", "--version"]), 0);
        assert_eq!(code(&["elgen", "generate", "--model"]), 2);
    }
}
