//! Where results go, what stands there already, and what a later run must agree with to continue it.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
};

use elgen_engine::{AttentionChoice, Metrics};
use elgen_search::GenerationOptions;
use serde_json::{Value, json};

use crate::{
    console::Console,
    error::CliError,
    files,
    flags::{GenerateArgs, flag},
    input::{RecordFormat, RecordReader},
    output::Layout,
    resume::{self, Journal, Setup},
    survey::Survey,
};

/// An open output and its state.
pub(super) struct Target {
    pub(super) sink: Box<dyn Write>,
    /// The output, if it is a file.
    pub(super) file: Option<File>,
    /// The journal of a run that can be continued.
    pub(super) journal: Option<Journal>,
    /// Records that stand in the output.
    pub(super) records: u64,
    /// Those of them that failed.
    pub(super) failed: u64,
}

impl Target {
    /// Opens the output of a run, or continues it with the first record of `reader` that is not in it.
    ///
    /// # Errors
    /// The output cannot be written, or not be continued.
    pub(super) fn open(
        arguments: &GenerateArgs,
        setup: Option<&Setup>,
        layout: Layout,
        reader: &mut RecordReader,
        console: &Console,
    ) -> Result<Target, CliError> {
        let Some(path) = files::output_path(arguments) else {
            return Ok(Target { sink: Box::new(io::stdout()), file: None, journal: None, records: 0, failed: 0 });
        };
        let opened = match setup {
            Some(setup) if arguments.files.resume == Some(true) => {
                resume::resume(path, setup, layout.lines_per_record())?
            }
            _ => resume::start(path, setup)?,
        };
        if let Some(warning) = &opened.warning {
            console.warning(warning);
        }
        let sink = opened.file.try_clone().map_err(|source| CliError::File {
            action: "write",
            path: path.to_owned(),
            source,
        })?;
        skip_done(reader, opened.records, path)?;
        let resume::OutputFile { file, journal, records, failed, .. } = opened;
        Ok(Target { sink: Box::new(sink), file: Some(file), journal, records, failed })
    }
}

/// Passes over the inputs whose results stand in the output.
fn skip_done(reader: &mut RecordReader, records: u64, output: &Path) -> Result<(), CliError> {
    let skipped =
        reader.skip(records).map_err(|source| CliError::File { action: "read", path: reader.name().into(), source })?;
    if skipped < records {
        return Err(CliError::Failed(format!(
            "--resume: {} holds {records} records, {} only {skipped}; run without --resume to start anew",
            output.display(),
            reader.name()
        )));
    }
    Ok(())
}

/// Brings a complete output to the disk and removes its journal.
///
/// # Errors
/// The system refuses either.
pub(super) fn complete(journal: Journal, file: &File, output: &Path) -> Result<(), CliError> {
    file.sync_all().map_err(|source| CliError::File { action: "write", path: output.to_owned(), source })?;
    let path = journal.path().to_owned();
    journal.remove().map_err(|source| CliError::File { action: "remove", path, source })
}

/// Reads the input once, for its identity and its number of records.
pub(super) fn survey(input: &Path, format: RecordFormat) -> Result<Survey, CliError> {
    Survey::of_file(input, format).map_err(|source| CliError::File { action: "read", path: input.to_owned(), source })
}

/// Where a setup has the attention kinds in use.
const KINDS: &str = "the attention kinds";

/// The kinds that `--attention auto` had chosen for the run that is to be continued, whatever it would choose now: memory may have
/// become short, or the batch size another one.
pub(super) fn kinds_to_continue(arguments: &GenerateArgs) -> Option<AttentionChoice> {
    if arguments.files.resume != Some(true) {
        return None;
    }
    let written = Journal::setup_at(&Journal::path_of(files::output_path(arguments)?))?;
    let kinds = written.get(KINDS)?;
    AttentionChoice::of_names(kinds.get(0)?.as_str()?, kinds.get(1)?.as_str())
}

/// What has a part in the bytes of the output.
pub(super) fn setup(
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
    // Scores of two kinds differ in their last digits.
    setup.set(KINDS, json!([metrics.attention.self_, metrics.attention.cross]));
    setup.set("--dtype", json!(dtype));
    setup.set("--input-format", json!(input_format.name()));
    setup.set("--format", json!(layout.format.name()));
    setup.set("--with-scores", json!(layout.with_scores));
    setup.set("--token-logprobs", json!(layout.token_logprobs));
    setup.set("--alignment", json!(arguments.files.alignment));
    setup.set("--prefix", json!(arguments.files.prefix));
    setup.set("--source-prefix", json!(arguments.files.source_prefix));
    setup.set("--src-lang", json!(arguments.languages.src_lang));
    setup.set("--tgt-lang", json!(arguments.languages.tgt_lang));
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
