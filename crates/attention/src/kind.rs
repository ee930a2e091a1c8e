//! What an attention kind is: the one object that caches, working tensors, planner, models and command line ask.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use elgen_tensor::Arena;

use crate::block::{CrossAttention, EncoderBlock, SelfAttention};
use crate::el::El;
use crate::error::{AttentionError, Result};
use crate::mha::Mha;
use crate::planner::cost::{KindCost, StepLoad};
use crate::shape::Shape;
use crate::slot_format::{CacheFormat, SlotFormat};
use crate::spec::BlockSpec;
use crate::weights::AttentionWeights;
use crate::workspace::Scratch;

/// Where in a model a block stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Self-attention of an encoder layer; nothing is cached.
    Encoder,
    /// Self-attention of a decoder layer.
    SelfAttention,
    /// Attention of a decoder layer to the encoder's output.
    CrossAttention,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Encoder => "the encoder",
            Self::SelfAttention => "decoder self-attention",
            Self::CrossAttention => "cross-attention",
        })
    }
}

/// What a decoder block runs over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Pass {
    /// Packed rows of prompts, or of an encoder's sources.
    #[default]
    Prompt,
    /// One row for each hypothesis.
    Step,
}

/// What kinds are to a choice that nobody made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Picked where it is fastest: it gives exactly the results of multi-head attention.
    Regular,
    /// Picked where nothing regular fits a single sentence.
    LastResort,
    /// Compared, never picked.
    Baseline,
    /// Used where it is named alone: it gives results of its own, or nothing is known about its cost.
    Named,
}

/// An attention kind: what it caches, what it needs, what it costs, and how its blocks are built.
///
/// One from another crate is a static value like those of this one. It works with every family, with the planner, and on the command line
/// once it is registered. docs/extending.md has the recipe, `examples/own-attention` a whole crate.
pub trait AttentionKind: fmt::Debug + Send + Sync {
    /// The name on the command line and in reports. Two kinds of one name are taken for one and the same.
    fn name(&self) -> &str;

    /// What it is, in one sentence for `--help`.
    fn about(&self) -> &str;

    /// Whether it may be picked where none is named.
    fn standing(&self) -> Standing {
        Standing::Named
    }

    /// Whether a model needs an encoder for it to make sense.
    fn needs_encoder(&self) -> bool {
        false
    }

    /// Refuses a block that it cannot be. The default refuses what only exists as a type yet ([`BlockSpec::check_plain`]).
    ///
    /// # Errors
    /// [`AttentionError::Unsupported`], which names the block and the reason.
    fn supports(&self, place: Place, spec: &BlockSpec<'_>) -> Result<()> {
        spec.check_plain(self.name(), place)
    }

    /// What it caches for a position where caches are stored as `format`. Not asked of encoders.
    fn slots(&self, place: Place, shape: &Shape, format: CacheFormat) -> SlotFormat;

    /// Working tensors beside projections and contexts, which every block has.
    fn scratch(&self, place: Place, pass: Pass, shape: &Shape) -> Vec<Scratch>;

    /// Columns of a row's contexts where its keys are cut into splits, all heads; 0 where they never are.
    fn split_columns(&self, place: Place, pass: Pass, shape: &Shape) -> usize;

    /// What a decode step of one layer costs, its output projection and the norm behind it included; `None` where that is not known: such a kind
    /// is not predicted.
    fn cost(&self, place: Place, shape: &Shape, load: &StepLoad) -> Option<KindCost>;

    /// The self-attention of one encoder layer, on a device or counted.
    ///
    /// # Errors
    /// Weights that do not fit the shape or cannot be read; a kind that is none for encoders.
    fn encoder_attention(
        &self,
        arena: &Arena,
        spec: &BlockSpec<'_>,
        weights: AttentionWeights<'_>,
    ) -> Result<Box<dyn EncoderBlock>> {
        let _ = (arena, weights);
        Err(not_for(self.name(), spec, Place::Encoder))
    }

    /// The self-attention of one decoder layer, on a device or counted.
    ///
    /// # Errors
    /// Weights that do not fit the shape or cannot be read; a kind that is none for self-attention.
    fn self_attention(
        &self,
        arena: &Arena,
        spec: &BlockSpec<'_>,
        weights: AttentionWeights<'_>,
    ) -> Result<Box<dyn SelfAttention>> {
        let _ = (arena, weights);
        Err(not_for(self.name(), spec, Place::SelfAttention))
    }

    /// The cross-attention of one decoder layer, on a device or counted.
    ///
    /// # Errors
    /// Weights that do not fit the shape or cannot be read; a kind that is none for cross-attention.
    fn cross_attention(
        &self,
        arena: &Arena,
        spec: &BlockSpec<'_>,
        weights: AttentionWeights<'_>,
    ) -> Result<Box<dyn CrossAttention>> {
        let _ = (arena, weights);
        Err(not_for(self.name(), spec, Place::CrossAttention))
    }
}

fn not_for(kind: &str, spec: &BlockSpec<'_>, place: Place) -> AttentionError {
    let (kind, block, reason) = (kind.to_owned(), spec.what.to_owned(), format!("it is no kind for {place}"));
    AttentionError::Unsupported { kind, block, reason }
}

/// An attention kind, as everything that has one passes it on: told apart by its name.
#[derive(Clone, Copy)]
pub struct Kind(&'static dyn AttentionKind);

impl Kind {
    /// Multi-head attention; cross keys and values, and a decoder-only prompt, are shared by the beams of a sentence.
    pub const MHA: Self = Self(&Mha::Shared);
    /// Multi-head attention with everything stored once per beam, as the EL-attention paper's baseline does.
    pub const MHA_REPLICATED: Self = Self(&Mha::Replicated);
    /// Multi-head attention that keeps one encoder output and recomputes cross keys and values at each step.
    pub const MHA_NOCACHE: Self = Self(&Mha::Nocache);
    /// EL-attention: hidden states are cached; keys and values are never made in a decode step.
    pub const EL: Self = Self(&El);

    /// The kinds of this crate.
    pub const BUILT_IN: [Self; 4] = [Self::MHA, Self::MHA_REPLICATED, Self::MHA_NOCACHE, Self::EL];

    /// A kind of any crate.
    pub const fn new(kind: &'static dyn AttentionKind) -> Self {
        Self(kind)
    }

    /// The name on the command line and in reports.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// What it is, in one sentence.
    pub fn about(self) -> &'static str {
        self.0.about()
    }
}

impl Deref for Kind {
    type Target = dyn AttentionKind;

    fn deref(&self) -> &Self::Target {
        self.0
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Kind {}

impl Hash for Kind {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kind({})", self.name())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The attention kinds of a model, by place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Kinds {
    /// The encoder's; unused by decoder-only models.
    pub encoder: Kind,
    /// Decoder self-attention.
    pub self_: Kind,
    /// Cross-attention; unused by decoder-only models.
    pub cross: Kind,
}

impl Kinds {
    /// These of a decoder, and multi-head attention in the encoder.
    pub const fn new(self_: Kind, cross: Kind) -> Self {
        Self { encoder: Kind::MHA, self_, cross }
    }

    /// One for both places of a decoder.
    pub const fn both(kind: Kind) -> Self {
        Self::new(kind, kind)
    }
}

impl Default for Kinds {
    fn default() -> Self {
        Self::both(Kind::MHA)
    }
}

impl From<Kind> for Kinds {
    fn from(kind: Kind) -> Self {
        Self::both(kind)
    }
}
