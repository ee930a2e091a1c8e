//! `elgen plan`: memory and largest batches of a model, from its config alone.

use std::{fmt::Write, path::Path};

use elgen_attention::{Kind, Kinds};
use elgen_engine::{
    BatchWorkload, Comparison, DtypeChoice, PlanRow, Registry, SessionOptions, best_device, compared, device_class,
};
use elgen_models::{ModelConfig, Outline};
use elgen_search::{GenerationConfig, GenerationOptions};
use serde::Serialize;

use crate::{
    builtin,
    console::{Console, tell_measurement},
    error::{CliError, name_device},
    files::{FileUses, write_whole},
    flags::{PlanArgs, PlanFormat, StorageFlag, flag, name_flags, set_names},
    model::resolve_config,
    plot::{Chart, Series},
    pretty_json, print_report,
    report::{bytes, measured, now},
};

/// Bytes of a binding where no device tells: what Vulkan drivers of GPUs allow and wgpu hands on.
const USUAL_BINDING: u64 = 2 << 30;

/// Source tokens of a model whose positions have no end.
const USUAL_SOURCE: usize = 1024;

/// The plan as a JSON object.
#[derive(Debug, Serialize)]
struct Report<'a> {
    model: &'static str,
    source_length: usize,
    prompt_length: usize,
    max_new_tokens: usize,
    rows_per_sentence: usize,
    /// That of both; null where they differ.
    dtype: Option<&'static str>,
    weights: &'static str,
    cache: &'static str,
    memory_limit: u64,
    max_binding_bytes: u64,
    device: Option<String>,
    batch_size: usize,
    kinds: &'a [PlanRow],
}

/// Where the limits come from.
struct Limits {
    memory: u64,
    binding: u64,
    device: Option<String>,
    /// Whether the device is a software adapter.
    software: bool,
}

/// Runs `elgen plan`; returns the exit code.
pub(crate) fn plan(arguments: &PlanArgs, registry: &Registry) -> Result<u8, CliError> {
    print_report(&text(arguments, registry)?)
}

/// The plan in the format that was asked for.
pub(crate) fn text(arguments: &PlanArgs, registry: &Registry) -> Result<String, CliError> {
    let mut uses = FileUses::default();
    let file = arguments.config.as_deref().filter(|name| !builtin::is_builtin(name));
    uses.reads("--config", file.map(Path::new));
    uses.writes("--plot", arguments.plot.as_deref());
    uses.results("", None);
    uses.check()?;
    let (model, options) = read(arguments, &mut uses)?;
    let outline = Outline::new(&model);
    let config = resolve(arguments, &options, &outline)?;
    let (source_length, prompt_length) = lengths(arguments, &outline, &config)?;
    let max_new_tokens = match config.lengths(prompt_length) {
        Ok(lengths) => lengths.max_length - prompt_length,
        Err(error) => return Err(refusal(arguments, &error.to_string())),
    };
    let limits = limits(arguments)?;
    let formats = formats(arguments).formats(limits.software, &model);
    let workload = BatchWorkload::new(&config, source_length, prompt_length, max_new_tokens);
    // A device that is consulted for its limits is also measured, unless it was before.
    let class = limits
        .device
        .is_some()
        .then(|| device_class(arguments.device.as_deref(), formats, tell_measurement))
        .transpose()?;
    let comparison = Comparison {
        model: &model,
        formats,
        max_binding_bytes: limits.binding,
        memory_limit: limits.memory,
        kinds: registry.kinds(),
        workload: &workload,
        class: class.as_ref(),
    };
    let rows = comparison.rows(arguments.batch_size);
    let report = Report {
        model: model.family().model_type,
        source_length: source_length.max(if outline.encoder.is_some() { 0 } else { prompt_length }),
        prompt_length,
        max_new_tokens,
        rows_per_sentence: config.rows_per_sentence(),
        dtype: Some(formats.cache.name()).filter(|name| *name == formats.weights.name()),
        weights: formats.weights.name(),
        cache: formats.cache.name(),
        memory_limit: limits.memory,
        max_binding_bytes: limits.binding,
        device: limits.device,
        batch_size: arguments.batch_size,
        kinds: &rows,
    };
    if let Some(path) = &arguments.plot {
        let svg = chart(&comparison, &report).svg();
        write_whole(path, &svg)?;
    }
    match arguments.format {
        PlanFormat::Json => pretty_json(&report),
        PlanFormat::Table => Ok(table(&report)),
    }
}

/// The model and the generation options of its checkpoint.
fn read(arguments: &PlanArgs, uses: &mut FileUses) -> Result<(ModelConfig, GenerationOptions), CliError> {
    match (&arguments.model, &arguments.config) {
        (Some(model), _) => {
            let dir = resolve_config(model, &arguments.hub, &Console::new(false))?;
            uses.reads_model(&dir);
            uses.check()?;
            let described = elgen_engine::describe(&dir)?;
            Ok((described.config, described.checkpoint_options))
        }
        (None, Some(name)) => {
            let found = builtin::read(name, 1)?;
            Ok((found.config().clone(), found.options().clone()))
        }
        (None, None) => Err(CliError::Usage("give --model or --config".to_owned())),
    }
}

