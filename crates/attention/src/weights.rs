//! Reading projection weights into the head layout of docs/architecture.md: every head starts at a whole quad.

use elgen_tensor::ops::{Linear, RandomMatrix};
use elgen_tensor::{Class, DType, Device};

use crate::error::{AttentionError, Result};
use crate::shape::Shape;
use crate::spec::BlockSpec;

/// A matrix `[rows, cols]` that can be read row by row, for example out of a checkpoint.
pub trait MatrixSource {
    /// Number of rows (output features).
    fn rows(&self) -> usize;
    /// Number of columns (input features).
    fn cols(&self) -> usize;
    /// Reads whole rows from `first` on into `out`, as many as it holds. They will be stored as `dtype`: the source, which knows their
    /// name, refuses values beyond [`DType::limit`].
    ///
    /// # Errors
    /// Whatever the source meets; it is passed through.
    fn read(&self, first: usize, out: &mut [f32], dtype: DType)
    -> Result<(), Box<dyn std::error::Error + Send + Sync>>;

    /// The matrix as random numbers that the device can make itself; then nothing is read.
    fn random(&self) -> Option<RandomMatrix> {
        None
    }
}

/// One projection: a weight `[out, in]` and its bias.
#[derive(Clone, Copy)]
pub struct Projection<'a> {
    /// The weight.
    pub weight: &'a dyn MatrixSource,
    /// The bias `[out]`, if there is one.
    pub bias: Option<&'a [f32]>,
}

/// The four projections of an attention block.
#[derive(Clone, Copy)]
pub struct AttentionWeights<'a> {
    /// `[num_heads * head_dim, d_model]`
    pub q: Projection<'a>,
    /// `[num_heads * head_dim, d_model]`
    pub k: Projection<'a>,
    /// `[num_heads * head_dim, d_model]`
    pub v: Projection<'a>,
    /// `[d_model, num_heads * head_dim]`
    pub o: Projection<'a>,
}

/// A block's weights with the biases that its core applies, and b_v where the output projection takes it over.
#[derive(Clone, Copy)]
pub(crate) struct Placed<'a> {
    /// The weights; `v` has no bias, and `k` only where the scores need it.
    pub(crate) weights: AttentionWeights<'a>,
    /// b_v, for [`output_projection`] to fold.
    pub(crate) folded: Option<&'a [f32]>,
}

impl<'a> Placed<'a> {
    /// Decides where the biases of keys and values go (docs/el-attention.md §1.3), the same for every kind.
    ///
    /// b_k adds one number, `q . b_k`, to all scores of a row and head, unless positions come between q and k
    /// ([`PositionScheme::drops_key_bias`]). The softmax of every block here runs over keys alone and its scores never leave it, so b_k has no
    /// effect and is dropped. A sink, a soft cap or returned scores would need it.
    ///
    /// b_v becomes part of b_o: every query row has a key, and with it probabilities that sum to one.
    ///
    /// # Errors
    /// A bias of a wrong length, used or not.
    pub(crate) fn new(spec: &BlockSpec<'_>, mut weights: AttentionWeights<'a>) -> Result<Self> {
        let inner = spec.shape.num_heads.saturating_mul(spec.shape.head_dim);
        let lengths = [("q", inner), ("k", inner), ("v", inner), ("out", spec.shape.d_model)];
        for ((part, length), projection) in lengths.iter().zip([weights.q, weights.k, weights.v, weights.o]) {
            if let Some(bias) = projection.bias
                && bias.len() != *length
            {
                let what = spec.what;
                return Err(AttentionError::Shape(format!(
                    "{what} {part} bias has {} values, expected {length}",
                    bias.len()
                )));
            }
        }
        if spec.positions.drops_key_bias() {
            weights.k.bias = None;
        }
        // Of random numbers W_o b_v + b_o are no better ones than b_o: such a model has no b_v, as any other has none on the device.
        let folded = weights.v.bias.take().filter(|_| weights.o.weight.random().is_none());
        Ok(Self { weights, folded })
    }
}

/// `b_o + W_o b_v`, row by row as W_o is read: in f64, from values that no storage has rounded yet.
struct Folding<'a> {
    b_v: &'a [f32],
    b_o: Vec<f32>,
}

impl<'a> Folding<'a> {
    fn new(b_v: &'a [f32], b_o: Option<&[f32]>, d_model: usize) -> Self {
        Self { b_v, b_o: b_o.map_or_else(|| vec![0.0; d_model], <[f32]>::to_vec) }
    }

