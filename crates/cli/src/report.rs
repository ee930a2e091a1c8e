//! Statistics for people and for programs.

use std::{
    fmt::Write,
    io::{self, IsTerminal},
    time::{SystemTime, UNIX_EPOCH},
};

use elgen_engine::{AttentionKinds, Measurement, Metrics};
use elgen_tensor::Bytes;

use crate::{console::Console, error::CliError, pretty_json};

/// The counters as one JSON object.
pub(crate) fn json(metrics: &Metrics) -> Result<String, CliError> {
    pretty_json(metrics)
}

/// The counters as a table; `failed` is the number of failed records.
pub(crate) fn table(metrics: &Metrics, failed: u64) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<17} {value}");
    };
    let seconds = &metrics.seconds;
    let step = &metrics.per_step;
    let peak = &metrics.peak_bytes;
    let cache = &metrics.cache_bytes;
    row("device", metrics.device.clone());
    row("driver", metrics.driver.clone());
    if metrics.software_adapter {
        row("", "software adapter: only ratios, counts and bytes mean something".to_owned());
    }
    row("storage", format!("weights {}, cache {}", metrics.weights, metrics.cache));
    row("attention", attention(&metrics.attention));
    if let Some(plan) = &metrics.attention.plan {
        row("  self", plan.self_reason.clone());
        plan.cross_reason.iter().for_each(|reason| row("  cross", reason.clone()));
        plan.measurement.iter().for_each(|measurement| row("", measured(measurement, now())));
    }
    row("inputs", format!("{} ({} cut, {failed} failed)", metrics.inputs, metrics.truncated));
    row("prompt tokens", metrics.prompt_tokens.to_string());
    row("generated tokens", metrics.generated_tokens.to_string());
    row(
        "seconds",
        format!(
            "{:.3} (load {:.3}, compile {:.3}, encode {:.3}, decode {:.3})",
            seconds.total, seconds.load, seconds.compile, seconds.encode, seconds.decode
        ),
    );
    row("tokens per second", format!("{:.1}", metrics.tokens_per_second));
    row("first token", format!("{:.1} ms", metrics.time_to_first_token_ms));
    row("decode steps", metrics.steps.to_string());
    row(
        "per step",
        format!(
            "{:.1} dispatches, {:.1} submissions, {:.1} uploads, {:.1} host waits, {:.1} allocations, {:.1} bytes read back",
            step.dispatches, step.submissions, step.uploads, step.host_waits, step.allocations, step.readback_bytes
        ),
    );
    row("per layer", format!("{:.1} dispatches per decoder layer and step", metrics.dispatches_per_decoder_layer));
    row(
        "peak memory",
        format!(
            "{} (weights {}, cache {}, activations {}, staging {})",
            bytes(peak.total),
            bytes(peak.weights),
            bytes(peak.cache),
            bytes(peak.activations),
            bytes(peak.staging)
        ),
    );
    row(
        "attention caches",
        format!(
            "{} (self {}, cross {}) and {} of slack and tables",
            bytes(cache.self_.saturating_add(cache.cross)),
            bytes(cache.self_),
            bytes(cache.cross),
            bytes(metrics.cache_overhead_bytes)
        ),
    );
    text
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// When a device was measured, how well, and how to do it again.
pub(crate) fn measured(measurement: &Measurement, now: u64) -> String {
    let seconds = now.saturating_sub(measurement.measured_at);
    let units = [(86400, "day"), (3600, "hour"), (60, "minute")];
    let found = units.into_iter().find(|(unit, _)| seconds >= *unit);
    let age = found.map_or_else(
        || "just now".to_owned(),
        |(unit, name)| {
            let count = seconds / unit;
            format!("{count} {name}{} ago", if count == 1 { "" } else { "s" })
        },
    );
    format!("device measured {age}, {}; `elgen devices --measure` measures anew", steadiness(measurement))
}

/// How well a device is known.
pub(crate) fn steadiness(measurement: &Measurement) -> String {
    let busy = measurement.others.filter(|_| !measurement.is_steady());
    let busy = busy.map_or_else(String::new, |others| format!(", other programs took {:.0} %", others * 100.0));
    let scatter = measurement.scatter * 100.0;
    let rounds = if measurement.rounds == 1 { "" } else { "s" };
    format!("numbers within {scatter:.0} % in {} round{rounds}{busy}", measurement.rounds)
}

