//! What BART and its kin and T5 share: an encoder of self-attention and feed-forward blocks, a decoder that has cross-attention between them, and
//! a head.

use elgen_attention::{
    CacheLayout, Caches, CrossAttention, CrossQueries, EncoderAttention, Epilogue, Packed, Probabilities,
    SelfAttention, Step, memorize,
};
use elgen_search::ModelLimits;
use elgen_tensor::ops::{self, LayerNorm, Linear, embed_packed, embed_step, linear};
use elgen_tensor::{Buffer, Recorder, Tensor};

use crate::architecture::{Architecture, Probe};
use crate::checkpoint::Seq2SeqEmbeddings;
use crate::error::ModelError;
use crate::feed_forward::FeedForward;
use crate::loader::Loader;
use crate::outline::Outline;
use crate::space::{Space, StackShape};
use crate::stack::{Norms, Stream};

#[derive(Debug)]
pub(crate) struct EncoderLayer {
    pub(crate) attention: EncoderAttention,
    pub(crate) ffn: FeedForward,
}

#[derive(Debug)]
pub(crate) struct DecoderLayer {
    pub(crate) attention: Box<dyn SelfAttention>,
    pub(crate) cross: Box<dyn CrossAttention>,
    pub(crate) ffn: FeedForward,
}

/// A table of positions.
#[derive(Debug)]
pub(crate) struct PositionTable {
    pub(crate) table: Linear,
    /// Rows before position 0.
    pub(crate) offset: usize,
}

/// What stands before the layers of one side, and its norms.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) embedding: Linear,
    /// Factor of the embeddings.
    pub(crate) embedding_scale: f32,
    /// Added to the embeddings; none where attention alone knows about positions.
    pub(crate) positions: Option<PositionTable>,
    pub(crate) embedding_norm: Option<LayerNorm>,
    pub(crate) norms: Norms,
}

impl Side {
    /// The position table and the row of its position 0.
    fn places(&self) -> Result<Option<(&Tensor, usize)>, ModelError> {
        let Some(positions) = &self.positions else { return Ok(None) };
        Ok(Some((positions.table.window_tensor()?, positions.offset)))
    }
}

/// A loaded encoder-decoder model.
#[derive(Debug)]
pub(crate) struct EncoderDecoder {
    pub(crate) outline: Outline,
    pub(crate) cache_layout: CacheLayout,
    pub(crate) encoder_side: Side,
    pub(crate) decoder_side: Side,
    pub(crate) encoder: Vec<EncoderLayer>,
    pub(crate) decoder: Vec<DecoderLayer>,
    pub(crate) head: Linear,
}

/// The embedding tables of encoder and decoder, and the head: one table in memory for each one in the file. Clones share the device buffers.
pub(crate) fn tables<'a>(loader: &Loader<'a>, views: Seq2SeqEmbeddings<'a>) -> Result<[Linear; 3], ModelError> {
    let encoder = loader.table("encoder embedding", views.encoder.clone(), None)?;
    let decoder = match views.decoder.name() == views.encoder.name() {
        true => encoder.clone(),
        false => loader.table("decoder embedding", views.decoder.clone(), None)?,
    };
    let head = match views.head.name() {
        name if name == views.encoder.name() => encoder.clone(),
        name if name == views.decoder.name() => decoder.clone(),
        _ => loader.table("head", views.head, None)?,
    };
    Ok([encoder, decoder, head])
}

