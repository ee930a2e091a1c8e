//! What the configs of BART's relatives share: the same keys and names, other class defaults, norms and positions.

use serde_json::Value;

use crate::config::{Activation, ConfigKeys, MAX_FFN, MAX_LAYERS, MAX_ROWS, MAX_WIDTH, NormOrder};
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

/// What is added to the token embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Positions {
    /// A trained table whose first `offset` rows precede position 0.
    Learned {
        /// Rows before position 0.
        offset: usize,
    },
    /// `sin` in the first half of the columns, `cos` in the second; a table in the file counts, but need not be there.
    Sinusoidal,
}

impl Positions {
    /// Rows that precede position 0.
    pub fn offset(self) -> usize {
        match self {
            Self::Learned { offset } => offset,
            Self::Sinusoidal => 0,
        }
    }
}

/// What the config class of one of BART's kin fixes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Variant {
    /// The family, for messages.
    pub(super) name: &'static str,
    pub(super) norm_order: NormOrder,
    pub(super) embedding_norm: bool,
    pub(super) positions: Positions,
    /// `vocab_size` where the file has none.
    pub(super) vocab_size: usize,
    /// Whether `share_encoder_decoder_embeddings` and `decoder_vocab_size` are keys of the variant.
    pub(super) may_separate: bool,
}

/// Shape and options of an encoder-decoder model of BART's kin: BART, mBART, Marian, Pegasus.
#[derive(Debug, Clone, PartialEq)]
pub struct BartConfig {
    /// Where the norms stand.
    pub norm_order: NormOrder,
    /// Whether a norm follows the embeddings of each side.
    pub embedding_norm: bool,
    /// What is added to the embeddings.
    pub positions: Positions,
    /// Rows of the encoder's embedding table.
    pub vocab_size: usize,
    /// Rows of the decoder's embedding table and number of logits: `vocab_size` unless the vocabularies are separate.
    pub decoder_vocab_size: usize,
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
    /// Whether both sides share one embedding table (Marian may keep two, of different sizes).
    pub share_embeddings: bool,
    /// Whether the decoder's embedding and the head share one table (unless the file holds different ones).
    pub tie_word_embeddings: bool,
}

impl BartConfig {
    /// What stands for `shared.weight` where a file lacks it, in this order.
    pub const SUBSTITUTES: [&str; 3] = ["lm_head.weight", "decoder.embed_tokens.weight", "encoder.embed_tokens.weight"];
    /// Epsilon of all layer norms; not configurable in these families.
    pub const LAYER_NORM_EPS: f32 = 1e-5;

    /// Rows of each position table: `max_position_embeddings` and the offset.
    pub fn position_rows(&self) -> usize {
        self.max_position_embeddings + self.positions.offset()
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

    pub(crate) fn from_keys(keys: &ConfigKeys<'_>, variant: &Variant) -> Result<Self, ModelError> {
        if !keys.flag("is_encoder_decoder", true)? {
            let why = format!("a {} decoder without an encoder is not supported", variant.name);
            return Err(keys.error("is_encoder_decoder", why));
        }
        let vocab_size = keys.count(&["vocab_size"], variant.vocab_size, MAX_ROWS)?;
        let share_embeddings = !variant.may_separate || keys.flag("share_encoder_decoder_embeddings", true)?;
        // A shared table is as long as the encoder's, whatever `decoder_vocab_size` says.
        let decoder_vocab_size = match keys.get("decoder_vocab_size").and_then(Value::as_u64) {
            _ if !variant.may_separate => vocab_size,
            // As good as absent.
            Some(0) => vocab_size,
            _ => keys.count(&["decoder_vocab_size"], vocab_size, MAX_ROWS)?,
        };
        let decoder_vocab_size = if share_embeddings { vocab_size } else { decoder_vocab_size };
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
        keys.check_padding(vocab_size.min(decoder_vocab_size))?;
        Ok(Self {
            norm_order: variant.norm_order,
            embedding_norm: variant.embedding_norm,
            positions: variant.positions,
            vocab_size,
            decoder_vocab_size,
            d_model,
            max_position_embeddings: keys.count(&["max_position_embeddings"], 1024, MAX_ROWS)?,
            encoder,
            decoder,
            activation: keys.activation("activation_function", Activation::Gelu)?,
            scale_embedding: keys.flag("scale_embedding", false)?,
            share_embeddings,
            tie_word_embeddings: keys.flag("tie_word_embeddings", true)?,
        })
    }
}
