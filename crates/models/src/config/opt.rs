//! `config.json` of OPT (Zhang et al. 2022, arXiv 2205.01068).

use super::keys::{Keys, MAX_FFN, MAX_LAYERS, MAX_ROWS, MAX_WIDTH};
use super::seq2seq::NormOrder;
use super::{Activation, SpecialTokens};
use crate::error::ModelError;

/// Shape and options of an OPT model.
#[derive(Debug, Clone, PartialEq)]
pub struct OptConfig {
    /// Rows of the embedding table and number of logits.
    pub vocab_size: usize,
    /// Model width, in elements.
    pub hidden_size: usize,
    /// Width of the embedding table; where it is not the model's, a projection stands behind the embedding and one before the head.
    pub word_embed_proj_dim: usize,
    /// Longest sequence (prompt and new tokens), in tokens.
    pub max_position_embeddings: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Attention heads of each layer; divides the model width.
    pub num_attention_heads: usize,
    /// Inner width of the feed-forward block, in elements.
    pub ffn_dim: usize,
    /// Activation of the feed-forward blocks.
    pub activation: Activation,
    /// `do_layer_norm_before`.
    pub norm_order: NormOrder,
    /// Whether a norm stands behind the last layer; never in post-norm models.
    pub final_norm: bool,
    /// Whether the projections have biases.
    pub enable_bias: bool,
    /// Whether embedding and head share one table (unless the file holds different ones).
    pub tie_word_embeddings: bool,
    /// Special ids of the config; generation uses those of [`crate::generation_defaults`].
    pub special_tokens: SpecialTokens,
    /// The dtype that the config names, for example `float16`.
    pub dtype: Option<String>,
}

impl OptConfig {
    /// Rows that precede position 0 in the position table.
    pub const POSITION_OFFSET: usize = 2;
    /// Epsilon of all layer norms; not configurable in this family.
    pub const LAYER_NORM_EPS: f32 = 1e-5;

    /// Rows of the position table: `max_position_embeddings` and the offset.
    pub fn position_rows(&self) -> usize {
        self.max_position_embeddings + Self::POSITION_OFFSET
    }

    /// Width of a head, in elements.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Whether the embedding table has another width than the model.
    pub fn projects(&self) -> bool {
        self.word_embed_proj_dim != self.hidden_size
    }

    /// Number of parameters that the config implies, tied tables counted once.
    pub fn parameters(&self) -> u64 {
        let [v, d, w, p, f] =
            [self.vocab_size, self.hidden_size, self.word_embed_proj_dim, self.position_rows(), self.ffn_dim]
                .map(|n| n as u64);
        let biases = if self.enable_bias { 4 * d + f + d } else { 0 };
        let norm = 2 * d;
        let layer = 4 * d * d + 2 * d * f + biases + 2 * norm;
        let tables = if self.tie_word_embeddings { v * w } else { 2 * v * w };
        let projections = if self.projects() { 2 * d * w } else { 0 };
        tables + p * d + projections + self.num_hidden_layers as u64 * layer + u64::from(self.final_norm) * norm
    }

    /// The special ids of a config that names none.
    pub(crate) fn default_special_tokens() -> SpecialTokens {
        SpecialTokens { bos: Some(2), eos: vec![2], pad: Some(1), decoder_start: None }
    }

    pub(super) fn from_keys(keys: &Keys<'_>) -> Result<Self, ModelError> {
        if !keys.flag("layer_norm_elementwise_affine", true)? {
            let why = "OPT with layer norms that have no weights is not supported";
            return Err(keys.error("layer_norm_elementwise_affine", why));
        }
        let vocab_size = keys.count(&["vocab_size"], 50_272, MAX_ROWS)?;
        keys.no_encoder()?;
        keys.check_padding(vocab_size)?;
        let hidden_size = keys.count(&["hidden_size"], 768, MAX_WIDTH)?;
        let num_attention_heads = keys.count(&["num_attention_heads"], 12, MAX_WIDTH)?;
        if !hidden_size.is_multiple_of(num_attention_heads) {
            let why = format!("{num_attention_heads} heads do not divide hidden_size = {hidden_size}");
            return Err(keys.error("num_attention_heads", why));
        }
        let before = keys.flag("do_layer_norm_before", true)?;
        let without_final_norm = keys.flag("_remove_final_layer_norm", false)?;
        Ok(Self {
            vocab_size,
            hidden_size,
            word_embed_proj_dim: keys.count(&["word_embed_proj_dim"], hidden_size, MAX_WIDTH)?,
            max_position_embeddings: keys.count(&["max_position_embeddings"], 2048, MAX_ROWS)?,
            num_hidden_layers: keys.count(&["num_hidden_layers"], 12, MAX_LAYERS)?,
            num_attention_heads,
            ffn_dim: keys.count(&["ffn_dim"], 3072, MAX_FFN)?,
            activation: keys.activation("activation_function", Activation::Relu)?,
            norm_order: if before { NormOrder::Pre } else { NormOrder::Post },
            final_norm: before && !without_final_norm,
            enable_bias: keys.flag("enable_bias", true)?,
            tie_word_embeddings: keys.flag("tie_word_embeddings", true)?,
            special_tokens: keys.special_tokens(&Self::default_special_tokens(), vocab_size, &[])?,
            dtype: keys.dtype(),
        })
    }
}