/// The storage that was typed.
fn formats(arguments: &PlanArgs) -> SessionOptions {
    let choice = arguments.dtype.map_or(DtypeChoice::Auto, StorageFlag::choice);
    arguments.formats.apply(SessionOptions::default().with_dtype(choice))
}

/// The generation options that were typed.
fn asked(arguments: &PlanArgs) -> GenerationOptions {
    GenerationOptions {
        num_beams: arguments.num_beams,
        max_new_tokens: arguments.max_new_tokens,
        ..GenerationOptions::default()
    }
}

fn resolve(
    arguments: &PlanArgs,
    checkpoint: &GenerationOptions,
    outline: &Outline,
) -> Result<GenerationConfig, CliError> {
    let mut options = asked(arguments).or(checkpoint.clone());
    if outline.limits.is_encoder_decoder && options.decoder_start_token_id.is_none() {
        // Which id begins an output has no part in its memory.
        options.decoder_start_token_id = options.bos_token_id.or(Some(0));
    }
    match options.resolve(&outline.limits) {
        Ok((config, _)) => Ok(config),
        Err(error) => Err(refusal(arguments, &error.to_string())),
    }
}

/// An error of the options: the user's if it names one of theirs, else the checkpoint's.
fn refusal(arguments: &PlanArgs, message: &str) -> CliError {
    let names = set_names(&asked(arguments)).into_iter().map(|option| (option.clone(), flag(&option))).collect();
    match name_flags(message, &names) {
        (message, true) => CliError::Usage(message),
        (message, false) => CliError::Failed(format!("generation options of the checkpoint: {message}")),
    }
}

/// Ids of the source (0 for a decoder-only model) and of the decoder's prompt.
fn lengths(arguments: &PlanArgs, outline: &Outline, config: &GenerationConfig) -> Result<(usize, usize), CliError> {
    let positions = outline.limits.max_position_embeddings;
    if outline.encoder.is_some() {
        let source = arguments.source_length.unwrap_or(positions.unwrap_or(USUAL_SOURCE));
        if let Some(positions) = positions.filter(|positions| source > *positions) {
            let message = format!("--source-length {source}: the model has positions for {positions}");
            return Err(CliError::Usage(message));
        }
        return Ok((source, 1));
    }
    let new = config.lengths(1).map_or(1, |lengths| lengths.max_length - 1);
    let rest = positions.map_or(USUAL_SOURCE, |positions| positions.saturating_sub(new).max(1));
    Ok((0, arguments.source_length.unwrap_or(rest)))
}

fn limits(arguments: &PlanArgs) -> Result<Limits, CliError> {
    if let (Some(memory), None) = (arguments.memory_limit, &arguments.device) {
        return Ok(Limits { memory, binding: USUAL_BINDING, device: None, software: false });
    }
    let device = best_device(arguments.device.as_deref()).map_err(name_device)?;
    let free = device.memory_free.map(|free| free / 10 * 9);
    let memory = arguments
        .memory_limit
        .or(free)
        .ok_or_else(|| CliError::Usage(format!("{}: does not tell its memory; give --memory-limit", device.name)))?;
    Ok(Limits { memory, binding: device.max_binding_bytes, device: Some(device.name), software: device.software })
}

/// What is planned: "bart in f16, 1024 source and 141 new tokens, 4 beams".
fn described(report: &Report<'_>) -> String {
    let beams = if report.rows_per_sentence == 1 { "" } else { "s" };
    let formats = match report.dtype {
        Some(both) => both.to_owned(),
        None => format!("{} with caches in {}", report.weights, report.cache),
    };
    format!(
        "{} in {formats}, {} source and {} new tokens, {} beam{beams}",
        report.model, report.source_length, report.max_new_tokens, report.rows_per_sentence
    )
}

