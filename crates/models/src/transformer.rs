//! The graph that the families share: an encoder of self-attention and feed-forward blocks, which decoder-only models lack; a decoder, whose layers
//! have cross-attention between the two where there is an encoder; and a head.

use elgen_attention::{
    CacheLayout, CrossAttention, CrossQueries, EncoderBlock, Packed, Probabilities, SelfAttention, Step,
    store_encoder_output,
};
use elgen_search::ModelLimits;
use elgen_tensor::ops::{Linear, Product};
use elgen_tensor::{Range, Recorder, Table, TableRef, Tensor, TensorError, TokenAt, WeightFormat};

use crate::architecture::{Architecture, PassCx};
use crate::embeddings::{Embeddings, Ids};
use crate::error::ModelError;
use crate::feed_forward::FeedForwardBlock;
use crate::outline::Outline;
use crate::space::StackShape;
use crate::stack::{Norms, Stream};

#[derive(Debug)]
pub(crate) struct EncoderLayer {
    pub(crate) attention: Box<dyn EncoderBlock>,
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
    fn begin<'s>(&'s self, cx: &mut PassCx<'_, 's>, ids: Ids<'_>) -> Result<Stream<'s>, ModelError> {
        let mut stream = Stream::new(&self.norms, cx.space, ids.count());
        let norm = self.embeddings.norm.as_ref();
        self.embeddings.write(cx.rec, ids, cx.embeddings, cx.space, stream.embeddings(norm))?;
        stream.begin(cx.rec, norm)?;
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

/// What self-attention runs over.
#[derive(Clone, Copy)]
enum SelfRows<'a> {
    Packed(&'a Packed),
    Step(Step<'a>),
}

impl Transformer {
    /// The decoder over `rows`; gives what the head reads. With `align` it ends at the cross-attention of that layer, whose probabilities are
    /// written.
    fn decode<'s>(
        &'s self,
        cx: &mut PassCx<'_, 's>,
        rows: DecoderRows<'_>,
        own: SelfRows<'_>,
        align: Option<(usize, &Probabilities<'_>)>,
    ) -> Result<&'s Tensor, ModelError> {
        let count = rows.ids.count();
        let mut stream = self.decoder.begin(cx, rows.ids)?;
        cx.see("decoder", 0, &mut stream, count)?;
        for (l, layer) in self.decoder.layers.iter().enumerate() {
            let (input, epilogue) = (stream.input(), stream.epilogue());
            match own {
                SelfRows::Packed(batch) => {
                    layer.attention.prefill(&mut cx.attention(), &input, &epilogue, batch)?;
                }
                SelfRows::Step(step) => layer.attention.step(&mut cx.attention(), &input, &epilogue, step)?,
            }
            stream.advance(l, 0);
            let cross = layer.cross.as_deref().zip(rows.queries);
            if let Some((cross, queries)) = cross {
                if let Some((_, out)) = align.filter(|(at, _)| *at == l) {
                    cross.probabilities(&mut cx.attention(), &stream.input(), queries, out)?;
                    break;
                }
                cross.attend(&mut cx.attention(), &stream.input(), &stream.epilogue(), queries)?;
                stream.advance(l, 1);
            }
            let (input, space) = (stream.input(), &cx.space.feed_forward);
            layer.feed_forward.forward(cx.rec, &input, space, &stream.epilogue(), count)?;
            stream.advance(l, 1 + usize::from(cross.is_some()));
            cx.see("decoder", l + 1, &mut stream, count)?;
        }
        let output = stream.output(cx.rec)?;
        let Some(projection) = &self.output_projection else { return Ok(output) };
        let narrow = &cx.space.feed_forward.inner;
        Product::new(output, projection, narrow, count).record(cx.rec)?;
        Ok(narrow)
    }

    /// The decoder over packed sequences; see [`Self::decode`].
    fn packed<'s>(
        &'s self,
        cx: &mut PassCx<'_, 's>,
        ids: TableRef<'_, TokenAt>,
        batch: &Packed,
        align: Option<(usize, &Probabilities<'_>)>,
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
        let rows = DecoderRows { ids: Ids::Packed(ids, batch.tokens), queries };
        self.decode(cx, rows, SelfRows::Packed(batch), align)
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

    fn weight_format(&self) -> Option<WeightFormat> {
        Some(self.head.weight.format())
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
        cx: &mut PassCx<'_, 's>,
        ids: TableRef<'_, TokenAt>,
        batch: &Packed,
    ) -> Result<&'s Tensor, ModelError> {
        let Some(encoder) = &self.encoder else {
            return Err(elgen_attention::AttentionError::Shape(format!("{} has no encoder", self.family)).into());
        };
        let n = batch.tokens;
        let mut stream = encoder.begin(cx, Ids::Packed(ids, n))?;
        cx.see("encoder", 0, &mut stream, n)?;
        for (l, layer) in encoder.layers.iter().enumerate() {
            layer.attention.forward(&mut cx.attention(), &stream.input(), &stream.epilogue(), batch)?;
            stream.advance(l, 0);
            let (input, space) = (stream.input(), &cx.space.feed_forward);
            layer.feed_forward.forward(cx.rec, &input, space, &stream.epilogue(), n)?;
            stream.advance(l, 1);
            cx.see("encoder", l + 1, &mut stream, n)?;
        }
        let states = stream.output(cx.rec)?;
        store_encoder_output(cx.rec, states, batch, cx.caches)?;
        for cross in self.decoder.layers.iter().filter_map(|layer| layer.cross.as_ref()) {
            cross.cache_sources(&mut cx.attention(), states, batch)?;
        }
        Ok(states)
    }

    fn prefill<'s>(
        &'s self,
        cx: &mut PassCx<'_, 's>,
        ids: TableRef<'_, TokenAt>,
        batch: &Packed,
    ) -> Result<&'s Tensor, ModelError> {
        self.packed(cx, ids, batch, None)
    }

    fn align<'s>(
        &'s self,
        cx: &mut PassCx<'_, 's>,
        ids: TableRef<'_, TokenAt>,
        batch: &Packed,
        layer: usize,
        out: &Probabilities<'_>,
    ) -> Result<(), ModelError> {
        if self.encoder.is_none() {
            return Err(ModelError::NoCrossAttention);
        }
        self.packed(cx, ids, batch, Some((layer, out))).map(|_| ())
    }

    fn step<'s>(&'s self, cx: &mut PassCx<'_, 's>, step: Step<'_>, logits: &Tensor) -> Result<(), ModelError> {
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
        let decoder_rows = DecoderRows { ids: Ids::Step(rows), queries };
        let output = self.decode(cx, decoder_rows, SelfRows::Step(step), None)?;
        self.head(cx.rec, output, logits, rows.count())
    }

    fn head(&self, rec: &mut Recorder, hidden: &Tensor, logits: &Tensor, rows: usize) -> Result<(), ModelError> {
        Ok(Product::new(hidden, &self.head, logits, rows).record(rec)?)
    }
}
