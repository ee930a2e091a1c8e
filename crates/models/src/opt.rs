//! OPT (Zhang et al. 2022, arXiv 2205.01068) as in Hugging Face `OPTForCausalLM`: a decoder with learned positions (offset 2), pre-norm but for
//! the 350m model, whose embeddings are narrower than its layers as well.

use elgen_attention::{BlockSpec, Kinds, Shape, self_attention};
use elgen_search::ModelLimits;
use elgen_tensor::{DType, Device};

use crate::checkpoint::{Checkpoint, Weights};
use crate::config::{ModelFamily, OptConfig};
use crate::decoder_only::{DecoderOnly, Layer, Projections};
use crate::error::ModelError;
use crate::feed_forward::FeedForward;
use crate::loader::Loader;
use crate::outline::{Outline, Weight, feed_forward};
use crate::space::StackShape;
use crate::stack::Norms;

fn shape(config: &OptConfig) -> Shape {
    let head_dim = config.head_dim();
    let scale = 1.0 / (head_dim as f32).sqrt();
    Shape { d_model: config.hidden_size, num_heads: config.num_attention_heads, head_dim, scale }
}

/// What the config says.
pub(crate) fn outline(config: &OptConfig) -> Outline {
    let (d, w, layers) = (config.hidden_size, config.word_embed_proj_dim, config.num_hidden_layers);
    let (shape, biases) = (shape(config), config.enable_bias);
    let matrix = |rows, cols| Weight::Matrix { rows, cols, bias: false };
    let projections = usize::from(config.projects());
    let mut weights = vec![
        (1 + usize::from(!config.tie_word_embeddings), matrix(config.vocab_size, w)),
        (1, matrix(config.position_rows(), d)),
        (projections, matrix(d, w)),
        (projections, matrix(w, d)),
        (2 * layers + usize::from(config.final_norm), Weight::Norm { cols: d, shift: true }),
        (layers, Weight::SelfAttention { shape, biases }),
    ];
    weights.extend(feed_forward(layers, d, config.ffn_dim, false, biases));
    Outline {
        limits: ModelLimits {
            vocab_size: config.vocab_size,
            max_position_embeddings: Some(config.max_position_embeddings),
            is_encoder_decoder: false,
        },
        encoder_layers: 0,
        decoder_layers: layers,
        encoder: None,
        // The feed-forward tensor also takes rows of the embedding table on their way through the projections.
        decoder: StackShape { attention: shape, ffn: config.ffn_dim.max(projections * w), gated: false },
        head_width: w,
        weights,
    }
}

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
    let shape = shape(config);
    let layers = (0..config.num_hidden_layers)
        .map(|l| {
            let name = format!("decoder.layers.{l}");
            let own = format!("{name}.self_attn");
            Ok(Layer {
                attention: loader.attention(&own, d, config.enable_bias, |w| {
                    let spec = BlockSpec { what: &own, layer: l, shape, dtype, bias: None, masks_whole_rows: false };
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
        outline: outline(config),
        cache_layout: outline(config).cache_layout(kinds, dtype),
        embedding,
        positions: loader.table("positions", positions, None)?,
        position_offset: OptConfig::POSITION_OFFSET,
        projections,
        head,
        layers,
        norms,
    })
}
