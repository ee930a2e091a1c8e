//! The feed-forward block.

use elgen_attention::Epilogue;
use elgen_tensor::ops::{self, Linear, layer_norm, linear, linear_gated};
use elgen_tensor::{Recorder, Tensor, TensorError};

use crate::config::Activation;
use crate::error::ModelError;
use crate::space::Inner;

fn kernel_activation(activation: Activation) -> ops::Activation {
    match activation {
        Activation::Gelu => ops::Activation::Gelu,
        Activation::GeluTanh => ops::Activation::GeluTanh,
        Activation::QuickGelu => ops::Activation::QuickGelu,
        Activation::Relu => ops::Activation::Relu,
        Activation::Silu => ops::Activation::Silu,
    }
}

/// The feed-forward block: `out = down(activation(up(input))) + residual`, or gated `down(activation(up(input)) * gate(input)) + residual`,
/// then a norm.
#[derive(Debug)]
pub(crate) struct FeedForward {
    pub(crate) up: Linear,
    pub(crate) gate: Option<Linear>,
    pub(crate) down: Linear,
    pub(crate) activation: Activation,
}

impl FeedForward {
    /// `input` and the tensors of `epilogue`: `[rows, d]`. The epilogue's `out` differs from all others.
    pub(crate) fn forward(
        &self,
        rec: &mut Recorder,
        input: &Tensor,
        inner: &Inner,
        epilogue: &Epilogue<'_>,
        rows: usize,
    ) -> Result<(), ModelError> {
        let activation = kernel_activation(self.activation);
        match (&self.gate, &inner.gate) {
            (Some(gate), Some(gated)) => {
                linear(rec, input, gate, ops::Activation::None, None, gated, rows)?;
                linear_gated(rec, input, &self.up, activation, gated, &inner.up, rows)?;
            }
            (None, _) => linear(rec, input, &self.up, activation, None, &inner.up, rows)?,
            (Some(_), None) => {
                let message = "the working tensors have no room for a gate".into();
                return Err(TensorError::Shape { op: "feed-forward", message }.into());
            }
        }
        linear(rec, &inner.up, &self.down, ops::Activation::None, epilogue.residual, epilogue.out, rows)?;
        if let Some((norm, normed)) = epilogue.norm {
            layer_norm(rec, epilogue.out, norm, normed, rows)?;
        }
        Ok(())
    }
}
