//! Device bytes of a block's weights, known without loading them.

use elgen_tensor::{Arena, DType, Matrix, tensor_bytes};

use crate::kind::Kind;
use crate::shape::Shape;

/// A block whose weights are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockPlace {
    /// [`crate::EncoderAttention`].
    Encoder,
    /// What [`crate::self_attention`] builds.
    SelfAttention(Kind),
    /// What [`crate::cross_attention`] builds.
    CrossAttention(Kind),
}

/// Bytes that a block's projections take on a device whose bindings hold `max_binding_bytes`. Multi-head attention fuses the matrices that
/// read one input; EL keeps W_q, W_k and W_v apart. b_k is dropped and b_v is part of the output's bias. `has_biases`: whether the checkpoint has biases on all four projections.
pub fn block_weight_bytes(
    place: BlockPlace,
    shape: Shape,
    dtype: DType,
    has_biases: bool,
    max_binding_bytes: u64,
) -> u64 {
    let bytes = |rows: usize, cols: usize, bias: bool| {
        let bias = if bias { tensor_bytes(1, rows, DType::F32) } else { 0 };
        matrix_bytes(rows, cols, dtype, max_binding_bytes).saturating_add(bias)
    };
    let stack = |parts: usize, bias: bool| bytes(shape.inner().saturating_mul(parts), shape.d_model, bias);
    let output = bytes(shape.d_model, shape.inner(), has_biases);
    let inputs = match place {
        BlockPlace::SelfAttention(kind) | BlockPlace::CrossAttention(kind) if kind == Kind::EL => {
            stack(1, has_biases).saturating_add(stack(1, false).saturating_mul(2))
        }
        BlockPlace::Encoder | BlockPlace::SelfAttention(_) => stack(3, has_biases),
        BlockPlace::CrossAttention(_) => stack(1, has_biases).saturating_add(stack(2, false)),
    };
    inputs.saturating_add(output)
}

/// Bytes of a matrix `[rows, cols]` on a device whose bindings hold `max_binding_bytes`.
pub fn matrix_bytes(rows: usize, cols: usize, dtype: DType, max_binding_bytes: u64) -> u64 {
    let arena = Arena::counting(max_binding_bytes);
    match Matrix::build(&arena, "matrix", rows, cols, dtype.into()) {
        Ok(_) => arena.tally().usage().total,
        Err(_) => u64::MAX,
    }
}

/// Bytes of a [`crate::PositionBias`].
pub fn position_bias_bytes(num_heads: usize, reach: usize) -> u64 {
    tensor_bytes(num_heads, reach.saturating_mul(2).saturating_add(1), DType::F32)
}
