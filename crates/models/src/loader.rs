//! Reading weights into layers.

use std::ops::Range;

use elgen_attention::{AttentionWeights, Projection};
use elgen_tensor::ops::{Linear, Norm, RandomMatrix};
use elgen_tensor::{Arena, Matrix, MatrixSource, SourceError, Vector, WeightFormat, load_linear, product};

use crate::checkpoint::{DecoderEmbeddings, Seq2SeqEmbeddings, TensorView, Weights};
use crate::error::ModelError;

/// A `Linear` weight `[out, in]` as it lies in the file.
struct Rows<'a>(TensorView<'a>);

impl MatrixSource for Rows<'_> {
    fn rows(&self) -> usize {
        self.0.shape()[0]
    }
    fn cols(&self) -> usize {
        self.0.shape()[1]
    }
    fn read(&self, first: usize, out: &mut [f32], format: WeightFormat) -> Result<(), SourceError> {
        let count = out.len() / self.cols().max(1);
        Ok(self.0.rows_as(first..first + count, out, format)?)
    }
    fn random(&self) -> Option<RandomMatrix> {
        self.0.random()
    }
    fn format(&self) -> Option<WeightFormat> {
        self.0.stored_format()
    }
    fn read_stored(&self, first: usize, count: usize, out: &mut [u8]) -> Result<(), SourceError> {
        Ok(self.0.rows_stored(first..first + count, out)?)
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
    fn read(&self, first: usize, out: &mut [f32], format: WeightFormat) -> Result<(), SourceError> {
        let count = out.len() / self.cols().max(1);
        let first = self.first + first;
        Ok(self.view.columns_as(first..first + count, out, format)?)
    }
    fn random(&self) -> Option<RandomMatrix> {
        Some(self.view.random()?.transpose().offset(self.first, 0))
    }
}

/// A vector as it lies in the file; where bytes are counted, its length.
pub(crate) enum StoredVector {
    Values(Vec<f32>),
    Counted(usize),
}

impl StoredVector {
    pub(crate) fn view(&self) -> Vector<'_> {
        match self {
            Self::Values(values) => values.into(),
            Self::Counted(len) => Vector::Counted(*len),
        }
    }

    /// The numbers, times `factor`.
    pub(crate) fn scaled(mut self, factor: f32) -> Self {
        if let Self::Values(values) = &mut self {
            values.iter_mut().for_each(|value| *value *= factor);
        }
        self
    }
}

/// A projection as it lies in the file.
pub(crate) struct StoredProjection<'a> {
    weight: Box<dyn MatrixSource + 'a>,
    bias: Option<StoredVector>,
}

impl StoredProjection<'_> {
    fn view(&self) -> Projection<'_> {
        Projection { weight: &*self.weight, bias: self.bias.as_ref().map(StoredVector::view) }
    }
}

/// Where a model's weights come from, where they go, and how matrices are stored there. Where bytes are counted, nothing is read.
#[derive(Clone, Copy)]
pub(crate) struct Loader<'a> {
    pub(crate) arena: &'a Arena,
    pub(crate) weights: Weights<'a>,
    pub(crate) format: WeightFormat,
}

