//! `elgen pull`: brings models from the hub into the cache.

use elgen_engine::hub::ModelName;

use crate::{error::CliError, flags::PullArgs};

/// Runs `elgen pull`; returns the exit code.
pub(crate) fn pull(arguments: &PullArgs) -> Result<u8, CliError> {
    if let Some(name) = arguments.models.iter().find(|name| ModelName::parse(name).is_none()) {
        return Err(CliError::Usage(format!(
            "{}: not a model's name on the hub, as OWNER/NAME or OWNER/NAME@REV",
            name.escape_debug()
        )));
    }
    if arguments.hub.offline {
        return Err(CliError::Usage("--offline: pull downloads".to_owned()));
    }
    fetch(arguments)
}

#[cfg(feature = "hub")]
fn fetch(arguments: &PullArgs) -> Result<u8, CliError> {
    use std::path::Path;

    use elgen_engine::hub::{HubOptions, fetch_model};

    use crate::{
        console::Console,
        download::{Downloads, hub_error},
        print_report,
    };

    let environment = HubOptions::from_env();
    if environment.offline {
        return Err(CliError::Failed("HF_HUB_OFFLINE is set: nothing is downloaded".to_owned()));
    }
    let options = HubOptions { revision: arguments.hub.revision.clone(), refresh: true, ..environment };
    let console = Console::new(arguments.quiet.unwrap_or(false));
    // A revision that does not go with a name is told before anything is downloaded.
    for name in &arguments.models {
        options.check(name).map_err(hub_error)?;
    }
    let mut code = 0;
    for name in &arguments.models {
        let mut downloads = Downloads::new(&console, arguments.quiet.unwrap_or(false));
        let result = fetch_model(name, &options, &mut |event| downloads.show(event));
        downloads.end();
        match result.map_err(hub_error) {
            Ok(dir) => {
                let dir: &Path = dir.as_ref();
                print_report(&format!("{}\n", dir.display()))?;
            }
            Err(error) if arguments.models.len() == 1 => return Err(error),
            Err(error) => {
                console.error(&error.to_string());
                code = error.exit_code();
            }
        }
    }
    Ok(code)
}

#[cfg(not(feature = "hub"))]
fn fetch(arguments: &PullArgs) -> Result<u8, CliError> {
    let name = arguments.models.first().map_or("", String::as_str);
    Err(CliError::Usage(format!(
        "pull {name}: this elgen cannot download from the hub; build it with `--features hub`"
    )))
}
