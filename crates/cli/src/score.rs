//! `elgen score`: log-probabilities of given texts, and how far runs are from each other.

use std::{io, path::Path, time::Instant};

use elgen_engine::{
    CorpusScore, Divergence, Expected, Metrics, ModelDescription, Registry, RunComparison, RunHeader, RunOptions,
    RunReader, RunWriter, Session, TextWindows, WholeText, describe,
};
use elgen_models::{LanguageTokens, Tokenizer};
use elgen_search::GenerationOptions;
use sha2::{Digest, Sha256};

use crate::{
    console::Console,
    error::{CliError, load_error, one_line},
    files::{self, FileUses, NewFile, STANDARD},
    flags::{ScoreArgs, WholeFlags},
    input::RecordFormat,
    input::hex,
    interrupt::Interrupt,
    model::resolve_model,
    progress::Progress,
    report,
    resume::Setup,
    terminal::Terminal,
};

mod lines;
mod pairs;
mod run;
mod summary;

use lines::Layout;
use pairs::Pairs;
use run::{End, Rows, Run, failed};

/// Runs `elgen score`; returns the exit code.
pub(crate) fn score(arguments: ScoreArgs, registry: &Registry) -> Result<u8, CliError> {
    let quiet = arguments.report.quiet;
    let mut console = Console::new(quiet);
    let mut uses = uses(&arguments)?;
    uses.check()?;
    if arguments.files.header == Some(true) && layout(&arguments, output(&arguments)).header().is_none() {
        return Err(CliError::Usage("--header: is for text output; JSONL names its fields".to_owned()));
    }
    let pairs = Pairs::open(&arguments)?;
    let dir = resolve_model(&arguments.model, &arguments.hub, &console, quiet)?;
    uses.reads_model(&dir);
    uses.check()?;
    let interrupt = Interrupt::install();
    let model = describe(&dir)?;
    let whole = check_family(&arguments, &pairs, &model, &console)?;
    let comparison = open_comparison(&arguments, &model)?;
    let (tokenizer, asked) = set_languages(&arguments, &model)?;

    let expected = Expected::default().with_max_new_tokens(0);
    let load = arguments.engine.session_options(registry, expected);
    let mut session =
        Session::load_described(&model, tokenizer, &load).map_err(|error| match error.kind().may_fit_smaller() {
            true => CliError::Failed(format!("{}; elgen plan tells what a model takes", one_line(&error))),
            false => load_error(error),
        })?;
    if let (Some(error), false) = (session.model().tokenizer_error(), session.has_tokenizer()) {
        if pairs.is_text() {
            return Err(CliError::Failed(error.to_string()));
        }
        console.warning(&format!("going on without a tokenizer, with token ids alone: {error}"));
    }
    if !session.has_tokenizer() && pairs.is_text() {
        let model = dir.display();
        let wanted = "give token ids: --input-format jsonl with `input_ids`";
        return Err(CliError::Usage(format!("{model} has no tokenizer; {wanted}")));
    }
    let config = session.model().config(&asked)?;
    let metrics = session.metrics();
    if metrics.software_adapter && !arguments.engine.names_device() {
        console.warning(&format!("no hardware adapter: running on the software adapter {}", metrics.device));
    }
    let (sink, mut new) = open_output(output(&arguments))?;
    let (rows, labels) = match (comparison, open_save(&arguments, &model, &metrics)?) {
        (Some((comparison, labels)), _) => (Rows::Compare(Box::new(comparison)), labels),
        (None, Some(run)) => (Rows::Save(run), String::new()),
        (None, None) => (Rows::None, String::new()),
    };
    let output = output(&arguments);
    if pairs.waits_for_terminal() {
        console.note("reading texts from the terminal, a line each; Ctrl-D ends them");
    }
    if console.shows_progress(arguments.report.progress, output.is_none()) {
        console.start_progress(Progress::new(Instant::now(), 0, None));
    }
    let layout = layout(&arguments, output);
    let header = layout.header().filter(|_| {
        // Programs that read the lines need none.
        arguments.files.header.unwrap_or_else(|| output.is_none() && Terminal::of_process().stdout)
    });
    let mut run = Run {
        console,
        pairs,
        whole,
        sink,
        output: output.unwrap_or(Path::new("<stdout>")).to_owned(),
        source_prefix: arguments.files.source_prefix.clone().filter(|prefix| !prefix.is_empty()),
        layout,
        header,
        rows,
        interrupt,
        corpus: CorpusScore::default(),
        failed: 0,
        told_memory: false,
    };
    let options = RunOptions::default()
        .with_truncate(arguments.files.truncate)
        .with_max_source_length(arguments.files.max_source_length)
        .with_cancel(run.interrupt.cancel_token());
    let end = run.all(&mut session, &config, &options, arguments.engine.first_window());
    run.console.end_progress();
    let end = end.inspect_err(|_| forget_run(&arguments))?;
    if let Some(new) = &mut new {
        new.keep();
    }
    if end == End::Interrupted {
        run.console.line("interrupted");
        if let Some(path) = &arguments.runs.save_run {
            run.console.note(&format!("{} is incomplete and cannot be compared with", path.display()));
        }
        return Ok(1);
    }
    report(&arguments, run, &session.metrics(), &labels)
}

