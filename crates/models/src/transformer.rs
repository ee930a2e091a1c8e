//! The graph that the families share: an encoder of self-attention and feed-forward blocks, which decoder-only models lack; a decoder, whose layers
//! have cross-attention between the two where there is an encoder; and a head.

use elgen_attention::{
    CacheLayout, Caches, CrossAttention, CrossQueries, EncoderAttention, Epilogue, Packed, Probabilities,
    SelfAttention, Step, memorize,
};
use elgen_search::ModelLimits;
use elgen_tensor::ops::{self, Linear, linear};
use elgen_tensor::{Range, Recorder, Table, TableRef, Tensor, TensorError, TokenAt};

use crate::architecture::{Architecture, Probe};
use crate::embeddings::{Embeddings, Ids};
use crate::error::ModelError;
use crate::feed_forward::FeedForwardBlock;
use crate::outline::Outline;
use crate::space::{Space, StackShape};
use crate::stack::{Norms, Stream};

#[derive(Debug)]
pub(crate) struct EncoderLayer {
    pub(crate) attention: EncoderAttention,
    pub(crate) feed_forward: Box<dyn FeedForwardBlock>,
}

#[derive(Debug)]
pub(crate) struct DecoderLayer {
    pub(crate) attention: Box<dyn SelfAttention>,
    /// None where there is no encoder.
    pub(crate) cross: Option<Box<dyn CrossAttention>>,
    pub(crate) feed_forward: Box<dyn FeedForwardBlock>,
}

/// An encoder or a decoder.
#[derive(Debug)]
pub(crate) struct Stack<L> {
    pub(crate) embeddings: Embeddings,
    pub(crate) layers: Vec<L>,
    pub(crate) norms: Norms,
}

impl<L> Stack<L> {
    /// Records the embeddings; gives the stream that the first block reads.
    fn begin<'s>(&'s self, rec: &mut Recorder, ids: Ids<'_>, space: &'s Space) -> Result<Stream<'s>, ModelError> {
        let stream = Stream::new(&self.norms, space, ids.count());
        let norm = self.embeddings.norm.as_ref();
        self.embeddings.write(rec, ids, space, stream.embeddings(norm))?;
        stream.begin(rec, norm)?;
        Ok(stream)
    }
}

/// A loaded model.
#[derive(Debug)]
pub(crate) struct Transformer {
    /// The family's `model_type`, for messages.
    pub(crate) family: &'static str,
    pub(crate) outline: Outline,
    pub(crate) cache_layout: CacheLayout,
    pub(crate) encoder: Option<Stack<EncoderLayer>>,
    pub(crate) decoder: Stack<DecoderLayer>,
    /// `[table width, d_model]`, before the head of a model whose embedding table is narrower or wider than its layers.
    pub(crate) output_projection: Option<Linear>,
    pub(crate) head: Linear,
}

/// The ids of a decoder, and what their rows see of the sources; `None` without an encoder.
struct DecoderRows<'a> {
    ids: Ids<'a>,
    queries: Option<CrossQueries<'a>>,
}

/// The source ranges of a decoder's rows: a model with an encoder has them.
fn source_ranges(ranges: Option<TableRef<'_, Range>>) -> Result<TableRef<'_, Range>, ModelError> {
    let message = || "the decoder's rows have no ranges of sources".into();
    Ok(ranges.ok_or_else(|| TensorError::Shape { op: "cross-attention", message: message() })?)
}

impl Transformer {
    /// The decoder over `rows`; gives what the head reads. With `align` it ends at the cross-attention of that layer, whose probabilities are
    /// written.
    #[expect(clippy::too_many_arguments, reason = "the two callers differ in nothing but these")]
    fn decode<'s>(
        &'s self,
        rec: &mut Recorder,
        rows: DecoderRows<'_>,
        caches: &Caches,
        space: &'s Space,
        mut self_attention: impl FnMut(
            &mut Recorder,
            &dyn SelfAttention,
            &Tensor,
            &Epilogue<'_>,
        ) -> elgen_attention::Result<()>,
        align: Option<(usize, &Probabilities<'_>)>,
        probe: &mut Probe<'_>,
    ) -> Result<&'s Tensor, ModelError> {
        let count = rows.ids.count();
        let mut stream = self.decoder.begin(rec, rows.ids, space)?;
        probe.see(rec, "decoder", 0, stream.residual, count)?;
        for (l, layer) in self.decoder.layers.iter().enumerate() {
            self_attention(rec, &*layer.attention, stream.input, &stream.epilogue(l, 0))?;
            stream.advance();
            let cross = layer.cross.as_deref().zip(rows.queries);
            if let Some((cross, queries)) = cross {
                if let Some((_, out)) = align.filter(|(at, _)| *at == l) {
                    cross.probabilities(rec, stream.input, queries, caches, &space.attention, out)?;
                    break;
                }
                cross.attend(rec, stream.input, &stream.epilogue(l, 1), queries, caches, &space.attention)?;
                stream.advance();
            }
            let last = stream.epilogue(l, 1 + usize::from(cross.is_some()));
            layer.feed_forward.forward(rec, stream.input, &space.feed_forward, &last, count)?;
            stream.advance();
            probe.see(rec, "decoder", l + 1, stream.residual, count)?;
        }
        let Some(projection) = &self.output_projection else { return Ok(stream.output()) };
        let narrow = &space.feed_forward.inner;
        linear(rec, stream.output(), projection, ops::Activation::None, None, narrow, count)?;
        Ok(narrow)
    }

    /// The decoder over packed sequences; see [`Self::decode`].
    #[expect(clippy::too_many_arguments, reason = "those of a prefill, and where it ends")]
    fn packed<'s>(
        &'s self,
        rec: &mut Recorder,
        ids: TableRef<'_, TokenAt>,
        batch: &Packed,
        caches: &Caches,
        space: &'s Space,
        align: Option<(usize, &Probabilities<'_>)>,
        probe: &mut Probe<'_>,
    ) -> Result<&'s Tensor, ModelError> {
        let queries = match self.encoder {
            Some(_) => Some(CrossQueries {
                index: batch.index.view(),
                ranges: source_ranges(batch.cross_ranges.as_ref().map(Table::view))?,
                groups: batch.groups.view(),
                segments: &batch.segments,
                count: batch.tokens,
            }),
            None => None,
        };
        let own = |rec: &mut Recorder, block: &dyn SelfAttention, x: &Tensor, epilogue: &Epilogue<'_>| {
            block.prefill(rec, x, epilogue, batch, caches, &space.attention)
        };
        let rows = DecoderRows { ids: Ids::Packed(ids, batch.tokens), queries };
        self.decode(rec, rows, caches, space, own, align, probe)
    }
}

