//! `elgen generate`: reads records window by window, lets the engine run them and writes what comes back.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use elgen_engine::{
    AttentionChoice, EngineError, Metrics, ModelDescription, RunOptions, Session, SessionOptions, describe,
};
use elgen_models::{ModelError, Tokenizer};
use elgen_search::{GenerationConfig, GenerationOptions, Warning};

use crate::{
    asked::{Asked, refusal},
    console::{Console, tell_measurement},
    error::{CliError, name_device, one_line},
    files,
    flags::{GenerateArgs, Names, flag, name_flags},
    input::RecordFormat,
    interrupt::Interrupt,
    model::resolve_model,
    output::{Layout, OrderedWriter, OutputFormat},
    print_config::print_config,
    progress::Progress,
    report,
    resume::Found,
    stream::StreamWriter,
    terminal::{self, Look, Terminal},
};

mod expect;
mod needs;
mod records;
mod target;

use records::{End, Run, Writer};
use target::Target;

/// Runs `elgen generate`; returns the exit code.
pub(crate) fn generate(mut arguments: GenerateArgs) -> Result<u8, CliError> {
    let mut console = Console::new(arguments.report.quiet == Some(true));
    files::warn_of_file_texts(&arguments.texts, &console);
    let mut uses = files::uses(&arguments)?;
    uses.check()?;
    files::check_resume(&arguments)?;
    let (mut reader, inputs) = files::open_input(&mut arguments)?;
    check_raw(&arguments)?;
    // Before interrupts are caught: one ends a download, and the next run resumes it.
    let quiet = arguments.report.quiet == Some(true);
    arguments.model = resolve_model(&arguments.model, &arguments.hub, &console, quiet)?;
    uses.reads_model(&arguments.model);
    uses.check()?;
    let mut asked = Asked::gather(&arguments.generation)?;
    let tokenizer = set_languages(&arguments, &mut asked)?;
    if arguments.report.print_config == Some(true) {
        return print_config(&arguments, &asked, &console);
    }
    let interrupt = Interrupt::install();
    // Wrong options are told before the weights are loaded.
    let model = describe(&arguments.model)?;
    let (config, options) = resolve(&asked, &arguments.model, &model, &console)?;
    check_alignment(&arguments, &model)?;
    let typed = asked.names().clone();
    if arguments.files.stream == Some(true) {
        check_stream(&arguments, &config, &typed)?;
    }
    let look = look(&arguments, &model)?;
    let output = files::output_path(&arguments);
    let layout = Layout { raw: look.raw, ..layout(&arguments, &config) };
    // A bar would run into the lines that are typed.
    let seen = output.is_none() || reader.waits_for_terminal();
    let shows_progress = console.shows_progress(arguments.report.progress, seen);
    let resumable = files::is_resumable(&arguments, &inputs);
    let survey = match &inputs[..] {
        [input] if resumable => Some(target::survey(input, reader.format())?),
        _ => None,
    };
    let total = match &survey {
        Some(survey) => Some(survey.records),
        None if shows_progress => total(&arguments, &inputs, reader.format())?,
        None => None,
    };
    let mut setup = match &survey {
        Some(survey) if resumable => Some(target::setup(&arguments, survey, reader.format(), layout, &options)?),
        _ => None,
    };
    let found = target::find(&arguments, setup.as_ref(), &console)?;
    if let (Found::Complete { records, failed }, Some(output)) = (&found, output) {
        let failures = if *failed > 0 { format!(", {failed} of which failed") } else { String::new() };
        console.note(&format!("{} is already complete: {records} records{failures}", output.display()));
        return Ok(u8::from(*failed > 0));
    }
    let expected = expect::expected(&arguments, &config, &inputs, reader.texts());
    let mut load = arguments.engine.session_options(expected);
    if load.attention == AttentionChoice::Auto {
        load.attention = target::kinds_to_continue(&found).unwrap_or(AttentionChoice::Auto);
    }
    if !quiet {
        load.on_measurement = tell_measurement;
    }
    let with_need = |error: CliError| match error {
        CliError::Engine(error) if needs::is_short(&error) => short_of_memory(&error, &arguments.model, &load, &config),
        other => other,
    };
    let mut session = Session::load(&arguments.model, &load).map_err(load_error).map_err(with_need)?;
    if let Some(tokenizer) = tokenizer {
        session.set_tokenizer(tokenizer);
    }

    check_tokenizer(&session, &arguments.model, reader.format(), layout.format)?;
    warn_idle_flags(&arguments, layout, &console);
    let metrics = session.metrics();
    report::tell_unsteady(&metrics, &console);
    if metrics.software_adapter && !arguments.engine.names_device() {
        console.warning(&format!("no hardware adapter: running on the software adapter {}", metrics.device));
    }

    if let Some(setup) = &mut setup {
        target::add_loaded(setup, &metrics);
    }
    if reader.waits_for_terminal() {
        console.note("reading texts from the terminal, a line each; Ctrl-D ends them");
    }
    let Target { sink, output: file } = Target::open(&arguments, found, setup.as_ref(), layout, &mut reader, &console)?;
    let (records, failed) = file.as_ref().map_or((0, 0), |file| (file.records(), file.failures()));
    if let (true, Some(output)) = (records > 0, output) {
        let of = total.map_or_else(String::new, |total| format!(" of {total}"));
        console.note(&format!("resuming {} at record {}{of}", output.display(), records + 1));
    }

    if shows_progress {
        console.start_progress(Progress::new(Instant::now(), records, total));
    }
    let mut run = Run {
        console,
        reader,
        writer: match arguments.files.stream {
            Some(true) => Writer::Stream(StreamWriter::new(sink, layout, look.echo)),
            _ => Writer::Ordered(OrderedWriter::new(sink, layout, records)),
        },
        file,
        output: output.unwrap_or(Path::new("<stdout>")).to_owned(),
        interrupt,
        typed,
        failed,
        write_error: None,
        prefix: arguments.files.prefix.clone(),
        source_prefix: arguments.files.source_prefix.clone().filter(|prefix| !prefix.is_empty()),
        told: Vec::new(),
        short: false,
    };
    let run_options = RunOptions {
        truncate: arguments.files.truncate == Some(true),
        max_source_length: arguments.files.max_source_length,
        alignment: arguments.files.alignment,
        stream: arguments.files.stream == Some(true),
        cancel: run.interrupt.cancel_token(),
        ..RunOptions::default()
    };
    let end = run.all(&mut session, &config, &run_options, arguments.engine.first_window()).map_err(with_need);
    run.console.end_progress();
    let metrics = session.metrics();
    if arguments.report.stats == Some(true) {
        run.console.line(report::table(&metrics, run.failed).trim_end());
    }
    if run.short
        && let Some(least) = needs::least(&arguments.model, &load, &config)
    {
        run.console.warning(&format!("memory was short: this run needs at least {least} (elgen plan has the sums)"));
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
            if let Some(file) = &run.file {
                file.interrupted()?;
                if file.is_resumable() {
                    run.console.note("the same command with --resume continues");
                }
            }
            Ok(1)
        }
        End::Done => {
            if let Some(file) = &run.file {
                let input = survey.as_ref().filter(|_| resumable).zip(inputs.first().map(PathBuf::as_path));
                target::complete(file, input, &run.reader, &run.console)?;
            }
            Ok(u8::from(run.failed > 0))
        }
        End::PipeClosed => Ok(u8::from(run.failed > 0)),
    }
}

