//! What a model directory says of its model, read before any weight.

use std::path::{Path, PathBuf};

use elgen_models::{GenerationDefaults, GenerationSource, ModelConfig};
use elgen_search::{GenerationOptions, ModelLimits};
use serde_json::{Map, Value};

use crate::error::EngineError;

/// What generation options are resolved against, known without loading the weights.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ModelDescription {
    /// Vocabulary, positions, and whether there is an encoder.
    pub limits: ModelLimits,
    /// The generation options of `generation_config.json`, or of `config.json` where there is none.
    pub checkpoint_options: GenerationOptions,
    /// The model's configuration.
    pub config: ModelConfig,
    dir: PathBuf,
    /// The fields of `config.json`, if the generation options are taken from there.
    fields: Option<Map<String, Value>>,
}

/// Where a checkpoint's own generation option comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptionSource {
    /// `generation_config.json`.
    GenerationConfig,
    /// `config.json`.
    ModelConfig,
    /// The family's config class.
    ClassDefault,
}

impl ModelDescription {
    /// The model's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where an option of [`ModelDescription::checkpoint_options`] comes from.
    pub fn source_of(&self, option: &str) -> OptionSource {
        match &self.fields {
            None => OptionSource::GenerationConfig,
            Some(fields) if fields.get(option).is_some_and(|value| !value.is_null()) => OptionSource::ModelConfig,
            Some(_) => OptionSource::ClassDefault,
        }
    }
}

/// Reads the configuration of a model directory, so that options can be checked before the weights are loaded.
///
/// # Errors
/// A configuration that is missing, damaged or not supported.
pub fn describe(model_dir: &Path) -> Result<ModelDescription, EngineError> {
    let (config, fields) = ModelConfig::load_with_fields(model_dir)?;
    let defaults = GenerationDefaults::load_beside(model_dir, &fields, &config)?;
    let checkpoint_options = GenerationOptions::from_checkpoint(&defaults.options).map_err(|source| {
        EngineError::CheckpointOptions { file: defaults.source.path().display().to_string(), source }
    })?;
    let limits = ModelLimits {
        vocab_size: config.vocab_size(),
        max_position_embeddings: config.max_positions(),
        is_encoder_decoder: config.family().is_encoder_decoder,
    };
    let fields = matches!(defaults.source, GenerationSource::ModelConfig(_)).then_some(fields);
    Ok(ModelDescription { limits, checkpoint_options, config, dir: model_dir.to_owned(), fields })
}
