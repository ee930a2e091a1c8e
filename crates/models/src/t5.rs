//! T5 (Raffel et al. 2020, arXiv 1910.10683), T5 v1.1 and Flan-T5 as in Hugging Face `T5ForConditionalGeneration`: a pre-norm encoder-decoder
//! with RMS norms, no biases on projections, scores that are not scaled, and a bias on the scores of self-attention by head and distance, which
//! the first block of each stack holds for all.
//!
//! In half precision T5 is known to overflow: in the residual stream and inside the feed-forward block. Those are activations, which elgen keeps in
//! f32 throughout. `--dtype f16` stores weights, all far below 65504, and caches: normalised hidden states (EL), at most sqrt(d_model) times the
//! norm's gain, or their keys and values, a projection of the same.

use elgen_attention::{
    AttentionWeights, BlockSpec, CacheLayout, Caches, CrossAttention, CrossQueries, EncoderAttention, Epilogue, Packed,
    PositionBias, Projection, SelfAttention, Shape, Step, cross_attention, memorize, self_attention,
};
use elgen_search::ModelLimits;
use elgen_tensor::ops::{self, LayerNorm, Linear, embed_packed, embed_step, layer_norm, linear};
use elgen_tensor::{Buffer, DType, Device, Recorder, Tensor};

use crate::architecture::{Architecture, Kinds, Probe};
use crate::checkpoint::{Checkpoint, Weights};
use crate::config::T5Config;
use crate::error::ModelError;
use crate::layers::{FeedForward, Loader, Rows, Space, StackShape};

#[derive(Debug)]
struct EncoderLayer {
    attention_norm: LayerNorm,
    attention: EncoderAttention,
    ffn_norm: LayerNorm,
    ffn: FeedForward,
}

#[derive(Debug)]
struct DecoderLayer {
    attention_norm: LayerNorm,
    attention: Box<dyn SelfAttention>,
    cross_norm: LayerNorm,
    cross: Box<dyn CrossAttention>,
    ffn_norm: LayerNorm,
    ffn: FeedForward,
}

/// A loaded T5 model.
#[derive(Debug)]
pub(crate) struct T5 {
    config: T5Config,
    kinds: Kinds,
    dtype: DType,
    encoder_embedding: Linear,
    decoder_embedding: Linear,
    head: Linear,
    encoder: Vec<EncoderLayer>,
    encoder_norm: LayerNorm,
    decoder: Vec<DecoderLayer>,
    decoder_norm: LayerNorm,
}

/// Both stacks have the same heads.
fn shape(config: &T5Config) -> Shape {
    Shape { d_model: config.d_model, num_heads: config.num_heads, head_dim: config.d_kv, scale: 1.0 }
}

/// Reads T5's layers.
struct Blocks<'a> {
    loader: Loader<'a>,
    config: &'a T5Config,
}

