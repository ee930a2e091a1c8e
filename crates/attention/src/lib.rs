//! Attention blocks behind one trait, and their caches: multi-head attention in three variants, and EL-attention.
//!
//! A block receives exactly the tensor that is fed to the QKV projection, owns its four projections and ends in a shared
//! [`Epilogue`]; it only records. [`Caches`] owns the slabs and the slots of every admitted sentence.
//!
//! What a kind stores per position can be asked without a device:
//!
//! ```
//! use elgen_attention::{CacheLayout, Kind, Need, Shape};
//! use elgen_tensor::DType;
//! let shape = Shape { d_model: 1024, num_heads: 16, head_dim: 64, scale: 0.125 };
//! let layout = |kind| CacheLayout { layers: 12, self_shape: shape, self_kind: kind, cross: Some((shape, kind)), dtype: DType::F16 };
//! let need = Need { prompt_len: 1, max_new: 140, width: 4, source_len: 1024 };
//! let cross = |kind| layout(kind).slots(&need).1 * layout(kind).cross_slot_bytes();
//! // BART-large, 1024 source tokens, 4 beams, f16 (docs/el-attention.md §1.5): 192, 48 and 2 MiB.
//! assert_eq!([Kind::MhaReplicated, Kind::Mha, Kind::El].map(cross), [192 << 20, 48 << 20, 2 << 20]);
//! ```

mod align;
mod attend;
mod bias;
mod block;
mod caches;
mod combine;
mod el;
mod el_attend;
mod el_attend_coop;
mod el_trial;
mod error;
mod factory;
mod kind;
mod mha;
mod mha_attend;
pub mod planner;
mod slots;
mod weight_bytes;
mod weights;

/// Workgroups that one dimension of a grid holds on every device.
pub(crate) const MAX_GROUPS: u32 = 65535;

pub use align::{Align, Probabilities, align};
pub use attend::{Attend, Keys, attend};
pub use bias::PositionBias;
pub use block::{
    BlockSpec, CrossAttention, CrossQueries, Epilogue, Extras, Packed, SelfAttention, Step, Workspace, memorize,
};
pub use caches::{Alike, CacheBytes, CacheLayout, Caches, Need, Placement, Slab};
pub use combine::{Partials, SPLIT, Splits, combine};
pub use el::{ElCross, ElSelf};
pub use el_attend::{ElAttend, ElQueries, ElTile, el_attend, el_attend_tiled};
pub use el_attend_coop::el_uses_matrices;
pub use error::{AttentionError, Result};
pub use factory::{cross_attention, self_attention};
pub use kind::{Kind, Kinds, Shape};
pub use mha::{EncoderAttention, MhaCross, MhaSelf};
pub use mha_attend::{MhaAttend, QueryRows, Tiling, mha_attend, mha_attend_tiled};
pub use weight_bytes::{BlockPlace, block_weight_bytes, matrix_bytes, position_bias_bytes};
pub use weights::{AttentionWeights, MatrixSource, Projection, UPLOAD_WINDOW, load_linear};
