//! `elgen man`: the manual page, made from the flags.

use std::io::{self, Write};

use clap::Command;
use clap_mangen::Man;
use elgen_engine::Registry;

use crate::{
    error::CliError,
    flags::{self, ManArgs},
    print_report,
    suggest::did_you_mean,
};

/// Runs `elgen man`; returns the exit code.
pub(crate) fn man(arguments: &ManArgs, registry: &Registry) -> Result<u8, CliError> {
    let page = page(command(arguments.command.as_deref(), registry)?);
    let page = page.map_err(|error| CliError::Failed(format!("the page cannot be made: {error}")))?;
    print_report(&String::from_utf8_lossy(&page))
}

/// `elgen`, or one of its commands with its flags.
fn command(name: Option<&str>, registry: &Registry) -> Result<Command, CliError> {
    let mut elgen = flags::command(registry);
    // Makes the names of commands (`elgen-generate`) and hands them the global flags.
    elgen.build();
    let Some(name) = name else { return Ok(elgen) };
    match elgen.find_subcommand(name) {
        Some(found) => Ok(found.clone()),
        None => {
            let known: Vec<&str> = elgen.get_subcommands().map(Command::get_name).collect();
            let hint = did_you_mean(name, known.iter().copied());
            Err(CliError::Usage(format!("{name}: no such command{hint}; there are {}", known.join(", "))))
        }
    }
}

/// The page in roff. What `--help` ends with is laid out with blanks, which roff would run together; it is kept as it stands.
fn page(mut command: Command) -> io::Result<Vec<u8>> {
    let end = command.get_after_long_help().or(command.get_after_help()).map(ToString::to_string);
    let has_commands = command.has_subcommands();
    let usage = command.render_usage().to_string();
    let version = env!("CARGO_PKG_VERSION");
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let man = Man::new(command.version(version)).title(name).section("1").source(format!("elgen {version}"));
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    page.write_all(b".SH SYNOPSIS\n.nf\n")?;
    for line in usage.trim_start_matches("Usage:").lines() {
        writeln!(page, "{}", roff_line(line.trim()))?;
    }
    page.write_all(b".fi\n")?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if has_commands {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(end) = end {
        page.write_all(b".SH NOTES\n.nf\n")?;
        for line in end.lines() {
            writeln!(page, "{}", roff_line(line))?;
        }
        page.write_all(b".fi\n")?;
    }
    Ok(begun_by_title(&String::from_utf8_lossy(&page)).into_bytes())
}

/// What every section of clap_mangen begins with: how an apostrophe is written.
const QUOTES: &str = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";

/// The page with its title first, as readers of man pages expect it, and the definition of quotes once behind.
fn begun_by_title(page: &str) -> String {
    let page = page.replace(QUOTES, "");
    match page.split_once('\n') {
        Some((title, rest)) => format!("{title}\n{QUOTES}{rest}"),
        None => page,
    }
}

/// A line as roff prints it: no control line, no escapes, hyphens that can be copied.
fn roff_line(line: &str) -> String {
    let text = line.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: Option<&str>) -> String {
        String::from_utf8(page(command(name, &Registry::default()).unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn every_command_has_a_page_with_its_flags() {
        let all = text(None);
        assert!(all.starts_with(".TH elgen 1 ") && all.matches(QUOTES).count() == 1, "{all}");
        let mut elgen = flags::command(&Registry::default());
        elgen.build();
        for found in elgen.get_subcommands().filter(|found| found.get_name() != "help") {
            let name = found.get_name();
            assert!(all.contains(&format!("elgen\\-{name}(1)")), "{name}: {all}");
            let own = text(Some(name));
            assert!(own.starts_with(&format!(".TH elgen-{name} 1 ")), "{own}");
            assert!(own.contains(&format!(".SH SYNOPSIS\n.nf\nelgen {name} ")), "{own}");
            let shown = found.get_arguments().filter(|flag| !flag.is_hide_set());
            for flag in shown.filter_map(|flag| flag.get_long()) {
                assert!(own.contains(&format!("\\-\\-{}", flag.replace('-', "\\-"))), "{name} --{flag}");
            }
        }
    }

    #[test]
    fn formats_keep_their_lines() {
        let own = text(Some("generate"));
        assert!(own.contains(".SH NOTES\n.nf\n") && own.ends_with(".fi\n"), "{own}");
        assert!(own.contains("\n2 wrong usage. A closed output pipe"), "{own}");
        assert!(own.contains("are written \\en, \\er, \\e\\e."), "{own}");
    }

    #[test]
    fn lines_that_roff_would_take_for_its_own() {
        assert_eq!(roff_line(".fi"), "\\&.fi");
        assert_eq!(roff_line("'x"), "\\&'x");
        assert_eq!(roff_line("a\\n --b"), "a\\en \\-\\-b");
    }

    #[test]
    fn a_command_that_is_not_there() {
        let error = command(Some("generat"), &Registry::default()).unwrap_err().to_string();
        assert!(
            error.starts_with("generat: no such command (did you mean generate?); there are generate, "),
            "{error}"
        );
    }
}
