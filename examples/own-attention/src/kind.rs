//! The kind: what caches, working tensors and planner want to know, and how blocks are built.

use elgen_attention::planner::cost::{Core, KindCost, StepLoad};
use elgen_attention::{
    AttentionError, AttentionKind, AttentionWeights, BlockSpec, CacheFormat, CrossAttention, EncoderBlock, Kind, Pass,
    Place, PositionScheme, Scratch, SelfAttention, Shape, SlotFormat,
};
use elgen_tensor::Arena;

use crate::block::WindowedSelf;
use crate::op::MAX_HEAD_QUADS;

/// Self-attention over the first `keep_first` positions and the last `window`; multi-head attention elsewhere.
#[derive(Debug)]
pub struct Windowed {
    name: &'static str,
    pub(crate) window: u32,
    pub(crate) keep_first: u32,
}

impl Windowed {
    /// The kind of this name. `window` counts the query's own position and is 1 at least.
    pub const fn new(name: &'static str, window: u32, keep_first: u32) -> Self {
        Self { name, window: if window == 0 { 1 } else { window }, keep_first }
    }

    fn refuse(&self, spec: &BlockSpec<'_>, reason: String) -> AttentionError {
        AttentionError::Unsupported { kind: self.name.to_owned(), block: spec.what.to_owned(), reason }
    }
}

impl AttentionKind for Windowed {
    fn name(&self) -> &str {
        self.name
    }

    fn about(&self) -> &str {
        "Multi-head attention over the first few positions and a window of the last ones"
    }

    fn supports(&self, place: Place, spec: &BlockSpec<'_>) -> elgen_attention::Result<()> {
        spec.check_plain(self.name, place)?;
        if place != Place::SelfAttention {
            return Ok(());
        }
        let head_quads = spec.shape.head_width() / 4;
        match spec.positions {
            PositionScheme::None if head_quads <= MAX_HEAD_QUADS => Ok(()),
            PositionScheme::None => Err(self.refuse(spec, format!("heads of {} columns", spec.shape.head_dim))),
            _ => Err(self.refuse(spec, spec.positions.name().to_owned())),
        }
    }

    fn slots(&self, place: Place, shape: &Shape, format: CacheFormat) -> SlotFormat {
        Kind::MHA.slots(place, shape, format)
    }

    fn scratch(&self, place: Place, pass: Pass, shape: &Shape) -> Vec<Scratch> {
        Kind::MHA.scratch(place, pass, shape)
    }

    fn split_columns(&self, place: Place, pass: Pass, shape: &Shape) -> usize {
        Kind::MHA.split_columns(place, pass, shape)
    }

    /// That of multi-head attention over the keys that are seen.
    fn cost(&self, place: Place, shape: &Shape, load: &StepLoad) -> Option<KindCost> {
        let most = f64::from(self.window) + f64::from(self.keep_first);
        let seen = match place {
            Place::SelfAttention => StepLoad { self_keys: load.self_keys.min(most), shared_keys: 0.0, ..*load },
            Place::Encoder | Place::CrossAttention => *load,
        };
        let known = Kind::MHA.cost(place, shape, &seen)?;
        Some(KindCost {
            core: Core::Mha { rows: if place == Place::CrossAttention { load.beams as f64 } else { 1.0 } },
            ..known
        })
    }

    fn encoder_attention(
        &self,
        arena: &Arena,
        spec: &BlockSpec<'_>,
        weights: AttentionWeights<'_>,
    ) -> elgen_attention::Result<Box<dyn EncoderBlock>> {
        Kind::MHA.encoder_attention(arena, spec, weights)
    }

    fn self_attention(
        &self,
        arena: &Arena,
        spec: &BlockSpec<'_>,
        weights: AttentionWeights<'_>,
    ) -> elgen_attention::Result<Box<dyn SelfAttention>> {
        self.supports(Place::SelfAttention, spec)?;
        Ok(Box::new(WindowedSelf::new(arena, self, spec, weights)?))
    }

    fn cross_attention(
        &self,
        arena: &Arena,
        spec: &BlockSpec<'_>,
        weights: AttentionWeights<'_>,
    ) -> elgen_attention::Result<Box<dyn CrossAttention>> {
        Kind::MHA.cross_attention(arena, spec, weights)
    }
}
