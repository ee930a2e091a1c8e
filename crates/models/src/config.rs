//! `config.json`: which family a directory holds and the shape of its model, with the defaults of the family's config class.

mod bart;
mod gpt2;
pub(crate) mod json;
pub(crate) mod keys;
mod marian;
mod mbart;
mod opt;
mod pegasus;
mod seq2seq;
mod t5;

use std::fmt;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{ModelError, excerpt};
pub use gpt2::Gpt2Config;
use keys::Keys;
pub use opt::OptConfig;
pub use seq2seq::{NormOrder, Positions, Seq2SeqConfig, StackConfig};
pub use t5::T5Config;

/// Name of the config file in a model directory.
pub const CONFIG_FILE: &str = "config.json";

/// A supported model family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ModelFamily {
    /// BART: encoder-decoder, post-norm.
    Bart,
    /// GPT-2: decoder only, pre-norm.
    Gpt2,
    /// T5, T5 v1.1 and Flan-T5: encoder-decoder, pre-norm, relative positions.
    T5,
    /// Marian (opus-mt): encoder-decoder, post-norm, computed positions.
    Marian,
    /// mBART and mBART-50: encoder-decoder, pre-norm.
    Mbart,
    /// OPT: decoder only.
    Opt,
    /// Pegasus: encoder-decoder, pre-norm, computed positions.
    Pegasus,
}

impl ModelFamily {
    /// All supported families.
    pub const ALL: [Self; 7] = [Self::Bart, Self::Gpt2, Self::Marian, Self::Mbart, Self::Opt, Self::Pegasus, Self::T5];

    /// The value of `model_type` in `config.json`.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Bart => "bart",
            Self::Gpt2 => "gpt2",
            Self::T5 => "t5",
            Self::Marian => "marian",
            Self::Mbart => "mbart",
            Self::Opt => "opt",
            Self::Pegasus => "pegasus",
        }
    }

    /// Whether the family has an encoder.
    pub fn is_encoder_decoder(self) -> bool {
        !matches!(self, Self::Gpt2 | Self::Opt)
    }

    /// How the names of the family's classes (`architectures` in `config.json`) begin.
    fn class_prefix(self) -> &'static str {
        match self {
            Self::Bart => "Bart",
            Self::Gpt2 => "GPT2",
            Self::T5 => "T5For",
            Self::Marian => "Marian",
            Self::Mbart => "MBart",
            Self::Opt => "OPT",
            Self::Pegasus => "Pegasus",
        }
    }

    /// The special ids of a config that names none.
    pub(crate) fn default_special_tokens(self) -> SpecialTokens {
        match self {
            Self::Bart => bart::class().special_tokens,
            Self::Gpt2 => Gpt2Config::default_special_tokens(),
            Self::Marian => marian::class().special_tokens,
            Self::Mbart => mbart::class().special_tokens,
            Self::Opt => OptConfig::default_special_tokens(),
            Self::Pegasus => pegasus::class().special_tokens,
            Self::T5 => T5Config::default_special_tokens(),
        }
    }

    /// `forced_eos_token_id` of the config class, which acts where the file does not name the key.
    pub(crate) fn default_forced_eos(self) -> Option<u32> {
        match self {
            Self::Bart | Self::Mbart => Some(2),
            Self::Marian => Some(0),
            Self::Pegasus => Some(1),
            Self::Gpt2 | Self::Opt | Self::T5 => None,
        }
    }
}

impl fmt::Display for ModelFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.model_type())
    }
}

/// An activation function of a feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Activation {
    /// `x · Φ(x)` with the error function.
    Gelu,
    /// `0.5 x (1 + tanh(sqrt(2/π) (x + 0.044715 x³)))`.
    GeluTanh,
    /// `x · sigmoid(1.702 x)`.
    QuickGelu,
    /// `max(x, 0)`.
    Relu,
    /// `x · sigmoid(x)`.
    Silu,
}

impl Activation {
    const NAMES: [(&str, Self); 11] = [
        ("gelu", Self::Gelu),
        ("gelu_python", Self::Gelu),
        ("gelu_new", Self::GeluTanh),
        ("gelu_fast", Self::GeluTanh),
        ("gelu_pytorch_tanh", Self::GeluTanh),
        ("gelu_python_tanh", Self::GeluTanh),
        ("gelu_accurate", Self::GeluTanh),
        ("quick_gelu", Self::QuickGelu),
        ("relu", Self::Relu),
        ("silu", Self::Silu),
        ("swish", Self::Silu),
    ];

    /// The activation that configs call `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, activation)| *activation)
    }

    fn names() -> String {
        Self::NAMES.map(|(name, _)| name).join(", ")
    }
}

