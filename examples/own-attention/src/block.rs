//! The block: projections, the cache and the epilogue are elgen's, the core between them is [`window_attend`].

use elgen_attention::{
    AttentionWeights, BlockInput, BlockSpec, Cx, Epilogue, Packed, Result, SelfAttention, SelfProjections, Step,
    StoreTo,
};
use elgen_tensor::{Arena, Tensor};

use crate::kind::Windowed;
use crate::op::{WindowAttend, WindowRows, window_attend};

/// Self-attention of one decoder layer.
#[derive(Debug)]
pub(crate) struct WindowedSelf {
    layer: usize,
    window: u32,
    keep_first: u32,
    projections: SelfProjections,
}

impl WindowedSelf {
    pub(crate) fn new(
        arena: &Arena,
        kind: &Windowed,
        spec: &BlockSpec<'_>,
        weights: AttentionWeights<'_>,
    ) -> Result<Self> {
        let projections = SelfProjections::new(arena, spec, weights)?;
        Ok(Self { layer: spec.layer, window: kind.window, keep_first: kind.keep_first, projections })
    }

    /// The core over keys and values in columns `columns` of `kv`.
    fn core<'a>(&'a self, cx: &Cx<'a>, kv: &'a Tensor, columns: [usize; 2]) -> WindowAttend<'a> {
        WindowAttend {
            shape: self.projections.shape(),
            window: self.window,
            keep_first: self.keep_first,
            q: cx.work.projections(),
            kv,
            columns,
            out: cx.work.contexts(),
        }
    }
}

impl SelfAttention for WindowedSelf {
    fn prefill(&self, cx: &mut Cx<'_>, input: &BlockInput<'_>, epilogue: &Epilogue<'_>, batch: &Packed) -> Result<()> {
        let (inner, projections) = (self.projections.shape().inner(), cx.work.projections());
        let stores = cx.caches.prompt_stores(batch, inner, StoreTo::SelfLayer(self.layer))?;
        self.projections.project(cx, input, &stores, batch.tokens)?;
        let core = self.core(cx, projections, [inner, 2 * inner]);
        window_attend(cx.rec, WindowRows::Packed(batch), core)?;
        self.projections.finish(cx, epilogue, 1, batch.tokens)
    }

    fn step(&self, cx: &mut Cx<'_>, input: &BlockInput<'_>, epilogue: &Epilogue<'_>, step: Step<'_>) -> Result<()> {
        let (rows, inner, caches) = (step.rows, self.projections.shape().inner(), cx.caches);
        caches
            .step_stores(rows, inner, self.layer, |stores| self.projections.project(cx, input, stores, rows.count()))?;
        for segment in rows.segments() {
            let slab = caches.self_layer(segment, self.layer)?;
            window_attend(cx.rec, WindowRows::Step(rows, segment), self.core(cx, slab, [0, inner]))?;
        }
        self.projections.finish(cx, epilogue, 1, rows.count())
    }
}
