//! BART and its kin as in Hugging Face `BartForConditionalGeneration`, `MBartForConditionalGeneration`, `MarianMTModel` and
//! `PegasusForConditionalGeneration`: encoder-decoders with the same tensors under the same names. Where the norms stand, whether one follows the
//! embeddings, what the positions are and how many vocabularies there are is the config's to say ([`Seq2SeqConfig`]).

use elgen_attention::{
    BlockSpec, CacheLayout, Caches, CrossAttention, CrossQueries, EncoderAttention, Epilogue, Packed, SelfAttention,
    Shape, Step, cross_attention, load_linear, memorize, self_attention,
};
use elgen_search::ModelLimits;
use elgen_tensor::ops::{self, LayerNorm, Linear, embed_packed, embed_step, linear};
use elgen_tensor::{Buffer, Class, DType, Device, Recorder, Tensor};

use crate::architecture::{Architecture, Kinds, Probe};
use crate::checkpoint::{Checkpoint, Weights};
use crate::config::{NormOrder, Positions, Seq2SeqConfig, StackConfig};
use crate::error::ModelError;
use crate::layers::{FeedForward, Loader, Space, StackShape};
use crate::positions::Sinusoidal;
use crate::stack::{Norms, Stream};

#[derive(Debug)]
struct EncoderLayer {
    attention: EncoderAttention,
    ffn: FeedForward,
}

#[derive(Debug)]
struct DecoderLayer {
    attention: Box<dyn SelfAttention>,
    cross: Box<dyn CrossAttention>,
    ffn: FeedForward,
}

/// What stands before the layers of one side, and its norms.
#[derive(Debug)]
struct Side {
    embedding: Linear,
    positions: Linear,
    embedding_norm: Option<LayerNorm>,
    norms: Norms,
}

/// A loaded model.
#[derive(Debug)]
pub(crate) struct Seq2Seq {
    config: Seq2SeqConfig,
    kinds: Kinds,
    dtype: DType,
    head: Linear,
    encoder_side: Side,
    decoder_side: Side,
    encoder: Vec<EncoderLayer>,
    decoder: Vec<DecoderLayer>,
}

fn shape(config: &Seq2SeqConfig, stack: &StackConfig) -> Shape {
    let head_dim = config.d_model / stack.heads;
    Shape { d_model: config.d_model, num_heads: stack.heads, head_dim, scale: 1.0 / (head_dim as f32).sqrt() }
}

/// The embedding tables of encoder and decoder, and the head.
fn tables(loader: &Loader<'_>, config: &Seq2SeqConfig) -> Result<[Linear; 3], ModelError> {
    let (d, tied) = (config.d_model, config.tie_word_embeddings);
    let tables = match config.share_embeddings {
        true => loader.weights.bart_embeddings(config.vocab_size, d, tied)?,
        false => loader.weights.separate_embeddings(config.vocab_size, config.decoder_vocab_size, d, tied)?,
    };
    // One table in memory for each table in the file: clones share the device buffers, and the head only adds its bias.
    let encoder = loader.table("encoder embedding", tables.encoder, None)?;
    let decoder = match tables.decoder.name() == tables.encoder.name() {
        true => encoder.clone(),
        false => loader.table("decoder embedding", tables.decoder, None)?,
    };
    let mut head = match tables.head.name() {
        name if name == tables.encoder.name() => encoder.clone(),
        name if name == tables.decoder.name() => decoder.clone(),
        _ => loader.table("head", tables.head, None)?,
    };
    let name = "final_logits_bias";
    let bias = match loader.weights.optional(name, &[1, config.decoder_vocab_size])? {
        Some(view) => view.to_f32()?,
        None => Vec::new(),
    };
    if bias.iter().any(|x| *x != 0.0) {
        head.bias = Some(loader.device.tensor_from(name, Class::Weights, 1, bias.len(), DType::F32, &bias)?);
    }
    Ok([encoder, decoder, head])
}

/// The position table of one side.
fn positions(loader: &Loader<'_>, config: &Seq2SeqConfig, side: &str) -> Result<Linear, ModelError> {
    let name = format!("{side}.embed_positions.weight");
    let (rows, d) = (config.position_rows(), config.d_model);
    let view = match config.positions {
        Positions::Learned { .. } => Some(loader.weights.tensor(&name, &[rows, d])?),
        Positions::Sinusoidal => loader.weights.optional(&name, &[rows, d])?,
    };
    match view {
        Some(view) => loader.table(&name, view, None),
        None => Ok(load_linear(loader.device, &name, loader.dtype, &Sinusoidal { rows, d }, None)?),
    }
}

