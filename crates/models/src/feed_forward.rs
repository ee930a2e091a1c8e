//! Feed-forward blocks, with and without a gate, by Hugging Face's names of their projections.

use std::fmt;

use elgen_attention::{BlockInput, Epilogue};
use elgen_tensor::ops::{Activation, Linear, Operand, Product, Prologue};
use elgen_tensor::{Recorder, Tensor, TensorError};

use crate::error::ModelError;

/// A feed-forward block with its weights. It only records.
pub(crate) trait FeedForwardBlock: fmt::Debug + Send + Sync {
    /// Records the block over `rows` rows. `input` and the tensors of `epilogue`: `[rows, d_model]`; the epilogue's `out` differs from all others.
    ///
    /// # Errors
    /// Shapes that do not fit, or a space without what the block needs.
    fn forward(
        &self,
        rec: &mut Recorder,
        input: &BlockInput<'_>,
        space: &FeedForwardSpace,
        epilogue: &Epilogue<'_>,
        rows: usize,
    ) -> Result<(), ModelError>;
}

/// Working tensors of a feed-forward block, `[rows, ffn]` each.
#[derive(Debug)]
pub(crate) struct FeedForwardSpace {
    /// What `down_proj` reads.
    pub(crate) inner: Tensor,
    /// What `up_proj` of a gated block gives.
    pub(crate) up: Option<Tensor>,
}

/// `down_proj(activation(up_proj(x)))`.
#[derive(Debug)]
pub(crate) struct DenseFeedForward {
    pub(crate) up_proj: Linear,
    pub(crate) down_proj: Linear,
    pub(crate) activation: Activation,
}

impl FeedForwardBlock for DenseFeedForward {
    fn forward(
        &self,
        rec: &mut Recorder,
        input: &BlockInput<'_>,
        space: &FeedForwardSpace,
        epilogue: &Epilogue<'_>,
        rows: usize,
    ) -> Result<(), ModelError> {
        let (prologue, activation) = (input.prologue(), self.activation);
        let up = Product::new(input.states, &self.up_proj, &space.inner, rows);
        Product { prologue, activation, ..up }.record(rec)?;
        Ok(epilogue.apply(rec, Prologue::None, &space.inner, &self.down_proj, rows)?)
    }
}

/// `down_proj(activation(gate_proj(x)) * up_proj(x))`.
#[derive(Debug)]
pub(crate) struct GatedFeedForward {
    pub(crate) gate_proj: Linear,
    pub(crate) up_proj: Linear,
    pub(crate) down_proj: Linear,
    pub(crate) activation: Activation,
}

impl FeedForwardBlock for GatedFeedForward {
    fn forward(
        &self,
        rec: &mut Recorder,
        input: &BlockInput<'_>,
        space: &FeedForwardSpace,
        epilogue: &Epilogue<'_>,
        rows: usize,
    ) -> Result<(), ModelError> {
        let Some(up) = &space.up else {
            let message = "the working tensors have no room for a gate".into();
            return Err(TensorError::Shape { op: "feed-forward", message }.into());
        };
        let prologue = input.prologue();
        Product { prologue, ..Product::new(input.states, &self.up_proj, up, rows) }.record(rec)?;
        let (activation, operand) = (self.activation, Operand::Gate(up));
        let gate = Product::new(input.normed(), &self.gate_proj, &space.inner, rows);
        Product { activation, operand, ..gate }.record(rec)?;
        Ok(epilogue.apply(rec, Prologue::None, &space.inner, &self.down_proj, rows)?)
    }
}
