//! Loading weights from where they are stored, onto a device or into a count.

use std::ops::Range;

use crate::arena::Arena;
use crate::error::TensorError;
use crate::matrix::{Matrix, WeightFormat};
use crate::ops::{Linear, RandomMatrix};

/// What a source met.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Why weights could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The runtime refused.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// The source could not be read.
    #[error(transparent)]
    Source(SourceError),
}

/// A matrix `[rows, cols]` that can be read row by row, for example out of a checkpoint. Where bytes are counted, nothing is read.
pub trait MatrixSource {
    /// Number of rows (output features).
    fn rows(&self) -> usize;

    /// Number of columns (input features).
    fn cols(&self) -> usize;

    /// Reads whole rows from `first` on into `out`, as many as it holds. They will be stored in `format`: the source, which knows their
    /// name, refuses values that are not finite, and those beyond [`WeightFormat::limit`].
    ///
    /// # Errors
    /// Whatever the source meets; it is passed through.
    fn read(&self, first: usize, out: &mut [f32], format: WeightFormat) -> Result<(), SourceError>;

    /// The matrix as random numbers that the device can make itself; then nothing is read.
    fn random(&self) -> Option<RandomMatrix> {
        None
    }

    /// The format in which the rows can be had as they lie ([`MatrixSource::read_stored`]). A matrix of this format takes them so, any other
    /// by way of f32.
    fn format(&self) -> Option<WeightFormat> {
        None
    }

    /// Reads `count` rows from `first` on as a matrix of [`MatrixSource::format`] holds them: [`WeightFormat::row_bytes`] each, `out` being zeros
    /// before. What is refused is what [`MatrixSource::read`] refuses.
    ///
    /// # Errors
    /// Whatever the source meets; it is passed through.
    fn read_stored(&self, first: usize, count: usize, out: &mut [u8]) -> Result<(), SourceError> {
        let _ = out;
        Err(format!("rows {first} to {} are not stored as a device holds them", first.saturating_add(count)).into())
    }
}

/// A vector of weights: its numbers, or where bytes are counted, how many there are.
#[derive(Clone, Copy, Debug)]
pub enum Vector<'a> {
    /// The numbers.
    Values(&'a [f32]),
    /// Their number alone, for a counting arena.
    Counted(usize),
}

impl<'a> Vector<'a> {
    /// How many numbers.
    pub fn len(self) -> usize {
        match self {
            Self::Values(values) => values.len(),
            Self::Counted(len) => len,
        }
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The numbers, unless they were only counted.
    pub fn values(self) -> Option<&'a [f32]> {
        match self {
            Self::Values(values) => Some(values),
            Self::Counted(_) => None,
        }
    }
}

impl<'a> From<&'a [f32]> for Vector<'a> {
    fn from(values: &'a [f32]) -> Self {
        Self::Values(values)
    }
}

impl<'a> From<&'a Vec<f32>> for Vector<'a> {
    fn from(values: &'a Vec<f32>) -> Self {
        Self::Values(values)
    }
}

impl<'a, const N: usize> From<&'a [f32; N]> for Vector<'a> {
    fn from(values: &'a [f32; N]) -> Self {
        Self::Values(values)
    }
}

/// Numbers that loading reads and uploads at a time: bounds host memory.
const UPLOAD_WINDOW: usize = 1 << 20;

/// Rows of `cols` numbers that are read at a time, of `rows`.
fn window_rows(cols: usize, rows: usize) -> usize {
    (UPLOAD_WINDOW / cols.max(1)).clamp(1, rows.max(1))
}

/// Sees rows of f32 as they are read: the number of the first one in the source, and the rows.
pub type SeeRows<'s> = &'s mut dyn FnMut(usize, &[f32]);

impl Matrix {
    /// Loads rows `rows` of a source into the rows from `to` on, a window at a time.
    ///
    /// # Errors
    /// Rows that do not exist, or of another length; the source fails, or the device refuses.
    pub fn load(
        &self,
        arena: &Arena,
        to: usize,
        source: &dyn MatrixSource,
        rows: Range<usize>,
    ) -> Result<(), LoadError> {
        self.load_seen(arena, to, source, rows, None)
    }