fn table(report: &Report<'_>) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{}, within {}{}",
        described(report),
        bytes(report.memory_limit),
        report.device.as_ref().map_or_else(String::new, |name| format!(" of {name}"))
    );
    let _ = writeln!(text, "bytes of {}:", sentences(report.batch_size));
    let head = [
        "attention",
        "weights",
        "self",
        "cross",
        "tables",
        "activations",
        "staging",
        "total",
        "per sentence",
        "largest batch",
    ];
    let mut cells = vec![head.map(str::to_owned)];
    cells.extend(report.kinds.iter().map(row));
    let widths: Vec<usize> =
        (0..head.len()).map(|c| cells.iter().map(|row| row[c].chars().count()).max().unwrap_or(0)).collect();
    for row in &cells {
        let columns = row.iter().zip(&widths).enumerate().map(|(c, (cell, width))| match c {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        let _ = writeln!(text, "{}", columns.collect::<Vec<_>>().join("  ").trim_end());
    }
    if report.kinds.iter().any(is_bound) {
        let binding = bytes(report.max_binding_bytes);
        let whose = if report.device.is_some() { "the device" } else { "most devices" };
        let _ = writeln!(text, "* not for want of memory: a binding of {whose} holds {binding}");
    }
    for kind in report.kinds {
        for note in kind.reason.iter().chain(&kind.error) {
            let _ = match (&kind.reason, kind.cross) {
                (Some(reason), Some(cross)) if note == reason => {
                    writeln!(text, "{}: {} for self-, {cross} for cross-attention; {note}", kind.attention, kind.self_)
                }
                (Some(reason), None) if note == reason => writeln!(text, "{}: {}; {note}", kind.attention, kind.self_),
                _ => writeln!(text, "{}: {note}", kind.attention),
            };
        }
        let reasons = kind
            .plan
            .iter()
            .flat_map(|plan| [("self", Some(&plan.self_reason)), ("cross", plan.cross_reason.as_ref())]);
        for (place, reason) in reasons.filter_map(|(place, reason)| Some((place, reason?))) {
            let _ = writeln!(text, "  {place}: {reason}");
        }
        if let Some(measurement) = kind.plan.as_ref().and_then(|plan| plan.measurement.as_ref()) {
            let _ = writeln!(text, "  {}", measured(measurement, now()));
        }
    }
    text
}

fn sentences(n: usize) -> String {
    if n == 1 { "1 sentence".to_owned() } else { format!("{n} sentences") }
}

/// Whether bindings are the limit of the largest batch.
fn is_bound(row: &PlanRow) -> bool {
    row.largest_batch.is_some() && row.limited_by == Some("binding")
}

fn row(row: &PlanRow) -> [String; 10] {
    let of = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), bytes);
    let part = |see: fn(&elgen_engine::PlannedBytes) -> u64| of(row.bytes.as_ref().map(see));
    let star = if is_bound(row) { "*" } else { "" };
    let largest = row.largest_batch.map_or_else(|| "none".to_owned(), |batch| format!("{batch}{star}"));
    [
        row.attention.to_owned(),
        part(|b| b.weights),
        part(|b| b.self_cache),
        part(|b| b.cross_cache),
        part(|b| b.tables),
        part(|b| b.activations),
        part(|b| b.staging),
        part(|b| b.total),
        of(row.bytes_per_sentence),
        largest,
    ]
}

/// Memory against batch, up to a little more than the largest batch of all kinds.
fn chart(comparison: &Comparison<'_>, report: &Report<'_>) -> Chart {
    const POINTS: usize = 96;
    /// From this ratio of the largest batches on, a straight axis leaves the smaller ones no room.
    const FAR_APART: usize = 4;
    let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
    let named = |kind: &Kind| report.kinds.iter().find(|row| row.attention == kind.name());
    let kinds = compared(comparison.kinds);
    let largest = || kinds.iter().filter_map(|kind| named(kind)?.largest_batch);
    let (least, most) = (largest().min().unwrap_or(1), largest().max().unwrap_or(1));
    let last = most.saturating_add(most.div_ceil(12)).max(4);
    let log = most / FAR_APART >= least;
    let batches = || {
        let part = |i: usize| i as f64 / POINTS as f64;
        let batch = |i| if log { (last as f64).powf(part(i)) } else { 1.0 + part(i) * (last - 1) as f64 };
        let mut batches: Vec<usize> = (0..=POINTS).map(|i| (batch(i).round() as usize).min(last)).collect();
        batches.extend(largest());
        batches.sort_unstable();
        batches.dedup();
        batches
    };
    let series = kinds.iter().map(|kind| {
        let points = comparison.totals(Kinds::both(*kind), batches());
        let largest = named(kind).and_then(|row| Some((row.largest_batch?, is_bound(row))));
        let mark = largest.and_then(|(batch, _)| points.iter().find(|(at, _)| *at == batch));
        Series {
            name: kind.name().to_owned(),
            remark: match largest {
                Some((batch, bound)) => format!(": {batch}{}", if bound { " (binding)" } else { "" }),
                None => ": none".to_owned(),
            },
            mark: mark.map(|(batch, total)| (*batch as f64, gib(*total))),
            points: points.iter().map(|(batch, total)| (*batch as f64, gib(*total))).collect(),
        }
    });
    Chart {
        title: "Memory against batch, and the largest batch of each kind".to_owned(),
        subtitle: described(report),
        x_label: "sentences together".to_owned(),
        y_label: "GiB".to_owned(),
        log_x: log,
        series: series.collect(),
        limit: Some((["limit".to_owned(), bytes(comparison.memory_limit)], gib(comparison.memory_limit))),
    }
}
