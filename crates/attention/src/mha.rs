//! Multi-head attention (Vaswani et al. 2017), with the cache variants that the EL-attention paper compares: shared, replicated, recomputed.

use elgen_tensor::ops::{Linear, Product};
use elgen_tensor::{Arena, Recorder, Segment, Tensor, padded};

use crate::align::{Align, Probabilities, align};
use crate::attend::{Attend, KeyRanges, attend};
use crate::block::{BlockInput, CrossAttention, CrossQueries, Cx, EncoderBlock, Epilogue, Packed, SelfAttention, Step};
use crate::error::Result;
use crate::kind::{AttentionKind, Pass, Place, Standing};
use crate::mha_attend::{MhaAttend, QueryRows, mha_attend};
use crate::planner::cost::{KindCost, StepLoad, mha_cross, mha_self};
use crate::self_projections::SelfProjections;
use crate::shape::Shape;
use crate::slab_store::StoreTo;
use crate::slot_format::{CacheFormat, Owner, SlotBuffers, SlotFormat};
use crate::spec::BlockSpec;
use crate::weights::{AttentionWeights, Placed, output_projection, stack_heads};
use crate::workspace::{Scratch, ScratchRows};

/// Where mha-nocache makes a layer's cross keys and values: `[cross slots, 2 * inner]`.
const RECOMPUTED: &str = "recomputed cross keys and values";

/// The kinds of multi-head attention: they differ in what they cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mha {
    /// What beams can share is stored once for each sentence.
    Shared,
    /// Everything is stored once for each beam.
    Replicated,
    /// Cross keys and values are made anew at each step.
    Nocache,
}

impl AttentionKind for Mha {
    fn name(&self) -> &str {
        match self {
            Self::Shared => "mha",
            Self::Replicated => "mha-replicated",
            Self::Nocache => "mha-nocache",
        }
    }

    fn about(&self) -> &str {
        match self {
            Self::Shared => "Multi-head attention; the beams of an input share the cross-attention cache",
            Self::Replicated => "Multi-head attention; everything is cached once per beam",
            Self::Nocache => {
                "Multi-head attention; cross keys and values are computed anew at each step (encoder-decoder models only)"
            }
        }
    }

    fn standing(&self) -> Standing {
        match self {
            Self::Shared => Standing::Regular,
            Self::Replicated => Standing::Baseline,
            Self::Nocache => Standing::LastResort,
        }
    }

    fn needs_encoder(&self) -> bool {
        *self == Self::Nocache
    }

    fn slots(&self, place: Place, shape: &Shape, format: CacheFormat) -> SlotFormat {
        let owner = if *self == Self::Replicated { Owner::Row } else { Owner::Sentence };
        match (self, place) {
            // The encoder output is projected again at each step and kept in f32 for it.
            (Self::Nocache, Place::CrossAttention) => SlotFormat {
                columns: padded(shape.d_model),
                format: CacheFormat::F32,
                owner,
                buffers: SlotBuffers::EncoderOutput,
            },
            _ => SlotFormat { columns: shape.inner().saturating_mul(2), format, owner, buffers: SlotBuffers::PerLayer },
        }
    }

    fn scratch(&self, place: Place, _: Pass, shape: &Shape) -> Vec<Scratch> {
        let columns = shape.inner().saturating_mul(2);
        match (self, place) {
            (Self::Nocache, Place::CrossAttention) => {
                vec![Scratch { what: RECOMPUTED, rows: ScratchRows::CrossSlots, columns }]
            }
            _ => Vec::new(),
        }
    }

    fn split_columns(&self, _: Place, _: Pass, shape: &Shape) -> usize {
        shape.inner()
    }

    fn cost(&self, place: Place, shape: &Shape, load: &StepLoad) -> Option<KindCost> {
        match place {
            Place::Encoder => None,
            Place::SelfAttention => Some(mha_self(shape, load, *self == Self::Replicated)),
            Place::CrossAttention => Some(mha_cross(*self, shape, load)),
        }
    }