/// What stands before the layers of a side, and the norms `blocks` of its layers.
fn side(
    loader: &Loader<'_>,
    config: &Seq2SeqConfig,
    side: &str,
    embedding: Linear,
    layers: usize,
    blocks: &[&str],
) -> Result<Side, ModelError> {
    let norm = |name: &str| loader.norm(&format!("{side}.{name}"), config.d_model, Seq2SeqConfig::LAYER_NORM_EPS);
    let layer = |l: usize| blocks.iter().map(|block| norm(&format!("layers.{l}.{block}"))).collect();
    Ok(Side {
        embedding,
        positions: positions(loader, config, side)?,
        embedding_norm: if config.embedding_norm { Some(norm("layernorm_embedding")?) } else { None },
        norms: Norms {
            order: config.norm_order,
            layers: (0..layers).map(layer).collect::<Result<_, ModelError>>()?,
            last: if config.norm_order == NormOrder::Pre { Some(norm("layer_norm")?) } else { None },
        },
    })
}

impl Seq2Seq {
    /// Loads the weights.
    ///
    /// # Errors
    /// Tensors that are missing, misshapen or not finite; out of memory.
    pub(crate) fn load(
        device: &Device,
        config: &Seq2SeqConfig,
        checkpoint: &Checkpoint,
        kinds: Kinds,
        dtype: DType,
    ) -> Result<Self, ModelError> {
        let loader = Loader { device, weights: Weights::new(checkpoint, "model."), dtype };
        let d = config.d_model;
        let [encoder_embedding, decoder_embedding, head] = tables(&loader, config)?;
        let ffn = |name: &str, stack: &StackConfig| -> Result<FeedForward, ModelError> {
            Ok(FeedForward {
                up: loader.linear(&format!("{name}.fc1"), stack.ffn_dim, d, true)?,
                down: loader.linear(&format!("{name}.fc2"), d, stack.ffn_dim, true)?,
                gate: None,
                activation: config.activation,
            })
        };
        let encoder_shape = shape(config, &config.encoder);
        let decoder_shape = shape(config, &config.decoder);
        let encoder = (0..config.encoder.layers)
            .map(|l| {
                let name = format!("encoder.layers.{l}");
                let at = format!("{name}.self_attn");
                Ok(EncoderLayer {
                    attention: loader.attention(&at, d, true, |w| {
                        let spec = BlockSpec { what: &at, layer: l, shape: encoder_shape, dtype, bias: None };
                        EncoderAttention::new(device, &spec, w)
                    })?,
                    ffn: ffn(&name, &config.encoder)?,
                })
            })
            .collect::<Result<_, ModelError>>()?;
        let decoder = (0..config.decoder.layers)
            .map(|l| {
                let name = format!("decoder.layers.{l}");
                let (own, cross) = (format!("{name}.self_attn"), format!("{name}.encoder_attn"));
                Ok(DecoderLayer {
                    attention: loader.attention(&own, d, true, |w| {
                        let spec = BlockSpec { what: &own, layer: l, shape: decoder_shape, dtype, bias: None };
                        self_attention(device, kinds.self_, &spec, w)
                    })?,
                    cross: loader.attention(&cross, d, true, |w| {
                        let spec = BlockSpec { what: &cross, layer: l, shape: decoder_shape, dtype, bias: None };
                        cross_attention(device, kinds.cross, &spec, w)
                    })?,
                    ffn: ffn(&name, &config.decoder)?,
                })
            })
            .collect::<Result<_, ModelError>>()?;
        // `final_layer_norm` of a layer is that of its feed-forward block.
        let (own, cross, last) = ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm");
        Ok(Self {
            kinds,
            dtype,
            head,
            encoder_side: side(&loader, config, "encoder", encoder_embedding, config.encoder.layers, &[own, last])?,
            decoder_side: side(
                &loader,
                config,
                "decoder",
                decoder_embedding,
                config.decoder.layers,
                &[own, cross, last],
            )?,
            encoder,
            decoder,
            config: config.clone(),
        })
    }

