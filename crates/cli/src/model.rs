//! From `--model` to a directory.

use std::{
    fs,
    path::{Path, PathBuf},
};

use elgen_engine::hub::ModelName;
use elgen_models::Families;

use crate::{console::Console, error::CliError, flags::HubFlags};

/// The directory of a model that was named: a directory, or a model on the hub, which is downloaded if need be.
pub(crate) fn resolve_model(model: &Path, hub: &HubFlags, console: &Console, quiet: bool) -> Result<PathBuf, CliError> {
    resolve(model, hub, console, quiet, false)
}

/// The same for who needs no weights: of a model on the hub that is not there yet, only its configuration is downloaded.
pub(crate) fn resolve_config(model: &Path, hub: &HubFlags, console: &Console) -> Result<PathBuf, CliError> {
    resolve(model, hub, console, true, true)
}

fn resolve(
    model: &Path,
    hub: &HubFlags,
    console: &Console,
    quiet: bool,
    config_only: bool,
) -> Result<PathBuf, CliError> {
    if model.is_dir() {
        if hub.revision.is_some() {
            console.warning(&format!("--revision: has no effect, {} is a directory", model.display()));
        }
        return Ok(model.to_owned());
    }
    if !model.exists()
        && let Some(name) = model.to_str().filter(|name| ModelName::parse(name).is_some())
    {
        return from_hub(name, hub, console, quiet, config_only);
    }
    let reason = match fs::metadata(model) {
        Ok(_) => "not a directory; give the one that the model's files are in".to_owned(),
        Err(error) if model.components().count() == 1 => {
            format!(
                "{error}; give a directory, or OWNER/NAME on the hub, e.g. {}",
                on_the_hub(&model.to_string_lossy())
            )
        }
        Err(error) => error.to_string(),
    };
    Err(CliError::Failed(format!("model directory {}: {reason}", model.display())))
}

/// What a model is called on the hub that people know by a name without an owner, or another one's name.
fn on_the_hub(name: &str) -> String {
    Families::built_in().hub_name(name).unwrap_or_else(|| "openai-community/gpt2".to_owned())
}

#[cfg(feature = "hub")]
fn from_hub(
    name: &str,
    hub: &HubFlags,
    console: &Console,
    quiet: bool,
    config_only: bool,
) -> Result<PathBuf, CliError> {
    use elgen_engine::hub::{HubOptions, resolve_model};

    use crate::download::{Downloads, hub_error};

    let environment = HubOptions::from_env();
    let options = HubOptions {
        revision: hub.revision.clone(),
        offline: hub.offline || environment.offline,
        config_only,
        ..environment
    };
    let mut downloads = Downloads::new(console, quiet);
    let result = resolve_model(name, &options, &mut |event| downloads.show(event));
    downloads.end();
    result.map_err(hub_error)
}

#[cfg(not(feature = "hub"))]
fn from_hub(name: &str, _: &HubFlags, _: &Console, _: bool, _: bool) -> Result<PathBuf, CliError> {
    Err(CliError::Usage(format!(
        "--model {name}: no such directory, and this elgen cannot download from the hub; build it with `--features hub`"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_an_owner() {
        for (name, expected) in [
            ("gpt2", "openai-community/gpt2"),
            ("gpt2-xl", "openai-community/gpt2-xl"),
            ("t5-small", "google-t5/t5-small"),
            ("flan-t5-base", "google/flan-t5-base"),
            ("bart-large-cnn", "facebook/bart-large-cnn"),
            ("opus-mt-en-de", "Helsinki-NLP/opus-mt-en-de"),
            ("nowhere", "openai-community/gpt2"),
        ] {
            assert_eq!(on_the_hub(name), expected);
            assert!(ModelName::parse(expected).is_some(), "{expected}");
        }
    }
}
