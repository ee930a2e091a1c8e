//! EL-attention (Yan et al., ICML 2021): hidden states are cached instead of keys and values.
//!
//! Per head, with X the hidden states that keys and values are projected from (docs/el-attention.md §1.3):
//! ```text
//! q' = (y W_q + b_q) W_k^T        [d_model]      c = softmax(scale * q' X^T) X        o = c W_v + b_v
//! ```
//! b_k adds the same number to every key of a head, so the softmax removes it: it is never used, in prefill neither. b_v is part of b_o: probabilities
//! sum to one. q' and c stay in f32.

use elgen_tensor::ops::{Linear, Product, Prologue, heads_contract, heads_expand};
use elgen_tensor::{Arena, Recorder, Segment, Tensor, padded};

use crate::align::{Align, Probabilities, align};
use crate::attend::{Attend, KeyRanges, attend};
use crate::bias::PositionBias;
use crate::block::{BlockInput, CrossAttention, CrossQueries, Cx, EncoderBlock, Epilogue, Packed, SelfAttention, Step};
use crate::el_attend::{ElAttend, ElQueries, el_attend};
use crate::el_trial::try_out;
use crate::error::Result;
use crate::kind::{AttentionKind, Kind, Pass, Place, Standing};
use crate::planner::cost::{KindCost, StepLoad, el_cross, el_self};
use crate::shape::Shape;
use crate::slab_store::{StoreTo, store_prompt};
use crate::slot_format::{CacheFormat, Owner, SlotBuffers, SlotFormat};
use crate::spec::BlockSpec;
use crate::weights::{AttentionWeights, Placed, output_projection, stack_heads};
use crate::workspace::{Scratch, ScratchRows, Workspace};

/// Queries expanded to the width of the hidden states, and contexts of that width: `[rows, num_heads * d_model]` each.
const EXPANDED: [&str; 2] = ["EL queries", "EL contexts"];
/// What a prompt's plain attention runs over: `[rows, inner]` each.
const TRIPLE: [&str; 3] = ["queries", "keys", "values"];

/// The kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct El;

/// Columns of expanded queries, all heads.
fn expanded(shape: &Shape) -> usize {
    shape.num_heads.saturating_mul(padded(shape.d_model))
}

impl AttentionKind for El {
    fn name(&self) -> &str {
        "el"
    }

    fn about(&self) -> &str {
        "EL-attention: caches one hidden state instead of a key and a value per head and layer"
    }

    fn standing(&self) -> Standing {
        Standing::Regular
    }

    fn slots(&self, place: Place, shape: &Shape, format: CacheFormat) -> SlotFormat {
        let buffers = match place {
            Place::CrossAttention => SlotBuffers::EncoderOutput,
            Place::Encoder | Place::SelfAttention => SlotBuffers::PerLayer,
        };
        SlotFormat { columns: padded(shape.d_model), format, owner: Owner::Sentence, buffers }
    }

    fn scratch(&self, place: Place, pass: Pass, shape: &Shape) -> Vec<Scratch> {
        let all = |names: &[&'static str], columns: usize| {
            names.iter().map(|what| Scratch { what, rows: ScratchRows::Queries, columns }).collect()
        };
        match (place, pass) {
            (Place::Encoder, _) => Vec::new(),
            (Place::SelfAttention, Pass::Prompt) => all(&TRIPLE, shape.inner()),
            (Place::SelfAttention, Pass::Step) | (Place::CrossAttention, _) => all(&EXPANDED, expanded(shape)),
        }
    }

    fn split_columns(&self, place: Place, pass: Pass, shape: &Shape) -> usize {
        match (place, pass) {
            (Place::Encoder, _) | (Place::SelfAttention, Pass::Prompt) => 0,
            (Place::SelfAttention, Pass::Step) | (Place::CrossAttention, _) => expanded(shape),
        }
    }

    fn cost(&self, place: Place, shape: &Shape, load: &StepLoad) -> Option<KindCost> {
        match place {
            Place::Encoder => None,
            Place::SelfAttention => Some(el_self(shape, load)),
            Place::CrossAttention => Some(el_cross(shape, load)),
        }
    }

