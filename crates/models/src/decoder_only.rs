//! What GPT-2 and OPT share: a stack of self-attention and feed-forward blocks over token and position embeddings, and a head.

use elgen_attention::{CacheLayout, Caches, Epilogue, Packed, SelfAttention, Step};
use elgen_search::ModelLimits;
use elgen_tensor::ops::{self, Linear, embed_packed, embed_step, linear, positions_packed, positions_step};
use elgen_tensor::{Buffer, Recorder, Tensor};

use crate::architecture::{Architecture, Probe};
use crate::error::ModelError;
use crate::feed_forward::FeedForward;
use crate::outline::Outline;
use crate::space::{Space, StackShape};
use crate::stack::{Norms, Stream};

#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) attention: Box<dyn SelfAttention>,
    pub(crate) ffn: FeedForward,
}

/// Projections around a stack whose embedding table is narrower or wider than the model.
#[derive(Debug)]
pub(crate) struct Projections {
    /// `[d_model, table width]`, behind the embedding.
    pub(crate) input: Linear,
    /// `[table width, d_model]`, before the head.
    pub(crate) output: Linear,
}

/// A loaded decoder-only model.
#[derive(Debug)]
pub(crate) struct DecoderOnly {
    pub(crate) family: &'static str,
    pub(crate) outline: Outline,
    pub(crate) cache_layout: CacheLayout,
    pub(crate) embedding: Linear,
    pub(crate) positions: Linear,
    /// Rows of the position table before position 0.
    pub(crate) position_offset: usize,
    pub(crate) projections: Option<Projections>,
    pub(crate) head: Linear,
    pub(crate) layers: Vec<Layer>,
    pub(crate) norms: Norms,
}

impl DecoderOnly {
    fn places(&self) -> Result<(&Tensor, usize), ModelError> {
        Ok((self.positions.window_tensor()?, self.position_offset))
    }

    /// Writes the embeddings of `rows` rows to `out`. `embed` writes those of tokens and, if it is given them, positions; `place` writes
    /// positions alone.
    fn embed(
        &self,
        rec: &mut Recorder,
        space: &Space,
        out: &Tensor,
        rows: usize,
        embed: impl FnOnce(&mut Recorder, Option<(&Tensor, usize)>, &Tensor) -> elgen_tensor::Result<()>,
        place: impl FnOnce(&mut Recorder, (&Tensor, usize), &Tensor) -> elgen_tensor::Result<()>,
    ) -> Result<(), ModelError> {
        let Some(projections) = &self.projections else {
            return Ok(embed(rec, Some(self.places()?), out)?);
        };
        // The rows of the narrow table lie in the feed-forward tensor, the positions where no block has written yet.
        embed(rec, None, &space.inner.up)?;
        place(rec, self.places()?, &space.y)?;
        linear(rec, &space.inner.up, &projections.input, ops::Activation::None, Some(&space.y), out, rows)?;
        Ok(())
    }

    /// All layers over `rows` rows whose embeddings are in `stream.embeddings`; gives what the head reads.
    fn decode<'s>(
        &'s self,
        rec: &mut Recorder,
        mut stream: Stream<'s>,
        space: &'s Space,
        rows: usize,
        mut attention: impl FnMut(&mut Recorder, &dyn SelfAttention, &Tensor, &Epilogue<'_>) -> elgen_attention::Result<()>,
        probe: &mut Probe<'_>,
    ) -> Result<&'s Tensor, ModelError> {
        stream.begin(rec, None)?;
        probe.see(rec, "decoder", 0, stream.residual, rows)?;
        for (l, layer) in self.layers.iter().enumerate() {
            attention(rec, &*layer.attention, stream.input, &stream.epilogue(l, 0))?;
            stream.advance();
            layer.ffn.forward(rec, stream.input, &space.inner, &stream.epilogue(l, 1), rows)?;
            stream.advance();
            probe.see(rec, "decoder", l + 1, stream.residual, rows)?;
        }
        let Some(projections) = &self.projections else { return Ok(stream.output()) };
        linear(rec, stream.output(), &projections.output, ops::Activation::None, None, &space.inner.up, rows)?;
        Ok(&space.inner.up)
    }
}

impl Architecture for DecoderOnly {
    fn limits(&self) -> ModelLimits {
        self.outline.limits
    }

    fn cache_layout(&self) -> CacheLayout {
        self.cache_layout
    }

    fn encoder_shape(&self) -> Option<StackShape> {
        None
    }

    fn decoder_shape(&self) -> StackShape {
        self.outline.decoder
    }

    fn hidden_size(&self) -> usize {
        self.outline.head_width
    }

    fn encode<'s>(
        &'s self,
        _: &mut Recorder,
        _: &Buffer,
        _: &Packed,
        _: &Caches,
        _: &'s Space,
        _: Probe<'_>,
    ) -> Result<&'s Tensor, ModelError> {
        Err(elgen_attention::AttentionError::Shape(format!("{} has no encoder", self.family)).into())
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
        let n = batch.tokens;
        let stream = Stream::new(&self.norms, space, n);
        self.embed(
            rec,
            space,
            stream.embeddings(None),
            n,
            |rec, places, out| embed_packed(rec, ids, n, &self.embedding, 1.0, places, out),
            |rec, places, out| positions_packed(rec, ids, n, places, out),
        )?;
        let own = |rec: &mut Recorder, block: &dyn SelfAttention, h: &Tensor, epilogue: &Epilogue<'_>| {
            block.prefill(rec, h, epilogue, batch, caches, &space.attention)
        };
        self.decode(rec, stream, space, n, own, &mut probe)
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
        let (rows, n) = (step.rows, step.rows.count());
        let stream = Stream::new(&self.norms, space, n);
        self.embed(
            rec,
            space,
            stream.embeddings(None),
            n,
            |rec, places, out| embed_step(rec, rows, &self.embedding, 1.0, places, out),
            |rec, places, out| positions_step(rec, rows, places, out),
        )?;
        let own = |rec: &mut Recorder, block: &dyn SelfAttention, h: &Tensor, epilogue: &Epilogue<'_>| {
            block.step(rec, h, epilogue, step, caches, &space.attention)
        };
        let output = self.decode(rec, stream, space, n, own, &mut probe)?;
        self.head(rec, output, logits, n)
    }

    fn head(&self, rec: &mut Recorder, hidden: &Tensor, logits: &Tensor, rows: usize) -> Result<(), ModelError> {
        Ok(linear(rec, hidden, &self.head, ops::Activation::None, None, logits, rows)?)
    }
}
