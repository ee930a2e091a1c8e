//! T5 (Raffel et al. 2020, arXiv 1910.10683), T5 v1.1 and Flan-T5 as in Hugging Face `T5ForConditionalGeneration`: a pre-norm encoder-decoder
//! with RMS norms, no biases on projections, scores that are not scaled, and a bias on the scores of self-attention by head and distance, which
//! the first block of each stack holds for all.
//!
//! In half precision T5 is known to overflow: in the residual stream and inside the feed-forward block. Those are activations, which elgen keeps in
//! f32 throughout. `--dtype f16` stores weights, all far below 65504, and caches: normalised hidden states (EL), at most sqrt(d_model) times the
//! norm's gain, or their keys and values, a projection of the same.

mod config;

use elgen_attention::{AttentionWeights, BlockSpec, PositionBias, PositionScheme, Shape};
use elgen_search::ModelLimits;
use elgen_tensor::ops::Norm;
use elgen_tensor::{Arena, Matrix};

use crate::architecture::Architecture;
use crate::checkpoint::Weights;
use crate::config::NormOrder;
use crate::embeddings::Embeddings;
use crate::error::ModelError;
use crate::family::{FamilyConfig, LoadArgs, ModelSummary};
use crate::feed_forward::{DenseFeedForward, FeedForwardBlock, GatedFeedForward};
use crate::loader::Loader;
use crate::outline::Outline;
use crate::space::StackShape;
use crate::stack::Norms;
use crate::transformer::{DecoderLayer, EncoderLayer, Stack, Transformer};
pub use config::T5Config;

impl FamilyConfig for T5Config {
    fn summary(&self) -> ModelSummary {
        ModelSummary {
            encoder_layers: self.num_layers,
            decoder_layers: self.num_decoder_layers,
            d_model: self.d_model,
            encoder_heads: self.num_heads,
            decoder_heads: self.num_heads,
            head_dim: self.d_kv,
            ffn_dim: self.d_ff,
            vocab_size: self.vocab_size,
            positions: None,
            tied: self.tie_word_embeddings,
        }
    }

    fn outline(&self) -> Outline {
        let stack = StackShape { attention: shape(self), ffn: self.d_ff, gated: self.is_gated_act };
        Outline {
            limits: ModelLimits {
                vocab_size: self.vocab_size,
                max_position_embeddings: None,
                is_encoder_decoder: true,
            },
            encoder_layers: self.num_layers,
            decoder_layers: self.num_decoder_layers,
            encoder: Some(stack),
            decoder: stack,
            head_width: self.d_model,
        }
    }

    fn load(&self, from: &LoadArgs<'_>) -> Result<Box<dyn Architecture>, ModelError> {
        Ok(Box::new(load(self, from)?))
    }
}

/// Both stacks have the same heads.
fn shape(config: &T5Config) -> Shape {
    Shape::new(config.d_model, config.num_heads, config.d_kv, 1.0)
}

/// Reads T5's layers.
struct Blocks<'a> {
    loader: Loader<'a>,
    config: &'a T5Config,
}