    /// [`Matrix::load`], which shows to `see` what it reads: all rows in f32, unless they are random or counted.
    ///
    /// # Errors
    /// As there.
    pub fn load_seen(
        &self,
        arena: &Arena,
        to: usize,
        source: &dyn MatrixSource,
        rows: Range<usize>,
        mut see: Option<SeeRows<'_>>,
    ) -> Result<(), LoadError> {
        let cols = source.cols();
        let end = to.checked_add(rows.len()).filter(|end| *end <= self.rows());
        if end.is_none() || rows.end > source.rows() || cols != self.cols() {
            let message =
                format!("rows {rows:?} of [{}, {cols}] do not fit {} from row {to} on", source.rows(), self.describe());
            return Err(TensorError::Shape { op: "load", message }.into());
        }
        let step = window_rows(cols, rows.len());
        let Some(device) = arena.device() else {
            // Random numbers as well: what they stand for is read from somewhere.
            self.will_write(arena, step.min(rows.len()));
            return Ok(());
        };
        if let Some(random) = source.random() {
            return Ok(self.fill_random(device, to..to + rows.len(), 0..cols, &random.offset(rows.start, 0))?);
        }
        let stored = source.format() == Some(self.format());
        let mut bytes = Vec::new();
        let mut values = vec![0.0; if !stored || see.is_some() { step * cols } else { 0 }];
        for first in rows.clone().step_by(step) {
            let (count, at) = (step.min(rows.end - first), to + first - rows.start);
            let values = values.get_mut(..count * cols).unwrap_or_default();
            if stored {
                bytes.clear();
                bytes.resize(self.format().row_bytes(cols) as usize * count, 0);
                source.read_stored(first, count, &mut bytes).map_err(LoadError::Source)?;
                self.write_stored(arena, at, &bytes)?;
            }
            if !values.is_empty() {
                source.read(first, values, self.format()).map_err(LoadError::Source)?;
                if let Some(see) = &mut see {
                    see(first, values);
                }
            }
            if !stored {
                self.write_rows(arena, at, values)?;
            }
        }
        Ok(())
    }
}

/// A projection `[out, in]` from a source.
///
/// # Errors
/// The source fails, or the device refuses.
pub fn load_linear(
    arena: &Arena,
    what: &str,
    format: WeightFormat,
    weight: &dyn MatrixSource,
    bias: Option<Vector<'_>>,
) -> Result<Linear, LoadError> {
    let linear = Linear::build(arena, what, weight.rows(), weight.cols(), format, bias)?;
    linear.weight.load(arena, 0, weight, 0..weight.rows())?;
    Ok(linear)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Class;

    /// A source that must not be read.
    struct Closed(usize, usize);

    impl MatrixSource for Closed {
        fn rows(&self) -> usize {
            self.0
        }
        fn cols(&self) -> usize {
            self.1
        }
        fn read(&self, _: usize, _: &mut [f32], _: WeightFormat) -> Result<(), SourceError> {
            Err("it was read".into())
        }
    }

    #[test]
    fn what_is_counted_is_not_read() {
        let arena = Arena::counting(1 << 20);
        let bias = Vector::Counted(3000);
        let linear = load_linear(&arena, "w", WeightFormat::F16, &Closed(3000, 1000), Some(bias)).unwrap();
        assert_eq!(arena.tally().usage().of(Class::Weights), 3000 * 1000 * 2 + 3000 * 4);
        let part = |to: usize, rows: Range<usize>| linear.weight.load(&arena, to, &Closed(3000, 1000), rows);
        assert!(part(2990, 0..10).is_ok() && part(0, 2990..3000).is_ok());
        assert!(part(2991, 0..10).is_err() && part(0, 2991..3001).is_err());
        assert!(linear.weight.load(&arena, 0, &Closed(3000, 999), 0..1).is_err(), "other columns");
        assert!(load_linear(&arena, "w", WeightFormat::F16, &Closed(3, 3), Some(Vector::Counted(4))).is_err());
        // Instant, whatever the size.
        let huge = Closed(usize::MAX, usize::MAX);
        assert!(load_linear(&arena, "w", WeightFormat::F32, &huge, None).is_ok());
    }
}