impl Blocks<'_> {
    fn norm(&self, name: &str, factor: f32) -> Result<LayerNorm, ModelError> {
        let mut weight = self.loader.vector(&format!("{name}.weight"), self.config.d_model)?;
        weight.iter_mut().for_each(|w| *w *= factor);
        Ok(LayerNorm::rms(self.loader.device, name, &weight, self.config.layer_norm_epsilon)?)
    }

    /// The projections `NAME.{q,k,v,o}`, handed to `build`.
    fn attention<T>(
        &self,
        name: &str,
        build: impl FnOnce(AttentionWeights<'_>) -> elgen_attention::Result<T>,
    ) -> Result<T, ModelError> {
        let (d, inner) = (self.config.d_model, self.config.inner_dim());
        let part = |p: &str, shape: [usize; 2]| {
            Ok::<_, ModelError>(Rows(self.loader.weights.tensor(&format!("{name}.{p}.weight"), &shape)?))
        };
        let (q, k, v) = (part("q", [inner, d])?, part("k", [inner, d])?, part("v", [inner, d])?);
        let o = part("o", [d, inner])?;
        let bare = |weight| Projection { weight, bias: None };
        Ok(build(AttentionWeights { q: bare(&q), k: bare(&k), v: bare(&v), o: bare(&o) })?)
    }

    fn ffn(&self, name: &str) -> Result<FeedForward, ModelError> {
        let (d, f) = (self.config.d_model, self.config.d_ff);
        let name = format!("{name}.DenseReluDense");
        let (up, gate) = match self.config.is_gated_act {
            true => ("wi_0", Some(self.loader.unbiased(&format!("{name}.wi_1"), f, d)?)),
            false => ("wi", None),
        };
        Ok(FeedForward {
            up: self.loader.unbiased(&format!("{name}.{up}"), f, d)?,
            gate,
            down: self.loader.unbiased(&format!("{name}.wo"), d, f)?,
            activation: self.config.activation,
        })
    }

    /// The position biases of a stack, looked up once for every distance instead of once for every score.
    fn position_bias(&self, side: &str, bidirectional: bool) -> Result<PositionBias, ModelError> {
        let config = self.config;
        let name = format!("{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
        let view = self.loader.weights.tensor(&name, &[config.relative_attention_num_buckets, config.num_heads])?;
        let values = view.to_f32()?;
        // From max_distance on, all positions of a direction share a bucket.
        let reach = config.relative_attention_max_distance;
        Ok(PositionBias::new(self.loader.device, &name, config.num_heads, reach, |head, distance| {
            values[config.bucket(distance, bidirectional) * config.num_heads + head]
        })?)
    }
}

impl T5 {
    /// Loads the weights.
    ///
    /// # Errors
    /// Tensors that are missing, misshapen or not finite; out of memory.
    pub(crate) fn load(
        device: &Device,
        config: &T5Config,
        checkpoint: &Checkpoint,
        kinds: Kinds,
        dtype: DType,
    ) -> Result<Self, ModelError> {
        let loader = Loader { device, weights: Weights::new(checkpoint, ""), dtype };
        let blocks = Blocks { loader, config };
        // Whatever the config says: transformers 5 takes the head for tied unless the file holds one with values of its own.
        let tables = loader.weights.bart_embeddings(config.vocab_size, config.d_model, true)?;
        let encoder_embedding = loader.table("encoder embedding", tables.encoder, None)?;
        let decoder_embedding = match tables.decoder.name() == tables.encoder.name() {
            true => encoder_embedding.clone(),
            false => loader.table("decoder embedding", tables.decoder, None)?,
        };
        let head = match tables.head.name() {
            name if name == tables.encoder.name() => encoder_embedding.clone(),
            name if name == tables.decoder.name() => decoder_embedding.clone(),
            _ => loader.table("head", tables.head, None)?,
        };
        let (encoder_bias, decoder_bias) =
            (blocks.position_bias("encoder", true)?, blocks.position_bias("decoder", false)?);
        let shape = shape(config);
        let encoder = (0..config.num_layers)
            .map(|l| {
                let name = format!("encoder.block.{l}.layer");
                let own = format!("{name}.0.SelfAttention");
                let spec = BlockSpec { what: &own, layer: l, shape, dtype, bias: Some(&encoder_bias) };
                Ok(EncoderLayer {
                    attention_norm: blocks.norm(&format!("{name}.0.layer_norm"), 1.0)?,
                    attention: blocks.attention(&own, |w| EncoderAttention::new(device, &spec, w))?,
                    ffn_norm: blocks.norm(&format!("{name}.1.layer_norm"), 1.0)?,
                    ffn: blocks.ffn(&format!("{name}.1"))?,
                })
            })
            .collect::<Result<_, ModelError>>()?;
        let decoder = (0..config.num_decoder_layers)
            .map(|l| {
                let name = format!("decoder.block.{l}.layer");
                let (own, cross) = (format!("{name}.0.SelfAttention"), format!("{name}.1.EncDecAttention"));
                let own_spec = BlockSpec { what: &own, layer: l, shape, dtype, bias: Some(&decoder_bias) };
                let cross_spec = BlockSpec { what: &cross, bias: None, ..own_spec };
                Ok(DecoderLayer {
                    attention_norm: blocks.norm(&format!("{name}.0.layer_norm"), 1.0)?,
                    attention: blocks.attention(&own, |w| self_attention(device, kinds.self_, &own_spec, w))?,
                    cross_norm: blocks.norm(&format!("{name}.1.layer_norm"), 1.0)?,
                    cross: blocks.attention(&cross, |w| cross_attention(device, kinds.cross, &cross_spec, w))?,
                    ffn_norm: blocks.norm(&format!("{name}.2.layer_norm"), 1.0)?,
                    ffn: blocks.ffn(&format!("{name}.2"))?,
                })
            })
            .collect::<Result<_, ModelError>>()?;
        // The scaling before a tied head goes into the norm before it.
        let head_scale = if config.scale_decoder_outputs { 1.0 / (config.d_model as f32).sqrt() } else { 1.0 };
        Ok(Self {
            config: config.clone(),
            kinds,
            dtype,
            encoder_embedding,
            decoder_embedding,
            head,
            encoder,
            encoder_norm: blocks.norm("encoder.final_layer_norm", 1.0)?,
            decoder,
            decoder_norm: blocks.norm("decoder.final_layer_norm", head_scale)?,
        })
    }

    /// The decoder stack over `rows` rows whose embeddings are in `space.x`; the result, after the final norm, is in `space.h`.
    #[expect(clippy::too_many_arguments, reason = "the two callers differ in nothing but these")]
    fn decode(
        &self,
        rec: &mut Recorder,
        space: &Space,
        rows: usize,
        caches: &Caches,
        queries: CrossQueries<'_>,
        mut self_attention: impl FnMut(
            &mut Recorder,
            &dyn SelfAttention,
            &Tensor,
            &Epilogue<'_>,
        ) -> elgen_attention::Result<()>,
        probe: &mut Probe<'_>,
    ) -> Result<(), ModelError> {
        let (mut x, mut y, h) = (&space.x, &space.y, &space.h);
        probe.see(rec, "decoder", 0, x, rows)?;
        let first = self.decoder.first().map_or(&self.decoder_norm, |layer| &layer.attention_norm);
        layer_norm(rec, x, first, h, rows)?;
        for (l, layer) in self.decoder.iter().enumerate() {
            let own = Epilogue { residual: Some(x), out: y, norm: Some((&layer.cross_norm, h)) };
            self_attention(rec, &*layer.attention, h, &own)?;
            let cross = Epilogue { residual: Some(y), out: x, norm: Some((&layer.ffn_norm, h)) };
            layer.cross.attend(rec, h, &cross, queries, caches, &space.attention)?;
            // Each block ends in the norm that the next one begins with.
            let next = self.decoder.get(l + 1).map_or(&self.decoder_norm, |layer| &layer.attention_norm);
            let ffn = Epilogue { residual: Some(x), out: y, norm: Some((next, h)) };
            layer.ffn.forward(rec, h, &space.inner, &ffn, rows)?;
            std::mem::swap(&mut x, &mut y);
            probe.see(rec, "decoder", l + 1, x, rows)?;
        }
        Ok(())
    }
}

impl Architecture for T5 {
    fn limits(&self) -> ModelLimits {
        ModelLimits { vocab_size: self.config.vocab_size, max_position_embeddings: None, is_encoder_decoder: true }
    }

    fn cache_layout(&self) -> CacheLayout {
        let shape = shape(&self.config);
        CacheLayout {
            layers: self.config.num_decoder_layers,
            self_shape: shape,
            self_kind: self.kinds.self_,
            cross: Some((shape, self.kinds.cross)),
            dtype: self.dtype,
        }
    }

    fn encoder_shape(&self) -> Option<StackShape> {
        Some(self.decoder_shape())
    }

    fn decoder_shape(&self) -> StackShape {
        StackShape { attention: shape(&self.config), ffn: self.config.d_ff, gated: self.config.is_gated_act }
    }

    fn encode(
        &self,
        rec: &mut Recorder,
        ids: &Buffer,
        batch: &Packed,
        caches: &Caches,
        space: &Space,
        mut probe: Probe<'_>,
    ) -> Result<(), ModelError> {
        let n = batch.tokens;
        let (x, y, h) = (&space.x, &space.y, &space.h);
        embed_packed(rec, ids, n, &self.encoder_embedding, 1.0, None, x)?;
        probe.see(rec, "encoder", 0, x, n)?;
        let first = self.encoder.first().map_or(&self.encoder_norm, |layer| &layer.attention_norm);
        layer_norm(rec, x, first, h, n)?;
        for (l, layer) in self.encoder.iter().enumerate() {
            let own = Epilogue { residual: Some(x), out: y, norm: Some((&layer.ffn_norm, h)) };
            layer.attention.forward(rec, h, &own, batch, &space.attention)?;
            let next = self.encoder.get(l + 1).map_or(&self.encoder_norm, |layer| &layer.attention_norm);
            let ffn = Epilogue { residual: Some(y), out: x, norm: Some((next, h)) };
            layer.ffn.forward(rec, h, &space.inner, &ffn, n)?;
            probe.see(rec, "encoder", l + 1, x, n)?;
        }
        memorize(rec, h, batch, caches)?;
        for layer in &self.decoder {
            layer.cross.memorize(rec, h, batch, caches, &space.attention)?;
        }
        Ok(())
    }

    fn prefill<'s>(
        &'s self,
        rec: &mut Recorder,
        ids: &Buffer,
        batch: &Packed,
        caches: &Caches,
        space: &'s Space,
        mut probe: Probe<'_>,
    ) -> Result<&'s Tensor, ModelError> {
        embed_packed(rec, ids, batch.tokens, &self.decoder_embedding, 1.0, None, &space.x)?;
        let ranges = batch.cross_ranges.as_ref().unwrap_or(&batch.ranges);
        let queries = CrossQueries { index: &batch.index, ranges, segments: &batch.segments, count: batch.tokens };
        let own = |rec: &mut Recorder, block: &dyn SelfAttention, h: &Tensor, epilogue: &Epilogue<'_>| {
            block.prefill(rec, h, epilogue, batch, caches, &space.attention)
        };
        self.decode(rec, space, batch.tokens, caches, queries, own, &mut probe)?;
        Ok(&space.h)
    }

    fn step(
        &self,
        rec: &mut Recorder,
        step: Step<'_>,
        caches: &Caches,
        space: &Space,
        logits: &Tensor,
        mut probe: Probe<'_>,
    ) -> Result<(), ModelError> {
        let rows = step.rows;
        embed_step(rec, rows, &self.decoder_embedding, 1.0, None, &space.x)?;
        let ranges = step.cross_ranges.unwrap_or(&rows.active);
        let queries = CrossQueries { index: &rows.active, ranges, segments: rows.segments(), count: rows.count() };
        let own = |rec: &mut Recorder, block: &dyn SelfAttention, h: &Tensor, epilogue: &Epilogue<'_>| {
            block.step(rec, h, epilogue, step, caches, &space.attention)
        };
        self.decode(rec, space, rows.count(), caches, queries, own, &mut probe)?;
        self.head(rec, &space.h, logits, rows.count())
    }

    fn head(&self, rec: &mut Recorder, hidden: &Tensor, logits: &Tensor, rows: usize) -> Result<(), ModelError> {
        Ok(linear(rec, hidden, &self.head, ops::Activation::None, None, logits, rows)?)
    }
}
