//! Rows as tables: aligned, Markdown, comma-separated.

use std::fmt::Write;

use elgen_engine::bench::{Peaks, RunCost, Spread};

use super::report::{Measured, Report, Status};
use crate::flags::BenchFormat;

const MIB: f64 = 1024.0 * 1024.0;

/// What tells rows apart, in front of what was measured.
const KEY_COLUMNS: [&str; 9] = ["preset", "model", "attention", "dtype", "beams", "batch", "source", "new", "ours"];

/// Measured columns for people.
const COLUMNS: [&str; 14] = [
    "samples/s",
    "tokens/s",
    "encode ms",
    "first ms",
    "step ms",
    "weights",
    "cache",
    "activ.",
    "staging",
    "peak MiB",
    "disp/step",
    "GB/s",
    "TFLOP/s",
    "hash",
];

/// Measured columns for programs.
const RAW_COLUMNS: [&str; 22] = [
    "status",
    "repetitions",
    "samples_per_second",
    "samples_per_second_deviation",
    "tokens_per_second",
    "tokens_per_second_deviation",
    "encode_ms",
    "first_token_ms",
    "step_ms",
    "steps",
    "weights_bytes",
    "cache_bytes",
    "activations_bytes",
    "staging_bytes",
    "peak_bytes",
    "dispatches_per_step",
    "gigabytes_per_second",
    "teraflops",
    "peak_gigabytes_per_second",
    "peak_teraflops",
    "output_hash",
    "message",
];

/// The report in a format that is no JSON.
pub(super) fn render(report: &Report, format: BenchFormat) -> String {
    match format {
        BenchFormat::Csv => csv(report),
        BenchFormat::Md => {
            let mut text = String::new();
            for line in header(report) {
                let _ = writeln!(text, "- {line}");
            }
            let (names, rows) = people(report);
            let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
            let _ = write!(text, "\n{}", line(&names));
            text.push_str(&line(&names.iter().map(|_| "---".to_owned()).collect::<Vec<_>>()));
            for row in rows {
                text.push_str(&line(&row.iter().map(|cell| cell.replace('|', "\\|")).collect::<Vec<_>>()));
            }
            for line in footer(report) {
                let _ = write!(text, "\n- {line}");
            }
            if !report.ours.is_empty() {
                text.push('\n');
            }
            text
        }
        BenchFormat::Table | BenchFormat::Json => {
            let mut text = header(report).join("\n") + "\n\n";
            let (names, rows) = people(report);
            text.push_str(&aligned(&names, &rows));
            for line in footer(report) {
                let _ = writeln!(text, "{line}");
            }
            text
        }
    }
}

fn header(report: &Report) -> Vec<String> {
    let place = &report.place;
    let commit = place.commit.as_ref().map_or_else(String::new, |commit| format!(" ({commit})"));
    let mut lines = vec![
        format!("device: {}", place.device),
        format!("driver: {}", place.driver),
        format!("elgen: {}{commit}", place.elgen),
        format!("date: {}", report.date),
        format!("command: {}", report.command.join(" ")),
    ];
    if place.software_adapter {
        lines.push("software adapter: only ratios, counts and bytes mean something".into());
    }
    if !report.complete {
        lines.push(format!("not complete: {} of {} rows", report.rows.len(), report.planned));
    }
    lines
}

fn footer(report: &Report) -> Vec<String> {
    report.ours.iter().map(|ours| format!("ours, {} of {}: {}", ours.column, ours.preset, ours.reason)).collect()
}

fn key_cells(row: &Measured) -> Vec<String> {
    let key = &row.key;
    let batch = row.cost.as_ref().map(|cost| cost.batch.to_string());
    let source = match (&key.lengths_from, key.source_length) {
        (None, Some(length)) => length.to_string(),
        (None, None) => String::new(),
        (Some(_), Some(most)) => format!("file, {most} at most"),
        (Some(_), None) => "file".to_owned(),
    };
    vec![
        key.preset.clone().unwrap_or_default(),
        key.model.clone(),
        key.attention.clone(),
        key.dtype.clone(),
        key.num_beams.to_string(),
        match (key.batch_asked.as_str(), batch) {
            ("max", Some(batch)) => format!("max {batch}"),
            (asked, _) => asked.to_owned(),
        },
        source,
        key.new_tokens.to_string(),
        key.ours.join(" "),
    ]
}

/// Names and rows for people.
fn people(report: &Report) -> (Vec<String>, Vec<Vec<String>>) {
    let names: Vec<String> =
        KEY_COLUMNS[..8].iter().chain(&COLUMNS).chain(&KEY_COLUMNS[8..]).map(|name| (*name).to_owned()).collect();
    let rows = report.rows.iter().map(|row| {
        let mut cells = key_cells(row);
        let ours = cells.pop().unwrap_or_default();
        if let (Some(cost), "auto") = (&row.cost, row.key.attention.as_str()) {
            cells[2] = format!("auto: {}", picked(cost));
        }
        cells.extend(match &row.cost {
            Some(cost) => costs(cost, row.peaks.as_ref()),
            None => {
                let mut cells = vec![String::new(); COLUMNS.len()];
                cells[0] = match row.status {
                    Status::Oom => "OOM".to_owned(),
                    _ => format!("error: {}", row.message.as_deref().unwrap_or("")),
                };
                cells
            }
        });
        cells.push(ours);
        cells
    });
    let rows: Vec<Vec<String>> = rows.collect();
    // Columns that say nothing are left out: those of presets where there is none.
    let kept: Vec<usize> = (0..names.len())
        .filter(|c| !["preset", "ours"].contains(&names[*c].as_str()) || rows.iter().any(|row| !row[*c].is_empty()))
        .collect();
    let keep = |cells: &[String]| kept.iter().map(|c| cells[*c].clone()).collect::<Vec<_>>();
    (keep(&names), rows.iter().map(|row| keep(row)).collect())
}

