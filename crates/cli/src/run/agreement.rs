//! What a later run must agree with to continue an output, and what an earlier one left to continue.

use std::path::Path;

use elgen_engine::{AttentionChoice, Metrics, Registry};
use elgen_search::GenerationOptions;
use serde_json::{Value, json};

use super::named::output_path;
use crate::{
    console::Console,
    error::CliError,
    flags::{EngineFlags, FileFlags, LanguageFlags, flag},
    input::{RecordFormat, Survey},
    output::Layout,
    resume::{self, Found, Setup},
};

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
pub(super) fn find(files: &FileFlags, setup: Option<&Setup>, console: &Console) -> Result<Found, CliError> {
    let (Some(setup), Some(path), Some(true)) = (setup, output_path(files), files.resume) else {
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
pub(super) fn kinds_to_continue(found: &Found, registry: &Registry) -> Option<AttentionChoice> {
    let Found::Part(part) = found else { return None };
    let kinds = part.setup().get(KINDS)?;
    registry.choice(kinds.get(0)?.as_str()?, kinds.get(1)?.as_str())
}

/// Adds to a setup what is known once the model is loaded.
pub(super) fn add_loaded(setup: &mut Setup, metrics: &Metrics) {
    setup.set(DEVICE, json!(format!("{}, {}", metrics.device, metrics.driver)));
    // Scores of two kinds differ in their last digits.
    setup.set(KINDS, json!([metrics.attention.self_, metrics.attention.cross]));
}

/// The flags that have a part in the bytes of an output.
pub(super) struct Typed<'a> {
    pub(super) files: &'a FileFlags,
    pub(super) engine: &'a EngineFlags,
    pub(super) languages: &'a LanguageFlags,
}

/// What has a part in the bytes of the output, as far as it is known before the model is loaded.
pub(super) fn setup(
    model: &Path,
    typed: &Typed<'_>,
    survey: &Survey,
    input_format: RecordFormat,
    layout: Layout,
    options: &GenerationOptions,
) -> Result<Setup, CliError> {
    let Typed { files, engine, languages } = typed;
    let mut setup = Setup::default();
    setup.set("elgen's version", json!(env!("CARGO_PKG_VERSION")));
    setup.set_input(survey);
    let unreadable = |source| CliError::File { action: "read", path: model.to_owned(), source };
    setup.set_model(model).map_err(unreadable)?;
    let (attention, dtype) = engine.kind_and_dtype();
    setup.set("--attention", json!(attention));
    setup.set("--dtype", json!(dtype));
    engine.formats().typed().for_each(|(flag, format)| setup.set(flag, json!(format)));
    setup.set("--input-format", json!(input_format.name()));
    setup.set("--format", json!(layout.format.name()));
    setup.set("--with-scores", json!(layout.with_scores));
    setup.set("--token-logprobs", json!(layout.token_logprobs));
    setup.set("--alignment", json!(files.alignment));
    setup.set("--prefix", json!(files.prefix));
    setup.set("--source-prefix", json!(files.source_prefix));
    setup.set("--src-lang", json!(languages.src_lang));
    setup.set("--tgt-lang", json!(languages.tgt_lang));
    setup.set("--truncate", json!(files.truncate == Some(true)));
    setup.set("--max-text-bytes", json!(engine.max_text_bytes()));
    setup.set("--max-source-length", json!(files.max_source_length));
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
