//! BART (Lewis et al. 2019, arXiv 1910.13461) as in Hugging Face `BartForConditionalGeneration`: a post-norm encoder-decoder with learned
//! positions (offset 2), a norm behind the embeddings, and a head tied to them.

use elgen_attention::{
    CacheLayout, Caches, CrossAttention, CrossQueries, EncoderAttention, Epilogue, Packed, SelfAttention, Shape, Step,
    cross_attention, memorize, self_attention,
};
use elgen_search::ModelLimits;
use elgen_tensor::ops::{self, LayerNorm, Linear, embed_packed, embed_step, layer_norm, linear};
use elgen_tensor::{Buffer, Class, DType, Device, Recorder, Tensor};

use crate::architecture::{Architecture, Kinds, Probe};
use crate::checkpoint::{Checkpoint, Weights};
use crate::config::{BartConfig, StackConfig};
use crate::error::ModelError;
use crate::layers::{FeedForward, Loader, Space, StackShape};

#[derive(Debug)]
struct EncoderLayer {
    attention: EncoderAttention,
    attention_norm: LayerNorm,
    ffn: FeedForward,
    final_norm: LayerNorm,
}

#[derive(Debug)]
struct DecoderLayer {
    attention: Box<dyn SelfAttention>,
    attention_norm: LayerNorm,
    cross: Box<dyn CrossAttention>,
    cross_norm: LayerNorm,
    ffn: FeedForward,
    final_norm: LayerNorm,
}

/// Positions and the norm behind the embeddings of one side.
#[derive(Debug)]
struct Front {
    positions: Linear,
    norm: LayerNorm,
}

/// A loaded BART model.
#[derive(Debug)]
pub struct Bart {
    config: BartConfig,
    kinds: Kinds,
    dtype: DType,
    encoder_embedding: Linear,
    decoder_embedding: Linear,
    head: Linear,
    encoder_front: Front,
    decoder_front: Front,
    encoder: Vec<EncoderLayer>,
    decoder: Vec<DecoderLayer>,
}

fn shape(config: &BartConfig, stack: &StackConfig) -> Shape {
    let head_dim = config.d_model / stack.heads;
    Shape { d_model: config.d_model, num_heads: stack.heads, head_dim, scale: 1.0 / (head_dim as f32).sqrt() }
}