    /// Takes whole rows of W_o from `first` on.
    fn see(&mut self, first: usize, rows: &[f32]) {
        for (b_o, row) in self.b_o[first..].iter_mut().zip(rows.chunks_exact(self.b_v.len().max(1))) {
            let product: f64 = row.iter().zip(self.b_v).map(|(w, b)| f64::from(*w) * f64::from(*b)).sum();
            *b_o = (f64::from(*b_o) + product) as f32;
        }
    }
}

/// Values that loading reads and uploads at a time: bounds host memory.
pub const UPLOAD_WINDOW: usize = 1 << 20;

/// Rows of `cols` values that are read at a time, of `rows`.
fn window_rows(cols: usize, rows: usize) -> usize {
    (UPLOAD_WINDOW / cols.max(1)).clamp(1, rows.max(1))
}

fn check(what: &str, weight: &dyn MatrixSource, rows: usize, cols: usize) -> Result<()> {
    if (weight.rows(), weight.cols()) == (rows, cols) {
        return Ok(());
    }
    Err(AttentionError::Shape(format!("{what} is [{}, {}], expected [{rows}, {cols}]", weight.rows(), weight.cols())))
}

/// Stacks projections `[num_heads * head_dim, d_model]` into one matrix `[parts * inner, d_model]`, heads padded to quads.
pub(crate) fn stack_heads(
    device: &Device,
    what: &str,
    shape: Shape,
    dtype: DType,
    parts: &[Projection<'_>],
) -> Result<Linear> {
    let (heads, dim, width, cols) = (shape.num_heads, shape.head_dim, shape.head_width(), shape.d_model);
    let all = shape.inner().saturating_mul(parts.len());
    for part in parts {
        check(what, part.weight, heads.saturating_mul(dim), cols)?;
    }
    let has_bias = parts.iter().any(|p| p.bias.is_some());
    // The parts are there, so their rows can be counted.
    let mut bias = vec![0.0; if has_bias { all } else { 0 }];
    for (p, part) in parts.iter().enumerate() {
        let Some(values) = part.bias else { continue };
        for h in 0..heads {
            let at = p * shape.inner() + h * width;
            bias[at..at + dim].copy_from_slice(&values[h * dim..(h + 1) * dim]);
        }
    }
    let linear = Linear::build(&device.into(), what, all, cols, dtype.into(), has_bias.then_some(&bias[..]))?;
    for (p, part) in parts.iter().enumerate() {
        let base = p * shape.inner();
        if dim == width {
            copy_rows(device, &linear, dtype, part.weight, base, None)?;
            continue;
        }
        // Pad rows stay the zeros that the matrix was allocated with.
        if let Some(random) = part.weight.random() {
            for h in 0..heads {
                let first = base + h * width;
                linear.weight.fill_random(device, first..first + dim, 0..cols, &random.offset(h * dim, 0))?;
            }
            continue;
        }
        let step = window_rows(cols, dim);
        let mut values = vec![0.0; step * cols];
        for h in 0..heads {
            for first in (0..dim).step_by(step) {
                let values = &mut values[..step.min(dim - first) * cols];
                part.weight.read(h * dim + first, values, dtype).map_err(AttentionError::Weights)?;
                linear.weight.write_rows(&device.into(), base + h * width + first, values)?;
            }
        }
    }
    Ok(linear)
}

/// Copies all rows of a source into a matrix from row `base` on, a window at a time, and shows them to `folding`.
fn copy_rows(
    device: &Device,
    linear: &Linear,
    dtype: DType,
    source: &dyn MatrixSource,
    base: usize,
    mut folding: Option<&mut Folding<'_>>,
) -> Result<()> {
    let (rows, cols) = (source.rows(), source.cols());
    if let Some(random) = source.random() {
        return Ok(linear.weight.fill_random(device, base..base + rows, 0..cols, &random)?);
    }
    let step = window_rows(cols, rows);
    let mut values = vec![0.0; step * cols];
    for first in (0..rows).step_by(step) {
        let n = step.min(rows - first);
        source.read(first, &mut values[..n * cols], dtype).map_err(AttentionError::Weights)?;
        linear.weight.write_rows(&device.into(), base + first, &values[..n * cols])?;
        if let Some(folding) = &mut folding {
            folding.see(first, &values[..n * cols]);
        }
    }
    Ok(())
}

/// A plain matrix `[out, in]` from a source.
///
/// # Errors
/// The source fails, or the device refuses.
pub fn load_linear(
    device: &Device,
    what: &str,
    dtype: DType,
    weight: &dyn MatrixSource,
    bias: Option<&[f32]>,
) -> Result<Linear> {
    let linear = Linear::build(&device.into(), what, weight.rows(), weight.cols(), dtype.into(), bias)?;
    copy_rows(device, &linear, dtype, weight, 0, None)?;
    Ok(linear)
}

/// The output projection `[d_model, num_heads * head_dim]`, its columns spread to padded heads. `folded` (b_v, `[num_heads * head_dim]`) becomes part of
/// its bias.
pub(crate) fn output_projection(
    device: &Device,
    what: &str,
    shape: Shape,
    dtype: DType,
    o: Projection<'_>,
    folded: Option<&[f32]>,
) -> Result<Linear> {
    let (heads, dim, width) = (shape.num_heads, shape.head_dim, shape.head_width());
    check(what, o.weight, shape.d_model, heads.saturating_mul(dim))?;
    let mut folding = folded.map(|b_v| Folding::new(b_v, o.bias, shape.d_model));
    let own = if folding.is_some() { None } else { o.bias };
    let mut linear = Linear::build(&device.into(), what, shape.d_model, shape.inner(), dtype.into(), own)?;
    if dim == width {
        copy_rows(device, &linear, dtype, o.weight, 0, folding.as_mut())?;
    } else {
        spread_columns(device, &linear, dtype, shape, o.weight, folding.as_mut())?;
    }
    if let Some(Folding { b_o, .. }) = folding {
        linear.bias = Some(device.tensor_from(what, Class::Weights, 1, shape.d_model, DType::F32, &b_o)?);
    }
    Ok(linear)
}

/// Copies W_o, each head's columns to where the padded head begins, and shows the rows to `folding`.
fn spread_columns(
    device: &Device,
    linear: &Linear,
    dtype: DType,
    shape: Shape,
    source: &dyn MatrixSource,
    mut folding: Option<&mut Folding<'_>>,
) -> Result<()> {
    let (heads, dim, width) = (shape.num_heads, shape.head_dim, shape.head_width());
    if let Some(random) = source.random() {
        for h in 0..heads {
            linear.weight.fill_random(
                device,
                0..shape.d_model,
                h * width..h * width + dim,
                &random.offset(0, h * dim),
            )?;
        }
        return Ok(());
    }
    let mut narrow = vec![0.0; heads * dim];
    let mut wide = vec![0.0; shape.inner()];
    for row in 0..shape.d_model {
        source.read(row, &mut narrow, dtype).map_err(AttentionError::Weights)?;
        for h in 0..heads {
            wide[h * width..h * width + dim].copy_from_slice(&narrow[h * dim..(h + 1) * dim]);
        }
        linear.weight.write_rows(&device.into(), row, &wide)?;
        if let Some(folding) = &mut folding {
            folding.see(row, &narrow);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position_scheme::{PositionScheme, Rotary};

    /// A matrix of zeros.
    struct Zeros(usize, usize);

    impl MatrixSource for Zeros {
        fn rows(&self) -> usize {
            self.0
        }
        fn cols(&self) -> usize {
            self.1
        }
        fn read(&self, _: usize, out: &mut [f32], _: DType) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            out.fill(0.0);
            Ok(())
        }
    }

    /// q . R(i - j) b_k differs from key to key: under rotary positions b_k belongs to the scores (Qwen2 has one).
    #[test]
    fn a_key_bias_is_dropped_only_where_positions_allow_it() {
        let (weight, bias) = (Zeros(4, 4), [1.0; 4]);
        let each = Projection { weight: &weight, bias: Some(&bias) };
        let weights = AttentionWeights { q: each, k: each, v: each, o: each };
        let placed = |positions| {
            let shape = Shape::new(4, 1, 4, 1.0);
            let spec = BlockSpec { what: "block", layer: 0, shape, dtype: DType::F32, positions };
            let placed = Placed::new(&spec, weights).expect("lengths that fit");
            (placed.weights.k.bias.is_some(), placed.weights.v.bias.is_some(), placed.folded.is_some())
        };
        assert_eq!(placed(PositionScheme::None), (false, false, true));
        assert_eq!(placed(PositionScheme::Rotary(Rotary { base: 1e4, dims: 4 })), (true, false, true));
    }

    #[test]
    fn value_biases_are_folded_in_f64() {
        let mut folding = Folding::new(&[1.0, 2.0], Some(&[10.0, 20.0, 30.0]), 3);
        folding.see(0, &[1.0, 0.5]);
        folding.see(1, &[0.0, -1.0, 4.0, 0.25]);
        assert_eq!(folding.b_o, [12.0, 18.0, 34.5]);
        // In f32, 1e8 would swallow the ones.
        let mut folding = Folding::new(&[1.0; 4], None, 1);
        folding.see(0, &[1e8, 1.0, 1.0, -1e8]);
        assert_eq!(folding.b_o, [2.0]);
    }
}