    /// Multi-head attention: an encoder caches nothing.
    fn encoder_attention(
        &self,
        arena: &Arena,
        spec: &BlockSpec<'_>,
        weights: AttentionWeights<'_>,
    ) -> Result<Box<dyn EncoderBlock>> {
        Kind::MHA.encoder_attention(arena, spec, weights)
    }

    fn self_attention(
        &self,
        arena: &Arena,
        spec: &BlockSpec<'_>,
        weights: AttentionWeights<'_>,
    ) -> Result<Box<dyn SelfAttention>> {
        self.supports(Place::SelfAttention, spec)?;
        Ok(Box::new(ElSelf { layer: spec.layer, projections: Projections::new(arena, spec, weights)? }))
    }

    fn cross_attention(
        &self,
        arena: &Arena,
        spec: &BlockSpec<'_>,
        weights: AttentionWeights<'_>,
    ) -> Result<Box<dyn CrossAttention>> {
        self.supports(Place::CrossAttention, spec)?;
        Ok(Box::new(ElCross { layer: spec.layer, projections: Projections::new(arena, spec, weights)? }))
    }
}

/// The projections of an EL block.
#[derive(Debug)]
struct Projections {
    shape: Shape,
    bias: Option<PositionBias>,
    q: Linear,
    /// `[inner, d_model]`, used as it lies to expand queries and transposed to make transient keys.
    k: Linear,
    v: Linear,
    output: Linear,
}

impl Projections {
    fn new(arena: &Arena, spec: &BlockSpec<'_>, w: AttentionWeights<'_>) -> Result<Self> {
        let BlockSpec { what, shape, formats, .. } = *spec;
        if let Some(device) = arena.device() {
            try_out(device, shape.d_model, formats.cache.dtype())?;
        }
        let Placed { weights: w, folded } = Placed::new(spec, w)?;
        Ok(Self {
            shape,
            bias: spec.position_bias()?,
            q: stack_heads(arena, &format!("{what} q"), shape, formats.weights, &[w.q])?,
            k: stack_heads(arena, &format!("{what} k"), shape, formats.weights, &[w.k])?,
            v: stack_heads(arena, &format!("{what} v"), shape, formats.weights, &[w.v])?,
            output: output_projection(arena, &format!("{what} out"), shape, formats.weights, w.o, folded)?,
        })
    }

    /// Queries of `rows` rows, expanded to the width of the hidden states.
    fn expand(&self, rec: &mut Recorder, input: &BlockInput<'_>, rows: usize, work: &Workspace) -> Result<()> {
        let (queries, expanded) = (work.contexts(), work.scratch(EXPANDED[0])?);
        Product { prologue: input.prologue(), ..Product::new(input.states, &self.q, queries, rows) }.record(rec)?;
        heads_expand(rec, queries, &self.k.weight, self.shape.num_heads, expanded, rows)?;
        Ok(())
    }

    /// Attention of expanded queries over hidden states `x`.
    fn product<'a>(
        &'a self,
        x: &'a Tensor,
        segment: Segment,
        splits: usize,
        work: &'a Workspace,
    ) -> Result<ElAttend<'a>> {
        Ok(ElAttend {
            shape: self.shape,
            q: work.scratch(EXPANDED[0])?,
            x,
            bias: self.bias.as_ref(),
            out: work.scratch(EXPANDED[1])?,
            splits: work.room(splits),
            segment,
        })
    }

    /// Contexts, merged of `splits` splits of keys, back to head width, and the end of the block.
    fn finish(&self, cx: &mut Cx<'_>, epilogue: &Epilogue<'_>, splits: usize, rows: usize) -> Result<()> {
        let (heads, contexts) = (self.shape.num_heads, cx.work.contexts());
        let merge = cx.work.merge(splits, heads, padded(self.shape.d_model));
        heads_contract(cx.rec, merge, cx.work.scratch(EXPANDED[1])?, &self.v, heads, contexts, rows)?;
        Ok(epilogue.apply(cx.rec, Prologue::None, contexts, &self.output, rows)?)
    }
}

/// Decoder self-attention that caches its input.
#[derive(Debug)]
struct ElSelf {
    layer: usize,
    projections: Projections,
}

