//! BART and its kin as in Hugging Face `BartForConditionalGeneration`, `MBartForConditionalGeneration`, `MarianMTModel` and
//! `PegasusForConditionalGeneration`: encoder-decoders with the same tensors under the same names. Where the norms stand, whether one follows the
//! embeddings, what the positions are and how many vocabularies there are is the config's to say ([`BartConfig`]).

mod config;
mod variants;

use elgen_attention::{BlockSpec, PositionScheme, Shape, load_linear};
use elgen_search::ModelLimits;
use elgen_tensor::ops::Linear;
use elgen_tensor::{Class, DType, Matrix, Tensor};

use crate::architecture::Architecture;
use crate::checkpoint::{RandomRules, Weights};
use crate::config::NormOrder;
use crate::embeddings::{Embeddings, PositionTable};
use crate::error::ModelError;
use crate::family::{FamilyConfig, LoadArgs, ModelSummary};
use crate::feed_forward::{DenseFeedForward, FeedForwardBlock};
use crate::loader::Loader;
use crate::outline::{Outline, Weight, feed_forward};
use crate::positions::Sinusoidal;
use crate::space::StackShape;
use crate::stack::Norms;
use crate::transformer::{DecoderLayer, EncoderLayer, Stack, Transformer};
pub use config::{BartConfig, Positions, StackConfig};
pub(crate) use variants::{BART, MARIAN, MBART, PEGASUS};

impl RandomRules for BartConfig {}

impl FamilyConfig for BartConfig {
    fn summary(&self) -> ModelSummary {
        ModelSummary {
            encoder_layers: self.encoder.layers,
            decoder_layers: self.decoder.layers,
            d_model: self.d_model,
            encoder_heads: self.encoder.heads,
            decoder_heads: self.decoder.heads,
            head_dim: self.decoder_head_dim(),
            ffn_dim: self.decoder.ffn_dim,
            vocab_size: self.decoder_vocab_size,
            positions: Some(self.max_position_embeddings),
            tied: self.tie_word_embeddings,
            parameters: self.parameters(),
        }
    }

    fn source_vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn outline(&self) -> Outline {
        let (d, vocab) = (self.d_model, self.decoder_vocab_size);
        let (encoder_shape, decoder_shape) = (shape(self, &self.encoder), shape(self, &self.decoder));
        // The encoder's working tensors also take the cross projections of the decoder's blocks, 2 * inner wide: both stacks have the same
        // d_model, but their padded heads may differ.
        let widest = if encoder_shape.inner() >= decoder_shape.inner() { encoder_shape } else { decoder_shape };
        let (encoder, decoder) = (self.encoder, self.decoder);
        let table = |rows| Weight::Matrix { rows, cols: d, bias: false };
        let side_norms = usize::from(self.embedding_norm) + usize::from(self.norm_order == NormOrder::Pre);
        let norms = 2 * encoder.layers + 3 * decoder.layers + 2 * side_norms;
        let mut weights = vec![
            (1, table(self.vocab_size)),
            (usize::from(!self.share_embeddings) + usize::from(!self.tie_word_embeddings), table(vocab)),
            (1, Weight::Vector { len: vocab }),
            (2, table(self.position_rows())),
            (norms, Weight::Norm { cols: d, shift: true }),
            (encoder.layers, Weight::Encoder { shape: encoder_shape, biases: true }),
            (decoder.layers, Weight::SelfAttention { shape: decoder_shape, biases: true }),
            (decoder.layers, Weight::CrossAttention { shape: decoder_shape, biases: true }),
        ];
        weights.extend(feed_forward(encoder.layers, d, encoder.ffn_dim, false, true));
        weights.extend(feed_forward(decoder.layers, d, decoder.ffn_dim, false, true));
        Outline {
            limits: ModelLimits {
                vocab_size: vocab,
                max_position_embeddings: Some(self.max_position_embeddings),
                is_encoder_decoder: true,
            },
            encoder_layers: encoder.layers,
            decoder_layers: decoder.layers,
            encoder: Some(StackShape { attention: widest, ffn: encoder.ffn_dim, gated: false }),
            decoder: StackShape { attention: decoder_shape, ffn: decoder.ffn_dim, gated: false },
            head_width: d,
            weights,
        }
    }

    fn load(&self, from: &LoadArgs<'_>) -> Result<Box<dyn Architecture>, ModelError> {
        Ok(Box::new(load(self, from)?))
    }
}

fn shape(config: &BartConfig, stack: &StackConfig) -> Shape {
    let head_dim = config.d_model / stack.heads;
    Shape::new(config.d_model, stack.heads, head_dim, 1.0 / (head_dim as f32).sqrt())
}

/// The embedding tables of encoder and decoder, and the head.
fn tables(loader: &Loader<'_>, config: &BartConfig) -> Result<([Matrix; 2], Linear), ModelError> {
    let (d, tied) = (config.d_model, config.tie_word_embeddings);
    let views = match config.share_embeddings {
        true => loader.weights.shared_embeddings(BartConfig::SUBSTITUTES, config.vocab_size, d, tied)?,
        false => loader.weights.separate_embeddings(config.vocab_size, config.decoder_vocab_size, d, tied)?,
    };
    let [encoder, decoder, head] = loader.tables(views)?;
    Ok(([encoder, decoder], Linear { weight: head, bias: logits_bias(loader, config)? }))
}