impl Architecture for Transformer {
    fn limits(&self) -> ModelLimits {
        self.outline.limits
    }

    fn source_vocab_size(&self) -> usize {
        self.encoder.as_ref().map_or(self.outline.limits.vocab_size, |encoder| encoder.embeddings.table.rows())
    }

    fn cache_layout(&self) -> CacheLayout {
        self.cache_layout
    }

    fn encoder_shape(&self) -> Option<StackShape> {
        self.outline.encoder
    }

    fn decoder_shape(&self) -> StackShape {
        self.outline.decoder
    }

    fn hidden_size(&self) -> usize {
        self.outline.encoder.map_or(self.outline.head_width, |encoder| encoder.attention.d_model)
    }

    fn encode<'s>(
        &'s self,
        rec: &mut Recorder,
        ids: TableRef<'_, TokenAt>,
        batch: &Packed,
        caches: &Caches,
        space: &'s Space,
        mut probe: Probe<'_>,
    ) -> Result<&'s Tensor, ModelError> {
        let Some(encoder) = &self.encoder else {
            return Err(elgen_attention::AttentionError::Shape(format!("{} has no encoder", self.family)).into());
        };
        let n = batch.tokens;
        let mut stream = encoder.begin(rec, Ids::Packed(ids, n), space)?;
        probe.see(rec, "encoder", 0, stream.residual, n)?;
        for (l, layer) in encoder.layers.iter().enumerate() {
            layer.attention.forward(rec, stream.input, &stream.epilogue(l, 0), batch, &space.attention)?;
            stream.advance();
            layer.feed_forward.forward(rec, stream.input, &space.feed_forward, &stream.epilogue(l, 1), n)?;
            stream.advance();
            probe.see(rec, "encoder", l + 1, stream.residual, n)?;
        }
        let states = stream.output();
        memorize(rec, states, batch, caches)?;
        for cross in self.decoder.layers.iter().filter_map(|layer| layer.cross.as_ref()) {
            cross.memorize(rec, states, batch, caches, &space.attention)?;
        }
        Ok(states)
    }

    fn prefill<'s>(
        &'s self,
        rec: &mut Recorder,
        ids: TableRef<'_, TokenAt>,
        batch: &Packed,
        caches: &Caches,
        space: &'s Space,
        mut probe: Probe<'_>,
    ) -> Result<&'s Tensor, ModelError> {
        self.packed(rec, ids, batch, caches, space, None, &mut probe)
    }

    fn align(
        &self,
        rec: &mut Recorder,
        ids: TableRef<'_, TokenAt>,
        batch: &Packed,
        caches: &Caches,
        space: &Space,
        layer: usize,
        out: &Probabilities<'_>,
    ) -> Result<(), ModelError> {
        if self.encoder.is_none() {
            return Err(ModelError::NoCrossAttention);
        }
        self.packed(rec, ids, batch, caches, space, Some((layer, out)), &mut Probe::none()).map(|_| ())
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
        let queries = match self.encoder {
            Some(_) => Some(CrossQueries {
                index: rows.active(),
                ranges: source_ranges(step.cross_ranges)?,
                groups: rows.groups(),
                segments: rows.segments(),
                count: rows.count(),
            }),
            None => None,
        };
        let own = |rec: &mut Recorder, block: &dyn SelfAttention, x: &Tensor, epilogue: &Epilogue<'_>| {
            block.step(rec, x, epilogue, step, caches, &space.attention)
        };
        let decoder_rows = DecoderRows { ids: Ids::Step(rows), queries };
        let output = self.decode(rec, decoder_rows, caches, space, own, None, &mut probe)?;
        self.head(rec, output, logits, rows.count())
    }

    fn head(&self, rec: &mut Recorder, hidden: &Tensor, logits: &Tensor, rows: usize) -> Result<(), ModelError> {
        Ok(linear(rec, hidden, &self.head, ops::Activation::None, None, logits, rows)?)
    }
}
