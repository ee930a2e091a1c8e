//! `elgen generate`: reads records window by window, lets the engine run them and writes what comes back.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use elgen_engine::{EngineError, Generation, Metrics, ModelDescription, Request, RunOptions, Session, describe};
use elgen_models::ModelError;
use elgen_search::GenerationConfig;

use crate::{
    asked::{Asked, refusal},
    console::Console,
    error::{CliError, one_line},
    files,
    flags::{GenerateArgs, Names, name_flags},
    input::{Content, Record, RecordFormat, RecordId, RecordReader},
    interrupt::Interrupt,
    output::{Layout, OrderedWriter, Outcome},
    print_config::print_config,
    report,
};

/// Records in a window, in the long run: enough for the engine to sort by length.
const WINDOW_RECORDS: usize = 1024;
/// Batches in a window, in the long run.
const WINDOW_BATCHES: usize = 64;

/// Runs `elgen generate`; returns the exit code.
pub(crate) fn generate(mut arguments: GenerateArgs) -> Result<u8, CliError> {
    let mut console = Console::new(arguments.report.quiet == Some(true));
    files::check_model(&arguments.model)?;
    let asked = Asked::gather(&arguments.generation)?;
    if arguments.report.print_config == Some(true) {
        return print_config(&arguments, &asked, &console);
    }
    let (reader, input) = files::open_input(&mut arguments)?;
    files::check_targets(&arguments, input.as_deref())?;
    let interrupt = Interrupt::install();
    // Wrong options are told before the weights are loaded.
    let config = resolve(&asked, &arguments.model, &describe(&arguments.model)?, &console)?;
    let typed = asked.names().clone();
    let mut session = Session::load(&arguments.model, &arguments.engine.session_options()).map_err(load_error)?;

    let output = files::output_path(&arguments).map(Path::to_owned);
    let format =
        arguments.files.format.unwrap_or_else(|| output.as_deref().map_or(RecordFormat::Text, RecordFormat::of_path));
    check_tokenizer(&session, &arguments.model, reader.format(), format)?;
    let with_scores = arguments.files.with_scores == Some(true);
    if with_scores && format == RecordFormat::Jsonl {
        console.warning("--with-scores: has no effect with JSONL output, which always has scores");
    }
    let metrics = session.metrics();
    if metrics.software_adapter && !arguments.engine.names_device() {
        console.warning(&format!("no hardware adapter: running on the software adapter {}", metrics.device));
    }

    if reader.waits_for_terminal() {
        console.note("reading texts from the terminal; Ctrl-D ends them");
    }

    let layout = Layout { format, with_scores, sequences: config.num_return_sequences };
    let writer = OrderedWriter::new(open_output(output.as_deref())?, layout);
    console.start_progress(output.is_none());
    let output = output.unwrap_or_else(|| "<stdout>".into());
    let mut run = Run { console, reader, writer, output, interrupt, typed, failed: 0, write_error: None };
    let options = RunOptions {
        truncate: arguments.files.truncate == Some(true),
        max_source_length: arguments.files.max_source_length,
    };
    let end = run.all(&mut session, &config, &options, arguments.engine.batch_size());
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
            Ok(1)
        }
        End::Done | End::PipeClosed => Ok(u8::from(run.failed > 0)),
    }
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

/// The options of the run; tells the user which of theirs have no effect.
pub(crate) fn resolve(
    asked: &Asked,
    model_dir: &Path,
    model: &ModelDescription,
    console: &Console,
) -> Result<GenerationConfig, CliError> {
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
    Ok(config)
}

fn open_output(path: Option<&Path>) -> Result<Box<dyn Write>, CliError> {
    match path {
        None => Ok(Box::new(io::stdout())),
        Some(path) => File::create(path)
            .map(|file| Box::new(file) as Box<dyn Write>)
            .map_err(|source| CliError::File { action: "write", path: path.to_owned(), source }),
    }
}

