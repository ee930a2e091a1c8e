//! `elgen generate`: reads records window by window, lets the engine run them and writes what comes back.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    time::Instant,
};

use elgen_engine::{EngineError, Metrics, ModelDescription, RunOptions, Session, describe};
use elgen_models::ModelError;
use elgen_search::{GenerationConfig, GenerationOptions, OptionError};
use serde_json::{Value, json};

use crate::{
    console::Console,
    error::CliError,
    files,
    flags::{GenerateArgs, flag, name_flags, set_names},
    input::{RecordFormat, RecordReader},
    interrupt::Interrupt,
    output::{Layout, OrderedWriter},
    progress::Progress,
    report,
    resume::{self, OutputFile, Setup},
    survey::Survey,
};

mod records;

use records::{End, Run};

/// Runs `elgen generate`; returns the exit code.
pub(crate) fn generate(mut arguments: GenerateArgs) -> Result<u8, CliError> {
    let mut console = Console::new(arguments.report.quiet == Some(true));
    files::check_model(&arguments.model)?;
    let (mut reader, input) = files::open_input(&mut arguments)?;
    files::check_targets(&arguments, input.as_deref())?;
    files::check_resume(&arguments, input.as_deref())?;
    let interrupt = Interrupt::install();
    // Wrong options are told before the weights are loaded.
    let Resolved { config, typed, options } = resolve(&arguments, &describe(&arguments.model)?, &console)?;
    let mut session = Session::load(&arguments.model, &arguments.engine.session_options()).map_err(load_error)?;

    let output = files::output_path(&arguments);
    let layout = layout(&arguments, &config);
    check_tokenizer(&session, &arguments.model, reader.format(), layout.format)?;
    warn_idle_flags(&arguments, layout, &console);
    let metrics = session.metrics();
    if metrics.software_adapter && !arguments.engine.names_device() {
        console.warning(&format!("no hardware adapter: running on the software adapter {}", metrics.device));
    }

    let shows_progress = console.shows_progress(arguments.report.progress, output.is_none());
    let resumable = files::is_resumable(&arguments, input.as_deref());
    let survey = match input.as_deref().filter(|input| resumable || (shows_progress && input.is_file())) {
        Some(input) => Some(survey(input, reader.format())?),
        None => None,
    };
    let setup = match &survey {
        Some(survey) if resumable => Some(setup(&arguments, survey, reader.format(), layout, &options, &metrics)?),
        _ => None,
    };
    if reader.waits_for_terminal() {
        console.note("reading texts from the terminal; Ctrl-D ends them");
    }
    let Opened { sink, file, records, failed } = open_output(&arguments, setup.as_ref(), layout, &console)?;
    skip_done(&mut reader, records, output)?;
    let total = survey.map(|survey| survey.records);
    if let (true, Some(output)) = (records > 0, output) {
        let of = total.map_or_else(String::new, |total| format!(" of {total}"));
        console.note(&format!("resuming {} at record {}{of}", output.display(), records + 1));
    }

    if shows_progress {
        console.start_progress(Progress::new(Instant::now(), records, total));
    }
    let (handle, journal) = file.map_or((None, None), |file| (Some(file.file), file.journal));
    let mut run = Run {
        console,
        reader,
        writer: OrderedWriter::new(sink, layout, records),
        journal,
        output: output.unwrap_or(Path::new("<stdout>")).to_owned(),
        interrupt,
        typed,
        failed,
        write_error: None,
    };
    let run_options = RunOptions {
        truncate: arguments.files.truncate == Some(true),
        max_source_length: arguments.files.max_source_length,
    };
    let end = run.all(&mut session, &config, &run_options, arguments.engine.batch_size());
    run.console.end_progress();
    let metrics = session.metrics();
    if arguments.report.stats == Some(true) {
        run.console.line(report::table(&metrics, run.failed).trim_end());
    }
    let written = match &arguments.report.stats_json {
        Some(path) => write_stats(path, &metrics),
        None => Ok(()),
    };
    let end = end?;
    written?;
    match end {
        End::Interrupted => {
            run.console.line("interrupted");
            if run.journal.is_some() {
                run.console.note("the same command with --resume continues");
            }
            Ok(1)
        }
        End::Done => {
            complete(&mut run, handle.as_ref())?;
            Ok(u8::from(run.failed > 0))
        }
        End::PipeClosed => Ok(u8::from(run.failed > 0)),
    }
}

