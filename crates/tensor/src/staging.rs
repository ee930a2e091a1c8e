//! The upload ring: two chunks of counted memory, one is filled while the other is copied.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::device::Device;
use crate::error::{Result, TensorError};
use crate::pool::Class;
use crate::readback::patiently;
use crate::tensor::Buffer;

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

/// One chunk.
#[derive(Debug)]
struct Chunk {
    buffer: Buffer,
    /// The submission that last read it.
    pending: Option<wgpu::SubmissionIndex>,
    /// Bytes filled since it was mapped; `None`: it is not mapped.
    filled: Option<u64>,
    /// Set when the driver has mapped it.
    mapped: Arc<AtomicBool>,
}

/// The upload ring. Allocated at the first upload, freed by [`Device::trim`].
#[derive(Debug, Default)]
pub(crate) struct Staging {
    chunks: Vec<Chunk>,
    /// Bytes that a chunk must have: that of small uploads until a large one comes.
    chunk: u64,
    /// The chunk that is filled next.
    next: usize,
}

/// A part of an upload that lies in a chunk.
pub(crate) struct Staged<'a> {
    pub(crate) chunk: &'a wgpu::Buffer,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

impl Staging {
    /// Bytes that it holds.
    pub(crate) fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.buffer.bytes()).sum()
    }

    /// Says how large an upload is to come.
    pub(crate) fn expect(&mut self, device: &Device, bytes: u64) {
        let size = if bytes > SMALL_CHUNK { chunk_bytes(device.pool().limit()) } else { SMALL_CHUNK };
        self.chunk = self.chunk.max(size);
    }

    /// Copies the front of `data` into the chunk that is being filled, as much as it holds; `None`: it is full, and has to be submitted
    /// ([`Staging::submitted`]) before more is taken.
    pub(crate) fn take(&mut self, device: &Device, data: &[u8]) -> Result<Option<Staged<'_>>> {
        let slot = self.next;
        let open = self.chunks.get(slot).and_then(|chunk| chunk.filled);
        let filled = match open {
            Some(filled) => filled,
            None => {
                self.open(device)?;
                0
            }
        };
        let Some(chunk) = self.chunks.get_mut(slot) else { return Ok(None) };
        let bytes = (data.len() as u64).min(chunk.buffer.bytes() - filled) / 4 * 4;
        if bytes == 0 {
            return Ok(None);
        }
        let raw = &chunk.buffer.inner.raw;
        // Mapped ranges begin at whole words of 8 bytes.
        let range = filled..filled + bytes;
        raw.get_mapped_range_mut(range)
            .map_err(|e| TensorError::Device(e.to_string()))?
            .copy_from_slice(&data[..bytes as usize]);
        chunk.filled = Some((filled + bytes).next_multiple_of(8).min(chunk.buffer.bytes()));
        Ok(Some(Staged { chunk: raw, offset: filled, bytes }))
    }

    /// Maps the next chunk, of the size that is asked for.
    fn open(&mut self, device: &Device) -> Result<()> {
        let slot = self.next;
        if self.chunks.get(slot).is_none_or(|chunk| chunk.buffer.bytes() < self.chunk) {
            // The smaller one goes before the larger one comes.
            self.chunks.truncate(slot);
            let usage = wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC;
            let buffer = device.alloc_raw("upload ring", Class::Staging, self.chunk, usage).inspect_err(|_| {
                // Small uploads may still find room.
                self.chunk = SMALL_CHUNK;
            })?;
            self.chunks.push(Chunk { buffer, pending: None, filled: None, mapped: Arc::default() });
        }
        let chunk = &mut self.chunks[slot];
        chunk.mapped.store(false, Ordering::Release);
        let mapped = Arc::clone(&chunk.mapped);
        chunk.buffer.inner.raw.map_async(wgpu::MapMode::Write, .., move |result| {
            mapped.store(result.is_ok(), Ordering::Release);
        });
        device.poll(match chunk.pending.take() {
            None => wgpu::PollType::Poll,
            index => wgpu::PollType::Wait { submission_index: index, timeout: None },
        })?;
        patiently(|| chunk.mapped.load(Ordering::Acquire))?;
        chunk.filled = Some(0);
        Ok(())
    }

    /// Before a submission: the host has written what it wanted to.
    pub(crate) fn close(&mut self) {
        if let Some(chunk) = self.chunks.get(self.next).filter(|chunk| chunk.filled.is_some()) {
            chunk.buffer.inner.raw.unmap();
        }
    }

    /// Behind a submission: the chunk that was filled is free when that has ended.
    pub(crate) fn submitted(&mut self, index: &wgpu::SubmissionIndex) {
        let next = self.next;
        if let Some(chunk) = self.chunks.get_mut(next)
            && chunk.filled.take().is_some()
        {
            chunk.pending = Some(index.clone());
            self.next = (next + 1) % 2;
        }
    }
}
