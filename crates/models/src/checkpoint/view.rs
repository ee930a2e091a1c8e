//! Reading one tensor of a checkpoint as f32, whole or in windows that bound the memory of an upload.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use elgen_tensor::WeightFormat;
use elgen_tensor::ops::RandomMatrix;
use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use super::StoredDtype;
use super::shard::Shard;
use crate::error::{CheckpointError, ModelError, excerpt};

/// A tensor of a file, or one that is made of random numbers.
#[derive(Debug, Clone)]
pub struct TensorView<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) file: &'a Path,
    pub(super) dtype: &'a StoredDtype,
    pub(super) shape: Cow<'a, [usize]>,
    pub(super) data: Data<'a>,
}

/// Where elements come from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Data<'a> {
    /// From this byte of the file on, little-endian and row-major.
    Stored(&'a Shard, u64),
    /// Element (row, column) of a matrix, or (0, index) of a vector.
    Random(RandomMatrix),
    /// All of them 1.
    Ones,
}

/// Elements that are read and converted at a time: they stay in the cache.
const CHUNK: usize = 8192;

/// Rows of a transposed read that are converted together: a write then fills whole cache lines.
const TRANSPOSE_ROWS: usize = 32;

impl<'a> TensorView<'a> {
    /// The tensor's name in the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that holds it.
    pub fn file(&self) -> &'a Path {
        self.file
    }

    /// The type of its elements in the file.
    pub fn dtype(&self) -> &'a StoredDtype {
        self.dtype
    }

    /// Its shape in the file, outermost dimension first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The numbers of a tensor that is random, by row and column.
    pub fn random(&self) -> Option<RandomMatrix> {
        match self.data {
            Data::Random(random) => Some(random),
            Data::Stored(..) | Data::Ones => None,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All elements as f32, in row-major order. Meant for small tensors (biases, norms).
    pub fn to_f32(&self) -> Result<Vec<f32>, ModelError> {
        self.element_size()?;
        let mut out = vec![0.0; self.len()];
        self.read(0, &mut out, WeightFormat::F32)?;
        Ok(out)
    }

    /// The rows `rows` of a `[n, m]` tensor as f32 into `out`, which must hold `rows.len() * m` elements.
    pub fn rows_f32(&self, rows: Range<usize>, out: &mut [f32]) -> Result<(), ModelError> {
        self.rows_as(rows, out, WeightFormat::F32)
    }

    /// [`TensorView::rows_f32`] of a weight that will be stored in `format`: what that cannot hold is refused.
    pub(crate) fn rows_as(&self, rows: Range<usize>, out: &mut [f32], format: WeightFormat) -> Result<(), ModelError> {
        let [n, m] = self.matrix()?;
        self.check_window("rows", &rows, n, m, out.len())?;
        self.read(rows.start * m, out, format)
    }

    /// The format that [`TensorView::rows_stored`] gives; `None` where elements have to be converted.
    pub(crate) fn stored_format(&self) -> Option<WeightFormat> {
        match (self.data, self.dtype) {
            (Data::Stored(..), StoredDtype::F32) => Some(WeightFormat::F32),
            (Data::Stored(..), StoredDtype::F16) => Some(WeightFormat::F16),
            _ => None,
        }
    }

    /// The rows `rows` of a `[n, m]` tensor as they lie in the file, each at the front of an equal part of `out`. What is not finite is refused.
    pub(crate) fn rows_stored(&self, rows: Range<usize>, out: &mut [u8]) -> Result<(), ModelError> {
        let ([n, m], size) = (self.matrix()?, self.element_size()?);
        self.check_window("rows", &rows, n, m, rows.len() * m)?;
        let (Data::Stored(shard, at), Some(_)) = (self.data, self.stored_format()) else {
            return Err(self.window_error("its rows are not stored as a device holds them".into()));
        };
        let (bytes, stride) = (m * size, out.len().checked_div(rows.len()).unwrap_or(0));
        if bytes == 0 {
            return Ok(());
        }
        if stride < bytes {
            return Err(self.window_error(format!(
                "{} rows of {bytes} bytes, the buffer holds {}",
                rows.len(),
                out.len()
            )));
        }
        let first = at + (rows.start * bytes) as u64;
        if stride == bytes {
            shard.read(first, out, &self.name)?;
        } else {
            for (row, to) in out.chunks_exact_mut(stride).enumerate() {
                shard.read(first + (row * bytes) as u64, &mut to[..bytes], &self.name)?;
            }
        }
        // Largest magnitude of all elements, pads too, which are zeros: unlike a search for the first bad one this has no branch per element.
        let finite = match self.dtype {
            StoredDtype::F16 => {
                let words = out.chunks_exact(2).map(|word| u16::from_le_bytes([word[0], word[1]]) & 0x7fff);
                words.fold(0, u16::max) < f16::INFINITY.to_bits()
            }
            _ => {
                let words = out.chunks_exact(4).map(|x| u32::from_le_bytes([x[0], x[1], x[2], x[3]]) & 0x7fff_ffff);
                words.fold(0, u32::max) < f32::INFINITY.to_bits()
            }
        };
        if finite {
            return Ok(());
        }
        // By way of f32, where the first one is named.
        self.rows_as(rows.clone(), &mut vec![0.0; rows.len() * m], WeightFormat::F32)?;
        Err(self.window_error("it was written to while it was read".into()))
    }

    /// The columns `cols` of a `[n, m]` tensor as f32, each as one row of `out`, which must hold `cols.len() * n` elements:
    /// a window of rows of the transposed tensor. GPT-2's `Conv1D` weights `[in, out]` become `[out, in]` this way.
    pub fn columns_f32(&self, cols: Range<usize>, out: &mut [f32]) -> Result<(), ModelError> {
        self.columns_as(cols, out, WeightFormat::F32)
    }

    /// [`TensorView::columns_f32`] of a weight that will be stored in `format`: what that cannot hold is refused.
    pub(crate) fn columns_as(
        &self,
        cols: Range<usize>,
        out: &mut [f32],
        format: WeightFormat,
    ) -> Result<(), ModelError> {
        let [n, m] = self.matrix()?;
        self.check_window("columns", &cols, m, n, out.len())?;
        let width = cols.len();
        if width == 0 || n == 0 {
            return Ok(());
        }
        let mut block = vec![0.0; TRANSPOSE_ROWS.min(n) * width];
        for first in (0..n).step_by(TRANSPOSE_ROWS) {
            let count = TRANSPOSE_ROWS.min(n - first);
            for (row, target) in block.chunks_exact_mut(width).take(count).enumerate() {
                self.read((first + row) * m + cols.start, target, format)?;
            }
            for (col, target) in out.chunks_exact_mut(n).enumerate() {
                for (row, value) in target[first..first + count].iter_mut().enumerate() {
                    *value = block[row * width + col];
                }
            }
        }
        Ok(())
    }

    /// Converts the elements from flat index `first` on into `out`; refuses non-finite ones and those that `format` cannot hold.
    fn read(&self, first: usize, out: &mut [f32], format: WeightFormat) -> Result<(), ModelError> {
        let size = self.element_size()?;
        match self.data {
            Data::Stored(shard, at) => self.convert(shard, at + (first * size) as u64, out)?,
            Data::Ones => out.fill(1.0),
            Data::Random(random) => {
                let width = self.shape.last().copied().unwrap_or(1).max(1);
                for (at, value) in (first..).zip(out.iter_mut()) {
                    *value = random.value(at / width, at % width);
                }
            }
        }
        // Largest magnitude as an integer: unlike a search for the first bad value this has no branch per element.
        let largest = out.iter().fold(0, |largest, value| largest.max(value.to_bits() & 0x7fff_ffff));
        let limit = format.limit();
        if largest < limit.to_bits() {
            return Ok(());
        }
        let found = out.iter().copied().enumerate().find(|(_, value)| value.is_nan() || value.abs() >= limit);
        let (at, value) = found.unwrap_or((0, f32::NAN));
        let (file, tensor, index) = (self.file.into(), excerpt(&self.name), first + at);
        Err(match value.is_finite() {
            true => ModelError::from(CheckpointError::OutOfRange { file, tensor, index, value, dtype: format.name() }),
            false => ModelError::from(CheckpointError::NonFinite { file, tensor, index, value }),
        })
    }

    /// Fills `out` with the elements from byte `at` of the file on; types that are not read as weights leave it as it is.
    fn convert(&self, shard: &Shard, mut at: u64, out: &mut [f32]) -> Result<(), ModelError> {
        if let StoredDtype::F32 = self.dtype {
            shard.read(at, bytemuck::cast_slice_mut(out), &self.name)?;
            out.iter_mut().for_each(|value| *value = f32::from_bits(u32::from_le(value.to_bits())));
            return Ok(());
        }
        let mut words = [0_u16; CHUNK];
        for values in out.chunks_mut(CHUNK) {
            let words = &mut words[..values.len()];
            shard.read(at, bytemuck::cast_slice_mut(words), &self.name)?;
            at += 2 * values.len() as u64;
            words.iter_mut().for_each(|word| *word = u16::from_le(*word));
            match self.dtype {
                // The conversion of whole slices uses the processor's instruction.
                StoredDtype::F16 => words.reinterpret_cast::<f16>().convert_to_f32_slice(values),
                StoredDtype::Bf16 => {
                    for (value, word) in values.iter_mut().zip(words) {
                        *value = f32::from_bits(u32::from(*word) << 16);
                    }
                }
                StoredDtype::F32 | StoredDtype::Other(_) => {}
            }
        }
        Ok(())
    }

    /// Whether both tensors have one shape and equal values, whatever their storage types.
    pub fn same_values(&self, other: &TensorView<'_>) -> Result<bool, ModelError> {
        if self.shape != other.shape {
            return Ok(false);
        }
        let (Data::Stored(own, own_at), Data::Stored(others, others_at)) = (self.data, other.data) else {
            return Ok(self.to_f32()? == other.to_f32()?);
        };
        let (own_size, others_size) = (self.element_size()? as u64, other.element_size()? as u64);
        let (mut a, mut b) = ([0.0; CHUNK], [0.0; CHUNK]);
        for first in (0..self.len()).step_by(CHUNK) {
            let count = CHUNK.min(self.len() - first);
            let (a, b) = (&mut a[..count], &mut b[..count]);
            self.convert(own, own_at + first as u64 * own_size, a)?;
            other.convert(others, others_at + first as u64 * others_size, b)?;
            // NaNs of the same bits are equal, zeros of both signs too.
            if a.iter().zip(b).any(|(a, b)| a != b && a.to_bits() != b.to_bits()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn element_size(&self) -> Result<usize, ModelError> {
        self.dtype.weight_bytes().ok_or_else(|| {
            ModelError::from(CheckpointError::UnsupportedDtype {
                file: self.file.into(),
                tensor: excerpt(&self.name),
                dtype: self.dtype.to_string(),
            })
        })
    }

    fn matrix(&self) -> Result<[usize; 2], ModelError> {
        self.shape[..].try_into().map_err(|_| self.window_error("a matrix is needed".into()))
    }

    fn check_window(
        &self,
        what: &str,
        window: &Range<usize>,
        count: usize,
        each: usize,
        out: usize,
    ) -> Result<(), ModelError> {
        if window.start > window.end || window.end > count {
            return Err(self.window_error(format!("{what} {} to {} of {count} asked for", window.start, window.end)));
        }
        // Within the tensor, so the product is at most its number of elements.
        let needed = window.len() * each;
        if needed != out {
            return Err(
                self.window_error(format!("{} {what} are {needed} elements, the buffer holds {out}", window.len()))
            );
        }
        Ok(())
    }

    fn window_error(&self, reason: String) -> ModelError {
        ModelError::from(CheckpointError::Window {
            file: self.file.into(),
            tensor: excerpt(&self.name),
            shape: self.shape.to_vec(),
            reason,
        })
    }
}
