//! `--config` of `bench` and `plan`: a file, or the name of a config that is built in.

use std::{fs, io, path::Path};

use elgen_engine::{
    ConfigOnly,
    bench::{BUILTIN_CONFIGS, builtin_config, scaled_config},
};

use crate::{
    error::CliError,
    files::{MAX_OPTIONS_BYTES, read_text},
    suggest::did_you_mean,
};

/// Whether a config is built in and no file has its name.
pub(crate) fn is_builtin(name: &str) -> bool {
    BUILTIN_CONFIGS.iter().any(|(known, _)| *known == name) && !Path::new(name).is_file()
}

/// The config of this name, or of the file of this name, `scale` times narrower.
pub(crate) fn read(name: &str, scale: usize) -> Result<ConfigOnly, CliError> {
    if is_builtin(name) {
        return Ok(builtin_config(name, scale)?);
    }
    let path = Path::new(name);
    if fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        && !looks_like_a_file(name)
    {
        let known = BUILTIN_CONFIGS.map(|(known, _)| known);
        let hint = did_you_mean(name, known);
        let known = known.join(", ");
        let reason = format!("no such file, and no built-in config{hint}; there are {known}");
        return Err(CliError::Failed(format!("--config {name}: {reason}")));
    }
    Ok(scaled_config(&read_text(path, MAX_OPTIONS_BYTES)?, path, scale)?)
}

/// Nobody calls a built-in config by a path.
fn looks_like_a_file(name: &str) -> bool {
    name.contains(std::path::is_separator) || Path::new(name).extension().is_some_and(|found| found == "json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str) -> String {
        crate::error::one_line(&read(name, 1).unwrap_err())
    }

    #[test]
    fn names_and_files() {
        assert!(is_builtin("bart-base") && !is_builtin("bart-bse"));
        for (name, _) in BUILTIN_CONFIGS {
            assert!(read(name, 1).is_ok(), "{name}");
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        fs::write(&file, r#"{"model_type": "gpt2", "vocab_size": 64}"#).unwrap();
        assert_eq!(read(&file.display().to_string(), 1).unwrap().config().family().model_type, "gpt2");
    }

    #[test]
    fn a_wrong_name_lists_those_that_there_are() {
        let message = refused("bart-bse");
        assert!(
            message.contains("--config bart-bse: ") && message.contains("(did you mean bart-base?); there are"),
            "{message}"
        );
        assert!(BUILTIN_CONFIGS.iter().all(|(name, _)| message.contains(name)), "{message}");
        let message = refused("opt");
        assert!(message.contains("no built-in config; there are bart-large, "), "{message}");
        for file in ["no/bart-base", "config.json"] {
            assert!(refused(file).starts_with(&format!("cannot read {file}: ")), "{}", refused(file));
        }
    }
}