impl Bart {
    /// Loads the weights.
    ///
    /// # Errors
    /// Tensors that are missing, misshapen or not finite; out of memory.
    pub fn load(
        device: &Device,
        config: &BartConfig,
        checkpoint: &Checkpoint,
        kinds: Kinds,
        dtype: DType,
    ) -> Result<Self, ModelError> {
        let loader = Loader { device, weights: Weights::new(checkpoint, "model."), dtype };
        let d = config.d_model;
        let tables = loader.weights.bart_embeddings(config.vocab_size, d, config.tie_word_embeddings)?;
        let logits_bias = match loader.weights.optional("final_logits_bias", &[1, config.vocab_size])? {
            Some(view) => Some(view.to_f32()?),
            None => None,
        };
        // One table in memory for each table in the file: clones share the device buffers, and the head only adds its bias.
        let encoder_embedding = loader.table("encoder embedding", tables.encoder, None)?;
        let decoder_embedding = match tables.decoder.name() == tables.encoder.name() {
            true => encoder_embedding.clone(),
            false => loader.table("decoder embedding", tables.decoder, None)?,
        };
        let mut head = match tables.head.name() {
            name if name == tables.encoder.name() => encoder_embedding.clone(),
            name if name == tables.decoder.name() => decoder_embedding.clone(),
            _ => loader.table("head", tables.head, None)?,
        };
        if let Some(bias) = logits_bias.filter(|b| b.iter().any(|x| *x != 0.0)) {
            head.bias = Some(device.tensor_from(
                "final_logits_bias",
                Class::Weights,
                1,
                config.vocab_size,
                DType::F32,
                &bias,
            )?);
        }
        let front = |side: &str| -> Result<Front, ModelError> {
            let name = format!("{side}.embed_positions.weight");
            let view = loader.weights.tensor(&name, &[config.position_rows(), d])?;
            Ok(Front {
                positions: loader.table(&name, view, None)?,
                norm: loader.norm(&format!("{side}.layernorm_embedding"), d, BartConfig::LAYER_NORM_EPS)?,
            })
        };
        let ffn = |name: &str, stack: &StackConfig| -> Result<FeedForward, ModelError> {
            Ok(FeedForward {
                up: loader.linear(&format!("{name}.fc1"), stack.ffn_dim, d)?,
                down: loader.linear(&format!("{name}.fc2"), d, stack.ffn_dim)?,
                activation: config.activation,
            })
        };
        let norm = |name: String| loader.norm(&name, d, BartConfig::LAYER_NORM_EPS);
        let encoder_shape = shape(config, &config.encoder);
        let decoder_shape = shape(config, &config.decoder);
        let encoder = (0..config.encoder.layers)
            .map(|l| {
                let name = format!("encoder.layers.{l}");
                let at = format!("{name}.self_attn");
                Ok(EncoderLayer {
                    attention: loader
                        .attention(&at, d, |w| EncoderAttention::new(device, &at, encoder_shape, dtype, w))?,
                    attention_norm: norm(format!("{name}.self_attn_layer_norm"))?,
                    ffn: ffn(&name, &config.encoder)?,
                    final_norm: norm(format!("{name}.final_layer_norm"))?,
                })
            })
            .collect::<Result<_, ModelError>>()?;
        let decoder = (0..config.decoder.layers)
            .map(|l| {
                let name = format!("decoder.layers.{l}");
                let (own, cross) = (format!("{name}.self_attn"), format!("{name}.encoder_attn"));
                Ok(DecoderLayer {
                    attention: loader.attention(&own, d, |w| {
                        self_attention(device, &own, l, kinds.self_, decoder_shape, dtype, w)
                    })?,
                    attention_norm: norm(format!("{name}.self_attn_layer_norm"))?,
                    cross: loader.attention(&cross, d, |w| {
                        cross_attention(device, &cross, l, kinds.cross, decoder_shape, dtype, w)
                    })?,
                    cross_norm: norm(format!("{name}.encoder_attn_layer_norm"))?,
                    ffn: ffn(&name, &config.decoder)?,
                    final_norm: norm(format!("{name}.final_layer_norm"))?,
                })
            })
            .collect::<Result<_, ModelError>>()?;
        Ok(Self {
            config: config.clone(),
            kinds,
            dtype,
            encoder_embedding,
            decoder_embedding,
            head,
            encoder_front: front("encoder")?,
            decoder_front: front("decoder")?,
            encoder,
            decoder,
        })
    }

    /// The decoder stack over `rows` rows whose embeddings are in `space.h`; the result is in the returned tensor.
    #[expect(clippy::too_many_arguments, reason = "the two callers differ in nothing but these")]
    fn decode<'s>(
        &self,
        rec: &mut Recorder,
        space: &'s Space,
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
    ) -> Result<&'s Tensor, ModelError> {
        let (mut x, mut h) = (&space.x, &space.h);
        layer_norm(rec, h, &self.decoder_front.norm, x, rows)?;
        probe.see(rec, "decoder", 0, x, rows)?;
        for (l, layer) in self.decoder.iter().enumerate() {
            let own = Epilogue { residual: Some(x), out: &space.y, norm: Some((&layer.attention_norm, h)) };
            self_attention(rec, &*layer.attention, x, &own)?;
            let cross = Epilogue { residual: Some(h), out: &space.y, norm: Some((&layer.cross_norm, x)) };
            layer.cross.attend(rec, h, &cross, queries, caches, &space.attention)?;
            layer.ffn.forward(rec, x, x, &space.inner, &space.y, (&layer.final_norm, h), rows)?;
            std::mem::swap(&mut x, &mut h);
            probe.see(rec, "decoder", l + 1, x, rows)?;
        }
        Ok(x)
    }
}

impl Architecture for Bart {
    fn limits(&self) -> ModelLimits {
        ModelLimits {
            vocab_size: self.config.vocab_size,
            max_position_embeddings: Some(self.config.max_position_embeddings),
            is_encoder_decoder: true,
        }
    }

    fn cache_layout(&self) -> CacheLayout {
        let shape = shape(&self.config, &self.config.decoder);
        CacheLayout {
            layers: self.config.decoder.layers,
            self_shape: shape,
            self_kind: self.kinds.self_,
            cross: Some((shape, self.kinds.cross)),
            dtype: self.dtype,
        }
    }

