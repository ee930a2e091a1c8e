//! Weight matrices behind one opaque type.

mod format;
#[cfg(feature = "testing")]
mod int8_blocks;

use std::sync::Arc;

use crate::arena::Arena;
use crate::error::{Result, TensorError};
use crate::pool::Class;
use crate::tensor::{Buffer, padded};

pub use format::WeightFormat;

/// A weight matrix `[rows, cols]` in device memory: of a projection `[out, in]`, or a table of embeddings or positions. Clones share its memory.
///
/// Only this crate knows how the elements lie. Whoever has a matrix builds it, writes rows of f32 into it and hands it to an op, whatever its format: a
/// format that is added (blocks of small integers with scales, two thin factors, two of four) gives [`WeightFormat`] the bytes of a row and how
/// rows of f32 become them, and `matrix.wgsl` how a quad of a row is read. Nothing else learns of it.
///
/// ```
/// use elgen_tensor::{Arena, Matrix, WeightFormat};
/// # fn main() -> Result<(), elgen_tensor::TensorError> {
/// let plan = Arena::counting(128 << 20);
/// let matrix = Matrix::build(&plan, "fc1", 4096, 1024, WeightFormat::F16)?;
/// assert_eq!((matrix.rows(), plan.tally().usage().total), (4096, 8 << 20));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Matrix {
    rows: usize,
    cols: usize,
    format: WeightFormat,
    /// In ascending row order. Where bytes are counted, one stands for all that are equal to it.
    windows: Arc<[Window]>,
}

/// A run of rows that one binding holds.
#[derive(Debug)]
pub(crate) struct Window {
    /// First row; a multiple of 4.
    pub(crate) first_row: usize,
    /// Rows that exist. The buffer has them rounded up to 4, with zeros behind.
    pub(crate) rows: usize,
    pub(crate) buffer: Buffer,
}

/// Rows of the row windows, but for the last one. Whole quads of rows, so that a window starts at a whole output quad. Four rows too long for a
/// binding are refused by the allocation.
fn window_rows(row_bytes: u64, max_binding_bytes: u64) -> usize {
    (max_binding_bytes / row_bytes.max(1) / 4 * 4).clamp(4, u64::from(u32::MAX / 4 * 4)) as usize
}

