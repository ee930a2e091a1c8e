//! The shape of an attention block.

use elgen_tensor::padded;

/// The shape of an attention block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Width of the hidden states.
    pub d_model: usize,
    /// Number of query heads.
    pub num_heads: usize,
    /// Number of heads of keys and values, each of which serves a group of query heads (Ainslie et al. 2023, arXiv 2305.13245). Kinds say
    /// whether they support groups; those of this crate need one for each query head.
    pub num_key_value_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Factor on the scores before the softmax, usually `1/sqrt(head_dim)`.
    pub scale: f32,
}

impl Shape {
    /// One whose query heads all have a key head of their own.
    pub const fn new(d_model: usize, num_heads: usize, head_dim: usize, scale: f32) -> Self {
        Self { d_model, num_heads, num_key_value_heads: num_heads, head_dim, scale }
    }

    /// Width of one head as stored: whole quads.
    pub fn head_width(&self) -> usize {
        padded(self.head_dim)
    }

    /// Width of all query heads as stored.
    pub fn inner(&self) -> usize {
        self.num_heads.saturating_mul(self.head_width())
    }
}
