//! Reading one tensor of a checkpoint as f32, whole or in windows that bound the memory of an upload.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use elgen_tensor::ops::RandomMatrix;
use half::f16;
use half::slice::HalfFloatSliceExt;

use super::StoredDtype;
use crate::error::{ModelError, excerpt};

/// A tensor of a mapped file, or one that is made of random numbers.
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
    /// Little-endian, row-major and unaligned.
    Stored(&'a [u8]),
    /// Element (row, column) of a matrix, or (0, index) of a vector.
    Random(RandomMatrix),
    /// All of them 1.
    Ones,
}

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
            Data::Stored(_) | Data::Ones => None,
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
        self.read(0, &mut out)?;
        Ok(out)
    }

    /// The rows `rows` of a `[n, m]` tensor as f32 into `out`, which must hold `rows.len() * m` elements.
    pub fn rows_f32(&self, rows: Range<usize>, out: &mut [f32]) -> Result<(), ModelError> {
        let [n, m] = self.matrix()?;
        self.check_window("rows", &rows, n, m, out.len())?;
        self.read(rows.start * m, out)
    }

    /// The columns `cols` of a `[n, m]` tensor as f32, each as one row of `out`, which must hold `cols.len() * n` elements:
    /// a window of rows of the transposed tensor. GPT-2's `Conv1D` weights `[in, out]` become `[out, in]` this way.
    pub fn columns_f32(&self, cols: Range<usize>, out: &mut [f32]) -> Result<(), ModelError> {
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
                self.read((first + row) * m + cols.start, target)?;
            }
            for (col, target) in out.chunks_exact_mut(n).enumerate() {
                for (row, value) in target[first..first + count].iter_mut().enumerate() {
                    *value = block[row * width + col];
                }
            }
        }
        Ok(())
    }

    /// Converts the elements from flat index `first` on into `out` and refuses non-finite ones.
    fn read(&self, first: usize, out: &mut [f32]) -> Result<(), ModelError> {
        let size = self.element_size()?;
        match self.data {
            Data::Stored(data) => convert(self.dtype, &data[first * size..(first + out.len()) * size], out),
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
        if largest < f32::INFINITY.to_bits() {
            return Ok(());
        }
        let at = out.iter().position(|value| !value.is_finite()).unwrap_or(0);
        Err(ModelError::NonFinite {
            file: self.file.into(),
            tensor: excerpt(&self.name),
            index: first + at,
            value: out.get(at).copied().unwrap_or(f32::NAN),
        })
    }

    /// Whether both tensors have one shape and equal values, whatever their storage types.
    pub fn same_values(&self, other: &TensorView<'_>) -> Result<bool, ModelError> {
        if self.shape != other.shape {
            return Ok(false);
        }
        let (Data::Stored(own), Data::Stored(others)) = (self.data, other.data) else {
            return Ok(self.to_f32()? == other.to_f32()?);
        };
        if self.dtype == other.dtype && own == others {
            return Ok(true);
        }
        const CHUNK: usize = 4096;
        let (a_size, b_size) = (self.element_size()?, other.element_size()?);
        let (mut a, mut b) = ([0.0; CHUNK], [0.0; CHUNK]);
        let chunks = own.chunks(CHUNK * a_size).zip(others.chunks(CHUNK * b_size));
        for (a_bytes, b_bytes) in chunks {
            let count = a_bytes.len() / a_size;
            convert(self.dtype, a_bytes, &mut a[..count]);
            convert(other.dtype, b_bytes, &mut b[..count]);
            if a[..count] != b[..count] {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn element_size(&self) -> Result<usize, ModelError> {
        self.dtype.weight_bytes().ok_or_else(|| ModelError::UnsupportedDtype {
            file: self.file.into(),
            tensor: excerpt(&self.name),
            dtype: self.dtype.to_string(),
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
        ModelError::Window { file: self.file.into(), tensor: excerpt(&self.name), shape: self.shape.to_vec(), reason }
    }
}

/// `bytes` hold exactly `out.len()` elements of `dtype`; types that are not read as weights leave `out` as it is.
fn convert(dtype: &StoredDtype, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        StoredDtype::F32 => {
            for (value, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                *value = f32::from_le_bytes(*bytes);
            }
        }
        StoredDtype::Bf16 => {
            for (value, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                *value = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
            }
        }
        StoredDtype::F16 => {
            // The conversion of whole slices uses the processor's instruction, but wants aligned elements.
            const CHUNK: usize = 256;
            let mut aligned = [f16::ZERO; CHUNK];
            for (values, bytes) in out.chunks_mut(CHUNK).zip(bytes.chunks(CHUNK * 2)) {
                let aligned = &mut aligned[..values.len()];
                for (half, bytes) in aligned.iter_mut().zip(bytes.as_chunks().0) {
                    *half = f16::from_le_bytes(*bytes);
                }
                aligned.convert_to_f32_slice(values);
            }
        }
        StoredDtype::Other(_) => {}
    }
}
