//! Building the blocks of a kind.

use elgen_tensor::Device;

use crate::block::{BlockSpec, CrossAttention, SelfAttention};
use crate::el::{ElCross, ElSelf};
use crate::error::Result;
use crate::kind::Kind;
use crate::mha::{MhaCross, MhaSelf};
use crate::weights::AttentionWeights;

/// The decoder self-attention of one layer.
///
/// # Errors
/// Weights that do not fit the shape or cannot be read.
pub fn self_attention(
    device: &Device,
    kind: Kind,
    spec: &BlockSpec<'_>,
    weights: AttentionWeights<'_>,
) -> Result<Box<dyn SelfAttention>> {
    Ok(match kind {
        Kind::El => Box::new(ElSelf::new(device, spec, weights)?),
        Kind::Mha | Kind::MhaReplicated | Kind::MhaNocache => Box::new(MhaSelf::new(device, kind, spec, weights)?),
    })
}

/// The cross-attention of one layer.
///
/// # Errors
/// Weights that do not fit the shape or cannot be read; a position bias, as there is no distance between a source and a target position.
pub fn cross_attention(
    device: &Device,
    kind: Kind,
    spec: &BlockSpec<'_>,
    weights: AttentionWeights<'_>,
) -> Result<Box<dyn CrossAttention>> {
    Ok(match kind {
        Kind::El => Box::new(ElCross::new(device, spec, weights)?),
        Kind::Mha | Kind::MhaReplicated | Kind::MhaNocache => Box::new(MhaCross::new(device, kind, spec, weights)?),
    })
}
