//! BART and its kin as in Hugging Face `BartForConditionalGeneration`, `MBartForConditionalGeneration`, `MarianMTModel` and
//! `PegasusForConditionalGeneration`: encoder-decoders with the same tensors under the same names. Where the norms stand, whether one follows the
//! embeddings, what the positions are and how many vocabularies there are is the config's to say ([`BartConfig`]).

mod config;
mod variants;

use elgen_attention::{BlockSpec, PositionScheme, Shape};
use elgen_search::ModelLimits;
use elgen_tensor::ops::Linear;
use elgen_tensor::{Class, Matrix, Tensor, Vector};

use crate::architecture::Architecture;
use crate::checkpoint::{RandomRules, Weights};
use crate::config::NormOrder;
use crate::embeddings::{Embeddings, PositionTable};
use crate::error::ModelError;
use crate::family::{FamilyConfig, LoadArgs, ModelSummary};
use crate::feed_forward::{DenseFeedForward, FeedForwardBlock};
use crate::loader::Loader;
use crate::outline::Outline;
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
        }
    }

    fn source_vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn outline(&self) -> Outline {
        let (encoder_shape, decoder_shape) = (shape(self, &self.encoder), shape(self, &self.decoder));
        // The encoder's working tensors also take the cross projections of the decoder's blocks, 2 * inner wide: both stacks have the same
        // d_model, but their padded heads may differ.
        let widest = if encoder_shape.inner() >= decoder_shape.inner() { encoder_shape } else { decoder_shape };
        let (encoder, decoder) = (self.encoder, self.decoder);
        Outline {
            limits: ModelLimits {
                vocab_size: self.decoder_vocab_size,
                max_position_embeddings: Some(self.max_position_embeddings),
                is_encoder_decoder: true,
            },
            encoder_layers: encoder.layers,
            decoder_layers: decoder.layers,
            encoder: Some(StackShape { attention: widest, ffn: encoder.ffn_dim, gated: false }),
            decoder: StackShape { attention: decoder_shape, ffn: decoder.ffn_dim, gated: false },
            head_width: self.d_model,
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
    let [encoder, decoder, head] = loader.tables(views, tied)?;
    Ok(([encoder, decoder], Linear { weight: head, bias: logits_bias(loader, config)? }))
}

/// `final_logits_bias`, unless it is zero: a buffer, no parameter. Only a file tells, so it is counted.
fn logits_bias(loader: &Loader<'_>, config: &BartConfig) -> Result<Option<Tensor>, ModelError> {
    let (name, len) = ("final_logits_bias", config.decoder_vocab_size);
    if loader.arena.device().is_none() {
        return Ok(Some(loader.arena.vector(name, Class::Weights, Vector::Counted(len))?));
    }
    let bias = match loader.weights.optional(name, &[1, len])? {
        Some(view) => view.to_f32()?,
        None => Vec::new(),
    };
    if bias.iter().all(|x| *x == 0.0) {
        return Ok(None);
    }
    Ok(Some(loader.arena.vector(name, Class::Weights, &bias)?))
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
        Some(view) => loader.positions(&name, view)?,
        None => loader.computed_positions(&name, &Sinusoidal { rows, d })?,
    };
    Ok(PositionTable { table, offset: config.positions.offset() })
}

/// The stack of one side, of `count` layers with the norms `blocks` each.
fn stack<L>(
    loader: &Loader<'_>,
    config: &BartConfig,
    side: &str,
    table: Matrix,
    (count, blocks): (usize, &[&str]),
    layer: impl FnMut(&Loader<'_>, usize) -> Result<L, ModelError>,
) -> Result<Stack<L>, ModelError> {
    let of = |loader: &Loader<'_>, name: &str| {
        loader.norm(&format!("{side}.{name}"), config.d_model, BartConfig::LAYER_NORM_EPS)
    };
    let norm = |name: &str| of(loader, name);
    let norms =
        |loader: &Loader<'_>, l| blocks.iter().map(|block| of(loader, &format!("layers.{l}.{block}"))).collect();
    Ok(Stack {
        layers: loader.each(count, layer)?,
        embeddings: Embeddings {
            table,
            scale: config.embedding_scale(),
            positions: Some(positions(loader, config, side)?),
            projection: None,
            norm: if config.embedding_norm { Some(norm("layernorm_embedding")?) } else { None },
        },
        norms: Norms {
            order: config.norm_order,
            layers: loader.each(count, norms)?,
            last: if config.norm_order == NormOrder::Pre { Some(norm("layer_norm")?) } else { None },
        },
    })
}

fn load(config: &BartConfig, from: &LoadArgs<'_>) -> Result<Transformer, ModelError> {
    let LoadArgs { family, arena, checkpoint, kinds, formats } = *from;
    let loader = &Loader { arena, weights: Weights::new(checkpoint, "model."), format: formats.weights };
    let d = config.d_model;
    let ([encoder_table, decoder_table], head) = tables(loader, config)?;
    let feed_forward =
        |loader: &Loader<'_>, name: &str, stack: &StackConfig| -> Result<Box<dyn FeedForwardBlock>, ModelError> {
            Ok(Box::new(DenseFeedForward {
                up_proj: loader.linear(&format!("{name}.fc1"), stack.ffn_dim, d, true)?,
                down_proj: loader.linear(&format!("{name}.fc2"), d, stack.ffn_dim, true)?,
                activation: config.activation,
            }))
        };
    let encoder_shape = shape(config, &config.encoder);
    let encoder_layer = |loader: &Loader<'_>, layer: usize| {
        let name = format!("encoder.layers.{layer}");
        let what = &format!("{name}.self_attn");
        let spec = BlockSpec { what, layer, shape: encoder_shape, formats, positions: PositionScheme::None };
        let projections = loader.square_projections(what, d, true)?;
        Ok(EncoderLayer {
            attention: loader.attention(projections, |w| kinds.encoder.encoder_attention(loader.arena, &spec, w))?,
            feed_forward: feed_forward(loader, &name, &config.encoder)?,
        })
    };
    let decoder_shape = shape(config, &config.decoder);
    let decoder_layer = |loader: &Loader<'_>, layer: usize| {
        let name = format!("decoder.layers.{layer}");
        let (own, cross) = (&format!("{name}.self_attn"), &format!("{name}.encoder_attn"));
        let own = BlockSpec { what: own, layer, shape: decoder_shape, formats, positions: PositionScheme::None };
        let cross = BlockSpec { what: cross, ..own };
        let projections = |spec: &BlockSpec<'_>| loader.square_projections(spec.what, d, true);
        Ok(DecoderLayer {
            attention: loader.attention(projections(&own)?, |w| kinds.self_.self_attention(loader.arena, &own, w))?,
            cross: Some(
                loader.attention(projections(&cross)?, |w| kinds.cross.cross_attention(loader.arena, &cross, w))?,
            ),
            feed_forward: feed_forward(loader, &name, &config.decoder)?,
        })
    };
    // `final_layer_norm` of a layer is that of its feed-forward block.
    let (own, cross, last) = ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm");
    let encoder = (config.encoder.layers, &[own, last][..]);
    let decoder = (config.decoder.layers, &[own, cross, last][..]);
    let outline = config.outline();
    Ok(Transformer {
        family: family.model_type,
        cache_layout: outline.cache_layout(kinds, formats.cache),
        outline,
        encoder: Some(stack(loader, config, "encoder", encoder_table, encoder, encoder_layer)?),
        decoder: stack(loader, config, "decoder", decoder_table, decoder, decoder_layer)?,
        output_projection: None,
        head,
    })
}
