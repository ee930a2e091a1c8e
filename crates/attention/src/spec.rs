//! What a block is, apart from its kind and its weights.

use crate::bias::PositionBias;
use crate::error::{AttentionError, Result};
use crate::formats::Formats;
use crate::kind::Place;
use crate::position_scheme::PositionScheme;
use crate::shape::Shape;

/// What a block is, apart from its kind and its weights.
#[derive(Clone, Copy, Debug)]
pub struct BlockSpec<'a> {
    /// Names the block in messages.
    pub what: &'a str,
    /// Its layer, from 0: which of the caches is its own.
    pub layer: usize,
    /// Widths, heads and scale.
    pub shape: Shape,
    /// Storage of its weights and of what it caches.
    pub formats: Formats,
    /// Its position scheme; cross-attention has none, as there is no distance between a source and a target position.
    pub positions: PositionScheme<'a>,
}

impl BlockSpec<'_> {
    /// Refuses what only exists as a type yet, or makes no sense in this place: grouped heads, rotary positions, positions in
    /// cross-attention. `kind` is named.
    ///
    /// # Errors
    /// [`AttentionError::Unsupported`].
    pub fn check_plain(&self, kind: &str, place: Place) -> Result<()> {
        let Shape { num_heads, num_key_value_heads, .. } = self.shape;
        let reason = if num_key_value_heads != num_heads {
            format!("{num_heads} query heads over {num_key_value_heads} key heads")
        } else {
            match (place, &self.positions) {
                (_, PositionScheme::Rotary(_)) => self.positions.name().to_owned(),
                (Place::CrossAttention, PositionScheme::Bias(_)) => "a position bias in cross-attention".to_owned(),
                _ => return Ok(()),
            }
        };
        Err(AttentionError::Unsupported { kind: kind.to_owned(), block: self.what.to_owned(), reason })
    }

    /// The bias by distance of a self-attention block, which must have as many heads.
    ///
    /// # Errors
    /// A bias for another number of heads.
    pub fn position_bias(&self) -> Result<Option<PositionBias>> {
        match self.positions.bias() {
            Some(bias) if bias.num_heads() != self.shape.num_heads => Err(AttentionError::Shape(format!(
                "{} has {} heads, its position bias has {} heads",
                self.what,
                self.shape.num_heads,
                bias.num_heads()
            ))),
            bias => Ok(bias.cloned()),
        }
    }
}