fn write_stats(path: &Path, metrics: &Metrics) -> Result<(), CliError> {
    fs::write(path, report::json(metrics)?).map_err(|source| CliError::File {
        action: "write",
        path: path.to_owned(),
        source,
    })
}

/// How a run ended that did not fail as a whole.
enum End {
    Done,
    Interrupted,
    PipeClosed,
}

/// Where a record that the model runs came from.
struct Origin {
    index: u64,
    line: u64,
    id: RecordId,
}

struct Run {
    console: Console,
    reader: RecordReader,
    writer: OrderedWriter,
    output: PathBuf,
    interrupt: Arc<Interrupt>,
    typed: Names,
    failed: u64,
    write_error: Option<io::Error>,
}

impl Run {
    fn all(
        &mut self,
        session: &mut Session,
        config: &GenerationConfig,
        options: &RunOptions,
        batch_size: usize,
    ) -> Result<End, CliError> {
        let largest = batch_size.saturating_mul(WINDOW_BATCHES).max(WINDOW_RECORDS);
        // A window's first result may be its last to come: small windows at first show results early.
        let mut window = batch_size;
        loop {
            let records = self.reader.window(window).map_err(|source| CliError::File {
                action: "read",
                path: self.reader.name().into(),
                source,
            })?;
            if let Some(total) = self.reader.total() {
                self.console.set_total(total);
            }
            let interrupt = Arc::clone(&self.interrupt);
            let result = interrupt.guard(|| self.window(records, session, config, options));
            if let Some(source) = self.write_error.take() {
                if source.kind() == io::ErrorKind::BrokenPipe {
                    return Ok(End::PipeClosed);
                }
                return Err(CliError::File { action: "write", path: self.output.clone(), source });
            }
            if self.interrupt.was_asked() {
                return Ok(End::Interrupted);
            }
            result?;
            if self.reader.total().is_some() {
                return Ok(End::Done);
            }
            window = window.saturating_mul(2).min(largest);
        }
    }

    fn window(
        &mut self,
        records: Vec<Record>,
        session: &mut Session,
        config: &GenerationConfig,
        options: &RunOptions,
    ) -> Result<(), EngineError> {
        let mut requests = Vec::with_capacity(records.len());
        let mut origins = Vec::with_capacity(records.len());
        for Record { index, line, id, content } in records {
            let origin = Origin { index, line, id };
            match content {
                Ok(Content::Run(input)) => {
                    requests.push(Request { ordinal: index, input });
                    origins.push(origin);
                }
                Ok(Content::Empty) => self.finish(&origin, &Outcome::Empty),
                Err(message) => self.finish(&origin, &Outcome::Failed(message)),
            }
        }
        if requests.is_empty() || self.interrupt.is_cancelled() {
            return Ok(());
        }
        let interrupt = Arc::clone(&self.interrupt);
        session.generate(&requests, config, options, interrupt.cancel_flag(), &mut |request, result| {
            if let Some(origin) = origins.get(request) {
                self.take(origin, result);
            }
        })
    }

    fn take(&mut self, origin: &Origin, result: Result<Generation, EngineError>) {
        match result {
            Ok(generation) => self.finish(origin, &Outcome::Done(generation)),
            // Not reached; why is told once, at the end of the run.
            Err(EngineError::Cancelled | EngineError::Batch(_)) => {}
            Err(error) => {
                let message = name_flags(&one_line(&error), &self.typed).0;
                self.finish(origin, &Outcome::Failed(message));
            }
        }
    }

    fn finish(&mut self, origin: &Origin, outcome: &Outcome) {
        if self.write_error.is_some() {
            return;
        }
        if let Outcome::Failed(message) = outcome {
            self.failed += 1;
            self.console.error(&format!("{}: {message}", self.reader.place(origin.line)));
        }
        self.console.finished_one();
        if let Err(error) = self.writer.put(origin.index, &origin.id, outcome) {
            self.write_error = Some(error);
            self.interrupt.cancel();
        }
    }
}