/// The file of the results; `None` is stdout.
fn output(arguments: &ScoreArgs) -> Option<&Path> {
    arguments.files.output.as_deref().filter(|path| path.as_os_str() != STANDARD)
}

fn open_output(output: Option<&Path>) -> Result<(Box<dyn io::Write>, Option<NewFile>), CliError> {
    Ok(match output {
        None => (files::results(), None),
        Some(path) => {
            let (file, new) = NewFile::create(path)?;
            (Box::new(file), Some(new))
        }
    })
}

/// Removes a run that was to be saved and cannot be: a part of it is of no use.
fn forget_run(arguments: &ScoreArgs) {
    if let Some(path) = arguments.runs.save_run.as_deref().filter(|path| path.is_file()) {
        let _ = std::fs::remove_file(path);
    }
}

/// Ends the saved run or the comparison, and tells what came of all records.
fn report(arguments: &ScoreArgs, run: Run, metrics: &Metrics, labels: &str) -> Result<u8, CliError> {
    let Run { console, rows, corpus, failed: failures, .. } = run;
    let divergence: Option<Divergence> = match rows {
        Rows::None => None,
        Rows::Save(run) => run.finish().map(|()| None).map_err(failed).inspect_err(|_| forget_run(arguments))?,
        Rows::Compare(comparison) => Some(comparison.finish().map_err(failed)?),
    };
    if arguments.report.stats {
        console.line(report::table(metrics, failures).trim_end());
    }
    console.note(&summary::corpus(&corpus.summary(), failures));
    if let Some(found) = &divergence {
        console.note(&summary::comparison(found, labels));
    }
    if let Some(path) = &arguments.report.stats_json {
        summary::write(path, metrics, failures, corpus.summary(), divergence.as_ref())?;
    }
    Ok(u8::from(failures > 0))
}

fn layout(arguments: &ScoreArgs, output: Option<&Path>) -> Layout {
    let by_name = || output.map_or(RecordFormat::Text, RecordFormat::of_path);
    Layout {
        format: arguments.files.format.unwrap_or_else(by_name),
        token_scores: arguments.files.token_scores,
        top_ids: arguments.files.top_ids,
    }
}

/// What the command reads and writes, the model apart.
fn uses(arguments: &ScoreArgs) -> Result<FileUses, CliError> {
    let (files, runs) = (&arguments.files, &arguments.runs);
    for (flag, path) in [("--save-run", &runs.save_run), ("--stats-json", &arguments.report.stats_json)] {
        if path.as_deref().is_some_and(|path| path.as_os_str() == STANDARD) {
            return Err(CliError::Usage(format!("{flag} -: give a file; stdout is for results")));
        }
    }
    let mut uses = FileUses::default();
    uses.reads("--input", Some(files.input.as_deref().unwrap_or(STANDARD.as_ref())));
    uses.reads("--targets", files.targets.as_deref());
    uses.reads("--compare-run", runs.compare_run.as_deref());
    uses.results("--output", files.output.as_deref());
    uses.writes("--save-run", runs.save_run.as_deref());
    uses.writes("--stats-json", arguments.report.stats_json.as_deref());
    Ok(uses)
}