/// Special token ids, all within the model's vocabulary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a sequence.
    pub bos: Option<u32>,
    /// Any of these ends a sequence; may be empty.
    pub eos: Vec<u32>,
    /// Fills up sequences.
    pub pad: Option<u32>,
    /// First token of an encoder-decoder model's output sequence.
    pub decoder_start: Option<u32>,
}

/// The config of a model of any supported family.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ModelConfig {
    /// A GPT-2 model.
    Gpt2(Gpt2Config),
    /// A T5 model.
    T5(T5Config),
    /// An OPT model.
    Opt(OptConfig),
    /// A BART, mBART, Marian or Pegasus model.
    Seq2Seq(Seq2SeqConfig),
}

/// What one wants to know about a model at a glance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSummary {
    /// The family.
    pub family: ModelFamily,
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
    /// Parameters that the config implies, tied tables counted once.
    pub parameters: u64,
}

impl ModelConfig {
    /// Reads `config.json` of the directory `dir`.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self, ModelError> {
        Ok(Self::load_with_fields(dir)?.0)
    }

    /// [`ModelConfig::load`], and the fields of the file.
    pub fn load_with_fields(dir: impl AsRef<Path>) -> Result<(Self, Map<String, Value>), ModelError> {
        let dir = dir.as_ref();
        match json::read_object(dir, CONFIG_FILE)? {
            Some(map) => Ok((Self::from_map(&map, &dir.join(CONFIG_FILE))?, map)),
            None => {
                let wanted = if dir.is_dir() { CONFIG_FILE } else { "model directory" };
                Err(ModelError::MissingFile { dir: dir.into(), wanted: wanted.into(), hint: String::new() })
            }
        }
    }

    /// Reads the config file `path`, whatever its name.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        let path = path.as_ref();
        Self::from_map(&json::parse_object(path, &json::read_text(path)?)?, path)
    }

    /// Interprets the content of a config file; `path` is named in errors.
    pub fn from_map(map: &Map<String, Value>, path: &Path) -> Result<Self, ModelError> {
        let keys = Keys { file: path, map };
        match family(map, path)? {
            ModelFamily::Bart => Seq2SeqConfig::from_keys(&keys, bart::class()).map(Self::Seq2Seq),
            ModelFamily::Gpt2 => Gpt2Config::from_keys(&keys).map(Self::Gpt2),
            ModelFamily::T5 => T5Config::from_keys(&keys).map(Self::T5),
            ModelFamily::Marian => Seq2SeqConfig::from_keys(&keys, marian::class()).map(Self::Seq2Seq),
            ModelFamily::Mbart => Seq2SeqConfig::from_keys(&keys, mbart::class()).map(Self::Seq2Seq),
            ModelFamily::Opt => OptConfig::from_keys(&keys).map(Self::Opt),
            ModelFamily::Pegasus => Seq2SeqConfig::from_keys(&keys, pegasus::class()).map(Self::Seq2Seq),
        }
    }

    /// The family.
    pub fn family(&self) -> ModelFamily {
        match self {
            Self::Gpt2(_) => ModelFamily::Gpt2,
            Self::T5(_) => ModelFamily::T5,
            Self::Opt(_) => ModelFamily::Opt,
            Self::Seq2Seq(config) => config.family,
        }
    }

    /// Rows of the decoder's embedding table and number of logits.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Gpt2(config) => config.vocab_size,
            Self::T5(config) => config.vocab_size,
            Self::Opt(config) => config.vocab_size,
            Self::Seq2Seq(config) => config.decoder_vocab_size,
        }
    }

    /// Rows of the embedding table that reads the input: the encoder's, or that of a decoder-only model.
    pub fn source_vocab_size(&self) -> usize {
        match self {
            Self::Seq2Seq(config) => config.vocab_size,
            _ => self.vocab_size(),
        }
    }

    /// Longest sequence of a side, in tokens; `None` if the positions do not limit it.
    pub fn max_positions(&self) -> Option<usize> {
        match self {
            Self::Gpt2(config) => Some(config.n_positions),
            Self::Opt(config) => Some(config.max_position_embeddings),
            Self::Seq2Seq(config) => Some(config.max_position_embeddings),
            Self::T5(_) => None,
        }
    }

    /// Special ids of the config; generation uses those of [`crate::generation_defaults`].
    pub fn special_tokens(&self) -> &SpecialTokens {
        match self {
            Self::Gpt2(config) => &config.special_tokens,
            Self::T5(config) => &config.special_tokens,
            Self::Opt(config) => &config.special_tokens,
            Self::Seq2Seq(config) => &config.special_tokens,
        }
    }

    /// The dtype that the config names, for example `float16`.
    pub fn dtype(&self) -> Option<&str> {
        match self {
            Self::Gpt2(config) => config.dtype.as_deref(),
            Self::Opt(config) => config.dtype.as_deref(),
            Self::Seq2Seq(config) => config.dtype.as_deref(),
            Self::T5(config) => config.dtype.as_deref(),
        }
    }

    /// The decoder layer whose cross-attention `layer` names: from 0 on, or from the last one, -1, backwards.
    ///
    /// # Errors
    /// There is none, or the model has no cross-attention.
    pub fn alignment_layer(&self, layer: i32) -> Result<usize, ModelError> {
        if !self.family().is_encoder_decoder() {
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
        match self {
            Self::Gpt2(c) => ModelSummary {
                family: self.family(),
                encoder_layers: 0,
                decoder_layers: c.n_layer,
                d_model: c.n_embd,
                encoder_heads: 0,
                decoder_heads: c.n_head,
                head_dim: c.head_dim(),
                ffn_dim: c.n_inner,
                vocab_size: c.vocab_size,
                positions: self.max_positions(),
                tied: c.tie_word_embeddings,
                parameters: c.parameters(),
            },
            Self::T5(c) => ModelSummary {
                family: self.family(),
                encoder_layers: c.num_layers,
                decoder_layers: c.num_decoder_layers,
                d_model: c.d_model,
                encoder_heads: c.num_heads,
                decoder_heads: c.num_heads,
                head_dim: c.d_kv,
                ffn_dim: c.d_ff,
                vocab_size: c.vocab_size,
                positions: self.max_positions(),
                tied: c.tie_word_embeddings,
                parameters: c.parameters(),
            },
            Self::Opt(c) => ModelSummary {
                family: self.family(),
                encoder_layers: 0,
                decoder_layers: c.num_hidden_layers,
                d_model: c.hidden_size,
                encoder_heads: 0,
                decoder_heads: c.num_attention_heads,
                head_dim: c.hidden_size / c.num_attention_heads,
                ffn_dim: c.ffn_dim,
                vocab_size: c.vocab_size,
                positions: self.max_positions(),
                tied: c.tie_word_embeddings,
                parameters: c.parameters(),
            },
            Self::Seq2Seq(c) => ModelSummary {
                family: self.family(),
                encoder_layers: c.encoder.layers,
                decoder_layers: c.decoder.layers,
                d_model: c.d_model,
                encoder_heads: c.encoder.heads,
                decoder_heads: c.decoder.heads,
                head_dim: c.d_model / c.decoder.heads,
                ffn_dim: c.decoder.ffn_dim,
                vocab_size: c.decoder_vocab_size,
                positions: self.max_positions(),
                tied: c.tie_word_embeddings,
                parameters: c.parameters(),
            },
        }
    }

    /// Checks that every id of an input is a row of the table that reads it.
    pub fn check_token_ids(&self, ids: &[u32]) -> Result<(), ModelError> {
        check_ids(ids, self.source_vocab_size())
    }

    /// Checks that every id of a decoder prompt is a row of the decoder's table.
    pub fn check_target_ids(&self, ids: &[u32]) -> Result<(), ModelError> {
        check_ids(ids, self.vocab_size())
    }
}

