//! The kernels that every model needs; one file per shader.
//!
//! All activations are f32. `rows` is the number of live rows: tensors may have more, which are neither read nor written, and more columns, of which the first
//! are used. Pad columns of
//! outputs are written as 0. Every matrix kernel sums an element as `fma` over k = 0, 1, 2 … whatever the number of rows and the variant.

mod combine;
mod embed;
mod fill_random;
mod fma;
mod heads_expand;
mod layer_norm;
mod linear;
mod matrix_fma;
mod product;
mod store;
mod stream;
mod token_logprobs;

pub use combine::{Partials, combine};
pub use embed::{embed_packed, embed_step, positions_packed, positions_step};
pub use fill_random::RandomMatrix;
pub use fma::{FMA_CHAINS, fma_rounds};
pub use heads_expand::heads_expand;
#[cfg(feature = "testing")]
pub use layer_norm::layer_norm_tiled;
pub use layer_norm::{Norm, layer_norm};
pub use linear::{Activation, Linear, Tile, heads_contract, linear, linear_gated};
#[cfg(feature = "testing")]
pub use linear::{heads_contract_tiled, linear_tiled};
pub use matrix_fma::{MatrixLayout, matrix_rounds};
pub use product::{Merge, Operand, Product, Prologue, RowList, Slots, Store};
pub use store::{store, store_packed};
pub use stream::stream;
pub use token_logprobs::{TokenScore, token_logprobs};

use crate::error::{Result, TensorError};
use crate::matrix::Matrix;
use crate::tensor::{DType, Tensor};

/// Workgroups that one dimension of a grid may have on every device.
const MAX_GROUPS: usize = 65535;

/// `first..first + count` in parts of at most `part`, as (first, count).
fn parts(first: usize, count: usize, part: usize) -> impl Iterator<Item = (usize, usize)> {
    let end = first.saturating_add(count);
    (first..end).step_by(part).map(move |at| (at, part.min(end - at)))
}

/// Refuses a tensor that is not f32 with at least `cols` columns and `rows` rows; a wider one is used from column 0 on.
fn expect(op: &'static str, name: &str, tensor: &Tensor, rows: usize, cols: usize) -> Result<()> {
    if tensor.dtype == DType::F32 && tensor.cols >= cols && tensor.rows >= rows {
        return Ok(());
    }
    Err(TensorError::Shape {
        op,
        message: format!("{name} is {}, not [{rows} or more, {cols} or more] f32", tensor.describe()),
    })
}

/// Refuses weights whose rows are not `num_heads` heads of whole quads.
fn check_heads(op: &'static str, weight: &Matrix, num_heads: usize) -> Result<()> {
    if num_heads > 0 && weight.rows() > 0 && weight.rows().is_multiple_of(num_heads.saturating_mul(4)) {
        return Ok(());
    }
    let message = format!("w {} does not split into {num_heads} heads of whole quads", weight.describe());
    Err(TensorError::Shape { op, message })
}