/// Tells whoever sits at a terminal once, when it happens, that a device was measured while the machine was busy. `--stats` always tells.
pub(crate) fn tell_unsteady(metrics: &Metrics, console: &Console) {
    if !io::stderr().is_terminal() {
        return;
    }
    let measurement = metrics.attention.plan.as_ref().and_then(|plan| plan.measurement.as_ref());
    if let Some(measurement) = measurement.filter(|measurement| measurement.is_new && !measurement.is_steady()) {
        console.warning(&format!(
            "the machine was busy while {} was measured ({}): --attention auto may not pick what is fastest; \
             `elgen devices --measure` measures it anew",
            metrics.device,
            steadiness(measurement)
        ));
    }
}

fn attention(kinds: &AttentionKinds) -> String {
    let mut parts = Vec::new();
    if let Some(kind) = &kinds.encoder {
        parts.push(format!("encoder {kind}"));
    }
    parts.push(format!("self {}", kinds.self_));
    if let Some(kind) = &kinds.cross {
        parts.push(format!("cross {kind}"));
    }
    parts.join(", ")
}

/// A size for people: `12.6 MiB`.
pub(crate) fn bytes(size: u64) -> String {
    Bytes(size).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measurements_have_an_age_and_say_how_steady_they_are() {
        let found = Measurement {
            measured_at: 1_000_000,
            rounds: 3,
            seconds: 2.0,
            scatter: 0.042,
            others: Some(0.1),
            is_new: false,
        };
        let text = measured(&found, 1_000_010);
        assert!(
            text.starts_with("device measured just now, numbers within 4 % in 3 rounds; `elgen devices --measure`"),
            "{text}"
        );
        assert!(measured(&found, 1_000_000 + 119).contains("measured 1 minute ago"));
        assert!(measured(&found, 1_000_000 + 3 * 86400).contains("measured 3 days ago"));
        assert!(measured(&found, 0).contains("just now"), "a clock that was set back");
        let busy = Measurement { others: Some(0.6), rounds: 1, ..found };
        assert_eq!(steadiness(&busy), "numbers within 4 % in 1 round, other programs took 60 %");
    }

    #[test]
    fn the_table_says_what_a_software_adapter_is_good_for() {
        let mut metrics = Metrics::default();
        (metrics.inputs, metrics.truncated, metrics.software_adapter) = (7, 2, true);
        metrics.attention.self_ = "el".to_owned();
        let text = table(&metrics, 1);
        assert!(text.contains("inputs            7 (2 cut, 1 failed)\n"), "{text}");
        assert!(text.contains("software adapter: only ratios"), "{text}");
        assert!(text.contains("attention         self el\n"), "{text}");
        metrics.software_adapter = false;
        assert!(!table(&metrics, 0).contains("software"));
    }

    #[test]
    fn json_has_the_documented_fields() {
        let value: serde_json::Value = serde_json::from_str(&json(&Metrics::default()).unwrap()).unwrap();
        for pointer in [
            "/device",
            "/driver",
            "/weights",
            "/cache",
            "/software_adapter",
            "/attention/encoder",
            "/attention/self",
            "/attention/cross",
            "/attention/plan",
            "/inputs",
            "/truncated",
            "/prompt_tokens",
            "/generated_tokens",
            "/seconds/load",
            "/seconds/compile",
            "/seconds/encode",
            "/seconds/decode",
            "/seconds/total",
            "/tokens_per_second",
            "/time_to_first_token_ms",
            "/steps",
            "/per_step/dispatches",
            "/per_step/host_waits",
            "/per_step/readback_bytes",
            "/per_step/allocations",
            "/per_step/submissions",
            "/per_step/uploads",
            "/dispatches_per_decoder_layer",
            "/peak_bytes/weights",
            "/peak_bytes/cache",
            "/peak_bytes/activations",
            "/peak_bytes/staging",
            "/peak_bytes/total",
            "/cache_bytes/self",
            "/cache_bytes/cross",
        ] {
            assert!(value.pointer(pointer).is_some(), "{pointer}");
        }
    }
}
