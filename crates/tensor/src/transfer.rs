//! Moving bytes between host and device through counted buffers of a bounded size.

use std::sync::mpsc;
use std::time::Duration;

use crate::device::{Device, lock};
use crate::error::{Result, TensorError};
use crate::pool::Class;
use crate::tensor::{Buffer, DType, Tensor, buffer_bytes, padded, product};

/// Bytes of one upload chunk at most; two of them make the ring.
const CHUNK: u64 = 8 << 20;

/// Bytes of a chunk that serves small uploads only.
const SMALL_CHUNK: u64 = 128 << 10;

/// Bytes of an upload chunk under a memory limit: the ring takes no more than a thirty-second of it.
fn chunk_bytes(limit: u64) -> u64 {
    (limit / 64).clamp(SMALL_CHUNK, CHUNK) / 16 * 16
}

/// Bytes of the upload ring once it has seen an upload of this size.
pub(crate) fn ring_bytes(largest_upload: u64, limit: u64) -> u64 {
    2 * if largest_upload > SMALL_CHUNK { chunk_bytes(limit) } else { SMALL_CHUNK }
}

/// The upload ring: two chunks, one is filled while the other is copied. Allocated at the first upload, freed by [`Device::trim`].
#[derive(Debug, Default)]
pub(crate) struct Transfer {
    chunks: Vec<Buffer>,
    /// Bytes that a chunk must have: that of small uploads until a large one comes.
    chunk: u64,
    /// The submission that last read each chunk.
    pending: Vec<Option<wgpu::SubmissionIndex>>,
    next: usize,
}

/// A buffer that the host reads; allocate one and keep it.
#[derive(Debug)]
pub struct Readback {
    pub(crate) buffer: Buffer,
}

impl Readback {
    pub(crate) fn map(&self, device: &Device, index: wgpu::SubmissionIndex, bytes: u64) -> Result<Vec<u8>> {
        map(device, &self.buffer, wgpu::MapMode::Read, bytes, Some(index))?;
        let raw = &self.buffer.inner.raw;
        let data = raw.get_mapped_range(0..bytes).map_err(|e| TensorError::Device(e.to_string()))?.to_vec();
        raw.unmap();
        Ok(data)
    }
}

fn map(
    device: &Device,
    buffer: &Buffer,
    mode: wgpu::MapMode,
    bytes: u64,
    index: Option<wgpu::SubmissionIndex>,
) -> Result<()> {
    let (sender, receiver) = mpsc::channel();
    buffer.inner.raw.map_async(mode, 0..bytes, move |result| {
        // The receiver is gone only if the wait below failed, which is reported there.
        let _ = sender.send(result);
    });
    let wait = wgpu::PollType::Wait { submission_index: index, timeout: None };
    device.inner.device.poll(wait).map_err(|e| TensorError::Device(e.to_string()))?;
    device.check()?;
    // A poll on another thread may have taken the callback and not run it yet.
    match receiver.recv_timeout(Duration::from_secs(10)) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(TensorError::Device(e.to_string())),
        Err(_) => Err(TensorError::Device("a buffer was not mapped after its submission had ended".into())),
    }
}

impl Device {
    /// Allocates a read-back buffer.
    ///
    /// # Errors
    /// As [`Device::alloc`].
    pub fn readback(&self, what: &str, bytes: u64) -> Result<Readback> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        Ok(Readback { buffer: self.alloc_raw(what, Class::Staging, buffer_bytes(bytes), usage)? })
    }

    /// Writes bytes through the upload ring. `offset` and the length are multiples of 4.
    ///
    /// # Errors
    /// The range leaves the buffer, the ring does not fit the memory limit, or the device failed.
    pub fn write(&self, to: &Buffer, offset: u64, data: &[u8]) -> Result<()> {
        let end = offset.checked_add(data.len() as u64);
        if end.is_none_or(|end| end > to.bytes()) || !offset.is_multiple_of(4) || !data.len().is_multiple_of(4) {
            let message = format!("{} bytes at {offset} do not fit a buffer of {}", data.len(), to.bytes());
            return Err(TensorError::Shape { op: "write", message });
        }
        let full = chunk_bytes(self.pool().limit());
        let mut ring = lock(&self.inner.transfer);
        ring.chunk = ring.chunk.max(if data.len() as u64 > SMALL_CHUNK { full } else { SMALL_CHUNK });
        for (i, part) in data.chunks(full as usize).enumerate() {
            let slot = ring.next;
            if ring.chunks.get(slot).is_none_or(|chunk| chunk.bytes() < ring.chunk) {
                // The smaller one goes before the larger one comes.
                if slot < ring.chunks.len() {
                    ring.chunks.truncate(slot);
                    ring.pending.truncate(slot);
                }
                let usage = wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC;
                let chunk = self.alloc_raw("upload ring", Class::Staging, ring.chunk, usage).inspect_err(|_| {
                    // Small uploads may still find room.
                    ring.chunk = SMALL_CHUNK;
                })?;
                ring.chunks.push(chunk);
                ring.pending.push(None);
            }
            let chunk = ring.chunks[slot].clone();
            let bytes = part.len() as u64;
            map(self, &chunk, wgpu::MapMode::Write, bytes, ring.pending[slot].take())?;
            let raw = &chunk.inner.raw;
            raw.get_mapped_range_mut(0..bytes).map_err(|e| TensorError::Device(e.to_string()))?.copy_from_slice(part);
            raw.unmap();
            let mut encoder = self.inner.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            encoder.copy_buffer_to_buffer(raw, 0, &to.inner.raw, offset + i as u64 * full, Some(bytes));
            ring.pending[slot] = Some(self.inner.queue.submit([encoder.finish()]));
            ring.next = (slot + 1) % 2;
        }
        self.check()
    }

    /// Reads `bytes` bytes of a buffer and waits for them. For set-up and tests; a decode step uses [`crate::Recorder::submit_and_read`].
    ///
    /// # Errors
    /// As [`crate::Recorder::submit_and_read`].
    pub fn read(&self, from: &Buffer, bytes: u64) -> Result<Vec<u8>> {
        if bytes > from.bytes() {
            let message = format!("{bytes} bytes of a buffer of {}", from.bytes());
            return Err(TensorError::Shape { op: "read", message });
        }
        let readback = self.readback("read", bytes)?;
        Ok(self.recorder().submit_and_read(&readback, from, bytes)?.0)
    }

    /// Waits until the device has done all that was submitted.
    ///
    /// # Errors
    /// The device failed.
    pub fn wait(&self) -> Result<()> {
        self.inner.device.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| TensorError::Device(e.to_string()))?;
        self.check()
    }

    /// Bytes of the upload ring as it is.
    pub fn upload_ring_bytes(&self) -> u64 {
        lock(&self.inner.transfer).chunks.iter().map(Buffer::bytes).sum()
    }

    /// Frees the upload ring; the next upload allocates it again.
    ///
    /// # Errors
    /// The device failed.
    pub fn trim(&self) -> Result<()> {
        *lock(&self.inner.transfer) = Transfer::default();
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
fn encode_rows(values: &[f32], cols: usize, dtype: DType) -> Result<Vec<u8>> {
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
