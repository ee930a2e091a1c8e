//! What ends a command early, and how it is told to the user.

use std::{error::Error, io, path::PathBuf};

use elgen_engine::EngineError;
use elgen_models::ModelError;
use elgen_tensor::TensorError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The command line contradicts itself or the model.
    #[error("{0}")]
    Usage(String),
    /// A file could not be read, written or found.
    #[error("cannot {action} {}", .path.display())]
    File {
        /// What was tried: `read`, `write`, …
        action: &'static str,
        /// The file as the user named it.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Loading or running the model failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Anything else, in words.
    #[error("{0}")]
    Failed(String),
}

impl CliError {
    /// The exit code that this error stands for.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            CliError::Usage(_) => 2,
            CliError::File { .. } | CliError::Engine(_) | CliError::Failed(_) => 1,
        }
    }
}

/// The error of who looks for an adapter, with the flag that asked for one.
pub(crate) fn name_device(error: EngineError) -> CliError {
    match &error {
        EngineError::Tensor(TensorError::NoAdapter { selector: Some(_), .. }) => {
            CliError::Failed(format!("--device: {}", one_line(&error)))
        }
        _ => error.into(),
    }
}

/// A model that cannot have the attention kind that was typed is no failure of the model.
pub(crate) fn load_error(error: EngineError) -> CliError {
    match error {
        EngineError::Model(ModelError::KindNeedsEncoder { .. }) => CliError::Usage(format!("--attention: {error}")),
        other => name_device(other),
    }
}

/// The error and its causes on one line.
pub(crate) fn one_line(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        // Some errors already print their cause.
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = inner.source();
    }
    let named = ["try dtype f32", "with dtype f32"].into_iter().fold(line, |line, advice| {
        // What the library calls an option is a flag here.
        line.replace(advice, &advice.replace("dtype", "--dtype"))
    });
    single_line(&named)
}

/// Joins the lines of a message, so that one failure is one line of the log. Names and texts in it come from files that may
/// hold anything: what would control a terminal is written in letters.
pub(crate) fn single_line(text: &str) -> String {
    if !text.contains(is_unprintable) {
        return text.to_owned();
    }
    printable(&text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" "))
}

/// A text with control characters, and those that turn the direction of writing, as Rust writes them: `\u{1b}`.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unprintable(c) { out.extend(c.escape_debug()) } else { out.push(c) }
    }
    out
}

/// [`printable`] for a text of several lines.
pub(crate) fn printable_lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => out.push(c),
            c if is_unprintable(c) => out.extend(c.escape_debug()),
            c => out.push(c),
        }
    }
    out
}

fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_joined_once() {
        let source = io::Error::other("disk on fire");
        let error = CliError::File { action: "read", path: "a.txt".into(), source };
        assert_eq!(one_line(&error), "cannot read a.txt: disk on fire");
        assert_eq!(one_line(&CliError::Failed("a: b\n  caused by c\n".into())), "a: b caused by c");
    }

    #[test]
    fn what_files_hold_does_not_control_a_terminal() {
        let error = CliError::Failed("a\u{1b}]0;b\u{7} \u{9b}31m\0 \u{202e}c\rd\te\u{7f}".into());
        assert_eq!(one_line(&error), "a\\u{1b}]0;b\\u{7} \\u{9b}31m\\0 \\u{202e}c\\rd\\te\\u{7f}");
        assert_eq!(printable_lines("é\u{1b}\n\tß\r\n"), "é\\u{1b}\n\tß\\r\n");
        let file = CliError::File { action: "read", path: "x\n\u{1b}y".into(), source: io::Error::other("gone") };
        assert_eq!(one_line(&file), "cannot read x \\u{1b}y: gone");
    }

    #[test]
    fn usage_is_two_and_the_rest_is_one() {
        assert_eq!(CliError::Usage(String::new()).exit_code(), 2);
        assert_eq!(CliError::Failed(String::new()).exit_code(), 1);
    }
}