impl EncoderDecoder {
    /// The decoder stack over rows whose embeddings are in `stream.embeddings`; gives its output. With `align` it ends at the
    /// cross-attention of that layer, whose probabilities are written.
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
        align: Option<(usize, &Probabilities<'_>)>,
        probe: &mut Probe<'_>,
    ) -> Result<&'s Tensor, ModelError> {
        let rows = queries.count;
        stream.begin(rec, self.decoder_side.embedding_norm.as_ref())?;
        probe.see(rec, "decoder", 0, stream.residual, rows)?;
        for (l, layer) in self.decoder.iter().enumerate() {
            self_attention(rec, &*layer.attention, stream.input, &stream.epilogue(l, 0))?;
            stream.advance();
            if let Some((_, out)) = align.filter(|(at, _)| *at == l) {
                layer.cross.probabilities(rec, stream.input, queries, caches, &space.attention, out)?;
                break;
            }
            layer.cross.attend(rec, stream.input, &stream.epilogue(l, 1), queries, caches, &space.attention)?;
            stream.advance();
            layer.ffn.forward(rec, stream.input, &space.inner, &stream.epilogue(l, 2), rows)?;
            stream.advance();
            probe.see(rec, "decoder", l + 1, stream.residual, rows)?;
        }
        Ok(stream.output())
    }

    /// The decoder stack over packed sequences; see [`Self::decode`].
    #[expect(clippy::too_many_arguments, reason = "those of a prefill, and where it ends")]
    fn packed<'s>(
        &'s self,
        rec: &mut Recorder,
        ids: &Buffer,
        batch: &Packed,
        caches: &Caches,
        space: &'s Space,
        align: Option<(usize, &Probabilities<'_>)>,
        probe: &mut Probe<'_>,
    ) -> Result<&'s Tensor, ModelError> {
        let (side, n) = (&self.decoder_side, batch.tokens);
        let stream = Stream::new(&side.norms, space, n);
        let embeddings = stream.embeddings(side.embedding_norm.as_ref());
        embed_packed(rec, ids, n, &side.embedding, side.embedding_scale, side.places()?, embeddings)?;
        let ranges = batch.cross_ranges.as_ref().unwrap_or(&batch.ranges);
        let queries =
            CrossQueries { index: &batch.index, ranges, groups: &batch.groups, segments: &batch.segments, count: n };
        let own = |rec: &mut Recorder, block: &dyn SelfAttention, x: &Tensor, epilogue: &Epilogue<'_>| {
            block.prefill(rec, x, epilogue, batch, caches, &space.attention)
        };
        self.decode(rec, stream, space, caches, queries, own, align, probe)
    }
}

impl Architecture for EncoderDecoder {
    fn limits(&self) -> ModelLimits {
        self.outline.limits
    }

    fn source_vocab_size(&self) -> usize {
        self.encoder_side.embedding.out_features
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
        self.outline.encoder.map_or(0, |encoder| encoder.attention.d_model)
    }

    fn encode<'s>(
        &'s self,
        rec: &mut Recorder,
        ids: &Buffer,
        batch: &Packed,
        caches: &Caches,
        space: &'s Space,
        mut probe: Probe<'_>,
    ) -> Result<&'s Tensor, ModelError> {
        let (side, n) = (&self.encoder_side, batch.tokens);
        let mut stream = Stream::new(&side.norms, space, n);
        let embeddings = stream.embeddings(side.embedding_norm.as_ref());
        embed_packed(rec, ids, n, &side.embedding, side.embedding_scale, side.places()?, embeddings)?;
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
        Ok(memory)
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
        self.packed(rec, ids, batch, caches, space, None, &mut probe)
    }

    fn align(
        &self,
        rec: &mut Recorder,
        ids: &Buffer,
        batch: &Packed,
        caches: &Caches,
        space: &Space,
        layer: usize,
        out: &Probabilities<'_>,
    ) -> Result<(), ModelError> {
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
        let (side, rows) = (&self.decoder_side, step.rows);
        let stream = Stream::new(&side.norms, space, rows.count());
        let embeddings = stream.embeddings(side.embedding_norm.as_ref());
        embed_step(rec, rows, &side.embedding, side.embedding_scale, side.places()?, embeddings)?;
        let ranges = step.cross_ranges.unwrap_or(&rows.active);
        let queries = CrossQueries {
            index: &rows.active,
            ranges,
            groups: &rows.groups,
            segments: rows.segments(),
            count: rows.count(),
        };
        let own = |rec: &mut Recorder, block: &dyn SelfAttention, x: &Tensor, epilogue: &Epilogue<'_>| {
            block.step(rec, x, epilogue, step, caches, &space.attention)
        };
        let output = self.decode(rec, stream, space, caches, queries, own, None, &mut probe)?;
        self.head(rec, output, logits, rows.count())
    }

    fn head(&self, rec: &mut Recorder, hidden: &Tensor, logits: &Tensor, rows: usize) -> Result<(), ModelError> {
        Ok(linear(rec, hidden, &self.head, ops::Activation::None, None, logits, rows)?)
    }
}
