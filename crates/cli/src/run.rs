//! `elgen generate`: settles what is to be done, loads the model, opens the output, and runs all records.

use elgen_engine::Registry;

use crate::{console::Console, error::CliError, flags::GenerateArgs, report};

mod agreement;
mod expect;
mod looks;
mod named;
mod needs;
mod plan;
mod records;
mod target;

#[cfg(test)]
pub(crate) use looks::check_alignment;
use plan::{Checked, Plan};
use records::Run;
use target::Target;

/// Runs `elgen generate`; returns the exit code.
pub(crate) fn generate(arguments: GenerateArgs, registry: &Registry) -> Result<u8, CliError> {
    let console = Console::new(arguments.report.quiet == Some(true));
    let names_device = arguments.engine.names_device();
    let mut plan = match Plan::check(arguments, registry, &console)? {
        Checked::Run(plan) => plan,
        Checked::Ended(code) => return Ok(code),
    };
    let mut session = plan.load(&console)?;
    let loaded = session.metrics();
    report::tell_unsteady(&loaded, &console);
    if loaded.software_adapter && !names_device {
        console.warning(&format!("no hardware adapter: running on the software adapter {}", loaded.device));
    }
    let Plan { work, mut input, output, reports, .. } = *plan;
    if input.reader.waits_for_terminal() {
        console.note("reading texts from the terminal, a line each; Ctrl-D ends them");
    }
    let target = Target::open(output, &mut input, &loaded, &console)?;
    Run::new(&work, input, target, reports, console).all(&mut session)
}
