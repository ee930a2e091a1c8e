//! Reading weights into layers.

use std::ops::Range;

use elgen_attention::{AttentionWeights, MatrixSource, Projection, load_linear};
use elgen_tensor::ops::{Linear, Norm, RandomMatrix};
use elgen_tensor::{DType, Device, Matrix};

use crate::checkpoint::{DecoderEmbeddings, Seq2SeqEmbeddings, TensorView, Weights};
use crate::error::ModelError;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A `Linear` weight `[out, in]` as it lies in the file.
struct Rows<'a>(TensorView<'a>);

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
struct Columns<'a> {
    view: TensorView<'a>,
    first: usize,
    count: usize,
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

/// A projection as it lies in the file.
pub(crate) struct StoredProjection<'a> {
    weight: Box<dyn MatrixSource + 'a>,
    bias: Option<Vec<f32>>,
}

impl StoredProjection<'_> {
    fn view(&self) -> Projection<'_> {
        Projection { weight: &*self.weight, bias: self.bias.as_deref() }
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
    pub(crate) fn projection(
        &self,
        name: &str,
        out: usize,
        input: usize,
        biased: bool,
    ) -> Result<StoredProjection<'a>, ModelError> {
        let weight = Box::new(Rows(self.weights.tensor(&format!("{name}.weight"), &[out, input])?));
        let bias = if biased { Some(self.vector(&format!("{name}.bias"), out)?) } else { None };
        Ok(StoredProjection { weight, bias })
    }

    /// Columns `columns` of a `Conv1D`: `NAME.weight` `[in, out]` and `NAME.bias` `[out]`.
    pub(crate) fn conv1d_columns(
        &self,
        name: &str,
        out: usize,
        input: usize,
        columns: Range<usize>,
    ) -> Result<StoredProjection<'a>, ModelError> {
        let view = self.weights.tensor(&format!("{name}.weight"), &[input, out])?;
        let mut bias = self.vector(&format!("{name}.bias"), out)?;
        bias.truncate(columns.end);
        bias.drain(..columns.start);
        let weight = Box::new(Columns { view, first: columns.start, count: columns.len() });
        Ok(StoredProjection { weight, bias: Some(bias) })
    }

    /// The projection `NAME` on the device; see [`Loader::projection`].
    pub(crate) fn linear(&self, name: &str, out: usize, input: usize, biased: bool) -> Result<Linear, ModelError> {
        self.place(name, &self.projection(name, out, input, biased)?)
    }

    /// The whole `Conv1D` `NAME` on the device; see [`Loader::conv1d_columns`].
    pub(crate) fn conv1d(&self, name: &str, out: usize, input: usize) -> Result<Linear, ModelError> {
        self.place(name, &self.conv1d_columns(name, out, input, 0..out)?)
    }

    fn place(&self, name: &str, stored: &StoredProjection<'_>) -> Result<Linear, ModelError> {
        Ok(load_linear(self.device, name, self.dtype, &*stored.weight, stored.bias.as_deref())?)
    }

    /// The projections q, k, v and o of an attention block, handed to `build`.
    pub(crate) fn attention<T>(
        &self,
        [q, k, v, o]: [StoredProjection<'_>; 4],
        build: impl FnOnce(AttentionWeights<'_>) -> elgen_attention::Result<T>,
    ) -> Result<T, ModelError> {
        Ok(build(AttentionWeights { q: q.view(), k: k.view(), v: v.view(), o: o.view() })?)
    }

    /// The projections `NAME.{q,k,v,out}_proj` of a block of BART's kin, as wide as the model.
    pub(crate) fn square_projections(
        &self,
        name: &str,
        d: usize,
        biased: bool,
    ) -> Result<[StoredProjection<'a>; 4], ModelError> {
        let part = |part: &str| self.projection(&format!("{name}.{part}"), d, d, biased);
        Ok([part("q_proj")?, part("k_proj")?, part("v_proj")?, part("out_proj")?])
    }

    /// `NAME.{weight,bias}` `[d]` of a LayerNorm.
    pub(crate) fn norm(&self, name: &str, d: usize, eps: f32) -> Result<Norm, ModelError> {
        let weight = self.vector(&format!("{name}.weight"), d)?;
        let bias = self.vector(&format!("{name}.bias"), d)?;
        Ok(Norm::layer_norm(&self.device.into(), name, &weight, &bias, eps)?)
    }

    /// A table of rows: embeddings, positions, or a head.
    pub(crate) fn table(&self, what: &str, view: TensorView<'a>) -> Result<Matrix, ModelError> {
        Ok(load_linear(self.device, what, self.dtype, &Rows(view), None)?.weight)
    }

    /// The embedding table and the head of a decoder-only model: one table in memory for each one in the file. Clones share the device buffers.
    pub(crate) fn decoder_tables(&self, views: DecoderEmbeddings<'a>) -> Result<[Matrix; 2], ModelError> {
        let shared = views.all_shared();
        let input = self.table("embedding", views.input)?;
        let head = if shared { input.clone() } else { self.table("head", views.head)? };
        Ok([input, head])
    }

    /// The embedding tables of encoder and decoder, and the head: one table in memory for each one in the file. Clones share the device buffers.
    pub(crate) fn tables(&self, views: Seq2SeqEmbeddings<'a>) -> Result<[Matrix; 3], ModelError> {
        let encoder = self.table("encoder embedding", views.encoder.clone())?;
        let decoder = match views.decoder.name() == views.encoder.name() {
            true => encoder.clone(),
            false => self.table("decoder embedding", views.decoder.clone())?,
        };
        let head = match views.head.name() {
            name if name == views.encoder.name() => encoder.clone(),
            name if name == views.decoder.name() => decoder.clone(),
            _ => self.table("head", views.head)?,
        };
        Ok([encoder, decoder, head])
    }
}
