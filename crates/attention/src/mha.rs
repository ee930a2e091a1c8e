//! Multi-head attention (Vaswani et al. 2017), with the cache variants that the EL-attention paper compares: shared, replicated, recomputed.

use elgen_tensor::ops::{Activation, Linear, linear, store};
use elgen_tensor::{Device, Recorder, Segment, Tensor};

use crate::align::{Align, Probabilities, align};
use crate::attend::{Attend, Keys, attend};
use crate::bias::PositionBias;
use crate::block::{
    BlockSpec, CrossAttention, CrossQueries, Epilogue, Packed, SelfAttention, Step, Workspace, slab_of, store_copies,
};
use crate::caches::Caches;
use crate::error::Result;
use crate::kind::{Kind, Shape};
use crate::mha_attend::{MhaAttend, QueryRows, mha_attend};
use crate::weights::{AttentionWeights, Placed, output_projection, stack_heads};

/// Packed rows attend to each other, each to its range: encoder self-attention, and the prompt of a decoder.
/// `keys` are f32 rows `[tokens, 3 * inner]` as the fused projection leaves them in `work.wide`.
pub(crate) fn attend_packed(
    rec: &mut Recorder,
    shape: Shape,
    bias: Option<&PositionBias>,
    batch: &Packed,
    work: &Workspace,
) -> Result<()> {
    let inner = shape.inner();
    let product = Attend {
        shape,
        q: (&work.wide, 0),
        k: (&work.wide, inner),
        v: (&work.wide, 2 * inner),
        bias,
        out: &work.context,
        first: 0,
        count: batch.tokens as u32,
    };
    attend(rec, Keys { index: batch.index.view(), ranges: batch.ranges.view() }, product)?;
    Ok(())
}

/// Bidirectional self-attention of an encoder layer: always multi-head, nothing is cached.
#[derive(Debug)]
pub struct EncoderAttention {
    shape: Shape,
    bias: Option<PositionBias>,
    qkv: Linear,
    output: Linear,
}

impl EncoderAttention {
    /// Loads the projections.
    ///
    /// # Errors
    /// Weights that do not fit the shape or cannot be read.
    pub fn new(device: &Device, spec: &BlockSpec<'_>, w: AttentionWeights<'_>) -> Result<Self> {
        let BlockSpec { what, shape, dtype, .. } = *spec;
        let Placed { weights: w, folded } = Placed::new(spec, w)?;
        Ok(Self {
            shape,
            bias: spec.self_bias()?,
            qkv: stack_heads(device, &format!("{what} qkv"), shape, dtype, &[w.q, w.k, w.v])?,
            output: output_projection(device, &format!("{what} out"), shape, dtype, w.o, folded)?,
        })
    }

    /// Packed rows `[tokens, d_model]`, each attending to its range.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(
        &self,
        rec: &mut Recorder,
        input: &Tensor,
        epilogue: &Epilogue<'_>,
        batch: &Packed,
        work: &Workspace,
    ) -> Result<()> {
        linear(rec, input, &self.qkv, Activation::None, None, &work.wide, batch.tokens)?;
        attend_packed(rec, self.shape, self.bias.as_ref(), batch, work)?;
        epilogue.apply(rec, &work.context, &self.output, batch.tokens)?;
        Ok(())
    }
}

/// Decoder self-attention that caches keys and values.
#[derive(Debug)]
pub struct MhaSelf {
    shape: Shape,
    bias: Option<PositionBias>,
    layer: usize,
    kind: Kind,
    qkv: Linear,
    output: Linear,
}

impl MhaSelf {
    /// Loads the projections. `kind` decides only how the caches lay out prompts.
    ///
    /// # Errors
    /// Weights that do not fit the shape or cannot be read.
    pub fn new(device: &Device, kind: Kind, spec: &BlockSpec<'_>, w: AttentionWeights<'_>) -> Result<Self> {
        let BlockSpec { what, layer, shape, dtype, .. } = *spec;
        let Placed { weights: w, folded } = Placed::new(spec, w)?;
        Ok(Self {
            shape,
            bias: spec.self_bias()?,
            layer,
            kind,
            qkv: stack_heads(device, &format!("{what} qkv"), shape, dtype, &[w.q, w.k, w.v])?,
            output: output_projection(device, &format!("{what} out"), shape, dtype, w.o, folded)?,
        })
    }
}