/// Refuses to stream what is not one growing text on stdout.
fn check_stream(arguments: &GenerateArgs, config: &GenerationConfig, typed: &Names) -> Result<(), CliError> {
    let refuse = |reason: String| Err(CliError::Usage(format!("--stream: {}", name_flags(&reason, typed).0)));
    if files::output_path(arguments).is_some() {
        return refuse("writes to stdout; not with --output FILE".to_owned());
    }
    if config.num_beams > 1 {
        return refuse(format!(
            "not with beam search, which decides late about early tokens (num_beams is {}); give --num-beams 1",
            config.num_beams
        ));
    }
    if config.num_return_sequences > 1 {
        let sequences = config.num_return_sequences;
        return refuse(format!("writes one text for each input (num_return_sequences is {sequences})"));
    }
    let format = layout(arguments, config).format;
    if arguments.files.with_scores == Some(true) && format == OutputFormat::Text {
        return refuse("not with --with-scores, a score is known at the end; use --format jsonl".to_owned());
    }
    if format == OutputFormat::Moses {
        return refuse("not with --format moses, a score is known at the end; use --format jsonl".to_owned());
    }
    Ok(())
}

/// Refuses texts with real line ends where a record must be a line.
fn check_raw(arguments: &GenerateArgs) -> Result<(), CliError> {
    if arguments.files.raw != Some(true) {
        return Ok(());
    }
    let reason = if files::output_path(arguments).is_some() {
        "writes to stdout; a file has a line for each text"
    } else if output_format(arguments) != OutputFormat::Text {
        "needs --format text"
    } else {
        return Ok(());
    };
    Err(CliError::Usage(format!("--raw: {reason}")))
}

