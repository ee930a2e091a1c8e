//! Reading weights into layers.

use elgen_attention::{AttentionWeights, MatrixSource, Projection, load_linear};
use elgen_tensor::ops::{LayerNorm, Linear, RandomMatrix};
use elgen_tensor::{DType, Device};

use crate::checkpoint::{TensorView, Weights};
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