    fn encoder_attention(
        &self,
        arena: &Arena,
        spec: &BlockSpec<'_>,
        weights: AttentionWeights<'_>,
    ) -> Result<Box<dyn EncoderBlock>> {
        self.supports(Place::Encoder, spec)?;
        Ok(Box::new(MhaEncoder(SelfProjections::new(arena, spec, weights)?)))
    }

    fn self_attention(
        &self,
        arena: &Arena,
        spec: &BlockSpec<'_>,
        weights: AttentionWeights<'_>,
    ) -> Result<Box<dyn SelfAttention>> {
        self.supports(Place::SelfAttention, spec)?;
        Ok(Box::new(MhaSelf { layer: spec.layer, projections: SelfProjections::new(arena, spec, weights)? }))
    }

    fn cross_attention(
        &self,
        arena: &Arena,
        spec: &BlockSpec<'_>,
        weights: AttentionWeights<'_>,
    ) -> Result<Box<dyn CrossAttention>> {
        self.supports(Place::CrossAttention, spec)?;
        Ok(Box::new(MhaCross::new(arena, *self, spec, weights)?))
    }
}

/// The core over packed rows, each attending to its range, over the keys that [`SelfProjections::project`] left, and the end of the block.
fn attend_packed(
    projections: &SelfProjections,
    cx: &mut Cx<'_>,
    epilogue: &Epilogue<'_>,
    batch: &Packed,
) -> Result<()> {
    let (shape, made) = (projections.shape(), cx.work.projections());
    let product = Attend {
        shape,
        q: (made, 0),
        k: (made, shape.inner()),
        v: (made, 2 * shape.inner()),
        bias: projections.position_bias(),
        out: cx.work.contexts(),
        first: 0,
        count: batch.tokens as u32,
    };
    attend(cx.rec, KeyRanges { index: batch.index.view(), ranges: batch.ranges.view() }, product)?;
    projections.finish(cx, epilogue, 1, batch.tokens)
}

/// Self-attention of an encoder layer.
#[derive(Debug)]
struct MhaEncoder(SelfProjections);

impl EncoderBlock for MhaEncoder {
    fn forward(&self, cx: &mut Cx<'_>, input: &BlockInput<'_>, epilogue: &Epilogue<'_>, batch: &Packed) -> Result<()> {
        self.0.project(cx, input, &[], batch.tokens)?;
        attend_packed(&self.0, cx, epilogue, batch)
    }
}

/// Decoder self-attention that caches keys and values.
#[derive(Debug)]
struct MhaSelf {
    layer: usize,
    projections: SelfProjections,
}

impl SelfAttention for MhaSelf {
    fn prefill(&self, cx: &mut Cx<'_>, input: &BlockInput<'_>, epilogue: &Epilogue<'_>, batch: &Packed) -> Result<()> {
        let (keys, to) = (self.projections.shape().inner(), StoreTo::SelfLayer(self.layer));
        self.projections.project(cx, input, &cx.caches.prompt_stores(batch, keys, to)?, batch.tokens)?;
        attend_packed(&self.projections, cx, epilogue, batch)
    }

    fn step(&self, cx: &mut Cx<'_>, input: &BlockInput<'_>, epilogue: &Epilogue<'_>, step: Step<'_>) -> Result<()> {
        let (shape, rows, work) = (self.projections.shape(), step.rows, cx.work);
        let caches = cx.caches;
        caches.step_stores(rows, shape.inner(), self.layer, |stores| {
            self.projections.project(cx, input, stores, rows.count())
        })?;
        let splits = work.splits().self_;
        for segment in rows.segments() {
            let product = MhaAttend {
                shape,
                q: (work.projections(), 0),
                kv: cx.caches.self_layer(segment, self.layer)?,
                columns: [0, shape.inner()],
                bias: self.projections.position_bias(),
                out: work.contexts(),
                splits: work.room(splits),
            };
            mha_attend(cx.rec, QueryRows::Slots(rows, segment), product)?;
        }
        self.projections.finish(cx, epilogue, splits, rows.count())
    }
}

