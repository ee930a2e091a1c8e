//! Attention blocks on the host: random weights, and plain attention in f64 with them.

use elgen_attention::{AttentionWeights, Projection, Shape};
use elgen_tensor::ops::Activation;
use elgen_tensor::{DType, MatrixSource, SourceError, Vector, WeightFormat};

use crate::harness::{stored, values};
use crate::twin;

/// A weight matrix on the host.
#[derive(Debug)]
pub struct Matrix {
    /// Input features.
    pub cols: usize,
    /// Row-major `[out, in]`.
    pub values: Vec<f32>,
}

impl MatrixSource for Matrix {
    fn rows(&self) -> usize {
        self.values.len() / self.cols
    }

    fn cols(&self) -> usize {
        self.cols
    }

    fn read(&self, first: usize, out: &mut [f32], _: WeightFormat) -> Result<(), SourceError> {
        let at = first * self.cols;
        out.copy_from_slice(self.values.get(at..at + out.len()).ok_or("rows that do not exist")?);
        Ok(())
    }
}

/// Weights of one block on the host: q, k, v, o and their biases.
#[derive(Debug)]
pub struct Weights {
    /// The block's shape.
    pub shape: Shape,
    /// q, k, v, o.
    pub matrices: [Matrix; 4],
    /// Theirs, where they have one.
    pub biases: [Option<Vec<f32>>; 4],
}

impl Weights {
    /// Random ones. `biases`: which of q, k, v, o have one.
    pub fn new(shape: Shape, biases: [bool; 4], seed: u64) -> Self {
        let (d, e) = (shape.d_model, shape.num_heads * shape.head_dim);
        let matrix = |i: u64, rows: usize, cols: usize| {
            let factor = 2.0 / (cols as f32).sqrt();
            Matrix { cols, values: values(seed + i, rows * cols).into_iter().map(|x| x * factor).collect() }
        };
        let bias = |i: usize, n: usize| biases[i].then(|| values(seed + 10 + i as u64, n));
        Self {
            shape,
            matrices: [matrix(0, e, d), matrix(1, e, d), matrix(2, e, d), matrix(3, d, e)],
            biases: [bias(0, e), bias(1, e), bias(2, e), bias(3, d)],
        }
    }

    /// As a block takes them.
    pub fn get(&self) -> AttentionWeights<'_> {
        let part = |i: usize| Projection { weight: &self.matrices[i], bias: self.biases[i].as_ref().map(Vector::from) };
        AttentionWeights { q: part(0), k: part(1), v: part(2), o: part(3) }
    }

    /// Plain attention of one query over the hidden states `memory`, weights as `dtype` holds them: the block's output without a residual.
    pub fn attend(&self, query: &[f64], memory: &[&[f64]], dtype: DType) -> Vec<f64> {
        self.attend_biased(query, memory, dtype, |_, _| 0.0)
    }

    /// [`Self::attend`] with `bias(head, key)` added to the scores.
    pub fn attend_biased(
        &self,
        query: &[f64],
        memory: &[&[f64]],
        dtype: DType,
        bias: impl Fn(usize, usize) -> f64,
    ) -> Vec<f64> {
        let weight = |i: usize| stored(&self.matrices[i].values, dtype);
        let own = |i: usize| self.biases[i].as_ref().map(|b| stored(b, DType::F32));
        let project = |i: usize, x: &[f64]| {
            twin::linear(x, &weight(i), self.matrices[i].cols, own(i).as_deref(), Activation::None, None)
        };
        let q = project(0, query);
        let memory = memory.concat();
        let (k, v) = (project(1, &memory), project(2, &memory));
        let rows = |m: &'_ [f64]| -> Vec<Vec<f64>> { m.chunks(q.len()).map(<[f64]>::to_vec).collect() };
        let (k, v) = (rows(&k), rows(&v));
        let keys: Vec<&[f64]> = k.iter().map(Vec::as_slice).collect();
        let values: Vec<&[f64]> = v.iter().map(Vec::as_slice).collect();
        let context =
            twin::attend_biased(&q, &keys, &values, self.shape.num_heads, false, f64::from(self.shape.scale), bias);
        project(3, &context)
    }

    /// The attention probabilities of one query over the hidden states `memory` (`[keys, d_model]`), averaged over heads.
    pub fn probabilities(&self, query: &[f64], memory: &[f64], dtype: DType) -> Vec<f64> {
        let project = |i: usize, x: &[f64]| {
            let (weight, bias) = (stored(&self.matrices[i].values, dtype), self.biases[i].as_ref());
            let bias = bias.map(|b| stored(b, DType::F32));
            twin::linear(x, &weight, self.matrices[i].cols, bias.as_deref(), Activation::None, None)
        };
        let (q, k) = (project(0, query), project(1, memory));
        let keys: Vec<&[f64]> = k.chunks(q.len()).collect();
        twin::align(&q, &keys, self.shape.num_heads, false, f64::from(self.shape.scale)).0
    }
}
