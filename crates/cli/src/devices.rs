//! `elgen devices`: the adapters that models can run on.

use std::fmt::Write;

use elgen_engine::{ATTEND_FLOPS, DeviceReport, LINEAR_FLOPS, MeasuredClass, best_device, measure_device};
use serde::Serialize;

use crate::{
    error::{CliError, name_device},
    flags::{DevicesArgs, ReportFormat},
    pretty_json, print_report,
    report::{bytes, steadiness},
};

/// Runs `elgen devices`; returns the exit code.
pub(crate) fn devices(arguments: &DevicesArgs) -> Result<u8, CliError> {
    let found = elgen_engine::devices();
    if found.is_empty() {
        // Says why, as every command does that needs one.
        return Err(best_device(None).map_or_else(CliError::from, |_| CliError::Failed("no adapter".to_owned())));
    }
    if arguments.measure {
        return measure(arguments, found);
    }
    match arguments.format {
        ReportFormat::Json => print_report(&pretty_json(&found)?),
        ReportFormat::Text => print_report(&table(&found)),
    }
}

/// An adapter and what it was measured at.
#[derive(Serialize)]
struct Measured<'a> {
    #[serde(flatten)]
    device: &'a DeviceReport,
    classes: Vec<MeasuredClass>,
}

/// `elgen devices --measure`.
fn measure(arguments: &DevicesArgs, found: Vec<DeviceReport>) -> Result<u8, CliError> {
    let chosen = match &arguments.device {
        None => found,
        Some(selector) => vec![best_device(Some(selector)).map_err(name_device)?],
    };
    let mut all = Vec::new();
    for device in &chosen {
        all.push(Measured { device, classes: measure_device(&device.index.to_string())? });
    }
    match arguments.format {
        ReportFormat::Json => print_report(&pretty_json(&all)?),
        ReportFormat::Text => {
            let text = all.iter().map(|m| table(std::slice::from_ref(m.device)) + &rates(&m.classes));
            print_report(&text.collect::<String>())
        }
    }
}

/// What an adapter was measured at, as lines of its entry.
fn rates(classes: &[MeasuredClass]) -> String {
    let mut text = String::new();
    for MeasuredClass { dtype, measurement, class } in classes {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "   {dtype:<10} memory {:.1} GB/s, multiply-adds {:.1} GFLOP/s, dispatch {:.1} us, submission {:.0} us",
            class.bandwidth / 1e9,
            class.alu_flops / 1e9,
            class.dispatch_seconds * 1e6,
            class.submission_seconds * 1e6
        );
        let _ = writeln!(text, "              {}", steadiness(measurement));
        if let Some(matrices) = class.matrix_flops {
            let _ = writeln!(text, "              matrices (f16 x f16 -> f32) {:.1} TFLOP/s", matrices / 1e12);
        }
        for (name, curve, flops) in [
            ("weights", &class.linear, LINEAR_FLOPS),
            ("mha self", &class.mha_self, ATTEND_FLOPS),
            ("mha cross", &class.mha_cross, ATTEND_FLOPS),
            ("el self", &class.el_self, ATTEND_FLOPS),
            ("el cross", &class.el_cross, ATTEND_FLOPS),
        ] {
            let rate = |(rows, seconds): &(f64, f64)| format!("{:.2} at {rows} rows", flops * rows / seconds / 1e9);
            let points: Vec<String> = curve.points().iter().map(rate).collect();
            let _ = writeln!(text, "   {:<10} {name}: {} GFLOP/s", "", points.join(", "));
        }
    }
    text
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

#[cfg(test)]
mod tests {
    use elgen_engine::{Curve, DeviceClass, Measurement};

    use super::*;

    #[test]
    fn rates_are_told_in_lines() {
        let curve = || Curve::new(vec![(1.0, 1e-9), (4.0, 2e-9)]);
        let class = DeviceClass {
            bandwidth: 2e10,
            alu_flops: 3e11,
            matrix_flops: Some(4e12),
            linear: curve(),
            mha_self: curve(),
            mha_cross: curve(),
            el_self: curve(),
            el_cross: curve(),
            ..DeviceClass::default()
        };
        let measurement =
            Measurement { measured_at: 0, rounds: 2, seconds: 1.0, scatter: 0.02, others: None, is_new: true };
        let text = rates(&[MeasuredClass { dtype: "f16", measurement, class }]);
        for part in [
            "f16 ",
            "memory 20.0 GB/s",
            "numbers within 2 % in 2 rounds\n",
            "4.0 TFLOP/s",
            "el cross: 4.00 at 1 rows, 8.00 at 4 rows GFLOP/s",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