/// Cross-attention over cached keys and values, or (mha-nocache) over keys and values recomputed from the encoder output at each step.
#[derive(Debug)]
struct MhaCross {
    shape: Shape,
    layer: usize,
    variant: Mha,
    q: Linear,
    kv: Linear,
    output: Linear,
}

impl MhaCross {
    fn new(arena: &Arena, variant: Mha, spec: &BlockSpec<'_>, w: AttentionWeights<'_>) -> Result<Self> {
        let BlockSpec { what, layer, shape, formats, .. } = *spec;
        let Placed { weights: w, folded } = Placed::new(spec, w)?;
        Ok(Self {
            shape,
            layer,
            variant,
            q: stack_heads(arena, &format!("{what} q"), shape, formats.weights, &[w.q])?,
            kv: stack_heads(arena, &format!("{what} kv"), shape, formats.weights, &[w.k, w.v])?,
            output: output_projection(arena, &format!("{what} out"), shape, formats.weights, w.o, folded)?,
        })
    }

    /// Queries of `rows` rows.
    fn project(&self, rec: &mut Recorder, input: &BlockInput<'_>, to: &Tensor, rows: usize) -> Result<()> {
        let product = Product::new(input.states, &self.q, to, rows);
        Ok(Product { prologue: input.prologue(), ..product }.record(rec)?)
    }

    /// The slab's keys and values of this layer.
    fn keys<'a>(&self, cx: &mut Cx<'a>, segment: &Segment) -> Result<&'a Tensor> {
        let cached = cx.caches.cross_layer(segment, self.layer)?;
        if self.variant != Mha::Nocache {
            return Ok(cached);
        }
        let made = cx.work.scratch(RECOMPUTED)?;
        Product::new(cached, &self.kv, made, cached.rows).record(cx.rec)?;
        Ok(made)
    }
}

impl CrossAttention for MhaCross {
    fn cache_sources(&self, cx: &mut Cx<'_>, encoder_output: &Tensor, batch: &Packed) -> Result<()> {
        if self.variant == Mha::Nocache {
            return Ok(());
        }
        let stores = &cx.caches.prompt_stores(batch, 0, StoreTo::CrossLayer(self.layer))?;
        let product = Product::new(encoder_output, &self.kv, cx.work.projections(), batch.tokens);
        Ok(Product { stores, ..product }.record(cx.rec)?)
    }

    fn attend(
        &self,
        cx: &mut Cx<'_>,
        input: &BlockInput<'_>,
        epilogue: &Epilogue<'_>,
        queries: CrossQueries<'_>,
    ) -> Result<()> {
        let work = cx.work;
        self.project(cx.rec, input, work.projections(), queries.count)?;
        for segment in queries.segments {
            let product = MhaAttend {
                shape: self.shape,
                q: (work.projections(), 0),
                kv: self.keys(cx, segment)?,
                columns: [0, self.shape.inner()],
                bias: None,
                out: work.contexts(),
                splits: work.room(work.splits().cross),
            };
            // Replicated copies are each their own row's: reading one for all would be the shared cache under another name.
            let shared = self.variant != Mha::Replicated;
            mha_attend(cx.rec, QueryRows::Groups { queries: &queries, segment, shared }, product)?;
        }
        let merge = work.merge(work.splits().cross, self.shape.num_heads, self.shape.head_width());
        Ok(epilogue.apply(cx.rec, merge, work.contexts(), &self.output, queries.count)?)
    }

    fn probabilities(
        &self,
        cx: &mut Cx<'_>,
        input: &BlockInput<'_>,
        queries: CrossQueries<'_>,
        out: &Probabilities<'_>,
    ) -> Result<()> {
        let projections = cx.work.projections();
        self.project(cx.rec, input, projections, queries.count)?;
        for segment in queries.segments {
            let (q, k) = ((projections, 0), (self.keys(cx, segment)?, 0));
            let rows = Align { shape: self.shape, shared: false, q, k, first: segment.first, count: segment.count };
            align(cx.rec, queries.index, queries.ranges, rows, out)?;
        }
        Ok(())
    }
}
