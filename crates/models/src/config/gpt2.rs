//! `config.json` of GPT-2.

use super::keys::{Keys, MAX_FFN, MAX_LAYERS, MAX_ROWS, MAX_WIDTH};
use super::{Activation, SpecialTokens};
use crate::error::ModelError;

/// Shape and options of a GPT-2 model.
#[derive(Debug, Clone, PartialEq)]
pub struct Gpt2Config {
    /// Rows of the embedding table and number of logits.
    pub vocab_size: usize,
    /// Model width, in elements.
    pub n_embd: usize,
    /// Longest sequence (prompt and new tokens), in tokens; rows of the position table.
    pub n_positions: usize,
    /// Number of layers.
    pub n_layer: usize,
    /// Attention heads of each layer; divides the model width.
    pub n_head: usize,
    /// Inner width of the feed-forward block, in elements.
    pub n_inner: usize,
    /// Activation of the feed-forward blocks.
    pub activation: Activation,
    /// Epsilon of all layer norms.
    pub layer_norm_epsilon: f32,
    /// Whether attention scores are divided by sqrt(head width).
    pub scale_attn_weights: bool,
    /// Whether the scores of layer `i` are divided by `i + 1` as well.
    pub scale_attn_by_inverse_layer_idx: bool,
    /// Whether embedding and head share one table (unless the file holds different ones).
    pub tie_word_embeddings: bool,
    /// Special ids of the config; generation uses those of [`crate::generation_defaults`].
    pub special_tokens: SpecialTokens,
    /// The dtype that the config names, for example `float16`.
    pub dtype: Option<String>,
}

impl Gpt2Config {
    /// Width of a head, in elements.
    pub fn head_dim(&self) -> usize {
        self.n_embd / self.n_head
    }

    /// Factor of the attention scores of layer `layer`, counted from 0.
    pub fn attention_scale(&self, layer: usize) -> f32 {
        let scale = if self.scale_attn_weights { 1.0 / (self.head_dim() as f32).sqrt() } else { 1.0 };
        if self.scale_attn_by_inverse_layer_idx { scale / (layer + 1) as f32 } else { scale }
    }

    /// Number of parameters that the config implies, tied tables counted once.
    pub fn parameters(&self) -> u64 {
        let [v, d, p, f] = [self.vocab_size, self.n_embd, self.n_positions, self.n_inner].map(|n| n as u64);
        let attention = 3 * (d * d + d) + d * d + d;
        let ffn = d * f + f + f * d + d;
        let norm = 2 * d;
        let tables = if self.tie_word_embeddings { v * d } else { 2 * v * d };
        tables + p * d + self.n_layer as u64 * (attention + ffn + 2 * norm) + norm
    }

    /// The special ids of a config that names none.
    pub(crate) fn default_special_tokens() -> SpecialTokens {
        SpecialTokens { bos: Some(50_256), eos: vec![50_256], pad: None, decoder_start: None }
    }

    pub(super) fn from_keys(keys: &Keys<'_>) -> Result<Self, ModelError> {
        if keys.flag("add_cross_attention", false)? {
            return Err(keys.error("add_cross_attention", "GPT-2 with cross-attention is not supported"));
        }
        keys.no_encoder()?;
        // Only changes the order of float operations, but a value of the wrong type is still worth a word.
        keys.flag("reorder_and_upcast_attn", false)?;
        let vocab_size = keys.count(&["vocab_size"], 50_257, MAX_ROWS)?;
        let n_embd = keys.count(&["n_embd", "hidden_size"], 768, MAX_WIDTH)?;
        let n_head = keys.count(&["n_head", "num_attention_heads"], 12, MAX_WIDTH)?;
        if !n_embd.is_multiple_of(n_head) {
            let key = if keys.get("n_head").is_none() { "num_attention_heads" } else { "n_head" };
            return Err(keys.error(key, format!("{n_head} heads do not divide n_embd = {n_embd}")));
        }
        Ok(Self {
            vocab_size,
            n_embd,
            n_positions: keys.count(&["n_positions", "max_position_embeddings"], 1024, MAX_ROWS)?,
            n_layer: keys.count(&["n_layer", "num_hidden_layers"], 12, MAX_LAYERS)?,
            n_head,
            n_inner: keys.count(&["n_inner"], 4 * n_embd, MAX_FFN)?,
            activation: keys.activation("activation_function", Activation::GeluTanh)?,
            layer_norm_epsilon: keys.epsilon("layer_norm_epsilon", 1e-5)?,
            scale_attn_weights: keys.flag("scale_attn_weights", true)?,
            scale_attn_by_inverse_layer_idx: keys.flag("scale_attn_by_inverse_layer_idx", false)?,
            tie_word_embeddings: keys.flag("tie_word_embeddings", true)?,
            special_tokens: keys.special_tokens(&Self::default_special_tokens(), vocab_size, &[])?,
            dtype: keys.dtype(),
        })
    }
}