pub(crate) fn check_ids(ids: &[u32], vocab_size: usize) -> Result<(), ModelError> {
    match ids.iter().position(|&id| id as usize >= vocab_size) {
        Some(position) => Err(ModelError::TokenOutsideVocabulary { id: ids[position], position, vocab_size }),
        None => Ok(()),
    }
}

/// The family that `model_type` names; files without the key are told by the class in `architectures`.
fn family(map: &Map<String, Value>, path: &Path) -> Result<ModelFamily, ModelError> {
    let named = map.get("model_type").filter(|value| !value.is_null());
    let architecture = map.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str);
    let found = match (named, architecture) {
        (Some(value), _) => ModelFamily::ALL.into_iter().find(|family| value.as_str() == Some(family.model_type())),
        (None, Some(class)) => ModelFamily::ALL.into_iter().find(|family| class.starts_with(family.class_prefix())),
        (None, None) => None,
    };
    found.ok_or_else(|| ModelError::UnsupportedModelType {
        file: path.into(),
        model_type: match (named, architecture) {
            (Some(value), _) => excerpt(&value.to_string()),
            (None, Some(class)) => format!("of architecture \"{}\"", excerpt(class)),
            (None, None) => "(none)".into(),
        },
        supported: ModelFamily::ALL.map(ModelFamily::model_type).join(", "),
    })
}
