//! GPT-2 (Radford et al. 2019) as in Hugging Face `GPT2LMHeadModel`: a pre-norm decoder with learned positions, fused QKV weights stored
//! `[in, out]`, and a head tied to the embeddings.

use elgen_attention::{BlockSpec, PositionScheme, Shape};
use elgen_search::ModelLimits;

use crate::architecture::Architecture;
use crate::checkpoint::{RandomRules, Weights};
use crate::config::{Activation, ConfigKeys, MAX_FFN, MAX_LAYERS, MAX_ROWS, MAX_WIDTH, NormOrder};
use crate::embeddings::{Embeddings, PositionTable};
use crate::error::ModelError;
use crate::family::{FamilyConfig, LoadArgs, ModelSummary};
use crate::feed_forward::DenseFeedForward;
use crate::loader::Loader;
use crate::outline::Outline;
use crate::space::StackShape;
use crate::stack::Norms;
use crate::transformer::{DecoderLayer, Stack, Transformer};

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

    pub(crate) fn from_keys(keys: &ConfigKeys<'_>) -> Result<Self, ModelError> {
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
        })
    }
}

impl RandomRules for Gpt2Config {
    /// The weights of the layers are stored `[in, out]`.
    fn deviation(&self, name: &str, shape: &[usize]) -> Option<f64> {
        let layer = name.split('.').any(|part| part == "h");
        layer.then(|| 1.0 / (shape.first().copied().unwrap_or(1).max(1) as f64).sqrt())
    }
}

impl FamilyConfig for Gpt2Config {
    fn summary(&self) -> ModelSummary {
        ModelSummary {
            encoder_layers: 0,
            decoder_layers: self.n_layer,
            d_model: self.n_embd,
            encoder_heads: 0,
            decoder_heads: self.n_head,
            head_dim: self.head_dim(),
            ffn_dim: self.n_inner,
            vocab_size: self.vocab_size,
            positions: Some(self.n_positions),
            tied: self.tie_word_embeddings,
        }
    }

    fn outline(&self) -> Outline {
        Outline {
            limits: ModelLimits {
                vocab_size: self.vocab_size,
                max_position_embeddings: Some(self.n_positions),
                is_encoder_decoder: false,
            },
            encoder_layers: 0,
            decoder_layers: self.n_layer,
            encoder: None,
            decoder: StackShape { attention: shape(self, 0), ffn: self.n_inner, gated: false },
            head_width: self.n_embd,
        }
    }

    fn load(&self, from: &LoadArgs<'_>) -> Result<Box<dyn Architecture>, ModelError> {
        Ok(Box::new(load(self, from)?))
    }
}

fn shape(config: &Gpt2Config, layer: usize) -> Shape {
    Shape::new(config.n_embd, config.n_head, config.head_dim(), config.attention_scale(layer))
}

fn load(config: &Gpt2Config, from: &LoadArgs<'_>) -> Result<Transformer, ModelError> {
    let LoadArgs { family, arena, checkpoint, kinds, formats } = *from;
    let loader = Loader { arena, weights: Weights::new(checkpoint, "transformer."), format: formats.weights };
    let (d, f) = (config.n_embd, config.n_inner);
    let views = loader.weights.decoder_embeddings("wte.weight", config.vocab_size, d, config.tie_word_embeddings)?;
    let [table, head] = loader.decoder_tables(views)?;
    let positions = loader.weights.tensor("wpe.weight", &[config.n_positions, d])?;
    let layers = loader.each(config.n_layer, |loader, l| {
        let name = format!("h.{l}.attn");
        let spec =
            BlockSpec { what: &name, layer: l, shape: shape(config, l), formats, positions: PositionScheme::None };
        // Three column blocks of `c_attn`.
        let qkv = |i: usize| loader.conv1d_columns(&format!("{name}.c_attn"), 3 * d, d, i * d..(i + 1) * d);
        let o = loader.conv1d_columns(&format!("{name}.c_proj"), d, d, 0..d);
        let projections = [qkv(0)?, qkv(1)?, qkv(2)?, o?];
        Ok(DecoderLayer {
            attention: loader.attention(projections, |w| kinds.self_.self_attention(loader.arena, &spec, w))?,
            cross: None,
            feed_forward: Box::new(DenseFeedForward {
                up_proj: loader.conv1d(&format!("h.{l}.mlp.c_fc"), f, d)?,
                down_proj: loader.conv1d(&format!("h.{l}.mlp.c_proj"), d, f)?,
                activation: config.activation,
            }),
        })
    })?;
    let norm = |loader: &Loader<'_>, name: &str| loader.norm(name, d, config.layer_norm_epsilon);
    let norms = Norms {
        order: NormOrder::Pre,
        layers: loader.each(config.n_layer, |loader, l| {
            Ok(vec![norm(loader, &format!("h.{l}.ln_1"))?, norm(loader, &format!("h.{l}.ln_2"))?])
        })?,
        last: Some(norm(&loader, "ln_f")?),
    };
    let positions = PositionTable { table: loader.positions("positions", positions)?, offset: 0 };
    let outline = config.outline();
    Ok(Transformer {
        family: family.model_type,
        cache_layout: outline.cache_layout(kinds, formats.cache),
        outline,
        encoder: None,
        decoder: Stack {
            embeddings: Embeddings { table, scale: 1.0, positions: Some(positions), projection: None, norm: None },
            layers,
            norms,
        },
        output_projection: None,
        head: head.into(),
    })
}
