//! The working tensors of a stack of layers.

use elgen_attention::{Extras, Shape, Workspace};
use elgen_tensor::{Class, DType, Device, Tally, Tensor, padded, product};

use crate::error::ModelError;
use crate::feed_forward::FeedForwardSpace;

/// Widths of a stack of layers: what its working tensors depend on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StackShape {
    /// Shape of its attention blocks.
    pub attention: Shape,
    /// Inner width of its feed-forward blocks.
    pub ffn: usize,
    /// Whether its feed-forward blocks have a gate.
    pub gated: bool,
}

/// Working tensors of a stack for a number of rows: three `[rows, d_model]`, one or two `[rows, ffn]`, and those of attention.
#[derive(Debug)]
pub struct Space {
    pub(crate) attention: Workspace,
    pub(crate) x: Tensor,
    pub(crate) y: Tensor,
    pub(crate) h: Tensor,
    pub(crate) feed_forward: FeedForwardSpace,
    /// Rows that fit.
    pub rows: usize,
    /// What it was made for.
    pub extras: Extras,
}

impl Space {
    /// Allocates for `rows` rows.
    ///
    /// # Errors
    /// Out of memory, or larger than a binding.
    pub fn new(device: &Device, shape: StackShape, rows: usize, extras: Extras) -> Result<Self, ModelError> {
        let tensor = |what: &str, cols: usize| device.tensor(what, Class::Activations, rows, cols, DType::F32);
        let d = shape.attention.d_model;
        Ok(Self {
            attention: Workspace::new(device, shape.attention, rows, extras)?,
            x: tensor("hidden states x", d)?,
            y: tensor("hidden states y", d)?,
            h: tensor("hidden states h", d)?,
            feed_forward: FeedForwardSpace {
                inner: tensor("feed-forward", shape.ffn)?,
                up: if shape.gated { Some(tensor("feed-forward gate", shape.ffn)?) } else { None },
            },
            rows,
            extras,
        })
    }

    /// Counts what [`Space::new`] allocates.
    pub fn tally(shape: StackShape, rows: usize, extras: Extras, tally: &mut Tally) {
        let widest = product(&[rows, Self::widest_row(shape, extras), 4]);
        tally.buffers(Class::Activations, Workspace::bytes(shape.attention, rows, extras), widest);
        let d = shape.attention.d_model;
        let inner = [shape.ffn, shape.ffn];
        for cols in [d, d, d].iter().chain(&inner[..1 + usize::from(shape.gated)]) {
            tally.tensor(Class::Activations, rows, *cols, DType::F32);
        }
    }

    fn widest_row(shape: StackShape, extras: Extras) -> usize {
        Workspace::widest_row(shape.attention, extras).max(shape.ffn).max(shape.attention.d_model)
    }

    /// Bytes that a row takes.
    pub fn bytes_per_row(shape: StackShape, extras: Extras) -> u64 {
        let inner = product(&[4, padded(shape.ffn), if shape.gated { 2 } else { 1 }]);
        let hidden = product(&[4, 3, padded(shape.attention.d_model)]);
        Workspace::bytes_per_row(shape.attention, extras).saturating_add(hidden).saturating_add(inner)
    }

    /// Rows that one binding of `max_binding_bytes` allows.
    pub fn max_rows(max_binding_bytes: u64, shape: StackShape, extras: Extras) -> usize {
        (max_binding_bytes / product(&[4, Self::widest_row(shape, extras).max(1)]).saturating_add(16)) as usize
    }
}