/// Refuses what does not go with the kind of model, and gives how a decoder-only model scores whole texts.
fn check_family(
    arguments: &ScoreArgs,
    pairs: &Pairs,
    model: &ModelDescription,
    console: &Console,
) -> Result<Option<WholeText>, CliError> {
    let WholeFlags { no_bos, whole_file, max_length, stride } = arguments.whole;
    let refuse = |message: String| Err(CliError::Usage(message));
    let (limits, model) = (&model.limits, model.dir().display());
    if limits.is_encoder_decoder {
        let named = [
            ("--no-bos", no_bos),
            ("--whole-file", whole_file),
            ("--max-length", max_length.is_some()),
            ("--stride", stride.is_some()),
        ];
        if let Some((flag, _)) = named.into_iter().find(|(_, given)| *given) {
            return refuse(format!("{flag}: is for decoder-only models; {model} has an encoder"));
        }
        if pairs.is_text() && !matches!(pairs, Pairs::Two { .. }) {
            let wanted = "give --targets FILE, or JSONL records with a `target`";
            return refuse(format!("{model} scores targets of sources: {wanted}"));
        }
        return Ok(None);
    }
    for (flag, given) in
        [("--max-source-length", arguments.files.max_source_length.is_some()), ("--truncate", arguments.files.truncate)]
    {
        if given {
            console.warning(&format!("{flag}: has no effect with a decoder-only model"));
        }
    }
    let positions = limits.max_position_embeddings.unwrap_or(usize::MAX);
    let length = max_length.unwrap_or(positions);
    if length > positions {
        return refuse(format!("--max-length {length}: the model has positions for {positions}"));
    }
    if length < 2 {
        return refuse(format!("--max-length {length}: a window needs two tokens to score one"));
    }
    if let Some(stride) = stride.filter(|stride| *stride > length) {
        return refuse(format!("--stride {stride}: is more than a window, which holds {length} tokens"));
    }
    let windowed = whole_file || max_length.is_some() || stride.is_some();
    let windows = windowed.then_some(TextWindows { max_length, stride });
    Ok(Some(WholeText { first_given: no_bos, windows }))
}

/// The tokenizer set to the languages that were typed, if any, and what they ask of the decoder's start.
fn set_languages(
    arguments: &ScoreArgs,
    model: &ModelDescription,
) -> Result<(Option<Tokenizer>, GenerationOptions), CliError> {
    Ok(match arguments.languages.open_tokenizer(model, arguments.engine.max_text_bytes())? {
        None => (None, GenerationOptions::default()),
        Some((tokenizer, LanguageTokens { decoder_start_token_id, .. })) => {
            (Some(tokenizer), GenerationOptions { decoder_start_token_id, ..GenerationOptions::default() })
        }
    })
}

/// The run that was saved, and how it ran. Opened before the weights are loaded: it may be one of something else.
fn open_comparison(
    arguments: &ScoreArgs,
    model: &ModelDescription,
) -> Result<Option<(RunComparison, String)>, CliError> {
    let Some(path) = &arguments.runs.compare_run else { return Ok(None) };
    let reader = RunReader::open(path).map_err(failed)?;
    let header = reader.header();
    let label = |name: &str| header.labels.get(name).map_or("?", String::as_str);
    let vocab_size = model.limits.vocab_size;
    if header.vocab_size != vocab_size {
        let there = format!("its vocabulary has {} ids, this model's {vocab_size}", header.vocab_size);
        return Err(failed(reader.other_run(there)));
    }
    if !arguments.runs.other_model && header.model != model_digest(model.dir())? {
        let there = format!("the model was {}, with other files (--other-model compares anyway)", label("model"));
        return Err(failed(reader.other_run(there)));
    }
    let labels = format!("{} ({}, {})", path.display(), label("attention"), label("dtype"));
    Ok(Some((RunComparison::new(reader), labels)))
}

/// The file of a run to be saved.
fn open_save(
    arguments: &ScoreArgs,
    model: &ModelDescription,
    metrics: &Metrics,
) -> Result<Option<RunWriter>, CliError> {
    let Some(path) = &arguments.runs.save_run else { return Ok(None) };
    let (_, dtype) = arguments.engine.kind_and_dtype();
    let typed = arguments.engine.formats().typed();
    let dtype = typed.fold(dtype, |dtype, (flag, format)| format!("{dtype} {flag} {format}"));
    let labels = [
        ("attention", metrics.attention.self_.clone()),
        ("device", metrics.device.clone()),
        ("driver", metrics.driver.clone()),
        ("dtype", dtype),
        ("elgen", env!("CARGO_PKG_VERSION").to_owned()),
        ("model", model.dir().display().to_string()),
    ];
    let labels = labels.map(|(name, value)| (name.to_owned(), value)).into();
    let vocab_size = model.limits.vocab_size;
    let header = RunHeader { vocab_size, model: model_digest(model.dir())?, labels };
    RunWriter::create(path, &header).map(Some).map_err(failed).inspect_err(|_| forget_run(arguments))
}

/// What tells one checkpoint from another: its files.
fn model_digest(model: &Path) -> Result<String, CliError> {
    let mut setup = Setup::default();
    let fail = |source| CliError::File { action: "read", path: model.to_owned(), source };
    setup.set_model(model).map_err(fail)?;
    let json = serde_json::to_vec(&setup).map_err(|error| CliError::Failed(error.to_string()))?;
    Ok(hex(&Sha256::digest(json)))
}
