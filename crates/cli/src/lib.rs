//! The `elgen` command line: `elgen generate`, `elgen score`, `elgen eval`, `elgen tokenize`, `elgen plan`, `elgen bench`, `elgen devices`,
//! `elgen inspect` and `elgen pull`.
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

use clap::Parser;

mod asked;
mod bench;
mod console;
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
mod model;
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
mod survey;
mod tokenize;

use console::Console;
use error::{CliError, one_line};
use flags::{Cli, Command};
pub use panics::report_panics;

/// Runs the command line given by `arguments`, the program's name first, and returns the exit code: 0 all done,
/// 1 something failed, 2 wrong usage.
pub fn run<I, T>(arguments: I) -> u8
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(answer) => {
            // Help and version are such answers too; a closed pipe is no reason to complain.
            let _ = answer.print();
            return u8::try_from(answer.exit_code()).unwrap_or(2);
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
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            Console::new(true).error(&one_line(&error));
            error.exit_code()
        }
    }
}

/// The reader of records on bytes instead of a file, for the fuzz targets and tests. Not part of the interface.
#[doc(hidden)]
pub fn fuzz_jsonl(bytes: &[u8]) -> usize {
    input::read_all(bytes)
}

/// Writes a report to stdout; a closed pipe ends quietly.
fn print_report(text: &str) -> Result<u8, CliError> {
    use std::io::{self, Write};

    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(source) if source.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::File { action: "write", path: "<stdout>".into(), source })
        }
        _ => Ok(0),
    }
}

/// A value as indented JSON.
fn pretty_json(value: &impl serde::Serialize) -> Result<String, CliError> {
    let mut text = serde_json::to_string_pretty(value).map_err(|error| CliError::Failed(error.to_string()))?;
    text.push('\n');
    Ok(text)
}
