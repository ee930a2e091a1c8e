//! From `--model` to a directory.

use std::{
    fs,
    path::{Path, PathBuf},
};

use elgen_engine::hub::ModelName;

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
        Ok(_) => "not a directory".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(CliError::Failed(format!("model directory {}: {reason}", model.display())))
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