    /// The position table of a side and the row of its position 0.
    fn places<'a>(&self, side: &'a Side) -> Result<Option<(&'a Tensor, usize)>, ModelError> {
        Ok(Some((side.positions.window_tensor()?, self.config.positions.offset())))
    }

    /// The decoder stack over rows whose embeddings are in `stream.embeddings`; gives its output.
    #[expect(clippy::too_many_arguments, reason = "the two callers differ in nothing but these")]
    fn decode<'s>(
        &'s self,
        rec: &mut Recorder,
        mut stream: Stream<'s>,
        space: &'s Space,
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
        let rows = queries.count;
        stream.begin(rec, self.decoder_side.embedding_norm.as_ref())?;
        probe.see(rec, "decoder", 0, stream.residual, rows)?;
        for (l, layer) in self.decoder.iter().enumerate() {
            self_attention(rec, &*layer.attention, stream.input, &stream.epilogue(l, 0))?;
            stream.advance();
            layer.cross.attend(rec, stream.input, &stream.epilogue(l, 1), queries, caches, &space.attention)?;
            stream.advance();
            layer.ffn.forward(rec, stream.input, &space.inner, &stream.epilogue(l, 2), rows)?;
            stream.advance();
            probe.see(rec, "decoder", l + 1, stream.residual, rows)?;
        }
        Ok(stream.output())
    }
}

impl Architecture for Seq2Seq {
    fn limits(&self) -> ModelLimits {
        ModelLimits {
            vocab_size: self.config.decoder_vocab_size,
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
        Some(StackShape { attention: widest, ffn: self.config.encoder.ffn_dim, gated: false })
    }

    fn decoder_shape(&self) -> StackShape {
        StackShape {
            attention: shape(&self.config, &self.config.decoder),
            ffn: self.config.decoder.ffn_dim,
            gated: false,
        }
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
        let (side, n) = (&self.encoder_side, batch.tokens);
        let mut stream = Stream::new(&side.norms, space, n);
        let embeddings = stream.embeddings(side.embedding_norm.as_ref());
        let scale = self.config.embedding_scale();
        embed_packed(rec, ids, n, &side.embedding, scale, self.places(side)?, embeddings)?;
        stream.begin(rec, side.embedding_norm.as_ref())?;
        probe.see(rec, "encoder", 0, stream.residual, n)?;
        for (l, layer) in self.encoder.iter().enumerate() {
            layer.attention.forward(rec, stream.input, &stream.epilogue(l, 0), batch, &space.attention)?;
            stream.advance();
            layer.ffn.forward(rec, stream.input, &space.inner, &stream.epilogue(l, 1), n)?;
            stream.advance();
            probe.see(rec, "encoder", l + 1, stream.residual, n)?;
        }
        let memory = stream.output();
        memorize(rec, memory, batch, caches)?;
        for layer in &self.decoder {
            layer.cross.memorize(rec, memory, batch, caches, &space.attention)?;
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
        let (side, n) = (&self.decoder_side, batch.tokens);
        let stream = Stream::new(&side.norms, space, n);
        let embeddings = stream.embeddings(side.embedding_norm.as_ref());
        let scale = self.config.embedding_scale();
        embed_packed(rec, ids, n, &side.embedding, scale, self.places(side)?, embeddings)?;
        let ranges = batch.cross_ranges.as_ref().unwrap_or(&batch.ranges);
        let queries = CrossQueries { index: &batch.index, ranges, segments: &batch.segments, count: n };
        let own = |rec: &mut Recorder, block: &dyn SelfAttention, x: &Tensor, epilogue: &Epilogue<'_>| {
            block.prefill(rec, x, epilogue, batch, caches, &space.attention)
        };
        self.decode(rec, stream, space, caches, queries, own, &mut probe)
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
        let (side, rows) = (&self.decoder_side, step.rows);
        let stream = Stream::new(&side.norms, space, rows.count());
        let embeddings = stream.embeddings(side.embedding_norm.as_ref());
        let scale = self.config.embedding_scale();
        embed_step(rec, rows, &side.embedding, scale, self.places(side)?, embeddings)?;
        let ranges = step.cross_ranges.unwrap_or(&rows.active);
        let queries = CrossQueries { index: &rows.active, ranges, segments: rows.segments(), count: rows.count() };
        let own = |rec: &mut Recorder, block: &dyn SelfAttention, x: &Tensor, epilogue: &Epilogue<'_>| {
            block.step(rec, x, epilogue, step, caches, &space.attention)
        };
        let output = self.decode(rec, stream, space, caches, queries, own, &mut probe)?;
        self.head(rec, output, logits, rows.count())
    }

    fn head(&self, rec: &mut Recorder, hidden: &Tensor, logits: &Tensor, rows: usize) -> Result<(), ModelError> {
        Ok(linear(rec, hidden, &self.head, ops::Activation::None, None, logits, rows)?)
    }
}
