//! Random weights that are made on the device (`fill_random.wgsl`): models of any size without a checkpoint.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use crate::bind;
use crate::device::Device;
use crate::error::{Result, TensorError};
use crate::kernel::KernelSpec;
use crate::matrix::{Matrix, Window};
use crate::ops::{MAX_GROUPS, parts};
use crate::recorder::Recorder;
use crate::tensor::DType;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    first_row: u32,
    row: u32,
    first_quad: u32,
    cols: u32,
    ld: u32,
    key_low: u32,
    key_high: u32,
    from_row: u32,
    from_col: u32,
    transposed: u32,
    step: f32,
}

/// Lanes of a workgroup.
const WIDTH: u32 = 64;

/// An endless matrix of uniform random numbers, each a function of the key and of its place. They are odd multiples of a power of two, 1023 times
/// that at most, so f16 holds them exactly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomMatrix {
    key: u64,
    step: f32,
    row: usize,
    col: usize,
    transposed: bool,
}

impl RandomMatrix {
    /// Numbers of this standard deviation, which is rounded to within a factor of sqrt(2): the bound is a power of two.
    pub fn new(key: u64, deviation: f64) -> Self {
        // A uniform distribution's bound is sqrt(3) deviations. Steps from 2^-24 to 2^6 are exact in f16.
        let exponent = (deviation * 3f64.sqrt()).log2().round() - 10.0;
        Self { key, step: exponent.clamp(-24.0, 6.0).exp2() as f32, row: 0, col: 0, transposed: false }
    }

    /// The same numbers from element (`row`, `col`) on.
    #[must_use]
    pub fn offset(self, row: usize, col: usize) -> Self {
        let (row, col) = if self.transposed { (col, row) } else { (row, col) };
        Self { row: self.row.saturating_add(row), col: self.col.saturating_add(col), ..self }
    }

    /// Element (r, c) becomes element (c, r).
    #[must_use]
    pub fn transpose(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// No number is larger than this in magnitude.
    pub fn bound(&self) -> f32 {
        1023.0 * self.step
    }

    /// The number at (`row`, `col`), computed on the host: the same bits as on the device.
    pub fn value(&self, row: usize, col: usize) -> f32 {
        let (row, col) = if self.transposed { (col, row) } else { (row, col) };
        let mut v = [
            self.row.saturating_add(row) as u32,
            self.col.saturating_add(col) as u32,
            self.key as u32,
            (self.key >> 32) as u32,
        ]
        .map(|word| word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        let blend = |v: &mut [u32; 4]| {
            for (to, a, b) in [(0, 1, 3), (1, 2, 0), (2, 0, 1), (3, 1, 2)] {
                v[to] = v[to].wrapping_add(v[a].wrapping_mul(v[b]));
            }
        };
        blend(&mut v);
        v.iter_mut().for_each(|word| *word ^= *word >> 16);
        blend(&mut v);
        ((v[0] >> 22) as f32 * 2.0 - 1023.0) * self.step
    }
}

impl Matrix {
    /// Fills rows `rows`, columns `cols`: element (rows.start + r, cols.start + c) becomes `random.value(r, c)`. The columns begin at a whole quad;
    /// what the last quad has beyond them becomes 0. Submits, does not wait.
    ///
    /// # Errors
    /// The rectangle leaves the matrix or begins inside a quad; numbers beyond 2^32 - 1.
    pub fn fill_random(
        &self,
        device: &Device,
        rows: Range<usize>,
        cols: Range<usize>,
        random: &RandomMatrix,
    ) -> Result<()> {
        let longest = rows.len().max(cols.len());
        let counted = [random.row, random.col].iter().all(|first| first.saturating_add(longest) <= u32::MAX as usize);
        if !cols.start.is_multiple_of(4) || rows.end > self.rows() || cols.end > self.cols() || !counted {
            let message = format!("rows {rows:?}, columns {cols:?} of {}", self.describe());
            return Err(TensorError::Shape { op: "fill_random", message });
        }
        let Some(dtype) = self.format().dense() else { return self.fill_on_host(device, rows, cols, random) };
        let mut rec = device.recorder();
        for (window, begin, end) in self.windows_of(rows.start, rows.end) {
            let part = begin - window.first_row..end - window.first_row;
            self.fill_window(&mut rec, dtype, window, part, &cols, &random.offset(begin - rows.start, 0))?;
        }
        rec.submit()?;
        Ok(())
    }

    /// The same by rows that the host makes and encodes: whole ones, as elements do not stand alone.
    fn fill_on_host(
        &self,
        device: &Device,
        rows: Range<usize>,
        cols: Range<usize>,
        random: &RandomMatrix,
    ) -> Result<()> {
        if cols != (0..self.cols()) {
            let message = format!("columns {cols:?} of {}: its rows are filled whole", self.describe());
            return Err(TensorError::Shape { op: "fill_random", message });
        }
        for (at, row) in rows.enumerate() {
            let values: Vec<f32> = cols.clone().map(|col| random.value(at, col)).collect();
            self.write_rows(&device.into(), row, &values)?;
        }
        Ok(())
    }

    /// The part of it whose rows are those of a window.
    fn fill_window(
        &self,
        rec: &mut Recorder,
        dtype: DType,
        window: &Window,
        rows: Range<usize>,
        cols: &Range<usize>,
        random: &RandomMatrix,
    ) -> Result<()> {
        let device = rec.device().clone();
        let spec = KernelSpec::new("fill_random").storage(&device, dtype).constant("WG", WIDTH);
        let kernel = device.kernel(&spec)?;
        for (row, count) in parts(0, rows.len(), MAX_GROUPS) {
            let params = Params {
                first_row: rows.start as u32,
                row: row as u32,
                first_quad: (cols.start / 4) as u32,
                cols: cols.len() as u32,
                ld: self.quads(),
                key_low: random.key as u32,
                key_high: (random.key >> 32) as u32,
                from_row: random.row as u32,
                from_col: random.col as u32,
                transposed: u32::from(random.transposed),
                step: random.step,
            };
            let grid = [(cols.len().div_ceil(4) as u32).div_ceil(WIDTH), count as u32, 1];
            // SAFETY: the rectangle lies within the window, whose rows are whole quads.
            unsafe { rec.dispatch_trusted(&kernel, &bind![&window.buffer], &params, grid)? };
        }
        Ok(())
    }
}
