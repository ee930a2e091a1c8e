//! Attention blocks behind one trait, and their caches: multi-head attention in three variants, and EL-attention.
//!
//! A block receives exactly the tensor that is fed to the QKV projection, owns its four projections and ends in a shared
//! [`Epilogue`]; it only records. [`Caches`] owns the slabs and the slots of every admitted sentence.
//!
//! What a kind stores per position can be asked without a device:
//!
//! ```
//! use elgen_attention::{CacheFormat, CacheLayout, Kind, Kinds, Need, Shape};
//! let shape = Shape::new(1024, 16, 64, 0.125);
//! let (self_shape, cross_shape, format) = (shape, Some(shape), CacheFormat::F16);
//! let layout = |kind| CacheLayout { layers: 12, kinds: Kinds::both(kind), self_shape, cross_shape, format };
//! let need = Need { prompt_len: 1, max_new: 140, width: 4, source_len: 1024 };
//! let cross = |kind| layout(kind).slots(&need).1 * layout(kind).cross_slot_bytes();
//! // BART-large, 1024 source tokens, 4 beams, f16 (docs/el-attention.md §1.5): 192, 48 and 2 MiB.
//! assert_eq!([Kind::MHA_REPLICATED, Kind::MHA, Kind::EL].map(cross), [192 << 20, 48 << 20, 2 << 20]);
//! ```

mod align;
mod attend;
mod bias;
mod block;
mod caches;
mod el;
mod el_attend;
mod el_attend_coop;
mod el_trial;
mod error;
mod formats;
mod kind;
mod layout;
mod mha;
mod mha_attend;
pub mod planner;
mod position_scheme;
mod self_projections;
mod shape;
mod slab_store;
mod slot_format;
mod slots;
mod spec;
mod splits;
mod weights;
mod workspace;

/// Workgroups that one dimension of a grid holds on every device.
pub(crate) const MAX_GROUPS: u32 = 65535;

pub use align::{Align, Probabilities, align};
pub use attend::{Attend, KeyRanges, attend};
pub use bias::PositionBias;
pub use block::{BlockInput, CrossAttention, CrossQueries, Cx, EncoderBlock, Epilogue, Packed, SelfAttention, Step};
pub use caches::{Caches, Placement, Slab};
pub use el_attend::{ElAttend, ElQueries, el_attend};
#[cfg(feature = "testing")]
pub use el_attend::{ElTile, el_attend_tiled};
pub use el_attend_coop::el_uses_matrices;
pub use error::{AttentionError, Result};
pub use formats::Formats;
pub use kind::{AttentionKind, Kind, Kinds, Pass, Place, Standing};
pub use layout::{Alike, CacheBytes, CacheLayout, Need};
pub use mha_attend::{MhaAttend, QueryRows, mha_attend};
#[cfg(feature = "testing")]
pub use mha_attend::{Tiling, mha_attend_tiled};
pub use position_scheme::{PositionScheme, Rotary};
pub use self_projections::SelfProjections;
pub use shape::Shape;
pub use slab_store::{StoreTo, store_encoder_output, store_prompt};
pub use slot_format::{CacheFormat, Owner, SlotBuffers, SlotFormat};
pub use spec::BlockSpec;
pub use splits::{SPLIT, Splits};
pub use weights::{AttentionWeights, Projection};
pub use workspace::{Extras, Scratch, ScratchRows, Workspace};