impl<'a> Loader<'a> {
    /// The same for another arena: that of one layer of many.
    pub(crate) fn on<'b>(self, arena: &'b Arena) -> Loader<'b>
    where
        'a: 'b,
    {
        Loader { arena, ..self }
    }

    /// `layers` equal layers, each with a loader of its own; where bytes are counted, the first stands for all.
    pub(crate) fn each<R>(
        &self,
        layers: usize,
        mut build: impl FnMut(&Loader<'_>, usize) -> Result<R, ModelError>,
    ) -> Result<Vec<R>, ModelError> {
        self.arena.each(layers, |arena, layer| build(&self.on(arena), layer))
    }

    /// All numbers of a tensor.
    pub(crate) fn numbers(&self, view: &TensorView<'_>) -> Result<StoredVector, ModelError> {
        self.arena.will_read(view.len() as u64);
        match self.arena.device() {
            Some(_) => Ok(StoredVector::Values(view.to_f32()?)),
            None => Ok(StoredVector::Counted(view.len())),
        }
    }

    /// A vector `[len]`.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<StoredVector, ModelError> {
        self.numbers(&self.weights.tensor(name, &[len])?)
    }

    /// `NAME.weight` `[out, in]` and, if `biased`, `NAME.bias` `[out]`.
    pub(crate) fn projection(
        &self,
        name: &str,
        out: usize,
        input: usize,
        biased: bool,
    ) -> Result<StoredProjection<'a>, ModelError> {
        let view = self.weights.tensor(&format!("{name}.weight"), &[out, input])?;
        self.arena.will_read(view.len() as u64);
        let weight = Box::new(Rows(view));
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
        let whole = self.weights.tensor(&format!("{name}.bias"), &[out])?;
        self.arena.will_read(product(&[input + 1, columns.len()]));
        let bias = match self.arena.device() {
            Some(_) => StoredVector::Values(whole.to_f32()?.get(columns.clone()).unwrap_or_default().to_vec()),
            None => StoredVector::Counted(columns.len()),
        };
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
        let bias = stored.bias.as_ref().map(StoredVector::view);
        Ok(load_linear(self.arena, name, self.format, &*stored.weight, bias)?)
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
        Ok(Norm::layer_norm(self.arena, name, weight.view(), bias.view(), eps)?)
    }

    /// A table of rows: embeddings or a head.
    pub(crate) fn table(&self, what: &str, view: TensorView<'a>) -> Result<Matrix, ModelError> {
        self.arena.will_read(view.len() as u64);
        self.matrix(what, &Rows(view))
    }

    /// A table of positions in the file.
    pub(crate) fn positions(&self, what: &str, view: TensorView<'a>) -> Result<Matrix, ModelError> {
        self.arena.will_read(view.len() as u64);
        self.computed_positions(what, &Rows(view))
    }

    /// A table of positions from anywhere.
    pub(crate) fn computed_positions(&self, what: &str, source: &dyn MatrixSource) -> Result<Matrix, ModelError> {
        Ok(load_linear(self.arena, what, self.format.of_positions(), source, None)?.weight)
    }

    fn matrix(&self, what: &str, source: &dyn MatrixSource) -> Result<Matrix, ModelError> {
        Ok(load_linear(self.arena, what, self.format, source, None)?.weight)
    }

    /// The embedding table and the head of a decoder-only model: one table in memory for each one in the file. Clones share the device buffers.
    pub(crate) fn decoder_tables(&self, views: DecoderEmbeddings<'a>) -> Result<[Matrix; 2], ModelError> {
        let shared = views.all_shared();
        let input = self.table("embedding", views.input)?;
        let head = if shared { input.clone() } else { self.table("head", views.head)? };
        Ok([input, head])
    }

    /// The embedding tables of encoder and decoder, and the head: one table in memory for each one in the file. Clones share the device buffers.
    /// `tied`: the config calls the head one with another; one of its own that the file holds all the same is no parameter that the config implies.
    pub(crate) fn tables(&self, views: Seq2SeqEmbeddings<'a>, tied: bool) -> Result<[Matrix; 3], ModelError> {
        let encoder = self.table("encoder embedding", views.encoder.clone())?;
        let decoder = match views.decoder.name() == views.encoder.name() {
            true => encoder.clone(),
            false => self.table("decoder embedding", views.decoder.clone())?,
        };
        let head = match views.head.name() {
            name if name == views.encoder.name() => encoder.clone(),
            name if name == views.decoder.name() => decoder.clone(),
            _ if tied => self.matrix("head", &Rows(views.head))?,
            _ => self.table("head", views.head)?,
        };
        Ok([encoder, decoder, head])
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use safetensors::tensor::{Dtype, TensorView as Stored, serialize};

    use super::*;
    use crate::checkpoint::{Checkpoint, SINGLE_FILE};

    const SHAPE: [usize; 2] = [3, 5];

    /// A checkpoint with one tensor in three types. Its numbers are `values`.
    fn checkpoint(values: &[f32]) -> (tempfile::TempDir, Checkpoint) {
        let dir = tempfile::tempdir().unwrap();
        let f32s: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let f16s: Vec<u8> = values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect();
        let bf16s: Vec<u8> = values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect();
        let tensor = |dtype, bytes| Stored::new(dtype, SHAPE.to_vec(), bytes).unwrap();
        let all = [
            ("f32", tensor(Dtype::F32, &f32s)),
            ("f16", tensor(Dtype::F16, &f16s)),
            ("bf16", tensor(Dtype::BF16, &bf16s)),
        ];
        std::fs::write(dir.path().join(SINGLE_FILE), serialize(all, None).unwrap()).unwrap();
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        (dir, checkpoint)
    }

    fn rows<'a>(checkpoint: &'a Checkpoint, name: &str) -> Rows<'a> {
        Rows(checkpoint.view(name).unwrap())
    }

    #[test]
    fn rows_are_had_as_they_lie_with_their_padding() {
        let values: Vec<f32> = (0..15).map(|i| i as f32 - 7.5).collect();
        let (_dir, checkpoint) = checkpoint(&values);
        let formats = ["f32", "f16", "bf16"].map(|name| rows(&checkpoint, name).format());
        assert_eq!(formats, [Some(WeightFormat::F32), Some(WeightFormat::F16), None]);
        let mut halves = [0_u8; 32];
        rows(&checkpoint, "f16").read_stored(1, 2, &mut halves).unwrap();
        let halves: Vec<f16> = bytemuck::pod_collect_to_vec(&halves);
        let held: Vec<f32> = halves.iter().map(|x| x.to_f32()).collect();
        assert_eq!(held, [&values[5..10], &[0.0; 3], &values[10..], &[0.0; 3]].concat());
        let mut words = [0_u8; 32];
        rows(&checkpoint, "f32").read_stored(2, 1, &mut words).unwrap();
        let held: Vec<f32> = bytemuck::pod_collect_to_vec(&words);
        assert_eq!(held, [&values[10..], &[0.0; 3]].concat());
        assert!(rows(&checkpoint, "f32").read_stored(2, 2, &mut [0; 64]).is_err(), "a row that does not exist");
        assert!(rows(&checkpoint, "f32").read_stored(0, 2, &mut [0; 32]).is_err(), "no room");
        assert!(rows(&checkpoint, "bf16").read_stored(0, 1, &mut [0; 32]).is_err(), "no device has it");
    }

    #[test]
    fn what_is_not_finite_is_refused_either_way() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = vec![1.0; 15];
            values[11] = bad;
            let (_dir, checkpoint) = checkpoint(&values);
            for (name, format) in [("f16", WeightFormat::F16), ("f32", WeightFormat::F32)] {
                let rows = rows(&checkpoint, name);
                let told = rows.read(1, &mut [0.0; 10], format).unwrap_err().to_string();
                let row_bytes = format.row_bytes(SHAPE[1]) as usize;
                let stored = rows.read_stored(1, 2, &mut vec![0; 2 * row_bytes]).unwrap_err().to_string();
                assert_eq!(told, stored);
                assert!(told.contains(name) && told.contains("11"), "{told}");
                assert!(rows.read_stored(0, 2, &mut vec![0; 2 * row_bytes]).is_ok(), "other rows");
            }
        }
    }
}
