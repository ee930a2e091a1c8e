//! What `elgen inspect` tells about a model directory, without a device.

use std::collections::BTreeMap;
use std::path::Path;

use elgen_attention::{CacheFormat, CacheLayout, Kind, Kinds, Shape};
use elgen_models::{Checkpoint, GenerationDefaults, ModelConfig, Tokenizer};
use serde::Serialize;

use crate::error::EngineError;

/// A model directory, described.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Inspection {
    /// `model_type` of config.json.
    pub family: String,
    /// Encoder layers; 0 for decoder-only models.
    pub encoder_layers: usize,
    /// Decoder layers.
    pub decoder_layers: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Heads of an encoder layer.
    pub encoder_heads: usize,
    /// Heads of a decoder layer.
    pub decoder_heads: usize,
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Longest sequence, in tokens; `None` if the positions do not limit it.
    pub positions: Option<usize>,
    /// Whether the config ties embeddings and head.
    pub tied_embeddings: bool,
    /// Parameters that the config implies, tied tables counted once.
    pub parameters: u64,
    /// Whether the directory holds a tokenizer.
    pub tokenizer: bool,
    /// Why the directory's tokenizer cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer_error: Option<String>,
    /// Ids of that tokenizer.
    pub tokenizer_ids: Option<usize>,
    /// Weight files.
    pub files: Vec<InspectedFile>,
    /// Tensors in the files, by stored type.
    pub tensors: BTreeMap<String, u64>,
    /// Where the generation options come from.
    pub generation_source: String,
    /// The generation options.
    pub generation: serde_json::Map<String, serde_json::Value>,
    /// Cache bytes by attention kind, in f32; f16 takes half.
    pub cache_bytes_f32: BTreeMap<String, KindBytes>,
}

/// A weight file.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct InspectedFile {
    /// File name.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Tensors in it.
    pub tensors: usize,
}

/// What a kind caches.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct KindBytes {
    /// For each decoder position of one hypothesis, over all layers.
    pub per_decoder_token: u64,
    /// For each source position, over all layers (`mha-replicated`: for each beam).
    pub per_source_token: Option<u64>,
}

/// Reads a model directory.
///
/// # Errors
/// A directory that is incomplete, damaged or not supported.
pub fn inspect(model_dir: &Path) -> Result<Inspection, EngineError> {
    let config = ModelConfig::load(model_dir)?;
    let checkpoint = Checkpoint::open(model_dir)?;
    let defaults = GenerationDefaults::load(model_dir, &config)?;
    let (tokenizer, tokenizer_error) = match Tokenizer::load(model_dir, config.family().tokenizer) {
        Ok(tokenizer) => (tokenizer, None),
        Err(error) => (None, Some(error.to_string())),
    };
    let summary = config.summary();
    let mut tensors: BTreeMap<String, u64> = BTreeMap::new();
    for name in checkpoint.names() {
        if let Some(info) = checkpoint.info(name) {
            *tensors.entry(info.dtype.to_string()).or_default() += 1;
        }
    }
    Ok(Inspection {
        family: config.family().model_type.into(),
        encoder_layers: summary.encoder_layers,
        decoder_layers: summary.decoder_layers,
        d_model: summary.d_model,
        encoder_heads: summary.encoder_heads,
        decoder_heads: summary.decoder_heads,
        vocab_size: summary.vocab_size,
        positions: summary.positions,
        tied_embeddings: summary.tied,
        parameters: config.parameters()?,
        tokenizer: tokenizer.is_some(),
        tokenizer_error,
        tokenizer_ids: tokenizer.as_ref().map(Tokenizer::vocab_size),
        files: checkpoint
            .files()
            .into_iter()
            .map(|f| InspectedFile {
                name: f.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
                bytes: f.bytes,
                tensors: f.tensors,
            })
            .collect(),
        tensors,
        generation_source: defaults
            .source
            .path()
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default(),
        generation: defaults.options,
        cache_bytes_f32: Kind::BUILT_IN
            .into_iter()
            .filter(|kind| config.family().is_encoder_decoder || !kind.needs_encoder())
            .map(|kind| (kind.name().to_owned(), kind_bytes(&config, kind)))
            .collect(),
    })
}

fn kind_bytes(config: &ModelConfig, kind: Kind) -> KindBytes {
    let summary = config.summary();
    let shape = Shape::new(summary.d_model, summary.decoder_heads, summary.head_dim, 1.0);
    let cross_shape = config.family().is_encoder_decoder.then_some(shape);
    let (layers, kinds, format) = (summary.decoder_layers, Kinds::both(kind), CacheFormat::F32);
    let layout = CacheLayout { layers, kinds, self_shape: shape, cross_shape, format };
    KindBytes {
        per_decoder_token: layout.self_slot_bytes(),
        per_source_token: cross_shape.map(|_| layout.cross_slot_bytes()),
    }
}
