//! Reading projection weights into the head layout of docs/architecture.md: every head starts at a whole quad.

use elgen_tensor::ops::{Linear, RandomMatrix};
use elgen_tensor::{DType, Device};

use crate::error::{AttentionError, Result};
use crate::kind::Shape;

/// A matrix `[rows, cols]` that can be read row by row, for example out of a checkpoint.
pub trait MatrixSource {
    /// Number of rows (output features).
    fn rows(&self) -> usize;
    /// Number of columns (input features).
    fn cols(&self) -> usize;
    /// Reads whole rows from `first` on into `out`, as many as it holds.
    ///
    /// # Errors
    /// Whatever the source meets; it is passed through.
    fn read(&self, first: usize, out: &mut [f32]) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
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

/// Values that loading reads and uploads at a time: bounds host memory.
pub const UPLOAD_WINDOW: usize = 1 << 20;

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
    let mut bias = vec![0.0; parts.len() * shape.inner()];
    for (p, part) in parts.iter().enumerate() {
        check(what, part.weight, heads * dim, cols)?;
        let Some(values) = part.bias else { continue };
        if values.len() != heads * dim {
            return Err(AttentionError::Shape(format!(
                "{what} bias has {} values, expected {}",
                values.len(),
                heads * dim
            )));
        }
        for h in 0..heads {
            let at = p * shape.inner() + h * width;
            bias[at..at + dim].copy_from_slice(&values[h * dim..(h + 1) * dim]);
        }
    }
    let has_bias = parts.iter().any(|p| p.bias.is_some());
    let linear = Linear::new(device, what, parts.len() * shape.inner(), cols, dtype, has_bias.then_some(&bias[..]))?;
    for (p, part) in parts.iter().enumerate() {
        let base = p * shape.inner();
        if dim == width {
            copy_rows(device, &linear, part.weight, base)?;
            continue;
        }
        // Pad rows stay the zeros that the matrix was allocated with.
        if let Some(random) = part.weight.random() {
            for h in 0..heads {
                let first = base + h * width;
                linear.fill_random(device, first..first + dim, 0..cols, &random.offset(h * dim, 0))?;
            }
            continue;
        }
        let mut head = vec![0.0; dim * cols];
        for h in 0..heads {
            part.weight.read(h * dim, &mut head).map_err(AttentionError::Weights)?;
            linear.write_rows(device, base + h * width, &head)?;
        }
    }
    Ok(linear)
}

/// Copies all rows of a source into a matrix from row `base` on, a window at a time.
fn copy_rows(device: &Device, linear: &Linear, source: &dyn MatrixSource, base: usize) -> Result<()> {
    let (rows, cols) = (source.rows(), source.cols());
    if let Some(random) = source.random() {
        return Ok(linear.fill_random(device, base..base + rows, 0..cols, &random)?);
    }
    let step = (UPLOAD_WINDOW / cols.max(1)).clamp(1, rows.max(1));
    let mut values = vec![0.0; step * cols];
    for first in (0..rows).step_by(step) {
        let n = step.min(rows - first);
        source.read(first, &mut values[..n * cols]).map_err(AttentionError::Weights)?;
        linear.write_rows(device, base + first, &values[..n * cols])?;
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
    let linear = Linear::new(device, what, weight.rows(), weight.cols(), dtype, bias)?;
    copy_rows(device, &linear, weight, 0)?;
    Ok(linear)
}

/// The output projection `[d_model, num_heads * head_dim]`, its columns spread to padded heads.
pub(crate) fn output_projection(
    device: &Device,
    what: &str,
    shape: Shape,
    dtype: DType,
    o: Projection<'_>,
) -> Result<Linear> {
    let (heads, dim, width) = (shape.num_heads, shape.head_dim, shape.head_width());
    check(what, o.weight, shape.d_model, heads * dim)?;
    if dim == width {
        return load_linear(device, what, dtype, o.weight, o.bias);
    }
    let linear = Linear::new(device, what, shape.d_model, shape.inner(), dtype, o.bias)?;
    if let Some(random) = o.weight.random() {
        for h in 0..heads {
            linear.fill_random(device, 0..shape.d_model, h * width..h * width + dim, &random.offset(0, h * dim))?;
        }
        return Ok(linear);
    }
    let mut narrow = vec![0.0; heads * dim];
    let mut wide = vec![0.0; shape.inner()];
    for row in 0..shape.d_model {
        o.weight.read(row, &mut narrow).map_err(AttentionError::Weights)?;
        for h in 0..heads {
            wide[h * width..h * width + dim].copy_from_slice(&narrow[h * dim..(h + 1) * dim]);
        }
        linear.write_rows(device, row, &wide)?;
    }
    Ok(linear)
}
