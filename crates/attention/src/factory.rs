//! Building the blocks of a kind.

use elgen_tensor::{DType, Device};

use crate::block::{CrossAttention, SelfAttention};
use crate::el::{ElCross, ElSelf};
use crate::error::Result;
use crate::kind::{Kind, Shape};
use crate::mha::{MhaCross, MhaSelf};
use crate::weights::AttentionWeights;

/// The decoder self-attention of one layer. `what` names the block in messages.
///
/// # Errors
/// Weights that do not fit the shape or cannot be read.
pub fn self_attention(
    device: &Device,
    what: &str,
    layer: usize,
    kind: Kind,
    shape: Shape,
    dtype: DType,
    weights: AttentionWeights<'_>,
) -> Result<Box<dyn SelfAttention>> {
    Ok(match kind {
        Kind::El => Box::new(ElSelf::new(device, what, layer, shape, dtype, weights)?),
        Kind::Mha | Kind::MhaReplicated | Kind::MhaNocache => {
            Box::new(MhaSelf::new(device, what, layer, kind, shape, dtype, weights)?)
        }
    })
}

/// The cross-attention of one layer. `what` names the block in messages.
///
/// # Errors
/// Weights that do not fit the shape or cannot be read.
pub fn cross_attention(
    device: &Device,
    what: &str,
    layer: usize,
    kind: Kind,
    shape: Shape,
    dtype: DType,
    weights: AttentionWeights<'_>,
) -> Result<Box<dyn CrossAttention>> {
    Ok(match kind {
        Kind::El => Box::new(ElCross::new(device, what, shape, dtype, weights)?),
        Kind::Mha | Kind::MhaReplicated | Kind::MhaNocache => {
            Box::new(MhaCross::new(device, what, layer, kind, shape, dtype, weights)?)
        }
    })
}