/// How texts are shown, and whether that is possible.
fn look(arguments: &GenerateArgs, model: &ModelDescription) -> Result<Look, CliError> {
    let stream = arguments.files.stream == Some(true);
    let refuse = |reason: String| Err(CliError::Usage(format!("--echo: {reason}")));
    match arguments.files.echo {
        Some(true) if !stream => return refuse("needs --stream".to_owned()),
        Some(true) if model.limits.is_encoder_decoder => {
            return refuse(format!("is for decoder-only models; {} has an encoder", arguments.model.display()));
        }
        Some(true) if output_format(arguments) != OutputFormat::Text => {
            return refuse("needs --format text".to_owned());
        }
        _ => {}
    }
    let asked = terminal::Asked { raw: arguments.files.raw, echo: arguments.files.echo };
    // What goes to a file is not seen.
    let seen = if files::output_path(arguments).is_none() { Terminal::of_process() } else { Terminal::default() };
    Ok(seen.look(output_format(arguments), stream, !model.limits.is_encoder_decoder, asked))
}

/// Records of all inputs, if they can be counted beforehand.
fn total(arguments: &GenerateArgs, inputs: &[PathBuf], format: RecordFormat) -> Result<Option<u64>, CliError> {
    if inputs.is_empty() || !inputs.iter().all(|input| input.is_file()) {
        return Ok(None);
    }
    if arguments.files.whole_file == Some(true) {
        return Ok(Some(inputs.len() as u64));
    }
    let mut records = 0;
    for input in inputs {
        records += target::survey(input, format)?.records;
    }
    Ok(Some(records))
}

/// Refuses alignments that the output has no place for or the model cannot give.
pub(crate) fn check_alignment(arguments: &GenerateArgs, model: &ModelDescription) -> Result<(), CliError> {
    let Some(layer) = arguments.files.alignment else { return Ok(()) };
    if output_format(arguments) != OutputFormat::Jsonl {
        return Err(CliError::Usage("--alignment: text output has no place for it; use --format jsonl".to_owned()));
    }
    match model.config.alignment_layer(layer) {
        Ok(_) => Ok(()),
        Err(error) => Err(CliError::Usage(format!("--alignment: {error}"))),
    }
}

fn output_format(arguments: &GenerateArgs) -> OutputFormat {
    let by_name = || files::output_path(arguments).map_or(OutputFormat::Text, OutputFormat::of_path);
    arguments.files.format.unwrap_or_else(by_name)
}

/// How results are to be written.
fn layout(arguments: &GenerateArgs, config: &GenerationConfig) -> Layout {
    let files = &arguments.files;
    Layout {
        format: output_format(arguments),
        with_scores: files.with_scores == Some(true),
        sequences: config.num_return_sequences,
        token_logprobs: files.token_logprobs == Some(true),
        raw: false,
    }
}

fn warn_idle_flags(arguments: &GenerateArgs, layout: Layout, console: &Console) {
    match layout.format {
        OutputFormat::Jsonl if layout.with_scores => {
            console.warning("--with-scores: has no effect with JSONL output, which always has scores");
        }
        OutputFormat::Moses if layout.with_scores => {
            console.warning("--with-scores: has no effect with --format moses, which always has scores");
        }
        OutputFormat::Text | OutputFormat::Moses if layout.token_logprobs => {
            console.warning("--token-logprobs: has no effect with text output; use --format jsonl");
        }
        _ => {}
    }
    if arguments.files.stream == Some(true) && arguments.engine.names_batch_size() {
        console.warning("--batch-size: has no effect with --stream, which runs one input at a time");
    }
    if arguments.files.truncate == Some(false) && arguments.files.max_source_length.is_some() {
        console.warning("--truncate=false: has no effect with --max-source-length, which cuts");
    }
}