impl Matrix {
    /// Allocates a matrix of zeros, or counts it; `what` names it in messages.
    ///
    /// # Errors
    /// As [`Arena::buffer`]; on a device also four rows that exceed one binding, or numbers that a kernel cannot count.
    pub fn build(arena: &Arena, what: &str, rows: usize, cols: usize, format: WeightFormat) -> Result<Self> {
        if arena.device().is_some() && rows.max(cols) > u32::MAX as usize {
            let message = format!("{what}: [{rows}, {cols}] is more than a kernel counts");
            return Err(TensorError::Shape { op: "matrix", message });
        }
        let row_bytes = format.row_bytes(cols);
        let fitting = window_rows(row_bytes, arena.max_binding_bytes());
        let window = |arena: &Arena, first_row: usize, rows: usize| -> Result<Window> {
            let bytes = row_bytes.saturating_mul(padded(rows) as u64);
            Ok(Window { first_row, rows, buffer: arena.buffer(what, Class::Weights, bytes)? })
        };
        let mut windows = arena.each(rows / fitting, |arena, number| window(arena, number * fitting, fitting))?;
        let rest = rows % fitting;
        if rest > 0 {
            windows.push(window(arena, rows - rest, rest)?);
        }
        Ok(Self { rows, cols, format, windows: windows.into() })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// How the elements are stored.
    pub fn format(&self) -> WeightFormat {
        self.format
    }

    /// Writes whole rows from row `first_row` on, converting to the format. Where bytes are counted, the values are not looked at.
    ///
    /// # Errors
    /// The values are not whole rows or leave the matrix; a finite value is beyond the range of the format.
    pub fn write_rows(&self, arena: &Arena, first_row: usize, values: &[f32]) -> Result<()> {
        let rows = values.len().checked_div(self.cols).unwrap_or(0);
        let end = first_row.checked_add(rows);
        if rows * self.cols != values.len() || end.is_none_or(|end| end > self.rows) {
            let message = format!("{} values from row {first_row} on do not fit {}", values.len(), self.describe());
            return Err(TensorError::Shape { op: "matrix", message });
        }
        if arena.device().is_none() {
            self.will_write(arena, rows);
            return Ok(());
        }
        for (window, begin, end) in self.windows_of(first_row, first_row + rows) {
            let part = &values[(begin - first_row) * self.cols..(end - first_row) * self.cols];
            let offset = self.format.row_bytes(self.cols).saturating_mul((begin - window.first_row) as u64);
            arena.write(&window.buffer, offset, &self.format.encode(part, self.cols)?)?;
        }
        Ok(())
    }

    /// Writes rows that are encoded already ([`WeightFormat::row_bytes`] each) from row `first_row` on.
    pub(crate) fn write_stored(&self, arena: &Arena, first_row: usize, bytes: &[u8]) -> Result<()> {
        let row_bytes = self.format.row_bytes(self.cols);
        let rows = (bytes.len() as u64).checked_div(row_bytes).unwrap_or(0);
        for (window, begin, end) in self.windows_of(first_row, first_row.saturating_add(rows as usize)) {
            // Within `bytes`, so the products are lengths of it.
            let part = |row: usize| (row - first_row) * row_bytes as usize;
            let offset = row_bytes.saturating_mul((begin - window.first_row) as u64);
            arena.write(&window.buffer, offset, &bytes[part(begin)..part(end)])?;
        }
        Ok(())
    }

    /// Counts the upload of `rows` rows; nothing on a device.
    pub(crate) fn will_write(&self, arena: &Arena, rows: usize) {
        let longest = self.windows.first().map_or(0, |window| window.rows);
        arena.will_upload(self.format.row_bytes(self.cols).saturating_mul(rows.min(longest) as u64));
    }

    /// The windows that hold rows of `first..end`, each with (window, first of these rows, end of these rows).
    pub(crate) fn windows_of(&self, first: usize, end: usize) -> impl Iterator<Item = (&Window, usize, usize)> {
        let parts = self.windows.iter().map(move |window| {
            (window, first.max(window.first_row), end.min(window.first_row.saturating_add(window.rows)))
        });
        parts.filter(|(_, begin, end)| begin < end)
    }

    /// All windows.
    pub(crate) fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// Quads of columns, pads included: what a kernel sums or writes.
    pub(crate) fn quads(&self) -> u32 {
        (padded(self.cols) / 4) as u32
    }

    /// The matrix in one window.
    ///
    /// # Errors
    /// It lies in several.
    pub(crate) fn window(&self, op: &'static str) -> Result<&Window> {
        match self.windows() {
            [window] => Ok(window),
            windows => {
                let message = format!("{} lies in {} windows, where one is needed", self.describe(), windows.len());
                Err(TensorError::Shape { op, message })
            }
        }
    }

    /// Where the rows of `num_heads` equal heads lie, cut at heads and at windows.
    pub(crate) fn head_runs(&self, num_heads: usize) -> impl Iterator<Item = HeadRun<'_>> {
        let width = self.rows.checked_div(num_heads).unwrap_or(0).max(1);
        self.windows.iter().flat_map(move |window| {
            let (begin, end) = (window.first_row, window.first_row.saturating_add(window.rows));
            // The rest of a head that begins before, whole heads, and the beginning of one that ends behind.
            let whole = (begin.next_multiple_of(width).min(end), end / width * width);
            let pieces = if whole.0 < whole.1 {
                [(begin, whole.0), whole, (whole.1, end)]
            } else {
                [(begin, whole.0), (whole.0, end), (end, end)]
            };
            pieces.into_iter().filter(|(first, last)| first < last).map(move |(first, last)| HeadRun {
                window,
                row: first - begin,
                rows: (last - first).min(width),
                head: first / width,
                heads: (last - first).div_ceil(width),
                from: first % width,
            })
        })
    }

    /// "[rows, cols] format", for messages.
    pub fn describe(&self) -> String {
        format!("[{}, {}] {}", self.rows, self.cols, self.format)
    }
}

/// Rows of some adjacent heads in one window: all rows of each, or, of one head, those that the window has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadRun<'a> {
    pub(crate) window: &'a Window,
    /// Row of the window at which the first of the heads begins.
    pub(crate) row: usize,
    /// Rows of each head.
    pub(crate) rows: usize,
    /// The first of the heads.
    pub(crate) head: usize,
    /// How many.
    pub(crate) heads: usize,
    /// The head's row that comes first; 0 for whole heads.
    pub(crate) from: usize,
}

#[cfg(feature = "testing")]
impl Matrix {
    /// The bytes of each window's buffer.
    ///
    /// # Errors
    /// As [`crate::Device::read`].
    pub fn read_windows(&self, device: &crate::Device) -> Result<Vec<Vec<u8>>> {
        self.windows.iter().map(|window| device.read(&window.buffer, window.buffer.bytes())).collect()
    }

