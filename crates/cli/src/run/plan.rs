//! What a run will do, settled before its model is loaded: whatever can be refused is refused here.

use std::{path::PathBuf, sync::Arc};

use elgen_engine::{AttentionChoice, ModelDescription, Registry, RunOptions, Session, SessionOptions, describe};
use elgen_models::Tokenizer;
use elgen_search::{GenerationConfig, GenerationOptions};

use super::{
    agreement::{self, Typed},
    expect::expected,
    looks, named, needs,
};
use crate::{
    asked::Asked,
    console::{Console, tell_measurement},
    error::{CliError, load_error, one_line},
    files,
    flags::{GenerateArgs, LanguageFlags, Names},
    input::{RecordFormat, RecordReader, Survey},
    interrupt::Interrupt,
    model::resolve_model,
    output::{Layout, OutputFormat},
    print_config::print_config,
    resume::{Found, Setup},
};

/// What came of the check of a command line.
pub(super) enum Checked {
    /// There is something to run.
    Run(Box<Plan>),
    /// Nothing is left to do; the exit code.
    Ended(u8),
}

/// A run that nothing speaks against.
pub(super) struct Plan {
    pub(super) work: Work,
    pub(super) input: Input,
    pub(super) output: Destination,
    pub(super) reports: Reports,
    /// The tokenizer set to the languages that were typed, if any were.
    pub(super) tokenizer: Option<Tokenizer>,
    /// Flags that were typed and have no effect.
    pub(super) idle: Vec<&'static str>,
}

/// What the model is to do.
pub(super) struct Work {
    pub(super) model: ModelDescription,
    /// How it is loaded.
    pub(super) load: SessionOptions,
    pub(super) config: GenerationConfig,
    pub(super) options: RunOptions,
    /// Names of the options that were typed.
    pub(super) typed: Names,
    /// Records that are read before the first batch runs.
    pub(super) first_window: usize,
    pub(super) interrupt: Arc<Interrupt>,
}

/// Where records come from.
pub(super) struct Input {
    pub(super) reader: RecordReader,
    /// The one file that was counted beforehand because the run can be continued.
    pub(super) surveyed: Option<(PathBuf, Survey)>,
    /// Records, if they could be counted.
    pub(super) total: Option<u64>,
    /// What outputs must begin with, where a record says nothing else.
    pub(super) prefix: Option<String>,
    /// What stands before each source text.
    pub(super) source_prefix: Option<String>,
}

/// Where results go.
pub(super) struct Destination {
    /// The file; `None` is stdout.
    pub(super) path: Option<PathBuf>,
    pub(super) layout: Layout,
    /// Texts are written while they grow; whether behind their inputs.
    pub(super) stream: Option<Echo>,
    /// What a later run must agree with, if one can continue this.
    pub(super) setup: Option<Setup>,
    /// What an earlier run left.
    pub(super) found: Found,
}

/// Whether an input stands before its continuation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Echo(pub(super) bool);

/// What is told besides the results.
pub(super) struct Reports {
    pub(super) progress: bool,
    pub(super) stats: bool,
    pub(super) stats_json: Option<PathBuf>,
}