/// A model that cannot have the attention kind that was typed is no failure of the model.
pub(crate) fn load_error(error: EngineError) -> CliError {
    match error {
        EngineError::Model(ModelError::KindNeedsEncoder { .. }) => CliError::Usage(format!("--attention: {error}")),
        other => name_device(other),
    }
}

/// What does not fit, and what would do.
fn short_of_memory(error: &EngineError, model: &Path, load: &SessionOptions, config: &GenerationConfig) -> CliError {
    let cause = one_line(error);
    CliError::Failed(match needs::least(model, load, config) {
        Some(least) => format!("{cause}; this run needs at least {least} (elgen plan has the sums)"),
        None => format!("{cause}; elgen plan tells what a run needs"),
    })
}

fn check_tokenizer(session: &Session, model: &Path, input: RecordFormat, output: OutputFormat) -> Result<(), CliError> {
    if session.has_tokenizer() {
        return Ok(());
    }
    let wanted = match (input, output) {
        (RecordFormat::Text, _) => "give token ids: --input-format jsonl with `input_ids`",
        (_, OutputFormat::Text | OutputFormat::Moses) => "its results are token ids: use --format jsonl",
        _ => return Ok(()),
    };
    if let Some(error) = session.model().tokenizer_error() {
        return Err(CliError::Failed(error.to_string()));
    }
    Err(CliError::Usage(format!("{} has no tokenizer; {wanted}", model.display())))
}

/// The tokenizer set to the languages that were typed, if any; what they ask of generation is asked for as the user's own options
/// are, behind those.
fn set_languages(arguments: &GenerateArgs, asked: &mut Asked) -> Result<Option<Tokenizer>, CliError> {
    if !arguments.languages.any() {
        return Ok(None);
    }
    let mut tokenizer = Tokenizer::open(&arguments.model).map_err(EngineError::from)?;
    tokenizer.set_max_text_bytes(arguments.engine.max_text_bytes());
    let tokens = arguments.languages.apply(&mut tokenizer)?;
    asked.add_languages(GenerationOptions {
        decoder_start_token_id: tokens.decoder_start_token_id,
        forced_bos_token_id: tokens.forced_bos_token_id,
        ..GenerationOptions::default()
    });
    Ok(Some(tokenizer))
}

/// The options of the run, concrete and as they were merged; tells the user which of theirs have no effect.
pub(crate) fn resolve(
    asked: &Asked,
    model_dir: &Path,
    model: &ModelDescription,
    console: &Console,
) -> Result<(GenerationConfig, GenerationOptions), CliError> {
    let names = asked.names();
    let refuse = |error| refusal(&error, names, model_dir);
    let options = asked.options.clone().or(model.checkpoint_options.clone());
    let (config, warnings) = options.resolve(&model.limits).map_err(refuse)?;
    if model.limits.is_encoder_decoder {
        // The decoder's prompt is the start token alone: lengths that cannot be are no record's fault.
        config.lengths(1).map_err(refuse)?;
    }
    // A checkpoint's own idle options are nobody's mistake, but where it is cut short one should know.
    let told = |warning: &&Warning| names.contains_key(warning.option()) || matches!(warning, Warning::Cut { .. });
    for warning in warnings.iter().filter(told) {
        console.warning(&warning_text(warning, names));
    }
    Ok((config, options))
}

/// A warning about an option that was typed. What it lacks is named as it would be typed; values of other options that were not typed
/// come from the checkpoint and are named as its files have them.
fn warning_text(warning: &Warning, names: &Names) -> String {
    warning.describe(|option| match names.get(option) {
        Some(typed) => typed.clone(),
        None if matches!(warning, Warning::NeedsSampling { .. }) => flag(option),
        None => option.to_owned(),
    })
}

fn write_stats(path: &Path, metrics: &Metrics) -> Result<(), CliError> {
    files::write_whole(path, &report::json(metrics)?)
}
