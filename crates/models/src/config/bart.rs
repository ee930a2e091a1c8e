//! `config.json` of BART.

use super::keys::{Keys, MAX_FFN, MAX_LAYERS, MAX_ROWS, MAX_WIDTH};
use super::{Activation, SpecialTokens};
use crate::error::ModelError;

/// One side (encoder or decoder) of an encoder-decoder model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StackConfig {
    /// Number of layers.
    pub layers: usize,
    /// Attention heads of each layer; divides the model width.
    pub heads: usize,
    /// Inner width of the feed-forward block, in elements.
    pub ffn_dim: usize,
}

/// Shape and options of a BART model.
#[derive(Debug, Clone, PartialEq)]
pub struct BartConfig {
    /// Rows of the embedding table and number of logits.
    pub vocab_size: usize,
    /// Model width, in elements.
    pub d_model: usize,
    /// Longest sequence of either side, in tokens.
    pub max_position_embeddings: usize,
    /// The encoder.
    pub encoder: StackConfig,
    /// The decoder.
    pub decoder: StackConfig,
    /// Activation of the feed-forward blocks.
    pub activation: Activation,
    /// Whether input embeddings are multiplied by sqrt(d_model); the head's never are.
    pub scale_embedding: bool,
    /// Whether embeddings and head share one table (unless the file holds different ones).
    pub tie_word_embeddings: bool,
    /// Special ids of the config; generation uses those of [`crate::generation_defaults`].
    pub special_tokens: SpecialTokens,
    /// The dtype that the config names, for example `float16`.
    pub dtype: Option<String>,
}

impl BartConfig {
    /// Rows that precede position 0 in the position tables.
    pub const POSITION_OFFSET: usize = 2;
    /// Epsilon of all layer norms; not configurable in this family.
    pub const LAYER_NORM_EPS: f32 = 1e-5;

    /// Rows of each position table: `max_position_embeddings` and the offset.
    pub fn position_rows(&self) -> usize {
        self.max_position_embeddings + Self::POSITION_OFFSET
    }

    /// Width of an encoder head, in elements.
    pub fn encoder_head_dim(&self) -> usize {
        self.d_model / self.encoder.heads
    }

    /// Width of a decoder head, in elements.
    pub fn decoder_head_dim(&self) -> usize {
        self.d_model / self.decoder.heads
    }

    /// Factor of the input embeddings.
    pub fn embedding_scale(&self) -> f32 {
        if self.scale_embedding { (self.d_model as f32).sqrt() } else { 1.0 }
    }

    /// Number of parameters that the config implies, tied tables counted once, the `final_logits_bias` buffer not at all.
    pub fn parameters(&self) -> u64 {
        let [v, d, p] = [self.vocab_size, self.d_model, self.position_rows()].map(|n| n as u64);
        let attention = 4 * (d * d + d);
        let norm = 2 * d;
        let ffn = |stack: &StackConfig| {
            let f = stack.ffn_dim as u64;
            f * d + f + d * f + d
        };
        let encoder = self.encoder.layers as u64 * (attention + ffn(&self.encoder) + 2 * norm);
        let decoder = self.decoder.layers as u64 * (2 * attention + ffn(&self.decoder) + 3 * norm);
        let tables = if self.tie_word_embeddings { v * d } else { 2 * v * d };
        tables + 2 * (p * d + norm) + encoder + decoder
    }

    /// The special ids of a config that names none.
    pub(crate) fn default_special_tokens() -> SpecialTokens {
        SpecialTokens { bos: Some(0), eos: vec![2], pad: Some(1), decoder_start: Some(2) }
    }

    pub(super) fn from_keys(keys: &Keys<'_>) -> Result<Self, ModelError> {
        if !keys.flag("is_encoder_decoder", true)? {
            return Err(keys.error("is_encoder_decoder", "a BART decoder without an encoder is not supported"));
        }
        let vocab_size = keys.count(&["vocab_size"], 50_265, MAX_ROWS)?;
        let d_model = keys.count(&["d_model", "hidden_size"], 1024, MAX_WIDTH)?;
        // Older files carry num_hidden_layers and num_attention_heads as leftovers: they count only where the real key is absent.
        let own_or_alias = |own: &'static str, alias, default, max| {
            let name = if keys.get(own).is_some() { own } else { alias };
            keys.count(&[name], default, max)
        };
        let encoder = StackConfig {
            layers: own_or_alias("encoder_layers", "num_hidden_layers", 12, MAX_LAYERS)?,
            heads: own_or_alias("encoder_attention_heads", "num_attention_heads", 16, MAX_WIDTH)?,
            ffn_dim: keys.count(&["encoder_ffn_dim"], 4096, MAX_FFN)?,
        };
        let decoder = StackConfig {
            layers: keys.count(&["decoder_layers"], 12, MAX_LAYERS)?,
            heads: keys.count(&["decoder_attention_heads"], 16, MAX_WIDTH)?,
            ffn_dim: keys.count(&["decoder_ffn_dim"], 4096, MAX_FFN)?,
        };
        for (key, heads) in [("encoder_attention_heads", encoder.heads), ("decoder_attention_heads", decoder.heads)] {
            if !d_model.is_multiple_of(heads) {
                return Err(keys.error(key, format!("{heads} heads do not divide d_model = {d_model}")));
            }
        }
        Ok(Self {
            vocab_size,
            d_model,
            max_position_embeddings: keys.count(&["max_position_embeddings"], 1024, MAX_ROWS)?,
            encoder,
            decoder,
            activation: keys.activation("activation_function", Activation::Gelu)?,
            scale_embedding: keys.flag("scale_embedding", false)?,
            tie_word_embeddings: keys.flag("tie_word_embeddings", true)?,
            special_tokens: keys.special_tokens(&Self::default_special_tokens(), vocab_size)?,
            dtype: keys.dtype()?,
        })
    }
}
