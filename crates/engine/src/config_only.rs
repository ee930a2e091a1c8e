//! A model's `config.json` alone: enough for everything but its texts.

use std::path::Path;

use elgen_models::{GenerationDefaults, ModelConfig, ModelError, files};
use elgen_search::GenerationOptions;
use serde_json::{Map, Value};

use crate::error::EngineError;

/// Far above any config; keeps a mistaken file from being read into memory.
const MAX_CONFIG: u64 = 64 << 20;

/// A model of a size: its configuration and the generation options that this implies.
#[derive(Clone, Debug)]
pub struct ConfigOnly {
    pub(crate) config: ModelConfig,
    pub(crate) options: GenerationOptions,
}

impl ConfigOnly {
    /// Reads a config file of any name.
    ///
    /// # Errors
    /// A file that cannot be read, is no regular file, is damaged, or describes a model that is not supported.
    pub fn read(path: &Path) -> Result<Self, EngineError> {
        let unusable = |source| ModelError::Io { file: path.into(), source };
        let bytes = files::read_regular(path, MAX_CONFIG).map_err(unusable)?;
        let text = String::from_utf8(bytes).map_err(|error| unusable(std::io::Error::other(error.utf8_error())))?;
        Self::parse(&text, path)
    }

    /// Reads the text of a config file; `path` is named in errors.
    ///
    /// # Errors
    /// As [`ConfigOnly::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, EngineError> {
        let map: Map<String, Value> = serde_json::from_str(text)
            .map_err(|error| ModelError::Json { file: path.into(), reason: error.to_string() })?;
        let config = ModelConfig::from_map(&map, path)?;
        let defaults = GenerationDefaults::from_config_map(&map, path, &config)?;
        let options = GenerationOptions::from_checkpoint(&defaults.options)
            .map_err(|source| EngineError::CheckpointOptions { file: path.display().to_string(), source })?;
        Ok(Self { config, options })
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The generation options of the file and of its family's class.
    pub fn options(&self) -> &GenerationOptions {
        &self.options
    }
}