    /// Row windows that it lies in.
    pub fn window_count(&self) -> usize {
        self.windows.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes in all, and (first row, rows) of the windows that are told.
    fn counted(rows: usize, cols: usize, format: WeightFormat, binding: u64) -> (u64, Vec<(usize, usize)>) {
        let arena = Arena::counting(binding);
        let matrix = Matrix::build(&arena, "w", rows, cols, format).unwrap();
        (arena.tally().usage().total, matrix.windows().iter().map(|w| (w.first_row, w.rows)).collect())
    }

    #[test]
    fn windows_are_whole_quads_of_rows_below_a_binding() {
        // Rows of 32 bytes: eight of them in a binding.
        assert_eq!(counted(7, 5, WeightFormat::F32, 300), (256, vec![(0, 7)]));
        assert_eq!(counted(8, 5, WeightFormat::F32, 300), (256, vec![(0, 8)]));
        assert_eq!(counted(26, 5, WeightFormat::F32, 300), (3 * 256 + 128, vec![(0, 8), (24, 2)]));
        assert_eq!(counted(26, 5, WeightFormat::F16, 300), (16 * 16 + 12 * 16, vec![(0, 16), (16, 10)]));
        assert_eq!(counted(0, 5, WeightFormat::F32, 300), (0, vec![]));
        // Four rows are larger than a binding, which is the device's to refuse.
        assert_eq!(counted(4, 100, WeightFormat::F32, 300).0, 1600);
    }

    #[test]
    fn sizes_that_nothing_has_saturate() {
        let ends = [u32::MAX as usize, usize::MAX / 8, usize::MAX];
        for (rows, cols) in ends.iter().flat_map(|rows| ends.map(|cols| (*rows, cols))) {
            assert!(counted(rows, cols, WeightFormat::F16, 2 << 30).0 > 1 << 40, "{rows} {cols}");
        }
        assert_eq!(counted(usize::MAX, usize::MAX, WeightFormat::F32, u64::MAX).0, u64::MAX);
    }

    #[test]
    fn what_is_written_is_counted() {
        let arena = Arena::counting(300);
        let matrix = Matrix::build(&arena, "w", 26, 5, WeightFormat::F32).unwrap();
        matrix.write_rows(&arena, 20, &[0.0; 30]).unwrap();
        assert!(matrix.write_rows(&arena, 21, &[0.0; 30]).is_err(), "behind the last row");
        assert!(matrix.write_rows(&arena, 0, &[0.0; 4]).is_err(), "no whole row");
        let mut tally = arena.tally();
        tally.upload_ring(1 << 30);
        assert!(tally.usage().of(Class::Staging) > 0);
    }

    /// (row in the window, rows of a head, first head, heads, from) of each run.
    fn runs(rows: usize, heads: usize, windows: &[(usize, usize)]) -> Vec<[usize; 5]> {
        let windows = windows.iter().map(|(first_row, rows)| Window {
            first_row: *first_row,
            rows: *rows,
            buffer: Buffer::counted(16),
        });
        let matrix = Matrix { rows, cols: 4, format: WeightFormat::F32, windows: windows.collect() };
        matrix.head_runs(heads).map(|run| [run.row, run.rows, run.head, run.heads, run.from]).collect()
    }

    #[test]
    fn heads_are_cut_where_windows_end() {
        assert_eq!(runs(24, 3, &[(0, 24)]), [[0, 8, 0, 3, 0]]);
        // Windows that end with heads.
        assert_eq!(runs(24, 3, &[(0, 16), (16, 8)]), [[0, 8, 0, 2, 0], [0, 8, 2, 1, 0]]);
        // A head of which each window has a part.
        assert_eq!(
            runs(24, 2, &[(0, 8), (8, 8), (16, 8)]),
            [[0, 8, 0, 1, 0], [0, 4, 0, 1, 8], [4, 4, 1, 1, 0], [0, 8, 1, 1, 4]]
        );
        // Part of a head, two whole ones, part of the next.
        assert_eq!(
            runs(48, 4, &[(0, 4), (4, 40), (44, 4)]),
            [[0, 4, 0, 1, 0], [0, 8, 0, 1, 4], [8, 12, 1, 2, 0], [32, 8, 3, 1, 0], [0, 4, 3, 1, 8]]
        );
    }
}
