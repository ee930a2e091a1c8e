//! The sums of a counting arena.

use crate::pool::{Class, Usage};
use crate::staging::ring_bytes;
use crate::tensor::buffer_bytes;

/// Bytes by class that what a counting [`crate::Arena`] gave would take from the pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    usage: Usage,
    largest_binding: u64,
    largest_upload: u64,
    parameters: u64,
}

impl Tally {
    /// As [`crate::Device::alloc`].
    pub(crate) fn buffer(&mut self, class: Class, bytes: u64) {
        self.buffers(class, buffer_bytes(bytes), bytes);
    }

    /// As [`crate::Device::readback`].
    pub(crate) fn readback(&mut self, bytes: u64) {
        self.usage.add(Class::Staging, buffer_bytes(bytes));
    }

    /// Buffers of `bytes` bytes in sum, the largest of which has `largest`.
    pub fn buffers(&mut self, class: Class, bytes: u64, largest: u64) {
        self.usage.add(class, bytes);
        self.largest_binding = self.largest_binding.max(largest);
    }

    /// As [`crate::Device::write`]: the upload ring is as large as the largest upload asks for.
    pub fn upload(&mut self, bytes: u64) {
        self.largest_upload = self.largest_upload.max(bytes);
    }

    /// As [`crate::Arena::will_read`].
    pub(crate) fn read(&mut self, numbers: u64) {
        self.parameters = self.parameters.saturating_add(numbers);
    }

    /// Counts the upload ring under this memory limit, once all uploads are known.
    pub fn upload_ring(&mut self, memory_limit: u64) {
        if self.largest_upload > 0 {
            self.usage.add(Class::Staging, ring_bytes(self.largest_upload, memory_limit));
        }
    }

    /// Adds what another tally counted, `count` times.
    pub fn add(&mut self, other: &Self, count: u64) {
        for class in Class::ALL {
            self.usage.add(class, other.usage.of(class).saturating_mul(count));
        }
        self.parameters = self.parameters.saturating_add(other.parameters.saturating_mul(count));
        if count > 0 {
            self.largest_binding = self.largest_binding.max(other.largest_binding);
            self.largest_upload = self.largest_upload.max(other.largest_upload);
        }
    }

    /// The sums.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Numbers of a checkpoint that are read for what was counted.
    pub fn parameters(&self) -> u64 {
        self.parameters
    }

    /// Bytes of the largest buffer that a kernel binds.
    pub fn largest_binding(&self) -> u64 {
        self.largest_binding
    }
}