impl Plan {
    /// Checks a command line against its files and its model's configuration, and downloads a model that is not there. No weight is
    /// read and nothing is written.
    ///
    /// # Errors
    /// Whatever is known to be in the way.
    pub(super) fn check(arguments: GenerateArgs, registry: &Registry, console: &Console) -> Result<Checked, CliError> {
        files::warn_of_file_texts(&arguments.texts, console);
        let mut uses = named::uses(&arguments)?;
        uses.check()?;
        let GenerateArgs { model, texts, files, languages, generation, engine, hub, report } = arguments;
        named::check_resume(&files)?;
        let (reader, inputs) = named::open_input(texts, &files)?;
        looks::check_raw(&files)?;
        // Before interrupts are caught: one ends a download, and the next run resumes it.
        let quiet = report.quiet == Some(true);
        let dir = resolve_model(&model, &hub, console, quiet)?;
        uses.reads_model(&dir);
        uses.check()?;
        let mut asked = Asked::gather(&generation)?;
        let model = describe(&dir)?;
        let tokenizer = set_languages(&languages, &model, engine.max_text_bytes(), &mut asked)?;
        let (config, options) = asked.resolve(&model, console)?;
        looks::check_alignment(&files, &model)?;
        if report.print_config == Some(true) {
            return print_config(&model, &asked, &options, files.format).map(Checked::Ended);
        }
        let interrupt = Interrupt::install();
        let typed = asked.names().clone();
        let streams = files.stream == Some(true);
        if streams {
            looks::check_stream(&files, &config, &typed)?;
        }
        let look = looks::look(&files, &model)?;
        let layout = Layout { raw: look.raw, ..looks::layout(&files, &config) };
        let path = named::output_path(&files);
        // A bar would run into the lines that are typed.
        let seen = path.is_none() || reader.waits_for_terminal();
        let progress = console.shows_progress(report.progress, seen);
        let surveyed = match &inputs[..] {
            [input] if named::is_resumable(&files, &inputs) => {
                Some((input.clone(), named::survey(input, reader.format())?))
            }
            _ => None,
        };
        let total = match &surveyed {
            Some((_, survey)) => Some(survey.records),
            None if progress => named::total(&files, &inputs, reader.format())?,
            None => None,
        };
        let flags = Typed { files: &files, engine: &engine, languages: &languages };
        let setup = match &surveyed {
            Some((_, survey)) => Some(agreement::setup(&dir, &flags, survey, reader.format(), layout, &options)?),
            None => None,
        };
        let found = agreement::find(&files, setup.as_ref(), console)?;
        if let (Found::Complete { records, failed }, Some(path)) = (&found, path) {
            let failures = if *failed > 0 { format!(", {failed} of which failed") } else { String::new() };
            console.note(&format!("{} is already complete: {records} records{failures}", path.display()));
            return Ok(Checked::Ended(u8::from(*failed > 0)));
        }
        let mut load = engine.session_options(registry, expected(&files, &config, &inputs, reader.texts()));
        if load.attention == AttentionChoice::Auto {
            load.attention = agreement::kinds_to_continue(&found, registry).unwrap_or(AttentionChoice::Auto);
        }
        if !quiet {
            load.on_measurement = tell_measurement;
        }
        let options = RunOptions::default()
            .with_truncate(files.truncate == Some(true))
            .with_max_source_length(files.max_source_length)
            .with_alignment(files.alignment)
            .with_stream(streams)
            .with_cancel(interrupt.cancel_token());
        let idle = looks::idle_flags(&files, &engine, layout);
        let path = path.map(ToOwned::to_owned);
        let first_window = engine.first_window();
        Ok(Checked::Run(Box::new(Plan {
            work: Work { model, load, config, options, typed, first_window, interrupt },
            input: Input {
                reader,
                surveyed,
                total,
                prefix: files.prefix,
                source_prefix: files.source_prefix.filter(|prefix| !prefix.is_empty()),
            },
            output: Destination { path, layout, stream: streams.then_some(Echo(look.echo)), setup, found },
            reports: Reports { progress, stats: report.stats == Some(true), stats_json: report.stats_json },
            tokenizer,
            idle,
        })))
    }

    /// Loads the model.
    ///
    /// # Errors
    /// It cannot be loaded, or has no tokenizer where one is needed.
    pub(super) fn load(&mut self, console: &Console) -> Result<Session, CliError> {
        let Work { model, load, .. } = &self.work;
        let session = Session::load_described(model, self.tokenizer.take(), load)
            .map_err(load_error)
            .map_err(|error| self.work.name_need(error))?;
        check_tokenizer(&session, model, self.input.reader.format(), self.output.layout.format)?;
        self.idle.iter().for_each(|idle| console.warning(idle));
        Ok(session)
    }
}

impl Work {
    /// Adds to an error of memory what would do.
    pub(super) fn name_need(&self, error: CliError) -> CliError {
        match error {
            CliError::Engine(error) if needs::is_short(&error) => {
                let cause = one_line(&error);
                CliError::Failed(match self.least_memory() {
                    Some(least) => format!("{cause}; this run needs at least {least} (elgen plan has the sums)"),
                    None => format!("{cause}; elgen plan tells what a run needs"),
                })
            }
            other => other,
        }
    }

    /// The smallest memory limit that does, in words; `None` where that cannot be told.
    pub(super) fn least_memory(&self) -> Option<String> {
        needs::least(&self.model.config, &self.load, &self.config)
    }
}

fn check_tokenizer(
    session: &Session,
    model: &ModelDescription,
    input: RecordFormat,
    output: OutputFormat,
) -> Result<(), CliError> {
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
    Err(CliError::Usage(format!("{} has no tokenizer; {wanted}", model.dir().display())))
}

/// The tokenizer set to the languages that were typed, if any; what they ask of generation is asked for as the user's own options
/// are, behind those.
fn set_languages(
    languages: &LanguageFlags,
    model: &ModelDescription,
    max_text_bytes: usize,
    asked: &mut Asked,
) -> Result<Option<Tokenizer>, CliError> {
    let Some((tokenizer, tokens)) = languages.open_tokenizer(model, max_text_bytes)? else { return Ok(None) };
    asked.add_languages(GenerationOptions {
        decoder_start_token_id: tokens.decoder_start_token_id,
        forced_bos_token_id: tokens.forced_bos_token_id,
        ..GenerationOptions::default()
    });
    Ok(Some(tokenizer))
}
