//! OPT (Zhang et al. 2022, arXiv 2205.01068) as in Hugging Face `OPTForCausalLM`: a decoder with learned positions (offset 2), pre-norm but for
//! the 350m model, whose embeddings are narrower than its layers as well.

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

    pub(crate) fn from_keys(keys: &ConfigKeys<'_>) -> Result<Self, ModelError> {
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
        })
    }
}

impl RandomRules for OptConfig {}

impl FamilyConfig for OptConfig {
    fn summary(&self) -> ModelSummary {
        ModelSummary {
            encoder_layers: 0,
            decoder_layers: self.num_hidden_layers,
            d_model: self.hidden_size,
            encoder_heads: 0,
            decoder_heads: self.num_attention_heads,
            head_dim: self.head_dim(),
            ffn_dim: self.ffn_dim,
            vocab_size: self.vocab_size,
            positions: Some(self.max_position_embeddings),
            tied: self.tie_word_embeddings,
        }
    }

    fn outline(&self) -> Outline {
        let w = self.word_embed_proj_dim;
        // The feed-forward tensor also takes rows of the embedding table on their way through the projections.
        let ffn = if self.projects() { self.ffn_dim.max(w) } else { self.ffn_dim };
        Outline {
            limits: ModelLimits {
                vocab_size: self.vocab_size,
                max_position_embeddings: Some(self.max_position_embeddings),
                is_encoder_decoder: false,
            },
            encoder_layers: 0,
            decoder_layers: self.num_hidden_layers,
            encoder: None,
            decoder: StackShape { attention: shape(self), ffn, gated: false },
            head_width: w,
        }
    }

    fn load(&self, from: &LoadArgs<'_>) -> Result<Box<dyn Architecture>, ModelError> {
        Ok(Box::new(load(self, from)?))
    }
}

fn shape(config: &OptConfig) -> Shape {
    let head_dim = config.head_dim();
    let scale = 1.0 / (head_dim as f32).sqrt();
    Shape::new(config.hidden_size, config.num_attention_heads, head_dim, scale)
}

fn load(config: &OptConfig, from: &LoadArgs<'_>) -> Result<Transformer, ModelError> {
    let LoadArgs { family, arena, checkpoint, kinds, formats } = *from;
    let loader = Loader { arena, weights: Weights::new(checkpoint, "model."), format: formats.weights };
    let (d, w, f) = (config.hidden_size, config.word_embed_proj_dim, config.ffn_dim);
    let views = loader.weights.decoder_embeddings(
        "decoder.embed_tokens.weight",
        config.vocab_size,
        w,
        config.tie_word_embeddings,
    )?;
    let [table, head] = loader.decoder_tables(views)?;
    let positions = loader.weights.tensor("decoder.embed_positions.weight", &[config.position_rows(), d])?;
    let (projection, output_projection) = match config.projects() {
        true => (
            Some(loader.linear("decoder.project_in", d, w, false)?),
            Some(loader.linear("decoder.project_out", w, d, false)?),
        ),
        false => (None, None),
    };
    let shape = shape(config);
    let layers = loader.each(config.num_hidden_layers, |loader, l| {
        let name = format!("decoder.layers.{l}");
        let own = format!("{name}.self_attn");
        let spec = BlockSpec { what: &own, layer: l, shape, formats, positions: PositionScheme::None };
        let projections = loader.square_projections(&own, d, config.enable_bias)?;
        Ok(DecoderLayer {
            attention: loader.attention(projections, |w| kinds.self_.self_attention(loader.arena, &spec, w))?,
            cross: None,
            feed_forward: Box::new(DenseFeedForward {
                up_proj: loader.linear(&format!("{name}.fc1"), f, d, config.enable_bias)?,
                down_proj: loader.linear(&format!("{name}.fc2"), d, f, config.enable_bias)?,
                activation: config.activation,
            }),
        })
    })?;
    let norm = |loader: &Loader<'_>, name: &str| loader.norm(&format!("decoder.{name}"), d, OptConfig::LAYER_NORM_EPS);
    // `final_layer_norm` of a layer is that of its feed-forward block.
    let blocks = ["self_attn_layer_norm", "final_layer_norm"];
    let norms = Norms {
        order: config.norm_order,
        layers: loader.each(config.num_hidden_layers, |loader, l| {
            blocks.iter().map(|block| norm(loader, &format!("layers.{l}.{block}"))).collect()
        })?,
        last: if config.final_norm { Some(norm(&loader, "final_layer_norm")?) } else { None },
    };
    let positions =
        PositionTable { table: loader.positions("positions", positions)?, offset: OptConfig::POSITION_OFFSET };
    let outline = config.outline();
    Ok(Transformer {
        family: family.model_type,
        cache_layout: outline.cache_layout(kinds, formats.cache),
        outline,
        encoder: None,
        decoder: Stack {
            embeddings: Embeddings { table, scale: 1.0, positions: Some(positions), projection, norm: None },
            layers,
            norms,
        },
        output_projection,
        head: head.into(),
    })
}