/// `final_logits_bias`, unless it is zero.
fn logits_bias(loader: &Loader<'_>, config: &BartConfig) -> Result<Option<Tensor>, ModelError> {
    let name = "final_logits_bias";
    let bias = match loader.weights.optional(name, &[1, config.decoder_vocab_size])? {
        Some(view) => view.to_f32()?,
        None => Vec::new(),
    };
    if bias.iter().all(|x| *x == 0.0) {
        return Ok(None);
    }
    Ok(Some(loader.device.tensor_from(name, Class::Weights, 1, bias.len(), DType::F32, &bias)?))
}

/// The position table of one side.
fn positions(loader: &Loader<'_>, config: &BartConfig, side: &str) -> Result<PositionTable, ModelError> {
    let name = format!("{side}.embed_positions.weight");
    let (rows, d) = (config.position_rows(), config.d_model);
    let view = match config.positions {
        Positions::Learned { .. } => Some(loader.weights.tensor(&name, &[rows, d])?),
        Positions::Sinusoidal => loader.weights.optional(&name, &[rows, d])?,
    };
    let table = match view {
        Some(view) => loader.table(&name, view)?,
        None => load_linear(loader.device, &name, loader.dtype, &Sinusoidal { rows, d }, None)?.weight,
    };
    Ok(PositionTable { table, offset: config.positions.offset() })
}

/// The stack of one side, with the norms `blocks` of each layer.
fn stack<L>(
    loader: &Loader<'_>,
    config: &BartConfig,
    side: &str,
    table: Matrix,
    layers: Vec<L>,
    blocks: &[&str],
) -> Result<Stack<L>, ModelError> {
    let norm = |name: &str| loader.norm(&format!("{side}.{name}"), config.d_model, BartConfig::LAYER_NORM_EPS);
    let layer = |l: usize| blocks.iter().map(|block| norm(&format!("layers.{l}.{block}"))).collect();
    Ok(Stack {
        embeddings: Embeddings {
            table,
            scale: config.embedding_scale(),
            positions: Some(positions(loader, config, side)?),
            projection: None,
            norm: if config.embedding_norm { Some(norm("layernorm_embedding")?) } else { None },
        },
        norms: Norms {
            order: config.norm_order,
            layers: (0..layers.len()).map(layer).collect::<Result<_, ModelError>>()?,
            last: if config.norm_order == NormOrder::Pre { Some(norm("layer_norm")?) } else { None },
        },
        layers,
    })
}

fn load(config: &BartConfig, from: &LoadArgs<'_>) -> Result<Transformer, ModelError> {
    let LoadArgs { family, device, checkpoint, kinds, dtype } = *from;
    let loader = Loader { device, weights: Weights::new(checkpoint, "model."), dtype };
    let d = config.d_model;
    let ([encoder_table, decoder_table], head) = tables(&loader, config)?;
    let feed_forward = |name: &str, stack: &StackConfig| -> Result<Box<dyn FeedForwardBlock>, ModelError> {
        Ok(Box::new(DenseFeedForward {
            up_proj: loader.linear(&format!("{name}.fc1"), stack.ffn_dim, d, true)?,
            down_proj: loader.linear(&format!("{name}.fc2"), d, stack.ffn_dim, true)?,
            activation: config.activation,
        }))
    };
    let projections = |name: &str| loader.square_projections(name, d, true);
    let encoder_shape = shape(config, &config.encoder);
    let encoder = (0..config.encoder.layers)
        .map(|layer| {
            let name = format!("encoder.layers.{layer}");
            let what = &format!("{name}.self_attn");
            let spec = BlockSpec { what, layer, shape: encoder_shape, dtype, positions: PositionScheme::None };
            Ok(EncoderLayer {
                attention: loader
                    .attention(projections(what)?, |w| kinds.encoder.encoder_attention(&device.into(), &spec, w))?,
                feed_forward: feed_forward(&name, &config.encoder)?,
            })
        })
        .collect::<Result<_, ModelError>>()?;
    let decoder_shape = shape(config, &config.decoder);
    let decoder =
        (0..config.decoder.layers)
            .map(|layer| {
                let name = format!("decoder.layers.{layer}");
                let (what, cross) = (&format!("{name}.self_attn"), &format!("{name}.encoder_attn"));
                let own = BlockSpec { what, layer, shape: decoder_shape, dtype, positions: PositionScheme::None };
                let cross = BlockSpec { what: cross, ..own };
                Ok(DecoderLayer {
                    attention: loader
                        .attention(projections(own.what)?, |w| kinds.self_.self_attention(&device.into(), &own, w))?,
                    cross: Some(loader.attention(projections(cross.what)?, |w| {
                        kinds.cross.cross_attention(&device.into(), &cross, w)
                    })?),
                    feed_forward: feed_forward(&name, &config.decoder)?,
                })
            })
            .collect::<Result<_, ModelError>>()?;
    // `final_layer_norm` of a layer is that of its feed-forward block.
    let (own, cross, last) = ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm");
    let outline = config.outline();
    Ok(Transformer {
        family: family.model_type,
        cache_layout: outline.cache_layout(kinds, dtype),
        outline,
        encoder: Some(stack(&loader, config, "encoder", encoder_table, encoder, &[own, last])?),
        decoder: stack(&loader, config, "decoder", decoder_table, decoder, &[own, cross, last])?,
        output_projection: None,
        head,
    })
}
