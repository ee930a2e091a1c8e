//! The attention kinds and the shape of a block.

use std::fmt;

use elgen_tensor::padded;

/// What a block caches and how it uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Multi-head attention; cross keys and values, and a decoder-only prompt, are shared by the beams of a sentence.
    Mha,
    /// Multi-head attention with everything stored once per beam, as the EL-attention paper's baseline does.
    MhaReplicated,
    /// Multi-head attention that keeps one encoder output and recomputes cross keys and values at each step.
    MhaNocache,
    /// EL-attention: hidden states are cached; keys and values are never made in a decode step.
    El,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Mha, Self::MhaReplicated, Self::MhaNocache, Self::El];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mha => "mha",
            Self::MhaReplicated => "mha-replicated",
            Self::MhaNocache => "mha-nocache",
            Self::El => "el",
        }
    }

    /// True if each beam keeps its own copy of what beams could share.
    pub fn replicates(self) -> bool {
        self == Self::MhaReplicated
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Attention kinds of a decoder, for self- and cross-attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kinds {
    /// Decoder self-attention.
    pub self_: Kind,
    /// Cross-attention; ignored by decoder-only models.
    pub cross: Kind,
}

impl Kinds {
    /// The same kind for both.
    pub fn both(kind: Kind) -> Self {
        Self { self_: kind, cross: kind }
    }
}

/// The shape of an attention block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Width of the hidden states.
    pub d_model: usize,
    /// Number of heads.
    pub num_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Factor on the scores before the softmax, usually `1/sqrt(head_dim)`.
    pub scale: f32,
}

impl Shape {
    /// Width of one head as stored: whole quads.
    pub fn head_width(&self) -> usize {
        padded(self.head_dim)
    }

    /// Width of all heads as stored.
    pub fn inner(&self) -> usize {
        self.num_heads.saturating_mul(self.head_width())
    }
}