impl SelfAttention for ElSelf {
    /// Transient keys and values, plain multi-head attention, and only the input is stored: EL's core costs `num_heads` times the
    /// arithmetic, which does not pay where more than about `head_dim` query rows share an X (docs/el-attention.md §1.8).
    fn prefill(&self, cx: &mut Cx<'_>, input: &BlockInput<'_>, epilogue: &Epilogue<'_>, batch: &Packed) -> Result<()> {
        let (p, work) = (&self.projections, cx.work);
        let [q, k, v] = TRIPLE.map(|what| work.scratch(what));
        let (q, k, v) = (q?, k?, v?);
        Product { prologue: input.prologue(), ..Product::new(input.states, &p.q, q, batch.tokens) }.record(cx.rec)?;
        for (projection, to) in [(&p.k, k), (&p.v, v)] {
            Product::new(input.normed(), projection, to, batch.tokens).record(cx.rec)?;
        }
        store_prompt(cx.rec, input.normed(), 0, batch, cx.caches, StoreTo::SelfLayer(self.layer))?;
        let product = Attend {
            shape: p.shape,
            q: (q, 0),
            k: (k, 0),
            v: (v, 0),
            bias: p.bias.as_ref(),
            out: work.contexts(),
            first: 0,
            count: batch.tokens as u32,
        };
        attend(cx.rec, KeyRanges { index: batch.index.view(), ranges: batch.ranges.view() }, product)?;
        Ok(epilogue.apply(cx.rec, Prologue::None, work.contexts(), &p.output, batch.tokens)?)
    }

    fn step(&self, cx: &mut Cx<'_>, input: &BlockInput<'_>, epilogue: &Epilogue<'_>, step: Step<'_>) -> Result<()> {
        let (rows, work) = (step.rows, cx.work);
        self.projections.expand(cx.rec, input, rows.count(), work)?;
        let splits = work.splits().self_;
        let (caches, rec) = (cx.caches, &mut *cx.rec);
        caches.step_stores(rows, 0, self.layer, |stores| {
            Ok(stores.iter().try_for_each(|store| store.record(rec, input.normed()))?)
        })?;
        for segment in rows.segments() {
            let x = cx.caches.self_layer(segment, self.layer)?;
            el_attend(cx.rec, ElQueries::Slots(rows), self.projections.product(x, *segment, splits, work)?)?;
        }
        self.projections.finish(cx, epilogue, splits, rows.count())
    }
}

/// Cross-attention over the encoder output itself, one copy for all layers, heads and beams.
#[derive(Debug)]
struct ElCross {
    layer: usize,
    projections: Projections,
}

impl CrossAttention for ElCross {
    /// Nothing to make: the encoder output has been stored for all layers.
    fn cache_sources(&self, _: &mut Cx<'_>, _: &Tensor, _: &Packed) -> Result<()> {
        Ok(())
    }

    fn attend(
        &self,
        cx: &mut Cx<'_>,
        input: &BlockInput<'_>,
        epilogue: &Epilogue<'_>,
        queries: CrossQueries<'_>,
    ) -> Result<()> {
        let work = cx.work;
        self.projections.expand(cx.rec, input, queries.count, work)?;
        for segment in queries.segments {
            let x = cx.caches.cross_layer(segment, self.layer)?;
            let product = self.projections.product(x, *segment, work.splits().cross, work)?;
            el_attend(cx.rec, ElQueries::Groups(queries), product)?;
        }
        self.projections.finish(cx, epilogue, work.splits().cross, queries.count)
    }

    fn probabilities(
        &self,
        cx: &mut Cx<'_>,
        input: &BlockInput<'_>,
        queries: CrossQueries<'_>,
        out: &Probabilities<'_>,
    ) -> Result<()> {
        let (shape, work) = (self.projections.shape, cx.work);
        self.projections.expand(cx.rec, input, queries.count, work)?;
        for segment in queries.segments {
            let (q, k) = ((work.scratch(EXPANDED[0])?, 0), (cx.caches.cross_layer(segment, self.layer)?, 0));
            let rows = Align { shape, shared: true, q, k, first: segment.first, count: segment.count };
            align(cx.rec, queries.index, queries.ranges, rows, out)?;
        }
        Ok(())
    }
}
