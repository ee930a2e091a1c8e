//! What the families share: reading weights into layers, the feed-forward block, and the working tensors of a stack.

use elgen_attention::{AttentionWeights, Epilogue, Extras, MatrixSource, Projection, Shape, Workspace, load_linear};
use elgen_tensor::ops::{self, LayerNorm, Linear, RandomMatrix, layer_norm, linear, linear_gated};
use elgen_tensor::{Class, DType, Device, Recorder, Tally, Tensor, TensorError, padded, product};

use crate::checkpoint::{TensorView, Weights};
use crate::config::Activation;
use crate::error::ModelError;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A `Linear` weight `[out, in]` as it lies in the file.
pub(crate) struct Rows<'a>(pub(crate) TensorView<'a>);

impl MatrixSource for Rows<'_> {
    fn rows(&self) -> usize {
        self.0.shape()[0]
    }
    fn cols(&self) -> usize {
        self.0.shape()[1]
    }
    fn read(&self, first: usize, out: &mut [f32], dtype: DType) -> Result<(), BoxError> {
        let count = out.len() / self.cols().max(1);
        Ok(self.0.rows_as(first..first + count, out, dtype)?)
    }
    fn random(&self) -> Option<RandomMatrix> {
        self.0.random()
    }
}

/// Columns `first .. first + count` of a `Conv1D` weight `[in, out]`, read as rows of `[out, in]` (GPT-2).
pub(crate) struct Columns<'a> {
    pub(crate) view: TensorView<'a>,
    pub(crate) first: usize,
    pub(crate) count: usize,
}

impl MatrixSource for Columns<'_> {
    fn rows(&self) -> usize {
        self.count
    }
    fn cols(&self) -> usize {
        self.view.shape()[0]
    }
    fn read(&self, first: usize, out: &mut [f32], dtype: DType) -> Result<(), BoxError> {
        let count = out.len() / self.cols().max(1);
        let first = self.first + first;
        Ok(self.view.columns_as(first..first + count, out, dtype)?)
    }
    fn random(&self) -> Option<RandomMatrix> {
        Some(self.view.random()?.transpose().offset(self.first, 0))
    }
}

/// Where a model's weights come from and how they are stored on the device.
#[derive(Clone, Copy)]
pub(crate) struct Loader<'a> {
    pub(crate) device: &'a Device,
    pub(crate) weights: Weights<'a>,
    pub(crate) dtype: DType,
}

impl<'a> Loader<'a> {
    /// A vector `[len]`.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, ModelError> {
        self.weights.tensor(name, &[len])?.to_f32()
    }

    /// `NAME.weight` `[out, in]` and, if `biased`, `NAME.bias` `[out]`.
    pub(crate) fn linear(&self, name: &str, out: usize, input: usize, biased: bool) -> Result<Linear, ModelError> {
        let weight = self.weights.tensor(&format!("{name}.weight"), &[out, input])?;
        let bias = if biased { Some(self.vector(&format!("{name}.bias"), out)?) } else { None };
        Ok(load_linear(self.device, name, self.dtype, &Rows(weight), bias.as_deref())?)
    }

    /// A `Conv1D`: `NAME.weight` `[in, out]` and `NAME.bias` `[out]`.
    pub(crate) fn conv1d(&self, name: &str, out: usize, input: usize) -> Result<Linear, ModelError> {
        let view = self.weights.tensor(&format!("{name}.weight"), &[input, out])?;
        let bias = self.vector(&format!("{name}.bias"), out)?;
        Ok(load_linear(self.device, name, self.dtype, &Columns { view, first: 0, count: out }, Some(&bias))?)
    }

    /// `NAME.{weight,bias}` `[d]` of a LayerNorm.
    pub(crate) fn norm(&self, name: &str, d: usize, eps: f32) -> Result<LayerNorm, ModelError> {
        let weight = self.vector(&format!("{name}.weight"), d)?;
        let bias = self.vector(&format!("{name}.bias"), d)?;
        Ok(LayerNorm::new(self.device, name, &weight, &bias, eps)?)
    }

    /// `NAME.weight` `[out, in]` without a bias.
    pub(crate) fn unbiased(&self, name: &str, out: usize, input: usize) -> Result<Linear, ModelError> {
        let weight = self.weights.tensor(&format!("{name}.weight"), &[out, input])?;
        Ok(load_linear(self.device, name, self.dtype, &Rows(weight), None)?)
    }

    /// A table of rows without bias: embeddings, positions, or a head with `bias`.
    pub(crate) fn table(&self, what: &str, view: TensorView<'a>, bias: Option<&[f32]>) -> Result<Linear, ModelError> {
        Ok(load_linear(self.device, what, self.dtype, &Rows(view), bias)?)
    }

    /// The four projections `NAME.{q,k,v,out}_proj` of a BART-like block, with biases if `biased`, handed to `build`.
    pub(crate) fn attention<T>(
        &self,
        name: &str,
        d: usize,
        biased: bool,
        build: impl FnOnce(AttentionWeights<'_>) -> elgen_attention::Result<T>,
    ) -> Result<T, ModelError> {
        let part = |p: &str| -> Result<(Rows<'a>, Option<Vec<f32>>), ModelError> {
            let weight = self.weights.tensor(&format!("{name}.{p}.weight"), &[d, d])?;
            let bias = if biased { Some(self.vector(&format!("{name}.{p}.bias"), d)?) } else { None };
            Ok((Rows(weight), bias))
        };
        let (q, k, v, o) = (part("q_proj")?, part("k_proj")?, part("v_proj")?, part("out_proj")?);
        Ok(build(AttentionWeights {
            q: Projection { weight: &q.0, bias: q.1.as_deref() },
            k: Projection { weight: &k.0, bias: k.1.as_deref() },
            v: Projection { weight: &v.0, bias: v.1.as_deref() },
            o: Projection { weight: &o.0, bias: o.1.as_deref() },
        })?)
    }
}

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

/// Inside the feed-forward block: `[rows, ffn]` each.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) up: Tensor,
    gate: Option<Tensor>,
}

/// Working tensors of a stack for a number of rows: three `[rows, d_model]`, one or two `[rows, ffn]`, and those of attention.
#[derive(Debug)]
pub struct Space {
    pub(crate) attention: Workspace,
    pub(crate) x: Tensor,
    pub(crate) y: Tensor,
    pub(crate) h: Tensor,
    pub(crate) inner: Inner,
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
            inner: Inner {
                up: tensor("feed-forward", shape.ffn)?,
                gate: if shape.gated { Some(tensor("feed-forward gate", shape.ffn)?) } else { None },
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
