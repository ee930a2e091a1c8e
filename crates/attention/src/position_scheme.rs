//! How an attention block knows about positions.

use crate::bias::PositionBias;

/// The position scheme of a block.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum PositionScheme<'a> {
    /// The block does not: positions are in the hidden states, or there are none.
    None,
    /// A bias on the scores by head and distance.
    Bias(&'a PositionBias),
    /// Queries and keys are turned by their positions.
    Rotary(Rotary),
}

/// Rotary positions (Su et al. 2021, arXiv 2104.09864): pairs of columns `2i`, `2i + 1` of each head are turned by `position / base^(2i / dims)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rotary {
    /// The longest period is `2 pi base`.
    pub base: f32,
    /// Columns of a head that are turned, from the first on.
    pub dims: usize,
}

impl<'a> PositionScheme<'a> {
    /// The bias by distance, if that is the scheme.
    pub fn bias(&self) -> Option<&'a PositionBias> {
        match self {
            Self::Bias(bias) => Some(bias),
            Self::None | Self::Rotary(_) => None,
        }
    }

    /// What the scheme is called in messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::None => "no positions of its own",
            Self::Bias(_) => "a position bias",
            Self::Rotary(_) => "rotary positions",
        }
    }

    /// Whether `q . b_k` is one number for all keys of a row and head, which the softmax removes. Not under rotary positions, where it is
    /// `q . R(i - j) b_k` for the query at i and the key at j.
    pub fn drops_key_bias(&self) -> bool {
        !matches!(self, Self::Rotary(_))
    }
}
