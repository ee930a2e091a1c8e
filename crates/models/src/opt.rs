//! OPT (Zhang et al. 2022, arXiv 2205.01068) as in Hugging Face `OPTForCausalLM`: a decoder with learned positions (offset 2), pre-norm but for
//! the 350m model, whose embeddings are narrower than its layers as well.

use elgen_attention::{BlockSpec, CacheLayout, Kinds, Shape, self_attention};
use elgen_search::ModelLimits;
use elgen_tensor::{DType, Device};

use crate::checkpoint::{Checkpoint, Weights};
use crate::config::{ModelFamily, OptConfig};
use crate::decoder_only::{DecoderOnly, Layer, Projections};
use crate::error::ModelError;
use crate::layers::{FeedForward, Loader};
use crate::stack::Norms;

/// Loads the weights.
///
/// # Errors
/// Tensors that are missing, misshapen or not finite; out of memory.
pub(crate) fn load(
    device: &Device,
    config: &OptConfig,
    checkpoint: &Checkpoint,
    kinds: Kinds,
    dtype: DType,
) -> Result<DecoderOnly, ModelError> {
    let loader = Loader { device, weights: Weights::new(checkpoint, "model."), dtype };
    let (d, w, f) = (config.hidden_size, config.word_embed_proj_dim, config.ffn_dim);
    let tables = loader.weights.opt_embeddings(config.vocab_size, w, config.tie_word_embeddings)?;
    let shared = tables.all_shared();
    let embedding = loader.table("embedding", tables.input, None)?;
    let head = if shared { embedding.clone() } else { loader.table("head", tables.head, None)? };
    let positions = loader.weights.tensor("decoder.embed_positions.weight", &[config.position_rows(), d])?;
    let projections = match config.projects() {
        true => Some(Projections {
            input: loader.linear("decoder.project_in", d, w, false)?,
            output: loader.linear("decoder.project_out", w, d, false)?,
        }),
        false => None,
    };
    let head_dim = config.head_dim();
    let scale = 1.0 / (head_dim as f32).sqrt();
    let shape = Shape { d_model: d, num_heads: config.num_attention_heads, head_dim, scale };
    let layers = (0..config.num_hidden_layers)
        .map(|l| {
            let name = format!("decoder.layers.{l}");
            let own = format!("{name}.self_attn");
            Ok(Layer {
                attention: loader.attention(&own, d, config.enable_bias, |w| {
                    let spec = BlockSpec { what: &own, layer: l, shape, dtype, bias: None };
                    self_attention(device, kinds.self_, &spec, w)
                })?,
                ffn: FeedForward {
                    up: loader.linear(&format!("{name}.fc1"), f, d, config.enable_bias)?,
                    down: loader.linear(&format!("{name}.fc2"), d, f, config.enable_bias)?,
                    gate: None,
                    activation: config.activation,
                },
            })
        })
        .collect::<Result<_, ModelError>>()?;
    let norm = |name: &str| loader.norm(&format!("decoder.{name}"), d, OptConfig::LAYER_NORM_EPS);
    // `final_layer_norm` of a layer is that of its feed-forward block.
    let blocks = |l: usize| {
        Ok(vec![norm(&format!("layers.{l}.self_attn_layer_norm"))?, norm(&format!("layers.{l}.final_layer_norm"))?])
    };
    let norms = Norms {
        order: config.norm_order,
        layers: (0..config.num_hidden_layers).map(blocks).collect::<Result<_, ModelError>>()?,
        last: if config.final_norm { Some(norm("final_layer_norm")?) } else { None },
    };
    Ok(DecoderOnly {
        family: ModelFamily::Opt.model_type(),
        limits: ModelLimits {
            vocab_size: config.vocab_size,
            max_position_embeddings: Some(config.max_position_embeddings),
            is_encoder_decoder: false,
        },
        cache_layout: CacheLayout {
            layers: config.num_hidden_layers,
            self_shape: shape,
            self_kind: kinds.self_,
            cross: None,
            dtype,
        },
        ffn: f,
        embedding,
        positions: loader.table("positions", positions, None)?,
        position_offset: OptConfig::POSITION_OFFSET,
        projections,
        head,
        layers,
        norms,
    })
}