/// How results are to be written.
fn layout(arguments: &GenerateArgs, config: &GenerationConfig) -> Layout {
    let files = &arguments.files;
    let by_name = || files::output_path(arguments).map_or(RecordFormat::Text, RecordFormat::of_path);
    Layout {
        format: files.format.unwrap_or_else(by_name),
        with_scores: files.with_scores == Some(true),
        sequences: config.num_return_sequences,
        token_logprobs: files.token_logprobs == Some(true),
    }
}

fn warn_idle_flags(arguments: &GenerateArgs, layout: Layout, console: &Console) {
    match layout.format {
        RecordFormat::Jsonl if layout.with_scores => {
            console.warning("--with-scores: has no effect with JSONL output, which always has scores");
        }
        RecordFormat::Text if layout.token_logprobs => {
            console.warning("--token-logprobs: has no effect with text output; use --format jsonl");
        }
        _ => {}
    }
    if arguments.files.truncate == Some(false) && arguments.files.max_source_length.is_some() {
        console.warning("--truncate=false: has no effect with --max-source-length, which cuts");
    }
}

/// What has a part in the bytes of the output.
fn setup(
    arguments: &GenerateArgs,
    survey: &Survey,
    input_format: RecordFormat,
    layout: Layout,
    options: &GenerationOptions,
    metrics: &Metrics,
) -> Result<Setup, CliError> {
    let mut setup = Setup::default();
    setup.set("elgen's version", json!(env!("CARGO_PKG_VERSION")));
    setup.set_input(survey);
    setup.set_model(&arguments.model).map_err(|source| CliError::File {
        action: "read",
        path: arguments.model.clone(),
        source,
    })?;
    setup.set("the device", json!(format!("{}, {}", metrics.device, metrics.driver)));
    let (attention, dtype) = arguments.engine.kind_and_dtype();
    setup.set("--attention", json!(attention));
    setup.set("--dtype", json!(dtype));
    setup.set("--input-format", json!(input_format.name()));
    setup.set("--format", json!(layout.format.name()));
    setup.set("--with-scores", json!(layout.with_scores));
    setup.set("--token-logprobs", json!(layout.token_logprobs));
    setup.set("--truncate", json!(arguments.files.truncate == Some(true)));
    setup.set("--max-source-length", json!(arguments.files.max_source_length));
    match serde_json::to_value(options) {
        Ok(Value::Object(options)) => {
            for (name, value) in options {
                setup.set(flag(&name), value);
            }
            Ok(setup)
        }
        Ok(_) | Err(_) => Err(CliError::Failed("generation options cannot be written as JSON".to_owned())),
    }
}

fn survey(input: &Path, format: RecordFormat) -> Result<Survey, CliError> {
    Survey::of_file(input, format).map_err(|source| CliError::File { action: "read", path: input.to_owned(), source })
}

/// Where results go, and what is there already.
struct Opened {
    sink: Box<dyn Write>,
    /// The output, if it is a file.
    file: Option<OutputFile>,
    records: u64,
    failed: u64,
}

