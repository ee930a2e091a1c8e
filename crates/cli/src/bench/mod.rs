//! `elgen bench`: measures models, row by row, and writes what it has after each.

mod chart;
mod lengths;
mod report;
mod rows;
mod table;

use std::{path::Path, time::Instant};

use elgen_engine::{
    BatchSize, EngineError, Formats, Model, Registry, SessionOptions,
    bench::{BatchRows, Outcome, Peaks, measure, peaks},
    open_device,
};
use elgen_tensor::Device;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    console::Console,
    error::{CliError, name_device, one_line},
    files::{self, FileUses, STANDARD, write_whole},
    flags::{AttentionFlag, BenchArgs, BenchFormat},
    print_report,
};
use report::{Measured, Place, Report, Status, reasons, resume, state_path};
use rows::{Row, rows};

/// Runs `elgen bench`; returns the exit code.
pub(crate) fn bench(arguments: &BenchArgs, registry: &Registry) -> Result<u8, CliError> {
    let output = arguments.report.output.as_deref().filter(|path| path.as_os_str() != STANDARD);
    let files = Files { format: arguments.report.format, output, plot: arguments.report.plot.as_deref() };
    uses(arguments, output).check()?;
    if let Some(path) = &arguments.from {
        return files.render(&report::read(path)?).map(|()| 0);
    }
    let begun = Instant::now();
    let console = Console::new(arguments.report.quiet);
    let options = SessionOptions::default()
        .with_registry(registry.clone())
        .with_device(arguments.runs.device.clone())
        .with_memory_limit(arguments.runs.memory_limit)
        .with_checked_shaders(cfg!(debug_assertions))
        .with_batch_size(BatchSize::Auto);
    // Wrong usage is told before a device is looked for.
    rows(arguments, registry, true)?;
    let device = open_device(&options).map_err(name_device)?;
    let planned = rows(arguments, registry, device.capabilities().software)?;
    let keys: Vec<_> = planned.iter().map(|row| &row.key).collect();
    let mut report = Report {
        place: place(&device, arguments),
        command: std::env::args().collect(),
        date: OffsetDateTime::now_utc()
            .truncate_to_second()
            .format(&Rfc3339)
            .map_err(|error| CliError::Failed(error.to_string()))?,
        planned: planned.len(),
        complete: false,
        ours: reasons(keys.iter().copied()),
        rows: Vec::new(),
    };
    if let Some(output) = output {
        report.rows = resume(&state_path(output, files.format), &report.place, &keys)?;
        match report.rows.len() {
            0 => {}
            done if done == planned.len() => {
                console.note(&format!("{}: all {done} rows are there already", output.display()));
            }
            done => console.note(&format!("{}: going on behind row {done} of {}", output.display(), planned.len())),
        }
    }
    let mut loaded: Option<Loaded> = None;
    let mut known = Vec::new();
    for (n, row) in planned.iter().enumerate().skip(report.rows.len()) {
        if arguments.runs.time_budget.is_some_and(|budget| begun.elapsed().as_secs_f64() > budget) {
            console.note(&format!("the time budget is spent: {n} of {} rows; the same command goes on", planned.len()));
            break;
        }
        let peaks = peaks_of(&device, row.formats, &console, &mut known);
        let measured = measure_row(&device, &options, row, arguments.runs.seed, &mut loaded)?;
        let measured = Measured { peaks, ..measured };
        console.note(&progress(n, planned.len(), &measured));
        report.rows.push(measured);
        files.save(&report)?;
    }
    report.complete = report.rows.len() == planned.len();
    files.finish(&report)?;
    Ok(u8::from(report.rows.iter().any(|row| row.status == Status::Error)))
}

/// What the flags ask to be measured, and the config that each trial is for.
#[cfg(test)]
pub(crate) fn trials(
    arguments: &BenchArgs,
) -> Result<Vec<(elgen_engine::ConfigOnly, elgen_engine::bench::Trial)>, CliError> {
    Ok(rows(arguments, &Registry::default(), true)?
        .into_iter()
        .map(|row| (row.source.config.clone(), row.trial))
        .collect())
}

/// What the command reads and writes.
fn uses(arguments: &BenchArgs, output: Option<&Path>) -> FileUses {
    let mut uses = FileUses::default();
    uses.reads("--from", arguments.from.as_deref());
    uses.reads("--lengths-from", arguments.rows.lengths_from.as_deref());
    for config in arguments.config.iter().map(Path::new).filter(|config| config.exists()) {
        uses.reads("--config", Some(config));
    }
    arguments.model.iter().for_each(|dir| uses.reads_model(dir));
    uses.results("--output", output);
    if let Some(output) = output.filter(|output| files::may_be_regular(output)) {
        let state = state_path(output, arguments.report.format);
        if state != output {
            uses.writes_beside("--output", state);
        }
    }
    uses.writes("--plot", arguments.report.plot.as_deref());
    uses
}

fn place(device: &Device, arguments: &BenchArgs) -> Place {
    let adapter = device.report();
    Place {
        elgen: env!("CARGO_PKG_VERSION").to_owned(),
        // Set by who builds, as scripts/gpu-package does: a build must not depend on git.
        commit: option_env!("ELGEN_COMMIT").filter(|commit| !commit.is_empty()).map(str::to_owned),
        device: adapter.name.clone(),
        driver: adapter.driver.clone(),
        software_adapter: adapter.software,
        memory_limit: arguments.runs.memory_limit,
        repetitions: arguments.runs.repetitions,
        seed: arguments.runs.seed,
    }
}

