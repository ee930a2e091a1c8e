//! `elgen completions`: what a shell offers behind `elgen`, made from the flags.

use elgen_engine::Registry;

use crate::{
    error::CliError,
    flags::{CompletionsArgs, command},
    print_report,
};

/// Runs `elgen completions`; returns the exit code.
pub(crate) fn completions(arguments: &CompletionsArgs, registry: &Registry) -> Result<u8, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command(registry), "elgen", &mut script);
    match String::from_utf8(script) {
        Ok(script) => print_report(&script),
        Err(error) => Err(CliError::Failed(format!("the completions are not UTF-8: {error}"))),
    }
}
