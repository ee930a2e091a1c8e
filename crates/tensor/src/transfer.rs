//! Moving bytes and values between host and device outside of recordings: loading, set-up and tests.

use crate::device::{Device, lock};
use crate::error::{Result, TensorError};
use crate::pool::Class;
use crate::staging::Staging;
use crate::tensor::{Buffer, DType, Tensor, padded, product};

impl Device {
    /// Writes bytes at once, past any recording: for loading and set-up. It comes before whatever is recorded and not yet submitted; a step's
    /// uploads belong to its recording ([`crate::Recorder::write`]). `offset` and the length are multiples of 4.
    ///
    /// # Errors
    /// The range leaves the buffer, the ring does not fit the memory limit, or the device failed.
    pub fn write(&self, to: &Buffer, offset: u64, data: &[u8]) -> Result<()> {
        to.check_write(offset, data.len())?;
        if data.is_empty() {
            return Ok(());
        }
        self.upload(to, offset, data)
    }

    /// Reads `bytes` bytes of a buffer and waits for them. For set-up and tests; a decode step uses [`crate::Recorder::read_back`].
    ///
    /// # Errors
    /// As [`crate::Recorder::submit_and_read`].
    pub fn read(&self, from: &Buffer, bytes: u64) -> Result<Vec<u8>> {
        if bytes > from.bytes() {
            let message = format!("{bytes} bytes of a buffer of {}", from.bytes());
            return Err(TensorError::Shape { op: "read", message });
        }
        let readback = self.readback("read", bytes)?;
        self.recorder().submit_and_read(&readback, from, bytes)
    }

    /// Waits until the device has done all that was submitted.
    ///
    /// # Errors
    /// The device failed.
    pub fn wait(&self) -> Result<()> {
        self.poll(wgpu::PollType::wait_indefinitely())
    }

    /// Bytes of the upload ring as it is.
    pub fn upload_ring_bytes(&self) -> u64 {
        lock(&self.inner.staging).bytes()
    }

    /// Frees the upload ring; the next upload allocates it again.
    ///
    /// # Errors
    /// The device failed.
    pub fn trim(&self) -> Result<()> {
        *lock(&self.inner.staging) = Staging::default();
        self.wait()
    }

    /// A tensor with the given f32 values, row-major without padding.
    ///
    /// # Errors
    /// As [`Device::tensor`], or the number of values differs from `rows * cols`.
    pub fn tensor_from(
        &self,
        what: &str,
        class: Class,
        rows: usize,
        cols: usize,
        dtype: DType,
        values: &[f32],
    ) -> Result<Tensor> {
        let tensor = self.tensor(what, class, rows, cols, dtype)?;
        self.write_rows(&tensor, 0, values)?;
        Ok(tensor)
    }

    /// Writes whole rows of a tensor from row `first` on, converting to its dtype.
    ///
    /// # Errors
    /// The values are not whole rows or leave the tensor; a finite value is beyond the range of the dtype.
    pub fn write_rows(&self, tensor: &Tensor, first: usize, values: &[f32]) -> Result<()> {
        let rows = values.len().checked_div(tensor.cols).unwrap_or(0);
        let end = first.checked_add(rows);
        if rows * tensor.cols != values.len() || end.is_none_or(|end| end > tensor.rows) {
            let message = format!("{} values from row {first} on do not fit {}", values.len(), tensor.describe());
            return Err(TensorError::Shape { op: "write_rows", message });
        }
        let bytes = encode_rows(values, tensor.cols, tensor.dtype)?;
        self.write(&tensor.buffer, product(&[first, tensor.ld(), tensor.dtype.bytes() as usize]), &bytes)
    }

    /// Reads a tensor as f32, row-major without padding.
    ///
    /// # Errors
    /// As [`Device::read`].
    pub fn read_tensor(&self, tensor: &Tensor) -> Result<Vec<f32>> {
        let ld = tensor.ld();
        let bytes = product(&[tensor.rows, ld, tensor.dtype.bytes() as usize]);
        let bytes = self.read(&tensor.buffer, bytes)?;
        let all: Vec<f32> = match tensor.dtype {
            DType::F32 => bytemuck::pod_collect_to_vec(&bytes),
            DType::F16 => bytemuck::pod_collect_to_vec::<u8, half::f16>(&bytes).into_iter().map(f32::from).collect(),
        };
        Ok(all.chunks(ld.max(1)).flat_map(|row| &row[..tensor.cols]).copied().collect())
    }
}

/// Rows of f32 as stored: padded to whole quads, converted.
pub(crate) fn encode_rows(values: &[f32], cols: usize, dtype: DType) -> Result<Vec<u8>> {
    let ld = padded(cols);
    let rows = values.len().checked_div(cols).unwrap_or(0);
    let mut bytes = vec![0u8; rows * ld * dtype.bytes() as usize];
    let width = dtype.bytes() as usize;
    let mut infinite = false;
    for (row, out) in values.chunks(cols.max(1)).zip(bytes.chunks_mut((ld * width).max(1))) {
        match dtype {
            DType::F32 => out[..cols * 4].copy_from_slice(bytemuck::cast_slice(row)),
            DType::F16 => {
                for (x, slot) in row.iter().zip(out.chunks_exact_mut(2)) {
                    let half = half::f16::from_f32(*x);
                    infinite |= half.is_infinite();
                    slot.copy_from_slice(&half.to_le_bytes());
                }
            }
        }
    }
    let beyond = |x: &f32| x.is_finite() && x.abs() >= dtype.limit();
    match values.iter().copied().find(|x| infinite && beyond(x)) {
        Some(value) => Err(TensorError::OutOfRange { value, dtype: dtype.name() }),
        None => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_f16_cannot_hold_is_refused() {
        let stored = |values: &[f32], dtype| encode_rows(values, values.len(), dtype);
        // Half a step beyond the largest number, rounding gives an infinity.
        let below = 65520_f32.next_down();
        let halves: Vec<half::f16> =
            bytemuck::pod_collect_to_vec(&stored(&[below, -below, 1e-9, 0.0], DType::F16).unwrap());
        assert_eq!(halves.iter().map(|x| x.to_f32()).collect::<Vec<_>>(), [65504.0, -65504.0, 0.0, 0.0]);
        for value in [65520.0, -65520.0, 1e5, f32::MIN] {
            let error = stored(&[1.0, value], DType::F16).unwrap_err().to_string();
            assert_eq!(error, format!("{value} cannot be stored as f16: it is beyond its range"));
            assert!(stored(&[1.0, value], DType::F32).is_ok());
        }
        // What is no number already is not made one here.
        assert!(stored(&[f32::INFINITY, f32::NAN], DType::F16).is_ok());
    }
}
