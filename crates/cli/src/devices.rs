//! `elgen devices`: the adapters that models can run on.

use std::fmt::Write;

use elgen_engine::DeviceReport;

use crate::{
    error::CliError,
    flags::{DevicesArgs, ReportFormat},
    pretty_json, print_report,
    report::bytes,
};

const NO_DRIVER: &str = "no Vulkan driver found: install your GPU's driver, or the software one \
     (Debian and Ubuntu: `apt install mesa-vulkan-drivers`)";

/// Runs `elgen devices`; returns the exit code.
pub(crate) fn devices(arguments: &DevicesArgs) -> Result<u8, CliError> {
    let found = elgen_engine::devices();
    if found.is_empty() {
        return Err(CliError::Failed(NO_DRIVER.to_owned()));
    }
    match arguments.format {
        ReportFormat::Json => print_report(&pretty_json(&found)?),
        ReportFormat::Text => print_report(&table(&found)),
    }
}

fn table(found: &[DeviceReport]) -> String {
    let mut text = String::new();
    for device in found {
        let kind = if device.software { "software" } else { device.device_type.as_str() };
        let memory = match (device.memory_total, device.memory_free) {
            (Some(total), Some(free)) => format!("{} of {} free", bytes(free), bytes(total)),
            (Some(total), None) => bytes(total),
            (None, Some(free)) => format!("{} free", bytes(free)),
            (None, None) => "unknown".to_owned(),
        };
        let (smallest, largest) = device.subgroup_sizes;
        let features = if device.features.is_empty() { "none".to_owned() } else { device.features.join(", ") };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}  {} ({kind}, {})", device.index, device.name, device.backend);
        let _ = writeln!(text, "   driver     {}", device.driver);
        let _ = writeln!(text, "   memory     {memory}");
        let _ = writeln!(
            text,
            "   largest    binding {}, buffer {}",
            bytes(device.max_binding_bytes),
            bytes(device.max_buffer_bytes)
        );
        let _ = writeln!(text, "   subgroups  {smallest} to {largest}");
        let _ = writeln!(text, "   features   {features}");
        if !device.matrix_tiles.is_empty() {
            let _ = writeln!(text, "   matrices   {}", device.matrix_tiles.join(", "));
        }
    }
    text
}
