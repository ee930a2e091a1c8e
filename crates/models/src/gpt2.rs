//! GPT-2 (Radford et al. 2019) as in Hugging Face `GPT2LMHeadModel`: a pre-norm decoder with learned positions, fused QKV weights stored
//! `[in, out]`, and a head tied to the embeddings.

use elgen_attention::{AttentionWeights, BlockSpec, Kinds, Projection, SelfAttention, Shape, self_attention};
use elgen_search::ModelLimits;
use elgen_tensor::{DType, Device};

use crate::checkpoint::{Checkpoint, Weights};
use crate::config::{Gpt2Config, ModelFamily, NormOrder};
use crate::decoder_only::{DecoderOnly, Layer};
use crate::error::ModelError;
use crate::feed_forward::FeedForward;
use crate::loader::{Columns, Loader};
use crate::outline::{Outline, Weight, feed_forward};
use crate::space::StackShape;
use crate::stack::Norms;

fn shape(config: &Gpt2Config, layer: usize) -> Shape {
    Shape {
        d_model: config.n_embd,
        num_heads: config.n_head,
        head_dim: config.head_dim(),
        scale: config.attention_scale(layer),
    }
}

/// The four projections of layer `l`: three column blocks of `c_attn`, and `c_proj`.
fn attention(
    loader: &Loader<'_>,
    config: &Gpt2Config,
    l: usize,
    kinds: Kinds,
) -> Result<Box<dyn SelfAttention>, ModelError> {
    let d = config.n_embd;
    let name = format!("h.{l}.attn");
    let qkv = loader.weights.tensor(&format!("{name}.c_attn.weight"), &[d, 3 * d])?;
    let qkv_bias = loader.vector(&format!("{name}.c_attn.bias"), 3 * d)?;
    let out = loader.weights.tensor(&format!("{name}.c_proj.weight"), &[d, d])?;
    let out_bias = loader.vector(&format!("{name}.c_proj.bias"), d)?;
    let part = |i: usize| Columns { view: qkv.clone(), first: i * d, count: d };
    let (q, k, v) = (part(0), part(1), part(2));
    let o = Columns { view: out, first: 0, count: d };
    let bias = |i: usize| Some(&qkv_bias[i * d..(i + 1) * d]);
    let weights = AttentionWeights {
        q: Projection { weight: &q, bias: bias(0) },
        k: Projection { weight: &k, bias: bias(1) },
        v: Projection { weight: &v, bias: bias(2) },
        o: Projection { weight: &o, bias: Some(&out_bias) },
    };
    let spec = BlockSpec {
        what: &name,
        layer: l,
        shape: shape(config, l),
        dtype: loader.dtype,
        bias: None,
        masks_whole_rows: false,
    };
    Ok(self_attention(loader.device, kinds.self_, &spec, weights)?)
}

/// What the config says.
pub(crate) fn outline(config: &Gpt2Config) -> Outline {
    let (d, layers, shape) = (config.n_embd, config.n_layer, shape(config, 0));
    let tables = 1 + usize::from(!config.tie_word_embeddings);
    let mut weights = vec![
        (tables, Weight::Matrix { rows: config.vocab_size, cols: d, bias: false }),
        (1, Weight::Matrix { rows: config.n_positions, cols: d, bias: false }),
        (2 * layers + 1, Weight::Norm { cols: d, shift: true }),
        (layers, Weight::SelfAttention { shape, biases: true }),
    ];
    weights.extend(feed_forward(layers, d, config.n_inner, false, true));
    Outline {
        limits: ModelLimits {
            vocab_size: config.vocab_size,
            max_position_embeddings: Some(config.n_positions),
            is_encoder_decoder: false,
        },
        encoder_layers: 0,
        decoder_layers: layers,
        encoder: None,
        decoder: StackShape { attention: shape, ffn: config.n_inner, gated: false },
        head_width: d,
        weights,
    }
}

/// Loads the weights.
///
/// # Errors
/// Tensors that are missing, misshapen or not finite; out of memory.
pub(crate) fn load(
    device: &Device,
    config: &Gpt2Config,
    checkpoint: &Checkpoint,
    kinds: Kinds,
    dtype: DType,
) -> Result<DecoderOnly, ModelError> {
    let loader = Loader { device, weights: Weights::new(checkpoint, "transformer."), dtype };
    let (d, f) = (config.n_embd, config.n_inner);
    let tables = loader.weights.gpt2_embeddings(config.vocab_size, d, config.tie_word_embeddings)?;
    let shared = tables.all_shared();
    let embedding = loader.table("embedding", tables.input, None)?;
    let head = if shared { embedding.clone() } else { loader.table("head", tables.head, None)? };
    let positions = loader.weights.tensor("wpe.weight", &[config.n_positions, d])?;
    let norm = |name: &str| loader.norm(name, d, config.layer_norm_epsilon);
    let layers = (0..config.n_layer)
        .map(|l| {
            Ok(Layer {
                attention: attention(&loader, config, l, kinds)?,
                ffn: FeedForward {
                    up: loader.conv1d(&format!("h.{l}.mlp.c_fc"), f, d)?,
                    down: loader.conv1d(&format!("h.{l}.mlp.c_proj"), d, f)?,
                    gate: None,
                    activation: config.activation,
                },
            })
        })
        .collect::<Result<_, ModelError>>()?;
    let norms = Norms {
        order: NormOrder::Pre,
        layers: (0..config.n_layer)
            .map(|l| Ok(vec![norm(&format!("h.{l}.ln_1"))?, norm(&format!("h.{l}.ln_2"))?]))
            .collect::<Result<_, ModelError>>()?,
        last: Some(norm("ln_f")?),
    };
    Ok(DecoderOnly {
        family: ModelFamily::Gpt2.model_type(),
        outline: outline(config),
        cache_layout: outline(config).cache_layout(kinds, dtype),
        embedding,
        positions: loader.table("positions", positions, None)?,
        position_offset: 0,
        projections: None,
        head,
        layers,
        norms,
    })
}