/// A model on the device, or why there is none.
struct Loaded {
    identity: String,
    model: Result<Model, EngineError>,
}

/// Measures one row. Loads its model unless it is the last row's; the former one's memory is free by then.
fn measure_row(
    device: &Device,
    options: &SessionOptions,
    row: &Row,
    seed: u64,
    loaded: &mut Option<Loaded>,
) -> Result<Measured, CliError> {
    let identity = identity(row);
    let current = match loaded.take().filter(|loaded| loaded.identity == identity) {
        Some(same) => same,
        None => {
            // `filter` has dropped the former model.
            let left = device.pool().current().total;
            if left > 0 {
                return Err(CliError::Failed(format!("{left} bytes of the model before are still allocated")));
            }
            let options = options
                .clone()
                .with_attention(row.attention.choice())
                .with_weights(row.formats.weights)
                .with_cache(row.formats.cache)
                .with_batch_size(match row.trial.batch {
                    BatchRows::Sentences(sentences) => BatchSize::Sentences(sentences),
                    BatchRows::Largest => BatchSize::Auto,
                })
                .with_expected(row.trial.expected());
            let model = match &row.source.dir {
                Some(dir) => Model::load_on(device, dir, &options),
                None => Model::random_on(device, &row.source.config, seed, &options),
            };
            Loaded { identity, model }
        }
    };
    let current = loaded.insert(current);
    let outcome = match &current.model {
        Ok(model) => measure(model, &row.trial).map_err(|error| (error.kind().may_fit_smaller(), one_line(&error))),
        Err(error) => Err((error.kind().may_fit_smaller(), one_line(error))),
    };
    let (status, message, cost) = match outcome {
        Ok(Outcome::Measured(cost)) => (Status::Ok, None, Some(*cost)),
        Ok(Outcome::OutOfMemory(message)) | Err((true, message)) => (Status::Oom, Some(message), None),
        Err((false, message)) => (Status::Error, Some(message), None),
    };
    // A lost device fails every row behind: say so once.
    device.check().map_err(EngineError::from)?;
    Ok(Measured { key: row.key.clone(), status, message, cost, peaks: None })
}

/// What a model is loaded for. `auto` chooses by what it is to do, so rows that differ in that need another model.
fn identity(row: &Row) -> String {
    let key = &row.key;
    // Two models may have the same name.
    let load = format!("{:p} {} {}", std::sync::Arc::as_ptr(&row.source), key.attention, key.dtype);
    match row.attention {
        AttentionFlag::Auto => format!("{load} {} {} {:?}", key.num_beams, key.batch_asked, row.trial.expected()),
        _ => load,
    }
}

/// The device's peaks for a row's formats, measured once.
fn peaks_of(
    device: &Device,
    formats: Formats,
    console: &Console,
    known: &mut Vec<(Formats, Option<Peaks>)>,
) -> Option<Peaks> {
    if let Some((_, peaks)) = known.iter().find(|(known, _)| *known == formats) {
        return *peaks;
    }
    let found = peaks(device, formats);
    let found = found.inspect_err(|error| console.warning(&format!("no peaks: {}", one_line(error)))).ok();
    known.push((formats, found));
    found
}

/// `[3/20] bart-large el f16, 4 beams, batch 32: 12.3 samples/s`
fn progress(n: usize, all: usize, row: &Measured) -> String {
    let key = &row.key;
    let result = match (&row.cost, &row.message) {
        (Some(cost), _) => format!("{} sentences, {:.3} samples/s", cost.batch, cost.samples_per_second.mean),
        (None, Some(message)) if row.status == Status::Oom => format!("OOM: {message}"),
        (None, message) => message.clone().unwrap_or_default(),
    };
    format!(
        "[{}/{all}] {} {} {}, {} beams, batch {}: {result}",
        n + 1,
        key.model,
        key.attention,
        key.dtype,
        key.num_beams,
        key.batch_asked
    )
}

/// Where results go.
struct Files<'a> {
    format: BenchFormat,
    output: Option<&'a Path>,
    plot: Option<&'a Path>,
}

impl Files<'_> {
    /// The report in the format that was asked for.
    fn text(&self, report: &Report) -> Result<String, CliError> {
        match self.format {
            BenchFormat::Json => report.json(),
            format => Ok(table::render(report, format)),
        }
    }

    /// Writes the rows so far, so that an end at any time loses none.
    fn save(&self, report: &Report) -> Result<(), CliError> {
        let Some(output) = self.output else { return Ok(()) };
        let report = Report { complete: report.rows.len() == report.planned, ..report.clone() };
        let state = state_path(output, self.format);
        if state != output {
            write_whole(&state, &report.json()?)?;
        }
        write_whole(output, &self.text(&report)?)
    }

    /// Writes results and plot.
    fn render(&self, report: &Report) -> Result<(), CliError> {
        if let Some(plot) = self.plot {
            write_whole(plot, &chart::chart(report))?;
        }
        match self.output {
            Some(output) => write_whole(output, &self.text(report)?),
            None => print_report(&self.text(report)?).map(drop),
        }
    }

    /// [`Files::render`]. What was kept to go on from goes once all rows are there.
    fn finish(&self, report: &Report) -> Result<(), CliError> {
        self.save(report)?;
        self.render(report)?;
        let Some(output) = self.output else { return Ok(()) };
        let state = state_path(output, self.format);
        if report.complete && state != output {
            std::fs::remove_file(&state).map_err(|source| CliError::File {
                action: "remove",
                path: state.clone(),
                source,
            })?;
        }
        Ok(())
    }
}
