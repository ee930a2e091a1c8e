//! Where results go, what stands there already, and what a later run must agree with to continue it.

use std::{io::Write, path::Path};

use elgen_engine::{AttentionChoice, Metrics};
use elgen_search::GenerationOptions;
use serde_json::{Value, json};

use crate::{
    console::Console,
    error::CliError,
    files,
    flags::{GenerateArgs, flag},
    input::{Changed, RecordFormat, RecordReader},
    output::Layout,
    resume::{self, Found, Output, Setup},
    survey::Survey,
};

/// An open output and its state.
pub(super) struct Target {
    pub(super) sink: Box<dyn Write>,
    /// The output, if it is a file.
    pub(super) output: Option<Output>,
}

impl Target {
    /// Opens the output of a run, or continues what was found of it with the first record of `reader` that is not in it.
    ///
    /// # Errors
    /// The output cannot be written, or not be continued.
    pub(super) fn open(
        arguments: &GenerateArgs,
        found: Found,
        setup: Option<&Setup>,
        layout: Layout,
        reader: &mut RecordReader,
        console: &Console,
    ) -> Result<Target, CliError> {
        let Some(path) = files::output_path(arguments) else {
            return Ok(Target { sink: files::results(), output: None });
        };
        let output = match (found, setup) {
            (Found::Part(part), Some(setup)) => part.go_on(setup, layout.lines_per_record())?,
            _ => {
                let (output, warning) = resume::start(path, setup, layout.lines_per_record())?;
                if let Some(warning) = warning {
                    console.warning(&warning);
                }
                output
            }
        };
        skip_done(reader, output.records(), path)?;
        Ok(Target { sink: Box::new(output.clone()), output: Some(output) })
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

/// Ends a run that has written all of its records: brings an output to the disk, unless the input is not what the run began with.
///
/// # Errors
/// The input was changed, or the output removed, while the run went on; the system refuses.
pub(super) fn complete(
    output: &Output,
    input: Option<(&Survey, &Path)>,
    reader: &RecordReader,
    console: &Console,
) -> Result<(), CliError> {
    match input.and_then(|(survey, path)| reader.changed_since(survey, path)) {
        Some(Changed::Content(how)) => {
            output.interrupted()?;
            return Err(CliError::Failed(format!("{} {how}; the output is not complete", reader.name())));
        }
        Some(Changed::Name(how)) => console.warning(&format!("{}: {how}; all of it was read", reader.name())),
        None => {}
    }
    if let Some(warning) = output.complete()? {
        console.warning(&warning);
    }
    Ok(())
}

/// Reads the input once, for its identity and its number of records.
pub(super) fn survey(input: &Path, format: RecordFormat) -> Result<Survey, CliError> {
    Survey::of_file(input, format).map_err(|source| CliError::File { action: "read", path: input.to_owned(), source })
}

/// Where a setup has the attention kinds in use.
const KINDS: &str = "the attention kinds";

/// Where it has the device.
const DEVICE: &str = "the device";
/// What of a setup is known once the model is loaded.
const LATER: [&str; 2] = [KINDS, DEVICE];

/// What `--resume` goes on from.
///
/// # Errors
/// There is an output from which it cannot go on.
pub(super) fn find(arguments: &GenerateArgs, setup: Option<&Setup>, console: &Console) -> Result<Found, CliError> {
    let (Some(setup), Some(path), Some(true)) = (setup, files::output_path(arguments), arguments.files.resume) else {
        return Ok(Found::Nothing(None));
    };
    let found = resume::examine(path, setup, &LATER)?;
    match &found {
        Found::Nothing(Some(notice)) => console.warning(notice),
        Found::Part(part) => part.notice.iter().for_each(|notice| console.warning(notice)),
        Found::Nothing(None) | Found::Complete { .. } => {}
    }
    Ok(found)
}

/// The kinds that `--attention auto` had chosen for the run that is to be continued, whatever it would choose now: memory may have
/// become short, or the batch size another one.
pub(super) fn kinds_to_continue(found: &Found) -> Option<AttentionChoice> {
    let Found::Part(part) = found else { return None };
    let kinds = part.setup().get(KINDS)?;
    AttentionChoice::of_names(kinds.get(0)?.as_str()?, kinds.get(1)?.as_str())
}

/// Adds to a setup what is known once the model is loaded.
pub(super) fn add_loaded(setup: &mut Setup, metrics: &Metrics) {
    setup.set(DEVICE, json!(format!("{}, {}", metrics.device, metrics.driver)));
    // Scores of two kinds differ in their last digits.
    setup.set(KINDS, json!([metrics.attention.self_, metrics.attention.cross]));
}

/// What has a part in the bytes of the output, as far as it is known before the model is loaded.
pub(super) fn setup(
    arguments: &GenerateArgs,
    survey: &Survey,
    input_format: RecordFormat,
    layout: Layout,
    options: &GenerationOptions,
) -> Result<Setup, CliError> {
    let mut setup = Setup::default();
    setup.set("elgen's version", json!(env!("CARGO_PKG_VERSION")));
    setup.set_input(survey);
    setup.set_model(&arguments.model).map_err(|source| CliError::File {
        action: "read",
        path: arguments.model.clone(),
        source,
    })?;
    let (attention, dtype) = arguments.engine.kind_and_dtype();
    setup.set("--attention", json!(attention));
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
    setup.set("--max-text-bytes", json!(arguments.engine.max_text_bytes()));
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
