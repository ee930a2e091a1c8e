//! `elgen generate`: reads records window by window, lets the engine run them and writes what comes back.

use std::{path::Path, time::Instant};

use elgen_engine::{AttentionChoice, EngineError, Metrics, ModelDescription, RunOptions, Session, describe};
use elgen_models::{ModelError, Tokenizer};
use elgen_search::{GenerationConfig, GenerationOptions};

use crate::{
    asked::{Asked, refusal},
    console::Console,
    error::CliError,
    files,
    flags::{GenerateArgs, Names, name_flags},
    input::RecordFormat,
    interrupt::Interrupt,
    model::resolve_model,
    output::{Layout, OrderedWriter},
    print_config::print_config,
    progress::Progress,
    report,
    resume::Found,
    stream::StreamWriter,
};

mod expect;
mod records;
mod target;

use records::{End, Run, Writer};
use target::Target;

/// Runs `elgen generate`; returns the exit code.
pub(crate) fn generate(mut arguments: GenerateArgs) -> Result<u8, CliError> {
    let mut console = Console::new(arguments.report.quiet == Some(true));
    let mut uses = files::uses(&arguments)?;
    uses.check()?;
    files::check_resume(&arguments)?;
    let (mut reader, input) = files::open_input(&mut arguments)?;
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
    let output = files::output_path(&arguments);
    let layout = layout(&arguments, &config);
    let shows_progress = console.shows_progress(arguments.report.progress, output.is_none());
    let resumable = files::is_resumable(&arguments, input.as_deref());
    let survey = match input.as_deref().filter(|input| resumable || (shows_progress && input.is_file())) {
        Some(input) => Some(target::survey(input, reader.format())?),
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
    let expected = expect::expected(&arguments, &config, input.as_deref(), reader.texts());
    let mut load = arguments.engine.session_options(expected);
    if load.attention == AttentionChoice::Auto {
        load.attention = target::kinds_to_continue(&found).unwrap_or(AttentionChoice::Auto);
    }
    let mut session = Session::load(&arguments.model, &load).map_err(load_error)?;
    if let Some(tokenizer) = tokenizer {
        session.set_tokenizer(tokenizer);
    }

    check_tokenizer(&session, &arguments.model, reader.format(), layout.format)?;
    warn_idle_flags(&arguments, layout, &console);
    let metrics = session.metrics();
    if metrics.software_adapter && !arguments.engine.names_device() {
        console.warning(&format!("no hardware adapter: running on the software adapter {}", metrics.device));
    }

    if let Some(setup) = &mut setup {
        target::add_loaded(setup, &metrics);
    }
    if reader.waits_for_terminal() {
        console.note("reading texts from the terminal; Ctrl-D ends them");
    }
    let Target { sink, output: file } = Target::open(&arguments, found, setup.as_ref(), layout, &mut reader, &console)?;
    let (records, failed) = file.as_ref().map_or((0, 0), |file| (file.records(), file.failures()));
    let total = survey.as_ref().map(|survey| survey.records);
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
            Some(true) => Writer::Stream(StreamWriter::new(sink, layout)),
            _ => Writer::Ordered(OrderedWriter::new(sink, layout, records)),
        },
        file,
        output: output.unwrap_or(Path::new("<stdout>")).to_owned(),
        interrupt,
        typed,
        failed,
        write_error: None,
        prefix: arguments.files.prefix.clone(),
        told: Vec::new(),
    };
    let run_options = RunOptions {
        truncate: arguments.files.truncate == Some(true),
        max_source_length: arguments.files.max_source_length,
        alignment: arguments.files.alignment,
        stream: arguments.files.stream == Some(true),
        cancel: run.interrupt.cancel_token(),
        ..RunOptions::default()
    };
    let end = run.all(&mut session, &config, &run_options, arguments.engine.first_window());
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
                let input = survey.as_ref().filter(|_| resumable).zip(input.as_deref());
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
    if arguments.files.with_scores == Some(true) && layout(arguments, config).format == RecordFormat::Text {
        return refuse("not with --with-scores, a score is known at the end; use --format jsonl".to_owned());
    }
    Ok(())
}

/// Refuses alignments that the output has no place for or the model cannot give.
pub(crate) fn check_alignment(arguments: &GenerateArgs, model: &ModelDescription) -> Result<(), CliError> {
    let Some(layer) = arguments.files.alignment else { return Ok(()) };
    if output_format(arguments) == RecordFormat::Text {
        return Err(CliError::Usage("--alignment: text output has no place for it; use --format jsonl".to_owned()));
    }
    match model.config.alignment_layer(layer) {
        Ok(_) => Ok(()),
        Err(error) => Err(CliError::Usage(format!("--alignment: {error}"))),
    }
}

fn output_format(arguments: &GenerateArgs) -> RecordFormat {
    let by_name = || files::output_path(arguments).map_or(RecordFormat::Text, RecordFormat::of_path);
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

/// The tokenizer set to the languages that were typed, if any; what they ask of generation is asked for as the user's own options
/// are, behind those.
fn set_languages(arguments: &GenerateArgs, asked: &mut Asked) -> Result<Option<Tokenizer>, CliError> {
    if !arguments.languages.any() {
        return Ok(None);
    }
    let mut tokenizer = Tokenizer::open(&arguments.model).map_err(EngineError::from)?;
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
    // A checkpoint's own idle options are nobody's mistake.
    for warning in warnings.iter().filter(|warning| names.contains_key(warning.option())) {
        console.warning(&name_flags(&warning.to_string(), names).0);
    }
    Ok((config, options))
}

fn write_stats(path: &Path, metrics: &Metrics) -> Result<(), CliError> {
    files::write_whole(path, &report::json(metrics)?)
}
