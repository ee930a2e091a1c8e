//! Reading back: a ring of buffers that the host maps, and values that are still to come.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::counts::RecordStats;
use crate::device::{Device, lock};
use crate::error::{Result, TensorError};
use crate::pool::Class;
use crate::tensor::{Buffer, buffer_bytes};

/// Where a buffer of the ring stands: nothing was submitted that fills it.
const IDLE: u8 = 0;
/// Submitted, and asked to be mapped.
const SUBMITTED: u8 = 1;
/// Mapped: the host may read.
const MAPPED: u8 = 2;
/// The driver refused to map it.
const FAILED: u8 = 3;

/// How long a buffer may take to be mapped after its submission has ended; the callback may be running on another thread.
const PATIENCE: Duration = Duration::from_secs(10);

/// One buffer of a ring. Nobody else holds it while it is free.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) buffer: Buffer,
    state: AtomicU8,
    submission: Mutex<Option<wgpu::SubmissionIndex>>,
}

impl Slot {
    /// Its recording was submitted: maps it when that has ended.
    pub(crate) fn submitted(self: &Arc<Self>, index: &wgpu::SubmissionIndex, bytes: u64) {
        *lock(&self.submission) = Some(index.clone());
        self.state.store(SUBMITTED, Ordering::Release);
        let slot = Arc::clone(self);
        self.buffer.inner.raw.map_async(wgpu::MapMode::Read, 0..bytes, move |result| {
            slot.state.store(if result.is_ok() { MAPPED } else { FAILED }, Ordering::Release);
        });
    }

    fn state(&self) -> u8 {
        self.state.load(Ordering::Acquire)
    }
}

/// Buffers that the host reads, all of one size; allocate them once. Each holds one value that is recorded, on its way or not yet read.
#[derive(Debug)]
pub struct Readback {
    slots: Vec<Arc<Slot>>,
}

impl Device {
    /// Allocates one read-back buffer: for values that are read before the next is recorded.
    ///
    /// # Errors
    /// As [`Device::alloc`].
    pub fn readback(&self, what: &str, bytes: u64) -> Result<Readback> {
        self.readback_ring(what, bytes, 1)
    }

    /// Allocates `depth` read-back buffers of `bytes` bytes each: so many values may be pending.
    ///
    /// # Errors
    /// As [`Device::alloc`].
    pub fn readback_ring(&self, what: &str, bytes: u64, depth: usize) -> Result<Readback> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let slot = |_| {
            let buffer = self.alloc_raw(what, Class::Staging, buffer_bytes(bytes), usage)?;
            Ok(Arc::new(Slot { buffer, state: AtomicU8::new(IDLE), submission: Mutex::default() }))
        };
        Ok(Readback { slots: (0..depth).map(slot).collect::<Result<_>>()? })
    }
}

impl Readback {
    /// A free buffer, for `bytes` bytes.
    pub(crate) fn take(&self, device: &Device, bytes: u64) -> Result<Pending> {
        let fail = |message: String| TensorError::Shape { op: "read_back", message };
        let free = self.slots.iter().find(|slot| Arc::strong_count(slot) == 1);
        let slot = free.ok_or_else(|| fail(format!("all {} buffers of the ring are pending", self.slots.len())))?;
        if bytes > slot.buffer.bytes() {
            return Err(fail(format!("{bytes} bytes through a buffer of {}", slot.buffer.bytes())));
        }
        // Whoever held it has unmapped it.
        slot.state.store(IDLE, Ordering::Release);
        Ok(Pending { slot: Arc::clone(slot), device: device.clone(), bytes, ready: false })
    }
}

/// A value on its way to the host. Dropping it gives the buffer back unread.
#[derive(Debug)]
#[must_use = "a pending value keeps a buffer of its ring"]
pub struct Pending {
    slot: Arc<Slot>,
    device: Device,
    bytes: u64,
    /// Whether it was found to be there.
    ready: bool,
}

impl Pending {
    pub(crate) fn slot(&self) -> Arc<Slot> {
        Arc::clone(&self.slot)
    }

    /// What fills it was submitted.
    #[cfg(feature = "testing")]
    pub(crate) fn submitted(&self, index: &wgpu::SubmissionIndex) {
        self.slot.submitted(index, self.bytes);
    }

    /// Whether it can be seen without waiting.
    ///
    /// # Errors
    /// The device failed.
    pub fn is_ready(&mut self) -> Result<bool> {
        if self.slot.state() == SUBMITTED {
            self.device.poll(wgpu::PollType::Poll)?;
        }
        self.ready = matches!(self.slot.state(), MAPPED | FAILED);
        Ok(self.ready)
    }

    /// Waits for the value and shows it to `see`. The wait is counted, however short it was, unless [`Pending::is_ready`] had said that
    /// there would be none.
    ///
    /// # Errors
    /// Its recording was not submitted; the device failed.
    pub fn see<R>(self, stats: &mut RecordStats, see: impl FnOnce(&[u8]) -> R) -> Result<R> {
        if !self.ready {
            let Some(index) = lock(&self.slot.submission).clone().filter(|_| self.slot.state() != IDLE) else {
                let message = "the recording of this value was not submitted".to_owned();
                return Err(TensorError::Shape { op: "read_back", message });
            };
            stats.host_waits += 1;
            self.device.count(&RecordStats { host_waits: 1, ..RecordStats::default() });
            self.device.poll(wgpu::PollType::Wait { submission_index: Some(index), timeout: None })?;
        }
        self.device.check()?;
        patiently(|| self.slot.state() != SUBMITTED)?;
        if self.slot.state() != MAPPED {
            return Err(TensorError::Device("a buffer could not be mapped".into()));
        }
        let raw = &self.slot.buffer.inner.raw;
        let view = raw.get_mapped_range(0..self.bytes).map_err(|e| TensorError::Device(e.to_string()))?;
        Ok(see(&view))
    }
}

/// Waits until a buffer whose submission has ended is mapped: a poll on another thread may have taken the callback and not run it yet.
pub(crate) fn patiently(mapped: impl Fn() -> bool) -> Result<()> {
    let started = Instant::now();
    while !mapped() {
        if started.elapsed() > PATIENCE {
            return Err(TensorError::Device("a buffer was not mapped after its submission had ended".into()));
        }
        std::thread::yield_now();
    }
    Ok(())
}

impl Drop for Pending {
    fn drop(&mut self) {
        // Ends the mapping, or the wish for it.
        if matches!(self.slot.state(), MAPPED | SUBMITTED) {
            self.slot.buffer.inner.raw.unmap();
        }
    }
}
