//! Whether messages are coloured: `--color`, the terminal, and the variables that programs agree on.

use std::{
    ffi::{OsStr, OsString},
    io::{self, IsTerminal},
    sync::atomic::{AtomicU8, Ordering},
};

use clap::{ColorChoice, ValueEnum};

/// When messages and help are coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[repr(u8)]
pub(crate) enum ColorMode {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Everywhere
    Always,
    /// Nowhere
    Never,
}

impl ColorMode {
    /// clap's word for it.
    pub(crate) fn choice(self) -> ColorChoice {
        match self {
            Self::Auto => ColorChoice::Auto,
            Self::Always => ColorChoice::Always,
            Self::Never => ColorChoice::Never,
        }
    }
}

/// What the program was asked for; messages come from everywhere, threads of signals and panics included.
static MODE: AtomicU8 = AtomicU8::new(ColorMode::Auto as u8);

/// Colours messages from now on as asked.
pub(crate) fn set(mode: ColorMode) {
    MODE.store(mode as u8, Ordering::Relaxed);
}

/// The mode that a command line asks for. Its errors are coloured too, so it is looked for before it is parsed; what is wrong with it
/// is told by who parses it.
pub(crate) fn asked(arguments: &[OsString]) -> ColorMode {
    let mut mode = ColorMode::Auto;
    let mut arguments = arguments.iter().skip(1).take_while(|argument| *argument != "--");
    while let Some(argument) = arguments.next() {
        let Some(argument) = argument.to_str() else { continue };
        let value = match argument.strip_prefix("--color") {
            Some("") => arguments.next().and_then(|value| value.to_str()),
            Some(value) => value.strip_prefix('='),
            None => None,
        };
        mode = value.and_then(|value| ColorMode::from_str(value, false).ok()).unwrap_or(mode);
    }
    mode
}

/// Bold red, as clap's own errors have it.
const RED: &str = "\u{1b}[1m\u{1b}[31m";
/// Bold yellow.
const YELLOW: &str = "\u{1b}[1m\u{1b}[33m";
const PLAIN: &str = "\u{1b}[0m";

/// `error:`, as stderr shows it.
pub(crate) fn error_prefix() -> String {
    painted("error:", RED)
}

/// `warning:`, as stderr shows it.
pub(crate) fn warning_prefix() -> String {
    painted("warning:", YELLOW)
}

fn painted(word: &str, color: &str) -> String {
    let mode = match MODE.load(Ordering::Relaxed) {
        mode if mode == ColorMode::Always as u8 => ColorMode::Always,
        mode if mode == ColorMode::Never as u8 => ColorMode::Never,
        _ => ColorMode::Auto,
    };
    match paints(mode, io::stderr().is_terminal(), |name| std::env::var_os(name)) {
        true => format!("{color}{word}{PLAIN}"),
        false => word.to_owned(),
    }
}

/// The order in which clap's printer asks: `NO_COLOR`, `CLICOLOR_FORCE`, `CLICOLOR`, then the terminal.
fn paints(mode: ColorMode, terminal: bool, variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let off = |value: &OsString| value == OsStr::new("0");
    match mode {
        ColorMode::Always => true,
        ColorMode::Never => false,
        ColorMode::Auto if set("NO_COLOR").is_some() => false,
        ColorMode::Auto if set("CLICOLOR_FORCE").is_some_and(|value| !off(&value)) => true,
        ColorMode::Auto if set("CLICOLOR").as_ref().is_some_and(off) => false,
        ColorMode::Auto => terminal && set("TERM").is_some_and(|term| term != OsStr::new("dumb")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auto(terminal: bool, variables: &[(&str, &str)]) -> bool {
        let find = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        paints(ColorMode::Auto, terminal, find)
    }

    #[test]
    fn a_terminal_is_coloured_unless_something_speaks_against_it() {
        let term = ("TERM", "xterm");
        assert!(auto(true, &[term]));
        assert!(!auto(false, &[term]));
        assert!(!auto(true, &[]) && !auto(true, &[("TERM", "dumb")]));
        assert!(!auto(true, &[term, ("NO_COLOR", "1")]) && auto(true, &[term, ("NO_COLOR", "")]));
        assert!(!auto(true, &[term, ("CLICOLOR", "0")]));
        assert!(auto(false, &[("CLICOLOR_FORCE", "1")]) && !auto(false, &[("CLICOLOR_FORCE", "0")]));
        assert!(!auto(true, &[term, ("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]));
        assert!(paints(ColorMode::Always, false, |_| Some("1".into())));
        assert!(!paints(ColorMode::Never, true, |_| Some("1".into())));
    }

    #[test]
    fn the_flag_is_found_before_the_line_is_parsed() {
        let of = |line: &str| asked(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert_eq!(of("elgen devices"), ColorMode::Auto);
        assert_eq!(of("elgen --color always devices"), ColorMode::Always);
        assert_eq!(of("elgen devices --color=never"), ColorMode::Never);
        assert_eq!(of("elgen generate -- --color=never"), ColorMode::Auto);
        assert_eq!(of("elgen --color sometimes"), ColorMode::Auto);
        assert_eq!(of("elgen --color"), ColorMode::Auto);
        assert_eq!(of("elgen --colors=never"), ColorMode::Auto);
    }
}