impl SelfAttention for MhaSelf {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn prefill(
        &self,
        rec: &mut Recorder,
        input: &Tensor,
        epilogue: &Epilogue<'_>,
        batch: &Packed,
        caches: &Caches,
        work: &Workspace,
    ) -> Result<()> {
        linear(rec, input, &self.qkv, Activation::None, None, &work.wide, batch.tokens)?;
        store_copies(rec, &work.wide, self.shape.inner(), batch, caches, |slab| slab.self_layers.get(self.layer))?;
        attend_packed(rec, self.shape, self.bias.as_ref(), batch, work)?;
        epilogue.apply(rec, &work.context, &self.output, batch.tokens)?;
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
        let (rows, inner) = (step.rows, self.shape.inner());
        linear(rec, input, &self.qkv, Activation::None, None, &work.wide, rows.count())?;
        for segment in rows.segments() {
            let slab = &slab_of(caches, segment)?.self_layers[self.layer];
            store(rec, rows, *segment, &work.wide, inner, slab)?;
            let product = MhaAttend {
                shape: self.shape,
                q: (&work.wide, 0),
                kv: slab,
                columns: [0, inner],
                bias: self.bias.as_ref(),
                out: &work.context,
                splits: work.partials().map(|partials| (partials, work.splits().self_)),
            };
            mha_attend(rec, QueryRows::Slots(rows, segment), product)?;
        }
        epilogue.apply(rec, &work.context, &self.output, rows.count())?;
        Ok(())
    }
}

/// Cross-attention over cached keys and values, or (`mha-nocache`) over keys and values recomputed from the encoder output at each step.
#[derive(Debug)]
pub struct MhaCross {
    shape: Shape,
    layer: usize,
    kind: Kind,
    q: Linear,
    kv: Linear,
    output: Linear,
}

impl MhaCross {
    /// Loads the projections.
    ///
    /// # Errors
    /// Weights that do not fit the shape or cannot be read.
    pub fn new(device: &Device, kind: Kind, spec: &BlockSpec<'_>, w: AttentionWeights<'_>) -> Result<Self> {
        spec.check_cross()?;
        let BlockSpec { what, layer, shape, dtype, .. } = *spec;
        let Placed { weights: w, folded } = Placed::new(spec, w)?;
        Ok(Self {
            shape,
            layer,
            kind,
            q: stack_heads(device, &format!("{what} q"), shape, dtype, &[w.q])?,
            kv: stack_heads(device, &format!("{what} kv"), shape, dtype, &[w.k, w.v])?,
            output: output_projection(device, &format!("{what} out"), shape, dtype, w.o, folded)?,
        })
    }

    /// The slab's keys and values of this layer.
    fn keys<'a>(
        &self,
        rec: &mut Recorder,
        segment: &Segment,
        caches: &'a Caches,
        work: &'a Workspace,
    ) -> Result<&'a Tensor> {
        let slab = slab_of(caches, segment)?;
        if self.kind != Kind::MhaNocache {
            return Ok(&slab.cross[self.layer]);
        }
        let memory = work.memory()?;
        linear(rec, &slab.cross[0], &self.kv, Activation::None, None, memory, slab.cross[0].rows)?;
        Ok(memory)
    }
}

impl CrossAttention for MhaCross {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn memorize(
        &self,
        rec: &mut Recorder,
        memory: &Tensor,
        batch: &Packed,
        caches: &Caches,
        work: &Workspace,
    ) -> Result<()> {
        if self.kind == Kind::MhaNocache {
            return Ok(());
        }
        linear(rec, memory, &self.kv, Activation::None, None, &work.wide, batch.tokens)?;
        store_copies(rec, &work.wide, 0, batch, caches, |slab| slab.cross.get(self.layer))
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
        linear(rec, input, &self.q, Activation::None, None, &work.wide, queries.count)?;
        for segment in queries.segments {
            let keys = self.keys(rec, segment, caches, work)?;
            let product = MhaAttend {
                shape: self.shape,
                q: (&work.wide, 0),
                kv: keys,
                columns: [0, self.shape.inner()],
                bias: None,
                out: &work.context,
                splits: work.partials().map(|partials| (partials, work.splits().cross)),
            };
            // Replicated copies are each their own row's: reading one for all would be the shared cache under another name.
            let shared = !self.kind.replicates();
            mha_attend(rec, QueryRows::Groups { queries: &queries, segment, shared }, product)?;
        }
        epilogue.apply(rec, &work.context, &self.output, queries.count)?;
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
        linear(rec, input, &self.q, Activation::None, None, &work.wide, queries.count)?;
        for segment in queries.segments {
            let (q, k) = ((&work.wide, 0), (self.keys(rec, segment, caches, work)?, 0));
            let rows = Align { shape: self.shape, shared: false, q, k, first: segment.first, count: segment.count };
            align(rec, queries.index, queries.ranges, rows, out)?;
        }
        Ok(())
    }
}
