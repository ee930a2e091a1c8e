//! What a model family is: a row of the table of families, and the config of a model of it.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use elgen_attention::{Formats, Kinds};
use elgen_tensor::{Arena, DType, Tally, WeightFormat};

use crate::architecture::Architecture;
use crate::checkpoint::{Checkpoint, RandomRules};
use crate::config::{ConfigKeys, SpecialTokens, check_ids};
use crate::error::ModelError;
use crate::outline::Outline;
use crate::tokenizer::TokenizerClass;

/// A model family: how its directories are told from others, what its config class of transformers fixes, and how its configs are read.
pub struct Family {
    /// The value of `model_type` in `config.json`.
    pub model_type: &'static str,
    /// How the names of the family's classes begin (`architectures` in `config.json`), for files without a `model_type`.
    pub class_prefix: &'static str,
    /// Whether its models have an encoder.
    pub is_encoder_decoder: bool,
    /// The tokenizer class of a directory that names none.
    pub tokenizer: TokenizerClass,
    /// The special ids of a config that names none.
    pub special_tokens: fn() -> SpecialTokens,
    /// Keys of special ids that the config class does not declare: their values may have any type.
    pub undeclared_ids: &'static [&'static str],
    /// `forced_eos_token_id` of the config class, which acts where the file does not name the key.
    pub forced_eos: Option<u32>,
    /// A flag of older files that forces the first token to be BOS.
    pub forces_bos: Option<&'static str>,
    /// How the names of well-known models begin, and who publishes them on the Hugging Face hub.
    pub published: &'static [(&'static str, &'static str)],
    /// Reads the shape and the options of a model, all but special ids and dtype.
    pub read: fn(&ConfigKeys<'_>) -> Result<Arc<dyn FamilyConfig>, ModelError>,
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Family").field(&self.model_type).finish()
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.model_type)
    }
}

/// What the config of a family's model says, and how the model is loaded.
pub trait FamilyConfig: RandomRules + Any {
    /// The model at a glance.
    fn summary(&self) -> ModelSummary;

    /// Rows of the embedding table that reads the input: the encoder's, or that of a decoder-only model.
    fn source_vocab_size(&self) -> usize {
        self.summary().vocab_size
    }

    /// Shapes and caches of the model.
    fn outline(&self) -> Outline;

    /// Loads the weights onto a device, or counts them: what is asked for in the one case is asked for in the other. Equal layers are built by
    /// [`Arena::each`], of which a counting arena sees one.
    ///
    /// # Errors
    /// Tensors that are missing, misshapen or not finite; out of memory.
    fn load(&self, from: &LoadArgs<'_>) -> Result<Box<dyn Architecture>, ModelError>;
}

/// Where a model is loaded from, and how it is to lie on the device.
#[derive(Debug, Clone, Copy)]
pub struct LoadArgs<'a> {
    /// The row of the model's family.
    pub family: &'static Family,
    /// The device, or what counts.
    pub arena: &'a Arena,
    /// The weights.
    pub checkpoint: &'a Checkpoint,
    /// The attention kinds.
    pub kinds: Kinds,
    /// How matrices are stored, and what the caches of the model will be.
    pub formats: Formats,
}

/// What one wants to know about a model at a glance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSummary {
    /// Encoder layers; 0 for a decoder-only model.
    pub encoder_layers: usize,
    /// Decoder layers.
    pub decoder_layers: usize,
    /// Model width, in elements.
    pub d_model: usize,
    /// Attention heads of an encoder layer; 0 for a decoder-only model.
    pub encoder_heads: usize,
    /// Attention heads of a decoder layer.
    pub decoder_heads: usize,
    /// Width of a decoder head, in elements.
    pub head_dim: usize,
    /// Inner width of the decoder's feed-forward blocks, in elements.
    pub ffn_dim: usize,
    /// Rows of the decoder's embedding table.
    pub vocab_size: usize,
    /// Longest sequence, in tokens; `None` if the positions do not limit it.
    pub positions: Option<usize>,
    /// Whether the config ties embeddings and head.
    pub tied: bool,
}

/// The config of a model of any family.
#[derive(Debug, Clone)]
pub struct ModelConfig {
    family: &'static Family,
    special_tokens: SpecialTokens,
    dtype: Option<String>,
    config: Arc<dyn FamilyConfig>,
}

impl ModelConfig {
    /// Reads the keys of a config file of a model of `family`.
    ///
    /// # Errors
    /// Values that are absurd, of the wrong type, or contradict each other.
    pub fn read(family: &'static Family, keys: &ConfigKeys<'_>) -> Result<Self, ModelError> {
        let config = (family.read)(keys)?;
        // The ids may belong to either side: a file with two vocabularies names the encoder's padding.
        let ids = config.summary().vocab_size.max(config.source_vocab_size());
        let special_tokens = keys.special_tokens(&(family.special_tokens)(), ids, family.undeclared_ids)?;
        Ok(Self { family, special_tokens, dtype: keys.dtype(), config })
    }