    fn encoder_shape(&self) -> Option<StackShape> {
        // The encoder's working tensors also take the cross projections of the decoder's blocks, 2 * inner wide: both stacks have the
        // same d_model, but their padded heads may differ.
        let (encoder, decoder) = (shape(&self.config, &self.config.encoder), shape(&self.config, &self.config.decoder));
        let widest = if encoder.inner() >= decoder.inner() { encoder } else { decoder };
        Some(StackShape { attention: widest, ffn: self.config.encoder.ffn_dim })
    }

    fn decoder_shape(&self) -> StackShape {
        StackShape { attention: shape(&self.config, &self.config.decoder), ffn: self.config.decoder.ffn_dim }
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
        let positions = self.encoder_front.positions.window_tensor()?;
        embed_packed(
            rec,
            ids,
            n,
            &self.encoder_embedding,
            self.config.embedding_scale(),
            Some((positions, BartConfig::POSITION_OFFSET)),
            &space.h,
        )?;
        let (x, h) = (&space.x, &space.h);
        layer_norm(rec, h, &self.encoder_front.norm, x, n)?;
        probe.see(rec, "encoder", 0, x, n)?;
        for (l, layer) in self.encoder.iter().enumerate() {
            let own = Epilogue { residual: Some(x), out: &space.y, norm: Some((&layer.attention_norm, h)) };
            layer.attention.forward(rec, x, &own, batch, &space.attention)?;
            layer.ffn.forward(rec, h, h, &space.inner, &space.y, (&layer.final_norm, x), n)?;
            probe.see(rec, "encoder", l + 1, x, n)?;
        }
        memorize(rec, x, batch, caches)?;
        for layer in &self.decoder {
            layer.cross.memorize(rec, x, batch, caches, &space.attention)?;
        }
        Ok(())
    }

    fn prefill(
        &self,
        rec: &mut Recorder,
        ids: &Buffer,
        batch: &Packed,
        caches: &Caches,
        space: &Space,
        mut probe: Probe<'_>,
    ) -> Result<(), ModelError> {
        let positions = self.decoder_front.positions.window_tensor()?;
        embed_packed(
            rec,
            ids,
            batch.tokens,
            &self.decoder_embedding,
            self.config.embedding_scale(),
            Some((positions, BartConfig::POSITION_OFFSET)),
            &space.h,
        )?;
        let ranges = batch.cross_ranges.as_ref().unwrap_or(&batch.ranges);
        let queries = CrossQueries { index: &batch.index, ranges, segments: &batch.segments, count: batch.tokens };
        let own = |rec: &mut Recorder, block: &dyn SelfAttention, x: &Tensor, epilogue: &Epilogue<'_>| {
            block.prefill(rec, x, epilogue, batch, caches, &space.attention)
        };
        self.decode(rec, space, batch.tokens, caches, queries, own, &mut probe)?;
        Ok(())
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
        let positions = self.decoder_front.positions.window_tensor()?;
        embed_step(
            rec,
            rows,
            &self.decoder_embedding,
            self.config.embedding_scale(),
            Some((positions, BartConfig::POSITION_OFFSET)),
            &space.h,
        )?;
        let ranges = step.cross_ranges.unwrap_or(&rows.active);
        let queries = CrossQueries { index: &rows.active, ranges, segments: rows.segments(), count: rows.count() };
        let own = |rec: &mut Recorder, block: &dyn SelfAttention, x: &Tensor, epilogue: &Epilogue<'_>| {
            block.step(rec, x, epilogue, step, caches, &space.attention)
        };
        let x = self.decode(rec, space, rows.count(), caches, queries, own, &mut probe)?;
        self.head(rec, x, logits, rows.count())
    }

    fn prefilled<'s>(&self, space: &'s Space) -> &'s Tensor {
        // `decode` begins in x and swaps x and h once per layer.
        if self.decoder.len().is_multiple_of(2) { &space.x } else { &space.h }
    }

    fn head(&self, rec: &mut Recorder, hidden: &Tensor, logits: &Tensor, rows: usize) -> Result<(), ModelError> {
        Ok(linear(rec, hidden, &self.head, ops::Activation::None, None, logits, rows)?)
    }
}
