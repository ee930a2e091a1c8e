//! CPU twins: each kernel once more, in f64 and as plainly as it can be written. Matrices are row-major without padding.

mod align;
mod attend;
mod combine;
mod embed;
mod fill_random;
mod fma;
mod heads;
mod int8_blocks;
mod layer_norm;
mod linear;
mod matrix_fma;
mod store;
mod stream;
mod token_logprobs;

pub use align::align;
pub use attend::{attend, attend_biased, distance_bias};
pub use combine::combine;
pub use embed::embed;
pub use fill_random::fill_random;
pub use fma::fma_rounds;
pub use heads::{heads_contract, heads_expand};
pub use int8_blocks::int8_blocks;
pub use layer_norm::{layer_norm, rms_norm};
pub use linear::{activate, erf, linear, linear_gated};
pub use matrix_fma::matrix_rounds;
pub use store::store;
pub use stream::stream;
pub use token_logprobs::token_logprobs;