    /// The family.
    pub fn family(&self) -> &'static Family {
        self.family
    }

    /// The family's own config, if it is a `T`.
    pub fn downcast_ref<T: FamilyConfig>(&self) -> Option<&T> {
        let config: &dyn Any = &*self.config;
        config.downcast_ref()
    }

    /// The family's own config, whichever it is: all that the file says of the model but special ids and dtype.
    pub fn family_config(&self) -> &dyn FamilyConfig {
        &*self.config
    }

    /// Rows of the decoder's embedding table and number of logits.
    pub fn vocab_size(&self) -> usize {
        self.config.summary().vocab_size
    }

    /// Rows of the embedding table that reads the input: the encoder's, or that of a decoder-only model.
    pub fn source_vocab_size(&self) -> usize {
        self.config.source_vocab_size()
    }

    /// Longest sequence of a side, in tokens; `None` if the positions do not limit it.
    pub fn max_positions(&self) -> Option<usize> {
        self.config.summary().positions
    }

    /// Special ids of the config; generation uses those of [`crate::generation_defaults`].
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.special_tokens
    }

    /// The dtype that the config names, for example `float16`.
    pub fn dtype(&self) -> Option<&str> {
        self.dtype.as_deref()
    }

    /// The decoder layer whose cross-attention `layer` names: from 0 on, or from the last one, -1, backwards.
    ///
    /// # Errors
    /// There is none, or the model has no cross-attention.
    pub fn alignment_layer(&self, layer: i32) -> Result<usize, ModelError> {
        if !self.family.is_encoder_decoder {
            return Err(ModelError::NoCrossAttention);
        }
        let layers = self.summary().decoder_layers;
        let from_start = i64::from(layer) + if layer < 0 { layers as i64 } else { 0 };
        usize::try_from(from_start)
            .ok()
            .filter(|found| *found < layers)
            .ok_or(ModelError::NoSuchLayer { layer, layers })
    }

    /// The overview that `elgen inspect` prints.
    pub fn summary(&self) -> ModelSummary {
        self.config.summary()
    }

    /// What loading the weights takes where a binding holds `max_binding_bytes`: bytes, and the largest upload, which sizes the upload ring
    /// ([`Tally::upload_ring`]). Tables that the config ties are counted once; a checkpoint may hold different ones all the same.
    /// `final_logits_bias` is counted for the families that have it, though one of zeros is not loaded.
    ///
    /// ```
    /// use elgen_attention::Kind;
    /// use elgen_models::{Kinds, ModelConfig};
    /// use elgen_tensor::{Class, WeightFormat};
    /// # fn main() -> Result<(), elgen_models::ModelError> {
    /// // BART-large: the defaults of its config class.
    /// let json = serde_json::json!({ "model_type": "bart", "vocab_size": 50264 });
    /// let config = ModelConfig::from_map(json.as_object().unwrap(), "config.json".as_ref())?;
    /// let weights = config.tally_weights(Kinds::both(Kind::EL), WeightFormat::F16, 2 << 30)?;
    /// assert_eq!(weights.usage().of(Class::Weights) >> 20, 775);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// A kind that does not support the model's blocks; sizes that a kernel cannot count.
    pub fn tally_weights(
        &self,
        kinds: Kinds,
        weights: WeightFormat,
        max_binding_bytes: u64,
    ) -> Result<Tally, ModelError> {
        // Random weights have any tensor that is asked for, and nothing of them is made.
        let (arena, checkpoint) = (Arena::counting(max_binding_bytes), self.random_checkpoint(0));
        // Caches have no part in it.
        let formats = Formats { weights, ..DType::F32.into() };
        self.config.load(&LoadArgs { family: self.family, arena: &arena, checkpoint: &checkpoint, kinds, formats })?;
        Ok(arena.tally())
    }

    /// Parameters that the config implies: tied tables counted once, computed positions and `final_logits_bias` not at all.
    ///
    /// # Errors
    /// As [`ModelConfig::tally_weights`].
    pub fn parameters(&self) -> Result<u64, ModelError> {
        Ok(self.tally_weights(Kinds::default(), WeightFormat::F32, u64::MAX)?.parameters())
    }

    /// Random weights for a model of this config ([`Checkpoint::random`]).
    pub fn random_checkpoint(&self, seed: u64) -> Checkpoint {
        Checkpoint::random(self.config.clone(), seed)
    }

    /// Checks that every id of an input is a row of the table that reads it.
    ///
    /// # Errors
    /// An id outside the vocabulary.
    pub fn check_token_ids(&self, ids: &[u32]) -> Result<(), ModelError> {
        check_ids(ids, self.source_vocab_size())
    }

    /// Checks that every id of a decoder prompt is a row of the decoder's table.
    ///
    /// # Errors
    /// An id outside the vocabulary.
    pub fn check_target_ids(&self, ids: &[u32]) -> Result<(), ModelError> {
        check_ids(ids, self.vocab_size())
    }
}

impl Outline {
    /// The outline of a config.
    pub fn new(config: &ModelConfig) -> Self {
        config.config.outline()
    }
}

/// Loads the weights of a model onto a device, or counts them: then nothing is read but what tells tied tables from others.
///
/// # Errors
/// Tensors that are missing, misshapen or not finite; a kind that the family cannot have; out of memory.
pub fn load(
    onto: impl Into<Arena>,
    config: &ModelConfig,
    checkpoint: &Checkpoint,
    kinds: Kinds,
    formats: impl Into<Formats>,
) -> Result<Box<dyn Architecture>, ModelError> {
    let (family, arena) = (config.family, &onto.into());
    if !family.is_encoder_decoder && kinds.self_.needs_encoder() {
        return Err(ModelError::KindNeedsEncoder { family: family.model_type, kind: kinds.self_ });
    }
    config.config.load(&LoadArgs { family, arena, checkpoint, kinds, formats: formats.into() })
}