fn open_output(
    arguments: &GenerateArgs,
    setup: Option<&Setup>,
    layout: Layout,
    console: &Console,
) -> Result<Opened, CliError> {
    let Some(path) = files::output_path(arguments) else {
        return Ok(Opened { sink: Box::new(io::stdout()), file: None, records: 0, failed: 0 });
    };
    let file = match setup {
        Some(setup) if arguments.files.resume == Some(true) => resume::resume(path, setup, layout.lines_per_record())?,
        _ => resume::start(path, setup)?,
    };
    if let Some(warning) = &file.warning {
        console.warning(warning);
    }
    let sink =
        file.file.try_clone().map_err(|source| CliError::File { action: "write", path: path.to_owned(), source })?;
    let (records, failed) = (file.records, file.failed);
    Ok(Opened { sink: Box::new(sink), file: Some(file), records, failed })
}

/// Passes over the inputs whose results stand in the output.
fn skip_done(reader: &mut RecordReader, records: u64, output: Option<&Path>) -> Result<(), CliError> {
    let skipped =
        reader.skip(records).map_err(|source| CliError::File { action: "read", path: reader.name().into(), source })?;
    match output {
        Some(output) if skipped < records => Err(CliError::Failed(format!(
            "--resume: {} holds {records} records, {} only {skipped}; run without --resume to start anew",
            output.display(),
            reader.name()
        ))),
        _ => Ok(()),
    }
}

/// Brings a complete output to the disk and removes its journal.
fn complete(run: &mut Run, output: Option<&File>) -> Result<(), CliError> {
    let Some(journal) = run.journal.take() else { return Ok(()) };
    if let Some(output) = output {
        output.sync_all().map_err(|source| CliError::File { action: "write", path: run.output.clone(), source })?;
    }
    let path = journal.path().to_owned();
    journal.remove().map_err(|source| CliError::File { action: "remove", path, source })
}

/// A model that cannot have the attention kind that was typed is no failure of the model.
fn load_error(error: EngineError) -> CliError {
    match error {
        EngineError::Model(ModelError::KindNeedsEncoder { .. }) => CliError::Usage(format!("--attention: {error}")),
        other => other.into(),
    }
}

fn check_tokenizer(session: &Session, model: &Path, input: RecordFormat, output: RecordFormat) -> Result<(), CliError> {
    if session.has_tokenizer() {
        return Ok(());
    }
    let wanted = match (input, output) {
        (RecordFormat::Text, _) => "give token ids: --input-format jsonl with `input_ids`",
        (_, RecordFormat::Text) => "its results are token ids: use --format jsonl",
        _ => return Ok(()),
    };
    Err(CliError::Usage(format!("{} has no tokenizer; {wanted}", model.display())))
}

/// The options of a run.
struct Resolved {
    config: GenerationConfig,
    /// Names of those that were typed.
    typed: Vec<String>,
    /// The typed ones and the checkpoint's.
    options: GenerationOptions,
}

fn resolve(arguments: &GenerateArgs, model: &ModelDescription, console: &Console) -> Result<Resolved, CliError> {
    let options = arguments.generation.options();
    let typed = set_names(&options);
    let refuse = |error: OptionError| {
        let (message, any) = name_flags(&error.to_string(), &typed);
        if any {
            CliError::Usage(message)
        } else {
            CliError::Failed(format!("{}: generation options: {message}", arguments.model.display()))
        }
    };
    let options = options.or(model.checkpoint_options.clone());
    let (config, warnings) = options.clone().resolve(&model.limits).map_err(&refuse)?;
    if model.limits.is_encoder_decoder {
        // The decoder's prompt is the start token alone: lengths that cannot be are no record's fault.
        config.lengths(1).map_err(&refuse)?;
    }
    // A checkpoint's own idle options are nobody's mistake.
    for warning in warnings.iter().filter(|warning| typed.iter().any(|name| name == warning.option())) {
        console.warning(&name_flags(&warning.to_string(), &typed).0);
    }
    Ok(Resolved { config, typed, options })
}

fn write_stats(path: &Path, metrics: &Metrics) -> Result<(), CliError> {
    fs::write(path, report::json(metrics)?).map_err(|source| CliError::File {
        action: "write",
        path: path.to_owned(),
        source,
    })
}
