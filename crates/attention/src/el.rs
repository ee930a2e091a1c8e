//! EL-attention (Yan et al., ICML 2021): hidden states are cached instead of keys and values.
//!
//! Per head, with X the hidden states that keys and values are projected from (docs/el-attention.md §1.3):
//! ```text
//! q' = (y W_q + b_q) W_k^T        [d_model]      c = softmax(scale * q' X^T) X        o = c W_v + b_v
//! ```
//! b_k adds the same number to every key of a head, so the softmax removes it: it is never used, in prefill neither. b_v is part of b_o where
//! every row has a key, else it is added to the outputs of the rows that have one. q' and c stay in f32.

use elgen_tensor::ops::{Activation, Linear, heads_contract, heads_expand, linear, store, value_bias};
use elgen_tensor::{Device, Recorder, Segment, Tensor};

use crate::align::{Align, Probabilities, align};
use crate::attend::{Attend, Keys, attend};
use crate::bias::PositionBias;
use crate::block::{
    BlockSpec, CrossAttention, CrossQueries, Epilogue, Packed, SelfAttention, Step, Workspace, slab_of, store_copies,
};
use crate::caches::Caches;
use crate::el_attend::{ElAttend, ElQueries, el_attend};
use crate::el_trial::try_out;
use crate::error::Result;
use crate::kind::{Kind, Shape};
use crate::weights::{AttentionWeights, Placed, output_projection, stack_heads};

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
    fn new(device: &Device, spec: &BlockSpec<'_>, w: AttentionWeights<'_>) -> Result<Self> {
        let BlockSpec { what, shape, dtype, .. } = *spec;
        try_out(device, shape.d_model, dtype)?;
        let Placed { weights: w, folded } = Placed::new(spec, w)?;
        Ok(Self {
            shape,
            bias: spec.self_bias()?,
            q: stack_heads(device, &format!("{what} q"), shape, dtype, &[w.q])?,
            k: stack_heads(device, &format!("{what} k"), shape, dtype, &[w.k])?,
            v: stack_heads(device, &format!("{what} v"), shape, dtype, &[w.v])?,
            output: output_projection(device, &format!("{what} out"), shape, dtype, w.o, folded)?,
        })
    }

    /// Queries of `rows` rows, expanded to the width of the hidden states.
    fn expand(&self, rec: &mut Recorder, input: &Tensor, rows: usize, work: &Workspace) -> Result<()> {
        let [expanded, _] = work.el()?;
        linear(rec, input, &self.q, Activation::None, None, &work.context, rows)?;
        heads_expand(rec, &work.context, &self.k.weight, self.shape.num_heads, expanded, rows)?;
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
        let [expanded, contexts] = work.el()?;
        Ok(ElAttend {
            shape: self.shape,
            q: expanded,
            x,
            bias: self.bias.as_ref(),
            out: contexts,
            splits: (splits, work.partials()),
            segment,
        })
    }

    /// Contexts back to head width.
    fn contract(&self, rec: &mut Recorder, rows: usize, work: &Workspace) -> Result<()> {
        let [_, contexts] = work.el()?;
        heads_contract(rec, contexts, &self.v, self.shape.num_heads, &work.context, rows)?;
        Ok(())
    }
}

/// Decoder self-attention that caches its input.
#[derive(Debug)]
pub struct ElSelf {
    layer: usize,
    projections: Projections,
}

impl ElSelf {
    /// Loads the projections.
    ///
    /// # Errors
    /// Weights that do not fit the shape or cannot be read.
    pub fn new(device: &Device, spec: &BlockSpec<'_>, w: AttentionWeights<'_>) -> Result<Self> {
        Ok(Self { layer: spec.layer, projections: Projections::new(device, spec, w)? })
    }
}

impl SelfAttention for ElSelf {
    fn kind(&self) -> Kind {
        Kind::El
    }