/// "self el, cross mha"
fn picked(cost: &RunCost) -> String {
    let cross = cost.cross_attention.as_ref().map_or_else(String::new, |kind| format!(", cross {kind}"));
    format!("self {}{cross}", cost.self_attention)
}

fn costs(cost: &RunCost, peaks: Option<&Peaks>) -> Vec<String> {
    let spread = |spread: Spread| format!("{} ± {}", number(spread.mean), number(spread.deviation));
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / MIB);
    let peak = &cost.peak_bytes;
    vec![
        spread(cost.samples_per_second),
        spread(cost.tokens_per_second),
        number(cost.encode_ms),
        number(cost.first_token_ms),
        number(cost.step_ms),
        mib(peak.weights),
        mib(peak.cache),
        mib(peak.activations),
        mib(peak.staging),
        mib(peak.total),
        format!("{:.0}", cost.dispatches_per_step),
        of(cost.gigabytes_per_second, peaks.map(|peaks| peaks.gigabytes_per_second)),
        of(cost.teraflops, peaks.map(|peaks| peaks.teraflops)),
        cost.output_hash.clone(),
    ]
}

/// A rate beside the device's peak.
fn of(rate: f64, peak: Option<f64>) -> String {
    peak.map_or_else(|| number(rate), |peak| format!("{} of {}", number(rate), number(peak)))
}

/// Three significant digits at least.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || size == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        size if size >= 0.0005 => format!("{value:.3}"),
        _ => format!("{value:.1e}"),
    }
}

fn aligned(names: &[String], rows: &[Vec<String>]) -> String {
    let width =
        |c: usize| rows.iter().map(|row| row[c].chars().count()).chain([names[c].chars().count()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..names.len()).map(width).collect();
    let mut text = String::new();
    for cells in std::iter::once(names).chain(rows.iter().map(Vec::as_slice)) {
        let line: Vec<String> = cells
            .iter()
            .zip(names)
            .zip(&widths)
            .map(|((cell, name), &width)| match name.as_str() {
                "preset" | "model" | "attention" | "dtype" | "ours" => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            })
            .collect();
        let _ = writeln!(text, "{}", line.join("  ").trim_end());
    }
    text
}

fn csv(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |cells: Vec<String>| {
        let quoted: Vec<String> = cells.iter().map(|cell| quote(cell)).collect();
        let _ = writeln!(text, "{}", quoted.join(","));
    };
    let constant = ["device", "driver", "software_adapter", "elgen", "commit", "date"];
    line(
        KEY_COLUMNS
            .iter()
            .chain(&["kinds"])
            .chain(&RAW_COLUMNS)
            .chain(&constant)
            .map(|name| (*name).to_owned())
            .collect(),
    );
    for row in &report.rows {
        let mut cells = key_cells(row);
        cells[5] = row.cost.as_ref().map_or_else(|| row.key.batch_asked.clone(), |cost| cost.batch.to_string());
        cells.push(row.cost.as_ref().map(picked).unwrap_or_default());
        let status = match row.status {
            Status::Ok => "ok",
            Status::Oom => "oom",
            Status::Error => "error",
        };
        cells.push(status.to_owned());
        match &row.cost {
            Some(cost) => cells.extend(raw(cost, row.peaks.as_ref())),
            None => cells.extend(vec![String::new(); RAW_COLUMNS.len() - 2]),
        }
        cells.push(row.message.clone().unwrap_or_default());
        let place = &report.place;
        cells.extend([
            place.device.clone(),
            place.driver.clone(),
            place.software_adapter.to_string(),
            place.elgen.clone(),
            place.commit.clone().unwrap_or_default(),
            report.date.clone(),
        ]);
        line(cells);
    }
    text
}

fn raw(cost: &RunCost, peaks: Option<&Peaks>) -> Vec<String> {
    let (samples, tokens, peak) = (cost.samples_per_second, cost.tokens_per_second, &cost.peak_bytes);
    vec![
        cost.repetitions.to_string(),
        samples.mean.to_string(),
        samples.deviation.to_string(),
        tokens.mean.to_string(),
        tokens.deviation.to_string(),
        cost.encode_ms.to_string(),
        cost.first_token_ms.to_string(),
        cost.step_ms.to_string(),
        cost.steps.to_string(),
        peak.weights.to_string(),
        peak.cache.to_string(),
        peak.activations.to_string(),
        peak.staging.to_string(),
        peak.total.to_string(),
        cost.dispatches_per_step.to_string(),
        cost.gigabytes_per_second.to_string(),
        cost.teraflops.to_string(),
        peaks.map_or_else(String::new, |peaks| peaks.gigabytes_per_second.to_string()),
        peaks.map_or_else(String::new, |peaks| peaks.teraflops.to_string()),
        cost.output_hash.clone(),
    ]
}

/// RFC 4180.
fn quote(cell: &str) -> String {
    if cell.contains([',', '"', '\n', '\r']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.to_owned() }
}
