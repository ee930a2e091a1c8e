//! What can go wrong with `config.json`.

use elgen_tensor::ErrorKind;
use std::path::PathBuf;

/// An error of a config file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The config names a model family that is not implemented.
    #[error("{file}: model_type {model_type} is not supported (supported: {supported})")]
    UnsupportedModelType {
        /// The config file.
        file: PathBuf,
        /// What it says, quoted; `(none)` where it says nothing.
        model_type: String,
        /// The supported values, separated by commas.
        supported: String,
    },
    /// A config value is absurd, of the wrong type, or contradicts another one.
    #[error("{file}: {key} = {value}: {why}")]
    Key {
        /// The config file.
        file: PathBuf,
        /// The key.
        key: String,
        /// Its value as JSON, shortened.
        value: String,
        /// What is wrong with it.
        why: String,
    },
}

impl ConfigError {
    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::UnsupportedModelType { .. } => ErrorKind::Unsupported,
            _ => ErrorKind::BadModel,
        }
    }
}