    /// Transient keys and values, plain multi-head attention, and only the input is stored: EL's core costs `num_heads` times the
    /// arithmetic, which does not pay where more than about `head_dim` query rows share an X (docs/el-attention.md §1.8).
    fn prefill(
        &self,
        rec: &mut Recorder,
        input: &Tensor,
        epilogue: &Epilogue<'_>,
        batch: &Packed,
        caches: &Caches,
        work: &Workspace,
    ) -> Result<()> {
        let p = &self.projections;
        let [q, k, v] = work.triple()?;
        for (projection, to) in [(&p.q, q), (&p.k, k), (&p.v, v)] {
            linear(rec, input, projection, Activation::None, None, to, batch.tokens)?;
        }
        store_copies(rec, input, 0, batch, caches, |slab| slab.self_layers.get(self.layer))?;
        let product = Attend {
            shape: p.shape,
            q: (q, 0),
            k: (k, 0),
            v: (v, 0),
            bias: p.bias.as_ref(),
            out: &work.context,
            first: 0,
            count: batch.tokens as u32,
        };
        attend(rec, Keys { index: batch.index.view(), ranges: batch.ranges.view() }, product)?;
        epilogue.apply(rec, &work.context, &p.output, batch.tokens)?;
        Ok(())
    }

    fn step(
        &self,
        rec: &mut Recorder,
        input: &Tensor,
        epilogue: &Epilogue<'_>,
        step: Step<'_>,
        caches: &Caches,
        work: &Workspace,
    ) -> Result<()> {
        let rows = step.rows;
        self.projections.expand(rec, input, rows.count(), work)?;
        for segment in rows.segments() {
            let slab = &slab_of(caches, segment)?.self_layers[self.layer];
            store(rec, rows, *segment, input, 0, slab)?;
            let product = self.projections.product(slab, *segment, work.splits().self_, work)?;
            el_attend(rec, ElQueries::Slots(rows), product)?;
        }
        self.projections.contract(rec, rows.count(), work)?;
        epilogue.apply(rec, &work.context, &self.projections.output, rows.count())?;
        Ok(())
    }
}

/// Cross-attention over the encoder output itself, one copy for all layers, heads and beams.
#[derive(Debug)]
pub struct ElCross {
    projections: Projections,
    /// b_v where a query row may have no key: only the others get it.
    masked_v: Option<Tensor>,
}

impl ElCross {
    /// Loads the projections.
    ///
    /// # Errors
    /// Weights that do not fit the shape or cannot be read.
    pub fn new(device: &Device, spec: &BlockSpec<'_>, w: AttentionWeights<'_>) -> Result<Self> {
        spec.check_cross()?;
        let mut projections = Projections::new(device, spec, w)?;
        let masked_v = if spec.masks_whole_rows { projections.v.bias.take() } else { None };
        Ok(Self { projections, masked_v })
    }
}

impl CrossAttention for ElCross {
    fn kind(&self) -> Kind {
        Kind::El
    }

    /// Nothing to make: [`crate::memorize`] stored the encoder output for all layers.
    fn memorize(&self, _: &mut Recorder, _: &Tensor, _: &Packed, _: &Caches, _: &Workspace) -> Result<()> {
        Ok(())
    }

    fn attend(
        &self,
        rec: &mut Recorder,
        input: &Tensor,
        epilogue: &Epilogue<'_>,
        queries: CrossQueries<'_>,
        caches: &Caches,
        work: &Workspace,
    ) -> Result<()> {
        self.projections.expand(rec, input, queries.count, work)?;
        for segment in queries.segments {
            let x = &slab_of(caches, segment)?.cross[0];
            let product = self.projections.product(x, *segment, work.splits().cross, work)?;
            el_attend(rec, ElQueries::Groups(queries), product)?;
        }
        self.projections.contract(rec, queries.count, work)?;
        if let Some(bias) = &self.masked_v {
            value_bias(rec, queries.index, queries.ranges, bias, &work.context, queries.count)?;
        }
        epilogue.apply(rec, &work.context, &self.projections.output, queries.count)?;
        Ok(())
    }

    fn probabilities(
        &self,
        rec: &mut Recorder,
        input: &Tensor,
        queries: CrossQueries<'_>,
        caches: &Caches,
        work: &Workspace,
        out: &Probabilities<'_>,
    ) -> Result<()> {
        let shape = self.projections.shape;
        self.projections.expand(rec, input, queries.count, work)?;
        let [expanded, _] = work.el()?;
        for segment in queries.segments {
            let (q, k) = ((expanded, 0), (&slab_of(caches, segment)?.cross[0], 0));
            let rows = Align { shape, shared: true, q, k, first: segment.first, count: segment.count };
            align(rec, queries.index, queries.ranges, rows, out)?;
        }
        Ok(())
    }
}