impl Blocks<'_> {
    fn norm(&self, name: &str, factor: f32) -> Result<Norm, ModelError> {
        let weight = self.loader.vector(&format!("{name}.weight"), self.config.d_model)?.scaled(factor);
        Ok(Norm::rms(self.loader.arena, name, weight.view(), self.config.layer_norm_epsilon)?)
    }

    /// The projections `NAME.{q,k,v,o}`, handed to `build`.
    fn attention<T>(
        &self,
        name: &str,
        build: impl FnOnce(&Arena, AttentionWeights<'_>) -> elgen_attention::Result<T>,
    ) -> Result<T, ModelError> {
        let (d, inner) = (self.config.d_model, self.config.inner_dim());
        let part = |p: &str, out, input| self.loader.projection(&format!("{name}.{p}"), out, input, false);
        let projections = [part("q", inner, d)?, part("k", inner, d)?, part("v", inner, d)?, part("o", d, inner)?];
        self.loader.attention(projections, |weights| build(self.loader.arena, weights))
    }

    fn feed_forward(&self, name: &str) -> Result<Box<dyn FeedForwardBlock>, ModelError> {
        let (d, f, activation) = (self.config.d_model, self.config.d_ff, self.config.activation);
        let linear =
            |part: &str, out, input| self.loader.linear(&format!("{name}.DenseReluDense.{part}"), out, input, false);
        Ok(match self.config.is_gated_act {
            true => Box::new(GatedFeedForward {
                up_proj: linear("wi_1", f, d)?,
                gate_proj: linear("wi_0", f, d)?,
                down_proj: linear("wo", d, f)?,
                activation,
            }),
            false => {
                Box::new(DenseFeedForward { up_proj: linear("wi", f, d)?, down_proj: linear("wo", d, f)?, activation })
            }
        })
    }

    /// A stack of `layers` layers of `blocks` blocks each. `factor` is that of its output.
    fn stack<L>(
        &self,
        name: &str,
        table: Matrix,
        (layers, blocks): (usize, usize),
        factor: f32,
        mut layer: impl FnMut(&Blocks<'_>, usize) -> Result<L, ModelError>,
    ) -> Result<Stack<L>, ModelError> {
        let config = self.config;
        let norm = |loader: &Loader<'_>, l: usize, b: usize| {
            Blocks { loader: *loader, config }.norm(&format!("{name}.block.{l}.layer.{b}.layer_norm"), 1.0)
        };
        let norms = Norms {
            order: NormOrder::Pre,
            layers: self.loader.each(layers, |loader, l| (0..blocks).map(|b| norm(loader, l, b)).collect())?,
            last: Some(self.norm(&format!("{name}.final_layer_norm"), factor)?),
        };
        let layers = self.loader.each(layers, |loader, l| layer(&Blocks { loader: *loader, config }, l))?;
        let embeddings = Embeddings { table, scale: 1.0, positions: None, projection: None, norm: None };
        Ok(Stack { embeddings, layers, norms })
    }

    /// The position biases of a stack, looked up once for every distance instead of once for every score.
    fn position_bias(&self, side: &str, bidirectional: bool) -> Result<PositionBias, ModelError> {
        let config = self.config;
        let name = format!("{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
        let view = self.loader.weights.tensor(&name, &[config.relative_attention_num_buckets, config.num_heads])?;
        let buckets = self.loader.numbers(&view)?;
        let values = buckets.view().values().unwrap_or_default();
        // From max_distance on, all positions of a direction share a bucket.
        let reach = config.relative_attention_max_distance;
        Ok(PositionBias::new(self.loader.arena, &name, config.num_heads, reach, |head, distance| {
            values[config.bucket(distance, bidirectional) * config.num_heads + head]
        })?)
    }
}

fn load(config: &T5Config, from: &LoadArgs<'_>) -> Result<Transformer, ModelError> {
    let LoadArgs { family, arena, checkpoint, kinds, formats } = *from;
    let loader = Loader { arena, weights: Weights::new(checkpoint, ""), format: formats.weights };
    let blocks = Blocks { loader, config };
    // Tied whatever the config says, as in transformers 5.
    let views = loader.weights.shared_embeddings(T5Config::SUBSTITUTES, config.vocab_size, config.d_model, true)?;
    let [encoder_table, decoder_table, head] = loader.tables(views, config.tie_word_embeddings)?;
    let (encoder_bias, decoder_bias) =
        (blocks.position_bias("encoder", true)?, blocks.position_bias("decoder", false)?);
    let shape = shape(config);
    let encoder_layer = |blocks: &Blocks<'_>, l: usize| {
        let name = format!("encoder.block.{l}.layer");
        let own = format!("{name}.0.SelfAttention");
        let spec = BlockSpec { what: &own, layer: l, shape, formats, positions: PositionScheme::Bias(&encoder_bias) };
        Ok(EncoderLayer {
            attention: blocks.attention(&own, |arena, w| kinds.encoder.encoder_attention(arena, &spec, w))?,
            feed_forward: blocks.feed_forward(&format!("{name}.1"))?,
        })
    };
    let decoder_layer = |blocks: &Blocks<'_>, l: usize| {
        let name = format!("decoder.block.{l}.layer");
        let (own, cross) = (format!("{name}.0.SelfAttention"), format!("{name}.1.EncDecAttention"));
        let own_spec =
            BlockSpec { what: &own, layer: l, shape, formats, positions: PositionScheme::Bias(&decoder_bias) };
        let cross_spec = BlockSpec { what: &cross, positions: PositionScheme::None, ..own_spec };
        Ok(DecoderLayer {
            attention: blocks.attention(&own, |arena, w| kinds.self_.self_attention(arena, &own_spec, w))?,
            cross: Some(blocks.attention(&cross, |arena, w| kinds.cross.cross_attention(arena, &cross_spec, w))?),
            feed_forward: blocks.feed_forward(&format!("{name}.2"))?,
        })
    };
    // The scaling before a tied head goes into the norm before it.
    let head_scale = if config.scale_decoder_outputs { 1.0 / (config.d_model as f32).sqrt() } else { 1.0 };
    let (encoder, decoder) = ((config.num_layers, 2), (config.num_decoder_layers, 3));
    let outline = config.outline();
    Ok(Transformer {
        family: family.model_type,
        cache_layout: outline.cache_layout(kinds, formats.cache),
        outline,
        encoder: Some(blocks.stack("encoder", encoder_table, encoder, 1.0, encoder_layer)?),
        decoder: blocks.stack("decoder", decoder_table, decoder, head_scale, decoder_layer)?,
        output_projection: None,
        head: head.into(),
    })
}
